// SPDX-License-Identifier: AGPL-3.0-only

package conform

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
)

// TestCoreFunctionalityDecides: a component of a category brings the product into no category.
func TestCoreFunctionalityDecides(t *testing.T) {
	for _, c := range []struct {
		category   string
		integrates []string
		want       law.Class
	}{
		{"", nil, law.Default},
		{"", []string{"cra.iii.1.11", "cra.iii.2.2", "cra.iv.3"}, law.Default},
		{"cra.iii.1.9", nil, law.ImportantI},
		{"cra.iii.1.9", []string{"cra.iv.3"}, law.ImportantI},
		{"cra.iii.2.2", nil, law.ImportantII},
		{"cra.iv.2", nil, law.Critical},
	} {
		x := Classification{Core: "c", Reason: "r", Category: c.category, Integrates: c.integrates}
		if err := x.check(); err != nil || x.Class() != c.want {
			t.Errorf("%q with %v is %s, want %s (%v)", c.category, c.integrates, x.Class(), c.want, err)
		}
	}
	for at, x := range map[string]Classification{"core": {Reason: "r"}, "reason": {Core: "c", Reason: " "}, "category": {Core: "c", Reason: "r", Category: "cra.v.1"}, "integrates": {Core: "c", Reason: "r", Integrates: []string{"x"}}} {
		if err := x.check(); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("%s: %v", at, err)
		}
	}
}

// open is which procedures are open, such as "A B+C H".
func open(class law.Class, c Claims, cited []law.Citation, now time.Time) string {
	var out []string
	for _, o := range Routes(class, c, cited, now) {
		if o.Why == "" || o.Rule == "" || o.Name == "" {
			return "an option without a reason"
		}
		if _, ok := law.Get(o.Rule); !ok {
			return "the rule " + o.Rule + " is none"
		}
		if o.Open {
			out = append(out, string(o.Module))
		}
	}
	return strings.Join(out, " ")
}

