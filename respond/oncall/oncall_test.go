// SPDX-License-Identifier: AGPL-3.0-only

package oncall

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/notify"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
)

const ten = "ten_a"

var (
	t0     = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC) // a Monday, 10:00 in Berlin
	schema = []store.Migrations{seal.Schema, audit.Schema, notify.Schema, Schema}
	people = map[string]string{"per_ann": "Ann", "per_bob": "Bob", "per_eve": "Eve"}
)

func signedIn(id string, role tenant.Role) context.Context {
	return tenant.WithActor(context.Background(), tenant.Actor{ID: id, Kind: tenant.KindPerson, Tenant: ten, Grants: []tenant.Grant{{Role: role, Tenant: ten}}})
}

var ann, bob = signedIn("per_ann", tenant.ComplianceOfficer), signedIn("per_bob", tenant.ProductSecurityOfficer)

// house is the room with telephones that ring.
type house struct {
	*Service
	t      *testing.T
	db     *store.DB
	hand   *clock.Hand
	notify *notify.Service
	phone  map[string]string // person -> endpoint
	over   bool
	rang   chan string // "Ann: Early warning due"
}

func newKeys(t *testing.T, hand *clock.Hand) *seal.Keys {
	t.Helper()
	keys, err := seal.Open(filepath.Join(t.TempDir(), "keys"), hand)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func newHouse(t *testing.T, db *store.DB, hand *clock.Hand, keys *seal.Keys) *house {
	t.Helper()
	h := &house{t: t, db: db, hand: hand, phone: map[string]string{}, rang: make(chan string, 100), notify: notify.New(notify.Config{DB: db, Keys: keys, Clock: hand, PrivateHooks: true, URL: "https://ot.example"})}
	h.Service = New(Config{DB: db, Notify: h.notify,
		People: func(context.Context, string) (map[string]string, error) { return people, nil },
		Worth: map[string]func(context.Context, store.Event) (string, string, error){"case.deadline": func(_ context.Context, e store.Event) (string, string, error) {
			return "Early warning due", "/cases/" + e.Subject, nil
		}},
		Over: func(context.Context, store.Event) (bool, error) { return h.over, nil }, Eased: []string{"case.duty_ended"}})
	return h
}

// phones gives each person a telephone, which is a webhook of their own.
func (h *house) phones() {
	for person, name := range people {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var m struct{ Data struct{ Title string } }
			if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
				h.t.Error(err)
			}
			w.WriteHeader(204)
			h.rang <- name + ": " + m.Data.Title
		}))
		h.t.Cleanup(srv.Close)
		e, _, err := h.notify.Add(h.t.Context(), notify.Endpoint{Tenant: ten, Name: name, Kind: notify.Webhook, Address: srv.URL, Topics: []string{TopicCall}, Actor: "per_ann"})
		if err != nil {
			h.t.Fatal(err)
		}
		h.phone[person] = e.ID
	}
}

func (h *house) rota() Rota {
	r := Rota{Zone: "Europe/Berlin", Start: "2026-11-23", Hour: 9, Days: 7, Minutes: 15}
	for _, p := range []string{"per_ann", "per_bob", "per_eve"} {
		r.People = append(r.People, Member{Person: p, Endpoints: []string{h.phone[p]}})
	}
	return r
}

func (h *house) set(r Rota) {
	h.t.Helper()
	if _, err := h.SetRota(ann, r); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) announce(subject string) { h.emit("case.deadline", subject) }

func (h *house) emit(topic, subject string) {
	h.t.Helper()
	if err := h.db.Write(h.t.Context(), func(tx *store.Tx) error { return h.db.Emit(tx, topic, ten, subject, nil) }); err != nil {
		h.t.Fatal(err)
	}
	h.run()
}

// run does what is due.
func (h *house) run() {
	h.t.Helper()
	for range 3 {
		if _, err := h.db.RunDue(h.t.Context()); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *house) only() Call {
	h.t.Helper()
	cs, err := h.Calls(ann, false, false, "", 10)
	if err != nil || len(cs) != 1 {
		h.t.Fatalf("%d calls, %v", len(cs), err)
	}
	return cs[0]
}

// called are the names of those who were called.
func called(c Call) string {
	var names []string
	for _, s := range c.Steps {
		names = append(names, s.Name)
	}
	return strings.Join(names, " ")
}

func each(t *testing.T, fn func(h *house)) {
	hand := clock.NewHand(t0)
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		hand.Set(t0)
		h := newHouse(t, db, hand, newKeys(t, hand))
		h.phones()
		fn(h)
	}, func(c *store.Config) { c.Clock = hand })
}

