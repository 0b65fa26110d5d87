// SPDX-License-Identifier: AGPL-3.0-only

package vex

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/problem"
)

// Bounds of a document. Whatever exceeds them is refused with problem.TooLarge.
const (
	MaxBytes      = 15 << 20 // what CSAF 2.0, appendix C.1, wants to be accepted
	MaxStatements = 20_000
	maxPairs      = 200_000 // products and their components over all statements
	maxText       = 16 << 10
	maxName       = 2048
	MaxIdents     = 50
	maxUnread     = 100
)

// Parse reads an OpenVEX, CycloneDX or CSAF document. Every error is a problem.Error that names what is wrong.
func Parse(b []byte) (Document, error) {
	if len(b) > MaxBytes {
		return Document{}, problem.TooLarge("A VEX document is at most %d bytes.", MaxBytes)
	}
	body := bytes.TrimLeft(bytes.TrimPrefix(b, []byte("\ufeff")), " \t\r\n")
	d, err := parse(body)
	if err != nil {
		return Document{}, err
	}
	sum := sha256.Sum256(b)
	d.Digest = "sha256:" + hex.EncodeToString(sum[:])
	if err := d.bound(); err != nil {
		return Document{}, err
	}
	for i := range d.Statements {
		s := &d.Statements[i]
		if s.At.IsZero() {
			s.At = d.At
		}
		if s.Justification != "" && s.Status != NotAffected {
			d.unread("A justification stands beside the status %s and was left out.", s.Status)
			s.Justification = ""
		}
	}
	d.Statements = Normal(d.Statements)
	return d, nil
}

func parse(body []byte) (Document, error) {
	if bytes.HasPrefix(body, []byte("<")) {
		return parseCycloneDX(body)
	}
	var kind struct {
		Context   json.RawMessage `json:"@context"`
		BOMFormat string          `json:"bomFormat"`
		Document  struct {
			Version string `json:"csaf_version"`
		} `json:"document"`
	}
	if err := json.Unmarshal(body, &kind); err != nil {
		return Document{}, notVEX().Because(err)
	}
	switch {
	case kind.BOMFormat == "CycloneDX":
		return parseCycloneDX(body)
	case kind.Document.Version != "":
		return parseCSAF(body)
	case bytes.Contains(kind.Context, []byte("openvex")):
		return parseOpenVEX(body)
	}
	return Document{}, notVEX()
}

func notVEX() *problem.Error {
	return problem.Invalid("This is not a VEX document that can be read.").
		Hint("send OpenVEX 0.2.0, CycloneDX 1.4 to 1.7 with analysed vulnerabilities, or CSAF 2.0")
}

// unread notes once what is not taken over.
func (d *Document) unread(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	if len(d.Unread) < maxUnread && !slices.Contains(d.Unread, s) {
		d.Unread = append(d.Unread, s)
	}
}

// bound refuses what no database row should hold, and statements that say nothing.
func (d *Document) bound() error {
	if len(d.Statements) > MaxStatements {
		return problem.TooLarge("The document has %d statements; at most %d are read.", len(d.Statements), MaxStatements)
	}
	if err := short("document", d.ID, d.Version, d.Author); err != nil {
		return err
	}
	pairs := 0
	for i := range d.Statements {
		s := &d.Statements[i]
		if err := s.bound(); err != nil {
			return err
		}
		for _, p := range s.Products {
			if pairs += max(1, len(p.Components)); pairs > maxPairs {
				return problem.TooLarge("The document speaks of products and components more than %d times.", maxPairs)
			}
		}
	}
	return nil
}

