// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/store"
)

// planted is in each name that whoever is held to a solution must never read.
const planted = "planted"

// quarter is a manufacturer with two distributors that stand beside each other in one solution, and what belongs to
// each: "own" is the middle one that the test looks from, all else is planted.
type quarter struct {
	*maker
	w *world

	own, ownSub    string // solutions: the middle one, and one below
	token, subAuth string // bearer tokens of an owner of own, and of an owner of ownSub
	ownDevice      *unit  // in own
	subDevice      *unit  // in ownSub
	ids            map[string][]string
	foreign        map[string]string // a planted thing by the collection of the API that it is in
}

// solution makes a solution.
func (q *quarter) inside(parent, name string) string {
	q.w.t.Helper()
	var made struct{ ID string }
	q.w.post(q.owner, "/v1/solutions", map[string]any{"name": name, "owner": name + " Ltd", "parent": parent}, &made)
	return made.ID
}

// access makes an owner's token on a solution.
func (q *quarter) access(solution, name string) string {
	q.w.t.Helper()
	var made struct{ ID, Token string }
	q.w.post(q.owner, "/v1/tokens", map[string]any{"name": name, "role": "owner", "solution": solution, "expires": time.Now().Add(time.Hour)}, &made)
	q.foreign["tokens"] = made.ID
	return made.Token
}

// person puts a person with a right into the tenant, without the passkey.
func (q *quarter) person(name, solution string) string {
	q.w.t.Helper()
	id := store.NewID("per")
	err := q.w.h.db.Write(q.w.t.Context(), func(tx *store.Tx) error {
		if _, err := tx.Exec(`INSERT INTO person (id, tenant, name, handle, at, seen, removed) VALUES ($1, $2, $3, $4, 0, 0, 0)`, id, q.tenant, name, []byte(id)); err != nil {
			return err
		}
		_, err := tx.Exec(`INSERT INTO access_grant (holder, role, tenant, product, solution) VALUES ($1, 'owner', $2, '', $3)`, id, q.tenant, solution)
		return err
	})
	if err != nil {
		q.w.t.Fatal(err)
	}
	return id
}

