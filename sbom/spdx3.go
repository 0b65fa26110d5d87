// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/problem"
)

// spdx3 is one element of an SPDX 3.0 graph, with the members of packages, files, relationships and identifiers that
// matter here. JSON-LD contexts are not followed: the terms are taken as the SPDX 3.0.1 context spells them.
type spdx3 struct {
	ID           string     `json:"spdxId"`
	Type         string     `json:"type"`
	Name         string     `json:"name"`
	Comment      string     `json:"comment"`
	Roots        []string   `json:"rootElement"`
	Version      string     `json:"software_packageVersion"`
	PURL         string     `json:"software_packageUrl"`
	Purpose      string     `json:"software_primaryPurpose"`
	Purposes     []string   `json:"software_additionalPurpose"`
	Download     string     `json:"software_downloadLocation"`
	Home         string     `json:"software_homePage"`
	SuppliedBy   string     `json:"suppliedBy"`
	OriginatedBy []string   `json:"originatedBy"`
	External     []spdxID   `json:"externalIdentifier"`
	References   []spdx3Ref `json:"externalRef"`
	Hashes       []spdx3H   `json:"verifiedUsing"`
	Relation     string     `json:"relationshipType"`
	From         string     `json:"from"`
	To           []string   `json:"to"`
	Completeness string     `json:"completeness"`
	Expression   string     `json:"simplelicensing_licenseExpression"`
	Created      string     `json:"created"`
	CreatedBy    []string   `json:"createdBy"`
	Using        []string   `json:"createdUsing"`
	Spec         string     `json:"specVersion"`
}

type spdxID struct {
	Type string `json:"externalIdentifierType"`
	ID   string `json:"identifier"`
}

