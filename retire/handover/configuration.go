// SPDX-License-Identifier: AGPL-3.0-only

package handover

import (
	"context"
	_ "embed"
	"encoding/csv"
	"encoding/json"
	"io"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/alarm"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

const configurationFormat = "openthings configuration 1"

//go:embed configuration.md
var configurationReadme []byte

// ConfigurationManifest is manifest.json of a configuration; it stands at the end.
type ConfigurationManifest struct {
	Format  string    `json:"format"`
	Tenant  string    `json:"tenant"`
	Filter  string    `json:"filter,omitempty"`
	Cohort  string    `json:"cohort,omitempty"`
	Made    time.Time `json:"made" doc:"When this was exported"`
	Devices int       `json:"devices"`
	Files   []File    `json:"files"`
	Missing []string  `json:"missing"`
}

// DeviceConfiguration is a line of devices.jsonl: one device as it was set up.
type DeviceConfiguration struct {
	Device   string            `json:"device"`
	Serial   string            `json:"serial"`
	Model    string            `json:"model"`
	Hardware string            `json:"hardware"`
	Batch    string            `json:"batch,omitempty"`
	Solution string            `json:"solution,omitempty"`
	State    identity.State    `json:"state"`
	Labels   map[string]string `json:"labels"`
	Desired  json.RawMessage   `json:"desired"`
	Reported json.RawMessage   `json:"reported"`
	Version  int64             `json:"desired_version"`
	Applied  int64             `json:"applied_version"`
}

// configuration is an export before its first byte.
type configuration struct {
	m      ConfigurationManifest
	who    tenant.Actor
	filter string            // of the devices to look at
	models map[string]string // of products
	hw     map[string]string // names of hardware revisions
	seen   []string          // products of the devices written, in order
}

func (s *Service) configuration(ctx context.Context, filter, cohort string) (*configuration, error) {
	c := &configuration{models: map[string]string{}, hw: map[string]string{}}
	c.who, _ = tenant.ActorFrom(ctx)
	c.m = ConfigurationManifest{Format: configurationFormat, Tenant: c.who.Tenant, Filter: filter, Cohort: cohort, Made: s.cfg.DB.Clock().Now().UTC().Truncate(time.Second), Files: []File{}, Missing: []string{}}
	if cohort != "" {
		co, err := s.cfg.Products.Cohort(ctx, c.who.Tenant, cohort)
		if err != nil {
			return nil, err
		}
		if filter != "" {
			return nil, problem.Invalid("Name a cohort or a filter, not both.").At("query.filter")
		}
		filter = "product:" + co.Product
	}
	c.filter = filter
	if _, err := s.cfg.Fleet.SelectFor(ctx, c.who, tenant.DeviceRead, filter, "", 1); err != nil {
		return nil, err // before the first byte, so that it can be said
	}
	return c, nil
}

// each calls fn for pages of the devices that the export is about.
func (s *Service) each(ctx context.Context, c *configuration, fn func([]identity.Device) error) error {
	for after := ""; ; {
		ds, err := s.cfg.Fleet.SelectFor(ctx, c.who, tenant.DeviceRead, c.filter, after, pageSize)
		if err != nil || len(ds) == 0 {
			return err
		}
		n := len(ds)
		after = ds[n-1].ID
		if c.m.Cohort != "" {
			var in []identity.Device
			for _, d := range ds {
				u, err := s.cfg.Products.SupportOfUnit(ctx, enroll.UnitOf(d))
				if err != nil {
					return err
				}
				if u.Cohort == c.m.Cohort {
					in = append(in, d)
				}
			}
			ds = in
		}
		if err := fn(ds); err != nil || n < pageSize {
			return err
		}
	}
}

func (s *Service) writeConfiguration(ctx context.Context, c *configuration, w io.Writer) error {
	a := newArchive(w, c.m.Made)
	if err := a.add("README.md", "How to read this and set it again", configurationReadme); err != nil {
		return err
	}
	if err := a.from("devices.jsonl", "Devices with their labels, desired and reported state", func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		return s.each(ctx, c, func(ds []identity.Device) error { return s.devices(ctx, c, ds, e) })
	}); err != nil {
		return err
	}
	for _, part := range []func(context.Context, *configuration, *archive) error{s.ofProducts, s.groups, s.alarmRules} {
		if err := part(ctx, c, a); err != nil {
			return err
		}
	}
	c.m.Files = a.files
	if err := a.addJSON("manifest.json", "", c.m); err != nil {
		return err
	}
	if err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		return audit.Append(tx, audit.Entry{Tenant: c.who.Tenant, Actor: c.who.ID, Kind: "configuration.exported", Subject: c.who.Tenant, Data: map[string]any{"filter": c.m.Filter, "cohort": c.m.Cohort, "devices": c.m.Devices}})
	}); err != nil {
		return err
	}
	return a.close()
}

