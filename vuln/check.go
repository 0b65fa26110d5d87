// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"cmp"
	"slices"

	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/vuln/feed"
	"github.com/openthings-platform/openthings/vuln/record"
)

// Hit is one record that concerns one component of a bill.
type Hit struct {
	Record     string       `json:"record"`
	Aliases    []string     `json:"aliases,omitempty"`
	Summary    string       `json:"summary,omitempty"`
	Component  string       `json:"component"`
	Version    string       `json:"version"`
	State      record.State `json:"state"`
	Fixed      string       `json:"fixed,omitempty"`
	Reason     string       `json:"reason,omitempty"`
	Rule       string       `json:"rule"`
	Confidence string       `json:"confidence"`
	Conditions []string     `json:"conditions,omitempty"`
	Withdrawn  bool         `json:"withdrawn,omitempty"` // shown, and closed
	Exploited  bool         `json:"exploited,omitempty"`
}

// Report is what a feed says about a bill.
type Report struct {
	Feed       string       `json:"feed"` // digest: "clean" is never said alone
	Records    int          `json:"records"`
	Catalogue  string       `json:"catalogue,omitempty"` // version of the KEV catalogue in it; empty: it has none, so nothing is known of what is exploited
	Quality    sbom.Quality `json:"quality"`
	Hits       []Hit        `json:"hits"`
	Affected   int          `json:"affected"`
	Unknown    int          `json:"unknown"`
	Exploited  int          `json:"exploited"`   // of both: affected and unknown
	NotMatched int          `json:"not_matched"` // components that no record could be compared with
	Silent     []Silence    `json:"silent,omitempty"`
}

// Silence is a kind of packages about which the feed has no record at all: that nothing was found there says nothing.
type Silence struct {
	Space      string `json:"space"`
	Components int    `json:"components"` // that have no name of another kind
}

// Check compares a bill with a feed without any server: the command "openthings sbom check FILE --feed DIR".
func Check(b sbom.Bill, f *feed.Feed) (Report, error) {
	parts := b.Components
	if b.Root != nil && b.Root.Matchable() {
		parts = append(slices.Clip(parts), *b.Root)
	}
	type named struct {
		part int
		sbom.Identity
	}
	byName := map[[2]string][]named{}
	rep := Report{Feed: f.Digest, Records: f.Records, Quality: b.Quality(), Hits: []Hit{}}
	for i, c := range parts {
		if len(c.Identities) == 0 {
			rep.NotMatched++
		}
		for _, id := range c.Identities {
			name := [2]string{id.Space, id.Name}
			byName[name] = append(byName[name], named{i, id})
		}
	}
	exploited := map[string]bool{}
	if f.KEV != nil {
		rep.Catalogue = f.KEV.Version
		for _, e := range f.KEV.Entries {
			exploited[e.CVE] = true
		}
	}
	spoken := map[string]bool{} // kinds of packages that records speak about
	err := f.Each(func(string, string) bool { return true }, func(r record.Record, _ []byte) error {
		verdicts := map[int]record.Verdict{} // of a part that the record knows by several names, what says most
		for _, claim := range r.Claims() {
			spoken[claim.Space] = true
			by := byName[[2]string{claim.Space, claim.Name}]
			if len(by) == 0 {
				continue
			}
			judge, err := record.Compile(claim.Space, claim.Body) // once, however many versions there are
			if err != nil {
				return err
			}
			for _, n := range by {
				if v := judge.Judge(n.Identity); v.State != record.StateClean && v.Better(verdicts[n.part]) {
					verdicts[n.part] = v
				}
			}
		}
		for i, v := range verdicts {
			rep.Hits = append(rep.Hits, Hit{Record: r.ID, Aliases: r.Aliases, Summary: r.Summary, Component: parts[i].Name, Version: parts[i].Version,
				State: v.State, Fixed: v.Fixed, Reason: v.Reason, Rule: v.Rule, Confidence: v.Confidence, Conditions: v.Conditions, Withdrawn: !r.Withdrawn.IsZero(),
				Exploited: !r.Exploited.IsZero() || slices.ContainsFunc(r.Idents(), func(id string) bool { return exploited[id] })})
		}
		return nil
	})
	slices.SortFunc(rep.Hits, func(a, b Hit) int {
		return cmp.Or(cmp.Compare(urgency(a), urgency(b)), cmp.Compare(a.Component, b.Component), cmp.Compare(a.Record, b.Record), cmp.Compare(a.Version, b.Version))
	})
	for _, h := range rep.Hits {
		switch {
		case h.Withdrawn:
			continue
		case h.State == record.StateUnknown:
			rep.Unknown++
		default:
			rep.Affected++
		}
		if h.Exploited {
			rep.Exploited++
		}
	}
	rep.Silent = silent(parts, spoken)
	return rep, err
}

// urgency puts what is known to be exploited first.
func urgency(h Hit) int {
	if h.Exploited && !h.Withdrawn {
		return 0
	}
	return 1
}

// silent counts the components all of whose names are of kinds that no record speaks about, by their first name's kind.
func silent(parts []sbom.Component, spoken map[string]bool) (out []Silence) {
	count := map[string]int{}
	for _, c := range parts {
		if len(c.Identities) > 0 && !slices.ContainsFunc(c.Identities, func(id sbom.Identity) bool { return spoken[id.Space] }) {
			count[c.Identities[0].Space]++
		}
	}
	for _, space := range sortedKeys(count) {
		out = append(out, Silence{space, count[space]})
	}
	return out
}
