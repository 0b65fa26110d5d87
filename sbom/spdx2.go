// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"bufio"
	"bytes"
	"encoding/json"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// spdx2 is the part of SPDX 2.2 and 2.3 that matters here, filled from JSON or from tag-value.
type spdx2 struct {
	SPDXVersion  string `json:"spdxVersion"`
	Name         string `json:"name"`
	CreationInfo struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	} `json:"creationInfo"`
	Packages      []spdxPackage  `json:"packages"`
	Files         []spdxFile     `json:"files"`
	Relationships []spdxRelation `json:"relationships"`
	Describes     []string       `json:"documentDescribes"`
}

type spdxPackage struct {
	ID           string         `json:"SPDXID"`
	Name         string         `json:"name"`
	Version      string         `json:"versionInfo"`
	Purpose      string         `json:"primaryPackagePurpose"`
	Checksums    []spdxChecksum `json:"checksums"`
	ExternalRefs []spdxRef      `json:"externalRefs"`
}

type spdxFile struct {
	Checksums []spdxChecksum `json:"checksums"`
}

type spdxChecksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type spdxRef struct {
	Type    string `json:"referenceType"`
	Locator string `json:"referenceLocator"`
}

type spdxRelation struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
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
	if len(d.Packages) > MaxComponents+1 {
		return Bill{}, problem.TooLarge("the SBOM lists %d packages; at most %d are read", len(d.Packages), MaxComponents)
	}
	b := Bill{Format: SPDX, SpecVersion: strings.TrimPrefix(d.SPDXVersion, "SPDX-"), Name: d.Name, Creators: d.CreationInfo.Creators}
	b.Created, _ = time.Parse(time.RFC3339, d.CreationInfo.Created)
	root := d.root()
	for _, p := range d.Packages {
		if p.ID == root {
			b.Name, b.Version = p.Name, p.Version
			b.addChecksums(p.Checksums)
			b.addDigest(p.Version)
		}
		switch {
		case p.Purpose == "FILE": // a file is a digest, not a package
			b.addChecksums(p.Checksums)
		case p.ID == root:
			c := p.component()
			b.Root = &c
		default:
			b.Components = append(b.Components, p.component())
		}
	}
	for _, f := range d.Files {
		b.addChecksums(f.Checksums)
	}
	for _, r := range d.Relationships {
		if strings.Contains(r.Type, "DEPEND") || r.Type == "CONTAINS" || r.Type == "CONTAINED_BY" {
			b.Relations++
		}
	}
	return b, nil
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

func (b *Bill) addChecksums(list []spdxChecksum) {
	for _, c := range list {
		if c.Algorithm == "SHA256" {
			b.addDigest(c.Value)
		}
	}
}

func (p *spdxPackage) component() Component {
	c := Component{Name: p.Name, Version: p.Version, Type: strings.ToLower(p.Purpose)}
	for _, r := range p.ExternalRefs {
		switch {
		case r.Type == "purl" && c.PURL == "":
			c.PURL = r.Locator
		case r.Type == "cpe23Type" && c.CPE == "":
			c.CPE = r.Locator
		}
	}
	return c
}

// parseTagValue reads the line format of SPDX 2: "Tag: value", where a value may be a <text> block of several lines.
func parseTagValue(doc []byte) (Bill, error) {
	var d spdx2
	in := bufio.NewScanner(bytes.NewReader(doc))
	in.Buffer(make([]byte, 0, 64<<10), maxString)
	for in.Scan() {
		tag, value, ok := strings.Cut(in.Text(), ":")
		if !ok || strings.HasPrefix(tag, "#") {
			continue
		}
		value = strings.TrimSpace(value)
		if strings.HasPrefix(value, "<text>") {
			for !strings.Contains(value, "</text>") {
				if !in.Scan() {
					return Bill{}, problem.Invalid("the SPDX document ends inside a <text> block of %.40q", tag)
				}
				value = in.Text() // licence texts and comments: not kept
			}
			continue
		}
		if err := d.tag(strings.TrimSpace(tag), value); err != nil {
			return Bill{}, err
		}
	}
	if in.Err() != nil {
		return Bill{}, problem.TooLarge("the SPDX document has a line of more than %d bytes", maxString)
	}
	if !strings.HasPrefix(d.SPDXVersion, "SPDX-2.") {
		return Bill{}, notABill()
	}
	return d.bill()
}

func (d *spdx2) tag(tag, value string) error {
	switch tag {
	case "SPDXVersion":
		d.SPDXVersion = value
	case "DocumentName":
		d.Name = value
	case "Creator":
		d.CreationInfo.Creators = append(d.CreationInfo.Creators, value)
	case "Created":
		d.CreationInfo.Created = value
	case "PackageName":
		d.Packages = append(d.Packages, spdxPackage{Name: value})
	case "FileName":
		d.Files = append(d.Files, spdxFile{})
	case "FileChecksum":
		if len(d.Files) == 0 {
			return problem.Invalid("the SPDX document has %s before any FileName", tag)
		}
		f := &d.Files[len(d.Files)-1]
		f.Checksums = append(f.Checksums, checksum(value))
	case "Relationship":
		if f := strings.Fields(value); len(f) == 3 {
			d.Relationships = append(d.Relationships, spdxRelation{From: f[0], Type: f[1], To: f[2]})
		}
	case "PackageVersion", "PrimaryPackagePurpose", "PackageChecksum", "ExternalRef", "SPDXID":
		if len(d.Packages) == 0 {
			if tag == "SPDXID" { // the document's own id, or a file's before the first package
				return nil
			}
			return problem.Invalid("the SPDX document has %s before any PackageName", tag)
		}
		d.Packages[len(d.Packages)-1].tag(tag, value)
	}
	return nil
}

func (p *spdxPackage) tag(tag, value string) {
	switch tag {
	case "SPDXID":
		if p.ID == "" { // files that follow a package carry ids of their own
			p.ID = value
		}
	case "PackageVersion":
		p.Version = value
	case "PrimaryPackagePurpose":
		p.Purpose = value
	case "PackageChecksum":
		p.Checksums = append(p.Checksums, checksum(value))
	case "ExternalRef":
		if f := strings.Fields(value); len(f) == 3 {
			p.ExternalRefs = append(p.ExternalRefs, spdxRef{Type: f[1], Locator: f[2]})
		}
	}
}

func checksum(value string) spdxChecksum {
	algorithm, hex, _ := strings.Cut(value, ":")
	return spdxChecksum{Algorithm: algorithm, Value: strings.TrimSpace(hex)}
}
