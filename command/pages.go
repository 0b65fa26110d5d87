// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"
	"embed"
	"encoding/json"
	"html/template"
	"net/http"
	"net/url"
	"strings"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed pages/*.html
var pagesFS embed.FS

// devicePart is the panel of commands on a device's page.
type devicePart struct {
	Device   string
	List     template.HTML // of the newest commands
	Live     string        // where what becomes of them is told
	MaySend  bool
	Declared []Declared // those that the visitor may send
	Free     bool       // and any other
	Typed    url.Values
}

// Pages adds the panel of commands and the card of notices to the device's page, the catalogue to the product's, and the jobs.
func (s *Service) Pages(c *console.Console) {
	panel := newPanel(c)
	c.Fragment("device", console.Fragment{Order: 60, Title: "Commands", Verb: string(tenant.DeviceRead), FS: pagesFS, Template: "pages/device.html",
		Load: func(r *http.Request, device string) (any, error) {
			return s.loadDevice(r, panel, device)
		}})
	c.Live("/devices/{id}/commands/live", string(tenant.DeviceRead), func(ctx context.Context, r *http.Request, send func(event, html string)) {
		s.follow(ctx, panel, r.PathValue("id"), r.URL.Query().Get("newest"), send)
	})
	c.Form("/devices/{id}/commands", string(tenant.CommandSend), func(r *http.Request) (string, error) {
		args, err := s.formArgs(r)
		if err != nil {
			return "", err
		}
		cmd, err := s.ask(r.Context(), r.PathValue("id"), Request{Name: r.FormValue("name"), Args: args}, nil)
		if err == nil {
			console.Say(r, "Command "+cmd.Name+" is queued.")
		}
		return "/devices/" + r.PathValue("id"), err
	})
	c.Form("/commands/{id}/cancel", string(tenant.CommandSend), func(r *http.Request) (string, error) {
		cmd, err := s.cancel(r.Context(), r.PathValue("id"), "")
		if err == nil {
			console.Say(r, "Command "+cmd.Name+" was taken back.")
		}
		return "/devices/" + cmd.Device, err
	})
	s.noticePages(c)
	s.cataloguePages(c)
	s.jobPages(c)
}

func (s *Service) loadDevice(r *http.Request, panel panel, device string) (p devicePart, err error) {
	ctx := r.Context()
	d, err := s.cfg.Identity.Visible(ctx, tenant.DeviceRead, device)
	if err != nil {
		return p, err
	}
	all, err := s.Catalogue(ctx, d.Tenant, d.Product)
	if err != nil {
		return p, err
	}
	who, _ := tenant.ActorFrom(ctx)
	thing := thingOf(d)
	may := tenant.Can(who, tenant.CommandSend, thing) && d.State == identity.Commissioned
	if may {
		if err := s.takes(ctx, d); problem.Is(err, problem.KindConflict) {
			may = false
		} else if err != nil {
			return p, err
		}
	}
	p = devicePart{Device: d.ID, MaySend: may, Free: len(all) == 0 || tenant.Can(who, tenant.CatalogueWrite, thing), Typed: console.Typed(r)}
	for _, k := range all {
		if k.allows(who, thing) == nil {
			p.Declared = append(p.Declared, k)
		}
	}
	rows, err := s.rows(ctx, panel, d, panelRows)
	p.Live = "/devices/" + d.ID + "/commands/live"
	if len(rows) > 0 {
		p.Live += "?newest=" + rows[0].ID
	}
	p.List = panel.blocks("list", map[string]any{"Commands": rows})
	return p, err
}

// argPrefix is what the fields of a declared command's arguments begin with.
const argPrefix = "arg."

// formArgs reads arguments from a form: JSON as it was written, or the fields of a declared command.
func (s *Service) formArgs(r *http.Request) (json.RawMessage, error) {
	if text := strings.TrimSpace(r.FormValue("args")); text != "" {
		if !json.Valid([]byte(text)) {
			return nil, problem.Invalid("The arguments are not JSON.").At("args").Hint(`Such as {"seconds": 5}.`)
		}
		return json.RawMessage(text), nil
	}
	if r.FormValue("declared") == "" {
		return json.RawMessage(`{}`), nil
	}
	kind, err := s.kindOf(r.Context(), r.PathValue("id"), r.FormValue("name"))
	if err != nil {
		return nil, err
	}
	given := map[string]any{}
	for _, a := range kind.Args {
		written := r.FormValue(argPrefix + a.Name)
		switch {
		case a.Type == "boolean":
			given[a.Name] = written != ""
		case written == "":
		case a.Type == "string":
			given[a.Name] = written
		default:
			if !json.Valid([]byte(written)) {
				return nil, problem.Invalid("The argument %s is not a number.", a.Name).At(argPrefix + a.Name)
			}
			given[a.Name] = json.RawMessage(written)
		}
	}
	return json.Marshal(given)
}

// kindOf is the declaration of a command to a device.
func (s *Service) kindOf(ctx context.Context, device, name string) (Declared, error) {
	d, err := s.cfg.Identity.Visible(ctx, tenant.CommandSend, device)
	if err != nil {
		return Declared{}, err
	}
	return s.declared(ctx, d.Tenant, d.Product, name)
}

// productPart is the catalogue of commands on a product's page.
type productPart struct {
	Product string
	Known   []Declared
	May     bool
	Typed   url.Values
}

func (s *Service) cataloguePages(c *console.Console) {
	c.Fragment("product", console.Fragment{Order: 60, Title: "Commands", Verb: string(tenant.ProductRead), FS: pagesFS, Template: "pages/product.html",
		Load: func(r *http.Request, product string) (any, error) {
			t := tenant.MustTenant(r.Context())
			thing := tenant.Thing{Tenant: t, Product: product}
			if err := tenant.Require(r.Context(), tenant.ProductRead, thing); err != nil {
				return nil, err
			}
			who, _ := tenant.ActorFrom(r.Context())
			known, err := s.Catalogue(r.Context(), t, product)
			p := productPart{Product: product, Known: known, May: tenant.Can(who, tenant.CatalogueWrite, thing), Typed: url.Values{}}
			if typed := console.Typed(r); typed.Has("command") {
				p.Typed = typed
			}
			return p, err
		}})
	c.Form("/products/{id}/commands", string(tenant.CatalogueWrite), func(r *http.Request) (string, error) {
		ctx, product := r.Context(), r.PathValue("id")
		t := tenant.MustTenant(ctx)
		if err := s.isProduct(ctx, t, product); err != nil {
			return "", err
		}
		if err := tenant.Require(ctx, tenant.CatalogueWrite, tenant.Thing{Tenant: t, Product: product}); err != nil {
			return "", err
		}
		who, _ := tenant.ActorFrom(ctx)
		d := Declared{Product: product, Name: r.FormValue("command"), Title: r.FormValue("title"), About: r.FormValue("about"), Actor: who.ID,
			Roles: strings.FieldsFunc(r.FormValue("roles"), func(c rune) bool { return c == ',' || c == ' ' }), Policy: DefaultPolicy}
		d.Idempotent = r.FormValue("idempotent") != ""
		var err error
		if d.ResultTimeout, err = console.Number(r, "result_timeout"); err != nil {
			return "", err
		}
		if text := strings.TrimSpace(r.FormValue("args")); text != "" {
			if err := json.Unmarshal([]byte(text), &d.Args); err != nil {
				return "", problem.Invalid("The arguments are not a JSON list.").At("args").Hint(`Such as [{"name": "seconds", "type": "number", "min": 1, "max": 60, "required": true}].`)
			}
		}
		if _, err := s.Declare(ctx, t, d); err != nil {
			return "", err
		}
		console.Say(r, d.Title+" is declared.")
		return "/products/" + product, nil
	})
	c.Form("/products/{id}/commands/{name}/withdraw", string(tenant.CatalogueWrite), func(r *http.Request) (string, error) {
		ctx, product := r.Context(), r.PathValue("id")
		t := tenant.MustTenant(ctx)
		if err := tenant.Require(ctx, tenant.CatalogueWrite, tenant.Thing{Tenant: t, Product: product}); err != nil {
			return "", err
		}
		who, _ := tenant.ActorFrom(ctx)
		return "/products/" + product, s.Withdraw(ctx, t, product, r.PathValue("name"), who.ID)
	})
}
