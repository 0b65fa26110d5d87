// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/feed"
	"github.com/openthings-platform/openthings/vuln/record"
)

// Imported is what a feed changed.
type Imported struct {
	Feed      string   `json:"feed"`
	Digest    string   `json:"digest"`
	Records   int      `json:"records"`             // in the feed: records, entries of lists, scores and documents
	New       int      `json:"new"`                 // not known before
	Changed   int      `json:"changed"`             // known with other content
	Exploited int      `json:"exploited"`           // newly known as exploited
	Documents int      `json:"documents,omitempty"` // CSAF documents, of which statements were taken
	Unread    []string `json:"unread,omitempty"`    // what stands in no statement of ours, a sentence each
}

var feedName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,63}$`)

// recordsAtOnce are written in one transaction: about a thousand rows with their names and claims.
const recordsAtOnce = 50

// Import takes over what the feed says and brings the findings up to date. Only records whose content changed cost
// anything; a record that the feed does not name is left alone, since a feed may be a delta.
func (s *Service) Import(ctx context.Context, tenant, actor, name string, f *feed.Feed) (Imported, error) {
	out := Imported{Feed: name, Digest: f.Digest, Records: f.Held()}
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
		if batch = append(batch, arrived(r, body, known[r.ID] == "")); len(batch) < recordsAtOnce {
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
		if out.Exploited, err = s.putExploited(ctx, tenant, ofKEV(f.KEV)); err != nil {
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
			tenant, name, f.Digest, int64(f.Held()), catalogue, s.now()); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "feed.imported", Subject: name, Data: out})
	})
	if err != nil {
		return out, err
	}
	return out, s.match(ctx, tenant)
}

// incoming is a record on its way into the database; what takes time was done before the transaction.
type incoming struct {
	record record.Record
	packed []byte // its bytes, compressed
	claims []record.Claim
	fresh  bool // no content of it was known, so there is nothing to replace
}

var (
	packer, _   = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1)) // no option that could fail
	unpacker, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
)

func arrived(r record.Record, body []byte, fresh bool) incoming {
	return incoming{r, packer.EncodeAll(body, nil), r.Claims(), fresh}
}

// body reads the bytes of a record as they were published.
func body(tx *store.Tx, hash string) ([]byte, error) {
	var packed int64
	var b []byte
	if err := tx.QueryRow(`SELECT packed, body FROM vuln_body WHERE hash = $1`, hash).Scan(&packed, &b); err != nil || packed == 0 {
		return b, err
	}
	return unpacker.DecodeAll(b, nil)
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

// putRecords writes records, their names and claims, and marks them as touched in the same transaction: if the process
// dies now, the job goes on from the marks. gen is the generation that the batch was compared with.
func (s *Service) putRecords(tx *store.Tx, tenant, source string, gen int64, batch []incoming) error {
	var now int64
	if err := tx.QueryRow(`INSERT INTO vuln_state (tenant, gen, rules) VALUES ($1, 1, $2) ON CONFLICT (tenant) DO UPDATE SET gen = vuln_state.gen + 1 RETURNING gen`,
		tenant, int64(rulesVersion)).Scan(&now); err != nil {
		return err
	}
	if now != gen+1 { // another process
		return problem.Conflict("Another import changed the records meanwhile.").Hint("send the feed again")
	}
	for _, in := range batch {
		if err := s.putRecord(tx, tenant, source, now, in); err != nil {
			return fmt.Errorf("record %s: %w", in.record.ID, err)
		}
	}
	return s.cfg.DB.Enqueue(tx, jobMatch, tenant, s.cfg.Clock.Now().Add(matchLater), nil)
}

func (s *Service) putRecord(tx *store.Tx, tenant, source string, gen int64, in incoming) error {
	r := in.record
	if !in.fresh {
		if _, err := tx.Exec(`UPDATE vuln_record SET is_current = 0 WHERE tenant = $1 AND id = $2 AND is_current = 1`, tenant, r.ID); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(`INSERT INTO vuln_body (hash, packed, body) VALUES ($1, 1, $2) ON CONFLICT DO NOTHING`, r.Hash, in.packed); err != nil {
		return err
	}
	return s.derive(tx, tenant, source, gen, in)
}

// derive makes the content of a record the present one, by whichever source it came, with all that follows from it, and
// marks it to be compared.
func (s *Service) derive(tx *store.Tx, tenant, source string, gen int64, in incoming) error {
	r := in.record
	facts, err := json.Marshal(factsOf(r))
	if err != nil {
		return err
	}
	// What was said before may be said again, after the rules have changed.
	if _, err := tx.Exec(`INSERT INTO vuln_record (tenant, id, content_hash, source, withdrawn, reviewed, seen, is_current, summary, facts)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 1, $8, $9) ON CONFLICT (tenant, id, content_hash) DO UPDATE
		SET is_current = 1, withdrawn = excluded.withdrawn, reviewed = excluded.reviewed, summary = excluded.summary, facts = excluded.facts`,
		tenant, r.ID, r.Hash, source, store.Millis(r.Withdrawn), r.Reviewed(), s.now(), r.Summary, string(facts)); err != nil {
		return err
	}
	if err := s.exploitedBy(tx, tenant, r); err != nil {
		return err
	}
	if err := s.rename(tx, tenant, r.ID, r.Idents()); err != nil {
		return err
	}
	if !in.fresh {
		if _, err := tx.Exec(`DELETE FROM vuln_claim WHERE tenant || '' = $1 AND record_id = $2`, tenant, r.ID); err != nil {
			return err
		}
	}
	claims := make([][]any, len(in.claims))
	for i, c := range in.claims {
		claims[i] = []any{tenant, c.Space, c.Name, r.ID, string(c.Body)}
	}
	if err := tx.InsertMany(`INSERT INTO vuln_claim (tenant, space, name, record_id, body)`, claims, ``); err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO vuln_touched (tenant, record_id, gen) VALUES ($1, $2, $3) ON CONFLICT (tenant, record_id) DO UPDATE SET gen = excluded.gen`,
		tenant, r.ID, gen)
	return err
}

