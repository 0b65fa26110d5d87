// SPDX-License-Identifier: AGPL-3.0-only

package oncall

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/notify"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

// pager keeps incidents by their key, as PagerDuty does.
type pager struct {
	mu       sync.Mutex // guards the fields below
	down     bool
	state    map[string]string         // dedup_key -> triggered, resolved
	opened   map[string]int            // how often each was opened
	triggers map[string]map[string]int // dedup_key -> person and step -> how often
	titles   []string                  // of triggers, in the order in which they came
	texts    []string
}

func (p *pager) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var e struct {
		Action  string `json:"event_action"`
		Dedup   string `json:"dedup_key"`
		Payload struct {
			Summary string
			Details struct {
				Text  string
				Facts struct {
					Person string
					Step   int64
				}
			} `json:"custom_details"`
		}
	}
	if p.down || json.NewDecoder(r.Body).Decode(&e) != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if e.Action == "trigger" {
		if p.state[e.Dedup] != "triggered" {
			p.opened[e.Dedup]++
		}
		if p.triggers[e.Dedup] == nil {
			p.triggers[e.Dedup] = map[string]int{}
		}
		p.triggers[e.Dedup][fmt.Sprintf("%s %d", e.Payload.Details.Facts.Person, e.Payload.Details.Facts.Step)]++
		p.titles, p.texts = append(p.titles, e.Payload.Summary), append(p.texts, e.Payload.Details.Text)
	}
	p.state[e.Dedup] = map[string]string{"trigger": "triggered", "resolve": "resolved"}[e.Action]
	w.WriteHeader(http.StatusAccepted)
}

// pagers gives everybody the same pager, as a team has it.
func (h *house) pagers() *pager {
	h.t.Helper()
	p := &pager{state: map[string]string{}, opened: map[string]int{}, triggers: map[string]map[string]int{}}
	srv := httptest.NewServer(p)
	h.t.Cleanup(srv.Close)
	e, _, err := h.notify.Add(h.t.Context(), notify.Endpoint{Tenant: ten, Name: "pager", Kind: notify.Pager, Address: srv.URL, Topics: []string{TopicCall}, Actor: "per_ann", Credential: strings.Repeat("k", 32)})
	if err != nil {
		h.t.Fatal(err)
	}
	for person := range people {
		h.phone[person] = e.ID
	}
	return p
}

// deliver has everything delivered that waits now.
func (h *house) deliver() {
	h.t.Helper()
	ctx, stop := context.WithCancel(h.t.Context())
	done := make(chan error, 1)
	go func() { done <- h.notify.Work(ctx) }()
	h.settled()
	stop()
	if err := <-done; err != nil {
		h.t.Error(err)
	}
}

// settled waits until nothing is due.
func (h *house) settled() {
	h.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(5 * time.Minute); ; <-tick.C { // of a machine that is busy with other tests
		var n int
		if err := h.db.QueryRow(h.t.Context(), `SELECT count(*) FROM notify_delivery WHERE state = 'open' AND next <= $1`, store.Millis(h.hand.Now())).Scan(&n); err != nil || time.Now().After(deadline) {
			h.t.Fatalf("%d deliveries wait, %v", n, err)
		}
		if n == 0 {
			return
		}
	}
}

func (h *house) rehearse(drill string) error {
	return h.db.Write(h.t.Context(), func(tx *store.Tx) error { return h.Rehearse(tx, ten, drill, "a log of a break-in", "/drills/"+drill) })
}

