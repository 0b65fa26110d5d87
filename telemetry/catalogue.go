// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/openthings-platform/openthings/problem"
)

// FieldType says which numbers a field takes; on the wire and at rest every value is a number.
type FieldType string

// The types of fields.
const (
	Number  FieldType = "number"
	Integer FieldType = "integer"
	Boolean FieldType = "boolean" // 0 or 1; true and false in a payload
)

// Rules by which a value is dropped. They are counted per device and field.
const (
	RuleUndeclared = "catalogue.undeclared" // the catalogue does not name the field (data minimisation, CRA annex I part I 2(g))
	RuleType       = "catalogue.type"       // not a value of the declared type
	RuleRange      = "catalogue.range"      // below the least or above the greatest declared
	RuleUnit       = "catalogue.unit"       // the message names another unit than the catalogue
	RuleRetention  = "catalogue.retention"  // older than the field is kept
)

// Field is one value that a product's devices may send.
type Field struct {
	Stream    string    `json:"stream" maxLength:"64" example:"env"`
	Name      string    `json:"name" maxLength:"64" example:"temp"`
	Type      FieldType `json:"type,omitempty" required:"false" enum:"number,integer,boolean" doc:"Default number"`
	Unit      string    `json:"unit,omitempty" required:"false" maxLength:"32" doc:"UCUM or SenML code, such as Cel, %RH or m/s" example:"Cel"`
	Purpose   string    `json:"purpose" maxLength:"500" doc:"What it is needed for, in words that the device's user understands"`
	Retention int       `json:"retention_days,omitempty" required:"false" minimum:"0" maximum:"36500" doc:"Days after which it is deleted; 0: the tenant's default"`
	Personal  bool      `json:"personal,omitempty" required:"false" doc:"It is, or may become, data about a person"`
	Min       *float64  `json:"min,omitempty" required:"false" doc:"Least value that is kept"`
	Max       *float64  `json:"max,omitempty" required:"false" doc:"Greatest value that is kept"`
}

// What becomes of a field that the catalogue does not name.
const (
	DropUndeclared = "drop"
	KeepUndeclared = "keep"
)

// Catalogue is what the devices of a product may send. A product without one takes everything.
type Catalogue struct {
	Undeclared string  `json:"undeclared,omitempty" required:"false" enum:"drop,keep" doc:"What becomes of a field that is not listed; default drop"`
	Fields     []Field `json:"fields" maxItems:"1000"`
}

// CatalogueVersion is one state of a product's catalogue. A later one replaces it, none is ever changed or removed.
type CatalogueVersion struct {
	Catalogue
	Product string    `json:"product"`
	Version int64     `json:"version" doc:"0: the product has no catalogue"`
	Created time.Time `json:"created,omitzero"`
	Actor   string    `json:"actor,omitempty"`
}

// maxFields bounds a catalogue, so that its compiled form stays small.
const maxFields = 1000

// normal fills in what was left out, sorts the fields and refuses a catalogue that cannot be kept.
func (c Catalogue) normal() (Catalogue, error) {
	if c.Undeclared == "" {
		c.Undeclared = DropUndeclared
	}
	if c.Undeclared != DropUndeclared && c.Undeclared != KeepUndeclared {
		return c, problem.Invalid("What becomes of undeclared fields is drop or keep.").At("undeclared")
	}
	if len(c.Fields) > maxFields {
		return c, problem.Invalid("A catalogue has at most %d fields.", maxFields).At("fields")
	}
	c.Fields = slices.Clone(c.Fields)
	for i := range c.Fields {
		if err := c.Fields[i].normal(); err != nil {
			return c, problem.Of(err).At(fmt.Sprintf("fields[%d]", i))
		}
	}
	slices.SortFunc(c.Fields, func(a, b Field) int { return strings.Compare(a.key(), b.key()) })
	for i := 1; i < len(c.Fields); i++ {
		if c.Fields[i].key() == c.Fields[i-1].key() {
			return c, problem.Invalid("The field %s is declared twice.", c.Fields[i].key()).At("fields")
		}
	}
	return c, nil
}

func (f Field) key() string { return f.Stream + "/" + f.Name }

func (f *Field) normal() error {
	if f.Type == "" {
		f.Type = Number
	}
	f.Purpose = strings.TrimSpace(f.Purpose)
	switch {
	case !validName(f.Stream) || !validName(f.Name):
		return problem.Invalid("Stream and name are 1 to %d of A-Z a-z 0-9 . _ -, not %q.", maxName, cut(f.key()))
	case f.Type != Number && f.Type != Integer && f.Type != Boolean:
		return problem.Invalid("The type of %s is number, integer or boolean.", f.key())
	case f.Purpose == "" || len(f.Purpose) > 500 || strings.ContainsFunc(f.Purpose, unicode.IsControl):
		return problem.Invalid("%s has no purpose of 1 to 500 bytes: what nobody needs is not collected.", f.key()).Hint("Say in one line what it is needed for.")
	case len(f.Unit) > 32 || strings.ContainsFunc(f.Unit, func(r rune) bool { return r <= ' ' || r > '~' }):
		return problem.Invalid("The unit of %s is a code such as Cel, %%RH or m/s.", f.key())
	case f.Retention < 0 || f.Retention > maxRetention:
		return problem.Invalid("%s is kept for 0 to %d days.", f.key(), maxRetention)
	case f.Min != nil && f.Max != nil && *f.Min > *f.Max:
		return problem.Invalid("The least value of %s is above its greatest.", f.key())
	}
	return nil
}

