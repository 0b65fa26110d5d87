// SPDX-License-Identifier: AGPL-3.0-only

// Package law is what the law says, as dated data: each obligation with its reference, the day from which it applies
// and the day on which a person last compared it with its source. Nothing here decides; stages name a rule by its id,
// and a test in each of them fails when the id is gone.
//
// Invariants: ids are unique, every date is real, a rule is stale 90 days after it was checked. Wording is a short
// paraphrase for people at work, never the legal text. This is not legal advice.
package law

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"time"
	_ "time/tzdata" // zones of the Member States, on machines that have none
)

// StaleAfter is how long a comparison with the source stays good. The console nags after it.
const StaleAfter = 90 * 24 * time.Hour

// Date is a calendar day, as midnight UTC; in JSON "2006-01-02".
type Date struct{ time.Time }

// UnmarshalJSON reads a calendar day.
func (d *Date) UnmarshalJSON(b []byte) error {
	t, err := time.Parse(`"2006-01-02"`, string(b))
	d.Time = t
	return err
}

// MarshalJSON writes a calendar day.
func (d Date) MarshalJSON() ([]byte, error) { return []byte(d.Format(`"2006-01-02"`)), nil }

// String is the calendar day.
func (d Date) String() string { return d.Format(time.DateOnly) }

// Basis says how well a rule's wording is known.
type Basis string

// Text was read in the legal or official text, Secondary in a third party's account of it, Recalled needs a check.
const (
	Text      Basis = "text"
	Secondary Basis = "secondary"
	Recalled  Basis = "recalled"
)

// Rule is one obligation or rule of counting.
type Rule struct {
	ID      string `json:"id" doc:"Stable id, such as cra.14.2.a"`
	Ref     string `json:"ref" doc:"Where it stands, such as CRA Art. 14(2)(a)"`
	Wording string `json:"wording" doc:"Short paraphrase"`
	Source  string `json:"source" doc:"The document, as an ELI path or another name"`
	From    Date   `json:"from" doc:"Applies from this day"`
	Checked Date   `json:"checked" doc:"Last compared with the source on this day"`
	Basis   Basis  `json:"basis" enum:"text,secondary,recalled"`
}

// Applies reports whether the rule is in force at t.
func (r Rule) Applies(t time.Time) bool { return !t.Before(r.From.Time) }

// Stale reports whether the rule has not been compared with its source for more than StaleAfter.
func (r Rule) Stale(now time.Time) bool { return now.Sub(r.Checked.Time) > StaleAfter }

// MemberState is a Member State of the Union with the zone in which its authorities count days and months.
type MemberState struct {
	Code string `json:"code"` // ISO 3166-1 alpha-2
	Name string `json:"name"`
	Zone string `json:"zone"` // IANA
}

// Location is the zone as Go knows it.
func (m MemberState) Location() *time.Location { return locations[m.Code] }

//go:embed rules.json
var rulesJSON []byte

//go:embed memberstates.json
var statesJSON []byte

var (
	rules     = must(parseRules(rulesJSON))
	states    = must(parse[[]MemberState](statesJSON))
	locations = must(loadLocations(states))
)

// Rules lists every rule in the order of the file. The caller must not change it.
func Rules() []Rule { return rules }

// Get returns the rule with that id.
func Get(id string) (Rule, bool) {
	for _, r := range rules {
		if r.ID == id {
			return r, true
		}
	}
	return Rule{}, false
}

// MemberStates lists the Member States by code. The caller must not change it.
func MemberStates() []MemberState { return states }

// State returns the Member State with that code.
func State(code string) (MemberState, bool) {
	for _, m := range states {
		if m.Code == code {
			return m, true
		}
	}
	return MemberState{}, false
}

func parse[T any](b []byte) (T, error) {
	var v T
	err := json.Unmarshal(b, &v)
	return v, err
}

// parseRules refuses a rule that lacks a part, repeats an id or was checked before it could be.
func parseRules(b []byte) ([]Rule, error) {
	rs, err := parse[[]Rule](b)
	if err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	seen := make(map[string]bool, len(rs))
	for _, r := range rs {
		switch {
		case r.ID == "" || r.Ref == "" || r.Wording == "" || r.Source == "":
			return nil, fmt.Errorf("rule %q lacks a part", r.ID)
		case seen[r.ID]:
			return nil, fmt.Errorf("rule %q stands twice", r.ID)
		case r.From.IsZero() || r.Checked.IsZero():
			return nil, fmt.Errorf("rule %q lacks a date", r.ID)
		case r.Basis != Text && r.Basis != Secondary && r.Basis != Recalled:
			return nil, fmt.Errorf("rule %q has the unknown basis %q", r.ID, r.Basis)
		}
		seen[r.ID] = true
	}
	return rs, nil
}

func loadLocations(states []MemberState) (map[string]*time.Location, error) {
	m := make(map[string]*time.Location, len(states))
	for _, s := range states {
		l, err := time.LoadLocation(s.Zone)
		if err != nil {
			return nil, fmt.Errorf("zone of %s: %w", s.Name, err)
		}
		m[s.Code] = l
	}
	return m, nil
}

// must is for the embedded files: a fault in them fails every test and the first start, never a later request.
func must[T any](v T, err error) T {
	if err != nil {
		panic("law: " + err.Error())
	}
	return v
}
