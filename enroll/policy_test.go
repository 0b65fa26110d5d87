// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
)

// A product that policies name enrols by those alone, whatever label a device names; nobody gets around a demand.
func TestAPolicyIsChosenByLabelAndProduct(t *testing.T) {
	p := func(label string, products ...string) Policy {
		return Policy{Label: label, Products: products}.filled()
	}
	const rule, none = RuleLabel, "not-found"
	for _, c := range []struct {
		name                 string
		all                  []Policy
		product, label, want string // want: a label, or what refuses
	}{
		{"nothing set", nil, "prd_a", "", "default"},
		{"nothing set, by its name", nil, "prd_a", "default", "default"},
		{"nothing set, another name", nil, "prd_a", "lamps", none},
		{"for everybody", []Policy{p("lamps")}, "prd_a", "lamps", "lamps"},
		{"for everybody, not named", []Policy{p("lamps")}, "prd_a", "", "default"},
		{"for this product", []Policy{p("strict", "prd_a")}, "prd_a", "strict", "strict"},
		{"for this product, not named", []Policy{p("strict", "prd_a")}, "prd_a", "", "strict"},
		{"around it by the default", []Policy{p("strict", "prd_a")}, "prd_a", "default", rule},
		{"around it by one for everybody", []Policy{p("lamps"), p("strict", "prd_a")}, "prd_a", "lamps", rule},
		{"around it by another product's", []Policy{p("easy", "prd_b"), p("strict", "prd_a")}, "prd_a", "easy", rule},
		{"another product's", []Policy{p("easy", "prd_b")}, "prd_a", "easy", rule},
		{"another product's, not named", []Policy{p("easy", "prd_b")}, "prd_a", "", "default"},
		{"two for this product", []Policy{p("a", "prd_a"), p("b", "prd_a")}, "prd_a", "b", "b"},
		{"two for this product, not named", []Policy{p("a", "prd_a"), p("b", "prd_a")}, "prd_a", "", rule},
		{"two for this product, one the default", []Policy{p("a", "prd_a"), p("default", "prd_a")}, "prd_a", "", "default"},
		{"the default is another product's", []Policy{p("default", "prd_b")}, "prd_a", "", "default"},
	} {
		got, err := choose(c.all, c.product, c.label)
		said := got.Label
		if err != nil {
			if said = problem.Of(err).Rule; said == "" {
				said = string(problem.Of(err).Kind)
			}
		}
		if said != c.want {
			t.Errorf("%s: %q, want %q (%v)", c.name, said, c.want, err)
		}
	}
	set := p("default")
	set.LeafDays = 33
	if got, err := choose([]Policy{set}, "prd_a", ""); err != nil || got.LeafDays != 33 {
		t.Errorf("the tenant's own default: %+v %v", got, err)
	}
	if got, err := choose([]Policy{func() Policy { q := p("default", "prd_b"); q.LeafDays = 33; return q }()}, "prd_a", ""); err != nil || got.LeafDays != 60 {
		t.Errorf("a default for another product: %+v %v", got, err)
	}
}

func TestPolicyIsChecked(t *testing.T) {
	for at, change := range map[string]func(*Policy){
		"label":       func(p *Policy) { p.Label = "simpleenroll" },
		"label ":      func(p *Policy) { p.Label = "a/b" },
		"label  ":     func(p *Policy) { p.Label = strings.Repeat("a", 41) },
		"keys":        func(p *Policy) { p.Keys = []identity.Algorithm{"rsa"} },
		"keys ":       func(p *Policy) { p.Keys = []identity.Algorithm{identity.AlgMLDSA65} },
		"leaf_days":   func(p *Policy) { p.LeafDays = 29 },
		"leaf_days ":  func(p *Policy) { p.LeafDays = 91 },
		"grade":       func(p *Policy) { p.Grade = "D" },
		"approval":    func(p *Policy) { p.Approval = "whoever" },
		"solution":    func(p *Policy) { p.Approval = Automatical },
		"solution ":   func(p *Policy) { p.Solution = "sol_a" },
		"renew_days":  func(p *Policy) { p.RenewDays = 60 },
		"renew_days ": func(p *Policy) { p.RenewDays = 29 },
		"lapse_days":  func(p *Policy) { p.LapseDays = MaxLapseDays + 1 },
		"lapse_days ": func(p *Policy) { p.LapseDays = -1 },
		"chain_depth": func(p *Policy) { p.ChainDepth = 5 },
	} {
		p := builtin()
		change(&p)
		if err := p.check(); !problem.Is(err, problem.KindInvalid) || problem.Of(err).Fields[0].At != strings.TrimSpace(at) {
			t.Errorf("%s: %v", at, err)
		}
	}
	p := builtin()
	p.RenewDays, p.LapseDays, p.ChainDepth = 30, MaxLapseDays, 4
	if err := p.check(); err != nil {
		t.Error(err)
	}
}

func TestRenewalWindow(t *testing.T) {
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	p := builtin()
	if err := p.renewal(now.Add(59*day), now, true); err != nil {
		t.Errorf("no window: %v", err)
	}
	p.RenewDays = 30
	for _, c := range []struct {
		left  time.Duration
		signs bool
		ok    bool
	}{{31 * day, true, false}, {30*day + 1, true, false}, {30 * day, true, true}, {time.Hour, true, true}, {59 * day, false, true}} {
		if err := p.renewal(now.Add(c.left), now, c.signs); (err == nil) != c.ok {
			t.Errorf("%s left, authority signs %t: %v", c.left, c.signs, err)
		}
	}
	if err := p.lapse(now.Add(-time.Second), now); err == nil {
		t.Error("an ended certificate renews although no policy says so")
	}
	p.LapseDays = 10
	for ago, ok := range map[time.Duration]bool{time.Second: true, 10*day - 1: true, 10 * day: false, 1000 * day: false} {
		if err := p.lapse(now.Add(-ago), now); (err == nil) != ok {
			t.Errorf("ended %s ago: %v", ago, err)
		}
	}
}

func TestGrades(t *testing.T) {
	for want, good := range map[identity.Grade]string{"": " ABC", "C": " ABC", "B": "AB", "A": "A"} {
		p := Policy{Grade: want}
		for _, g := range []identity.Grade{"", "A", "B", "C"} {
			ok := strings.Contains(good, string(g)) && (g != "" || strings.HasPrefix(good, " "))
			if err := p.sure(g); (err == nil) != ok {
				t.Errorf("%q demanded, %q shown: %v", want, g, err)
			}
		}
	}
}

// A label is a segment of a path that strangers write.
func FuzzLabel(f *testing.F) {
	for _, s := range append([]string{"default", "a-b", "", "A", "../x", "a%2fb", strings.Repeat("a", 50)}, operations...) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, label string) {
		err := checkLabel(label)
		if err == nil && (len(label) > 40 || strings.ContainsAny(label, "/%. \n") || label == "simpleenroll") {
			t.Errorf("%q is a label", label)
		}
		got, err := choose([]Policy{{Label: "strict", Products: []string{"prd_a"}}}, "prd_a", label)
		if err == nil && got.Label != "strict" {
			t.Errorf("%q leads past the policy of the product to %q", label, got.Label)
		}
	})
}
