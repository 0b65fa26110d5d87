// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/openthings-platform/openthings/wire"
)

// ErrUnproven is returned for a bundle that agrees with itself when there was no pinned key to compare with: anybody
// could have made it.
var ErrUnproven = errors.New("consistent, origin unproven: give the log key that you got from the manufacturer over a way that you trust")

// Report is what a bundle proves.
type Report struct {
	Proven  bool         `json:"proven"` // signed by the pinned key, and everything holds
	Device  string       `json:"device,omitempty"`
	Subject string       `json:"subject,omitempty"` // what a bundle about something else than a device is about
	Tenant  string       `json:"tenant,omitempty"`
	Made    time.Time    `json:"made,omitzero"`
	LogKey  string       `json:"log_key,omitempty"`
	Size    int64        `json:"size,omitempty"` // of the log at the checkpoint
	Root    string       `json:"root,omitempty"`
	Entries int          `json:"entries,omitempty"`
	Cases   []CaseReport `json:"cases,omitempty"`   // and drills, with their deadlines as they follow from the events
	Log     *LogReport   `json:"log,omitempty"`     // of an export of the log: what it holds
	Facts   []string     `json:"facts"`             // what was checked, in sentences
	Failure string       `json:"failure,omitempty"` // the first thing that does not hold
}

func (r *Report) fact(format string, args ...any) {
	r.Facts = append(r.Facts, fmt.Sprintf(format, args...))
}

// skew is how far a clock may be off before a bundle counts as made in the future.
const skew = 24 * time.Hour

// Bundle checks a bundle against the log key that the verifier had before, as golang.org/x/mod/sumdb/note writes it. The
// error says why it does not prove what it should; with no key it is at best ErrUnproven. The report holds what was
// proven up to there.
func Bundle(r io.Reader, verifierKey string, now time.Time) (Report, error) {
	rep := Report{Facts: []string{}}
	err := rep.check(r, verifierKey, now)
	if err == nil && verifierKey == "" {
		err = ErrUnproven
	}
	rep.Proven = err == nil
	if err != nil {
		rep.Failure = err.Error()
	}
	return rep, err
}

func (r *Report) check(file io.Reader, pinned string, now time.Time) error {
	in := bufio.NewReaderSize(file, maxLine)
	if head, _ := in.Peek(len(exportHead)); string(head) == exportHead {
		return r.export(in, pinned, now)
	}
	b, err := io.ReadAll(io.LimitReader(in, MaxBundle+1))
	if err != nil {
		return fmt.Errorf("the bundle cannot be read: %w", err)
	}
	if len(b) > MaxBundle {
		return fmt.Errorf("the bundle is larger than %d MiB", MaxBundle>>20)
	}
	d, v, err := open(b)
	if err != nil {
		return err
	}
	if (d.Device == "") == (d.Subject == "") {
		return errors.New("the bundle does not say what it is about")
	}
	r.Device, r.Subject, r.Tenant, r.LogKey = d.Device, d.Subject, d.Tenant, d.LogKey
	if pinned != "" && d.LogKey != strings.TrimSpace(pinned) {
		return errors.New("the bundle was signed by another log key than the pinned one: it does not come from that log")
	}
	r.fact("All %d bytes of the bundle are as the log key of %s signed them.", len(b), v.Name())
	if err := r.entries(d, v); err != nil {
		return err
	}
	last, err := r.completeness(d)
	if err != nil {
		return err
	}
	if r.Made = time.UnixMilli(last.At).UTC(); r.Made.After(now.Add(skew)) {
		return fmt.Errorf("the bundle says that it was made on %s, which is in the future", r.Made.Format(time.DateTime))
	}
	born, err := r.certificates(d)
	if err != nil {
		return err
	}
	if err := r.wipe(d, born); err != nil {
		return err
	}
	if err := r.cases(d); err != nil {
		return err
	}
	return r.reports(d)
}

