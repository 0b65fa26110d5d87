// SPDX-License-Identifier: AGPL-3.0-only

package vex

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/package-url/packageurl-go"
)

// Status is what is said of the vulnerability in the product, in the words of OpenVEX.
type Status string

// The four statuses.
const (
	UnderInvestigation Status = "under_investigation"
	Affected           Status = "affected"
	NotAffected        Status = "not_affected"
	Fixed              Status = "fixed"
)

// Known reports whether s is one of the four.
func (s Status) Known() bool {
	return s == UnderInvestigation || s == Affected || s == NotAffected || s == Fixed
}

// Justification is why a product is not affected, in the words of OpenVEX and CSAF.
type Justification string

// The five justifications.
const (
	ComponentNotPresent Justification = "component_not_present"
	CodeNotPresent      Justification = "vulnerable_code_not_present"
	CodeNotInPath       Justification = "vulnerable_code_not_in_execute_path"
	NotControllable     Justification = "vulnerable_code_cannot_be_controlled_by_adversary"
	InlineMitigations   Justification = "inline_mitigations_already_exist"
)

// Justifications are all five.
var Justifications = []Justification{ComponentNotPresent, CodeNotPresent, CodeNotInPath, NotControllable, InlineMitigations}

// Origin is whose statements a document holds. The order is that of precedence.
type Origin string

// The origins: the manufacturer itself, the maker of a component, a distribution that packages it.
const (
	Own          Origin = "own"
	Vendor       Origin = "vendor"
	Distribution Origin = "distribution"
)

// Rank orders origins: the smaller one is heard first. What is no origin comes last.
func (o Origin) Rank() int {
	if i := slices.Index([]Origin{Own, Vendor, Distribution}, o); i >= 0 {
		return i
	}
	return 3
}

// Format is one of the three ways to write VEX.
type Format string

// The formats.
const (
	OpenVEX   Format = "openvex"
	CycloneDX Format = "cyclonedx"
	CSAF      Format = "csaf"
)

// Document is a set of statements with who said them and when.
type Document struct {
	Format  Format    `json:"format"`
	ID      string    `json:"id,omitempty"`      // an IRI where it is to be written
	Version string    `json:"version,omitempty"` // a whole number where it is to be written
	Author  string    `json:"author,omitempty"`
	At      time.Time `json:"at,omitzero"`     // when it was last issued
	Digest  string    `json:"digest"`          // "sha256:<hex>" of the bytes that were read
	Unread  []string  `json:"unread,omitzero"` // what it says that no statement holds, a sentence each

	Statements []Statement `json:"statements"` // in normal form

	// Only for writing.
	Namespace string     `json:"-"` // CSAF: an address under the author's control
	Title     string     `json:"-"` // CSAF
	Revisions []Revision `json:"-"` // CSAF: the history, oldest first, one for each version from 1; empty for version 1
}

// Revision is one issue of a document.
type Revision struct {
	At      time.Time
	Summary string
}

// Statement says one thing about one vulnerability in some products.
type Statement struct {
	Idents        []string      `json:"vulnerability"`           // its names; a CVE number comes first
	Summary       string        `json:"summary,omitempty"`       // what the vulnerability is
	Products      []Product     `json:"products"`                // in which it is so
	Status        Status        `json:"status"`                  //
	Justification Justification `json:"justification,omitempty"` // of not_affected
	Detail        string        `json:"detail,omitempty"`        // how that is known: the impact statement or the notes
	Action        string        `json:"action,omitempty"`        // what to do about it
	At            time.Time     `json:"at"`                      // when it was last said
	Foreign       Foreign       `json:"foreign,omitzero"`
}

// Foreign are words of CycloneDX that say more or other than VEX can. A statement with Foreign.Justification has no
// Justification: whoever accepts it has to choose one.
type Foreign struct {
	State         string   `json:"state,omitempty"`
	Justification string   `json:"justification,omitempty"`
	Responses     []string `json:"responses,omitempty"`
}

// Product is a thing that somebody ships, with the parts of it that the statement is about; none means the whole.
type Product struct {
	Ref
	Components []Ref `json:"components,omitempty"`
}

// Ref is by what a thing can be recognised. A package URL says the name and version, so that Name and Version are
// empty beside one.
type Ref struct {
	ID      string `json:"id,omitempty"`      // the document's own name for it, a link into a bill, or ReleaseRef
	PURL    string `json:"purl,omitempty"`    //
	CPE     string `json:"cpe,omitempty"`     // 2.2 or 2.3
	Digest  string `json:"digest,omitempty"`  // "sha256:<hex>" of the file
	Name    string `json:"name,omitempty"`    //
	Version string `json:"version,omitempty"` //
	Range   string `json:"range,omitempty"`   // "vers:…", in place of a version
}

