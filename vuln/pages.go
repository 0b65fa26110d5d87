// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"context"
	"embed"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed pages/*.html
var pagesFS embed.FS

// matrixPage has a row for each vulnerability and a column for each product that has one.
type matrixPage struct {
	Products []console.Option
	Rows     []matrixRow
	Feeds    []FeedState
}

// matrixRow is one vulnerability; a cell is nil where the product does not have it.
type matrixRow struct {
	Summary
	Cells []*ProductSummary
}

type detailPage struct {
	Detail
	Exposure Exposure
	Devices  []ExposedDevice
	Pager    console.Pager
	AsOf     string // as typed; empty is now
	Products []console.Option
	Releases []console.Option
	Statuses []console.Option
	Reasons  []console.Option
	Names    map[string]string // of products
	Known    *console.Names    // of devices and people
	Typed    url.Values
	May      bool // decide
}

// Heading is the page's title.
func (p detailPage) Heading() string { return p.Detail.Name }

const devicesAtOnce = 100

// asOfLayout is what a browser's date and time field sends; it is read as UTC, and the page says so.
const asOfLayout = "2006-01-02T15:04"

// Pages registers Vulnerabilities and the parts of other pages.
func (s *Service) Pages(c *console.Console) {
	read := string(tenant.VulnRead)
	c.Page(console.Page{Path: "/vulnerabilities", Title: "Vulnerabilities", Menu: "Vulnerabilities", Tab: tabOpen, TabOrder: 10, Verb: read, FS: pagesFS, Template: "pages/matrix.html", Load: s.loadMatrix})
	c.Page(console.Page{Path: "/vulnerabilities/{id}", Title: "Vulnerability", Menu: "Vulnerabilities", Tab: tabOpen, Verb: read, FS: pagesFS, Template: "pages/detail.html",
		Load: func(r *http.Request) (any, error) {
			p, err := s.loadDetail(r)
			p.Known = c.Names(r.Context())
			return p, err
		}})
	c.Form("/vulnerabilities/{id}/decisions", string(tenant.VulnDecide), func(r *http.Request) (string, error) {
		id := r.PathValue("id")
		made, err := s.decideAs(r.Context(), id, Deciding{Product: r.PostFormValue("product"), Release: r.PostFormValue("release"),
			Status: Status(r.PostFormValue("status")), Justification: r.PostFormValue("justification"), Evidence: r.PostFormValue("evidence")})
		if err == nil {
			console.Say(r, "Decided for "+console.Plural(len(made), "component", "components")+".")
		}
		return "/vulnerabilities/" + url.PathEscape(id), err
	})
	s.feedPages(c)
	c.Fragment("today", console.Fragment{Order: 20, Title: "Known as exploited, not decided", Verb: read, FS: pagesFS, Template: "pages/today.html", Load: s.loadToday})
	c.Fragment("release", console.Fragment{Order: 40, Title: "Vulnerabilities", Verb: read, FS: pagesFS, Template: "pages/release.html",
		Load: func(r *http.Request, release string) (any, error) { return s.loadRelease(r.Context(), release) }})
	c.Tile(console.Tile{Order: 30, Verb: read, Load: s.tile})
	c.Step(console.Step{Order: 60, Title: "Watch for vulnerabilities", Text: "Bring in a feed; every bill of materials is compared with it from then on.", Href: "/vulnerabilities/feeds", Button: "Add a feed",
		Done: func(ctx context.Context) (bool, error) {
			feeds, err := s.Feeds(ctx, tenant.MustTenant(ctx))
			return len(feeds) > 0, err
		}})
	c.Fragment("device", console.Fragment{Order: 50, Title: "Vulnerabilities", Verb: read, FS: pagesFS, Template: "pages/release.html",
		Load: func(r *http.Request, device string) (any, error) {
			running, err := s.cfg.Fleet.Running(r.Context(), tenant.MustTenant(r.Context()), []string{device})
			if err != nil || running[device] == "" {
				return nil, err
			}
			return s.loadRelease(r.Context(), running[device])
		}})
}

func (s *Service) loadMatrix(r *http.Request) (any, error) {
	ctx := r.Context()
	t := tenant.MustTenant(ctx)
	list, err := s.List(ctx, t, visible(ctx))
	if err != nil {
		return nil, err
	}
	var p matrixPage
	column := map[string]int{}
	for _, v := range list {
		for _, in := range v.Products {
			if _, ok := column[in.Product]; !ok {
				column[in.Product] = len(p.Products)
				p.Products = append(p.Products, console.Option{Value: in.Product, Word: s.cfg.ProductName(ctx, t, in.Product)})
			}
		}
	}
	for _, v := range list {
		row := matrixRow{Summary: v, Cells: make([]*ProductSummary, len(p.Products))}
		for i := range v.Products {
			row.Cells[column[v.Products[i].Product]] = &v.Products[i]
		}
		p.Rows = append(p.Rows, row)
	}
	p.Feeds, err = s.Feeds(ctx, t)
	return p, err
}

func (s *Service) loadDetail(r *http.Request) (detailPage, error) {
	ctx := r.Context()
	t, seen, id := tenant.MustTenant(ctx), visible(ctx), r.PathValue("id")
	p := detailPage{AsOf: r.FormValue("as_of"), Names: map[string]string{}, Typed: console.Typed(r), May: tenant.Holds(ctx, string(tenant.VulnDecide))}
	var at time.Time
	var err error
	if p.AsOf != "" {
		if at, err = time.Parse(asOfLayout, p.AsOf); err != nil {
			return p, problem.Invalid("%.40q is not a date and time.", p.AsOf).At("as_of").Hint("write %s", asOfLayout)
		}
	}
	if p.Detail, err = s.Get(ctx, t, id); err != nil {
		return p, err
	}
	p.Detail.Only(seen)
	if p.Exposure, err = s.Affected(ctx, t, id, at); err != nil {
		return p, err
	}
	p.Exposure.Only(seen)
	if p.Devices, err = s.AffectedDevices(ctx, t, id, at, seen, fleet.Page{After: r.FormValue("after"), Limit: devicesAtOnce + 1}); err != nil {
		return p, err
	}
	here := "/vulnerabilities/" + url.PathEscape(id) + "?"
	if p.AsOf != "" {
		here += "as_of=" + url.QueryEscape(p.AsOf) + "&"
	}
	if r.FormValue("after") != "" {
		p.Pager.First = here
	}
	if len(p.Devices) > devicesAtOnce {
		p.Devices = p.Devices[:devicesAtOnce]
		p.Pager.Next = here + "after=" + url.QueryEscape(p.Devices[devicesAtOnce-1].Cursor())
	}
	p.options(ctx, s, t)
	return p, nil
}

// options fills what the form offers: products and releases with an open finding, statuses and justifications.
func (p *detailPage) options(ctx context.Context, s *Service, t string) {
	p.Releases = []console.Option{{Value: "", Word: "All releases with this component"}}
	listed := map[string]bool{}
	for _, f := range p.Findings {
		if p.Names[f.Product] == "" {
			p.Names[f.Product] = s.cfg.ProductName(ctx, t, f.Product)
		}
		if !f.Closed.IsZero() {
			continue
		}
		if !listed[f.Product] {
			listed[f.Product] = true
			p.Products = append(p.Products, console.Option{Value: f.Product, Word: p.Names[f.Product]})
		}
		if !listed[f.Release] {
			listed[f.Release] = true
			p.Releases = append(p.Releases, console.Option{Value: f.Release, Word: p.Names[f.Product] + " " + f.Version})
		}
	}
	for _, o := range [][2]string{{string(UnderInvestigation), "Under investigation"}, {string(DecidedAffected), "Affected"}, {string(NotAffected), "Not affected"}, {string(Fixed), "Fixed in this release"}} {
		p.Statuses = append(p.Statuses, console.Option{Value: o[0], Word: o[1]})
	}
	p.Reasons = []console.Option{{Value: "", Word: "None"}}
	for i, word := range []string{"The component is not present", "The vulnerable code is not present", "The vulnerable code is never executed",
		"An attacker cannot control the vulnerable code", "Mitigations are built in"} {
		p.Reasons = append(p.Reasons, console.Option{Value: Justifications[i], Word: word})
	}
}

func (s *Service) loadToday(r *http.Request, _ string) (any, error) {
	list, err := s.List(r.Context(), tenant.MustTenant(r.Context()), visible(r.Context()))
	list = slices.DeleteFunc(list, func(v Summary) bool {
		return !v.Exploited || !slices.ContainsFunc(v.Products, func(p ProductSummary) bool { return p.Status == Undecided })
	})
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list, nil
}

// tile counts the vulnerabilities that somebody has to decide on.
func (s *Service) tile(ctx context.Context) (console.Figure, error) {
	t := tenant.MustTenant(ctx)
	feeds, err := s.Feeds(ctx, t)
	if err != nil || len(feeds) == 0 {
		return console.Figure{}, err
	}
	list, err := s.List(ctx, t, visible(ctx))
	var undecided, exploited, devices int64
	for _, v := range list {
		if !slices.ContainsFunc(v.Products, func(p ProductSummary) bool { return p.Status == Undecided }) {
			continue
		}
		undecided++
		devices = max(devices, v.Devices)
		if v.Exploited {
			exploited++
		}
	}
	f := console.Figure{Label: "To be decided", Value: console.Count(undecided), Note: "no vulnerability waits", Href: "/vulnerabilities"}
	if undecided > 0 {
		f.Note, f.Tone = console.Plural(devices, "device", "devices")+" exposed at most", "warn"
	}
	if exploited > 0 {
		f.Note, f.Tone = console.Count(exploited)+" exploited, "+f.Note, "bad"
	}
	return f, err
}

func (s *Service) loadRelease(ctx context.Context, release string) (any, error) {
	found, err := s.OpenFindings(ctx, tenant.MustTenant(ctx), release)
	found = slices.DeleteFunc(found, func(f OpenFinding) bool { return !visible(ctx)(f.Product) })
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found, nil
}
