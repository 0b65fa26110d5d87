// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/openthings-platform/openthings/wire"
)

// header is the first line of a bundle. No checkpoint begins with it, since no origin has spaces.
const header = "openthings evidence bundle 1\n"

// MaxBundle is the size of the largest bundle that is read, in bytes.
const MaxBundle = 64 << 20

// Document is what a bundle says. It is about a device, or about what Subject names: a case, a product.
type Document struct {
	Device     string    `json:"device,omitempty"`
	Subject    string    `json:"subject,omitempty"`
	Tenant     string    `json:"tenant"`
	LogKey     string    `json:"log_key"`    // the key that signed the bundle and the checkpoint; a claim until pinned
	Checkpoint string    `json:"checkpoint"` // signed note: origin, size, root
	Entries    []Entry   `json:"entries"`    // ascending by Index
	Sections   []Section `json:"sections"`
}

// about is the id that the bundle is about.
func (d Document) about() string {
	if d.Subject != "" {
		return d.Subject
	}
	return d.Device
}

// Entry is a leaf of the log with its payload and its inclusion proof.
type Entry struct {
	Index int64            `json:"index"`
	Leaf  wire.Leaf        `json:"leaf"`
	Data  *wire.LeafData   `json:"data"` // null once erased
	Proof tlog.RecordProof `json:"proof"`
}

// Section is what one stage of the platform knows of the device.
type Section struct {
	Name string          `json:"name"`
	Data json.RawMessage `json:"data"`
}

// Digest is what the log recorded of a section: that of its JSON without spaces.
func (s Section) Digest() (string, error) {
	var b bytes.Buffer
	if err := json.Compact(&b, s.Data); err != nil {
		return "", fmt.Errorf("section %s: %w", s.Name, err)
	}
	return wire.Digest(b.Bytes()), nil
}

// KindExported is the kind of the entry that each export leaves in the log, about what was exported.
const KindExported = "evidence.exported"

// Exported is the data of such an entry.
type Exported struct {
	Size     int64           `json:"size"`    // of the log when the export began
	Entries  int             `json:"entries"` // entries about the subject among them
	Related  []Count         `json:"related,omitempty"`
	Sections []SectionDigest `json:"sections"`
}

// Count is how many entries about a related subject the log held.
type Count struct {
	Subject string `json:"subject"`
	Entries int    `json:"entries"`
}

// SectionDigest names a section and what it held.
type SectionDigest struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
}

// Names of the sections that the verifier reads; it checks the digest alone of any other.
const (
	SectionCertificates = "certificates" // []Certificate
	SectionWipe         = "wipe"         // Wipe
	SectionCases        = "cases"        // []Case
	SectionDrills       = "drills"       // []Case, with Drill set
	SectionReports      = "reports"      // []FinderReport
)

// Certificate is one certificate of the device, in SectionCertificates. Other members may stand beside these.
type Certificate struct {
	Kind string `json:"kind"` // "idevid" or "ldevid"
	DER  []byte `json:"der"`
}

// Wipe is the device's last word, in SectionWipe. Other members may stand beside it.
type Wipe struct {
	Receipt wire.Signed `json:"receipt"` // of a wire.WipeReceipt
}

// Text is the one encoding of a document: what is signed.
func (d Document) Text() (string, error) {
	var b bytes.Buffer
	b.WriteString(header)
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(d); err != nil {
		return "", err
	}
	return b.String(), nil
}

// parse reads a document and refuses any other spelling of it.
func parse(text string) (Document, error) {
	body, ok := strings.CutPrefix(text, header)
	if !ok {
		return Document{}, errors.New("this is not an evidence bundle")
	}
	var d Document
	dec := json.NewDecoder(strings.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return Document{}, fmt.Errorf("the bundle cannot be read: %w", err)
	}
	again, err := d.Text()
	if err != nil {
		return Document{}, fmt.Errorf("the bundle cannot be read: %w", err)
	}
	if again != text {
		return Document{}, errors.New("the bundle is not in its canonical form")
	}
	return d, nil
}

// open splits a bundle into its document and checks the one signature under the document's own key.
func open(b []byte) (Document, note.Verifier, error) {
	end := bytes.LastIndex(b, []byte("\n\n"))
	if end < 0 {
		return Document{}, nil, errors.New("this is not an evidence bundle: it has no signature")
	}
	text := string(b[:end+1])
	d, err := parse(text)
	if err != nil {
		return Document{}, nil, err
	}
	v, err := note.NewVerifier(d.LogKey)
	if err != nil {
		return Document{}, nil, fmt.Errorf("the log key in the bundle: %w", err)
	}
	if _, err := openNote(b, v); err != nil {
		return Document{}, nil, err
	}
	return d, v, nil
}

// openCheckpoint checks a signed checkpoint and reads its tree.
func openCheckpoint(signed string, v note.Verifier) (tlog.Tree, error) {
	n, err := note.Open([]byte(signed), note.VerifierList(v))
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("the checkpoint is not signed by the log key: %w", err)
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) != 4 || lines[0] != v.Name() {
		return tlog.Tree{}, errors.New("the checkpoint is not one of this log")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 1 {
		return tlog.Tree{}, errors.New("the checkpoint states no size")
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return tlog.Tree{}, errors.New("the checkpoint states no root")
	}
	return tlog.Tree{N: size, Hash: root}, nil
}
