// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/record"
)

// Why a hit ended.
const (
	endedWithdrawn = "withdrawn" // the record was withdrawn
	endedRecord    = "record"    // the record no longer says so
	endedComponent = "component" // of a finding: the release no longer lists the component
)

// errStale is returned by a write whose match was computed on records that have changed since: compute it again.
var errStale = errors.New("vuln: the records changed meanwhile")

func (s *Service) gen(tx *store.Tx, tenant string) (gen int64, err error) {
	err = tx.QueryRow(`SELECT gen FROM vuln_state WHERE tenant = $1`, tenant).Scan(&gen)
	if errors.Is(err, store.ErrNoRows) {
		err = nil
	}
	return gen, err
}

// current refuses to write what was computed on older records, and keeps the records from changing until the write is
// done.
func (s *Service) current(tx *store.Tx, tenant string, gen int64) error {
	if _, err := tx.Exec(`INSERT INTO vuln_state (tenant, gen, rules) VALUES ($1, 0, $2) ON CONFLICT DO NOTHING`, tenant, int64(rulesVersion)); err != nil {
		return err
	}
	n, err := tx.Exec(`UPDATE vuln_state SET gen = gen WHERE tenant = $1 AND gen = $2`, tenant, gen)
	if err == nil && n == 0 {
		err = errStale
	}
	return err
}

// pair is one record speaking about one component.
type pair struct{ component, record string }

// judged is a comparison that was computed and is not written yet.
type judged struct {
	gen      int64 // of the records it was computed on
	records  []string
	verdicts map[pair]record.Verdict // also clean ones, where a hit is to end
	open     map[pair]bool           // have an open hit
	ended    map[string]string       // why hits of a record end: it was withdrawn, or says so no longer
}

func newJudged() judged {
	return judged{verdicts: map[pair]record.Verdict{}, open: map[pair]bool{}, ended: map[string]string{}}
}

// add keeps what says most, where a component is known to a record by several names. That nothing is wrong is kept where
// a hit is to end alone.
func (j judged) add(p pair, v record.Verdict) {
	if old, ok := j.verdicts[p]; ok && v.Better(old) || !ok && v.State != record.StateClean {
		j.verdicts[p] = v
	}
}

// touchedAtOnce are the records that are compared, and written, together.
const touchedAtOnce = 100

// match brings the hits of every touched record up to date, and then tells whoever has to hear.
func (s *Service) match(ctx context.Context, tenant string) error {
	for {
		rows, err := s.cfg.DB.Query(ctx, `SELECT record_id FROM vuln_touched WHERE tenant = $1 ORDER BY record_id LIMIT $2`, tenant, touchedAtOnce)
		touched, err := store.Collect(rows, err, func(r *sql.Rows) (id string, err error) { return id, r.Scan(&id) })
		if err != nil {
			return err
		}
		if len(touched) == 0 {
			s.changed(tenant)
			return s.settleStirred(ctx, tenant)
		}
		for err = errStale; errors.Is(err, errStale) && ctx.Err() == nil; {
			var j judged
			if j, err = s.judgeRecords(ctx, tenant, touched); err == nil {
				err = s.settleRecords(ctx, tenant, j)
			}
		}
		if err != nil {
			return err
		}
	}
}

// judgeRecords is the inverted match: what the records claim -> the components known by these names.
func (s *Service) judgeRecords(ctx context.Context, tenant string, records []string) (judged, error) {
	j := newJudged()
	j.records = records
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		if j.gen, err = s.gen(tx, tenant); err != nil {
			return err
		}
		if err := j.begin(tx, tenant); err != nil {
			return err
		}
		used, err := s.knownBy(tx, tenant, j)
		if err != nil {
			return err
		}
		list, args := store.In([]any{tenant}, records)
		rows, err := tx.Query(`SELECT record_id, space, name, body FROM vuln_claim WHERE tenant || '' = $1 AND record_id IN `+list, args...)
		_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) { // one body in memory at a time
			var id, text string
			var name [2]string
			if err := r.Scan(&id, &name[0], &name[1], &text); err != nil || len(used[name]) == 0 || j.ended[id] == endedWithdrawn {
				return struct{}{}, err
			}
			judge, err := record.Compile(name[0], []byte(text))
			if err != nil {
				return struct{}{}, fmt.Errorf("record %s: %w", id, err)
			}
			for _, k := range used[name] {
				j.add(pair{k.component, id}, judge.Judge(k.Identity))
			}
			return struct{}{}, nil
		})
		return err
	})
	return j, err
}

