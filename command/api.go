// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"
	"encoding/json"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/identity"
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
	}
}

type byIDIn struct {
	ID string `path:"id"`
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
			c, err := s.ask(ctx, in.ID, in.Body.Name, args, in.Body.NotAfter)
			return &api.Out[Command]{Body: c, Location: "/v1/commands/" + c.ID}, err
		})
	api.Handle(a, api.Op{ID: "get-command", Method: "GET", Path: "/v1/commands/{id}", Verb: string(tenant.DeviceRead), Stage: stage,
		Summary: "Read a command and its result"}, func(ctx context.Context, in *byIDIn) (*api.Out[Command], error) {
		c, err := s.Get(ctx, tenant.MustTenant(ctx), in.ID)
		if err != nil {
			return nil, err
		}
		if _, err := s.device(ctx, c.Device, tenant.DeviceRead); err != nil {
			return nil, err
		}
		return api.One(c), nil
	})
	api.Handle(a, api.Op{ID: "list-commands", Method: "GET", Path: "/v1/devices/{id}/commands", Verb: string(tenant.DeviceRead), Stage: stage,
		Summary: "List a device's commands, the newest first"}, func(ctx context.Context, in *listIn) (*api.List[Command], error) {
		before, err := in.After(a)
		if err != nil {
			return nil, err
		}
		d, err := s.device(ctx, in.ID, tenant.DeviceRead)
		if err != nil {
			return nil, err
		}
		cs, err := s.List(ctx, d.Tenant, d.ID, before, in.Size()+1)
		return api.More(a, in.Paging, cs, func(c Command) string { return c.ID }), err
	})
}

// device returns a device on which whoever asks holds the verb.
func (s *Service) device(ctx context.Context, id string, v tenant.Verb) (identity.Device, error) {
	d, err := s.cfg.Identity.Get(ctx, tenant.MustTenant(ctx), id)
	if err != nil {
		return d, err
	}
	return d, tenant.Require(ctx, v, tenant.Thing{Tenant: d.Tenant, Product: d.Product, Solution: d.Solution})
}

// reserved names have meaning for the platform; they are sent by the stage that understands the result.
var reserved = map[string]string{"wipe": "A device is wiped by decommissioning it."}

// ask is Send for whoever asks.
func (s *Service) ask(ctx context.Context, device, name string, args json.RawMessage, notAfter time.Time) (Command, error) {
	d, err := s.device(ctx, device, tenant.CommandSend)
	if err != nil {
		return Command{}, err
	}
	if why := reserved[name]; why != "" {
		return Command{}, problem.Forbidden("command.reserved", "%q cannot be sent as it is.", name).Hint("%s", why)
	}
	if d.State != identity.Commissioned && d.State != identity.Suspended {
		return Command{}, problem.Conflict("The device is %s and takes no commands.", d.State)
	}
	if notAfter.IsZero() {
		notAfter = s.cfg.Clock.Now().Add(DefaultLife)
	}
	who, _ := tenant.ActorFrom(ctx)
	var id string
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) (err error) {
		id, err = s.Send(tx, d.Tenant, d.ID, name, args, notAfter, who.ID)
		return err
	})
	if err != nil {
		return Command{}, err
	}
	return s.Get(ctx, d.Tenant, id)
}
