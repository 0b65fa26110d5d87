// SPDX-License-Identifier: AGPL-3.0-only

package advisory

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/package-url/packageurl-go"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/vuln"
	"github.com/openthings-platform/openthings/vuln/csaf"
	"github.com/openthings-platform/openthings/vuln/record"
)

// Release is what an advisory needs to know of a release.
type Release struct {
	ID, Version string
	Image       string    // digest of the image, "sha256:" and hexadecimal digits
	File        string    // name of the image
	Published   time.Time // zero: never
	Withdrawn   bool
}

// facts is everything that an advisory says without being written by a person.
type facts struct {
	product  product.Product
	vuln     vuln.Detail
	released []Release // by the time of publication
	statuses []ReleaseStatus
}

// statuses says of each published release what findings and decisions say. A release with an open finding is as its
// components are, the worst first: a decision counts before the finding, and a finding that nobody could compare is under
// investigation. One without an open finding is fixed if an affected one was published before it, else it never had the
// vulnerability.
func statuses(released []Release, found []vuln.ReleaseExposure) []ReleaseStatus {
	byRelease := map[string][]vuln.ReleaseExposure{}
	for _, f := range found {
		byRelease[f.Release] = append(byRelease[f.Release], f)
	}
	var out []ReleaseStatus
	had := false
	for _, r := range released {
		st := ReleaseStatus{Release: r.ID, Version: r.Version, Status: vuln.NotAffected, Justification: string(csaf.VulnerableCodeNotPresent)}
		rows := byRelease[r.ID]
		switch {
		case len(rows) > 0:
			had, st.Justification = true, ""
			for _, f := range rows {
				st.add(f)
			}
			slices.Sort(st.Components)
			st.Components = slices.Compact(st.Components)
		case had:
			st.Status, st.Justification = vuln.Fixed, ""
		}
		out = append(out, st)
	}
	return out
}

// worst orders statuses: what a release is if its components differ.
var worst = map[vuln.Status]int{vuln.DecidedAffected: 4, vuln.UnderInvestigation: 3, vuln.Fixed: 2, vuln.NotAffected: 1}

// add takes over what a finding and the decision about it say of one component.
func (st *ReleaseStatus) add(f vuln.ReleaseExposure) {
	status, why := vuln.UnderInvestigation, ""
	if f.State == record.StateAffected {
		status = vuln.DecidedAffected
	}
	if f.Decision != nil {
		status, why = f.Decision.Status, f.Decision.Justification
	}
	if len(st.Components) == 0 || worst[status] > worst[st.Status] {
		st.Status, st.Justification = status, why
	}
	st.Components = append(st.Components, strings.TrimSpace(cmp.Or(f.Name, f.Component)+" "+f.Has))
}

// of are the ids of the releases with the status.
func (f facts) of(status vuln.Status) (ids []string) {
	for _, r := range f.statuses {
		if r.Status == status {
			ids = append(ids, r.Release)
		}
	}
	return ids
}

// fix is the newest fixed release that is still offered.
func (f facts) fix() (Release, bool) {
	fixed := f.of(vuln.Fixed)
	for _, r := range slices.Backward(f.released) {
		if slices.Contains(fixed, r.ID) && !r.Withdrawn {
			return r, true
		}
	}
	return Release{}, false
}

var cveNumber = regexp.MustCompile(`^CVE-[0-9]{4}-[0-9]{4,}$`)

