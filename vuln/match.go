// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/record"
)

// The one rule so far: a purl of a package ecosystem against OSV ranges.
const (
	rulePackage     = "purl-osv"
	confidenceExact = "exact"
)

// Why a finding was closed.
const (
	closedWithdrawn = "withdrawn" // every record that said so was withdrawn
	closedRecord    = "record"    // the records no longer say so
	closedComponent = "component" // the release no longer lists the component
)

// errStale is returned by a write whose match was computed on records that have changed since: compute it again.
var errStale = errors.New("vuln: the records changed meanwhile")

// A hit is what the records of one group say about one component version.
type hit struct {
	record.Verdict
	record string
}

// knowledge is what the records of one package say, with the range ends parsed.
type knowledge struct {
	record, group string
	withdrawn     bool
	judge         record.Judge
}

// hits evaluates a version against all records of its package: the best hit per group. Of two records in one group the
// one that is sure speaks.
func hits(k sbom.Key, records []knowledge) (open map[string]hit, withdrawn map[string]bool) {
	open, withdrawn = map[string]hit{}, map[string]bool{}
	for _, r := range records {
		v := r.judge.Judge(k.Identity)
		switch {
		case v.State == record.StateClean:
		case r.withdrawn:
			withdrawn[r.group] = true
		default:
			if old, ok := open[r.group]; !ok || old.State == record.StateUnknown && v.State == record.StateAffected {
				open[r.group] = hit{v, r.record}
			}
		}
	}
	return open, withdrawn
}

func (s *Service) knowledge(tx *store.Tx, tenant, ecosystem, nameKey string) ([]knowledge, error) {
	rows, err := tx.Query(`SELECT p.record_id, m.group_id, p.withdrawn, p.entries FROM vuln_package p
		JOIN vuln_member m ON m.tenant = p.tenant AND m.ident = p.record_id
		WHERE p.tenant = $1 AND p.Ecosystem = $2 AND p.name_key = $3 ORDER BY p.record_id`, tenant, ecosystem, nameKey)
	return store.Collect(rows, err, func(r *sql.Rows) (knowledge, error) {
		var k knowledge
		var withdrawn int64
		var text string
		if err := r.Scan(&k.record, &k.group, &withdrawn, &text); err != nil {
			return k, err
		}
		k.withdrawn = withdrawn != 0
		var err error
		if k.judge, err = record.Compile(ecosystem, []byte(text)); err != nil {
			return k, fmt.Errorf("record %s: %w", k.record, err)
		}
		return k, nil
	})
}

func (s *Service) gen(tx *store.Tx, tenant string) (gen int64, err error) {
	err = tx.QueryRow(`SELECT gen FROM vuln_state WHERE tenant = $1`, tenant).Scan(&gen)
	if errors.Is(err, store.ErrNoRows) {
		err = nil
	}
	return gen, err
}

// current refuses to write what was computed on older records.
func (s *Service) current(tx *store.Tx, tenant string, gen int64) error {
	now, err := s.gen(tx, tenant)
	if err == nil && now != gen {
		err = errStale
	}
	return err
}

// matchTouched brings the findings of every touched package up to date.
func (s *Service) matchTouched(ctx context.Context, tenant string) error {
	for {
		rows, err := s.cfg.DB.Query(ctx, `SELECT ecosystem, name_key FROM vuln_touched WHERE tenant = $1 ORDER BY ecosystem, name_key LIMIT 500`, tenant)
		touched, err := store.Collect(rows, err, func(r *sql.Rows) (p record.Package, err error) { return p, r.Scan(&p.Ecosystem, &p.Name) })
		if err != nil || len(touched) == 0 {
			return err
		}
		var unused []record.Package // in no release: most of a full feed
		for _, p := range touched {
			none, err := s.matchPackage(ctx, tenant, p)
			for errors.Is(err, errStale) && ctx.Err() == nil {
				none, err = s.matchPackage(ctx, tenant, p)
			}
			if err != nil {
				return err
			}
			if none {
				unused = append(unused, p)
			}
		}
		if err := s.untouch(ctx, tenant, unused); err != nil {
			return err
		}
	}
}

// untouch forgets marks of packages that no release contains. A release that comes meanwhile matches itself.
func (s *Service) untouch(ctx context.Context, tenant string, packages []record.Package) error {
	if len(packages) == 0 {
		return nil
	}
	return s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
		for _, p := range packages {
			if err := forgetTouched(tx, tenant, p); err != nil {
				return err
			}
		}
		return nil
	})
}

