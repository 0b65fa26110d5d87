// SPDX-License-Identifier: AGPL-3.0-only

package vex

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/vuln/csaf"
)

// Texts for what CSAF requires and nobody said. They are not taken over when read.
const (
	noSummary = "No description of the vulnerability was given."
	noDetail  = "No details were given."
)

// refNamespace is the namespace of x_generic_uris in which Ref.ID stands.
const refNamespace = "urn:openthings:ref"

// cveNumber is what CSAF takes for one; any other name is an id.
var cveNumber = regexp.MustCompile(`^CVE-[0-9]{4}-[0-9]{4,}$`)

// parseCSAF reads any CSAF document for what it says of products; advisories speak as well as VEX.
func parseCSAF(b []byte) (Document, error) {
	in, err := csaf.Parse(b)
	if err != nil {
		return Document{}, err
	}
	d := Document{Format: CSAF, ID: in.Document.Tracking.ID, Version: in.Document.Tracking.Version, Author: in.Document.Publisher.Name,
		At: in.Document.Tracking.CurrentReleaseDate.UTC()}
	r := csafReader{doc: &d, products: productsOf(in.ProductTree), groups: map[string][]string{}, budget: 10 * maxPairs}
	if in.ProductTree != nil {
		for _, g := range in.ProductTree.ProductGroups {
			r.groups[g.GroupID] = g.ProductIDs
		}
	}
	for i := range in.Vulnerabilities {
		r.read(&in.Vulnerabilities[i])
		if r.budget < 0 {
			return Document{}, problem.TooLarge("The document speaks of products and components too often.")
		}
	}
	if len(d.Statements) == 0 {
		return Document{}, problem.Invalid("The CSAF document states nothing of a product.")
	}
	return d, nil
}

// productsOf finds what each product id stands for. A relationship is a component (product_reference) as part of a product.
func productsOf(t *csaf.ProductTree) map[string]part {
	out := map[string]part{}
	t.Products(func(p csaf.Product, path csaf.Path) { out[p.ProductID] = part{it: refOfCSAF(p, path)} })
	if t == nil {
		return out
	}
	alone := maps.Clone(out)
	for _, r := range t.Relationships {
		component, product := alone[r.ProductReference].it, alone[r.RelatesTo].it
		if !component.empty() && !product.empty() {
			out[r.Product.ProductID] = part{it: component, of: product}
		}
	}
	return out
}

func refOfCSAF(p csaf.Product, path csaf.Path) Ref {
	r := Ref{Name: p.Name, Version: path.Name(csaf.BranchProductVersion), Range: path.Name(csaf.BranchProductVersionRange)}
	if h := p.Helper; h != nil {
		r.PURL, r.CPE = h.PURL, h.CPE
		for _, file := range h.Hashes {
			for _, f := range file.FileHashes {
				if strings.EqualFold(f.Algorithm, "sha256") {
					r.Digest = "sha256:" + f.Value
				}
			}
		}
		for _, u := range h.GenericURIs {
			if u.Namespace == refNamespace {
				r.ID = u.URI
			}
		}
	}
	if r.ID+r.PURL+r.CPE+r.Digest == "" {
		r.ID = p.ProductID
	}
	return r.tidy()
}

// csafReader reads the vulnerabilities of one document.
type csafReader struct {
	doc      *Document
	products map[string]part
	groups   map[string][]string
	budget   int // how many more product ids may be visited: groups may repeat endlessly
}

// each visits the products of ids and of the members of groups.
func (r *csafReader) each(ids, groups []string, fn func(id string)) {
	for _, list := range append([]string{""}, groups...) {
		if list != "" {
			ids = r.groups[list]
		}
		for _, id := range ids {
			if r.budget--; r.budget < 0 {
				return
			}
			fn(id)
		}
	}
}

