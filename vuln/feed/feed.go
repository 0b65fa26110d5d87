// SPDX-License-Identifier: AGPL-3.0-only

package feed

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/vuln/record"
)

// Bounds of a feed.
const (
	MaxBytes      = 256 << 20 // bytes as uploaded
	maxFeedFiles  = 500_000
	maxFeedInside = 4 << 30 // bytes once unpacked
	maxKEV        = 32 << 20
)

// Feed is a set of files, each an OSV record or the catalogue of known exploited vulnerabilities (KEV), that were all
// read and judged once. Files that do not end in .json are not looked at.
type Feed struct {
	Digest  string // "sha256:<hex>" over the files' names and contents in order
	Records int
	hashes  map[string]string // record id -> content hash
	KEV     *KEV              // nil: none
	files   []feedFile
}

type feedFile struct {
	name string
	open func() (io.ReadCloser, error)
}

// KEV is the catalogue of known exploited vulnerabilities as CISA publishes it.
type KEV struct {
	Version  string     `json:"catalogVersion"`
	Released time.Time  `json:"dateReleased"`
	Count    int        `json:"count"`
	Entries  []KEVEntry `json:"vulnerabilities"`
}

// KEVEntry is one exploited vulnerability.
type KEVEntry struct {
	CVE        string `json:"cveID"`
	Added      string `json:"dateAdded"` // YYYY-MM-DD
	Ransomware string `json:"knownRansomwareCampaignUse,omitempty"`
}

// ParseKEV reads the catalogue and refuses one that was cut short: it states how many entries it has.
func ParseKEV(b []byte) (*KEV, error) {
	if len(b) > maxKEV {
		return nil, problem.TooLarge("the KEV catalogue has %d bytes; at most %d are read", len(b), maxKEV)
	}
	var k KEV
	if err := json.Unmarshal(b, &k); err != nil {
		return nil, problem.Invalid("the KEV catalogue cannot be read: %v", err)
	}
	if k.Version == "" || k.Count != len(k.Entries) {
		return nil, problem.Invalid("the KEV catalogue says it has %d entries and has %d", k.Count, len(k.Entries))
	}
	seen := make(map[string]bool, len(k.Entries))
	for _, e := range k.Entries {
		if !strings.HasPrefix(e.CVE, "CVE-") || !record.Identifier.MatchString(e.CVE) {
			return nil, problem.Invalid("the KEV catalogue names %.80q, which is no CVE", e.CVE)
		}
		if _, err := time.Parse(time.DateOnly, e.Added); err != nil {
			return nil, problem.Invalid("the KEV catalogue gives %s the date %.40q", e.CVE, e.Added)
		}
		if seen[e.CVE] {
			return nil, problem.Invalid("the KEV catalogue lists %s twice", e.CVE)
		}
		seen[e.CVE] = true
	}
	return &k, nil
}

// Open reads a feed from a zip or JSON file of size bytes.
func Open(r io.ReaderAt, size int64) (*Feed, error) {
	if size > MaxBytes {
		return nil, problem.TooLarge("the feed has %d bytes; at most %d are read", size, MaxBytes)
	}
	magic := make([]byte, 4)
	if n, err := r.ReadAt(magic, 0); err != nil && (err != io.EOF || n == 0) {
		return nil, problem.Invalid("the feed is empty")
	}
	if !bytes.HasPrefix(magic, []byte("PK")) {
		return newFeed([]feedFile{{name: "feed.json", open: func() (io.ReadCloser, error) {
			return io.NopCloser(io.NewSectionReader(r, 0, size)), nil
		}}})
	}
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, problem.Invalid("the feed is not a whole zip file: %v", err)
	}
	if len(z.File) > maxFeedFiles {
		return nil, problem.TooLarge("the feed has %d files; at most %d are read", len(z.File), maxFeedFiles)
	}
	var files []feedFile
	seen := map[string]bool{}
	for _, f := range z.File {
		if !fs.ValidPath(strings.TrimSuffix(f.Name, "/")) {
			return nil, problem.Invalid("the feed names a file outside itself: %.80q", f.Name)
		}
		if seen[f.Name] {
			return nil, problem.Invalid("the feed has two files named %.80q", f.Name)
		}
		seen[f.Name] = true
		files = append(files, feedFile{f.Name, f.Open})
	}
	return newFeed(files)
}

