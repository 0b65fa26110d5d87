// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"net/http"
	"strconv"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

type serialIn struct {
	Body struct {
		Product string            `json:"product"`
		Serial  string            `json:"serial" maxLength:"64"`
		Batch   string            `json:"batch,omitempty" doc:"It may be made in this batch only"`
		MAC     string            `json:"mac,omitempty" maxLength:"40"`
		Order   string            `json:"order,omitempty" maxLength:"120" doc:"Production order"`
		Line    string            `json:"line,omitempty" maxLength:"120" doc:"Production line"`
		Part    string            `json:"part,omitempty" maxLength:"120" doc:"Part number"`
		Labels  map[string]string `json:"labels,omitempty"`
	}
}

type serialsIn struct {
	Product string `query:"product" required:"true"`
	Search  string `query:"search" maxLength:"64" doc:"Beginning of the serial number"`
	Used    string `query:"used" enum:"yes,no" doc:"Only those that were used, or were not"`
	api.Paging
}

type revokeSerialsIn struct {
	Body struct {
		Product string   `json:"product"`
		Serials []string `json:"serials" minItems:"1" maxItems:"1000"`
	}
}

func (s *Service) serialRoutes(a *api.API) {
	read, write := string(tenant.LineRead), string(tenant.LineWrite)
	api.Handle(a, api.Op{ID: "preauthorise-serial", Method: "POST", Path: "/v1/preauthorised", Verb: write, Stage: stage, Status: 201,
		Summary: "Let one serial number be made, once"}, func(ctx context.Context, in *serialIn) (*api.Out[Preauthorised], error) {
		b := in.Body
		p := Preauthorised{Serial: b.Serial, MAC: b.MAC, Order: b.Order, Line: b.Line, Part: b.Part, Labels: b.Labels}
		if err := p.check(); err != nil {
			return nil, err
		}
		out, err := s.preauthoriseFor(ctx, b.Product, b.Batch, func(t, actor string) (Imported, error) {
			return s.preauthorise(ctx, t, b.Product, b.Batch, []Preauthorised{p}, false, actor)
		})
		if err != nil {
			return nil, err
		}
		return api.One(out.First[0]), nil
	})
	api.Raw(a, api.Op{ID: "import-preauthorised", Method: "POST", Path: "/v1/preauthorised/import", Verb: write, Stage: stage, MaxBody: MaxImport,
		Summary: "Let the serial numbers of a CSV file be made, once each; all of them or none",
		Doc:     "Query: product, and optionally batch and preview=true, which only checks. The first line names the columns: serial, and any of mac, order, line, part and label:NAME. Every faulty line is named."},
		func(w http.ResponseWriter, r *http.Request) error {
			q := r.URL.Query()
			out, err := s.preauthoriseFor(r.Context(), q.Get("product"), q.Get("batch"), func(t, actor string) (Imported, error) {
				return s.Preauthorise(r.Context(), t, q.Get("product"), q.Get("batch"), r.Body, q.Get("preview") == "true", actor)
			})
			if err != nil {
				return err
			}
			return answerJSON(w, out)
		})
	api.Handle(a, api.Op{ID: "list-preauthorised", Method: "GET", Path: "/v1/preauthorised", Verb: read, Stage: stage, Summary: "List the preauthorised serial numbers of a product"},
		func(ctx context.Context, in *serialsIn) (*api.List[Preauthorised], error) {
			after, err := in.After(a)
			if err != nil {
				return nil, err
			}
			t := tenant.MustTenant(ctx)
			if err := tenant.Require(ctx, tenant.LineRead, tenant.Thing{Tenant: t, Product: in.Product}); err != nil {
				return nil, err
			}
			ps, err := s.PreauthorisedSerials(ctx, t, SerialFilter{Product: in.Product, Search: in.Search, Used: in.Used, After: after, Limit: in.Size() + 1})
			return api.More(a, in.Paging, ps, func(p Preauthorised) string { return p.Serial }), err
		})
	api.Handle(a, api.Op{ID: "revoke-preauthorised", Method: "POST", Path: "/v1/preauthorised/revoke", Verb: write, Stage: stage,
		Summary: "Take back serial numbers that nobody has used; all of them or none"}, func(ctx context.Context, in *revokeSerialsIn) (*struct{}, error) {
		_, err := s.preauthoriseFor(ctx, in.Body.Product, "", func(t, actor string) (Imported, error) {
			return Imported{}, s.RevokePreauthorised(ctx, t, in.Body.Product, in.Body.Serials, actor)
		})
		return nil, err
	})
}

