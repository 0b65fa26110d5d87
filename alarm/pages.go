// SPDX-License-Identifier: AGPL-3.0-only

package alarm

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed pages/*.html
var pagesFS embed.FS

const (
	menu     = "Alarms"
	pageSize = 50
	liveEach = 2 * time.Second
)

type alarmsPage struct {
	Alarms   []Alarm
	Bar      console.Bar
	Unacked  int64
	State    string
	Severity string
	States   []console.Option
	Severes  []console.Option
	Rules    bool // there are rules
	Names    *console.Names
	MayWrite bool
	Pager    console.Pager
}

type alarmPage struct {
	Alarm
	About    *Rule         // nil: it was removed
	Slot     template.HTML // parts of other stages
	Names    *console.Names
	MayWrite bool
}

// Heading is the page's title.
func (p alarmPage) Heading() string { return p.Name }

type rulesPage struct {
	Rules    []Rule
	Kinds    []console.Option
	Ops      []console.Option
	Severes  []console.Option
	MayWrite bool
	Typed    url.Values
}

type devicePart struct{ Alarms []Alarm }

var severities = []console.Option{{Value: string(Critical), Word: "critical"}, {Value: string(Warning), Word: "warning"}, {Value: string(Info), Word: "info"}}

// Pages mounts the console pages.
func (s *Service) Pages(c *console.Console) {
	read, write := string(tenant.AlarmRead), string(tenant.AlarmWrite)
	c.Page(console.Page{Path: "/alarms", Title: "Alarms", Menu: menu, Tab: "Alarms", TabOrder: 10, Verb: read, FS: pagesFS, Template: "pages/alarms.html",
		Load: func(r *http.Request) (any, error) {
			p, err := s.loadAlarms(r)
			p.Names = c.Names(r.Context())
			return p, err
		}})
	c.Page(console.Page{Path: "/alarms/{id}", Title: "Alarm", Menu: menu, Tab: "Alarms", Verb: read, FS: pagesFS, Template: "pages/alarm.html",
		Load: func(r *http.Request) (any, error) {
			a, err := s.one(r.Context(), r.PathValue("id"), tenant.AlarmRead)
			if err != nil {
				return nil, err
			}
			p := alarmPage{Alarm: a, Names: c.Names(r.Context()), MayWrite: tenant.Holds(r.Context(), write), Slot: c.Slot("alarm").Render(r, a.ID)}
			rule, err := s.rule(r.Context(), a.Tenant, a.Rule)
			switch {
			case err == nil:
				p.About = &rule
			case problem.Is(err, problem.KindNotFound):
				err = nil
			}
			return p, err
		}})
	c.Page(console.Page{Path: "/alarms/rules", Title: "Rules", Menu: menu, Tab: "Rules", TabOrder: 20, Verb: read, FS: pagesFS, Template: "pages/rules.html",
		Load: func(r *http.Request) (any, error) {
			p := rulesPage{Severes: severities, MayWrite: tenant.Holds(r.Context(), write), Typed: console.Typed(r),
				Kinds: []console.Option{{Value: string(Threshold), Word: "a value beyond a limit"}, {Value: string(Change), Word: "a value that changes too fast"},
					{Value: string(Absence), Word: "silence"}, {Value: string(Events), Word: "events that come too often"}},
				Ops: []console.Option{{Value: ">", Word: "above"}, {Value: ">=", Word: "at or above"}, {Value: "<", Word: "below"}, {Value: "<=", Word: "at or below"}}}
			var err error
			p.Rules, err = s.rules(r.Context())
			return p, err
		}})
	c.Form("/alarms/rules", write, func(r *http.Request) (string, error) {
		rule, err := ruleForm(r)
		if err != nil {
			return "", err
		}
		rule, err = s.setRule(r.Context(), rule)
		if err == nil {
			console.Say(r, "The rule “"+rule.Name+"” watches from now on.")
		}
		return "/alarms/rules", err
	})
	c.Form("/alarms/rules/{id}/turn", write, func(r *http.Request) (string, error) {
		rule, err := s.rule(r.Context(), tenant.MustTenant(r.Context()), r.PathValue("id"))
		if err != nil {
			return "", err
		}
		rule.Off = !rule.Off
		_, err = s.setRule(r.Context(), rule)
		return "/alarms/rules", err
	})
	c.Form("/alarms/rules/{id}/remove", write, func(r *http.Request) (string, error) {
		err := s.removeRule(r.Context(), r.PathValue("id"))
		if err == nil {
			console.Say(r, "The rule is gone, and its alarms are over.")
		}
		return "/alarms/rules", err
	})
	c.Form("/alarms/{id}/acknowledge", write, func(r *http.Request) (string, error) {
		_, err := s.acknowledge(r.Context(), r.PathValue("id"), r.FormValue("note"))
		return "/alarms/" + r.PathValue("id"), err
	})
	c.Form("/alarms/{id}/close", write, func(r *http.Request) (string, error) {
		_, err := s.closeFor(r.Context(), r.PathValue("id"), r.FormValue("note"))
		return "/alarms/" + r.PathValue("id"), err
	})
	c.Live("/alarms/live", read, s.live)
	c.Fragment("device", console.Fragment{Order: 45, Title: "Alarms", Verb: read, FS: pagesFS, Template: "pages/device.html",
		Load: func(r *http.Request, device string) (any, error) {
			as, err := s.alarms(r.Context(), Question{Device: device, Limit: 10})
			if err != nil || len(as) == 0 {
				return nil, err
			}
			return devicePart{Alarms: as}, nil
		}})
	c.Tile(console.Tile{Order: 15, Verb: read, Load: s.tile})
}

func (s *Service) loadAlarms(r *http.Request) (alarmsPage, error) {
	ctx, q := r.Context(), r.URL.Query()
	p := alarmsPage{State: q.Get("state"), Severity: q.Get("severity"), MayWrite: tenant.Holds(ctx, string(tenant.AlarmWrite)),
		States:  []console.Option{{Value: "open", Word: "open"}, {Value: "closed", Word: "over"}, {Value: "any", Word: "any"}},
		Severes: append([]console.Option{{Word: "any"}}, severities...)}
	if p.State == "" {
		p.State = "open"
	}
	state := p.State
	if state == "any" {
		state = ""
	}
	var err error
	if p.Alarms, err = s.alarms(ctx, Question{State: state, Severity: Severity(p.Severity), Before: q.Get("before"), Limit: pageSize + 1}); err != nil {
		return p, err
	}
	link := url.Values{"state": {p.State}, "severity": {p.Severity}}
	if q.Get("before") != "" {
		p.Pager.First = "/alarms?" + link.Encode()
	}
	if len(p.Alarms) > pageSize {
		p.Alarms = p.Alarms[:pageSize]
		link.Set("before", p.Alarms[pageSize-1].ID)
		p.Pager.Next = "/alarms?" + link.Encode()
	}
	open, unacked, err := s.open(ctx)
	if err != nil {
		return p, err
	}
	p.Unacked, p.Bar = unacked, console.Bar{Label: "Open alarms"}
	for _, x := range []struct {
		s    Severity
		tone string
	}{{Critical, "bad"}, {Warning, "warn"}, {Info, "busy"}} {
		if n := open[x.s]; n > 0 {
			p.Bar.Total += n
			p.Bar.Parts = append(p.Bar.Parts, console.BarPart{Word: string(x.s), N: n, Tone: x.tone})
		}
	}
	rules, err := s.rules(ctx)
	if problem.Is(err, problem.KindForbidden) { // a customer sees alarms, not the rules of the maker
		rules, err = make([]Rule, 1), nil
	}
	p.Rules = len(rules) > 0
	return p, err
}

// open counts the open alarms that whoever asks may read.
func (s *Service) open(ctx context.Context) (n map[Severity]int64, unacked int64, err error) {
	who, _ := tenant.ActorFrom(ctx)
	q := Question{}
	q.Whole, q.Products, q.Solutions = tenant.Scope(who, tenant.AlarmRead)
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) { n, unacked, err = countOpen(tx, who.Tenant, q); return err })
	return n, unacked, err
}

func (s *Service) tile(ctx context.Context) (console.Figure, error) {
	open, unacked, err := s.open(ctx)
	if err != nil {
		return console.Figure{}, err
	}
	all := open[Critical] + open[Warning] + open[Info]
	f := console.Figure{Label: "Open alarms", Value: console.Count(all), Note: "none is open", Href: "/alarms", ID: "alarms-open", Live: "/alarms/live"}
	if all > 0 {
		f.Note = fmt.Sprintf("%d critical, %d not acknowledged", open[Critical], unacked)
	}
	switch {
	case open[Critical] > 0:
		f.Tone = "bad"
	case open[Warning] > 0:
		f.Tone = "warn"
	}
	return f, nil
}

// live sends the number of open alarms when it changes.
func (s *Service) live(ctx context.Context, _ *http.Request, send func(event, html string)) {
	last := int64(-1)
	for {
		if open, _, err := s.open(ctx); err == nil {
			if all := open[Critical] + open[Warning] + open[Info]; all != last {
				last = all
				send("alarms-open", console.Count(all))
			}
		}
		t := s.cfg.Clock.NewTimer(liveEach)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

func ruleForm(r *http.Request) (Rule, error) {
	v := r.FormValue
	rule := Rule{Name: v("name"), Filter: v("filter"), Kind: Kind(v("kind")), Stream: strings.TrimSpace(v("stream")), Field: strings.TrimSpace(v("field")), Event: strings.TrimSpace(v("event")),
		Op: v("op"), Severity: Severity(v("severity")), Signal: v("signal") != ""}
	var errs []error
	decimal := func(name string) (float64, bool) {
		if v(name) == "" {
			return 0, false
		}
		n, err := strconv.ParseFloat(v(name), 64)
		if err != nil {
			errs = append(errs, problem.Invalid("%q is not a number.", v(name)).At(name))
		}
		return n, true
	}
	rule.Value, _ = decimal("value")
	if n, ok := decimal("clear"); ok {
		rule.Clear = &n
	}
	minutes, _ := decimal("for")
	rule.For = int64(minutes * 60)
	minutes, _ = decimal("window")
	rule.Window = int64(minutes * 60)
	n, _ := decimal("count")
	rule.Count = int64(n)
	return rule, errors.Join(errs...)
}
