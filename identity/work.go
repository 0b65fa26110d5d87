// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"fmt"
	"log/slog"
	"math/big"
	"time"

	"github.com/openthings-platform/openthings/store"
)

// Work follows the feed of revocations until ctx ends. After the restore of a backup it first applies what the database
// lost and opens the doors. What fails is tried again; meanwhile the doors stay shut, or go stale.
//
// Lists and the journal's upkeep are done beside it: an issuer that lets us wait, or a file of a gigabyte, must not make
// this node deaf, which would end every session on it.
func (s *Service) Work(ctx context.Context) error {
	swept, severed := s.cfg.Clock.Now(), false
	var listed time.Time
	var failing string
	turn, done := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(done)
		var said said
		for range turn {
			if ctx.Err() == nil {
				s.keepHouse(ctx, &said)
			}
		}
	}()
	defer func() { close(turn); <-done }()
	for {
		err := s.look(ctx, &swept)
		if ctx.Err() != nil {
			return nil
		}
		wait := feedPoll
		if err != nil {
			wait = feedPause
		}
		if text := fmt.Sprint(err); err != nil && text != failing { // once, not every two seconds
			failing = text
			s.cfg.Log.Error("the feed of revocations cannot be followed; it is tried again", slog.Any("error", err))
		} else if err == nil {
			failing = ""
		}
		if now := s.cfg.Clock.Now(); err == nil && now.Sub(listed).Abs() >= listEvery {
			listed = now
			select {
			case turn <- struct{}{}:
			default: // the turn before is not over
			}
		}
		age, deaf := s.age(s.cfg.Sever)
		if deaf && !severed {
			s.sever(age)
		}
		severed = deaf
		t := s.cfg.Clock.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
	}
}

// look is one turn of Work.
func (s *Service) look(ctx context.Context, swept *time.Time) error {
	if s.shut.Load() != nil {
		return s.Recover(ctx)
	}
	if err := s.follow(ctx); err != nil {
		return err
	}
	now := s.cfg.Clock.Now()
	if now.Sub(*swept).Abs() < sweepEvery { // also after the clock was put back
		return nil
	}
	*swept = now
	return s.Sweep(ctx)
}

// said is what keepHouse has complained of: once, not every second.
type said struct {
	lists   listNews
	bundles string
}

// keepHouse is what may take its time: the lists, the bundles that another node published, and a journal that has grown.
func (s *Service) keepHouse(ctx context.Context, said *said) {
	s.workLists(ctx, &said.lists)
	text := ""
	if err := s.keepBundles(ctx); err != nil && ctx.Err() == nil {
		if text = err.Error(); text != said.bundles {
			s.cfg.Log.Error("trust bundles and their journal; it is tried again", slog.Any("error", err))
		}
	}
	said.bundles = text
	if s.journal == nil || s.shut.Load() != nil || s.journal.length() <= s.journal.worth() {
		return
	}
	if err := s.journal.compact(store.Millis(s.cfg.Clock.Now())); err != nil {
		s.cfg.Log.Error("the revocation journal could not be made smaller", slog.String("journal", s.journal.path), slog.Any("error", err))
	}
}

// jobAtIssuer tells the issuer about a revoked certificate, for its own lists; repeated until it answers. Nothing waits
// for it: the register has refused the certificate since the commit.
const jobAtIssuer = "identity.revoke-at-issuer"

type atIssuer struct {
	Authority string `json:"authority"`
	Serial    string `json:"serial"` // hex
	At        int64  `json:"at"`     // ms
}

func (s *Service) revokeAtIssuer(ctx context.Context, j store.Job) error {
	var r atIssuer
	if err := j.Decode(&r); err != nil {
		return err
	}
	serial, ok := new(big.Int).SetString(r.Serial, 16)
	if !ok {
		return fmt.Errorf("identity: serial number %q", r.Serial)
	}
	return s.cfg.Issuer.Revoke(ctx, r.Authority, serial, store.Time(r.At))
}
