// SPDX-License-Identifier: AGPL-3.0-only

package console

import (
	"context"
	"html/template"
	"net/http"
	"slices"
)

// Step is one line of the checklist that Today shows until all are done: the life of a device, first to last.
type Step struct {
	Order             int // 10 product, 20 line, 30 claim, 40 release, 50 device, 60 feed, 70 case, 80 evidence
	Title, Text, Href string
	Button            string // what one does there: "Open a batch"
	Done              func(ctx context.Context) (bool, error)
}

// Step adds a line to the checklist on Today. It panics when two stages want the same place.
func (c *Console) Step(s Step) {
	if slices.ContainsFunc(c.steps, func(o Step) bool { return o.Order == s.Order }) {
		panic("console: two steps have the same order: " + s.Title)
	}
	c.steps = append(c.steps, s)
	slices.SortStableFunc(c.steps, func(a, b Step) int { return a.Order - b.Order })
}

// Tile is one number on Today.
type Tile struct {
	Order int    // smaller stands further left
	Verb  string // left out for visitors who do not hold it; empty for all
	// Load reads the number. A figure without label leaves the tile out.
	Load func(ctx context.Context) (Figure, error)
}

// Figure is what a tile shows and where it leads.
type Figure struct {
	Label string // "Devices online"
	Value string // "8"
	Of    string // " of 10", smaller beside it
	Note  string // one line below
	Href  string
	Tone  string // "warn" and "bad" need somebody; anything else is calm
	ID    string // id of the value, for Live
	Live  string // path of a stream that keeps the value current
}

// Tile adds a number to Today.
func (c *Console) Tile(t Tile) {
	c.tiles = append(c.tiles, t)
	slices.SortStableFunc(c.tiles, func(a, b Tile) int { return a.Order - b.Order })
}

type todayData struct {
	Tiles []Figure
	Slot  template.HTML
	Steps []stepState
	Open  int
	Calm  bool // nothing needs anybody
}

type stepState struct {
	Step
	Finished bool
	Next     bool // the first that is not done
}

// today registers the first page: what needs the visitor, how the house stands, and until the circle has turned once
// the way round it.
func (c *Console) today() {
	c.Page(Page{Path: "/", Title: "Today", Menu: "Today", Verb: "device.read", FS: kitFS, Template: "kit/today.html", Load: func(r *http.Request) (any, error) {
		d := todayData{Slot: c.Slot("today").Render(r, ""), Tiles: c.figures(r)}
		d.Calm = d.Slot == "" && !slices.ContainsFunc(d.Tiles, func(f Figure) bool { return f.Tone == "warn" || f.Tone == "bad" })
		for _, s := range c.steps {
			done, err := s.Done(r.Context())
			if err != nil { // the rest of the day still shows
				c.logProblem(r, err)
			}
			d.Steps = append(d.Steps, stepState{Step: s, Finished: done, Next: !done && d.Open == 0})
			if !done {
				d.Open++
			}
		}
		return d, nil
	}})
}

// figures are the tiles that the visitor may see. One that fails says so in its place.
func (c *Console) figures(r *http.Request) (out []Figure) {
	for _, t := range c.tiles {
		if t.Verb != "" && !c.cfg.Holds(r.Context(), t.Verb) {
			continue
		}
		f, err := t.Load(r.Context())
		if err != nil {
			c.logProblem(r, err)
			f = Figure{Label: "Not known", Value: "–", Note: "This number could not be read.", Tone: "warn", Href: "/"}
		}
		if f.Label != "" {
			out = append(out, f)
		}
	}
	return out
}
