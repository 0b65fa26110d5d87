// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"cmp"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/record"
)

// Group is one vulnerability, whatever the number of its records.
type Group struct {
	ID             string    `json:"id"`
	Name           string    `json:"name"` // CVE number where there is one
	Summary        string    `json:"summary,omitempty"`
	Exploited      bool      `json:"exploited"`
	ExploitedKnown time.Time `json:"exploited_known,omitzero" doc:"When it became known here that it is exploited"`
}

// group finds the vulnerability by any of its names, or by the group's own id.
func (s *Service) group(tx *store.Tx, tenant, ident string) (Group, error) {
	var g Group
	if !record.Identifier.MatchString(ident) { // nor would the database take every byte
		return g, problem.NotFound("%.80q is not the name of a vulnerability.", ident)
	}
	var exploited int64
	// Not "id = $2 OR id IN …": for an OR both engines go through all groups of the tenant.
	err := tx.QueryRow(`SELECT g.id, g.name, g.summary, g.exploited FROM (SELECT CAST($2 AS text) AS id UNION SELECT group_id FROM vuln_member WHERE tenant = $1 AND ident = $2) q
		CROSS JOIN vuln_group g WHERE g.tenant = $1 AND g.id = q.id`, tenant, ident).Scan(&g.ID, &g.Name, &g.Summary, &exploited)
	if errors.Is(err, store.ErrNoRows) {
		return g, problem.NotFound("No record of a vulnerability named %.80q was imported.", ident)
	}
	g.Exploited, g.ExploitedKnown = exploited > 0, store.Time(exploited)
	return g, err
}

// groupOf returns the group of one name, or "".
func groupOf(tx *store.Tx, tenant, ident string) (id string, err error) {
	err = tx.QueryRow(`SELECT group_id FROM vuln_member WHERE tenant = $1 AND ident = $2`, tenant, ident).Scan(&id)
	if errors.Is(err, store.ErrNoRows) {
		err = nil
	}
	return id, err
}

// groupsOf returns the groups in which the names stand, the oldest first.
func groupsOf(tx *store.Tx, tenant string, idents []string) ([]string, error) {
	var groups []string
	for _, ident := range idents { // one by one: a list with DISTINCT and ORDER BY reads the whole index
		id, err := groupOf(tx, tenant, ident)
		if err != nil {
			return nil, err
		}
		if id != "" {
			groups = append(groups, id)
		}
	}
	slices.Sort(groups)
	return slices.Compact(groups), nil
}

// rename writes the names of a record's present content and puts every record that is tied to it by a name, now or
// before, into the group that it belongs to. What comes out depends on the present records alone, not on their order;
// only the ids of groups are kept where they can be.
func (s *Service) rename(tx *store.Tx, tenant, key string, idents []string) error {
	rows, err := tx.Query(`DELETE FROM vuln_name WHERE tenant = $1 AND record_id = $2 RETURNING ident`, tenant, key)
	old, err := store.Collect(rows, err, func(r *sql.Rows) (n string, err error) { return n, r.Scan(&n) })
	if err != nil {
		return err
	}
	names := make([][]any, len(idents))
	for i, ident := range idents {
		names[i] = []any{tenant, key, ident}
	}
	if err := tx.InsertMany(`INSERT INTO vuln_name (tenant, record_id, ident)`, names, `ON CONFLICT DO NOTHING`); err != nil {
		return err
	}
	groups, err := groupsOf(tx, tenant, slices.Concat(old, idents))
	if err != nil {
		return err
	}
	tied := map[string][]string{key: idents} // records by key, with their names
	for _, g := range groups {
		rows, err := tx.Query(`SELECT g.record_id, n.ident FROM vuln_grouped g JOIN vuln_name n ON n.tenant = g.tenant AND n.record_id = g.record_id
			WHERE g.tenant = $1 AND g.group_id = $2`, tenant, g)
		if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
			var rec, ident string
			err := r.Scan(&rec, &ident)
			if rec != key {
				tied[rec] = append(tied[rec], ident)
			}
			return struct{}{}, err
		}); err != nil {
			return err
		}
		for _, q := range []string{`DELETE FROM vuln_member WHERE tenant = $1 AND group_id = $2`, `DELETE FROM vuln_grouped WHERE tenant = $1 AND group_id = $2`} {
			if _, err := tx.Exec(q, tenant, g); err != nil {
				return err
			}
		}
	}
	free := groups
	for _, c := range classes(tied) {
		id := ""
		if len(free) > 0 {
			id, free = free[0], free[1:]
		} else {
			id = store.NewID("vul")
		}
		if err := s.putGroup(tx, tenant, id, c); err != nil {
			return err
		}
	}
	for _, g := range free {
		if _, err := tx.Exec(`DELETE FROM vuln_group WHERE tenant = $1 AND id = $2`, tenant, g); err != nil {
			return err
		}
	}
	return nil
}

