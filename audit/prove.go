// SPDX-License-Identifier: AGPL-3.0-only

package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

// Checkpoint is a signed state of the whole log.
type Checkpoint struct {
	Size int64     `json:"size"`
	Root tlog.Hash `json:"root"`
	Note string    `json:"note" doc:"The signed checkpoint (C2SP tlog-checkpoint, signed note)"`
}

// Proven is a leaf with all that proves its place in the tree of one checkpoint.
type Proven struct {
	Pos   int64            `json:"pos"`
	Leaf  wire.Leaf        `json:"leaf"`
	Data  *wire.LeafData   `json:"data,omitempty" doc:"Absent once erased"`
	Proof tlog.RecordProof `json:"proof" doc:"Inclusion proof of RFC 6962 2.1.1, base64 hashes"`
}

// ProofSet is every sequenced entry about some subjects, in order, under one checkpoint.
type ProofSet struct {
	Checkpoint Checkpoint `json:"checkpoint"`
	Entries    []Proven   `json:"entries"`
}

// checkpoint reads the newest signed head; with size > 0 the one of that size.
func checkpoint(tx *store.Tx, size int64) (c Checkpoint, err error) {
	query, args := `SELECT size, root, note FROM audit_head WHERE note IS NOT NULL ORDER BY size DESC LIMIT 1`, []any(nil)
	if size > 0 {
		query, args = `SELECT size, root, note FROM audit_head WHERE note IS NOT NULL AND size = $1`, []any{size}
	}
	var root []byte
	err = tx.QueryRow(query, args...).Scan(&c.Size, &root, &c.Note)
	if errors.Is(err, store.ErrNoRows) {
		return c, problem.NotFound("There is no such checkpoint.").Hint("The newest one is at GET /v1/audit/checkpoint.")
	}
	if err != nil {
		return c, fmt.Errorf("audit: checkpoint: %w", err)
	}
	c.Root, err = toHash(root)
	return c, err
}

func (c Checkpoint) reader(tx *store.Tx) tlog.HashReader {
	return tlog.TileHashReader(tlog.Tree{N: c.Size, Hash: c.Root}, newTiles(tx))
}

// Checkpoint returns the newest signed checkpoint, or a not-found problem while the log is empty.
func (l *Log) Checkpoint(ctx context.Context) (c Checkpoint, err error) {
	err = l.db.View(ctx, func(tx *store.Tx) error { c, err = checkpoint(tx, 0); return err })
	return c, err
}

// Prove returns every sequenced entry of the tenant about the subjects, each with its inclusion proof under the newest
// signed checkpoint. Call Wait first if what was just written must be in it.
func (l *Log) Prove(ctx context.Context, tenant string, subjects ...string) (set ProofSet, err error) {
	err = l.db.View(ctx, func(tx *store.Tx) error {
		if set.Checkpoint, err = checkpoint(tx, 0); err != nil {
			return err
		}
		var entries []row
		for _, subject := range subjects {
			some, err := sequenced(tx, tenant, subject, set.Checkpoint.Size)
			if err != nil {
				return err
			}
			entries = append(entries, some...)
		}
		set.Entries, err = proveAll(tx, set.Checkpoint, entries)
		return err
	})
	return set, err
}

// Count says how many sequenced entries of the tenant there are about each of the subjects, and in a log of which size.
func (l *Log) Count(ctx context.Context, tenant string, subjects ...string) (size int64, counts []int, err error) {
	err = l.db.View(ctx, func(tx *store.Tx) error {
		c, err := checkpoint(tx, 0)
		size, counts = c.Size, make([]int, len(subjects))
		for i, subject := range subjects {
			if err != nil {
				return err
			}
			err = tx.QueryRow(`SELECT count(*) FROM audit_entry WHERE tenant = $1 AND subject = $2 AND pos < $3`, tenant, subject, c.Size).Scan(&counts[i])
		}
		return err
	})
	return size, counts, err
}