// entries checks that every leaf stands in the log under the one checkpoint, and every payload under its leaf.
func (r *Report) entries(d Document, v note.Verifier) error {
	tree, err := openCheckpoint(d.Checkpoint, v)
	if err != nil {
		return err
	}
	r.Size, r.Root, r.Entries = tree.N, tree.Hash.String(), len(d.Entries)
	before, erased := int64(-1), 0
	for _, e := range d.Entries {
		if e.Index <= before || e.Leaf.Tenant != d.Tenant {
			return fmt.Errorf("entry %d is out of order, or of another tenant", e.Index)
		}
		before = e.Index
		gone, err := e.check(tree)
		if err != nil {
			return err
		}
		if gone {
			erased++
		}
	}
	r.fact("Each of the %d entries stands in the log, at its place among the %d under one signed checkpoint.", len(d.Entries), tree.N)
	if erased == 0 {
		r.fact("Each payload has the digest that its entry states.")
	} else {
		r.fact("Each payload has the digest that its entry states; %d were erased since, their entries stay.", erased)
	}
	return nil
}

// check proves that the entry stands in the tree and that its payload is the one of its leaf; erased says that it has none.
func (e Entry) check(tree tlog.Tree) (erased bool, err error) {
	if err := tlog.CheckRecord(e.Proof, tree.N, tree.Hash, e.Index, tlog.RecordHash(e.Leaf.Bytes())); err != nil {
		return false, fmt.Errorf("entry %d (%s) is not in the log: %w", e.Index, e.Leaf.Kind, err)
	}
	if e.Data == nil {
		return true, nil
	}
	data, err := compact(*e.Data)
	if err != nil {
		return false, fmt.Errorf("entry %d (%s): %w", e.Index, e.Leaf.Kind, err)
	}
	if data.Digest() != e.Leaf.Data {
		return false, fmt.Errorf("the payload of entry %d (%s) is not the one that the log recorded", e.Index, e.Leaf.Kind)
	}
	return false, nil
}

func compact(d wire.LeafData) (wire.LeafData, error) {
	var b bytes.Buffer
	if err := json.Compact(&b, d.Data); err != nil {
		return d, err
	}
	d.Data = b.Bytes()
	return d, nil
}

// completeness checks the counts that each export left in the log, and the sections against the last of them, which is
// that of this bundle.
func (r *Report) completeness(d Document) (last wire.Leaf, err error) {
	of := d.of(d.about())
	var x Exported
	for i, e := range of {
		if e.Leaf.Kind != KindExported || e.Data == nil {
			continue
		}
		x, last = Exported{}, e.Leaf
		if err := json.Unmarshal(e.Data.Data, &x); err != nil {
			return last, fmt.Errorf("entry %d (%s): %w", e.Index, e.Leaf.Kind, err)
		}
		if have := below(of, x.Size); have != x.Entries || have > i {
			return last, fmt.Errorf("entries about %s are missing: of the first %d of the log the bundle has %d, the log counted %d", d.about(), x.Size, have, x.Entries)
		}
	}
	if last.ID == "" {
		return last, errors.New("the log does not know of this export: the bundle has no entry " + KindExported)
	}
	r.fact("No entry about %s is missing up to the export: the log counted %d of them then.", d.about(), x.Entries)
	for _, c := range x.Related {
		if have := below(d.of(c.Subject), x.Size); have != c.Entries {
			return last, fmt.Errorf("entries about %s are missing: of the first %d of the log the bundle has %d, the log counted %d", c.Subject, x.Size, have, c.Entries)
		}
	}
	if len(x.Related) > 0 {
		r.fact("Nor is one about what belongs to it: %d further ids, each counted.", len(x.Related))
	}
	names := make([]string, len(d.Sections))
	have := make([]SectionDigest, len(d.Sections))
	for i, s := range d.Sections {
		digest, err := s.Digest()
		if err != nil {
			return last, err
		}
		names[i], have[i] = s.Name, SectionDigest{s.Name, digest}
	}
	if !slices.Equal(have, x.Sections) {
		return last, errors.New("the sections are not those that the log recorded when the bundle was made")
	}
	if len(names) > 0 {
		r.fact("The sections (%s) are those that the log recorded when the bundle was made.", strings.Join(names, ", "))
	}
	return last, nil
}

