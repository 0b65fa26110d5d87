// SPDX-License-Identifier: AGPL-3.0-only

package audit

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
)

// Config is what the log needs from the house.
type Config struct {
	DB    *store.DB
	Clock clock.Clock  // default clock.System
	Log   *slog.Logger // default discards
	Keys  *seal.Keys   // seals the log key
	// Origin names this log in every checkpoint and signature, for ever: "log.example.com/openthings". It has no spaces
	// and no plus sign.
	Origin string
	// Journal is a file outside the database and its backups that every signed checkpoint is appended to, such as
	// DIR/journal/checkpoints. Without one, a restored old database goes unnoticed.
	Journal string
	// Holder names this process for the sequencer's lease, the same after a restart, so that a killed process need not
	// wait for its own lease to run out. Two that share a name are slow but safe: the fence counts. Default: random.
	Holder string
	// Require refuses unless the caller may do the verb to the whole of its tenant, and returns that tenant. It is
	// asked by every route and page.
	Require func(ctx context.Context, verb string) (tenant string, err error)
}

// Log is the Merkle log over one database.
type Log struct {
	cfg      Config
	db       *store.DB
	clock    clock.Clock
	log      *slog.Logger
	signer   note.Signer
	verifier note.Verifier
	key      string // the verifier's text
	journal  *journal
	now      chan struct{} // capacity 1: somebody waits, sequence at once

	running sync.Mutex // held by step; guards the two below
	lease   store.Lease
	tree    *tree // nil: read it again

	mu     sync.Mutex // guards the fields below
	behind error      // why the database does not continue the journal
	signed chan struct{}
}

const (
	leaseName = "audit"
	leaseTime = 10 * time.Second
	// interval is how long entries gather before they get positions: it bounds both the delay of a proof and the
	// number of checkpoints, each of which costs two commits and one fsync of the journal.
	interval = 200 * time.Millisecond
	// pause follows a failure, however many wait.
	pause = 2 * time.Second
	// batch is how many entries one transaction sequences; larger ones would hold up a revocation in the same writer.
	batch = 250
	// late is the age of a pending entry that operators are told of.
	late = 5 * time.Second
)

// New opens the log, makes its key and its empty tree at first use, and compares the database with the journal.
func New(cfg Config) (*Log, error) {
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Holder == "" {
		cfg.Holder = store.NewID("log")
	}
	l := &Log{cfg: cfg, db: cfg.DB, clock: cfg.Clock, log: cfg.Log, now: make(chan struct{}, 1), signed: make(chan struct{})}
	ctx := context.Background()
	if err := l.openKey(ctx); err != nil {
		return nil, err
	}
	if cfg.Journal != "" {
		var err error
		if l.journal, err = openJournal(cfg.Journal); err != nil {
			return nil, err
		}
		if l.behind, err = l.compare(ctx, l.journal.last); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// keyPurpose is what the private log key is sealed for.
const keyPurpose = "audit.log-key"

// openKey reads the log key; at first use it makes one, and the empty tip.
func (l *Log) openKey(ctx context.Context) error {
	var sealed []byte
	err := l.db.QueryRow(ctx, `SELECT verifier, sealed FROM audit_key WHERE one = 1`).Scan(&l.key, &sealed)
	if errors.Is(err, store.ErrNoRows) {
		private, public, err := note.GenerateKey(rand.Reader, l.cfg.Origin)
		if err != nil {
			return fmt.Errorf("audit: origin %q: %w", l.cfg.Origin, err)
		}
		fresh, err := l.cfg.Keys.Wrap(keyPurpose, []byte(private))
		if err != nil {
			return err
		}
		empty := sha256.Sum256(nil)
		err = l.db.Write(ctx, func(tx *store.Tx) error { // another process may be faster: its key counts
			if _, err := tx.Exec(`INSERT INTO audit_tip(one, size, root, epoch) VALUES (1, 0, $1, 0) ON CONFLICT (one) DO NOTHING`, empty[:]); err != nil {
				return err
			}
			if _, err := tx.Exec(`INSERT INTO audit_key(one, verifier, sealed) VALUES (1, $1, $2) ON CONFLICT (one) DO NOTHING`, public, fresh); err != nil {
				return err
			}
			return tx.QueryRow(`SELECT verifier, sealed FROM audit_key WHERE one = 1`).Scan(&l.key, &sealed)
		})
		if err != nil {
			return fmt.Errorf("audit: log key: %w", err)
		}
	} else if err != nil {
		return fmt.Errorf("audit: log key: %w", err)
	}
	private, err := l.cfg.Keys.Unwrap(keyPurpose, sealed)
	if err != nil {
		return fmt.Errorf("audit: log key: %w", err)
	}
	if l.signer, err = note.NewSigner(string(private)); err != nil {
		return fmt.Errorf("audit: log key: %w", err)
	}
	if l.verifier, err = note.NewVerifier(l.key); err != nil {
		return fmt.Errorf("audit: log key: %w", err)
	}
	return nil
}

// VerifierKey is the public log key, as golang.org/x/mod/sumdb/note writes it: origin+hash+key. Whoever checks proofs
// must have got it over a way that they trust.
func (l *Log) VerifierKey() string { return l.key }

// Origin is the name in the log's key, fixed when the key was made.
func (l *Log) Origin() string { return l.verifier.Name() }

// Sign signs text, which ends in a newline, with the log key. Its first line must not be the log's origin, so that it
// can never pass for a checkpoint.
func (l *Log) Sign(text string) ([]byte, error) {
	if origin, _, err := parseCheckpoint(text + "\n"); err == nil && origin == l.Origin() {
		return nil, errors.New("audit: a checkpoint is signed by the sequencer alone")
	}
	signed, err := note.Sign(&note.Note{Text: text}, l.signer)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	return signed, nil
}

// tip is the stored state of the tree.
func tip(tx *store.Tx) (t tlog.Tree, epoch int64, err error) {
	var root []byte
	if err := tx.QueryRow(`SELECT size, root, epoch FROM audit_tip WHERE one = 1`).Scan(&t.N, &root, &epoch); err != nil {
		return t, 0, fmt.Errorf("audit: tip: %w", err)
	}
	t.Hash, err = toHash(root)
	return t, epoch, err
}

// Close closes the journal. End Run first.
func (l *Log) Close() error {
	if l.journal == nil {
		return nil
	}
	return l.journal.file.Close()
}

// Wait returns once everything that is pending at the call has its position and stands under a signed checkpoint. Some
// process has to Run the log meanwhile.
func (l *Log) Wait(ctx context.Context) error {
	var newest sql.NullString
	if err := l.db.QueryRow(ctx, `SELECT max(id) FROM audit_entry WHERE pos IS NULL`).Scan(&newest); err != nil {
		return fmt.Errorf("audit: wait: %w", err)
	}
	for {
		l.mu.Lock()
		signed, behind := l.signed, l.behind
		l.mu.Unlock()
		if behind != nil {
			return problem.Unavailable("The audit log takes no new entries until an operator acknowledges its state.").Because(behind)
		}
		var open int64
		err := l.db.QueryRow(ctx, `SELECT (SELECT count(*) FROM audit_entry WHERE pos IS NULL AND id <= $1) + (SELECT count(*) FROM audit_head WHERE note IS NULL)`,
			newest.String).Scan(&open)
		if err != nil {
			return fmt.Errorf("audit: wait: %w", err)
		}
		if open == 0 {
			return nil
		}
		select {
		case l.now <- struct{}{}:
		default:
		}
		t := l.clock.NewTimer(interval) // another process may be the one that sequences
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-signed:
			t.Stop()
		case <-t.C:
		}
	}
}
