// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"cmp"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/sbom"
)

// cveJudge compares versions with what the authors of a record of the CVE List say about one name.
type cveJudge struct {
	space, rule, confidence string
	authors                 []speaker
	known                   *Commits
}

type speaker struct {
	name    string
	entries []cveEntry
	applies []applies
}

// cveEntry is one entry of an affected list, its ends parsed.
type cveEntry struct {
	vendor, product string
	versions
	conditions []string
}

func (c *cveClaim) compile(space string, known *Commits) cveJudge {
	j := cveJudge{space: space, rule: RuleProduct, confidence: ConfidenceLikely, known: known}
	switch space {
	case sbom.SpaceKernel:
		j.rule, j.confidence = RuleKernel, ConfidenceRange
	case sbom.SpaceGit:
		j.rule, j.confidence = RuleGitCVE, ConfidenceExact
	case sbom.SpaceCPE:
		j.rule = RuleCPE
	}
	for _, a := range c.Authors {
		s := speaker{name: a.Name}
		for _, e := range a.Entries {
			s.entries = append(s.entries, compileEntry(space, e, a.CNA))
		}
		for _, ap := range a.Applies {
			s.applies = append(s.applies, compileApplies(ap)...)
		}
		j.authors = append(j.authors, s)
	}
	return j
}

func compileEntry(space string, a cveAffected, cna bool) cveEntry {
	e := cveEntry{vendor: a.Vendor, product: a.Product, versions: compileVersions(a.Versions, a.DefaultStatus, cna)}
	if nameless(foldName(e.product)) || !nameless(foldName(a.Package)) && belongs(a.Vendor, a.Package) != stranger {
		e.product = a.Package
	}
	if len(a.Platforms) > 0 && space != sbom.SpaceKernel {
		e.conditions = append(e.conditions, "only on "+short(strings.Join(a.Platforms, ", ")))
	}
	if len(a.Modules) > 0 {
		e.conditions = append(e.conditions, "only with "+short(strings.Join(a.Modules, ", ")))
	}
	for i, text := range a.CPEs {
		n, _ := parseCPE(text)
		if words := n.conditions(); i == 0 {
			e.conditions = append(e.conditions, words...)
		}
	}
	if len(a.Versions) == 0 && e.silent { // then the CPE names are all there is
		for _, text := range a.CPEs {
			if n, ok := parseCPE(text); ok {
				if v, ok := n.number(); ok {
					if at, ok := plainOrder.parse(v); ok {
						e.bands = append(e.bands, band{order: plainOrder, low: at, high: at, within: true, single: true, status: "affected", from: v})
					}
				}
			}
		}
	}
	return e
}

// Judge asks the authors in their order. The first who can decide does; the CNA knows its own product best.
func (j cveJudge) Judge(id sbom.Identity) Verdict {
	out := Verdict{State: StateClean, Confidence: j.confidence}
	version := &reading{text: id.Version}
	if j.space == sbom.SpaceKernel {
		version.text = kernelVersion(id.Version)
	}
	if s := j.known.state(id.Version); s != StateUnknown {
		return Verdict{State: s, Rule: j.rule, Confidence: j.confidence}
	}
	for _, s := range j.authors {
		v, speaks := s.judge(j, id, version)
		if !speaks {
			continue
		}
		v.Speaker = s.name
		if v.State != StateUnknown {
			out = v
			break
		}
		if out.State != StateUnknown {
			out = v
		}
	}
	out.Rule = j.rule
	return out
}

// judge joins what one author says: an entry that hits is a hit, what cannot be compared is unknown unless another hits,
// and an entry of commits says nothing about a version as long as another one does.
func (s speaker) judge(j cveJudge, id sbom.Identity, version *reading) (Verdict, bool) {
	var relations []whose
	for _, e := range s.entries {
		relation := itsOwn
		if j.space == sbom.SpaceProduct {
			relation = e.belongsTo(id)
		}
		relations = append(relations, relation)
	}
	own := slices.ContainsFunc(relations, func(w whose) bool { return w == itsOwn || w == stranger })
	var out, silent *Verdict
	for i, e := range s.entries {
		relation := relations[i]
		if relation == anothers || relation == aFork && own {
			continue
		}
		var v said
		switch {
		case version.text == "":
			v = said{Verdict: Verdict{State: StateUnknown, Reason: "the component has no version"}}
		case isCommit(version.text):
			v = e.judgeCommit(version.text)
		default:
			v = e.judge(version)
		}
		switch {
		case relation == aFork && v.State != StateClean:
			v = said{Verdict: Verdict{State: StateUnknown, Confidence: v.Confidence,
				Reason: "the record speaks about " + short(e.product) + " by " + short(e.vendor) + "; whether this is that one is not known"}}
		case v.nothing:
			silent = &v.Verdict
			continue
		case v.State == StateAffected:
			v.Conditions = e.conditions
			if relation == stranger {
				v.Conditions = append([]string{"if it is " + short(e.product) + " by " + short(e.vendor)}, v.Conditions...)
			}
		}
		v.Confidence = cmp.Or(v.Confidence, j.confidence)
		if out == nil || v.Better(*out) {
			out = &v.Verdict
		}
	}
	decided := out != nil && out.State != StateUnknown
	for _, a := range s.applies {
		if j.space == sbom.SpaceKernel && decided { // kernel.org repeats its ranges as CPE names, without the stable branches' own words
			break
		}
		v, speaks := a.judge(j.space, id.Name, version)
		v.Confidence = j.confidence
		if speaks && (out == nil || v.Better(*out)) {
			out = &v
		}
	}
	switch {
	case out != nil:
		return *out, true
	case silent != nil:
		silent.Confidence = j.confidence
		return *silent, true
	}
	return Verdict{}, false
}

