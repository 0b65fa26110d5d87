// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"cmp"
	"slices"

	"github.com/openthings-platform/openthings/sbom"
)

// Hit is one record that concerns one component of a bill.
type Hit struct {
	Record    string   `json:"record"`
	Aliases   []string `json:"aliases,omitempty"`
	Summary   string   `json:"summary,omitempty"`
	Component string   `json:"component"`
	Version   string   `json:"version"`
	State     State    `json:"state"`
	Fixed     string   `json:"fixed,omitempty"`
	Reason    string   `json:"reason,omitempty"`
	Withdrawn bool     `json:"withdrawn,omitempty"` // shown, and closed
	Exploited bool     `json:"exploited,omitempty"`
}

// Report is what a feed says about a bill.
type Report struct {
	Feed       string       `json:"feed"` // digest: "clean" is never said alone
	Records    int          `json:"records"`
	Quality    sbom.Quality `json:"quality"`
	Hits       []Hit        `json:"hits"`
	Affected   int          `json:"affected"`
	Unknown    int          `json:"unknown"`
	Exploited  int          `json:"exploited"`
	NotMatched int          `json:"not_matched"` // components that no record could be compared with
}

// Check compares a bill with a feed without any server: the command "openthings sbom check FILE --feed DIR".
func Check(b sbom.Bill, f *Feed) (Report, error) {
	parts := b.Components
	if b.Root != nil && b.Root.Matchable() {
		parts = append(slices.Clip(parts), *b.Root)
	}
	byPackage := map[pkg][]sbom.Component{}
	rep := Report{Feed: f.Digest, Records: f.Records, Quality: b.Quality(), Hits: []Hit{}}
	for _, c := range parts {
		if !c.Matchable() {
			rep.NotMatched++
			continue
		}
		p := packageOf(c.Ecosystem, c.Package)
		byPackage[p] = append(byPackage[p], c)
	}
	exploited := map[string]bool{}
	if f.kev != nil {
		for _, e := range f.kev.Entries {
			exploited[e.CVE] = true
		}
	}
	err := f.each(func(string, string) bool { return true }, func(r Record, _ []byte) error {
		for p, entries := range r.byPackage() {
			if len(byPackage[p]) == 0 {
				continue
			}
			ranges := compile(p.ecosystem, entries) // once, however many versions there are
			for _, c := range byPackage[p] {
				v := evaluate(p.ecosystem, c.PackageVersion, ranges)
				if v.State == StateClean {
					continue
				}
				rep.Hits = append(rep.Hits, Hit{Record: r.ID, Aliases: r.Aliases, Summary: r.Summary, Component: c.Name, Version: c.Version,
					State: v.State, Fixed: v.Fixed, Reason: v.Reason, Withdrawn: !r.Withdrawn.IsZero(),
					Exploited: slices.ContainsFunc(r.idents(), func(id string) bool { return exploited[id] })})
			}
		}
		return nil
	})
	slices.SortFunc(rep.Hits, func(a, b Hit) int {
		return cmp.Or(cmp.Compare(a.Component, b.Component), cmp.Compare(a.Record, b.Record), cmp.Compare(a.Version, b.Version))
	})
	for _, h := range rep.Hits {
		switch {
		case h.Withdrawn:
		case h.State == StateUnknown:
			rep.Unknown++
		default:
			rep.Affected++
			if h.Exploited {
				rep.Exploited++
			}
		}
	}
	return rep, err
}

// pkg is a package as the index knows it.
type pkg struct{ ecosystem, name string }

func packageOf(ecosystem, name string) pkg { return pkg{ecosystem, sbom.Fold(ecosystem, name)} }

// byPackage joins what the record says about each package.
func (r *Record) byPackage() map[pkg][]Affected {
	out := map[pkg][]Affected{}
	for _, a := range r.Affected {
		if a.Package.Ecosystem != "" && a.Package.Name != "" {
			p := packageOf(a.Package.Ecosystem, a.Package.Name)
			out[p] = append(out[p], a)
		}
	}
	return out
}
