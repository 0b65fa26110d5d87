// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/tenant"
)

var pathName = regexp.MustCompile(`\{[^}]*\}`)

// TestEveryOperationKnowsItsRole walks each operation with a token of each role and with none. A role that lacks the
// verb everywhere is told so by its rule before anything is looked up; nothing that anybody sends is our fault.
func TestEveryOperationKnowsItsRole(t *testing.T) {
	w := newWorld(t, "")
	tokens := map[tenant.Role]string{}
	for _, r := range tenant.Roles {
		tokens[r.Role] = w.token("Acme", string(r.Role)).Token
	}
	ops := w.h.api.Operations()
	if len(ops) < 60 {
		t.Fatalf("only %d operations", len(ops))
	}
	for _, op := range ops {
		url := w.info.URL + pathName.ReplaceAllString(op.Path, "dev_nobody")
		c := w.client(nil)
		ask := func(token string) answer {
			a, err := w.do(c, op.Method, url, token, "application/json", []byte(`{}`))
			if err != nil {
				t.Fatalf("%s: %v", op.ID, err)
			}
			if a.status >= 500 {
				t.Errorf("%s: %d %s", op.ID, a.status, a.body)
			}
			return a
		}
		if a := ask(""); op.Public != (a.status != 401) {
			t.Errorf("%s without a token: %d %s", op.ID, a.status, a.body)
		}
		if op.Public {
			continue
		}
		if op.Verb == "" || tenant.Verb(op.Verb).Text() == op.Verb {
			t.Errorf("%s declares the verb %q, which is not in the table", op.ID, op.Verb)
		}
		for role, token := range tokens {
			a := ask(token)
			refused := a.status == 403 && a.rule() == "access."+op.Verb
			if role.Has(tenant.Verb(op.Verb)) == refused || a.status == 401 {
				t.Errorf("%s as %s: %d %s", op.ID, role, a.status, a.body)
			}
		}
	}
	w.ready()
}

// TestTheWallBetweenTenants: the owner of one manufacturer, who may do everything at home, finds nothing of another.
func TestTheWallBetweenTenants(t *testing.T) {
	w := newWorld(t, "")
	a, b := w.newMaker("Acme"), w.newMaker("Rival")
	u := a.make()
	ids := map[string]string{
		"devices": u.id, "products": a.product, "revisions": a.revision, "cohorts": "coh" + strings.TrimPrefix(a.revision, "rev"), "batches": a.batch, "stations": a.stationID, "solutions": a.solution,
	}
	c := w.client(nil)
	walked := 0
	for _, op := range w.h.api.Operations() {
		rest, _ := strings.CutPrefix(op.Path, "/v1/")
		collection, _, _ := strings.Cut(rest, "/")
		id := ids[collection]
		if id == "" || !strings.Contains(op.Path, "{") {
			continue
		}
		walked++
		body := `{"reason":"x","name":"reboot","code":"` + u.claim + `","solution":"` + b.solution + `","produced":1,"support_end":"2040-01-01T00:00:00Z"}`
		for _, m := range []*maker{b, a} { // the owner last, as the control: the same request reaches the thing
			if m == a && op.Method != "GET" {
				continue
			}
			got, err := w.do(c, op.Method, w.info.URL+pathName.ReplaceAllString(op.Path, id), m.owner, "application/json", []byte(body))
			if err != nil {
				t.Fatal(err)
			}
			found := got.status < 400
			if strings.Contains(string(got.body), u.claim) || m == b && strings.Contains(string(got.body), a.tenant) {
				t.Errorf("%s: the answer tells a secret: %s", op.ID, got.body)
			}
			if m == b && got.status != 404 && !(op.Method != "GET" && (got.status == 400 || got.status == 422)) || m == a && !found && got.status != 404 {
				t.Errorf("%s as the owner of %s: %d %s", op.ID, m.tenant, got.status, got.body)
			}
		}
	}
	if walked < 12 {
		t.Errorf("only %d operations were walked", walked)
	}
	// Lists of one are empty of the other's.
	for _, path := range []string{"devices", "products", "batches", "stations", "solutions", "audit/entries?page_size=1000", "people", "tokens"} {
		got, err := w.do(c, "GET", w.info.URL+"/v1/"+path, b.owner, "", nil)
		if err != nil || got.status != 200 {
			t.Fatalf("%s: %d %s %v", path, got.status, got.body, err)
		}
		for _, id := range append([]string{a.tenant, u.id}, a.product, a.batch, a.stationID, a.solution) {
			if strings.Contains(string(got.body), id) {
				t.Errorf("/v1/%s of another tenant shows %s", path, id)
			}
		}
	}
	// The claim code of another's unit, and another's solution for the own unit.
	code := b.make()
	for _, in := range []string{fmt.Sprintf(`{"code":%q,"solution":%q}`, u.claim, b.solution), fmt.Sprintf(`{"code":%q,"solution":%q}`, code.claim, a.solution)} {
		got, err := w.do(c, "POST", w.info.URL+"/v1/claims", b.owner, "application/json", []byte(in))
		if err != nil || got.status != 404 {
			t.Errorf("%s: %d %s %v", in, got.status, got.body, err)
		}
	}
}