func (r *csafReader) read(v *csaf.Vulnerability) {
	s := Statement{Idents: []string{v.CVE}}
	for _, id := range v.IDs {
		s.Idents = append(s.Idents, id.Text)
	}
	for _, n := range v.Notes {
		if (n.Category == csaf.NoteDescription || n.Category == csaf.NoteSummary) && n.Text != noSummary && s.Summary == "" {
			s.Summary = n.Text
		}
	}
	if v.ProductStatus == nil {
		r.doc.unread("%s: nothing is said of a product.", cmp.Or(v.CVE, v.Title, "A vulnerability"))
		return
	}
	said := map[string]*Statement{}
	for _, group := range []struct {
		status Status
		ids    []string
	}{
		{Fixed, v.ProductStatus.AllFixed()}, {UnderInvestigation, v.ProductStatus.UnderInvestigation},
		{NotAffected, v.ProductStatus.KnownNotAffected}, {Affected, v.ProductStatus.Affected()}, // the last one counts: the least comfortable
	} {
		r.each(group.ids, nil, func(id string) {
			one := s
			one.Status = group.status
			said[id] = &one
		})
	}
	if len(v.ProductStatus.Recommended) > 0 {
		r.doc.unread("Recommended products are not read: they say nothing of the vulnerability.")
	}
	r.explain(v, said)
	for id, one := range said {
		about, ok := r.products[id]
		if !ok {
			about = part{it: Ref{ID: id}}
		}
		one.Products = []Product{about.product()}
		r.doc.Statements = append(r.doc.Statements, *one)
	}
}

// explain adds why and what to do, product by product.
func (r *csafReader) explain(v *csaf.Vulnerability, said map[string]*Statement) {
	on := func(products, groups []string, at *time.Time, fn func(*Statement)) {
		r.each(products, groups, func(id string) {
			s := said[id]
			if s == nil {
				return
			}
			if at != nil && at.After(s.At) {
				s.At = at.UTC()
			}
			fn(s)
		})
	}
	for _, f := range v.Flags {
		on(f.ProductIDs, f.GroupIDs, f.Date, func(s *Statement) {
			if s.Status == NotAffected {
				s.Justification = Justification(f.Label)
			}
		})
	}
	for _, t := range v.Threats {
		if t.Category != csaf.Impact {
			continue
		}
		on(t.ProductIDs, t.GroupIDs, t.Date, func(s *Statement) {
			if t.Details != noDetail && len(s.Detail) <= maxText {
				s.Detail = paragraphs(s.Detail, t.Details)
			}
		})
	}
	for _, x := range v.Remediations {
		on(x.ProductIDs, x.GroupIDs, x.Date, func(s *Statement) {
			if x.Details != noAction && len(s.Action) <= maxText {
				s.Action = paragraphs(s.Action, x.Details, x.URL)
			}
		})
	}
}

// writeCSAF writes the VEX profile of CSAF 2.0. csaf.Write refuses what fails a mandatory test.
func writeCSAF(d Document) ([]byte, error) {
	history := d.Revisions
	if len(history) == 0 {
		history = []Revision{{d.At, "First issue."}}
	}
	if strconv.Itoa(len(history)) != d.Version {
		return nil, problem.Invalid("A CSAF document of version %s has as many revisions, not %d.", d.Version, len(history))
	}
	out := csaf.Document{Document: csaf.Meta{
		Category: csaf.VEX, CSAFVersion: csaf.Version, Lang: "en", Title: cmp.Or(d.Title, d.Author),
		Distribution: &csaf.Distribution{TLP: &csaf.TLP{Label: csaf.TLPWhite}},
		Publisher:    csaf.Publisher{Category: csaf.PublisherVendor, Name: d.Author, Namespace: d.Namespace},
		Tracking:     csaf.Tracking{ID: d.ID, Status: csaf.Final, Version: d.Version, InitialReleaseDate: history[0].At.UTC(), CurrentReleaseDate: d.At.UTC()},
	}}
	for i, r := range history {
		out.Document.Tracking.RevisionHistory = append(out.Document.Tracking.RevisionHistory, csaf.Revision{Date: r.At.UTC(), Number: strconv.Itoa(i + 1), Summary: r.Summary})
	}
	w := csafWriter{tree: &csaf.ProductTree{}, ids: map[part]string{}}
	for rest := d.Statements; len(rest) > 0; {
		// A CVE number stands in one vulnerability only (test 6.1.23), and Normal puts its statements side by side.
		n := 1
		for n < len(rest) && rest[n].Idents[0] == rest[0].Idents[0] {
			n++
		}
		out.Vulnerabilities = append(out.Vulnerabilities, w.vulnerability(rest[:n]))
		rest = rest[n:]
	}
	out.ProductTree = w.tree
	return csaf.Write(&out)
}

