// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// RuleDrill names the refusal of what would make a drill look like a report.
const RuleDrill = "respond.drill"

// drillReceipt is how the receipt of a drill begins: nothing that the reporting platform gives out does.
const drillReceipt = "DRILL"

// DrillEvery is how old the last drill may be (section 3.3 of the house's reading of the law: once in a quarter).
const DrillEvery = 90 * 24 * time.Hour

// The times that a drill is held against. They are the house's own.
const (
	packWithin    = 5 * time.Minute  // from the decision to a complete early warning
	confirmWithin = time.Hour        // from the submission to a second person's confirmation
	answerWithin  = 15 * time.Minute // from the first call to a person's answer
)

// Rota is what a drill asks of those who keep the rota. All of it is nil where there is none.
type Rota struct {
	// Ring calls whoever is on call because of a drill, in the transaction in which it begins; Hush ends that call.
	Ring func(tx *store.Tx, tenant, drill, title, link string) error
	Hush func(tx *store.Tx, tenant, drill string) error
	// Rang is how the call of a drill went so far.
	Rang func(ctx context.Context, tenant, drill string) (Rang, error)
	// Turn are the people who are called now, in their order.
	Turn func(ctx context.Context, tenant string) ([]string, error)
}

// Rang is how the call of a drill went.
type Rang struct {
	At         time.Time `json:"at"`
	People     []string  `json:"people" doc:"Who was called, in order"`
	Answered   time.Time `json:"answered,omitzero"`
	AnsweredBy string    `json:"answered_by,omitempty"`
	End        string    `json:"end,omitempty" enum:"answered,over,unanswered,real" doc:"Why it ended; real: it gave way to a call in earnest"`
}

// Drill is a rehearsal of a case, up to a confirmed early warning. It goes by the same rules, clocks and fields as a case
// and is none: it has tables of its own, opens no clock of the law, tells nobody outside, and says on each page and in each
// file that it is a drill. It may call whoever is on call, by a call that says so first and gives way to any other.
type Drill struct {
	ID          string    `json:"id"`
	Product     string    `json:"product"`
	ProductName string    `json:"product_name"`
	Kind        Kind      `json:"kind" enum:"aev,si"`
	Scenario    string    `json:"scenario" doc:"What is rehearsed"`
	Started     time.Time `json:"started"`
	StartedBy   string    `json:"started_by"`
	OffHours    bool      `json:"off_hours" doc:"It began at night, on a Saturday or on a Sunday, in the coordinator's zone"`
	Ended       time.Time `json:"ended,omitzero"`
	EndedBy     string    `json:"ended_by,omitempty"`
	Lesson      string    `json:"lesson,omitempty" doc:"What was learned"`
	Calls       bool      `json:"calls,omitempty" doc:"It calls whoever is on call"`
	Call        *Rang     `json:"call,omitempty" doc:"How that went"`
	Score       Score     `json:"score"`
	Events      []Event   `json:"events,omitempty"`

	file file
}

// Running reports whether the drill goes on.
func (d Drill) Running() bool { return d.Ended.IsZero() }

// Score is what a drill shows of how ready people are.
type Score struct {
	Points int      `json:"points"`
	Of     int      `json:"of"`
	Marks  []Mark   `json:"marks"`
	Answer Duration `json:"answer" doc:"Seconds from the first call to a person's answer"`
	Decide Duration `json:"decide" doc:"Seconds from the start to a decision"`
	Pack   Duration `json:"pack" doc:"Seconds from the decision to a complete early warning"`
	Second Duration `json:"second" doc:"Seconds from the submission to a second person's confirmation"`
}

// Duration is a span in whole seconds; -1 is: not reached.
type Duration int64

// Reached reports whether it was.
func (d Duration) Reached() bool { return d >= 0 }

// Span is the duration as Go has it.
func (d Duration) Span() time.Duration { return time.Duration(d) * time.Second }

// Mark is one thing that a drill is judged by.
type Mark struct {
	Text string `json:"text"`
	Done bool   `json:"done"`
}

// score judges a drill by its events, and by its call if it made one.
func score(started time.Time, offHours bool, limits Targets, call *Rang, events []Event) Score {
	s := Score{Answer: -1, Decide: -1, Pack: -1, Second: -1}
	span := func(from, to time.Time) Duration { return Duration(max(0, to.Sub(from)) / time.Second) }
	var decided, sent time.Time
	informed := false
	for _, e := range events {
		switch {
		case e.Kind == T0Set && decided.IsZero():
			decided = e.Recorded
			s.Decide = span(started, decided)
		case e.Kind == SubmissionAttempted && sent.IsZero():
			sent = e.Recorded
			s.Pack = span(decided, sent)
		case e.Kind == SubmissionAccepted && !s.Second.Reached():
			s.Second = span(sent, e.Recorded)
		case e.Kind == UsersInformed:
			informed = true
		}
	}
	s.Marks = []Mark{
		{"A person decided within the limit for assessments", s.Decide.Reached() && s.Decide.Span() <= hoursOf(limits.filled().AssessmentHours)},
		{"The early warning was complete within five minutes of the decision", s.Pack.Reached() && s.Pack.Span() <= packWithin},
		{"A second person confirmed the receipt within an hour", s.Second.Reached() && s.Second.Span() <= confirmWithin},
		{"Somebody said how users would be told", informed},
		{"It began at night or on a weekend, as attacks do", offHours},
	}
	if call != nil {
		if !call.Answered.IsZero() {
			s.Answer = span(call.At, call.Answered)
		}
		s.Marks = slices.Insert(s.Marks, 0, Mark{"Somebody on call answered within 15 minutes", s.Answer.Reached() && s.Answer.Span() <= answerWithin})
	}
	s.Of = len(s.Marks)
	for _, m := range s.Marks {
		if m.Done {
			s.Points++
		}
	}
	return s
}

