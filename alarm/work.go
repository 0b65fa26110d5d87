// SPDX-License-Identifier: AGPL-3.0-only

package alarm

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/telemetry"
)

const (
	jobTick   = "alarm.tick"
	jobRoster = "alarm.roster"

	reloadEvery = 5 * time.Second // for rules that another process changed
	memberFor   = time.Minute     // how long the answer is kept whether a device is among those of a rule
	memberMost  = 200_000         // answers kept
	rosterEvery = 10 * time.Minute
	rosterPage  = 500
)

type tickData struct{ Tenant, Rule, Device string }

type rosterData struct{ Tenant, Rule string }

// index is what rules watch, for a quick answer.
type index struct {
	changed int64 // newest change of any rule that it knows
	rules   map[string][]Rule
	topics  map[string]bool // tenant and topic; "tele/" of a tenant whose rules watch any message
}

func watchKey(tenant, topic string) string { return tenant + "\x00" + topic }

// Watches says whether any rule wants the message. It is quick and never blocks: telemetry.Watch asks it.
func (s *Service) Watches(tenant, _, topic string) bool {
	x := s.index.Load()
	return x.topics[watchKey(tenant, topic)] || x.topics[watchKey(tenant, "")]
}

// reload reads the rules again. An error leaves the old ones.
func (s *Service) reload(ctx context.Context) {
	x := &index{rules: map[string][]Rule{}, topics: map[string]bool{}}
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		if err := tx.QueryRow(`SELECT coalesce(max(changed), 0) FROM alarm_rule`).Scan(&x.changed); err != nil {
			return err
		}
		rules, err := rulesOf(tx, "")
		for _, r := range rules {
			if r.Off {
				continue
			}
			x.rules[r.Tenant] = append(x.rules[r.Tenant], r)
			topic := "tele/" + r.Stream
			switch {
			case r.Kind == Events:
				topic = "event/" + r.Event
			case r.Stream == "":
				topic = ""
			}
			x.topics[watchKey(r.Tenant, topic)] = true
		}
		return err
	})
	if err != nil {
		if ctx.Err() == nil {
			s.cfg.Log.ErrorContext(ctx, "alarm rules cannot be read", slog.Any("error", err))
		}
		return
	}
	s.index.Store(x)
}

// Work keeps the rules at hand current, until ctx ends.
func (s *Service) Work(ctx context.Context) error {
	s.reload(ctx)
	for {
		t := s.cfg.Clock.NewTimer(reloadEvery)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
		var changed int64
		if err := s.cfg.DB.QueryRow(ctx, `SELECT coalesce(max(changed), 0) FROM alarm_rule`).Scan(&changed); err == nil && changed != s.index.Load().changed {
			s.reload(ctx)
		}
	}
}

// Observe takes what a device said: register it with telemetry.Watch.
func (s *Service) Observe(ctx context.Context, x telemetry.Sighting) error {
	for _, r := range s.index.Load().rules[x.Tenant] {
		samples := r.samples(x)
		if len(samples) == 0 {
			continue
		}
		d, in, err := s.member(ctx, r, x.Device)
		if err != nil {
			return err
		}
		if !in {
			continue
		}
		if err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.apply(tx, r, d, samples) }); err != nil {
			return err
		}
	}
	return nil
}

// samples is what a rule sees of a sighting.
func (r Rule) samples(x telemetry.Sighting) (out []sample) {
	switch r.Kind {
	case Absence:
		if r.Stream == "" || r.Stream == x.Stream {
			out = append(out, sample{t: x.Received.UnixMilli()})
		}
	case Events:
		if x.Event == r.Event {
			out = append(out, sample{t: x.At.UnixMilli()})
		}
	default:
		if x.Event != "" || x.Stream != r.Stream {
			return nil
		}
		for _, p := range x.Points {
			if v, ok := p.Values[r.Field]; ok {
				out = append(out, sample{p.T, v})
			}
		}
		slices.SortStableFunc(out, func(a, b sample) int { return int(a.t - b.t) })
	}
	return out
}

// apply moves what the rule remembers of the device, and the alarm with it. The rule is read again: one that was changed
// meanwhile sees the next message.
func (s *Service) apply(tx *store.Tx, r Rule, d identity.Device, samples []sample) error {
	if ok, err := stands(tx, r); err != nil || !ok {
		return err
	}
	st, _, err := stand(tx, r.ID, d.ID)
	if err != nil {
		return err
	}
	for _, x := range samples {
		if err := s.follow(tx, r, d, r.see(&st, x)); err != nil {
			return err
		}
	}
	return s.keep(tx, r, d.ID, st)
}

// stands says whether the rule is still the one that is being gone by.
func stands(tx *store.Tx, r Rule) (bool, error) {
	now, err := ruleByID(tx, r.Tenant, r.ID)
	if problem.Is(err, problem.KindNotFound) {
		return false, nil
	}
	return err == nil && now.Changed.Equal(r.Changed), err
}