// csafWriter collects the product tree while statements are written.
type csafWriter struct {
	tree *csaf.ProductTree
	ids  map[part]string
}

// id is what the tree calls a part.
func (w *csafWriter) id(p part) string {
	if id, ok := w.ids[p]; ok {
		return id
	}
	id := "p" + strconv.Itoa(len(w.ids)+1)
	w.ids[p] = id
	if p.of.empty() {
		w.tree.FullProductNames = append(w.tree.FullProductNames, csaf.Product{Name: title(p.it), ProductID: id, Helper: helperOf(p.it)})
		return id
	}
	component, product := w.id(part{it: p.it}), w.id(part{it: p.of})
	w.tree.Relationships = append(w.tree.Relationships, csaf.Relationship{Category: csaf.DefaultComponentOf, ProductReference: component, RelatesTo: product,
		Product: csaf.Product{Name: title(p.it) + " in " + title(p.of), ProductID: id, Helper: helperOf(p.it)}})
	return id
}

func title(r Ref) string {
	name, version := r.Label()
	return strings.TrimSpace(name + " " + version)
}

func helperOf(r Ref) *csaf.Helpers {
	h := &csaf.Helpers{PURL: r.PURL, CPE: r.CPE}
	if hex, ok := strings.CutPrefix(r.Digest, "sha256:"); ok {
		h.Hashes = []csaf.FileHashes{{Filename: title(r), FileHashes: []csaf.FileHash{{Algorithm: "sha256", Value: hex}}}}
	}
	if r.ID != "" {
		h.GenericURIs = []csaf.GenericURIs{{Namespace: refNamespace, URI: r.ID}}
	}
	return h
}

// vulnerability joins the statements on one vulnerability.
func (w *csafWriter) vulnerability(about []Statement) csaf.Vulnerability {
	v := csaf.Vulnerability{ProductStatus: &csaf.ProductStatus{}}
	summary, idents := "", []string(nil)
	for _, s := range about {
		idents, summary = append(idents, s.Idents...), cmp.Or(summary, s.Summary)
	}
	for i, id := range names(idents) {
		if i == 0 && cveNumber.MatchString(id) {
			v.CVE = id
			continue
		}
		v.IDs = append(v.IDs, csaf.ID{SystemName: sourceOf(id).Name, Text: id})
	}
	v.Notes = []csaf.Note{{Category: csaf.NoteDescription, Text: cmp.Or(summary, noSummary), Title: "Vulnerability"}}
	for _, s := range about {
		var ids []string
		for _, p := range s.Products {
			if len(p.Components) == 0 {
				ids = append(ids, w.id(part{it: p.Ref}))
			}
			for _, c := range p.Components {
				ids = append(ids, w.id(part{c, p.Ref}))
			}
		}
		at := s.At
		list := map[Status]*[]string{UnderInvestigation: &v.ProductStatus.UnderInvestigation, Affected: &v.ProductStatus.KnownAffected,
			NotAffected: &v.ProductStatus.KnownNotAffected, Fixed: &v.ProductStatus.Fixed}[s.Status]
		*list = append(*list, ids...)
		if s.Justification != "" {
			v.Flags = append(v.Flags, csaf.Flag{Date: &at, Label: csaf.FlagLabel(s.Justification), ProductIDs: slices.Clone(ids)})
		}
		v.Threats = append(v.Threats, csaf.Threat{Category: csaf.Impact, Date: &at, Details: cmp.Or(s.Detail, noDetail), ProductIDs: slices.Clone(ids)})
		if s.Status == Affected || s.Status == UnderInvestigation || s.Action != "" {
			category := csaf.Mitigation
			if s.Action == "" {
				category = csaf.NoneAvailable
			}
			v.Remediations = append(v.Remediations, csaf.Remediation{Category: category, Date: &at, Details: cmp.Or(s.Action, noAction), ProductIDs: slices.Clone(ids)})
		}
	}
	return v
}
