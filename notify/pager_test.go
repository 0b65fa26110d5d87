// SPDX-License-Identifier: AGPL-3.0-only

package notify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

const routingKey = "e93facc04764012d7bfb002500d5d1a6"

// pagerTool takes events by the published description of PagerDuty's Events API v2 and keeps incidents as it does: the same
// key is the same incident while it is open, and what is resolved opens again by a trigger.
type pagerTool struct {
	mu        sync.Mutex // guards the fields below
	fail      func() (int, http.Header)
	incidents map[string]string // dedup_key -> triggered, acknowledged, resolved
	opened    map[string]int    // how often each was opened
	events    []pagerEvent
}

func newPager(t *testing.T) (*pagerTool, string) {
	p := &pagerTool{incidents: map[string]string{}, opened: map[string]int{}}
	srv := httptest.NewServer(p)
	t.Cleanup(srv.Close)
	return p, srv.URL + "/v2/enqueue"
}

func (p *pagerTool) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail != nil {
		status, header := p.fail()
		for k, v := range header {
			w.Header()[k] = v
		}
		w.WriteHeader(status)
		return
	}
	var faults []string
	check := func(ok bool, what string) {
		if !ok {
			faults = append(faults, what)
		}
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 512<<10+1))
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	check(err == nil && len(body) <= 512<<10 && r.Method == http.MethodPost && r.URL.Path == "/v2/enqueue" && kind == "application/json", "request")
	var e pagerEvent
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	check(d.Decode(&e) == nil, "JSON parse error")
	check(len(e.RoutingKey) == 32, fmt.Sprintf("Length of 'routing_key' is incorrect (should be 32 characters): %s", e.RoutingKey))
	check(e.Action == "trigger" || e.Action == "acknowledge" || e.Action == "resolve", "event_action")
	check(len(e.Dedup) <= 255 && (e.Dedup != "" || e.Action == "trigger"), "dedup_key")
	check(e.Payload.Summary != "" && utf8.RuneCountInString(e.Payload.Summary) <= 1024 && e.Payload.Source != "", "payload")
	switch e.Payload.Severity {
	case "critical", "error", "warning", "info":
	default:
		faults = append(faults, "severity")
	}
	for _, l := range e.Links {
		check(strings.HasPrefix(l.Href, "https://"), "link")
	}
	w.Header().Set("Content-Type", "application/json")
	if len(faults) > 0 {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]any{"status": "invalid event", "message": "Event object is invalid", "errors": faults})
		return
	}
	p.events = append(p.events, e)
	switch was := p.incidents[e.Dedup]; {
	case e.Action == "trigger" && (was == "" || was == "resolved"):
		p.incidents[e.Dedup] = "triggered"
		p.opened[e.Dedup]++
	case e.Action == "acknowledge" && was == "triggered":
		p.incidents[e.Dedup] = "acknowledged"
	case e.Action == "resolve" && was != "":
		p.incidents[e.Dedup] = "resolved"
	}
	w.WriteHeader(http.StatusAccepted)
	_ = json.NewEncoder(w).Encode(map[string]string{"status": "success", "message": "Event processed", "dedup_key": e.Dedup})
}

func (h *house) pager(url string, topics ...string) Endpoint {
	h.t.Helper()
	e, secret, err := h.Add(h.t.Context(), Endpoint{Tenant: ten, Name: "pager", Kind: Pager, Address: url, Topics: topics, Actor: "per_1", Credential: routingKey})
	if err != nil || secret != "" || e.Credential != "" {
		h.t.Fatalf("%+v %q %v", e, secret, err)
	}
	return e
}

func thread(n Notice, thread string, p Phase) Notice {
	n.Thread, n.Phase = thread, p
	if p == Over {
		n.Topic = "alarm.cleared"
	}
	return n
}

// TestAThreadIsOneIncident: what began, was taken and is over is one incident of each pager that was told of it, and of no
// other; who listens to the end alone hears of it as a webhook, and a pager does not.
func TestAThreadIsOneIncident(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		p, url := newPager(t)
		h.pager(url, "alarm.raised") // not to alarm.cleared: the end reaches it all the same
		h.told(thread(raised("alm_1"), "alm_1", Begun))
		late, lateURL := newPager(t)
		h.pager(lateURL, "alarm.*")
		hook, _ := h.hear("alarm.cleared")
		h.pass()
		first := p.events[0]
		if len(p.events) != 1 || first.RoutingKey != routingKey || first.Action != "trigger" || first.Dedup != "alm_1" || first.Payload.Severity != Warning || first.Payload.Source != "ot.example" ||
			first.Payload.Summary != "Too hot" || first.Payload.Class != "alarm.raised" || first.Payload.Component != "alm_1" || !first.Payload.Timestamp.Equal(t0) ||
			string(first.Payload.Details.Facts) != `{"value":81}` || first.Links[0].Href != "https://ot.example:8443/alarms/alm_1" {
			t.Fatalf("%+v", p.events)
		}
		h.told(thread(raised("alm_1"), "alm_1", Taken))
		h.pass()
		if p.incidents["alm_1"] != "acknowledged" {
			t.Errorf("%v", p.incidents)
		}
		h.told(thread(raised("alm_1"), "alm_1", Over))
		h.pass()
		if p.incidents["alm_1"] != "resolved" || p.opened["alm_1"] != 1 || len(p.events) != 3 {
			t.Errorf("%v, opened %v", p.incidents, p.opened)
		}
		if len(late.events) != 0 || len(hook.bodies) != 1 || hook.bodies[0].Data.Thread != "alm_1" || hook.bodies[0].Data.Phase != Over {
			t.Errorf("a pager that was told of no beginning: %+v; the webhook: %+v", late.events, hook.bodies)
		}
	})
}

