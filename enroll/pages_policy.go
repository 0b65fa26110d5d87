// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

type policiesPage struct {
	Policies  []Policy
	Makers    []Maker
	Names     *console.Names
	Products  []console.Option
	Solutions []console.Option
	Approvals []console.Option
	Grades    []console.Option
	Algs      []console.Option
	MayWrite  bool
	Typed     url.Values
}

func (s *Service) policyPages(c *console.Console) {
	read, write := string(tenant.EnrolRead), string(tenant.EnrolWrite)
	c.Page(console.Page{Path: "/enrol/policies", Title: "Enrolment policies", Menu: menu, Tab: "Policies", TabOrder: 60, Verb: read, FS: pagesFS, Template: "pages/policies.html",
		Load: func(r *http.Request) (any, error) {
			p, err := s.loadPolicies(r)
			p.Names = c.Names(r.Context())
			return p, err
		}})
	c.Form("/enrol/policies", write, func(r *http.Request) (string, error) {
		t, who, err := tenant.Whole(r.Context(), tenant.EnrolWrite)
		if err != nil {
			return "", err
		}
		p, err := policyForm(r)
		if err != nil {
			return "", err
		}
		p, err = s.SetPolicy(r.Context(), t, p, who)
		if err == nil {
			console.Say(r, "The policy "+p.Label+" counts from now on.")
		}
		return "/enrol/policies", err
	})
	c.Form("/enrol/policies/{label}/end", write, func(r *http.Request) (string, error) {
		t, who, err := tenant.Whole(r.Context(), tenant.EnrolWrite)
		if err != nil {
			return "", err
		}
		p, err := s.EndPolicy(r.Context(), t, r.PathValue("label"), who)
		if err == nil {
			console.Say(r, "The policy "+p.Label+" has ended.")
		}
		return "/enrol/policies", err
	})
	c.Form("/enrol/tpm-makers", write, func(r *http.Request) (string, error) {
		t, who, err := tenant.Whole(r.Context(), tenant.EnrolWrite)
		if err != nil {
			return "", err
		}
		m, err := s.TrustMaker(r.Context(), t, r.FormValue("name"), r.FormValue("certificate"), who)
		if err == nil {
			console.Say(r, "TPMs of "+m.Name+" are believed from now on.")
		}
		return "/enrol/policies", err
	})
	c.Form("/enrol/tpm-makers/{id}/distrust", write, func(r *http.Request) (string, error) {
		t, who, err := tenant.Whole(r.Context(), tenant.EnrolWrite)
		if err != nil {
			return "", err
		}
		return "/enrol/policies", s.DistrustMaker(r.Context(), t, r.PathValue("id"), who)
	})
	c.Fragment("device", console.Fragment{Order: 28, Half: true, Title: "Setup and root of trust", Verb: string(tenant.DeviceRead), FS: pagesFS, Template: "pages/setup.html", Load: s.loadSetup})
	c.Tile(console.Tile{Order: 64, Verb: string(tenant.DeviceRead), Load: s.baselineTile})
}

func (s *Service) loadPolicies(r *http.Request) (policiesPage, error) {
	ctx := r.Context()
	p := policiesPage{MayWrite: tenant.Holds(ctx, string(tenant.EnrolWrite)), Typed: console.Typed(r),
		Approvals: []console.Option{{Value: string(ByPerson), Word: "a person: claim code or lobby"}, {Value: string(Automatical), Word: "automatic, at the first enrolment"}},
		Grades:    []console.Option{{Value: "", Word: "any"}, {Value: "A", Word: "A: attested by hardware"}, {Value: "B", Word: "B: hardware claimed"}},
		Algs: []console.Option{{Value: string(identity.AlgP256), Word: "ECDSA P-256"}, {Value: string(identity.AlgP384), Word: "ECDSA P-384"},
			{Value: string(identity.AlgEd25519), Word: "Ed25519"}, {Value: "ecdsa-p256 ecdsa-p384 ed25519", Word: "any of them"}}}
	t, _, err := tenant.Whole(ctx, tenant.EnrolRead)
	if err != nil {
		return p, err
	}
	if p.Policies, err = s.Policies(ctx, t); err != nil {
		return p, err
	}
	if p.Makers, err = s.Makers(ctx, t); err != nil {
		return p, err
	}
	p.Products, p.Solutions = []console.Option{{Word: "every product that no policy names"}}, []console.Option{{Word: "none"}}
	products, err := s.cfg.Products.List(ctx, t)
	for _, pr := range products {
		p.Products = append(p.Products, console.Option{Value: pr.ID, Word: pr.Name})
	}
	if err != nil {
		return p, err
	}
	solutions, err := s.cfg.Tenants.SeenByStaff(ctx, tenant.EnrolRead)
	for _, sol := range solutions {
		p.Solutions = append(p.Solutions, console.Option{Value: sol.ID, Word: sol.Path})
	}
	return p, err
}

func policyForm(r *http.Request) (Policy, error) {
	p := Policy{Label: r.FormValue("label"), Grade: identity.Grade(r.FormValue("grade")), Approval: Approval(r.FormValue("approval")), Solution: r.FormValue("solution"),
		Preauthorised: r.FormValue("preauthorised") != "", Products: strings.Fields(r.FormValue("product")), Origins: strings.Fields(r.FormValue("origins"))}
	for _, k := range strings.Fields(r.FormValue("keys")) {
		p.Keys = append(p.Keys, identity.Algorithm(k))
	}
	var errs []error
	for name, to := range map[string]*int64{"leaf_days": &p.LeafDays, "renew_days": &p.RenewDays, "lapse_days": &p.LapseDays} {
		n, err := console.Number(r, name)
		*to, errs = n, append(errs, err)
	}
	return p, errors.Join(errs...)
}

// setupPart is the setup of a device on its page.
type setupPart struct {
	identity.Device
	Standing     *Standing // nil: it has never reported
	Attestations []Attestation
	Demanded     bool // its product has a baseline
}

func (s *Service) loadSetup(r *http.Request, id string) (any, error) {
	ctx := r.Context()
	d, err := s.cfg.Identity.Visible(ctx, tenant.DeviceRead, id)
	if err != nil {
		return nil, err
	}
	p := setupPart{Device: d}
	st, err := s.Standing(ctx, d.Tenant, d.ID)
	switch {
	case err == nil:
		p.Standing = &st
	case !errors.Is(err, store.ErrNoRows):
		return nil, err
	}
	if p.Attestations, err = s.Attestations(ctx, d.Tenant, d.ID); err != nil {
		return nil, err
	}
	base, err := s.cfg.Products.Baseline(ctx, d.Tenant, d.Product)
	p.Demanded = base.Demands()
	return p, err
}

// baselineTile counts the devices that do not fulfil their baseline.
func (s *Service) baselineTile(ctx context.Context) (console.Figure, error) {
	who, _ := tenant.ActorFrom(ctx)
	if !tenant.Can(who, tenant.DeviceRead, tenant.Thing{Tenant: who.Tenant}) {
		return console.Figure{}, nil
	}
	var failing, told int64
	err := s.cfg.DB.QueryRow(ctx, `SELECT coalesce(sum(1 - ok), 0), count(*) FROM device_baseline WHERE tenant = $1 AND version > 0`, who.Tenant).Scan(&failing, &told)
	if err != nil || told == 0 {
		return console.Figure{}, err
	}
	f := console.Figure{Label: "Below their baseline", Value: console.Count(failing), Note: "of " + console.Plural(told, "device", "devices") + " that reported", Href: "/enrol/policies"}
	if failing > 0 {
		f.Tone = "bad"
	}
	return f, nil
}
