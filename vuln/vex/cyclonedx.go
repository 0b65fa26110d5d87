// SPDX-License-Identifier: AGPL-3.0-only

package vex

import (
	"bytes"
	"net/url"
	"slices"
	"strconv"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/package-url/packageurl-go"

	"github.com/openthings-platform/openthings/problem"
)

// Properties by which we say what CycloneDX has no member for.
const (
	propertyID            = "openthings:id"
	propertyJustification = "openthings:vex:justification"
)

// states are what the analysis states mean. false_positive and resolved_with_pedigree say more than their statuses: they
// are kept as Foreign.State.
var states = map[cdx.ImpactAnalysisState]Status{
	cdx.IASInTriage: UnderInvestigation, cdx.IASExploitable: Affected, cdx.IASNotAffected: NotAffected, cdx.IASFalsePositive: NotAffected,
	cdx.IASResolved: Fixed, cdx.IASResolvedWithPedigree: Fixed,
}

var stateOf = map[Status]cdx.ImpactAnalysisState{
	UnderInvestigation: cdx.IASInTriage, Affected: cdx.IASExploitable, NotAffected: cdx.IASNotAffected, Fixed: cdx.IASResolved,
}

// equals are the justifications that say the same in both vocabularies. The other seven of CycloneDX are weaker or other
// than the five of VEX ("blocked at the network perimeter" is no mitigation inside the product) and are kept as Foreign.
var equals = map[cdx.ImpactAnalysisJustification]Justification{
	cdx.IAJCodeNotPresent: CodeNotPresent, cdx.IAJCodeNotReachable: CodeNotInPath,
}

// weaker is what may truthfully be written for the five: the same or less. NotControllable has no such word. Where it is
// less, propertyJustification holds the exact one.
var weaker = map[Justification]cdx.ImpactAnalysisJustification{
	ComponentNotPresent: cdx.IAJCodeNotPresent, CodeNotPresent: cdx.IAJCodeNotPresent, CodeNotInPath: cdx.IAJCodeNotReachable,
	InlineMitigations: cdx.IAJProtectedByMitigatingControl,
}

func parseCycloneDX(b []byte) (Document, error) {
	var bom cdx.BOM
	format := cdx.BOMFileFormatJSON
	if bytes.HasPrefix(b, []byte("<")) {
		format = cdx.BOMFileFormatXML
	}
	if err := cdx.NewBOMDecoder(bytes.NewReader(b), format).Decode(&bom); err != nil {
		return Document{}, problem.Invalid("The CycloneDX document cannot be read: %v", err)
	}
	if bom.SpecVersion < cdx.SpecVersion1_4 {
		return Document{}, problem.Invalid("This is not a CycloneDX document of version 1.4 to 1.7; older ones know no vulnerabilities.")
	}
	d := Document{Format: CycloneDX, ID: bom.SerialNumber, Version: strconv.Itoa(bom.Version)}
	if m := bom.Metadata; m != nil {
		d.At, d.Author = readTime(m.Timestamp), authorOf(m)
	}
	parts := partsOf(&bom)
	silent := 0
	for i := range deref(bom.Vulnerabilities) {
		v := &(*bom.Vulnerabilities)[i]
		if v.Analysis == nil || v.Analysis.State == "" {
			silent++
			continue
		}
		if err := d.addCycloneDX(v, parts); err != nil {
			return Document{}, err
		}
	}
	if silent > 0 {
		d.unread("%d vulnerabilities are listed without an analysis, which states nothing.", silent)
	}
	if len(d.Statements) == 0 {
		return Document{}, problem.Invalid("The CycloneDX document analyses no vulnerability.").Hint("a bill of materials is uploaded with its release")
	}
	return d, nil
}

func authorOf(m *cdx.Metadata) string {
	for _, a := range deref(m.Authors) {
		if s := paragraphs(a.Name, a.Email); s != "" {
			return strings.ReplaceAll(s, "\n\n", " ")
		}
	}
	for _, o := range []*cdx.OrganizationalEntity{m.Manufacturer, m.Manufacture, m.Supplier} { //nolint:staticcheck // the form up to 1.5
		if o != nil && o.Name != "" {
			return o.Name
		}
	}
	return ""
}

