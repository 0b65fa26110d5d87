// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
)

// TwinDelta tells a device what it shall be like; on state/desired. It holds Full or Patch, never both. The device keeps it
// before it acknowledges the packet. One whose Base is not the version that the device holds is not applied: the device
// asks for the whole with TwinReport.Resync.
type TwinDelta struct {
	Version int64           `json:"version"`         // of the desired state, after this; from 1
	Base    int64           `json:"base,omitempty"`  // Patch leads from this version to Version
	Full    json.RawMessage `json:"full,omitempty"`  // the whole desired state
	Patch   json.RawMessage `json:"patch,omitempty"` // a merge patch (RFC 7396)
}

// TwinReport says what a device is like; on state/reported. It holds Full, Patch or neither.
type TwinReport struct {
	Boot    uint64          `json:"boot,omitempty"`   // counts the device's starts; with Seq an older report never undoes a newer one
	Seq     uint64          `json:"seq,omitempty"`    // counts reports since boot, from 1
	Applied int64           `json:"applied"`          // the version of the desired state that the device goes by; 0: none yet
	Full    json.RawMessage `json:"full,omitempty"`   // the whole reported state
	Patch   json.RawMessage `json:"patch,omitempty"`  // a merge patch (RFC 7396) to it
	Failed  int64           `json:"failed,omitempty"` // the version that the device could not apply
	Error   string          `json:"error,omitempty"`  // why not
	Resync  bool            `json:"resync,omitempty"` // the device asks for the whole desired state
}

// Limits of the documents of a twin.
const (
	MaxTwin      = 32 << 10 // bytes of each document, and of a patch
	MaxTwinDepth = 8        // objects and arrays in each other
)

// Doc is a document of a twin: a JSON object whose numbers are json.Number, so that they stay as they were written.
type Doc map[string]any

// ErrTwin is why bytes are no document of a twin.
var ErrTwin = errors.New("not a document of a twin")

// ParseDoc reads a document: an object without null, since a merge patch could not tell it from an absence.
func ParseDoc(b []byte) (Doc, error) {
	d, err := ParsePatch(b)
	if err == nil {
		err = d.Check()
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

// Check says whether the document, such as one that was merged, keeps the limits.
func (d Doc) Check() error {
	switch {
	case hasNull(map[string]any(d)):
		return fmt.Errorf("%w: null has no place in it", ErrTwin)
	case depth(map[string]any(d)) > MaxTwinDepth:
		return fmt.Errorf("%w: it is more than %d levels deep", ErrTwin, MaxTwinDepth)
	}
	return fits(len(d.Bytes()))
}

func fits(bytes int) error {
	if bytes > MaxTwin {
		return fmt.Errorf("%w: it has %d bytes, at most %d are allowed", ErrTwin, bytes, MaxTwin)
	}
	return nil
}

// ParsePatch reads a merge patch: an object in which null removes a member.
func ParsePatch(b []byte) (Doc, error) {
	if err := fits(len(b)); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var doc map[string]any
	if err := d.Decode(&doc); err != nil || doc == nil {
		return nil, fmt.Errorf("%w: it is no JSON object", ErrTwin)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("%w: something follows the object", ErrTwin)
	}
	if depth(doc) > MaxTwinDepth {
		return nil, fmt.Errorf("%w: it is more than %d levels deep", ErrTwin, MaxTwinDepth)
	}
	return doc, nil
}

// Bytes is the document as JSON, its members in order.
func (d Doc) Bytes() []byte {
	if d == nil {
		return []byte("{}")
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(map[string]any(d)); err != nil {
		panic("wire: a document that cannot be written: " + err.Error()) // ParseDoc and Merge make none
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

// Merge applies a merge patch as RFC 7396 says and returns the result; d stays as it is.
func (d Doc) Merge(patch Doc) Doc {
	return merge(map[string]any(d), map[string]any(patch)).(map[string]any)
}

func merge(target, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	t, _ := target.(map[string]any)
	out := make(map[string]any, len(t)+len(p))
	for k, v := range t {
		out[k] = v
	}
	for k, v := range p {
		if v == nil {
			delete(out, k)
		} else {
			out[k] = merge(out[k], v)
		}
	}
	return out
}

// Diff is the merge patch that leads from one document to another.
func Diff(from, to Doc) Doc {
	out := Doc{}
	for k := range from {
		if _, ok := to[k]; !ok {
			out[k] = nil
		}
	}
	for k, v := range to {
		old, ok := from[k]
		if ok && reflect.DeepEqual(old, v) {
			continue
		}
		a, aok := old.(map[string]any)
		b, bok := v.(map[string]any)
		if aok && bok {
			out[k] = map[string]any(Diff(a, b))
		} else {
			out[k] = v
		}
	}
	return out
}

func hasNull(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case map[string]any:
		for _, m := range v {
			if hasNull(m) {
				return true
			}
		}
	case []any:
		for _, m := range v {
			if hasNull(m) {
				return true
			}
		}
	}
	return false
}

func depth(v any) int {
	most := 0
	switch v := v.(type) {
	case map[string]any:
		for _, m := range v {
			most = max(most, depth(m))
		}
	case []any:
		for _, m := range v {
			most = max(most, depth(m))
		}
	default:
		return 0
	}
	return most + 1
}
