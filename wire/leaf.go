// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Leaf is one entry of the audit log, as hashed: RecordHash(Leaf.Bytes()) of RFC 6962 is its place in the tree.
// Data never enters the hash itself, only its digest does, so that Data can be erased while the proof stays valid.
type Leaf struct {
	ID      string `json:"id"`
	At      int64  `json:"at"`     // ms since 1970 UTC
	Tenant  string `json:"tenant"` // "" is the platform itself
	Actor   string `json:"actor"`
	Kind    string `json:"kind"`    // noun.verb
	Subject string `json:"subject"` // the id it is about
	Data    string `json:"data"`    // digest of the payload: "sha256:…" over salt and JSON, see LeafData
}

// LeafData is the payload of a leaf. Salt (32 hex digits) keeps a guessable payload from being confirmed by its digest.
type LeafData struct {
	Salt string          `json:"salt"`
	Data json.RawMessage `json:"data"`
}

// Digest is what Leaf.Data holds.
func (d LeafData) Digest() string {
	return Digest(append([]byte(d.Salt+"\n"), d.Data...))
}

// Bytes is the leaf's one encoding: its JSON with the members in the order above and no HTML escaping.
func (l Leaf) Bytes() []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(l); err != nil { // strings and an int: cannot fail
		panic(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// ParseLeaf reads Bytes back and refuses any other spelling of the same leaf.
func ParseLeaf(b []byte) (Leaf, error) {
	var l Leaf
	if err := json.Unmarshal(b, &l); err != nil {
		return Leaf{}, fmt.Errorf("leaf: %w", err)
	}
	if !bytes.Equal(l.Bytes(), b) {
		return Leaf{}, fmt.Errorf("leaf: not in canonical form")
	}
	return l, nil
}