// addCycloneDX reads one analysed vulnerability.
func (d *Document) addCycloneDX(v *cdx.Vulnerability, parts map[string]part) error {
	a := v.Analysis
	status, ok := states[a.State]
	if !ok {
		return problem.Invalid("%.40q is not an analysis state of CycloneDX.", a.State)
	}
	s := Statement{Idents: []string{v.ID}, Summary: v.Description, Status: status, Detail: a.Detail, Action: v.Recommendation, At: readTime(a.LastUpdated)}
	if s.At.IsZero() {
		s.At = readTime(a.FirstIssued)
	}
	for _, r := range deref(v.References) {
		s.Idents = append(s.Idents, r.ID)
	}
	if a.State != stateOf[status] {
		s.Foreign.State = string(a.State)
	}
	for _, r := range deref(a.Response) {
		s.Foreign.Responses = append(s.Foreign.Responses, string(r))
	}
	exact, stated := property(v.Properties, propertyJustification)
	switch {
	case stated:
		s.Justification = Justification(exact)
	case a.Justification != "":
		if s.Justification, ok = equals[a.Justification]; !ok {
			s.Foreign.Justification = string(a.Justification)
		}
	}
	affects := deref(v.Affects)
	if len(affects) == 0 { // permitted, and then the document is about its subject
		if whole, ok := parts[""]; ok {
			s.Products = []Product{whole.product()}
			d.Statements = append(d.Statements, s)
			return nil
		}
		return problem.Invalid("The statement on %.80s names no product.", v.ID)
	}
	for _, at := range affects {
		about := resolve(parts, at.Ref)
		if len(deref(at.Range)) == 0 {
			out := s
			out.Products = []Product{about.product()}
			d.Statements = append(d.Statements, out)
		}
		for _, r := range deref(at.Range) {
			one := about
			one.setVersion(r)
			out := d.ofVersion(s, r.Status)
			out.Products = []Product{one.product()}
			d.Statements = append(d.Statements, out)
		}
		if len(d.Statements) > maxPairs {
			return problem.TooLarge("The document speaks of products and components more than %d times.", maxPairs)
		}
	}
	return nil
}

// ofVersion is the statement for a version that has a status of its own. Where the two contradict each other, what is
// less comfortable counts. "affected" is what the schema takes for granted where nothing is written, so it contradicts
// nothing but not_affected, and there only if it was written.
func (d *Document) ofVersion(s Statement, version cdx.VulnerabilityStatus) Statement {
	was := s.Status
	switch {
	case version == cdx.VulnerabilityStatusAffected && was == NotAffected:
		s.Status = Affected
	case version == cdx.VulnerabilityStatusNotAffected && was != NotAffected && was != Fixed:
		s.Status = NotAffected
	case version == cdx.VulnerabilityStatusUnknown && was != Affected:
		s.Status = UnderInvestigation
	default:
		return s
	}
	d.unread("%s: a version is listed as %s under the state %s; it is read as %s.", s.Idents[0], version, was, s.Status)
	s.Justification, s.Foreign = "", Foreign{}
	return s
}

// part is an element of a bill within what it is a part of; the product itself has no of.
type part struct{ it, of Ref }

func (p part) product() Product {
	if p.of.empty() {
		return Product{Ref: p.it}
	}
	return Product{p.of, []Ref{p.it}}
}

func (p *part) setVersion(v cdx.AffectedVersions) {
	p.it.Version, p.it.Range = v.Version, v.Range
	if p.it.PURL == "" {
		return
	}
	if at, err := packageurl.FromString(p.it.PURL); err == nil && v.Version != "" {
		at.Version = v.Version
		p.it.PURL, p.it.Version = at.ToString(), ""
	}
}

