// SPDX-License-Identifier: AGPL-3.0-only

package update

import (
	"context"
	"embed"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/update/trust"
	"github.com/openthings-platform/openthings/wire"
)

//go:embed pages/*.html
var pagesFS embed.FS

type releaseRow struct {
	Release
	ProductName string
	Devices     int64
}

type releasesPage struct {
	Releases []releaseRow
	Root     *trust.Root // nil: none yet
}

type releasePage struct {
	ReleaseOut
	ProductName string
	Deployments []Deployment
	Solutions   []console.Option
	Names       *console.Names
	MayPublish  bool
	MayDeploy   bool
	Typed       url.Values
	Slot        template.HTML
}

// Heading is the page's title.
func (p releasePage) Heading() string { return p.ProductName + " " + p.Version }

type deploymentsPage struct {
	Deployments []deploymentRow
	Names       *console.Names
}

type deploymentRow struct {
	Deployment
	ReleaseName string
}

type deploymentPage struct {
	Deployment
	ReleaseName string
	Bars        []waveBar
	Updates     []Update
	Names       *console.Names
	MaySteer    bool
}

// Heading is the page's title.
func (p deploymentPage) Heading() string { return "Deployment of " + p.ReleaseName }

type waveBar struct {
	Wave
	Bar console.Bar
}

type firmwarePage struct {
	Firmware
	Known   bool // the device has reported
	Updates []updateRow
}

type updateRow struct {
	Update
	ReleaseName string
}

// Pages mounts the console pages. /releases/{id} is shared with later stages: the slot "release".
func (s *Service) Pages(c *console.Console) {
	c.Page(console.Page{Path: "/releases", Title: "Releases", Menu: "Releases", Verb: string(tenant.ReleaseRead), FS: pagesFS, Template: "pages/releases.html",
		Load: func(r *http.Request) (any, error) { return s.releasesPage(r.Context()) }})
	c.Page(console.Page{Path: "/releases/{id}", Title: "Release", Menu: "Releases", Verb: string(tenant.ReleaseRead), FS: pagesFS, Template: "pages/release.html",
		Load: func(r *http.Request) (any, error) {
			p, err := s.releasePage(r.Context(), r.PathValue("id"))
			p.Typed, p.Names = console.Typed(r), c.Names(r.Context())
			p.Slot = c.Slot("release").Render(r, p.ID)
			return p, err
		}})
	c.Form("/releases/{id}/publish", string(tenant.ReleasePublish), func(r *http.Request) (string, error) {
		rel, err := s.publish(r.Context(), r.PathValue("id"))
		if err == nil {
			console.Say(r, rel.Version+" is published and may be deployed.")
		}
		return "/releases/" + r.PathValue("id"), err
	})
	c.Form("/releases/{id}/withdraw", string(tenant.ReleasePublish), func(r *http.Request) (string, error) {
		reason := strings.TrimSpace(r.FormValue("reason"))
		if reason == "" || len(reason) > 2000 {
			return "", problem.Invalid("Say in up to 2000 bytes why it is withdrawn.").At("reason")
		}
		_, err := s.withdraw(r.Context(), r.PathValue("id"), reason)
		return "/releases/" + r.PathValue("id"), err
	})
	c.Form("/releases/{id}/deploy", string(tenant.DeploymentWrite), func(r *http.Request) (string, error) {
		waves, err := parseWaves(r.FormValue("waves"))
		if err != nil {
			return "", err
		}
		d, err := s.start(r.Context(), r.PathValue("id"), strings.TrimSpace(r.FormValue("solution")), waves, r.FormValue("override"))
		return "/deployments/" + d.ID, err
	})
	c.Page(console.Page{Path: "/deployments", Title: "Deployments", Menu: "Releases", Verb: string(tenant.ReleaseRead), FS: pagesFS, Template: "pages/deployments.html",
		Load: func(r *http.Request) (any, error) {
			list, err := s.readableDeployments(r.Context(), "")
			p := deploymentsPage{Names: c.Names(r.Context())}
			for _, d := range list {
				p.Deployments = append(p.Deployments, deploymentRow{d, s.ReleaseName(r.Context(), d.Tenant, d.Release)})
			}
			return p, err
		}})
	c.Page(console.Page{Path: "/deployments/{id}", Title: "Deployment", Menu: "Releases", Verb: string(tenant.ReleaseRead), FS: pagesFS, Template: "pages/deployment.html",
		Load: func(r *http.Request) (any, error) {
			p, err := s.deploymentPage(r.Context(), r.PathValue("id"))
			p.Names = c.Names(r.Context())
			return p, err
		}})
	for path, to := range map[string]string{"pause": Paused, "resume": Running, "abort": Aborted} {
		c.Form("/deployments/{id}/"+path, string(tenant.DeploymentWrite), func(r *http.Request) (string, error) {
			return "/deployments/" + r.PathValue("id"), s.steer(r.Context(), r.PathValue("id"), to)
		})
	}
	c.Fragment("device", console.Fragment{Order: 10, Half: true, Title: "Firmware", Verb: string(tenant.DeviceRead), FS: pagesFS, Template: "pages/firmware.html",
		Load: func(r *http.Request, device string) (any, error) { return s.firmwarePage(r.Context(), device) }})
	c.Step(console.Step{Order: 40, Title: "Publish a signed release", Text: "Your offline key signs it; devices accept nothing else.", Href: "/releases", Button: "See releases", Done: s.published})
	c.Tile(console.Tile{Order: 20, Verb: string(tenant.ReleaseRead), Load: s.deploymentTile})
}

