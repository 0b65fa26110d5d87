// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

type patchTwinIn struct {
	ID string `path:"id" doc:"Device"`
	api.IfMatch
	Body json.RawMessage `contentType:"application/merge-patch+json" doc:"A merge patch (RFC 7396) to what is desired; null removes a member"`
}

type putTwinIn struct {
	ID string `path:"id" doc:"Device"`
	api.IfMatch
	Body json.RawMessage `doc:"All that is desired, as a JSON object without null"`
}

type twinChangesIn struct {
	ID string `path:"id" doc:"Device"`
	api.Paging
}

// Late is a device that does not go by what is desired of it.
type Late struct {
	Device         string    `json:"device"`
	Serial         string    `json:"serial"`
	DesiredVersion int64     `json:"desired_version"`
	Applied        int64     `json:"applied_version"`
	Since          time.Time `json:"since" doc:"Since when it has something to apply"`
	Failed         int64     `json:"failed_version,omitempty" doc:"The version that it could not apply"`
	Error          string    `json:"error,omitempty"`
}

// etag is the version of both halves; writes look at the first only, which a report does not change.
func (t Twin) etag() string { return api.ETag(t.tag) }

// seen is the version of what is desired that an If-Match header names, or Any.
func seen(m api.IfMatch) (int64, error) {
	text := strings.Trim(strings.TrimPrefix(strings.TrimSpace(m.IfMatch), "W/"), `"`)
	if text == "" || text == "*" {
		return Any, nil
	}
	version, _, _ := strings.Cut(text, ".")
	n, err := strconv.ParseInt(version, 10, 64)
	if err != nil || n < 0 {
		return 0, problem.Precondition("%q is no ETag of a twin.", m.IfMatch).Hint("Read the twin and give its ETag, or its desired_version, in quotation marks.")
	}
	return n, nil
}

// twinRoutes mounts the API of the twin.
func (s *Service) twinRoutes(a *api.API) {
	const stage = "fleet"
	api.Handle(a, api.Op{ID: "get-twin", Method: "GET", Path: "/v1/devices/{id}/twin", Verb: string(tenant.DeviceRead), Stage: stage,
		Summary: "Read what a device shall be like and what it says that it is like"}, func(ctx context.Context, in *byIDIn) (*api.Out[Twin], error) {
		d, err := s.cfg.Identity.Visible(ctx, tenant.DeviceRead, in.ID)
		if err != nil {
			return nil, err
		}
		t, err := s.Twin(ctx, d.Tenant, d.ID)
		return &api.Out[Twin]{Body: t, ETag: t.etag()}, err
	})
	change := func(ctx context.Context, id string, m api.IfMatch, doc wire.Doc, whole bool, err error) (*api.Out[Twin], error) {
		if err != nil {
			return nil, problem.Invalid("The body is %s.", err).At("body")
		}
		t, err := s.desire(ctx, id, m, doc, whole)
		return &api.Out[Twin]{Body: t, ETag: t.etag()}, err
	}
	api.Handle(a, api.Op{ID: "patch-twin", Method: "PATCH", Path: "/v1/devices/{id}/twin", Verb: string(tenant.TwinWrite), Stage: stage, MaxBody: wire.MaxTwin + 1024,
		Summary: "Change what a device shall be like", Doc: "The device hears of it at once, or when it is back. Asking for what is desired already changes nothing. With If-Match the change is refused when somebody else was faster; a report of the device in between does not count."},
		func(ctx context.Context, in *patchTwinIn) (*api.Out[Twin], error) {
			doc, err := wire.ParsePatch(in.Body)
			return change(ctx, in.ID, in.IfMatch, doc, false, err)
		})
	api.Handle(a, api.Op{ID: "put-twin", Method: "PUT", Path: "/v1/devices/{id}/twin", Verb: string(tenant.TwinWrite), Stage: stage, MaxBody: wire.MaxTwin + 1024,
		Summary: "Say anew what a device shall be like"},
		func(ctx context.Context, in *putTwinIn) (*api.Out[Twin], error) {
			doc, err := wire.ParseDoc(in.Body)
			return change(ctx, in.ID, in.IfMatch, doc, true, err)
		})
	api.Handle(a, api.Op{ID: "list-twin-changes", Method: "GET", Path: "/v1/devices/{id}/twin/changes", Verb: string(tenant.DeviceRead), Stage: stage,
		Summary: "List what was desired of a device, the newest first", Doc: "The newest 50 versions are kept."}, func(ctx context.Context, in *twinChangesIn) (*api.List[Change], error) {
		after, err := in.After(a)
		if err != nil {
			return nil, err
		}
		before, _ := strconv.ParseInt(after, 10, 64) // the token is ours; none is 0
		d, err := s.cfg.Identity.Visible(ctx, tenant.DeviceRead, in.ID)
		if err != nil {
			return nil, err
		}
		cs, err := s.TwinChanges(ctx, d.Tenant, d.ID, before, in.Size()+1)
		return api.More(a, in.Paging, cs, func(c Change) string { return strconv.FormatInt(c.Version, 10) }), err
	})
	api.Handle(a, api.Op{ID: "list-late-twins", Method: "GET", Path: "/v1/twins/behind", Verb: string(tenant.DeviceRead), Stage: stage,
		Summary: "List devices that do not go by what is desired of them yet"}, func(ctx context.Context, in *struct{ api.Paging }) (*api.List[Late], error) {
		after, err := in.After(a)
		if err != nil {
			return nil, err
		}
		late, err := s.late(ctx, after, in.Size()+1)
		return api.More(a, in.Paging, late, func(l Late) string { return l.Device }), err
	})
}

