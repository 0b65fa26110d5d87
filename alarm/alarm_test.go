// SPDX-License-Identifier: AGPL-3.0-only

package alarm

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/notify"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/telemetry"
	"github.com/openthings-platform/openthings/tenant"
)

const ten = "ten_a"

var t0 = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

var schema = []store.Migrations{seal.Schema, audit.Schema, notify.Schema, product.Schema, identity.Schema, fleet.Schema, telemetry.CatalogueSchema, telemetry.Schema, Schema}

type house struct {
	*Service
	t    *testing.T
	db   *store.DB
	keys *seal.Keys
	ids  *identity.Service
	hand *clock.Hand // nil: the machine's clock
	said []string    // what the stage announced, by RunDue
}

func open(t *testing.T, db *store.DB, clk clock.Clock) *house {
	t.Helper()
	h := &house{t: t, db: db}
	h.hand, _ = clk.(*clock.Hand)
	var err error
	if h.keys, err = seal.Open(filepath.Join(t.TempDir(), "keys"), clk); err != nil {
		t.Fatal(err)
	}
	issuer, err := embedded.Open(embedded.Config{Dir: filepath.Join(t.TempDir(), "ca"), Keys: h.keys, Name: "Test", Clock: clk})
	if err != nil {
		t.Fatal(err)
	}
	if h.ids, err = identity.New(identity.Config{DB: db, Issuer: issuer, Clock: clk}); err != nil {
		t.Fatal(err)
	}
	h.Service = New(Config{DB: db, Identity: h.ids, Fleet: fleet.New(fleet.Config{DB: db, Identity: h.ids, Clock: clk}), Clock: clk,
		Notify: notify.New(notify.Config{DB: db, Keys: h.keys, Clock: clk})})
	for _, topic := range []string{topicRaised, topicCleared} {
		db.On(topic, "test", func(_ context.Context, e store.Event) error {
			var d struct{ Name, Device string }
			if err := e.Decode(&d); err != nil {
				return err
			}
			h.said = append(h.said, strings.TrimPrefix(topic, "alarm.")+" "+d.Name)
			return nil
		})
	}
	return h
}

func each(t *testing.T, fn func(t *testing.T, h *house)) {
	hand := clock.NewHand(t0)
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		hand.Set(t0)
		fn(t, open(t, db, hand))
	}, func(c *store.Config) { c.Clock = hand })
}

// device makes a unit that works.
func (h *house) device(serial string) identity.Device {
	h.t.Helper()
	var d identity.Device
	if err := h.db.Write(h.t.Context(), func(tx *store.Tx) (err error) {
		if d, err = h.ids.Register(tx, identity.Device{Tenant: ten, Product: "prd_1", Serial: serial}, "per_1"); err != nil {
			return err
		}
		for _, to := range []identity.State{identity.Provisioned, identity.Pending, identity.Commissioned} {
			if err := h.ids.SetState(tx, ten, d.ID, to, "per_1", "test"); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		h.t.Fatal(err)
	}
	return d
}

func (h *house) rule(r Rule) Rule {
	h.t.Helper()
	r.Tenant = ten
	if r.Severity == "" {
		r.Severity = Warning
	}
	out, err := h.SetRule(h.t.Context(), r, "per_1")
	if err != nil {
		h.t.Fatal(err)
	}
	h.reload(h.t.Context())
	return out
}

// measured is what a device measured now.
func (h *house) measured(device string, v float64) {
	h.t.Helper()
	now := h.hand.Now()
	h.observe(telemetry.Sighting{Tenant: ten, Device: device, Received: now, Stream: "env", Points: []telemetry.Point{{T: now.UnixMilli(), Values: map[string]float64{"temp": v}}}})
}

func (h *house) observe(x telemetry.Sighting) {
	h.t.Helper()
	if err := h.Observe(h.t.Context(), x); err != nil {
		h.t.Fatal(err)
	}
}

// announced is what was announced since it was asked last; jobs that are due run first.
func (h *house) announced() string {
	h.t.Helper()
	if _, err := h.db.RunDue(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	s := strings.Join(h.said, ", ")
	h.said = nil
	return s
}

func (h *house) open(t *testing.T) (as []Alarm) {
	t.Helper()
	if err := h.db.View(t.Context(), func(tx *store.Tx) (err error) {
		as, err = alarms(tx, ten, Question{State: "open", Whole: true, Limit: 100})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return as
}

func TestRaisedAndOver(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		d, other := h.device("A1"), h.device("B1")
		h.rule(Rule{Name: "hot", Kind: Threshold, Stream: "env", Field: "temp", Op: ">", Value: 80, Filter: "serial:A*"})
		for _, topic := range []string{"tele/env", "tele/other", "event/env"} {
			if got := h.Watches(ten, d.ID, topic); got != (topic == "tele/env") {
				t.Errorf("watches %s: %v", topic, got)
			}
		}
		if h.Watches("ten_b", d.ID, "tele/env") {
			t.Error("the rule of one tenant watches another")
		}
		h.measured(d.ID, 79)
		h.hand.Advance(time.Second)
		h.measured(d.ID, 81)
		h.measured(other.ID, 99) // not among those of the rule
		if got := h.announced(); got != "raised hot" {
			t.Fatalf("announced %q", got)
		}
		as := h.open(t)
		if len(as) != 1 || as[0].Device != d.ID || as[0].Value != "env temp is 81" || as[0].Product != "prd_1" || !as[0].Since.Equal(t0.Add(time.Second)) {
			t.Fatalf("%+v", as)
		}
		a, err := h.Acknowledge(t.Context(), ten, as[0].ID, "per_2", "on my way")
		if err != nil || a.AckedBy != "per_2" || !a.Ended.IsZero() {
			t.Errorf("%+v, %v", a, err)
		}
		if _, err := h.Acknowledge(t.Context(), ten, as[0].ID, "per_3", ""); !problem.Is(err, problem.KindConflict) {
			t.Errorf("acknowledged twice: %v", err)
		}
		if _, err := h.Close(t.Context(), "ten_b", as[0].ID, "per_3", ""); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("closed by another tenant: %v", err)
		}
		h.hand.Advance(time.Second)
		h.measured(d.ID, 70)
		if got := h.announced(); got != "cleared hot" || len(h.open(t)) != 0 {
			t.Errorf("announced %q, open %+v", got, h.open(t))
		}
	})
}

// TestHoldsByTimeAlone: a condition that must hold is completed by the clock when the device says nothing more.
func TestHoldsByTimeAlone(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		d := h.device("A1")
		h.rule(Rule{Name: "hot", Kind: Threshold, Stream: "env", Field: "temp", Op: ">", Value: 80, For: 60})
		h.measured(d.ID, 81)
		h.hand.Advance(59 * time.Second)
		if got := h.announced(); got != "" {
			t.Errorf("announced %q before its time", got)
		}
		h.hand.Advance(time.Second)
		if got := h.announced(); got != "raised hot" {
			t.Errorf("announced %q", got)
		}
	})
}

