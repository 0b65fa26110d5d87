// SPDX-License-Identifier: AGPL-3.0-only

package handover

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// File is one file of an archive.
type File struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256" doc:"Hex"`
	Bytes  int64  `json:"bytes"`
	What   string `json:"what" doc:"What it is, for people"`
}

// archive writes a ZIP as a stream and keeps the digest of every file. Files are stored, not compressed, and all carry
// one time: the bytes depend on what goes in and on nothing else.
type archive struct {
	zip   *zip.Writer
	at    time.Time
	files []File
}

func newArchive(w io.Writer, at time.Time) *archive {
	return &archive{zip: zip.NewWriter(w), at: at.UTC()}
}

// from adds what fill writes.
func (a *archive) from(path, what string, fill func(w io.Writer) error) error {
	w, err := a.zip.CreateHeader(&zip.FileHeader{Name: path, Method: zip.Store, Modified: a.at})
	if err != nil {
		return fmt.Errorf("handover: %s: %w", path, err)
	}
	sum, n := sha256.New(), counter(0)
	if err := fill(io.MultiWriter(w, sum, &n)); err != nil {
		return fmt.Errorf("handover: %s: %w", path, err)
	}
	a.files = append(a.files, File{Path: path, SHA256: hex.EncodeToString(sum.Sum(nil)), Bytes: int64(n), What: what})
	return nil
}

// add adds bytes.
func (a *archive) add(path, what string, b []byte) error {
	return a.from(path, what, func(w io.Writer) error { _, err := w.Write(b); return err })
}

// addJSON adds a value, indented.
func (a *archive) addJSON(path, what string, v any) error {
	b, err := indented(v)
	if err != nil {
		return fmt.Errorf("handover: %s: %w", path, err)
	}
	return a.add(path, what, b)
}

// sums are the digests of all files so far, as sha256sum -c reads them, under a first line that it passes over.
func (a *archive) sums(title string) string {
	var b strings.Builder
	b.WriteString("# " + title + "\n")
	for _, f := range a.files {
		b.WriteString(f.SHA256 + "  " + f.Path + "\n")
	}
	return b.String()
}

func (a *archive) close() error { return a.zip.Close() }

func indented(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return b.Bytes(), err
}

// counter counts bytes.
type counter int64

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }
