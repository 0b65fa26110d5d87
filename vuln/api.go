// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/tenant"
)

// visible says which products the caller may see vulnerabilities of.
func visible(ctx context.Context) func(product string) bool {
	a, _ := tenant.ActorFrom(ctx)
	return func(product string) bool {
		return tenant.Can(a, tenant.VulnRead, tenant.Thing{Tenant: a.Tenant, Product: product})
	}
}

// Routes registers the operations of vulnerabilities.
func (s *Service) Routes(a *api.API) {
	read := string(tenant.VulnRead)
	s.feedRoutes(a)
	s.vexRoutes(a)
	s.kernelRoutes(a)
	s.stopRoutes(a)
	s.safeRoutes(a)

	type listIn struct{ api.Paging }
	api.Handle(a, api.Op{ID: "list-vulnerabilities", Method: "GET", Path: "/v1/vulnerabilities", Verb: read, Stage: "vuln",
		Summary: "Vulnerabilities with open findings, by product, with the devices exposed; the exploited first"},
		func(ctx context.Context, in *listIn) (*api.List[Summary], error) {
			after, err := in.After(a)
			if err != nil {
				return nil, err
			}
			all, err := s.List(ctx, tenant.MustTenant(ctx), visible(ctx))
			if err != nil {
				return nil, err
			}
			all = slices.DeleteFunc(all, func(x Summary) bool { return cmp.Compare(x.Cursor(), after) <= 0 })
			return api.More(a, in.Paging, all, Summary.Cursor), nil
		})

	api.Handle(a, api.Op{ID: "list-feeds", Method: "GET", Path: "/v1/feeds", Verb: read, Stage: "vuln",
		Summary: "Feeds that were imported, with their digests and dates"},
		func(ctx context.Context, _ *struct{}) (*api.List[FeedState], error) {
			list, err := s.Feeds(ctx, tenant.MustTenant(ctx))
			if err != nil {
				return nil, err
			}
			return api.Items(list), nil
		})

	type getIn struct {
		ID string `path:"id" maxLength:"128" doc:"CVE number, record id or our own id"`
	}
	api.Handle(a, api.Op{ID: "get-vulnerability", Method: "GET", Path: "/v1/vulnerabilities/{id}", Verb: read, Stage: "vuln",
		Summary: "One vulnerability: its names, records, findings and decisions"},
		func(ctx context.Context, in *getIn) (*api.Out[Detail], error) {
			d, err := s.Get(ctx, tenant.MustTenant(ctx), in.ID)
			if err != nil {
				return nil, err
			}
			d.Only(visible(ctx))
			return api.One(d), nil
		})

	type affectedIn struct {
		ID   string    `path:"id" maxLength:"128"`
		AsOf time.Time `query:"as_of" doc:"An instant of the past; absent: now"`
		api.Paging
	}
	api.Handle(a, api.Op{ID: "list-affected", Method: "GET", Path: "/v1/vulnerabilities/{id}/affected", Verb: read, Stage: "vuln",
		Summary: "Which devices are affected, which version, since when: now or as of an instant of the past"},
		func(ctx context.Context, in *affectedIn) (*api.Out[AffectedPage], error) {
			after, err := in.After(a)
			if err != nil {
				return nil, err
			}
			t, seen := tenant.MustTenant(ctx), visible(ctx)
			e, err := s.Affected(ctx, t, in.ID, in.AsOf)
			if err != nil {
				return nil, err
			}
			e.Only(seen)
			list, err := s.AffectedDevices(ctx, t, in.ID, in.AsOf, seen, fleet.Page{After: after, Limit: in.Size() + 1})
			if err != nil {
				return nil, err
			}
			page := api.More(a, in.Paging, list, ExposedDevice.Cursor)
			return api.One(AffectedPage{Exposure: e, List: page.Body}), nil
		})

	type historyIn struct {
		ID string `path:"id" maxLength:"128"`
	}
	api.Handle(a, api.Op{ID: "get-vulnerability-history", Method: "GET", Path: "/v1/vulnerabilities/{id}/history", Verb: read, Stage: "vuln",
		Summary: "Since when, how many ever, device-days, and how the fix spread: the exposure to one vulnerability over time"},
		func(ctx context.Context, in *historyIn) (*api.Out[History], error) {
			h, err := s.History(ctx, tenant.MustTenant(ctx), in.ID, visible(ctx))
			if err != nil {
				return nil, err
			}
			return api.One(h), nil
		})

	type breakdownIn struct {
		ID   string    `path:"id" maxLength:"128"`
		By   string    `query:"by" required:"true" enum:"release,product,revision,solution,batch,country"`
		AsOf time.Time `query:"as_of" doc:"An instant of the past; absent: now"`
	}
	api.Handle(a, api.Op{ID: "break-down-affected", Method: "GET", Path: "/v1/vulnerabilities/{id}/breakdown", Verb: read, Stage: "vuln",
		Summary: "The devices exposed by release, product, hardware revision, solution, batch or country"},
		func(ctx context.Context, in *breakdownIn) (*api.Out[Breakdown], error) {
			b, err := s.Breakdown(ctx, tenant.MustTenant(ctx), in.ID, in.AsOf, in.By, visible(ctx))
			if err != nil {
				return nil, err
			}
			return api.One(b), nil
		})

	type decideIn struct {
		ID   string `path:"id" maxLength:"128"`
		Body Deciding
	}
	api.Handle(a, api.Op{ID: "decide-vulnerability", Method: "POST", Path: "/v1/vulnerabilities/{id}/decisions", Verb: string(tenant.VulnDecide), Stage: "vuln", Status: 201,
		Summary: "Decide on a vulnerability of a product (VEX); decisions are appended, never changed"},
		func(ctx context.Context, in *decideIn) (*api.List[Decision], error) {
			made, err := s.decideAs(ctx, in.ID, in.Body)
			if err != nil {
				return nil, err
			}
			return api.Items(made), nil
		})
}

// onProduct refuses unless the caller holds the right on a product that the tenant has, and returns the tenant.
func (s *Service) onProduct(ctx context.Context, v tenant.Verb, product string) (string, error) {
	t := tenant.MustTenant(ctx)
	if err := tenant.Require(ctx, v, tenant.Thing{Tenant: t, Product: product}); err != nil {
		return t, err
	}
	return t, s.cfg.Product(ctx, t, product)
}

// decideAs decides in the name of the caller, who must hold the right on the product.
func (s *Service) decideAs(ctx context.Context, ident string, in Deciding) ([]Decision, error) {
	t := tenant.MustTenant(ctx)
	if err := tenant.Require(ctx, tenant.VulnDecide, tenant.Thing{Tenant: t, Product: in.Product}); err != nil {
		return nil, err
	}
	actor, _ := tenant.ActorFrom(ctx)
	return s.Decide(ctx, t, actor.ID, ident, in)
}

// AffectedPage is the exposure with one page of its devices.
type AffectedPage struct {
	Exposure
	List api.Page[ExposedDevice] `json:"exposed_devices"`
}
