// SPDX-License-Identifier: AGPL-3.0-only

package feed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
)

// Kind is the form in which a source publishes.
type Kind string

// The kinds of sources.
const (
	KindFile   Kind = "file"   // a file or folder of the host, inside the folder that its administrator gave
	KindURL    Kind = "url"    // one file: a zip, a KEV catalogue, EPSS scores
	KindOSV    Kind = "osv"    // BASE/<ecosystem>/all.zip for each ecosystem
	KindMirror Kind = "mirror" // BASE/MANIFEST as openthings feed serve offers it, or BASE/index.txt, one name a line
	KindCSAF   Kind = "csaf"   // provider-metadata.json of a provider of CSAF documents
	KindBundle Kind = "bundle" // what a person brings; nothing is fetched
)

// Kinds lists them with a sentence for people.
var Kinds = []struct {
	Kind Kind
	Text string
}{
	{KindOSV, "OSV: one zip for each ecosystem"},
	{KindURL, "One file: a zip of records, KEV, EUVD or EPSS"},
	{KindMirror, "A mirror with a manifest or an index"},
	{KindCSAF, "A provider of CSAF documents"},
	{KindFile, "A file or folder of this host"},
	{KindBundle, "A signed bundle that a person brings"},
}

// Source is where a feed comes from.
type Source struct {
	Kind       Kind     `json:"kind"`
	Location   string   `json:"location,omitempty"`   // an address, or a path inside the host's folder of feeds
	Ecosystems []string `json:"ecosystems,omitempty"` // of an OSV source
	Keys       []string `json:"keys,omitempty"`       // that manifests must be signed with; of a CSAF provider: fingerprints or armoured OpenPGP keys
	Origin     string   `json:"origin,omitempty"`     // whose statements CSAF documents hold: vendor (also when empty) or distribution
	Whole      bool     `json:"whole,omitempty"`      // it names all it knows, so what it leaves out is no longer named by it
}

