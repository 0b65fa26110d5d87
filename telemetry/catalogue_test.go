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

// says is a message of stream env at t0 plus that many seconds.
func says(device string, seq int, values string) gateway.Record {
	return gateway.Record{Tenant: "ten", Device: device, Topic: "tele/env", At: t0.UnixMilli(),
		Body: fmt.Appendf(nil, `{"ts":%d,"boot":1,"seq":%d,"values":{%s}}`, t0.Add(time.Duration(seq)*time.Second).UnixMilli(), seq, values)}
}

// product makes devices those of product prd, and gives it the catalogue.
func (r rig) product(c Catalogue, devices ...string) CatalogueVersion {
	r.t.Helper()
	for _, d := range devices {
		r.judges.know("ten", d, "prd")
	}
	v, err := r.SetCatalogue(r.t.Context(), "ten", "prd", c, "per_x")
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

func temperature() Catalogue {
	low, high := -40.0, 85.0
	return Catalogue{Fields: []Field{
		{Stream: "env", Name: "temp", Unit: "Cel", Purpose: "keeps the cold chain", Min: &low, Max: &high},
		{Stream: "env", Name: "opened", Type: Integer, Purpose: "counts how often the door opened"},
		{Stream: "env", Name: "alarm", Type: Boolean, Purpose: "shows that the alarm is on"},
	}}
}

// CRA annex I part I 2(g): a field that nobody declared is kept nowhere, is counted by its rule, and a person who needs
// it declares it from the list.
func TestUndeclaredFieldIsKeptNowhere(t *testing.T) {
	each(t, func(r rig) {
		ctx := r.t.Context()
		r.product(temperature(), "dev_a")
		r.append(says("dev_a", 1, `"temp":4,"ssid":7`), says("dev_a", 1, `"temp":4,"ssid":7`), says("dev_a", 2, `"ssid":8`))
		before := r.all("dev_a")
		if strings.Contains(before, "ssid") || strings.Count(before, `"count": 1`) != 1 {
			r.t.Errorf("readers of the inbox see what will not be kept: %s", before)
		}
		r.compactAll()
		latest, err := r.Latest(ctx, "ten", "dev_a")
		if err != nil {
			r.t.Fatal(err)
		}
		want := []Dropped{{"env", "ssid", RuleUndeclared, 2, t0}} // the repeat is not counted
		if d := cmp.Diff(want, latest.Dropped); d != "" {
			r.t.Errorf("dropped (-want +got):\n%s", d)
		}
		if latest.Missing != 0 {
			r.t.Errorf("a message of which nothing is kept is missing: %+v", latest)
		}
		if got := r.all("dev_a"); strings.Count(got, `"field": "ssid"`) != 1 || strings.Count(got, `"count": 1`) != 1 {
			r.t.Errorf("after compaction: %s", got)
		}
		key, err := r.subject(ctx, "ten", "dev_a")
		if err != nil {
			r.t.Fatal(err)
		}
		small, err := smallChunks(ctx, r.cfg.DB, streamKey{"ten", "dev_a", "env"})
		if err != nil || len(small) != 1 {
			r.t.Fatalf("%d chunks, %v", len(small), err)
		}
		points, err := r.openChunk(key, small[0])
		if err != nil || len(points) != 1 || len(points[0].values) != 1 {
			r.t.Errorf("the chunk holds %+v, %v", points, err)
		}

		found, err := r.undeclared(ctx, "ten", "prd")
		if err != nil || len(found) != 1 || found[0].field != "ssid" || found[0].n != 2 {
			r.t.Fatalf("undeclared: %+v, %v", found, err)
		}
		if _, err := r.Declare(ctx, "ten", "prd", []Field{{Stream: "env", Name: "ssid", Purpose: "finds the network"}}, "per_x"); err != nil {
			r.t.Fatal(err)
		}
		if found, err = r.undeclared(ctx, "ten", "prd"); err != nil || len(found) != 0 {
			r.t.Errorf("declared, and still listed: %+v, %v", found, err)
		}
		r.append(says("dev_a", 3, `"ssid":9`))
		r.compactAll()
		if got := r.all("dev_a"); strings.Count(got, `"field": "ssid"`) != 2 { // one of them among what was dropped
			r.t.Errorf("a declared field is not kept: %s", got)
		}
	})
}

func TestSift(t *testing.T) {
	c, err := temperature().normal()
	if err != nil {
		t.Fatal(err)
	}
	r := CatalogueVersion{Catalogue: c, Version: 1}.compile(10)
	day := int64(24 * 3600 * 1000)
	for _, x := range []struct {
		name string
		v    float64
		unit string
		age  int64
		want string
	}{
		{"temp", 4, "", 0, "4"}, {"temp", 85, "", 0, "85"}, {"temp", 85.1, "", 0, RuleRange}, {"temp", -41, "", 0, RuleRange},
		{"temp", 4, "Cel", 0, "4"}, {"temp", 4, "K", 0, RuleUnit}, {"temp", 4, "", 10 * day, "4"}, {"temp", 4, "", 10*day + 1, RuleRetention},
		{"opened", 3, "", 0, "3"}, {"opened", 3.5, "", 0, RuleType}, {"alarm", 1, "", 0, "1"}, {"alarm", 2, "", 0, RuleType},
		{"other", 1, "", 0, RuleUndeclared},
	} {
		p := point{t: 100*day - x.age, values: []value{{x.name, x.v}}, units: map[string]string{x.name: x.unit}}
		got := ""
		for _, k := range r.sift("env", []point{p}, 100*day, func(_, rule string) { got += rule }) {
			got += fmt.Sprint(k.values[0].v)
		}
		if got != x.want {
			t.Errorf("%s %g %s, %d ms old: %s, want %s", x.name, x.v, x.unit, x.age, got, x.want)
		}
	}
	if got := (*rules)(nil).sift("env", []point{{values: []value{{"x", 1}}}}, 0, untold); len(got) != 1 {
		t.Error("without a catalogue something was dropped")
	}
}

func TestConvert(t *testing.T) {
	for _, x := range []struct {
		v        float64
		from, to string
		want     string
	}{
		{36, "km/h", "m/s", "10"}, {10, "m/s", "km/h", "36"}, {1, "kWh", "Wh", "1000"}, {50, "%", "/", "0.5"}, {20, "Cel", "Cel", "20"}, {20, "Cel", "K", "no"}, {20, "", "K", "20"},
	} {
		got, ok := convert(x.v, x.from, x.to)
		if text := fmt.Sprintf("%.6g", got); ok && text != x.want || !ok && x.want != "no" {
			t.Errorf("%g %s in %s: %s %v, want %s", x.v, x.from, x.to, text, ok, x.want)
		}
	}
}

func TestCatalogueIsVersionedAndLogged(t *testing.T) {
	each(t, func(r rig) {
		ctx := r.t.Context()
		if v, err := r.Catalogue(ctx, "ten", "prd"); err != nil || v.Version != 0 {
			r.t.Fatalf("before: %+v, %v", v, err)
		}
		if v := r.product(temperature()); v.Version != 1 || v.Undeclared != DropUndeclared {
			r.t.Errorf("first: %+v", v)
		}
		if v := r.product(temperature()); v.Version != 1 {
			r.t.Errorf("the same again is version %d", v.Version)
		}
		c := temperature()
		c.Fields[0].Purpose = "another"
		c.Fields = append(c.Fields[:1], Field{Stream: "env", Name: "hum", Purpose: "x"})
		if v := r.product(c); v.Version != 2 {
			r.t.Errorf("changed: version %d", v.Version)
		}
		if vs, err := r.Catalogues(ctx, "ten", "prd", 0, 10); err != nil || len(vs) != 2 || vs[0].Version != 2 {
			r.t.Errorf("history: %+v, %v", vs, err)
		}
		if v, err := r.Catalogue(ctx, "ten2", "prd"); err != nil || v.Version != 0 {
			r.t.Errorf("another tenant reads %+v, %v", v, err)
		}
		var n int
		if err := r.cfg.DB.QueryRow(ctx, `SELECT count(*) FROM audit_entry WHERE kind = 'catalogue.changed' AND subject = 'prd'`).Scan(&n); err != nil || n != 2 {
			r.t.Errorf("%d leaves, %v", n, err)
		}
		d := Catalogue{Fields: c.Fields}.since(temperature())
		if d := cmp.Diff(change{Added: []string{"env/hum"}, Removed: []string{"env/opened", "env/alarm"}, Altered: []string{"env/temp"}}, d); d != "" {
			r.t.Errorf("change (-want +got):\n%s", d)
		}
		for name, c := range map[string]Catalogue{
			"no purpose":      {Fields: []Field{{Stream: "env", Name: "a"}}},
			"twice":           {Fields: []Field{{Stream: "env", Name: "a", Purpose: "x"}, {Stream: "env", Name: "a", Purpose: "y"}}},
			"name":            {Fields: []Field{{Stream: "env", Name: "a b", Purpose: "x"}}},
			"type":            {Fields: []Field{{Stream: "env", Name: "a", Purpose: "x", Type: "text"}}},
			"unit":            {Fields: []Field{{Stream: "env", Name: "a", Purpose: "x", Unit: "a b"}}},
			"what undeclared": {Undeclared: "maybe"},
		} {
			if _, err := r.SetCatalogue(ctx, "ten", "prd", c, "per_x"); !problem.Is(err, problem.KindInvalid) {
				r.t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// A device that invents names without end costs as much as one that does not.
func TestInventedNamesAreBounded(t *testing.T) {
	each(t, func(r rig) {
		r.product(temperature(), "dev_a", "dev_b", "dev_c", "dev_d", "dev_e")
		for i := range 8 {
			for n, d := range []string{"dev_a", "dev_b", "dev_c", "dev_d", "dev_e"} {
				var b strings.Builder
				for j := range 60 {
					fmt.Fprintf(&b, `"x%d_%d_%d":1,`, n, i, j)
				}
				r.append(says(d, i+1, strings.TrimSuffix(b.String(), ",")))
			}
			r.compactAll()
		}
		latest, err := r.Latest(r.t.Context(), "ten", "dev_a")
		if err != nil {
			r.t.Fatal(err)
		}
		total := int64(0)
		for _, d := range latest.Dropped {
			total += d.Count
		}
		if len(latest.Dropped) > maxDropped+1 || total != 8*60 || !slices.ContainsFunc(latest.Dropped, func(d Dropped) bool { return d.Field == anyName }) {
			r.t.Errorf("%d counters, %d values", len(latest.Dropped), total)
		}
		if n := r.rows("telemetry_undeclared"); n > maxUndeclared {
			r.t.Errorf("%d names of one product", n)
		}
	})
}

// M19: a gap in a device's count is reported once, by API and event, and closes when what was missing arrives.
func TestM19_GapIsReportedOnceAndCloses(t *testing.T) {
	each(t, func(r rig) {
		ctx := r.t.Context()
		announced := map[string]int{}
		for _, topic := range []string{GapOpened, gapClosed} {
			r.cfg.DB.On(topic, "test", func(_ context.Context, e store.Event) error { announced[e.Topic]++; return nil })
		}
		look := func() {
			r.t.Helper()
			r.compactAll()
			if _, err := r.turn(ctx, r.lookForGaps); err != nil {
				r.t.Fatal(err)
			}
			for n := 1; n > 0; {
				var err error
				if n, err = r.cfg.DB.RunDue(ctx); err != nil {
					r.t.Fatal(err)
				}
			}
		}
		gaps := func() []Gap {
			r.t.Helper()
			g, err := r.OpenGaps(ctx, "ten", "", 10)
			if err != nil {
				r.t.Fatal(err)
			}
			return g
		}
		r.append(says("dev_a", 1, `"temp":1`), says("dev_a", 5, `"temp":1`), says("dev_b", 1, `"temp":1`), says("dev_b", 2, `"temp":1`))
		look()
		if d := cmp.Diff([]Gap{{"dev_a", 3, t0}}, gaps()); d != "" {
			r.t.Errorf("open gaps (-want +got):\n%s", d)
		}
		latest, err := r.Latest(ctx, "ten", "dev_a")
		if d := cmp.Diff([]Hole{{1, 2, 4}}, latest.Holes); d != "" || err != nil || latest.Missing != 3 {
			r.t.Errorf("holes %v (-want +got):\n%s", err, d)
		}
		r.append(says("dev_a", 8, `"temp":1`)) // a wider gap is the same gap
		look()
		if g := gaps(); len(g) != 1 || g[0].Missing != 5 {
			r.t.Errorf("the wider gap: %+v", g)
		}
		events, err := r.Events(ctx, "ten", "dev_a", "", 10)
		if err != nil || len(events) != 1 || events[0].Type != GapOpened || announced[GapOpened] != 1 || announced[gapClosed] != 0 {
			r.t.Errorf("events %+v, announced %v, %v", events, announced, err)
		}
		r.append(says("dev_a", 3, `"temp":1`), says("dev_a", 2, `"temp":1`), says("dev_a", 4, `"temp":1`), says("dev_a", 7, `"temp":1`), says("dev_a", 6, `"temp":1`))
		look()
		look()
		if g := gaps(); len(g) != 0 || announced[gapClosed] != 1 {
			r.t.Errorf("the late ones arrived, and still: %+v, announced %v", g, announced)
		}
		r.append(says("dev_a", 10, `"temp":1`))
		look()
		if g := gaps(); len(g) != 1 || g[0].Missing != 1 || announced[GapOpened] != 2 {
			r.t.Errorf("another gap: %+v, announced %v", g, announced)
		}
		// What was said of its gaps goes with the device.
		if err := r.EraseDevice(ctx, "ten", "dev_a"); err != nil {
			r.t.Fatal(err)
		}
		for _, table := range []string{"telemetry_gap", "telemetry_dropped", "telemetry_event"} {
			if n := r.rows(table + " WHERE device = 'dev_a'"); n != 0 {
				r.t.Errorf("%s holds %d rows of the erased device", table, n)
			}
		}
	})
}
