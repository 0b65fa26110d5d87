// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"embed"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

//go:embed pages/*.html
var pagesFS embed.FS

// Where the pages stand: under the entry Enrol of the menu, each below a tab.
const (
	menu  = "Enrol"
	lines = "Batches and lines"
)

// pageSize is how many lines a list of these pages has.
const pageSize = 50

type enrolPage struct {
	Batches   []batchLine
	Stations  []StationOut
	Revisions []console.Option
	Open      []console.Option // batches that take a station
	Names     map[string]string
	Revoked   map[string]bool // ids of stations and batches that were revoked as a whole
	MayWrite  bool
	MayClaim  bool
	Typed     url.Values
	Pager     console.Pager
	Stationed console.Pager // of the stations
}

// batchLine is a batch with its bar.
type batchLine struct {
	BatchOut
	Bar     console.Bar
	Revoked bool // as a whole
}

func lineOf(b BatchOut, revoked bool) batchLine {
	waiting := max(0, b.Issued-b.Claimed-b.Failed)
	return batchLine{BatchOut: b, Revoked: revoked, Bar: console.Bar{Label: "units", Total: b.Size, Parts: []console.BarPart{
		{Word: "claimed", N: b.Claimed, Tone: "good"}, {Word: "issued", N: waiting, Tone: "busy"}, {Word: "failed", N: b.Failed, Tone: "bad"}}}}
}

// maxBars is how many revocations of a whole the pages know.
const maxBars = 1000

// revoked are the ids of what was revoked as a whole.
func (s *Service) revoked(ctx context.Context, tenant string) (map[string]bool, error) {
	bars, err := s.cfg.Identity.Bars(ctx, tenant, "", maxBars)
	ids := make(map[string]bool, len(bars))
	for _, b := range bars {
		ids[b.ID] = true
	}
	return ids, err
}

type claimPage struct {
	Solutions []console.Option
	Code      string
	Typed     url.Values
}

type openedPage struct{ Opened }

// Heading is the page's title.
func (p openedPage) Heading() string { return "Line station " + p.Name }

// Pages mounts the console pages.
func (s *Service) Pages(c *console.Console) {
	c.Page(console.Page{Path: "/enrol", Title: "Enrol", Menu: menu, Tab: lines, TabOrder: 10, Verb: string(tenant.LineRead), FS: pagesFS, Template: "pages/enrol.html", Load: s.loadEnrol})
	c.Page(console.Page{Path: "/claim", Title: "Claim a unit", Menu: menu, Verb: string(tenant.DeviceClaim), FS: pagesFS, Template: "pages/claim.html",
		Load: func(r *http.Request) (any, error) { // the QR code on a box leads here, with the code
			sols, err := s.solutions(r.Context())
			p := claimPage{Solutions: sols, Typed: console.Typed(r), Code: r.FormValue("code")}
			if p.Typed.Has("code") {
				p.Code = p.Typed.Get("code")
			}
			return p, err
		}})
	// The certificate is shown at once, as the answer of the form.
	c.Page(console.Page{Path: "/enrol/stations", Method: http.MethodPost, Title: "Line station", Menu: menu, Tab: lines, Verb: string(tenant.LineWrite),
		FS: pagesFS, Template: "pages/station.html", Load: func(r *http.Request) (any, error) {
			quota, err := console.Number(r, "quota")
			if err != nil {
				return nil, err
			}
			hours, err := console.Number(r, "hours")
			if err != nil {
				return nil, err
			}
			o, err := s.openStation(r.Context(), Station{Batch: r.FormValue("batch"), Name: r.FormValue("station"), Quota: quota}, time.Duration(hours)*time.Hour, r.FormValue("csr"), nil)
			return openedPage{o}, err
		}})
	s.batchForms(c)
	s.serialPages(c)
	s.lobbyPages(c)
	s.hookPages(c)
	s.labelPages(c)
	s.policyPages(c)
	s.admissionPages(c)
	c.Form("/claims", string(tenant.DeviceClaim), func(r *http.Request) (string, error) {
		d, err := s.Claim(r.Context(), r.FormValue("code"), r.FormValue("solution"))
		if err == nil {
			console.Say(r, d.Serial+" is claimed. It enrols by itself when it is switched on.")
		}
		return "/devices/" + d.ID, err
	})
	c.Step(console.Step{Order: 20, Title: "Make the first unit", Text: "A batch, a line station with its quota, a unit with its certificate of birth.", Href: "/enrol", Button: "Open a batch",
		Done: s.anyDevice("")})
	c.Step(console.Step{Order: 30, Title: "Claim a unit", Text: "The code on the box binds it to a solution; then it enrols by itself.", Href: "/claim", Button: "Enter a claim code",
		Done: s.anyDevice(identity.Commissioned)})
	c.Tile(console.Tile{Order: 60, Verb: string(tenant.LineRead), Load: s.batchTile})
	c.Tile(console.Tile{Order: 61, Verb: string(tenant.LineRead), Load: s.stationTile})
	c.Tile(console.Tile{Order: 62, Verb: string(tenant.EnrolRead), Load: s.lobbyTile})
}

