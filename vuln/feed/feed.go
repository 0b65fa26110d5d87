// SPDX-License-Identifier: AGPL-3.0-only

package feed

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/vuln/record"
)

// Bounds of a feed.
const (
	MaxBytes      = 1 << 30 // bytes of one file as uploaded or fetched: the largest published zip has about 600 MB
	maxFeedFiles  = 500_000
	maxFeedInside = 8 << 30  // bytes once unpacked
	maxFile       = 32 << 20 // bytes of one file that is held in memory: a catalogue, a document
)

// Feed is what one look at a source brought: all of it was read and judged once. A feed may be a delta, so what it does not
// name is left alone, unless it is Whole.
type Feed struct {
	Digest    string    // "sha256:<hex>" over the files' names and contents in order
	Records   int       // records that it holds
	KEV       *KEV      // nil: none
	Exploited []Listed  // a further list of what is exploited, each CVE once; nil: none
	EPSS      *EPSS     // nil: none
	CSAF      []CSAF    // documents of providers, for vuln/vex; Read gives their bytes
	Made      time.Time // when its maker says that it was made; zero: not said
	Sequence  int64     // of a bundle or mirror with a manifest; 0: none
	Whole     bool      // the source names all it knows: a record that is not here is no longer named by it

	hashes map[string]string // record id -> content hash
	files  []entry           // that hold a record each
	bytes  int64
	closes []io.Closer
}

// entry is one file inside.
type entry struct {
	name     string
	archive  string // that it stands in
	id       string // of the record, when judged
	modified string // as the record says
	open     func() (io.ReadCloser, error)
}

// Close gives back the files that the feed reads from. What was read stays.
func (f *Feed) Close() error {
	var err error
	for _, c := range slices.Backward(f.closes) {
		err = errors.Join(err, c.Close())
	}
	f.closes = nil
	return err
}

// Held counts what the feed holds: records, entries of lists, scores and documents.
func (f *Feed) Held() int {
	n := f.Records + len(f.Exploited) + len(f.CSAF)
	if f.KEV != nil {
		n += len(f.KEV.Entries)
	}
	if f.EPSS != nil {
		n += len(f.EPSS.Scores)
	}
	return n
}

// Has says whether the feed holds a record of this name.
func (f *Feed) Has(id string) bool { return f.hashes[id] != "" }

// judge reads every file of the set, so that a feed with one broken record changes nothing.
func judge(files []File) (f *Feed, err error) {
	f = &Feed{hashes: map[string]string{}}
	defer func() {
		if err != nil {
			f.Close() //nolint:errcheck // the refusal is what counts
			f = nil
		}
	}()
	sum := sha256.New()
	for _, file := range slices.SortedStableFunc(slices.Values(files), func(a, b File) int { return cmp.Compare(a.Name, b.Name) }) {
		s, err := file.open()
		if err != nil {
			return f, problem.Invalid("%s cannot be opened", file.Name).Because(err)
		}
		magic := make([]byte, 4)
		n, err := s.ReadAt(magic, 0)
		switch {
		case n == 0:
			s.Close() //nolint:errcheck // it was only read
			return f, problem.Invalid("%s is empty", file.Name).Because(err)
		case bytes.HasPrefix(magic, []byte("PK")):
			f.closes = append(f.closes, s)
			err = f.unzip(sum, file.Name, s, file.Size, 0)
		default:
			s.Close() //nolint:errcheck // it was only read
			err = f.take(sum, entry{name: file.Name, open: func() (io.ReadCloser, error) { return file.open() }})
		}
		if err != nil {
			return f, err
		}
	}
	if f.Records = len(f.files); f.Records == 0 && f.KEV == nil && f.Exploited == nil && f.EPSS == nil && f.CSAF == nil {
		return f, problem.Invalid("the feed holds no record").
			Hint("send OSV or CVE records, a KEV or EUVD list, EPSS scores or CSAF documents, each as published or in a zip")
	}
	f.Digest = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	return f, nil
}

// Wanted says whether a file of this name can hold anything for a feed. A repository of records holds other files too.
func Wanted(name string) bool {
	switch base := path.Base(name); base {
	case "delta.json", "deltaLog.json", "recent_activities.json": // of the CVE list: what changed, which is told by content
		return false
	default:
		return strings.HasSuffix(base, ".json") || strings.HasSuffix(base, ".zip") || strings.HasSuffix(base, ".csv") || strings.HasSuffix(base, ".csv.gz")
	}
}

