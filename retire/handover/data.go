// SPDX-License-Identifier: AGPL-3.0-only

package handover

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/command"
	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/telemetry"
	"github.com/openthings-platform/openthings/tenant"
)

const (
	dataFormat = "openthings device data 1"
	pageSize   = 200 // rows that are read together
)

// DataManifest is manifest.json of a device's data; it stands at the end, when all digests are known.
type DataManifest struct {
	Format   string    `json:"format"`
	Device   string    `json:"device"`
	Serial   string    `json:"serial"`
	Product  string    `json:"product"`
	Made     time.Time `json:"made" doc:"When this was exported"`
	From     time.Time `json:"from,omitzero"`
	To       time.Time `json:"to"`
	Files    []File    `json:"files"`
	Missing  []string  `json:"missing"`
	Support  string    `json:"support" doc:"Until when the device is supported, and why"`
	Wipe     string    `json:"wipe" doc:"What follows if the device is taken out of service"`
	Complete bool      `json:"complete" doc:"Everything that the platform keeps of it and that whoever asked may read is in here"`
}

// dataOut is one export of a device's data on its way.
type dataOut struct {
	ctx context.Context
	d   identity.Device
	a   *archive
	m   DataManifest
}

// writeData writes everything that a device said and was asked, as far as whoever asks may read it.
func (s *Service) writeData(ctx context.Context, d identity.Device, format string, w io.Writer) error {
	now := s.cfg.DB.Clock().Now().UTC().Truncate(time.Second)
	out := &dataOut{ctx, d, newArchive(w, now), DataManifest{Format: dataFormat, Device: d.ID, Serial: d.Serial, Product: d.Product, Made: now, To: now.Add(time.Second), Files: []File{}, Missing: []string{},
		Wipe: "Deprovisioning the device destroys the key of its data: from then on nobody can export it."}}
	support, err := s.cfg.Products.SupportOfUnit(ctx, enroll.UnitOf(d))
	if err != nil {
		return err
	}
	out.m.Support = support.Why
	if err := out.a.addJSON("device.json", "The device as it is registered", d); err != nil {
		return err
	}
	for _, part := range []func(*dataOut) error{
		func(o *dataOut) error { return s.measurements(o, format) }, s.events, s.securityEvents, s.commands, s.twin,
	} {
		if err := part(out); err != nil {
			return err
		}
	}
	out.m.Files, out.m.Complete = out.a.files, len(out.m.Missing) == 0
	if err := out.a.addJSON("manifest.json", "", out.m); err != nil {
		return err
	}
	actor, _ := tenant.ActorFrom(ctx)
	if err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		return audit.Append(tx, audit.Entry{Tenant: d.Tenant, Actor: actor.ID, Kind: "device.data-exported", Subject: d.ID, Data: map[string]any{"files": len(out.m.Files), "missing": out.m.Missing}})
	}); err != nil {
		return err
	}
	return out.a.close()
}

func (s *Service) measurements(o *dataOut, format string) error {
	return o.a.from("measurements."+format, "Everything that it measured: time, stream, field, value, unit", func(w io.Writer) error {
		return s.cfg.Telemetry.WriteExport(o.ctx, telemetry.Export{Device: o.d.ID, To: o.m.To, Format: format}, w)
	})
}

// lines writes JSON Lines page by page, the newest first. A device whose data was erased has none.
func lines[T any](o *dataOut, path, what string, page func(after string) ([]T, error), place func(T) string) error {
	return o.a.from(path, what, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		for after := ""; ; {
			rows, err := page(after)
			if problem.Is(err, problem.KindNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
			for _, r := range rows {
				if err := e.Encode(r); err != nil {
					return err
				}
				after = place(r)
			}
			if len(rows) < pageSize {
				return nil
			}
		}
	})
}

func (s *Service) events(o *dataOut) error {
	return lines(o, "events.jsonl", "Events that it told, the newest first", func(after string) ([]telemetry.Event, error) {
		return s.cfg.Telemetry.Events(o.ctx, o.d.Tenant, o.d.ID, after, pageSize)
	}, func(e telemetry.Event) string { return e.ID })
}

func (s *Service) securityEvents(o *dataOut) error {
	return lines(o, "security-events.jsonl", "Its chain of security events, the newest first", func(after string) ([]telemetry.SecurityEvent, error) {
		return s.cfg.Telemetry.SecurityEvents(o.ctx, o.d.Tenant, o.d.ID, after, pageSize)
	}, telemetry.SecurityEvent.Place)
}

func (s *Service) commands(o *dataOut) error {
	if !o.may(tenant.DeviceRead) {
		o.m.Missing = append(o.m.Missing, "Commands and state: whoever exported this may not read the device.")
		return nil
	}
	return lines(o, "commands.jsonl", "What it was asked and answered, the newest first", func(before string) ([]command.Command, error) {
		return s.cfg.Command.List(o.ctx, o.d.Tenant, o.d.ID, before, pageSize)
	}, func(c command.Command) string { return c.ID })
}

func (s *Service) twin(o *dataOut) error {
	if !o.may(tenant.DeviceRead) {
		return nil
	}
	t, err := s.cfg.Fleet.Twin(o.ctx, o.d.Tenant, o.d.ID)
	if problem.Is(err, problem.KindNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return o.a.addJSON("twin.json", "What it should be like and said that it is like", t)
}

func (o *dataOut) may(v tenant.Verb) bool {
	actor, _ := tenant.ActorFrom(o.ctx)
	return tenant.Can(actor, v, tenant.Thing{Tenant: o.d.Tenant, Product: o.d.Product, Solution: o.d.Solution})
}