// begin reads which of the records are withdrawn, and enters the components with an open hit of one of them as clean,
// unless it will be said otherwise.
func (j judged) begin(tx *store.Tx, tenant string) error {
	list, args := store.In([]any{tenant}, j.records)
	rows, err := tx.Query(`SELECT id, withdrawn FROM vuln_record WHERE tenant = $1 AND id IN `+list+` AND is_current = 1`, args...)
	if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var id string
		var withdrawn int64
		err := r.Scan(&id, &withdrawn)
		j.ended[id] = endedRecord
		if withdrawn != 0 {
			j.ended[id] = endedWithdrawn
		}
		return struct{}{}, err
	}); err != nil {
		return err
	}
	for _, id := range j.records {
		if j.ended[id] == "" {
			return fmt.Errorf("record %s: %w", id, store.ErrNoRows)
		}
	}
	rows, err = tx.Query(`SELECT record_id, component_id FROM vuln_hit WHERE tenant = $1 AND until = 9223372036854775807 AND record_id IN `+list, args...)
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var p pair
		err := r.Scan(&p.record, &p.component)
		j.verdicts[p], j.open[p] = record.Verdict{State: record.StateClean}, true
		return struct{}{}, err
	})
	return err
}

// known is a component by one of its names.
type known struct {
	component string
	sbom.Identity
}

// knownBy reads the index: every component of the tenant's releases that has a name which one of the records claims, by
// space and name.
func (s *Service) knownBy(tx *store.Tx, tenant string, j judged) (map[[2]string][]known, error) {
	list, args := store.In([]any{tenant}, j.records)
	// The tenant is hidden from SQLite, which would go by the key and read all claims of the tenant.
	rows, err := tx.Query(`SELECT record_id, space, name FROM vuln_claim WHERE tenant || '' = $1 AND record_id IN `+list, args...)
	claimed := map[string]map[string]bool{} // names by space
	if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var id, space, name string
		err := r.Scan(&id, &space, &name)
		if j.ended[id] != endedWithdrawn {
			if claimed[space] == nil {
				claimed[space] = map[string]bool{}
			}
			claimed[space][name] = true
		}
		return struct{}{}, err
	}); err != nil {
		return nil, err
	}
	out := map[[2]string][]known{}
	for space, names := range claimed {
		for part := range slices.Chunk(sortedKeys(names), 256) {
			list, args := store.In([]any{tenant, space}, part)
			rows, err := tx.Query(`SELECT name, component_id, version, vendor FROM vuln_identity WHERE tenant = $1 AND space = $2 AND name IN `+list, args...)
			if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
				k := known{Identity: sbom.Identity{Space: space}}
				err := r.Scan(&k.Name, &k.component, &k.Version, &k.Vendor)
				out[[2]string{space, k.Name}] = append(out[[2]string{space, k.Name}], k)
				return struct{}{}, err
			}); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// hitRowsAtOnce are written in one transaction, so that no other write waits long.
const hitRowsAtOnce = 1000

// settleRecords writes what was judged, and with the last of it forgets the marks.
func (s *Service) settleRecords(ctx context.Context, tenant string, j judged) error {
	pairs := make([]pair, 0, len(j.verdicts))
	for p := range j.verdicts {
		pairs = append(pairs, p)
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		if c := strings.Compare(a.record, b.record); c != 0 {
			return c
		}
		return strings.Compare(a.component, b.component)
	})
	for more := true; more; {
		n := 0
		for rows := 0; n < len(pairs) && rows < hitRowsAtOnce; n++ {
			if rows++; j.open[pairs[n]] { // one ends, another begins
				rows++
			}
		}
		more = n < len(pairs)
		err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
			if err := s.current(tx, tenant, j.gen); err != nil {
				return err
			}
			if err := s.settlePairs(tx, tenant, pairs[:n], j); err != nil || more {
				return err
			}
			list, args := store.In([]any{tenant, j.gen}, j.records)
			_, err := tx.Exec(`DELETE FROM vuln_touched WHERE tenant = $1 AND gen <= $2 AND record_id IN `+list, args...)
			return err
		})
		if err != nil {
			return err
		}
		pairs = pairs[n:]
	}
	return nil
}

// openHit is what is kept of an open hit.
type openHit struct {
	since                     int64
	state                     record.State
	rule, confidence          string
	reason, fixed, conditions string
}

