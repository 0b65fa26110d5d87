// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// An export of the log is a stream, so that it has no limit of size and neither side holds it in memory:
//
//	openthings audit export 1
//	{ …LogHeader… }
//	{ …Entry… }              one line for each entry, in the order of the log
//	openthings audit export 1 end
//	{ …LogTrailer… }
//
//	— <origin> <base64 of key hash and Ed25519 signature>
//
// The trailer is a signed note. It states the SHA-256 of every byte before it, and holds the entry "audit.exported" in which the
// log recorded the same digest, the filter and the number of entries. A file that was cut off has no trailer.
const (
	exportHead = "openthings audit export 1\n"
	exportEnd  = "openthings audit export 1 end\n"
	maxLine    = 1 << 20 // bytes; an entry has at most 64 KiB of data, escaped
)

// KindLogExported is the kind of the entry that each export of the log leaves in it, about the tenant or the product.
const KindLogExported = "audit.exported"

// LogHeader says what an export holds.
type LogHeader struct {
	Tenant     string    `json:"tenant"`
	Product    string    `json:"product,omitempty"` // only entries about it and about what belongs to it; which those are is the platform's word
	From       time.Time `json:"from"`              // not before
	To         time.Time `json:"to"`                // before
	LogKey     string    `json:"log_key"`
	Checkpoint string    `json:"checkpoint"` // the entries are proven under this one
}

// LogExported is the data of the entry that records an export.
type LogExported struct {
	Product string    `json:"product,omitempty"`
	From    time.Time `json:"from"`
	To      time.Time `json:"to"`
	Size    int64     `json:"size"` // of the log under the header's checkpoint
	Entries int64     `json:"entries"`
	SHA256  string    `json:"sha256"` // of every byte before the trailer
}

// LogTrailer ends an export.
type LogTrailer struct {
	Record     Entry          `json:"record"`     // the entry that records the export
	Checkpoint string         `json:"checkpoint"` // under which the record stands
	Growth     tlog.TreeProof `json:"growth"`     // this checkpoint continues the header's
}

// LogReport is what an export of the log proves.
type LogReport struct {
	Product string    `json:"product,omitempty"`
	From    time.Time `json:"from"`
	To      time.Time `json:"to"`
}

// ExportWriter writes an export; what it has written so far has a digest.
type ExportWriter struct {
	w   io.Writer
	sum hash.Hash
	n   int64
}

// NewExport begins an export with its header.
func NewExport(w io.Writer, h LogHeader) (*ExportWriter, error) {
	x := &ExportWriter{sum: sha256.New()}
	x.w = io.MultiWriter(w, x.sum)
	if _, err := io.WriteString(x.w, exportHead); err != nil {
		return nil, err
	}
	return x, x.line(h)
}

func (x *ExportWriter) line(v any) error { return json.NewEncoder(x.w).Encode(v) }

// Entry writes the next entry.
func (x *ExportWriter) Entry(e Entry) error {
	x.n++
	return x.line(e)
}

// Sum is how many entries were written, and the SHA-256 of everything so far.
func (x *ExportWriter) Sum() (entries int64, digest string) {
	return x.n, hex.EncodeToString(x.sum.Sum(nil))
}

// Text is what is signed.
func (t LogTrailer) Text() (string, error) {
	b, err := json.Marshal(t)
	return exportEnd + string(b) + "\n", err
}