// document is the CSAF document of the next revision. It is the same for the same facts, words, history and instant.
func (f facts) document(a Advisory, p Publisher, now time.Time, change string) (*csaf.Document, error) {
	if len(f.of(vuln.DecidedAffected))+len(f.of(vuln.Fixed))+len(f.of(vuln.UnderInvestigation)) == 0 {
		return nil, problem.Conflict("No published release of the product has, or had, this vulnerability.").Hint("Nobody needs to be told.")
	}
	if a.Summary == "" {
		return nil, problem.Invalid("The summary is empty: users are told nothing.").At("summary")
	}
	initial := cmp.Or(a.Initial, now)
	v, err := f.vulnerability(a, initial)
	if err != nil {
		return nil, err
	}
	doc := &csaf.Document{
		Document: csaf.Meta{
			Acknowledgments: thanks(a.Acknowledgments),
			Category:        csaf.SecurityAdvisory,
			CSAFVersion:     csaf.Version,
			Distribution:    &csaf.Distribution{TLP: &csaf.TLP{Label: a.TLP, URL: "https://www.first.org/tlp/v1/"}},
			Lang:            a.Lang,
			Notes:           []csaf.Note{{Category: csaf.NoteSummary, Text: a.Summary, Title: "Summary"}},
			Publisher:       p.csaf(),
			References:      []csaf.Reference{{Category: csaf.ReferenceSelf, Summary: "This advisory in CSAF 2.0", URL: p.address(a, initial, "")}, {Category: csaf.ReferenceSelf, Summary: "This advisory as a page", URL: p.address(a, initial, ".html")}},
			Title:           a.Title,
			Tracking:        tracking(a, initial, now, change),
		},
		ProductTree:     f.tree(p),
		Vulnerabilities: []csaf.Vulnerability{v},
	}
	if len(v.Scores) > 0 {
		word := v.Scores[0].CVSS3.BaseSeverity
		doc.Document.AggregateSeverity = &csaf.Severity{Namespace: "https://www.first.org/cvss/", Text: word[:1] + strings.ToLower(word[1:])}
	}
	return doc, nil
}

func (p Publisher) csaf() csaf.Publisher {
	return csaf.Publisher{Category: csaf.PublisherVendor, ContactDetails: p.Contact, IssuingAuthority: p.Authority, Name: p.Name, Namespace: p.Namespace}
}

// tracking is the document's history with the next revision at its end.
func tracking(a Advisory, initial, now time.Time, change string) csaf.Tracking {
	t := csaf.Tracking{CurrentReleaseDate: now, ID: a.Tracking, InitialReleaseDate: initial, Status: csaf.Final,
		Generator: &csaf.Generator{Date: &now, Engine: csaf.Engine{Name: "OpenThings"}}}
	for _, r := range a.Revisions {
		t.RevisionHistory = append(t.RevisionHistory, csaf.Revision{Date: r.At, Number: strconv.FormatInt(r.Number, 10), Summary: r.Summary})
	}
	t.Version = strconv.FormatInt(a.Revision+1, 10)
	t.RevisionHistory = append(t.RevisionHistory, csaf.Revision{Date: now, Number: t.Version, Summary: change})
	return t
}

// tree names the releases below the product and the publisher.
func (f facts) tree(p Publisher) *csaf.ProductTree {
	var versions []csaf.Branch
	for _, r := range f.released {
		helper := &csaf.Helpers{ModelNumbers: []string{f.product.Model},
			PURL: packageurl.NewPackageURL("generic", strings.ToLower(p.Prefix), f.product.Model, r.Version, nil, "").ToString()}
		if algorithm, digest, ok := strings.Cut(r.Image, ":"); ok {
			helper.Hashes = []csaf.FileHashes{{Filename: cmp.Or(r.File, f.product.Model+"-"+r.Version), FileHashes: []csaf.FileHash{{Algorithm: algorithm, Value: digest}}}}
		}
		versions = append(versions, csaf.Branch{Category: csaf.BranchProductVersion, Name: r.Version,
			Product: &csaf.Product{Name: f.product.Name + " " + r.Version, ProductID: r.ID, Helper: helper}})
	}
	return &csaf.ProductTree{Branches: []csaf.Branch{{Category: csaf.BranchVendor, Name: p.Name,
		Branches: []csaf.Branch{{Category: csaf.BranchProductName, Name: f.product.Name, Branches: versions}}}}}
}