// take judges one file and keeps what it holds.
func (f *Feed) take(sum hash.Hash, e entry) error {
	b, err := e.read()
	if err != nil {
		return err
	}
	if f.bytes += int64(len(b)); f.bytes > maxFeedInside {
		return problem.TooLarge("the feed unpacks to more than %d bytes", int64(maxFeedInside))
	}
	fmt.Fprintf(sum, "%s %d\n", e.name, len(b))
	sum.Write(b)
	switch kindOf(b) {
	case kindScores:
		return f.takeScores(e, b)
	case kindKEV:
		if f.KEV != nil {
			return problem.Invalid("the feed has two KEV catalogues")
		}
		f.KEV, err = ParseKEV(b)
		return err
	case kindEUVD:
		if f.Exploited != nil {
			return problem.Invalid("the feed has two EUVD lists")
		}
		f.Exploited, err = ParseEUVD(b)
		return err
	case kindCSAF:
		doc, err := parseCSAF(b)
		if err != nil {
			return problem.Invalid("%s: %s", e.name, problem.Of(err).Text)
		}
		doc.Name, doc.open = e.name, e.open
		f.CSAF = append(f.CSAF, doc)
		return nil
	}
	r, err := record.Parse(b)
	if err != nil {
		return problem.Invalid("%s: %s", e.name, problem.Of(err).Text)
	}
	e.id, e.modified = r.ID, r.Modified
	switch have := f.hashes[r.ID]; have {
	case r.Hash: // a record about packages of two ecosystems stands in the archives of both
		return nil
	case "":
		f.files = append(f.files, e)
	default:
		i := slices.IndexFunc(f.files, func(other entry) bool { return other.id == r.ID })
		if other := f.files[i]; other.archive == e.archive || other.modified == e.modified {
			return problem.Invalid("the feed has two records named %s", r.ID)
		} else if other.modified > e.modified { // archives are made one after the other: the later content counts
			return nil
		}
		f.files[i] = e
	}
	f.hashes[r.ID] = r.Hash
	return nil
}

func (f *Feed) takeScores(e entry, b []byte) error {
	if f.EPSS != nil {
		return problem.Invalid("the feed has EPSS scores twice")
	}
	var err error
	if f.EPSS, err = ParseEPSS(bytes.NewReader(b)); err != nil {
		return problem.Invalid("%s: %s", e.name, problem.Of(err).Text)
	}
	if f.Made.IsZero() || f.EPSS.Date.Before(f.Made) {
		f.Made = f.EPSS.Date
	}
	return nil
}

func (e entry) read() ([]byte, error) { return e.readUpTo(maxFile) }

func (e entry) readUpTo(limit int64) ([]byte, error) {
	in, err := e.open()
	if err != nil {
		return nil, problem.Invalid("%s cannot be opened", e.name).Because(err)
	}
	defer in.Close()
	b, err := io.ReadAll(io.LimitReader(in, limit+1)) // a zip entry's stated size is not believed
	if err != nil {
		return nil, problem.Invalid("%s cannot be read whole: %v", e.name, err)
	}
	if int64(len(b)) > limit {
		return nil, problem.TooLarge("%s has more than %d bytes; so much is not read of one file", e.name, limit)
	}
	return b, nil
}

type kind int

const (
	kindRecord kind = iota
	kindKEV
	kindEUVD
	kindCSAF
	kindScores
)

// kindOf tells what a file is by its beginning and by members that nothing else has. What is none of it is read as a
// record, which then says what is wrong with it.
func kindOf(b []byte) kind {
	if bytes.HasPrefix(b, []byte{0x1f, 0x8b}) || bytes.HasPrefix(b, []byte("#model_version")) {
		return kindScores
	}
	if bytes.HasPrefix(bytes.TrimLeft(b, " \t\r\n"), []byte("[")) {
		return kindEUVD
	}
	if !bytes.Contains(b, []byte(`"catalogVersion"`)) && !bytes.Contains(b, []byte(`"csaf_version"`)) && !bytes.Contains(b, []byte(`"exploitedSince"`)) {
		return kindRecord
	}
	var m struct {
		ID       *string          `json:"id"`
		DataType *string          `json:"dataType"` // of a CVE record
		Version  *string          `json:"catalogVersion"`
		Items    *json.RawMessage `json:"items"`
		Document *struct {
			Version *string `json:"csaf_version"`
		} `json:"document"`
	}
	switch err := json.Unmarshal(b, &m); {
	case err != nil || m.ID != nil || m.DataType != nil:
		return kindRecord
	case m.Version != nil:
		return kindKEV
	case m.Document != nil && m.Document.Version != nil:
		return kindCSAF
	case m.Items != nil:
		return kindEUVD
	}
	return kindRecord
}

// Each hands over the records that want says are wanted by id and content, with their bytes.
func (f *Feed) Each(want func(id, hash string) bool, fn func(r record.Record, body []byte) error) error {
	for _, e := range f.files {
		if !want(e.id, f.hashes[e.id]) {
			continue
		}
		b, err := e.read()
		if err != nil {
			return err
		}
		r, err := record.Parse(b)
		if err != nil {
			return err
		}
		if r.ID != e.id || r.Hash != f.hashes[e.id] {
			return problem.Conflict("the feed changed while it was read: %s", e.id)
		}
		if err := fn(r, b); err != nil {
			return err
		}
	}
	return nil
}