// devices writes a page of devices.
func (s *Service) devices(ctx context.Context, c *configuration, ds []identity.Device, e *json.Encoder) error {
	ids := make([]string, len(ds))
	for i, d := range ds {
		ids[i] = d.ID
	}
	labels, err := s.cfg.Fleet.Labels(ctx, c.who.Tenant, ids)
	if err != nil {
		return err
	}
	for _, d := range ds {
		if err := s.learn(ctx, c, d); err != nil {
			return err
		}
		line := DeviceConfiguration{Device: d.ID, Serial: d.Serial, Model: c.models[d.Product], Hardware: c.hw[d.Revision], Batch: d.Batch, Solution: d.Solution, State: d.State, Labels: labels[d.ID],
			Desired: json.RawMessage("{}"), Reported: json.RawMessage("{}")}
		if line.Labels == nil {
			line.Labels = map[string]string{}
		}
		t, err := s.cfg.Fleet.Twin(ctx, d.Tenant, d.ID)
		switch {
		case problem.Is(err, problem.KindNotFound): // its data was erased
		case err != nil:
			return err
		default:
			line.Desired, line.Reported, line.Version, line.Applied = t.Desired, t.Reported, t.DesiredVersion, t.Applied
		}
		if err := e.Encode(line); err != nil {
			return err
		}
		c.m.Devices++
	}
	return nil
}

// learn looks up the names of a device's product and hardware, once each.
func (s *Service) learn(ctx context.Context, c *configuration, d identity.Device) error {
	if _, ok := c.models[d.Product]; !ok {
		p, err := s.cfg.Products.Get(ctx, d.Tenant, d.Product)
		if err != nil {
			return err
		}
		c.models[d.Product], c.seen = p.Model, append(c.seen, p.ID)
	}
	if _, ok := c.hw[d.Revision]; !ok {
		v, err := s.cfg.Products.Revision(ctx, d.Tenant, d.Revision)
		if err != nil {
			return err
		}
		c.hw[d.Revision] = v.Name
	}
	return nil
}

// ofProducts writes what the products of the devices declare.
func (s *Service) ofProducts(ctx context.Context, c *configuration, a *archive) error {
	for _, id := range c.seen {
		if !tenant.Can(c.who, tenant.ProductRead, tenant.Thing{Tenant: c.who.Tenant, Product: id}) {
			c.m.Missing = append(c.m.Missing, "What "+c.models[id]+" declares: whoever exported this may not read the product.")
			continue
		}
		commands, err := s.cfg.Command.Catalogue(ctx, c.who.Tenant, id)
		if err != nil {
			return err
		}
		folder := "products/" + c.models[id] + "/"
		if err := a.addJSON(folder+"commands.json", "Commands that "+c.models[id]+" declares", commands); err != nil {
			return err
		}
		catalogue, err := s.cfg.Telemetry.Catalogue(ctx, c.who.Tenant, id)
		if err != nil {
			return err
		}
		if err := a.addJSON(folder+"catalogue.json", "What "+c.models[id]+" may send, why and for how long it is kept", catalogue); err != nil {
			return err
		}
	}
	return nil
}

// groups writes the groups of the tenant, and the members of the static ones.
func (s *Service) groups(ctx context.Context, c *configuration, a *archive) error {
	if !tenant.Can(c.who, tenant.DeviceRead, tenant.Thing{Tenant: c.who.Tenant}) {
		c.m.Missing = append(c.m.Missing, "Groups: whoever exported this reads some devices only.")
		return nil
	}
	var all []fleet.GroupLine
	for after := ""; ; {
		page, err := s.cfg.Fleet.Groups(ctx, c.who.Tenant, after, pageSize)
		if err != nil {
			return err
		}
		all = append(all, page...)
		if len(page) < pageSize {
			break
		}
		after = page[len(page)-1].Name
	}
	if err := a.addJSON("groups.json", "Groups of devices", append([]fleet.GroupLine{}, all...)); err != nil {
		return err
	}
	return a.from("group-members.csv", "Members of the static groups", func(w io.Writer) error {
		rows := csv.NewWriter(w)
		if err := rows.Write([]string{"group", "device", "serial"}); err != nil {
			return err
		}
		for _, g := range all {
			if g.Filter != "" {
				continue
			}
			members := &configuration{who: c.who, filter: "group:" + quoted(g.Name)}
			if err := s.each(ctx, members, func(ds []identity.Device) error {
				for _, d := range ds {
					if err := rows.Write([]string{g.Name, d.ID, d.Serial}); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				return err
			}
		}
		rows.Flush()
		return rows.Error()
	})
}

// quoted is a word of the fleet's language.
func quoted(s string) string { return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"` }

func (s *Service) alarmRules(ctx context.Context, c *configuration, a *archive) error {
	rs, err := s.cfg.Alarm.Rules(ctx)
	if problem.Is(err, problem.KindForbidden) || problem.Is(err, problem.KindUnauthenticated) {
		c.m.Missing = append(c.m.Missing, "Alarm rules: whoever exported this may not read them.")
		return nil
	}
	if err != nil {
		return err
	}
	return a.addJSON("alarm-rules.json", "Rules that raise alarms", append([]alarm.Rule{}, rs...))
}
