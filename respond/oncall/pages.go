// SPDX-License-Identifier: AGPL-3.0-only

package oncall

import (
	"cmp"
	"context"
	"embed"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/notify"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed pages/*.html
var pagesFS embed.FS

// shown is how many calls the page lists; slots is how many people and absences its form has room for. The API has no
// such bound.
const (
	shown = 50
	slots = 6
)

// turnView is a turn as people read it, in the zone of the rota.
type turnView struct {
	From, To, Zone string
	People         []Member
	Current        bool
}

// memberRow and awayRow are numbered rows of the form.
type (
	memberRow struct {
		Key, No int
		Member
	}
	awayRow struct {
		Key, No int
		Away
	}
)

type page struct {
	Rota      *Rota
	Turns     []turnView // the current one and the next
	Open      []Call
	Drills    []Call // of drills, that nobody has answered yet
	Calls     []Call
	People    []console.Option
	Endpoints []console.Option
	Members   []memberRow
	Absent    []awayRow
	Names     map[string]string
	Typed     url.Values
	MaySet    bool
	MayAnswer bool
}

// Pages registers the page On call, what Today shows of it, and its forms.
func (s *Service) Pages(c *console.Console) {
	c.Page(console.Page{Path: "/on-call", Title: "On call", Menu: "Cases", Verb: string(tenant.CaseRead), FS: pagesFS, Template: "pages/oncall.html",
		Load: func(r *http.Request) (any, error) { return s.page(r) }})
	c.Fragment("today", console.Fragment{Order: 8, Title: "On call", Verb: string(tenant.CaseRead), FS: pagesFS, Template: "pages/today.html", Load: s.today})
	c.Form("/on-call", string(tenant.CaseDeclare), func(r *http.Request) (string, error) {
		rota, err := typedRota(r)
		if err != nil {
			return "", err
		}
		if _, err := s.SetRota(r.Context(), rota); err != nil {
			return "", err
		}
		console.Say(r, "The rota is set.")
		return "/on-call", nil
	})
	c.Form("/on-call/calls/{id}/answer", string(tenant.CaseWrite), func(r *http.Request) (string, error) {
		call, err := s.Answer(r.Context(), r.PathValue("id"))
		if err == nil {
			console.Say(r, "It is yours. Nobody else is called for it.")
		}
		return cmp.Or(call.Link, "/on-call"), err
	})
}

func (s *Service) page(r *http.Request) (page, error) {
	ctx := r.Context()
	t := tenant.MustTenant(ctx)
	p := page{Typed: console.Typed(r), MaySet: tenant.Holds(ctx, string(tenant.CaseDeclare)), MayAnswer: tenant.Holds(ctx, string(tenant.CaseWrite)),
		Members: make([]memberRow, slots), Absent: make([]awayRow, slots)}
	for i := range slots {
		p.Members[i].Key, p.Members[i].No, p.Absent[i].Key, p.Absent[i].No = i, i+1, i, i+1
	}
	rota, set, err := s.Rota(ctx)
	if err != nil {
		return p, err
	}
	if set {
		p.Rota = &rota
		turn := rota.At(s.now())
		for i := range min(4, len(rota.People)+1) {
			p.Turns = append(p.Turns, rota.view(turn, i == 0))
			turn = rota.At(turn.To)
		}
		for i := range slots {
			if i < len(rota.People) {
				p.Members[i].Member = rota.People[i]
			}
			if i < len(rota.Away) {
				p.Absent[i].Away = rota.Away[i]
			}
		}
	}
	if p.Calls, err = s.Calls(ctx, false, false, "", shown); err != nil {
		return p, err
	}
	if p.Drills, err = s.Calls(ctx, true, true, "", shown); err != nil {
		return p, err
	}
	for _, c := range p.Calls {
		if c.Ended.IsZero() {
			p.Open = append(p.Open, c)
		}
	}
	if p.Names, err = s.cfg.People(ctx, t); err != nil {
		return p, err
	}
	p.People = []console.Option{{Word: "Nobody"}}
	for _, id := range slices.SortedFunc(maps.Keys(p.Names), func(a, b string) int { return cmp.Compare(p.Names[a], p.Names[b]) }) {
		p.People = append(p.People, console.Option{Value: id, Word: p.Names[id]})
	}
	p.Endpoints = []console.Option{{Word: "Not at all"}}
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		es, err := s.cfg.Notify.Endpoints(tx, t)
		for _, e := range es {
			p.Endpoints = append(p.Endpoints, console.Option{Value: e.ID, Word: word(e)})
		}
		return err
	})
	return p, err
}

