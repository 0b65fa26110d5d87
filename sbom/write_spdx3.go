// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

const (
	spdx3Context  = "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"
	spdx3Creation = "_:creation"
)

var spdx3Purposes = []string{"application", "archive", "bom", "configuration", "container", "data", "device", "deviceDriver", "diskImage", "documentation", "evidence",
	"executable", "file", "filesystemImage", "firmware", "framework", "install", "library", "manifest", "model", "module", "operatingSystem", "other", "patch",
	"platform", "requirement", "source", "specification", "test"}

// element3 is an element of an SPDX 3.0.1 graph as we write it.
type element3 map[string]any

// writer3 collects the elements of a graph. base begins every identifier.
type writer3 struct {
	base     string
	graph    []element3
	agents   map[Supplier]string
	licences map[string]string
}

func (w *writer3) add(kind, id string, more element3) string {
	e := element3{"type": kind, "creationInfo": spdx3Creation}
	if id != "" {
		e["spdxId"] = w.base + id
	}
	for k, v := range more {
		e[k] = v
	}
	w.graph = append(w.graph, e)
	return w.base + id
}

func (b Bill) writeSPDX3() ([]byte, error) {
	// The identifiers rest on the content: twice over, first with none.
	first, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	w := &writer3{base: "urn:uuid:" + uuidOf(first) + "#", agents: map[Supplier]string{}, licences: map[string]string{}}
	w.creation(b)
	ids := map[string]string{b.Root.Ref: w.part("root", *b.Root, cmp.Or(b.Root.Type, "firmware"))}
	for i, c := range b.Components {
		ids[c.Ref] = w.part(fmt.Sprintf("part-%d", i+1), c, c.Type)
	}
	for i, c := range b.Files {
		ids[c.Ref] = w.file(fmt.Sprintf("file-%d", i+1), c)
	}
	w.relations(b, ids)
	elements := []string{}
	for _, e := range w.graph {
		if id, ok := e["spdxId"].(string); ok {
			elements = append(elements, id)
		}
	}
	bom := w.add("software_Sbom", "sbom", element3{"rootElement": []string{ids[b.Root.Ref]}, "element": elements, "software_sbomType": []string{"analyzed"}})
	document := element3{"name": cmp.Or(b.Name, "unnamed"), "rootElement": []string{bom}, "element": append(elements, bom),
		"profileConformance": []string{"core", "software", "simpleLicensing"}}
	if b.Reduced != "" {
		document["comment"] = b.Reduced
	}
	w.add("SpdxDocument", "document", document)
	return indented(map[string]any{"@context": spdx3Context, "@graph": w.graph})
}

// creation writes who and what made the document, and when.
func (w *writer3) creation(b Bill) {
	info := element3{"type": "CreationInfo", "@id": spdx3Creation, "specVersion": "3.0.1", "created": b.date()}
	w.graph = append(w.graph, info)
	using := []string{w.add("Tool", "tool", element3{"name": Tool})}
	var by []string
	for i, s := range b.Creators {
		kind, who := creator(s)
		switch {
		case kind == "Tool" && who.Name == Tool:
		case kind == "Tool":
			using = append(using, w.add("Tool", fmt.Sprintf("tool-%d", i+1), element3{"name": who.Name}))
		default:
			by = append(by, w.agent(kind, who))
		}
	}
	if by == nil { // mandatory
		by = append(by, w.add("SoftwareAgent", "creator", element3{"name": Tool}))
	}
	info["createdBy"], info["createdUsing"] = by, using
}

func (w *writer3) agent(kind string, who Supplier) string {
	if id := w.agents[who]; id != "" {
		return id
	}
	more := element3{"name": who.Name}
	if who.Contact != "" {
		kind := "urlScheme"
		if strings.Contains(who.Contact, "@") {
			kind = "email"
		}
		more["externalIdentifier"] = []element3{{"type": "ExternalIdentifier", "externalIdentifierType": kind, "identifier": who.Contact}}
	}
	w.agents[who] = w.add(kind, fmt.Sprintf("agent-%d", len(w.agents)+1), more)
	return w.agents[who]
}

func hashes3(list []Hash) []element3 {
	var out []element3
	for _, h := range goodHashes(list) {
		name := strings.ToLower(strings.ReplaceAll(h.Algorithm, "SHA-", "SHA"))
		out = append(out, element3{"type": "Hash", "algorithm": strings.ReplaceAll(name, "-", "_"), "hashValue": h.Value})
	}
	return out
}

