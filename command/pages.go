// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"embed"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed pages/*.html
var pagesFS embed.FS

type devicePart struct {
	Device   string
	Commands []Command
	MaySend  bool
	Typed    url.Values
	Names    *console.Names
}

// Pages adds the form and the list of commands to the device's page.
func (s *Service) Pages(c *console.Console) {
	c.Fragment("device", console.Fragment{Order: 60, Title: "Commands", Verb: string(tenant.DeviceRead), FS: pagesFS, Template: "pages/device.html",
		Load: func(r *http.Request, device string) (any, error) {
			d, err := s.device(r.Context(), device, tenant.DeviceRead)
			if err != nil {
				return nil, err
			}
			cs, err := s.List(r.Context(), d.Tenant, d.ID, "", 10)
			who, _ := tenant.ActorFrom(r.Context())
			may := d.State == identity.Commissioned && tenant.Can(who, tenant.CommandSend, tenant.Thing{Tenant: d.Tenant, Product: d.Product, Solution: d.Solution})
			return devicePart{Device: d.ID, Commands: cs, MaySend: may, Typed: console.Typed(r), Names: c.Names(r.Context())}, err
		}})
	c.Form("/devices/{id}/commands", string(tenant.CommandSend), func(r *http.Request) (string, error) {
		args := strings.TrimSpace(r.FormValue("args"))
		if args == "" {
			args = "{}"
		}
		cmd, err := s.ask(r.Context(), r.PathValue("id"), Request{Name: r.FormValue("name"), Args: json.RawMessage(args)}, nil)
		if err == nil {
			console.Say(r, "Command "+cmd.Name+" is queued.")
		}
		return "/devices/" + r.PathValue("id"), err
	})
}
