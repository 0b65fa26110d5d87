// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/wire"
)

// twins is a stage with real devices whose sessions are a map and whose downlinks are a channel.
type twins struct {
	*Service
	t      *testing.T
	clk    *clock.Hand
	device string // commissioned, of tenant "ten"
	gone   string // decommissioned
	sent   chan gateway.Downlink

	mu     sync.Mutex
	live   bool
	fail   error
	answer func() // the device's, once, before its acknowledgement is seen
}

func (w *twins) online(is bool) {
	w.mu.Lock()
	w.live = is
	w.mu.Unlock()
	if is {
		w.TwinReady(w.device)
	}
}

// node is a stage of w's platform in another process; the device is not connected there.
func (w *twins) config(db *store.DB) Config {
	return Config{DB: db, Identity: w.cfg.Identity, Keys: w.cfg.Keys, Clock: w.clk,
		Live: func(string) bool { w.mu.Lock(); defer w.mu.Unlock(); return w.live },
		Send: func(ctx context.Context, d gateway.Downlink) error {
			w.mu.Lock()
			live, fail := w.live, w.fail
			w.fail = nil
			w.mu.Unlock()
			switch {
			case !live:
				return gateway.ErrOffline
			case fail != nil:
				return fail
			}
			select {
			case w.sent <- d:
				w.mu.Lock()
				answer := w.answer
				w.answer = nil
				w.mu.Unlock()
				if answer != nil {
					answer()
				}
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
}

func eachTwins(t *testing.T, fn func(w *twins)) {
	clk := clock.NewHand(t0)
	storetest.Each(t, []store.Migrations{seal.Schema, audit.Schema, identity.Schema, Schema}, func(t *testing.T, db *store.DB) {
		clk.Set(t0)
		w := &twins{t: t, clk: clk, sent: make(chan gateway.Downlink)}
		keys, err := seal.Open(filepath.Join(t.TempDir(), "keys"), clk)
		w.must(err)
		issuer, err := embedded.Open(embedded.Config{Dir: filepath.Join(t.TempDir(), "ca"), Keys: keys, Name: "Test", Clock: clk})
		w.must(err)
		ids, err := identity.New(identity.Config{DB: db, Issuer: issuer, Clock: clk})
		w.must(err)
		w.must(db.Write(t.Context(), func(tx *store.Tx) error {
			for serial, states := range map[string][]identity.State{"SN-1": {identity.Provisioned, identity.Pending, identity.Commissioned}, "SN-2": {identity.Provisioned, identity.Decommissioned}} {
				d, err := ids.Register(tx, identity.Device{Tenant: "ten", Product: "prd", Serial: serial}, "per_x")
				if err != nil {
					return err
				}
				for _, st := range states {
					if err := ids.SetState(tx, "ten", d.ID, st, "per_x", "test"); err != nil {
						return err
					}
				}
				if serial == "SN-1" {
					w.device = d.ID
				} else {
					w.gone = d.ID
				}
			}
			return nil
		}))
		w.Service = &Service{cfg: Config{Identity: ids, Keys: keys}}
		w.Service = New(w.config(db))
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.WorkTwins(ctx) }()
		fn(w)
		stop()
		w.must(<-ended)
	}, func(c *store.Config) { c.Clock = clk })
}

func (w *twins) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *twins) want(patch string, version int64) (Twin, error) {
	w.t.Helper()
	p, err := wire.ParsePatch([]byte(patch))
	w.must(err)
	return w.SetDesired(w.t.Context(), Desired{Tenant: "ten", Device: w.device, Patch: p, If: version, Actor: "per_x"})
}

func (w *twins) wants(patch string) Twin {
	w.t.Helper()
	t, err := w.want(patch, Any)
	w.must(err)
	return t
}

func (w *twins) says(r wire.TwinReport) error {
	b, err := json.Marshal(r)
	w.must(err)
	return w.Reported(w.t.Context(), gateway.Record{Tenant: "ten", Device: w.device, Topic: "state/reported", Body: b})
}

func (w *twins) twin() Twin {
	w.t.Helper()
	t, err := w.Twin(w.t.Context(), "ten", w.device)
	w.must(err)
	return t
}

// hears takes the next downlink of the device.
func (w *twins) hears() wire.TwinDelta {
	w.t.Helper()
	d := <-w.sent
	var delta wire.TwinDelta
	if err := json.Unmarshal(d.Payload, &delta); err != nil || d.Device != w.device || d.Topic != "state/desired" {
		w.t.Fatalf("heard %+v, %v", d, err)
	}
	return delta
}

// long is a document beside which a patch is short.
var long = `{"text":"` + strings.Repeat("x", 200) + `"}`

// What is desired reaches the device as the whole first and as a patch later; what it applies is known.
func TestTwinGoesRound(t *testing.T) {
	eachTwins(t, func(w *twins) {
		w.online(true)
		if got := w.wants(long); got.DesiredVersion != 1 || got.Behind == nil || got.DesiredBy != "per_x" {
			w.t.Errorf("desired: %+v", got)
		}
		if d := w.hears(); d.Version != 1 || string(d.Full) != long || d.Patch != nil {
			w.t.Errorf("the device heard %s %s", d.Full, d.Patch)
		}
		w.must(w.says(wire.TwinReport{Boot: 1, Seq: 1, Applied: 1, Full: json.RawMessage(long)}))
		if got := w.twin(); got.Applied != 1 || got.Behind != nil || string(got.Reported) != long || got.ReportedVersion != 1 {
			w.t.Errorf("applied: %+v", got)
		}
		w.clk.Advance(time.Minute)
		w.wants(`{"light":{"level":40}}`)
		if d := w.hears(); d.Version != 2 || d.Base != 1 || string(d.Patch) != `{"light":{"level":40}}` || d.Full != nil {
			w.t.Errorf("the device heard %d from %d: %s %s", d.Version, d.Base, d.Full, d.Patch)
		}
		if got := w.twin(); got.Behind == nil || !got.Behind.Equal(t0.Add(time.Minute)) {
			w.t.Errorf("behind since %v", got.Behind)
		}
		w.must(w.says(wire.TwinReport{Boot: 1, Seq: 2, Applied: 1, Failed: 2, Error: "no such lamp\x00"}))
		if got := w.twin(); got.Failed != 2 || got.Error != "no such lamp" || got.Behind == nil {
			w.t.Errorf("failed: %+v", got)
		}
		// A report that another overtook changes nothing.
		w.must(w.says(wire.TwinReport{Boot: 1, Seq: 4, Applied: 2, Patch: json.RawMessage(`{"light":{"level":40}}`)}))
		w.must(w.says(wire.TwinReport{Boot: 1, Seq: 3, Applied: 1, Patch: json.RawMessage(`{"light":null}`)}))
		got := w.twin()
		if got.Applied != 2 || got.Behind != nil || got.Failed != 0 || !strings.Contains(string(got.Reported), `"level":40`) {
			w.t.Errorf("in the end: %+v", got)
		}
		if same := w.wants(`{"light":{"level":40},"nothing":null}`); same.DesiredVersion != 2 || same.Behind != nil {
			w.t.Errorf("desired again: %+v", same)
		}
	})
}

// A device that was away hears the newest version when it is back; one that asks gets the whole.
func TestTwinOfAnOfflineDevice(t *testing.T) {
	eachTwins(t, func(w *twins) {
		w.wants(`{"a":1}`)
		w.wants(`{"a":2}`)
		w.online(true)
		if d := w.hears(); d.Version != 2 || string(d.Full) != `{"a":2}` {
			w.t.Errorf("back: %+v", d)
		}
		w.must(w.says(wire.TwinReport{Applied: 0, Resync: true})) // its disk was lost meanwhile
		if d := w.hears(); d.Version != 2 || string(d.Full) != `{"a":2}` {
			w.t.Errorf("asked: %+v", d)
		}
		w.must(w.says(wire.TwinReport{Applied: 2}))
		// The database is older than what the device goes by: a backup was restored.
		w.must(w.says(wire.TwinReport{Applied: 9}))
		if n := w.twin().Applied; n != 0 {
			w.t.Fatalf("it goes by version %d, which nobody knows", n)
		}
		if d := w.hears(); d.Version != 2 || string(d.Full) != `{"a":2}` {
			w.t.Errorf("after a restore: %+v", d)
		}
	})
}

// A device's report may be taken before its acknowledgement of what it was told is seen: it still hears the whole again.
func TestTwinOfAQuickDevice(t *testing.T) {
	eachTwins(t, func(w *twins) {
		w.answer = func() {
			if err := w.says(wire.TwinReport{Resync: true}); err != nil {
				w.t.Error(err)
			}
		}
		w.wants(`{"a":1}`)
		w.online(true)
		for range 2 {
			if d := w.hears(); d.Version != 1 || string(d.Full) != `{"a":1}` {
				w.t.Errorf("heard %+v", d)
			}
		}
		w.must(w.says(wire.TwinReport{Applied: 1}))
	})
}

// What is desired on one node reaches a device on another, and what could not be delivered is tried again.
func TestTwinAcrossNodes(t *testing.T) {
	eachTwins(t, func(w *twins) {
		w.online(true)
		elsewhere := New(Config{DB: w.cfg.DB, Identity: w.cfg.Identity, Keys: w.cfg.Keys, Clock: w.clk, Live: func(string) bool { return false }})
		p, err := wire.ParsePatch([]byte(`{"a":1}`))
		w.must(err)
		w.mu.Lock()
		w.fail = errors.New("no PUBACK")
		w.mu.Unlock()
		if _, err := elsewhere.SetDesired(w.t.Context(), Desired{Tenant: "ten", Device: w.device, Patch: p, If: Any, Actor: "per_y"}); err != nil {
			w.t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { // the clock of the second look, and of the one after the failure
			defer close(done)
			for w.t.Context().Err() == nil {
				w.clk.WaitTimers(1)
				select {
				case d := <-w.sent:
					if d.Device != w.device {
						w.t.Errorf("sent %+v", d)
					}
					return
				default:
					w.clk.Advance(twinLook)
				}
			}
		}()
		<-done
		w.must(w.says(wire.TwinReport{Applied: 1}))
	})
}

func TestTwinConflicts(t *testing.T) {
	eachTwins(t, func(w *twins) {
		w.wants(`{"a":1}`)
		if _, err := w.want(`{"a":2}`, 0); !problem.Is(err, problem.KindPrecondition) {
			w.t.Errorf("a change of what was not seen: %v", err)
		}
		if got, err := w.want(`{"a":2}`, 1); err != nil || got.DesiredVersion != 2 {
			w.t.Errorf("a change of what was seen: %+v %v", got, err)
		}
		// Many at once: each is one version, none is lost.
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for {
					_, err := w.want(fmt.Sprintf(`{"n%d":%d}`, i, i), Any)
					if err == nil {
						return
					}
					if !problem.Is(err, problem.KindUnavailable) {
						w.t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		got := w.twin()
		if got.DesiredVersion != 10 || string(got.Desired) != `{"a":2,"n0":0,"n1":1,"n2":2,"n3":3,"n4":4,"n5":5,"n6":6,"n7":7}` {
			w.t.Errorf("%d %s", got.DesiredVersion, got.Desired)
		}
		cs, err := w.TwinChanges(w.t.Context(), "ten", w.device, 0, 3)
		w.must(err)
		if len(cs) != 3 || cs[0].Version != 10 || cs[2].Version != 8 || cs[0].Actor != "per_x" || !bytes.Contains(cs[0].Patch, []byte(`"n`)) {
			w.t.Errorf("changes: %+v", cs)
		}
		last, err := w.TwinChanges(w.t.Context(), "ten", w.device, 3, 3)
		w.must(err)
		if len(last) != 2 || last[0].Version != 2 || string(last[0].Patch) != `{"a":2}` || string(last[1].Patch) != `{"a":1}` {
			w.t.Errorf("the oldest: %+v", last)
		}
	})
}

func TestTwinBounds(t *testing.T) {
	eachTwins(t, func(w *twins) {
		w.wants(`{"a":"` + strings.Repeat("x", wire.MaxTwin/2) + `"}`)
		if _, err := w.want(`{"b":"`+strings.Repeat("x", wire.MaxTwin/2)+`"}`, Any); !problem.Is(err, problem.KindInvalid) {
			w.t.Errorf("too long together: %v", err)
		}
		if _, err := w.SetDesired(w.t.Context(), Desired{Tenant: "ten", Device: w.gone, Patch: wire.Doc{"a": true}, If: Any}); !problem.Is(err, problem.KindConflict) {
			w.t.Errorf("desired of a device that is gone: %v", err)
		}
		for _, tenant := range []string{"ten2", ""} {
			if _, err := w.SetDesired(w.t.Context(), Desired{Tenant: tenant, Device: w.device, Patch: wire.Doc{"a": true}, If: Any}); !problem.Is(err, problem.KindNotFound) {
				w.t.Errorf("by another tenant: %v", err)
			}
		}
		for topic, body := range map[string]string{
			"state/reported": `[`, "state/reported ": `{}`, "state/other": `{}`,
		} {
			if err := w.Reported(w.t.Context(), gateway.Record{Tenant: "ten", Device: w.device, Topic: topic, Body: []byte(body)}); !problem.Is(err, problem.KindInvalid) {
				w.t.Errorf("%s %s: %v", topic, body, err)
			}
		}
		for what, r := range map[string]wire.TwinReport{
			"both": {Full: json.RawMessage(`{}`), Patch: json.RawMessage(`{}`)}, "a list": {Full: json.RawMessage(`[]`)}, "null": {Full: json.RawMessage(`{"a":null}`)},
			"a null in a list": {Patch: json.RawMessage(`{"a":[null]}`)},
		} {
			if err := w.says(r); !problem.Is(err, problem.KindInvalid) {
				w.t.Errorf("%s: %v", what, err)
			}
		}
		if got := w.twin(); string(got.Reported) != "{}" || got.ReportedVersion != 0 {
			w.t.Errorf("nonsense left %+v", got)
		}
	})
}

// What is kept of a device's state is sealed with its own key: once that is destroyed, nothing opens any more, and what
// the device still says is dropped.
func TestTwinIsErasedWithItsKey(t *testing.T) {
	eachTwins(t, func(w *twins) {
		w.wants(`{"place":"Hafenstrasse"}`)
		w.must(w.says(wire.TwinReport{Applied: 0, Full: json.RawMessage(`{"owner":"Erika"}`)}))
		var desired, reported, doc []byte
		w.must(w.cfg.DB.QueryRow(w.t.Context(), `SELECT desired, reported FROM twin`).Scan(&desired, &reported))
		w.must(w.cfg.DB.QueryRow(w.t.Context(), `SELECT doc FROM twin_version`).Scan(&doc))
		for _, b := range [][]byte{desired, reported, doc} {
			if bytes.Contains(b, []byte("Hafen")) || bytes.Contains(b, []byte("Erika")) {
				w.t.Error("a document lies open in the database")
			}
		}
		w.must(w.cfg.DB.Write(w.t.Context(), func(tx *store.Tx) error { return w.cfg.Keys.DestroySubject(tx, "ten", w.device) }))
		if got := w.twin(); string(got.Desired) != "{}" || string(got.Reported) != "{}" {
			w.t.Errorf("after the erasure: %+v", got)
		}
		if err := w.says(wire.TwinReport{Full: json.RawMessage(`{"owner":"Erika"}`)}); !problem.Is(err, problem.KindNotFound) {
			w.t.Errorf("a report of an erased device: %v", err)
		}
		w.must(w.EraseTwin(w.t.Context(), "ten", w.device))
		var n int
		w.must(w.cfg.DB.QueryRow(w.t.Context(), `SELECT (SELECT count(*) FROM twin) + (SELECT count(*) FROM twin_version)`).Scan(&n))
		if n != 0 {
			w.t.Errorf("%d rows are left", n)
		}
	})
}

func TestDifferences(t *testing.T) {
	desired, err := wire.ParseDoc([]byte(`{"a":{"b":1,"c":[1,2]},"d":true,"e":{},"x/y":"t"}`))
	if err != nil {
		t.Fatal(err)
	}
	reported, err := wire.ParseDoc([]byte(`{"a":{"b":1.0,"c":[1]},"z":"<x>"}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Difference{{"a.b", "/a/b", "1", "1.0", false}, {"a.c", "/a/c", "[1,2]", "[1]", true}, {"d", "/d", "true", "", true}, {"e", "/e", "{}", "", true},
		{"x/y", "/x~1y", `"t"`, "", true}, {"z", "/z", "", `"<x>"`, false}}
	if d := cmp.Diff(want, differences(desired, reported)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// FuzzReported: whatever a device says of itself, nothing is kept that the platform could not tell again.
func FuzzReported(f *testing.F) {
	f.Add([]byte(`{"boot":1,"seq":2,"applied":3,"full":{"a":1}}`), []byte(`{"applied":-1,"patch":{"a":null}}`))
	f.Add([]byte(`{"applied":9223372036854775807}`), []byte(`{"boot":18446744073709551615,"seq":18446744073709551615,"patch":{"a":[null]}}`))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		row := twin{desired: wire.Doc{}, reported: wire.Doc{}, version: 3}
		for i, b := range [][]byte{first, second} {
			var r wire.TwinReport
			if json.Unmarshal(b, &r) != nil {
				continue
			}
			before := row
			if changed, _, err := row.report(r, int64(i+1)); err != nil {
				row = before
			} else if !changed && row.told != before.told {
				t.Error("nothing changed, and it counts")
			}
			if row.reported.Check() != nil || row.applied < 0 || row.applied > row.version || row.boot < 0 || row.seq < 0 || len(row.error) > maxTwinError+3 {
				t.Errorf("kept %+v", row)
			}
			if (row.behindSince == 0) != (row.applied == row.version) && row.told > 0 {
				t.Errorf("behind since %d at %d of %d", row.behindSince, row.applied, row.version)
			}
		}
	})
}
