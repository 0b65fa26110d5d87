// SPDX-License-Identifier: AGPL-3.0-only

package audit

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/openthings-platform/openthings/store"
)

// Report is what VerifyDB found.
type Report struct {
	Size        int64     `json:"size"`        // entries in the tree
	Root        tlog.Hash `json:"root"`        // recomputed from the leaves
	Pending     int64     `json:"pending"`     // entries without a position yet
	Erased      int64     `json:"erased"`      // entries whose payload was erased, with the record of it
	Checkpoints int64     `json:"checkpoints"` // signed heads, each checked
	Unsigned    int64     `json:"unsigned"`    // heads not yet signed
	From        time.Time `json:"from,omitzero"`
	To          time.Time `json:"to,omitzero"`
	Faults      []string  `json:"faults"` // what is wrong, the first 100
}

// OK says that nothing is wrong.
func (r Report) OK() bool { return len(r.Faults) == 0 }

func (r *Report) fault(format string, args ...any) {
	if len(r.Faults) < 100 {
		r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
	}
}

// verifyPage is how many entries are read at a time.
const verifyPage = 1000

// VerifyDB recomputes the whole log from its leaves, on one snapshot: every stored root, the signature on every
// checkpoint under verifierKey, every payload's digest, the tiles and the tip. Progress, if not nil, is told how many
// entries are done. The error is only about reading; what is wrong with the log is in the report.
func VerifyDB(ctx context.Context, db *store.DB, verifierKey string, progress func(done, total int64)) (Report, error) {
	v, err := note.NewVerifier(verifierKey)
	if err != nil {
		return Report{}, fmt.Errorf("audit: the log key: %w", err)
	}
	c := checker{verifier: v, tree: &tree{}, gone: map[string]bool{}, tiles: map[tileID][]tlog.Hash{}, r: Report{Faults: []string{}}}
	err = db.View(ctx, func(tx *store.Tx) (err error) {
		c.tx = tx
		if c.want, _, err = tip(tx); err != nil {
			return err
		}
		for c.tree.size < c.want.N {
			if err := c.page(); err != nil {
				return err
			}
			if progress != nil {
				progress(c.tree.size, c.want.N)
			}
		}
		return c.finish()
	})
	return c.r, err
}

// checker recomputes the log page by page.
type checker struct {
	tx       *store.Tx
	verifier note.Verifier
	want     tlog.Tree // the stored tip
	tree     *tree     // recomputed so far
	tiles    map[tileID][]tlog.Hash
	gone     map[string]bool // entries without payload whose erasure is not recorded so far
	r        Report
}

func (c *checker) page() error {
	from, end := c.tree.size, min(c.tree.size+verifyPage, c.want.N)
	rows, err := c.tx.Query(`SELECT `+columns+` FROM audit_entry WHERE pos >= $1 AND pos < $2 ORDER BY pos`, from, end)
	entries, err := store.Collect(rows, err, scanRow)
	if err != nil {
		return fmt.Errorf("audit: verify: %w", err)
	}
	heads, err := c.heads(from, end)
	if err != nil {
		return err
	}
	for pos := from; pos < end; pos++ {
		if len(entries) > 0 && entries[0].pos.Int64 == pos {
			c.entry(entries[0])
			entries = entries[1:]
		} else {
			c.r.fault("the entry at position %d is missing", pos)
			c.tree.add(tlog.Hash{}, c.tiles) // every later root differs, as it must
		}
		if h, ok := heads[c.tree.size]; ok {
			c.head(h)
		}
	}
	c.compareTiles(tileWidth)
	return nil
}

// entry adds one leaf, recomputed from its columns.
func (c *checker) entry(e row) {
	hash := tlog.RecordHash(e.leaf.Bytes())
	c.tree.add(hash, c.tiles)
	if !bytes.Equal(hash[:], e.hash) {
		c.r.fault("entry %s at position %d was changed", e.leaf.ID, e.pos.Int64)
	}
	at := store.Time(e.leaf.At)
	if c.r.From.IsZero() || at.Before(c.r.From) {
		c.r.From = at
	}
	if at.After(c.r.To) {
		c.r.To = at
	}
	d, err := e.data()
	switch {
	case err != nil:
		c.r.fault("%v", err)
	case d == nil:
		c.gone[e.leaf.ID] = true
	case e.leaf.Kind == kindErased:
		var of erased
		if err := json.Unmarshal(d.Data, &of); err == nil && c.gone[of.Entry] {
			delete(c.gone, of.Entry)
			c.r.Erased++
		}
	}
}

type storedHead struct {
	size int64
	root []byte
	note sql.NullString
}

func (c *checker) heads(from, end int64) (map[int64]storedHead, error) {
	rows, err := c.tx.Query(`SELECT size, root, note FROM audit_head WHERE size > $1 AND size <= $2`, from, end)
	found, err := store.Collect(rows, err, func(r *sql.Rows) (h storedHead, err error) { return h, r.Scan(&h.size, &h.root, &h.note) })
	if err != nil {
		return nil, fmt.Errorf("audit: verify: %w", err)
	}
	out := make(map[int64]storedHead, len(found))
	for _, h := range found {
		out[h.size] = h
	}
	return out, nil
}

func (c *checker) head(h storedHead) {
	root := c.tree.root()
	if !bytes.Equal(root[:], h.root) {
		c.r.fault("the stored root at size %d is not that of the entries", h.size)
	}
	if !h.note.Valid {
		c.r.Unsigned++
		return
	}
	c.r.Checkpoints++
	n, err := note.Open([]byte(h.note.String), note.VerifierList(c.verifier))
	if err != nil {
		c.r.fault("the checkpoint at size %d is not signed by this log key: %v", h.size, err)
		return
	}
	if n.Text != checkpointText(c.verifier.Name(), tlog.Tree{N: h.size, Hash: root}) {
		c.r.fault("the checkpoint at size %d says something else than the entries", h.size)
	}
}

// compareTiles compares recomputed tiles of at least width hashes with the stored ones and forgets them.
func (c *checker) compareTiles(width int) {
	stored := newTiles(c.tx)
	for id, hashes := range c.tiles {
		if len(hashes) < width {
			continue
		}
		if b, err := stored.read(id, len(hashes)); err != nil || !bytes.Equal(b, joinHashes(hashes)) {
			c.r.fault("the stored tile %d/%d is not that of the entries", id.level, id.n)
		}
		delete(c.tiles, id)
	}
}

func (c *checker) finish() error {
	c.compareTiles(1)
	c.r.Size, c.r.Root = c.tree.size, c.tree.root()
	if c.r.Root != c.want.Hash {
		c.r.fault("the tip's root is not that of the entries")
	}
	for id := range c.gone {
		c.r.fault("the payload of entry %s is gone and no erasure of it is recorded", id)
	}
	var beyond int64
	err := c.tx.QueryRow(`SELECT (SELECT count(*) FROM audit_entry WHERE pos IS NULL), (SELECT count(*) FROM audit_entry WHERE pos >= $1)
		+ (SELECT count(*) FROM audit_head WHERE size > $1)`, c.want.N).Scan(&c.r.Pending, &beyond)
	if err != nil {
		return fmt.Errorf("audit: verify: %w", err)
	}
	if beyond > 0 {
		c.r.fault("%d entries or heads stand beyond the tip", beyond)
	}
	return nil
}
