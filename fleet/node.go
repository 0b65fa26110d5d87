// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"maps"
	"time"

	"github.com/openthings-platform/openthings/store"
)

const (
	nodeBeats = 5 * time.Second  // how often a node says that it lives, and looks for those that do not
	nodeLives = 20 * time.Second // after its last word
	buryRows  = 500              // devices of a dead node in one transaction

	reasonNodeGone = "the platform was restarted, or its node failed"
)

// watchNodes says that this node lives, marks the devices of dead ones as offline, and hears how many are online at the
// others. On SQLite nobody else has the file, and whoever had it before is gone.
func (s *Service) watchNodes(ctx context.Context) error {
	alone, now := s.cfg.DB.Engine() == store.SQLite, s.cfg.Clock.Now()
	if alone && !s.beats.IsZero() || now.Before(s.beats) {
		return nil
	}
	s.mu.Lock()
	online := maps.Clone(s.online)
	s.mu.Unlock()
	known, err := beat(ctx, s.cfg.DB, s.holder, now.Add(nodeLives), online)
	if err != nil {
		return err
	}
	if !known && !s.beats.IsZero() {
		s.sayAll()
	}
	dead, err := deadNodes(ctx, s.cfg.DB, s.holder, now, alone)
	if err != nil {
		return err
	}
	for _, d := range dead {
		if err := s.bury(ctx, d); err != nil {
			return err
		}
	}
	if !alone {
		others, err := elsewhere(ctx, s.cfg.DB, s.holder)
		if err != nil {
			return err
		}
		s.mu.Lock()
		if !maps.Equal(others, s.elsewhere) {
			s.elsewhere = others
			s.stirLocked()
		}
		s.mu.Unlock()
	}
	s.beats = now.Add(nodeBeats)
	return nil
}

// sayAll makes the next flush write everybody who is here: others took this node for dead, and said that its devices were
// gone.
func (s *Service) sayAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for d, p := range s.present {
		if p.here && len(p.news) == 0 {
			p.news = []connection{{from: p.since}}
		}
		s.present[d] = p
		s.dirty[d] = true
	}
}

func (s *Service) bury(ctx context.Context, d deadNode) error {
	now := s.cfg.Clock.Now()
	for _, step := range []func(*store.Tx) (int64, error){
		func(tx *store.Tx) (int64, error) { return closeStep(tx, d, buryRows) },
		func(tx *store.Tx) (int64, error) { return buryStep(tx, d, now, buryRows) },
	} {
		for n := int64(buryRows); n == buryRows; {
			if err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) (err error) {
				n, err = step(tx)
				return err
			}); err != nil {
				return err
			}
		}
	}
	s.mu.Lock()
	s.stirLocked()
	s.mu.Unlock()
	return nil
}
