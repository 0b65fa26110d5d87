// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"time"

	"github.com/openthings-platform/openthings/console"
)

// supportBar is a cohort on an axis of time, in thousandths of its width: when units are placed, until when they are
// supported, today, and the other ends.
type supportBar struct {
	Cohort            Cohort
	Revision          string
	End               Month
	From, To          string // years at the ends of the axis
	Placed, Supported console.BarSpan
	Years             []int64 // where years begin
	Marks             []barMark
	Badge             string
	Named             bool // its name stands above it already
	Months            int
	PlaceUntil        Day
}

type barMark struct {
	X    int64
	Tone string
	Word string
	Day  Day
}

// bars draws the cohorts of a product on one axis, from the first unit or today to the last end.
func bars(cs []Cohort, revision func(id string) string, now time.Time) []supportBar {
	from, to := now, now
	for _, c := range cs {
		d := c.Declared()
		from, to = earlier(from, d.FirstPlaced.Time()), later(to, d.End())
		for _, day := range []Day{d.FeatureEnd, d.SalesEnd, d.ServiceEnd, d.LastPlaced} {
			to = later(to, day.Time())
		}
	}
	from, to = time.Date(from.Year(), 1, 1, 0, 0, 0, 0, time.UTC), time.Date(to.Year()+1, 1, 1, 0, 0, 0, 0, time.UTC)
	x := func(t time.Time) int64 {
		return min(max(int64(float64(t.Sub(from))/float64(to.Sub(from))*1000), 0), 1000)
	}
	var out []supportBar
	for _, c := range cs {
		d := c.Declared()
		b := supportBar{Cohort: c, Revision: revision(c.Revision), End: d.SupportEnd, From: from.Format("2006"), To: to.AddDate(0, 0, -1).Format("2006"), PlaceUntil: d.PlaceUntil(),
			Badge: "draft", Months: monthsLeft(d.SupportEnd, d.Location(), now)}
		switch {
		case c.Ended(now):
			b.Badge = "ended"
		case c.Public != nil:
			b.Badge = "published"
		}
		last := d.LastPlaced
		if last == "" { // still sold: at most until then
			last = b.PlaceUntil
		}
		first := x(d.FirstPlaced.Time())
		b.Placed = console.BarSpan{Tone: "placed", X: first, Width: max(x(last.Time())-first, 4)}
		b.Supported = console.BarSpan{Tone: "supported", X: first, Width: max(x(d.End())-first, 4)}
		for y := from.Year() + 1; y < to.Year(); y++ {
			b.Years = append(b.Years, x(time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC)))
		}
		mark := func(tone, word string, day Day) {
			if day != "" {
				b.Marks = append(b.Marks, barMark{x(day.Time()), tone, word, day})
			}
		}
		mark("today", "today", dayOf(now))
		mark("feature", "functions end", d.FeatureEnd)
		mark("sales", "sale ends", d.SalesEnd)
		mark("service", "services end", d.ServiceEnd)
		out = append(out, b)
	}
	return out
}

func earlier(a, b time.Time) time.Time {
	if !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
