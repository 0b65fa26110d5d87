// SPDX-License-Identifier: AGPL-3.0-only

package feed

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// Serve offers a folder that WriteMirror made to others: the manifest, and the files that it names, with their digests as
// marks. Nothing else of the folder is shown.
func Serve(dir string) (http.Handler, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("feed: %w", err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "a mirror is only read", http.StatusMethodNotAllowed)
			return
		}
		b, err := root.ReadFile(ManifestName)
		if err != nil {
			http.Error(w, "there is no manifest here yet", http.StatusNotFound)
			return
		}
		if name == ManifestName {
			sum := sha256.Sum256(b)
			w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:])+`"`)
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(b))
			return
		}
		m, err := ParseManifest(b, nil)
		if err != nil {
			http.Error(w, "the manifest here cannot be read", http.StatusInternalServerError)
			return
		}
		for _, s := range m.Files {
			if s.Name != name {
				continue
			}
			f, err := root.Open(name)
			if err != nil {
				break
			}
			defer f.Close()
			w.Header().Set("ETag", `"`+s.SHA256+`"`)
			w.Header().Set("Content-Type", "application/octet-stream")
			http.ServeContent(w, r, name, s.Modified, io.ReadSeeker(f))
			return
		}
		http.NotFound(w, r)
	}), nil
}