// TestDeputiesAreCalledUntilSomebodyAnswers, in the order of the rota and each once, and nobody after the answer.
func TestDeputiesAreCalledUntilSomebodyAnswers(t *testing.T) {
	each(t, func(h *house) {
		h.announce("cas_0")
		if cs, err := h.Calls(ann, false, false, "", 10); err != nil || len(cs) != 0 {
			t.Fatalf("without a rota %d calls, %v", len(cs), err)
		}
		h.set(h.rota())
		h.announce("cas_1")
		if got := called(h.only()); got != "Ann" {
			t.Fatalf("at once: %q", got)
		}
		h.run()
		h.hand.Advance(14 * time.Minute)
		h.run()
		if got := called(h.only()); got != "Ann" {
			t.Errorf("before the pause is over: %q", got)
		}
		h.hand.Advance(time.Minute)
		h.run()
		if got := called(h.only()); got != "Ann Bob" {
			t.Errorf("after it: %q", got)
		}
		if _, err := h.Answer(bob, h.only().ID); err != nil {
			t.Fatal(err)
		}
		_, err := h.Answer(ann, h.only().ID)
		if !problem.Is(err, problem.KindConflict) || !strings.Contains(err.Error(), "Bob answered it at 09:15 UTC") {
			t.Errorf("a second answer: %v", err)
		}
		h.hand.Advance(time.Hour)
		h.run()
		if c := h.only(); called(c) != "Ann Bob" || c.Why != "answered" || c.AnsweredBy != "per_bob" || c.Took() != 15*time.Minute {
			t.Errorf("after the answer: %q %+v", called(c), c)
		}
	})
}

