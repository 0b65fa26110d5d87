// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// entry is one loss of trust, or the end of a suspension: a row of the feed and a line of the journal.
type entry struct {
	ID           string   `json:"id"`
	At           int64    `json:"at"` // ms
	Tenant       string   `json:"tenant"`
	Subject      string   `json:"subject"`
	Scope        Scope    `json:"scope,omitempty"`        // of a bar: what Subject names
	State        State    `json:"state,omitempty"`        // the device's new state
	Certificates []string `json:"certificates,omitempty"` // fingerprints now revoked
	Until        int64    `json:"until,omitempty"`        // ms; when the last of them ends anyway
	Reason       string   `json:"reason,omitempty"`
}

// cuts says whether live sessions end with it.
func (e entry) cuts() bool { return e.State == "" || e.State == Suspended || e.State.Barred() }

// link is an entry with its place in the chain of the feed.
type link struct {
	N    int64  `json:"n"`
	Hash string `json:"hash"`
	entry
}

// next is the hash of the entry's JSON after the one with the hash before.
func next(before string, entryJSON []byte) string {
	h := sha256.New()
	h.Write([]byte(before))
	h.Write(entryJSON)
	return fmt.Sprintf("%x", h.Sum(nil))
}

// journal is the append-only file DIR/distrust.jsonl, outside the database and its backups. It holds the feed, also what
// other nodes wrote. Once replayed, the entries that a restored database had lost stay where they are; the feed goes on
// after them, so that the last line always names a place in the feed.
type journal struct {
	path string

	mu   sync.Mutex // guards the fields below
	file *os.File
	size int64
	trim int64 // size from which compact has something to gain
}

// openJournal opens the file and cuts off a line that a crash tore: its row is in the database.
func openJournal(dir string) (*journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("identity: journal: %w", err)
	}
	path := filepath.Join(dir, "distrust.jsonl")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("identity: journal: %w", err)
	}
	j := &journal{path: path, file: f, trim: compactAbove}
	if j.size, err = wholeLines(f); err == nil {
		err = f.Truncate(j.size)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("identity: journal %s: %w", path, err)
	}
	return j, nil
}

// wholeLines is the length of the file up to and with its last line feed.
func wholeLines(f *os.File) (int64, error) {
	end, err := f.Seek(0, io.SeekEnd)
	buf := make([]byte, 64<<10)
	for err == nil && end > 0 {
		n := min(end, int64(len(buf)))
		if _, err = f.ReadAt(buf[:n], end-n); err != nil {
			break
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			return end - n + int64(i) + 1, nil
		}
		end -= n
	}
	return 0, err
}

// last returns the last line; false if there is none, or none that can be read.
func (j *journal) last() (l link, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for n := int64(4 << 10); ; n *= 8 {
		n = min(n, j.size)
		buf := make([]byte, n)
		if _, err := j.file.ReadAt(buf, j.size-n); err != nil || n == 0 {
			return link{}, false
		}
		if i := bytes.LastIndexByte(buf[:n-1], '\n'); i >= 0 || n == j.size {
			return parseLine(buf[i+1 : n-1])
		}
	}
}

func parseLine(b []byte) (l link, ok bool) {
	err := json.Unmarshal(b, &l)
	return l, err == nil && l.ID != "" && l.Subject != ""
}

// each calls fn with the lines from the beginning to end, some hundred at a time; memory does not grow with the file. A
// line that cannot be read is a link without an id.
func (j *journal) each(end int64, fn func(raw [][]byte, links []link) error) error {
	f, err := os.Open(j.path)
	if err != nil {
		return err
	}
	defer f.Close()
	var raw [][]byte
	var links []link
	b := bufio.NewReaderSize(io.LimitReader(f, end), 256<<10)
	for {
		line, err := b.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			if len(links) == 0 {
				return nil
			}
			return fn(raw, links)
		}
		if err != nil {
			return err
		}
		l, ok := parseLine(bytes.TrimSuffix(line, []byte("\n")))
		if !ok {
			l = link{}
		}
		raw, links = append(raw, line), append(links, l)
		if len(links) == readBatch {
			if err := fn(raw, links); err != nil {
				return err
			}
			raw, links = nil, nil
		}
	}
}

// append writes links and syncs: all of them, or none.
func (j *journal) append(links []link) error {
	var b []byte
	for _, l := range links {
		line, err := json.Marshal(l)
		if err != nil {
			return err
		}
		b = append(append(b, line...), '\n')
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	_, err := j.file.Write(b)
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		return errors.Join(err, j.file.Truncate(j.size))
	}
	j.size += int64(len(b))
	return nil
}

// length is the size of the file now.
func (j *journal) length() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.size
}

// worth is the size above which compact has something to gain.
func (j *journal) worth() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.trim
}

// compactAbove is the size below which a journal is left alone.
const compactAbove = 64 << 20

