// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/store"
)

// A release is stirred when something changed that concerns a vulnerability known as exploited: a hit, the catalogue, a
// decision, its bill. What follows, the signal and the gate's check, is worked out from what is stored then, so it does not
// matter how often a release is stirred or in which order.

func stir(tx *store.Tx, tenant string, releases []string) error {
	rows := make([][]any, len(releases))
	for i, r := range releases {
		rows[i] = []any{tenant, r}
	}
	return tx.InsertMany(`INSERT INTO vuln_stirred (tenant, release_id)`, rows, `ON CONFLICT DO NOTHING`)
}

// stirComponents stirs the releases that list one of the components, given by record, where the record's vulnerability is
// exploited.
func (s *Service) stirComponents(tx *store.Tx, tenant string, byRecord map[string][]string) error {
	components := map[string]bool{}
	for part := range slices.Chunk(sortedKeys(byRecord), 256) {
		list, args := store.In([]any{tenant}, part)
		rows, err := tx.Query(`SELECT r.record_id FROM vuln_grouped r CROSS JOIN vuln_group g
			WHERE r.tenant = $1 AND r.record_id IN `+list+` AND g.tenant = r.tenant AND g.id = r.group_id AND g.exploited > 0`, args...)
		if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
			var id string
			err := r.Scan(&id)
			for _, c := range byRecord[id] {
				components[c] = true
			}
			return struct{}{}, err
		}); err != nil {
			return err
		}
	}
	return s.stirUsers(tx, tenant, sortedKeys(components))
}

func (s *Service) stirUsers(tx *store.Tx, tenant string, components []string) error {
	listed, err := s.cfg.SBOM.Listed(tx, tenant, components)
	if err != nil {
		return err
	}
	releases := slices.Concat(slices.Collect(maps.Values(listed))...)
	slices.Sort(releases)
	return stir(tx, tenant, slices.Compact(releases))
}

// stirGroup stirs every release with an open hit of the group.
func (s *Service) stirGroup(tx *store.Tx, tenant, group string) error {
	rows, err := tx.Query(`SELECT h.component_id FROM vuln_grouped r CROSS JOIN vuln_hit h
		WHERE h.tenant = r.tenant AND h.record_id = r.record_id AND r.tenant = $1 AND r.group_id = $2 AND h.until = 9223372036854775807`, tenant, group)
	components, err := store.Collect(rows, err, func(r *sql.Rows) (id string, err error) { return id, r.Scan(&id) })
	if err != nil || len(components) == 0 {
		return err
	}
	slices.Sort(components)
	return s.stirUsers(tx, tenant, slices.Compact(components))
}

const stirredAtOnce = 50

