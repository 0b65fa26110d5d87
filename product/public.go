// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product/eox"
)

// The public page of a product carries the maker's name, no menu and no script. Its address never changes: /p/PRODUCT.

// Rate of one address at the public page: a reader turns pages, a robot waits.
const (
	publicPerSecond = 5
	publicBurst     = 60
)

// PublicURL is the address of a product's public page.
func (s *Service) PublicURL(product string) string { return s.cfg.URL + "/p/" + product }

// publicView is a product as the world sees it: nothing but what was published.
type publicView struct {
	Product Product
	Maker   string
	Lang    string
	W       map[string]string // words of the language
	Items   []publicItem
	Cohorts []publicCohort
	URL     string
	Updated time.Time
	Page    Page
}

// Heading is what the page is about.
func (v publicView) Heading() string { return v.Product.Name }

// languageNames are what the languages call themselves.
var languageNames = map[string]string{"en": "English", "de": "Deutsch"}

// Sheet makes it a page in its maker's name.
func (v publicView) Sheet() console.Sheet {
	s := console.Sheet{Lang: v.Lang, Title: v.Product.Name + " – " + v.W["title"], From: console.Link{Word: v.Maker}, Over: []string{v.W["title"]}}
	for _, l := range Languages {
		if l != v.Lang {
			s.Langs = append(s.Langs, console.Link{Word: languageNames[l], Href: "/p/" + v.Product.ID + "?lang=" + l})
		}
	}
	return s
}

// Month writes a month in the language of the page.
func (v publicView) Month(m Month) string { return localMonth(v.Lang, m) }

// Day writes a day in the language of the page.
func (v publicView) Day(d Day) string { return localDay(v.Lang, d) }

// Revisions are the hardware revisions that are spoken of, once each.
func (v publicView) Revisions() (out []string) {
	for _, c := range v.Cohorts {
		if !slices.Contains(out, c.Revision) {
			out = append(out, c.Revision)
		}
	}
	return out
}

type publicItem struct {
	Number, Asks, Text string
	Absent             bool
	Lang               string // when it is given in another language only
	Support, Name      bool   // the records stand here
}

// Lines are the lines of the text; one that is an address and nothing else leads there.
func (i publicItem) Lines() (out []publicLine) {
	for line := range strings.SplitSeq(i.Text, "\n") {
		line = strings.TrimSpace(line)
		u, err := url.Parse(line)
		out = append(out, publicLine{line, err == nil && (u.Scheme == "https" && u.Host != "" || u.Scheme == "mailto")})
	}
	return out
}

type publicLine struct {
	Text string
	Link bool
}

type publicCohort struct {
	Published
	ID, Name, Revision, Successor string
	Ended                         bool
	Months                        int
}

// publicByID collects what is published of a product; nothing published is not found, whoever asks.
func (s *Service) publicByID(ctx context.Context, id string) (v publicView, err error) {
	v.Product, err = scanProduct(s.cfg.DB.QueryRow(ctx, `SELECT `+productColumns+` FROM product WHERE id = $1`, id))
	if err != nil {
		return v, err
	}
	if v.Page, err = s.page(ctx, id); err != nil {
		return v, err
	}
	t := v.Product.Tenant
	cs, err := s.cohorts(ctx, `c.tenant = $1 AND c.product = $2 AND c.version > 0`, t, id)
	if err != nil {
		return v, err
	}
	if v.Page.Version == 0 && len(cs) == 0 {
		return v, problem.NotFound("There is no such product.")
	}
	vs, err := s.Revisions(ctx, t, id)
	if err != nil {
		return v, err
	}
	name := func(revision string) string {
		if at := slices.IndexFunc(vs, func(r Revision) bool { return r.ID == revision }); at >= 0 {
			return vs[at].Name
		}
		return ""
	}
	v.Updated = v.Page.Published
	now := s.now()
	for _, c := range cs {
		p := publicCohort{Published: *c.Public, ID: c.ID, Name: c.Name, Revision: name(c.Revision), Ended: c.Ended(now), Months: monthsLeft(c.Public.SupportEnd, c.Public.Location(), now)}
		ds, err := s.EndDecisions(ctx, t, c.ID)
		if err != nil {
			return v, err
		}
		if len(ds) > 0 && ds[0].Successor != "" {
			p.Successor = name(ds[0].Successor)
		}
		v.Cohorts = append(v.Cohorts, p)
		if p.Published.Published.After(v.Updated) {
			v.Updated = p.Published.Published
		}
	}
	v.URL = s.PublicURL(id)
	if s.cfg.Maker != nil {
		v.Maker, err = s.cfg.Maker(ctx, t)
	}
	return v, err
}

// in puts the view into a language; an item that is not given in it stands in the first that has it.
func (v publicView) in(lang string) publicView {
	v.Lang, v.W = lang, publicWords[lang]
	for _, row := range law.Annex(annexII) {
		i := publicItem{Number: Item{Ref: row.Ref}.Number(), Asks: v.W[row.ID], Support: row.ID == itemSupport, Name: row.ID == itemName}
		for _, l := range append([]string{lang}, Languages...) {
			at := slices.IndexFunc(v.Page.Texts[l], func(t Item) bool { return t.ID == row.ID })
			if at < 0 {
				continue
			}
			i.Text, i.Absent = v.Page.Texts[l][at].Text, v.Page.Texts[l][at].Absent
			if l != lang {
				i.Lang = l
			}
			break
		}
		if i.Text != "" || i.Support && len(v.Cohorts) > 0 || i.Name {
			v.Items = append(v.Items, i)
		}
	}
	return v
}

