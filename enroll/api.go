// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

type byID struct {
	ID string `path:"id"`
}

type batchIn struct {
	Body struct {
		Revision string `json:"revision" doc:"Hardware revision"`
		Name     string `json:"name" maxLength:"120" doc:"Unique within the product"`
		Size     int64  `json:"size" minimum:"1" maximum:"10000000" doc:"How many units it may have"`
	}
}

type closeIn struct {
	ID   string `path:"id"`
	Body struct {
		Produced int64 `json:"produced" minimum:"0" maximum:"10000000" doc:"How many units the factory made"`
	}
}

type stationIn struct {
	Body struct {
		Batch string  `json:"batch"`
		Name  string  `json:"name" maxLength:"120"`
		Quota int64   `json:"quota" required:"false" minimum:"0" maximum:"10000000" doc:"How many units it may make; default the size of the batch"`
		Hours float64 `json:"hours" required:"false" minimum:"0" maximum:"24" doc:"How long it is open; default 24"`
		CSR   string  `json:"csr" maxLength:"32768" doc:"PEM; ECDSA P-256, made on the station"`
	}
}

type killIn struct {
	ID   string `path:"id"`
	Body struct {
		Reason string `json:"reason" minLength:"1" maxLength:"500"`
	}
}

type claimIn struct {
	Body struct {
		Code     string `json:"code" maxLength:"64" doc:"From the unit's box; hyphens, spaces and case do not matter"`
		Solution string `json:"solution"`
	}
}

// BatchOut is a batch with what its numbers mean.
type BatchOut struct {
	Batch
	Surplus int64 `json:"surplus" doc:"Identities without a unit that was made; above zero is an alarm"`
}

// StationOut is a station and whether it is open.
type StationOut struct {
	Station
	State string `json:"state" enum:"open,expired,killed"`
}

// Killed is a station that was killed, with the units that it made.
type Killed struct {
	Devices []string `json:"devices" doc:"Units that this station made"`
}

func outBatch(b Batch) BatchOut { return BatchOut{b, b.Surplus()} }

// Routes mounts the API.
func (s *Service) Routes(a *api.API) {
	const stage = "enroll"
	read, write := string(tenant.LineRead), string(tenant.LineWrite)
	api.Handle(a, api.Op{ID: "open-batch", Method: "POST", Path: "/v1/batches", Verb: write, Stage: stage, Status: 201,
		Summary: "Open a batch of a hardware revision"}, func(ctx context.Context, in *batchIn) (*api.Out[BatchOut], error) {
		b, err := s.openBatch(ctx, Batch{Revision: in.Body.Revision, Name: in.Body.Name, Size: in.Body.Size})
		return &api.Out[BatchOut]{Body: outBatch(b), Location: "/v1/batches/" + b.ID}, err
	})
	api.Handle(a, api.Op{ID: "list-batches", Method: "GET", Path: "/v1/batches", Verb: read, Stage: stage, Summary: "List batches, the newest first"},
		func(ctx context.Context, _ *struct{}) (*api.List[BatchOut], error) {
			bs, err := s.batches(ctx)
			var out []BatchOut
			for _, b := range bs {
				out = append(out, outBatch(b))
			}
			return api.Items(out), err
		})
	api.Handle(a, api.Op{ID: "get-batch", Method: "GET", Path: "/v1/batches/{id}", Verb: read, Stage: stage, Summary: "Read a batch: issued against produced"},
		func(ctx context.Context, in *byID) (*api.Out[BatchOut], error) {
			b, err := s.batch(ctx, tenant.LineRead, in.ID)
			return api.One(outBatch(b)), err
		})
	api.Handle(a, api.Op{ID: "close-batch", Method: "POST", Path: "/v1/batches/{id}/close", Verb: write, Stage: stage,
		Summary: "Close a batch with the number of units made; more identities than units is an alarm"}, func(ctx context.Context, in *closeIn) (*api.Out[BatchOut], error) {
		b, err := s.endBatch(ctx, in.ID, in.Body.Produced)
		return api.One(outBatch(b)), err
	})
	api.Handle(a, api.Op{ID: "open-station", Method: "POST", Path: "/v1/stations", Verb: write, Stage: stage, Status: 201,
		Summary: "Admit a line station to a batch, for at most 24 hours"}, func(ctx context.Context, in *stationIn) (*api.Out[Opened], error) {
		st := Station{Batch: in.Body.Batch, Name: in.Body.Name, Quota: in.Body.Quota}
		o, err := s.openStation(ctx, st, time.Duration(in.Body.Hours*float64(time.Hour)), in.Body.CSR)
		return api.One(o), err
	})
	api.Handle(a, api.Op{ID: "list-stations", Method: "GET", Path: "/v1/stations", Verb: read, Stage: stage, Summary: "List line stations, the newest first"},
		func(ctx context.Context, _ *struct{}) (*api.List[StationOut], error) {
			sts, err := s.stations(ctx)
			return api.Items(sts), err
		})
	api.Handle(a, api.Op{ID: "kill-station", Method: "POST", Path: "/v1/stations/{id}/kill", Verb: write, Stage: stage,
		Summary: "End a line station at once and list the units that it made"}, func(ctx context.Context, in *killIn) (*api.Out[Killed], error) {
		ids, err := s.kill(ctx, in.ID, in.Body.Reason)
		return api.One(Killed{Devices: append([]string{}, ids...)}), err
	})
	api.Handle(a, api.Op{ID: "claim-device", Method: "POST", Path: "/v1/claims", Verb: string(tenant.DeviceClaim), Stage: stage, Status: 201,
		Summary: "Claim the unit with the code on its box into a solution"}, func(ctx context.Context, in *claimIn) (*api.Out[identity.Device], error) {
		d, err := s.Claim(ctx, in.Body.Code, in.Body.Solution)
		return &api.Out[identity.Device]{Body: d, Location: "/v1/devices/" + d.ID}, err
	})
}

