// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"bytes"
	"strings"
	"time"

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
	b := Bill{Format: CycloneDX, SpecVersion: bom.SpecVersion.String()}
	if m := bom.Metadata; m != nil {
		b.Created, _ = time.Parse(time.RFC3339, m.Timestamp) // generators leave it out: graded, not refused
		if m.Tools != nil {
			for _, t := range deref(m.Tools.Tools) { //nolint:staticcheck // the form up to 1.4
				b.Creators = append(b.Creators, strings.TrimSpace(t.Name+" "+t.Version))
			}
			for _, t := range deref(m.Tools.Components) {
				b.Creators = append(b.Creators, strings.TrimSpace(t.Name+" "+t.Version))
			}
		}
		for _, a := range deref(m.Authors) {
			b.Creators = append(b.Creators, strings.TrimSpace(a.Name+" "+a.Email))
		}
		if c := m.Component; c != nil {
			b.Name, b.Version = c.Name, c.Version
			b.addHashes(c)
			// syft describes a file by "sha256:…" in place of a version: a digest, not a package.
			b.addDigest(c.Version)
			if c.Type != cdx.ComponentTypeFile {
				root := component(c)
				b.Root = &root
			}
			if err := b.addComponents(c.Components); err != nil {
				return Bill{}, err
			}
		}
	}
	if err := b.addComponents(bom.Components); err != nil {
		return Bill{}, err
	}
	for _, d := range deref(bom.Dependencies) {
		b.Relations += len(deref(d.Dependencies))
	}
	b.Vulnerabilities = len(deref(bom.Vulnerabilities))
	return b, nil
}

// addComponents flattens the tree; its depth was bounded before.
func (b *Bill) addComponents(list *[]cdx.Component) error {
	for i := range deref(list) {
		c := &(*list)[i]
		if c.Type == cdx.ComponentTypeFile {
			b.addHashes(c)
		} else {
			b.Components = append(b.Components, component(c))
		}
		if len(b.Components) > MaxComponents {
			return problem.TooLarge("the SBOM lists more than %d components", MaxComponents)
		}
		if err := b.addComponents(c.Components); err != nil {
			return err
		}
	}
	return nil
}

func (b *Bill) addHashes(c *cdx.Component) {
	for _, h := range deref(c.Hashes) {
		if h.Algorithm == cdx.HashAlgoSHA256 {
			b.addDigest(h.Value)
		}
	}
}

func component(c *cdx.Component) Component {
	name := c.Name
	if c.Group != "" && c.PackageURL == "" {
		name = c.Group + "/" + c.Name
	}
	return Component{Name: name, Version: c.Version, PURL: c.PackageURL, CPE: c.CPE, Type: string(c.Type)}
}

func deref[T any](p *[]T) []T {
	if p == nil {
		return nil
	}
	return *p
}
