// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"context"
	"database/sql"
	"encoding/json"
	"io"
	"slices"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// Reader is the version of our reading of documents. It grows whenever the same bytes give other parts or facts: what
// an older one read is read again from the kept originals.
const Reader = 1

// jobRead reads a release's newest document again. Its key is the document's id.
const jobRead = "sbom.read"

type readJob struct{ Tenant, Release string }

// Work has documents read again that an older version of this program has read, and then waits for the end.
func (s *Service) Work(ctx context.Context) error {
	rows, err := s.cfg.DB.Query(ctx, `SELECT b.id, b.tenant, b.release_id FROM sbom b WHERE b.reader < $1 AND b.id =
		(SELECT n.id FROM sbom n WHERE n.tenant = b.tenant AND n.release_id = b.release_id ORDER BY n.at DESC, n.id DESC LIMIT 1) ORDER BY b.id`, Reader)
	old, err := store.Collect(rows, err, func(r *sql.Rows) (d [3]string, err error) { return d, r.Scan(&d[0], &d[1], &d[2]) })
	for some := range slices.Chunk(old, 500) {
		if err == nil {
			err = s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
				for _, d := range some {
					if err := s.cfg.DB.Enqueue(tx, jobRead, d[0], s.cfg.Clock.Now(), readJob{d[1], d[2]}); err != nil {
						return err
					}
				}
				return nil
			})
		}
	}
	if err != nil && ctx.Err() == nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func (s *Service) readAgain(ctx context.Context, j store.Job) error {
	var of readJob
	if err := j.Decode(&of); err != nil {
		return err
	}
	rec, f, err := s.Original(ctx, of.Tenant, of.Release)
	if err != nil || rec.ID != j.Key { // a newer document came, and was read by us
		if f != nil {
			f.Close()
		}
		return err
	}
	defer f.Close()
	doc, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err != nil {
		return err
	}
	b, err := Parse(doc)
	if err != nil && problem.Of(err).Kind == problem.KindInternal {
		return err
	}
	quality, jsonErr := json.Marshal(b.Quality())
	if jsonErr != nil {
		return jsonErr
	}
	return s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
		if err != nil { // what was once taken and is refused today stays as it was read
			_, err := tx.Exec(`UPDATE sbom SET reader = $3 WHERE tenant = $1 AND id = $2`, of.Tenant, rec.ID, Reader)
			return err
		}
		if _, err := tx.Exec(`UPDATE sbom SET reader = $3, quality = $4, name = $5, version = $6, uri = $7, purl = $8 WHERE tenant = $1 AND id = $2`,
			of.Tenant, rec.ID, Reader, string(quality), b.Name, b.Version, b.URI, b.purl()); err != nil {
			return err
		}
		// The release has listed this since the document came; only our reading is new.
		at := store.Millis(rec.At)
		if err := s.list(tx, of.Tenant, of.Release, b, at, at); err != nil {
			return err
		}
		return s.cfg.DB.Emit(tx, "sbom.attached", of.Tenant, of.Release, map[string]any{"sha512": rec.Document.SHA512, "components": len(b.Components), "reader": Reader})
	})
}
