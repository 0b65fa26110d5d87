// SPDX-License-Identifier: AGPL-3.0-only

package console

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Badge is a state as word, mark and colour; the mark tells it without colour.
type Badge struct{ Word, Mark, Tone string }

// tones says how a state feels. A state in no list is plain.
var tones = map[string][]string{
	"good": {"active", "commissioned", "online", "published", "done", "ok", "fixed", "not-affected", "not_affected", "patched", "completed", "complete", "closed", "committed", "passed", "signed", "verified", "yes", "submitted", "met", "as-desired", "on-time", "pass", "approved", "current", "usable", "gone"},
	"busy": {"pending", "provisioned", "manufactured", "running", "claimed", "queued", "sent", "delivered", "downloading", "installing", "staged", "draft", "uploaded", "open", "new", "under-investigation", "under_investigation", "investigating", "decommissioning", "assessing", "accepted", "waiting", "offered", "received", "checked", "aware", "watch", "undetermined", "downloaded", "installed", "not-yet", "started", "scheduled", "standby", "syncing"},
	"warn": {"suspended", "paused", "halted", "expiring", "warning", "due", "stale", "held", "quarantined", "away", "medium", "undecided", "unproven", "retiring", "failing", "behind", "partial", "not-matchable", "kept", "no-safe-release-yet"},
	"bad":  {"failed", "revoked", "affected", "refused", "exploited", "overdue", "late", "critical", "high", "error", "rolled-back", "rolled_back", "rejected", "broken", "missed", "fail", "aborted", "rollback", "killed", "compromised", "denied", "brought"},
	"past": {"offline", "decommissioned", "deprovisioned", "retired", "expired", "ended", "superseded", "none", "not-owed", "no", "unknown", "low", "cancelled", "withdrawn", "negative"},
}

var marks = map[string]string{"good": "✓", "busy": "◐", "warn": "!", "bad": "✕", "past": "–", "": "·"}

// NewBadge chooses mark and colour for a state.
func NewBadge(state string) Badge {
	key := strings.ToLower(strings.ReplaceAll(state, " ", "-"))
	for tone, states := range tones {
		if slices.Contains(states, key) {
			return Badge{Word: strings.ReplaceAll(state, "_", " "), Mark: marks[tone], Tone: tone}
		}
	}
	return Badge{Word: state, Mark: marks[""]}
}

// Stage is one stop of a life line.
type Stage struct {
	Name  string
	State string    // "done", "current" or "pending"
	At    time.Time // zero while it is pending
}

// LifeLine marks every stage before current as done and those after it as pending. at gives the time of a stage, or zero.
func LifeLine(names []string, current string, at func(name string) time.Time) []Stage {
	here := slices.Index(names, current)
	line := make([]Stage, len(names))
	for i, n := range names {
		s := Stage{Name: n, State: "pending", At: at(n)}
		switch {
		case i == here:
			s.State = "current"
		case i < here:
			s.State = "done"
		}
		line[i] = s
	}
	return line
}

// Bar is a counted bar: parts of a whole, each with its word and number.
type Bar struct {
	Label string
	Total int64
	Parts []BarPart
}

// BarPart is one part of a Bar. Tone is good, busy, warn, bad or past.
type BarPart struct {
	Word string
	N    int64
	Tone string
}

// BarSpan is where a part is drawn, in thousandths of the bar.
type BarSpan struct {
	Tone     string
	X, Width int64
}

// Spans are the parts side by side; the whole is Total, or the sum of the parts when that is larger.
func (b Bar) Spans() (spans []BarSpan) {
	whole, x := b.Total, int64(0)
	for _, p := range b.Parts {
		x += p.N
	}
	if whole = max(whole, x); whole == 0 {
		return nil
	}
	x = 0
	for _, p := range b.Parts {
		if p.N > 0 {
			spans = append(spans, BarSpan{p.Tone, x * 1000 / whole, (x+p.N)*1000/whole - x*1000/whole})
		}
		x += p.N
	}
	return spans
}

// Countdown is a deadline and how near it is at Now.
type Countdown struct {
	Name           string
	From, Due, Now time.Time
	Met            time.Time // when the duty was done; zero while it is open
}

// Text is what remains: "17 h 3 min left", "overdue by 2 h", or "met 5 h early".
func (c Countdown) Text() string {
	if c.Met.IsZero() {
		return Left(c.Due.Sub(c.Now))
	}
	if d := c.Due.Sub(c.Met); d >= 0 {
		return "met " + Span(d) + " early"
	}
	return "met " + Span(c.Met.Sub(c.Due)) + " late"
}

// Tone is bad when it is or was late, warn in the last quarter, good when it was met in time.
func (c Countdown) Tone() string {
	switch {
	case !c.Met.IsZero() && !c.Met.After(c.Due):
		return "good"
	case !c.Met.IsZero() || c.Now.After(c.Due):
		return "bad"
	case c.Spent() >= 750:
		return "warn"
	}
	return "busy"
}