// rulesVersion grows whenever the same records would be claimed, grouped or judged otherwise than before: what was
// derived by older rules is derived again at the next start.
const rulesVersion = 1

// rebuild derives everything of a tenant again from its present records: names, groups, claims and, through them, hits.
// What comes out the same keeps its times.
func (s *Service) rebuild(ctx context.Context, tenant string) error {
	begun := time.Now() // for the log
	known, _, err := s.currentHashes(ctx, tenant)
	if err != nil {
		return err
	}
	ids := sortedKeys(known)
	for from := 0; from < len(ids); from += recordsAtOnce {
		var batch []incoming
		err := s.cfg.DB.View(ctx, func(tx *store.Tx) error {
			batch = nil
			for _, id := range ids[from:min(from+recordsAtOnce, len(ids))] {
				b, err := body(tx, known[id])
				if err != nil {
					return err
				}
				r, err := record.Parse(b)
				if err != nil {
					return fmt.Errorf("record %s: %w", id, err)
				}
				batch = append(batch, arrived(r, b, false))
			}
			return nil
		})
		if err != nil {
			return err
		}
		err = s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
			var gen int64
			if err := tx.QueryRow(`UPDATE vuln_state SET gen = gen + 1 WHERE tenant = $1 RETURNING gen`, tenant).Scan(&gen); err != nil {
				return err
			}
			for _, in := range batch {
				var source string
				err := tx.QueryRow(`SELECT source FROM vuln_record WHERE tenant = $1 AND id = $2 AND content_hash = $3 AND is_current = 1`,
					tenant, in.record.ID, in.record.Hash).Scan(&source)
				if errors.Is(err, store.ErrNoRows) { // an import changed it meanwhile, and derived it by the new rules
					continue
				}
				if err == nil {
					err = s.derive(tx, tenant, source, gen, in)
				}
				if err != nil {
					return fmt.Errorf("record %s: %w", in.record.ID, err)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if err := s.match(ctx, tenant); err != nil {
		return err
	}
	s.cfg.Log.InfoContext(ctx, "vulnerabilities were derived again", "tenant", tenant, "records", len(ids), "took", time.Since(begun))
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE vuln_state SET rules = $2 WHERE tenant = $1`, tenant, int64(rulesVersion))
		return err
	})
}