func forgetTouched(tx *store.Tx, tenant string, p record.Package) error {
	_, err := tx.Exec(`DELETE FROM vuln_touched WHERE tenant = $1 AND ecosystem = $2 AND name_key = $3`, tenant, p.Ecosystem, p.Name)
	return err
}

// matched is a comparison that was computed and is not written yet.
type matched struct {
	gen   int64 // of the records it was computed on
	parts []matchedPart
}

// matchedPart is what the records say about one component version.
type matchedPart struct {
	component string
	open      map[string]hit
	withdrawn map[string]bool
}

// matchPackage is the inverted match: records of a package -> versions in use -> releases -> findings. It says whether
// no release contains the package.
func (s *Service) matchPackage(ctx context.Context, tenant string, p record.Package) (unused bool, err error) {
	m, err := s.comparePackage(ctx, tenant, p)
	if err != nil || len(m.parts) == 0 {
		return len(m.parts) == 0, err
	}
	return false, s.settlePackage(ctx, tenant, p, m)
}

// comparePackage evaluates every version of the package that is in use.
func (s *Service) comparePackage(ctx context.Context, tenant string, p record.Package) (m matched, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		versions, err := s.cfg.SBOM.Lookup(tx, p.Ecosystem, p.Name)
		if err != nil || len(versions) == 0 {
			return err
		}
		if m.gen, err = s.gen(tx, tenant); err != nil {
			return err
		}
		records, err := s.knowledge(tx, tenant, p.Ecosystem, p.Name)
		for _, k := range versions {
			open, withdrawn := hits(k, records)
			m.parts = append(m.parts, matchedPart{k.Component, open, withdrawn})
		}
		return err
	})
	return m, err
}