var ecosystem = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9 .:_-]{0,63}$`)

// maxKeys bounds the keys and ecosystems of a source.
const maxKeys = 50

// Check refuses a source that cannot work.
func (s Source) Check() error {
	if len(s.Location) > 500 || len(s.Keys) > maxKeys || len(s.Ecosystems) > maxKeys {
		return problem.Invalid("The source has too long an address, or more than %d keys or ecosystems.", maxKeys)
	}
	switch s.Kind {
	case KindBundle:
		if s.Location != "" {
			return problem.Invalid("A bundle is brought by a person, so it has no address.").At("location")
		}
		if len(s.Keys) == 0 {
			return problem.Invalid("A bundle is taken only with a key that it is checked with.").At("keys").Hint("it is the line that openthings feed key prints")
		}
	case KindFile:
		if s.Location == "" || !fs.ValidPath(s.Location) {
			return problem.Invalid("%.100q is no path inside the folder of feeds.", s.Location).At("location").
				Hint("the folder is named by the administrator of the host; write paths from there on, such as osv/Go/all.zip")
		}
	case KindURL, KindOSV, KindMirror, KindCSAF:
		if _, err := checkURL(s.Location); err != nil {
			return err
		}
	default:
		return problem.Invalid("%.40q is no kind of source.", s.Kind).At("kind").Hint("use osv, url, mirror, csaf, file or bundle")
	}
	if (len(s.Ecosystems) > 0) != (s.Kind == KindOSV) {
		return problem.Invalid("Ecosystems are named for an OSV source, and only for one.").At("ecosystems").Hint("such as Go, npm or Debian:12")
	}
	if s.Origin != "" && s.Origin != "vendor" && s.Origin != "distribution" {
		return problem.Invalid("%.40q is no origin of statements.", s.Origin).At("origin").Hint("use vendor or distribution")
	}
	for _, e := range s.Ecosystems {
		if !ecosystem.MatchString(e) {
			return problem.Invalid("%.80q is no ecosystem of OSV.", e).At("ecosystems")
		}
	}
	for _, k := range s.Keys {
		check := CheckKey
		if s.Kind == KindCSAF {
			check = checkPGP
		}
		if err := check(k); err != nil {
			return err
		}
	}
	return nil
}

// Cursor is what is remembered of a source from one look to the next. It only saves reading.
type Cursor struct {
	Sequence int64           `json:"sequence,omitempty"` // of the last manifest: an older one is refused
	Manifest string          `json:"manifest,omitempty"` // digest of that manifest's text
	Full     time.Time       `json:"full,omitzero"`      // when every document of a provider was last read, whatever its list said
	Files    map[string]Seen `json:"files,omitempty"`    // by address or path
}

// Seen is one file as it was when it was taken.
type Seen struct {
	ETag     string `json:"etag,omitempty"`
	Modified string `json:"modified,omitempty"` // Last-Modified, or what a list said of it
	Digest   string `json:"digest,omitempty"`
}

// Progress is how far a look has come.
type Progress struct {
	File  string `json:"file"`
	Done  int    `json:"done"`  // files
	Files int    `json:"files"` // 0: not known yet
	Bytes int64  `json:"bytes"` // of all files so far
}

// Fetcher brings what sources publish.
type Fetcher struct {
	Client   *http.Client // its redirects and timeouts are replaced; its transport decides what may be reached
	Clock    clock.Clock
	Root     string // folder that file sources lie in; empty: there is none
	Spool    string // folder that fetched files lie in until they were taken; what is whole in it is not fetched again
	Progress func(Progress)

	bytes int64 // fetched so far
}

// Haul is what a look brought: files to be judged, and the cursor to remember once they were taken.
type Haul struct {
	Files    []File
	Cursor   Cursor
	manifest *Manifest
	whole    bool
	closes   []io.Closer
}

// Close gives back the files.
func (h *Haul) Close() error {
	var err error
	for _, c := range h.closes {
		err = errors.Join(err, c.Close())
	}
	return err
}

// Feed judges what was brought. The haul must stay open while the feed is used.
func (h *Haul) Feed() (*Feed, error) {
	if h.manifest != nil {
		f, err := h.manifest.feed(h.Files)
		if f != nil {
			f.Whole = f.Whole || h.whole
		}
		return f, err
	}
	f, err := judge(h.Files)
	if f != nil {
		f.Whole = h.whole
	}
	return f, err
}

// Gather looks at a source. A nil haul says that nothing changed since the cursor was made.
func (f *Fetcher) Gather(ctx context.Context, s Source, last Cursor) (*Haul, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	f.bytes = 0
	switch s.Kind {
	case KindFile:
		return f.gatherFile(s, last)
	case KindURL:
		return f.gatherURLs(ctx, s, last, []remote{{path.Base(strings.SplitN(s.Location, "?", 2)[0]), s.Location}})
	case KindOSV:
		var list []remote
		for _, e := range s.Ecosystems {
			list = append(list, remote{e + "/all.zip", join(s.Location, url.PathEscape(e)+"/all.zip")})
		}
		return f.gatherURLs(ctx, s, last, list)
	case KindMirror:
		return f.gatherMirror(ctx, s, last)
	case KindCSAF:
		return f.gatherCSAF(ctx, s, last)
	}
	return nil, problem.Invalid("A bundle is brought by a person; there is nothing to fetch.").Hint("openthings feed import NAME FILE")
}

// gatherFile compares names, sizes and times, and reads all if one differs.
func (f *Fetcher) gatherFile(s Source, last Cursor) (*Haul, error) {
	if f.Root == "" {
		return nil, problem.Forbidden("feed.no-folder", "The administrator of this host gave no folder for feeds.").Hint("openthings up --feeds DIR")
	}
	root, err := openDir(f.Root)
	if err != nil {
		return nil, err
	}
	files, err := filesIn(root, s.Location)
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	h := &Haul{Files: files, Cursor: Cursor{Files: map[string]Seen{}}, whole: s.Whole, closes: []io.Closer{root}}
	same := len(files) == len(last.Files)
	for _, file := range files {
		seen := Seen{Modified: fmt.Sprintf("%d %s", file.Size, file.Modified.Format(time.RFC3339Nano))}
		same = same && last.Files[file.Name] == seen
		h.Cursor.Files[file.Name] = seen
	}
	if same {
		return nil, root.Close()
	}
	return h, nil
}

// remote is a file to fetch.
type remote struct{ name, address string }

// gatherURLs fetches those of the files that changed. Where a whole source changed, all are fetched: what it no longer
// names can only be told from all of it.
func (f *Fetcher) gatherURLs(ctx context.Context, s Source, last Cursor, list []remote) (*Haul, error) {
	h := &Haul{Cursor: Cursor{Files: map[string]Seen{}}, whole: s.Whole}
	var unchanged []int
	for i, r := range list {
		f.say(r.name, i, len(list))
		file, seen, err := f.get(ctx, r, last.Files[r.address], MaxBytes)
		if err != nil {
			return nil, err
		}
		h.Cursor.Files[r.address] = seen
		if file == nil {
			unchanged = append(unchanged, i)
			continue
		}
		h.Files = append(h.Files, *file)
	}
	if len(h.Files) == 0 {
		return nil, nil
	}
	if !s.Whole {
		return h, nil
	}
	for _, i := range unchanged {
		file, seen, err := f.get(ctx, list[i], Seen{}, MaxBytes)
		if err != nil {
			return nil, err
		}
		h.Cursor.Files[list[i].address] = seen
		h.Files = append(h.Files, *file)
	}
	return h, nil
}

// gatherMirror reads the manifest, or the index where there is none and no key asks for one.
func (f *Fetcher) gatherMirror(ctx context.Context, s Source, last Cursor) (*Haul, error) {
	f.say(ManifestName, 0, 0)
	at := join(s.Location, ManifestName)
	file, seen, err := f.get(ctx, remote{ManifestName, at}, last.Files[at], maxManifest)
	if problem.Is(err, problem.KindNotFound) && len(s.Keys) == 0 {
		return f.gatherIndex(ctx, s, last)
	}
	if err != nil {
		return nil, err
	}
	if file == nil {
		return nil, nil
	}
	b, err := file.bytes()
	if err != nil {
		return nil, err
	}
	m, err := ParseManifest(b, s.Keys)
	if err != nil {
		return nil, err
	}
	if err := m.after(last.Sequence); err != nil {
		return nil, err
	}
	h := &Haul{Cursor: Cursor{Sequence: m.Sequence, Files: map[string]Seen{at: seen}}, manifest: &m, whole: s.Whole}
	for i, sealed := range m.Files {
		f.say(sealed.Name, i, len(m.Files))
		address := join(s.Location, escaped(sealed.Name))
		was := last.Files[address]
		h.Cursor.Files[address] = Seen{Digest: sealed.SHA256}
		if was.Digest == sealed.SHA256 && !m.Whole && !s.Whole {
			continue // taken before; a feed may be a delta
		}
		file, _, err := f.get(ctx, remote{sealed.Name, address}, Seen{}, sealed.Size)
		if err != nil {
			return nil, err
		}
		got, err := Seal(*file)
		if err != nil || got.SHA256 != sealed.SHA256 || got.Size != sealed.Size {
			f.forget(address)
			return nil, problem.Forbidden(RuleAltered, "%s is not the file that the manifest names.", sealed.Name).Because(err).
				Hint("the mirror may be changing right now; it is looked at again")
		}
		file.Modified = sealed.Modified
		h.Files = append(h.Files, *file)
	}
	if len(h.Files) == 0 {
		return nil, nil
	}
	return h, nil
}

// maxIndex bounds an index, in bytes.
const maxIndex = 32 << 20

func (f *Fetcher) gatherIndex(ctx context.Context, s Source, last Cursor) (*Haul, error) {
	file, _, err := f.get(ctx, remote{"index.txt", join(s.Location, "index.txt")}, Seen{}, maxIndex)
	if err != nil {
		return nil, err
	}
	b, err := file.bytes()
	if err != nil {
		return nil, err
	}
	names, err := indexed(string(b))
	if err != nil {
		return nil, err
	}
	var list []remote
	for _, name := range names {
		if Wanted(name) {
			list = append(list, remote{name, join(s.Location, escaped(name))})
		}
	}
	if len(list) == 0 {
		return nil, problem.Invalid("the index names no file that is read")
	}
	return f.gatherURLs(ctx, s, last, list)
}

// indexed reads an index: one name a line.
func indexed(text string) ([]string, error) {
	var names []string
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		name := strings.TrimSpace(line)
		switch {
		case name == "":
			continue
		case !fs.ValidPath(name) || len(name) > 500:
			return nil, problem.Invalid("the index names a file outside itself: %.80q", name)
		case seen[name]:
			return nil, problem.Invalid("the index names %.80q twice", name)
		case len(names) == maxFeedFiles:
			return nil, problem.TooLarge("the index names more than %d files", maxFeedFiles)
		}
		seen[name] = true
		names = append(names, name)
	}
	return names, nil
}

func (f *Fetcher) say(file string, done, of int) {
	if f.Progress != nil {
		f.Progress(Progress{File: file, Done: done, Files: of, Bytes: f.bytes})
	}
}

func (f File) bytes() ([]byte, error) {
	return entry{name: f.Name, open: func() (io.ReadCloser, error) { return f.open() }}.readUpTo(maxManifest)
}

// join puts a name under a base address.
func join(base, name string) string { return strings.TrimRight(base, "/") + "/" + name }

// escaped writes a path of names as part of an address.
func escaped(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return strings.Join(parts, "/")
}

// openDir opens a folder, and makes it where there is none.
func openDir(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("feed: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("feed: %w", err)
	}
	return root, nil
}

// writeFile writes a file whole or not at all.
func writeFile(root *os.Root, name string, r io.Reader) error {
	tmp := name + ".part"
	out, err := root.Create(tmp)
	if err != nil {
		return fmt.Errorf("feed: %w", err)
	}
	_, err = io.Copy(out, r)
	if err = errors.Join(err, out.Sync(), out.Close()); err == nil {
		err = root.Rename(tmp, name)
	}
	if err != nil {
		return fmt.Errorf("feed: %w", errors.Join(err, root.Remove(tmp)))
	}
	return nil
}

// Files lists what a local file or folder holds, for a bundle. The closer is needed until they were read.
func Files(name string) ([]File, io.Closer, error) { return filesAt(name) }

// Named gives a file another name in the set, under a folder.
func (f File) Named(folder string) File {
	f.Name = path.Join(folder, f.Name)
	return f
}
