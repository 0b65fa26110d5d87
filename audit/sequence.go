// SPDX-License-Identifier: AGPL-3.0-only

package audit

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/openthings-platform/openthings/store"
)

// Run sequences and signs until ctx ends. Any number of processes may run it; the lease lets one of them work.
func (l *Log) Run(ctx context.Context) error {
	var told, thinned time.Time
	for {
		wait, hurry := interval, l.now
		if err := l.drain(ctx); err != nil && ctx.Err() == nil {
			l.log.ErrorContext(ctx, "audit log cannot be sequenced", slog.Any("error", err))
			wait, hurry = pause, nil
		}
		if now := l.clock.Now(); now.Sub(told) >= time.Minute && l.tell(ctx) {
			told = now
		} else if now.Sub(thinned) >= time.Hour {
			thinned = now
			if err := l.thin(ctx); err != nil && ctx.Err() == nil {
				l.log.WarnContext(ctx, "old checkpoints cannot be thinned", slog.Any("error", err))
			}
		}
		t := l.clock.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			l.release(context.WithoutCancel(ctx))
			return nil
		case <-hurry:
			t.Stop()
		case <-t.C:
		}
	}
}

// tell warns operators of a log that stands still, and says whether it did.
func (l *Log) tell(ctx context.Context) bool {
	if why := l.behindReason(); why != nil {
		l.log.ErrorContext(ctx, "audit log stands still until an operator acknowledges", slog.Any("reason", why))
		return true
	}
	var oldest sql.NullInt64
	err := l.db.QueryRow(ctx, `SELECT min(at) FROM audit_entry WHERE pos IS NULL`).Scan(&oldest)
	if err != nil || !oldest.Valid {
		return false
	}
	age := l.clock.Now().Sub(store.Time(oldest.Int64))
	if age < late {
		return false
	}
	l.log.WarnContext(ctx, "audit entries wait for their position", slog.Duration("oldest", age))
	return true
}

// thin keeps one checkpoint an hour of those older than a day: a busy log makes 400,000 a day. Nothing is lost, since
// the root of any size can be computed and the consistency with any size be proven.
func (l *Log) thin(ctx context.Context) error {
	for {
		var n int64
		err := l.db.WriteBulk(ctx, func(tx *store.Tx) (err error) {
			n, err = tx.Exec(`DELETE FROM audit_head WHERE size IN (SELECT size FROM audit_head WHERE note IS NOT NULL AND at < $1
				AND size NOT IN (SELECT max(size) FROM audit_head GROUP BY at / 3600000) LIMIT 500)`, store.Millis(l.clock.Now().Add(-24*time.Hour)))
			return err
		})
		if err != nil || n == 0 {
			return err
		}
	}
}

// drain steps until nothing is pending.
func (l *Log) drain(ctx context.Context) error {
	for ctx.Err() == nil {
		more, err := l.step(ctx)
		if err != nil || !more {
			return err
		}
	}
	return ctx.Err()
}

// step gives positions to one batch of pending entries and signs what is unsigned. It says whether there may be more.
func (l *Log) step(ctx context.Context) (more bool, err error) {
	l.running.Lock()
	defer l.running.Unlock()
	if l.behindReason() != nil {
		return false, nil
	}
	var pending, unsigned int64
	// Reading first keeps an idle platform from writing.
	err = l.db.QueryRow(ctx, `SELECT (SELECT count(*) FROM (SELECT 1 FROM audit_entry WHERE pos IS NULL LIMIT 1) p),
		(SELECT count(*) FROM (SELECT 1 FROM audit_head WHERE note IS NULL LIMIT 1) h)`).Scan(&pending, &unsigned)
	if err != nil || pending+unsigned == 0 {
		return false, err
	}
	if l.lease.Epoch == 0 {
		lease, ok, err := l.db.TakeLease(ctx, leaseName, l.cfg.Holder, leaseTime)
		if err != nil || !ok {
			return false, err
		}
		l.lease, l.tree = lease, nil
	}
	n := 0
	if pending > 0 {
		if n, err = l.sequence(ctx); err != nil {
			l.tree = nil // whatever happened, what is stored counts
			if errors.Is(err, store.ErrFenced) {
				l.lease = store.Lease{}
				return false, nil // another process sequences now
			}
			return false, err
		}
	}
	return n == batch, l.sign(ctx)
}

// release lets another process take over at once.
func (l *Log) release(ctx context.Context) {
	l.running.Lock()
	defer l.running.Unlock()
	if l.lease.Epoch == 0 {
		return
	}
	if err := l.db.ReleaseLease(ctx, l.lease); err != nil && !errors.Is(err, store.ErrClosed) {
		l.log.WarnContext(ctx, "audit lease", slog.Any("error", err))
	}
	l.lease, l.tree = store.Lease{}, nil
}

// assign gives the next positions to pending entries. MATERIALIZED, and no second "pos IS NULL" on the outside: with it
// PostgreSQL's planner, once it has statistics of a fully sequenced table, reads the subquery again for every row.
const assign = `WITH p AS MATERIALIZED (
		SELECT id, CAST($1 AS bigint) + row_number() OVER (ORDER BY id) - 1 AS pos
		FROM (SELECT id FROM audit_entry WHERE pos IS NULL ORDER BY id LIMIT $2) q)
	UPDATE audit_entry SET pos = p.pos FROM p WHERE audit_entry.id = p.id RETURNING audit_entry.pos, audit_entry.leaf_hash`

