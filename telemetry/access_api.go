// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/tenant"
)

type feedIn struct {
	ID     string `path:"id" doc:"Device"`
	Cursor string `query:"cursor" maxLength:"1024" doc:"next_cursor of the page before; absent: from the first measurement kept"`
}

type shareIn struct {
	Body struct {
		Solution      string    `json:"solution" maxLength:"64"`
		Recipient     string    `json:"recipient" maxLength:"200" doc:"Who reads"`
		Purpose       string    `json:"purpose" maxLength:"500" doc:"What they may use it for"`
		Expires       time.Time `json:"expires" doc:"At most a year and a day from now"`
		NotGatekeeper bool      `json:"not_gatekeeper" doc:"The recipient is no gatekeeper of the Digital Markets Act (article 5(3))"`
	}
}

// DataDevice is a device whose data whoever asks may read.
type DataDevice struct {
	ID       string `json:"id"`
	Serial   string `json:"serial"`
	Product  string `json:"product"`
	Solution string `json:"solution,omitempty"`
}

// accessRoutes mounts what the user of devices has by the Data Act, and whom the user names, and the export.
func (s *Service) accessRoutes(a *api.API) {
	const stage = "telemetry"
	api.Raw(a, api.Op{ID: "export-telemetry", Method: "GET", Path: "/v1/telemetry/export", Verb: string(tenant.TelemetryRead), Stage: stage,
		Summary: "Export measurements of one device, a group or a whole reach as CSV or JSON Lines",
		Doc: "Query: `device` or `filter` (the language of the fleet; neither: every device that the caller may read), `from`, `to` (RFC 3339 or a day), " +
			"`fields` (may repeat: `temp` or `env/temp`), `format` (`csv` or `jsonl`). It is streamed; one that is cut short ends the connection without its last chunk."},
		s.serveExport)
	api.Handle(a, api.Op{ID: "list-data-devices", Method: "GET", Path: "/v1/data/devices", Verb: string(tenant.TelemetryRead), Stage: stage,
		Summary: "List the devices whose data the caller may read"},
		func(ctx context.Context, in *struct{ api.Paging }) (*api.List[DataDevice], error) {
			after, err := in.After(a)
			if err != nil {
				return nil, err
			}
			ds, err := s.readable(ctx, identity.Filter{After: after, Limit: in.Size() + 1})
			if err != nil {
				return nil, err
			}
			out := make([]DataDevice, len(ds))
			for i, d := range ds {
				out[i] = DataDevice{d.ID, d.Serial, d.Product, d.Solution}
			}
			return api.More(a, in.Paging, out, func(d DataDevice) string { return d.ID }), nil
		})
	api.Handle(a, api.Op{ID: "describe-device-data", Method: "GET", Path: "/v1/devices/{id}/data/description", Verb: string(tenant.TelemetryRead), Stage: stage,
		Summary: "Say what data a device makes, why, in which units and how long they are kept", Doc: "The metadata of the Data Act (Regulation (EU) 2023/2854, articles 3 and 4)."},
		func(ctx context.Context, in *deviceIn) (*api.Out[Description], error) {
			d, err := s.cfg.Identity.Visible(ctx, tenant.TelemetryRead, in.ID)
			if err != nil {
				return nil, err
			}
			out, err := s.describe(ctx, d)
			return api.One(out), err
		})
	api.Handle(a, api.Op{ID: "read-device-data", Method: "GET", Path: "/v1/devices/{id}/data", Verb: string(tenant.TelemetryRead), Stage: stage,
		Summary: "Read a device's data continuously, in the order in which they were stored",
		Doc: "Ask again with `next_cursor`: late measurements are in it too. Each comes at least once; (stream, field, time, value) tells a repeat. " +
			"Measurements appear a few seconds after their receipt."},
		func(ctx context.Context, in *feedIn) (*api.Out[Feed], error) {
			after, err := a.Key(in.Cursor)
			if err != nil {
				return nil, err
			}
			d, err := s.cfg.Identity.Visible(ctx, tenant.TelemetryRead, in.ID)
			if err != nil {
				return nil, err
			}
			f, err := s.feed(ctx, d, after)
			f.Next = a.Token(f.Next)
			return api.One(f), err
		})
	api.Handle(a, api.Op{ID: "list-gaps", Method: "GET", Path: "/v1/telemetry/gaps", Verb: string(tenant.TelemetryRead), Stage: stage,
		Summary: "List devices of which messages are missing, by their own count"},
		func(ctx context.Context, in *struct{ api.Paging }) (*api.List[Gap], error) {
			after, err := in.After(a)
			if err != nil {
				return nil, err
			}
			t := tenant.MustTenant(ctx)
			if err := tenant.Require(ctx, tenant.TelemetryRead, tenant.Thing{Tenant: t}); err != nil {
				return nil, err
			}
			gs, err := s.OpenGaps(ctx, t, after, in.Size()+1)
			return api.More(a, in.Paging, gs, func(g Gap) string { return g.Device }), err
		})
	api.Handle(a, api.Op{ID: "list-data-shares", Method: "GET", Path: "/v1/data/shares", Verb: string(tenant.DataShare), Stage: stage,
		Summary: "List with whom the data of devices are shared"},
		func(ctx context.Context, in *struct{ api.Paging }) (*api.List[Share], error) {
			after, err := in.After(a)
			if err != nil {
				return nil, err
			}
			shs, err := s.shares(ctx, after, in.Size()+1)
			return api.More(a, in.Paging, shs, func(sh Share) string { return sh.ID }), err
		})
	api.Handle(a, api.Op{ID: "create-data-share", Method: "POST", Path: "/v1/data/shares", Verb: string(tenant.DataShare), Stage: stage, Status: 201, Secret: true,
		Summary: "Let a third party read the telemetry of a solution's devices; the token is shown once", Doc: "Data Act, article 5. The token reads telemetry of the solution and nothing else."},
		func(ctx context.Context, in *shareIn) (*api.Out[NewShare], error) {
			b := in.Body
			out, err := s.share(ctx, Share{Solution: b.Solution, Recipient: b.Recipient, Purpose: b.Purpose, Expires: b.Expires}, b.NotGatekeeper)
			return api.One(out), err
		})
	api.Handle(a, api.Op{ID: "end-data-share", Method: "POST", Path: "/v1/data/shares/{id}/end", Verb: string(tenant.DataShare), Stage: stage,
		Summary: "End a share and its token at once"},
		func(ctx context.Context, in *struct {
			ID string `path:"id"`
		}) (*struct{}, error) {
			return nil, s.endShare(ctx, in.ID)
		})
}
