// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// The alarms before an authority's end, from the first to the last.
const (
	alarmSoon = "soon" // it is time to make its successor
	alarmLeaf = "leaf" // what it signs now would outlive it
	alarmOver = "over" // it has ended
)

// endingSoon is how long before its end an authority needs a successor: time for a ceremony, for a bundle to reach the
// devices and for one life of their certificates. A root needs a year.
const (
	endingSoon     = 180 * 24 * time.Hour
	rootEndingSoon = 2 * 365 * 24 * time.Hour
)

// longestLeaf is the longest life of what the role signs; certificates without an end do not count.
func longestLeaf(r Role) (life time.Duration) {
	for _, p := range profiles() {
		if p.Role == r {
			life = max(life, p.Life)
		}
	}
	return life
}

func profiles() []Profile {
	out := []Profile{serverProfile, bootstrapProfile}
	for _, p := range Profiles {
		out = append(out, p)
	}
	return out
}

// alarm is how near its end the authority is; empty: far.
func (a Authority) alarm(now time.Time) string {
	soon := endingSoon
	if a.Role.Above() == a.Role {
		soon = rootEndingSoon
	}
	switch left := a.NotAfter.Sub(now); {
	case len(a.Cert) == 0 || a.Status != Active && a.Status != Standby && a.Status != Retiring:
		return ""
	case left <= 0:
		return alarmOver
	case left <= longestLeaf(a.Role):
		return alarmLeaf
	case left <= soon:
		return alarmSoon
	}
	return ""
}

// within fits the end of a certificate into the life of the authority that signs it: as it is, cut short where the
// profile allows that, or refused. A certificate without an end (IEEE 802.1AR 8.7) has no end to fit: the register decides.
func (p Profile) within(a Authority, from, until time.Time) (time.Time, error) {
	switch {
	case until.Equal(Forever) && from.Before(a.NotAfter), !until.After(a.NotAfter):
		return until, nil
	case p.Truncate && from.Before(a.NotAfter):
		return a.NotAfter, nil
	}
	return until, problem.Forbidden("ca.ending", "%s ends on %s; a certificate that it signs now would outlive it.", a.ID, a.NotAfter.Format(time.DateOnly)).
		Hint("Promote its successor: openthings ca request, then ca install and ca promote.")
}

// TopicEnding is the topic of the event that an authority has come near its end. Its tenant is empty: authorities belong to
// the platform.
const TopicEnding = "authority.ending"

// Ending is how near its end an authority is.
type Ending struct {
	Level     string    `json:"level"` // soon: make its successor; leaf: what it signs now would outlive it; over
	Role      Role      `json:"role"`
	NotAfter  time.Time `json:"not_after"`
	Successor bool      `json:"successor"` // one stands by
}

// jobEnding looks at the authorities once a day.
const jobEnding = "identity.authorities-ending"

// watchEndings gives each alarm once and comes back tomorrow. The job is named by its day: a running job that asked for
// itself would run again at once.
func (s *Service) watchEndings(ctx context.Context, _ store.Job) error {
	if err := s.alarmEndings(ctx); err != nil {
		return err
	}
	return s.planEndings(ctx, s.cfg.Clock.Now().Add(24*time.Hour))
}

func (s *Service) planEndings(ctx context.Context, at time.Time) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		return s.cfg.DB.Enqueue(tx, jobEnding, at.UTC().Format(time.DateOnly), at, nil)
	})
}

// alarmEndings announces TopicEnding for each authority that has come nearer its end than it was.
func (s *Service) alarmEndings(ctx context.Context) error {
	all, err := s.Authorities(ctx)
	if err != nil {
		return err
	}
	now := s.cfg.Clock.Now()
	for _, a := range all {
		level := a.alarm(now)
		if level == "" {
			continue
		}
		next := slices.ContainsFunc(all, func(b Authority) bool { return b.Role == a.Role && b.Status == Standby && b.NotAfter.After(a.NotAfter) })
		err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
			n, err := tx.Exec(`INSERT INTO authority_alarm(authority, level, at) VALUES ($1, $2, $3) ON CONFLICT (authority, level) DO NOTHING`, a.ID, level, store.Millis(now))
			if err != nil || n == 0 {
				return err
			}
			tx.After(func() {
				s.cfg.Log.Warn("an authority is ending", slog.String("authority", a.ID), slog.String("level", level), slog.Time("end", a.NotAfter), slog.Bool("successor", next))
			})
			data := Ending{Level: level, Role: a.Role, NotAfter: a.NotAfter, Successor: next}
			if err := s.changed(tx, TopicEnding, a, "system", map[string]any{"level": level, "not_after": a.NotAfter, "successor": next}); err != nil {
				return err
			}
			return s.cfg.DB.Emit(tx, TopicEnding, "", a.ID, data)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
