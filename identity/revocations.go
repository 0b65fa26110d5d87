// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"net/http"
	"strings"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

type barIn struct {
	Body struct {
		Scope  Scope  `json:"scope" enum:"station,batch,ca"`
		ID     string `json:"id" minLength:"1" maxLength:"100" doc:"Of the line station, batch or trusted CA"`
		Reason string `json:"reason" minLength:"1" maxLength:"500" doc:"Why; kept in the audit log"`
	}
}

type reachIn struct {
	Scope Scope  `query:"scope" enum:"station,batch,ca" required:"true"`
	ID    string `query:"id" minLength:"1" maxLength:"100" required:"true"`
}

type barPath struct {
	Scope Scope  `path:"scope" enum:"authority,station,batch,ca"`
	ID    string `path:"id"`
}

type barList struct{ api.Paging }

// revocationRoutes mounts what ends trust, and what tells how far that is.
func (s *Service) revocationRoutes(a *api.API) {
	const stage = "identity"
	read, write := string(tenant.DeviceRead), string(tenant.DeviceRevoke)
	api.Handle(a, api.Op{ID: "revoke-device", Method: "POST", Path: "/v1/devices/{id}/revoke", Verb: write, Stage: stage,
		Summary: "Revoke a device's operational certificates; live sessions are cut, and it may enrol again with its IDevID unless it is retired"},
		func(ctx context.Context, in *reasonIn) (*api.Out[Device], error) {
			d, err := s.revokeDevice(ctx, in.ID, in.Body.Reason)
			return api.One(d), err
		})
	api.Handle(a, api.Op{ID: "revoke-origin", Method: "POST", Path: "/v1/revocations", Verb: write, Stage: stage, Status: 201,
		Summary: "End the trust in everything that a line station, batch or trusted CA brought, for ever",
		Doc:     "Effective on every node when this is answered; live sessions are cut within a second. The certificates are revoked one by one in the background."},
		func(ctx context.Context, in *barIn) (*api.Out[Bar], error) {
			b, err := s.revokeOrigin(ctx, in.Body.Scope, in.Body.ID, in.Body.Reason)
			return &api.Out[Bar]{Body: b, Location: "/v1/revocations/" + string(b.Scope) + "/" + b.ID}, err
		})
	api.Handle(a, api.Op{ID: "preview-revocation", Method: "GET", Path: "/v1/revocations/preview", Verb: write, Stage: stage,
		Summary: "Count what a revocation would hit"}, func(ctx context.Context, in *reachIn) (*api.Out[Reach], error) {
		t, err := s.wholeTenant(ctx, tenant.DeviceRevoke)
		if err != nil {
			return nil, err
		}
		r, err := s.ReachOf(ctx, t, in.Scope, in.ID)
		return api.One(r), err
	})
	api.Handle(a, api.Op{ID: "list-revocations", Method: "GET", Path: "/v1/revocations", Verb: read, Stage: stage,
		Summary: "List what was revoked as a whole, with progress"}, func(ctx context.Context, in *barList) (*api.List[Bar], error) {
		t, err := s.wholeTenant(ctx, tenant.DeviceRead)
		if err != nil {
			return nil, err
		}
		after, err := in.After(a)
		if err != nil {
			return nil, err
		}
		bs, err := s.Bars(ctx, t, after, in.Size()+1)
		return api.More(a, in.Paging, bs, func(b Bar) string { return string(b.Scope) + " " + b.ID }), err
	})
	api.Handle(a, api.Op{ID: "get-revocation", Method: "GET", Path: "/v1/revocations/{scope}/{id}", Verb: read, Stage: stage,
		Summary: "How far a revocation is"}, func(ctx context.Context, in *barPath) (*api.Out[Bar], error) {
		t, err := s.wholeTenant(ctx, tenant.DeviceRead)
		if err != nil {
			return nil, err
		}
		b, err := s.BarOf(ctx, t, in.Scope, in.ID)
		return api.One(b), err
	})
	api.Handle(a, api.Op{ID: "get-revocation-lists", Method: "GET", Path: "/v1/revocation-lists", Verb: string(tenant.IssuerRead), Stage: stage,
		Summary: "How the published revocation lists stand"}, func(ctx context.Context, _ *struct{}) (*api.Out[ListState], error) {
		t, err := s.wholeTenant(ctx, tenant.IssuerRead)
		if err != nil {
			return nil, err
		}
		st, err := s.ListState(ctx, t)
		return api.One(st), err
	})
}

