// SPDX-License-Identifier: AGPL-3.0-only

package evidence

import (
	"context"
	"embed"
	"net/http"
	"net/url"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed pages/*.html
var pagesFS embed.FS

const (
	pageSize    = 50 // entries on the page
	extractSize = 10 // entries on a device's page
)

// line is an entry as a page shows it.
type line struct {
	audit.Item
	Place string // empty while pending
}

func lines(items []audit.Item) []line {
	out := make([]line, len(items))
	for i, it := range items {
		out[i].Item = it
		if it.Pos != nil {
			out[i].Place = console.Count(*it.Pos)
		}
	}
	return out
}

type page struct {
	Checkpoint *audit.Checkpoint
	LogKey     string
	Behind     *problem.Error
	Checked    *Checked
	MayRead    bool // the entries of the tenant
	MayCheck   bool
	MayExport  bool
	Filter     audit.Filter
	Day        string
	Entries    []line
	Names      *console.Names
	Pager      console.Pager
	Products   []console.Option
}

type extract struct {
	Device    string
	Entries   []line
	Names     *console.Names
	More      bool
	MayExport bool
}

// Pages registers the page Evidence, its forms and the extract on a device's page.
func (s *Service) Pages(c *console.Console) {
	c.Page(console.Page{Path: "/evidence", Title: "Evidence", Menu: "Evidence", Tab: "Log and files", TabOrder: 10, Verb: string(tenant.EvidenceRead), FS: pagesFS, Template: "pages/evidence.html",
		Load: func(r *http.Request) (any, error) {
			p, err := s.page(r.Context(), r.URL.Query())
			p.Names = c.Names(r.Context())
			return p, err
		}})
	s.inspectPages(c)
	s.labelPages(c)
	c.Step(console.Step{Order: 80, Title: "Prove it to somebody", Text: "A bundle about one device that is verified without this platform.", Href: "/evidence#export", Button: "Export evidence",
		Done: s.exported})
	c.Form("/evidence/check", string(tenant.AuditRead), func(r *http.Request) (string, error) {
		if err := tenant.Require(r.Context(), tenant.AuditRead, tenant.Thing{Tenant: tenant.MustTenant(r.Context())}); err != nil {
			return "", err
		}
		checked, err := s.Check(r.Context())
		if err == nil && checked.OK() {
			console.Say(r, "The whole log was verified: "+console.Plural(checked.Size, "entry", "entries")+".")
		}
		return "/evidence", err
	})
	c.Handle("POST /evidence/export", string(tenant.EvidenceExport), func(w http.ResponseWriter, r *http.Request) error {
		r.Body = http.MaxBytesReader(w, r.Body, 4096)
		answer, err := number(r.FormValue("answer"))
		if err != nil {
			return err
		}
		return s.download(w, r, r.FormValue("device"), answer)
	})
	c.Fragment("device", console.Fragment{Order: 80, Title: "Audit extract", Verb: string(tenant.AuditRead), FS: pagesFS, Template: "pages/extract.html",
		Load: func(r *http.Request, id string) (any, error) {
			x, err := s.extract(r.Context(), id)
			x.Names = c.Names(r.Context())
			return x, err
		}})
}

// exported says whether the tenant has ever exported a bundle.
func (s *Service) exported(ctx context.Context) (bool, error) {
	items, err := s.cfg.Audit.List(ctx, tenant.MustTenant(ctx), audit.Filter{Kind: "evidence.exported"}, 1)
	return len(items) > 0, err
}

func (s *Service) page(ctx context.Context, q url.Values) (page, error) {
	who, _ := tenant.ActorFrom(ctx)
	whole := tenant.Thing{Tenant: who.Tenant}
	p := page{LogKey: s.cfg.Audit.VerifierKey(), Checked: s.LastCheck(), MayExport: tenant.Anywhere(who, tenant.EvidenceExport),
		MayRead: tenant.Can(who, tenant.AuditRead, whole), MayCheck: tenant.Can(who, tenant.AuditRead, whole), Day: q.Get("day")}
	if s.cfg.Audit.Behind() {
		p.Behind = problem.Unavailable("The database lacks entries that were already published under a checkpoint; the log stands still.").
			Hint("An operator has to look into it and acknowledge.")
	}
	c, err := s.cfg.Audit.Checkpoint(ctx)
	if err == nil {
		p.Checkpoint = &c
	} else if !problem.Is(err, problem.KindNotFound) {
		return page{}, err
	}
	if !p.MayRead {
		return p, nil
	}
	if p.MayExport {
		if p.Products, err = s.productOptions(ctx); err != nil {
			return page{}, err
		}
		p.Products = append([]console.Option{{Word: "the whole house"}}, p.Products...)
	}
	p.Filter = audit.Filter{Subject: q.Get("subject"), Kind: q.Get("kind"), Before: q.Get("before")}
	if p.Day != "" {
		day, err := time.Parse(time.DateOnly, p.Day)
		if err != nil {
			return page{}, problem.Invalid("%q is not a day.", p.Day).At("day").Hint("Write it as 2026-11-21.")
		}
		p.Filter.To = store.Millis(day.AddDate(0, 0, 1))
	}
	items, err := s.cfg.Audit.List(ctx, who.Tenant, p.Filter, pageSize+1)
	if err != nil {
		return page{}, err
	}
	link := url.Values{}
	for k, v := range map[string]string{"subject": p.Filter.Subject, "kind": p.Filter.Kind, "day": p.Day} {
		if v != "" {
			link.Set(k, v)
		}
	}
	if p.Filter.Before != "" {
		p.Pager.First = "/evidence?" + link.Encode()
	}
	if len(items) > pageSize {
		items = items[:pageSize]
		link.Set("before", items[pageSize-1].ID)
		p.Pager.Next = "/evidence?" + link.Encode()
	}
	p.Entries = lines(items)
	return p, nil
}

func (s *Service) extract(ctx context.Context, id string) (extract, error) {
	d, err := s.cfg.Identity.Visible(ctx, tenant.AuditRead, id)
	if err != nil {
		return extract{}, err
	}
	items, err := s.cfg.Audit.List(ctx, d.Tenant, audit.Filter{Subject: d.ID}, extractSize+1)
	if err != nil {
		return extract{}, err
	}
	who, _ := tenant.ActorFrom(ctx)
	thing := tenant.Thing{Tenant: d.Tenant, Product: d.Product, Solution: d.Solution}
	return extract{Device: d.ID, Entries: lines(items[:min(len(items), extractSize)]), More: len(items) > extractSize, MayExport: tenant.Can(who, tenant.EvidenceExport, thing)}, nil
}
