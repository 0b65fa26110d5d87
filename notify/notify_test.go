// SPDX-License-Identifier: AGPL-3.0-only

package notify

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/webhook"
)

const ten = "ten_a"

var t0 = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

type house struct {
	*Service
	t    *testing.T
	db   *store.DB
	hand *clock.Hand
}

func each(t *testing.T, fn func(t *testing.T, h *house)) {
	hand := clock.NewHand(t0)
	storetest.Each(t, []store.Migrations{seal.Schema, audit.Schema, Schema}, func(t *testing.T, db *store.DB) {
		hand.Set(t0)
		keys, err := seal.Open(filepath.Join(t.TempDir(), "keys"), hand)
		if err != nil {
			t.Fatal(err)
		}
		s := New(Config{DB: db, Keys: keys, Clock: hand, PrivateHooks: true, URL: "https://ot.example:8443"})
		s.Know(Topic{"alarm.raised", "an alarm was raised"}, Topic{"alarm.cleared", "an alarm is over"}, Topic{"case.deadline", "a clock ends"})
		fn(t, &house{s, t, db, hand})
	}, func(c *store.Config) { c.Clock = hand })
}

// receiver is a program that takes webhooks as Standard Webhooks say: it checks each signature and notes repeats.
type receiver struct {
	mu     sync.Mutex // guards the fields below
	secret webhook.Secret
	answer func() (int, http.Header)
	seen   map[string]int
	bodies []message
	faults []string
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	body, err := io.ReadAll(q.Body)
	id, at := q.Header.Get("webhook-id"), q.Header.Get("webhook-timestamp")
	if err != nil || q.Header.Get("webhook-signature") != r.secret.Sign(id, at, body) {
		r.faults = append(r.faults, "the signature is wrong")
	}
	var m message
	if err := json.Unmarshal(body, &m); err != nil {
		r.faults = append(r.faults, err.Error())
	}
	r.seen[id]++
	r.bodies = append(r.bodies, m)
	code, header := r.answer()
	for k, v := range header {
		w.Header()[k] = v
	}
	w.WriteHeader(code)
}

func taken() (int, http.Header) { return 204, nil }

// hear adds a receiver for the topics.
func (h *house) hear(topics ...string) (*receiver, Endpoint) {
	h.t.Helper()
	r := &receiver{seen: map[string]int{}, answer: taken}
	srv := httptest.NewServer(r)
	h.t.Cleanup(srv.Close)
	e, secret, err := h.Add(h.t.Context(), Endpoint{Tenant: ten, Name: "on-call", Kind: Webhook, Address: srv.URL, Topics: topics, Actor: "per_1"})
	if err != nil {
		h.t.Fatal(err)
	}
	raw, ok := strings.CutPrefix(secret, "whsec_")
	if r.secret, err = base64.StdEncoding.DecodeString(raw); !ok || err != nil || len(r.secret) != 32 {
		h.t.Fatalf("secret %q: %v", secret, err)
	}
	return r, e
}

func (h *house) told(n Notice) {
	h.t.Helper()
	if err := h.db.Write(h.t.Context(), func(tx *store.Tx) error { return h.Tell(tx, n) }); err != nil {
		h.t.Fatal(err)
	}
}

// pass delivers what is due now.
func (h *house) pass() {
	h.t.Helper()
	for {
		e, ok, err := h.claim(h.t.Context())
		if err != nil {
			h.t.Fatal(err)
		}
		if !ok {
			return
		}
		if err := h.deliver(h.t.Context(), e); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *house) deliveries(state State) []Delivery {
	h.t.Helper()
	ds, err := listDeliveries(h.t.Context(), h.db, ten, "", string(state), "", 100)
	if err != nil {
		h.t.Fatal(err)
	}
	return ds
}

func raised(subject string) Notice {
	return Notice{Tenant: ten, Topic: "alarm.raised", Subject: subject, Title: "Too hot", Text: "81 °C", Link: "/alarms/" + subject, Data: map[string]any{"value": 81}}
}

// TestTold: whoever listens hears it once, signed, with the facts and the link; nobody else does.
func TestTold(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		all, _ := h.hear("*")
		alarms, _ := h.hear("alarm.*")
		cases, _ := h.hear("case.deadline")
		n := raised("alm_1")
		n.Key = "evt_1"
		h.told(n)
		h.told(n) // the same event again
		other := raised("alm_2")
		other.Tenant = "ten_b"
		h.told(other)
		h.pass()
		for name, r := range map[string]*receiver{"*": all, "alarm.*": alarms} {
			if len(r.faults) > 0 || len(r.bodies) != 1 {
				t.Fatalf("%s: heard %d, faults %v", name, len(r.bodies), r.faults)
			}
			m := r.bodies[0]
			if m.Type != "alarm.raised" || !m.Timestamp.Equal(t0) || m.Data.Subject != "alm_1" || m.Data.Title != "Too hot" || m.Data.Link != "https://ot.example:8443/alarms/alm_1" || string(m.Data.Facts) != `{"value":81}` {
				t.Errorf("%s: %+v", name, m)
			}
		}
		if len(cases.bodies) != 0 {
			t.Error("who listens to cases heard of an alarm")
		}
		if got := h.deliveries(Done); len(got) != 2 || got[0].Answer != "taken" {
			t.Errorf("%+v", got)
		}
	})
}

