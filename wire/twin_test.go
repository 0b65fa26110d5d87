// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

// The examples of RFC 7396, appendix A, that are about objects.
func TestMergePatchAsTheRFCSays(t *testing.T) {
	for _, c := range [][3]string{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
	} {
		d, err := ParseDoc([]byte(c[0]))
		if err != nil {
			t.Fatal(err)
		}
		p, err := ParsePatch([]byte(c[1]))
		if err != nil {
			t.Fatal(err)
		}
		before := string(d.Bytes())
		if got := string(d.Merge(p).Bytes()); got != c[2] {
			t.Errorf("%s patched with %s is %s, want %s", c[0], c[1], got, c[2])
		}
		if string(d.Bytes()) != before {
			t.Errorf("the document itself was changed: %s", d.Bytes())
		}
	}
}

func TestBadDocsAreRefused(t *testing.T) {
	for what, s := range map[string]string{
		"empty": "", "list": "[]", "null": "null", "number": "1", "a second one": "{} {}", "cut": `{"a":`, "null inside": `{"a":[{"b":null}]}`,
		"long": `{"a":"` + strings.Repeat("x", MaxTwin) + `"}`, "deep": strings.Repeat(`{"a":`, MaxTwinDepth) + "[]" + strings.Repeat("}", MaxTwinDepth),
	} {
		if d, err := ParseDoc([]byte(s)); !errors.Is(err, ErrTwin) {
			t.Errorf("%s: %v, %v", what, d, err)
		}
	}
	if _, err := ParseDoc([]byte(strings.Repeat(`{"a":`, MaxTwinDepth-1) + "[]" + strings.Repeat("}", MaxTwinDepth-1))); err != nil {
		t.Errorf("the deepest: %v", err)
	}
}

// FuzzTwin: whatever is a document stays one: written and read again it is the same, and the difference of two, applied to
// the first, is the second.
func FuzzTwin(f *testing.F) {
	f.Add([]byte(`{"a":{"b":1.50,"c":[1,{"d":true}]}}`), []byte(`{"a":{"b":null},"e":"<&>"}`))
	f.Add([]byte(`{"a":5}`), []byte(`{"a":{"b":{}}}`))
	f.Add([]byte(`{"":""}`), []byte(`{"a":1e999}`))
	f.Add([]byte(`{"a":"\u0000\ud800"}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		from, err := ParseDoc(a)
		if err != nil {
			return
		}
		if again, err := ParseDoc(from.Bytes()); len(from.Bytes()) <= MaxTwin && (err != nil || !reflect.DeepEqual(again, from)) {
			t.Errorf("%s reads back as %s, %v", from.Bytes(), again.Bytes(), err)
		}
		patch, err := ParsePatch(b)
		if err != nil {
			return
		}
		to := from.Merge(patch)
		if hasNull(map[string]any(to)) && !hasNullList(map[string]any(patch)) {
			t.Errorf("%s patched with %s holds null: %s", a, b, to.Bytes())
		}
		if got := from.Merge(Diff(from, to)); !reflect.DeepEqual(got, to) && !hasNull(map[string]any(to)) {
			t.Errorf("from %s the difference leads to %s, not to %s", from.Bytes(), got.Bytes(), to.Bytes())
		}
	})
}

// hasNullList says whether a null stands in an array, where a merge patch means it literally.
func hasNullList(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for _, m := range v {
			if hasNullList(m) {
				return true
			}
		}
	case []any:
		return hasNull(v)
	}
	return false
}