// partsOf finds every element that a statement may refer to. The subject of the document is the product and stands under
// "" as well; in a document without one the outermost component is.
func partsOf(bom *cdx.BOM) map[string]part {
	out := map[string]part{}
	var walk func(list *[]cdx.Component, of Ref)
	walk = func(list *[]cdx.Component, of Ref) {
		for i := range deref(list) {
			c := &(*list)[i]
			it := refOf(c)
			out[c.BOMRef] = part{it, of}
			if of.empty() {
				walk(c.Components, it)
			} else {
				walk(c.Components, of)
			}
		}
	}
	m := bom.Metadata
	if m == nil || m.Component == nil {
		walk(bom.Components, Ref{})
		delete(out, "") // of an element without a name
		return out
	}
	product := refOf(m.Component)
	walk(m.Component.Components, product)
	walk(bom.Components, product)
	out[m.Component.BOMRef], out[""] = part{it: product}, part{it: product}
	return out
}

func refOf(c *cdx.Component) Ref {
	r := Ref{PURL: c.PackageURL, CPE: c.CPE, Name: c.Name, Version: c.Version}
	if c.Group != "" && r.PURL == "" {
		r.Name = c.Group + "/" + c.Name
	}
	for _, h := range deref(c.Hashes) {
		if h.Algorithm == cdx.HashAlgoSHA256 {
			r.Digest = "sha256:" + h.Value
		}
	}
	if id, ok := property(c.Properties, propertyID); ok {
		r.ID = id
	} else if r.PURL+r.CPE+r.Digest == "" {
		r.ID = c.BOMRef
	}
	return r.tidy()
}

// resolve finds what a reference names: an element of this document, or of another bill ("urn:cdx:SERIAL/VERSION#REF").
// That bill is then the product, and the element a part of it where it is a package.
func resolve(parts map[string]part, ref string) part {
	if p, ok := parts[ref]; ok {
		return p
	}
	product := parts[""].it
	if strings.HasPrefix(ref, "urn:cdx:") {
		bill, element, deep := strings.Cut(ref, "#")
		if purl, err := url.PathUnescape(element); deep && err == nil && strings.HasPrefix(purl, "pkg:") {
			return part{it: Ref{PURL: purl}, of: Ref{ID: bill}}
		}
		return part{it: Ref{ID: ref}}
	}
	if strings.HasPrefix(ref, "pkg:") {
		return part{it: Ref{PURL: ref}, of: product}
	}
	return part{it: Ref{ID: ref}, of: product}
}

func property(list *[]cdx.Property, name string) (string, bool) {
	for _, p := range deref(list) {
		if p.Name == name {
			return p.Value, true
		}
	}
	return "", false
}

func deref[T any](p *[]T) []T {
	if p == nil {
		return nil
	}
	return *p
}

// writeCycloneDX writes version 1.6. One product is the subject of the document; several are its components, each with
// the parts that are spoken of inside.
func writeCycloneDX(d Document) ([]byte, error) {
	bom := cdx.NewBOM()
	bom.SpecVersion, bom.JSONSchema = cdx.SpecVersion1_6, "http://cyclonedx.org/schema/bom-1.6.schema.json"
	bom.Version, _ = strconv.Atoi(d.Version) // checked by writable
	bom.Metadata = &cdx.Metadata{Timestamp: writeTime(d.At), Authors: &[]cdx.OrganizationalContact{{Name: d.Author}}}
	if strings.HasPrefix(d.ID, "urn:uuid:") {
		bom.SerialNumber = d.ID
	}
	products := map[Ref]map[Ref]string{} // product -> part -> its bom-ref; the product itself is the part {}
	var order []Ref
	for _, s := range d.Statements {
		for _, p := range s.Products {
			known := products[p.Ref]
			if known == nil {
				order = append(order, p.Ref)
				known = map[Ref]string{{}: "product-" + strconv.Itoa(len(order))}
				products[p.Ref] = known
			}
			for _, c := range p.Components {
				if known[c] == "" {
					known[c] = known[Ref{}] + "-part-" + strconv.Itoa(len(known))
				}
			}
		}
	}
	var tree []cdx.Component
	for _, r := range order {
		tree = append(tree, componentOf(r, cdx.ComponentTypeFirmware, products[r][Ref{}]))
		var parts []cdx.Component
		for c, id := range products[r] {
			if c != (Ref{}) {
				parts = append(parts, componentOf(c, cdx.ComponentTypeLibrary, id))
			}
		}
		if len(parts) > 0 {
			slices.SortFunc(parts, func(a, b cdx.Component) int { return strings.Compare(a.BOMRef, b.BOMRef) })
			tree[len(tree)-1].Components = &parts
		}
	}
	if len(tree) == 1 {
		bom.Metadata.Component, bom.Components = &tree[0], tree[0].Components
		tree[0].Components = nil
	} else {
		bom.Components = &tree
	}
	var vulnerabilities []cdx.Vulnerability
	for _, s := range d.Statements {
		v := cycloneDXOf(s)
		var affects []cdx.Affects
		for _, p := range s.Products {
			parts := p.Components
			if len(parts) == 0 {
				parts = []Ref{{}}
			}
			for _, c := range parts {
				at := cdx.Affects{Ref: products[p.Ref][c]}
				about := c
				if c == (Ref{}) {
					about = p.Ref
				}
				if about.Range != "" {
					at.Range = &[]cdx.AffectedVersions{{Range: about.Range, Status: versionStatus(s.Status)}}
				}
				affects = append(affects, at)
			}
		}
		v.Affects = &affects
		vulnerabilities = append(vulnerabilities, v)
	}
	bom.Vulnerabilities = &vulnerabilities
	var b bytes.Buffer
	err := cdx.NewBOMEncoder(&b, cdx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false).Encode(bom)
	return b.Bytes(), err
}