// preauthoriseFor lets do change the serial numbers of a product if whoever asks may; batch, if not empty, has to be
// one of the product.
func (s *Service) preauthoriseFor(ctx context.Context, product, batch string, do func(tenant, actor string) (Imported, error)) (Imported, error) {
	t := tenant.MustTenant(ctx)
	if _, err := s.cfg.Products.Get(ctx, t, product); err != nil {
		return Imported{}, err
	}
	if err := tenant.Require(ctx, tenant.LineWrite, tenant.Thing{Tenant: t, Product: product}); err != nil {
		return Imported{}, err
	}
	if batch != "" {
		b, err := batchByID(s.reads(ctx), t, batch)
		if err != nil {
			return Imported{}, err
		}
		if b.Product != product {
			return Imported{}, problem.Invalid("The batch %s is of another product.", b.Name).At("batch")
		}
	}
	who, _ := tenant.ActorFrom(ctx)
	return do(t, who.ID)
}

type lobbyIn struct {
	Verdict Verdict `query:"verdict" enum:"waiting,approved,denied" doc:"Only these; default those that wait"`
	api.Paging
}

type approveIn struct {
	Body struct {
		Devices  []string          `json:"devices" minItems:"1" maxItems:"200"`
		Solution string            `json:"solution"`
		Labels   map[string]string `json:"labels,omitempty"`
	}
}

type denyIn struct {
	Body struct {
		Devices []string `json:"devices" minItems:"1" maxItems:"200"`
		Reason  string   `json:"reason" minLength:"1" maxLength:"500"`
	}
}

type labelsIn struct {
	ID   string `path:"id"`
	Body struct {
		Labels map[string]string `json:"labels"`
	}
}

// Labelled is a device's labels.
type Labelled struct {
	Device string            `json:"device"`
	Labels map[string]string `json:"labels"`
}

func (s *Service) lobbyRoutes(a *api.API) {
	write := string(tenant.EnrolWrite)
	api.Handle(a, api.Op{ID: "list-lobby", Method: "GET", Path: "/v1/lobby", Verb: string(tenant.EnrolRead), Stage: stage, Summary: "List the devices that wait for a person"},
		func(ctx context.Context, in *lobbyIn) (*api.List[Guest], error) {
			after, err := in.After(a)
			if err != nil {
				return nil, err
			}
			if in.Verdict == "" {
				in.Verdict = Waiting
			}
			gs, err := s.guests(ctx, in.Verdict, after, in.Size()+1)
			return api.More(a, in.Paging, gs, func(g Guest) string { return g.Device }), err
		})
	api.Handle(a, api.Op{ID: "approve-devices", Method: "POST", Path: "/v1/lobby/approve", Verb: write, Stage: stage,
		Summary: "Let waiting devices into a solution, with labels; all of them or none"}, func(ctx context.Context, in *approveIn) (*struct{}, error) {
		return nil, s.approveFor(ctx, in.Body.Devices, in.Body.Solution, in.Body.Labels)
	})
	api.Handle(a, api.Op{ID: "deny-devices", Method: "POST", Path: "/v1/lobby/deny", Verb: write, Stage: stage,
		Summary: "Turn waiting devices away; all of them or none"}, func(ctx context.Context, in *denyIn) (*struct{}, error) {
		return nil, s.denyFor(ctx, in.Body.Devices, in.Body.Reason)
	})
	api.Handle(a, api.Op{ID: "get-device-labels", Method: "GET", Path: "/v1/devices/{id}/labels", Verb: string(tenant.DeviceRead), Stage: stage, Summary: "Read a device's labels"},
		func(ctx context.Context, in *byID) (*api.Out[Labelled], error) {
			d, err := s.cfg.Identity.Visible(ctx, tenant.DeviceRead, in.ID)
			if err != nil {
				return nil, err
			}
			labels, err := s.Labels(ctx, d.Tenant, d.ID)
			return api.One(Labelled{d.ID, labels}), err
		})
	api.Handle(a, api.Op{ID: "set-device-labels", Method: "PUT", Path: "/v1/devices/{id}/labels", Verb: string(tenant.DeviceClaim), Stage: stage, Summary: "Replace a device's labels"},
		func(ctx context.Context, in *labelsIn) (*api.Out[Labelled], error) {
			d, err := s.cfg.Identity.Visible(ctx, tenant.DeviceClaim, in.ID)
			if err != nil {
				return nil, err
			}
			who, _ := tenant.ActorFrom(ctx)
			return api.One(Labelled{d.ID, in.Body.Labels}), s.SetLabels(ctx, d.Tenant, d.ID, in.Body.Labels, who.ID)
		})
}

func (s *Service) guests(ctx context.Context, v Verdict, after string, limit int) ([]Guest, error) {
	p, ok := visible(ctx, tenant.EnrolRead, after, limit)
	if !ok {
		return nil, nil
	}
	return s.Lobby(ctx, tenant.MustTenant(ctx), GuestFilter{Verdict: v, Products: p.products, After: after, Limit: limit})
}

