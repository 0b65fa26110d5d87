// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"
	"encoding/json"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

type sendIn struct {
	ID   string `path:"id" doc:"Device"`
	Body struct {
		Name     string         `json:"name" maxLength:"32" doc:"What to do, as the firmware knows it" example:"reboot"`
		Args     map[string]any `json:"args,omitempty" doc:"Handed to the device as they are"`
		NotAfter time.Time      `json:"not_after,omitzero" required:"false" doc:"Without an end by then it expires; default in 24 hours"`
		Key      string         `json:"key,omitempty" maxLength:"100" doc:"Asked again with the same key, the device has the same command; it counts for as long as the command is kept"`

		AckTimeout    *int64 `json:"ack_timeout_s,omitempty" doc:"Seconds that the device has to acknowledge the packet; default as declared, or 30"`
		ResultTimeout *int64 `json:"result_timeout_s,omitempty" doc:"Seconds from the receipt to the result; default as declared, or until not_after"`
		Retries       *int64 `json:"retries,omitempty" doc:"How often it is handed over again; default as declared, or 5"`
		Backoff       *int64 `json:"backoff_s,omitempty" doc:"Seconds before it is handed over again, doubling; default as declared, or 10"`
		Idempotent    *bool  `json:"idempotent,omitempty" doc:"Carrying it out twice is as good as once, so that it may be asked again when no result comes; default as declared, or false"`
	}
}

// over is the policy with what was asked for in place of it. Of a declared command nobody says that it is idempotent when
// its maker did not.
func (in sendIn) over(d Declared) (Policy, error) {
	p := d.policy()
	for into, v := range map[*int64]*int64{&p.AckTimeout: in.Body.AckTimeout, &p.ResultTimeout: in.Body.ResultTimeout, &p.Retries: in.Body.Retries, &p.Backoff: in.Body.Backoff} {
		if v != nil {
			*into = *v
		}
	}
	if v := in.Body.Idempotent; v != nil {
		if *v && d.Name != "" && !d.Idempotent {
			return p, problem.Forbidden("command.idempotent", "%s is not declared idempotent: carried out twice it is not as good as once.", d.Title).At("body.idempotent")
		}
		p.Idempotent = *v
	}
	return p, nil
}

type byIDIn struct {
	ID string `path:"id"`
}

type cancelCommandIn struct {
	ID   string `path:"id"`
	Body struct {
		Reason string `json:"reason,omitempty" maxLength:"200"`
	}
}

type listIn struct {
	ID string `path:"id" doc:"Device"`
	api.Paging
}