func (s *Statement) bound() error {
	if len(names(s.Idents)) == 0 {
		return problem.Invalid("A statement does not name its vulnerability.")
	}
	if len(s.Idents) > MaxIdents {
		return problem.TooLarge("A vulnerability has %d names; at most %d are read.", len(s.Idents), MaxIdents)
	}
	if err := short("name of a vulnerability", s.Idents...); err != nil {
		return err
	}
	if !s.Status.Known() {
		return problem.Invalid("%.40q is not a status.", s.Status).Hint("VEX knows under_investigation, affected, not_affected and fixed")
	}
	if s.Justification != "" && !slices.Contains(Justifications, s.Justification) {
		return problem.Invalid("%.80q is not a justification.", s.Justification)
	}
	if len(s.Products) == 0 {
		return problem.Invalid("The statement on %s names no product.", s.Idents[0])
	}
	for _, p := range s.Products {
		for _, r := range append([]Ref{p.Ref}, p.Components...) {
			if r.empty() {
				return problem.Invalid("The statement on %s speaks of a product or component without a name.", s.Idents[0])
			}
			if err := short("product", r.ID, r.PURL, r.CPE, r.Digest, r.Name, r.Version, r.Range); err != nil {
				return err
			}
		}
	}
	for _, t := range []string{s.Summary, s.Detail, s.Action} {
		if len(t) > maxText {
			return problem.TooLarge("A text on %s has %d bytes; at most %d are read.", s.Idents[0], len(t), maxText)
		}
		if !utf8.ValidString(t) || strings.ContainsRune(t, 0) {
			return problem.Invalid("A text on %s is not a text.", s.Idents[0])
		}
	}
	return nil
}

func short(where string, texts ...string) error {
	for _, s := range texts {
		switch {
		case len(s) > maxName:
			return problem.TooLarge("A %s is longer than %d bytes.", where, maxName)
		case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return problem.Invalid("A %s holds control characters: %.80q", where, s)
		}
	}
	return nil
}

// Write gives the document's bytes in a format. A document that would contradict itself is refused: within one, a
// component of a product has one status per vulnerability.
func Write(d Document, f Format) ([]byte, error) {
	d.Statements = Normal(d.Statements)
	if err := d.writable(); err != nil {
		return nil, err
	}
	switch f {
	case OpenVEX:
		return writeOpenVEX(d)
	case CycloneDX:
		return writeCycloneDX(d)
	case CSAF:
		return writeCSAF(d)
	}
	return nil, problem.Invalid("%.40q is not a format of VEX.", f).Hint("use openvex, cyclonedx or csaf")
}

func (d *Document) writable() error {
	if v, err := strconv.Atoi(d.Version); err != nil || v < 1 {
		return problem.Invalid("The version of a document is a whole number from 1, not %.40q.", d.Version)
	}
	if d.ID == "" || d.Author == "" || d.At.IsZero() {
		return problem.Invalid("A VEX document has an id, an author and a date.")
	}
	if len(d.Statements) == 0 {
		return problem.NotFound("Nothing was decided that could be stated.")
	}
	if err := d.bound(); err != nil {
		return err
	}
	type about struct {
		ident         string
		product, part Ref
	}
	said := map[about]bool{}
	for _, s := range d.Statements {
		switch {
		case s.Justification != "" && s.Status != NotAffected:
			return problem.Invalid("%s: a justification belongs to not_affected only.", s.Idents[0])
		case s.Status == NotAffected && s.Justification == "" && s.Detail == "":
			return problem.Invalid("%s: not_affected needs a justification or a text that says why.", s.Idents[0])
		}
		for _, p := range s.Products {
			parts := p.Components
			if len(parts) == 0 {
				parts = []Ref{{}}
			}
			for _, c := range parts {
				a := about{s.Idents[0], p.Ref, c}
				if said[a] {
					return problem.Invalid("%s: two statements are about the same component of the same product.", s.Idents[0])
				}
				said[a] = true
			}
		}
	}
	return nil
}

// readTime reads an RFC 3339 instant; what is none is zero, so that the document's own date counts.
func readTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

func writeTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// paragraphs joins texts, each once.
func paragraphs(texts ...string) string {
	var out []string
	for _, t := range texts {
		if t = strings.TrimSpace(t); t != "" && !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	return strings.Join(out, "\n\n")
}