// desire is SetDesired for whoever asks.
func (s *Service) desire(ctx context.Context, id string, m api.IfMatch, doc wire.Doc, whole bool) (Twin, error) {
	d, err := s.cfg.Identity.Visible(ctx, tenant.TwinWrite, id)
	if err != nil {
		return Twin{}, err
	}
	version, err := seen(m)
	if err != nil {
		return Twin{}, err
	}
	who, _ := tenant.ActorFrom(ctx)
	return s.SetDesired(ctx, Desired{Tenant: d.Tenant, Device: d.ID, Patch: doc, Whole: whole, If: version, Actor: who.ID})
}

// late returns devices that are behind, of those that whoever asks may read.
func (s *Service) late(ctx context.Context, after string, limit int) (out []Late, err error) {
	who, _ := tenant.ActorFrom(ctx)
	f := identity.Filter{Limit: limit}
	whole, products, solutions := tenant.Scope(who, tenant.DeviceRead)
	if !whole {
		if len(products)+len(solutions) == 0 {
			return nil, nil
		}
		f.Products, f.Solutions = products, solutions
	}
	for len(out) < limit {
		bs, err := behindIn(ctx, s.cfg.DB, who.Tenant, after, limit)
		if err != nil || len(bs) == 0 {
			return out, err
		}
		rows := map[string]behind{}
		f.IDs = f.IDs[:0]
		for _, b := range bs {
			rows[b.device] = b
			f.IDs = append(f.IDs, b.device)
		}
		ds, err := s.cfg.Identity.List(ctx, who.Tenant, f)
		if err != nil {
			return nil, err
		}
		for _, d := range ds {
			out = append(out, rows[d.ID].late(d.Serial))
		}
		if len(bs) < limit {
			break
		}
		after = bs[len(bs)-1].device
	}
	return out[:min(limit, len(out))], nil
}

func (b behind) late(serial string) Late {
	l := Late{Device: b.device, Serial: serial, DesiredVersion: b.version, Applied: b.applied, Error: b.error, Failed: b.failed}
	l.Since = *instant(b.since)
	return l
}
