// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// Record is a bill that was attached to a release.
type Record struct {
	ID          string    `json:"id"`
	Release     string    `json:"release"`
	Format      Format    `json:"format"`
	SpecVersion string    `json:"spec_version"`
	Name        string    `json:"name"`
	Version     string    `json:"version"`
	Document    Document  `json:"document"`
	Quality     Quality   `json:"quality"`
	At          time.Time `json:"at"`
}

// Part is a component of a release in the spelling of its document.
type Part struct {
	ID        string `json:"id"` // of the component, the same in every release that has it
	Ecosystem string `json:"ecosystem,omitempty"`
	Name      string `json:"name"`
	Version   string `json:"version"`
	PURL      string `json:"purl,omitempty"`
	CPE       string `json:"cpe,omitempty"`
	Type      string `json:"type,omitempty"`
}

// Cursor is where a page of parts goes on: it sorts by name, then id.
func (p Part) Cursor() string { return p.Name + "\x1f" + p.ID }

// Key is a component as it is matched.
type Key struct{ ID, Ecosystem, Name, Version string }

// componentID is made from what is matched, so that two releases name the same component without asking.
func componentID(ecosystem, nameKey, version string) string {
	h := sha256.Sum256([]byte(ecosystem + "\x00" + nameKey + "\x00" + version))
	return "cmp_" + strings.ToLower(base32.HexEncoding.EncodeToString(h[:15]))
}

func (s *Service) insert(tx *store.Tx, tenant, release string, b Bill, doc Document) (bool, error) {
	var last string
	err := tx.QueryRow(`SELECT digest FROM sbom WHERE tenant = $1 AND release_id = $2 ORDER BY at DESC, id DESC LIMIT 1`, tenant, release).Scan(&last)
	if err == nil && last == doc.Blob {
		return false, nil
	}
	if err != nil && !errors.Is(err, store.ErrNoRows) {
		return false, err
	}
	quality, err := json.Marshal(b.Quality())
	if err != nil {
		return false, err
	}
	if _, err := tx.Exec(`INSERT INTO sbom (id, tenant, release_id, format, spec_version, digest, sha512, size, name, version, quality, at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`, store.NewID("bom"), tenant, release, string(b.Format), b.SpecVersion,
		doc.Blob, doc.SHA512, doc.Size, b.Name, b.Version, string(quality), store.Millis(s.cfg.Clock.Now())); err != nil {
		return false, err
	}
	if _, err := tx.Exec(`DELETE FROM release_component WHERE tenant = $1 AND release_id = $2`, tenant, release); err != nil {
		return false, err
	}
	parts := b.Components
	if b.Root != nil && b.Root.Matchable() { // a released third-party program may itself have a vulnerability
		parts = append(slices.Clip(parts), *b.Root)
	}
	var components, uses [][]any
	for _, c := range parts {
		key := Fold(c.Ecosystem, c.Package)
		id := componentID(c.Ecosystem, key, c.PackageVersion)
		components = append(components, []any{id, c.Ecosystem, key, c.PackageVersion})
		uses = append(uses, []any{release, id, tenant, c.Ecosystem, c.Name, c.Version, c.PURL, c.CPE, c.Type})
	}
	// In the order of their ids, so that two uploads at once do not wait for each other crosswise.
	slices.SortFunc(components, func(a, b []any) int { return strings.Compare(a[0].(string), b[0].(string)) })
	if err := insertMany(tx, `INSERT INTO component (id, ecosystem, name_key, version)`, components); err != nil {
		return false, err
	}
	err = insertMany(tx, `INSERT INTO release_component (release_id, component_id, tenant, ecosystem, name, version, purl, cpe, kind)`, uses)
	return err == nil, err
}