func thing(b Batch) tenant.Thing { return tenant.Thing{Tenant: b.Tenant, Product: b.Product} }

// The methods below are the service's for whoever asks.

func (s *Service) batch(ctx context.Context, v tenant.Verb, id string) (Batch, error) {
	b, err := batchByID(s.reads(ctx), tenant.MustTenant(ctx), id)
	if err != nil {
		return Batch{}, err
	}
	return b, tenant.Require(ctx, v, thing(b))
}

func (s *Service) batches(ctx context.Context) (mine []Batch, err error) {
	who, _ := tenant.ActorFrom(ctx)
	all, err := listBatches(ctx, s.cfg.DB, who.Tenant)
	for _, b := range all {
		if tenant.Can(who, tenant.LineRead, thing(b)) {
			mine = append(mine, b)
		}
	}
	return mine, err
}

func (s *Service) stations(ctx context.Context) (mine []StationOut, err error) {
	bs, err := s.batches(ctx)
	if err != nil {
		return nil, err
	}
	visible := map[string]bool{}
	for _, b := range bs {
		visible[b.ID] = true
	}
	all, err := listStations(ctx, s.cfg.DB, tenant.MustTenant(ctx))
	for _, st := range all {
		if visible[st.Batch] {
			mine = append(mine, StationOut{st, st.State(s.now())})
		}
	}
	return mine, err
}

func (s *Service) openBatch(ctx context.Context, b Batch) (Batch, error) {
	b.Tenant = tenant.MustTenant(ctx)
	rev, err := s.cfg.Products.Revision(ctx, b.Tenant, b.Revision)
	if err != nil {
		return Batch{}, err
	}
	if err := tenant.Require(ctx, tenant.LineWrite, tenant.Thing{Tenant: b.Tenant, Product: rev.Product}); err != nil {
		return Batch{}, err
	}
	who, _ := tenant.ActorFrom(ctx)
	return s.OpenBatch(ctx, b, who.ID)
}

func (s *Service) endBatch(ctx context.Context, id string, produced int64) (Batch, error) {
	b, err := s.batch(ctx, tenant.LineWrite, id)
	if err != nil {
		return Batch{}, err
	}
	who, _ := tenant.ActorFrom(ctx)
	return s.CloseBatch(ctx, b.Tenant, b.ID, produced, who.ID)
}

func (s *Service) openStation(ctx context.Context, st Station, life time.Duration, csrPEM string) (Opened, error) {
	b, err := s.batch(ctx, tenant.LineWrite, st.Batch)
	if err != nil {
		return Opened{}, err
	}
	csr, err := identity.ParseCSRPEM(csrPEM)
	if err != nil {
		return Opened{}, err
	}
	if st.Quota == 0 {
		st.Quota = b.Size
	}
	if life == 0 {
		life = MaxStation
	}
	st.Tenant, st.Expires = b.Tenant, s.now().Add(life)
	who, _ := tenant.ActorFrom(ctx)
	return s.OpenStation(ctx, st, csr, who.ID)
}

func (s *Service) kill(ctx context.Context, id, reason string) ([]string, error) {
	st, err := stationByID(s.reads(ctx), tenant.MustTenant(ctx), id)
	if err != nil {
		return nil, err
	}
	if _, err := s.batch(ctx, tenant.LineWrite, st.Batch); err != nil {
		return nil, err
	}
	if reason == "" {
		return nil, problem.Invalid("Say why.").At("reason")
	}
	who, _ := tenant.ActorFrom(ctx)
	return s.KillStation(ctx, st.Tenant, st.ID, reason, who.ID)
}
