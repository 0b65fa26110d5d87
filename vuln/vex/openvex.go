// SPDX-License-Identifier: AGPL-3.0-only

package vex

import (
	"bytes"
	"encoding/json"
	"net/url"
	"strings"

	"github.com/package-url/packageurl-go"

	"github.com/openthings-platform/openthings/problem"
)

// openVEXContext is the JSON-LD context of OpenVEX 0.2.0. It is never fetched.
const openVEXContext = "https://openvex.dev/ns/v0.2.0"

// noAction is what OpenVEX documents say where an action is required and none is known.
const noAction = "No action statement provided"

type openVEXDocument struct {
	Context     string             `json:"@context"`
	ID          string             `json:"@id"`
	Author      string             `json:"author"`
	Role        string             `json:"role,omitempty"`
	Timestamp   string             `json:"timestamp"`
	LastUpdated string             `json:"last_updated,omitempty"`
	Version     json.Number        `json:"version"`
	Tooling     string             `json:"tooling,omitempty"`
	Statements  []openVEXStatement `json:"statements"`
}

type openVEXStatement struct {
	Vulnerability   openVEXVulnerability `json:"vulnerability"`
	Timestamp       string               `json:"timestamp,omitempty"`
	LastUpdated     string               `json:"last_updated,omitempty"`
	Products        []openVEXProduct     `json:"products"`
	Status          Status               `json:"status"`
	StatusNotes     string               `json:"status_notes,omitempty"`
	Justification   Justification        `json:"justification,omitempty"`
	ImpactStatement string               `json:"impact_statement,omitempty"`
	ActionStatement string               `json:"action_statement,omitempty"`
}

type openVEXVulnerability struct {
	ID          string   `json:"@id,omitempty"`
	Name        string   `json:"name"`
	Description string   `json:"description,omitempty"`
	Aliases     []string `json:"aliases,omitempty"`
}

type openVEXProduct struct {
	openVEXComponent
	Subcomponents []openVEXComponent `json:"subcomponents,omitempty"`
}

type openVEXComponent struct {
	ID          string            `json:"@id,omitempty"`
	Identifiers map[string]string `json:"identifiers,omitempty"` // purl, cpe22, cpe23; the schema writes @cpe22, @cpe23
	Hashes      map[string]string `json:"hashes,omitempty"`
}

func parseOpenVEX(b []byte) (Document, error) {
	var in openVEXDocument
	if err := json.Unmarshal(b, &in); err != nil {
		return Document{}, problem.Invalid("The OpenVEX document cannot be read: %v", err).Hint("OpenVEX 0.2.0 is read; older ones name products by texts")
	}
	if in.Context != openVEXContext {
		return Document{}, problem.Invalid("The OpenVEX document is of %.80q; only %s is read.", in.Context, openVEXContext)
	}
	d := Document{Format: OpenVEX, ID: in.ID, Version: in.Version.String(), Author: in.Author, At: readTime(in.LastUpdated)}
	if d.At.IsZero() {
		d.At = readTime(in.Timestamp)
	}
	if d.At.IsZero() {
		return Document{}, problem.Invalid("The OpenVEX document has no timestamp.").At("timestamp")
	}
	for _, s := range in.Statements {
		out := Statement{Idents: append([]string{s.Vulnerability.Name}, s.Vulnerability.Aliases...), Summary: s.Vulnerability.Description, Status: s.Status,
			Justification: s.Justification, Detail: paragraphs(s.ImpactStatement, s.StatusNotes), Action: s.ActionStatement, At: readTime(s.LastUpdated)}
		if out.At.IsZero() {
			out.At = readTime(s.Timestamp)
		}
		if out.Action == noAction {
			out.Action = ""
		}
		for _, p := range s.Products {
			product := Product{Ref: d.openVEXRef(p.openVEXComponent)}
			for _, c := range p.Subcomponents {
				product.Components = append(product.Components, d.openVEXRef(c))
			}
			out.Products = append(out.Products, product)
		}
		d.Statements = append(d.Statements, out)
	}
	return d, nil
}