// deploymentTile counts the deployments under way, and first those that need somebody: paused, or with failed devices.
func (s *Service) deploymentTile(ctx context.Context) (console.Figure, error) {
	list, err := s.readableDeployments(ctx, "")
	if err != nil || len(list) == 0 {
		return console.Figure{}, err
	}
	var running, trouble int64
	for _, d := range list {
		if d.State != Running && d.State != Paused {
			continue
		}
		running++
		counts, err := countWaves(ctx, s.cfg.DB, d.Tenant, d.ID)
		if err != nil {
			return console.Figure{}, err
		}
		if d.State == Paused || failures(counts) > 0 {
			trouble++
		}
	}
	f := console.Figure{Label: "Deployments running", Value: console.Count(running), Note: "none in trouble", Href: "/deployments"}
	if trouble > 0 {
		f.Note, f.Tone = console.Plural(trouble, "is paused or has failures", "are paused or have failures"), "warn"
	}
	return f, nil
}

// failures counts the devices of all waves that ended without the release.
func failures(waves map[int64]map[string]int64) (n int64) {
	for _, counts := range waves {
		for state, k := range counts {
			if final(state) && state != wire.UpdateCommitted {
				n += k
			}
		}
	}
	return n
}

// parseWaves reads "1, 10, 100".
func parseWaves(text string) (waves []int64, err error) {
	for _, f := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return nil, problem.Invalid("%q is not a percentage.", f).At("waves")
		}
		waves = append(waves, n)
	}
	return waves, nil
}

// published says whether the tenant has a published release.
func (s *Service) published(ctx context.Context) (bool, error) {
	var n int64
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		return tx.QueryRow(`SELECT COUNT(*) FROM release WHERE tenant = $1 AND state = $2`, tenant.MustTenant(ctx), Published).Scan(&n)
	})
	return n > 0, err
}

func (s *Service) releasesPage(ctx context.Context) (p releasesPage, err error) {
	t := tenant.MustTenant(ctx)
	list, err := s.readable(ctx, "")
	if err != nil {
		return p, err
	}
	counts, err := s.cfg.Fleet.CountByRelease(ctx, t)
	if err != nil {
		return p, err
	}
	for _, r := range list {
		p.Releases = append(p.Releases, releaseRow{r, s.productName(ctx, r), counts[r.ID]})
	}
	doc, err := s.TrustRoot(ctx, t)
	if err == nil && doc != nil {
		p.Root, err = trust.ParseRoot(doc)
	}
	return p, err
}

