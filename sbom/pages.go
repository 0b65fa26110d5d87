// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"context"
	"database/sql"
	"embed"
	"html/template"
	"net/http"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed pages/*.html
var pagesFS embed.FS

type summary struct {
	Record   Record
	Lists    []graded
	Evidence []Evidence
}

// graded is one list of facts, as a bill answers it.
type graded struct {
	Name  string
	Facts []Fact
	Given int
}

type explorer struct {
	summary
	view
	Title    string
	Matching console.Bar
	Others   []console.Option
	Outputs  []console.Option
	Names    *console.Names
}

// Heading is the page's title.
func (e explorer) Heading() string { return "Bill of materials of " + e.Title }

type comparePage struct {
	Compared
	Names     *console.Names
	Slot      template.HTML
	From, To  string
	Different int
}

// Heading is the page's title.
func (p comparePage) Heading() string { return p.From + " and " + p.To }

// Pages registers the explorer, the comparison, and their part of the page of a release. The slot "sbom-compare" stands on
// the comparison; its key is the two releases, the earlier first, with a space between them.
func (s *Service) Pages(c *console.Console) {
	verb := string(tenant.SBOMRead)
	c.Fragment("release", console.Fragment{Order: 30, Title: "Bill of materials", Verb: verb, FS: pagesFS, Template: "pages/summary.html",
		Load: func(r *http.Request, release string) (any, error) {
			sum, err := s.summary(r.Context(), release)
			if problem.Is(err, problem.KindNotFound) {
				return nil, nil
			}
			return sum, err
		}})
	c.Page(console.Page{Path: "/releases/{id}/sbom", Title: "Bill of materials", Menu: "Releases", Verb: verb, FS: pagesFS, Template: "pages/explorer.html",
		Load: func(r *http.Request) (any, error) { return s.explorer(r, c, r.PathValue("id")) }})
	c.Page(console.Page{Path: "/releases/compare", Title: "Two releases", Menu: "Releases", Verb: verb, FS: pagesFS, Template: "pages/compare.html",
		Load: func(r *http.Request) (any, error) {
			ctx, from, to := r.Context(), r.URL.Query().Get("from"), r.URL.Query().Get("to")
			for _, release := range []string{from, to} {
				if err := s.require(ctx, tenant.SBOMRead, release); err != nil {
					return nil, err
				}
			}
			cmp, err := s.Compare(ctx, tenant.MustTenant(ctx), from, to)
			if err != nil {
				return nil, err
			}
			names := c.Names(ctx)
			return comparePage{Compared: Compared{from, to, cmp}, Names: names, Slot: c.Slot("sbom-compare").Render(r, from+" "+to), From: names.Word(from), To: names.Word(to),
				Different: len(cmp.Added) + len(cmp.Removed) + len(cmp.Changed)}, nil
		}})
}

func (s *Service) summary(ctx context.Context, release string) (sum summary, err error) {
	if err := s.require(ctx, tenant.SBOMRead, release); err != nil {
		return sum, err
	}
	t := tenant.MustTenant(ctx)
	if sum.Record, err = s.Current(ctx, t, release); err != nil {
		return sum, err
	}
	for _, name := range []string{ListBSI, ListNTIA} {
		facts, given := sum.Record.Quality.List(name)
		sum.Lists = append(sum.Lists, graded{name, facts, given})
	}
	sum.Evidence, err = s.Evidence(ctx, t, release)
	return sum, err
}

func (s *Service) explorer(r *http.Request, c *console.Console, release string) (e explorer, err error) {
	ctx := r.Context()
	if e.summary, err = s.summary(ctx, release); err != nil {
		return e, err
	}
	t := tenant.MustTenant(ctx)
	all, err := s.Components(ctx, t, release, "", MaxComponents+1)
	if err != nil {
		return e, err
	}
	e.view = viewOf(r.URL.Query())
	e.show(all)
	e.Matching, e.Names = matching(all), c.Names(ctx)
	e.Title = e.Names.Word(release)
	for _, o := range Outputs {
		e.Outputs = append(e.Outputs, console.Option{Value: string(o), Word: outputWords[o]})
	}
	e.Others, err = s.others(ctx, t, release, e.Names)
	return e, err
}

var outputWords = map[Output]string{CycloneDX16: "CycloneDX 1.6", CycloneDX17: "CycloneDX 1.7", SPDX23: "SPDX 2.3", SPDX301: "SPDX 3.0.1"}

// othersOffered bounds the releases that are offered for a comparison; any two can be compared by address.
const othersOffered = 50

// others are the releases of the same product that the visitor may compare with, the newest first.
func (s *Service) others(ctx context.Context, t, release string, names *console.Names) ([]console.Option, error) {
	product, err := s.cfg.ProductOf(ctx, t, release)
	if err != nil {
		return nil, err
	}
	rows, err := s.cfg.DB.Query(ctx, `SELECT release_id FROM sbom WHERE tenant = $1 AND release_id <> $2 GROUP BY release_id ORDER BY max(at) DESC, release_id LIMIT 500`, t, release)
	ids, err := store.Collect(rows, err, func(r *sql.Rows) (id string, err error) { return id, r.Scan(&id) })
	if err != nil {
		return nil, err
	}
	var out []console.Option
	for _, id := range ids {
		if of, err := s.cfg.ProductOf(ctx, t, id); err != nil || of != product || len(out) == othersOffered {
			continue
		}
		out = append(out, console.Option{Value: id, Word: names.Word(id)})
	}
	return out, nil
}
