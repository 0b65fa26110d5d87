// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/tenant"
)

type listIn struct {
	Filter string `query:"filter" maxLength:"2000" doc:"Which devices, in the language of docs/reference/filter.md, such as state:commissioned seen:>7d"`
	api.Paging
}

type byIDIn struct {
	ID string `path:"id"`
}

// DeviceOut is a device with what runs on it and whether it is online.
type DeviceOut struct {
	identity.Device
	Presence Presence          `json:"presence"`
	Release  string            `json:"release,omitempty" doc:"What runs on it now"`
	Labels   map[string]string `json:"labels,omitempty"`
	Making   *enroll.Making    `json:"making,omitempty" doc:"What the factory says of its making; the member made is the same as a text"`
	Lost     *identity.Lost    `json:"lost,omitempty" doc:"It was revoked with its batch, line station, trusted CA or authority, whatever its state says"`
}

// PassportOut is a device with its installation history.
type PassportOut struct {
	DeviceOut
	History []Interval        `json:"history" doc:"What ran on it, the newest first"`
	Names   map[string]string `json:"names,omitempty" doc:"What people call its batch, what brought it in, and what it was revoked with, by id"`
}

// Summary counts a tenant's fleet.
type Summary struct {
	Devices  int64                    `json:"devices"`
	Online   int64                    `json:"online" doc:"With a live session"`
	States   map[identity.State]int64 `json:"states"`
	Releases []ReleaseCount           `json:"releases" doc:"The most widespread first"`
}

// ReleaseCount is how many devices run a release.
type ReleaseCount struct {
	Release string `json:"release"`
	Name    string `json:"name"`
	Devices int64  `json:"devices"`
}

// Routes mounts the API.
func (s *Service) Routes(a *api.API) {
	const stage = "fleet"
	s.groupRoutes(a)
	s.twinRoutes(a)
	api.Handle(a, api.Op{ID: "list-devices", Method: "GET", Path: "/v1/devices", Verb: string(tenant.DeviceRead), Stage: stage,
		Summary: "List devices"}, func(ctx context.Context, in *listIn) (*api.List[DeviceOut], error) {
		after, err := in.After(a)
		if err != nil {
			return nil, err
		}
		f, err := ParseFilter(in.Filter)
		if err != nil {
			return nil, err
		}
		ds, err := s.list(ctx, f, after, in.Size()+1)
		return api.More(a, in.Paging, ds, func(d DeviceOut) string { return d.ID }), err
	})
	api.Handle(a, api.Op{ID: "get-device", Method: "GET", Path: "/v1/devices/{id}", Verb: string(tenant.DeviceRead), Stage: stage,
		Summary: "Read a device, what runs on it and what ran before"}, func(ctx context.Context, in *byIDIn) (*api.Out[PassportOut], error) {
		p, err := s.passport(ctx, in.ID)
		return api.One(p), err
	})
	api.Handle(a, api.Op{ID: "list-device-connections", Method: "GET", Path: "/v1/devices/{id}/connections", Verb: string(tenant.DeviceRead), Stage: stage,
		Summary: "List a device's last connections, the newest first", Doc: "The last 16 are kept."}, func(ctx context.Context, in *byIDIn) (*api.List[Connection], error) {
		d, err := s.cfg.Identity.Visible(ctx, tenant.DeviceRead, in.ID)
		if err != nil {
			return nil, err
		}
		was, err := s.Connections(ctx, d.Tenant, d.ID)
		return api.Items(was), err
	})
	api.Handle(a, api.Op{ID: "get-fleet-summary", Method: "GET", Path: "/v1/fleet/summary", Verb: string(tenant.DeviceRead), Stage: stage,
		Summary: "Count the fleet by state and release"}, func(ctx context.Context, _ *struct{}) (*api.Out[Summary], error) {
		t := tenant.MustTenant(ctx)
		if err := tenant.Require(ctx, tenant.DeviceRead, tenant.Thing{Tenant: t}); err != nil {
			return nil, err
		}
		sum, err := s.Summary(ctx, t)
		return api.One(sum), err
	})
}