// part writes a package, and the file as which it is distributed where the bill knows it.
func (w *writer3) part(id string, c Component, kind string) string {
	e := element3{"name": c.Name}
	if c.Group != "" && c.PURL == "" {
		e["name"] = c.Group + "/" + c.Name
	}
	set := func(name, value string) {
		if value != "" {
			e[name] = value
		}
	}
	set("software_packageVersion", c.Version)
	set("software_packageUrl", c.PURL)
	set("software_primaryPurpose", purposeOf(kind))
	var ids, refs []element3
	for _, name := range c.cpes() {
		kind := "cpe23"
		if strings.HasPrefix(name, "cpe:/") {
			kind = "cpe22"
		}
		ids = append(ids, element3{"type": "ExternalIdentifier", "externalIdentifierType": kind, "identifier": name})
	}
	for i, u := range c.VCS {
		if i == 0 && isURL(u) {
			set("software_downloadLocation", u)
		} else {
			refs = append(refs, element3{"type": "ExternalRef", "externalRefType": "vcs", "locator": []string{u}})
		}
	}
	for _, l := range c.Links {
		refs = append(refs, element3{"type": "ExternalRef", "externalRefType": refKind(l.Kind), "locator": []string{l.URL}})
	}
	if ids != nil {
		e["externalIdentifier"] = ids
	}
	if refs != nil {
		e["externalRef"] = refs
	}
	if hashes := hashes3(c.Hashes); hashes != nil {
		e["verifiedUsing"] = hashes
	}
	if c.Supplier.Name != "" {
		e["suppliedBy"] = w.agent("Organization", c.Supplier)
	}
	at := w.add("software_Package", id, e)
	if licence := w.licence(c); licence != "" {
		w.add("Relationship", id+"-licence", element3{"from": at, "relationshipType": "hasConcludedLicense", "to": []string{licence}})
	}
	if c.BSI != (BSIFacts{}) {
		file := w.file(id+"-file", Component{Name: cmp.Or(c.BSI.Filename, c.Name), BSI: c.BSI, Hashes: c.Hashes})
		w.add("Relationship", id+"-artifact", element3{"from": at, "relationshipType": "hasDistributionArtifact", "to": []string{file}})
	}
	return at
}

// licence writes what is known of a part's licences: words stand for themselves, and inside an expression by reference.
func (w *writer3) licence(c Component) string {
	if len(c.Licences) == 1 && c.Licences[0].Name != "" {
		return w.words(c.Licences[0].Name)
	}
	var custom []element3
	text := c.licenceExpression(func(words string) string {
		key := fmt.Sprintf("LicenseRef-%d", len(custom)+1)
		custom = append(custom, element3{"type": "DictionaryEntry", "key": key, "value": w.words(words)})
		return key
	})
	if text == "" {
		return ""
	}
	e, once := element3{"simplelicensing_licenseExpression": text}, "expression "+text
	if custom != nil {
		e["simplelicensing_customIdToUri"], once = custom, fmt.Sprint(once, custom)
	}
	if w.licences[once] == "" {
		w.licences[once] = w.add("simplelicensing_LicenseExpression", fmt.Sprintf("licence-%d", len(w.licences)+1), e)
	}
	return w.licences[once]
}

func (w *writer3) words(words string) string {
	once := "words " + words
	if w.licences[once] == "" {
		w.licences[once] = w.add("simplelicensing_SimpleLicensingText", fmt.Sprintf("licence-%d", len(w.licences)+1), element3{"name": words, "simplelicensing_licenseText": words})
	}
	return w.licences[once]
}

func (w *writer3) file(id string, c Component) string {
	e := element3{"name": c.Name, "software_primaryPurpose": "file"}
	var purposes []string
	for _, p := range []struct{ value, want, purpose string }{{c.BSI.Executable, "executable", "executable"}, {c.BSI.Archive, "archive", "archive"},
		{c.BSI.Structured, "structured", "container"}, {c.BSI.Structured, "unstructured", "firmware"}} {
		if p.value == p.want {
			purposes = append(purposes, p.purpose)
		}
	}
	if purposes != nil {
		e["software_additionalPurpose"] = purposes
	}
	if hashes := hashes3(c.Hashes); hashes != nil {
		e["verifiedUsing"] = hashes
	}
	return w.add("software_File", id, e)
}

// relations writes one relationship for all that a part depends on, and one for all that it contains.
func (w *writer3) relations(b Bill, ids map[string]string) {
	said := map[string]string{"complete": "complete", "incomplete": "incomplete", "unknown": "noAssertion"}[b.Complete]
	for i := 0; i < len(b.Relations); {
		r := b.Relations[i]
		var to []string
		for ; i < len(b.Relations) && b.Relations[i].From == r.From && b.Relations[i].Kind == r.Kind; i++ {
			to = append(to, ids[b.Relations[i].To])
		}
		e := element3{"from": ids[r.From], "relationshipType": map[RelationKind]string{DependsOn: "dependsOn", Contains: "contains"}[r.Kind], "to": to}
		if said != "" && r.From == b.Root.Ref {
			e["completeness"] = said
		}
		w.add("Relationship", fmt.Sprintf("relation-%d", i), e)
	}
}

func purposeOf(kind string) string {
	switch kind {
	case "operating-system":
		return "operatingSystem"
	case "device-driver":
		return "deviceDriver"
	case "machine-learning-model":
		return "model"
	}
	if kind == "" || slices.Contains(spdx3Purposes, kind) {
		return kind
	}
	return "other"
}

func refKind(kind string) string {
	for from, to := range linkKinds {
		if to == kind {
			return from
		}
	}
	return "other"
}