// settlePairs makes the open hits of the pairs, which are in the order of their records, equal to what was judged.
func (s *Service) settlePairs(tx *store.Tx, tenant string, pairs []pair, j judged) error {
	have, err := openHits(tx, tenant, pairs)
	if err != nil {
		return err
	}
	now := s.now()
	var fresh [][]any
	var changed []string             // records
	stirred := map[string][]string{} // components by record
	for _, p := range pairs {
		v := j.verdicts[p]
		old, was := have[p]
		is := v.State != record.StateClean
		conditions := strings.Join(v.Conditions, "\n")
		if was && is && old.state == v.State {
			if old != (openHit{old.since, v.State, v.Rule, v.Confidence, v.Reason, v.Fixed, conditions}) {
				if _, err := tx.Exec(`UPDATE vuln_hit SET rule = $4, confidence = $5, reason = $6, fixed = $7, conditions = $8
					WHERE tenant = $1 AND component_id = $2 AND record_id = $3 AND until = 9223372036854775807`,
					tenant, p.component, p.record, v.Rule, v.Confidence, v.Reason, v.Fixed, conditions); err != nil {
					return err
				}
				changed = append(changed, p.record)
			}
			continue
		}
		if was {
			if err := s.endHit(tx, tenant, p, old, now, j.ended[p.record]); err != nil {
				return err
			}
		}
		if is {
			fresh = append(fresh, hitRow(tenant, p, v, now))
		}
		if was || is {
			stirred[p.record] = append(stirred[p.record], p.component)
			changed = append(changed, p.record)
		}
	}
	if err := tx.InsertMany(insertHits, fresh, ``); err != nil {
		return err
	}
	if err := s.stirComponents(tx, tenant, stirred); err != nil {
		return err
	}
	return s.reopenRecords(tx, tenant, slices.Compact(changed))
}

