// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

type baselineIn struct {
	ID   string `path:"id" doc:"Product"`
	Body Baseline
}

type baselineListIn struct {
	ID string `path:"id" doc:"Product"`
	api.Paging
}

func (s *Service) baselineRoutes(a *api.API) {
	const stage = "product"
	api.Handle(a, api.Op{ID: "get-baseline", Method: "GET", Path: "/v1/products/{id}/baseline", Verb: string(tenant.ProductRead), Stage: stage,
		Summary: "Read what a product's devices must fulfil before they are commissioned"}, func(ctx context.Context, in *byID) (*api.Out[BaselineVersion], error) {
		v, err := s.readableBaseline(ctx, in.ID)
		return api.One(v), err
	})
	api.Handle(a, api.Op{ID: "set-baseline", Method: "PUT", Path: "/v1/products/{id}/baseline", Verb: string(tenant.ProductWrite), Stage: stage,
		Summary: "Set what a product's devices must fulfil before they are commissioned, as a new signed version"}, func(ctx context.Context, in *baselineIn) (*api.Out[BaselineVersion], error) {
		v, err := s.setBaseline(ctx, in.ID, in.Body)
		return api.One(v), err
	})
	api.Handle(a, api.Op{ID: "list-baselines", Method: "GET", Path: "/v1/products/{id}/baselines", Verb: string(tenant.ProductRead), Stage: stage,
		Summary: "List the versions of a product's baseline, the newest first"}, func(ctx context.Context, in *baselineListIn) (*api.List[BaselineVersion], error) {
		p, err := s.read(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		key, err := in.After(a)
		if err != nil {
			return nil, err
		}
		before, _ := strconv.ParseInt(key, 10, 64) // ours: the token is authenticated; empty is 0, the newest
		vs, err := s.BaselineVersions(ctx, p.Tenant, p.ID, before, in.Size()+1)
		if err != nil {
			return nil, err
		}
		return api.More(a, in.Paging, vs, func(v BaselineVersion) string { return strconv.FormatInt(v.Version, 10) }), nil
	})
}

// baselinePart is the baseline on the product's page.
type baselinePart struct {
	BaselineVersion
	Names    *console.Names
	MayWrite bool
}

// Words turns lists into what the form's fields take.
func (p baselinePart) Words(list []string) string { return strings.Join(list, " ") }

// PortWords is the list of ports; "none" for an empty one, which allows none.
func (p baselinePart) PortWords() string {
	switch {
	case p.Ports == nil:
		return ""
	case len(*p.Ports) == 0:
		return "none"
	}
	return p.Words(*p.Ports)
}

func (s *Service) baselinePages(c *console.Console) {
	c.Fragment("product", console.Fragment{Order: 50, Title: "Commissioning baseline", Verb: string(tenant.ProductRead), FS: pagesFS, Template: "pages/baseline.html",
		Load: func(r *http.Request, id string) (any, error) {
			v, err := s.readableBaseline(r.Context(), id)
			return baselinePart{v, c.Names(r.Context()), tenant.Holds(r.Context(), string(tenant.ProductWrite))}, err
		}})
	c.Form("/products/{id}/baseline", string(tenant.ProductWrite), func(r *http.Request) (string, error) {
		b, err := baselineForm(r)
		if err != nil {
			return "", err
		}
		v, err := s.setBaseline(r.Context(), r.PathValue("id"), b)
		if err == nil {
			console.Say(r, "Version "+strconv.FormatInt(v.Version, 10)+" of the baseline counts from now on.")
		}
		return "/products/" + r.PathValue("id"), err
	})
}

func baselineForm(r *http.Request) (Baseline, error) {
	b := Baseline{
		SecureBoot: r.FormValue("secure_boot") != "", HardwareRoot: r.FormValue("hardware_root") != "", NoDefaults: r.FormValue("no_default_credentials") != "",
		TLS: r.FormValue("least_tls"), Debug: strings.Fields(r.FormValue("debug_closed")), Privileges: strings.Fields(r.FormValue("least_privilege")),
	}
	switch ports := strings.Fields(r.FormValue("ports")); {
	case len(ports) == 1 && ports[0] == "none":
		b.Ports = &[]string{}
	case len(ports) > 256 || len(b.Debug) > 256 || len(b.Privileges) > 256:
		return b, problem.Invalid("A list has at most 256 entries.")
	case len(ports) > 0:
		b.Ports = &ports
	}
	return b, nil
}
