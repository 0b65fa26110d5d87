// SPDX-License-Identifier: AGPL-3.0-only

package law

import (
	"strings"
	"testing"
	"time"
)

func TestRules(t *testing.T) {
	annexI := 0
	for _, r := range Rules() {
		if len(r.Wording) > 240 {
			t.Errorf("%s: the wording is %d bytes; keep it a short paraphrase", r.ID, len(r.Wording))
		}
		if strings.HasPrefix(r.ID, "cra.i.") {
			annexI++
		}
		if strings.HasPrefix(r.ID, "cra.14.") && r.From.String() != "2026-09-11" {
			t.Errorf("%s applies from %s; Art. 14 applies from 2026-09-11 (Art. 71(2))", r.ID, r.From)
		}
		if got, ok := Get(r.ID); !ok || got != r {
			t.Errorf("Get(%q) = %v, %t", r.ID, got, ok)
		}
	}
	if annexI != 22 {
		t.Errorf("%d rows of Annex I, want 14 of Part I and 8 of Part II", annexI)
	}
	if _, ok := Get("cra.99"); ok {
		t.Error("an unknown rule was found")
	}
}

func TestRuleRefused(t *testing.T) {
	good := `{"id":"a","ref":"r","wording":"w","source":"s","from":"2026-09-11","checked":"2026-11-21","basis":"text"}`
	if _, err := parseRules([]byte("[" + good + "]")); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"twice":      good + "," + good,
		"no ref":     strings.Replace(good, `"r"`, `""`, 1),
		"no date":    strings.Replace(good, `"checked":"2026-11-21",`, "", 1),
		"false date": strings.Replace(good, "2026-09-11", "2026-02-30", 1),
		"basis":      strings.Replace(good, `"text"`, `"hearsay"`, 1),
		"not json":   "{",
	} {
		if _, err := parseRules([]byte("[" + bad + "]")); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestStale(t *testing.T) {
	r, _ := Get("cra.14.2.a")
	if r.Stale(r.Checked.Add(90 * 24 * time.Hour)) {
		t.Error("stale on the 90th day")
	}
	if !r.Stale(r.Checked.Add(91 * 24 * time.Hour)) {
		t.Error("not stale on the 91st day")
	}
	day := time.Date(2026, 9, 11, 0, 0, 0, 0, time.UTC)
	if !r.Applies(day) || r.Applies(day.Add(-time.Second)) {
		t.Error("Art. 14 applies from 2026-09-11, not from another instant")
	}
}

func TestMemberStates(t *testing.T) {
	if n := len(MemberStates()); n != 27 {
		t.Fatalf("%d Member States", n)
	}
	for i, m := range MemberStates() {
		if i > 0 && MemberStates()[i-1].Code >= m.Code {
			t.Errorf("%s is out of order", m.Code)
		}
		if m.Location() == nil || m.Location().String() != m.Zone {
			t.Errorf("%s has no zone", m.Code)
		}
	}
}
