// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// AckBundle records that the device says it goes by that version of the trust bundle. The version only grows.
func (s *Service) AckBundle(ctx context.Context, tenant, device string, version int64) error {
	if version < 1 {
		return nil // an agent that knows of no bundle
	}
	var have int64
	err := s.cfg.DB.QueryRow(ctx, `SELECT coalesce((SELECT version FROM bundle_ack WHERE device = $1 AND tenant = $2), 0)`, device, tenant).Scan(&have)
	if err != nil || have >= version {
		return err
	}
	now := s.cfg.Clock.Now()
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		// A version that was never published acknowledges nothing: it would count for every later one.
		_, err := tx.Exec(`INSERT INTO bundle_ack(device, tenant, version, at)
			SELECT d.id, d.tenant, b.version, $4 FROM device d, trust_bundle b WHERE d.id = $1 AND d.tenant = $2 AND b.version = $3
			ON CONFLICT (device) DO UPDATE SET version = excluded.version, at = excluded.at WHERE bundle_ack.version < excluded.version`,
			device, tenant, version, store.Millis(now))
		return err
	})
}

// Progress says how far a version of the trust bundle has come among commissioned devices.
type Progress struct {
	Version      int64     `json:"version"`
	Devices      int64     `json:"devices" doc:"Commissioned devices, but for those that were revoked as a whole"`
	Acknowledged int64     `json:"acknowledged" doc:"Of them, those that go by this version or a later one"`
	Behind       int64     `json:"behind" doc:"Those that go by an older one"`
	Unknown      int64     `json:"unknown" doc:"Those that never said"`
	UnknownSince time.Time `json:"unknown_since,omitzero" doc:"Since when the longest silent one of them has been in its state"`
}

// Percent of the devices that have acknowledged; all of none.
func (p Progress) Percent() float64 {
	if p.Devices == 0 {
		return 100
	}
	return 100 * float64(p.Acknowledged) / float64(p.Devices)
}

// countsForBundles is the condition under which the device d is waited for. One of a station, trusted CA or batch that was
// revoked as a whole stays what it was, but no door admits it: it can never acknowledge anything, and must not hold up a
// rollover for ever.
const countsForBundles = `d.state = $1 AND (d.tenant = $2 OR $2 = '') AND NOT EXISTS (SELECT 1 FROM bar b WHERE b.tenant = d.tenant
	AND (b.scope IN ('station', 'ca') AND b.id = d.origin OR b.scope = 'batch' AND b.id = d.batch))`

// census counts commissioned devices by the bundle they go by: one pass over the fleet, for any number of versions.
type census struct {
	by      map[int64]int64 // version: devices
	unknown int64
	since   time.Time // the longest silent one
}

func (s *Service) bundleCensus(ctx context.Context, tenant string) (census, error) {
	c := census{by: map[int64]int64{}}
	rows, err := s.cfg.DB.Query(ctx, `SELECT coalesce(a.version, 0), count(*), min(d.updated) FROM device d LEFT JOIN bundle_ack a ON a.device = d.id
		WHERE `+countsForBundles+` GROUP BY coalesce(a.version, 0)`, Commissioned, tenant)
	type group struct{ version, devices, since int64 }
	groups, err := store.Collect(rows, err, func(r *sql.Rows) (g group, err error) { return g, r.Scan(&g.version, &g.devices, &g.since) })
	for _, g := range groups {
		if g.version == 0 {
			c.unknown, c.since = g.devices, store.Time(g.since)
			continue
		}
		c.by[g.version] = g.devices
	}
	return c, err
}

// progress of a version.
func (c census) progress(version int64) Progress {
	p := Progress{Version: version, Devices: c.unknown, Unknown: c.unknown, UnknownSince: c.since}
	for v, n := range c.by {
		if p.Devices += n; v >= version {
			p.Acknowledged += n
		} else {
			p.Behind += n
		}
	}
	return p
}

// Progress of a version among the tenant's devices; tenant "" is the whole platform.
func (s *Service) Progress(ctx context.Context, tenant string, version int64) (Progress, error) {
	c, err := s.bundleCensus(ctx, tenant)
	return c.progress(version), err
}

