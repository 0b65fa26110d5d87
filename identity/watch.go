// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"log/slog"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// IssuerState is what the last look at the issuer said.
type IssuerState struct {
	OK      bool      `json:"ok"`
	Since   time.Time `json:"since,omitzero" doc:"When it became so, as far as this process knows"`
	Problem string    `json:"problem,omitempty" doc:"Why it cannot sign"`
}

// IssuerState says whether the issuer could sign when it was last asked, seconds ago.
func (s *Service) IssuerState() IssuerState {
	if st := s.issuer.Load(); st != nil {
		return *st
	}
	return IssuerState{OK: true} // nobody has looked yet
}

// How often the issuer is looked at, and how often it is asked what it keeps.
const (
	lookEvery      = 15 * time.Second
	reconcileEvery = time.Hour
)

// WatchIssuer looks at the issuer until ctx ends: whether it can sign, and what it keeps that the register does not
// know. A change is logged and announced (issuer.down, issuer.up). While it is away nothing is lost: certificates go on
// until their end, and devices that ask are told to come again.
func (s *Service) WatchIssuer(ctx context.Context) error {
	var reconciled time.Time
	for ctx.Err() == nil {
		s.lookAtIssuer(ctx)
		if now := s.cfg.Clock.Now(); s.IssuerState().OK && now.Sub(reconciled) >= reconcileEvery {
			if _, err := s.Reconcile(ctx); err != nil && ctx.Err() == nil {
				s.cfg.Log.ErrorContext(ctx, "the issuer's certificates could not be compared with the register", slog.Any("error", err))
			}
			reconciled = now
		}
		timer := s.cfg.Clock.NewTimer(lookEvery)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
	return nil
}

func (s *Service) lookAtIssuer(ctx context.Context) {
	err := s.cfg.Issuer.Health(ctx)
	if ctx.Err() != nil {
		return
	}
	before := s.IssuerState()
	now := IssuerState{OK: err == nil, Since: before.Since}
	if err != nil {
		now.Problem = problem.Of(err).Text
	}
	if now.OK != before.OK || before.Since.IsZero() {
		now.Since = s.cfg.Clock.Now()
	}
	s.issuer.Store(&now)
	if now.OK == before.OK {
		return
	}
	topic, data := "issuer.up", map[string]any{"since": now.Since}
	if !now.OK {
		topic, data["problem"] = "issuer.down", now.Problem
		s.cfg.Log.ErrorContext(ctx, "the issuer cannot sign; devices that ask for a certificate are told to come again", slog.Any("error", err))
	} else {
		s.cfg.Log.InfoContext(ctx, "the issuer can sign again", slog.Duration("away", now.Since.Sub(before.Since)))
	}
	if err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.cfg.DB.Emit(tx, topic, "", "issuer", data) }); err != nil && ctx.Err() == nil {
		s.cfg.Log.ErrorContext(ctx, "the state of the issuer could not be announced", slog.Any("error", err))
	}
}
