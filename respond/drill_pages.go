// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

type drillsView struct {
	Drills   []Drill
	Products []console.Option
	Kinds    []console.Option
	OnCall   []string // their ids, in the order in which a drill calls them
	Names    *console.Names
	Typed    url.Values
	MayWrite bool
}

type drillView struct {
	Drill
	Title, Summary string
	Decided        bool
	Waits          int64 // the submission that waits for its confirmation
	Sent           bool
	Confirmed      bool
	Informed       bool
	Pack           *Pack
	States         []console.Option
	Now            string
	Typed          url.Values
	Names          *console.Names
}

// Heading is the page's title.
func (v drillView) Heading() string { return "Drill: " + v.Scenario }

type readyView struct {
	Readiness
	Filers []filerView
	Mine   *Filer // what the visitor said
	Names  *console.Names
}

// filerView is a filer with their place in the line: 1 files next, 2 is the deputy, 0 cannot.
type filerView struct {
	Filer
	Place int
	Why   string // they cannot
}

// Words is the duration for people.
func (d Duration) Words() string { return console.Span(d.Span()) }

// drillPages registers the pages of drills and of readiness.
func (s *Service) drillPages(c *console.Console) {
	read, write := string(tenant.CaseRead), string(tenant.CaseWrite)
	c.Page(console.Page{Path: "/drills", Title: "Drills", Menu: "Cases", Verb: read, FS: pagesFS, Template: "pages/drills.html",
		Load: func(r *http.Request) (any, error) {
			ds, err := s.Drills(r.Context(), "", shown)
			if err != nil {
				return nil, err
			}
			v := drillsView{Drills: ds, Typed: console.Typed(r), MayWrite: tenant.Holds(r.Context(), write),
				Kinds: []console.Option{{Value: string(AEV), Word: "Actively exploited vulnerability"}, {Value: string(SI), Word: "Severe incident"}}}
			v.Names = c.Names(r.Context())
			if v.OnCall, err = s.turn(r.Context()); err != nil {
				return nil, err
			}
			v.Products, err = s.products(r, tenant.CaseWrite)
			return v, err
		}})
	c.Form("/drills", write, func(r *http.Request) (string, error) {
		d, err := s.StartDrill(r.Context(), r.PostFormValue("product"), Kind(r.PostFormValue("kind")), r.PostFormValue("scenario"), r.PostFormValue("calls") == "yes")
		if err == nil {
			console.Say(r, "The drill runs. Tell those who take part what has come in.")
		}
		return "/drills/" + d.ID, err
	})
	c.Page(console.Page{Path: "/drills/{id}", Title: "Drill", Menu: "Cases", Verb: read, FS: pagesFS, Template: "pages/drill.html",
		Load: func(r *http.Request) (any, error) {
			v, err := s.drillView(r)
			v.Names = c.Names(r.Context())
			return v, err
		}})
	c.Form("/drills/{id}/events", write, func(r *http.Request) (string, error) {
		at, err := console.Instant(r, "at")
		if err != nil {
			return "", err
		}
		attempt, _ := strconv.ParseInt(r.PostFormValue("attempt"), 10, 64) // 0 names none and is refused
		d := Data{At: at, Note: r.PostFormValue("note"), Title: r.PostFormValue("title"), Summary: r.PostFormValue("summary"), Stage: Stage(r.PostFormValue("stage")),
			Receipt: r.PostFormValue("receipt"), Attempt: attempt, Coordinator: r.PostFormValue("coordinator"), MemberStates: words(r.PostFormValue("member_states")),
			Audience: r.PostFormValue("audience"), Fields: fieldsOf(r)}
		_, err = s.AppendDrill(r.Context(), r.PathValue("id"), EventKind(r.PostFormValue("kind")), d)
		return "/drills/" + r.PathValue("id"), err
	})
	c.Form("/drills/{id}/end", write, func(r *http.Request) (string, error) {
		d, err := s.EndDrill(r.Context(), r.PathValue("id"), r.PostFormValue("lesson"))
		if err == nil {
			console.Say(r, "The drill has ended: "+strconv.Itoa(d.Score.Points)+" of "+strconv.Itoa(d.Score.Of)+" points.")
		}
		return "/drills/" + r.PathValue("id"), err
	})
	c.Page(console.Page{Path: "/readiness", Title: "Ready to report", Menu: "Cases", Verb: read, FS: pagesFS, Template: "pages/ready.html",
		Load: func(r *http.Request) (any, error) {
			rd, err := s.Readiness(r.Context())
			if err != nil {
				return nil, err
			}
			fs, err := s.Filers(r.Context())
			if err != nil {
				return nil, err
			}
			turn, err := s.turn(r.Context())
			a, _ := tenant.ActorFrom(r.Context())
			v := readyView{Readiness: rd, Names: c.Names(r.Context())}
			line := Line(fs, turn, nil)
			for _, f := range fs {
				place := slices.IndexFunc(line, func(l Filer) bool { return l.Person == f.Person })
				v.Filers = append(v.Filers, filerView{f, place + 1, f.Barred(nil)})
				if f.Person == a.ID {
					v.Mine = &f
				}
			}
			return v, err
		}})
	c.Form("/readiness/filer", write, func(r *http.Request) (string, error) {
		return "/readiness", s.SetFiler(r.Context(), r.PostFormValue("can") == "yes", FilerRole(r.PostFormValue("role")), r.PostFormValue("verified") == "yes")
	})
	c.Fragment("today", console.Fragment{Order: 16, Title: "Drills", Verb: read, FS: pagesFS, Template: "pages/drill_today.html",
		Load: func(r *http.Request, _ string) (any, error) { return s.drillToday(r) }})
}

type drillTodayView struct {
	Running []Drill
	Due     bool      // the last one that counts is too old, or there was none
	Last    time.Time // when it ended
}

// drillToday is what runs, and whether a drill is due: once somebody is on call there is something to rehearse.
func (s *Service) drillToday(r *http.Request) (any, error) {
	ctx := r.Context()
	ds, err := s.Drills(ctx, "", shown)
	if err != nil {
		return nil, err
	}
	v := drillTodayView{Running: slices.DeleteFunc(ds, func(d Drill) bool { return !d.Running() })}
	turn, err := s.turn(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) { v.Last, err = lastDrill(tx, tenant.MustTenant(ctx)); return err }); err != nil {
		return nil, err
	}
	v.Due = len(v.Running) == 0 && (len(turn) > 0 || !v.Last.IsZero()) && s.now().Sub(v.Last) > DrillEvery
	if !v.Due && len(v.Running) == 0 {
		return nil, nil
	}
	return v, nil
}

func (s *Service) drillView(r *http.Request) (drillView, error) {
	d, err := s.Drill(r.Context(), r.PathValue("id"))
	if err != nil {
		return drillView{}, err
	}
	st := d.file.state()
	v := drillView{Drill: d, Title: st.Title, Summary: st.Summary, Decided: len(d.Events) > 0, Confirmed: st.has(EarlyWarning), Informed: !st.UsersInformed.IsZero(),
		Now: s.now().Format(time.RFC3339), Typed: console.Typed(r), States: []console.Option{{Word: "The confirmed one"}}}
	for _, m := range law.MemberStates() {
		v.States = append(v.States, console.Option{Value: m.Code, Word: m.Name})
	}
	for seq, a := range st.Attempts {
		v.Sent = true
		if !a.Done {
			v.Waits = seq
		}
	}
	if v.Decided {
		p, err := s.drillPack(r.Context(), d, EarlyWarning)
		if err != nil {
			return v, err
		}
		v.Pack = &p
	}
	return v, nil
}
