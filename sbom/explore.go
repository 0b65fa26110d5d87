// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"cmp"
	"net/url"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/console"
)

// Words of the explorer for what has no value.
const (
	notMatchable = "not matchable"
	noLicence    = "no licence"
	noSupplier   = "no supplier"
)

// view is what the explorer shows of a list of parts.
type view struct {
	Query, Space, Licence, Supplier string // what the list is narrowed to
	After                           string

	Parts  []Part
	Found  int
	Facets []facet
	Pager  console.Pager
}

type facet struct {
	Title   string
	Choices []choice
	More    int // values that are not listed
}

type choice struct {
	Word, Href string
	N          int
	Here       bool
}

// Bounds of a page of the explorer.
const (
	partsOnPage    = 100
	choicesInFacet = 10
)

func viewOf(q url.Values) view {
	return view{Query: strings.TrimSpace(q.Get("q")), Space: q.Get("space"), Licence: q.Get("licence"), Supplier: q.Get("supplier"), After: q.Get("after")}
}

// Narrowed reports whether the list is narrowed at all.
func (v view) Narrowed() bool { return v.Query+v.Space+v.Licence+v.Supplier != "" }

// href is the address of the same view with one thing changed; a value that is set already is taken back.
func (v view) href(name, value string) string {
	q := url.Values{}
	for k, have := range map[string]string{"q": v.Query, "space": v.Space, "licence": v.Licence, "supplier": v.Supplier} {
		if k == name && have == value {
			continue
		}
		if k == name {
			have = value
		}
		if have != "" {
			q.Set(k, have)
		}
	}
	if name == "after" && value != "" {
		q.Set("after", value)
	}
	return "?" + q.Encode()
}

// values are what a part says under a facet.
func (p Part) values(facet string) []string {
	or := func(s, none string) []string { return []string{cmp.Or(s, none)} }
	switch facet {
	case "space":
		if len(p.Spaces) == 0 {
			return []string{notMatchable}
		}
		return p.Spaces
	case "licence":
		return or(p.Licence, noLicence)
	default:
		return or(p.Supplier, noSupplier)
	}
}

// show fills the view from all parts of a release, which are in the order of their names.
func (v *view) show(all []Part) {
	wanted := map[string]string{"space": v.Space, "licence": v.Licence, "supplier": v.Supplier}
	fits := func(p Part, except string) bool {
		for facet, want := range wanted {
			if want != "" && facet != except && !slices.Contains(p.values(facet), want) {
				return false
			}
		}
		return v.Query == "" || p.contains(v.Query)
	}
	for _, f := range []struct{ name, title string }{{"space", "Matched by"}, {"licence", "Licence"}, {"supplier", "Supplier"}} {
		counts := map[string]int{}
		for _, p := range all {
			if fits(p, f.name) {
				for _, value := range p.values(f.name) {
					counts[value]++
				}
			}
		}
		v.Facets = append(v.Facets, v.facet(f.name, f.title, wanted[f.name], counts))
	}
	past := v.After == ""
	for _, p := range all {
		if !fits(p, "") {
			continue
		}
		v.Found++
		if past && len(v.Parts) < partsOnPage {
			v.Parts = append(v.Parts, p)
		} else if past && v.Pager.Next == "" {
			v.Pager.Next = v.href("after", v.Parts[len(v.Parts)-1].ID)
		}
		past = past || p.ID == v.After
	}
	if v.After != "" {
		v.Pager.First = v.href("after", "")
	}
}

func (v *view) facet(name, title, here string, counts map[string]int) facet {
	f := facet{Title: title}
	for word, n := range counts {
		f.Choices = append(f.Choices, choice{Word: word, N: n, Here: word == here, Href: v.href(name, word)})
	}
	slices.SortFunc(f.Choices, func(a, b choice) int {
		first := 0
		if a.Here != b.Here { // what is chosen stays in sight
			first = 1
			if a.Here {
				first = -1
			}
		}
		return cmp.Or(first, b.N-a.N, strings.Compare(a.Word, b.Word))
	})
	if len(f.Choices) > choicesInFacet {
		f.More = len(f.Choices) - choicesInFacet
		f.Choices = f.Choices[:choicesInFacet]
	}
	return f
}

// contains reports whether every word stands somewhere in the part.
func (p Part) contains(query string) bool {
	text := strings.ToLower(strings.Join([]string{p.Name, p.Version, p.PURL, p.CPE, p.Licence, p.Supplier, p.Type, strings.Join(p.Spaces, " ")}, "\n"))
	for _, word := range strings.Fields(strings.ToLower(query)) {
		if !strings.Contains(text, word) {
			return false
		}
	}
	return true
}

// matching draws how sure the parts can be compared with records.
func matching(parts []Part) console.Bar {
	b := console.Bar{Label: "How parts are matched", Total: int64(len(parts))}
	var exact, likely, never int64
	for _, p := range parts {
		switch {
		case !p.Matchable():
			never++
		case len(p.Spaces) == 1 && (Identity{Space: p.Spaces[0]}).Package() || slices.Contains(p.Spaces, SpaceKernel) || slices.Contains(p.Spaces, SpaceGit):
			exact++
		default:
			likely++
		}
	}
	b.Parts = []console.BarPart{{Word: "by package, kernel or commit", N: exact, Tone: "good"}, {Word: "by product or CPE name", N: likely, Tone: "busy"},
		{Word: notMatchable, N: never, Tone: "warn"}}
	return b
}
