// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"cmp"
	"context"
	"embed"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed pages/*.html
var pagesFS embed.FS

// shown is how many cases and signals a page lists; the API has them all.
const shown = 100

// stageNames are the words for people.
var stageNames = map[Stage]string{EarlyWarning: "Early warning", Notification: "72-hour notification", Final: "Final report",
	Intermediate: "Intermediate report", Users: "Inform users", Spreading: "Silence about the notification", Publication: "Hold on publication"}

// Name is the stage in words.
func (s Stage) Name() string { return cmp.Or(stageNames[s], string(s)) }

// KindName is the kind of case in words.
func (c Case) KindName() string {
	return pick(c.Kind, "Actively exploited vulnerability", "Severe incident")
}

// clockView is a clock on a page.
type clockView struct {
	Deadline
	Name      string
	Countdown console.Countdown
	LocalTime string // strict end on the wall in the coordinator's zone
	LocalDay  string
	RuleRefs  []string
}

func (s *Service) clocks(c Case) []clockView {
	zone := c.state.Zone()
	out := make([]clockView, len(c.Clocks))
	for i, d := range c.Clocks {
		v := clockView{Deadline: d, Name: d.Stage.Name(), Countdown: console.Countdown{Name: d.Stage.Name(), From: d.Anchor, Due: d.Due, Now: s.now(), Met: d.Met}}
		if !d.Due.IsZero() {
			v.LocalTime, v.LocalDay = d.Due.In(zone).Format("15:04 MST"), d.Due.In(zone).Format("Monday 2006-01-02")
		}
		for _, id := range d.Rules {
			if r, ok := law.Get(id); ok {
				v.RuleRefs = append(v.RuleRefs, r.Ref)
			}
		}
		out[i] = v
	}
	return out
}

// caseView is a case on a page.
type caseView struct {
	Case
	Clocks    []clockView
	Next      *clockView
	Checks    []check
	Attempts  []console.Option // submissions that wait for their receipt
	Requests  []console.Option // intermediate reports that are owed
	Stages    []console.Option
	Now       string
	Seen      int           // events that the visitor sees
	FinalNext bool          // the report that comes next is the last
	Slot      template.HTML // parts of other stages
	Names     *console.Names
	Line      []Filer // who files next, then the deputies
	Closed    bool
}

// kindWords are the parts of kinds of events that people write otherwise.
var kindWords = strings.NewReplacer("t0.", "T0 ", "pec.", "PEC ", "csirt.", "CSIRT ", ".", " ", "_", " ")

// Words is the kind for people.
func (k EventKind) Words() string { return kindWords.Replace(string(k)) }

// Heading is the page's title.
func (v caseView) Heading() string { return v.Title }

// check is one line of a case's list of what is done and what is missing.
type check struct {
	Done bool
	Text string
}

func (s *Service) view(c Case) caseView {
	v := caseView{Case: c, Clocks: s.clocks(c), Now: s.now().Format(time.RFC3339), Seen: len(c.Events), FinalNext: stageNow(c.state) == Final && !c.state.has(Final), Closed: c.state.Closed}
	for i := range v.Clocks {
		if v.Clocks[i].Running() && v.Clocks[i].Stage == c.Next {
			v.Next = &v.Clocks[i]
			break
		}
	}
	st := c.state
	for seq, a := range st.Attempts {
		if !a.Done {
			v.Attempts = append(v.Attempts, console.Option{Value: strconv.FormatInt(seq, 10), Word: a.Stage.Name() + ", " + instant(a.At)})
		}
	}
	slices.SortFunc(v.Attempts, func(a, b console.Option) int { return cmp.Compare(a.Value, b.Value) })
	for _, q := range st.Requests {
		if q.Answered.IsZero() {
			v.Requests = append(v.Requests, console.Option{Value: strconv.FormatInt(q.Seq, 10), Word: q.Text})
		}
	}
	for _, stage := range []Stage{EarlyWarning, Notification, Final} {
		if first, ok := before[stage]; !st.has(stage) && (!ok || st.has(first)) {
			v.Stages = append(v.Stages, console.Option{Value: string(stage), Word: stage.Name()})
		}
	}
	v.Checks = []check{
		{true, "Awareness declared by a person with evidence"},
		{st.Summary != "", "Summary written"},
		{len(st.MemberStates) > 0, "Member States concerned known"},
		{st.has(EarlyWarning), "Early warning accepted, receipt confirmed by a second person"},
		{st.has(Notification), "Notification accepted"},
		{!st.Measure.IsZero(), "A corrective or mitigating measure is available"},
		{!st.UsersInformed.IsZero(), "Users informed"},
		{st.has(Final), "Final report accepted"},
	}
	return v
}

// casesView is the list of cases and of signals that wait for a person.
type casesView struct {
	Cases    []caseView
	Signals  []Signal
	Products []console.Option
	Typed    url.Values
}

type signalView struct {
	Signal
	Names    *console.Names
	Seen     int // decisions that the visitor sees
	Products []console.Option
	Open     []console.Option // cases that the signal may belong to
	Reasons  []reasonText
	Draft    awareDraft
	States   []console.Option
	Now      string
	Typed    url.Values
}

// Heading is the page's title.
func (v signalView) Heading() string { return v.Title }

// Pages registers the pages of the room.
func (s *Service) Pages(c *console.Console) {
	read, write := string(tenant.CaseRead), string(tenant.CaseWrite)
	c.Page(console.Page{Path: "/cases", Title: "Cases", Menu: "Cases", Verb: read, FS: pagesFS, Template: "pages/cases.html",
		Load: func(r *http.Request) (any, error) {
			cs, err := s.Cases(r.Context(), false, "", shown)
			if err != nil {
				return nil, err
			}
			v := casesView{Typed: console.Typed(r)}
			for _, c := range cs {
				v.Cases = append(v.Cases, s.view(c))
			}
			if v.Signals, err = s.Signals(r.Context(), "", shown); err != nil {
				return nil, err
			}
			v.Products, err = s.products(r, tenant.CaseRead)
			return v, err
		}})
	c.Page(console.Page{Path: "/cases/{id}", Title: "Case", Menu: "Cases", Verb: read, FS: pagesFS, Template: "pages/case.html",
		Load: func(r *http.Request) (any, error) {
			cs, err := s.Case(r.Context(), r.PathValue("id"))
			if err != nil {
				return nil, err
			}
			v := s.view(cs)
			v.Slot, v.Names = c.Slot("case").Render(r, cs.ID), c.Names(r.Context())
			v.Line, err = s.Line(r.Context(), cs)
			return v, err
		}})
	s.packPages(c)
	s.drillPages(c)
	s.anomalyPages(c)
	s.runbookPages(c)
	s.enginePages(c)
	c.Page(console.Page{Path: "/signals/{id}", Title: "Signal", Menu: "Cases", Verb: read, FS: pagesFS, Template: "pages/signal.html",
		Load: func(r *http.Request) (any, error) {
			sig, err := s.Signal(r.Context(), r.PathValue("id"))
			if err != nil {
				return nil, err
			}
			v := signalView{Signal: sig, Names: c.Names(r.Context()), Now: s.now().Format(time.RFC3339), Typed: console.Typed(r), States: stateOptions("Choose")}
			if sig.Product == "" {
				if v.Products, err = s.products(r, tenant.CaseWrite); err != nil {
					return nil, err
				}
			}
			if sig.deciding() {
				if err := s.choices(r, &v); err != nil {
					return nil, err
				}
				v.Draft, err = s.awareDraft(r.Context(), sig)
			}
			return v, err
		}})
	c.Fragment("today", console.Fragment{Order: 10, Title: "Clocks running", Verb: read, FS: pagesFS, Template: "pages/today.html",
		Load: func(r *http.Request, _ string) (any, error) { return s.today(r) }})
	c.Fragment("today", console.Fragment{Order: 2, Title: "Seen exploited: assess it now", Verb: read, FS: pagesFS, Template: "pages/burning.html",
		Load: func(r *http.Request, _ string) (any, error) {
			v := burningView{Names: c.Names(r.Context())}
			var err error
			if v.Signals, err = s.burning(r.Context()); err != nil || len(v.Signals) == 0 {
				return nil, err
			}
			return v, nil
		}})
	c.Fragment("product", console.Fragment{Order: 60, Title: "Cases", Verb: read, FS: pagesFS, Template: "pages/product.html",
		Load: func(r *http.Request, id string) (any, error) { return s.ofProduct(r, id) }})

	c.Form("/signals", write, func(r *http.Request) (string, error) {
		known, err := console.Instant(r, "known_since")
		if err != nil {
			return "", err
		}
		sig, err := s.AddSignal(r.Context(), Signal{Product: r.PostFormValue("product"), Title: r.PostFormValue("title"), Detail: r.PostFormValue("detail"),
			Ref: r.PostFormValue("ref"), Exploited: r.PostFormValue("exploited"), KnownSince: known})
		return "/signals/" + sig.ID, err
	})
	c.Form("/signals/{id}/product", write, func(r *http.Request) (string, error) {
		_, err := s.AttributeSignal(r.Context(), r.PathValue("id"), r.PostFormValue("product"))
		return "/signals/" + r.PathValue("id"), err
	})
	c.Form("/signals/{id}/assessment", write, func(r *http.Request) (string, error) {
		_, err := s.Assess(r.Context(), r.PathValue("id"), r.PostFormValue("evidence"))
		return "/signals/" + r.PathValue("id"), err
	})
	c.Form("/assessments/{id}/decision", write, s.decideForm)
	c.Form("/cases/{id}/events", write, s.eventForm)
}

func (s *Service) decideForm(r *http.Request) (string, error) {
	t0, err := console.Instant(r, "t0")
	if err != nil {
		return "", err
	}
	known, err := console.Instant(r, "known_since")
	if err != nil {
		return "", err
	}
	d := Declaration{Reason: Reason(r.PostFormValue("reason")), KnownSince: known, Case: strings.TrimSpace(r.PostFormValue("case")), Products: r.PostForm["products"], Verdict: Verdict(r.PostFormValue("verdict")), Basis: r.PostFormValue("basis"), T0: t0, Title: r.PostFormValue("title"), Summary: r.PostFormValue("summary"),
		Coordinator: r.PostFormValue("coordinator"), MemberStates: words(r.PostFormValue("member_states")), AEV: yes(r, "aev"), SI: yes(r, "si"), Fields: fieldsOf(r)}
	if n, err := strconv.Atoi(r.PostFormValue("seen")); err == nil {
		d.Seen = &n
	}
	_, cases, err := s.Decide(r.Context(), r.PathValue("id"), d)
	switch {
	case err != nil:
		return "", err
	case len(cases) == 0:
		console.Say(r, "The decision is on record.")
		return "/cases", nil
	default:
		console.Say(r, "You declared awareness. The clocks run.")
		return "/cases/" + cases[0], nil
	}
}

func (s *Service) eventForm(r *http.Request) (string, error) {
	at, err := console.Instant(r, "at")
	if err != nil {
		return "", err
	}
	due, err := console.Instant(r, "due")
	if err != nil {
		return "", err
	}
	attempt, _ := strconv.ParseInt(r.PostFormValue("attempt"), 10, 64) // 0 names no attempt and is refused where one is needed
	request, _ := strconv.ParseInt(r.PostFormValue("request"), 10, 64)
	seen, _ := strconv.ParseInt(r.PostFormValue("seen"), 10, 64) // 0 has seen everything
	id := r.PathValue("id")
	_, err = s.Append(r.Context(), id, EventKind(r.PostFormValue("kind")), Data{At: at, Due: due, Note: r.PostFormValue("note"), Title: r.PostFormValue("title"),
		Summary: r.PostFormValue("summary"), Stage: Stage(r.PostFormValue("stage")), Receipt: r.PostFormValue("receipt"), Attempt: attempt, Request: request,
		MemberStates: words(r.PostFormValue("member_states")), Audience: r.PostFormValue("audience"), Coordinator: r.PostFormValue("coordinator"),
		Ground: Ground(r.PostFormValue("ground")), Component: r.PostFormValue("component"), Seen: seen})
	return "/cases/" + id, err
}

func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\r' || r == '\t' })
}

// yes is the answer to a question with two buttons; nil when none was pressed.
func yes(r *http.Request, name string) *bool {
	switch r.PostFormValue(name) {
	case "yes":
		return new(true)
	case "no":
		return new(false)
	}
	return nil
}

// today is what needs a person now: clocks that run and signals that nobody has looked at.
// todayView is what runs: the most urgent clock, then all of them, and the signals that wait for a person.
type todayView struct {
	First   *caseClock
	Clocks  []caseClock // the most urgent first
	Signals []waiting
	Alone   bool // clocks run and nobody is on call
}

// caseClock is a clock of a case among those of others.
type caseClock struct {
	clockView
	Case, Title, Product, Kind string
}

// waiting is a signal that nobody has decided; idle, when somebody should have.
type waiting struct {
	Signal
	Idle bool
}

func (s *Service) today(r *http.Request) (any, error) {
	cs, err := s.Cases(r.Context(), true, "", shown)
	if err != nil {
		return nil, err
	}
	var v todayView
	for _, c := range cs {
		if c.Next == "" {
			continue
		}
		for _, k := range s.clocks(c) {
			if k.Running() {
				v.Clocks = append(v.Clocks, caseClock{k, c.ID, c.Title, c.ProductName, c.KindName()})
			}
		}
	}
	slices.SortStableFunc(v.Clocks, func(a, b caseClock) int { return a.WorkBy.Compare(b.WorkBy) })
	if len(v.Clocks) > 0 {
		v.First = &v.Clocks[0]
	}
	if len(v.Clocks) > 0 && s.cfg.Rota.Turn != nil {
		turn, err := s.turn(r.Context())
		if err != nil {
			return nil, err
		}
		v.Alone = len(turn) == 0
	}
	sigs, err := s.Signals(r.Context(), "", shown)
	if err != nil {
		return nil, err
	}
	for _, sig := range sigs {
		if sig.Waiting(s.now()) && !sig.Burning(s.now()) {
			v.Signals = append(v.Signals, waiting{sig, !sig.DecideBy.IsZero() && sig.DecideBy.Before(s.now())})
		}
	}
	if len(v.Clocks)+len(v.Signals) == 0 {
		return nil, nil
	}
	return v, nil
}

// burningView is what stands above everything else of a day.
type burningView struct {
	Signals []burning
	Names   *console.Names
}

// burning is a signal that somebody saw exploited, with the house's own limit for deciding. It is no legal clock.
type burning struct {
	Signal
	Countdown console.Countdown
}

// burning lists the signals that somebody saw exploited and nobody has decided, the most urgent first.
func (s *Service) burning(ctx context.Context) (out []burning, err error) {
	t, l := within(ctx, "", shown)
	l.Burning = true
	if !l.Whole && len(l.Products) == 0 {
		return nil, nil
	}
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		limits, err := targets(tx, t)
		if err != nil {
			return err
		}
		sigs, err := signals(tx, t, l)
		for _, sig := range sigs {
			if sig.Burning(s.now()) {
				out = append(out, burning{sig, console.Countdown{Name: "Decide", From: sig.Intake, Due: sig.Due(limits), Now: s.now()}})
			}
		}
		return err
	})
	slices.SortStableFunc(out, func(a, b burning) int { return a.Countdown.Due.Compare(b.Countdown.Due) })
	return out, err
}

func (s *Service) ofProduct(r *http.Request, id string) (any, error) {
	if _, err := who(r.Context(), tenant.CaseRead, id); err != nil {
		return nil, err
	}
	cs, err := s.Cases(r.Context(), false, "", shown)
	cs = slices.DeleteFunc(cs, func(c Case) bool { return c.Product != id })
	if err != nil || len(cs) == 0 {
		return nil, err
	}
	return cs, nil
}
