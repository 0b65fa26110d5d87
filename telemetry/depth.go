// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"fmt"
	"time"

	"github.com/openthings-platform/openthings/store"
)

// Depth is how much waits behind the receipts.
type Depth struct {
	Commits  int64         // rows of the inbox
	Records  int64         // messages in them
	Oldest   time.Duration // how long the oldest waits
	SetAside int64         // damaged rows, for a person to look at
	Pending  int64         // records of other stages that wait for their handlers
	Gaps     int64         // devices with an open gap
}

// Depth counts what waits now.
func (s *Service) Depth(ctx context.Context) (d Depth, err error) {
	var oldest int64
	err = s.cfg.DB.QueryRow(ctx, `SELECT count(*), coalesce(sum(n), 0), coalesce(min(at), 0),
		(SELECT count(*) FROM telemetry_inbox WHERE error <> ''), (SELECT count(*) FROM telemetry_pending), (SELECT count(*) FROM telemetry_gap WHERE ended = 0)
		FROM telemetry_inbox WHERE error = ''`).Scan(&d.Commits, &d.Records, &oldest, &d.SetAside, &d.Pending, &d.Gaps)
	if err != nil {
		return d, fmt.Errorf("telemetry: depth: %w", err)
	}
	if oldest > 0 {
		d.Oldest = s.cfg.Clock.Now().Sub(store.Time(oldest))
	}
	return d, nil
}
