// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// entry is one line of the journal: a loss of trust, or the end of a suspension.
type entry struct {
	ID           string   `json:"id"`
	At           int64    `json:"at"` // ms
	Tenant       string   `json:"tenant"`
	Subject      string   `json:"subject"`
	Scope        Scope    `json:"scope,omitempty"`        // of a bar: what Subject names
	State        State    `json:"state,omitempty"`        // the device's new state
	Certificates []string `json:"certificates,omitempty"` // fingerprints now revoked
	Reason       string   `json:"reason,omitempty"`
}

// journal is the append-only file DIR/distrust.jsonl. Each line is on disk before the caller of Write hears of success.
type journal struct {
	path string

	mu    sync.Mutex // guards the fields below
	file  *os.File
	owing [][]byte // lines that could not be written yet
}

// lost is what the journal has and the database has not.
type lost struct{ entries []entry }

// open refuses while the database is behind the journal.
func (s *Service) open() error {
	if l := s.shut.Load(); l != nil {
		return problem.Unavailable("The doors are shut: the database has lost %d revocations that the journal holds.", len(l.entries)).
			Hint("They are being applied again; if this lasts, the log of the platform says why.")
	}
	return nil
}

// openJournal compares file and database: what only the file has means that the database was restored, and shuts the
// doors; what only the database has was cut off between commit and append, and is appended.
func (s *Service) openJournal() error {
	if err := os.MkdirAll(s.cfg.Journal, 0o700); err != nil {
		return fmt.Errorf("identity: journal: %w", err)
	}
	path := filepath.Join(s.cfg.Journal, "distrust.jsonl")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("identity: journal: %w", err)
	}
	entries, whole, err := readJournal(f)
	if err == nil {
		err = f.Truncate(whole) // a line that was torn by a crash; its row is in the database
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("identity: journal %s: %w", path, err)
	}
	s.journal = &journal{path: path, file: f}
	rows, err := s.cfg.DB.Query(context.Background(), `SELECT id, entry FROM distrust ORDER BY id`)
	type row struct{ id, entry string }
	have, err := store.Collect(rows, err, func(r *sql.Rows) (x row, err error) { return x, r.Scan(&x.id, &x.entry) })
	if err != nil {
		return err
	}
	inDB, inFile := map[string]bool{}, map[string]bool{}
	for _, r := range have {
		inDB[r.id] = true
	}
	l := &lost{}
	for _, e := range entries {
		inFile[e.ID] = true
		if !inDB[e.ID] {
			l.entries = append(l.entries, e)
		}
	}
	for _, r := range have {
		if !inFile[r.id] {
			s.journal.owing = append(s.journal.owing, []byte(r.entry+"\n"))
		}
	}
	if err := s.journal.append(nil); err != nil {
		return fmt.Errorf("identity: journal %s: %w", path, err)
	}
	if len(l.entries) > 0 {
		s.shut.Store(l)
		s.cfg.Log.Error("the database is behind the revocation journal; the device doors stay shut until it is replayed",
			slog.String("journal", path), slog.Int("entries", len(l.entries)))
	}
	return nil
}

// readJournal returns the entries and the length of the whole lines. A last line without its end is not an entry; a
// broken line before it means that the file was damaged, which is an error.
func readJournal(r io.Reader) (entries []entry, whole int64, err error) {
	b := bufio.NewReader(r)
	for {
		line, err := b.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return entries, whole, nil
		}
		if err != nil {
			return nil, 0, err
		}
		var e entry
		if err := json.Unmarshal(line, &e); err != nil || e.ID == "" || e.Subject == "" {
			return nil, 0, fmt.Errorf("line %d is damaged: %.80q", len(entries)+1, bytes.TrimSpace(line))
		}
		entries = append(entries, e)
		whole += int64(len(line))
	}
}

// append writes what is owed and line, and syncs. What fails stays owed.
func (j *journal) append(line []byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if line != nil {
		j.owing = append(j.owing, line)
	}
	if len(j.owing) == 0 {
		return nil
	}
	end, err := j.file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err = j.file.Write(bytes.Join(j.owing, nil)); err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		return errors.Join(err, j.file.Truncate(end))
	}
	j.owing = nil
	return nil
}

// distrust records e in the database now and in the journal once that is durable.
func (s *Service) distrust(tx *store.Tx, e entry) error {
	if s.journal == nil {
		return nil
	}
	e.ID, e.At = store.NewID("dis"), store.Millis(s.cfg.Clock.Now())
	line, err := insertEntry(tx, e)
	if err != nil {
		return err
	}
	tx.After(func() {
		if err := s.journal.append(line); err != nil {
			s.cfg.Log.Error("a revocation is in the database but not in its journal; it will be written with the next one or at the next start",
				slog.String("journal", s.journal.path), slog.String("subject", e.Subject), slog.Any("error", err))
		}
	})
	return nil
}

func insertEntry(tx *store.Tx, e entry) (line []byte, err error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	_, err = tx.Exec(`INSERT INTO distrust(id, entry) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING`, e.ID, string(b))
	return append(b, '\n'), err
}

// replay applies one entry to a database that lost it. A device or certificate that the database lost as well needs
// nothing: what is not in the register is refused anyway.
func (s *Service) replay(tx *store.Tx, e entry) error {
	if _, err := insertEntry(tx, e); err != nil {
		return err
	}
	for _, fp := range e.Certificates {
		_, err := tx.Exec(`UPDATE certificate SET phase = $1, revoked = $2, reason = $3 WHERE fp = $4 AND phase <> $1`, PhaseRevoked, e.At, e.Reason, fp)
		if err != nil {
			return err
		}
	}
	if e.Scope != "" {
		_, err := tx.Exec(`INSERT INTO bar(scope, id, reason, at) VALUES ($1, $2, $3, $4) ON CONFLICT (scope, id) DO NOTHING`, e.Scope, e.Subject, e.Reason, e.At)
		if err != nil {
			return err
		}
	}
	d, err := deviceByID(tx.QueryRow, e.Tenant, e.Subject)
	switch {
	case problem.Is(err, problem.KindNotFound):
	case err != nil:
		return err
	case e.State != "" && (e.State.rank() > d.State.rank() || d.State == Suspended):
		resume := d.Resume
		if e.State == Suspended {
			resume = d.State
		}
		if _, err := moveDevice(tx, d, e.State, resume, e.Reason, store.Time(e.At)); err != nil {
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
	return audit.Append(tx, audit.Entry{Tenant: e.Tenant, Actor: "system", Kind: "distrust.replayed", Subject: e.Subject, Data: e})
}