// newQuarter plants one of everything beside and above the middle solution.
func newQuarter(w *world) *quarter {
	t := w.t
	q := &quarter{maker: w.newMaker("Acme"), w: w, foreign: map[string]string{}}
	put := func(method, path, collection string, in any) {
		t.Helper()
		b, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		a, err := w.do(w.client(nil), method, w.info.URL+path, q.owner, "application/json", b)
		if err != nil || a.status >= 300 {
			t.Fatalf("%s %s: %d %s %v", method, path, a.status, a.body, err)
		}
		var made struct{ ID string }
		if json.Unmarshal(a.body, &made) == nil && made.ID != "" && collection != "" {
			q.foreign[collection] = made.ID
		}
	}
	top := q.inside("", "planted-top")
	q.own = q.inside(top, "Mine")
	q.ownSub = q.inside(q.own, "Mine below")
	beside := q.inside(top, "planted-sibling")
	below := q.inside(beside, "planted-nephew")
	q.foreign["solutions"] = beside
	q.token, q.subAuth = q.access(q.own, "my program"), q.access(q.ownSub, "the program below")
	q.access(beside, "planted-program")
	q.person("A colleague", q.own)
	q.foreign["people"] = q.person("planted-rival", beside)
	maker := q.person("planted-boss", "")

	q.ownDevice, q.subDevice = q.makeIn("OWN-1", q.own), q.makeIn("OWN-2", q.ownSub)
	there := q.makeIn("PLANTED-1", beside)
	deeper := q.makeIn("PLANTED-2", below)
	q.foreign["devices"] = there.id

	put("POST", "/v1/products", "products", map[string]any{"name": "planted-secret", "model": "planted-secret"})
	put("POST", "/v1/groups", "groups", map[string]any{"name": "planted-group", "filter": "serial:PLANTED*", "note": "planted-note"})
	put("POST", "/v1/alarm-rules", "alarm-rules", map[string]any{"name": "planted-rule", "filter": "serial:PLANTED*", "kind": "threshold", "stream": "env", "field": "a", "op": ">", "value": 0.5, "severity": "critical"})
	put("POST", "/v1/jobs", "jobs", map[string]any{"kind": "command", "title": "planted-job", "name": "reboot", "args": map[string]any{}, "solution": beside})
	put("POST", "/v1/notifications/endpoints", "notifications", map[string]any{"name": "planted-endpoint", "kind": "webhook", "address": "https://planted.example/hook", "topics": []string{"*"}})
	put("POST", "/v1/enrol-tokens", "enrol-tokens", map[string]any{"name": "planted-enrol", "revision": q.revision, "quota": 3, "pattern": "PLANTED*", "solution": beside, "expires": time.Now().Add(time.Hour)})
	put("PUT", "/v1/enrolment-policies/planted-policy", "", map[string]any{"approval": "automatic", "solution": beside})
	put("POST", "/v1/preauthorised", "", map[string]any{"product": q.product, "serial": "PLANTED-9"})
	put("POST", "/v1/signals", "signals", map[string]any{"product": q.product, "title": "planted-signal"})
	put("POST", "/v1/data/shares", "data", map[string]any{"solution": beside, "recipient": "planted-recipient", "purpose": "planted-purpose", "not_gatekeeper": true, "expires": time.Now().Add(time.Hour)})
	put("POST", "/v1/batches", "batches", map[string]any{"revision": q.revision, "name": "planted-batch", "size": 2})
	q.foreign["stations"] = q.stationID
	for _, d := range []*unit{there, deeper} {
		put("PATCH", "/v1/devices/"+d.id+"/labels", "", map[string]any{"set": map[string]string{"planted-site": "planted-ghent"}})
		put("PATCH", "/v1/devices/"+d.id+"/twin", "", map[string]any{"planted": 1})
		put("POST", "/v1/devices/"+d.id+"/suspend", "", map[string]any{"reason": "planted-reason"})
		put("POST", "/v1/devices/"+d.id+"/resume", "", map[string]any{"reason": "planted-reason"})
	}
	var program struct{ ID, Token string } // of the manufacturer; it acts on what is in the own solution
	w.post(q.owner, "/v1/tokens", map[string]any{"name": "planted-staff", "role": "owner", "expires": time.Now().Add(time.Hour)}, &program)
	for _, does := range []string{"suspend", "resume"} {
		w.post(program.Token, "/v1/devices/"+q.ownDevice.id+"/"+does, map[string]any{"reason": "an inspection"}, nil)
	}
	for _, d := range []*unit{q.ownDevice, there} {
		field := map[*unit]string{q.ownDevice: "mine", there: "planted_field"}[d]
		a, err := w.do(w.client(&d.ldevid), "POST", w.info.Devices+"/d/1/messages", "", "application/json",
			[]byte(fmt.Sprintf(`[{"topic":"tele/env","payload":{"values":{"a":1,%q:2}}}]`, field)))
		if err != nil || a.status != 200 {
			t.Fatalf("telemetry: %d %s %v", a.status, a.body, err)
		}
	}
	w.reads(q.owner, "/v1/alarms", func(b []byte) bool { return strings.Contains(string(b), "planted-rule") })
	w.reads(q.owner, "/v1/devices/"+there.id+"/telemetry/latest", func(b []byte) bool { return strings.Contains(string(b), "planted_field") })

	q.foreign["tokens"] = program.ID
	q.ids = map[string][]string{"solution": {top, beside, below}, "device": {there.id, deeper.id}, "person": {q.foreign["people"], maker}}
	return q
}

// leaks are the planted names and ids in an answer. What the request itself named is not news.
func (q *quarter) leaks(body, asked string) (out []string) {
	text := strings.ToLower(body)
	for _, typed := range strings.FieldsFunc(strings.ToLower(asked), func(r rune) bool { return strings.ContainsRune("/?&=:* \"{},", r) }) {
		if strings.Contains(typed, planted) {
			text = regexp.MustCompile(regexp.QuoteMeta(typed)+`([^a-z0-9-]|$)`).ReplaceAllString(text, "$1")
		}
	}
	if at := strings.Index(text, planted); at >= 0 {
		out = append(out, "…"+text[max(0, at-60):min(len(text), at+40)]+"…")
	}
	for kind, ids := range q.ids {
		for _, id := range ids {
			if strings.Contains(text, strings.ToLower(id)) && !strings.Contains(asked, id) {
				at := strings.Index(text, strings.ToLower(id))
				out = append(out, "the id of a "+kind+": …"+text[max(0, at-60):min(len(text), at+60)]+"…")
			}
		}
	}
	return out
}

