// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"fmt"
	"math"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// RuleReserve is the rule that refuses what devices say while the disk has no more free than Config.Reserve. Revocations,
// the log and what people do go on: they write to the same disk, and the reserve is theirs.
const RuleReserve = "disk.reserve"

// room refuses while the disk is at its reserve. Where the disk cannot be asked (PostgreSQL), a full one refuses by itself.
func (s *Service) room() error {
	if s.cfg.Reserve <= 0 {
		return nil
	}
	free, _, ok, err := s.cfg.DB.Space()
	if err != nil || !ok || free >= s.cfg.Reserve {
		return err
	}
	return noRoom("The platform's disk has %s free, which is kept for revocations and the log.", size(free))
}

// full says of a failed write that the disk had no room, if that is why.
func full(err error) error {
	if store.IsFull(err) {
		return noRoom("The platform's disk is full.").Because(err)
	}
	return err
}

func noRoom(format string, args ...any) *problem.Error {
	e := problem.Limited(format, args...).Hint("Send again later.")
	e.Rule = RuleReserve
	return e
}

// Room says that what devices say can be kept, or why not (rule disk.reserve).
func (s *Service) Room() error { return s.room() }

// Free is how many bytes of the disk are free; not a number where it cannot be asked.
func (s *Service) Free() float64 {
	free, _, ok, err := s.cfg.DB.Space()
	if err != nil || !ok {
		return math.NaN()
	}
	return float64(free)
}

// size writes a number of bytes for people.
func size(n int64) string {
	for _, u := range []struct {
		unit  string
		bytes int64
	}{{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}} {
		if n >= 10*u.bytes {
			return fmt.Sprintf("%d %s", n/u.bytes, u.unit)
		}
		if n >= u.bytes {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.bytes), u.unit)
		}
	}
	return fmt.Sprintf("%d kB", n/1000)
}

// roomTile is how much of the disk is free, on Today; calm while there is twice the reserve.
func (s *Service) roomTile() console.Tile {
	return console.Tile{Order: 70, Verb: string(tenant.TelemetryRead), Load: func(context.Context) (console.Figure, error) {
		free, total, ok, err := s.cfg.DB.Space()
		if err != nil || !ok {
			return console.Figure{}, err
		}
		f := console.Figure{Label: "Disk free", Value: size(free), Of: " of " + size(total), Note: "Room for what devices say"}
		switch {
		case s.room() != nil:
			f.Tone, f.Note = "bad", "Telemetry is refused; the rest is kept for revocations and the log"
		case free < 2*s.cfg.Reserve:
			f.Tone, f.Note = "warn", "Telemetry is refused below "+size(s.cfg.Reserve)
		}
		return f, nil
	}}
}