// openHits reads the open hits of the records of the pairs.
func openHits(tx *store.Tx, tenant string, pairs []pair) (map[pair]openHit, error) {
	records := map[string]bool{}
	for _, p := range pairs {
		records[p.record] = true
	}
	out := map[pair]openHit{}
	for part := range slices.Chunk(sortedKeys(records), 256) {
		list, args := store.In([]any{tenant}, part)
		rows, err := tx.Query(`SELECT record_id, component_id, since, state, rule, confidence, reason, fixed, conditions FROM vuln_hit
			WHERE tenant = $1 AND until = 9223372036854775807 AND record_id IN `+list, args...)
		if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
			var p pair
			var h openHit
			err := r.Scan(&p.record, &p.component, &h.since, &h.state, &h.rule, &h.confidence, &h.reason, &h.fixed, &h.conditions)
			out[p] = h
			return struct{}{}, err
		}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

const insertHits = `INSERT INTO vuln_hit (tenant, component_id, record_id, since, state, until, reason, fixed, rule, confidence, conditions, why)`

func hitRow(tenant string, p pair, v record.Verdict, since int64) []any {
	return []any{tenant, p.component, p.record, since, string(v.State), int64(forever), v.Reason, v.Fixed, v.Rule, v.Confidence, strings.Join(v.Conditions, "\n"), ""}
}

// endHit closes a hit; one that held for no time at all is forgotten.
func (s *Service) endHit(tx *store.Tx, tenant string, p pair, h openHit, now int64, why string) error {
	q, args := `DELETE FROM vuln_hit WHERE tenant = $1 AND component_id = $2 AND record_id = $3 AND until = 9223372036854775807`, []any{tenant, p.component, p.record}
	if h.since < now {
		q = `UPDATE vuln_hit SET until = $4, why = $5 WHERE tenant = $1 AND component_id = $2 AND record_id = $3 AND until = 9223372036854775807`
		args = append(args, now, why)
	}
	_, err := tx.Exec(q, args...)
	return err
}

// matchRelease compares the components that the release brings into the tenant with all claims: what an upload starts.
// A component that is known already was compared when it came, and with every change of a record since.
func (s *Service) matchRelease(ctx context.Context, tenant, release string) error {
	about, err := s.cfg.Release(ctx, tenant, release)
	if err != nil {
		return err
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO vuln_release (tenant, release_id, product, version, image) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (tenant, release_id) DO UPDATE SET product = excluded.product, version = excluded.version, image = excluded.image`,
			tenant, release, about.Product, about.Version, about.Image)
		return err
	})
	if err != nil {
		return err
	}
	for err = errStale; errors.Is(err, errStale) && ctx.Err() == nil; {
		var m arrival
		if m, err = s.judgeRelease(ctx, tenant, release); err == nil {
			err = s.settleRelease(ctx, tenant, m)
		}
	}
	if err != nil {
		return err
	}
	if err := s.closeFixed(ctx, tenant, release); err != nil {
		return err
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return stir(tx, tenant, []string{release}) })
	if err != nil {
		return err
	}
	return s.settleStirred(ctx, tenant)
}

// arrival is what a release brings that the tenant did not have, compared with all claims.
type arrival struct {
	judged
	components []string
	names      map[string][]sbom.Identity // by component
}

func (s *Service) judgeRelease(ctx context.Context, tenant, release string) (arrival, error) {
	m := arrival{newJudged(), nil, map[string][]sbom.Identity{}}
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		if m.gen, err = s.gen(tx, tenant); err != nil {
			return err
		}
		keys, err := s.cfg.SBOM.Keys(tx, tenant, release)
		if err != nil {
			return err
		}
		for _, k := range keys {
			m.names[k.Component] = append(m.names[k.Component], k.Identity)
		}
		all := sortedKeys(m.names)
		for part := range slices.Chunk(all, 128) {
			list, args := store.In([]any{tenant}, part)
			rows, err := tx.Query(`SELECT component_id FROM vuln_component WHERE tenant = $1 AND component_id IN `+list, args...)
			if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
				var id string
				err := r.Scan(&id)
				delete(m.names, id)
				return struct{}{}, err
			}); err != nil {
				return err
			}
		}
		m.components = sortedKeys(m.names)
		claims := map[[2]string][]claimant{}
		for _, c := range m.components {
			for _, id := range m.names[c] {
				name := [2]string{id.Space, id.Name}
				if _, ok := claims[name]; !ok {
					if claims[name], err = claimants(tx, tenant, id.Space, id.Name); err != nil {
						return err
					}
				}
				for _, by := range claims[name] {
					m.add(pair{c, by.record}, by.Judge.Judge(id))
				}
			}
		}
		return nil
	})
	return m, err
}

// claimant is a record with what it claims about one name.
type claimant struct {
	record string
	record.Judge
}

// claimants reads what records that are not withdrawn claim about a name.
func claimants(tx *store.Tx, tenant, space, name string) ([]claimant, error) {
	rows, err := tx.Query(`SELECT c.record_id, c.body FROM vuln_claim c CROSS JOIN vuln_record r
		WHERE c.tenant = $1 AND c.space = $2 AND c.name = $3 AND r.tenant = c.tenant AND r.id = c.record_id AND r.is_current = 1 AND r.withdrawn = 0`, tenant, space, name)
	return store.Collect(rows, err, func(r *sql.Rows) (c claimant, err error) {
		var text string
		if err := r.Scan(&c.record, &text); err != nil {
			return c, err
		}
		if c.Judge, err = record.Compile(space, []byte(text)); err != nil {
			err = fmt.Errorf("record %s: %w", c.record, err)
		}
		return c, err
	})
}

// settleRelease enters new components into the index, each together with its hits.
func (s *Service) settleRelease(ctx context.Context, tenant string, m arrival) error {
	hits := map[string][]pair{}
	for p, v := range m.verdicts {
		if v.State != record.StateClean {
			hits[p.component] = append(hits[p.component], p)
		}
	}
	for part := range slices.Chunk(m.components, 100) {
		err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
			if err := s.current(tx, tenant, m.gen); err != nil {
				return err
			}
			list, args := store.In([]any{tenant}, part)
			rows, err := tx.Query(`SELECT component_id FROM vuln_component WHERE tenant = $1 AND component_id IN `+list, args...)
			already, err := store.Collect(rows, err, func(r *sql.Rows) (id string, err error) { return id, r.Scan(&id) })
			if err != nil {
				return err
			}
			var components, names, found [][]any
			now := s.now()
			for _, c := range part {
				if slices.Contains(already, c) { // another release brought it meanwhile
					continue
				}
				components = append(components, []any{tenant, c})
				for _, id := range m.names[c] {
					names = append(names, []any{tenant, id.Space, id.Name, c, id.Version, id.Vendor})
				}
				for _, p := range hits[c] {
					found = append(found, hitRow(tenant, p, m.verdicts[p], now))
				}
			}
			if err := tx.InsertMany(`INSERT INTO vuln_component (tenant, component_id)`, components, ``); err != nil {
				return err
			}
			if err := tx.InsertMany(`INSERT INTO vuln_identity (tenant, space, name, component_id, version, vendor)`, names, ``); err != nil {
				return err
			}
			return tx.InsertMany(insertHits, found, ``)
		})
		if err != nil {
			return err
		}
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
