// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

const pageJobs = 50

// What is what the job asks, in a word.
func (j Job) What() string {
	switch {
	case j.Title != "":
		return j.Title
	case j.Kind == KindTwin:
		return "desired state"
	}
	return j.Name
}

// Bar is how far the job has come.
func (j Job) Bar() console.Bar {
	n := j.Counts
	b := console.Bar{Label: "Devices", Total: n.Devices}
	for _, p := range []console.BarPart{
		{Word: "done", N: n.Done, Tone: "good"}, {Word: "failed", N: n.Failed, Tone: "bad"}, {Word: "expired", N: n.Expired, Tone: "bad"},
		{Word: "at work", N: n.Started, Tone: "busy"}, {Word: "away", N: n.Away, Tone: "warn"}, {Word: "cancelled", N: n.Cancelled, Tone: "past"}, {Word: "waiting", N: n.Waiting, Tone: ""},
	} {
		if p.N > 0 || p.Word == "done" {
			b.Parts = append(b.Parts, p)
		}
	}
	return b
}

type jobsPage struct {
	Jobs    []Job
	Pager   console.Pager
	MaySend bool
	Form    jobForm
	Names   *console.Names
}

type jobPage struct {
	Job
	Over     bool // nothing more will happen
	Parts    []Part
	Choices  []stateChoice
	Pager    console.Pager
	Chart    *console.Chart
	MaySteer bool
	Names    *console.Names
}

// Heading is the page's title.
func (p jobPage) Heading() string { return p.What() }

// stateChoice narrows the list of a job's devices.
type stateChoice struct {
	Word, Href string
	Here       bool
}

func (s *Service) jobPages(c *console.Console) {
	verb := string(tenant.DeviceRead)
	c.Page(console.Page{Path: "/jobs", Title: "Jobs", Menu: "Jobs", Verb: verb, FS: pagesFS, Template: "pages/jobs.html",
		Load: func(r *http.Request) (any, error) {
			p, err := s.loadJobs(r)
			p.Names = c.Names(r.Context())
			return p, err
		}})
	c.Page(console.Page{Path: "/jobs/{id}", Title: "Job", Menu: "Jobs", Verb: verb, FS: pagesFS, Template: "pages/job.html",
		Load: func(r *http.Request) (any, error) {
			p, err := s.loadJob(r)
			p.Names = c.Names(r.Context())
			return p, err
		}})
	c.Form("/jobs", string(tenant.CommandSend), s.postJob)
	c.Fragment("selection", console.Fragment{Order: 10, Title: "Ask them", Verb: string(tenant.CommandSend), FS: pagesFS, Template: "pages/selection.html",
		Load: func(_ *http.Request, filter string) (any, error) {
			return "/jobs?" + url.Values{"filter": {filter}}.Encode(), nil
		}})
	for path, to := range map[string]string{"pause": Paused, "resume": Running, "cancel": string(Cancelled)} {
		c.Form("/jobs/{id}/"+path, string(tenant.CommandSend), func(r *http.Request) (string, error) {
			_, err := s.steer(r.Context(), r.PathValue("id"), to, "")
			return "/jobs/" + r.PathValue("id"), err
		})
	}
	c.Live("/jobs/{id}/live", verb, func(ctx context.Context, r *http.Request, send func(event, html string)) {
		last := Job{}
		for {
			j, err := s.job(ctx, r.PathValue("id"), tenant.DeviceRead)
			if err != nil {
				return // the page says so when it is loaded anew
			}
			if j.Counts != last.Counts || j.State != last.State {
				send("job-progress", string(c.HTML("bar", j.Bar())))
				send("job-state", string(c.HTML("badge", console.NewBadge(j.State)))+" "+htmlEscape(j.Reason))
				if chart, err := s.jobChart(ctx, j); err == nil && chart != nil && j.Counts.ends() != last.Counts.ends() {
					send("job-ends", string(c.HTML("chart", chart)))
				}
				last = j
			}
			t := s.cfg.Clock.NewTimer(time.Second)
			select {
			case <-ctx.Done():
				t.Stop()
				return
			case <-t.C:
			}
			if !j.Ended.IsZero() && j.Counts.open() == 0 {
				return
			}
		}
	})
	c.Tile(console.Tile{Order: 25, Verb: verb, Load: s.jobTile})
}

var htmlEscape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace

