// SPDX-License-Identifier: AGPL-3.0-only

package self

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed pages/*.html
var pagesFS embed.FS

// view is the file as people read it.
type view struct {
	File
	Rows   []Row
	Items  []Item
	Found  Found
	Signed bool // the reader signed in: what the feeds find is shown
}

// Heading is the page's title.
func (v view) Heading() string { return "OpenThings " + v.Program.Version + ": its own file" }

// Sheet makes the public page one in the name of the project.
func (v view) Sheet() console.Sheet {
	return console.Sheet{From: console.Link{Word: project, Href: home}, Over: []string{v.Program.Version, "SHA-256 " + v.Program.SHA256}}
}

// Pages mounts the public documents, the page over them, and the page for those who signed in.
func (s *Service) Pages(c *console.Console) {
	visits := api.NewLimiter(s.cfg.Clock, limits)
	c.Page(console.Page{Path: "/self", Title: "Its own file", Public: true, FS: pagesFS, Template: "pages/self.html",
		Load: func(r *http.Request) (any, error) {
			if err := visits.Take(api.Address(r), 1); err != nil {
				return nil, err
			}
			return s.view()
		}})
	for _, path := range paths {
		c.Handle("GET "+path, "", func(w http.ResponseWriter, r *http.Request) error {
			if err := visits.Take(api.Address(r), 1); err != nil {
				if wait, ok := api.RetryAfter(err); ok {
					w.Header().Set("Retry-After", wait)
				}
				return err
			}
			return s.serve(w, r, path)
		})
	}
	c.Page(console.Page{Path: "/law/platform", Title: "This platform", Menu: "Law", Tab: "This platform", TabOrder: 20, Verb: string(tenant.ProductRead), FS: pagesFS, Template: "pages/self.html",
		Load: func(r *http.Request) (any, error) {
			v, err := s.view()
			if err != nil || s.cfg.Found == nil {
				return v, err
			}
			v.Signed = true
			v.Found, err = s.cfg.Found(r.Context(), tenant.MustTenant(r.Context()), v.Program)
			return v, err
		}})
}

func (s *Service) view() (view, error) {
	f, err := s.File()
	return view{File: f, Rows: Assess().Rows, Items: f.Program.Information()}, err
}

// everything is the index of the file, with the digest of each document.
const everything = "/self/file.json"

// paths are the fixed addresses; each installation answers at them.
var paths = []string{everything, "/self/sbom.json", "/self/openeox.json", "/self/classification.json", "/self/risk.json", "/self/information.json",
	"/self/declaration.txt", "/self/policy", "/self/security.txt", "/self/vex.json"}

func (s *Service) serve(w http.ResponseWriter, r *http.Request, path string) error {
	f, err := s.File()
	if err != nil {
		return err
	}
	d := Document{Kind: "application/json", body: marshal(f.index())}
	if path != everything {
		at := slices.IndexFunc(f.Documents, func(d Document) bool { return d.Path == path })
		if at < 0 { // statements, while there is nothing to say
			return problem.NotFound("The project has decided on no vulnerability of a part of this program, as of %s.", stated.Stated)
		}
		d = f.Documents[at]
	}
	sum := sha256.Sum256(d.body)
	h := w.Header()
	h.Set("Content-Type", d.Kind)
	h.Set("Cache-Control", "public, max-age=3600")
	h.Set("ETag", api.ETag(hex.EncodeToString(sum[:16])))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(d.body)) // answers If-None-Match
	return nil
}

// Indexed is a document with its digest.
type Indexed struct {
	Document
	Size   int    `json:"size"`
	SHA256 string `json:"sha256"`
}

// index is the file with the digests of its documents.
func (f File) index() any {
	list := []Indexed{}
	for _, d := range f.Documents {
		sum := sha256.Sum256(d.body)
		list = append(list, Indexed{d, len(d.body), hex.EncodeToString(sum[:])})
	}
	return struct {
		File
		Documents []Indexed `json:"documents"`
	}{f, list}
}