// offHours reports whether most offices are empty at that instant in the zone.
func offHours(at time.Time, zone *time.Location) bool {
	local := at.In(zone)
	day := local.Weekday()
	return day == time.Saturday || day == time.Sunday || local.Hour() < 7 || local.Hour() >= 19
}

// rehearsed are the events that a drill knows.
var rehearsed = []EventKind{T0Set, Described, FieldsFilled, MeasureAvailable, MemberStatesChanged, SubmissionAttempted, SubmissionFailed, SubmissionAccepted, UsersInformed}

// StartDrill begins a drill about a product. Whether a signal came in is played; whoever watches over it tells the others, or
// the rota does if calls says so.
func (s *Service) StartDrill(ctx context.Context, product string, k Kind, scenario string, calls bool) (Drill, error) {
	a, err := person(ctx, tenant.CaseWrite, product)
	if err != nil {
		return Drill{}, err
	}
	scenario = strings.TrimSpace(scenario)
	switch {
	case k != AEV && k != SI:
		return Drill{}, problem.Invalid("A drill is about an exploited vulnerability (aev) or a severe incident (si).").At("kind")
	case !text(scenario, 1, 1000):
		return Drill{}, problem.Invalid("Say in at most 1000 characters what is rehearsed.").At("scenario")
	case calls && s.cfg.Rota.Ring == nil:
		return Drill{}, problem.Unavailable("Nobody can be called here.").At("calls")
	}
	if _, err := s.cfg.Products.Get(ctx, a.Tenant, product); err != nil {
		return Drill{}, err
	}
	d := Drill{ID: store.NewID("drl"), Product: product, Kind: k, Scenario: scenario, Started: s.now(), StartedBy: a.ID, Calls: calls}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := insertDrill(tx, a.Tenant, law.NewestSRP().Version, d); err != nil {
			return err
		}
		if calls {
			if err := s.cfg.Rota.Ring(tx, a.Tenant, d.ID, scenario, "/drills/"+d.ID); err != nil {
				return err
			}
		}
		return audit.Append(tx, audit.Entry{Tenant: a.Tenant, Actor: a.ID, Kind: "drill.started", Subject: d.ID, Data: map[string]any{"product": product, "kind": k, "scenario": scenario, "calls": calls}})
	})
	if err != nil {
		return Drill{}, err
	}
	return s.Drill(ctx, d.ID)
}

// Drill reads one drill with its events and its score.
func (s *Service) Drill(ctx context.Context, id string) (Drill, error) {
	t := tenant.MustTenant(ctx)
	var d Drill
	var limits Targets
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		if d, err = drillByID(tx, t, id); err == nil {
			limits, err = targets(tx, t)
		}
		return err
	})
	if err == nil {
		_, err = who(ctx, tenant.CaseRead, d.Product)
	}
	if err != nil {
		return Drill{}, err
	}
	return s.judged(ctx, d, limits)
}

// judged adds what is computed: the name of the product and the score.
func (s *Service) judged(ctx context.Context, d Drill, limits Targets) (Drill, error) {
	c, _, err := s.coordinator(ctx, d.file.Tenant)
	if err != nil {
		return d, err
	}
	p, err := s.cfg.Products.Get(ctx, d.file.Tenant, d.Product)
	if err != nil && !problem.Is(err, problem.KindNotFound) {
		return d, err
	}
	zone := time.UTC
	if m, ok := law.State(c.State); ok {
		zone = m.Location()
	}
	d.ProductName, d.OffHours = p.Name, offHours(d.Started, zone)
	if d.Calls && s.cfg.Rota.Rang != nil {
		rang, err := s.cfg.Rota.Rang(ctx, d.file.Tenant, d.ID)
		if err != nil {
			return d, err
		}
		d.Call = &rang
	}
	d.Score = score(d.Started, d.OffHours, limits, d.Call, d.Events)
	return d, nil
}

// Drills lists drills, newest first.
func (s *Service) Drills(ctx context.Context, after string, n int) ([]Drill, error) {
	t, l := within(ctx, after, n)
	if !l.Whole && len(l.Products) == 0 {
		return nil, nil
	}
	var ds []Drill
	var limits Targets
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		if limits, err = targets(tx, t); err == nil {
			ds, err = drills(tx, t, l)
		}
		return err
	})
	for i := range ds {
		if err != nil {
			break
		}
		ds[i], err = s.judged(ctx, ds[i], limits)
	}
	return ds, err
}

