// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base32"
	"encoding/json"
	"errors"
	"maps"
	"math"
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
	ID        string   `json:"id"`        // of the spelling, the same in every release that writes it so
	Component string   `json:"component"` // what is matched, whatever its spelling
	Name      string   `json:"name"`
	Version   string   `json:"version"`
	PURL      string   `json:"purl,omitempty"`
	CPE       string   `json:"cpe,omitempty"`
	Type      string   `json:"type,omitempty"`
	Licence   string   `json:"licence,omitempty"`
	Supplier  string   `json:"supplier,omitempty"`
	Spaces    []string `json:"spaces,omitempty"` // the kinds of names it is matched by; none: it cannot be matched
}

// Cursor is where a page of parts goes on: it sorts by name, then id.
func (p Part) Cursor() string { return p.Name + "\x1f" + p.ID }

// Matchable reports whether the part can be compared with vulnerability records at all.
func (p Part) Matchable() bool { return len(p.Spaces) > 0 }

// forever is the end of what has not ended.
const forever = math.MaxInt64

// componentID is made from what is matched, so that two releases name the same component without asking. A component
// that cannot be matched is told apart by its spelling.
func componentID(c Component) string {
	ids := c.Identities
	if len(ids) == 0 {
		ids = []Identity{{"", c.Name, c.Version, ""}}
	}
	var text []string
	for _, id := range ids {
		text = append(text, id.Space, id.Name, id.Version)
		if id.Vendor != "" {
			text = append(text, id.Vendor)
		}
	}
	return contentID("cmp_", text)
}

func contentID(prefix string, text []string) string {
	h := sha256.Sum256([]byte(strings.Join(text, "\x00")))
	return prefix + strings.ToLower(base32.HexEncoding.EncodeToString(h[:15]))
}

func partOf(c Component) Part {
	p := Part{Component: componentID(c), Name: c.Name, Version: c.Version, PURL: c.PURL, CPE: c.CPE, Type: c.Type,
		Licence: c.Licence(), Supplier: c.Supplier.Name, Spaces: c.Spaces()}
	p.ID = contentID("prt_", []string{p.Component, p.Name, p.Version, p.PURL, p.CPE, p.Type, p.Licence, p.Supplier})
	return p
}

func (s *Service) insert(tx *store.Tx, tenant, release string, b Bill, doc Document) (bool, error) {
	var last string
	var lastAt int64
	err := tx.QueryRow(`SELECT digest, at FROM sbom WHERE tenant = $1 AND release_id = $2 ORDER BY at DESC, id DESC LIMIT 1`, tenant, release).Scan(&last, &lastAt)
	if err == nil && last == doc.Blob {
		return false, nil
	}
	if err != nil && !errors.Is(err, store.ErrNoRows) {
		return false, err
	}
	at := max(store.Millis(s.cfg.Clock.Now()), lastAt) // a clock that was set back rewrites no history
	quality, err := json.Marshal(b.Quality())
	if err != nil {
		return false, err
	}
	if _, err := tx.Exec(`INSERT INTO sbom (id, tenant, release_id, format, spec_version, digest, sha512, size, name, version, quality, at, reader, uri, purl)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`, store.NewID("bom"), tenant, release, string(b.Format), b.SpecVersion,
		doc.Blob, doc.SHA512, doc.Size, b.Name, b.Version, string(quality), at, int64(Reader), b.URI, b.purl()); err != nil {
		return false, err
	}
	return true, s.list(tx, tenant, release, b, at, at)
}