const releaseScheme = "urn:openthings:release:"

// ReleaseRef is the Ref.ID of one of our releases.
func ReleaseRef(release string) string { return releaseScheme + release }

// Release is the id of our release that the Ref names, "" if it names none.
func (r Ref) Release() string {
	id, ok := strings.CutPrefix(r.ID, releaseScheme)
	if !ok {
		return ""
	}
	return id
}

// empty reports whether the Ref names nothing at all.
func (r Ref) empty() bool { return r.ID+r.PURL+r.CPE+r.Digest+r.Name == "" }

// Label is how people call it: a name and, if it is known, a version.
func (r Ref) Label() (name, version string) {
	if p, err := packageurl.FromString(r.PURL); r.PURL != "" && err == nil {
		if p.Namespace != "" {
			return p.Namespace + "/" + p.Name, p.Version
		}
		return p.Name, p.Version
	}
	return cmp.Or(r.Name, r.ID, r.CPE, r.Digest, r.PURL), r.Version
}

// tidy says everything once.
func (r Ref) tidy() Ref {
	r.Digest = strings.ToLower(r.Digest)
	if r.PURL != "" {
		r.Name, r.Version = "", ""
	}
	if r.Name == r.ID || r.Name == r.CPE || r.Name == r.Digest {
		r.Name = ""
	}
	if r.ID == r.PURL || r.ID == r.CPE || r.ID == r.Digest {
		r.ID = ""
	}
	return r
}

func compareRef(a, b Ref) int {
	return cmp.Or(cmp.Compare(a.PURL, b.PURL), cmp.Compare(a.ID, b.ID), cmp.Compare(a.CPE, b.CPE), cmp.Compare(a.Digest, b.Digest),
		cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Range, b.Range))
}

// names puts the names of a vulnerability in order: CVE numbers first, each once.
func names(idents []string) []string {
	var out []string
	for _, s := range idents {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b string) int {
		return cmp.Or(cmp.Compare(rankIdent(a), rankIdent(b)), cmp.Compare(a, b))
	})
	return slices.Compact(out)
}

func rankIdent(s string) int {
	if strings.HasPrefix(s, "CVE-") {
		return 0
	}
	return 1
}

// Normal gives the statements in the form in which equal ones are equal: what is said alike of several products is one
// statement, and statements, products and components are sorted.
func Normal(statements []Statement) []Statement {
	type group struct {
		Statement
		key      string
		products map[Ref]map[Ref]bool
	}
	groups := map[string]*group{}
	for _, s := range statements {
		s.Idents, s.At = names(s.Idents), s.At.UTC()
		s.Summary, s.Detail, s.Action = strings.TrimSpace(s.Summary), strings.TrimSpace(s.Detail), strings.TrimSpace(s.Action)
		products := s.Products
		s.Products = nil
		key, _ := json.Marshal(s) // strings and a time: cannot fail
		g := groups[string(key)]
		if g == nil {
			g = &group{s, string(key), map[Ref]map[Ref]bool{}}
			groups[g.key] = g
		}
		for _, p := range products {
			at := p.Ref.tidy()
			if g.products[at] == nil {
				g.products[at] = map[Ref]bool{}
			}
			if len(p.Components) == 0 {
				g.products[at][Ref{}] = true // the whole
			}
			for _, c := range p.Components {
				g.products[at][c.tidy()] = true
			}
		}
	}
	out := make([]Statement, 0, len(groups))
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		g := groups[key]
		for at, parts := range g.products {
			if parts[Ref{}] { // said of the whole, and perhaps of parts besides
				g.Products = append(g.Products, Product{Ref: at})
			}
			delete(parts, Ref{})
			if len(parts) > 0 {
				g.Products = append(g.Products, Product{at, slices.SortedFunc(maps.Keys(parts), compareRef)})
			}
		}
		slices.SortFunc(g.Products, func(a, b Product) int {
			return cmp.Or(compareRef(a.Ref, b.Ref), cmp.Compare(len(a.Components), len(b.Components)))
		})
		out = append(out, g.Statement)
	}
	slices.SortStableFunc(out, func(a, b Statement) int {
		return cmp.Or(slices.Compare(a.Idents, b.Idents), a.At.Compare(b.At))
	})
	return out
}
