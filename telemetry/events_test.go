// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// event is a record of event/<kind>, received at t0.
func event(device, kind, body string) gateway.Record {
	return gateway.Record{Tenant: "ten", Device: device, Topic: "event/" + kind, At: t0.UnixMilli(), Body: []byte(body)}
}

// timed is an event of a device whose clock is right.
func timed(device, kind string, at time.Time, detail string) gateway.Record {
	return event(device, kind, fmt.Sprintf(`{"ts": %d, "detail": %q, "data": {"n": 1}}`, at.UnixMilli(), detail))
}

// events is what a device is known to have told, the newest first, as "type detail".
func (r rig) events(tenant, device string) (out []string) {
	r.t.Helper()
	events, err := r.Events(r.t.Context(), tenant, device, "", 100)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range events {
		out = append(out, e.Type+" "+e.Detail)
	}
	return out
}

func TestEvents(t *testing.T) {
	each(t, func(r rig) {
		r.append(timed("dev_a", "boot", t0.Add(-time.Minute), "cold"), event("dev_a", "tamper", `{"detail":"lid"}`), timed("dev_b", "boot", t0, "warm"),
			message("dev_a", t0, 1, 20))
		r.compactAll()
		got, err := r.Events(r.t.Context(), "ten", "dev_a", "", 100)
		if err != nil || len(got) != 2 {
			r.t.Fatalf("%+v, %v", got, err)
		}
		want := []Event{
			{ID: got[0].ID, Type: "tamper", At: t0, Received: t0, Detail: "lid"},
			{ID: got[1].ID, Type: "boot", At: t0.Add(-time.Minute), Received: t0, Detail: "cold", Data: map[string]any{"n": 1.0}},
		}
		if d := cmp.Diff(want, got); d != "" {
			r.t.Errorf("(-want +got):\n%s", d)
		}
		if page, err := r.Events(r.t.Context(), "ten", "dev_a", got[0].ID, 1); err != nil || len(page) != 1 || page[0].ID != got[1].ID {
			r.t.Errorf("after the first: %+v, %v", page, err)
		}
		if n := strings.Count(r.all("dev_a"), `"count": 1`); n != 1 {
			r.t.Errorf("%d measurements, want 1", n)
		}
		if other := r.events("ten2", "dev_a"); len(other) != 0 {
			r.t.Errorf("another tenant reads %v", other)
		}
	})
}

// An event with its time that is sent again, since its receipt was lost, is kept once; what differs, and what carries no
// time, is kept as often as it came.
func TestRepeatedEventIsKeptOnce(t *testing.T) {
	each(t, func(r rig) {
		boot, clockless := timed("dev_a", "boot", t0, "cold"), event("dev_a", "boot", `{"ts":7,"detail":"no clock"}`)
		r.append(boot, boot, timed("dev_b", "boot", t0, "cold")) // in one batch
		r.compactAll()
		for range 2 {
			boot.At += 60_000
			r.append(boot, timed("dev_a", "boot", t0, "warm"), timed("dev_a", "stop", t0, "cold"), clockless)
			r.compactAll()
		}
		got := r.events("ten", "dev_a")
		slices.Sort(got)
		want := []string{"boot cold", "boot no clock", "boot no clock", "boot warm", "stop cold"}
		if d := cmp.Diff(want, got); d != "" {
			r.t.Errorf("(-want +got):\n%s", d)
		}
		if n := len(r.events("ten", "dev_b")); n != 1 {
			r.t.Errorf("the other device has %d events, want 1", n)
		}
	})
}

// After an erasure no event of the device is left or can be read, one still in the inbox included.
func TestEraseDeviceErasesEvents(t *testing.T) {
	each(t, func(r rig) {
		ctx := r.t.Context()
		r.append(timed("dev_a", "tamper", t0, "the lid was opened"), timed("dev_b", "tamper", t0, "the lid was opened"))
		r.compactAll()
		var sealed []byte
		if err := r.cfg.DB.QueryRow(ctx, `SELECT body FROM telemetry_event WHERE device = 'dev_a'`).Scan(&sealed); err != nil {
			r.t.Fatal(err)
		}
		if len(sealed) == 0 || strings.Contains(string(sealed), "lid was opened") {
			r.t.Error("the event was not sealed")
		}
		r.append(timed("dev_a", "tamper", t0.Add(time.Second), "again"))
		for range 2 {
			if err := r.EraseDevice(ctx, "ten", "dev_a"); err != nil {
				r.t.Fatal(err)
			}
		}
		r.append(timed("dev_a", "tamper", t0.Add(2*time.Second), "under way"))
		r.compactAll()
		if n := r.rows("telemetry_event WHERE device = 'dev_a'"); n != 0 {
			r.t.Errorf("%d events of the erased device remain", n)
		}
		if _, err := r.Events(ctx, "ten", "dev_a", "", 10); !problem.Is(err, problem.KindNotFound) {
			r.t.Errorf("Events of an erased device: %v", err)
		}
		if n := len(r.events("ten", "dev_b")); n != 1 {
			r.t.Errorf("the other device has %d events, want 1", n)
		}
	})
}