// Routes mounts the API.
func (s *Service) Routes(a *api.API) {
	const stage = "command"
	api.Handle(a, api.Op{ID: "send-command", Method: "POST", Path: "/v1/devices/{id}/commands", Verb: string(tenant.CommandSend), Stage: stage, Status: 201,
		Summary: "Ask a device to do something", Doc: "The answer is the command as queued; a device that is offline gets it when it comes back."},
		func(ctx context.Context, in *sendIn) (*api.Out[Command], error) {
			args, err := json.Marshal(in.Body.Args)
			if err != nil {
				return nil, problem.Invalid("The arguments cannot be written as JSON.").At("body.args").Because(err)
			}
			if in.Body.Args == nil {
				args = []byte(`{}`)
			}
			c, err := s.ask(ctx, in.ID, Request{Name: in.Body.Name, Args: json.RawMessage(args), NotAfter: in.Body.NotAfter, Key: in.Body.Key}, in.over)
			return &api.Out[Command]{Body: c, Location: "/v1/commands/" + c.ID}, err
		})
	api.Handle(a, api.Op{ID: "get-command", Method: "GET", Path: "/v1/commands/{id}", Verb: string(tenant.DeviceRead), Stage: stage,
		Summary: "Read a command and its result"}, func(ctx context.Context, in *byIDIn) (*api.Out[Command], error) {
		c, err := s.Get(ctx, tenant.MustTenant(ctx), in.ID)
		if err != nil {
			return nil, err
		}
		if _, err := s.cfg.Identity.Visible(ctx, tenant.DeviceRead, c.Device); err != nil {
			return nil, err
		}
		return api.One(c), nil
	})
	api.Handle(a, api.Op{ID: "cancel-command", Method: "POST", Path: "/v1/commands/{id}/cancel", Verb: string(tenant.CommandSend), Stage: stage,
		Summary: "Take a command back that the device does not have yet"}, func(ctx context.Context, in *cancelCommandIn) (*api.Out[Command], error) {
		c, err := s.cancel(ctx, in.ID, in.Body.Reason)
		return api.One(c), err
	})
	api.Handle(a, api.Op{ID: "list-device-notices", Method: "GET", Path: "/v1/devices/{id}/notices", Verb: string(tenant.DeviceRead), Stage: stage,
		Summary: "List the notices on a device and what became of them", Doc: "The one that was sent last comes first. A notice is sent as the command notice, whose arguments it is."},
		func(ctx context.Context, in *listIn) (*api.List[DeviceNotice], error) {
			before, err := in.After(a)
			if err != nil {
				return nil, err
			}
			d, err := s.cfg.Identity.Visible(ctx, tenant.DeviceRead, in.ID)
			if err != nil {
				return nil, err
			}
			ns, err := s.Notices(ctx, d.Tenant, d.ID, before, in.Size()+1)
			return api.More(a, in.Paging, ns, func(n DeviceNotice) string { return n.Command }), err
		})
	s.catalogueRoutes(a)
	s.jobRoutes(a)
	api.Handle(a, api.Op{ID: "list-commands", Method: "GET", Path: "/v1/devices/{id}/commands", Verb: string(tenant.DeviceRead), Stage: stage,
		Summary: "List a device's commands, the newest first"}, func(ctx context.Context, in *listIn) (*api.List[Command], error) {
		before, err := in.After(a)
		if err != nil {
			return nil, err
		}
		d, err := s.cfg.Identity.Visible(ctx, tenant.DeviceRead, in.ID)
		if err != nil {
			return nil, err
		}
		cs, err := s.List(ctx, d.Tenant, d.ID, before, in.Size()+1)
		return api.More(a, in.Paging, cs, func(c Command) string { return c.ID }), err
	})
}

// reserved names have meaning for the platform; they are sent by the stage that understands the result.
var reserved = map[string]string{"wipe": "A device is wiped by decommissioning it."}

// ask is Ask for whoever asks; policy makes the policy from what the product declares, nil takes that as it is.
func (s *Service) ask(ctx context.Context, device string, r Request, policy func(Declared) (Policy, error)) (Command, error) {
	d, err := s.cfg.Identity.Visible(ctx, tenant.CommandSend, device)
	if err != nil {
		return Command{}, err
	}
	if why := reserved[r.Name]; why != "" {
		return Command{}, problem.Forbidden("command.reserved", "%q cannot be sent as it is.", r.Name).Hint("%s", why)
	}
	if err := s.takes(ctx, d); err != nil {
		return Command{}, err
	}
	kind, err := s.fits(ctx, tenant.Thing{Tenant: d.Tenant, Product: d.Product, Solution: d.Solution}, r.Name, r.Args.(json.RawMessage))
	if err != nil {
		return Command{}, err
	}
	if r.Policy = kind.policy(); policy != nil {
		if r.Policy, err = policy(kind); err != nil {
			return Command{}, err
		}
	}
	if r.NotAfter.IsZero() {
		r.NotAfter = s.cfg.Clock.Now().Add(DefaultLife)
	}
	who, _ := tenant.ActorFrom(ctx)
	r.Tenant, r.Device, r.Actor = d.Tenant, d.ID, who.ID
	var id string
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) (err error) {
		id, err = s.Ask(tx, r)
		return err
	})
	if err != nil {
		return Command{}, err
	}
	return s.Get(ctx, d.Tenant, id)
}

// cancel is Cancel for whoever asks.
func (s *Service) cancel(ctx context.Context, id, reason string) (Command, error) {
	c, err := s.Get(ctx, tenant.MustTenant(ctx), id)
	if err != nil {
		return c, err
	}
	if _, err := s.cfg.Identity.Visible(ctx, tenant.CommandSend, c.Device); err != nil {
		return c, err
	}
	who, _ := tenant.ActorFrom(ctx)
	if err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.Cancel(tx, c.Tenant, c.ID, who.ID, reason) }); err != nil {
		return c, err
	}
	return s.Get(ctx, c.Tenant, c.ID)
}