// openVEXRef reads what a product or component is known by. The @id may itself be a package URL or a CPE name.
func (d *Document) openVEXRef(c openVEXComponent) Ref {
	r := Ref{ID: c.ID, PURL: c.Identifiers["purl"]}
	for _, k := range []string{"cpe23", "@cpe23", "cpe22", "@cpe22"} {
		if r.CPE == "" {
			r.CPE = c.Identifiers[k]
		}
	}
	switch {
	case strings.HasPrefix(c.ID, "pkg:") && r.PURL == "":
		r.PURL = c.ID
	case strings.HasPrefix(c.ID, "cpe:") && r.CPE == "":
		r.CPE = c.ID
	}
	for algorithm, value := range c.Hashes {
		if algorithm == "sha-256" {
			r.Digest = "sha256:" + value
		} else {
			d.unread("Digests of %.20s are not read, only those of sha-256.", algorithm)
		}
	}
	return r.tidy()
}

func writeOpenVEX(d Document) ([]byte, error) {
	out := openVEXDocument{Context: openVEXContext, ID: d.ID, Author: d.Author, Timestamp: writeTime(d.At), Version: json.Number(d.Version)}
	for _, s := range d.Statements {
		o := openVEXStatement{Vulnerability: openVEXVulnerability{Name: s.Idents[0], Description: s.Summary, Aliases: s.Idents[1:]},
			Timestamp: writeTime(s.At), Status: s.Status, Justification: s.Justification, ActionStatement: s.Action}
		// The schema takes a justification or an impact statement, never both.
		if s.Status == NotAffected && s.Justification == "" {
			o.ImpactStatement = s.Detail
		} else {
			o.StatusNotes = s.Detail
		}
		if s.Status == Affected && s.Action == "" {
			o.ActionStatement = noAction
		}
		for _, p := range s.Products {
			at, err := openVEXOf(p.Ref)
			if err != nil {
				return nil, err
			}
			product := openVEXProduct{openVEXComponent: at}
			for _, c := range p.Components {
				part, err := openVEXOf(c)
				if err != nil {
					return nil, err
				}
				product.Subcomponents = append(product.Subcomponents, part)
			}
			o.Products = append(o.Products, product)
		}
		out.Statements = append(out.Statements, o)
	}
	return encodeJSON(out)
}

// openVEXOf names a thing as OpenVEX can. What is known by its name only becomes a package URL of type generic.
func openVEXOf(r Ref) (openVEXComponent, error) {
	if r.Range != "" {
		return openVEXComponent{}, problem.Invalid("OpenVEX knows no range of versions such as %.80q.", r.Range)
	}
	if r.PURL == "" && r.Name != "" {
		r.PURL = GenericPURL(r.Name, r.Version)
	}
	c := openVEXComponent{ID: r.ID}
	add := func(k, v string) {
		if c.Identifiers == nil {
			c.Identifiers = map[string]string{}
		}
		c.Identifiers[k] = v
	}
	if r.PURL != "" {
		add("purl", r.PURL)
		if c.ID == "" {
			c.ID = r.PURL
		}
	}
	if strings.HasPrefix(r.CPE, "cpe:2.3:") {
		add("cpe23", r.CPE)
	} else if r.CPE != "" {
		add("cpe22", r.CPE)
	}
	if hex, ok := strings.CutPrefix(r.Digest, "sha256:"); ok {
		c.Hashes = map[string]string{"sha-256": hex}
	}
	if u, err := url.Parse(c.ID); c.ID != "" && (err != nil || u.Scheme == "") {
		return openVEXComponent{}, problem.Invalid("OpenVEX names things by IRI, and %.80q is none.", c.ID)
	}
	return c, nil
}

// GenericPURL is the package URL of what has a name and no package.
func GenericPURL(name, version string) string {
	return packageurl.NewPackageURL(packageurl.TypeGeneric, "", name, version, nil, "").ToString()
}

func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(v)
	return b.Bytes(), err
}
