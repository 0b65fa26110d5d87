// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// none is what SPDX 2 writes where nothing is said.
const none = "NOASSERTION"

var spdx2Purposes = []string{"APPLICATION", "FRAMEWORK", "LIBRARY", "CONTAINER", "OPERATING_SYSTEM", "DEVICE", "FIRMWARE", "SOURCE", "ARCHIVE", "FILE", "INSTALL"}

func (b Bill) writeSPDX2() ([]byte, error) {
	d := spdx2{SPDXVersion: "SPDX-2.3", DataLicense: "CC0-1.0", ID: spdxDocument, Name: cmp.Or(b.Name, "unnamed"), Comment: b.Reduced}
	d.CreationInfo.Creators = append(d.CreationInfo.Creators, "Tool: "+strings.ReplaceAll(Tool, " ", "-"))
	for _, s := range b.Creators {
		if kind, who := creator(s); who.Name != Tool && who.Name != strings.ReplaceAll(Tool, " ", "-") {
			d.CreationInfo.Creators = append(d.CreationInfo.Creators, kind+": "+cmp.Or(who.spdx(), "unnamed"))
		}
	}
	d.CreationInfo.Created = b.date()
	ids := map[string]string{b.Root.Ref: "SPDXRef-Root"}
	root := b.Root.spdx2(&d, "SPDXRef-Root")
	root.Purpose = cmp.Or(root.Purpose, "FIRMWARE")
	d.Packages = append(d.Packages, root)
	for i, c := range b.Components {
		ids[c.Ref] = fmt.Sprintf("SPDXRef-Part-%d", i+1)
		d.Packages = append(d.Packages, c.spdx2(&d, ids[c.Ref]))
	}
	for i, c := range b.Files {
		ids[c.Ref] = fmt.Sprintf("SPDXRef-File-%d", i+1)
		p := c.spdx2(&d, ids[c.Ref]) // as packages: a file of SPDX 2 must have a SHA-1
		p.Purpose = "FILE"
		d.Packages = append(d.Packages, p)
	}
	d.Relationships = append(d.Relationships, spdxRelation{spdxDocument, "DESCRIBES", "SPDXRef-Root"})
	for _, r := range b.Relations {
		d.Relationships = append(d.Relationships, spdxRelation{ids[r.From], map[RelationKind]string{DependsOn: "DEPENDS_ON", Contains: "CONTAINS"}[r.Kind], ids[r.To]})
	}
	if b.Complete == "incomplete" || b.Complete == "unknown" {
		d.Relationships = append(d.Relationships, spdxRelation{"SPDXRef-Root", "DEPENDS_ON", none})
	}
	first, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	d.Namespace = "urn:uuid:" + uuidOf(first)
	return indented(d)
}

func indented(v any) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return out.Bytes(), err
}

// spdx writes "Lamp GmbH (security@lamp.example)".
func (s Supplier) spdx() string {
	if s.Contact == "" {
		return s.Name
	}
	return s.Name + " (" + s.Contact + ")"
}

func (c Component) spdx2(d *spdx2, id string) spdxPackage {
	p := spdxPackage{ID: id, Name: c.Name, Version: c.Version, FileName: c.BSI.Filename, Supplier: none, Download: none, Concluded: none, Declared: none}
	if c.Group != "" && c.PURL == "" {
		p.Name = c.Group + "/" + c.Name
	}
	if purpose := strings.ReplaceAll(strings.ToUpper(c.Type), "-", "_"); slices.Contains(spdx2Purposes, purpose) {
		p.Purpose = purpose
	} else if c.Type != "" {
		p.Purpose = "OTHER"
	}
	if c.Supplier.Name != "" {
		p.Supplier = "Organization: " + c.Supplier.spdx()
	}
	if e := c.licenceExpression(d.extract); e != "" {
		p.Concluded = e
	}
	for _, h := range goodHashes(c.Hashes) {
		p.Checksums = append(p.Checksums, spdxChecksum{strings.ReplaceAll(h.Algorithm, "SHA-", "SHA"), h.Value})
	}
	if c.PURL != "" {
		p.ExternalRefs = append(p.ExternalRefs, spdxRef{"PACKAGE-MANAGER", "purl", c.PURL})
	}
	for _, name := range c.cpes() {
		kind := "cpe23Type"
		if strings.HasPrefix(name, "cpe:/") {
			kind = "cpe22Type"
		}
		p.ExternalRefs = append(p.ExternalRefs, spdxRef{"SECURITY", kind, name})
	}
	for i, u := range c.VCS {
		if i == 0 && isURL(u) {
			p.Download = u
		} else {
			p.ExternalRefs = append(p.ExternalRefs, spdxRef{"OTHER", "vcs", u})
		}
	}
	for _, l := range c.Links {
		switch {
		case l.Kind == "website" && p.Home == "" && isURL(l.URL):
			p.Home = l.URL
		case l.Kind == "distribution" && p.Download == none && isURL(l.URL):
			p.Download = l.URL
		}
	}
	return p
}

// extract keeps words about a licence that are no SPDX expression and returns the reference to them.
func (d *spdx2) extract(words string) string {
	for _, l := range d.Extracted {
		if l.Name == words {
			return l.ID
		}
	}
	id := fmt.Sprintf("LicenseRef-%d", len(d.Extracted)+1)
	d.Extracted = append(d.Extracted, spdxLicence{ID: id, Name: words, Text: words})
	return id
}
