// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"encoding/pem"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

type byID struct {
	ID string `path:"id"`
}

type listByID struct {
	ID string `path:"id"`
	api.Paging
}

type batchIn struct {
	Body struct {
		Revision string `json:"revision" doc:"Hardware revision"`
		Name     string `json:"name" maxLength:"120" doc:"Unique within the product"`
		Size     int64  `json:"size" minimum:"1" maximum:"10000000" doc:"How many units it may have"`
		Signed   bool   `json:"signed,omitempty" doc:"Its stations must sign each request"`
		Listed   bool   `json:"listed,omitempty" doc:"Only preauthorised serial numbers are made"`
		product.Placement
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
		Batch   string      `json:"batch"`
		Name    string      `json:"name" maxLength:"120"`
		Quota   int64       `json:"quota" required:"false" minimum:"0" maximum:"10000000" doc:"How many units it may make; default the size of the batch"`
		Hours   float64     `json:"hours" required:"false" minimum:"0" maximum:"720" doc:"How long it is open; default 24"`
		CSR     string      `json:"csr" maxLength:"32768" doc:"PEM; ECDSA P-256, made on the station"`
		Offline *OfflineAsk `json:"offline,omitempty" doc:"It works without a network and brings what it made later"`
	}
}

// OfflineAsk is what a station without a network needs beside a certificate.
type OfflineAsk struct {
	Authority string       `json:"authority" maxLength:"32768" doc:"PEM; the station's own authority, self-signed, with another key than the CSR"`
	Serials   wire.Serials `json:"serials,omitempty" doc:"Serial numbers that it may use; default any"`
}

type killIn struct {
	ID   string `path:"id"`
	Body struct {
		Reason string `json:"reason" minLength:"1" maxLength:"500"`
		Units  Units  `json:"units,omitempty" enum:",suspend,bar" doc:"What becomes of the units that it made: suspended, barred for ever, or left alone"`
	}
}

type claimIn struct {
	Body struct {
		Code     string `json:"code" maxLength:"400" doc:"From the unit's box, or the link of its QR code; hyphens, spaces and case do not matter"`
		Solution string `json:"solution"`
	}
}

// BatchOut is a batch with what its numbers mean.
type BatchOut struct {
	Batch
	Surplus int64 `json:"surplus" doc:"Identities without a unit that was made; above zero is an alarm"`
	AtLarge int64 `json:"at_large" doc:"How many of the surplus can still open a door. Of a batch closed with a number all count until its list is handed in, it is revoked as a whole, or fewer identities are left"`
	Named   bool  `json:"named" doc:"It has the list of serial numbers made, so that its differences are known by name"`
	Claimed int64 `json:"claimed" doc:"How many units have been claimed"`
	Failed  int64 `json:"failed" doc:"How many units are locked out or were given up"`
}

// StationOut is a station and whether it is open.
type StationOut struct {
	Station
	State string `json:"state" enum:"open,expired,killed"`
}

// Killed is a station that was killed, with the units that it made.
type Killed struct {
	Made    int64    `json:"made" doc:"How many units it made"`
	Devices []string `json:"devices" doc:"The first 10000 of them; the rest is under /v1/stations/{id}/devices"`
}

// Affected is a unit that a station made, as it stands now.
type Affected struct {
	Device   string         `json:"device"`
	Serial   string         `json:"serial"`
	State    identity.State `json:"state"`
	Solution string         `json:"solution,omitempty"`
}

// ClaimCode is a new claim code; it is shown once.
type ClaimCode struct {
	Device string `json:"device"`
	Serial string `json:"serial"`
	Code   string `json:"code"`
}

const stage = "enroll"

// Routes mounts the API.
func (s *Service) Routes(a *api.API) {
	s.batchRoutes(a)
	s.placementRoutes(a)
	s.stationRoutes(a)
	s.claimRoutes(a)
	s.serialRoutes(a)
	s.lobbyRoutes(a)
	s.hookRoutes(a)
	s.policyRoutes(a)
	s.attestationRoutes(a)
	s.admissionRoutes(a)
}

