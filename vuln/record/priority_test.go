// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/openthings-platform/openthings/vuln/cvss"
)

// TestRealScores: what we compute from a vector is what its author states, in every real record.
func TestRealScores(t *testing.T) {
	n, assessed, exploited := 0, 0, 0
	for id, doc := range cveList(t) {
		r := parsed(t, doc)
		if r.SSVC != nil && Decide(r.SSVC, "") != "" {
			assessed++
		}
		if !r.Exploited.IsZero() {
			exploited++
		}
		for _, c := range r.containers {
			for _, m := range c.Metrics {
				for _, b := range []*cvssBlock{m.V31, m.V30} {
					if b == nil {
						continue
					}
					n++
					if got, err := cvss.Base3(b.Vector); err != nil || got.Score != b.Base {
						t.Errorf("%s: %s gives %v, its author says %v", id, b.Vector, got.Score, b.Base)
					}
				}
			}
		}
	}
	if n < 100 || assessed != 727 || exploited != 5 {
		t.Errorf("%d vectors, %d with an SSVC decision, %d exploited; want 100 and more, 727, 5", n, assessed, exploited)
	}
	r := realCVE(t, "CVE-2024-47611") // the CNA states 4.0, CISA 3.1: the newer form counts, as stated
	if s, ok := r.Score(); !ok || s.Version != "4.0" || s.Base != 6.3 || s.By != "GitHub_M" || s.Severity() != "medium" {
		t.Errorf("%+v", s)
	}
}

func TestPriority(t *testing.T) {
	p := func(x float64) *float64 { return &x }
	act := &SSVC{Exploitation: "active", Automatable: "yes", Impact: "total"}
	attend := &SSVC{Exploitation: "active", Automatable: "yes", Impact: "partial"}
	calm := &SSVC{Exploitation: "none", Automatable: "no", Impact: "partial"}
	high, low := &Score{Version: "3.1", Base: 9.8}, &Score{Version: "3.1", Base: 3.1}
	order := []Facts{ // the most urgent first
		{Exploited: []string{"CISA KEV"}, Ransom: true, Devices: 1},
		{Exploited: []string{"CISA KEV"}, SSVC: act, Devices: 1, EPSS: p(0.1)},
		{Exploited: []string{"CISA KEV"}, SSVC: calm, EPSS: p(0.9), Score: high, Devices: 1_000_000},
		{SSVC: act, Devices: 1},
		{SSVC: attend, EPSS: p(1), Score: high, Devices: 1_000_000},
		{SSVC: calm, EPSS: p(0.5), Score: low, Devices: 1000},
		{SSVC: calm, EPSS: p(0.9), Score: high, Devices: 500}, // 450 devices likely attacked against 500
		{SSVC: calm, Score: high, Devices: 500},
		{SSVC: calm, Score: low, Devices: 500},
		{SSVC: calm, Devices: 500},
		{EPSS: p(1), Score: high, Devices: 1_000_000}, // nobody assessed it
		{Devices: 1},
		{Exploited: []string{"CISA KEV"}, SSVC: act, EPSS: p(1), Score: high}, // no device has it
		{SSVC: act},
		{},
	}
	for i, f := range order[1:] {
		if a, b := Prioritize(order[i]), Prioritize(f); a.Key <= b.Key {
			t.Errorf("%v does not come before %v", a, b)
		}
	}
	got := Prioritize(Facts{Exploited: []string{"CISA KEV", "EUVD"}, SSVC: act, EPSS: p(0.123), Score: high, Devices: 42}).Reasons
	want := []string{"exploited (CISA KEV, EUVD)", "SSVC: act (exploitation active, automatable yes, impact total)", "EPSS 12.3 %", "CVSS 9.8 (critical)", "42 devices exposed"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for mission, want := range map[string]string{"low": "attend", "medium": "act", "": "act", "high": "act", "enormous": ""} {
		if got := Decide(act, mission); got != want {
			t.Errorf("mission %q: %q, want %q", mission, got, want)
		}
	}
	if Decide(&SSVC{Exploitation: "rumour", Automatable: "yes", Impact: "total"}, "") != "" || Decide(nil, "") != "" {
		t.Error("a decision without its points")
	}
}

// TestPriorityNeverFalls: more devices, a higher probability or score never make anything less urgent.
func TestPriorityNeverFalls(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := Facts{Devices: rapid.Int64Range(0, 1<<40).Draw(t, "devices"), Score: &Score{Base: rapid.Float64Range(-1, 11).Draw(t, "score")}}
		epss := rapid.Float64Range(-1, 2).Draw(t, "epss")
		f.EPSS = &epss
		if rapid.Bool().Draw(t, "exploited") {
			f.Exploited = []string{"CISA KEV"}
		}
		g := f
		g.Devices += rapid.Int64Range(0, 1<<40).Draw(t, "more devices")
		g.Score = &Score{Base: f.Score.Base + rapid.Float64Range(0, 5).Draw(t, "worse")}
		more := epss + rapid.Float64Range(0, 1).Draw(t, "likelier")
		g.EPSS = &more
		if a, b := Prioritize(f), Prioritize(g); a.Key > b.Key || len(a.Key) != len(b.Key) || strings.ContainsFunc(a.Key, func(c rune) bool { return c > 'f' }) {
			t.Fatalf("%+v\n%+v", a, b)
		}
	})
}
