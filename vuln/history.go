// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// History is what a vulnerability meant for the fleet over time. What counts is that a device ran a release that had it
// while it was known here and not decided to be harmless.
type History struct {
	Group
	At         time.Time `json:"at"` // that it is told for
	KnownSince time.Time `json:"known_since,omitzero" doc:"When the first finding was made; absent: there never was one"`
	Since      time.Time `json:"since,omitzero" doc:"Since when a device is, or was, exposed; absent: none ever was"`
	Now        int64     `json:"now"`  // devices exposed
	Peak       int64     `json:"peak"` // the most that were exposed at once, of the instants of the curve
	Ever       int64     `json:"ever"` // different devices that ever were
	EverAsOf   time.Time `json:"ever_as_of" doc:"The instant that ever is told for: large numbers are counted from time to time"`
	DeviceDays float64   `json:"device_days"` // summed over devices
	Silent     int64     `json:"silent" doc:"Exposed now, and not heard from for 30 days: an update has not reached them and will not soon. -1: too many are exposed to look at each"`
	SilentFrom time.Time `json:"silent_from,omitzero" doc:"Since when the first of these is unreachable"`
	Curve      []Point   `json:"curve"`    // from the first finding until now, evenly
	Coverage   []Patched `json:"coverage"` // when so much of the peak was no longer exposed
}

// Point is how many devices were exposed at an instant.
type Point struct {
	At      time.Time `json:"at"`
	Devices int64     `json:"devices"`
}

// Patched is when a share of the devices that were exposed at the peak was not exposed any more.
type Patched struct {
	Percent int       `json:"percent"`
	At      time.Time `json:"at,omitzero" doc:"Absent: not yet"`
	Days    float64   `json:"days,omitempty" doc:"From when it was known until then"`
}

// curvePoints are the instants of a curve; coverages the shares that are told, in percent.
const curvePoints = 91

var coverages = []int{50, 90, 99}

// History tells how the exposure to a vulnerability went in the products that are visible.
func (s *Service) History(ctx context.Context, tenant, ident string, visible func(product string) bool) (History, error) {
	now := s.cfg.Clock.Now().UTC()
	h := History{At: now, EverAsOf: now, Curve: []Point{}, Coverage: []Patched{}}
	spans, err := s.exposureSpans(ctx, tenant, ident, visible, &h)
	if err != nil || len(spans) == 0 {
		return h, err
	}
	if h.Ever, h.EverAsOf, err = s.cfg.Fleet.Ever(ctx, tenant, spans, now); err != nil {
		return h, err
	}
	millis, err := s.cfg.Fleet.DeviceTime(ctx, tenant, spans, now)
	if err != nil {
		return h, err
	}
	h.DeviceDays = float64(millis) / (24 * 3600 * 1000)
	if err := s.curve(ctx, tenant, spans, &h); err != nil {
		return h, err
	}
	return h, s.silent(ctx, tenant, spans, &h)
}

// silentAfter is how long nothing was heard from a device until it is called unreachable.
const silentAfter = 30 * 24 * time.Hour

func (s *Service) silent(ctx context.Context, tenant string, spans []fleet.Span, h *History) (err error) {
	if h.Now > breakdownMost {
		h.Silent = -1
		return nil
	}
	var releases []string
	for _, sp := range spans {
		if now := store.Millis(h.At); sp.From <= now && now < sp.To {
			releases = append(releases, sp.Release)
		}
	}
	if len(releases) > 0 {
		h.Silent, h.SilentFrom, err = s.cfg.Fleet.Silent(ctx, tenant, releases, h.At.Add(-silentAfter))
	}
	return err
}

func (s *Service) curve(ctx context.Context, tenant string, spans []fleet.Span, h *History) error {
	at := instants(h.KnownSince, h.At, curvePoints)
	counts, err := s.cfg.Fleet.Curve(ctx, tenant, spans, at)
	if err != nil {
		return err
	}
	peak := 0
	for i, n := range counts {
		h.Curve = append(h.Curve, Point{at[i], n})
		if n > counts[peak] {
			peak = i
		}
		if n > 0 && h.Since.IsZero() {
			h.Since = at[i]
		}
	}
	h.Peak, h.Now = counts[peak], counts[len(counts)-1]
	if h.Peak == 0 {
		return nil
	}
	for _, percent := range coverages {
		p := Patched{Percent: percent}
		// The last time that too many were exposed, not the first time that few enough were: it may have come back.
		few := func(n int64) bool { return n*100 <= h.Peak*int64(100-percent) }
		last := len(counts) - 1
		for last >= 0 && few(counts[last]) {
			last--
		}
		if last < len(counts)-1 {
			if p.At, err = s.crossing(ctx, tenant, spans, at[last], at[last+1], few); err != nil {
				return err
			}
			p.Days = p.At.Sub(h.KnownSince).Hours() / 24
		}
		h.Coverage = append(h.Coverage, p)
	}
	return nil
}