func (s *Service) batchRoutes(a *api.API) {
	read, write := string(tenant.LineRead), string(tenant.LineWrite)
	api.Handle(a, api.Op{ID: "open-batch", Method: "POST", Path: "/v1/batches", Verb: write, Stage: stage, Status: 201,
		Summary: "Open a batch of a hardware revision"}, func(ctx context.Context, in *batchIn) (*api.Out[BatchOut], error) {
		b, err := s.openBatch(ctx, Batch{Revision: in.Body.Revision, Name: in.Body.Name, Size: in.Body.Size, Signed: in.Body.Signed, Listed: in.Body.Listed, Placed: in.Body.Placement})
		return &api.Out[BatchOut]{Body: BatchOut{Batch: b}, Location: "/v1/batches/" + b.ID}, err
	})
	api.Handle(a, api.Op{ID: "list-batches", Method: "GET", Path: "/v1/batches", Verb: read, Stage: stage, Summary: "List batches, the newest first"},
		func(ctx context.Context, in *struct{ api.Paging }) (*api.List[BatchOut], error) {
			after, err := in.After(a)
			if err != nil {
				return nil, err
			}
			bs, err := s.batches(ctx, after, in.Size()+1)
			return api.More(a, in.Paging, bs, func(b BatchOut) string { return b.ID }), err
		})
	api.Handle(a, api.Op{ID: "get-batch", Method: "GET", Path: "/v1/batches/{id}", Verb: read, Stage: stage, Summary: "Read a batch: issued against produced"},
		func(ctx context.Context, in *byID) (*api.Out[BatchOut], error) {
			b, err := s.batch(ctx, tenant.LineRead, in.ID)
			if err != nil {
				return nil, err
			}
			out, err := s.outBatch(ctx, b)
			return api.One(out), err
		})
	api.Handle(a, api.Op{ID: "close-batch", Method: "POST", Path: "/v1/batches/{id}/close", Verb: write, Stage: stage,
		Summary: "Close a batch with the number of units made; more identities than units is an alarm"}, func(ctx context.Context, in *closeIn) (*api.Out[BatchOut], error) {
		b, err := s.endBatch(ctx, in.ID, in.Body.Produced)
		if err != nil {
			return nil, err
		}
		out, err := s.outBatch(ctx, b)
		return api.One(out), err
	})
	api.Raw(a, api.Op{ID: "close-batch-with-serials", Method: "POST", Path: "/v1/batches/{id}/produced", Verb: write, Stage: stage, MaxBody: MaxProduced,
		Summary: "Close a batch with the list of serial numbers made, or hand the list in later", Doc: "A batch that was closed with a number takes one list later, of just as many units. A first line that says serial, then one serial number a line, or a CSV file whose first column they are. Identities that no line names are an alarm, by name."},
		func(w http.ResponseWriter, r *http.Request) error {
			b, err := s.endBatchWith(r, r.Body)
			if err != nil {
				return err
			}
			out, err := s.outBatch(r.Context(), b)
			if err != nil {
				return err
			}
			return answerJSON(w, out)
		})
	api.Handle(a, api.Op{ID: "list-batch-differences", Method: "GET", Path: "/v1/batches/{id}/differences", Verb: read, Stage: stage,
		Summary: "List surplus and missing serial numbers of a batch that has a list of those made"}, func(ctx context.Context, in *listByID) (*api.List[Difference], error) {
		after, err := in.After(a)
		if err != nil {
			return nil, err
		}
		b, err := s.batch(ctx, tenant.LineRead, in.ID)
		if err != nil {
			return nil, err
		}
		ds, err := s.Differences(ctx, b, after, in.Size()+1)
		return api.More(a, in.Paging, ds, func(d Difference) string { return d.Serial }), err
	})
	api.Raw(a, api.Op{ID: "get-batch-manifest", Method: "GET", Path: "/v1/batches/{id}/manifest", Verb: read, Stage: stage,
		Summary: "Read the signed manifest of a batch: every identity it was given", Doc: "Check it with no server: openthings batch verify FILE --log-key KEY."},
		func(w http.ResponseWriter, r *http.Request) error {
			b, err := s.batch(r.Context(), tenant.LineRead, r.PathValue("id"))
			if err != nil {
				return err
			}
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Disposition", `attachment; filename="`+b.ID+`.manifest.json"`)
			return s.WriteManifest(r.Context(), w, b)
		})
}