// Spent is how much of the time is gone, in thousandths.
func (c Countdown) Spent() int {
	whole := c.Due.Sub(c.From)
	if whole <= 0 {
		return 1000
	}
	return int(min(max(float64(c.Now.Sub(c.From))/float64(whole), 0), 1) * 1000)
}

// Option is one choice of a choice field.
type Option struct{ Value, Word string }

// Chart is a line chart with its table for those who do not see it. All times are ascending.
type Chart struct {
	ID     string // unique on the page
	Title  string
	Unit   string
	Times  []time.Time
	Series []Series
	Marks  []Mark // instants with a word, within Times
	Whole  bool   // the table has every point, not only the newest
	Counts bool   // its values are numbers of things: it stands on zero, and its axis knows no halves
}

// Mark is an instant on a Chart that something happened at.
type Mark struct {
	At   time.Time
	Word string
}

// Series is one line of a Chart; NaN-free, and a nil value is a gap.
type Series struct {
	Name   string
	Values []*float64
}

// apart is how many times larger one line must be than another to get an axis of its own.
const apart = 5

// axes says for each series whether it is drawn against the left axis (0) or the right one (1). The right one is for
// lines so much smaller than the largest that they would lie flat on the ground.
func (c Chart) axes() []int {
	reach := make([]float64, len(c.Series))
	for i, s := range c.Series {
		for _, v := range s.Values {
			if v != nil {
				reach[i] = max(reach[i], math.Abs(*v))
			}
		}
	}
	axes := make([]int, len(c.Series))
	for i := range reach {
		if reach[i] > 0 && reach[i]*apart < slices.Max(reach) {
			axes[i] = 1
		}
	}
	return axes
}

// Data is the chart for charts.js: seconds since 1970, one array per series, and the axis of each.
func (c Chart) Data() map[string]any {
	ts := make([]float64, len(c.Times))
	for i, t := range c.Times {
		ts[i] = float64(t.UnixMilli()) / 1000
	}
	cols := []any{ts}
	names := []string{}
	for _, s := range c.Series {
		cols = append(cols, s.Values)
		names = append(names, s.Name)
	}
	d := map[string]any{"unit": c.Unit, "names": names, "axes": c.axes(), "data": cols}
	if c.Counts {
		d["counts"] = true
	}
	if len(c.Marks) > 0 {
		marks := []any{}
		for _, m := range c.Marks {
			marks = append(marks, map[string]any{"at": float64(m.At.UnixMilli()) / 1000, "word": m.Word})
		}
		d["marks"] = marks
	}
	return d
}

// The size of the drawing that needs no script, in its own units.
const sketchWide, sketchHigh = 600, 120

// Sketch is the chart as it stands until charts.js draws it, and where no script runs: a path for each line, and where the
// marks are.
func (c Chart) Sketch() (d struct {
	Lines []string
	Marks []string
}) {
	if len(c.Times) < 2 {
		return d
	}
	from := c.Times[0]
	x := func(t time.Time) float64 {
		return float64(t.Sub(from)) / float64(c.Times[len(c.Times)-1].Sub(from)) * sketchWide
	}
	axes := c.axes()
	low, high := map[int]float64{}, map[int]float64{} // of each axis; zero is always in sight
	for i, s := range c.Series {
		for _, v := range s.Values {
			if v != nil {
				low[axes[i]], high[axes[i]] = min(low[axes[i]], *v), max(high[axes[i]], *v)
			}
		}
	}
	for i, s := range c.Series {
		var path strings.Builder
		letter := 'M'
		for j, v := range s.Values {
			if v == nil {
				letter = 'M'
				continue
			}
			fmt.Fprintf(&path, "%c%.1f %.1f", letter, x(c.Times[j]), sketchHigh-2-(*v-low[axes[i]])/max(high[axes[i]]-low[axes[i]], 1e-9)*(sketchHigh-8))
			letter = 'L'
		}
		d.Lines = append(d.Lines, path.String())
	}
	for _, m := range c.Marks {
		d.Marks = append(d.Marks, fmt.Sprintf("%.1f", x(m.At)))
	}
	return d
}

// Rows are the newest points first, at most twelve unless Whole, for the table under the chart.
func (c Chart) Rows() (rows []ChartRow) {
	for i := len(c.Times) - 1; i >= 0 && (c.Whole || len(rows) < 12); i-- {
		row := ChartRow{At: c.Times[i]}
		for _, s := range c.Series {
			row.Values = append(row.Values, s.Values[i])
		}
		rows = append(rows, row)
	}
	return rows
}

// ChartRow is one line of a chart's table.
type ChartRow struct {
	At     time.Time
	Values []*float64
}

// Pager links to the pages of a list. Next is the address of the next page, First of the first; empty when there is none.
type Pager struct{ First, Next string }