func word(e notify.Endpoint) string { return e.Name + ", " + string(e.Kind) }

// view is a turn in words.
func (r Rota) view(t Turn, current bool) turnView {
	loc := r.location()
	return turnView{From: t.From.In(loc).Format("Mon 2 January 15:04"), To: t.To.In(loc).Format("Mon 2 January 15:04"), Zone: r.Zone, People: t.People, Current: current}
}

type todayView struct {
	Turn         *turnView
	Open, Drills []Call
	May          bool
}

// today is who has the turn, and what waits for an answer. Without a rota it says so once there is a case.
func (s *Service) today(r *http.Request, _ string) (any, error) {
	rota, set, err := s.Rota(r.Context())
	if err != nil || !set {
		return nil, err
	}
	open, err := s.Calls(r.Context(), false, true, "", shown)
	if err != nil {
		return nil, err
	}
	drills, err := s.Calls(r.Context(), true, true, "", shown)
	if err != nil {
		return nil, err
	}
	turn := rota.view(rota.At(s.now()), true)
	return todayView{&turn, open, drills, tenant.Holds(r.Context(), string(tenant.CaseWrite))}, nil
}

// typedRota reads the form: rows person-N with endpoint-N, and away-N with from-N and to-N. Empty rows are left out.
func typedRota(r *http.Request) (Rota, error) {
	f := func(format string, args ...any) string {
		return strings.TrimSpace(r.PostFormValue(fmt.Sprintf(format, args...)))
	}
	rota := Rota{Zone: f("zone"), Start: f("start")}
	for name, into := range map[string]*int{"hour": &rota.Hour, "days": &rota.Days, "minutes": &rota.Minutes} {
		n, err := console.Number(r, name)
		if err != nil {
			return rota, err
		}
		if n < 0 || n > 1000 {
			return rota, problem.Invalid("%d is too much.", n).At(name)
		}
		*into = int(n)
	}
	for i := range slots {
		if p := f("person-%d", i); p != "" {
			m := Member{Person: p}
			for _, e := range []string{f("endpoint-%d", i), f("second-%d", i)} {
				if e != "" && !slices.Contains(m.Endpoints, e) {
					m.Endpoints = append(m.Endpoints, e)
				}
			}
			rota.People = append(rota.People, m)
		}
		if p := f("away-%d", i); p != "" {
			rota.Away = append(rota.Away, Away{Person: p, From: f("from-%d", i), To: f("to-%d", i)})
		}
	}
	return rota, nil
}

// Who names who has the turn, for other pages: "Ann until Mon 30 November 09:00".
func (s *Service) Who(ctx context.Context, t string) (string, error) {
	var r Rota
	var set bool
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) { r, set, err = rotaOf(tx, t); return err })
	if err != nil || !set {
		return "", err
	}
	turn := r.At(s.now())
	return fmt.Sprintf("%s until %s", turn.People[0].Name, turn.To.In(r.location()).Format("Mon 2 January 15:04 MST")), nil
}

// Endpoint is the n-th endpoint of a member, for the form.
func (m Member) Endpoint(n int) string {
	if n < len(m.Endpoints) {
		return m.Endpoints[n]
	}
	return ""
}

// Took is how long it was until somebody answered.
func (c Call) Took() time.Duration {
	if c.Answered.IsZero() {
		return 0
	}
	return c.Answered.Sub(c.At)
}
