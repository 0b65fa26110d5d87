// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/problem"
)

// Bounds of a document. Whatever exceeds them is refused before it is built in memory.
const (
	MaxBytes      = 32 << 20
	MaxDepth      = 64
	MaxComponents = 100_000 // files included
	MaxRelations  = 1_000_000
	maxString     = 1 << 20 // any string of the document; generators embed licence texts
	maxIdentity   = 2048    // names, versions, purls and CPE names
)

// Parse reads CycloneDX (JSON, XML) and SPDX (2.x JSON and tag-value, 3.0 JSON-LD). It never touches the network: JSON-LD
// contexts and XML entities are not followed. Every error is a problem.Error that names what is wrong.
func Parse(doc []byte) (Bill, error) {
	if len(doc) > MaxBytes {
		return Bill{}, problem.TooLarge("the SBOM has %d bytes; at most %d are read", len(doc), MaxBytes)
	}
	doc = bytes.TrimPrefix(doc, []byte("\ufeff"))
	body := bytes.TrimLeft(doc, " \t\r\n")
	var b Bill
	var err error
	switch {
	case len(body) == 0:
		err = problem.Invalid("the SBOM is empty")
	case body[0] == '{':
		b, err = parseJSON(body)
	case body[0] == '<':
		b, err = parseCycloneDXXML(body)
	case body[0] == '#' || bytes.HasPrefix(body, []byte("SPDXVersion:")):
		b, err = parseTagValue(body)
	case bytes.HasPrefix(doc, []byte("\x1f\x8b")) || bytes.HasPrefix(doc, []byte("PK\x03\x04")):
		err = problem.Invalid("the SBOM is packed").Hint("unpack it first, with gunzip or unzip")
	default:
		err = notABill()
	}
	if err != nil {
		return Bill{}, err
	}
	return b, b.check()
}

func notABill() error {
	return problem.Invalid("this is not a bill of materials that can be read").
		Hint("send CycloneDX as JSON or XML, or SPDX as JSON or tag-value")
}

func parseJSON(doc []byte) (Bill, error) {
	if err := boundJSON(doc); err != nil {
		return Bill{}, err
	}
	var kind struct {
		BOMFormat   string `json:"bomFormat"`
		SPDXVersion string `json:"spdxVersion"`
		Context     any    `json:"@context"`
	}
	if err := json.Unmarshal(doc, &kind); err != nil {
		return Bill{}, problem.Invalid("the SBOM is not valid JSON: %v", err)
	}
	switch {
	case kind.BOMFormat == "CycloneDX":
		return parseCycloneDXJSON(doc)
	case strings.HasPrefix(kind.SPDXVersion, "SPDX-2."):
		return parseSPDX2(doc)
	case kind.Context != nil:
		return parseSPDX3(doc)
	}
	return Bill{}, notABill()
}