// follow does what a verdict says.
func (s *Service) follow(tx *store.Tx, r Rule, d identity.Device, v verdict) error {
	switch {
	case v.raise:
		return s.raise(tx, r, d, v.value, time.UnixMilli(v.at))
	case v.clear:
		a, ok, err := openAlarm(tx, r.ID, d.ID)
		if err != nil || !ok {
			return err
		}
		return s.close(tx, a, "the condition is over", time.UnixMilli(v.at))
	}
	return nil
}

// keep writes what a rule remembers of a device, and when time alone will change it.
func (s *Service) keep(tx *store.Tx, r Rule, device string, st standing) error {
	if err := putStanding(tx, r, device, st); err != nil {
		return err
	}
	if due := r.due(st); due > 0 {
		return s.cfg.DB.Enqueue(tx, jobTick, r.ID+" "+device, time.UnixMilli(due), tickData{r.Tenant, r.ID, device})
	}
	return nil
}

// tickJob looks at one rule and device when time alone may have changed something.
func (s *Service) tickJob(ctx context.Context, j store.Job) error {
	var t tickData
	if err := j.Decode(&t); err != nil {
		return err
	}
	r, err := s.rule(ctx, t.Tenant, t.Rule)
	if problem.Is(err, problem.KindNotFound) || err == nil && r.Off {
		return nil
	}
	if err != nil {
		return err
	}
	d, in, err := s.belongs(ctx, r, t.Device)
	if err != nil {
		return err
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if ok, err := stands(tx, r); err != nil || !ok {
			return err
		}
		st, ok, err := stand(tx, t.Rule, t.Device)
		if err != nil || !ok {
			return err
		}
		if !in {
			return s.leave(tx, r, t.Device)
		}
		if err := s.follow(tx, r, d, r.tick(&st, store.Millis(s.cfg.Clock.Now()))); err != nil {
			return err
		}
		return s.keep(tx, r, t.Device, st)
	})
}

// leave ends the alarm of a device that is none of the rule's any more.
func (s *Service) leave(tx *store.Tx, r Rule, device string) error {
	if _, err := tx.Exec(`DELETE FROM alarm_standing WHERE rule = $1 AND device = $2`, r.ID, device); err != nil {
		return err
	}
	a, ok, err := openAlarm(tx, r.ID, device)
	if err != nil || !ok {
		return err
	}
	return s.close(tx, a, "the device is none of the rule's any more", s.cfg.Clock.Now())
}

// memberKey is a rule, as it stood at one time, and a device.
type memberKey struct {
	rule, device string
	changed      int64
}

// member is the answer whether the device is among those of the rule, and the device if so.
type member struct {
	device identity.Device
	in     bool
}

// member is belongs with the answers of the last minute at hand.
func (s *Service) member(ctx context.Context, r Rule, device string) (identity.Device, bool, error) {
	now := s.cfg.Clock.Now()
	k := memberKey{r.ID, device, store.Millis(r.Changed)}
	s.mu.Lock()
	if now.Sub(s.asked) > memberFor || len(s.members) >= memberMost {
		s.members, s.asked = map[memberKey]member{}, now
	}
	m, known := s.members[k]
	s.mu.Unlock()
	if known {
		return m.device, m.in, nil
	}
	d, in, err := s.belongs(ctx, r, device)
	if err == nil {
		s.mu.Lock()
		s.members[k] = member{d, in}
		s.mu.Unlock()
	}
	return d, in, err
}

// belongs says whether a rule is about a device: it works, and the filter finds it.
func (s *Service) belongs(ctx context.Context, r Rule, device string) (d identity.Device, in bool, err error) {
	d, err = s.cfg.Identity.Get(ctx, r.Tenant, device)
	if problem.Is(err, problem.KindNotFound) {
		return d, false, nil
	}
	if err != nil || d.State != identity.Commissioned {
		return d, false, err
	}
	if strings.TrimSpace(r.Filter) == "" {
		return d, true, nil
	}
	in, err = s.cfg.Fleet.Matches(ctx, r.Tenant, r.Filter, device)
	return d, in, err
}

// rosterJob makes a rule of absence know the devices that have never said anything, and comes again.
func (s *Service) rosterJob(ctx context.Context, j store.Job) error {
	var data rosterData
	if err := j.Decode(&data); err != nil {
		return err
	}
	r, err := s.rule(ctx, data.Tenant, data.Rule)
	if problem.Is(err, problem.KindNotFound) || err == nil && (r.Off || r.Kind != Absence) {
		return nil
	}
	if err != nil {
		return err
	}
	after := ""
	for {
		ds, err := s.cfg.Fleet.Select(ctx, r.Tenant, r.Filter, after, rosterPage)
		if err != nil {
			return err
		}
		err = s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
			for _, d := range ds {
				if d.State != identity.Commissioned {
					continue
				}
				_, known, err := stand(tx, r.ID, d.ID)
				if err == nil && !known {
					err = s.keep(tx, r, d.ID, standing{T: store.Millis(s.cfg.Clock.Now())})
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if len(ds) < rosterPage {
			break
		}
		after = ds[len(ds)-1].ID
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		return s.cfg.DB.Enqueue(tx, jobRoster, r.ID, s.cfg.Clock.Now().Add(rosterEvery), data)
	})
}
