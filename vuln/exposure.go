// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/sbom"
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
	Rule       string       `json:"rule" doc:"By which rule record and component met"`
	Confidence string       `json:"confidence" doc:"How sure the rule is: exact, range, likely or prose"`
	Conditions []string     `json:"conditions,omitempty" doc:"What must hold besides"`
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

// Cursor is where a page of devices goes on: they stand in the order of releases, and of devices in each.
func (d ExposedDevice) Cursor() string {
	return fleet.Placed{Device: d.Device, Release: d.Release}.Cursor()
}

// finding is a record speaking about a component that a release lists, for as long as both hold: [from, to).
type finding struct {
	release, component, record string
	record.Verdict
	from, to int64
	why      string // it ended
}

// anyTime asks for findings of all times.
const anyTime = -1

// findings joins the hits of a group with the releases that list their components, at an instant or at any time.
func (s *Service) findings(tx *store.Tx, tenant, group string, at int64) ([]finding, error) {
	query, args := `SELECT h.component_id, h.record_id, h.state, h.reason, h.fixed, h.rule, h.confidence, h.conditions, h.since, h.until, h.why
		FROM vuln_grouped g CROSS JOIN vuln_hit h WHERE h.tenant = g.tenant AND h.record_id = g.record_id AND g.tenant = $1 AND g.group_id = $2`, []any{tenant, group}
	if at != anyTime {
		query, args = query+` AND h.since <= $3 AND h.until > $3`, append(args, at)
	}
	rows, err := tx.Query(query, args...)
	hits := map[string][]finding{}
	if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		f, err := scanHit(r)
		hits[f.component] = append(hits[f.component], f)
		return struct{}{}, err
	}); err != nil || len(hits) == 0 {
		return nil, err
	}
	return s.listed(tx, tenant, hits, at)
}

func scanHit(r *sql.Rows, more ...any) (f finding, err error) {
	var conditions string
	err = r.Scan(append([]any{&f.component, &f.record, &f.State, &f.Reason, &f.Fixed, &f.Rule, &f.Confidence, &conditions, &f.from, &f.to, &f.why}, more...)...)
	if conditions != "" {
		f.Conditions = strings.Split(conditions, "\n")
	}
	return f, err
}

// listed turns hits, by component, into findings of the releases that list the component.
func (s *Service) listed(tx *store.Tx, tenant string, hits map[string][]finding, at int64) ([]finding, error) {
	uses, err := s.cfg.SBOM.Uses(tx, tenant, sortedKeys(hits), at)
	if err != nil {
		return nil, err
	}
	var out []finding
	for _, u := range uses {
		for _, f := range hits[u.Component] {
			f.release, f.from = u.Release, max(f.from, u.From)
			if u.To < f.to {
				f.to, f.why = u.To, endedComponent
			}
			if f.from < f.to {
				out = append(out, f)
			}
		}
	}
	return out, nil
}

// oneEach keeps one finding for each component of a release, though several records say it: the one that says most, known
// since the first of them. They come out in the order of releases and components.
func oneEach(all []finding) []finding {
	slices.SortFunc(all, func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.release, b.release), cmp.Compare(a.component, b.component), cmp.Compare(a.record, b.record), cmp.Compare(a.from, b.from))
	})
	var out []finding
	for _, f := range all {
		if n := len(out) - 1; n >= 0 && out[n].release == f.release && out[n].component == f.component {
			from := min(out[n].from, f.from)
			if f.Better(out[n].Verdict) {
				out[n] = f
			}
			out[n].from = from
			continue
		}
		out = append(out, f)
	}
	return out
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
		counts, err = s.cfg.Fleet.CountOf(ctx, tenant, nil, asOf)
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
		e.Releases = []ReleaseExposure{}
		var err error
		if e.Group, err = s.group(tx, tenant, ident); err != nil {
			return err
		}
		e.Exploited = e.Exploited && !e.ExploitedKnown.After(e.AsOf)
		decided, err := s.book(tx, tenant).on(e.ID, "")
		if err != nil {
			return err
		}
		found, err := s.findings(tx, tenant, e.ID, at)
		if err != nil {
			return err
		}
		found = oneEach(found)
		about, spelled, err := s.describe(tx, tenant, found)
		if err != nil {
			return err
		}
		for _, f := range found {
			r, ok := about[f.release]
			if !ok {
				continue // its own event has not been handled yet
			}
			part := spelled[[2]string{f.release, f.component}]
			x := ReleaseExposure{Release: f.release, Product: r.Product, Version: r.Version, Component: f.component, Name: part.Name, Has: part.Version,
				Record: f.record, State: f.State, Reason: f.Reason, Rule: f.Rule, Confidence: f.Confidence, Conditions: f.Conditions, FixedIn: f.Fixed,
				KnownSince: store.Time(f.from), Decision: decided.at(r.Product, f.component, f.release, at)}
			x.Exposed = x.Decision == nil || !x.Decision.harmless()
			e.Releases = append(e.Releases, x)
		}
		slices.SortStableFunc(e.Releases, func(a, b ReleaseExposure) int { return cmp.Compare(a.Product, b.Product) })
		return nil
	})
	return e, err
}

// describe reads what the releases of the findings are, and how they spell the components.
func (s *Service) describe(tx *store.Tx, tenant string, found []finding) (map[string]Release, map[[2]string]sbom.Part, error) {
	releases, components := map[string]bool{}, map[string]bool{}
	for _, f := range found {
		releases[f.release], components[f.component] = true, true
	}
	about, err := s.releases(tx, tenant, sortedKeys(releases))
	if err != nil {
		return nil, nil, err
	}
	spelled, err := s.cfg.SBOM.Spelled(tx, tenant, sortedKeys(releases), sortedKeys(components))
	return about, spelled, err
}

// AffectedDevices lists the exposed devices of the products that are visible, in the order of their releases.
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
	if len(byRelease) == 0 {
		return []ExposedDevice{}, nil
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