// TestRolledBack: what did not happen is not told.
func TestRolledBack(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		r, _ := h.hear("*")
		err := h.db.Write(t.Context(), func(tx *store.Tx) error {
			if err := h.Tell(tx, raised("alm_1")); err != nil {
				return err
			}
			return problem.Conflict("no")
		})
		if h.pass(); err == nil || len(r.bodies) != 0 {
			t.Errorf("%v, heard %d", err, len(r.bodies))
		}
	})
}

// TestTriedAgain: a receiver that fails is tried by the schedule under the same id, and given up after the last attempt;
// a person may have it tried again.
func TestTriedAgain(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		r, e := h.hear("*")
		r.answer = func() (int, http.Header) { return 500, nil }
		h.told(raised("alm_1"))
		h.pass()
		for i, w := range waits {
			h.hand.Advance(w - time.Second)
			if h.pass(); len(r.bodies) != i+1 {
				t.Fatalf("wait %d: tried %d times before its time", i, len(r.bodies))
			}
			h.hand.Advance(time.Second)
			if h.pass(); len(r.bodies) != i+2 {
				t.Fatalf("wait %d: tried %d times", i, len(r.bodies))
			}
		}
		h.hand.Advance(48 * time.Hour)
		h.pass()
		failed := h.deliveries(Failed)
		if len(failed) != 1 || failed[0].Attempts != int64(len(waits)+1) || failed[0].Answer != "status 500" || len(r.seen) != 1 || len(r.bodies) != len(waits)+1 {
			t.Fatalf("%+v, tried %d times under %d ids", failed, len(r.bodies), len(r.seen))
		}
		if es, _ := h.list(); es[0].Faults != int64(len(waits)+1) {
			t.Errorf("%+v", es[0])
		}
		r.answer = taken
		if err := h.Again(t.Context(), "ten_b", failed[0].ID); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("another tenant: %v", err)
		}
		if err := h.Again(t.Context(), ten, failed[0].ID); err != nil {
			t.Fatal(err)
		}
		h.pass()
		if es, _ := h.list(); len(h.deliveries(Done)) != 1 || es[0].Faults != 0 || !es[0].Reached.Equal(h.hand.Now().Truncate(time.Millisecond)) {
			t.Errorf("%s: %+v", e.ID, es[0])
		}
	})
}

func (h *house) list() (es []Endpoint, err error) {
	err = h.db.View(context.Background(), func(tx *store.Tx) error { es, err = listEndpoints(tx.Query, ten); return err })
	return es, err
}

// TestRetryAfter: a receiver that names a longer pause gets it.
func TestRetryAfter(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		r, _ := h.hear("*")
		r.answer = func() (int, http.Header) { return 503, http.Header{"Retry-After": {"120"}} }
		h.told(raised("alm_1"))
		h.pass()
		h.hand.Advance(119 * time.Second)
		if h.pass(); len(r.bodies) != 1 {
			t.Errorf("tried %d times", len(r.bodies))
		}
		h.hand.Advance(time.Second)
		if h.pass(); len(r.bodies) != 2 {
			t.Errorf("tried %d times", len(r.bodies))
		}
	})
}

// TestGone: a receiver that says 410 is told nothing more until a person resumes it.
func TestGone(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		r, e := h.hear("*")
		r.answer = func() (int, http.Header) { return 410, nil }
		h.told(raised("alm_1"))
		h.told(raised("alm_2"))
		h.pass()
		h.told(raised("alm_3"))
		h.hand.Advance(24 * time.Hour)
		if h.pass(); len(r.bodies) != 1 || len(h.deliveries(Failed)) != 2 {
			t.Fatalf("heard %d, failed %d", len(r.bodies), len(h.deliveries(Failed)))
		}
		if err := h.Test(t.Context(), ten, e.ID, "per_1"); !problem.Is(err, problem.KindConflict) {
			t.Errorf("a test of what is off: %v", err)
		}
		r.answer = taken
		if err := h.Resume(t.Context(), ten, e.ID, "per_1"); err != nil {
			t.Fatal(err)
		}
		if err := h.Test(t.Context(), ten, e.ID, "per_1"); err != nil {
			t.Fatal(err)
		}
		if h.pass(); len(r.bodies) != 2 || r.bodies[1].Type != topicTest {
			t.Errorf("heard %d", len(r.bodies))
		}
	})
}