// mayDecide refuses unless whoever asks may decide about each of the devices.
func (s *Service) mayDecide(ctx context.Context, devices []string) error {
	for _, id := range devices[:min(len(devices), MaxDecide)] {
		d, err := s.cfg.Identity.Get(ctx, tenant.MustTenant(ctx), id)
		if err != nil {
			return err
		}
		if err := tenant.Require(ctx, tenant.EnrolWrite, tenant.Thing{Tenant: d.Tenant, Product: d.Product}); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) approveFor(ctx context.Context, devices []string, solution string, labels map[string]string) error {
	t := tenant.MustTenant(ctx)
	if _, err := s.cfg.Tenants.Solution(ctx, t, solution); err != nil {
		return err
	}
	if err := s.mayDecide(ctx, devices); err != nil {
		return err
	}
	who, _ := tenant.ActorFrom(ctx)
	return s.Approve(ctx, t, devices, solution, labels, who.ID)
}

func (s *Service) denyFor(ctx context.Context, devices []string, reason string) error {
	if err := s.mayDecide(ctx, devices); err != nil {
		return err
	}
	who, _ := tenant.ActorFrom(ctx)
	return s.Deny(ctx, tenant.MustTenant(ctx), devices, reason, who.ID)
}

type hookIn struct {
	Body struct {
		Product  string `json:"product,omitempty" doc:"Default: every product; one that has a hook of its own asks both, and each must say yes"`
		URL      string `json:"url" maxLength:"500"`
		Patience int64  `json:"patience_ms,omitempty" minimum:"0" maximum:"10000" doc:"How long it may take; default 3000"`
		Open     bool   `json:"open,omitempty" doc:"Let devices in when it gives no answer"`
	}
}

type dropHookIn struct {
	Body struct {
		Product string `json:"product,omitempty"`
	}
}

// HookSecret is the secret of a hook; it is shown once.
type HookSecret struct {
	Secret string `json:"secret" doc:"whsec_ and base64, as Standard Webhooks have it"`
}

func (s *Service) hookRoutes(a *api.API) {
	write := string(tenant.EnrolWrite)
	api.Handle(a, api.Op{ID: "list-hooks", Method: "GET", Path: "/v1/hooks", Verb: string(tenant.EnrolRead), Stage: stage, Summary: "List the hooks that are asked before a device gets in"},
		func(ctx context.Context, _ *struct{}) (*api.List[Hook], error) {
			hs, err := s.hooksFor(ctx)
			return api.Items(hs), err
		})
	api.Handle(a, api.Op{ID: "set-hook", Method: "POST", Path: "/v1/hooks", Verb: write, Stage: stage, Status: 201, Summary: "Set the hook of a product, or of all of them; its secret is shown once"},
		func(ctx context.Context, in *hookIn) (*api.Out[HookSecret], error) {
			secret, err := s.setHookFor(ctx, Hook{Product: in.Body.Product, URL: in.Body.URL, Patience: in.Body.Patience, Open: in.Body.Open})
			return api.One(HookSecret{secret}), err
		})
	api.Handle(a, api.Op{ID: "drop-hook", Method: "POST", Path: "/v1/hooks/drop", Verb: write, Stage: stage, Summary: "Remove a hook"},
		func(ctx context.Context, in *dropHookIn) (*struct{}, error) {
			return nil, s.dropHookFor(ctx, in.Body.Product)
		})
}

func (s *Service) hooksFor(ctx context.Context) (mine []Hook, err error) {
	who, _ := tenant.ActorFrom(ctx)
	all, err := s.Hooks(ctx, who.Tenant)
	for _, h := range all {
		if tenant.Can(who, tenant.EnrolRead, tenant.Thing{Tenant: h.Tenant, Product: h.Product}) {
			mine = append(mine, h)
		}
	}
	return mine, err
}

func (s *Service) setHookFor(ctx context.Context, h Hook) (string, error) {
	h.Tenant = tenant.MustTenant(ctx)
	if h.Product != "" {
		if _, err := s.cfg.Products.Get(ctx, h.Tenant, h.Product); err != nil {
			return "", err
		}
	}
	if err := tenant.Require(ctx, tenant.EnrolWrite, tenant.Thing{Tenant: h.Tenant, Product: h.Product}); err != nil {
		return "", err
	}
	who, _ := tenant.ActorFrom(ctx)
	return s.SetHook(ctx, h, who.ID)
}

func (s *Service) dropHookFor(ctx context.Context, product string) error {
	t := tenant.MustTenant(ctx)
	if err := tenant.Require(ctx, tenant.EnrolWrite, tenant.Thing{Tenant: t, Product: product}); err != nil {
		return err
	}
	who, _ := tenant.ActorFrom(ctx)
	return s.DropHook(ctx, t, product, who.ID)
}

// seqKey and seqOf turn a place in a journal into the key of a page and back.
func seqKey(n int64) string { return strconv.FormatInt(n, 10) }

func seqOf(key string) int64 {
	n, _ := strconv.ParseInt(key, 10, 64) // only ever what seqKey made, or nothing
	return n
}