// jobTile counts the jobs under way, if there are any among the newest.
func (s *Service) jobTile(ctx context.Context) (console.Figure, error) {
	js, err := s.readableJobs(ctx, "", 20)
	if err != nil {
		return console.Figure{}, err
	}
	var open, failed int64
	for _, j := range js {
		if j.Ended.IsZero() {
			open++
			failed += j.Counts.Failed + j.Counts.Expired
		}
	}
	if open == 0 {
		return console.Figure{}, nil
	}
	f := console.Figure{Label: "Jobs under way", Value: console.Count(open), Note: "nobody has failed", Href: "/jobs"}
	if failed > 0 {
		f.Note, f.Tone = console.Plural(failed, "device has failed", "devices have failed"), "warn"
	}
	return f, nil
}

func (s *Service) loadJobs(r *http.Request) (p jobsPage, err error) {
	ctx, q := r.Context(), r.URL.Query()
	js, err := s.readableJobs(ctx, q.Get("before"), pageJobs+1)
	if err != nil {
		return p, err
	}
	if len(js) > pageJobs {
		js = js[:pageJobs]
		p.Pager.Next = "/jobs?before=" + url.QueryEscape(js[pageJobs-1].ID)
	}
	if q.Get("before") != "" {
		p.Pager.First = "/jobs"
	}
	p.Jobs = js
	who, _ := tenant.ActorFrom(ctx)
	p.MaySend = tenant.Anywhere(who, tenant.CommandSend) || tenant.Anywhere(who, tenant.TwinWrite)
	if p.MaySend {
		p.Form, err = s.jobForm(ctx, console.Typed(r), q.Get("filter"))
	}
	return p, err
}

func (s *Service) loadJob(r *http.Request) (p jobPage, err error) {
	ctx, q := r.Context(), r.URL.Query()
	if p.Job, err = s.job(ctx, r.PathValue("id"), tenant.DeviceRead); err != nil {
		return p, err
	}
	p.Over = !p.Ended.IsZero() && p.Counts.open() == 0
	who, _ := tenant.ActorFrom(ctx)
	p.MaySteer = tenant.Can(who, p.verb(), p.thing()) && slices.Contains([]string{Scheduled, Running, Paused}, p.State)
	state := q.Get("state")
	if p.Parts, err = s.parts(ctx, p.Job, state, q.Get("after"), pageJobs+1); err != nil {
		return p, err
	}
	here := "/jobs/" + p.ID
	with := func(state, after string) string {
		v := url.Values{}
		if state != "" {
			v.Set("state", state)
		}
		if after != "" {
			v.Set("after", after)
		}
		if len(v) == 0 {
			return here
		}
		return here + "?" + v.Encode()
	}
	if len(p.Parts) > pageJobs {
		p.Parts = p.Parts[:pageJobs]
		p.Pager.Next = with(state, p.Parts[pageJobs-1].Device)
	}
	if q.Get("after") != "" {
		p.Pager.First = with(state, "")
	}
	p.Choices = append(p.Choices, stateChoice{"all", here, state == ""})
	for _, st := range []string{Waiting, Away, Started, string(Done), string(Failed), string(Expired), string(Cancelled)} {
		if *p.Counts.at(st) > 0 {
			p.Choices = append(p.Choices, stateChoice{st, with(st, ""), state == st})
		}
	}
	p.Chart, err = s.jobChart(ctx, p.Job)
	return p, err
}

// chartPoints bounds the points of a job's chart.
const chartPoints = 120

// jobChart draws how many devices had ended by when; nil while nobody has.
func (s *Service) jobChart(ctx context.Context, j Job) (*console.Chart, error) {
	if j.Started.IsZero() {
		return nil, nil
	}
	until := j.Ended
	if until.IsZero() {
		until = s.cfg.Clock.Now()
	}
	step := max(int64(time.Second/time.Millisecond), until.Sub(j.Started).Milliseconds()/chartPoints)
	by, err := ends(ctx, s.cfg.DB, j.ID, step)
	if err != nil || len(by) == 0 {
		return nil, err
	}
	c := &console.Chart{ID: "job-chart", Title: "Devices that have ended", Times: []time.Time{j.Started}, Series: []console.Series{{Name: "done"}, {Name: "failed"}}}
	var done, failed float64
	add := func() {
		d, f := done, failed
		c.Series[0].Values = append(c.Series[0].Values, &d)
		c.Series[1].Values = append(c.Series[1].Values, &f)
	}
	add()
	for _, at := range slices.Sorted(maps.Keys(by)) {
		done += float64(by[at].Done)
		failed += float64(by[at].Failed + by[at].Expired)
		end := store.Time((at + 1) * step)
		if !end.After(c.Times[len(c.Times)-1]) {
			continue // before its beginning: a clock was set back
		}
		c.Times = append(c.Times, end)
		add()
	}
	return c, nil
}