type spdx3H struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"hashValue"`
}

type spdx3Ref struct {
	Type    string   `json:"externalRefType"`
	Locator []string `json:"locator"`
}

// graph3 is an SPDX 3.0 document, sorted by what its elements are.
type graph3 struct {
	bill                       Bill
	agents                     map[string]Supplier
	kinds                      map[string]string // of agents, as SPDX 2 calls them
	licences                   map[string]Licence
	packages, files, relations []spdx3
	creators                   []string
	documentRoots, sbomRoots   []string
	artifacts                  map[string]bool // files in which a part is distributed
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
	g := graph3{bill: Bill{Format: SPDX}, artifacts: map[string]bool{}, agents: map[string]Supplier{}, kinds: map[string]string{}, licences: map[string]Licence{}}
	for _, raw := range d.Graph {
		var e spdx3
		if err := json.Unmarshal(raw, &e); err != nil {
			return Bill{}, problem.Invalid("an element of the SPDX graph cannot be read: %v", err)
		}
		if err := g.sort(e); err != nil {
			return Bill{}, err
		}
	}
	if g.bill.SpecVersion == "" {
		return Bill{}, notABill()
	}
	return g.read()
}

func (g *graph3) sort(e spdx3) error {
	switch e.Type {
	case "CreationInfo":
		g.bill.SpecVersion = e.Spec
		g.bill.Created = dated(e.Created)
		g.creators = append(append(g.creators, e.CreatedBy...), e.Using...)
	case "SpdxDocument":
		g.bill.Name, g.bill.URI, g.bill.Reduced = e.Name, e.ID, reduced(e.Comment)
		g.documentRoots = append(g.documentRoots, e.Roots...)
	case "software_Sbom":
		g.sbomRoots = append(g.sbomRoots, e.Roots...)
	case "software_Package":
		g.packages = append(g.packages, e)
	case "software_File":
		g.files = append(g.files, e)
	case "Relationship", "LifecycleScopedRelationship":
		g.relations = append(g.relations, e)
	case "Tool", "Organization", "Person", "SoftwareAgent", "Agent":
		g.agents[e.ID], g.kinds[e.ID] = agent(e), cmp.Or(map[string]string{"Tool": "Tool", "Person": "Person"}[e.Type], "Organization")
	case "simplelicensing_LicenseExpression":
		g.licences[e.ID] = Licence{Expression: said(e.Expression)}
	case "expandedlicensing_ListedLicense":
		g.licences[e.ID] = Licence{ID: e.Name}
	case "expandedlicensing_CustomLicense", "simplelicensing_SimpleLicensingText":
		g.licences[e.ID] = Licence{Name: e.Name}
	case "security_Vulnerability":
		g.bill.Vulnerabilities++
	}
	if len(g.packages)+len(g.files) > MaxComponents+1 {
		return problem.TooLarge("the SBOM lists more than %d packages and files", MaxComponents)
	}
	return nil
}

func agent(e spdx3) Supplier {
	s := Supplier{Name: e.Name}
	for _, x := range e.External {
		if x.Type == "email" || x.Type == "urlScheme" {
			s.Contact = cmp.Or(s.Contact, x.ID)
		}
	}
	if s.Contact == "" {
		s = written(e.Name)
	}
	return s
}

func (g *graph3) read() (Bill, error) {
	b := g.bill
	for _, id := range g.creators {
		if who, ok := g.agents[id]; ok {
			name := g.kinds[id] + ": " + who.Name
			if who.Contact != "" {
				name += " (" + who.Contact + ")"
			}
			b.Creators = append(b.Creators, name)
			b.CreatorContact = cmp.Or(b.CreatorContact, who.Contact)
		}
	}
	// The document's root is an SBOM whose root is what it describes; some writers leave the SBOM out.
	root := ""
	if roots := append(g.sbomRoots, g.documentRoots...); len(roots) > 0 {
		root = roots[0]
	}
	parts := map[string]*Component{}
	var order []*Component
	for _, list := range [][]spdx3{g.packages, g.files} {
		for _, p := range list {
			c := g.component(p)
			parts[p.ID] = &c
			order = append(order, &c)
		}
	}
	if err := g.relate(&b, parts); err != nil {
		return Bill{}, err
	}
	for _, c := range order {
		file := c.Type == "file"
		if c.Ref == root || file {
			b.addHashes(c.Hashes)
			b.addDigest(c.Version)
		}
		if c.Ref == root {
			b.Name, b.Version = c.Name, c.Version
		}
		switch {
		case g.artifacts[c.Ref]: // told with the part that is distributed so
		case file:
			b.Files = append(b.Files, *c)
		case c.Ref == root:
			b.Root = c
		default:
			b.Components = append(b.Components, *c)
		}
	}
	return b, nil
}

// relate reads the relationships: what contains and needs what, under which licence, distributed as which file.
func (g *graph3) relate(b *Bill, parts map[string]*Component) error {
	concluded := map[string]bool{}
	slices.SortStableFunc(g.relations, func(x, y spdx3) int { return cmp.Compare(x.Relation, y.Relation) }) // concluded licences before declared ones
	for _, r := range g.relations {
		from := parts[r.From]
		switch r.Relation {
		case "dependsOn", "contains":
			kind := map[string]RelationKind{"dependsOn": DependsOn, "contains": Contains}[r.Relation]
			b.say(map[string]string{"complete": "complete", "incomplete": "incomplete", "noAssertion": "unknown"}[r.Completeness])
			for _, to := range r.To {
				if strings.HasSuffix(to, "/NoneElement") || strings.HasSuffix(to, "/NoAssertionElement") {
					continue
				}
				if err := b.relate(r.From, kind, to); err != nil {
					return err
				}
			}
		case "hasConcludedLicense", "hasDeclaredLicense":
			if from == nil || r.Relation == "hasDeclaredLicense" && concluded[r.From] {
				continue
			}
			for _, to := range r.To {
				if l := g.licence(to); l != (Licence{}) {
					from.Licences = append(from.Licences, l)
					concluded[r.From] = concluded[r.From] || r.Relation == "hasConcludedLicense"
				}
			}
		case "hasDistributionArtifact":
			for _, to := range r.To {
				if file := parts[to]; file != nil && from != nil {
					from.takeFile(file)
					g.artifacts[to] = true
				}
			}
		}
	}
	return nil
}

func (g *graph3) licence(id string) Licence {
	if l, ok := g.licences[id]; ok {
		return l
	}
	if listed, ok := strings.CutPrefix(id, "https://spdx.org/licenses/"); ok {
		return Licence{ID: listed}
	}
	return Licence{}
}

// takeFile gives a part what BSI TR-03183-2 has said about the file in which it is distributed.
func (c *Component) takeFile(file *Component) {
	c.BSI = file.BSI
	c.BSI.Filename = file.Name
	for _, h := range file.Hashes {
		c.addHash(h.Algorithm, h.Value)
	}
}

func (g *graph3) component(p spdx3) Component {
	c := Component{Ref: p.ID, Name: p.Name, Version: p.Version, PURL: p.PURL, Type: purpose3(p.Purpose)}
	if p.Type == "software_File" {
		c.Type = "file"
	}
	for _, x := range p.External {
		switch x.Type {
		case "cpe23", "cpe22":
			c.addCPE(x.ID)
		case "packageUrl":
			c.PURL = cmp.Or(c.PURL, x.ID)
		case "gitoid", "swhid", "swid":
		}
	}
	for _, id := range append([]string{p.SuppliedBy}, p.OriginatedBy...) {
		who := g.agents[id]
		c.Supplier.Name, c.Supplier.Contact = cmp.Or(c.Supplier.Name, who.Name), cmp.Or(c.Supplier.Contact, who.Contact)
	}
	for _, h := range p.Hashes {
		c.addHash(h.Algorithm, h.Value)
	}
	c.addPlace(said(p.Download), "distribution")
	if p.Home != "" {
		c.Links = append(c.Links, Link{"website", p.Home})
	}
	for _, r := range p.References {
		for _, u := range r.Locator {
			c.addReference(r.Type, u)
		}
	}
	if p.Type == "software_File" || len(p.Purposes) > 0 {
		has := func(purpose, yes, no string) string {
			if slices.Contains(p.Purposes, purpose) || p.Purpose == purpose {
				return yes
			}
			return no
		}
		c.BSI.Executable, c.BSI.Archive = has("executable", "executable", "non-executable"), has("archive", "archive", "no archive")
		c.BSI.Structured = has("container", "structured", has("firmware", "unstructured", ""))
	}
	return c
}

// purpose3 spells the purposes of SPDX 3.0 as CycloneDX does: "operatingSystem", "operating-system".
func purpose3(s string) string {
	switch s {
	case "operatingSystem":
		return "operating-system"
	case "deviceDriver":
		return "device-driver"
	}
	return s
}

// reduced is a document's comment where it is our statement of what a copy leaves out.
func reduced(comment string) string {
	if strings.HasPrefix(comment, reducedCopy) {
		return comment
	}
	return ""
}

// linkKinds maps the kinds of references of SPDX 3.0 to those of CycloneDX.
var linkKinds = map[string]string{
	"altWebPage": "website", "binaryArtifact": "distribution", "buildMeta": "build-meta", "buildSystem": "build-system", "certificationReport": "certification-report",
	"documentation": "documentation", "issueTracker": "issue-tracker", "license": "license", "mailingList": "mailing-list", "releaseNotes": "release-notes",
	"securityAdvisory": "advisories", "sourceArtifact": "source-distribution", "support": "support", "vcs": "vcs", "chat": "chat", "socialMedia": "social",
}

func (c *Component) addReference(kind, url string) {
	switch kind = cmp.Or(linkKinds[kind], "other"); kind {
	case "vcs":
		c.VCS = append(c.VCS, url)
	default:
		c.Links = append(c.Links, Link{kind, url})
	}
}
