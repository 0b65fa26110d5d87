// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/record"
)

// Reach is what some records touch.
type Reach struct {
	Findings int      // a record in a component of a release, each counted once
	Releases []string // with at least one, in the order of their ids
}

// Reach tells which releases have an open finding of the records.
func (s *Service) Reach(ctx context.Context, tenant string, records []string) (Reach, error) {
	var out Reach
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		out = Reach{}
		times := map[string]int{} // by how many of the records a component is hit
		for part := range slices.Chunk(records, 256) {
			list, args := store.In([]any{tenant}, part)
			rows, err := tx.Query(`SELECT component_id FROM vuln_hit WHERE tenant = $1 AND until = 9223372036854775807 AND record_id IN `+list, args...)
			if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
				var component string
				err := r.Scan(&component)
				times[component]++
				return struct{}{}, err
			}); err != nil {
				return err
			}
		}
		listed, err := s.cfg.SBOM.Listed(tx, tenant, sortedKeys(times))
		if err != nil {
			return err
		}
		releases := map[string]bool{}
		for component, in := range listed {
			out.Findings += times[component] * len(in)
			for _, release := range in {
				releases[release] = true
			}
		}
		out.Releases = sortedKeys(releases)
		return nil
	})
	return out, err
}

// Rematch compares records again with every component that they name, though nothing changed, and returns how many hits
// there are.
func (s *Service) Rematch(ctx context.Context, tenant string, records []string) (hits int, err error) {
	for part := range slices.Chunk(records, touchedAtOnce) {
		var j judged
		for err = errStale; errors.Is(err, errStale) && ctx.Err() == nil; {
			if j, err = s.judgeRecords(ctx, tenant, part); err == nil {
				err = s.settleRecords(ctx, tenant, j)
			}
		}
		if err != nil {
			return hits, err
		}
		for _, v := range j.verdicts {
			if v.State != record.StateClean {
				hits++
			}
		}
	}
	return hits, nil
}

// Audit is how the stored hits compare with a plain comparison.
type Audit struct {
	Hits    int      // that the plain comparison finds
	Missing []string // found and not stored: "component record"
	Surplus []string // stored and not found
}

// Audit reads the bill of every release, as a platform without an index would, and compares it with the records (nil: all
// that are current). It changes nothing: it is how the index itself is checked.
func (s *Service) Audit(ctx context.Context, tenant string, records []string) (Audit, error) {
	var out Audit
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		out = Audit{}
		stored, claims, err := s.whole(tx, tenant, records)
		if err != nil {
			return err
		}
		rows, err := tx.Query(`SELECT release_id FROM vuln_release WHERE tenant = $1 ORDER BY release_id`, tenant)
		releases, err := store.Collect(rows, err, func(r *sql.Rows) (id string, err error) { return id, r.Scan(&id) })
		if err != nil {
			return err
		}
		found := map[pair]bool{}
		for _, release := range releases {
			keys, err := s.cfg.SBOM.Keys(tx, tenant, release)
			if err != nil {
				return err
			}
			for _, k := range keys {
				for _, c := range claims[[2]string{k.Space, k.Name}] {
					if c.Judge.Judge(k.Identity).State != record.StateClean {
						found[pair{k.Component, c.record}] = true
					}
				}
			}
		}
		out.Hits = len(found)
		for p := range found {
			if !stored[p] {
				out.Missing = append(out.Missing, p.component+" "+p.record)
			}
		}
		for p := range stored {
			if !found[p] {
				out.Surplus = append(out.Surplus, p.component+" "+p.record)
			}
		}
		slices.Sort(out.Missing)
		slices.Sort(out.Surplus)
		return nil
	})
	return out, err
}

// whole reads the open hits of components that a release lists now, and every claim, of the records.
func (s *Service) whole(tx *store.Tx, tenant string, records []string) (map[pair]bool, map[[2]string][]claimant, error) {
	if records == nil {
		rows, err := tx.Query(`SELECT id FROM vuln_record WHERE tenant = $1 AND is_current = 1 ORDER BY id`, tenant)
		if records, err = store.Collect(rows, err, func(r *sql.Rows) (id string, err error) { return id, r.Scan(&id) }); err != nil {
			return nil, nil, err
		}
	}
	stored, claims := map[pair]bool{}, map[[2]string][]claimant{}
	components := map[string]bool{}
	for part := range slices.Chunk(records, 256) {
		list, args := store.In([]any{tenant}, part)
		rows, err := tx.Query(`SELECT component_id, record_id FROM vuln_hit WHERE tenant = $1 AND until = 9223372036854775807 AND record_id IN `+list, args...)
		if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
			var p pair
			err := r.Scan(&p.component, &p.record)
			stored[p], components[p.component] = true, true
			return struct{}{}, err
		}); err != nil {
			return nil, nil, err
		}
		rows, err = tx.Query(`SELECT c.space, c.name, c.record_id, c.body FROM vuln_claim c JOIN vuln_record r ON r.tenant = c.tenant AND r.id = c.record_id
			WHERE c.tenant || '' = $1 AND r.is_current = 1 AND r.withdrawn = 0 AND c.record_id IN `+list, args...)
		if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
			var name [2]string
			var c claimant
			var text string
			err := r.Scan(&name[0], &name[1], &c.record, &text)
			if err == nil {
				if c.Judge, err = record.Compile(name[0], []byte(text)); err != nil {
					err = fmt.Errorf("record %s: %w", c.record, err)
				}
			}
			claims[name] = append(claims[name], c)
			return struct{}{}, err
		}); err != nil {
			return nil, nil, err
		}
	}
	listed, err := s.cfg.SBOM.Listed(tx, tenant, sortedKeys(components))
	for p := range stored {
		if listed[p.component] == nil { // kept up to date all the same, for when a release brings it back
			delete(stored, p)
		}
	}
	return stored, claims, err
}
