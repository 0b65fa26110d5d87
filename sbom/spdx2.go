// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/problem"
)

// spdx2 is the part of SPDX 2.2 and 2.3 that matters here, filled from JSON or from tag-value.
type spdx2 struct {
	SPDXVersion   string         `json:"spdxVersion"`
	DataLicense   string         `json:"dataLicense"`
	ID            string         `json:"SPDXID"`
	Name          string         `json:"name"`
	Namespace     string         `json:"documentNamespace"`
	Comment       string         `json:"comment,omitempty"`
	CreationInfo  spdxCreation   `json:"creationInfo"`
	Packages      []spdxPackage  `json:"packages"`
	Files         []spdxFile     `json:"files,omitempty"`
	Relationships []spdxRelation `json:"relationships,omitempty"`
	Describes     []string       `json:"documentDescribes,omitempty"`
	Extracted     []spdxLicence  `json:"hasExtractedLicensingInfos,omitempty"`
}

type spdxCreation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	ID           string         `json:"SPDXID"`
	Name         string         `json:"name"`
	Version      string         `json:"versionInfo,omitempty"`
	Purpose      string         `json:"primaryPackagePurpose,omitempty"`
	FileName     string         `json:"packageFileName,omitempty"`
	Supplier     string         `json:"supplier,omitempty"`
	Originator   string         `json:"originator,omitempty"`
	Download     string         `json:"downloadLocation"`
	Home         string         `json:"homepage,omitempty"`
	Analyzed     bool           `json:"filesAnalyzed"`
	Concluded    string         `json:"licenseConcluded,omitempty"`
	Declared     string         `json:"licenseDeclared,omitempty"`
	Checksums    []spdxChecksum `json:"checksums,omitempty"`
	ExternalRefs []spdxRef      `json:"externalRefs,omitempty"`
}

type spdxFile struct {
	ID        string         `json:"SPDXID"`
	Name      string         `json:"fileName"`
	Checksums []spdxChecksum `json:"checksums"`
}

type spdxChecksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type spdxRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type spdxRelation struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

type spdxLicence struct {
	ID   string `json:"licenseId"`
	Name string `json:"name,omitempty"`
	Text string `json:"extractedText"`
}

const spdxDocument = "SPDXRef-DOCUMENT"

func parseSPDX2(doc []byte) (Bill, error) {
	var d spdx2
	if err := json.Unmarshal(doc, &d); err != nil {
		return Bill{}, problem.Invalid("the SPDX document cannot be read: %v", err)
	}
	return d.bill()
}

func (d *spdx2) bill() (Bill, error) {
	if n := len(d.Packages) + len(d.Files); n > MaxComponents+1 {
		return Bill{}, problem.TooLarge("the SBOM lists %d packages and files; at most %d are read", n, MaxComponents)
	}
	b := Bill{Format: SPDX, SpecVersion: strings.TrimPrefix(d.SPDXVersion, "SPDX-"), URI: d.Namespace, Name: d.Name, Creators: d.CreationInfo.Creators, Reduced: reduced(d.Comment)}
	b.Created = dated(d.CreationInfo.Created)
	for _, who := range d.CreationInfo.Creators {
		if kind, name, ok := strings.Cut(who, ": "); ok && kind != "Tool" {
			b.CreatorContact = cmp.Or(b.CreatorContact, written(name).Contact)
		}
	}
	words := map[string]string{} // licences that only this document knows
	for _, l := range d.Extracted {
		words[l.ID] = l.Name
	}
	root := d.root()
	for _, p := range d.Packages {
		c := p.component(words)
		if p.ID == root {
			b.Name, b.Version = p.Name, p.Version
			b.addHashes(c.Hashes)
			b.addDigest(p.Version)
		}
		switch {
		case p.Purpose == "FILE": // a file is a digest, not a package
			b.addHashes(c.Hashes)
			b.Files = append(b.Files, c)
		case p.ID == root:
			b.Root = &c
		default:
			b.Components = append(b.Components, c)
		}
	}
	for _, f := range d.Files {
		c := Component{Ref: f.ID, Name: f.Name, Type: "file"}
		c.addChecksums(f.Checksums)
		b.addHashes(c.Hashes)
		b.Files = append(b.Files, c)
	}
	for _, r := range d.Relationships {
		if err := b.addSPDXRelation(r); err != nil {
			return Bill{}, err
		}
	}
	if b.Reduced != "" { // SPDX 2 knows no word for incomplete
		b.Complete = "incomplete"
	}
	return b, nil
}