// class is records that are tied to each other by names.
type class struct{ records, idents []string }

// classes ties records that share a name. The classes are in the order of their first names.
func classes(records map[string][]string) []class {
	root := map[string]string{} // of names
	var find func(string) string
	find = func(n string) string {
		if root[n] == "" || root[n] == n {
			root[n] = n
			return n
		}
		root[n] = find(root[n])
		return root[n]
	}
	for _, idents := range records {
		for _, n := range idents[1:] {
			root[find(n)] = find(idents[0])
		}
	}
	by := map[string]*class{}
	for rec, idents := range records {
		c := by[find(idents[0])]
		if c == nil {
			c = &class{}
			by[find(idents[0])] = c
		}
		c.records, c.idents = append(c.records, rec), append(c.idents, idents...)
	}
	var out []class
	for _, c := range by {
		slices.Sort(c.records)
		slices.Sort(c.idents)
		c.idents = slices.Compact(c.idents)
		out = append(out, *c)
	}
	slices.SortFunc(out, func(a, b class) int { return cmp.Compare(a.idents[0], b.idents[0]) })
	return out
}

// name is what people know it by: its CVE number; where there is none, the first record's own.
func (c class) name() string {
	for _, n := range c.idents {
		if strings.HasPrefix(n, "CVE-") {
			return n
		}
	}
	return c.records[0]
}

func (s *Service) putGroup(tx *store.Tx, tenant, id string, c class) error {
	summary := ""
	for _, key := range c.records {
		err := tx.QueryRow(`SELECT summary FROM vuln_record WHERE tenant = $1 AND id = $2 AND is_current = 1`, tenant, key).Scan(&summary)
		if err != nil && !errors.Is(err, store.ErrNoRows) {
			return err
		}
		if summary != "" {
			break
		}
	}
	var was int64 // known as exploited since
	err := tx.QueryRow(`SELECT exploited FROM vuln_group WHERE tenant = $1 AND id = $2`, tenant, id).Scan(&was)
	if err != nil && !errors.Is(err, store.ErrNoRows) {
		return err
	}
	exploited, err := knownExploited(tx, tenant, c.idents)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(`INSERT INTO vuln_group (tenant, id, name, summary, exploited) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (tenant, id) DO UPDATE SET name = excluded.name, summary = excluded.summary, exploited = excluded.exploited`,
		tenant, id, c.name(), summary, exploited); err != nil {
		return err
	}
	members, grouped := make([][]any, len(c.idents)), make([][]any, len(c.records))
	for i, n := range c.idents {
		members[i] = []any{tenant, n, id}
	}
	for i, r := range c.records {
		grouped[i] = []any{tenant, r, id}
	}
	if err := tx.InsertMany(`INSERT INTO vuln_member (tenant, ident, group_id)`, members, ``); err != nil {
		return err
	}
	if err := tx.InsertMany(`INSERT INTO vuln_grouped (tenant, record_id, group_id)`, grouped, ``); err != nil {
		return err
	}
	if err := s.reopen(tx, tenant, id); err != nil {
		return err
	}
	if (was > 0) != (exploited > 0) {
		return s.stirGroup(tx, tenant, id)
	}
	return nil
}