// of is the entries about an id, in their order.
func (d Document) of(id string) (out []Entry) {
	for _, e := range d.Entries {
		if e.Leaf.Subject == id {
			out = append(out, e)
		}
	}
	return out
}

// below is how many of the entries stand among the first size of the log.
func below(entries []Entry, size int64) int {
	n := slices.IndexFunc(entries, func(e Entry) bool { return e.Index >= size })
	if n < 0 {
		return len(entries)
	}
	return n
}

// section decodes a section; false if the bundle has none of that name, or it says null.
func section[T any](d Document, name string) (v T, ok bool, err error) {
	i := slices.IndexFunc(d.Sections, func(s Section) bool { return s.Name == name })
	if i < 0 || string(d.Sections[i].Data) == "null" {
		return v, false, nil
	}
	if err := json.Unmarshal(d.Sections[i].Data, &v); err != nil {
		return v, false, fmt.Errorf("section %s: %w", name, err)
	}
	return v, true, nil
}

// kindIssued is the entry in which the log records a certificate of the device.
const kindIssued = "certificate.issued"

// certificates checks that the log recorded the issue of each certificate, and returns the keys that the device was
// born with.
func (r *Report) certificates(d Document) (born []crypto.PublicKey, err error) {
	list, ok, err := section[[]Certificate](d, SectionCertificates)
	if err != nil || !ok || len(list) == 0 {
		return nil, err
	}
	issued := map[string]string{} // fingerprint -> kind
	for _, e := range d.Entries {
		if e.Leaf.Kind != kindIssued || e.Leaf.Subject != d.Device || e.Data == nil {
			continue
		}
		var x struct{ Kind, Fingerprint string }
		if err := json.Unmarshal(e.Data.Data, &x); err != nil {
			return nil, fmt.Errorf("entry %d (%s): %w", e.Index, e.Leaf.Kind, err)
		}
		issued[x.Fingerprint] = x.Kind
	}
	for _, c := range list {
		cert, err := x509.ParseCertificate(c.DER)
		if err != nil {
			return nil, fmt.Errorf("the %s in the bundle: %w", c.Kind, err)
		}
		fp := sha256.Sum256(cert.Raw)
		if kind, ok := issued[hex.EncodeToString(fp[:])]; !ok || kind != c.Kind {
			return nil, fmt.Errorf("the log did not record the issue of the %s with serial number %x", c.Kind, cert.SerialNumber)
		}
		if c.Kind == "idevid" {
			born = append(born, cert.PublicKey)
		}
	}
	r.fact("Of each certificate (%d) the log recorded that it was issued to this device.", len(list))
	return born, nil
}

// wipe checks the device's last word under the key in its IDevID.
func (r *Report) wipe(d Document, born []crypto.PublicKey) error {
	w, ok, err := section[Wipe](d, SectionWipe)
	if err != nil || !ok {
		return err
	}
	var receipt wire.WipeReceipt
	signed := func(key crypto.PublicKey) bool { return w.Receipt.Open(key, &receipt) == nil }
	if !slices.ContainsFunc(born, signed) {
		return errors.New("the wipe receipt was not signed by the key of an IDevID in the bundle")
	}
	if receipt.Device != d.Device {
		return fmt.Errorf("the wipe receipt is of %s, not of this device", receipt.Device)
	}
	r.fact("The device itself (serial number %s) signed with its IDevID key that it erased %s, on %s.",
		receipt.Serial, strings.Join(receipt.Areas, ", "), time.UnixMilli(receipt.At).UTC().Format(time.DateTime))
	return nil
}