// TestSilence: a device that falls silent, or has never said anything, is missed; one that was retired is not.
func TestSilence(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		talks, never, gone := h.device("A1"), h.device("B1"), h.device("C1")
		h.rule(Rule{Name: "silent", Kind: Absence, Window: 300})
		if got := h.announced(); got != "" {
			t.Fatalf("announced %q", got)
		}
		h.hand.Advance(200 * time.Second)
		h.measured(talks.ID, 1)
		if err := h.db.Write(t.Context(), func(tx *store.Tx) error {
			return h.ids.SetState(tx, ten, gone.ID, identity.Suspended, "per_1", "lost")
		}); err != nil {
			t.Fatal(err)
		}
		h.hand.Advance(100 * time.Second)
		if got := h.announced(); got != "raised silent" || h.open(t)[0].Device != never.ID {
			t.Fatalf("announced %q: %+v", got, h.open(t))
		}
		h.hand.Advance(200 * time.Second)
		if got := h.announced(); got != "raised silent" || len(h.open(t)) != 2 {
			t.Errorf("announced %q", got)
		}
		h.hand.Advance(time.Second)
		h.measured(talks.ID, 1)
		if got := h.announced(); got != "cleared silent" {
			t.Errorf("announced %q", got)
		}
		// Closed by a person, silence counts anew.
		if _, err := h.Close(t.Context(), ten, h.open(t)[0].ID, "per_1", "in the lab"); err != nil {
			t.Fatal(err)
		}
		h.hand.Advance(299 * time.Second)
		h.measured(talks.ID, 1)
		if got := h.announced(); got != "cleared silent" {
			t.Errorf("announced %q", got)
		}
		h.hand.Advance(time.Second)
		if got := h.announced(); got != "raised silent" {
			t.Errorf("announced %q", got)
		}
	})
}

func TestEventsThatComeTooOften(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		d := h.device("A1")
		h.rule(Rule{Name: "break-in", Kind: Events, Event: "login-failed", Count: 3, Window: 60, Signal: true, Severity: Critical})
		for range 3 {
			h.hand.Advance(time.Second)
			h.observe(telemetry.Sighting{Tenant: ten, Device: d.ID, Received: h.hand.Now(), Event: "login-failed", At: h.hand.Now()})
		}
		if got := h.announced(); got != "raised break-in" {
			t.Errorf("announced %q", got)
		}
		h.hand.Advance(time.Minute)
		if got := h.announced(); got != "cleared break-in" {
			t.Errorf("announced %q", got)
		}
	})
}