// OpenPath reads a feed from a file, or from all .json files of a folder and its folders. A zip file is closed with
// the process: this is for the command line.
func OpenPath(name string) (*Feed, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, problem.NotFound("there is no feed %s", name).Because(err)
	}
	if !info.IsDir() {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("feed: %w", err)
		}
		return Open(f, info.Size())
	}
	var files []feedFile
	root := os.DirFS(name)
	err = fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, feedFile{p, func() (io.ReadCloser, error) { return root.Open(p) }})
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("feed: %w", err)
	}
	return newFeed(files)
}

// newFeed judges every file, so that a feed with one broken record changes nothing.
func newFeed(files []feedFile) (*Feed, error) {
	f := &Feed{hashes: map[string]string{}}
	sum, total := sha256.New(), int64(0)
	for _, file := range files {
		if path.Ext(file.name) != ".json" {
			continue
		}
		b, err := file.read()
		if err != nil {
			return nil, err
		}
		if total += int64(len(b)); total > maxFeedInside {
			return nil, problem.TooLarge("the feed unpacks to more than %d bytes", int64(maxFeedInside))
		}
		fmt.Fprintf(sum, "%s %d\n", file.name, len(b))
		sum.Write(b)
		if isKEV(b) {
			if f.KEV != nil {
				return nil, problem.Invalid("the feed has two KEV catalogues")
			}
			if f.KEV, err = ParseKEV(b); err != nil {
				return nil, err
			}
			continue
		}
		r, err := record.Parse(b)
		if err != nil {
			return nil, problem.Invalid("%s: %s", file.name, problem.Of(err).Text)
		}
		if _, twice := f.hashes[r.ID]; twice {
			return nil, problem.Invalid("the feed has two records named %s", r.ID)
		}
		f.hashes[r.ID] = r.Hash
		f.files = append(f.files, file)
	}
	if len(f.files) == 0 && f.KEV == nil {
		return nil, problem.Invalid("the feed holds no record").Hint("send OSV records or a KEV catalogue, as .json or in a zip")
	}
	f.Records = len(f.files)
	f.Digest = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	return f, nil
}

func (f feedFile) read() ([]byte, error) {
	in, err := f.open()
	if err != nil {
		return nil, problem.Invalid("%s cannot be opened: %v", f.name, err)
	}
	defer in.Close()
	b, err := io.ReadAll(io.LimitReader(in, maxKEV+1)) // a zip entry's stated size is not believed
	if err != nil {
		return nil, problem.Invalid("%s cannot be read whole: %v", f.name, err)
	}
	return b, nil
}

// isKEV tells the catalogue from a record by members that only it has.
func isKEV(b []byte) bool {
	if len(b) > maxKEV || !bytes.Contains(b, []byte(`"catalogVersion"`)) {
		return false
	}
	var k struct {
		Version *string `json:"catalogVersion"`
		ID      *string `json:"id"`
	}
	return json.Unmarshal(b, &k) == nil && k.Version != nil && k.ID == nil
}

// Each hands over the records that want says are wanted by id and content, with their bytes.
func (f *Feed) Each(want func(id, hash string) bool, fn func(r record.Record, body []byte) error) error {
	ids := make(map[string]bool, len(f.hashes))
	for id, hash := range f.hashes {
		ids[id] = want(id, hash)
	}
	for _, file := range f.files {
		// The Go and OSV zips name each file after its record; others are opened to see.
		if wanted, known := ids[strings.TrimSuffix(path.Base(file.name), ".json")]; known && !wanted {
			continue
		}
		b, err := file.read()
		if err != nil {
			return err
		}
		r, err := record.Parse(b)
		if err != nil {
			return err
		}
		if f.hashes[r.ID] != r.Hash {
			return problem.Conflict("the feed changed while it was read: %s", r.ID)
		}
		if !ids[r.ID] {
			continue
		}
		if err := fn(r, b); err != nil {
			return err
		}
	}
	return nil
}
