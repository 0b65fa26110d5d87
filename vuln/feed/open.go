// SPDX-License-Identifier: AGPL-3.0-only

package feed

import (
	"archive/zip"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// File is one file of a set, as it is published.
type File struct {
	Name     string // relative, with slashes
	Size     int64  // bytes
	Origin   string // the address that it came from; empty: this machine
	Modified time.Time
	open     func() (section, error)
}

// section is a file that can be read from any place.
type section interface {
	io.Reader
	io.ReaderAt
	io.Seeker
	io.Closer
}

type part struct{ *io.SectionReader }

func (part) Close() error { return nil }

// fileOf is a file that lies in r.
func fileOf(name string, r io.ReaderAt, offset, size int64) File {
	return File{Name: name, Size: size, open: func() (section, error) { return part{io.NewSectionReader(r, offset, size)}, nil }}
}

// Open reads a feed from one file of size bytes: a zip, a JSON file, or EPSS scores as CSV, plain or gzip.
func Open(r io.ReaderAt, size int64) (*Feed, error) {
	if size > MaxBytes {
		return nil, problem.TooLarge("the feed has %d bytes; at most %d are read", size, int64(MaxBytes))
	}
	if size == 0 {
		return nil, problem.Invalid("the feed is empty")
	}
	f, err := judge([]File{fileOf(nameless, r, 0, size)})
	if p := problem.Of(err); p != nil && strings.HasPrefix(p.Text, nameless) {
		p.Text = "the file" + strings.TrimPrefix(p.Text, nameless) // whoever sent it knows it by another name
	}
	return f, err
}

// nameless stands in the digest of a file whose name is not known.
const nameless = "feed.json"

// OpenPath reads a feed from a file, or from all files of a folder and its folders.
func OpenPath(name string) (*Feed, error) {
	files, closer, err := filesAt(name)
	if err != nil {
		return nil, err
	}
	f, err := judge(files)
	if err != nil {
		return nil, errors.Join(err, closer.Close())
	}
	f.closes = append([]io.Closer{closer}, f.closes...)
	return f, nil
}

// filesAt lists a file, or all files of a folder and its folders. Names outside are not reached, also not by links.
func filesAt(name string) ([]File, io.Closer, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, nil, problem.NotFound("there is no feed %s", name).Because(err)
	}
	if info.IsDir() {
		root, err := os.OpenRoot(name)
		if err != nil {
			return nil, nil, fmt.Errorf("feed: %w", err)
		}
		files, err := filesIn(root, ".")
		if err != nil {
			return nil, nil, errors.Join(err, root.Close())
		}
		return files, root, nil
	}
	root, err := os.OpenRoot(path.Dir(name))
	if err != nil {
		return nil, nil, fmt.Errorf("feed: %w", err)
	}
	files, err := filesIn(root, path.Base(name))
	if err != nil {
		return nil, nil, errors.Join(err, root.Close())
	}
	return files, root, nil
}

// filesIn lists what stands at name inside root.
func filesIn(root *os.Root, name string) ([]File, error) {
	info, err := root.Stat(name)
	if err != nil {
		return nil, problem.NotFound("there is no feed %s", name).Because(err)
	}
	if !info.IsDir() {
		return []File{fileAt(root, name, path.Base(name), info)}, nil
	}
	var files []File
	err = fs.WalkDir(root.FS(), name, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !Wanted(p) {
			return err
		}
		if len(files) == maxFeedFiles {
			return problem.TooLarge("the feed has more than %d files", maxFeedFiles)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		files = append(files, fileAt(root, p, strings.TrimPrefix(strings.TrimPrefix(p, name), "/"), info))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("feed: %w", err)
	}
	return files, nil
}

func fileAt(root *os.Root, at, name string, info fs.FileInfo) File {
	return File{Name: name, Size: info.Size(), Modified: info.ModTime().UTC(), open: func() (section, error) { return root.Open(at) }}
}

// unzip takes what an archive holds. One archive may stand in another, as the CVE list is published, but no deeper.
func (f *Feed) unzip(sum hash.Hash, name string, r io.ReaderAt, size int64, depth int) error {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return problem.Invalid("%s is not a whole zip file: %v", name, err)
	}
	if len(z.File) > maxFeedFiles {
		return problem.TooLarge("%s has %d files; at most %d are read", name, len(z.File), maxFeedFiles)
	}
	seen := make(map[string]bool, len(z.File))
	for _, e := range z.File {
		if !fs.ValidPath(strings.TrimSuffix(e.Name, "/")) {
			return problem.Invalid("%s names a file outside itself: %.80q", name, e.Name)
		}
		if seen[e.Name] {
			return problem.Invalid("%s has two files named %.80q", name, e.Name)
		}
		seen[e.Name] = true
		if !Wanted(e.Name) {
			continue
		}
		if !strings.HasSuffix(e.Name, ".zip") {
			if err := f.take(sum, entry{name: e.Name, archive: name, open: e.Open}); err != nil {
				return err
			}
			continue
		}
		if depth > 0 {
			return problem.Invalid("%s packs an archive in an archive in an archive", name)
		}
		inner, n, err := f.unpacked(e)
		if err != nil {
			return err
		}
		if err := f.unzip(sum, e.Name, inner, n, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// unpacked writes an archive that stands in another to a file without a name, since it is read from its end.
func (f *Feed) unpacked(e *zip.File) (io.ReaderAt, int64, error) {
	tmp, err := os.CreateTemp("", "openthings-feed-")
	if err != nil {
		return nil, 0, fmt.Errorf("feed: %w", err)
	}
	f.closes = append(f.closes, tmp)
	if err := os.Remove(tmp.Name()); err != nil {
		return nil, 0, fmt.Errorf("feed: %w", err)
	}
	in, err := e.Open()
	if err != nil {
		return nil, 0, problem.Invalid("%s cannot be opened", e.Name).Because(err)
	}
	defer in.Close()
	n, err := io.Copy(tmp, io.LimitReader(in, MaxBytes+1))
	if err != nil {
		return nil, 0, problem.Invalid("%s cannot be read whole: %v", e.Name, err)
	}
	if n > MaxBytes {
		return nil, 0, problem.TooLarge("%s has more than %d bytes", e.Name, int64(MaxBytes))
	}
	return tmp, n, nil
}