// TestTheEndIsNotOvertaken: a pager that was away while something began and ended is not woken for it afterwards.
func TestTheEndIsNotOvertaken(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		p, url := newPager(t)
		h.pager(url, "alarm.raised")
		p.fail = func() (int, http.Header) { return 502, nil }
		h.told(thread(raised("alm_1"), "alm_1", Begun))
		h.pass()
		h.told(thread(raised("alm_1"), "alm_1", Over))
		p.fail = nil
		h.hand.Advance(48 * time.Hour)
		h.pass()
		if len(p.opened) != 0 || len(p.events) != 1 || p.events[0].Action != "resolve" {
			t.Errorf("%+v", p.events)
		}
		if got := h.deliveries(Moot); len(got) != 1 || got[0].Attempts != 1 {
			t.Errorf("%+v", got)
		}
	})
}

// TestSettle: what was told by Call is over for everybody who was called, and only pagers are told so.
func TestSettle(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		p, url := newPager(t)
		pager := h.pager(url, "alarm.raised")
		hook, phone := h.hear("alarm.raised")
		hook.answer = func() (int, http.Header) { return 503, nil }
		call := thread(raised("cal_1"), "cal_1", Begun)
		settle := func(n Notice) {
			t.Helper()
			if err := h.db.Write(t.Context(), func(tx *store.Tx) error { return h.Settle(tx, n) }); err != nil {
				t.Fatal(err)
			}
			h.pass()
		}
		if err := h.db.Write(t.Context(), func(tx *store.Tx) error {
			n, err := h.Call(tx, call, []string{pager.ID, phone.ID})
			if n != 2 {
				t.Errorf("%d could be called", n)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		h.pass()
		settle(thread(call, "cal_other", Over))
		if len(hook.bodies) != 1 || len(p.events) != 1 {
			t.Errorf("%d, %d", len(hook.bodies), len(p.events))
		}
		settle(thread(call, "cal_1", Over))
		hook.answer = taken
		h.hand.Advance(48 * time.Hour)
		h.pass()
		if p.incidents["cal_1"] != "resolved" || len(hook.bodies) != 1 {
			t.Errorf("%v; the telephone rang %d times", p.incidents, len(hook.bodies))
		}
	})
}

// TestPagerTriedAgain: 429 and faults of the tool are tried again, soon and after what it asks for, under one key; what it
// calls wrong is not, and its words are on record without the key.
func TestPagerTriedAgain(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		var log bytes.Buffer
		h.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		p, url := newPager(t)
		h.pager(url, "alarm.raised")
		tries := 0
		answers := []func() (int, http.Header){func() (int, http.Header) { return 429, http.Header{"Retry-After": {"30"}} }, func() (int, http.Header) { return 500, nil }}
		p.fail = func() (int, http.Header) { tries++; return answers[tries-1]() }
		h.told(raised("alm_1"))
		h.pass()
		h.hand.Advance(29 * time.Second)
		if h.pass(); tries != 1 {
			t.Fatalf("tried %d times", tries)
		}
		h.hand.Advance(time.Second)
		if h.pass(); tries != 2 {
			t.Fatalf("tried %d times", tries)
		}
		p.fail = nil
		h.hand.Advance(pagerWaits[1])
		if h.pass(); len(p.events) != 1 || p.events[0].Dedup != h.deliveries(Done)[0].ID {
			t.Errorf("%+v", p.events)
		}
		if _, _, err := h.Add(t.Context(), Endpoint{Tenant: ten, Name: "x", Kind: Pager, Address: url, Topics: []string{"case.deadline"}, Actor: "per_1", Credential: "short-secret"}); err != nil {
			t.Fatal(err)
		}
		n := raised("cas_1")
		n.Topic = "case.deadline"
		h.told(n)
		h.pass()
		failed := h.deliveries(Failed)
		if len(failed) != 1 || failed[0].Attempts != 1 || !strings.HasPrefix(failed[0].Answer, "status 400: Event object is invalid Length of 'routing_key' is incorrect") {
			t.Fatalf("%+v", failed)
		}
		if strings.Contains(failed[0].Answer+log.String(), "short-secret") {
			t.Errorf("the key is in %q or %q", failed[0].Answer, log.String())
		}
	})
}