// ProveEntry proves one entry of the tenant. One that is still pending is a conflict problem.
func (l *Log) ProveEntry(ctx context.Context, tenant, id string) (set ProofSet, err error) {
	err = l.db.View(ctx, func(tx *store.Tx) error {
		e, err := oneEntry(tx, tenant, id)
		if err != nil {
			return err
		}
		if set.Checkpoint, err = checkpoint(tx, 0); err == nil && (!e.pos.Valid || e.pos.Int64 >= set.Checkpoint.Size) {
			err = problem.Conflict("The entry is still pending.").Hint("It gets its place in the log within a second; ask again.")
		}
		if err != nil {
			return err
		}
		set.Entries, err = proveAll(tx, set.Checkpoint, []row{e})
		return err
	})
	return set, err
}

// proveAll proves entries in the order of their positions and checks each proof, so that a row that was tampered with
// is refused here and not by whoever receives it.
func proveAll(tx *store.Tx, c Checkpoint, entries []row) ([]Proven, error) {
	sortByPos(entries)
	reader := newTiles(tx) // unchecked, since each proof is
	out := make([]Proven, 0, len(entries))
	for _, e := range entries {
		proof, err := tlog.ProveRecord(c.Size, e.pos.Int64, reader)
		if err != nil {
			return nil, fmt.Errorf("audit: proof of %s: %w", e.leaf.ID, err)
		}
		if err := tlog.CheckRecord(proof, c.Size, c.Root, e.pos.Int64, tlog.RecordHash(e.leaf.Bytes())); err != nil {
			return nil, fmt.Errorf("audit: entry %s is not what the log holds at %d: %w", e.leaf.ID, e.pos.Int64, err)
		}
		data, err := e.data()
		if err != nil {
			return nil, err
		}
		out = append(out, Proven{Pos: e.pos.Int64, Leaf: e.leaf, Data: data, Proof: proof})
	}
	return out, nil
}

// Consistency proves that the tree at checkpoint `to` (0: the newest) continues the tree of size `from`.
func (l *Log) Consistency(ctx context.Context, from, to int64) (c Checkpoint, proof tlog.TreeProof, err error) {
	err = l.db.View(ctx, func(tx *store.Tx) error {
		if c, err = checkpoint(tx, to); err != nil {
			return err
		}
		if from < 1 || from > c.Size {
			return problem.Invalid("There is no proof from size %d to size %d.", from, c.Size).At("query.from")
		}
		proof, err = tlog.ProveTree(c.Size, from, c.reader(tx))
		return err
	})
	return c, proof, err
}

// walkPage is how many entries are held at a time by Walk, and walkSpan how many places it looks through for them.
const (
	walkPage = 200
	walkSpan = 8192
)

// Walk hands the tenant's entries of a time, [from, to) in ms since 1970, to fn in the order of the log, page by page, each
// with its proof under the checkpoint. Keep says for the subjects of a page which are wanted; nil wants all. It holds one page
// in memory and no snapshot between two.
func (l *Log) Walk(ctx context.Context, c Checkpoint, tenant string, from, to int64, keep func(ctx context.Context, subjects []string) (map[string]bool, error), fn func([]Proven) error) error {
	for next := int64(0); next < c.Size; {
		end := min(next+walkSpan, c.Size)
		rows, err := l.db.Query(ctx, `SELECT `+columns+` FROM audit_entry WHERE pos >= $1 AND pos < $2 AND tenant = $3 AND at >= $4 AND at < $5 ORDER BY pos LIMIT $6`,
			next, end, tenant, from, to, walkPage)
		page, err := store.Collect(rows, err, scanRow)
		if err != nil {
			return fmt.Errorf("audit: walk: %w", err)
		}
		if next = end; len(page) == walkPage {
			next = page[walkPage-1].pos.Int64 + 1
		}
		if page, err = wanted(ctx, page, keep); err != nil {
			return err
		}
		if len(page) == 0 {
			continue
		}
		var proven []Proven
		err = l.db.View(ctx, func(tx *store.Tx) (err error) {
			proven, err = proveAll(tx, c, page)
			return err
		})
		if err == nil {
			err = fn(proven)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func wanted(ctx context.Context, page []row, keep func(context.Context, []string) (map[string]bool, error)) ([]row, error) {
	if keep == nil || len(page) == 0 {
		return page, nil
	}
	subjects := make([]string, len(page))
	for i, e := range page {
		subjects[i] = e.leaf.Subject
	}
	slices.Sort(subjects)
	yes, err := keep(ctx, slices.Compact(subjects))
	return slices.DeleteFunc(page, func(e row) bool { return !yes[e.leaf.Subject] }), err
}
