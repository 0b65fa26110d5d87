// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/record"
)

// Exposure answers "which devices, which version, since when" for one vulnerability at one instant.
type Exposure struct {
	Group
	AsOf     time.Time         `json:"as_of"`
	Devices  int64             `json:"devices"` // exposed
	Releases []ReleaseExposure `json:"releases"`
}

// ReleaseExposure is one component of one release that has the vulnerability.
type ReleaseExposure struct {
	Release    string       `json:"release"`
	Product    string       `json:"product"`
	Version    string       `json:"version"`
	Component  string       `json:"component"` // id
	Name       string       `json:"component_name"`
	Has        string       `json:"component_version"`
	Record     string       `json:"record"`
	State      record.State `json:"state" doc:"affected, or unknown where the versions cannot be compared"`
	Reason     string       `json:"reason,omitempty"`
	FixedIn    string       `json:"fixed_in,omitempty"`
	KnownSince time.Time    `json:"known_since"`
	Devices    int64        `json:"devices"` // that run the release
	Exposed    bool         `json:"exposed"` // false: it was decided that they are not
	Decision   *Decision    `json:"decision,omitempty"`
}

// ExposedDevice is a device that runs, or ran at the instant, an exposed release.
type ExposedDevice struct {
	Device       string    `json:"device"`
	Release      string    `json:"release"`
	Product      string    `json:"product"`
	Version      string    `json:"version"`
	Since        time.Time `json:"since" doc:"When it began to run the release"`
	ExposedSince time.Time `json:"exposed_since" doc:"Since when it is known: the later of its installation and the finding"`
}

// Affected answers for the vulnerability known by ident (CVE number, record id or group id) at an instant; the zero
// time is now. The past is answered as it was known then: findings, decisions and installations of that instant.
func (s *Service) Affected(ctx context.Context, tenant, ident string, asOf time.Time) (Exposure, error) {
	e, err := s.exposedReleases(ctx, tenant, ident, asOf)
	if err != nil {
		return Exposure{}, err
	}
	var counts map[string]int64
	if asOf.IsZero() {
		counts, err = s.cfg.Fleet.CountByRelease(ctx, tenant)
	} else {
		counts, err = s.cfg.Fleet.CountAsOf(ctx, tenant, asOf)
	}
	if err != nil {
		return Exposure{}, err
	}
	for i := range e.Releases {
		e.Releases[i].Devices = counts[e.Releases[i].Release]
	}
	e.sum()
	return e, nil
}

// Only keeps the products that the caller may see.
func (e *Exposure) Only(visible func(product string) bool) {
	e.Releases = slices.DeleteFunc(e.Releases, func(r ReleaseExposure) bool { return !visible(r.Product) })
	e.sum()
}

// sum counts each device once, however many components of its release are concerned.
func (e *Exposure) sum() {
	e.Devices = 0
	counted := map[string]bool{}
	for _, r := range e.Releases {
		if r.Exposed && !counted[r.Release] {
			counted[r.Release] = true
			e.Devices += r.Devices
		}
	}
}

// exposedReleases joins the histories of findings and decisions at an instant.
func (s *Service) exposedReleases(ctx context.Context, tenant, ident string, asOf time.Time) (Exposure, error) {
	now := s.cfg.Clock.Now()
	e := Exposure{AsOf: cmp.Or(asOf, now).UTC(), Releases: []ReleaseExposure{}}
	if asOf.After(now) {
		return e, problem.Invalid("Exposure can be told for now and for the past, not for %s.", asOf.UTC().Format(time.RFC3339)).At("query.as_of")
	}
	at := store.Millis(e.AsOf)
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		var err error
		if e.Group, err = s.group(tx, tenant, ident); err != nil {
			return err
		}
		e.Exploited = e.Exploited && !e.ExploitedKnown.After(e.AsOf)
		decided, err := s.decisions(tx, tenant, e.ID, "")
		if err != nil {
			return err
		}
		// The component's spelling is left out when the release's document was replaced since.
		rows, err := tx.Query(`SELECT f.release_id, r.product, r.version, f.component_id, coalesce((SELECT min(p.name) FROM release_part u JOIN part p ON p.id = u.part_id
				WHERE u.component_id = f.component_id AND u.tenant = f.tenant AND u.release_id = f.release_id), ''), coalesce((SELECT min(p.version) FROM release_part u JOIN part p ON p.id = u.part_id
				WHERE u.component_id = f.component_id AND u.tenant = f.tenant AND u.release_id = f.release_id), ''), f.record_id, f.state, f.reason, f.fixed, f.first_seen
			FROM finding f JOIN vuln_release r ON r.tenant = f.tenant AND r.release_id = f.release_id
			WHERE f.tenant = $1 AND f.group_id = $2 AND f.first_seen <= $3 AND f.closed_at > $3
			ORDER BY r.product, f.release_id, f.component_id`, tenant, e.ID, at)
		e.Releases, err = store.Collect(rows, err, func(r *sql.Rows) (x ReleaseExposure, err error) {
			var since int64
			err = r.Scan(&x.Release, &x.Product, &x.Version, &x.Component, &x.Name, &x.Has, &x.Record, &x.State, &x.Reason, &x.FixedIn, &since)
			x.KnownSince = store.Time(since)
			x.Decision = decided.at(x.Product, x.Component, x.Release, at)
			x.Exposed = x.Decision == nil || !x.Decision.harmless()
			return x, err
		})
		return err
	})
	if e.Releases == nil {
		e.Releases = []ReleaseExposure{}
	}
	return e, err
}

// AffectedDevices lists the exposed devices of the products that are visible, in the order of their ids.
func (s *Service) AffectedDevices(ctx context.Context, tenant, ident string, asOf time.Time, visible func(product string) bool, page fleet.Page) ([]ExposedDevice, error) {
	e, err := s.exposedReleases(ctx, tenant, ident, asOf)
	if err != nil {
		return nil, err
	}
	e.Only(visible)
	byRelease := map[string]ReleaseExposure{} // of several components the one known longest
	for _, r := range e.Releases {
		if old, ok := byRelease[r.Release]; r.Exposed && (!ok || r.KnownSince.Before(old.KnownSince)) {
			byRelease[r.Release] = r
		}
	}
	placed, err := s.cfg.Fleet.Devices(ctx, tenant, sortedKeys(byRelease), asOf, page)
	if err != nil {
		return nil, err
	}
	out := make([]ExposedDevice, len(placed))
	for i, p := range placed {
		r := byRelease[p.Release]
		since := p.Since
		if r.KnownSince.After(since) {
			since = r.KnownSince
		}
		out[i] = ExposedDevice{Device: p.Device, Release: p.Release, Product: r.Product, Version: r.Version, Since: p.Since, ExposedSince: since}
	}
	return out, nil
}
