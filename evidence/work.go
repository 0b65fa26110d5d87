// SPDX-License-Identifier: AGPL-3.0-only

package evidence

import (
	"context"
	"log/slog"
	"time"
)

// checkEvery is how often the whole log is verified. Each check reads all of it.
const checkEvery = 24 * time.Hour

// Work verifies the whole log at the start and daily, until ctx ends.
func (s *Service) Work(ctx context.Context) error {
	for {
		c, err := s.Check(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			s.cfg.Log.ErrorContext(ctx, "audit log cannot be verified", slog.Any("error", err))
		case !c.OK():
			s.cfg.Log.ErrorContext(ctx, "audit log is broken", slog.Int64("entries", c.Size), slog.Any("faults", c.Faults))
		default:
			s.cfg.Log.InfoContext(ctx, "audit log verified", slog.Int64("entries", c.Size), slog.Int64("checkpoints", c.Checkpoints))
		}
		t := s.cfg.Clock.NewTimer(checkEvery)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
	}
}