// boundJSON refuses what is nested too deep or carries too long a string; the syntax is judged by the decoder afterwards.
func boundJSON(doc []byte) error {
	depth, start := 0, -1 // start: where the present string began
	for i := 0; i < len(doc); i++ {
		switch c := doc[i]; {
		case start >= 0:
			switch c {
			case '\\':
				i++
			case '"':
				start = -1
			}
			if start >= 0 && i-start > maxString {
				return problem.TooLarge("the SBOM holds a string of more than %d bytes", maxString)
			}
		case c == '"':
			start = i
		case c == '{' || c == '[':
			if depth++; depth > MaxDepth {
				return problem.Invalid("the SBOM is nested more than %d deep", MaxDepth)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

// boundXML is boundJSON for XML; it refuses document type declarations, and with them entities, altogether.
func boundXML(doc []byte) error {
	d, depth := xml.NewDecoder(bytes.NewReader(doc)), 0
	for {
		tok, err := d.RawToken()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return problem.Invalid("the SBOM is not valid XML: %v", err)
		}
		switch t := tok.(type) {
		case xml.Directive:
			return problem.Invalid("the SBOM has a document type declaration; entities are not read")
		case xml.StartElement:
			if depth++; depth > MaxDepth {
				return problem.Invalid("the SBOM is nested more than %d deep", MaxDepth)
			}
			for _, a := range t.Attr {
				if len(a.Value) > maxString {
					return problem.TooLarge("the SBOM holds a string of more than %d bytes", maxString)
				}
			}
		case xml.EndElement:
			depth--
		case xml.CharData:
			if len(t) > maxString {
				return problem.TooLarge("the SBOM holds a string of more than %d bytes", maxString)
			}
		}
	}
}

// check refuses what no database row should hold and fills what the parts are matched by.
func (b *Bill) check() error {
	if len(b.Components) == 0 && (b.Root == nil || b.Vulnerabilities > 0) {
		return problem.Invalid("the document names no component at all").
			Hint("a VEX document is imported as a decision, not as a bill of materials")
	}
	if len(b.Components) > MaxComponents {
		return problem.TooLarge("the SBOM lists %d components; at most %d are read", len(b.Components), MaxComponents)
	}
	for _, s := range append([]string{b.SpecVersion, b.Name, b.Version}, b.Creators...) {
		if err := text("header", s); err != nil {
			return err
		}
	}
	if b.Root != nil {
		b.Root.root = true
		if err := b.Root.check(); err != nil {
			return err
		}
	}
	for i := range b.Components {
		if err := b.Components[i].check(); err != nil {
			return err
		}
	}
	b.Files = slices.DeleteFunc(b.Files, func(f Component) bool {
		return f.Name == "" || text("file", f.Name) != nil || text("file", f.Version) != nil
	})
	for i := range b.Files {
		b.Files[i].tidy()
	}
	if text("header", b.URI) != nil {
		b.URI = ""
	}
	return nil
}

func (c *Component) check() error {
	if c.Name == "" {
		return problem.Invalid("a component has no name (version %.80q, purl %.80q)", c.Version, c.PURL)
	}
	for _, s := range []string{c.Name, c.Version, c.PURL, c.CPE, c.Type} {
		if err := text("component", s); err != nil {
			return err
		}
	}
	c.tidy()
	c.identify()
	for _, id := range append(c.Identities, Identity{c.Ecosystem, c.Package, c.PackageVersion, ""}) { // a purl may hide bytes behind %00
		for _, s := range []string{id.Space, id.Name, id.Version, id.Vendor} {
			if err := text("component", s); err != nil {
				return err
			}
		}
	}
	return nil
}

// tidy leaves out what only helps where no row or document of ours should hold it.
func (c *Component) tidy() {
	unfit := func(s string) bool { return s == "" || text("component", s) != nil }
	c.MoreCPEs, c.VCS, c.Commits = slices.DeleteFunc(c.MoreCPEs, unfit), slices.DeleteFunc(c.VCS, unfit), slices.DeleteFunc(c.Commits, unfit)
	c.Links = slices.DeleteFunc(c.Links, func(l Link) bool { return unfit(l.Kind) || unfit(l.URL) })
	c.Licences = slices.DeleteFunc(c.Licences, func(l Licence) bool { return unfit(l.String()) })
	for i := range c.Licences {
		c.Licences[i] = c.Licences[i].onTheList()
	}
	for _, s := range []*string{&c.Ref, &c.Group, &c.Scope, &c.Supplier.Name, &c.Supplier.Contact, &c.BSI.Filename, &c.BSI.Executable, &c.BSI.Archive, &c.BSI.Structured} {
		if unfit(*s) {
			*s = ""
		}
	}
}

func text(where, s string) error {
	switch {
	case len(s) > maxIdentity:
		return problem.TooLarge("a name or version in a %s is longer than %d bytes", where, maxIdentity)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return problem.Invalid("a name or version in a %s holds control characters: %.80q", where, s)
	}
	return nil
}