// TestCredentialsAreSealed: neither a list of endpoints nor a row of the database nor a leaf of the log says a key.
func TestCredentialsAreSealed(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		got := make(chan http.Header, 1)
		srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header }))
		defer srv.Close()
		_, url := newPager(t)
		h.pager(url, "alarm.raised")
		if _, _, err := h.Add(t.Context(), Endpoint{Tenant: ten, Name: "Jira", Kind: Webhook, Address: srv.URL, Topics: []string{"alarm.raised"}, Actor: "per_1", Header: "X-Automation-Webhook-Token", Credential: routingKey}); err != nil {
			t.Fatal(err)
		}
		h.told(raised("alm_1"))
		h.pass()
		if header := <-got; header.Get("X-Automation-Webhook-Token") != routingKey || header.Get("webhook-signature") == "" {
			t.Errorf("%v", header)
		}
		es, err := h.list()
		if b, _ := json.Marshal(es); err != nil || bytes.Contains(b, []byte(routingKey)) || !bytes.Contains(b, []byte("X-Automation-Webhook-Token")) {
			t.Errorf("%s %v", b, err)
		}
		for _, q := range []string{`SELECT payload FROM audit_entry`, `SELECT answer FROM notify_delivery`, `SELECT fault FROM notify_endpoint`, `SELECT body FROM notify_notice`} {
			rows, err := h.db.Query(t.Context(), q)
			if err != nil {
				t.Fatal(q, err)
			}
			for rows.Next() {
				var s string
				if err := rows.Scan(&s); err != nil || strings.Contains(s, routingKey) {
					t.Errorf("%s: %q %v", q, s, err)
				}
			}
			rows.Close()
		}
		for _, e := range es {
			if bytes.Contains(e.credential, []byte(routingKey)) || len(e.credential) < len(routingKey) {
				t.Errorf("%s is kept as %q", e.Name, e.credential)
			}
		}
	})
}

// TestExtrasRefused: what a kind has no use for, what would change the meaning of a request, and every address of the inside.
func TestExtrasRefused(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		hook := Endpoint{Kind: Webhook, Address: "https://a.example"}
		with := func(e Endpoint, change func(e *Endpoint)) Endpoint { change(&e); return e }
		for name, e := range map[string]Endpoint{
			"a pager without a key":    {Kind: Pager, Address: "https://a.example"},
			"a pager in the clear":     {Kind: Pager, Address: "http://a.example", Credential: "k"},
			"a header without a value": with(hook, func(e *Endpoint) { e.Header = "X-Token" }),
			"a value without a header": with(hook, func(e *Endpoint) { e.Credential = "k" }),
			"another signature":        with(hook, func(e *Endpoint) { e.Header, e.Credential = "Webhook-Signature", "k" }),
			"another length":           with(hook, func(e *Endpoint) { e.Header, e.Credential = "content-length", "1" }),
			"two headers":              with(hook, func(e *Endpoint) { e.Header, e.Credential = "X-Token", "k\r\nX-Other: 1" }),
			"no name of a header":      with(hook, func(e *Endpoint) { e.Header, e.Credential = "X Token", "k" }),
			"certificates of a hook":   with(hook, func(e *Endpoint) { e.Authority = "PEM" }),
			"certificates that are no": {Kind: Syslog, Address: "siem.example:6514", Authority: "PEM"},
			"no port":                  {Kind: Syslog, Address: "siem.example"},
			"port 0":                   {Kind: Syslog, Address: "siem.example:0"},
			"a URL":                    {Kind: Syslog, Address: "https://siem.example:6514"},
			"a key of a SIEM":          {Kind: Syslog, Address: "siem.example:6514", Credential: "k"},
		} {
			e.Tenant, e.Name, e.Topics = ten, "x", []string{"*"}
			if _, _, err := h.Add(t.Context(), e); !problem.Is(err, problem.KindInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		outside := New(Config{DB: h.db, Keys: h.cfg.Keys})
		outside.Know(Topic{"alarm.raised", ""})
		for _, e := range []Endpoint{{Kind: Pager, Address: "https://10.0.0.1/", Credential: "k"}, {Kind: Syslog, Address: "10.0.0.1:6514"}, {Kind: Syslog, Address: "localhost:6514"}, {Kind: Syslog, Address: "[::1]:6514"}} {
			e.Tenant, e.Name, e.Topics = ten, "x", []string{"*"}
			if _, _, err := outside.Add(t.Context(), e); problem.Of(err).Rule != RuleAddress {
				t.Errorf("%s: %v", e.Address, err)
			}
		}
	})
}

// FuzzComplaint: whatever a tool answers is at most one short line.
func FuzzComplaint(f *testing.F) {
	for _, s := range []string{"", "{}", `{"status":"invalid event","message":"Event object is invalid","errors":["Length of 'routing_key' is incorrect"]}`, `{"message":1}`, `{"message":"a\nb\u0000","errors":["` + strings.Repeat("ä", 500) + `"]}`, `[`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if s := complaint(b); len(s) > 210 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) || !utf8.ValidString(s) {
			t.Errorf("%q", s)
		}
	})
}
