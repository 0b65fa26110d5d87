// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"regexp"
	"slices"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// Properties that hold what CycloneDX has no field for.
const (
	propertyCPE     = "openthings:cpe"          // a further CPE name
	propertyReduced = "openthings:sbom:reduced" // what a copy leaves out
)

var cdxTypes = []string{"application", "framework", "library", "container", "platform", "operating-system", "device", "device-driver", "firmware", "file",
	"machine-learning-model", "data", "cryptographic-asset"}

func (b Bill) writeCycloneDX(form Output) ([]byte, error) {
	bom := cdx.NewBOM()
	bom.SpecVersion = map[Output]cdx.SpecVersion{CycloneDX16: cdx.SpecVersion1_6, CycloneDX17: cdx.SpecVersion1_7}[form]
	bom.JSONSchema = "http://cyclonedx.org/schema/bom-" + strings.TrimPrefix(string(form), "cyclonedx-") + ".schema.json"
	root := b.Root.cdx()
	if root.Type == cdx.ComponentTypeLibrary && b.Root.Type == "" {
		root.Type = cdx.ComponentTypeFirmware
	}
	bom.Metadata = b.cdxMetadata(root)
	parts := b.nest()
	bom.Components = &parts
	bom.Dependencies = b.cdxDependencies()
	if b.Complete != "" {
		aggregate := map[string]cdx.CompositionAggregate{"complete": cdx.CompositionAggregateComplete, "incomplete": cdx.CompositionAggregateIncomplete}[b.Complete]
		if aggregate == "" {
			aggregate = cdx.CompositionAggregateUnknown
		}
		bom.Compositions = &[]cdx.Composition{{Aggregate: aggregate, Dependencies: &[]cdx.BOMReference{cdx.BOMReference(root.BOMRef)}}}
	}
	first, err := encode(bom)
	if err != nil {
		return nil, err
	}
	bom.SerialNumber = "urn:uuid:" + uuidOf(first)
	return encode(bom)
}

func (b Bill) cdxMetadata(root cdx.Component) *cdx.Metadata {
	tools := []cdx.Component{{Type: cdx.ComponentTypeApplication, Name: Tool}}
	var authors []cdx.OrganizationalContact
	var maker *cdx.OrganizationalEntity // an author has a mail address only, an organisation also a web site
	for _, s := range b.Creators {
		switch kind, who := creator(s); {
		case kind == "Tool" && who.Name == Tool:
		case kind == "Tool":
			tools = append(tools, cdx.Component{Type: cdx.ComponentTypeApplication, Name: who.Name})
		case kind == "Organization" && maker == nil && strings.HasPrefix(who.Contact, "https://") && isURL(who.Contact):
			maker = &cdx.OrganizationalEntity{Name: who.Name, URL: &[]string{who.Contact}}
		default:
			a := cdx.OrganizationalContact{Name: who.Name}
			if strings.Contains(who.Contact, "@") {
				a.Email = who.Contact
			}
			authors = append(authors, a)
		}
	}
	m := &cdx.Metadata{Component: &root, Tools: &cdx.ToolsChoice{Components: &tools}, Manufacturer: maker}
	if len(authors) > 0 {
		m.Authors = &authors
	}
	if !b.Created.IsZero() {
		m.Timestamp = b.Created.UTC().Format(time.RFC3339)
	}
	if b.Reduced != "" {
		m.Properties = &[]cdx.Property{{Name: propertyReduced, Value: b.Reduced}}
	}
	return m
}

// maxNesting is how deep parts stand inside each other in what we write.
const maxNesting = 16

// nest puts parts inside the parts that contain them; what the root contains stands at the top.
func (b Bill) nest() []cdx.Component {
	known := map[string]bool{}
	for _, c := range b.Components {
		known[c.Ref] = true
	}
	parent := map[string]string{}
	for _, r := range b.Relations {
		if r.Kind != Contains || !known[r.From] || parent[r.To] != "" {
			continue
		}
		depth, p := 0, r.From
		for ; p != "" && p != r.To && depth < maxNesting; p = parent[p] {
			depth++
		}
		if p == "" { // neither a circle nor too deep
			parent[r.To] = r.From
		}
	}
	inside := map[string][]*Component{}
	for _, list := range [][]Component{b.Components, b.Files} {
		for i := range list {
			p := parent[list[i].Ref]
			inside[p] = append(inside[p], &list[i])
		}
	}
	var build func(ref string, depth int) []cdx.Component
	build = func(ref string, depth int) []cdx.Component {
		out := []cdx.Component{}
		for _, c := range inside[ref] {
			part := c.cdx()
			if below := build(c.Ref, depth+1); len(below) > 0 {
				part.Components = &below
			}
			out = append(out, part)
		}
		return out
	}
	return build("", 0)
}