// Ack is by which bundle a device goes.
type Ack struct {
	Device  string    `json:"device"`
	Serial  string    `json:"serial"`
	Version int64     `json:"version" doc:"0: it never said"`
	At      time.Time `json:"at,omitzero" doc:"When it said so first"`
}

// Lagging lists commissioned devices, those of bars excepted, that have not acknowledged the version, in the order of their ids.
func (s *Service) Lagging(ctx context.Context, tenant string, version int64, after string, limit int) ([]Ack, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT d.id, d.serial, coalesce(a.version, 0), coalesce(a.at, 0) FROM device d LEFT JOIN bundle_ack a ON a.device = d.id
		WHERE d.tenant = $2 AND `+countsForBundles+` AND coalesce(a.version, 0) < $3 AND d.id > $4 ORDER BY d.id LIMIT $5`, Commissioned, tenant, version, after, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (a Ack, err error) {
		var at int64
		err = r.Scan(&a.Device, &a.Serial, &a.Version, &at)
		a.At = store.Time(at)
		return a, err
	})
}

// Gate is whether enough devices know the root (or anchor) that an authority stands below.
type Gate struct {
	Root     string   `json:"root"`
	Version  int64    `json:"version" doc:"First trust bundle with this root; 0: none has it"`
	Needed   float64  `json:"needed" doc:"Per cent"`
	Percent  float64  `json:"percent"`
	Progress Progress `json:"progress"`
	Open     bool     `json:"open"`
}

// Gate decides for an authority. It is open when the authority that is active in its role stands below the same root.
func (s *Service) Gate(ctx context.Context, a Authority, needed float64) (Gate, error) {
	if math.IsNaN(needed) || needed < 0 || needed > 100 {
		return Gate{}, problem.Invalid("The share of devices lies between 0 and 100 per cent.").At("percent")
	}
	g := Gate{Root: a.Parent, Needed: needed}
	root, err := s.Authority(ctx, a.Parent)
	if err != nil {
		return g, err
	}
	if root.Status == Retired || root.Status == Compromised {
		return g, problem.Forbidden("ca.parent", "%s, above %s, is %s.", root.ID, a.ID, root.Status)
	}
	if now, err := s.ActiveAuthority(ctx, a.Role); err == nil && now.Parent == a.Parent && root.Status != Standby {
		g.Open, g.Percent = true, 100
		return g, nil
	}
	if g.Version, err = s.firstWith(ctx, root); err != nil || g.Version == 0 {
		return g, err
	}
	if g.Progress, err = s.Progress(ctx, "", g.Version); err != nil {
		return g, err
	}
	g.Percent = g.Progress.Percent()
	g.Open = g.Percent >= needed
	return g, nil
}

// firstWith is the first version of the trust bundle that names the root or anchor.
func (s *Service) firstWith(ctx context.Context, root Authority) (int64, error) {
	newest, _, err := s.Bundle(ctx, 0)
	if problem.Is(err, problem.KindNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	first := int64(0)
	for v := newest.Version; v > 0; v-- {
		b, _, err := s.Bundle(ctx, v)
		if err != nil {
			return 0, err
		}
		if !slices.ContainsFunc(slices.Concat(b.Roots, b.Anchors), func(der []byte) bool { return bytes.Equal(der, root.Cert) }) {
			break
		}
		first = v
	}
	return first, nil
}

func (g Gate) refusal(a Authority) error {
	if g.Version == 0 {
		return problem.Forbidden("ca.gate", "No trust bundle names %s yet, so no device knows it.", g.Root).
			Hint("Publish one first: openthings ca bundle publish.")
	}
	return problem.Forbidden("ca.gate", "%s of %d commissioned devices have acknowledged trust bundle %d with %s; %s per cent are needed before %s signs.",
		fmt.Sprintf("%d (%.2f per cent)", g.Progress.Acknowledged, g.Percent), g.Progress.Devices, g.Version, g.Root, fmt.Sprintf("%g", g.Needed), a.ID).
		Hint("Wait for the devices, or force it with a reason that goes into the log: --force REASON.")
}
