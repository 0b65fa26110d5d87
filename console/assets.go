// SPDX-License-Identifier: AGPL-3.0-only

package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

// assetsFS holds our own style and scripts, and under vendor/ what `make assets` fetched. A build without vendor/ serves
// pages without scripts.
//
//go:embed all:assets
var assetsFS embed.FS

type file struct {
	body []byte
	url  string
}

// assets serves every embedded file under /assets/ with a version in its address, so that browsers keep it for ever.
func (c *Console) assets() {
	err := fs.WalkDir(assetsFS, "assets", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(name) == ".md" {
			return err
		}
		b, err := assetsFS.ReadFile(name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(b)
		short := strings.TrimPrefix(name, "assets/")
		c.files[short] = file{body: b, url: fmt.Sprintf("/assets/%s?v=%s", short, hex.EncodeToString(sum[:6]))}
		return nil
	})
	if err != nil {
		panic("console: " + err.Error())
	}
	serve := func(w http.ResponseWriter, r *http.Request, name string) {
		f, ok := c.files[name]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if r.URL.Query().Has("v") {
			w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		} else {
			w.Header().Set("Cache-Control", "no-cache")
		}
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(f.body))
	}
	c.mux.HandleFunc("GET /assets/{name...}", func(w http.ResponseWriter, r *http.Request) { serve(w, r, r.PathValue("name")) })
	c.mux.HandleFunc("GET /favicon.ico", func(w http.ResponseWriter, r *http.Request) { serve(w, r, "favicon.svg") })
}

// Asset is the address of an embedded file with its version, or "" when this build lacks it.
func (c *Console) Asset(name string) string { return c.files[name].url }