// belongsTo tells whether the entry's vendor makes the product that the component is.
func (e cveEntry) belongsTo(id sbom.Identity) whose {
	if v := foldName(id.Vendor); v != "" && (v == foldName(e.vendor) || alike(v, foldName(e.vendor))) {
		return itsOwn
	}
	relation := belongs(e.vendor, e.product)
	if relation == aFork && isMaker(id.Vendor, e.product) {
		return anothers
	}
	return relation
}

// applies is one vulnerable name of a cpeApplicability with its range, and what must hold besides.
type applies struct {
	name       string
	band       band
	broken     string
	conditions []string
}

func compileApplies(a applicable) []applies {
	var out []applies
	for i, node := range a.Nodes {
		var around []string
		if strings.EqualFold(a.Operator, "AND") {
			for k, other := range a.Nodes {
				if k != i && len(around) < maxConditions {
					around = append(around, other.words())
				}
			}
		}
		for k, m := range node.Match {
			n, ok := parseCPE(m.Criteria)
			if !ok || !m.Vulnerable || n.name() == "" {
				continue
			}
			x := applies{name: n.name(), conditions: append(n.conditions(), around...)}
			if strings.EqualFold(node.Operator, "AND") {
				for l, other := range node.Match {
					if l != k && len(x.conditions) < maxConditions {
						x.conditions = append(x.conditions, "with "+other.words())
					}
				}
			}
			if x.band, x.broken = m.band(n); a.Negate || node.Negate {
				x.broken = "the record says for which versions it is not, by a negation"
			}
			out = append(out, x)
		}
	}
	return out
}

// band is the range of versions that a match names: by its bounds, else by the version in the name.
func (m cpeMatch) band(n cpeName) (band, string) {
	b := band{order: plainOrder, status: "affected", within: m.EndIncluding != "", above: m.StartExcluding != "", fix: m.EndExcluding}
	ok := true
	if text := m.StartIncluding + m.StartExcluding; text != "" {
		b.low, ok = plainOrder.parse(text)
	}
	if text := m.EndIncluding + m.EndExcluding; ok && text != "" {
		b.high, ok = plainOrder.parse(text)
	}
	if ok && b.low == nil && b.high == nil {
		v, has := n.number()
		switch {
		case n.version.any:
			return b, ""
		case has:
			b.low, ok = plainOrder.parse(v)
			b.high, b.within, b.single = b.low, true, true
		default: // "-": without a version; or a wildcard inside one
			ok = false
		}
	}
	if !ok {
		return b, "the record's CPE name " + short(m.Criteria) + " gives no version that can be compared"
	}
	return b, ""
}

func (a applies) judge(space, name string, version *reading) (Verdict, bool) {
	if space == sbom.SpaceCPE && a.name != name {
		return Verdict{}, false
	}
	if vendor, product, _ := strings.Cut(a.name, ":"); space == sbom.SpaceKernel && !isKernel(vendor, product) {
		return Verdict{}, false
	}
	if a.broken != "" {
		return Verdict{State: StateUnknown, Reason: a.broken}, true
	}
	_, in, compared := a.band.holds(version)
	switch {
	case !compared:
		return Verdict{State: StateUnknown, Reason: "the version " + short(version.text) + " cannot be compared with those of the record"}, true
	case in:
		return Verdict{State: StateAffected, Fixed: a.band.fix, Conditions: a.conditions}, true
	}
	return Verdict{State: StateClean}, true
}

// words says to a person where a vulnerable part must run.
func (n cpeNode) words() string {
	join, lead := " or ", "running on "
	if strings.EqualFold(n.Operator, "AND") {
		join = " and "
	}
	if n.Negate {
		lead = "not running on "
	}
	var parts []string
	for _, m := range n.Match {
		parts = append(parts, m.words())
	}
	return short(lead + strings.Join(parts, join))
}

func (m cpeMatch) words() string {
	n, ok := parseCPE(m.Criteria)
	if !ok {
		return m.Criteria
	}
	s := n.words()
	for _, b := range []struct{ sign, v string }{{" from ", m.StartIncluding}, {" above ", m.StartExcluding}, {" up to ", m.EndIncluding}, {" below ", m.EndExcluding}} {
		if b.v != "" {
			s += b.sign + b.v
		}
	}
	return s
}