// TestNobodyAnswers: everybody is called three times, then it is told as such; the telephones rang as often as it says.
func TestNobodyAnswers(t *testing.T) {
	each(t, func(h *house) {
		h.set(h.rota())
		told := 0
		h.db.On(TopicUnanswered, "test", func(context.Context, store.Event) error { told++; return nil })
		h.announce("cas_1")
		for range 20 {
			h.hand.Advance(15 * time.Minute)
			h.run()
		}
		if c := h.only(); called(c) != "Ann Bob Eve Ann Bob Eve Ann Bob Eve" || c.Why != "unanswered" || told != 1 {
			t.Errorf("%q %s, told %d times", called(c), c.Why, told)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.notify.Work(ctx) }()
		rang := map[string]int{}
		for range 9 {
			rang[<-h.rang]++
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		for _, name := range []string{"Ann", "Bob", "Eve"} {
			if got := rang[name+": Early warning due"]; got != 3 {
				t.Errorf("%s's telephone rang %d times", name, got)
			}
		}
	})
}

// TestWhatIsOverCallsNobody: the duty was done meanwhile.
func TestWhatIsOverCallsNobody(t *testing.T) {
	each(t, func(h *house) {
		h.set(h.rota())
		h.announce("cas_1")
		h.over = true
		h.hand.Advance(15 * time.Minute)
		h.run()
		if c := h.only(); called(c) != "Ann" || c.Why != "over" {
			t.Errorf("%q %s", called(c), c.Why)
		}
	})
}

// TestStepsAreTakenOnce: a job that runs again after its step, as after a lost connection, calls nobody a second time.
func TestStepsAreTakenOnce(t *testing.T) {
	each(t, func(h *house) {
		h.set(h.rota())
		h.announce("cas_1")
		c := h.only()
		h.hand.Advance(15 * time.Minute)
		for range 3 {
			if err := h.db.Write(t.Context(), func(tx *store.Tx) error {
				return h.db.Enqueue(tx, jobNext, "", h.hand.Now(), reminder{ten, c.ID, 1})
			}); err != nil {
				t.Fatal(err)
			}
		}
		h.run()
		if got := called(h.only()); got != "Ann Bob" {
			t.Errorf("%q", got)
		}
		if err := h.heard(t.Context(), store.Event{ID: strings.TrimPrefix(c.ID, "cal_"), Topic: "case.deadline", Tenant: ten, Subject: "cas_1"}); err != nil {
			t.Fatal(err)
		}
		if got := called(h.only()); got != "Ann Bob" {
			t.Errorf("the event heard again: %q", got)
		}
	})
}

// TestTurns: the handover is at the same hour on the wall on both sides of a change of the clocks, and absences are skipped.
func TestTurns(t *testing.T) {
	r := Rota{Zone: "Europe/Berlin", Start: "2026-10-19", Hour: 9, Days: 7, People: []Member{{Name: "Ann", Person: "a"}, {Name: "Bob", Person: "b"}, {Name: "Eve", Person: "e"}},
		Away: []Away{{"b", "2026-10-27", "2026-10-28"}}}
	names := func(at string) string {
		instant, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		turn := r.At(instant)
		var out []string
		for _, p := range turn.People {
			out = append(out, p.Name)
		}
		if turn.From.After(instant) && at >= "2026-10-19" || !turn.To.After(instant) {
			t.Errorf("%s is not within %s to %s", at, turn.From, turn.To)
		}
		return strings.Join(out, " ")
	}
	for at, want := range map[string]string{
		"2026-10-01T00:00:00Z": "Ann Bob Eve", "2026-10-19T07:00:00Z": "Ann Bob Eve",
		"2026-10-26T07:59:59Z": "Ann Bob Eve", "2026-10-26T08:00:00Z": "Bob Eve Ann", // 9:00 on the wall, in winter
		"2026-10-27T08:00:00Z": "Eve Ann", "2026-10-29T08:00:00Z": "Bob Eve Ann",
		"2026-11-09T08:00:00Z": "Ann Bob Eve",
	} {
		if got := names(at); got != want {
			t.Errorf("%s: %q, want %q", at, got, want)
		}
	}
	r.Away = []Away{{"a", "2026-01-01", "2027-01-01"}, {"b", "2026-01-01", "2027-01-01"}, {"e", "2026-01-01", "2027-01-01"}}
	if got := names("2026-11-09T08:00:00Z"); got != "Ann Bob Eve" {
		t.Errorf("all are away: %q", got)
	}
}

// TestTurnsFollowWithoutGaps: in every zone, at every instant, somebody has the turn, and the next begins where it ends.
func TestTurnsFollowWithoutGaps(t *testing.T) {
	zones := []string{"Europe/Berlin", "Europe/Dublin", "Atlantic/Azores", "Europe/Helsinki", "Asia/Nicosia", "UTC"}
	rapid.Check(t, func(t *rapid.T) {
		r := Rota{Zone: rapid.SampledFrom(zones).Draw(t, "zone"), Start: "2026-11-23", Hour: rapid.IntRange(0, 23).Draw(t, "hour"), Days: rapid.IntRange(1, 28).Draw(t, "days")}
		for i := range rapid.IntRange(2, 6).Draw(t, "people") {
			r.People = append(r.People, Member{Person: fmt.Sprint(i)})
		}
		at := t0.Add(time.Duration(rapid.Int64Range(0, int64(4*365*24*time.Hour)).Draw(t, "at")))
		turn := r.At(at)
		if len(turn.People) != len(r.People) || turn.From.After(at) && at.After(r.handover(dayNumber(2026, 11, 23))) || !turn.To.After(at) {
			t.Fatalf("%s: %+v", at, turn)
		}
		next := r.At(turn.To)
		if !next.From.Equal(turn.To) || next.People[0].Person != turn.People[1].Person {
			t.Fatalf("after %+v comes %+v", turn, next)
		}
		if last := r.At(turn.To.Add(-time.Nanosecond)); last.People[0].Person != turn.People[0].Person {
			t.Fatalf("the end of %+v belongs to %+v", turn, last)
		}
	})
}

// TestRotaRefused: nothing is kept that could leave nobody to call.
func TestRotaRefused(t *testing.T) {
	each(t, func(h *house) {
		for name, harm := range map[string]func(r *Rota){
			"one person": func(r *Rota) { r.People = r.People[:1] }, "a stranger": func(r *Rota) { r.People[0].Person = "per_x" }, "somebody twice": func(r *Rota) { r.People[1] = r.People[0] },
			"no way to reach": func(r *Rota) { r.People[0].Endpoints = nil }, "a way that is not there": func(r *Rota) { r.People[0].Endpoints = []string{"nep_x"} },
			"no zone": func(r *Rota) { r.Zone = "" }, "the host's zone": func(r *Rota) { r.Zone = "Local" }, "no start": func(r *Rota) { r.Start = "soon" },
			"no pause": func(r *Rota) { r.Minutes = 0 }, "two hours": func(r *Rota) { r.Minutes = 120 }, "no turn": func(r *Rota) { r.Days = 0 },
			"an absence backwards": func(r *Rota) { r.Away = []Away{{"per_ann", "2026-12-02", "2026-12-01"}} }, "an absence of a stranger": func(r *Rota) { r.Away = []Away{{"per_x", "2026-12-01", "2026-12-02"}} },
		} {
			r := h.rota()
			harm(&r)
			if _, err := h.SetRota(ann, r); err == nil || problem.Is(err, problem.KindInternal) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := h.SetRota(signedIn("per_x", tenant.FleetOperator), h.rota()); !problem.Is(err, problem.KindForbidden) {
			t.Errorf("a fleet operator sets it: %v", err)
		}
		h.set(h.rota())
	})
}

// TestPages: the rota is made, a call is seen and answered by forms alone.
func TestPages(t *testing.T) {
	each(t, func(h *house) {
		c := console.New(console.Config{Clock: h.hand, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Menu: []string{"Today", "Cases"}, Holds: tenant.Holds,
			Authenticate: func(r *http.Request) (context.Context, error) {
				a, _ := tenant.ActorFrom(ann)
				return tenant.WithActor(r.Context(), a), nil
			}, Visitor: func(context.Context) string { return "Ann" }})
		h.Pages(c)
		ask := func(method, path string, form url.Values) (int, string) {
			r := httptest.NewRequest(method, "https://ot.example"+path, strings.NewReader(form.Encode()))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Referer", "https://ot.example/on-call")
			w := httptest.NewRecorder()
			c.ServeHTTP(w, r)
			b, _ := io.ReadAll(w.Body)
			return w.Code, w.Header().Get("Location") + string(b)
		}
		if code, body := ask("GET", "/on-call", nil); code != 200 || !strings.Contains(body, "Nobody is called when a clock is near its end") {
			t.Fatalf("%d %s", code, body)
		}
		form := url.Values{"zone": {"Europe/Berlin"}, "start": {"2026-11-23"}, "hour": {"9"}, "days": {"7"}, "minutes": {"15"}, "person-0": {"per_ann"}, "endpoint-0": {h.phone["per_ann"]}}
		if code, body := ask("POST", "/on-call", form); code != 403 || !strings.Contains(body, RuleDeputy) || !strings.Contains(body, `value="Europe/Berlin"`) {
			t.Errorf("one person: %d %s", code, body)
		}
		form.Set("person-3", "per_bob")
		form.Set("endpoint-3", h.phone["per_bob"])
		form.Set("away-0", "per_bob")
		form.Set("from-0", "2026-12-24")
		form.Set("to-0", "2026-12-26")
		if code, body := ask("POST", "/on-call", form); code != 303 {
			t.Fatalf("%d %s", code, body)
		}
		h.announce("cas_1")
		id := h.only().ID
		for _, path := range []string{"/on-call", "/"} {
			if code, body := ask("GET", path, nil); code != 200 || !strings.Contains(body, "Early warning due") || !strings.Contains(body, "/on-call/calls/"+id+"/answer") || !strings.Contains(body, "Monday 30") && !strings.Contains(body, "Mon 30 November 09:00") {
				t.Errorf("%s: %d %s", path, code, body)
			}
		}
		if code, to := ask("POST", "/on-call/calls/"+id+"/answer", nil); code != 303 || !strings.HasPrefix(to, "/cases/cas_1") {
			t.Errorf("%d %s", code, to)
		}
		if _, body := ask("GET", "/on-call", nil); strings.Contains(body, "/answer") || !strings.Contains(body, "2026-12-24") {
			t.Errorf("after the answer:\n%s", body)
		}
	})
}
