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
// published. A full file becomes <path>.1, in place of the one before.
type journal struct {
	path string
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

const (
	journalMax  = 16 << 20 // bytes, about 70,000 checkpoints
	journalTail = 64 << 10 // more than the longest line
)

// openJournal opens or makes the file, cuts off a line that a crash left unfinished, and reads the last one.
func openJournal(path string) (*journal, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("audit: journal: %w", err)
	}
	j := &journal{path: path}
	if err := j.open(); err != nil {
		return nil, err
	}
	line, err := lastLine(j.file, j.size)
	if err == nil && line == nil { // empty: just begun, or a crash came right after the other was put aside
		line, err = lastLineOf(path + ".1")
	}
	if err == nil && line != nil {
		j.last, err = parseRecord(line)
	}
	if err != nil {
		return nil, fmt.Errorf("audit: last line of the journal %s: %w", path, errors.Join(err, j.file.Close()))
	}
	return j, nil
}

// open opens the file for appending after its last whole line.
func (j *journal) open() error {
	f, err := os.OpenFile(j.path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("audit: journal: %w", err)
	}
	size, err := wholeLines(f)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Sync(), syncDir(filepath.Dir(j.path)))
	}
	if err != nil {
		return fmt.Errorf("audit: journal: %w", errors.Join(err, f.Close()))
	}
	j.file, j.size = f, size
	return nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// wholeLines is the size of f without an unfinished line at its end.
func wholeLines(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	tail := make([]byte, min(info.Size(), journalTail))
	from := info.Size() - int64(len(tail))
	if _, err := f.ReadAt(tail, from); err != nil {
		return 0, err
	}
	return from + int64(bytes.LastIndexByte(tail, '\n')+1), nil
}

// lastLine reads the last of the whole lines that f has up to size; nil if there is none.
func lastLine(f *os.File, size int64) ([]byte, error) {
	if size == 0 {
		return nil, nil
	}
	tail := make([]byte, min(size, journalTail))
	if _, err := f.ReadAt(tail, size-int64(len(tail))); err != nil {
		return nil, err
	}
	return tail[bytes.LastIndexByte(tail[:len(tail)-1], '\n')+1:], nil
}

func lastLineOf(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := wholeLines(f)
	if err != nil {
		return nil, err
	}
	return lastLine(f, size)
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

// putAside begins a new file. If that fails, the next append tries again.
func (j *journal) putAside() error {
	full := j.file
	if err := os.Rename(j.path, j.path+".1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("audit: journal: %w", err)
	}
	if err := j.open(); err != nil {
		return err
	}
	return full.Close()
}

func (j *journal) append(r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("audit: journal: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.size >= journalMax {
		if err := j.putAside(); err != nil {
			return err
		}
	}
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