// What is no wire.Event is dropped and counted against its device, like a bad measurement.
func TestBadEventsAreDroppedAndCounted(t *testing.T) {
	each(t, func(r rig) {
		bad := []string{`[]`, `null`, `{`, ``, "\xff", `{"ts":"noon"}`, `{"detail":1}`, `{"data":[1]}`, `{"data":{"n":1e999}}`, `{"detail":"` + strings.Repeat("x", maxEvent) + `"}`}
		var records []gateway.Record
		for _, body := range bad {
			records = append(records, event("dev_bad", "boot", body))
		}
		r.append(append(records, event("dev_bad", "a/b", `{}`), event("dev_bad", "../x", `{}`), event("dev_bad", "boot", `{}`), event("dev_good", "boot", `{"detail":"fine"}`))...)
		r.compactAll()
		latest, err := r.Latest(r.t.Context(), "ten", "dev_bad")
		if err != nil {
			r.t.Fatal(err)
		}
		if latest.Refused != int64(len(bad)+2) || !strings.Contains(latest.Reason, "event type") {
			r.t.Errorf("%d refused, want %d; the last: %s", latest.Refused, len(bad)+2, latest.Reason)
		}
		if got := append(r.events("ten", "dev_bad"), r.events("ten", "dev_good")...); cmp.Diff([]string{"boot ", "boot fine"}, got) != "" {
			r.t.Errorf("kept %q", got)
		}
		if n := r.rows("telemetry_inbox"); n != 0 {
			r.t.Errorf("%d inbox rows remain", n)
		}
	})
}

// A damaged row neither hides the device's other events from the compactor nor stops other devices.
func TestDamagedEventStopsNobody(t *testing.T) {
	each(t, func(r rig) {
		r.append(timed("dev_a", "boot", t0, "cold"))
		r.compactAll()
		if err := r.cfg.DB.Write(r.t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE telemetry_event SET body = $1`, []byte("damaged"))
			return err
		}); err != nil {
			r.t.Fatal(err)
		}
		r.append(timed("dev_a", "boot", t0, "cold"), timed("dev_b", "boot", t0, "cold"))
		r.compactAll()
		if n := r.rows("telemetry_event"); n != 3 {
			r.t.Errorf("%d events, want 3", n)
		}
	})
}

// What no stage takes is refused before it is acknowledged, and what lost its stage afterwards waits.
func TestNothingWithoutAHandlerIsAcknowledged(t *testing.T) {
	each(t, func(r rig) {
		ctx := r.t.Context()
		record := func(topic string) gateway.Record {
			return gateway.Record{Tenant: "ten", Device: "dev_a", Topic: topic, At: t0.UnixMilli(), Body: []byte(`{}`)}
		}
		for _, topic := range []string{"state/reported", "cmd/1/res", "tele", "event", "inventory", ""} {
			if err := r.Append(ctx, []gateway.Record{message("dev_a", t0, 1, 20), record(topic)}); !problem.Is(err, problem.KindInvalid) {
				r.t.Errorf("%q: %v", topic, err)
			}
		}
		if n := r.rows("telemetry_inbox"); n != 0 {
			r.t.Errorf("%d rows of refused batches", n)
		}
		r.Route("cmd/", func(context.Context, gateway.Record) error { return nil })
		r.append(record("cmd/1/res"))
		delete(r.routes, "cmd/") // as in a later version without that stage
		r.compactAll()
		if _, err := r.dispatch(ctx); err != nil {
			r.t.Fatal(err)
		}
		if n := r.rows("telemetry_pending WHERE attempts = 1"); n != 1 {
			r.t.Errorf("%d records wait for their stage, want 1", n)
		}
	})
}

func FuzzEvent(f *testing.F) {
	for _, s := range []string{`{}`, `{"ts":1795262400000,"detail":"x","data":{"a":[1,{"b":null}]}}`, `null`, `{"ts":1.5}`, "{\"detail\":\"\xff\"}", ` { "ts" : 0 } `} {
		f.Add("boot", []byte(s))
	}
	f.Add("a/b", []byte(`{}`))
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		r := event("dev_a", kind, "")
		r.Body = body
		h, err := parseEvent(r)
		if err != nil {
			if !problem.Is(err, problem.KindInvalid) {
				t.Errorf("refused with %v", err)
			}
			return
		}
		if !validName(h.kind) || len(h.body) > len(body) || len(body) > maxEvent {
			t.Errorf("kept %q %q", h.kind, h.body)
		}
		r.Body = h.body
		if again, err := parseEvent(r); err != nil || !again.same(h) {
			t.Errorf("what is kept does not read again: %v", err)
		}
	})
}
