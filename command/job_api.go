// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"
	"encoding/json"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

type jobIn struct {
	Body jobBody
}

type jobBody struct {
	Kind         string         `json:"kind,omitempty" enum:"command,twin" default:"command" doc:"Whether devices get a command, or what they shall be like is changed"`
	Title        string         `json:"title,omitempty" maxLength:"120"`
	Filter       string         `json:"filter,omitempty" maxLength:"2000" doc:"Whom it reaches, such as group:harbour label.site:north; empty: everybody within product and solution"`
	Product      string         `json:"product,omitempty" maxLength:"64"`
	Solution     string         `json:"solution,omitempty" maxLength:"64"`
	Follow       bool           `json:"follow,omitempty" doc:"Devices that match later join until not_after"`
	Name         string         `json:"name,omitempty" maxLength:"32" doc:"Of the command" example:"reboot"`
	Args         map[string]any `json:"args,omitempty" doc:"Of the command; for a twin the merge patch to what is desired"`
	Rate         int64          `json:"rate,omitempty" minimum:"0" doc:"Devices that begin in a minute; 0: no bound"`
	Parallel     int64          `json:"parallel,omitempty" minimum:"0" doc:"Devices at work at the same time; 0: no bound"`
	AbortCount   int64          `json:"abort_count,omitempty" minimum:"0" doc:"It ends when so many devices have failed; 0: no bound"`
	AbortPercent int64          `json:"abort_percent,omitempty" minimum:"0" maximum:"100" doc:"It ends when this share of those that have ended has failed; 0: no bound"`
	AbortAfter   int64          `json:"abort_after,omitempty" minimum:"0" doc:"The share counts once so many devices have ended"`
	Timeout      int64          `json:"timeout_s,omitempty" minimum:"0" doc:"Seconds that a device has for its result; 0: until not_after"`
	Retries      *int64         `json:"retries,omitempty" minimum:"0" maximum:"100" doc:"How often a device is asked again; default 5"`
	NotBefore    time.Time      `json:"not_before,omitzero" required:"false" doc:"It begins then; default now"`
	NotAfter     time.Time      `json:"not_after,omitzero" required:"false" doc:"Whoever has not ended by then has expired; default 24 hours after it begins"`
}

type jobsIn struct{ api.Paging }

type partsIn struct {
	ID    string `path:"id" doc:"Job"`
	State string `query:"state" enum:"waiting,away,started,done,failed,expired,cancelled"`
	api.Paging
}

func (s *Service) jobRoutes(a *api.API) {
	const stage = "command"
	api.Handle(a, api.Op{ID: "create-job", Method: "POST", Path: "/v1/jobs", Verb: string(tenant.CommandSend), Stage: stage, Status: 201,
		Summary: "Ask the same of many devices", Doc: "A device that is offline gets its part when it is back, until not_after. Devices begin at the rate and within the bound given; too many failures end the job."},
		func(ctx context.Context, in *jobIn) (*api.Out[Job], error) {
			args := json.RawMessage(`{}`)
			if in.Body.Args != nil {
				var err error
				if args, err = json.Marshal(in.Body.Args); err != nil {
					return nil, problem.Invalid("The arguments cannot be written as JSON.").At("body.args").Because(err)
				}
			}
			b := in.Body
			j := Job{Kind: b.Kind, Title: b.Title, Filter: b.Filter, Product: b.Product, Solution: b.Solution, Follow: b.Follow, Name: b.Name, Args: args, Rate: b.Rate, Parallel: b.Parallel,
				AbortCount: b.AbortCount, AbortPercent: b.AbortPercent, AbortAfter: b.AbortAfter, Timeout: b.Timeout, Retries: DefaultPolicy.Retries, NotBefore: b.NotBefore, NotAfter: b.NotAfter}
			if b.Retries != nil {
				j.Retries = *b.Retries
			}
			j, err := s.askMany(ctx, j)
			return &api.Out[Job]{Body: j, Location: "/v1/jobs/" + j.ID}, err
		})
	api.Handle(a, api.Op{ID: "list-jobs", Method: "GET", Path: "/v1/jobs", Verb: string(tenant.DeviceRead), Stage: stage,
		Summary: "List jobs, the newest first"}, func(ctx context.Context, in *jobsIn) (*api.List[Job], error) {
		before, err := in.After(a)
		if err != nil {
			return nil, err
		}
		js, err := s.readableJobs(ctx, before, in.Size()+1)
		return api.More(a, in.Paging, js, func(j Job) string { return j.ID }), err
	})
	api.Handle(a, api.Op{ID: "get-job", Method: "GET", Path: "/v1/jobs/{id}", Verb: string(tenant.DeviceRead), Stage: stage,
		Summary: "Read a job and how far it has come"}, func(ctx context.Context, in *byIDIn) (*api.Out[Job], error) {
		j, err := s.job(ctx, in.ID, tenant.DeviceRead)
		return api.One(j), err
	})
	api.Handle(a, api.Op{ID: "list-job-devices", Method: "GET", Path: "/v1/jobs/{id}/devices", Verb: string(tenant.DeviceRead), Stage: stage,
		Summary: "List the devices of a job and how each stands"}, func(ctx context.Context, in *partsIn) (*api.List[Part], error) {
		after, err := in.After(a)
		if err != nil {
			return nil, err
		}
		j, err := s.job(ctx, in.ID, tenant.DeviceRead)
		if err != nil {
			return nil, err
		}
		ps, err := s.parts(ctx, j, in.State, after, in.Size()+1)
		return api.More(a, in.Paging, ps, func(p Part) string { return p.Device }), err
	})
	for _, x := range []struct{ verb, to, summary string }{
		{"pause", Paused, "Let no more devices of a job begin"}, {"resume", Running, "Go on with a job"}, {"cancel", string(Cancelled), "End a job and take back what no device has begun"},
	} {
		api.Handle(a, api.Op{ID: x.verb + "-job", Method: "POST", Path: "/v1/jobs/{id}/" + x.verb, Verb: string(tenant.CommandSend), Stage: stage,
			Summary: x.summary}, func(ctx context.Context, in *cancelCommandIn) (*api.Out[Job], error) {
			j, err := s.steer(ctx, in.ID, x.to, in.Body.Reason)
			return api.One(j), err
		})
	}
}

