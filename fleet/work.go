// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/store"
)

const (
	foldEvery = 2 * time.Second
	foldLease = "fleet.fold"
	foldTTL   = 10 * time.Second

	recountEvery = 24 * time.Hour
	recountLease = "fleet.recount"
)

// Work watches the nodes, writes presence, folds counters and checks them daily until ctx ends; then it writes what it
// still holds.
func (s *Service) Work(ctx context.Context) error {
	s.cfg.DB.Handle(jobEver, s.answerAgain)
	var wg sync.WaitGroup
	wg.Go(func() { s.daily(ctx) })
	defer wg.Wait()
	for ctx.Err() == nil {
		if err := errors.Join(s.watchNodes(ctx), s.flush(ctx), s.Fold(ctx)); err != nil && ctx.Err() == nil {
			s.cfg.Log.ErrorContext(ctx, "fleet rows are behind", slog.Any("error", err))
		}
		t := s.cfg.Clock.NewTimer(foldEvery)
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-t.C:
		}
		t.Stop()
	}
	err := s.flush(context.WithoutCancel(ctx))
	if errors.Is(err, store.ErrClosed) {
		return nil
	}
	return err
}

// daily counts everything again and forgets answers that nobody asks for, on one of the nodes, until ctx ends.
func (s *Service) daily(ctx context.Context) {
	for ctx.Err() == nil {
		_, ok, err := s.cfg.DB.TakeLease(ctx, recountLease, s.holder, recountEvery-time.Hour)
		if err == nil && ok {
			_, err = s.Recount(ctx)
			err = errors.Join(err, s.forgetAnswers(ctx))
		}
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.ErrorContext(ctx, "the counters of releases cannot be checked", slog.Any("error", err))
		}
		t := s.cfg.Clock.NewTimer(recountEvery)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}
