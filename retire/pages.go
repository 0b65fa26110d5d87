// SPDX-License-Identifier: AGPL-3.0-only

package retire

import (
	"embed"
	"net/http"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed pages/*.html
var pagesFS embed.FS

// devicePart is the stage's part of a device's page.
type devicePart struct {
	Retirement
	MayWipe, MayEnd bool // the visitor may, and the state allows it
	Wiped           bool
}

// Pages fills the slot "device" and mounts its forms.
func (s *Service) Pages(c *console.Console) {
	verb := string(tenant.DeviceRetire)
	c.Fragment("device", console.Fragment{Order: 95, Title: "End of life", Verb: string(tenant.DeviceRead), FS: pagesFS, Template: "pages/device.html",
		Load: func(r *http.Request, id string) (any, error) {
			d, err := s.cfg.Identity.Visible(r.Context(), tenant.DeviceRead, id)
			if err != nil {
				return nil, err
			}
			who, _ := tenant.ActorFrom(r.Context())
			may := tenant.Can(who, tenant.DeviceRetire, tenant.Thing{Tenant: d.Tenant, Product: d.Product, Solution: d.Solution})
			v := devicePart{}
			if v.Retirement, err = s.Retirement(r.Context(), d.Tenant, d.ID); err != nil {
				return nil, err
			}
			v.Wiped = v.Wipe != nil && v.Wipe.Signed != nil
			v.MayWipe = may && (d.State.May(identity.Decommissioning) || d.State == identity.Decommissioning && v.Wipe != nil && v.Wipe.State.Ended())
			v.MayEnd = may && v.Tombstone == nil
			return v, nil
		}})
	c.Form("/devices/{id}/decommission", verb, func(r *http.Request) (string, error) {
		if _, err := s.decommission(r.Context(), r.PathValue("id"), r.PostFormValue("reason")); err != nil {
			return "", err
		}
		console.Say(r, "The device is asked to wipe itself. Its receipt appears here.")
		return "/devices/" + r.PathValue("id"), nil
	})
	c.Form("/devices/{id}/deprovision", verb, func(r *http.Request) (string, error) {
		if _, err := s.deprovision(r.Context(), r.PathValue("id"), r.PostFormValue("reason"), r.PostFormValue("without_wipe") == "yes"); err != nil {
			return "", err
		}
		console.Say(r, "The device is out for ever. Its data is erased; the evidence is kept.")
		return "/devices/" + r.PathValue("id"), nil
	})
}
