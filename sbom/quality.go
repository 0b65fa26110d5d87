// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"fmt"
	"slices"
	"strings"
)

// Grade says how far a bill can be relied on.
type Grade string

// The grades, from the worst to the best. The release gate may demand one; that is the manufacturer's policy.
const (
	GradeNotMatchable Grade = "not-matchable" // no part can be matched: silence means nothing
	GradePartial      Grade = "partial"       // some parts cannot be matched
	GradeUsable       Grade = "usable"        // every part can be matched; facts of a list are missing
	GradeComplete     Grade = "complete"      // every part can be matched and nothing of either list is missing
)

// Grades lists the grades from the worst to the best.
var Grades = []Grade{GradeNotMatchable, GradePartial, GradeUsable, GradeComplete}

// AtLeast reports whether the grade is as good as the other, or better.
func (g Grade) AtLeast(other Grade) bool {
	return slices.Index(Grades, g) >= slices.Index(Grades, other)
}

// The lists of facts that a bill is graded by.
const (
	ListBSI  = "BSI TR-03183-2 v2.1.0"
	ListNTIA = "NTIA minimum elements (2021)"
)

// Fact is one thing that a list asks for.
type Fact struct {
	Name    string `json:"name"` // stable: "bsi.sbom-creator"
	List    string `json:"list"`
	Title   string `json:"title"`
	Has     int    `json:"has"`               // how many of them say it; a fact of the document is one of one
	Of      int    `json:"of"`                // parts, or 1
	Missing string `json:"missing,omitempty"` // the sentence; empty where the fact is given
}

// Given reports whether nothing is missing.
func (f Fact) Given() bool { return f.Missing == "" }

// Quality is what a bill says and what it leaves out.
type Quality struct {
	Grade     Grade    `json:"grade"`
	Total     int      `json:"total"`
	Matchable int      `json:"matchable"`
	Facts     []Fact   `json:"facts"`
	Missing   []string `json:"missing"` // the sentences of the facts that are not given, each once
}

// NotMatchable is how many parts no record can be compared with: they are not clean, they are unknown.
func (q Quality) NotMatchable() int { return q.Total - q.Matchable }

// List returns the facts of one list and how many of them are given.
func (q Quality) List(list string) (facts []Fact, given int) {
	for _, f := range q.Facts {
		if f.List == list {
			facts = append(facts, f)
			if f.Given() {
				given++
			}
		}
	}
	return facts, given
}

// Quality grades the bill against the two lists. It never refuses: what a gate demands is policy.
func (b Bill) Quality() Quality {
	q := Quality{Total: len(b.Components), Missing: []string{}}
	for _, c := range b.Components {
		if c.Matchable() {
			q.Matchable++
		}
	}
	q.Facts = append(b.bsi(), b.ntia()...)
	for _, f := range q.Facts {
		if !f.Given() && !slices.Contains(q.Missing, f.Missing) {
			q.Missing = append(q.Missing, f.Missing)
		}
	}
	switch {
	case q.Matchable == 0:
		q.Grade = GradeNotMatchable
	case q.Matchable < q.Total:
		q.Grade = GradePartial
	case len(q.Missing) > 0:
		q.Grade = GradeUsable
	default:
		q.Grade = GradeComplete
	}
	return q
}

// documentFact makes a fact of the document as a whole.
func documentFact(list, name, title string, given bool, missing string) Fact {
	f := Fact{Name: name, List: list, Title: title, Of: 1}
	if given {
		f.Has = 1
	} else {
		f.Missing = missing
	}
	return f
}

// partsFact makes a fact of every part; lacks says what those without it do: "have no version".
func (b Bill) partsFact(list, name, title string, given func(Component) bool, lacks string) Fact {
	f := Fact{Name: name, List: list, Title: title, Of: len(b.Components)}
	for _, c := range b.Components {
		if given(c) {
			f.Has++
		}
	}
	if f.Has < f.Of {
		f.Missing = fmt.Sprintf("%d of %d parts %s.", f.Of-f.Has, f.Of, lacks)
	}
	return f
}

