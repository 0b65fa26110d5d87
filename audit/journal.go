// SPDX-License-Identifier: AGPL-3.0-only

package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// journal is a file of JSON lines beside the database, one per signed checkpoint, each on disk before the checkpoint is
// published.
type journal struct {
	last tlog.Tree // newest state at open; zero for an empty journal

	mu   sync.Mutex // guards the fields below
	file *os.File
	size int64 // of whole lines
}

// record is one line: a checkpoint, or the state from which an operator let the log go on.
type record struct {
	Checkpoint   string        `json:"checkpoint,omitempty"`
	Acknowledged *acknowledged `json:"acknowledged,omitempty"`
}

type acknowledged struct {
	Size   int64     `json:"size"`
	Root   tlog.Hash `json:"root"`
	At     int64     `json:"at"`
	Actor  string    `json:"actor"`
	Reason string    `json:"reason"`
}

// openJournal opens or makes the file, cuts off a line that a crash left unfinished, and reads the last one.
func openJournal(path string) (*journal, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("audit: journal: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit: journal: %w", err)
	}
	j := &journal{file: f}
	if err := j.recover(path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return j, nil
}

// journalTail is more than the longest line.
const journalTail = 64 << 10

func (j *journal) recover(path string) error {
	info, err := j.file.Stat()
	if err != nil {
		return fmt.Errorf("audit: journal: %w", err)
	}
	tail := make([]byte, min(info.Size(), journalTail))
	from := info.Size() - int64(len(tail))
	if _, err := j.file.ReadAt(tail, from); err != nil {
		return fmt.Errorf("audit: journal: %w", err)
	}
	whole := tail[:bytes.LastIndexByte(tail, '\n')+1]
	j.size = from + int64(len(whole))
	if err := j.file.Truncate(j.size); err != nil {
		return fmt.Errorf("audit: journal: %w", err)
	}
	if j.size > 0 {
		line := whole[bytes.LastIndexByte(whole[:max(len(whole)-1, 0)], '\n')+1:]
		if j.last, err = parseRecord(line); err != nil {
			return fmt.Errorf("audit: last line of the journal %s: %w", path, err)
		}
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("audit: journal: %w", err)
	}
	return errors.Join(j.file.Sync(), dir.Sync(), dir.Close())
}

// parseRecord reads which state of the tree a line of the journal stands for.
func parseRecord(line []byte) (tlog.Tree, error) {
	var r record
	if err := json.Unmarshal(line, &r); err != nil {
		return tlog.Tree{}, err
	}
	if a := r.Acknowledged; a != nil {
		if a.Size < 0 {
			return tlog.Tree{}, fmt.Errorf("%d is no tree size", a.Size)
		}
		return tlog.Tree{N: a.Size, Hash: a.Root}, nil
	}
	_, t, err := parseCheckpoint(r.Checkpoint)
	return t, err
}

func (j *journal) append(r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("audit: journal: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	n, err := j.file.Write(append(b, '\n'))
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil { // the next line must not be glued to half of this one
		return fmt.Errorf("audit: journal: %w", errors.Join(err, j.file.Truncate(j.size)))
	}
	j.size += int64(n)
	return nil
}

// compare says why the database does not continue what the journal has seen; nil if it does.
func (l *Log) compare(ctx context.Context, seen tlog.Tree) (behind, err error) {
	if seen.N == 0 {
		return nil, nil
	}
	err = l.db.View(ctx, func(tx *store.Tx) error {
		have, _, err := tip(tx)
		if err != nil {
			return err
		}
		if have.N < seen.N {
			behind = fmt.Errorf("the database ends at %d entries, but a checkpoint over %d was published: it was restored from a backup", have.N, seen.N)
			return nil
		}
		root, err := tlog.TreeHash(seen.N, tlog.TileHashReader(have, newTiles(tx)))
		if err != nil {
			return fmt.Errorf("audit: the tree at the journal's last checkpoint: %w", err)
		}
		if root != seen.Hash {
			behind = fmt.Errorf("the first %d entries of the database are not those of the published checkpoint: it went another way", seen.N)
		}
		return nil
	})
	return behind, err
}

// Behind says whether the database lacks entries that the journal has seen under a checkpoint, as after the restore of
// a backup. Then nothing is sequenced, and the device doors should stay shut, until Acknowledge.
func (l *Log) Behind() bool { return l.behindReason() != nil }

func (l *Log) behindReason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.behind
}

// Acknowledge lets a log that is behind its journal go on from where the database is. Who did it, why, and what was
// lost become both a leaf and a line of the journal; outsiders who hold the lost checkpoints will see the fork.
func (l *Log) Acknowledge(ctx context.Context, actor, reason string) error {
	l.running.Lock()
	defer l.running.Unlock()
	why := l.behindReason()
	if why == nil {
		return problem.Conflict("The audit log is not behind its journal; there is nothing to acknowledge.")
	}
	if reason == "" || len(reason) > 1000 {
		return problem.Invalid("An acknowledgement needs a reason of at most 1000 characters.").At("reason")
	}
	var have tlog.Tree
	if err := l.db.View(ctx, func(tx *store.Tx) (err error) { have, _, err = tip(tx); return err }); err != nil {
		return err
	}
	err := l.db.Write(ctx, func(tx *store.Tx) error {
		return Append(tx, Entry{Actor: actor, Kind: "audit.acknowledged", Subject: l.Origin(), Data: map[string]any{
			"reason": reason, "found": why.Error(), "journal_size": l.journal.last.N, "journal_root": l.journal.last.Hash, "size": have.N}})
	})
	if err != nil {
		return err
	}
	if err := l.journal.append(record{Acknowledged: &acknowledged{Size: have.N, Root: have.Hash, At: store.Millis(l.clock.Now()), Actor: actor, Reason: reason}}); err != nil {
		return err
	}
	l.mu.Lock()
	l.behind = nil
	l.mu.Unlock()
	return nil
}