// versionStatus is what a listed range is in the light of the statement.
func versionStatus(s Status) cdx.VulnerabilityStatus {
	switch s {
	case NotAffected, Fixed:
		return cdx.VulnerabilityStatusNotAffected
	case UnderInvestigation:
		return cdx.VulnerabilityStatusUnknown
	}
	return cdx.VulnerabilityStatusAffected
}

func cycloneDXOf(s Statement) cdx.Vulnerability {
	a := &cdx.VulnerabilityAnalysis{State: stateOf[s.Status], Detail: s.Detail, LastUpdated: writeTime(s.At),
		Justification: cdx.ImpactAnalysisJustification(s.Foreign.Justification)}
	v := cdx.Vulnerability{ID: s.Idents[0], Source: sourceOf(s.Idents[0]), Description: s.Summary, Recommendation: s.Action, Analysis: a}
	if foreign := cdx.ImpactAnalysisState(s.Foreign.State); states[foreign] == s.Status {
		a.State = foreign
	}
	if s.Justification != "" {
		a.Justification = weaker[s.Justification]
		if equals[a.Justification] != s.Justification {
			v.Properties = &[]cdx.Property{{Name: propertyJustification, Value: string(s.Justification)}}
		}
	}
	if len(s.Foreign.Responses) > 0 {
		var responses []cdx.ImpactAnalysisResponse
		for _, r := range s.Foreign.Responses {
			responses = append(responses, cdx.ImpactAnalysisResponse(r))
		}
		a.Response = &responses
	}
	if len(s.Idents) > 1 {
		var references []cdx.VulnerabilityReference
		for _, id := range s.Idents[1:] {
			references = append(references, cdx.VulnerabilityReference{ID: id, Source: sourceOf(id)})
		}
		v.References = &references
	}
	return v
}

// sourceOf names who gave the vulnerability its name, as far as the name itself tells.
func sourceOf(ident string) *cdx.Source {
	prefix, _, _ := strings.Cut(ident, "-")
	return &cdx.Source{Name: prefix}
}

func componentOf(r Ref, kind cdx.ComponentType, bomRef string) cdx.Component {
	c := cdx.Component{BOMRef: bomRef, Type: kind, PackageURL: r.PURL, CPE: r.CPE}
	c.Name, c.Version = r.Label()
	if hex, ok := strings.CutPrefix(r.Digest, "sha256:"); ok {
		c.Hashes = &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex}}
	}
	if r.ID != "" {
		c.Properties = &[]cdx.Property{{Name: propertyID, Value: r.ID}}
	}
	return c
}