// verb is what somebody has to hold to make or steer the job.
func (j Job) verb() tenant.Verb {
	if j.Kind == KindTwin {
		return tenant.TwinWrite
	}
	return tenant.CommandSend
}

func (j Job) thing() tenant.Thing {
	return tenant.Thing{Tenant: j.Tenant, Product: j.Product, Solution: j.Solution}
}

// askMany is CreateJob for whoever asks: who may send commands in one solution only names that solution.
func (s *Service) askMany(ctx context.Context, j Job) (Job, error) {
	who, _ := tenant.ActorFrom(ctx)
	j.Tenant, j.Actor = tenant.MustTenant(ctx), who.ID
	if j.Kind == "" {
		j.Kind = KindCommand
	}
	if err := tenant.Require(ctx, j.verb(), j.thing()); err != nil {
		return j, err
	}
	if j.Kind == KindTwin {
		j.Name = ""
		return s.CreateJob(ctx, j)
	}
	if why := reserved[j.Name]; why != "" {
		return j, problem.Forbidden("command.reserved", "%q cannot be sent as it is.", j.Name).Hint("%s", why)
	}
	if err := s.fitsMany(ctx, j, who); err != nil {
		return j, err
	}
	return s.CreateJob(ctx, j)
}

// fitsMany holds a job to the catalogues of the products that it may reach.
func (s *Service) fitsMany(ctx context.Context, j Job, who tenant.Actor) error {
	if j.Product != "" {
		_, err := s.fits(ctx, j.thing(), j.Name, j.Args)
		return err
	}
	kinds, err := s.declaredAs(ctx, j.Tenant, j.Name)
	if err != nil {
		return err
	}
	if len(kinds) == 0 && !tenant.Can(who, tenant.CatalogueWrite, j.thing()) {
		return problem.Forbidden("command.undeclared", "No product declares a command %q.", j.Name).Hint("Name the product whose devices understand it, or let somebody who holds %s do it.", tenant.CatalogueWrite)
	}
	for _, k := range kinds {
		thing := j.thing()
		thing.Product = k.Product
		if err := k.allows(who, thing); err != nil {
			return err
		}
	}
	return nil
}

// job returns a job that whoever asks holds the verb on.
func (s *Service) job(ctx context.Context, id string, v tenant.Verb) (Job, error) {
	j, err := s.Job(ctx, tenant.MustTenant(ctx), id)
	if err != nil {
		return j, err
	}
	return j, tenant.Require(ctx, v, j.thing())
}

// readableJobs returns a page of the jobs that whoever asks may read, with their counts.
func (s *Service) readableJobs(ctx context.Context, before string, limit int) (out []Job, err error) {
	who, _ := tenant.ActorFrom(ctx)
	for len(out) < limit {
		page, err := jobsOf(ctx, s.cfg.DB, who.Tenant, before, limit)
		if err != nil {
			return nil, err
		}
		for _, j := range page {
			before = j.ID
			if !tenant.Can(who, tenant.DeviceRead, j.thing()) || len(out) == limit {
				continue
			}
			if j, err = s.Job(ctx, j.Tenant, j.ID); err != nil {
				return nil, err
			}
			out = append(out, j)
		}
		if len(page) < limit {
			break
		}
	}
	return out, nil
}

// steer is Steer for whoever asks.
func (s *Service) steer(ctx context.Context, id, to, reason string) (Job, error) {
	j, err := s.job(ctx, id, tenant.DeviceRead)
	if err != nil {
		return j, err
	}
	if err := tenant.Require(ctx, j.verb(), j.thing()); err != nil {
		return j, err
	}
	who, _ := tenant.ActorFrom(ctx)
	if err := s.Steer(ctx, j.Tenant, id, to, who.ID, shorten(reason)); err != nil {
		return j, err
	}
	return s.Job(ctx, j.Tenant, id)
}
