// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"encoding/json"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// spdx3 is one element of an SPDX 3.0 graph, with the members of packages, files, relationships and identifiers that
// matter here. JSON-LD contexts are not followed: the terms are taken as the SPDX 3.0.1 context spells them.
type spdx3 struct {
	ID        string   `json:"spdxId"`
	Type      string   `json:"type"`
	Name      string   `json:"name"`
	Roots     []string `json:"rootElement"`
	Version   string   `json:"software_packageVersion"`
	PURL      string   `json:"software_packageUrl"`
	Purpose   string   `json:"software_primaryPurpose"`
	External  []spdxID `json:"externalIdentifier"`
	Hashes    []spdx3H `json:"verifiedUsing"`
	Relation  string   `json:"relationshipType"`
	Created   string   `json:"created"`
	CreatedBy []string `json:"createdBy"`
	Using     []string `json:"createdUsing"`
	Spec      string   `json:"specVersion"`
}

type spdxID struct {
	Type string `json:"externalIdentifierType"`
	ID   string `json:"identifier"`
}

type spdx3H struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"hashValue"`
}

func parseSPDX3(doc []byte) (Bill, error) {
	var d struct {
		Graph []json.RawMessage `json:"@graph"`
	}
	if err := json.Unmarshal(doc, &d); err != nil {
		return Bill{}, problem.Invalid("the SPDX document cannot be read: %v", err)
	}
	if len(d.Graph) > 20*MaxComponents {
		return Bill{}, problem.TooLarge("the SPDX graph has %d elements; at most %d are read", len(d.Graph), 20*MaxComponents)
	}
	b := Bill{Format: SPDX}
	names := map[string]string{} // of tools, organisations and people
	var creators, documentRoots, sbomRoots []string
	var packages []spdx3
	for _, raw := range d.Graph {
		var e spdx3
		if err := json.Unmarshal(raw, &e); err != nil {
			return Bill{}, problem.Invalid("an element of the SPDX graph cannot be read: %v", err)
		}
		switch e.Type {
		case "CreationInfo":
			b.SpecVersion = e.Spec
			b.Created, _ = time.Parse(time.RFC3339, e.Created)
			creators = append(append(creators, e.CreatedBy...), e.Using...)
		case "SpdxDocument":
			b.Name = e.Name
			documentRoots = append(documentRoots, e.Roots...)
		case "software_Sbom":
			sbomRoots = append(sbomRoots, e.Roots...)
		case "software_Package":
			if len(packages) > MaxComponents {
				return Bill{}, problem.TooLarge("the SBOM lists more than %d packages", MaxComponents)
			}
			packages = append(packages, e)
		case "software_File":
			b.addSPDX3(e.Hashes)
		case "Relationship", "LifecycleScopedRelationship":
			if e.Relation == "dependsOn" || e.Relation == "contains" {
				b.Relations++
			}
		case "Tool", "Organization", "Person", "SoftwareAgent", "Agent":
			names[e.ID] = e.Name
		}
	}
	if b.SpecVersion == "" {
		return Bill{}, notABill()
	}
	for _, id := range creators {
		if names[id] != "" {
			b.Creators = append(b.Creators, names[id])
		}
	}
	// The document's root is an SBOM whose root is what it describes; some writers leave the SBOM out.
	root := ""
	if roots := append(sbomRoots, documentRoots...); len(roots) > 0 {
		root = roots[0]
	}
	for _, p := range packages {
		c := Component{Name: p.Name, Version: p.Version, PURL: p.PURL, Type: p.Purpose}
		for _, x := range p.External {
			switch {
			case x.Type == "cpe23" && c.CPE == "":
				c.CPE = x.ID
			case x.Type == "packageUrl" && c.PURL == "":
				c.PURL = x.ID
			}
		}
		if p.ID == root || p.Purpose == "file" {
			b.addSPDX3(p.Hashes)
			b.addDigest(p.Version)
		}
		switch {
		case p.ID == root:
			b.Name, b.Version = p.Name, p.Version
			if p.Purpose != "file" {
				b.Root = &c
			}
		case p.Purpose != "file":
			b.Components = append(b.Components, c)
		}
	}
	return b, nil
}

func (b *Bill) addSPDX3(hashes []spdx3H) {
	for _, h := range hashes {
		if h.Algorithm == "sha256" {
			b.addDigest(h.Value)
		}
	}
}