func (s *Service) stationRoutes(a *api.API) {
	read, write := string(tenant.LineRead), string(tenant.LineWrite)
	api.Handle(a, api.Op{ID: "open-station", Method: "POST", Path: "/v1/stations", Verb: write, Stage: stage, Status: 201,
		Summary: "Admit a line station to a batch, for a day or up to 30 days", Doc: "Its certificate lives a day at most and is renewed by the station itself. With `offline` it gets a permit instead, and brings later what it made."},
		func(ctx context.Context, in *stationIn) (*api.Out[Opened], error) {
			st := Station{Batch: in.Body.Batch, Name: in.Body.Name, Quota: in.Body.Quota}
			o, err := s.openStation(ctx, st, time.Duration(in.Body.Hours*float64(time.Hour)), in.Body.CSR, in.Body.Offline)
			return &api.Out[Opened]{Body: o, Location: "/v1/stations/" + o.ID}, err
		})
	api.Handle(a, api.Op{ID: "list-stations", Method: "GET", Path: "/v1/stations", Verb: read, Stage: stage, Summary: "List line stations, the newest first"},
		func(ctx context.Context, in *struct{ api.Paging }) (*api.List[StationOut], error) {
			after, err := in.After(a)
			if err != nil {
				return nil, err
			}
			sts, err := s.stations(ctx, after, in.Size()+1)
			return api.More(a, in.Paging, sts, func(st StationOut) string { return st.ID }), err
		})
	api.Handle(a, api.Op{ID: "get-station", Method: "GET", Path: "/v1/stations/{id}", Verb: read, Stage: stage, Summary: "Read a line station"},
		func(ctx context.Context, in *byID) (*api.Out[StationOut], error) {
			st, err := s.station(ctx, tenant.LineRead, in.ID)
			return api.One(StationOut{st, st.State(s.now())}), err
		})
	api.Handle(a, api.Op{ID: "kill-station", Method: "POST", Path: "/v1/stations/{id}/kill", Verb: write, Stage: stage,
		Summary: "End a line station at once, list the units that it made, and lock them out if asked to"}, func(ctx context.Context, in *killIn) (*api.Out[Killed], error) {
		k, err := s.kill(ctx, in.ID, in.Body.Reason, in.Body.Units)
		return api.One(k), err
	})
	api.Handle(a, api.Op{ID: "list-station-devices", Method: "GET", Path: "/v1/stations/{id}/devices", Verb: read, Stage: stage,
		Summary: "List exactly the units that a line station made"}, func(ctx context.Context, in *listByID) (*api.List[Affected], error) {
		after, err := in.After(a)
		if err != nil {
			return nil, err
		}
		st, err := s.station(ctx, tenant.LineRead, in.ID)
		if err != nil {
			return nil, err
		}
		ds, err := affected(ctx, s.cfg.DB, st, after, in.Size()+1)
		return api.More(a, in.Paging, ds, func(d Affected) string { return d.Device }), err
	})
	api.Handle(a, api.Op{ID: "list-station-refusals", Method: "GET", Path: "/v1/stations/{id}/refusals", Verb: read, Stage: stage,
		Summary: "List the units that an offline station brought and that were not taken"}, func(ctx context.Context, in *listByID) (*api.List[wire.RefusedUnit], error) {
		after, err := in.After(a)
		if err != nil {
			return nil, err
		}
		st, err := s.station(ctx, tenant.LineRead, in.ID)
		if err != nil {
			return nil, err
		}
		us, err := s.RefusedUnits(ctx, st.Tenant, st.ID, seqOf(after), in.Size()+1)
		return api.More(a, in.Paging, us, func(u wire.RefusedUnit) string { return seqKey(u.Seq) }), err
	})
}