// export checks an export of the log as it comes in.
func (r *Report) export(in *bufio.Reader, pinned string, now time.Time) error {
	sum := sha256.New()
	next := func() ([]byte, error) {
		b, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, errors.New("a line is too long for an export of the log")
		case errors.Is(err, io.EOF):
			return nil, errors.New("the export was cut off: it has no end")
		}
		if err == nil && string(b) != exportEnd {
			sum.Write(b)
		}
		return b, err
	}
	if _, err := next(); err != nil {
		return err
	}
	b, err := next()
	if err != nil {
		return err
	}
	var h LogHeader
	if err := json.Unmarshal(b, &h); err != nil {
		return fmt.Errorf("the header cannot be read: %w", err)
	}
	if r.Tenant, r.LogKey = h.Tenant, h.LogKey; pinned != "" && h.LogKey != strings.TrimSpace(pinned) {
		return errors.New("the export names another log key than the pinned one: it does not come from that log")
	}
	v, err := note.NewVerifier(h.LogKey)
	if err != nil {
		return fmt.Errorf("the log key in the export: %w", err)
	}
	tree, err := openCheckpoint(h.Checkpoint, v)
	if err != nil {
		return err
	}
	r.Size, r.Root, r.Log = tree.N, tree.Hash.String(), &LogReport{h.Product, h.From, h.To}
	n, before := int64(0), int64(-1)
	for {
		if b, err = next(); err != nil {
			return err
		}
		if string(b) == exportEnd {
			break
		}
		var e Entry
		if err := json.Unmarshal(b, &e); err != nil {
			return fmt.Errorf("line %d cannot be read: %w", n+3, err)
		}
		at := time.UnixMilli(e.Leaf.At)
		if e.Index <= before || e.Leaf.Tenant != h.Tenant || at.Before(h.From) || !at.Before(h.To) {
			return fmt.Errorf("entry %d is out of order, of another tenant, or of another time", e.Index)
		}
		if _, err := e.check(tree); err != nil {
			return err
		}
		before, n = e.Index, n+1
	}
	r.Entries = int(n)
	digest := hex.EncodeToString(sum.Sum(nil))
	made, err := h.end(in, v, tree, n, digest)
	if err != nil {
		return err
	}
	if r.Made = made; made.After(now.Add(skew)) {
		return fmt.Errorf("the export says that it was made on %s, which is in the future", made.Format(time.DateTime))
	}
	what := "of the tenant"
	if h.Product != "" {
		what = "about the product " + h.Product + " and what belongs to it"
	}
	r.fact("All bytes of the export are as the log key of %s signed them.", v.Name())
	r.fact("Each of the %d entries stands in the log, at its place among the %d under one signed checkpoint, and each payload has the digest that its entry states.", n, tree.N)
	r.fact("The log itself recorded the export: %d entries %s from %s until %s, and the digest of the file.", n, what, h.From.Format(time.RFC3339), h.To.Format(time.RFC3339))
	return nil
}

// end checks the trailer: the signature, and that the log recorded just this export. It returns when that was.
func (h LogHeader) end(in io.Reader, v note.Verifier, tree tlog.Tree, n int64, digest string) (time.Time, error) {
	rest, err := io.ReadAll(io.LimitReader(in, maxLine))
	if err != nil {
		return time.Time{}, fmt.Errorf("the export cannot be read: %w", err)
	}
	text, err := openNote(append([]byte(exportEnd), rest...), v)
	if err != nil {
		return time.Time{}, err
	}
	var t LogTrailer
	if err := json.Unmarshal([]byte(strings.TrimPrefix(text, exportEnd)), &t); err != nil {
		return time.Time{}, fmt.Errorf("the end of the export cannot be read: %w", err)
	}
	later, err := openCheckpoint(t.Checkpoint, v)
	if err != nil {
		return time.Time{}, err
	}
	if err := tlog.CheckTree(t.Growth, later.N, later.Hash, tree.N, tree.Hash); err != nil {
		return time.Time{}, fmt.Errorf("the log at the end of the export does not continue the log at its beginning: %w", err)
	}
	if _, err := t.Record.check(later); err != nil {
		return time.Time{}, err
	}
	subject := h.Product
	if subject == "" {
		subject = h.Tenant
	}
	if l := t.Record.Leaf; l.Kind != KindLogExported || l.Tenant != h.Tenant || l.Subject != subject || t.Record.Data == nil {
		return time.Time{}, errors.New("the end of the export holds no record of it")
	}
	var x LogExported
	if err := json.Unmarshal(t.Record.Data.Data, &x); err != nil {
		return time.Time{}, fmt.Errorf("the record of the export: %w", err)
	}
	if x.Product != h.Product || !x.From.Equal(h.From) || !x.To.Equal(h.To) || x.Size != tree.N || x.Entries != n || x.SHA256 != digest {
		return time.Time{}, errors.New("the export is not the one that the log recorded: lines were changed, left out or added")
	}
	return time.UnixMilli(t.Record.Leaf.At).UTC(), nil
}

// openNote checks a text under exactly one signature, in its one spelling.
func openNote(b []byte, v note.Verifier) (string, error) {
	n, err := note.Open(b, note.VerifierList(v))
	if err != nil || len(n.Sigs) != 1 {
		return "", errors.New("the signature does not match: the file was changed, or was not signed by the key that it names")
	}
	// base64 decoders overlook unused bits and further signatures; comparing with the one spelling does not.
	sig, err := base64.StdEncoding.DecodeString(n.Sigs[0].Base64)
	if err != nil {
		return "", err
	}
	if string(b) != n.Text+"\n— "+v.Name()+" "+base64.StdEncoding.EncodeToString(sig)+"\n" {
		return "", errors.New("the signature is not in its canonical form")
	}
	return n.Text, nil
}
