// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"database/sql"
	"slices"

	"github.com/openthings-platform/openthings/store"
)

// Subject is by what others may name a release: as its newest document names itself and what it describes.
type Subject struct {
	URI  string // of the document: a serial number (urn:uuid:…) or a namespace
	PURL string // of the root component
}

func (b Bill) purl() string {
	if b.Root == nil {
		return ""
	}
	return b.Root.PURL
}

// Subjects tells by what others may name the releases; one without a document is absent.
func (s *Service) Subjects(tx *store.Tx, tenant string, releases []string) (map[string]Subject, error) {
	out := map[string]Subject{}
	for batch := range slices.Chunk(releases, idsAtOnce) {
		in, args := store.In([]any{tenant}, batch)
		rows, err := tx.Query(`SELECT release_id, uri, purl FROM sbom WHERE tenant = $1 AND release_id IN `+in+` ORDER BY at, id`, args...)
		if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
			var release string
			var x Subject
			err := r.Scan(&release, &x.URI, &x.PURL)
			out[release] = x // the newest comes last
			return struct{}{}, err
		}); err != nil {
			return nil, err
		}
	}
	return out, nil
}
