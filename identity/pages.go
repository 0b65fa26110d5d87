// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"embed"
	"net/http"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed pages/*.html
var pagesFS embed.FS

type devicePart struct {
	Device
	Certificates []Certificate // the newest first
	Names        *console.Names
	MaySuspend   bool
	MayResume    bool
}

// gradeWords say in words how sure we are of a device's key.
var gradeWords = map[Grade]string{GradeA: "its hardware has attested the key", GradeB: "it says that hardware has the key", GradeC: "the key is a file"}

// GradeWords say what the grade means.
func (p devicePart) GradeWords() string {
	if w, ok := gradeWords[p.Grade]; ok {
		return w
	}
	return "nobody has looked at its key"
}

// Works is the certificate that the device works with; nil before it has enrolled.
func (p devicePart) Works() *Certificate {
	for i, c := range p.Certificates {
		if c.Kind == LDevID && c.Phase == PhaseActive {
			return &p.Certificates[i]
		}
	}
	return nil
}

// LockedOut says that the device had certificates and none that any door takes is left, so that it cannot enrol either.
func (p devicePart) LockedOut() bool {
	return len(p.Certificates) > 0 && !slices.ContainsFunc(p.Certificates, func(c Certificate) bool { return c.Phase == PhaseActive || c.Phase == PhasePending })
}

// Renewals is how often the device replaced the certificate that it works with.
func (p devicePart) Renewals() int {
	n := 0
	for _, c := range p.Certificates {
		if c.Kind == LDevID && c.Phase == PhaseSuperseded {
			n++
		}
	}
	return n
}

// RenewsAt is about when the device asks for its next certificate: agents do after two thirds of its life.
func (p devicePart) RenewsAt() time.Time {
	c := p.Works()
	if c == nil {
		return time.Time{}
	}
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) / 3 * 2)
}

// Pages fills the slot "device" and mounts its forms.
func (s *Service) Pages(c *console.Console) {
	c.Fragment("device", console.Fragment{Order: 20, Half: true, Title: "Identity", Verb: string(tenant.DeviceRead), FS: pagesFS, Template: "pages/device.html",
		Load: func(r *http.Request, id string) (any, error) {
			d, err := s.Visible(r.Context(), tenant.DeviceRead, id)
			if err != nil {
				return nil, err
			}
			cs, err := s.Certificates(r.Context(), d.Tenant, d.ID)
			who, _ := tenant.ActorFrom(r.Context())
			may := tenant.Can(who, tenant.DeviceSuspend, tenant.Thing{Tenant: d.Tenant, Product: d.Product, Solution: d.Solution})
			return devicePart{Device: d, Certificates: cs, Names: c.Names(r.Context()), MaySuspend: may && d.State.May(Suspended), MayResume: may && d.State == Suspended}, err
		}})
	s.issuerPages(c)
	s.revocationPages(c)
	c.Tile(console.Tile{Order: 50, Verb: string(tenant.DeviceRead), Load: s.endingTile})
	c.Form("/devices/{id}/suspend", string(tenant.DeviceSuspend), func(r *http.Request) (string, error) {
		d, err := s.change(r.Context(), r.PathValue("id"), r.FormValue("reason"), s.Suspend)
		if err == nil {
			console.Say(r, d.Serial+" is suspended.")
		}
		return "/devices/" + r.PathValue("id"), err
	})
	c.Form("/devices/{id}/resume", string(tenant.DeviceSuspend), func(r *http.Request) (string, error) {
		d, err := s.change(r.Context(), r.PathValue("id"), r.FormValue("reason"), s.Resume)
		if err == nil {
			console.Say(r, d.Serial+" is "+string(d.State)+" again.")
		}
		return "/devices/" + r.PathValue("id"), err
	})
}

// soon is how near its end a certificate in service needs attention: agents renew after two thirds of its life.
const soon = 14 * 24 * time.Hour

// endingTile counts the certificates that end soon, for those who see the whole fleet.
func (s *Service) endingTile(ctx context.Context) (console.Figure, error) {
	t := tenant.MustTenant(ctx)
	who, _ := tenant.ActorFrom(ctx)
	if !tenant.Can(who, tenant.DeviceRead, tenant.Thing{Tenant: t}) {
		return console.Figure{}, nil
	}
	states, err := s.CountByState(ctx, t)
	if err != nil || len(states) == 0 {
		return console.Figure{}, err
	}
	n, err := s.Ending(ctx, t, s.cfg.Clock.Now().Add(soon))
	f := console.Figure{Label: "Certificates ending", Value: console.Count(n), Note: "none within 14 days", Href: "/fleet"}
	if n > 0 {
		f.Note, f.Tone = "within 14 days, not renewed", "warn"
	}
	return f, err
}