// DrillPack drafts a report of the drill, marked as what it is.
func (s *Service) DrillPack(ctx context.Context, id string, st Stage) (Pack, error) {
	d, err := s.Drill(ctx, id)
	if err != nil {
		return Pack{}, err
	}
	return s.drillPack(ctx, d, st)
}

func (s *Service) drillPack(ctx context.Context, d Drill, st Stage) (Pack, error) {
	if len(d.Events) == 0 {
		return Pack{}, problem.Conflict("Nobody has decided yet that there is something to report.")
	}
	c, err := s.show(ctx, d.file)
	if err != nil {
		return Pack{}, err
	}
	c.drill = true
	return s.pack(ctx, d.file.Tenant, c, st)
}

// AppendDrill adds an event to a drill, by the rules of cases. A receipt says that it is one of a drill.
func (s *Service) AppendDrill(ctx context.Context, id string, k EventKind, data Data) (Drill, error) {
	d, err := s.Drill(ctx, id)
	if err != nil {
		return Drill{}, err
	}
	verb := tenant.CaseWrite
	if declares[k] || k == T0Set {
		verb = tenant.CaseDeclare
	}
	a, err := person(ctx, verb, d.Product)
	if err != nil {
		return Drill{}, err
	}
	data.Pack, data.File, data.Name, data.SHA256, data.Size, data.Of, data.Product = "", "", "", "", 0, "", ""
	if k == T0Set {
		data.Of, data.Product = d.Kind, d.Product
	}
	data.At = data.At.UTC().Truncate(time.Millisecond)
	if k == T0Set && data.Coordinator == "" {
		c, _, err := s.coordinator(ctx, a.Tenant)
		if err != nil {
			return Drill{}, err
		}
		data.Coordinator = c.State
	}
	switch {
	case !slices.Contains(rehearsed, k):
		return Drill{}, problem.Invalid("A drill has no event %q.", k).At("kind").Hint("It ends with a confirmed early warning.")
	case k == SubmissionAttempted && data.Stage != EarlyWarning:
		return Drill{}, problem.Invalid("A drill goes up to the early warning.").At("stage")
	case k == SubmissionAccepted && !strings.HasPrefix(data.Receipt, drillReceipt):
		return Drill{}, problem.Forbidden(RuleDrill, "The receipt of a drill begins with %s: a real one belongs to a case.", drillReceipt).At("receipt")
	}
	if k == SubmissionAttempted && len(d.Events) > 0 {
		p, err := s.drillPack(ctx, d, EarlyWarning)
		if err != nil {
			return Drill{}, err
		}
		if !p.Complete() {
			return Drill{}, incomplete(EarlyWarning, p)
		}
		data.Pack = p.Digest
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		d, err := drillByID(tx, a.Tenant, id)
		if err != nil {
			return err
		}
		now := s.now()
		e := Event{Seq: int64(len(d.Events)) + 1, Kind: k, Recorded: now, Actor: a.ID, Person: true, Data: data}
		if !d.Running() {
			return problem.Conflict("The drill has ended.")
		}
		if err := Check(d.file.state(), e, now); err != nil {
			return err
		}
		if err := insertDrillEvent(tx, a.Tenant, id, e); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: a.Tenant, Actor: a.ID, Kind: "drill." + string(k), Subject: id, Data: e})
	})
	if err != nil {
		return Drill{}, err
	}
	return s.Drill(ctx, id)
}

// EndDrill ends a drill with what was learned. Its score stays what its events make it.
func (s *Service) EndDrill(ctx context.Context, id, lesson string) (Drill, error) {
	d, err := s.Drill(ctx, id)
	if err != nil {
		return Drill{}, err
	}
	a, err := person(ctx, tenant.CaseWrite, d.Product)
	if err != nil {
		return Drill{}, err
	}
	if lesson = strings.TrimSpace(lesson); !text(lesson, 1, 4000) {
		return Drill{}, problem.Invalid("Say in at most 4000 characters what was learned.").At("lesson")
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		d, err := drillByID(tx, a.Tenant, id)
		if err != nil {
			return err
		}
		if !d.Running() {
			return problem.Conflict("The drill has ended.")
		}
		if err := endDrill(tx, a.Tenant, id, a.ID, lesson, s.now()); err != nil {
			return err
		}
		if d.Calls && s.cfg.Rota.Hush != nil {
			if err := s.cfg.Rota.Hush(tx, a.Tenant, id); err != nil {
				return err
			}
		}
		return audit.Append(tx, audit.Entry{Tenant: a.Tenant, Actor: a.ID, Kind: "drill.ended", Subject: id, Data: map[string]any{"lesson": lesson}})
	})
	if err != nil {
		return Drill{}, err
	}
	return s.Drill(ctx, id)
}
