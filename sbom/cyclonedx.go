// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"bytes"
	"cmp"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"github.com/openthings-platform/openthings/problem"
)

func parseCycloneDXJSON(doc []byte) (Bill, error) {
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(bytes.NewReader(doc), cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		return Bill{}, problem.Invalid("the CycloneDX document cannot be read: %v", err)
	}
	return fromCycloneDX(&bom)
}

func parseCycloneDXXML(doc []byte) (Bill, error) {
	if err := boundXML(doc); err != nil {
		return Bill{}, err
	}
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(bytes.NewReader(doc), cdx.BOMFileFormatXML).Decode(&bom); err != nil {
		return Bill{}, problem.Invalid("the CycloneDX document cannot be read: %v", err)
	}
	if !strings.HasPrefix(bom.XMLNS, "http://cyclonedx.org/schema/bom/") {
		return Bill{}, notABill()
	}
	return fromCycloneDX(&bom)
}

func fromCycloneDX(bom *cdx.BOM) (Bill, error) {
	if bom.SpecVersion == 0 {
		return Bill{}, problem.Invalid("the CycloneDX document states no version that is known (1.0 to 1.7)")
	}
	b := Bill{Format: CycloneDX, SpecVersion: bom.SpecVersion.String(), URI: bom.SerialNumber}
	if m := bom.Metadata; m != nil {
		b.Created = dated(m.Timestamp)
		b.cdxCreators(m)
		for _, p := range deref(m.Properties) {
			if p.Name == propertyReduced {
				b.Reduced = p.Value
			}
		}
		if c := m.Component; c != nil {
			root := component(c)
			b.Name, b.Version = c.Name, c.Version
			b.addHashes(root.Hashes)
			// syft describes a file by "sha256:…" in place of a version: a digest, not a package.
			b.addDigest(c.Version)
			if c.Type == cdx.ComponentTypeFile {
				b.Files = append(b.Files, root)
			} else {
				b.Root = &root
			}
			if err := b.addComponents(c.Components, c.BOMRef); err != nil {
				return Bill{}, err
			}
		}
	}
	if err := b.addComponents(bom.Components, ""); err != nil {
		return Bill{}, err
	}
	for _, d := range deref(bom.Dependencies) {
		for _, to := range deref(d.Dependencies) {
			if err := b.relate(d.Ref, DependsOn, to); err != nil {
				return Bill{}, err
			}
		}
	}
	for _, c := range deref(bom.Compositions) {
		if c.Assemblies != nil || c.Dependencies != nil || b.Complete == "" {
			b.say(string(c.Aggregate))
		}
	}
	b.Vulnerabilities = len(deref(bom.Vulnerabilities))
	return b, nil
}

// say keeps the weakest statement about completeness.
func (b *Bill) say(aggregate string) {
	rank := map[string]int{"": 0, "complete": 1, "incomplete": 2, "unknown": 3}
	aggregate, _, _ = strings.Cut(aggregate, "_")
	if aggregate == "not" { // "not_specified"
		aggregate = ""
	}
	if rank[aggregate] > rank[b.Complete] {
		b.Complete = aggregate
	}
}

func (b *Bill) cdxCreators(m *cdx.Metadata) {
	person := func(kind, name, contact string) {
		if name = kind + ": " + name; contact != "" {
			name += " (" + contact + ")"
		}
		b.Creators = append(b.Creators, name)
		b.CreatorContact = cmp.Or(b.CreatorContact, contact)
	}
	if m.Tools != nil {
		for _, t := range deref(m.Tools.Tools) { //nolint:staticcheck // the form up to 1.4
			b.Creators = append(b.Creators, strings.TrimSpace("Tool: "+t.Name+" "+t.Version))
		}
		for _, t := range deref(m.Tools.Components) {
			b.Creators = append(b.Creators, strings.TrimSpace("Tool: "+t.Name+" "+t.Version))
		}
	}
	for _, a := range deref(m.Authors) {
		person("Person", a.Name, a.Email)
	}
	for _, org := range []*cdx.OrganizationalEntity{m.Manufacturer, m.Manufacture, m.Supplier} { //nolint:staticcheck // the form up to 1.5
		if s := entity(org); s.Name != "" || s.Contact != "" {
			person("Organization", s.Name, s.Contact)
		}
	}
}

// relate keeps a relation between parts of the document.
func (b *Bill) relate(from string, kind RelationKind, to string) error {
	if from == "" || to == "" || len(from) > maxIdentity || len(to) > maxIdentity {
		return nil
	}
	if len(b.Relations) == MaxRelations {
		return problem.TooLarge("the SBOM states more than %d relations", MaxRelations)
	}
	b.Relations = append(b.Relations, Relation{from, kind, to})
	return nil
}

