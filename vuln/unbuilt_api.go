// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"context"
	"net/http"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

// Judged is how many decisions were made at once.
type Judged struct {
	Decisions int `json:"decisions"`
}

func (s *Service) kernelRoutes(a *api.API) {
	type in struct {
		ID string `path:"id" maxLength:"64"`
	}
	api.Handle(a, api.Op{ID: "weigh-kernel", Method: "GET", Path: "/v1/releases/{id}/kernel", Verb: string(tenant.VulnRead), Stage: "vuln",
		Summary: "Open findings of a release's kernel that stand in source files, all of which were left out when it was built",
		Doc:     "Needs the release's list of compiled files (PUT /v1/releases/{id}/evidence/compiled-files). What is listed is a proposal: nothing follows from it until a person accepts it."},
		func(ctx context.Context, in *in) (*api.Out[Kernel], error) {
			k, err := s.kernelFor(ctx, tenant.VulnRead, in.ID)
			if err != nil {
				return nil, err
			}
			return api.One(k), nil
		})

	type acceptIn struct {
		ID   string `path:"id" maxLength:"64"`
		Body struct {
			Vulnerabilities []string `json:"vulnerabilities,omitempty" maxItems:"5000" doc:"Names; absent: all that are proposed"`
		}
	}
	api.Handle(a, api.Op{ID: "accept-kernel-evidence", Method: "POST", Path: "/v1/releases/{id}/kernel/accept", Verb: string(tenant.VulnDecide), Stage: "vuln",
		Summary: "Decide that what was left out of the kernel does not affect it: not_affected, vulnerable_code_not_present"},
		func(ctx context.Context, in *acceptIn) (*api.Out[Judged], error) {
			n, err := s.acceptFor(ctx, in.ID, in.Body.Vulnerabilities)
			if err != nil {
				return nil, err
			}
			return api.One(Judged{n}), nil
		})

	type reopenIn struct {
		ID   string `path:"id" maxLength:"64"`
		Body struct {
			Reason string `json:"reason" maxLength:"4000" doc:"Why the evidence is not relied on any more"`
		}
	}
	api.Handle(a, api.Op{ID: "reopen-kernel-evidence", Method: "POST", Path: "/v1/releases/{id}/kernel/reopen", Verb: string(tenant.VulnDecide), Stage: "vuln",
		Summary: "Take back, at once, everything that was accepted for the release by its list of compiled files"},
		func(ctx context.Context, in *reopenIn) (*api.Out[Judged], error) {
			n, err := s.reopenFor(ctx, in.ID, in.Body.Reason)
			if err != nil {
				return nil, err
			}
			return api.One(Judged{n}), nil
		})
}

// mayKernel refuses unless the caller holds the right on the release's product.
func (s *Service) mayKernel(ctx context.Context, v tenant.Verb, release string) error {
	t := tenant.MustTenant(ctx)
	about, err := s.cfg.Release(ctx, t, release)
	if err != nil {
		return err
	}
	return tenant.Require(ctx, v, tenant.Thing{Tenant: t, Product: about.Product})
}

func (s *Service) kernelFor(ctx context.Context, v tenant.Verb, release string) (Kernel, error) {
	if err := s.mayKernel(ctx, v, release); err != nil {
		return Kernel{}, err
	}
	return s.Kernel(ctx, tenant.MustTenant(ctx), release)
}

func (s *Service) acceptFor(ctx context.Context, release string, names []string) (int, error) {
	if err := s.mayKernel(ctx, tenant.VulnDecide, release); err != nil {
		return 0, err
	}
	actor, _ := tenant.ActorFrom(ctx)
	return s.AcceptUnbuilt(ctx, tenant.MustTenant(ctx), actor.ID, release, names)
}

func (s *Service) reopenFor(ctx context.Context, release, reason string) (int, error) {
	if err := s.mayKernel(ctx, tenant.VulnDecide, release); err != nil {
		return 0, err
	}
	actor, _ := tenant.ActorFrom(ctx)
	return s.ReopenUnbuilt(ctx, tenant.MustTenant(ctx), actor.ID, release, reason)
}

// kernelPart is what the page of a release says about its kernel.
type kernelPart struct {
	Kernel
	May bool // decide
}

func (s *Service) kernelPages(c *console.Console) {
	c.Fragment("release", console.Fragment{Order: 45, Title: "Kernel", Verb: string(tenant.VulnRead), FS: pagesFS, Template: "pages/kernel.html",
		Load: func(r *http.Request, release string) (any, error) {
			k, err := s.kernelFor(r.Context(), tenant.VulnRead, release)
			if problem.Is(err, problem.KindNotFound) || problem.Is(err, problem.KindForbidden) || err == nil && k.Open+k.Accepted == 0 {
				return nil, nil
			}
			return kernelPart{k, tenant.Holds(r.Context(), string(tenant.VulnDecide))}, err
		}})
	c.Form("/releases/{id}/kernel/accept", string(tenant.VulnDecide), func(r *http.Request) (string, error) {
		n, err := s.acceptFor(r.Context(), r.PathValue("id"), nil)
		if err == nil {
			console.Say(r, "Decided as not affected: "+console.Plural(n, "vulnerability", "vulnerabilities")+".")
		}
		return "/releases/" + r.PathValue("id"), err
	})
	c.Form("/releases/{id}/kernel/reopen", string(tenant.VulnDecide), func(r *http.Request) (string, error) {
		n, err := s.reopenFor(r.Context(), r.PathValue("id"), r.PostFormValue("reason"))
		if err == nil {
			console.Say(r, "Open again: "+console.Plural(n, "vulnerability", "vulnerabilities")+".")
		}
		return "/releases/" + r.PathValue("id"), err
	})
}
