// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"crypto/sha256"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/tenant"
)

// Counting may cost a page so much and no more. What is not counted then is shown without a number.
const (
	tallyTime  = 400 * time.Millisecond
	tallyShare = 20 // a count is used for this many times the time it took, so that counting takes a twentieth at most
	tallyLeast = time.Second
	talliesMax = 256
)

// tally counts the devices of a filter by what a list is narrowed to.
type tally struct {
	by    map[string]map[string]int64 // by key and value
	total int64
	more  bool // counting ended at countAtMost
	known bool // false: it would have taken too long
}

// tallies keeps counts for a while, since many look at the same.
type tallies struct {
	mu   sync.Mutex // guards kept
	kept map[string]keptTally
}

type keptTally struct {
	tally
	until time.Time
}

// facetKeys are what a list is narrowed to.
var facetKeys = []string{"state", "online", "release", "product", "solution"}

// tallied counts the devices of a filter that whoever asks may read: the whole fleet from counters and indexes alone,
// anything narrower device by device, the first countAtMost of them.
func (s *Service) tallied(ctx context.Context, f Filter) (tally, error) {
	who, _ := tenant.ActorFrom(ctx)
	whole, products, solutions := tenant.Scope(who, tenant.DeviceRead)
	reach := sha256.Sum256([]byte(strings.Join(products, ",") + "\x00" + strings.Join(solutions, ","))) // thousands of ids, perhaps
	key := strings.Join([]string{who.Tenant, string(reach[:]), f.String()}, "\x00")
	now := s.cfg.Clock.Now()
	s.tallies.mu.Lock()
	kept, ok := s.tallies.kept[key]
	s.tallies.mu.Unlock()
	if ok && now.Before(kept.until) {
		return kept.tally, nil
	}
	begun := time.Now() // what it costs, not what time it is
	var t tally
	var err error
	if whole && f.Empty() {
		t, err = s.tallyAll(ctx, who.Tenant)
	} else {
		t, err = s.tallySome(ctx, who.Tenant, f)
	}
	if err != nil {
		return t, err
	}
	s.tallies.mu.Lock()
	defer s.tallies.mu.Unlock()
	if len(s.tallies.kept) >= talliesMax || s.tallies.kept == nil {
		s.tallies.kept = map[string]keptTally{}
	}
	s.tallies.kept[key] = keptTally{t, now.Add(max(tallyLeast, tallyShare*time.Since(begun)))}
	return t, nil
}

func (s *Service) tallyAll(ctx context.Context, t string) (tally, error) {
	out := newTally()
	census, err := s.cfg.Identity.Count(ctx, t)
	if err != nil {
		return out, err
	}
	for _, c := range census {
		out.add("state", string(c.State), c.Devices)
		out.add("product", c.Product, c.Devices)
		out.add("solution", c.Solution, c.Devices)
		out.total += c.Devices
	}
	releases, err := s.CountByRelease(ctx, t)
	if err != nil {
		return out, err
	}
	rest := out.total
	for r, n := range releases {
		out.add("release", r, n)
		rest -= n
	}
	out.add("release", "", rest)
	online, _ := s.OnlineCount(t)
	out.add("online", "yes", int64(online))
	out.add("online", "no", max(0, out.total-int64(online)))
	return out, nil
}

// runsNow and hereNow are what Tally counts by, over identity's row "device".
const (
	runsNow = `COALESCE((SELECT release_id FROM install WHERE install.tenant = device.tenant AND install.device_id = device.id AND install.to_ts = 9223372036854775807), '')`
	hereNow = `CASE WHEN EXISTS (SELECT 1 FROM presence WHERE presence.device_id = device.id AND presence.online = 1) THEN 'yes' ELSE 'no' END`
)

func (s *Service) tallySome(ctx context.Context, t string, f Filter) (tally, error) {
	out := newTally()
	page, ok, err := s.narrowed(ctx, tenant.DeviceRead, t, f, identity.Filter{Limit: countAtMost + 1})
	if err != nil || !ok {
		return out, err
	}
	limited, cancel := context.WithTimeout(ctx, tallyTime)
	defer cancel()
	rows, err := s.cfg.Identity.Tally(limited, t, page, "device.state", hereNow, runsNow, "device.product", "device.solution")
	if err != nil {
		if limited.Err() != nil && ctx.Err() == nil {
			return tally{}, nil
		}
		return out, err
	}
	for _, r := range rows {
		for i, key := range facetKeys {
			out.add(key, r.Keys[i], r.Devices)
		}
		out.total += r.Devices
	}
	if out.total > countAtMost {
		out.total, out.more = countAtMost, true
	}
	return out, nil
}

func newTally() tally {
	t := tally{by: map[string]map[string]int64{}, known: true}
	for _, k := range facetKeys {
		t.by[k] = map[string]int64{}
	}
	return t
}

func (t tally) add(key, value string, n int64) {
	if n > 0 {
		t.by[key][value] += n
	}
}

// labelCount is how many devices have a label with a value.
type labelCount struct {
	name, value string
	n           int64
}

// labelsUsed lists the labels of a tenant's devices, the most common first.
func (s *Service) labelsUsed(ctx context.Context, t string) ([]labelCount, error) {
	limited, cancel := context.WithTimeout(ctx, tallyTime)
	defer cancel()
	out, err := countLabels(limited, s.cfg.DB, t, 200)
	if limited.Err() != nil && ctx.Err() == nil {
		return nil, nil
	}
	slices.SortStableFunc(out, func(a, b labelCount) int { return strings.Compare(a.name, b.name) })
	return out, err
}
