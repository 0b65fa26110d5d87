// SPDX-License-Identifier: AGPL-3.0-only

package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// Step is one verified statement about the life of the devices.
type Step struct {
	Stage  string  `json:"stage"` // provision, commission, work, update, monitor, respond, decommission, deprovision
	Name   string  `json:"name"`
	OK     bool    `json:"ok"`
	MS     float64 `json:"ms"`
	Detail string  `json:"detail"`
}

// Report is what --json prints.
type Report struct {
	OK      bool   `json:"ok"`
	Devices int    `json:"devices"`
	Steps   []Step `json:"steps"`
}

// WriteJSON prints the report as one object.
func (r Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(r)
}

// step is a check: detail says in a few words what was seen.
type step struct {
	stage, name string
	run         func(ctx context.Context, p *progress) (detail string, err error)
}

// progress shows what is going on, on a terminal line by line and redrawn, elsewhere one line per finished step.
type progress struct {
	w     io.Writer
	live  bool
	color bool
	mu    sync.Mutex // guards the fields below
	stage string
	name  string
	note  string
	began time.Time
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		p.live, p.color = true, os.Getenv("NO_COLOR") == ""
	}
	return p
}

// say updates the note behind the running step, such as "12 of 25".
func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.note = fmt.Sprintf(format, args...)
	p.draw()
}

func (p *progress) draw() {
	if p.live {
		fmt.Fprintf(p.w, "\r\x1b[K  … %s  %s", p.name, p.note)
	}
}

func (p *progress) start(s step) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.stage != p.stage {
		p.stage = s.stage
		fmt.Fprintf(p.w, "\n%s\n", p.paint("1", strings.ToUpper(s.stage[:1])+s.stage[1:]))
	}
	p.name, p.note, p.began = s.name, "", time.Now()
	p.draw()
}

func (p *progress) end(s Step) {
	p.mu.Lock()
	defer p.mu.Unlock()
	mark := p.paint("32", "ok ")
	if !s.OK {
		mark = p.paint("31", "NO ")
	}
	if p.live {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	fmt.Fprintf(p.w, "  %s %-52s %7s  %s\n", mark, s.Name, duration(s.MS), s.Detail)
}

func (p *progress) paint(code, s string) string {
	if !p.color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func duration(ms float64) string {
	if ms >= 1000 {
		return fmt.Sprintf("%.1f s", ms/1000)
	}
	return fmt.Sprintf("%.0f ms", ms)
}

// play runs the steps in order. before is called ahead of each, for tests that disturb the world from outside.
func play(ctx context.Context, steps []step, p *progress, before func(stage, name string)) []Step {
	var out []Step
	broken := false
	for _, s := range steps {
		if broken {
			out = append(out, Step{Stage: s.stage, Name: s.name, Detail: "not run: an earlier step failed"})
			continue
		}
		if before != nil {
			before(s.stage, s.name)
		}
		p.start(s)
		began := time.Now()
		detail, err := s.run(ctx, p)
		done := Step{Stage: s.stage, Name: s.name, OK: err == nil, MS: math.Round(float64(time.Since(began).Microseconds())/100) / 10, Detail: detail}
		if err != nil {
			done.Detail, broken = err.Error(), true
		}
		p.end(done)
		out = append(out, done)
	}
	return out
}
