// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"bytes"
	"cmp"
	"context"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
)

// Bounds of what one sending of a finder may hold.
const (
	maxText       = 200_000  // characters
	maxFiles      = 10       // attachments
	maxFile       = 10 << 20 // bytes of one attachment
	maxSending    = 20 << 20 // bytes of all of them together
	maxDaily      = 2 << 30  // bytes of attachments that a tenant takes in 24 hours
	maxAdditions  = 200      // how often a finder may write to one report
	maxShort      = 500      // characters of a line
	decryptedText = 4 << 20  // bytes of an opened message, whatever it claims to unfold to
	decryptedFile = 40 << 20 // bytes of an opened file, likewise
)

// Words are what a finder wrote. They are sealed under the report's own key and opened only by a person, on record.
type Words struct {
	Text     string `json:"text" maxLength:"200000" doc:"The report, in the clear or as an armored PGP or age message"`
	Product  string `json:"product,omitempty" maxLength:"500" doc:"What the finder calls the product and its version"`
	Where    string `json:"where,omitempty" maxLength:"500" doc:"Seen exploited: where"`
	When     string `json:"when,omitempty" maxLength:"500" doc:"Seen exploited: when"`
	Evidence string `json:"evidence,omitempty" maxLength:"4000" doc:"Seen exploited: what shows it"`
	Files    []Name `json:"files,omitempty" doc:"The attachments of this sending"`
}

// Name is what a finder calls an attachment. Both texts are the finder's, so neither decides anything.
type Name struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Type string `json:"type,omitempty"`
}

// Finder is who reported, as far as they say. It is sealed under a key of its own, which can be destroyed alone.
type Finder struct {
	Name    string `json:"name,omitempty" maxLength:"500"`
	Contact string `json:"contact,omitempty" maxLength:"500" doc:"Mail address or another way to reach the finder"`
	Credit  string `json:"credit,omitempty" maxLength:"500" doc:"How the finder wants to be named in the advisory; empty: not at all"`
}

// Upload is an attachment as it comes.
type Upload struct {
	Name, Type string
	Body       []byte
}

// Sending is what a finder sends at once: a report, or an addition to one.
type Sending struct {
	Subject   string // one line; sealed like the words, but shown in lists
	Words     Words
	Exploited string
	Files     []Upload
}

func (x Sending) check() error {
	w := x.Words
	total := 0
	for i, f := range x.Files {
		switch total += len(f.Body); {
		case i >= maxFiles:
			return problem.TooLarge("At most %d files are taken at once.", maxFiles).At("file")
		case len(f.Body) > maxFile, total > maxSending:
			return problem.TooLarge("A file has at most %d MB, all of them %d MB.", maxFile>>20, maxSending>>20).At("file")
		case !text(f.Name, 0, 255), !text(f.Type, 0, 255):
			return problem.Invalid("A file name is too long or not UTF-8.").At("file")
		}
	}
	switch {
	case !text(w.Text, 0, maxText):
		return problem.Invalid("The text is longer than %d characters, or not UTF-8.", maxText).At("text")
	case w.Text == "" && len(x.Files) == 0:
		return problem.Invalid("Write something, or attach a file.").At("text")
	case !text(x.Subject, 0, maxShort), !text(w.Product, 0, maxShort), !text(w.Where, 0, maxShort), !text(w.When, 0, maxShort), !text(w.Evidence, 0, 4000):
		return problem.Invalid("A line is too long, or not UTF-8.")
	}
	return nil
}

// cipher is what the sending is encrypted with: its text, or else the first file that is encrypted.
func (x Sending) cipher() string {
	found := sniff([]byte(x.Words.Text))
	for _, f := range x.Files {
		found = cmp.Or(found, sniff(f.Body))
	}
	return found
}

func (f Finder) check() error {
	if !text(f.Name, 0, maxShort) || !text(f.Contact, 0, maxShort) || !text(f.Credit, 0, maxShort) {
		return problem.Invalid("A line is too long, or not UTF-8.")
	}
	return nil
}

// finderKey names the key of the finder's identity.
func finderKey(report string) string { return report + "/finder" }

// newKeys makes the keys of a report: one for what it says, one for who said it.
func (s *Service) newKeys(ctx context.Context, tenant, report string) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		return errors.Join(s.cfg.Keys.NewSubject(tx, tenant, report), s.cfg.Keys.NewSubject(tx, tenant, finderKey(report)))
	})
}

// locked seals v for one place of one report.
func locked(a cipher.AEAD, report, place string, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	return a.Seal(nil, nil, b, []byte(report+" "+place)), nil
}

func unlock(a cipher.AEAD, report, place string, sealed []byte, v any) error {
	b, err := a.Open(nil, nil, sealed, []byte(report+" "+place))
	if err != nil {
		return fmt.Errorf("%w: %s %s", seal.ErrSealed, report, place)
	}
	return json.Unmarshal(b, v)
}

// note opens the note of an event; one that does not open says so in its place.
func note(a cipher.AEAD, report string, r row) string {
	var out string
	if err := unlock(a, report, place(r.Seq, "note"), r.note, &out); err != nil {
		return "[this note does not open]"
	}
	return out
}

func place(seq int64, part string) string { return fmt.Sprintf("%d %s", seq, part) }

// put seals the files and keeps them. What is put before a row names it is at worst an orphan.
func (s *Service) put(ctx context.Context, a cipher.AEAD, report string, seq int64, files []Upload) (as []Attachment, names []Name, err error) {
	for _, f := range files {
		id := store.NewID("att")
		sealed := a.Seal(nil, nil, f.Body, []byte(report+" "+id))
		digest, _, err := s.cfg.Blobs.Put(ctx, bytes.NewReader(sealed), int64(len(sealed)))
		if err != nil {
			return nil, nil, err
		}
		as = append(as, Attachment{ID: id, Seq: seq, Size: int64(len(f.Body)), At: s.now(), digest: digest})
		names = append(names, Name{ID: id, Name: f.Name, Type: f.Type})
	}
	return as, names, nil
}