// wholeTenant is the actor's tenant, if the actor may do v to all of it: what a revocation hits is not one product's or
// solution's.
func (s *Service) wholeTenant(ctx context.Context, v tenant.Verb) (string, error) {
	t := tenant.MustTenant(ctx)
	return t, tenant.Require(ctx, v, tenant.Thing{Tenant: t})
}

func (s *Service) revokeDevice(ctx context.Context, id, reason string) (Device, error) {
	d, err := s.Visible(ctx, tenant.DeviceRevoke, id)
	if err != nil {
		return Device{}, err
	}
	if strings.TrimSpace(reason) == "" {
		return Device{}, problem.Invalid("Say why.").At("reason")
	}
	who, _ := tenant.ActorFrom(ctx)
	if err := s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error { return s.Revoke(tx, d.Tenant, d.ID, who.ID, reason) }); err != nil {
		return Device{}, err
	}
	return s.Get(ctx, d.Tenant, d.ID)
}

// revokeOrigin bars a station, batch or trusted CA of the actor's tenant. One that brought nothing is not found: most
// likely its id was mistyped.
func (s *Service) revokeOrigin(ctx context.Context, scope Scope, id, reason string) (Bar, error) {
	t, err := s.wholeTenant(ctx, tenant.DeviceRevoke)
	if err != nil {
		return Bar{}, err
	}
	if strings.TrimSpace(reason) == "" {
		return Bar{}, problem.Invalid("Say why.").At("reason")
	}
	if scope == ScopeAuthority {
		return Bar{}, problem.Forbidden("identity.authority", "An authority is the platform's; whoever administers the machine revokes it.").
			Hint("openthings revoke --authority %s --data DIR", id)
	}
	r, err := s.ReachOf(ctx, t, scope, id)
	if err != nil {
		return Bar{}, err
	}
	if r == (Reach{}) {
		return Bar{}, problem.NotFound("Nothing came with this %s.", map[Scope]string{ScopeStation: "line station", ScopeBatch: "batch", ScopeCA: "trusted CA"}[scope]).Hint("A batch without units is closed, a line station without any is killed: openthings batch close, openthings station kill.")
	}
	who, _ := tenant.ActorFrom(ctx)
	if err := s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error { return s.Bar(tx, t, scope, id, who.ID, reason) }); err != nil {
		return Bar{}, err
	}
	return s.BarOf(ctx, t, scope, id)
}

// revocationPages mounts the page of what was revoked as a whole, and the alarm of the published lists on Today.
func (s *Service) revocationPages(c *console.Console) {
	type page struct {
		Bars  []Bar
		Lists ListState
		Names *console.Names
		May   bool
	}
	c.Page(console.Page{Path: "/revocations", Title: "Revocations", Menu: "Enrol", Tab: "Revocations", TabOrder: 90, Verb: string(tenant.DeviceRead), FS: pagesFS, Template: "pages/revocations.html",
		Load: func(r *http.Request) (any, error) {
			t, err := s.wholeTenant(r.Context(), tenant.DeviceRead)
			if err != nil {
				return nil, err
			}
			who, _ := tenant.ActorFrom(r.Context())
			p := page{Names: c.Names(r.Context()), May: tenant.Can(who, tenant.DeviceRevoke, tenant.Thing{Tenant: t})}
			if p.Bars, err = s.Bars(r.Context(), t, "", 1000); err != nil {
				return nil, err
			}
			p.Lists, err = s.ListState(r.Context(), t)
			return p, err
		}})
	c.Form("/revocations", string(tenant.DeviceRevoke), func(r *http.Request) (string, error) {
		b, err := s.revokeOrigin(r.Context(), Scope(r.FormValue("scope")), strings.TrimSpace(r.FormValue("id")), r.FormValue("reason"))
		if err == nil {
			console.Say(r, "Everything of "+b.ID+" is refused from now on.")
		}
		return "/revocations", err
	})
	c.Tile(console.Tile{Order: 52, Verb: string(tenant.IssuerRead), Load: func(ctx context.Context) (console.Figure, error) {
		st, err := s.overdue(ctx)
		if err != nil || st.Alarm == "" {
			return console.Figure{}, err
		}
		return console.Figure{Label: "Revocation lists", Value: "!", Note: st.Alarm, Tone: "bad", Href: "/revocations"}, nil
	}})
}
