// SPDX-License-Identifier: AGPL-3.0-only

package law

import (
	"embed"
	"fmt"
	"slices"
)

// Need says whether a field must be filled at a stage of reporting.
type Need string

// The needs, in the vocabulary of the glossary.
const (
	Required    Need = "required"
	IfKnown     Need = "if-known"
	AsAvailable Need = "as-available"
	Carried     Need = "carried" // taken over from the stage before
	Optional    Need = "optional"
	Absent      Need = "absent" // not shown at that stage
)

// needs are all needs, the strongest first.
var needs = []Need{Required, IfKnown, AsAvailable, Carried, Optional, Absent}

// Stronger returns the need that asks for more.
func (n Need) Stronger(m Need) Need {
	if slices.Index(needs, m) < slices.Index(needs, n) {
		return m
	}
	return n
}

// Form is how a field is filled.
type Form string

// The forms. A fact is what the case itself says, such as the time of awareness; nobody types it into the field.
const (
	Line    Form = "line"
	Lines   Form = "lines"
	Instant Form = "instant" // a date and time, in UTC
	Choice  Form = "choice"  // one of Options
	Fact    Form = "fact"
)

// Field is one field of a report.
type Field struct {
	ID           string   `json:"id"`
	Number       string   `json:"nr,omitempty"`   // in the glossary, where that is known
	Kind         string   `json:"kind,omitempty"` // "aev", "si", or "" for both
	Label        string   `json:"label"`
	Limit        int      `json:"limit,omitempty"` // characters; 0 is no limit known
	Form         Form     `json:"form"`
	Options      []string `json:"options,omitempty"`
	EarlyWarning Need     `json:"early_warning"`
	Notification Need     `json:"notification"`
	Final        Need     `json:"final"`
	Rules        []string `json:"rules,omitempty"` // of the law, where the law itself asks for the field
}

// Glossary is one set of fields: that of the Single Reporting Platform at one version, or what the law itself asks for.
// The platform's moves faster than the law, at times without a new number, so a case keeps the version under which it was
// opened. What was published here under a version never changes; a change that the platform made silently gets a version
// of our own, such as 1.3+2026-11-01.
type Glossary struct {
	Profile string  `json:"profile"` // ProfileSRP or ProfileLaw
	Version string  `json:"version"`
	AsOf    Date    `json:"as_of"`
	Basis   Basis   `json:"basis"`
	Source  string  `json:"source"`
	Fields  []Field `json:"fields"`
}

// The profiles.
const (
	ProfileSRP = "srp"
	ProfileLaw = "law"
)

// Name is the profile with its version, such as srp@1.3.
func (g Glossary) Name() string { return g.Profile + "@" + g.Version }

// Field returns the field with that id.
func (g Glossary) Field(id string) (Field, bool) {
	i := slices.IndexFunc(g.Fields, func(f Field) bool { return f.ID == id })
	if i < 0 {
		return Field{}, false
	}
	return g.Fields[i], true
}

//go:embed srp-*.json
var srpFiles embed.FS

// srps are the glossaries of the reporting platform, the newest last; demanded is what the law itself asks for.
var (
	srps     = []Glossary{must(glossary("srp-1.1.json")), must(glossary("srp-1.3.json"))}
	demanded = must(glossary("srp-law.json"))
)

// SRPs lists every glossary of the Single Reporting Platform that we know, the newest last. The caller must not change it.
func SRPs() []Glossary { return srps }

// NewestSRP is the glossary under which new cases are opened.
func NewestSRP() Glossary { return srps[len(srps)-1] }

// SRP returns the glossary of the Single Reporting Platform with that version.
func SRP(version string) (Glossary, bool) {
	for _, g := range srps {
		if g.Version == version {
			return g, true
		}
	}
	return Glossary{}, false
}

// Demanded is what Article 14 itself asks a report to say, in the ids of the reporting platform's fields.
func Demanded() Glossary { return demanded }

// glossary refuses a set with a field that lacks a part, stands twice or has a need that does not exist.
func glossary(name string) (Glossary, error) {
	b, err := srpFiles.ReadFile(name)
	if err != nil {
		return Glossary{}, err
	}
	g, err := parse[Glossary](b)
	if err != nil {
		return g, fmt.Errorf("%s: %w", name, err)
	}
	return g, g.check()
}

func (g Glossary) check() error {
	if g.Version == "" || g.AsOf.IsZero() || g.Source == "" || g.Profile != ProfileSRP && g.Profile != ProfileLaw {
		return fmt.Errorf("glossary %s lacks a part", g.Name())
	}
	seen := map[string]bool{}
	for _, f := range g.Fields {
		switch {
		case f.ID == "" || f.Label == "" || f.Limit < 0:
			return fmt.Errorf("%s: field %q lacks a part", g.Name(), f.ID)
		case seen[f.ID]:
			return fmt.Errorf("%s: field %q stands twice", g.Name(), f.ID)
		case !slices.Contains(needs, f.EarlyWarning) || !slices.Contains(needs, f.Notification) || !slices.Contains(needs, f.Final):
			return fmt.Errorf("%s: field %q has an unknown need", g.Name(), f.ID)
		case f.Kind != "" && f.Kind != "aev" && f.Kind != "si":
			return fmt.Errorf("%s: field %q is of kind %q", g.Name(), f.ID, f.Kind)
		case !slices.Contains([]Form{Line, Lines, Instant, Choice, Fact}, f.Form) || f.Form == Choice && len(f.Options) == 0:
			return fmt.Errorf("%s: field %q has no form", g.Name(), f.ID)
		}
		seen[f.ID] = true
		for _, id := range f.Rules {
			if _, ok := Get(id); !ok {
				return fmt.Errorf("%s: field %q rests on the unknown rule %q", g.Name(), f.ID, id)
			}
		}
	}
	return nil
}
