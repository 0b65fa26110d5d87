// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"strings"
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

// Placed is a device that runs, or ran at the time asked for, one of some releases.
type Placed struct {
	Device  string    `json:"device"`
	Release string    `json:"release"`
	Since   time.Time `json:"since"`
}

// Page asks for at most Limit things after the key After (the last one of the page before; empty: from the beginning).
type Page struct {
	After string
	Limit int
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
	if running {
		if err := s.closeInstall(tx, tenant, device, last, t); err != nil {
			return err
		}
		if err := addDelta(tx, tenant, last.release, t, -1); err != nil {
			return err
		}
	}
	if release == "" {
		return nil
	}
	if err := insertInstall(tx, tenant, product, device, release, t); err != nil {
		return err
	}
	return addDelta(tx, tenant, release, t, +1)
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

// CountByRelease returns how many devices run each release now.
func (s *Service) CountByRelease(ctx context.Context, tenant string) (map[string]int64, error) {
	return countByRelease(ctx, s.cfg.DB, tenant)
}

// CountAsOf returns how many devices ran each release at the moment given: daily counters plus what changed in that
// day until then.
func (s *Service) CountAsOf(ctx context.Context, tenant string, at time.Time) (map[string]int64, error) {
	return countAsOf(ctx, s.cfg.DB, tenant, store.Millis(at))
}

// Devices returns a page of the devices that ran one of the releases at the moment given, in the order of their ids;
// the zero time means now.
func (s *Service) Devices(ctx context.Context, tenant string, releases []string, at time.Time, page Page) ([]Placed, error) {
	var out []Placed
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		out = nil
		for _, release := range slices.Compact(slices.Sorted(slices.Values(releases))) {
			part, err := devicesOf(tx, tenant, release, at, page)
			if err != nil {
				return err
			}
			out = append(out, part...)
		}
		return nil
	})
	slices.SortFunc(out, func(a, b Placed) int { return cmp.Or(strings.Compare(a.Device, b.Device), a.Since.Compare(b.Since)) })
	return out[:min(len(out), page.Limit)], err
}
