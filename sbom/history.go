// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"cmp"
	"database/sql"
	"maps"
	"slices"

	"github.com/openthings-platform/openthings/store"
)

// EvidenceState is an EvidenceHash with the instant in ms from which it was the one.
type EvidenceState struct {
	From int64
	Hash string
}

// EvidenceHistory returns, for each release that has evidence, every EvidenceHash that it had, the oldest first. The hash
// of a release that is absent was always "".
func (s *Service) EvidenceHistory(tx *store.Tx, tenant string) (map[string][]EvidenceState, error) {
	out := map[string][]EvidenceState{}
	newest := map[EvidenceKind]Evidence{}
	last := ""
	rows, err := tx.Query(`SELECT release_id, kind, content_hash, at FROM release_evidence WHERE tenant = $1 ORDER BY release_id, at, kind`, tenant)
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var e Evidence
		var at int64
		if err := r.Scan(&e.Release, &e.Kind, &e.Content, &at); err != nil {
			return struct{}{}, err
		}
		if e.Release != last {
			clear(newest)
			last = e.Release
		}
		newest[e.Kind] = e
		list := slices.SortedFunc(maps.Values(newest), func(a, b Evidence) int { return cmp.Compare(a.Kind, b.Kind) })
		out[e.Release] = append(out[e.Release], EvidenceState{at, evidenceHash(list)})
		return struct{}{}, nil
	})
	return out, err
}