// settleStirred gives the signals and writes the gate's checks that are owed.
func (s *Service) settleStirred(ctx context.Context, tenant string) error {
	for more := true; more; {
		err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
			rows, err := tx.Query(`DELETE FROM vuln_stirred WHERE tenant = $1 AND release_id IN
				(SELECT release_id FROM vuln_stirred WHERE tenant = $1 ORDER BY release_id LIMIT $2) RETURNING release_id`, tenant, int64(stirredAtOnce))
			stirred, err := store.Collect(rows, err, func(r *sql.Rows) (id string, err error) { return id, r.Scan(&id) })
			if err != nil || len(stirred) == 0 {
				more = false
				return err
			}
			slices.Sort(stirred)
			more = len(stirred) == stirredAtOnce
			tx.After(func() { s.changed(tenant) })
			return s.settleReleases(tx, tenant, stirred)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// exploitedHit is an open hit of a vulnerability that is known as exploited, in one release.
type exploitedHit struct {
	group, name, component string
	listed                 string // the name under which it is known as exploited
	product, version       string
}

// exploitedIn finds what is open and known as exploited in the releases.
func (s *Service) exploitedIn(tx *store.Tx, tenant string, releases []string) (map[string][]exploitedHit, error) {
	// From the few that are exploited to their hits: SQLite, which has no statistics, keeps this order for CROSS JOIN alone.
	rows, err := tx.Query(`SELECT g.id, g.name, h.component_id, (SELECT min(x.cve) FROM vuln_member m JOIN vuln_exploited x ON x.tenant = m.tenant AND x.cve = m.ident
			WHERE m.tenant = g.tenant AND m.group_id = g.id) FROM vuln_group g CROSS JOIN vuln_grouped r CROSS JOIN vuln_hit h
		WHERE g.tenant = $1 AND g.exploited > 0 AND r.tenant = g.tenant AND r.group_id = g.id AND h.tenant = r.tenant AND h.record_id = r.record_id AND h.until = 9223372036854775807 ORDER BY g.name, h.component_id`, tenant)
	hits, err := store.Collect(rows, err, func(r *sql.Rows) (x exploitedHit, err error) {
		return x, r.Scan(&x.group, &x.name, &x.component, &x.listed)
	})
	if err != nil || len(hits) == 0 {
		return nil, err
	}
	hits = slices.Compact(hits) // of several records of one group
	byComponent := map[string][]exploitedHit{}
	for _, h := range hits {
		byComponent[h.component] = append(byComponent[h.component], h)
	}
	listed, err := s.cfg.SBOM.Listed(tx, tenant, sortedKeys(byComponent))
	if err != nil {
		return nil, err
	}
	about, err := s.releases(tx, tenant, releases)
	if err != nil {
		return nil, err
	}
	out := map[string][]exploitedHit{}
	for _, component := range sortedKeys(listed) {
		for _, release := range listed[component] {
			r, ok := about[release]
			if !ok { // another release, or one whose own event has not been handled yet: it will come by itself
				continue
			}
			for _, h := range byComponent[component] {
				h.product, h.version = r.Product, r.Version
				out[release] = append(out[release], h)
			}
		}
	}
	return out, nil
}

// releases reads what is known of the releases that vuln has heard of.
func (s *Service) releases(tx *store.Tx, tenant string, ids []string) (map[string]Release, error) {
	out := map[string]Release{}
	for part := range slices.Chunk(ids, 256) {
		list, args := store.In([]any{tenant}, part)
		rows, err := tx.Query(`SELECT release_id, product, version, image FROM vuln_release WHERE tenant = $1 AND release_id IN `+list, args...)
		if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
			var id string
			var x Release
			err := r.Scan(&id, &x.Product, &x.Version, &x.Image)
			out[id] = x
			return struct{}{}, err
		}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *Service) settleReleases(tx *store.Tx, tenant string, releases []string) error {
	exploited, err := s.exploitedIn(tx, tenant, releases)
	if err != nil {
		return err
	}
	feeds, err := s.feedsLine(tx, tenant)
	if err != nil {
		return err
	}
	decisions := s.book(tx, tenant)
	stops := map[undecided][]string{}
	for _, release := range releases {
		var open []string
		for _, x := range exploited[release] {
			if err := s.signal(tx, tenant, release, x); err != nil {
				return err
			}
			decided, err := decisions.on(x.group, x.product)
			if err != nil {
				return err
			}
			if d := decided.at(x.product, x.component, release, s.now()); d == nil || !d.harmless() {
				open = append(open, x.name)
				stops[x.undecided()] = append(stops[x.undecided()], release)
			}
		}
		if s.cfg.RecordCheck == nil {
			continue
		}
		verdict, evidence := verdictPass, "nothing found that is known as exploited; "+feeds
		if len(open) > 0 {
			verdict, evidence = verdictFail, strings.Join(slices.Compact(open), ", ")+" known as exploited; "+feeds
		}
		if err := s.cfg.RecordCheck(tx, tenant, release, checkExploited, verdict, evidence, "vuln"); err != nil {
			return err
		}
	}
	if err := s.stopShip(tx, tenant, stops); err != nil {
		return err
	}
	return s.adviseFloors(tx, tenant, releases)
}

// checkExploited is the name of the check that the release gate waits for: whether the release holds a vulnerability
// that is known as exploited and that nobody has decided to be harmless there.
const checkExploited = "known-exploited"

// Verdicts of the check.
const (
	verdictPass = "pass"
	verdictFail = "fail"
)

// feedsLine names what was compared with, and when it was last brought up to date: "none found" is never said alone.
func (s *Service) feedsLine(tx *store.Tx, tenant string) (string, error) {
	rows, err := tx.Query(`SELECT name, digest, records, catalogue, at FROM vuln_feed WHERE tenant = $1 ORDER BY name`, tenant)
	lines, err := store.Collect(rows, err, func(r *sql.Rows) (string, error) {
		var name, digest, catalogue string
		var records, at int64
		if err := r.Scan(&name, &digest, &records, &catalogue, &at); err != nil {
			return "", err
		}
		if catalogue != "" {
			catalogue = ", KEV " + catalogue
		}
		return fmt.Sprintf("%s (%d records%s, %s, %s)", name, records, catalogue, store.Time(at).Format("2006-01-02 15:04 UTC"), console.Short(digest)), nil
	})
	if err != nil {
		return "", err
	}
	if len(lines) == 0 {
		return "no feed was ever imported, so nothing is known", nil
	}
	late, err := s.lateSources(tx, tenant)
	if err != nil {
		return "", err
	}
	line := "compared with " + strings.Join(lines, ", ")
	if len(late) > 0 {
		line += "; NOT up to date: " + strings.Join(late, ", ")
	}
	return line, nil
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
func (s *Service) signal(tx *store.Tx, tenant, release string, x exploitedHit) error {
	n, err := tx.Exec(`INSERT INTO vuln_signal (tenant, product, ident, at) SELECT $1, $2, $3, $4 WHERE NOT EXISTS
		(SELECT 1 FROM vuln_signal v JOIN vuln_member m ON m.tenant = v.tenant AND m.ident = v.ident WHERE v.tenant = $1 AND v.product = $2 AND m.group_id = $5)
		ON CONFLICT (tenant, product, ident) DO NOTHING`, tenant, x.product, x.listed, s.now(), x.group)
	if err != nil || n == 0 {
		return err
	}
	return s.cfg.DB.Emit(tx, "vuln.exploited", tenant, x.group, Exploited{Group: x.name, ID: x.group, Product: x.product, Release: release, Version: x.version})
}