// addComponents flattens the tree; its depth was bounded before.
func (b *Bill) addComponents(list *[]cdx.Component, parent string) error {
	for i := range deref(list) {
		c := &(*list)[i]
		part := component(c)
		if c.Type == cdx.ComponentTypeFile {
			b.addHashes(part.Hashes)
			b.Files = append(b.Files, part)
		} else {
			b.Components = append(b.Components, part)
		}
		if len(b.Components)+len(b.Files) > MaxComponents {
			return problem.TooLarge("the SBOM lists more than %d components", MaxComponents)
		}
		if err := b.relate(parent, Contains, part.Ref); err != nil {
			return err
		}
		if err := b.addComponents(c.Components, c.BOMRef); err != nil {
			return err
		}
	}
	return nil
}

func component(c *cdx.Component) Component {
	out := Component{Ref: c.BOMRef, Group: c.Group, Name: c.Name, Version: c.Version, PURL: c.PackageURL, CPE: c.CPE, Type: string(c.Type), Scope: string(c.Scope)}
	if c.Group != "" && c.PackageURL == "" {
		out.Name, out.Group = c.Group+"/"+c.Name, ""
	}
	for _, s := range []Supplier{entity(c.Supplier), entity(c.Manufacturer), contact(deref(c.Authors)), written(c.Publisher), written(c.Author)} { //nolint:staticcheck // the form up to 1.5
		out.Supplier.Name, out.Supplier.Contact = cmp.Or(out.Supplier.Name, s.Name), cmp.Or(out.Supplier.Contact, s.Contact)
	}
	if c.Licenses != nil {
		for _, l := range *c.Licenses {
			if l.License != nil {
				out.Licences = append(out.Licences, Licence{ID: l.License.ID, Name: l.License.Name})
			} else if l.Expression != "" {
				out.Licences = append(out.Licences, Licence{Expression: l.Expression})
			}
		}
	}
	out.addHashes(deref(c.Hashes))
	for _, l := range deref(c.ExternalReferences) {
		if l.Type == cdx.ERTypeVCS {
			out.VCS = append(out.VCS, l.URL)
		} else {
			out.Links = append(out.Links, Link{string(l.Type), l.URL})
		}
		if l.Type == cdx.ERTypeDistribution { // where BSI TR-03183-2 puts the digest of the deployable part
			out.addHashes(deref(l.Hashes))
		}
	}
	if c.Pedigree != nil {
		for _, commit := range deref(c.Pedigree.Commits) {
			out.Commits = append(out.Commits, strings.TrimSpace(commit.UID+" "+commit.URL))
		}
	}
	for _, p := range deref(c.Properties) {
		if p.Name == "syft:cpe23" || p.Name == propertyCPE { // further guesses beside the one in the field
			out.addCPE(p.Value)
		}
		out.setBSI(p.Name, p.Value)
	}
	return out
}

func (c *Component) addHashes(list []cdx.Hash) {
	for _, h := range list {
		c.addHash(string(h.Algorithm), h.Value)
	}
}

func entity(e *cdx.OrganizationalEntity) (s Supplier) {
	if e == nil {
		return s
	}
	s = contact(deref(e.Contact))
	s.Name = cmp.Or(e.Name, s.Name)
	for _, u := range deref(e.URL) {
		s.Contact = cmp.Or(s.Contact, u)
	}
	return s
}

func contact(people []cdx.OrganizationalContact) (s Supplier) {
	for _, p := range people {
		s.Name, s.Contact = cmp.Or(s.Name, p.Name), cmp.Or(s.Contact, p.Email)
	}
	return s
}

// written reads "Name <mail>", "Name (mail)" or a name.
func written(who string) Supplier {
	who = strings.TrimSpace(who)
	for _, in := range []struct{ open, shut string }{{" <", ">"}, {" (", ")"}} {
		if i := strings.LastIndex(who, in.open); i > 0 && strings.HasSuffix(who, in.shut) {
			if at := who[i+2 : len(who)-1]; reachable(at) {
				return Supplier{Name: strings.TrimSpace(who[:i]), Contact: at}
			}
		}
	}
	return Supplier{Name: strings.TrimSuffix(who, " ()")}
}

// reachable reports a mail address or a URL.
func reachable(s string) bool {
	at := strings.IndexByte(s, '@')
	return at > 0 && at < len(s)-1 && !strings.ContainsAny(s, " /") || strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "http://")
}

func deref[T any](p *[]T) []T {
	if p == nil {
		return nil
	}
	return *p
}
