// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// Forever is the end of an interval that is still open, in ms since 1970 UTC.
const Forever = math.MaxInt64

const dayMillis = 24 * 3600 * 1000

// Interval is one stretch of time in which a device ran a release: [From, To).
type Interval struct {
	Release string     `json:"release"`
	From    time.Time  `json:"from"`
	To      *time.Time `json:"to,omitempty" doc:"Absent: it runs now"`
}

// Installed says that the device runs the release from at on. It closes the interval before and counts both. The
// same release again changes nothing, and neither does news that is older than what is known; two releases at the same
// millisecond leave the one said last.
func (s *Service) Installed(tx *store.Tx, tenant, product, device, release string, at time.Time) error {
	if release == "" {
		return problem.Invalid("An installation must name its release.")
	}
	return s.change(tx, tenant, product, device, release, at)
}

// Uninstalled says that the device runs nothing of ours any more: it was decommissioned.
func (s *Service) Uninstalled(tx *store.Tx, tenant, device string, at time.Time) error {
	return s.change(tx, tenant, "", device, "", at)
}

func (s *Service) change(tx *store.Tx, tenant, product, device, release string, at time.Time) error {
	t := store.Millis(at)
	last, err := lastInstall(tx, tenant, device)
	known := err == nil
	if err != nil && !errors.Is(err, store.ErrNoRows) {
		return err
	}
	running := known && last.to == Forever
	switch {
	case known && (t < last.from || !running && t < last.to):
		return nil // older than what is known
	case running && last.release == release, !running && release == "":
		return nil
	}
	moved := delta{tenant: tenant, to: release, at: t}
	if running {
		if err := s.closeInstall(tx, tenant, device, last, t); err != nil {
			return err
		}
		moved.from = last.release
	}
	if release != "" {
		if err := insertInstall(tx, tenant, product, device, release, t); err != nil {
			return err
		}
	}
	if err := addDelta(tx, moved); err != nil {
		return err
	}
	tx.After(func() {
		if s.pending.Add(1) == foldRows {
			s.poke()
		}
	})
	return nil
}

func (s *Service) closeInstall(tx *store.Tx, tenant, device string, last install, t int64) error {
	if t == last.from { // it ran for no time at all
		return deleteInstall(tx, tenant, device, last.from)
	}
	return closeInstall(tx, tenant, device, last.from, t)
}

// History returns what the device ran, the newest first.
func (s *Service) History(ctx context.Context, tenant, device string) ([]Interval, error) {
	return history(ctx, s.cfg.DB, tenant, device)
}

// Running returns the release that each of the devices runs now; one that runs none is absent.
func (s *Service) Running(ctx context.Context, tenant string, devices []string) (map[string]string, error) {
	return running(ctx, s.cfg.DB, tenant, devices)
}
