// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
)

// runRetention turns the clock to the job's next run and runs it, page after page.
func (r rig) runRetention() {
	r.t.Helper()
	r.clk.Advance(retainEvery)
	for n := 1; n > 0; {
		var err error
		if n, err = r.cfg.DB.RunDue(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
	}
}

// daily is a message of stream env for each of some days before t0: the temperature and the number of people.
func daily(device string, days, first int) (out []gateway.Record) {
	for i := range days {
		at := t0.Add(-time.Duration(days-i) * 24 * time.Hour)
		out = append(out, gateway.Record{Tenant: "ten", Device: device, Topic: "tele/env", At: t0.UnixMilli(),
			Body: fmt.Appendf(nil, `{"ts":%d,"boot":1,"seq":%d,"values":{"temp":%d,"people":%d}}`, at.UnixMilli(), first+i, i, i)})
	}
	return out
}

// held counts the values of each field that are kept of a device.
func (r rig) held(device string) map[string]int {
	r.t.Helper()
	out := map[string]int{}
	err := r.Samples(r.t.Context(), "ten", device, Query{From: t0.Add(-1000 * 24 * time.Hour), To: t0.Add(1000 * 24 * time.Hour)}, func(_, field string, _ time.Time, _ float64) error {
		out[field]++
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// Each field is kept for as long as its catalogue says: what is older goes, in chunks as a whole and out of the middle of
// them, from the latest values too; that it went is in the log, once.
func TestRetentionByField(t *testing.T) {
	each(t, func(r rig) {
		ctx := r.t.Context()
		if err := r.planRetention(ctx); err != nil {
			r.t.Fatal(err)
		}
		r.product(Catalogue{Undeclared: KeepUndeclared, Fields: []Field{
			{Stream: "env", Name: "temp", Purpose: "keeps food", Retention: 100},
			{Stream: "env", Name: "people", Purpose: "counts visitors", Retention: 10, Personal: true},
		}}, "dev_a", "dev_b")
		if err := r.SetRetention(ctx, "ten", 20, "per_x"); err != nil {
			r.t.Fatal(err)
		}
		r.append(daily("dev_a", 100, 1)...)
		r.compactAll()
		// Too old on arrival is not kept at all.
		if d := cmp.Diff(map[string]int{"temp": 100, "people": 10}, r.held("dev_a")); d != "" {
			r.t.Errorf("on arrival (-want +got):\n%s", d)
		}
		r.runRetention() // a day on: one of each is over
		if d := cmp.Diff(map[string]int{"temp": 99, "people": 9}, r.held("dev_a")); d != "" {
			r.t.Errorf("a day on (-want +got):\n%s", d)
		}
		chunks := r.rows("telemetry_chunk WHERE device = 'dev_a'")
		for range 8 {
			r.runRetention()
		}
		if d := cmp.Diff(map[string]int{"temp": 91, "people": 1}, r.held("dev_a")); d != "" {
			r.t.Errorf("nine days on (-want +got):\n%s", d)
		}
		if n := r.rows("telemetry_chunk WHERE device = 'dev_a'"); n > chunks {
			r.t.Errorf("cutting made %d chunks of %d", n, chunks)
		}
		for range 5 {
			r.runRetention()
		}
		latest, err := r.Latest(ctx, "ten", "dev_a")
		if err != nil || len(latest.Streams) != 1 || len(latest.Streams[0].Values) != 1 || latest.Streams[0].Values["temp"] != 99 {
			r.t.Errorf("the latest values: %+v, %v", latest, err)
		}
		// A catalogue that keeps less reaches back, also behind what was looked through.
		c := Catalogue{Undeclared: KeepUndeclared, Fields: []Field{{Stream: "env", Name: "temp", Purpose: "keeps food", Retention: 30}}}
		r.product(c)
		r.runRetention()
		if d := cmp.Diff(map[string]int{"temp": 15}, r.held("dev_a")); d != "" { // t0 is 15 days ago
			r.t.Errorf("under the shorter rule (-want +got):\n%s", d)
		}
		r.clk.Advance(39 * 24 * time.Hour)
		r.runRetention()
		if n := r.rows("telemetry_chunk WHERE device = 'dev_a'"); n != 0 || len(r.held("dev_a")) != 0 {
			r.t.Errorf("%d chunks remain of what is over", n)
		}
		// What still repeats is known as a repeat: the count of messages outlives the values.
		r.append(daily("dev_a", 1, 100)...)
		r.compactAll()
		if len(r.held("dev_a")) != 0 {
			r.t.Error("a repeat brought a value back")
		}
		var leaves int
		if err := r.cfg.DB.QueryRow(ctx, `SELECT count(*) FROM audit_entry WHERE kind = 'data.expired' AND subject = 'prd'`).Scan(&leaves); err != nil || leaves < 10 || leaves > 16 {
			r.t.Errorf("%d leaves say that data expired, %v", leaves, err)
		}
	})
}

// Without a catalogue the tenant's default counts, for one tenant and not for another.
func TestRetentionOfATenant(t *testing.T) {
	each(t, func(r rig) {
		ctx := r.t.Context()
		if err := r.planRetention(ctx); err != nil {
			r.t.Fatal(err)
		}
		r.judges.know("ten", "dev_a", "prd")
		r.judges.know("ten2", "dev_b", "prd2")
		other := daily("dev_b", 40, 1)
		for i := range other {
			other[i].Tenant = "ten2"
		}
		r.append(append(daily("dev_a", 40, 1), other...)...)
		r.compactAll()
		for _, days := range []int{0, -5, maxRetention + 1} {
			if err := r.SetRetention(ctx, "ten", days, "per_x"); !problem.Is(err, problem.KindInvalid) {
				r.t.Errorf("%d days: %v", days, err)
			}
		}
		if err := r.SetRetention(ctx, "ten", 7, "per_x"); err != nil {
			r.t.Fatal(err)
		}
		r.runRetention()
		if d := cmp.Diff(map[string]int{"temp": 6, "people": 6}, r.held("dev_a")); d != "" {
			r.t.Errorf("(-want +got):\n%s", d)
		}
		series, err := r.Series(ctx, "ten2", "dev_b", Query{From: t0.Add(-50 * 24 * time.Hour), To: t0, Max: 1000})
		if err != nil || len(series) != 2 || len(series[0].Points) != 40 {
			r.t.Errorf("the other tenant keeps %d series, %v", len(series), err)
		}
		if d, err := r.Retention(ctx, "ten2"); err != nil || d != defaultRetention {
			r.t.Errorf("the other tenant's default: %d, %v", d, err)
		}
	})
}

// Many devices are walked page by page, and each once.
func TestRetentionWalksAllDevices(t *testing.T) {
	each(t, func(r rig) {
		if err := r.planRetention(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
		var records []gateway.Record
		for i := range retainPage + 20 {
			d := fmt.Sprintf("dev_%03d", i)
			r.judges.know("ten", d, "prd")
			records = append(records, daily(d, 3, 1)...)
		}
		r.append(records...)
		r.compactAll()
		if err := r.SetRetention(r.t.Context(), "ten", 2, "per_x"); err != nil {
			r.t.Fatal(err)
		}
		r.runRetention()
		for _, d := range []string{"dev_000", "dev_199", "dev_200", "dev_219"} {
			if n := r.held(d)["temp"]; n != 1 {
				r.t.Errorf("%s holds %d values", d, n)
			}
		}
		if n := r.rows("job WHERE kind = '" + retainJob + "'"); n != 1 {
			r.t.Errorf("%d jobs wait", n)
		}
	})
}
