// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/openthings-platform/openthings/store"
)

const (
	foldEvery = 2 * time.Second
	foldTTL   = 10 * time.Second
	foldRows  = 300 // deltas folded in one transaction: at most two counters each
)

// Work watches the nodes, writes presence and folds counters until ctx ends; then it writes what it still holds.
func (s *Service) Work(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := errors.Join(s.watchNodes(ctx), s.flush(ctx), s.foldAll(ctx)); err != nil && ctx.Err() == nil {
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

// foldAll folds all deltas there are, if the lease is ours.
func (s *Service) foldAll(ctx context.Context) error {
	for {
		more, err := hasDeltas(ctx, s.cfg.DB)
		if err != nil || !more {
			return err
		}
		lease, ok, err := s.cfg.DB.TakeLease(ctx, "fleet.fold", s.holder, foldTTL)
		if err != nil || !ok {
			return err
		}
		if err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
			if err := tx.Fence(lease, foldTTL); err != nil {
				return err
			}
			return fold(tx)
		}); err != nil {
			return err
		}
	}
}

// fold moves some deltas into the counters.
func fold(tx *store.Tx) error {
	deltas, err := takeDeltas(tx, foldRows)
	if err != nil {
		return err
	}
	type dayKey struct {
		tenant, release string
		day             int64
	}
	counts, days := map[[2]string]int64{}, map[dayKey]int64{}
	for _, d := range deltas {
		counts[[2]string{d.tenant, d.release}] += d.n
		days[dayKey{d.tenant, d.release, d.at / dayMillis}] += d.n
	}
	for k, n := range counts {
		if n == 0 {
			continue
		}
		if err := addCount(tx, k[0], k[1], n); err != nil {
			return err
		}
	}
	for k, n := range days {
		if n == 0 {
			continue
		}
		if err := addDay(tx, k.tenant, k.release, k.day, n); err != nil {
			return err
		}
	}
	return nil
}