// chosen is the language of a request: the one in its query, else the first that its browser asks for.
func chosen(r *http.Request) string {
	if l := r.URL.Query().Get("lang"); slices.Contains(Languages, l) {
		return l
	}
	for part := range strings.SplitSeq(r.Header.Get("Accept-Language"), ",") {
		tag, _, _ := strings.Cut(strings.TrimSpace(part), ";")
		tag, _, _ = strings.Cut(strings.ToLower(tag), "-")
		if slices.Contains(Languages, tag) {
			return tag
		}
	}
	return Languages[0]
}

func (s *Service) publicPages(c *console.Console) {
	visits := api.NewLimiter(s.cfg.Clock, api.Limits{PerSecond: publicPerSecond, Burst: publicBurst})
	c.Page(console.Page{Path: "/p/{id}", Title: "Product information", Public: true, FS: pagesFS, Template: "pages/public.html",
		Load: func(r *http.Request) (any, error) {
			if err := visits.Take(api.Address(r), 1); err != nil {
				return nil, err
			}
			v, err := s.publicByID(r.Context(), r.PathValue("id"))
			return v.in(chosen(r)), err
		}})
	handle := func(path string, fn func(r *http.Request) ([]byte, error)) {
		c.Handle("GET "+path, "", func(w http.ResponseWriter, r *http.Request) error {
			if err := visits.Take(api.Address(r), 1); err != nil {
				if wait, ok := api.RetryAfter(err); ok {
					w.Header().Set("Retry-After", wait)
				}
				return err
			}
			body, err := fn(r)
			if err != nil {
				return err
			}
			sum := sha256.Sum256(body)
			h := w.Header()
			h.Set("Content-Type", "application/json")
			h.Set("Cache-Control", "public, max-age=300")
			h.Set("ETag", api.ETag(hex.EncodeToString(sum[:16])))
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body)) // answers If-None-Match
			return nil
		})
	}
	handle("/p/{id}/openeox.json", func(r *http.Request) ([]byte, error) {
		v, err := s.publicByID(r.Context(), r.PathValue("id"))
		if err != nil {
			return nil, err
		}
		out := []Statement{}
		for _, c := range v.Cohorts {
			st, err := v.statement(c)
			if err != nil {
				return nil, err
			}
			out = append(out, st)
		}
		return json.MarshalIndent(map[string]any{"statements": out}, "", "  ")
	})
	handle("/p/{id}/changes.json", func(r *http.Request) ([]byte, error) {
		v, err := s.publicByID(r.Context(), r.PathValue("id"))
		if err != nil {
			return nil, err
		}
		out := []Change{}
		for _, c := range v.Cohorts {
			vs, err := s.Versions(r.Context(), v.Product.Tenant, c.ID)
			if err != nil {
				return nil, err
			}
			for _, p := range vs {
				c.Published = p
				st, err := v.statement(c)
				if err != nil {
					return nil, err
				}
				out = append(out, Change{Version: p.Version, At: p.Published, Statement: st, Note: p.Note})
			}
		}
		slices.SortStableFunc(out, func(a, b Change) int { return b.At.Compare(a.At) })
		return json.MarshalIndent(map[string]any{"changes": out}, "", "  ")
	})
}

// Statement binds OpenEoX Core information to what it is about. It is a wrapper of ours: the binding that OpenEoX itself
// will have (Shell) is not stable yet.
type Statement struct {
	Product  string          `json:"product" doc:"Name"`
	ID       string          `json:"id" doc:"Of the product"`
	PURL     string          `json:"purl" doc:"Package URL of the hardware revision"`
	Maker    string          `json:"manufacturer"`
	Revision string          `json:"hardware_revision"`
	Cohort   StatementCohort `json:"cohort"`
	Core     json.RawMessage `json:"core" doc:"OpenEoX Core 1.0"`
}

// StatementCohort says which units a statement is about.
type StatementCohort struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	First Day    `json:"first_placed"`
	Last  Day    `json:"last_placed,omitempty"`
}

// Change is one version of a statement, with the declaration behind it under the platform's signature.
type Change struct {
	Version   int64     `json:"version"`
	At        time.Time `json:"at"`
	Statement Statement `json:"statement"`
	Note      string    `json:"signed,omitempty"`
}

func (v publicView) statement(c publicCohort) (Statement, error) {
	core, err := c.core()
	return Statement{
		Product: v.Product.Name, ID: v.Product.ID, Maker: v.Maker, Revision: c.Revision, Core: core,
		PURL:   "pkg:generic/" + url.PathEscape(v.Product.Model) + "@" + url.PathEscape(c.Revision),
		Cohort: StatementCohort{c.ID, c.Name, c.FirstPlaced, c.LastPlaced},
	}, err
}

// core is the declaration as OpenEoX Core: security support ends at the last instant of its month. When any support ends
// is not told, so that is to be announced.
func (p Published) core() ([]byte, error) {
	loc := p.Location()
	at := func(d Day, last bool) eox.Date {
		if d == "" {
			return eox.Date{}
		}
		t := d.Time()
		if last {
			return eox.At(time.Date(t.Year(), t.Month(), t.Day()+1, 0, 0, 0, 0, loc).Add(-time.Millisecond))
		}
		return eox.At(time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, loc))
	}
	return eox.Core{GeneralAvailability: at(p.FirstPlaced, false), EndOfSales: at(p.SalesEnd, true), EndOfSecuritySupport: eox.At(p.End()), EndOfLife: eox.TBA, LastUpdated: p.Published.UTC()}.Marshal()
}
