// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"bufio"
	"bytes"
	"strings"

	"github.com/openthings-platform/openthings/problem"
)

// parseTagValue reads the line format of SPDX 2: "Tag: value", where a value may be a <text> block of several lines.
func parseTagValue(doc []byte) (Bill, error) {
	d := tagReader{}
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

// tagReader fills a document tag by tag: what follows a name belongs to it.
type tagReader struct {
	spdx2
	inFile bool
}

func (d *tagReader) tag(tag, value string) error {
	switch tag {
	case "SPDXVersion":
		d.SPDXVersion = value
	case "DocumentName":
		d.Name = value
	case "DocumentNamespace":
		d.Namespace = value
	case "Creator":
		d.CreationInfo.Creators = append(d.CreationInfo.Creators, value)
	case "Created":
		d.CreationInfo.Created = value
	case "PackageName":
		d.Packages, d.inFile = append(d.Packages, spdxPackage{Name: value}), false
	case "FileName":
		d.Files, d.inFile = append(d.Files, spdxFile{Name: value}), true
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
	case "LicenseID":
		d.Extracted = append(d.Extracted, spdxLicence{ID: value})
	case "LicenseName":
		if len(d.Extracted) > 0 {
			d.Extracted[len(d.Extracted)-1].Name = value
		}
	case "SPDXID":
		switch {
		case d.inFile:
			d.Files[len(d.Files)-1].ID = value
		case len(d.Packages) > 0: // else the document's own
			d.Packages[len(d.Packages)-1].ID = value
		}
	case "PackageVersion", "PrimaryPackagePurpose", "PackageChecksum", "ExternalRef", "PackageSupplier", "PackageOriginator", "PackageFileName",
		"PackageDownloadLocation", "PackageHomePage", "PackageLicenseConcluded", "PackageLicenseDeclared":
		if len(d.Packages) == 0 {
			return problem.Invalid("the SPDX document has %s before any PackageName", tag)
		}
		d.Packages[len(d.Packages)-1].tag(tag, value)
	}
	return nil
}

func (p *spdxPackage) tag(tag, value string) {
	switch tag {
	case "PackageVersion":
		p.Version = value
	case "PrimaryPackagePurpose":
		p.Purpose = value
	case "PackageSupplier":
		p.Supplier = value
	case "PackageOriginator":
		p.Originator = value
	case "PackageFileName":
		p.FileName = value
	case "PackageDownloadLocation":
		p.Download = value
	case "PackageHomePage":
		p.Home = value
	case "PackageLicenseConcluded":
		p.Concluded = value
	case "PackageLicenseDeclared":
		p.Declared = value
	case "PackageChecksum":
		p.Checksums = append(p.Checksums, checksum(value))
	case "ExternalRef":
		if f := strings.Fields(value); len(f) == 3 {
			p.ExternalRefs = append(p.ExternalRefs, spdxRef{Category: f[0], Type: f[1], Locator: f[2]})
		}
	}
}

// checksum reads "SHA256: abc…".
func checksum(value string) spdxChecksum {
	algorithm, hex, _ := strings.Cut(value, ":")
	return spdxChecksum{Algorithm: strings.TrimSpace(algorithm), Value: strings.TrimSpace(hex)}
}