// crossing finds between two instants, to the minute, when few enough were exposed.
func (s *Service) crossing(ctx context.Context, tenant string, spans []fleet.Span, from, to time.Time, few func(int64) bool) (time.Time, error) {
	for to.Sub(from) > time.Minute {
		at := instants(from, to, 33)
		counts, err := s.cfg.Fleet.Curve(ctx, tenant, spans, at)
		if err != nil {
			return to, err
		}
		i := 1
		for i < len(at)-1 && !few(counts[i]) {
			i++
		}
		from, to = at[i-1], at[i]
	}
	return to, nil
}

// instants are n instants from one to another, both among them, in whole milliseconds; fewer where there are not so many.
func instants(from, to time.Time, n int) []time.Time {
	first, last := store.Millis(from), store.Millis(to)
	out := make([]time.Time, 0, n)
	for i := range n {
		t := store.Time(first + (last-first)*int64(i)/int64(n-1))
		if len(out) == 0 || t.After(out[len(out)-1]) {
			out = append(out, t)
		}
	}
	return out
}

// exposureSpans joins findings and decisions of all times: while which releases were exposed. It fills what is known of
// the vulnerability itself.
func (s *Service) exposureSpans(ctx context.Context, tenant, ident string, visible func(product string) bool, h *History) ([]fleet.Span, error) {
	var spans []fleet.Span
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		spans = nil
		var err error
		if h.Group, err = s.group(tx, tenant, ident); err != nil {
			return err
		}
		decided, err := s.book(tx, tenant).on(h.ID, "")
		if err != nil {
			return err
		}
		found, err := s.findings(tx, tenant, h.ID, anyTime)
		if err != nil {
			return err
		}
		about, _, err := s.describe(tx, tenant, found)
		if err != nil {
			return err
		}
		for _, f := range found {
			r, ok := about[f.release]
			if !ok || !visible(r.Product) {
				continue
			}
			if known := store.Time(f.from); h.KnownSince.IsZero() || known.Before(h.KnownSince) {
				h.KnownSince = known
			}
			turns := slices.DeleteFunc(decided.turns(r.Product, f.component, f.release), func(t int64) bool { return t <= f.from || t >= f.to })
			for from := f.from; from < f.to; {
				to := f.to
				if len(turns) > 0 {
					to, turns = turns[0], turns[1:]
				}
				if d := decided.at(r.Product, f.component, f.release, from); d == nil || !d.harmless() {
					spans = append(spans, fleet.Span{Release: f.release, From: from, To: to})
				}
				from = to
			}
		}
		return nil
	})
	slices.SortFunc(spans, func(a, b fleet.Span) int {
		return cmp.Or(cmp.Compare(a.Release, b.Release), cmp.Compare(a.From, b.From))
	})
	return spans, err
}

// Breakdown is the devices exposed by what tells them apart.
type Breakdown struct {
	By    string      `json:"by"`
	Total int64       `json:"total"`
	Parts []BreakPart `json:"parts"` // the most first
}

// BreakPart is one value with its devices; the empty value stands for those that have none.
type BreakPart struct {
	Value   string `json:"value"`
	Devices int64  `json:"devices"`
}

// breakdownMost is how many devices are told apart while somebody waits.
const breakdownMost = 200_000

// Breakdown counts the devices exposed at an instant (the zero time is now) by "release", "product", "revision", "solution",
// "batch" or "country".
func (s *Service) Breakdown(ctx context.Context, tenant, ident string, asOf time.Time, by string, visible func(product string) bool) (Breakdown, error) {
	e, err := s.Affected(ctx, tenant, ident, asOf)
	if err != nil {
		return Breakdown{}, err
	}
	e.Only(visible)
	out := Breakdown{By: by, Total: e.Devices, Parts: []BreakPart{}}
	counts, releases := map[string]int64{}, map[string]bool{}
	for _, r := range e.Releases {
		if r.Exposed && !releases[r.Release] {
			releases[r.Release] = true
			switch by {
			case "release":
				counts[r.Release] += r.Devices
			case "product":
				counts[r.Product] += r.Devices
			}
		}
	}
	if by != "release" && by != "product" {
		if e.Devices > breakdownMost {
			return out, problem.TooLarge("%d devices are exposed; at most %d are told apart by %s.", e.Devices, breakdownMost, by).
				Hint("Ask by release or by product, or list the devices.")
		}
		if counts, err = s.cfg.Fleet.Breakdown(ctx, tenant, sortedKeys(releases), asOf, by); err != nil {
			return out, err
		}
	}
	for _, v := range sortedKeys(counts) {
		if counts[v] > 0 {
			out.Parts = append(out.Parts, BreakPart{v, counts[v]})
		}
	}
	slices.SortStableFunc(out.Parts, func(a, b BreakPart) int { return cmp.Compare(b.Devices, a.Devices) })
	return out, nil
}