// settlePackage writes the findings of every release that contains the package. A component may be in thousands of
// them: bounded steps, so that no other write waits long.
func (s *Service) settlePackage(ctx context.Context, tenant string, p record.Package, m matched) error {
	for _, c := range m.parts {
		for after, more := "", true; more; {
			err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
				if err := s.current(tx, tenant, m.gen); err != nil {
					return err
				}
				releases, err := s.cfg.SBOM.InUse(tx, tenant, c.component, after, usesAtOnce)
				if err != nil {
					return err
				}
				more = len(releases) == usesAtOnce
				for _, release := range releases {
					// A release whose own event has not been handled yet will match itself.
					known, err := s.knowsRelease(tx, tenant, release)
					if err == nil && known {
						err = s.settle(tx, tenant, release, c)
					}
					if err != nil {
						return err
					}
				}
				if more {
					next := releases[len(releases)-1]
					tx.After(func() { after = next })
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
		if err := s.current(tx, tenant, m.gen); err != nil {
			return err
		}
		return forgetTouched(tx, tenant, p)
	})
}

const usesAtOnce = 50

func (s *Service) knowsRelease(tx *store.Tx, tenant, release string) (bool, error) {
	var n int64
	err := tx.QueryRow(`SELECT count(*) FROM vuln_release WHERE tenant = $1 AND release_id = $2`, tenant, release).Scan(&n)
	return n > 0, err
}

type openFinding struct{ id, group, state, fixed string }

// settle makes the open findings of one component of one release equal to what its records say.
func (s *Service) settle(tx *store.Tx, tenant, release string, c matchedPart) error {
	rows, err := tx.Query(`SELECT id, group_id, state, fixed FROM finding
		WHERE tenant = $1 AND release_id = $2 AND component_id = $3 AND closed_at = 9223372036854775807`, tenant, release, c.component)
	have, err := store.Collect(rows, err, func(r *sql.Rows) (f openFinding, err error) {
		return f, r.Scan(&f.id, &f.group, &f.state, &f.fixed)
	})
	if err != nil {
		return err
	}
	changed := false
	known := map[string]bool{}
	for _, f := range have {
		h, still := c.open[f.group]
		if still && f.state == string(h.State) {
			known[f.group] = true
			if f.fixed != h.Fixed {
				if _, err := tx.Exec(`UPDATE finding SET fixed = $3, record_id = $4 WHERE tenant = $1 AND id = $2`, tenant, f.id, h.Fixed, h.record); err != nil {
					return err
				}
			}
			continue
		}
		why := closedRecord
		if c.withdrawn[f.group] {
			why = closedWithdrawn
		}
		if err := s.closeFinding(tx, tenant, f.id, why); err != nil {
			return err
		}
		changed = true
	}
	for _, group := range sortedKeys(c.open) {
		if known[group] {
			continue
		}
		h := c.open[group]
		if _, err := tx.Exec(`INSERT INTO finding (id, tenant, release_id, group_id, component_id, record_id, state, reason, fixed, rule, confidence, first_seen, closed_at, why_closed)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, '') ON CONFLICT DO NOTHING`, store.NewID("fin"), tenant, release, group, c.component, h.record,
			string(h.State), h.Reason, h.Fixed, rulePackage, confidenceExact, s.now(), int64(forever)); err != nil {
			return err
		}
		if err := s.signal(tx, tenant, group, release); err != nil {
			return err
		}
		changed = true
	}
	if changed {
		return s.recheck(tx, tenant, release)
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (s *Service) closeFinding(tx *store.Tx, tenant, id, why string) error {
	_, err := tx.Exec(`UPDATE finding SET closed_at = $3, why_closed = $4 WHERE tenant = $1 AND id = $2 AND closed_at = 9223372036854775807`, tenant, id, s.now(), why)
	return err
}

// matchRelease is the forward match of one release against all records: what an upload starts.
func (s *Service) matchRelease(ctx context.Context, tenant, release string) error {
	about, err := s.cfg.Release(ctx, tenant, release)
	if err != nil {
		return err
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO vuln_release (tenant, release_id, product, version) VALUES ($1, $2, $3, $4)
			ON CONFLICT (tenant, release_id) DO UPDATE SET product = excluded.product, version = excluded.version`, tenant, release, about.Product, about.Version)
		return err
	})
	for err == nil {
		if err = s.matchReleaseOnce(ctx, tenant, release); !errors.Is(err, errStale) {
			return err
		}
		err = ctx.Err()
	}
	return err
}

func (s *Service) matchReleaseOnce(ctx context.Context, tenant, release string) error {
	m, err := s.compareRelease(ctx, tenant, release)
	if err != nil {
		return err
	}
	return s.settleRelease(ctx, tenant, release, m)
}

// compareRelease evaluates every component of the release.
func (s *Service) compareRelease(ctx context.Context, tenant, release string) (m matched, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		if m.gen, err = s.gen(tx, tenant); err != nil {
			return err
		}
		keys, err := s.cfg.SBOM.Keys(tx, tenant, release)
		if err != nil {
			return err
		}
		known := map[record.Package][]knowledge{}
		for _, k := range keys {
			if !k.Package() {
				continue
			}
			p := record.PackageOf(k.Space, k.Name)
			if _, done := known[p]; !done {
				if known[p], err = s.knowledge(tx, tenant, k.Space, k.Name); err != nil {
					return err
				}
			}
			open, withdrawn := hits(k, known[p])
			m.parts = append(m.parts, matchedPart{k.Component, open, withdrawn})
		}
		return nil
	})
	return m, err
}

// settleRelease writes the findings of one release and closes those of components that it no longer lists.
func (s *Service) settleRelease(ctx context.Context, tenant, release string, m matched) error {
	for part := range slices.Chunk(m.parts, usesAtOnce) {
		err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
			if err := s.current(tx, tenant, m.gen); err != nil {
				return err
			}
			for _, c := range part {
				if err := s.settle(tx, tenant, release, c); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		// What is listed now, not when it was compared: an upload in between has an event of its own, maybe done already.
		keys, err := s.cfg.SBOM.Keys(tx, tenant, release)
		if err != nil {
			return err
		}
		listed := map[string]bool{}
		for _, k := range keys {
			listed[k.Component] = true
		}
		rows, err := tx.Query(`SELECT id, component_id FROM finding WHERE tenant = $1 AND release_id = $2 AND closed_at = 9223372036854775807`, tenant, release)
		open, err := store.Collect(rows, err, func(r *sql.Rows) (f [2]string, err error) { return f, r.Scan(&f[0], &f[1]) })
		if err != nil {
			return err
		}
		for _, f := range open {
			if !listed[f[1]] {
				if err := s.closeFinding(tx, tenant, f[0], closedComponent); err != nil {
					return err
				}
			}
		}
		return s.recheck(tx, tenant, release)
	})
}