// TestRoutes: what Article 32 opens to each class, with and without cited standards and public documentation.
func TestRoutes(t *testing.T) {
	now := day0
	date := func(y int) law.Date { return law.Date{Time: time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC)} }
	var rows []string
	for _, r := range law.Annex("cra.i") {
		rows = append(rows, r.ID)
	}
	whole := law.Citation{Standard: "EN 1:2026", Published: date(2026), Covers: rows}
	half := law.Citation{Standard: "EN 2:2026", Published: date(2026), Covers: rows[:14]}
	rest := law.Citation{Standard: "EN 3:2026", Published: date(2026), Covers: rows[14:]}
	gone := law.Citation{Standard: "EN 4:2020", Published: date(2020), Until: date(2025), Covers: rows}
	next := law.Citation{Standard: "EN 5:2028", Published: date(2028), Covers: rows}
	cited := []law.Citation{whole, half, rest, gone, next}
	public := Claims{OpenSource: true, PublicDocs: "https://lamp.example/docs"}
	with := func(s ...string) Claims { return Claims{Standards: s} }
	for name, c := range map[string]struct {
		class law.Class
		c     Claims
		cited []law.Citation
		want  string
	}{
		"default":                                  {law.Default, Claims{}, nil, "A B+C H"},
		"class I, nothing cited":                   {law.ImportantI, Claims{}, nil, "B+C H"},
		"class I, applied but not cited":           {law.ImportantI, with("EN 1:2026"), nil, "B+C H"},
		"class I, cited but not applied":           {law.ImportantI, Claims{}, cited, "B+C H"},
		"class I, cited and applied":               {law.ImportantI, with("EN 1:2026"), cited, "A B+C H"},
		"class I, a part of Annex I":               {law.ImportantI, with("EN 2:2026"), cited, "B+C H"},
		"class I, two parts":                       {law.ImportantI, with("EN 2:2026", "EN 3:2026"), cited, "A B+C H"},
		"class I, a citation that was withdrawn":   {law.ImportantI, with("EN 4:2020"), cited, "B+C H"},
		"class I, a citation of tomorrow":          {law.ImportantI, with("EN 5:2028"), cited, "B+C H"},
		"class I, open source, docs public":        {law.ImportantI, public, nil, "A B+C H"},
		"class I, open source, docs kept":          {law.ImportantI, Claims{OpenSource: true}, nil, "B+C H"},
		"class I, docs public, not open source":    {law.ImportantI, Claims{PublicDocs: public.PublicDocs}, nil, "B+C H"},
		"class II":                                 {law.ImportantII, with("EN 1:2026"), cited, "B+C H"},
		"class II, open source, docs public":       {law.ImportantII, public, nil, "A B+C H"},
		"critical":                                 {law.Critical, with("EN 1:2026"), cited, "B+C H"},
		"critical, open source makes no exception": {law.Critical, public, nil, "B+C H"},
	} {
		if got := open(c.class, c.c, c.cited, now); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestRows: 14 and 8 rows; those of Part I(2) alone may be declared not applicable, and never without words.
func TestRows(t *testing.T) {
	rows := law.Annex("cra.i")
	if len(rows) != 22 {
		t.Fatalf("%d rows", len(rows))
	}
	optional := 0
	for _, r := range rows {
		if MayNotApply(r.ID) {
			optional++
		}
		for _, d := range []struct {
			Decision
			want string
		}{
			{Decision{Applies: "yes", Treatment: "t"}, "<nil>"},
			{Decision{Applies: "yes"}, "invalid"},
			{Decision{Applies: "yes", Treatment: " \n"}, "invalid"},
			{Decision{Applies: "no"}, "invalid"},
			{Decision{Applies: "no", Why: " \t"}, "invalid"},
			{Decision{Applies: "no", Why: "It stores nothing."}, "<nil>"},
			{Decision{}, "invalid"},
		} {
			want := d.want
			if d.Applies == "no" && !MayNotApply(r.ID) {
				want = RuleApplies
			}
			err := d.check(r.ID)
			if got := rule(err); got != want && !(want == "invalid" && problem.Is(err, problem.KindInvalid)) {
				t.Errorf("%s %+v: %s, want %s", r.ID, d.Decision, got, want)
			}
		}
	}
	if optional != 13 {
		t.Errorf("%d rows may be declared not applicable, want the 13 points of Part I(2)", optional)
	}
	for link, good := range map[string]bool{"/releases/rel_1": true, "https://lab.example/r.pdf": true, "http://lab.example": false, "//evil.example": false, "javascript:alert(1)": false, "/a b": false, `/\evil.example`: false, "": false} {
		if err := (Decision{Applies: "yes", Treatment: "t", Evidence: []string{link}}).check("cra.i.1.2.a"); (err == nil) != good {
			t.Errorf("the link %q: %v", link, err)
		}
	}
}

// answers are "no" to all questions but those named.
func answers(yes ...string) (out []Answer) {
	for _, q := range Questions {
		a := Answer{ID: q.ID, Yes: slices.Contains(yes, q.ID)}
		if a.Yes {
			a.Why = "so"
		}
		out = append(out, a)
	}
	return out
}

// TestScreenIsConsistent: the two questions of Article 3(30) decide; a changed risk needs a place where it was covered.
func TestScreenIsConsistent(t *testing.T) {
	for name, c := range map[string]struct {
		s    Screen
		want string
	}{
		"nothing":                               {Screen{Answers: answers(), Reason: "fix"}, "<nil>"},
		"no reason":                             {Screen{Answers: answers()}, "invalid"},
		"a purpose that changed":                {Screen{Answers: answers("purpose"), Reason: "r"}, RuleModification},
		"a purpose that changed, said so":       {Screen{Answers: answers("purpose"), Reason: "r", Substantial: true}, "<nil>"},
		"requirements, and it is covered":       {Screen{Answers: answers("requirements"), Reason: "r", Covered: "v1"}, RuleModification},
		"a vector that nobody covered":          {Screen{Answers: answers("vectors"), Reason: "r"}, "invalid"},
		"a vector that the assessment covers":   {Screen{Answers: answers("vectors"), Reason: "r", Covered: "row 2(j) of version 1"}, "<nil>"},
		"a vector, taken for substantial":       {Screen{Answers: answers("vectors"), Reason: "r", Substantial: true}, "<nil>"},
		"a question without an answer":          {Screen{Answers: answers()[1:], Reason: "r"}, "invalid"},
		"one answered twice":                    {Screen{Answers: append(answers(), answers()[0]), Reason: "r"}, "invalid"},
		"yes without words":                     {Screen{Answers: append([]Answer{{ID: "purpose", Yes: true}}, answers()[1:]...), Reason: "r", Substantial: true}, "invalid"},
		"one in the place of another":           {Screen{Answers: append([]Answer{{ID: "vectors"}}, answers()[1:]...), Reason: "r"}, "invalid"},
		"a person may find more than questions": {Screen{Answers: answers(), Reason: "r", Substantial: true}, "<nil>"},
	} {
		err := c.s.check()
		if got := rule(err); got != c.want && !(c.want == "invalid" && problem.Is(err, problem.KindInvalid)) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// TestNothingIsClaimed: no answer may claim what only a cited standard gives.
func TestNothingIsClaimed(t *testing.T) {
	text := "EN 18031-1 gives " + "presump" + "tion of conformity"
	for name, err := range map[string]error{
		"class":     Classification{Core: text, Reason: "r"}.check(),
		"route":     Choice{Module: ModuleA, Reason: text}.check(law.Default, nil, day0),
		"context":   Context{Purpose: "p", Use: "u", Environment: "e", Assets: "a", Threats: "t", Assumptions: text, Years: 1}.check(),
		"row":       Decision{Applies: "yes", Treatment: text}.check("cra.i.1.1"),
		"screen":    Screen{Answers: answers(), Reason: text}.check(),
		"component": Component{Note: "n", Marking: text}.check(),
	} {
		if rule(err) != law.RuleClaim {
			t.Errorf("%s: %v", name, err)
		}
	}
}