type placed struct {
	pos  int64
	hash []byte
}

// sequence appends one batch to the tree in one transaction: fence, positions, tiles, tip, head.
func (l *Log) sequence(ctx context.Context) (n int, err error) {
	if l.tree == nil {
		if l.tree, err = l.load(ctx); err != nil {
			return 0, err
		}
	}
	var grown *tree
	err = l.db.Write(ctx, func(tx *store.Tx) error {
		grown = l.tree.clone() // this function may run twice
		if err := tx.Fence(l.lease, leaseTime); err != nil {
			return err
		}
		rows, err := tx.Query(assign, grown.size, batch)
		entries, err := store.Collect(rows, err, func(r *sql.Rows) (p placed, err error) { return p, r.Scan(&p.pos, &p.hash) })
		if err != nil {
			return fmt.Errorf("audit: positions: %w", err)
		}
		if n = len(entries); n == 0 {
			return nil
		}
		slices.SortFunc(entries, func(a, b placed) int { return int(a.pos - b.pos) }) // RETURNING has no order
		changed := map[tileID][]tlog.Hash{}
		for _, e := range entries {
			if e.pos != grown.size {
				return fmt.Errorf("audit: position %d was given where %d comes next", e.pos, grown.size)
			}
			h, err := toHash(e.hash)
			if err != nil {
				return err
			}
			grown.add(h, changed)
		}
		return l.keep(tx, l.tree.size, grown, changed)
	})
	if err != nil {
		return 0, err
	}
	l.tree = grown
	return n, nil
}

// keep stores the grown tree: the tiles it changed, the tip on the condition that it still is what the batch began
// with, and a head to be signed.
func (l *Log) keep(tx *store.Tx, from int64, t *tree, changed map[tileID][]tlog.Hash) error {
	for id, hashes := range changed {
		_, err := tx.Exec(`INSERT INTO audit_tile(level, tile, hashes) VALUES ($1, $2, $3) ON CONFLICT (level, tile) DO UPDATE SET hashes = excluded.hashes`,
			int64(id.level), id.n, joinHashes(hashes))
		if err != nil {
			return fmt.Errorf("audit: tile: %w", err)
		}
	}
	root := t.root()
	n, err := tx.Exec(`UPDATE audit_tip SET size = $1, root = $2, epoch = $3 WHERE one = 1 AND size = $4 AND epoch <= $3`, t.size, root[:], l.lease.Epoch, from)
	if err != nil {
		return fmt.Errorf("audit: tip: %w", err)
	}
	if n != 1 {
		return fmt.Errorf("audit: the tree has grown past %d under another sequencer", from)
	}
	if _, err := tx.Exec(`INSERT INTO audit_head(size, root, epoch, at) VALUES ($1, $2, $3, $4)`, t.size, root[:], l.lease.Epoch, store.Millis(l.clock.Now())); err != nil {
		return fmt.Errorf("audit: head: %w", err)
	}
	return nil
}

// load reads the right edge and refuses one that does not hash to the stored root.
func (l *Log) load(ctx context.Context) (t *tree, err error) {
	err = l.db.View(ctx, func(tx *store.Tx) error {
		want, _, err := tip(tx)
		if err != nil {
			return err
		}
		if t, err = newTiles(tx).load(want.N); err != nil {
			return err
		}
		if t.root() != want.Hash {
			return fmt.Errorf("audit: the stored tiles do not hash to the stored root at size %d; run: openthings audit verify", want.N)
		}
		return nil
	})
	return t, err
}

// sign signs every stored head that has no signature yet, from its stored root, also those that a killed process left
// behind. A checkpoint is journalled before it is published. Two processes that sign the same head make the same bytes.
func (l *Log) sign(ctx context.Context) error {
	type head struct {
		tlog.Tree
		note string
	}
	rows, err := l.db.Query(ctx, `SELECT size, root FROM audit_head WHERE note IS NULL ORDER BY size LIMIT 100`)
	heads, err := store.Collect(rows, err, func(r *sql.Rows) (h head, err error) {
		var root []byte
		if err := r.Scan(&h.N, &root); err != nil {
			return h, err
		}
		h.Hash, err = toHash(root)
		return h, err
	})
	if err != nil {
		return fmt.Errorf("audit: unsigned heads: %w", err)
	}
	if len(heads) == 0 {
		return nil
	}
	for i := range heads {
		signed, err := note.Sign(&note.Note{Text: checkpointText(l.Origin(), heads[i].Tree)}, l.signer)
		if err != nil {
			return fmt.Errorf("audit: sign: %w", err)
		}
		heads[i].note = string(signed)
		if l.journal != nil {
			if err := l.journal.append(record{Checkpoint: heads[i].note}); err != nil {
				return err
			}
		}
	}
	err = l.db.Write(ctx, func(tx *store.Tx) error {
		for _, h := range heads {
			if _, err := tx.Exec(`UPDATE audit_head SET note = $1 WHERE size = $2 AND note IS NULL`, h.note, h.N); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("audit: publish: %w", err)
	}
	l.mu.Lock()
	close(l.signed)
	l.signed = make(chan struct{})
	l.mu.Unlock()
	return nil
}
