// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"crypto/sha256"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// Output is a form in which a bill is written.
type Output string

// The forms in which a bill is written, all of them JSON.
const (
	CycloneDX16 Output = "cyclonedx-1.6"
	CycloneDX17 Output = "cyclonedx-1.7"
	SPDX23      Output = "spdx-2.3"
	SPDX301     Output = "spdx-3.0.1"
)

// Outputs lists the forms, the default first.
var Outputs = []Output{CycloneDX16, CycloneDX17, SPDX301, SPDX23}

// Tool is what our documents name as their tool.
const Tool = "openthings sbom"

// Write writes the bill. The same bill gives the same bytes; the document's own number is made from its content. What no
// field of the form can hold is left out: what is kept for ten years is the original, not a copy.
func (b Bill) Write(form Output) ([]byte, error) {
	b.nameParts()
	switch form {
	case CycloneDX16, CycloneDX17:
		return b.writeCycloneDX(form)
	case SPDX23:
		return b.writeSPDX2()
	case SPDX301:
		return b.writeSPDX3()
	}
	return nil, problem.Invalid("a bill of materials cannot be written as %q", form).Hint("choose %s", problem.Or(Outputs)).At("format")
}

// nameParts gives every part a reference of its own, and the relations with it. A reference that two parts share stays
// with the first.
func (b *Bill) nameParts() {
	taken, names := map[string]bool{}, map[string]string{}
	name := func(c *Component, otherwise string) {
		old := c.Ref
		if c.Ref == "" || taken[c.Ref] {
			c.Ref = otherwise
		}
		for n := 2; taken[c.Ref]; n++ {
			c.Ref = fmt.Sprintf("%s-%d", otherwise, n)
		}
		taken[c.Ref] = true
		if _, known := names[old]; !known && old != "" {
			names[old] = c.Ref
		}
	}
	if b.Root == nil {
		b.Root = &Component{Name: b.Name, Version: b.Version, Type: "firmware"}
		if b.Name == "" {
			b.Root.Name = "unnamed"
		}
	}
	root := *b.Root
	b.Root = &root
	name(b.Root, "root")
	b.Components, b.Files = slices.Clone(b.Components), slices.Clone(b.Files)
	for i := range b.Components {
		name(&b.Components[i], fmt.Sprintf("part-%d", i+1))
	}
	for i := range b.Files {
		name(&b.Files[i], fmt.Sprintf("file-%d", i+1))
	}
	var relations []Relation
	for _, r := range b.Relations {
		from, to := names[r.From], names[r.To]
		if known := (Relation{from, r.Kind, to}); from != "" && to != "" && from != to {
			relations = append(relations, known)
		}
	}
	slices.SortFunc(relations, func(x, y Relation) int {
		return strings.Compare(x.From+"\x00"+string(x.Kind)+"\x00"+x.To, y.From+"\x00"+string(y.Kind)+"\x00"+y.To)
	})
	b.Relations = slices.Compact(relations)
}

// uuidOf is a name-based identifier over a document: RFC 9562, version 8.
func uuidOf(doc []byte) string {
	id := sha256.Sum256(doc)
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:16])
}

// noDate is what SPDX, where a date is mandatory, gets from us for a bill without one; read as none.
const noDate = "1970-01-01T00:00:00Z"

func (b Bill) date() string {
	if b.Created.IsZero() {
		return noDate
	}
	return b.Created.UTC().Format(time.RFC3339)
}

// dated reads a document's date. Generators leave it out or write no date: graded, not refused.
func dated(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || s == noDate {
		return time.Time{}
	}
	return t
}

// creator splits "Tool: syft 1.57" and "Organization: Lamp GmbH (security@lamp.example)".
func creator(s string) (kind string, who Supplier) {
	kind, name, ok := strings.Cut(s, ": ")
	if !ok || !slices.Contains([]string{"Tool", "Organization", "Person"}, kind) {
		return "Organization", written(s)
	}
	if kind == "Tool" {
		return kind, Supplier{Name: name}
	}
	return kind, written(name)
}

// isURL reports what a schema takes as an address.
func isURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Scheme != "" && !strings.ContainsAny(s, " <>\"{}|\\^`") && (u.Host != "" || u.Opaque != "" || u.Path != "")
}

var digestLengths = map[string]int{"MD5": 32, "SHA-1": 40, "SHA-256": 64, "SHA-384": 96, "SHA-512": 128, "SHA3-256": 64, "SHA3-384": 96, "SHA3-512": 128,
	"BLAKE2b-256": 64, "BLAKE2b-384": 96, "BLAKE2b-512": 128, "BLAKE3": 64}

// goodHashes are the digests that have the length of their algorithm.
func goodHashes(list []Hash) []Hash {
	return slices.DeleteFunc(slices.Clone(list), func(h Hash) bool { return digestLengths[h.Algorithm] != len(h.Value) })
}

// expression is what may stand in a field for SPDX licence expressions.
var expression = regexp.MustCompile(`^[A-Za-z0-9.+:() -]+$`)

// licenceExpression joins all licences into one SPDX expression; words that are none become references, which add collects.
func (c Component) licenceExpression(add func(words string) string) string {
	var all []string
	for _, l := range c.Licences {
		s := l.ID + l.Expression
		if s == "" || !expression.MatchString(s) {
			s = add(l.String())
		}
		if len(c.Licences) > 1 && strings.Contains(s, " ") {
			s = "(" + s + ")"
		}
		all = append(all, s)
	}
	return strings.Join(all, " AND ")
}
