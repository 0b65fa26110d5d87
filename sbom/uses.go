// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"cmp"
	"database/sql"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/store"
)

// Key is a component under one of its names; a component with several has several keys.
type Key struct {
	Component string `json:"component"`
	Identity
}

// Keys returns what the release lists now and can be matched, ordered by component.
func (s *Service) Keys(tx *store.Tx, tenant, release string) ([]Key, error) {
	rows, err := tx.Query(`SELECT component_id, space, name, version, vendor FROM component_identity WHERE component_id IN
		(SELECT component_id FROM release_part WHERE release_id = $1 AND tenant = $2 AND to_ts = 9223372036854775807)
		ORDER BY component_id, space, name, version, vendor`, release, tenant)
	return store.Collect(rows, err, func(r *sql.Rows) (k Key, err error) {
		return k, r.Scan(&k.Component, &k.Space, &k.Name, &k.Version, &k.Vendor)
	})
}

// Use is a stretch of time, half-open and in milliseconds, in which a release listed a component.
type Use struct {
	Component string
	Release   string
	From, To  int64 // math.MaxInt64: still
}

// Uses lists the releases of a tenant that list one of the components at an instant, or, where at is negative, at any
// time; ordered by component, release and time. Stretches that touch are one, however often the spelling changed.
func (s *Service) Uses(tx *store.Tx, tenant string, components []string, at int64) ([]Use, error) {
	var out []Use
	for batch := range slices.Chunk(unique(components), idsAtOnce) {
		in, args := store.In([]any{tenant}, batch)
		rows, err := tx.Query(`SELECT component_id, release_id, from_ts, to_ts FROM release_part WHERE tenant = $1 AND component_id IN `+in+`
			ORDER BY component_id, release_id, from_ts, to_ts`, args...)
		found, err := store.Collect(rows, err, func(r *sql.Rows) (u Use, err error) {
			return u, r.Scan(&u.Component, &u.Release, &u.From, &u.To)
		})
		if err != nil {
			return nil, err
		}
		out = append(out, merge(found)...)
	}
	if at >= 0 {
		out = slices.DeleteFunc(out, func(u Use) bool { return u.From > at || u.To <= at })
	}
	return out, nil
}

// merge joins the sorted stretches of one component in one release that overlap or touch.
func merge(uses []Use) []Use {
	var out []Use
	for _, u := range uses {
		if n := len(out) - 1; n >= 0 && out[n].Component == u.Component && out[n].Release == u.Release && u.From <= out[n].To {
			out[n].To = max(out[n].To, u.To)
			continue
		}
		out = append(out, u)
	}
	return out
}

// Listed tells which releases of a tenant list each of the components now, in the order of their ids. They cross as one text
// for a component, which costs half of as many rows.
func (s *Service) Listed(tx *store.Tx, tenant string, components []string) (map[string][]string, error) {
	out := make(map[string][]string, len(components))
	for batch := range slices.Chunk(unique(components), idsAtOnce) {
		in, args := store.In([]any{tenant}, batch)
		rows, err := tx.Query(`SELECT component_id, string_agg(release_id, ' ') FROM release_part
			WHERE tenant = $1 AND component_id IN `+in+` AND to_ts = 9223372036854775807 GROUP BY component_id`, args...)
		if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
			var component, releases string
			err := r.Scan(&component, &releases)
			out[component] = unique(strings.Fields(releases)) // one may spell it twice
			return struct{}{}, err
		}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// unique returns the ids in their order, each once.
func unique(ids []string) []string { return slices.Compact(slices.Sorted(slices.Values(ids))) }

// Spelled tells how a release spells a component, by (release, component). Where a release spells it twice, the first
// name counts; what it no longer lists is given as it was last written.
func (s *Service) Spelled(tx *store.Tx, tenant string, releases, components []string) (map[[2]string]Part, error) {
	out := map[[2]string]Part{}
	ends := map[[2]string]int64{}
	for wanted := range slices.Chunk(unique(components), idsAtOnce) {
		for within := range slices.Chunk(unique(releases), idsAtOnce) {
			inComponents, args := store.In([]any{tenant}, wanted)
			inReleases, args := store.In(args, within)
			rows, err := tx.Query(`SELECT `+partColumns+`, u.release_id, u.to_ts FROM release_part u JOIN part p ON p.id = u.part_id
				WHERE u.tenant = $1 AND u.component_id IN `+inComponents+` AND u.release_id IN `+inReleases, args...)
			if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
				var release string
				var to int64
				p, err := scanPart(r, &release, &to)
				at := [2]string{release, p.Component}
				if old, ok := out[at]; !ok || cmp.Or(cmp.Compare(ends[at], to), strings.Compare(p.Name, old.Name), strings.Compare(p.ID, old.ID)) < 0 {
					out[at], ends[at] = p, to
				}
				return struct{}{}, err
			}); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}