func (s *Service) batchForms(c *console.Console) {
	c.Form("/enrol/batches", string(tenant.LineWrite), func(r *http.Request) (string, error) {
		size, err := console.Number(r, "size")
		if err != nil {
			return "", err
		}
		b, err := s.openBatch(r.Context(), Batch{Revision: r.FormValue("revision"), Name: r.FormValue("name"), Size: size, Signed: r.FormValue("signed") != "", Listed: r.FormValue("listed") != ""})
		if err == nil {
			console.Say(r, "Batch "+b.Name+" is open.")
		}
		return "/enrol", err
	})
	c.Form("/enrol/batches/{id}/close", string(tenant.LineWrite), func(r *http.Request) (string, error) {
		produced, err := console.Number(r, "produced")
		if err != nil {
			return "", err
		}
		b, err := s.endBatch(r.Context(), r.PathValue("id"), produced)
		if err == nil {
			sayClosed(r, b)
		}
		return "/enrol", err
	})
	c.Upload("/enrol/batches/{id}/produced", string(tenant.LineWrite), MaxProduced, func(r *http.Request, file io.ReaderAt, size int64) (string, error) {
		b, err := s.endBatchWith(r, io.NewSectionReader(file, 0, size))
		if err == nil {
			sayClosed(r, b)
		}
		return "/enrol/batches/" + r.PathValue("id"), err
	})
	c.Form("/enrol/stations/{id}/kill", string(tenant.LineWrite), func(r *http.Request) (string, error) {
		k, err := s.kill(r.Context(), r.PathValue("id"), r.FormValue("reason"), Units(r.FormValue("units")))
		if err == nil {
			console.Say(r, "The line station is dead. It made "+console.Plural(k.Made, "unit", "units")+".")
		}
		return "/enrol/stations/" + r.PathValue("id"), err
	})
	c.Page(console.Page{Path: "/enrol/stations/{id}", Title: "Line station", Menu: menu, Tab: lines, Verb: string(tenant.LineRead), FS: pagesFS, Template: "pages/units.html", Load: s.loadStation})
	c.Page(console.Page{Path: "/enrol/batches/{id}", Title: "Batch", Menu: menu, Tab: lines, Verb: string(tenant.LineRead), FS: pagesFS, Template: "pages/batch.html", Load: s.loadBatch})
	c.Handle("GET /enrol/batches/{id}/manifest", string(tenant.LineRead), func(w http.ResponseWriter, r *http.Request) error {
		b, err := s.batch(r.Context(), tenant.LineRead, r.PathValue("id"))
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Disposition", `attachment; filename="`+b.ID+`.manifest.json"`)
		return s.WriteManifest(r.Context(), w, b)
	})
}

func sayClosed(r *http.Request, b Batch) {
	said := "Batch " + b.Name + " is closed."
	if n := b.Surplus(); n > 0 {
		said += " Alarm: " + console.Plural(n, "identity has", "identities have") + " no unit that was made."
	}
	console.Say(r, said)
}

type unitsPage struct {
	Station  StationOut
	Batch    string // its name
	Revoked  bool   // with all that it made
	Spoilt   bool   // its batch was revoked as a whole
	Units    []Affected
	Refusals []wire.RefusedUnit
	MayWrite bool
	Typed    url.Values
	Pager    console.Pager
}

// Heading is the page's title.
func (p unitsPage) Heading() string { return "Line station " + p.Station.Name }

