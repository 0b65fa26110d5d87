// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"embed"
	"net/http"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed pages/*.html
var pagesFS embed.FS

type devicePart struct {
	Device
	Certificates []Certificate
	MaySuspend   bool
	MayResume    bool
}

// Pages fills the slot "device" and mounts its forms.
func (s *Service) Pages(c *console.Console) {
	c.Fragment("device", console.Fragment{Order: 20, Title: "Identity", Verb: string(tenant.DeviceRead), FS: pagesFS, Template: "pages/device.html",
		Load: func(r *http.Request, id string) (any, error) {
			d, err := s.Visible(r.Context(), tenant.DeviceRead, id)
			if err != nil {
				return nil, err
			}
			cs, err := s.Certificates(r.Context(), d.Tenant, d.ID)
			who, _ := tenant.ActorFrom(r.Context())
			may := tenant.Can(who, tenant.DeviceSuspend, tenant.Thing{Tenant: d.Tenant, Product: d.Product, Solution: d.Solution})
			return devicePart{Device: d, Certificates: cs, MaySuspend: may && d.State.May(Suspended), MayResume: may && d.State == Suspended}, err
		}})
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
