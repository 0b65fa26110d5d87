// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/tenant"
)

// signs says in words what the authorities of a role are for.
var signs = map[Role]string{
	Root: "the authorities below it", Anchor: "trust bundles and the bootstrap authority", Factory: "devices at birth, line stations",
	Operational: "devices in operation", Server: "the platform's doors", Bootstrap: "the door for devices that slept",
}

// keyWords says in words where a key is.
var keyWords = map[string]string{
	"sealed": "sealed on this machine", "pkcs11": "in a hardware module", "tpm": "in the TPM of this machine", "backend": "with the backend", "away": "not on this machine",
}

// issuerRow is an authority on the page.
type issuerRow struct {
	AuthorityOut
	now time.Time
}

// issuerTree is a root or anchor and what it signed.
type issuerTree struct {
	issuerRow
	Below []issuerRow
}

// Spent is how much of its life is over, in thousandths.
func (r issuerRow) Spent() int64 {
	life := r.NotAfter.Sub(r.NotBefore)
	if life <= 0 {
		return 0
	}
	return min(1000, max(0, int64(r.now.Sub(r.NotBefore)/(life/1000))))
}

// Past says that it signs nothing any more.
func (r issuerRow) Past() bool { return r.Status == Retired || r.Status == Compromised }

// Signs is what it is for.
func (r issuerRow) Signs() string { return signs[r.Role] }

// KeyWords is where its key is.
func (r issuerRow) KeyWords() string { return keyWords[r.Protection] }

type issuersPage struct {
	Warnings []string
	Trees    []issuerTree
	Bundles  []BundleProgress
	Progress Progress // of the newest
	Bar      console.Bar
	Gate     string
	Lagging  []Ack
	Pager    console.Pager
}

// issuerPages mounts the page Issuers and its tile on Today.
func (s *Service) issuerPages(c *console.Console) {
	c.Page(console.Page{Path: "/issuers", Title: "Issuers", Menu: "Issuers", Verb: string(tenant.IssuerRead), FS: pagesFS, Template: "pages/issuers.html", Load: s.loadIssuers})
	c.Tile(console.Tile{Order: 55, Verb: string(tenant.IssuerRead), Load: s.issuersTile})
}

func (s *Service) loadIssuers(r *http.Request) (any, error) {
	ctx := r.Context()
	t := tenant.MustTenant(ctx)
	if err := tenant.Require(ctx, tenant.IssuerRead, tenant.Thing{Tenant: t}); err != nil {
		return nil, err
	}
	o, err := s.Overview(ctx, t)
	if err != nil {
		return nil, err
	}
	p := issuersPage{Warnings: o.Warnings, Progress: o.Progress}
	p.Trees = s.trees(o.Authorities)
	bundles, err := s.Bundles(ctx, 0, 10)
	if err != nil {
		return nil, err
	}
	c, err := s.bundleCensus(ctx, t)
	if err != nil {
		return nil, err
	}
	for _, b := range bundles {
		p.Bundles = append(p.Bundles, BundleProgress{b, c.progress(b.Version)})
	}
	if o.Bundle == nil {
		return p, nil
	}
	p.Bar = console.Bar{Label: fmt.Sprintf("commissioned devices on version %d", o.Bundle.Version), Total: o.Progress.Devices, Parts: []console.BarPart{
		{Word: "acknowledged", N: o.Progress.Acknowledged, Tone: "good"}, {Word: "behind", N: o.Progress.Behind, Tone: "busy"}, {Word: "unknown", N: o.Progress.Unknown, Tone: "past"}}}
	if p.Gate, err = s.gateWords(ctx, o.Authorities); err != nil {
		return nil, err
	}
	const rows = 50
	if p.Lagging, err = s.Lagging(ctx, t, o.Bundle.Version, r.FormValue("after"), rows+1); err != nil {
		return nil, err
	}
	if len(p.Lagging) > rows {
		p.Lagging = p.Lagging[:rows]
		p.Pager.Next = "/issuers?after=" + url.QueryEscape(p.Lagging[rows-1].Device)
	}
	if r.FormValue("after") != "" {
		p.Pager.First = "/issuers"
	}
	return p, nil
}

// trees puts the authorities below the roots and anchors that signed them, the newest generation first.
func (s *Service) trees(all []AuthorityOut) (out []issuerTree) {
	now := s.cfg.Clock.Now()
	for _, role := range []Role{Root, Anchor} {
		for _, a := range all {
			if a.Role != role {
				continue
			}
			t := issuerTree{issuerRow: issuerRow{a, now}}
			for _, b := range all {
				if b.Parent == a.ID && b.ID != a.ID {
					t.Below = append(t.Below, issuerRow{b, now})
				}
			}
			out = append(out, t)
		}
	}
	var open issuerTree // requests that nobody has signed yet
	for _, b := range all {
		if b.Status == Requested {
			open.Below = append(open.Below, issuerRow{b, now})
		}
	}
	if len(open.Below) > 0 {
		out = append(out, open)
	}
	return out
}

// gateWords says for each authority on standby below another root whether the gate is open.
func (s *Service) gateWords(ctx context.Context, all []AuthorityOut) (string, error) {
	var out []string
	for _, a := range all {
		if a.Status != Standby || a.Parent == a.ID {
			continue
		}
		g, err := s.Gate(ctx, a.Authority, Gated)
		switch {
		case err != nil:
			return "", err
		case g.Open:
			out = append(out, fmt.Sprintf("%s may be promoted.", a.ID))
		case g.Version == 0:
			out = append(out, fmt.Sprintf("%s waits: no trust bundle names %s yet.", a.ID, g.Root))
		default:
			out = append(out, fmt.Sprintf("%s waits: %.1f of %g per cent of the devices on this platform know %s.", a.ID, g.Percent, g.Needed, g.Root))
		}
	}
	return strings.Join(out, " "), nil
}

// issuersTile shows on Today what the authorities need; nothing while all is well.
func (s *Service) issuersTile(ctx context.Context) (console.Figure, error) {
	if err := tenant.Require(ctx, tenant.IssuerRead, tenant.Thing{Tenant: tenant.MustTenant(ctx)}); err != nil {
		return console.Figure{}, nil
	}
	all, err := s.AuthoritiesOut(ctx)
	if err != nil {
		return console.Figure{}, err
	}
	if n := len(Stopped(all)); n > 0 {
		return console.Figure{Label: "Authorities missing", Value: console.Count(int64(n)), Href: "/issuers", Tone: "bad", Note: "compromised, and nothing signs in their place"}, nil
	}
	if st := s.IssuerState(); !st.OK {
		return console.Figure{Label: "Issuer", Value: "away", Href: "/issuers", Tone: "bad", Note: "nothing can be signed"}, nil
	}
	f := console.Figure{Label: "Authorities ending", Href: "/issuers", Tone: "warn", Note: "a successor is due"}
	n := int64(0)
	for _, a := range all {
		if a.Alarm == "" || a.Status == Retiring {
			continue
		}
		if n++; a.Alarm != alarmSoon {
			f.Tone, f.Note = "bad", "what they sign would outlive them"
		}
	}
	if n == 0 {
		return console.Figure{}, nil
	}
	f.Value = console.Count(n)
	return f, nil
}