// TestAnIncidentEndsWithItsCall: by an answer, or the moment that what it is about is over; also when nobody had answered.
func TestAnIncidentEndsWithItsCall(t *testing.T) {
	each(t, func(h *house) {
		p := h.pagers()
		h.set(h.rota())
		h.announce("cas_1")
		h.deliver()
		id := h.only().ID
		if p.state[id] != "triggered" || p.titles[0] != "Early warning due" {
			t.Fatalf("%v %v", p.state, p.titles)
		}
		if _, err := h.Answer(bob, id); err != nil {
			t.Fatal(err)
		}
		h.deliver()
		if p.state[id] != "resolved" {
			t.Errorf("answered: %v", p.state)
		}
		h.announce("cas_2")
		for range 10 {
			h.deliver()
			h.hand.Advance(15 * time.Minute)
			h.run()
		}
		cs, err := h.Calls(ann, false, false, "", 1)
		if err != nil || cs[0].Why != "unanswered" || p.state[cs[0].ID] != "triggered" || len(p.triggers[cs[0].ID]) != 9 {
			t.Fatalf("nobody answered: %+v %v %v", cs, p.state, err)
		}
		h.emit("case.duty_ended", "cas_2") // another duty of the case
		h.deliver()
		if p.state[cs[0].ID] != "triggered" {
			t.Errorf("the duty goes on: %v", p.state)
		}
		h.over = true
		h.emit("case.duty_ended", "cas_2")
		h.deliver()
		if again, _ := h.Calls(ann, false, false, "", 1); p.state[cs[0].ID] != "resolved" || again[0].Why != "unanswered" {
			t.Errorf("over: %v, the call says %s", p.state, again[0].Why)
		}
		h.over = false
		h.announce("cas_3")
		h.over = true
		h.emit("case.duty_ended", "cas_3")
		if cs, _ := h.Calls(ann, false, false, "", 1); cs[0].Why != "over" || called(cs[0]) != "Ann" {
			t.Errorf("before the first pause was over: %+v", cs[0])
		}
	})
}

// TestADrillCalls: the people on call, by the ways of calls, and each word of it says DRILL first. Nobody else is told, also
// when nobody answers, and no list of calls has it.
func TestADrillCalls(t *testing.T) {
	each(t, func(h *house) {
		told := 0
		h.db.On(TopicUnanswered, "test", func(context.Context, store.Event) error { told++; return nil })
		if err := h.rehearse("drl_0"); !problem.Is(err, problem.KindPrecondition) {
			t.Errorf("without a rota: %v", err)
		}
		p := h.pagers()
		h.set(h.rota())
		if err := h.rehearse("drl_1"); err != nil {
			t.Fatal(err)
		}
		h.hand.Advance(15 * time.Minute)
		h.run()
		h.deliver()
		c, ok, err := h.OfDrill(t.Context(), ten, "drl_1")
		if err != nil || !ok || called(c) != "Ann Bob" || !c.Drill {
			t.Fatalf("%+v %v %v", c, ok, err)
		}
		for _, s := range append(p.titles, p.texts...) {
			if !strings.HasPrefix(s, "DRILL: ") {
				t.Errorf("it says %q", s)
			}
		}
		if cs, err := h.Calls(ann, false, false, "", 10); err != nil || len(cs) != 0 {
			t.Errorf("among calls: %+v %v", cs, err)
		}
		if cs, err := h.Calls(ann, true, true, "", 10); err != nil || len(cs) != 1 {
			t.Errorf("among those of drills: %+v %v", cs, err)
		}
		if c, err = h.Answer(bob, c.ID); err != nil || c.Took() != 15*time.Minute || c.AnsweredBy != "per_bob" {
			t.Errorf("%+v %v", c, err)
		}
		h.deliver()
		if p.state[c.ID] != "resolved" {
			t.Errorf("%v", p.state)
		}
		if err := h.rehearse("drl_2"); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			h.hand.Advance(15 * time.Minute)
			h.run()
		}
		if c, _, err = h.OfDrill(t.Context(), ten, "drl_2"); err != nil || c.Why != "unanswered" || told != 0 {
			t.Errorf("nobody answered: %+v, told %d times, %v", c, told, err)
		}
		if _, err := h.Answer(bob, c.ID); !problem.Is(err, problem.KindConflict) {
			t.Errorf("an answer to a drill's call that has ended: %v", err)
		}
	})
}