// productName is for headings only: a product that cannot be read stands there by its id.
func (s *Service) productName(ctx context.Context, r Release) string {
	if r.Product == OwnProduct {
		return "OpenThings"
	}
	p, err := s.cfg.Product.Get(ctx, r.Tenant, r.Product)
	if err != nil {
		return r.Product
	}
	return p.Name
}

func (s *Service) releasePage(ctx context.Context, id string) (p releasePage, err error) {
	r, err := s.release(ctx, tenant.ReleaseRead, id)
	if err != nil {
		return p, err
	}
	if p.ReleaseOut, err = s.releaseOut(ctx, r); err != nil {
		return p, err
	}
	if p.Deployments, err = s.readableDeployments(ctx, id); err != nil {
		return p, err
	}
	actor, _ := tenant.ActorFrom(ctx)
	thing := tenant.Thing{Tenant: r.Tenant, Product: r.Product}
	p.ProductName = s.productName(ctx, r)
	p.MayPublish = tenant.Can(actor, tenant.ReleasePublish, thing)
	p.Solutions = []console.Option{{Word: "All devices of the product"}}
	if s.cfg.Tenants != nil {
		all, err := s.cfg.Tenants.Solutions(ctx, r.Tenant)
		if err != nil {
			return p, err
		}
		for _, sol := range all {
			if tenant.Can(actor, tenant.DeploymentWrite, tenant.Thing{Tenant: r.Tenant, Product: r.Product, Solution: sol.ID}) {
				p.Solutions = append(p.Solutions, console.Option{Value: sol.ID, Word: "Only " + sol.Path})
			}
		}
	}
	p.MayDeploy = r.State == Published && tenant.Can(actor, tenant.DeploymentWrite, thing)
	return p, nil
}

func (s *Service) deploymentPage(ctx context.Context, id string) (p deploymentPage, err error) {
	d, err := s.deployment(ctx, tenant.ReleaseRead, id)
	if err != nil {
		return p, err
	}
	counts, err := countWaves(ctx, s.cfg.DB, d.Tenant, d.ID)
	if err != nil {
		return p, err
	}
	p = deploymentPage{Deployment: d, ReleaseName: s.ReleaseName(ctx, d.Tenant, d.Release), MaySteer: d.State == Running || d.State == Paused}
	if err := tenant.Require(ctx, tenant.DeploymentWrite, tenant.Thing{Tenant: d.Tenant, Product: d.Product, Solution: d.Solution}); err != nil {
		p.MaySteer = false
	}
	for _, w := range d.Waves {
		p.Bars = append(p.Bars, waveBar{w, bar(w, counts[w.N])})
	}
	p.Updates, err = updatesOf(ctx, s.cfg.DB, d.Tenant, d.ID, "", 200)
	return p, err
}

// bar draws the devices that began in a wave.
func bar(w Wave, counts map[string]int64) console.Bar {
	b := console.Bar{Label: "Wave " + itoa(w.N+1) + ": up to " + itoa(w.Percent) + " %"}
	var good, bad, busy int64
	for state, n := range counts {
		b.Total += n
		switch {
		case state == wire.UpdateCommitted:
			good += n
		case final(state):
			bad += n
		default:
			busy += n
		}
	}
	b.Parts = []console.BarPart{{Word: "committed", N: good, Tone: "good"}, {Word: "under way", N: busy, Tone: "busy"}, {Word: "failed", N: bad, Tone: "bad"}}
	return b
}

// firmwarePage is the device page's part. The slot's owner has checked that the visitor may see the device.
func (s *Service) firmwarePage(ctx context.Context, device string) (any, error) {
	t := tenant.MustTenant(ctx)
	f, err := s.Firmware(ctx, t, device)
	if err != nil && !problem.Is(err, problem.KindNotFound) {
		return nil, err
	}
	p := firmwarePage{Firmware: f, Known: err == nil}
	list, err := updatesOf(ctx, s.cfg.DB, t, "", device, 10)
	for _, u := range list {
		p.Updates = append(p.Updates, updateRow{u, s.ReleaseName(ctx, t, u.Release)})
	}
	return p, err
}
