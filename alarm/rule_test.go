// SPDX-License-Identifier: AGPL-3.0-only

package alarm

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func limit(v float64) *float64 { return &v }

// told runs samples (in seconds and values) through a rule and writes what became of the alarm.
func told(r Rule, samples ...[2]float64) string {
	var st standing
	var out []string
	note := func(v verdict) {
		switch {
		case v.raise:
			out = append(out, fmt.Sprintf("raised %d: %s", v.at/1000, v.value))
		case v.clear:
			out = append(out, fmt.Sprintf("over %d", v.at/1000))
		}
	}
	for _, x := range samples {
		if due := r.due(st); due > 0 && due < int64(x[0]*1000) {
			note(r.tick(&st, due))
		}
		note(r.see(&st, sample{int64(x[0] * 1000), x[1]}))
	}
	if due := r.due(st); due > 0 {
		note(r.tick(&st, due))
	}
	return strings.Join(out, "; ")
}

func TestRules(t *testing.T) {
	hot := Rule{Name: "hot", Kind: Threshold, Stream: "env", Field: "temp", Op: ">", Value: 80}
	held, low := hot, hot
	held.For = 60
	low.Clear = limit(75)
	cold := Rule{Kind: Threshold, Stream: "env", Field: "temp", Op: "<=", Value: 2, Clear: limit(4)}
	fast := Rule{Kind: Change, Stream: "env", Field: "p", Value: 10}
	silent := Rule{Kind: Absence, Stream: "env", Window: 300}
	often := Rule{Kind: Events, Event: "login-failed", Count: 3, Window: 60}
	for _, row := range []struct {
		name    string
		rule    Rule
		samples [][2]float64
		want    string
	}{
		{"beyond the limit", hot, [][2]float64{{1, 79}, {2, 80}, {3, 81}, {4, 85}, {5, 80}}, "raised 3: env temp is 81; over 5"},
		{"once, not again", hot, [][2]float64{{1, 81}, {2, 82}, {3, 83}}, "raised 1: env temp is 81"},
		{"old news", hot, [][2]float64{{10, 79}, {5, 99}}, ""},
		{"it has to hold", held, [][2]float64{{0, 70}, {10, 81}, {40, 82}, {50, 79}, {60, 81}, {119, 84}, {121, 85}}, "raised 120: env temp is 84"},
		{"time alone completes it", held, [][2]float64{{10, 81}}, "raised 70: env temp is 81"},
		{"the space between", low, [][2]float64{{1, 81}, {2, 79}, {3, 81}, {4, 76}, {5, 75}, {6, 81}}, "raised 1: env temp is 81; over 5; raised 6: env temp is 81"},
		{"from below", cold, [][2]float64{{1, 3}, {2, 2}, {3, 3}, {4, 4}, {5, 5}}, "raised 2: env temp is 2; over 5"},
		{"too fast, up and down", fast, [][2]float64{{0, 0}, {60, 9}, {120, 20}, {180, 20}, {240, 5}}, "raised 120: env p changes by 11 in a minute; over 180; raised 240: env p changes by -15 in a minute"},
		{"silence and its end", silent, [][2]float64{{10, 0}, {200, 0}, {600, 0}}, "raised 500: nothing for 5 min; over 600; raised 900: nothing for 5 min"},
		{"events", often, [][2]float64{{1, 0}, {2, 0}, {2, 0}, {50, 0}, {55, 0}, {200, 0}}, "raised 50: 3 × login-failed; over 115"},
		{"events far between", often, [][2]float64{{1, 0}, {40, 0}, {80, 0}, {120, 0}}, ""},
	} {
		if got := told(row.rule, row.samples...); got != row.want {
			t.Errorf("%s:\n got %q\nwant %q", row.name, got, row.want)
		}
	}
}

// TestTwiceChangesNothing: whatever is delivered again after it was seen leaves alarms as they were.
func TestTwiceChangesNothing(t *testing.T) {
	rules := []Rule{
		{Kind: Threshold, Stream: "s", Field: "v", Op: ">", Value: 5, Clear: limit(3), For: 3},
		{Kind: Threshold, Stream: "s", Field: "v", Op: "<", Value: 5},
		{Kind: Change, Stream: "s", Field: "v", Value: 30},
		{Kind: Absence, Stream: "s", Window: 10},
		{Kind: Events, Event: "e", Count: 3, Window: 10},
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range 2000 {
		r := rules[n%len(rules)]
		var once, twice standing
		var a, b []verdict
		at := int64(1000)
		for range 30 {
			x := sample{at, float64(rng.IntN(10))}
			a = append(a, r.see(&once, x))
			b = append(b, r.see(&twice, x))
			if v := r.see(&twice, x); v.raise || v.clear {
				t.Fatalf("rule %+v: a repeat of %+v changed the alarm: %+v", r, x, v)
			}
			at += int64(rng.IntN(5)+1) * 1000
		}
		if fmt.Sprint(a) != fmt.Sprint(b) {
			t.Fatalf("rule %+v: once %v, twice %v", r, a, b)
		}
	}
}

func TestCheck(t *testing.T) {
	good := Rule{Name: "x", Kind: Threshold, Stream: "s", Field: "v", Op: ">", Severity: Warning}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*Rule){
		"name":           func(r *Rule) { r.Name = " " },
		"severity":       func(r *Rule) { r.Severity = "loud" },
		"kind":           func(r *Rule) { r.Kind = "mood" },
		"field":          func(r *Rule) { r.Field = "" },
		"op":             func(r *Rule) { r.Op = "~" },
		"clear":          func(r *Rule) { r.Clear = limit(1) },
		"for_seconds":    func(r *Rule) { r.For = -1 },
		"window_seconds": func(r *Rule) { r.Kind = Absence },
		"event":          func(r *Rule) { r.Kind = Events },
		"count":          func(r *Rule) { r.Kind, r.Event = Events, "e" },
		"value":          func(r *Rule) { r.Kind = Change },
	} {
		r := good
		edit(&r)
		if err := r.check(); err == nil {
			t.Errorf("%s: %+v was taken", name, r)
		}
	}
}