// list returns the devices that whoever asks may read, with presence, release and labels.
func (s *Service) list(ctx context.Context, f Filter, after string, limit int) ([]DeviceOut, error) {
	t := tenant.MustTenant(ctx)
	ds, err := s.find(ctx, tenant.DeviceRead, t, f, identity.Filter{After: after, Limit: limit})
	if err != nil {
		return nil, err
	}
	return s.dress(ctx, t, ds)
}

// dress adds presence, release, labels, making and what took the trust from them to devices of one tenant.
func (s *Service) dress(ctx context.Context, t string, ds []identity.Device) ([]DeviceOut, error) {
	ids := make([]string, len(ds))
	for i, d := range ds {
		ids[i] = d.ID
	}
	present, err := s.Presence(ctx, t, ids)
	if err != nil {
		return nil, err
	}
	runs, err := s.Running(ctx, t, ids)
	if err != nil {
		return nil, err
	}
	labels, err := labelsOf(ctx, s.cfg.DB, t, ids)
	if err != nil {
		return nil, err
	}
	lost, err := s.cfg.Identity.LostOf(ctx, t, ds)
	if err != nil {
		return nil, err
	}
	out := make([]DeviceOut, len(ds))
	for i, d := range ds {
		out[i] = DeviceOut{Device: d, Presence: present[d.ID], Release: runs[d.ID], Labels: labels[d.ID], Making: makingOf(d)}
		if l, ok := lost[d.ID]; ok && !d.State.Barred() {
			out[i].Lost = &l
		}
	}
	return out, nil
}

// makingOf reads what the factory says of a device; nil where it says nothing that a line would.
func makingOf(d identity.Device) *enroll.Making {
	var m enroll.Making
	if d.Made == "" || json.Unmarshal([]byte(d.Made), &m) != nil {
		return nil
	}
	return &m
}

// passport returns a device that whoever asks may read, with what ran on it.
func (s *Service) passport(ctx context.Context, id string) (PassportOut, error) {
	d, err := s.cfg.Identity.Visible(ctx, tenant.DeviceRead, id)
	if err != nil {
		return PassportOut{}, err
	}
	out, err := s.dress(ctx, d.Tenant, []identity.Device{d})
	if err != nil {
		return PassportOut{}, err
	}
	h, err := s.History(ctx, d.Tenant, d.ID)
	if h == nil {
		h = []Interval{}
	}
	return PassportOut{DeviceOut: out[0], History: h, Names: s.named(ctx, out[0])}, err
}

// named is what people call those who made the device, by id.
func (s *Service) named(ctx context.Context, d DeviceOut) map[string]string {
	ids := []string{d.Batch, d.Origin}
	if d.Making != nil {
		ids = append(ids, d.Making.Station)
	}
	if d.Lost != nil {
		ids = append(ids, d.Lost.ID)
	}
	out := map[string]string{}
	for _, id := range ids {
		if s.cfg.Name == nil || id == "" || out[id] != "" {
			continue
		}
		if name := s.cfg.Name(ctx, id); name != "" {
			out[id] = name
		}
	}
	return out
}

// Summary counts the tenant's fleet.
func (s *Service) Summary(ctx context.Context, t string) (Summary, error) {
	states, err := s.cfg.Identity.CountByState(ctx, t)
	if err != nil {
		return Summary{}, err
	}
	releases, err := s.CountByRelease(ctx, t)
	if err != nil {
		return Summary{}, err
	}
	online, _ := s.OnlineCount(t)
	out := Summary{Online: int64(online), States: states, Releases: []ReleaseCount{}}
	for _, n := range states {
		out.Devices += n
	}
	for r, n := range releases {
		out.Releases = append(out.Releases, ReleaseCount{r, s.cfg.ReleaseName(ctx, t, r), n})
	}
	slices.SortFunc(out.Releases, func(a, b ReleaseCount) int {
		return cmp.Or(cmp.Compare(b.Devices, a.Devices), strings.Compare(a.Release, b.Release))
	})
	return out, nil
}