func (s *Service) loadStation(r *http.Request) (any, error) {
	ctx := r.Context()
	st, err := s.station(ctx, tenant.LineRead, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	p := unitsPage{Station: StationOut{st, st.State(s.now())}, MayWrite: tenant.Holds(ctx, string(tenant.LineWrite)), Typed: console.Typed(r)}
	b, err := batchByID(s.reads(ctx), st.Tenant, st.Batch)
	if err != nil {
		return nil, err
	}
	gone, err := s.revoked(ctx, st.Tenant)
	if err != nil {
		return nil, err
	}
	p.Batch, p.Revoked, p.Spoilt = b.Name, gone[st.ID], gone[st.Batch]
	after := r.FormValue("after")
	if p.Units, err = affected(ctx, s.cfg.DB, st, after, pageSize+1); err != nil {
		return nil, err
	}
	p.Units, p.Pager = turn(p.Units, r.URL.Path, "after", after, func(a Affected) string { return a.Device })
	p.Refusals, err = s.RefusedUnits(ctx, st.Tenant, st.ID, 0, pageSize)
	return p, err
}

type batchPage struct {
	batchLine
	Hardware    string
	Differences []Difference
	MayRevoke   bool
	MayClose    bool // with a number or a list, or a list after the number
	Typed       url.Values
	Pager       console.Pager
}

// Heading is the page's title.
func (p batchPage) Heading() string { return "Batch " + p.Name }

func (s *Service) loadBatch(r *http.Request) (any, error) {
	ctx := r.Context()
	b, err := s.batch(ctx, tenant.LineRead, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	out, err := s.outBatches(ctx, b.Tenant, []Batch{b})
	if err != nil {
		return nil, err
	}
	gone, err := s.revoked(ctx, b.Tenant)
	if err != nil {
		return nil, err
	}
	rev, err := s.cfg.Products.Revision(ctx, b.Tenant, b.Revision)
	if err != nil {
		return nil, err
	}
	pr, err := s.cfg.Products.Get(ctx, b.Tenant, rev.Product)
	if err != nil {
		return nil, err
	}
	p := batchPage{batchLine: lineOf(out[0], gone[b.ID]), Hardware: pr.Name + " " + rev.Name, MayRevoke: !gone[b.ID] && tenant.Holds(ctx, string(tenant.DeviceRevoke)),
		MayClose: b.List == "" && (!gone[b.ID] || !b.Closed.IsZero()) && tenant.Require(ctx, tenant.LineWrite, thing(b)) == nil, Typed: console.Typed(r)}
	if b.List != "" {
		after := r.FormValue("after")
		if p.Differences, err = s.Differences(ctx, b, after, pageSize+1); err != nil {
			return nil, err
		}
		p.Differences, p.Pager = turn(p.Differences, r.URL.Path, "after", after, func(d Difference) string { return d.Serial })
	}
	return p, nil
}

// turn cuts a list to one page and makes the links to the others; name is the parameter that says where a page begins.
func turn[T any](items []T, path, name, at string, key func(T) string) ([]T, console.Pager) {
	var p console.Pager
	link := func(key string) string { return path + "?" + url.Values{name: {key}}.Encode() }
	if strings.Contains(path, "?") {
		link = func(key string) string { return path + "&" + url.Values{name: {key}}.Encode() }
	}
	if at != "" {
		p.First = path
	}
	if len(items) > pageSize {
		items = items[:pageSize]
		p.Next = link(key(items[pageSize-1]))
	}
	return items, p
}

// batchTile counts the batches that made more identities than units, as long as one of these opens a door.
func (s *Service) batchTile(ctx context.Context) (console.Figure, error) {
	scope, ok := visible(ctx, tenant.LineRead, "", 0)
	if !ok {
		return console.Figure{}, nil
	}
	n, err := s.countBatches(ctx, tenant.MustTenant(ctx), scope.products)
	if err != nil || n.all == 0 {
		return console.Figure{}, err
	}
	f := console.Figure{Label: "Batches open", Value: console.Count(n.open), Note: "no surplus", Href: "/enrol"}
	if n.over > 0 {
		f = console.Figure{Label: "Batches with surplus", Value: console.Count(n.over), Note: console.Plural(n.surplus, "identity", "identities") + " without a unit, not ended", Href: "/enrol", Tone: "bad"}
	}
	return f, nil
}

// stationTile is there when a station shows that it is not what it should be.
func (s *Service) stationTile(ctx context.Context) (console.Figure, error) {
	scope, ok := visible(ctx, tenant.LineRead, "", 0)
	if !ok {
		return console.Figure{}, nil
	}
	n, err := countSuspicious(ctx, s.cfg.DB, tenant.MustTenant(ctx), scope.products, store.Millis(s.now()))
	if err != nil || n == 0 {
		return console.Figure{}, err
	}
	return console.Figure{Label: "Line stations to look at", Value: console.Count(n), Note: "beyond the quota, a wrong clock or a copy", Href: "/enrol", Tone: "bad"}, nil
}

// lobbyTile counts who waits.
func (s *Service) lobbyTile(ctx context.Context) (console.Figure, error) {
	scope, ok := visible(ctx, tenant.EnrolRead, "", 0)
	if !ok {
		return console.Figure{}, nil
	}
	n, err := countGuests(ctx, s.cfg.DB, tenant.MustTenant(ctx), scope.products)
	if err != nil || n == 0 {
		return console.Figure{}, err
	}
	return console.Figure{Label: "Devices in the lobby", Value: console.Count(n), Note: "wait for a person", Href: "/enrol/lobby", Tone: "warn"}, nil
}

func (s *Service) loadEnrol(r *http.Request) (any, error) {
	ctx := r.Context()
	p := enrolPage{Names: map[string]string{}, Typed: console.Typed(r), MayWrite: tenant.Holds(ctx, string(tenant.LineWrite)),
		MayClaim: tenant.Holds(ctx, string(tenant.DeviceClaim))}
	at := r.URL.Query()
	bs, err := s.batches(ctx, at.Get("before"), pageSize+1)
	if err != nil {
		return nil, err
	}
	bs, p.Pager = turn(bs, "/enrol", "before", at.Get("before"), func(b BatchOut) string { return b.ID })
	if p.Revoked, err = s.revoked(ctx, tenant.MustTenant(ctx)); err != nil {
		return nil, err
	}
	for _, b := range bs {
		p.Batches = append(p.Batches, lineOf(b, p.Revoked[b.ID]))
		p.Names[b.ID] = b.Name
		if b.Closed.IsZero() && !p.Revoked[b.ID] {
			p.Open = append(p.Open, console.Option{Value: b.ID, Word: b.Name})
		}
	}
	sts, err := s.stations(ctx, at.Get("stations"), pageSize+1)
	if err != nil {
		return nil, err
	}
	p.Stations, p.Stationed = turn(sts, "/enrol", "stations", at.Get("stations"), func(st StationOut) string { return st.ID })
	for _, st := range p.Stations { // its batch may be on another page
		if p.Names[st.Batch] == "" {
			b, err := batchByID(s.reads(ctx), st.Tenant, st.Batch)
			if err != nil {
				return nil, err
			}
			p.Names[st.Batch] = b.Name
		}
	}
	products, err := s.cfg.Products.List(ctx, tenant.MustTenant(ctx))
	if err != nil {
		return nil, err
	}
	for _, pr := range products {
		if err := s.addRevisions(ctx, &p, pr); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (s *Service) addRevisions(ctx context.Context, p *enrolPage, pr product.Product) error {
	revs, err := s.cfg.Products.Revisions(ctx, pr.Tenant, pr.ID)
	for _, v := range revs {
		p.Names[v.ID] = pr.Name + " " + v.Name
		p.Revisions = append(p.Revisions, console.Option{Value: v.ID, Word: p.Names[v.ID]})
	}
	return err
}

// solutions are those that whoever asks may claim into.
func (s *Service) solutions(ctx context.Context) ([]console.Option, error) {
	all, err := s.cfg.Tenants.SeenByStaff(ctx, tenant.DeviceClaim)
	return options(all), err
}

// options names solutions by the way down to them.
func options(sols []tenant.Solution) (out []console.Option) {
	for _, sol := range sols {
		out = append(out, console.Option{Value: sol.ID, Word: sol.Path})
	}
	return out
}

// anyDevice says whether the tenant has a device, in the state if one is named.
func (s *Service) anyDevice(state identity.State) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		ds, err := s.cfg.Identity.List(ctx, tenant.MustTenant(ctx), identity.Filter{State: state, Limit: 1})
		return len(ds) > 0, err
	}
}