// asWritten fills the names of a path, each with a value of the test's own.
func asWritten(path string, value func(name string) string) string {
	return pathName.ReplaceAllStringFunc(path, func(n string) string { return url.PathEscape(value(strings.Trim(n, "{}."))) })
}

// TestTheWallBetweenSolutions: the owner of a middle solution, who may do everything there and below, walks every
// operation and every page, and reads nothing of what stands beside or above.
func TestTheWallBetweenSolutions(t *testing.T) {
	w := newWorld(t, "")
	q := newQuarter(w)
	c := w.client(nil)
	ask := func(method, path, token, body string) answer {
		t.Helper()
		a, err := w.do(c, method, w.info.URL+path, token, map[bool]string{true: "application/json"}[method != "GET"], []byte(body))
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		if a.status >= 500 && a.status != 503 {
			t.Errorf("%s %s: %d %s", method, path, a.status, a.body)
		}
		return a
	}
	walk := func(path string, what string) {
		t.Helper()
		a := ask("GET", path, q.token, "")
		for _, leak := range q.leaks(string(a.body), path) {
			t.Errorf("%s %s shows %s", what, path, leak)
		}
	}
	mine := map[string]string{"devices": q.ownDevice.id, "solutions": q.own, "products": q.product, "batches": q.batch, "stations": q.stationID}
	operations, pages := 0, 0
	for _, op := range w.h.api.Operations() {
		operations++
		rest, _ := strings.CutPrefix(op.Path, "/v1/")
		collection, _, _ := strings.Cut(rest, "/")
		foreign := asWritten(op.Path, func(string) string { return q.foreign[collection] })
		if !strings.Contains(op.Path, "{") {
			foreign = ""
		}
		if op.Method == "GET" {
			walk(asWritten(op.Path, func(string) string { return mine[collection] }), op.ID)
			if foreign == "" {
				continue
			}
			a := ask("GET", foreign, q.token, "")
			if a.status < 400 && q.foreign[collection] != "" {
				t.Errorf("%s finds what stands beside: %d %s", op.ID, a.status, a.body)
			}
			for _, leak := range q.leaks(string(a.body), foreign) {
				t.Errorf("%s %s shows %s", op.ID, foreign, leak)
			}
			continue
		}
		if foreign == "" || q.foreign[collection] == "" {
			continue
		}
		// What changes something, asked of a thing that stands beside.
		body := `{"reason":"x","name":"x","kind":"set","grants":[],"note":"","patch":{},"filter":"serial:PLANTED*","severity":"info","solution":"` + q.own + `","parent":"` + q.own + `"}`
		a := ask(op.Method, foreign, q.token, body)
		if a.status < 400 {
			t.Errorf("%s changes what stands beside: %d %s", op.ID, a.status, a.body)
		}
		for _, leak := range q.leaks(string(a.body), foreign+body) {
			t.Errorf("%s %s shows %s", op.ID, foreign, leak)
		}
	}
	for _, pattern := range w.h.console.Patterns() {
		method, path, _ := strings.Cut(pattern, " ")
		if method != "GET" || strings.HasSuffix(path, "/live") || strings.Contains(path, "{secret}") {
			continue
		}
		pages++
		collection := strings.Split(path, "/")[1]
		walk(asWritten(strings.ReplaceAll(path, "{$}", ""), func(string) string { return mine[collection] }), "page")
		if strings.Contains(path, "{") {
			walk(asWritten(strings.ReplaceAll(path, "{$}", ""), func(string) string { return q.foreign[collection] }), "page")
		}
	}
	if operations < 200 || pages < 40 {
		t.Errorf("only %d operations and %d pages were walked", operations, pages)
	}
	for _, filter := range []string{"solution:planted-sibling", "solution:planted-siblin", "owner:planted-siblin", "product:planted-secre", "group:planted-group", "group:planted-grou", "label.planted-site:planted-ghent",
		"serial:PLANTED*", "id:" + q.foreign["devices"], "solution:" + q.foreign["solutions"], "solution:none", "-serial:OWN*", "solution:Mine"} {
		in := url.Values{"filter": {filter}}.Encode()
		for _, path := range []string{"/v1/devices?", "/fleet?", "/fleet/selection?", "/v1/telemetry/export?from=2026-01-01T00:00:00Z&", "/fleet/export?"} {
			a := ask("GET", path+in, q.token, "")
			for _, leak := range q.leaks(string(a.body), filter) {
				t.Errorf("%s%s shows %s", path, filter, leak)
			}
		}
	}
	for _, path := range []string{"/access/solutions?at=" + q.own, "/access/solutions?at=" + q.foreign["solutions"], "/v1/solutions?within=" + q.own, "/claim", "/v1/prometheus/api/v1/series?match[]={__name__=~\".%2B\"}",
		"/v1/prometheus/api/v1/query?query={__name__=~\".%2B\"}", "/devices/" + q.subDevice.id} {
		walk(path, "")
	}
	// The own part is whole: both levels, and nobody sees less than before.
	for path, wants := range map[string][]string{
		"/v1/solutions": {q.own, q.ownSub}, "/v1/devices": {q.ownDevice.id, q.subDevice.id}, "/v1/data/devices": {q.ownDevice.id, q.subDevice.id}, "/v1/people": {"A colleague"}, "/v1/tokens": {"my program", "the program below"},
		"/v1/devices?filter=solution:Mine": {q.ownDevice.id, q.subDevice.id}, "/v1/devices/" + q.subDevice.id: {q.subDevice.serial}, "/fleet": {"OWN-1", "OWN-2"}, "/fleet?filter=solution:Mine": {"OWN-1", "OWN-2", `class="level-2"`}, "/access/solutions": {"Mine", "Mine below"},
	} {
		a := ask("GET", path, q.token, "")
		for _, want := range wants {
			if !strings.Contains(string(a.body), want) {
				t.Errorf("%s lacks %s: %d %.600s", path, want, a.status, a.body)
			}
		}
	}
	if len(q.leaks(string(ask("GET", "/fleet", q.owner, "").body), "")) == 0 {
		t.Error("the manufacturer itself reads nothing of what is planted: this test cannot fail")
	}
	// Nor does a right go up: the program below sees its part of that.
	for _, path := range []string{"/v1/solutions", "/v1/devices", "/v1/tokens", "/v1/people", "/fleet", "/access/solutions", "/access"} {
		a := ask("GET", path, q.subAuth, "")
		for _, above := range []string{q.own, q.ownDevice.id, "OWN-1", "my program", "A colleague"} {
			if strings.Contains(string(a.body), above) {
				t.Errorf("%s of the one below shows %s", path, above)
			}
		}
	}
}

