// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
)

// aCase makes a bundle about a case with four events: aware, an early warning that came 25 hours later, and one that moves no clock.
func aCase(t *testing.T, bend func(m *maker, c *Case)) (*maker, []byte) {
	t.Helper()
	m := newMaker(t)
	t0 := now.Add(-50 * time.Hour)
	event := func(seq int, kind, actor string, data map[string]any) {
		m.add("cas_1", kind, map[string]any{"seq": seq, "kind": kind, "actor": actor, "data": data})
	}
	event(1, "t0.set", "per_1", map[string]any{"at": t0, "coordinator": "DE", "of": "aev", "product": "prd_1", "note": "seen"})
	event(2, "submission.attempted", "per_1", map[string]any{"at": t0.Add(25 * time.Hour), "stage": "early_warning", "pack": digest([]byte("what was said")), "note": "asleep"})
	event(3, "submission.accepted", "per_1", map[string]any{"attempt": 2, "receipt": "SRP-1"})
	event(4, "case.linked", "per_1", map[string]any{"case": "cas_2"})
	limits := Limits{EarlyWarningHours: 12, NotificationHours: 60, FinalDays: 10, UsersHours: 24}
	at := func(h int) time.Time { return t0.Add(time.Duration(h) * time.Hour) }
	c := Case{ID: "cas_1", Product: "prd_1", Kind: "aev", Count: 4, Limits: limits, Packs: []Pack{{2, "what was said"}}, Receipts: []Receipt{}, Clocks: []Deadline{
		{Stage: "early_warning", Due: at(24), NominalEnd: at(25), WorkBy: at(12), Met: at(25)},
		{Stage: "notification", Due: at(72), NominalEnd: at(73), Counter: at(73), WorkBy: at(60)},
		{Stage: "final"},
		{Stage: "users", Due: at(24), WorkBy: at(24)},
	}}
	if bend != nil {
		bend(m, &c)
	}
	d := Document{Subject: "cas_1", Tenant: "ten_a", LogKey: m.vkey, Sections: []Section{{SectionCases, m.json([]Case{c})}}}
	x := Exported{Size: int64(len(m.leaves))}
	for _, e := range m.leaves {
		if e.Leaf.Subject == d.Subject {
			x.Entries++
		}
	}
	sum, err := d.Sections[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	x.Sections = []SectionDigest{{SectionCases, sum}}
	m.add(d.Subject, KindExported, x)
	m.prove(&d)
	return m, m.seal(d)
}

// TestACaseIsRecomputed: from the events alone, the late one is late, for the reason that was noted.
func TestACaseIsRecomputed(t *testing.T) {
	m, b := aCase(t, nil)
	r, err := check(b, m.vkey)
	if err != nil {
		t.Fatal(err)
	}
	var got []Verdict
	for _, d := range r.Cases[0].Deadlines {
		got = append(got, d.Verdict)
	}
	if !slices.Equal(got, []Verdict{Late, Open, Undetermined, Late}) || r.Cases[0].Deadlines[0].Reason != "asleep" {
		t.Errorf("%v %+v", got, r.Cases[0].Deadlines[0])
	}
	var out strings.Builder
	r.Print(&out)
	if !strings.Contains(out.String(), "early_warning  LATE") || !strings.Contains(out.String(), "(asleep)") || !strings.Contains(out.String(), "cra.14.2.a") {
		t.Error(out.String())
	}
	for i := range b { // each byte of it
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if _, err := check(bad, m.vkey); err == nil {
			t.Fatalf("a flipped byte at %d of %d went unnoticed", i, len(b))
		}
	}
}

// TestWhoHoldsTheKeyCannotBendACase: even a bundle that its log's holder made and sealed is refused where what it says of a case
// is not what the events say.
func TestWhoHoldsTheKeyCannotBendACase(t *testing.T) {
	for name, bend := range map[string]func(m *maker, c *Case){
		"a deadline moved":           func(_ *maker, c *Case) { c.Clocks[0].Due = c.Clocks[0].Due.Add(2 * time.Hour) },
		"a submission moved":         func(_ *maker, c *Case) { c.Clocks[0].Met = c.Clocks[0].Met.Add(-2 * time.Hour) },
		"a date where there is none": func(_ *maker, c *Case) { c.Clocks[2].Due = now },
		"a counter left out":         func(_ *maker, c *Case) { c.Clocks[1].Counter = time.Time{} },
		"a duty left out":            func(_ *maker, c *Case) { c.Clocks = c.Clocks[:3] },
		"an event left out":          func(m *maker, c *Case) { m.leaves = slices.Delete(m.leaves, 6, 7); c.Count = 3; renumber(m) },
		"the last event left out":    func(m *maker, _ *Case) { m.leaves = m.leaves[:8] },
		"an event twice":             func(m *maker, c *Case) { m.leaves = append(m.leaves, m.leaves[8]); c.Count = 5; renumber(m) },
		"another kind":               func(_ *maker, c *Case) { c.Kind = "si" },
		"another product":            func(_ *maker, c *Case) { c.Product = "prd_2" },
		"a drill as a case":          func(_ *maker, c *Case) { c.Drill = true },
		"another report":             func(_ *maker, c *Case) { c.Packs[0].Body = "what was not said" },
		"the report left out":        func(_ *maker, c *Case) { c.Packs = nil },
		"a receipt of no event":      func(_ *maker, c *Case) { c.Receipts = []Receipt{{"rct_1", []byte("x")}} },
		"an event erased":            func(m *maker, _ *Case) { m.leaves[6].Data = nil },
	} {
		m, b := aCase(t, bend)
		if _, err := check(b, m.vkey); err == nil {
			t.Errorf("%s: went unnoticed", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

func renumber(m *maker) {
	for i := range m.leaves {
		m.leaves[i].Index = int64(i)
	}
}