// TestADeadEndpointDelaysItself: it rests after a fault, whatever waits for it, and others hear at once.
func TestADeadEndpointDelaysItself(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		dead, _ := h.hear("*")
		dead.answer = func() (int, http.Header) { return 500, nil }
		live, _ := h.hear("*")
		for i := range 30 {
			h.told(raised(fmt.Sprintf("alm_%d", i)))
		}
		h.pass()
		if len(dead.bodies) != 1 || len(live.bodies) != 30 {
			t.Errorf("the dead one was asked %d times, the live one heard %d", len(dead.bodies), len(live.bodies))
		}
		for i, m := range live.bodies {
			if m.Data.Subject != fmt.Sprintf("alm_%d", i) {
				t.Fatalf("place %d: %s", i, m.Data.Subject)
			}
		}
	})
}

// TestBounds: what cannot be told is refused, and no endpoint queues without bound.
func TestBounds(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		for name, e := range map[string]Endpoint{
			"no name":       {Kind: Webhook, Address: "https://a.example", Topics: []string{"*"}},
			"no topic":      {Name: "x", Kind: Webhook, Address: "https://a.example"},
			"unknown topic": {Name: "x", Kind: Webhook, Address: "https://a.example", Topics: []string{"weather.*"}},
			"no address":    {Name: "x", Kind: Webhook, Topics: []string{"*"}},
			"no TLS":        {Name: "x", Kind: Webhook, Address: "http://a.example", Topics: []string{"*"}},
			"another kind":  {Name: "x", Kind: "pigeon", Address: "https://a.example", Topics: []string{"*"}},
			"two mails":     {Name: "x", Kind: Mail, Address: "a@b.example, c@d.example", Topics: []string{"*"}},
			"a header":      {Name: "x", Kind: Mail, Address: "a@b.example\r\nBcc: c@d.example", Topics: []string{"*"}},
		} {
			e.Tenant = ten
			if _, _, err := h.Add(t.Context(), e); !problem.Is(err, problem.KindInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, _, err := h.Add(t.Context(), Endpoint{Tenant: ten, Name: "x", Kind: Mail, Address: "a@b.example", Topics: []string{"*"}}); !problem.Is(err, problem.KindPrecondition) {
			t.Errorf("mail without a server: %v", err)
		}
		outside := New(Config{DB: h.db, Keys: h.cfg.Keys})
		outside.Know(Topic{"alarm.raised", ""})
		if _, _, err := outside.Add(t.Context(), Endpoint{Tenant: ten, Name: "x", Kind: Webhook, Address: "https://10.0.0.1/", Topics: []string{"*"}}); problem.Of(err).Rule != RuleAddress {
			t.Errorf("an address of the inside: %v", err)
		}
		_, e := h.hear("*")
		if err := h.db.Write(t.Context(), func(tx *store.Tx) error {
			for i := range maxOpen + 3 {
				if err := h.Tell(tx, raised(fmt.Sprint(i))); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if n := len(h.deliveries(Failed)); n != 3 {
			t.Errorf("%d found no room, want 3", n)
		}
		if err := h.Remove(t.Context(), "ten_b", e.ID, "per_1"); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("another tenant removes: %v", err)
		}
		if err := h.Remove(t.Context(), ten, e.ID, "per_1"); err != nil {
			t.Fatal(err)
		}
		var open int64
		if err := h.db.QueryRow(t.Context(), `SELECT count(*) FROM notify_delivery WHERE state = 'open'`).Scan(&open); err != nil || open != 0 {
			t.Errorf("%d wait for nobody, %v", open, err)
		}
		h.hand.Advance(keep + time.Hour)
		if err := h.forget(t.Context()); err != nil {
			t.Fatal(err)
		}
		var left int64
		if err := h.db.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM notify_delivery) + (SELECT count(*) FROM notify_notice)`).Scan(&left); err != nil || left != 0 {
			t.Errorf("%d rows are kept for ever, %v", left, err)
		}
	})
}

// TestWork: the worker itself delivers, woken by the commit.
func TestWork(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		heard := make(chan struct{}, 1)
		r, _ := h.hear("*")
		r.answer = func() (int, http.Header) { heard <- struct{}{}; return 200, nil }
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- h.Work(ctx) }()
		h.told(raised("alm_1"))
		select {
		case <-heard:
		case <-time.After(30 * time.Second):
			t.Error("nothing was delivered")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
