// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/feed"
	"github.com/openthings-platform/openthings/vuln/record"
)

// Imported is what a feed changed.
type Imported struct {
	Feed      string `json:"feed"`
	Digest    string `json:"digest"`
	Records   int    `json:"records"`   // in the feed
	New       int    `json:"new"`       // not known before
	Changed   int    `json:"changed"`   // known with other content
	Exploited int    `json:"exploited"` // newly known as exploited
}

var feedName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,63}$`)

// Import takes over what the feed says and brings the findings up to date. Only records whose content changed cost
// anything; a record that the feed does not name is left alone, since a feed may be a delta.
func (s *Service) Import(ctx context.Context, tenant, actor, name string, f *feed.Feed) (Imported, error) {
	out := Imported{Feed: name, Digest: f.Digest, Records: f.Records}
	if !feedName.MatchString(name) {
		return out, problem.Invalid("%.80q is not the name of a feed", name).Hint("use lower-case letters, digits, dots and dashes")
	}
	s.importing.Lock()
	defer s.importing.Unlock()
	known, gen, err := s.currentHashes(ctx, tenant)
	if err != nil {
		return out, err
	}
	var batch []incoming
	flush := func() error {
		err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error { return s.putRecords(tx, tenant, name, gen, batch) })
		batch, gen = batch[:0], gen+1
		return err
	}
	err = f.Each(func(id, hash string) bool { return known[id] != hash }, func(r record.Record, body []byte) error {
		if known[r.ID] == "" {
			out.New++
		} else {
			out.Changed++
		}
		batch = append(batch, incoming{r, body, known[r.ID] == ""})
		if len(batch) < 50 { // about a thousand rows with their names and packages
			return nil
		}
		return flush()
	})
	if err == nil && len(batch) > 0 {
		err = flush()
	}
	if err != nil {
		return out, err
	}
	if f.KEV != nil {
		if out.Exploited, err = s.putExploited(ctx, tenant, f.KEV); err != nil {
			return out, err
		}
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		catalogue := ""
		if f.KEV != nil {
			catalogue = f.KEV.Version
		}
		if _, err := tx.Exec(`INSERT INTO vuln_feed (tenant, name, digest, records, catalogue, at) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (tenant, name) DO UPDATE SET digest = excluded.digest, records = excluded.records, catalogue = excluded.catalogue, at = excluded.at`,
			tenant, name, f.Digest, int64(f.Records), catalogue, s.now()); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "feed.imported", Subject: name, Data: out})
	})
	if err != nil {
		return out, err
	}
	return out, s.matchTouched(ctx, tenant)
}

type incoming struct {
	record record.Record
	body   []byte
	fresh  bool // no content of it was known, so there is nothing to replace
}

// currentHashes returns the content of every record that is known, and the generation in which it is so.
func (s *Service) currentHashes(ctx context.Context, tenant string) (map[string]string, int64, error) {
	out := map[string]string{}
	var gen int64
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		if gen, err = s.gen(tx, tenant); err != nil {
			return err
		}
		rows, err := tx.Query(`SELECT id, content_hash FROM vuln_record WHERE tenant = $1 AND is_current = 1`, tenant)
		_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
			var id, hash string
			err := r.Scan(&id, &hash)
			out[id] = hash
			return struct{}{}, err
		})
		return err
	})
	return out, gen, err
}

// putRecords writes records, their names and packages, and marks the packages as touched in the same transaction: if
// the process dies now, the job goes on from the marks. gen is the generation that the batch was compared with.
func (s *Service) putRecords(tx *store.Tx, tenant, source string, gen int64, batch []incoming) error {
	var now int64
	if err := tx.QueryRow(`INSERT INTO vuln_state (tenant, gen) VALUES ($1, 1) ON CONFLICT (tenant) DO UPDATE SET gen = vuln_state.gen + 1 RETURNING gen`, tenant).Scan(&now); err != nil {
		return err
	}
	if now != gen+1 { // another process
		return problem.Conflict("Another import changed the records meanwhile.").Hint("send the feed again")
	}
	for _, in := range batch {
		if err := s.putRecord(tx, tenant, source, in); err != nil {
			return fmt.Errorf("record %s: %w", in.record.ID, err)
		}
	}
	return s.cfg.DB.Enqueue(tx, jobMatch, tenant, s.cfg.Clock.Now().Add(matchLater), nil)
}

func (s *Service) putRecord(tx *store.Tx, tenant, source string, in incoming) error {
	r := in.record
	// Packages that an older content named are touched as well: a finding may have to close.
	const touch = `INSERT INTO vuln_touched (tenant, ecosystem, name_key) SELECT tenant, ecosystem, name_key FROM vuln_package
		WHERE tenant = $1 AND record_id = $2 ON CONFLICT DO NOTHING`
	if !in.fresh {
		for _, q := range []string{touch, `DELETE FROM vuln_package WHERE tenant = $1 AND record_id = $2`,
			`UPDATE vuln_record SET is_current = 0 WHERE tenant = $1 AND id = $2 AND is_current = 1`} {
			if _, err := tx.Exec(q, tenant, r.ID); err != nil {
				return err
			}
		}
	}
	if _, err := tx.Exec(`INSERT INTO vuln_record (tenant, id, content_hash, source, withdrawn, reviewed, seen, is_current, body)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 1, $8) ON CONFLICT (tenant, id, content_hash) DO UPDATE SET is_current = 1`,
		tenant, r.ID, r.Hash, source, store.Millis(r.Withdrawn), r.Reviewed(), s.now(), string(in.body)); err != nil {
		return err
	}
	if err := s.join(tx, tenant, r.Idents(), r.Summary); err != nil {
		return err
	}
	for _, c := range r.Claims() {
		if _, err := tx.Exec(`INSERT INTO vuln_package (tenant, ecosystem, name_key, record_id, withdrawn, entries) VALUES ($1, $2, $3, $4, $5, $6)`,
			tenant, c.Space, c.Name, r.ID, store.Millis(r.Withdrawn), string(c.Body)); err != nil {
			return err
		}
	}
	_, err := tx.Exec(touch, tenant, r.ID)
	return err
}

// join makes the names one vulnerability. Where they stood in several groups these become one: the oldest stays.
func (s *Service) join(tx *store.Tx, tenant string, idents []string, summary string) error {
	groups, err := s.groupsOf(tx, tenant, idents)
	if err != nil {
		return err
	}
	if len(groups) == 0 {
		groups = []string{store.NewID("vul")}
		if _, err := tx.Exec(`INSERT INTO vuln_group (tenant, id, name, summary, exploited) VALUES ($1, $2, $3, $4, 0)`, tenant, groups[0], idents[0], summary); err != nil {
			return err
		}
	}
	id := groups[0]
	for _, other := range groups[1:] {
		if err := s.merge(tx, tenant, id, other); err != nil {
			return err
		}
	}
	for _, ident := range idents {
		if _, err := tx.Exec(`INSERT INTO vuln_member (tenant, ident, group_id) VALUES ($1, $2, $3) ON CONFLICT (tenant, ident) DO NOTHING`, tenant, ident, id); err != nil {
			return err
		}
	}
	// People know a vulnerability by its CVE number; where there is none, by the first name that it got.
	if _, err := tx.Exec(`UPDATE vuln_group SET summary = CASE WHEN summary = '' THEN $3 ELSE summary END,
		name = coalesce((SELECT min(ident) FROM vuln_member WHERE tenant = $1 AND group_id = $2 AND ident LIKE 'CVE-%'), name)
		WHERE tenant = $1 AND id = $2`, tenant, id, summary); err != nil {
		return err
	}
	return s.spreadExploited(tx, tenant, id)
}

// groupsOf returns the groups in which the names stand, the oldest first.
func (s *Service) groupsOf(tx *store.Tx, tenant string, idents []string) ([]string, error) {
	var groups []string
	for _, ident := range idents { // one by one: a list with DISTINCT and ORDER BY reads the whole index
		var id string
		err := tx.QueryRow(`SELECT group_id FROM vuln_member WHERE tenant = $1 AND ident = $2`, tenant, ident).Scan(&id)
		if err == nil {
			groups = append(groups, id)
		} else if !errors.Is(err, store.ErrNoRows) {
			return nil, err
		}
	}
	slices.Sort(groups)
	return slices.Compact(groups), nil
}

// merge moves everything from one group to another. Decisions keep their wording and order; the log has the original.
func (s *Service) merge(tx *store.Tx, tenant, into, from string) error {
	var last int64
	if err := tx.QueryRow(`SELECT coalesce(max(seq), 0) FROM decision WHERE tenant = $1 AND group_id = $2`, tenant, into).Scan(&last); err != nil {
		return err
	}
	for _, step := range []struct {
		query string
		args  []any
	}{
		{`UPDATE finding SET closed_at = $4, why_closed = 'merged' WHERE tenant = $1 AND group_id = $3 AND closed_at = 9223372036854775807
			AND EXISTS (SELECT 1 FROM finding o WHERE o.tenant = $1 AND o.group_id = $2 AND o.release_id = finding.release_id
				AND o.component_id = finding.component_id AND o.closed_at = 9223372036854775807)`, []any{tenant, into, from, s.now()}},
		{`UPDATE finding SET group_id = $2 WHERE tenant = $1 AND group_id = $3`, []any{tenant, into, from}},
		{`UPDATE decision SET group_id = $2, seq = seq + $4 WHERE tenant = $1 AND group_id = $3`, []any{tenant, into, from, last}},
		{`DELETE FROM vuln_signal WHERE tenant = $1 AND group_id = $3 AND EXISTS
			(SELECT 1 FROM vuln_signal o WHERE o.tenant = $1 AND o.group_id = $2 AND o.product = vuln_signal.product)`, []any{tenant, into, from}},
		{`UPDATE vuln_signal SET group_id = $2 WHERE tenant = $1 AND group_id = $3`, []any{tenant, into, from}},
		{`UPDATE vuln_member SET group_id = $2 WHERE tenant = $1 AND group_id = $3`, []any{tenant, into, from}},
		{`DELETE FROM vuln_group WHERE tenant = $1 AND id = $2`, []any{tenant, from}},
	} {
		if _, err := tx.Exec(step.query, step.args...); err != nil {
			return fmt.Errorf("merge: %w", err)
		}
	}
	return nil
}

// putExploited takes over a KEV catalogue and returns how many of its entries are new.
func (s *Service) putExploited(ctx context.Context, tenant string, k *feed.KEV) (int, error) {
	known := map[string]bool{}
	rows, err := s.cfg.DB.Query(ctx, `SELECT cve FROM vuln_exploited WHERE tenant = $1`, tenant)
	if _, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var cve string
		err := r.Scan(&cve)
		known[cve] = true
		return struct{}{}, err
	}); err != nil {
		return 0, err
	}
	var fresh []feed.KEVEntry
	for _, e := range k.Entries {
		if !known[e.CVE] {
			fresh = append(fresh, e)
		}
	}
	for from := 0; from < len(fresh); from += 300 {
		part := fresh[from:min(from+300, len(fresh))]
		err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
			for _, e := range part {
				if _, err := tx.Exec(`INSERT INTO vuln_exploited (tenant, cve, added, seen) VALUES ($1, $2, $3, $4) ON CONFLICT (tenant, cve) DO NOTHING`,
					tenant, e.CVE, e.Added, s.now()); err != nil {
					return err
				}
				groups, err := s.groupsOf(tx, tenant, []string{e.CVE})
				if err != nil {
					return err
				}
				for _, g := range groups {
					if err := s.spreadExploited(tx, tenant, g); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return len(fresh), nil
}

// spreadExploited marks the group as exploited if one of its names is, and gives the signal for every product with an
// open finding.
func (s *Service) spreadExploited(tx *store.Tx, tenant, group string) error {
	n, err := tx.Exec(`UPDATE vuln_group SET exploited = $3 WHERE tenant = $1 AND id = $2 AND exploited = 0 AND EXISTS
		(SELECT 1 FROM vuln_member m JOIN vuln_exploited x ON x.tenant = m.tenant AND x.cve = m.ident WHERE m.tenant = $1 AND m.group_id = $2)`,
		tenant, group, s.now())
	if err != nil || n == 0 {
		return err
	}
	rows, err := tx.Query(`SELECT DISTINCT release_id FROM finding WHERE tenant = $1 AND group_id = $2 AND closed_at = 9223372036854775807`, tenant, group)
	releases, err := store.Collect(rows, err, func(r *sql.Rows) (id string, err error) { return id, r.Scan(&id) })
	if err != nil {
		return err
	}
	for _, release := range releases {
		if err := s.signal(tx, tenant, group, release); err != nil {
			return err
		}
		if err := s.recheck(tx, tenant, release); err != nil {
			return err
		}
	}
	return nil
}

// Exploited is the data of the event vuln.exploited.
type Exploited struct {
	Group   string `json:"group"` // the name that people know it by: CVE number, or the record's id
	ID      string `json:"id"`    // of the group
	Product string `json:"product"`
	Release string `json:"release"` // the first that was found
	Version string `json:"version"`
}

// signal announces once per product that one of its releases has an open finding known as exploited.
func (s *Service) signal(tx *store.Tx, tenant, group, release string) error {
	e := Exploited{ID: group, Release: release}
	err := tx.QueryRow(`SELECT g.name, r.product, r.version FROM vuln_group g JOIN vuln_release r ON r.tenant = g.tenant
		WHERE g.tenant = $1 AND g.id = $2 AND g.exploited > 0 AND r.release_id = $3`, tenant, group, release).Scan(&e.Group, &e.Product, &e.Version)
	if errors.Is(err, store.ErrNoRows) {
		return nil // not known to be exploited
	}
	if err != nil {
		return err
	}
	n, err := tx.Exec(`INSERT INTO vuln_signal (tenant, product, group_id, at) VALUES ($1, $2, $3, $4) ON CONFLICT (tenant, product, group_id) DO NOTHING`,
		tenant, e.Product, group, s.now())
	if err != nil || n == 0 {
		return err
	}
	return s.cfg.DB.Emit(tx, "vuln.exploited", tenant, group, e)
}