// TestRuleChanged: a rule that is changed, turned off or removed ends its alarms and forgets what it remembered.
func TestRuleChanged(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		d := h.device("A1")
		r := h.rule(Rule{Name: "hot", Kind: Threshold, Stream: "env", Field: "temp", Op: ">", Value: 80})
		h.measured(d.ID, 81)
		h.hand.Advance(time.Second)
		r.Value = 90
		r = h.rule(r)
		if len(h.open(t)) != 0 {
			t.Errorf("open: %+v", h.open(t))
		}
		h.measured(d.ID, 85)
		h.hand.Advance(time.Second)
		h.measured(d.ID, 91)
		if len(h.open(t)) != 1 {
			t.Errorf("open: %+v", h.open(t))
		}
		if err := h.RemoveRule(t.Context(), "ten_b", r.ID, "per_9"); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("removed by another tenant: %v", err)
		}
		old := h.index.Load()
		if err := h.RemoveRule(t.Context(), ten, r.ID, "per_1"); err != nil {
			t.Fatal(err)
		}
		h.index.Store(old) // as on a node that has not heard of it
		h.hand.Advance(time.Second)
		h.measured(d.ID, 99)
		if len(h.open(t)) != 0 {
			t.Errorf("open: %+v", h.open(t))
		}
		h.reload(t.Context())
		if h.Watches(ten, d.ID, "tele/env") {
			t.Error("a removed rule watches")
		}
		if _, err := h.SetRule(t.Context(), Rule{Tenant: ten, Name: "x", Kind: Absence, Window: 60, Severity: Info, Filter: "state:nonsense"}, "per_1"); err == nil {
			t.Error("a filter that nobody understands was taken")
		}
	})
}

// TestFromTheInbox: what a device says raises the alarm by way of the inbox, the compaction and the dispatcher; and what
// was received while the watcher failed is handed to it again.
func TestFromTheInbox(t *testing.T) {
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		h := open(t, db, clock.System)
		d := h.device("A1")
		h.rule(Rule{Name: "hot", Kind: Threshold, Stream: "env", Field: "temp", Op: ">", Value: 80})
		tele := telemetry.New(telemetry.Config{DB: db, Platform: db, Keys: h.keys, Identity: h.ids, Linger: 10 * time.Millisecond})
		seen, fails := make(chan error, 10), 1
		tele.Watch(h.Watches, func(ctx context.Context, x telemetry.Sighting) error {
			err := h.Observe(ctx, x)
			if fails > 0 {
				fails--
				err = fmt.Errorf("the watcher is not well")
			}
			seen <- err
			return err
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- tele.Work(ctx) }()
		now := time.Now()
		if err := tele.Append(ctx, []gateway.Record{
			{Tenant: ten, Device: d.ID, Topic: "tele/other", At: now.UnixMilli(), Body: []byte(`{"temp":99}`)},
			{Tenant: ten, Device: d.ID, Topic: "tele/env", At: now.UnixMilli(), Body: []byte(`{"temp":81}`)},
		}); err != nil {
			t.Fatal(err)
		}
		for _, want := range []bool{false, true} {
			select {
			case err := <-seen:
				if (err == nil) != want {
					t.Errorf("observed: %v", err)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("nothing was observed")
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if as := h.open(t); len(as) != 1 || as[0].Device != d.ID {
			t.Errorf("%+v", as)
		}
	})
}

// A group that a rule goes by is neither renamed nor removed, and says who uses it.
func TestGroupOfARuleStays(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ctx := tenant.WithActor(t.Context(), tenant.System(ten))
		things := h.cfg.Fleet
		g, err := things.CreateGroup(ctx, fleet.Group{Name: "pilot", Filter: "state:commissioned"})
		if err != nil {
			t.Fatal(err)
		}
		r := h.rule(Rule{Name: "Too hot", Kind: Threshold, Stream: "env", Field: "temp", Op: ">", Value: 80, Filter: "group:pilot -online:no", Off: true})
		h.rule(Rule{Name: "Of all", Kind: Threshold, Stream: "env", Field: "temp", Op: ">", Value: 80})
		uses, err := things.Uses(ctx, g)
		if want := []fleet.Use{{Kind: "alarm rule", ID: r.ID, Name: "Too hot", Href: "/alarms/rules"}}; err != nil || !slices.Equal(want, uses) {
			t.Errorf("used by %+v, %v", uses, err)
		}
		_, renamed := things.ChangeGroup(ctx, g.ID, func(g *fleet.Group) { g.Name = "other" })
		for what, err := range map[string]error{"renamed": renamed, "removed": things.RemoveGroup(ctx, g.ID)} {
			if !problem.Is(err, problem.KindConflict) || problem.Of(err).Text != "The group pilot is used by the alarm rule Too hot and cannot be "+what+"." {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := h.RemoveRule(ctx, ten, r.ID, "per_1"); err != nil {
			t.Fatal(err)
		}
		if err := things.RemoveGroup(ctx, g.ID); err != nil {
			t.Error(err)
		}
	})
}