// Retention in days: that of a tenant that never chose, and the longest.
const (
	defaultRetention = 730
	maxRetention     = 36_500
)

// change says in names what a catalogue adds, removes and alters against the one before.
type change struct {
	Added   []string `json:"added,omitempty"`
	Removed []string `json:"removed,omitempty"`
	Altered []string `json:"altered,omitempty"`
}

func (c Catalogue) since(old Catalogue) (d change) {
	text := func(c Catalogue) map[string]string {
		out := map[string]string{}
		for _, f := range c.Fields {
			b, err := json.Marshal(f)
			if err != nil {
				panic(err) // plain numbers and text: cannot fail
			}
			out[f.key()] = string(b)
		}
		return out
	}
	was, is := text(old), text(c)
	for _, f := range c.Fields {
		switch w, known := was[f.key()]; {
		case !known:
			d.Added = append(d.Added, f.key())
		case w != is[f.key()]:
			d.Altered = append(d.Altered, f.key())
		}
	}
	for _, f := range old.Fields {
		if _, still := is[f.key()]; !still {
			d.Removed = append(d.Removed, f.key())
		}
	}
	return d
}

// rules are a catalogue as the compactor and readers apply it. They never change; nil lets everything in for ever.
type rules struct {
	version  int64
	keep     bool                        // undeclared fields
	fallback int64                       // ms that an undeclared field is kept
	streams  map[string]map[string]*rule // by stream and field
}

type rule struct {
	kind     FieldType
	unit     string // "" takes any
	min, max float64
	keepFor  int64 // ms
}

// compile makes the rules of a catalogue. days is the tenant's default retention. A catalogue of version 0 lets every
// field in and bounds only its age.
func (v CatalogueVersion) compile(days int) *rules {
	ms := func(days int) int64 { return int64(days) * 24 * 3600 * 1000 }
	r := &rules{version: v.Version, keep: v.Version == 0 || v.Undeclared == KeepUndeclared, fallback: ms(days), streams: map[string]map[string]*rule{}}
	for _, f := range v.Fields {
		c := &rule{kind: f.Type, unit: f.Unit, min: math.Inf(-1), max: math.Inf(1), keepFor: r.fallback}
		if f.Min != nil {
			c.min = *f.Min
		}
		if f.Max != nil {
			c.max = *f.Max
		}
		if f.Retention > 0 {
			c.keepFor = ms(f.Retention)
		}
		if r.streams[f.Stream] == nil {
			r.streams[f.Stream] = map[string]*rule{}
		}
		r.streams[f.Stream][f.Name] = c
	}
	return r
}

// judge returns a value as it is kept, in the unit that the catalogue declares, or the rule that refuses it. c is nil for an
// undeclared field; code is the unit that the message names, age is in ms.
func (r *rules) judge(c *rule, v float64, code string, age int64) (kept float64, broken string) {
	if c == nil {
		switch {
		case !r.keep:
			return 0, RuleUndeclared
		case age > r.fallback:
			return 0, RuleRetention
		}
		return v, ""
	}
	same := true
	if code != "" {
		v, same = convert(v, code, c.unit)
	}
	switch {
	case !same:
		return 0, RuleUnit
	case c.kind != Number && (v != math.Trunc(v) || c.kind == Boolean && v != 0 && v != 1):
		return 0, RuleType
	case v < c.min || v > c.max:
		return 0, RuleRange
	case age > c.keepFor:
		return 0, RuleRetention
	}
	return v, ""
}

// sift takes out of points of a stream what the rules refuse, and the points that are empty then, and tells each value
// that it took. It changes the points' own memory.
func (r *rules) sift(stream string, points []point, now int64, tell func(field, rule string)) []point {
	if r == nil {
		return points
	}
	fields := r.streams[stream]
	kept := points[:0]
	if r.keep && fields == nil { // nothing to look at but the age
		for _, p := range points {
			if now-p.t <= r.fallback {
				kept = append(kept, p)
				continue
			}
			for _, v := range p.values {
				tell(v.name, RuleRetention)
			}
		}
		return kept
	}
	var before []value // of the point before: points of one stream mostly name the same values
	var found []*rule  // of before
	for _, p := range points {
		if !sameNames(before, p.values) {
			before, found = p.values, found[:0]
			for _, v := range p.values {
				found = append(found, fields[v.name])
			}
		}
		n := 0
		for i, v := range p.values {
			code := ""
			if p.units != nil {
				code = p.units[v.name]
			}
			x, broken := r.judge(found[i], v.v, code, now-p.t)
			if broken != "" {
				tell(v.name, broken)
				if n == i { // what was read stays as it was for the next point to be compared with
					p.values = slices.Clone(p.values)
				}
				continue
			}
			if n < i || x != v.v {
				p.values[n] = value{v.name, x}
			}
			n++
		}
		if p.values = p.values[:n]; n > 0 {
			kept = append(kept, p)
		}
	}
	return kept
}

func sameNames(a, b []value) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].name != b[i].name {
			return false
		}
	}
	return true
}

// untold is for readers: what they leave out the compactor counts.
func untold(string, string) {}