// insertMany inserts rows, fifty a statement: one by one costs six times as much on PostgreSQL.
func insertMany(tx *store.Tx, head string, rows [][]any) error {
	for batch := range slices.Chunk(rows, 50) {
		var q strings.Builder
		q.WriteString(head + " VALUES ")
		var args []any
		for i, row := range batch {
			if i > 0 {
				q.WriteString(", ")
			}
			for j, v := range row {
				args = append(args, v)
				if j == 0 {
					fmt.Fprintf(&q, "($%d", len(args))
				} else {
					fmt.Fprintf(&q, ", $%d", len(args))
				}
			}
			q.WriteString(")")
		}
		if _, err := tx.Exec(q.String()+" ON CONFLICT DO NOTHING", args...); err != nil {
			return err
		}
	}
	return nil
}

// Current returns the bill that counts for a release, or problem.NotFound.
func (s *Service) Current(ctx context.Context, tenant, release string) (Record, error) {
	r := Record{Release: release}
	var quality string
	var at int64
	err := s.cfg.DB.QueryRow(ctx, `SELECT id, format, spec_version, name, version, digest, sha512, size, quality, at FROM sbom
		WHERE tenant = $1 AND release_id = $2 ORDER BY at DESC, id DESC LIMIT 1`, tenant, release).
		Scan(&r.ID, &r.Format, &r.SpecVersion, &r.Name, &r.Version, &r.Document.Blob, &r.Document.SHA512, &r.Document.Size, &quality, &at)
	if errors.Is(err, store.ErrNoRows) {
		return Record{}, problem.NotFound("The release has no bill of materials.")
	}
	if err != nil {
		return Record{}, err
	}
	r.At = store.Time(at)
	return r, json.Unmarshal([]byte(quality), &r.Quality)
}

// Components lists the parts of a release after the cursor, ordered by name.
func (s *Service) Components(ctx context.Context, tenant, release, after string, limit int) ([]Part, error) {
	name, id, _ := strings.Cut(after, "\x1f")
	rows, err := s.cfg.DB.Query(ctx, `SELECT component_id, ecosystem, name, version, purl, cpe, kind FROM release_component
		WHERE tenant = $1 AND release_id = $2 AND (name > $3 OR (name = $3 AND component_id > $4)) ORDER BY name, component_id LIMIT $5`,
		tenant, release, name, id, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (p Part, err error) {
		return p, r.Scan(&p.ID, &p.Ecosystem, &p.Name, &p.Version, &p.PURL, &p.CPE, &p.Type)
	})
}

// Keys returns the components of a release that can be matched.
func (s *Service) Keys(tx *store.Tx, tenant, release string) ([]Key, error) {
	rows, err := tx.Query(`SELECT c.id, c.ecosystem, c.name_key, c.version FROM release_component rc JOIN component c ON c.id = rc.component_id
		WHERE rc.tenant = $1 AND rc.release_id = $2 AND c.ecosystem <> '' AND c.version <> '' ORDER BY c.id`, tenant, release)
	return store.Collect(rows, err, scanKey)
}

// Versions returns every version of a package that any release of any tenant contains.
func (s *Service) Versions(tx *store.Tx, ecosystem, name string) ([]Key, error) {
	rows, err := tx.Query(`SELECT id, ecosystem, name_key, version FROM component WHERE ecosystem = $1 AND name_key = $2 AND version <> '' ORDER BY id`,
		ecosystem, Fold(ecosystem, name))
	return store.Collect(rows, err, scanKey)
}

func scanKey(r *sql.Rows) (k Key, err error) {
	return k, r.Scan(&k.ID, &k.Ecosystem, &k.Name, &k.Version)
}

// Uses lists the releases of a tenant that contain a component, in the order of their ids, after the one given.
func (s *Service) Uses(tx *store.Tx, tenant, component, after string, limit int) ([]string, error) {
	rows, err := tx.Query(`SELECT release_id FROM release_component WHERE component_id = $1 AND tenant = $2 AND release_id > $3 ORDER BY release_id LIMIT $4`,
		component, tenant, after, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (release string, err error) { return release, r.Scan(&release) })
}