func (b Bill) cdxDependencies() *[]cdx.Dependency {
	var out []cdx.Dependency
	for _, r := range b.Relations {
		if r.Kind != DependsOn {
			continue
		}
		if n := len(out) - 1; n < 0 || out[n].Ref != r.From {
			out = append(out, cdx.Dependency{Ref: r.From, Dependencies: &[]string{}})
		}
		d := out[len(out)-1].Dependencies
		*d = append(*d, r.To)
	}
	if out == nil {
		return nil
	}
	return &out
}

// cpe23 is the form of CPE names that the schema of CycloneDX takes, a little narrower.
var cpe23 = regexp.MustCompile(`^cpe:2\.3:[aho*-](:([A-Za-z0-9._-]|\\[^A-Za-z0-9._\s-])+|:[*-]){5}:([a-zA-Z]{2,3}(-([a-zA-Z]{2}|[0-9]{3}))?|[*-])(:([A-Za-z0-9._-]|\\[^A-Za-z0-9._\s-])+|:[*-]){4}$`)

func (c Component) cdx() cdx.Component {
	out := cdx.Component{BOMRef: c.Ref, Type: cdx.ComponentTypeLibrary, Group: c.Group, Name: c.Name, Version: c.Version, PackageURL: c.PURL}
	if slices.Contains(cdxTypes, c.Type) {
		out.Type = cdx.ComponentType(c.Type)
	}
	if slices.Contains([]string{"required", "optional", "excluded"}, c.Scope) {
		out.Scope = cdx.Scope(c.Scope)
	}
	var properties []cdx.Property
	say := func(name, value string) {
		if value != "" {
			properties = append(properties, cdx.Property{Name: name, Value: value})
		}
	}
	for _, name := range c.cpes() {
		if out.CPE == "" && name == c.CPE && cpe23.MatchString(name) {
			out.CPE = name
		} else {
			say(propertyCPE, name)
		}
	}
	say("bsi:component:filename", c.BSI.Filename)
	say("bsi:component:executable", c.BSI.Executable)
	say("bsi:component:archive", c.BSI.Archive)
	say("bsi:component:structured", c.BSI.Structured)
	if properties != nil {
		out.Properties = &properties
	}
	if c.Supplier != (Supplier{}) {
		s := cdx.OrganizationalEntity{Name: c.Supplier.Name}
		if at := c.Supplier.Contact; strings.HasPrefix(at, "http") && isURL(at) {
			s.URL = &[]string{at}
		} else if at != "" {
			s.Contact = &[]cdx.OrganizationalContact{{Email: at}}
		}
		out.Supplier = &s
	}
	out.Licenses = c.cdxLicences()
	if hashes := goodHashes(c.Hashes); len(hashes) > 0 {
		list := []cdx.Hash{}
		for _, h := range hashes {
			list = append(list, cdx.Hash{Algorithm: cdx.HashAlgorithm(h.Algorithm), Value: h.Value})
		}
		out.Hashes = &list
	}
	var links []cdx.ExternalReference
	for _, u := range c.VCS {
		if isURL(u) {
			links = append(links, cdx.ExternalReference{Type: cdx.ERTypeVCS, URL: u})
		}
	}
	for _, l := range c.Links {
		if isURL(l.URL) {
			links = append(links, cdx.ExternalReference{Type: cdx.ExternalReferenceType(l.Kind), URL: l.URL})
		}
	}
	if links != nil {
		out.ExternalReferences = &links
	}
	if len(c.Commits) > 0 {
		var commits []cdx.Commit
		for _, s := range c.Commits {
			uid, at, _ := strings.Cut(s, " ")
			commits = append(commits, cdx.Commit{UID: uid, URL: at})
		}
		out.Pedigree = &cdx.Pedigree{Commits: &commits}
	}
	return out
}

// cdxLicences writes one expression, or a list of identifiers and words: CycloneDX up to 1.6 takes no mixture.
func (c Component) cdxLicences() *cdx.Licenses {
	if len(c.Licences) == 0 {
		return nil
	}
	var out cdx.Licenses
	if len(c.Licences) == 1 && c.Licences[0].Expression != "" {
		out = append(out, cdx.LicenseChoice{Expression: c.Licences[0].Expression})
		return &out
	}
	for _, l := range c.Licences {
		if l.ID != "" {
			out = append(out, cdx.LicenseChoice{License: &cdx.License{ID: l.ID}})
		} else {
			out = append(out, cdx.LicenseChoice{License: &cdx.License{Name: l.Expression + l.Name}})
		}
	}
	return &out
}