// TestARealCallGoesFirst: it ends the calls of drills, what still waited of them is never delivered, and no drill calls
// anybody while it lasts.
func TestARealCallGoesFirst(t *testing.T) {
	each(t, func(h *house) {
		p := h.pagers()
		h.set(h.rota())
		p.down = true
		if err := h.rehearse("drl_1"); err != nil {
			t.Fatal(err)
		}
		h.deliver()
		h.announce("cas_1")
		p.down = false
		h.hand.Advance(time.Hour)
		h.deliver()
		c, _, err := h.OfDrill(t.Context(), ten, "drl_1")
		if err != nil || c.Why != "real" || len(p.titles) != 1 || p.titles[0] != "Early warning due" {
			t.Errorf("%+v, rang %q, %v", c, p.titles, err)
		}
		if err := h.rehearse("drl_2"); problem.Of(err).Rule != RuleReal {
			t.Errorf("a drill beside it: %v", err)
		}
		if _, err := h.Answer(ann, h.only().ID); err != nil {
			t.Fatal(err)
		}
		if err := h.rehearse("drl_2"); err != nil {
			t.Errorf("after it: %v", err)
		}
		// Two transactions that did not see each other: the drill's next step does.
		if err := h.db.Write(t.Context(), func(tx *store.Tx) error {
			_, err := insertCall(tx, ten, Call{ID: "cal_x", Topic: "case.deadline", Subject: "cas_2", Title: "Early warning due", At: h.now()})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		h.hand.Advance(15 * time.Minute)
		h.run()
		if c, _, _ := h.OfDrill(t.Context(), ten, "drl_2"); c.Why != "real" || called(c) != "Ann" {
			t.Errorf("%+v", c)
		}
	})
}

// node is one process of the platform on a database that others use as well.
func node(t *testing.T, url string, hand *clock.Hand, keys *seal.Keys) *house {
	t.Helper()
	return newHouse(t, storetest.Open(t, url, schema, func(c *store.Config) { c.Clock = hand }), hand, keys)
}

// TestEachCallOnce: over restarts, two nodes at once on one database, and clocks that are set back and forward, each person
// is called once per round, each call is one incident of the pager, and nobody having answered is told once.
func TestEachCallOnce(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		hand := clock.NewHand(t0)
		keys := newKeys(t, hand)
		nodes := 1
		if strings.HasPrefix(url, "postgres") {
			nodes = 2
		}
		const calls = 5
		first := node(t, url, hand, keys)
		p := first.pagers()
		first.set(first.rota())
		if err := first.db.Close(); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		told := map[string]int{}
		// Forward by the pause, by much more, back by an hour and forward again.
		steps := []time.Duration{0, 15 * time.Minute, 3 * time.Hour, -time.Hour, time.Hour, 15 * time.Minute}
		for range 14 {
			steps = append(steps, 15*time.Minute)
		}
		for i, d := range steps {
			hand.Advance(d)
			var wg sync.WaitGroup
			houses := make([]*house, nodes)
			for n := range houses {
				h := node(t, url, hand, keys)
				h.db.On(TopicUnanswered, "test", func(_ context.Context, e store.Event) error {
					mu.Lock()
					defer mu.Unlock()
					told[e.Subject]++
					return nil
				})
				houses[n] = h
			}
			if i == 0 {
				for c := range calls {
					if err := houses[0].db.Write(t.Context(), func(tx *store.Tx) error {
						return houses[0].db.Emit(tx, "case.deadline", ten, fmt.Sprintf("cas_%d", c), nil)
					}); err != nil {
						t.Fatal(err)
					}
				}
			}
			ctx, stop := context.WithCancel(t.Context())
			for _, h := range houses {
				wg.Go(func() {
					if err := h.notify.Work(ctx); err != nil {
						t.Error(err)
					}
				})
			}
			var jobs sync.WaitGroup
			for _, h := range houses {
				jobs.Go(func() {
					for range 3 {
						if _, err := h.db.RunDue(t.Context()); err != nil {
							t.Error(err)
						}
					}
				})
			}
			jobs.Wait()
			houses[0].settled()
			stop()
			wg.Wait()
			for _, h := range houses {
				if err := h.db.Close(); err != nil {
					t.Fatal(err)
				}
			}
		}
		last := node(t, url, hand, keys)
		cs, err := last.Calls(ann, false, false, "", 100)
		if err != nil || len(cs) != calls {
			t.Fatalf("%d calls, %v", len(cs), err)
		}
		for _, c := range cs {
			if called(c) != "Ann Bob Eve Ann Bob Eve Ann Bob Eve" || c.Why != "unanswered" || told[c.ID] != 1 {
				t.Errorf("%s: called %q, %s, told %d times", c.Subject, called(c), c.Why, told[c.ID])
			}
			if p.opened[c.ID] != 1 || len(p.triggers[c.ID]) != 9 {
				t.Errorf("%s: %d incidents, %d triggers", c.Subject, p.opened[c.ID], len(p.triggers[c.ID]))
			}
			for step, n := range p.triggers[c.ID] {
				if n != 1 {
					t.Errorf("%s: %s was paged %d times", c.Subject, step, n)
				}
			}
		}
	})
}