// compact leaves out what no replay needs any more: the state of a device before its last one, and revocations of
// certificates that ended so long ago that they open nothing, not even the way back (LongestLapse). Bars, and whatever it
// does not understand, stay. The new file takes the
// place of the old one by rename, complete and synced; lines that arrive meanwhile are in it.
func (j *journal) compact(now int64) error {
	before, over := j.length(), now-LongestLapse.Milliseconds()
	type subject [16]byte // a hash of it: a million of them take 40 MB
	key := func(l link) (s subject) {
		h := sha256.Sum256([]byte(l.Tenant + "\x00" + l.Subject))
		copy(s[:], h[:])
		return s
	}
	states := map[subject]int64{} // device -> ordinal of the last line with a state
	ordinal := int64(0)
	err := j.each(before, func(_ [][]byte, links []link) error {
		for _, l := range links {
			if ordinal++; l.ID != "" && l.State != "" {
				states[key(l)] = ordinal
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	t, err := os.CreateTemp(filepath.Dir(j.path), ".distrust-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(t.Name())
	w := bufio.NewWriterSize(t, 256<<10)
	total := ordinal
	ordinal = 0
	err = j.each(before, func(raw [][]byte, links []link) error {
		for i, l := range links {
			ordinal++
			spent := l.ID != "" && l.Scope == "" && (l.State != "" && states[key(l)] != ordinal || l.State == "" && l.Until > 0 && l.Until < over)
			if spent && ordinal < total { // the last line names the place in the feed
				continue
			}
			if _, err := w.Write(raw[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = t.Sync() // the bulk of it before anybody has to wait
	}
	if err != nil {
		return errors.Join(err, t.Close())
	}
	return j.replace(t, before)
}

// replace makes t, which holds what is left of the first size bytes, the journal.
func (j *journal) replace(t *os.File, size int64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	_, err := io.Copy(t, io.NewSectionReader(j.file, size, j.size-size))
	if err == nil {
		err = t.Sync()
	}
	var end int64
	if err == nil {
		end, err = t.Seek(0, io.SeekEnd)
	}
	if err = errors.Join(err, t.Close()); err != nil {
		return err
	}
	if err := os.Rename(t.Name(), j.path); err != nil {
		return err
	}
	f, err := os.OpenFile(j.path, os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	j.file.Close()
	j.file, j.size, j.trim = f, end, max(compactAbove, 2*end)
	d, err := os.Open(filepath.Dir(j.path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// replay applies one entry to a database that lost it. A device or certificate that the database lost as well needs
// nothing: what is not in the register is refused anyway.
func (s *Service) replay(tx *store.Tx, e entry) error {
	if n, err := s.chainEntry(tx, e); err != nil || n == 0 {
		return err // another node was faster
	}
	for _, fp := range e.Certificates {
		_, err := tx.Exec(`UPDATE certificate SET phase = $1, revoked = $2, reason = $3 WHERE fp = $4 AND phase <> $1`, PhaseRevoked, e.At, e.Reason, fp)
		if err != nil {
			return err
		}
	}
	if err := touchCertificates(tx, e.Certificates); err != nil {
		return err
	}
	leaf := audit.Entry{Tenant: e.Tenant, Actor: "system", Kind: "distrust.replayed", Subject: e.Subject, Data: e}
	if e.Scope != "" {
		if err := s.putBar(tx, Bar{Tenant: e.Tenant, Scope: e.Scope, ID: e.Subject, Reason: e.Reason, Actor: "system", At: store.Time(e.At)}); err != nil {
			return err
		}
		return audit.Append(tx, leaf)
	}
	d, err := deviceByID(tx.QueryRow, e.Tenant, e.Subject)
	switch {
	case problem.Is(err, problem.KindNotFound):
	case err != nil:
		return err
	case e.State != "" && (e.State.rank() > d.State.rank() && e.State.rank() >= Suspended.rank() || d.State == Suspended && e.State != Suspended):
		resume := d.Resume
		if e.State == Suspended {
			resume = d.State
		}
		if e.State.rank() < Suspended.rank() && d.Resume != "" && e.State.rank() > d.Resume.rank() { // a suspension ends in no more trust than this database gave
			e.State = d.Resume
		}
		if _, err := moveDevice(tx, d, e.State, resume, e.Reason, store.Time(e.At)); err != nil {
			return err
		}
		if err := touchSubject(tx, d.Tenant, d.ID); err != nil {
			return err
		}
		change := map[string]any{"from": d.State, "to": e.State, "reason": e.Reason, "product": d.Product, "solution": d.Solution}
		if err := s.cfg.DB.Emit(tx, "device.state", d.Tenant, d.ID, change); err != nil {
			return err
		}
	}
	if len(e.Certificates) > 0 && d.ID != "" {
		err := s.cfg.DB.Emit(tx, "device.revoked", e.Tenant, e.Subject, map[string]any{"reason": e.Reason, "barred": d.State.Barred(), "certificates": e.Certificates})
		if err != nil {
			return err
		}
	}
	return audit.Append(tx, leaf)
}
