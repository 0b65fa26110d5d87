// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/record"
)

// recordFacts are what a record says that the order of work goes by, as they are kept beside it.
type recordFacts struct {
	Score *record.Score `json:"score,omitempty"`
	SSVC  *record.SSVC  `json:"ssvc,omitempty"`
}

func factsOf(r record.Record) recordFacts {
	f := recordFacts{SSVC: r.SSVC}
	if len(r.Scores) > 0 {
		f.Score = &r.Scores[0]
	}
	return f
}

// facts reads what is known about vulnerabilities beside their exposure, by group: of several records the first with a score
// gives it, and the newest assessment counts.
func (s *Service) facts(tx *store.Tx, tenant string, groups []string) (map[string]record.Facts, error) {
	out := map[string]record.Facts{}
	cves := map[string][]string{} // by group
	for part := range slices.Chunk(groups, 256) {
		list, args := store.In([]any{tenant}, part)
		rows, err := tx.Query(`SELECT g.group_id, r.id, r.facts FROM vuln_grouped g CROSS JOIN vuln_record r WHERE g.tenant = $1 AND g.group_id IN `+list+`
			AND r.tenant = g.tenant AND r.id = g.record_id AND r.is_current = 1 ORDER BY g.group_id, r.id`, args...)
		if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
			var group, id, text string
			if err := r.Scan(&group, &id, &text); err != nil {
				return struct{}{}, err
			}
			var f recordFacts
			if err := json.Unmarshal([]byte(text), &f); err != nil {
				return struct{}{}, fmt.Errorf("record %s: %w", id, err)
			}
			all := out[group]
			if all.Score == nil {
				all.Score = f.Score
			}
			if f.SSVC != nil && (all.SSVC == nil || f.SSVC.At.After(all.SSVC.At)) {
				all.SSVC = f.SSVC
			}
			out[group] = all
			return struct{}{}, nil
		}); err != nil {
			return nil, err
		}
		rows, err = tx.Query(`SELECT m.group_id, m.ident, coalesce(x.source, ''), coalesce(x.ransom, 0) FROM vuln_member m
			LEFT JOIN vuln_exploited x ON x.tenant = m.tenant AND x.cve = m.ident WHERE m.tenant = $1 AND m.group_id IN `+list+` AND m.ident LIKE 'CVE-%' ORDER BY m.ident`, args...)
		if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
			var group, ident, source string
			var ransom int64
			err := r.Scan(&group, &ident, &source, &ransom)
			all := out[group]
			if source != "" && !slices.Contains(all.Exploited, source) {
				all.Exploited = append(all.Exploited, source)
			}
			all.Ransom = all.Ransom || ransom != 0
			out[group] = all
			cves[group] = append(cves[group], ident)
			return struct{}{}, err
		}); err != nil {
			return nil, err
		}
	}
	var names []string
	for _, list := range cves {
		names = append(names, list...)
	}
	scores, err := s.Scores(tx, tenant, names)
	if err != nil {
		return nil, err
	}
	for group, list := range cves {
		f := out[group]
		for _, n := range list {
			if x, ok := scores[n]; ok && (f.EPSS == nil || x.Probability > *f.EPSS) {
				f.EPSS = &x.Probability
			}
		}
		out[group] = f
	}
	return out, nil
}