// bsi are the required data fields of BSI TR-03183-2 v2.1.0, sections 4 and 5.2, and its ban on vulnerability data.
func (b Bill) bsi() []Fact {
	related := b.related()
	return []Fact{
		documentFact(ListBSI, "bsi.format", "CycloneDX 1.6 or SPDX 3.0.1, or newer", b.recentSpec(),
			fmt.Sprintf("%s %s is older than CycloneDX 1.6 and SPDX 3.0.1.", b.Format, b.SpecVersion)),
		documentFact(ListBSI, "bsi.no-vulnerabilities", "No vulnerability data", b.Vulnerabilities == 0,
			"It holds vulnerability data, which belongs into a document of its own."),
		documentFact(ListBSI, "bsi.sbom-creator", "Creator of the SBOM, as a mail address or URL", b.CreatorContact != "",
			"It gives no mail address or URL of who made it."),
		documentFact(ListBSI, "bsi.timestamp", "Date of the SBOM", !b.Created.IsZero(), "It has no date."),
		documentFact(ListBSI, "bsi.primary", "Name and version of what it describes", b.Name != "" && b.Version != "", "It does not give name and version of what it describes."),
		documentFact(ListBSI, "bsi.completeness", "Whether the dependencies are complete", b.Complete != "", "It does not say whether its list of dependencies is complete."),
		b.partsFact(ListBSI, "bsi.component-creator", "Creator of each part, as a mail address or URL",
			func(c Component) bool { return c.Supplier.Contact != "" }, "have no mail address or URL of their creator"),
		b.partsFact(ListBSI, "bsi.component-version", "Version of each part", func(c Component) bool { return c.Version != "" }, "have no version"),
		b.partsFact(ListBSI, "bsi.filename", "File name of each part", func(c Component) bool { return c.BSI.Filename != "" }, "have no file name"),
		b.partsFact(ListBSI, "bsi.dependencies", "Dependencies of each part", func(c Component) bool { return related[c.Ref] }, "stand in no dependency"),
		b.partsFact(ListBSI, "bsi.licences", "Licence of each part, as an SPDX identifier or expression", Component.spdxLicensed, "have no licence of the SPDX list"),
		b.partsFact(ListBSI, "bsi.hash", "SHA-512 of each deployable part", func(c Component) bool { return c.has("SHA-512") }, "have no SHA-512"),
		b.partsFact(ListBSI, "bsi.executable", "Whether each part is executable", func(c Component) bool { return c.BSI.Executable != "" }, "do not say whether they are executable"),
		b.partsFact(ListBSI, "bsi.archive", "Whether each part is an archive", func(c Component) bool { return c.BSI.Archive != "" }, "do not say whether they are archives"),
		b.partsFact(ListBSI, "bsi.structured", "Whether each part is structured", func(c Component) bool { return c.BSI.Structured != "" }, "do not say whether they are structured"),
		b.partsFact(ListBSI, "bsi.identifiers", "Unique identifier of each part", Component.identified, "have neither a purl nor a CPE name"),
	}
}

// ntia are the data fields of the NTIA's "Minimum Elements For a Software Bill of Materials" of 2021-07-12, section III.
func (b Bill) ntia() []Fact {
	related := b.related()
	return []Fact{
		b.partsFact(ListNTIA, "ntia.supplier", "Supplier of each part", func(c Component) bool { return c.Supplier.Name != "" }, "have no supplier"),
		b.partsFact(ListNTIA, "ntia.component-name", "Name of each part", func(c Component) bool { return c.Name != "" }, "have no name"),
		b.partsFact(ListNTIA, "ntia.component-version", "Version of each part", func(c Component) bool { return c.Version != "" }, "have no version"),
		b.partsFact(ListNTIA, "ntia.identifiers", "Other unique identifier of each part", Component.identified, "have neither a purl nor a CPE name"),
		b.partsFact(ListNTIA, "ntia.dependencies", "Dependency relationship of each part", func(c Component) bool { return related[c.Ref] }, "stand in no dependency"),
		documentFact(ListNTIA, "ntia.author", "Author of the SBOM", len(b.Creators) > 0, "It does not say who or what made it."),
		documentFact(ListNTIA, "ntia.timestamp", "Date of the SBOM", !b.Created.IsZero(), "It has no date."),
	}
}

// related are the references of all parts that stand in a relation to another.
func (b Bill) related() map[string]bool {
	out := make(map[string]bool, len(b.Components))
	for _, r := range b.Relations {
		out[r.From], out[r.To] = true, true
	}
	delete(out, "")
	return out
}

func (c Component) has(algorithm string) bool {
	return slices.ContainsFunc(c.Hashes, func(h Hash) bool { return h.Algorithm == algorithm })
}

func (c Component) identified() bool { return c.PURL != "" || c.CPE != "" }

func (c Component) spdxLicensed() bool {
	return len(c.Licences) > 0 && !slices.ContainsFunc(c.Licences, func(l Licence) bool { return l.ID == "" && l.Expression == "" })
}

func (b Bill) recentSpec() bool {
	switch b.Format {
	case CycloneDX:
		return slices.Contains([]string{"1.6", "1.7"}, b.SpecVersion)
	default:
		return strings.HasPrefix(b.SpecVersion, "3.") && b.SpecVersion != "3.0.0"
	}
}