// TestRightsNeverGoUpOrBeside: what the owner of a middle solution may do below it, it may not do beside or above, and a
// refusal tells no name. A right follows the tree while its token lives.
func TestRightsNeverGoUpOrBeside(t *testing.T) {
	w := newWorld(t, "")
	q := newQuarter(w)
	c := w.client(nil)
	ask := func(token, method, path string, in any) answer {
		t.Helper()
		b, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		a, err := w.do(c, method, w.info.URL+path, token, "application/json", b)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	beside, top := q.foreign["solutions"], q.ids["solution"][0]
	box := q.boxed("OWN-3")
	soon := time.Now().Add(time.Hour)
	for _, x := range []struct {
		what, method, path string
		in                 func(solution string) map[string]any
	}{
		{"makes a solution", "POST", "/v1/solutions", func(s string) map[string]any { return map[string]any{"name": "planted-nephew", "parent": s} }},
		{"invites", "POST", "/v1/people", func(s string) map[string]any {
			return map[string]any{"name": "Somebody", "role": "customer", "solution": s}
		}},
		{"makes a token", "POST", "/v1/tokens", func(s string) map[string]any {
			return map[string]any{"name": "t", "role": "customer", "solution": s, "expires": soon}
		}},
		{"shares data", "POST", "/v1/data/shares", func(s string) map[string]any {
			return map[string]any{"solution": s, "recipient": "r", "purpose": "p", "not_gatekeeper": true, "expires": soon}
		}},
		{"makes a job", "POST", "/v1/jobs", func(s string) map[string]any {
			return map[string]any{"kind": "twin", "args": map[string]any{"a": 1}, "solution": s}
		}},
		{"transfers", "POST", "/v1/devices/" + q.ownDevice.id + "/transfer", func(s string) map[string]any { return map[string]any{"solution": s} }},
		{"claims", "POST", "/v1/claims", func(s string) map[string]any { return map[string]any{"solution": s, "code": box} }},
		{"moves", "PATCH", "/v1/solutions/" + q.ownSub, func(s string) map[string]any { return map[string]any{"parent": s} }},
	} {
		for _, solution := range []string{beside, top, "sol_nobody", ""} {
			a := ask(q.token, x.method, x.path, x.in(solution))
			if a.status < 400 || a.status >= 500 {
				t.Errorf("%s in %q: %d %s", x.what, solution, a.status, a.body)
			}
			sent, err := json.Marshal(x.in(solution))
			if err != nil {
				t.Fatal(err)
			}
			for _, leak := range q.leaks(string(a.body), x.path+string(sent)) {
				t.Errorf("%s in %q: the refusal tells %s", x.what, solution, leak)
			}
		}
		if a := ask(q.token, x.method, x.path, x.in(q.ownSub)); a.status >= 300 && x.what != "moves" {
			t.Errorf("%s below: %d %s", x.what, a.status, a.body)
		}
	}
	// The own solution itself is named and moved from above only, and nobody above or beside is seen or put out.
	for _, change := range []map[string]any{{"name": "Ours"}, {"parent": ""}, {"parent": beside}} {
		if a := ask(q.token, "PATCH", "/v1/solutions/"+q.own, change); a.status < 400 {
			t.Errorf("the owner of a solution changes it by %v: %d %s", change, a.status, a.body)
		}
	}
	for _, person := range q.ids["person"] {
		for _, end := range []string{"remove", "sign-out"} {
			if a := ask(q.token, "POST", "/v1/people/"+person+"/"+end, nil); a.status != 404 {
				t.Errorf("%s of somebody beside or above: %d %s", end, a.status, a.body)
			}
		}
	}
	if a := ask(q.owner, "GET", "/v1/audit/entries?page_size=200", nil); !strings.Contains(string(a.body), "device.transferred") || !strings.Contains(string(a.body), "access.solution-created") {
		t.Errorf("the log lacks a transfer or a solution: %.300s", a.body)
	}

	// A right follows the tree at once, in both directions.
	reads := func(token string) bool {
		t.Helper()
		a := ask(token, "GET", "/v1/devices/"+q.subDevice.id, nil)
		if (a.status == 200) != strings.Contains(string(a.body), q.subDevice.serial) {
			t.Errorf("the device: %d %s", a.status, a.body)
		}
		return a.status == 200
	}
	if !reads(q.token) {
		t.Error("the owner of a solution does not read a device below")
	}
	if a := ask(q.owner, "PATCH", "/v1/solutions/"+q.ownSub, map[string]any{"parent": beside}); a.status != 200 {
		t.Fatalf("move: %d %s", a.status, a.body)
	}
	if reads(q.token) || !reads(q.subAuth) {
		t.Error("a right did not follow what was moved out from under it")
	}
	if a := ask(q.owner, "PATCH", "/v1/solutions/"+q.ownSub, map[string]any{"parent": q.own}); a.status != 200 {
		t.Fatalf("move back: %d %s", a.status, a.body)
	}
	if !reads(q.token) {
		t.Error("a right did not follow what was moved in under it")
	}
	if a := ask(q.owner, "GET", "/v1/audit/entries?page_size=200", nil); !strings.Contains(string(a.body), "access.solution-moved") {
		t.Errorf("the log lacks the moves: %.300s", a.body)
	}
}
