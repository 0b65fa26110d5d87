// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"
)

// maxDepth bounds nesting; the deepest document of ours has six levels.
const maxDepth = 16

// parse reads one JSON value into map[string]any, []any, string, int64, bool or nil. Unlike encoding/json it refuses
// repeated members, fractions, invalid UTF-8, and it never matches member names by folding case.
func parse(b []byte, limit int) (any, error) {
	if len(b) > limit {
		return nil, refuse(RuleFormat, "the document has %d bytes, more than %d", len(b), limit)
	}
	if !utf8.Valid(b) {
		return nil, refuse(RuleFormat, "the document is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	v, err := parseValue(d, 0)
	if err != nil {
		return nil, refuse(RuleFormat, "the document is not the JSON expected: %v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, refuse(RuleFormat, "something follows the document")
	}
	return v, nil
}

func parseValue(d *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case json.Number:
		return strconv.ParseInt(string(t), 10, 64)
	case json.Delim:
		if t == '[' {
			return parseArray(d, depth)
		}
		return parseObject(d, depth)
	}
	return t, nil
}

func parseArray(d *json.Decoder, depth int) (any, error) {
	list := []any{}
	for d.More() {
		v, err := parseValue(d, depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	_, err := d.Token()
	return list, err
}

func parseObject(d *json.Decoder, depth int) (any, error) {
	o := map[string]any{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		name, ok := t.(string)
		if !ok {
			return nil, fmt.Errorf("%v where a member name belongs", t)
		}
		if _, twice := o[name]; twice {
			return nil, fmt.Errorf("member %q stands twice", name)
		}
		if o[name], err = parseValue(d, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := d.Token()
	return o, err
}

// canonical is OLPC canonical JSON, which TUF signs: sorted members, no white space, only " and \ escaped.
func canonical(v any) []byte {
	var b bytes.Buffer
	writeCanonical(&b, v)
	return b.Bytes()
}

func writeCanonical(b *bytes.Buffer, v any) {
	switch v := v.(type) {
	case map[string]any:
		b.WriteByte('{')
		for i, k := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				b.WriteByte(',')
			}
			writeCanonicalString(b, k)
			b.WriteByte(':')
			writeCanonical(b, v[k])
		}
		b.WriteByte('}')
	case []any:
		b.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			writeCanonical(b, e)
		}
		b.WriteByte(']')
	case string:
		writeCanonicalString(b, v)
	case int64:
		b.WriteString(strconv.FormatInt(v, 10))
	case bool:
		b.WriteString(strconv.FormatBool(v))
	case nil:
		b.WriteString("null")
	default:
		panic(fmt.Sprintf("trust: canonical JSON of %T", v)) // only parse and our own writers build these trees
	}
}

func writeCanonicalString(b *bytes.Buffer, s string) {
	b.WriteByte('"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	b.WriteByte('"')
}

// object reads members by exact name and remembers the first thing that was not as it should be.
type object struct {
	m   map[string]any
	err *error
}

func newObject(v any, err *error) object {
	m, ok := v.(map[string]any)
	if !ok && *err == nil {
		*err = refuse(RuleFormat, "an object is missing")
	}
	return object{m, err}
}

func member[T any](o object, name string, required bool) T {
	v, ok := o.m[name]
	t, typed := v.(T)
	if !typed && (ok || required) && *o.err == nil {
		*o.err = refuse(RuleFormat, "member %q is missing or of the wrong type", name)
	}
	return t
}

func (o object) text(name string) string       { return member[string](o, name, true) }
func (o object) optional(name string) string   { return member[string](o, name, false) }
func (o object) number(name string) int64      { return member[int64](o, name, true) }
func (o object) optionalNumber(n string) int64 { return member[int64](o, n, false) }
func (o object) object(name string) object {
	return object{member[map[string]any](o, name, true), o.err}
}

func (o object) texts(name string) []string {
	var out []string
	for _, v := range member[[]any](o, name, true) {
		s, ok := v.(string)
		if !ok && *o.err == nil {
			*o.err = refuse(RuleFormat, "%q holds something that is not text", name)
		}
		out = append(out, s)
	}
	return out
}