// list makes what the release lists equal to the bill: parts that are new begin at from, parts that are gone end at to.
func (s *Service) list(tx *store.Tx, tenant, release string, b Bill, from, to int64) error {
	rows, err := tx.Query(`SELECT part_id FROM release_part WHERE release_id = $1 AND tenant = $2 AND to_ts = 9223372036854775807`, release, tenant)
	listed, err := store.Collect(rows, err, func(r *sql.Rows) (id string, err error) { return id, r.Scan(&id) })
	if err != nil {
		return err
	}
	gone := map[string]bool{}
	for _, id := range listed {
		gone[id] = true
	}
	components := b.Components
	if b.Root != nil && b.Root.Matchable() { // a released third-party program may itself have a vulnerability
		components = append(slices.Clip(components), *b.Root)
	}
	var parts, identities, uses [][]any
	known := map[string]bool{}
	for _, c := range components {
		p := partOf(c)
		if known[p.ID] {
			continue
		}
		known[p.ID] = true
		if gone[p.ID] {
			delete(gone, p.ID)
			continue
		}
		parts = append(parts, []any{p.ID, p.Component, p.Name, p.Version, p.PURL, p.CPE, p.Type, p.Licence, p.Supplier, strings.Join(p.Spaces, " / ")})
		uses = append(uses, []any{release, p.ID, from, int64(forever), p.Component, tenant})
		if !known[p.Component] {
			known[p.Component] = true
			for _, id := range c.Identities {
				identities = append(identities, []any{p.Component, id.Space, id.Name, id.Version, id.Vendor})
			}
		}
	}
	ended := slices.Sorted(maps.Keys(gone))
	for batch := range slices.Chunk(ended, idsAtOnce) {
		in, args := store.In([]any{release, tenant, to}, batch)
		// What began at this very instant was listed for no time at all.
		if _, err := tx.Exec(`DELETE FROM release_part WHERE release_id = $1 AND tenant = $2 AND from_ts >= $3 AND to_ts = 9223372036854775807 AND part_id IN `+in, args...); err != nil {
			return err
		}
		if _, err := tx.Exec(`UPDATE release_part SET to_ts = $3 WHERE release_id = $1 AND tenant = $2 AND to_ts = 9223372036854775807 AND part_id IN `+in, args...); err != nil {
			return err
		}
	}
	// In the order of their ids, so that two uploads at once do not wait for each other crosswise.
	byID := func(a, b []any) int { return strings.Compare(a[0].(string), b[0].(string)) }
	slices.SortFunc(parts, byID)
	slices.SortStableFunc(identities, byID)
	if err := tx.InsertMany(`INSERT INTO part (id, component_id, name, version, purl, cpe, kind, licence, supplier, spaces)`, parts, `ON CONFLICT DO NOTHING`); err != nil {
		return err
	}
	if err := tx.InsertMany(`INSERT INTO component_identity (component_id, space, name, version, vendor)`, identities, `ON CONFLICT DO NOTHING`); err != nil {
		return err
	}
	slices.SortFunc(uses, func(a, b []any) int { return strings.Compare(a[1].(string), b[1].(string)) })
	return tx.InsertMany(`INSERT INTO release_part (release_id, part_id, from_ts, to_ts, component_id, tenant)`, uses, `ON CONFLICT DO NOTHING`)
}

// idsAtOnce bounds the values of one statement.
const idsAtOnce = 256

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

const partColumns = `p.id, p.component_id, p.name, p.version, p.purl, p.cpe, p.kind, p.licence, p.supplier, p.spaces`

func scanPart(r *sql.Rows, more ...any) (p Part, err error) {
	var spaces string
	err = r.Scan(append([]any{&p.ID, &p.Component, &p.Name, &p.Version, &p.PURL, &p.CPE, &p.Type, &p.Licence, &p.Supplier, &spaces}, more...)...)
	if spaces != "" {
		p.Spaces = strings.Split(spaces, " / ")
	}
	return p, err
}

// Components lists the parts of a release after the cursor, ordered by name.
func (s *Service) Components(ctx context.Context, tenant, release, after string, limit int) ([]Part, error) {
	name, id, _ := strings.Cut(after, "\x1f")
	rows, err := s.cfg.DB.Query(ctx, `SELECT `+partColumns+` FROM release_part u JOIN part p ON p.id = u.part_id
		WHERE u.release_id = $1 AND u.tenant = $2 AND u.to_ts = 9223372036854775807 AND (p.name > $3 OR (p.name = $3 AND p.id > $4))
		ORDER BY p.name, p.id LIMIT $5`, release, tenant, name, id, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (Part, error) { return scanPart(r) })
}
