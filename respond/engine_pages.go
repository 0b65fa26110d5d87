// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

// regionsView is what goes on in a case beside its reports, with what may be recorded now.
type regionsView struct {
	Regions
	ID                              string
	Submissions                     map[string]bool // that are accepted
	Closed, Claimed, Out            bool
	MayExpect, MayClaim             bool
	MayCover, MayInvalidate, States []console.Option
	Grounds                         []groundText
	Seen                            int
	Now                             string
}

// targetView is one limit on its page.
type targetView struct {
	limit
	Value int
}

func (s *Service) enginePages(c *console.Console) {
	read, declare := string(tenant.CaseRead), string(tenant.CaseDeclare)
	c.Fragment("case", console.Fragment{Order: 10, Title: "Beside the reports", Verb: read, FS: pagesFS, Template: "pages/regions.html",
		Load: func(r *http.Request, id string) (any, error) {
			cs, err := s.Case(r.Context(), id)
			return s.regions(cs), err
		}})
	c.Page(console.Page{Path: "/cases/targets", Title: "Limits of the house", Menu: "Cases", Verb: read, FS: pagesFS, Template: "pages/targets.html",
		Load: func(r *http.Request) (any, error) {
			t, err := s.Targets(r.Context())
			views := make([]targetView, len(limits))
			for i, l := range limits {
				views[i] = targetView{l, *l.of(&t)}
			}
			return map[string]any{"Limits": views}, err
		}})
	c.Form("/cases/targets", declare, func(r *http.Request) (string, error) {
		var t Targets
		for _, l := range limits {
			n, err := strconv.Atoi(strings.TrimSpace(r.PostFormValue(l.Name)))
			if err != nil {
				return "", problem.Invalid("%s: write a number.", l.Label).At(l.Name)
			}
			*l.of(&t) = n
		}
		if err := s.SetTargets(r.Context(), t); err != nil {
			return "", err
		}
		console.Say(r, "The limits hold from now on, for cases that run as well.")
		return "/cases/targets", nil
	})
}

func (s *Service) regions(c Case) regionsView {
	st := c.state
	v := regionsView{Regions: c.Regions, ID: c.ID, Submissions: map[string]bool{}, Closed: st.Closed, Seen: len(c.Events), Now: s.now().Format(time.RFC3339), Grounds: Grounds,
		Claimed:   !st.Dissemination.Invoked.IsZero() && st.Dissemination.Lost.IsZero(),
		MayExpect: st.Measure.IsZero(),
		States:    stateOptions("Choose")}
	_, v.Out = st.outage()
	v.MayClaim = !v.Claimed && st.Kind == AEV && st.has(EarlyWarning) && !st.has(Notification)
	for stage := range st.Accepted {
		v.Submissions[string(stage)] = true
	}
	for _, stage := range []Stage{Final, Notification, EarlyWarning} {
		o := console.Option{Value: string(stage), Word: stage.Name()}
		if first := before[stage]; first != "" && st.has(first) && !st.has(stage) {
			v.MayCover = append(v.MayCover, o)
		}
		if st.has(stage) && !st.has(after[stage]) {
			v.MayInvalidate = append(v.MayInvalidate, o)
		}
	}
	return v
}

// products are those of the tenant about which the visitor may do v.
func (s *Service) products(r *http.Request, v tenant.Verb) (out []console.Option, err error) {
	ps, err := s.cfg.Products.List(r.Context(), tenant.MustTenant(r.Context()))
	for _, p := range ps {
		if _, refused := who(r.Context(), v, p.ID); refused == nil {
			out = append(out, console.Option{Value: p.ID, Word: p.Name})
		}
	}
	return out, err
}

// choices fills in what a decision about the signal can name.
func (s *Service) choices(r *http.Request, v *signalView) (err error) {
	v.Seen, v.Reasons = len(v.Assessment.Decisions), Reasons
	if v.Products, err = s.products(r, tenant.CaseDeclare); err != nil {
		return err
	}
	cs, err := s.Cases(r.Context(), true, "", shown)
	for _, c := range cs {
		if v.Product == "" || c.Product == v.Product {
			v.Open = append(v.Open, console.Option{Value: c.ID, Word: c.Title + ", " + c.KindName()})
		}
	}
	return err
}
