// SPDX-License-Identifier: AGPL-3.0-only

package eox

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// MaxDocument bounds a document, in bytes; a real one has some three hundred.
const MaxDocument = 64 << 10

// Level says what a finding means for the document.
type Level string

// An Error makes a document invalid; a Warning should have a good reason (section 7.2); a Note may be meant (section 7.3).
const (
	Error   Level = "error"
	Warning Level = "warning"
	Note    Level = "note"
)

// Finding is one rule that a document breaks.
type Finding struct {
	Rule  string `json:"rule"` // section of the specification: "6", "7.1.1", …
	Level Level  `json:"level"`
	Path  string `json:"path"` // JSON pointer, such as /end_of_life
	Text  string `json:"text"`
}

func (f Finding) String() string { return fmt.Sprintf("%s %s: %s", f.Rule, f.Path, f.Text) }

// The members of a document. Those of dated are of the type eox_timestamp_t.
var (
	dated    = []string{"end_of_life", "end_of_sales", "end_of_security_support", "general_availability"}
	members  = append([]string{"$schema", "last_updated"}, dated...)
	required = []string{"$schema", "end_of_life", "end_of_security_support", "last_updated"}
)

// pointer writes a name as a part of a JSON pointer (RFC 6901, section 3).
var pointer = strings.NewReplacer("~", "~0", "/", "~1")

// Validate checks a document against the schema and all tests (sections 6 and 7) and returns what it breaks, sorted by
// rule and path; nothing when it is valid and clean.
func Validate(b []byte) []Finding {
	var out []Finding
	fail := func(rule string, l Level, at, format string, args ...any) {
		out = append(out, Finding{rule, l, at, fmt.Sprintf(format, args...)})
	}
	texts, err := read(b)
	if err != nil {
		return []Finding{{"6", Error, "", err.Error()}}
	}
	for _, name := range required {
		if _, ok := texts[name]; !ok {
			fail("6", Error, "/"+name, "it is required")
		}
	}
	dates := map[string]Date{}
	for name, text := range texts {
		at := "/" + pointer.Replace(name)
		switch {
		case !slices.Contains(members, name):
			fail("6", Error, at, "the schema knows no such member")
		case name == "$schema":
			if text != Schema {
				fail("6", Error, at, "it must be %s", Schema)
			}
		case name == "last_updated" && text == tba:
			fail("6", Error, at, "it is a date and time, never %s", tba)
		default:
			d, ok := parseDate(text)
			if !ok {
				fail("7.1.2", Error, at, "%.40q is not a date and time of RFC 3339 with T, offset and without a leap second", text)
				continue
			}
			dates[name] = d
		}
	}
	compare(dates, fail)
	slices.SortFunc(out, func(a, b Finding) int {
		return cmp.Or(strings.Compare(a.Rule, b.Rule), strings.Compare(a.Path, b.Path), strings.Compare(a.Text, b.Text))
	})
	return out
}

// compare runs the tests about dates on those that could be read.
func compare(dates map[string]Date, fail func(rule string, l Level, at, format string, args ...any)) {
	eol, haveEOL := dates["end_of_life"]
	ga, haveGA := dates["general_availability"]
	fixed := 0 // dates other than general availability that are set
	for _, name := range dated {
		d, ok := dates[name]
		if !ok {
			continue
		}
		if haveEOL && !d.tba && eol.before(d) {
			fail("7.1.1", Error, "/end_of_life", "it lies before %s", name)
		}
		if haveGA && !ga.tba && !d.tba && d.before(ga) {
			fail("7.1.3", Error, "/general_availability", "it lies after %s", name)
		}
		if haveEOL && !eol.tba && d.tba {
			fail("7.2.1", Warning, "/"+name, "it is %s although the end of life is set", tba)
		}
		if name != "general_availability" && !d.tba {
			fixed++
		}
	}
	if haveGA && ga.tba && fixed > 0 {
		fail("7.2.2", Warning, "/general_availability", "it is %s although another date is set", tba)
	}
	sales, haveSales := dates["end_of_sales"]
	if sec, ok := dates["end_of_security_support"]; ok && haveSales && !sales.tba && sec.before(sales) {
		fail("7.3.1", Note, "/end_of_sales", "it is sold after the end of security support")
	}
}

// read takes the document apart: one object whose members are strings, each once, and nothing after it.
func read(b []byte) (map[string]string, error) {
	if len(b) > MaxDocument {
		return nil, fmt.Errorf("the document is longer than %d bytes", MaxDocument)
	}
	if !utf8.Valid(b) {
		return nil, errors.New("the document is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("the document is not a JSON object")
	}
	out := map[string]string{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, errors.New("the document is not JSON")
		}
		name := t.(string) // within an object the decoder gives names first
		if _, twice := out[name]; twice {
			return nil, fmt.Errorf("%.40q stands twice", name)
		}
		v, err := d.Token()
		if err != nil {
			return nil, errors.New("the document is not JSON")
		}
		text, ok := v.(string)
		if !ok {
			return nil, fmt.Errorf("%.40q is not a string", name)
		}
		out[name] = text
	}
	if _, err := d.Token(); err != nil {
		return nil, errors.New("the document is not JSON")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something stands after the object")
	}
	return out, nil
}