func (f facts) vulnerability(a Advisory, initial time.Time) (csaf.Vulnerability, error) {
	affected, open := f.of(vuln.DecidedAffected), f.of(vuln.UnderInvestigation)
	v := csaf.Vulnerability{
		Flags:         f.flags(),
		Notes:         []csaf.Note{{Category: csaf.NoteDescription, Text: cmp.Or(f.vuln.Summary, f.vuln.Name), Title: "The vulnerability"}},
		ProductStatus: &csaf.ProductStatus{Fixed: f.of(vuln.Fixed), KnownAffected: affected, KnownNotAffected: f.of(vuln.NotAffected), UnderInvestigation: open},
		References:    references(a.References, f.vuln.Links),
		ReleaseDate:   &initial,
		Remediations:  f.remediations(a, affected, open),
		Title:         a.Title,
	}
	if parts := f.components(); parts != "" {
		v.Notes = append(v.Notes, csaf.Note{Category: csaf.NoteDetails, Text: "It is in " + parts + ".", Title: "Components"})
	}
	for _, name := range f.names() {
		switch {
		case !cveNumber.MatchString(name):
			v.IDs = append(v.IDs, csaf.ID{SystemName: system(name), Text: name})
		case v.CVE == "":
			v.CVE = name
		default: // a second number has no place among the ids (test 6.2.17)
			v.References = append(v.References, csaf.Reference{Category: csaf.ReferenceExternal, Summary: name, URL: "https://www.cve.org/CVERecord?id=" + name})
		}
	}
	if fixed, ok := f.fix(); ok {
		v.ProductStatus.Recommended = []string{fixed.ID}
	}
	if f.vuln.Exploited && len(affected) > 0 {
		v.Threats = []csaf.Threat{{Category: csaf.ExploitStatus, Details: "Exploitation of this vulnerability is known.", ProductIDs: affected}}
	}
	if a.CWE != "" {
		w, err := csaf.Weakness(a.CWE)
		if err != nil {
			return v, err
		}
		v.CWE = w
	}
	if scored := slices.Concat(affected, open); a.CVSS != "" && len(scored) > 0 {
		score, err := csaf.Score3(a.CVSS)
		if err != nil {
			return v, err
		}
		v.Scores = []csaf.Score{{CVSS3: score, Products: scored}}
	}
	return v, nil
}

// names are all names of the vulnerability, that of the group first.
func (f facts) names() []string {
	out := []string{f.vuln.Name}
	for _, n := range f.vuln.Names {
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// system is who gives names like this.
func system(name string) string {
	switch prefix, _, _ := strings.Cut(name, "-"); prefix {
	case "GHSA":
		return "GitHub Advisory Database"
	case "GO":
		return "Go Vulnerability Database"
	case "EUVD":
		return "European Vulnerability Database"
	default:
		return "OSV"
	}
}

// components are the parts that have the vulnerability, over all releases.
func (f facts) components() string {
	var parts []string
	for _, r := range f.statuses {
		if r.Status == vuln.DecidedAffected {
			parts = append(parts, r.Components...)
		}
	}
	slices.Sort(parts)
	return strings.Join(slices.Compact(parts), ", ")
}

// flags say why releases are not affected.
func (f facts) flags() (out []csaf.Flag) {
	for _, why := range vuln.Justifications {
		var ids []string
		for _, r := range f.statuses {
			if r.Status == vuln.NotAffected && r.Justification == why {
				ids = append(ids, r.Release)
			}
		}
		if len(ids) > 0 {
			out = append(out, csaf.Flag{Label: csaf.FlagLabel(why), ProductIDs: ids})
		}
	}
	return out
}

// remediations say what to do with every release that is affected or may be.
func (f facts) remediations(a Advisory, affected, open []string) (out []csaf.Remediation) {
	fixed, isFixed := f.fix()
	switch {
	case len(affected) == 0:
	case isFixed:
		out = append(out, csaf.Remediation{Category: csaf.VendorFix, Date: &fixed.Published, Details: fmt.Sprintf("Update to %s %s or later.", f.product.Name, fixed.Version), ProductIDs: affected})
	case a.Action == "":
		out = append(out, csaf.Remediation{Category: csaf.NoneAvailable, Details: "No fixed release is available yet.", ProductIDs: affected})
	}
	if a.Action != "" && len(affected)+len(open) > 0 {
		out = append(out, csaf.Remediation{Category: csaf.Mitigation, Details: a.Action, ProductIDs: slices.Concat(affected, open)})
	} else if len(open) > 0 {
		out = append(out, csaf.Remediation{Category: csaf.NoneAvailable, Details: "Whether these releases are affected is being investigated.", ProductIDs: open})
	}
	return out
}

// references are what the author names and what the records name, each address once.
func references(named []Link, found []string) (out []csaf.Reference) {
	seen := map[string]bool{}
	add := func(summary, address string) {
		if len(out) < maxLinks && !seen[address] && webAddress(address) {
			seen[address] = true
			out = append(out, csaf.Reference{Category: csaf.ReferenceExternal, Summary: summary, URL: address})
		}
	}
	for _, l := range named {
		add(l.Summary, l.URL)
	}
	for _, address := range found {
		add(address, address)
	}
	return out
}

func thanks(in []Thanks) (out []csaf.Acknowledgment) {
	for _, t := range in {
		out = append(out, csaf.Acknowledgment{Names: t.Names, Organization: t.Organization, Summary: t.Summary})
	}
	return out
}
