// SPDX-License-Identifier: AGPL-3.0-only

package audit

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/openthings-platform/openthings/store"
)

const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// tree is the right edge of the Merkle tree: all that is needed to append. right[l] holds the hashes of the rightmost
// tile at tile level l (tree level 8*l), which is never full.
type tree struct {
	size  int64
	right [][]tlog.Hash
}

type tileID struct {
	level int
	n     int64
}

// add appends a leaf hash and notes the content of each tile it changes.
func (t *tree) add(h tlog.Hash, changed map[tileID][]tlog.Hash) {
	n := t.size
	t.size++
	for l := 0; ; l++ {
		if l == len(t.right) {
			t.right = append(t.right, nil)
		}
		t.right[l] = append(t.right[l], h)
		n >>= tileHeight
		changed[tileID{l, n}] = t.right[l]
		if len(t.right[l]) < tileWidth {
			return
		}
		h, t.right[l] = perfect(t.right[l]), nil
	}
}

// root is the tree's hash as RFC 6962 section 2.1 defines it.
func (t *tree) root() tlog.Hash {
	root, some := tlog.Hash(sha256.Sum256(nil)), false
	for _, hashes := range t.right { // the smallest perfect subtrees stand rightmost
		for len(hashes) > 0 {
			left := len(hashes) & (len(hashes) - 1)
			h := perfect(hashes[left:])
			if some {
				h = tlog.NodeHash(h, root)
			}
			root, some, hashes = h, true, hashes[:left]
		}
	}
	return root
}

func (t *tree) clone() *tree {
	c := &tree{size: t.size, right: make([][]tlog.Hash, len(t.right))}
	for l, hashes := range t.right {
		c.right[l] = slices.Clone(hashes)
	}
	return c
}

// perfect hashes a perfect subtree of 2^k hashes.
func perfect(hashes []tlog.Hash) tlog.Hash {
	if len(hashes) == 1 {
		return hashes[0]
	}
	half := len(hashes) / 2
	return tlog.NodeHash(perfect(hashes[:half]), perfect(hashes[half:]))
}

// tiles reads stored tiles inside one snapshot, each once. It implements tlog.TileReader, to be used through
// tlog.TileHashReader, which checks what is read against a root; and tlog.HashReader, for many proofs that are checked
// one by one.
type tiles struct {
	tx     *store.Tx
	seen   map[tileID][]byte
	hashes map[int64]tlog.Hash // by stored index
}

func newTiles(tx *store.Tx) *tiles {
	return &tiles{tx: tx, seen: map[tileID][]byte{}, hashes: map[int64]tlog.Hash{}}
}

// ReadHashes is tlog.HashReader. What it returns is not checked.
func (r *tiles) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		h, ok := r.hashes[x]
		if !ok {
			t := tlog.TileForIndex(tileHeight, x)
			b, err := r.read(tileID{t.L, t.N}, t.W)
			if err != nil {
				return nil, err
			}
			if h, err = tlog.HashFromTile(t, b, x); err != nil {
				return nil, fmt.Errorf("audit: %w", err)
			}
			r.hashes[x] = h
		}
		out[i] = h
	}
	return out, nil
}

// read returns the first width hashes of a tile; a stored tile may have grown since the wanted size.
func (r *tiles) read(id tileID, width int) ([]byte, error) {
	b, ok := r.seen[id]
	if !ok {
		err := r.tx.QueryRow(`SELECT hashes FROM audit_tile WHERE level = $1 AND tile = $2`, int64(id.level), id.n).Scan(&b)
		if err != nil && !errors.Is(err, store.ErrNoRows) {
			return nil, fmt.Errorf("audit: tile %d/%d: %w", id.level, id.n, err)
		}
		r.seen[id] = b
	}
	if len(b) < width*tlog.HashSize {
		return nil, fmt.Errorf("audit: tile %d/%d holds %d bytes instead of %d", id.level, id.n, len(b), width*tlog.HashSize)
	}
	return b[:width*tlog.HashSize], nil
}

// Height is part of tlog.TileReader.
func (r *tiles) Height() int { return tileHeight }

// ReadTiles is part of tlog.TileReader.
func (r *tiles) ReadTiles(want []tlog.Tile) ([][]byte, error) {
	out := make([][]byte, len(want))
	for i, t := range want {
		var err error
		if out[i], err = r.read(tileID{t.L, t.N}, t.W); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// SaveTiles is part of tlog.TileReader; there is nothing to save.
func (r *tiles) SaveTiles([]tlog.Tile, [][]byte) {}

// load reads the right edge of a tree of the given size. The caller compares its root.
func (r *tiles) load(size int64) (*tree, error) {
	t := &tree{size: size}
	for l, n := 0, size; n > 0; l, n = l+1, n>>tileHeight {
		var b []byte
		if width := int(n % tileWidth); width > 0 {
			var err error
			if b, err = r.read(tileID{l, n >> tileHeight}, width); err != nil {
				return nil, err
			}
		}
		t.right = append(t.right, splitHashes(b))
	}
	return t, nil
}

func splitHashes(b []byte) []tlog.Hash {
	hashes := make([]tlog.Hash, len(b)/tlog.HashSize)
	for i := range hashes {
		copy(hashes[i][:], b[i*tlog.HashSize:])
	}
	return hashes
}

func joinHashes(hashes []tlog.Hash) []byte {
	b := make([]byte, 0, len(hashes)*tlog.HashSize)
	for _, h := range hashes {
		b = append(b, h[:]...)
	}
	return b
}

func toHash(b []byte) (tlog.Hash, error) {
	var h tlog.Hash
	if len(b) != tlog.HashSize {
		return h, fmt.Errorf("audit: a hash of %d bytes", len(b))
	}
	copy(h[:], b)
	return h, nil
}

// checkpointText is the body of a checkpoint: origin, size, root (C2SP tlog-checkpoint).
func checkpointText(origin string, t tlog.Tree) string {
	return fmt.Sprintf("%s\n%d\n%s\n", origin, t.N, t.Hash)
}

// parseCheckpoint reads the size and root of a checkpoint, signed or not, without looking at signatures.
func parseCheckpoint(text string) (origin string, t tlog.Tree, err error) {
	lines := strings.SplitN(text, "\n", 4)
	if len(lines) < 4 {
		return "", t, errors.New("audit: a checkpoint has three lines")
	}
	if t.N, err = strconv.ParseInt(lines[1], 10, 64); err != nil || t.N < 0 {
		return "", t, fmt.Errorf("audit: %q is no tree size", lines[1])
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil {
		return "", t, fmt.Errorf("audit: %q is no root hash", lines[2])
	}
	t.Hash, err = toHash(root)
	return lines[0], t, err
}