// addSPDXRelation keeps what depends on or contains something; NONE and NOASSERTION speak about completeness.
func (b *Bill) addSPDXRelation(r spdxRelation) error {
	from, to, kind := r.From, r.To, DependsOn
	switch {
	case r.Type == "CONTAINED_BY":
		from, to, kind = r.To, r.From, Contains
	case r.Type == "CONTAINS":
		kind = Contains
	case strings.HasSuffix(r.Type, "DEPENDENCY_OF"): // also BUILD_, RUNTIME_…: the first is needed by the second
		from, to = r.To, r.From
	case r.Type != "DEPENDS_ON":
		return nil
	}
	switch {
	case to == "NONE" || from == "NONE":
		b.say("complete")
		return nil
	case to == "NOASSERTION" || from == "NOASSERTION":
		b.say("unknown")
		return nil
	case from == spdxDocument:
		return nil
	}
	return b.relate(from, kind, to)
}

// root is the one element that the document describes; some tools describe every package, and then there is none.
func (d *spdx2) root() string {
	described := map[string]bool{}
	for _, id := range d.Describes {
		described[id] = true
	}
	for _, r := range d.Relationships {
		switch {
		case r.Type == "DESCRIBES" && r.From == spdxDocument:
			described[r.To] = true
		case r.Type == "DESCRIBED_BY" && r.To == spdxDocument:
			described[r.From] = true
		}
	}
	if len(described) == 1 {
		for id := range described {
			return id
		}
	}
	return ""
}

func (c *Component) addChecksums(list []spdxChecksum) {
	for _, h := range list {
		c.addHash(h.Algorithm, h.Value)
	}
}

// said is what a field of SPDX says, where it says something.
func said(s string) string {
	if s == "NOASSERTION" || s == "NONE" {
		return ""
	}
	return s
}

func (p *spdxPackage) component(words map[string]string) Component {
	c := Component{Ref: p.ID, Name: p.Name, Version: p.Version, Type: strings.ToLower(strings.ReplaceAll(p.Purpose, "_", "-"))}
	c.BSI.Filename = p.FileName
	for _, who := range []string{said(p.Supplier), said(p.Originator)} {
		if _, name, ok := strings.Cut(who, ": "); ok {
			who = name
		}
		s := written(who)
		c.Supplier.Name, c.Supplier.Contact = cmp.Or(c.Supplier.Name, s.Name), cmp.Or(c.Supplier.Contact, s.Contact)
	}
	c.addExpression(cmp.Or(said(p.Concluded), said(p.Declared)), words)
	c.addPlace(said(p.Download), "distribution")
	if home := said(p.Home); home != "" {
		c.Links = append(c.Links, Link{"website", home})
	}
	c.addChecksums(p.Checksums)
	for _, r := range p.ExternalRefs {
		switch r.Type {
		case "purl":
			c.PURL = cmp.Or(c.PURL, r.Locator)
		case "cpe23Type", "cpe22Type":
			c.addCPE(r.Locator)
		case "advisory":
			c.Links = append(c.Links, Link{"advisories", r.Locator})
		case "website", "distribution":
			c.Links = append(c.Links, Link{r.Type, r.Locator})
		case "vcs":
			c.VCS = append(c.VCS, r.Locator)
		}
	}
	return c
}

// addCPE keeps a CPE name: the first is shown, all are matched.
func (c *Component) addCPE(name string) {
	if c.CPE == "" {
		c.CPE = name
	} else if !slices.Contains(c.MoreCPEs, name) {
		c.MoreCPEs = append(c.MoreCPEs, name)
	}
}

// addPlace keeps where a part can be had: a repository, or a link of the kind.
func (c *Component) addPlace(place, kind string) {
	switch {
	case place == "":
	case strings.HasPrefix(place, "git"), strings.HasPrefix(place, "hg+"), strings.HasPrefix(place, "svn+"), strings.HasPrefix(place, "bzr+"):
		c.VCS = append(c.VCS, place)
	default:
		c.Links = append(c.Links, Link{kind, place})
	}
}

// addExpression keeps an SPDX licence expression; a reference that stands alone is the words of the document.
func (c *Component) addExpression(expression string, words map[string]string) {
	switch {
	case expression == "":
	case strings.HasPrefix(expression, "LicenseRef-") && words[expression] != "":
		c.Licences = append(c.Licences, Licence{Name: words[expression]})
	default:
		c.Licences = append(c.Licences, Licence{Expression: expression})
	}
}