func (s *Service) claimRoutes(a *api.API) {
	api.Handle(a, api.Op{ID: "claim-device", Method: "POST", Path: "/v1/claims", Verb: string(tenant.DeviceClaim), Stage: stage, Status: 201,
		Summary: "Claim the unit with the code on its box into a solution"}, func(ctx context.Context, in *claimIn) (*api.Out[identity.Device], error) {
		d, err := s.Claim(ctx, in.Body.Code, in.Body.Solution)
		return &api.Out[identity.Device]{Body: d, Location: "/v1/devices/" + d.ID}, err
	})
	api.Handle(a, api.Op{ID: "transfer-device", Method: "POST", Path: "/v1/devices/{id}/transfer", Verb: string(tenant.DeviceClaim), Stage: stage,
		Summary: "Move a claimed device to another solution; it takes the right to claim on both"}, func(ctx context.Context, in *transferIn) (*api.Out[identity.Device], error) {
		d, err := s.Transfer(ctx, in.ID, in.Body.Solution, in.Body.Reason)
		return api.One(d), err
	})
	api.Handle(a, api.Op{ID: "renew-claim-code", Method: "POST", Path: "/v1/devices/{id}/claim-code", Verb: string(tenant.LineWrite), Stage: stage, Status: 201,
		Summary: "Give a unit that nobody holds another claim code", Doc: "For one that its owner has released, or whose label was lost. The code before it no longer works."},
		func(ctx context.Context, in *byID) (*api.Out[ClaimCode], error) {
			c, err := s.newClaim(ctx, in.ID)
			return api.One(c), err
		})
	api.Handle(a, api.Op{ID: "get-manufacture", Method: "GET", Path: "/v1/devices/{id}/manufacture", Verb: string(tenant.DeviceRead), Stage: stage,
		Summary: "Read how a device was made, with the request that the line station signed"}, func(ctx context.Context, in *byID) (*api.Out[Manufacture], error) {
		d, err := s.cfg.Identity.Visible(ctx, tenant.DeviceRead, in.ID)
		if err != nil {
			return nil, err
		}
		m, err := s.Manufacture(ctx, d.Tenant, d.ID)
		return api.One(m), err
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

// visible is the page of a list that whoever asks may read; false when that is nothing.
func visible(ctx context.Context, v tenant.Verb, before string, limit int) (page, bool) {
	who, _ := tenant.ActorFrom(ctx)
	whole, products, _ := tenant.Scope(who, v)
	return page{products: products, before: before, limit: limit}, whole || len(products) > 0
}

func (s *Service) batches(ctx context.Context, before string, limit int) ([]BatchOut, error) {
	p, ok := visible(ctx, tenant.LineRead, before, limit)
	if !ok {
		return nil, nil
	}
	t := tenant.MustTenant(ctx)
	bs, err := listBatches(ctx, s.cfg.DB, t, p)
	if err != nil {
		return nil, err
	}
	return s.outBatches(ctx, t, bs)
}

// outBatches adds to batches how many of their units were claimed, how many are out of service, and what is left of a surplus.
func (s *Service) outBatches(ctx context.Context, tenant string, bs []Batch) ([]BatchOut, error) {
	counts, err := countUnits(ctx, s.cfg.DB, tenant, bs)
	if err != nil {
		return nil, err
	}
	out := make([]BatchOut, len(bs))
	for i, b := range bs {
		left, err := atLarge(s.reads(ctx), b)
		if err != nil {
			return nil, err
		}
		out[i] = BatchOut{Batch: b, Surplus: b.Surplus(), AtLarge: left, Named: b.List != "", Claimed: counts[b.ID].claimed, Failed: counts[b.ID].failed}
	}
	return out, nil
}

func (s *Service) outBatch(ctx context.Context, b Batch) (BatchOut, error) {
	out, err := s.outBatches(ctx, b.Tenant, []Batch{b})
	if err != nil {
		return BatchOut{}, err
	}
	return out[0], nil
}

func (s *Service) stations(ctx context.Context, before string, limit int) ([]StationOut, error) {
	p, ok := visible(ctx, tenant.LineRead, before, limit)
	if !ok {
		return nil, nil
	}
	sts, err := listStations(ctx, s.cfg.DB, tenant.MustTenant(ctx), p)
	out := make([]StationOut, len(sts))
	for i, st := range sts {
		out[i] = StationOut{st, st.State(s.now())}
	}
	return out, err
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

func (s *Service) endBatchWith(r *http.Request, list io.Reader) (Batch, error) {
	ctx := r.Context()
	b, err := s.batch(ctx, tenant.LineWrite, r.PathValue("id"))
	if err != nil {
		return Batch{}, err
	}
	who, _ := tenant.ActorFrom(ctx)
	return s.CloseBatchWith(ctx, b.Tenant, b.ID, list, who.ID)
}

// openStation opens a station; ask is nil for one that has a network.
func (s *Service) openStation(ctx context.Context, st Station, window time.Duration, csrPEM string, ask *OfflineAsk) (Opened, error) {
	b, err := s.batch(ctx, tenant.LineWrite, st.Batch)
	if err != nil {
		return Opened{}, err
	}
	csr, err := identity.ParseCSRPEM(csrPEM)
	if err != nil {
		return Opened{}, err
	}
	if err := csr.OnlyFor(""); err != nil {
		return Opened{}, err
	}
	if st.Quota == 0 {
		st.Quota = b.Size
	}
	if window == 0 {
		window = DefaultWindow
	}
	st.Tenant, st.Expires = b.Tenant, s.now().Add(window)
	who, _ := tenant.ActorFrom(ctx)
	if ask == nil {
		return s.OpenStation(ctx, st, csr, who.ID)
	}
	ca, _ := pem.Decode([]byte(ask.Authority))
	if ca == nil || ca.Type != "CERTIFICATE" {
		return Opened{}, problem.Invalid("The station's authority is not a certificate in PEM.").At("authority")
	}
	return s.OpenOffline(ctx, st, csr, ca.Bytes, ask.Serials, who.ID)
}

func (s *Service) station(ctx context.Context, v tenant.Verb, id string) (Station, error) {
	st, err := stationByID(s.reads(ctx), tenant.MustTenant(ctx), id)
	if err != nil {
		return Station{}, err
	}
	_, err = s.batch(ctx, v, st.Batch)
	return st, err
}

func (s *Service) kill(ctx context.Context, id, reason string, units Units) (Killed, error) {
	st, err := s.station(ctx, tenant.LineWrite, id)
	if err != nil {
		return Killed{}, err
	}
	who, _ := tenant.ActorFrom(ctx)
	if err := s.KillStation(ctx, st.Tenant, st.ID, strings.TrimSpace(reason), units, who.ID); err != nil {
		return Killed{}, err
	}
	ids, err := devicesOfStation(ctx, s.cfg.DB, st.Tenant, st.ID, "", 10_000)
	if err != nil {
		return Killed{}, err
	}
	n, err := countOfStation(s.reads(ctx), st.Tenant, st.ID)
	return Killed{Made: n, Devices: append([]string{}, ids...)}, err
}

func (s *Service) newClaim(ctx context.Context, device string) (ClaimCode, error) {
	d, err := s.cfg.Identity.Visible(ctx, tenant.LineWrite, device)
	if err != nil {
		return ClaimCode{}, err
	}
	who, _ := tenant.ActorFrom(ctx)
	code, d, err := s.NewClaim(ctx, d.Tenant, d.ID, who.ID)
	return ClaimCode{Device: d.ID, Serial: d.Serial, Code: code}, err
}
