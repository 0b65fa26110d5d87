// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/vuln"
)

// Config is what the room needs. DB's clock is its clock.
type Config struct {
	DB       *store.DB
	Products *product.Service
	Log      *slog.Logger // default discards
	// Name is what people call somebody, or ""; nil knows no names.
	Name func(ctx context.Context, id string) string
	// Vuln says what a vulnerability touches, for drafts. Nil leaves the counters out.
	Vuln *vuln.Service
	// Facts are what other rooms know about a product, for drafts.
	Facts Facts
	// Anomaly is what another room saw, by its kind and id, for whoever may see it. Nil knows none.
	Anomaly func(ctx context.Context, kind, id string) (Anomaly, error)
	// Keys seals receipts. Nil refuses them.
	Keys *seal.Keys
	// Manufacturer is the tenant's legal name, for drafts. Nil leaves it empty.
	Manufacturer func(ctx context.Context, tenant string) (string, error)
	// Campaign refuses what is not a campaign of the case that was sent; nil knows none.
	Campaign func(tx *store.Tx, tenant, id, campaign string) error
	// Rota is who is on call, for drills and for who files next.
	Rota Rota
	// Ready are what other rooms ask for before a tenant is ready to report.
	Ready []func(ctx context.Context, tenant string) ([]Ready, error)
}

// Service is the room.
type Service struct{ cfg Config }

// New makes the room and registers its reactions and jobs; call it before the store runs jobs.
func New(cfg Config) *Service {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{cfg: cfg}
	s.react()
	return s
}

func (s *Service) now() time.Time { return s.cfg.DB.Clock().Now().UTC().Truncate(time.Millisecond) }

// Case is a case as it is shown: its state and its clocks, computed now.
type Case struct {
	ID           string      `json:"id"`
	Product      string      `json:"product"`
	ProductName  string      `json:"product_name"`
	Kind         Kind        `json:"kind" enum:"aev,si"`
	Status       string      `json:"status"`
	Title        string      `json:"title"`
	Summary      string      `json:"summary,omitempty"`
	Signal       string      `json:"signal"`
	Ref          string      `json:"ref,omitempty" doc:"The vulnerability, where the signal names one"`
	Opened       time.Time   `json:"opened"`
	KnownSince   time.Time   `json:"known_since,omitzero" doc:"Since when the source of the signal knew"`
	Intake       time.Time   `json:"intake,omitzero" doc:"When the signal came in"`
	T0           time.Time   `json:"t0" doc:"Since when a person declared to be aware"`
	T0History    []time.Time `json:"t0_history" doc:"Every value that T0 ever had"`
	Coordinator  string      `json:"coordinator"`
	MemberStates []string    `json:"member_states"`
	Zone         string      `json:"zone"`
	Glossary     string      `json:"glossary" doc:"Version of the reporting platform's fields that the case was opened under"`
	Links        []string    `json:"links,omitempty"`
	Siblings     []string    `json:"siblings,omitempty" doc:"Further cases that the same signal opened, for other products or the other kind"`
	Clocks       []Deadline  `json:"clocks"`
	Next         Stage       `json:"next,omitempty" doc:"The running clock to work on first"`
	Events       []Event     `json:"events,omitempty"`

	Submissions map[Stage]Submission `json:"submissions"`
	Regions     Regions              `json:"regions"`

	state State
	drill bool // it is none: see Drill
}

// show is a case with the limits of its tenant.
func (s *Service) show(ctx context.Context, f file) (c Case, err error) {
	var limits Targets
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error { limits, err = targets(tx, f.Tenant); return err })
	if err != nil {
		return c, err
	}
	return s.showBy(ctx, f, limits)
}

func (s *Service) showBy(ctx context.Context, f file, limits Targets) (Case, error) {
	st := f.state()
	p, err := s.cfg.Products.Get(ctx, f.Tenant, f.Product)
	if err != nil && !problem.Is(err, problem.KindNotFound) {
		return Case{}, err
	}
	c := Case{ID: f.ID, Product: f.Product, ProductName: p.Name, Kind: f.Kind, Status: st.Status(), Title: st.Title, Summary: st.Summary, Signal: f.Signal,
		Ref: f.Ref, Opened: f.Opened, T0: st.T0, T0History: st.T0History, Coordinator: st.Coordinator, MemberStates: st.MemberStates, Zone: st.Zone().String(),
		Glossary: f.Glossary, Links: st.Links, Clocks: Clocks(st, st.Zone(), limits), Events: f.Events, Submissions: st.Accepted, state: st}
	c.KnownSince, c.Intake, c.Regions = st.KnownSince, st.Intake, st.Regions(s.now())
	if next, ok := Next(c.Clocks); ok && !st.Closed {
		c.Next = next.Stage
	}
	return c, nil
}

// who refuses unless the caller may do v to the product (any product of its tenant if empty).
func who(ctx context.Context, v tenant.Verb, product string) (tenant.Actor, error) {
	a, _ := tenant.ActorFrom(ctx)
	return a, tenant.Require(ctx, v, tenant.Thing{Tenant: a.Tenant, Product: product})
}

// person is who, for what only somebody with a passkey may do: a program may carry a signal, never judge it.
func person(ctx context.Context, v tenant.Verb, product string) (tenant.Actor, error) {
	a, err := who(ctx, v, product)
	if err == nil && a.Kind != tenant.KindPerson {
		err = problem.Forbidden("respond.person-only", "Only a person who signed in can do this.").Hint("Programs may send signals.")
	}
	return a, err
}

// within limits a list to what the caller may read.
func within(ctx context.Context, after string, n int) (string, list) {
	a, _ := tenant.ActorFrom(ctx)
	whole, products, _ := tenant.Scope(a, tenant.CaseRead)
	return a.Tenant, list{After: after, Limit: n, Whole: whole, Products: products}
}

// AddSignal records a hint from a person. It starts no clock.
func (s *Service) AddSignal(ctx context.Context, sig Signal) (Signal, error) {
	a, err := who(ctx, tenant.CaseWrite, sig.Product)
	if err != nil {
		return Signal{}, err
	}
	if _, err := s.cfg.Products.Get(ctx, a.Tenant, sig.Product); err != nil {
		return Signal{}, err
	}
	sig.ID, sig.Source, sig.Actor, sig.Assessment = store.NewID("sig"), SourcePerson, a.ID, nil
	if sig.Exploited == "" {
		sig.Exploited = "unknown"
	}
	if err := s.receive(ctx, a.Tenant, &sig); err != nil {
		return Signal{}, err
	}
	return s.Signal(ctx, sig.ID)
}

// receive stores a signal once; one that its source has said before stays as it was.
func (s *Service) receive(ctx context.Context, tenantID string, sig *Signal) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		_, err := s.take(tx, tenantID, sig, signalKey(*sig))
		return err
	})
}

// signalKey is by what a source says the same thing again.
func signalKey(sig Signal) string {
	if sig.Source == SourcePerson {
		return sig.ID // two people may say the same
	}
	return sig.Ref + " " + sig.Product
}

// take adds a signal and sets its alarm; false means that its source has said it before, under the same key.
func (s *Service) take(tx *store.Tx, tenantID string, sig *Signal, key string) (fresh bool, err error) {
	sig.Intake = s.now()
	if err := sig.check(sig.Intake); err != nil {
		return false, err
	}
	if fresh, err = insertSignal(tx, tenantID, *sig, key); err != nil || !fresh {
		return false, err
	}
	if err := audit.Append(tx, audit.Entry{Tenant: tenantID, Actor: sig.Actor, Kind: "signal.received", Subject: sig.ID, Data: sig}); err != nil {
		return false, err
	}
	return true, s.armSignal(tx, tenantID, *sig)
}

// Signals lists signals, newest first.
func (s *Service) Signals(ctx context.Context, after string, n int) (out []Signal, err error) {
	t, l := within(ctx, after, n)
	if !l.Whole && len(l.Products) == 0 {
		return nil, nil
	}
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		limits, err := targets(tx, t)
		if err == nil {
			out, err = signals(tx, t, l)
		}
		for i := range out {
			out[i].DecideBy = out[i].Due(limits)
		}
		return err
	})
	return out, err
}

// Signal reads one signal with its newest assessment.
func (s *Service) Signal(ctx context.Context, id string) (sig Signal, err error) {
	t := tenant.MustTenant(ctx)
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		limits, err := targets(tx, t)
		if err == nil {
			sig, err = signalByID(tx, t, id)
		}
		sig.DecideBy = sig.Due(limits)
		return err
	})
	if err == nil {
		_, err = who(ctx, tenant.CaseRead, sig.Product)
	}
	return sig, err
}

func (s *Service) open(tx *store.Tx, f *file, a tenant.Actor, d Data) error {
	f.Events = nil // the transaction may run twice
	if err := insertCase(tx, *f); err != nil {
		return err
	}
	d.Of, d.Product = f.Kind, f.Product // so that the log alone says which clocks run
	if err := s.append(tx, f, a, T0Set, d); err != nil {
		return err
	}
	return s.cfg.DB.Emit(tx, "case.opened", f.Tenant, f.ID, map[string]any{"product": f.Product, "kind": f.Kind, "ref": f.Ref})
}

// append checks and writes the next event of f, and sets the alarms that follow from it.
func (s *Service) append(tx *store.Tx, f *file, a tenant.Actor, k EventKind, d Data) error {
	now := s.now()
	d.At, d.Due = d.At.UTC().Truncate(time.Millisecond), d.Due.UTC().Truncate(time.Millisecond)
	e := Event{Seq: int64(len(f.Events)) + 1, Kind: k, Recorded: now, Actor: a.ID, Person: a.Kind == tenant.KindPerson, Data: d}
	was := f.state()
	if err := Check(was, e, now); err != nil {
		return err
	}
	if err := insertEvent(tx, f.Tenant, f.ID, e); err != nil {
		return err
	}
	if err := audit.Append(tx, audit.Entry{Tenant: f.Tenant, Actor: a.ID, Kind: string(k), Subject: f.ID, Data: e}); err != nil {
		return err
	}
	f.Events = append(f.Events, e)
	limits, err := targets(tx, f.Tenant)
	if err != nil {
		return err
	}
	if err := s.announceEnded(tx, *f, was, limits); err != nil {
		return err
	}
	if k == Closed || k == Withdrawn {
		if err := closeCase(tx, f.Tenant, f.ID, now); err != nil {
			return err
		}
		return s.cfg.DB.Emit(tx, "case.closed", f.Tenant, f.ID, map[string]any{"product": f.Product})
	}
	return s.arm(tx, *f, limits)
}

// declares are the events that need the right to declare; all others need the right to work on cases.
var declares = map[EventKind]bool{T0Corrected: true, SubmissionAttempted: true, SubmissionAccepted: true, SubmissionFailed: true, Invalidated: true, Closed: true, Withdrawn: true}

// Append adds an event to a case, after checking it against the case as it is then.
func (s *Service) Append(ctx context.Context, id string, k EventKind, d Data) (Event, error) {
	t := tenant.MustTenant(ctx)
	f, err := s.file(ctx, t, id)
	if err != nil {
		return Event{}, err
	}
	verb := tenant.CaseWrite
	if declares[k] {
		verb = tenant.CaseDeclare
	}
	a, err := who(ctx, verb, f.Product)
	if err != nil {
		return Event{}, err
	}
	d.Pack, d.File, d.Name, d.SHA256, d.Size, d.Of, d.Product = "", "", "", "", 0, "", "" // the platform's to say
	var said frozen
	if k == SubmissionAttempted {
		if said, err = s.freeze(ctx, f, a, &d); err != nil {
			return Event{}, err
		}
	}
	write := func(tx *store.Tx) error {
		if f, err = fileByID(tx, t, id); err != nil {
			return err
		}
		if k != FieldsFilled && f.changedSince(d.Seen) || said.body != nil && len(f.Events) != said.events {
			return errChanged()
		}
		if d.Campaign != "" {
			if err := s.sentCampaign(tx, f, d.Campaign); err != nil {
				return err
			}
		}
		if err := s.append(tx, &f, a, k, d); err != nil || said.body == nil {
			return err
		}
		return putPack(tx, t, id, int64(len(f.Events)), said)
	}
	if err := s.insist(ctx, write); err != nil {
		return Event{}, s.tellLast(ctx, f, err)
	}
	return f.Events[len(f.Events)-1], nil
}

func (s *Service) file(ctx context.Context, t, id string) (f file, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error { f, err = fileByID(tx, t, id); return err })
	return f, err
}

// Case reads one case with its events and its clocks as of now.
func (s *Service) Case(ctx context.Context, id string) (c Case, err error) {
	t := tenant.MustTenant(ctx)
	var f file
	var limits Targets
	var siblings []string
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		if f, err = fileByID(tx, t, id); err != nil {
			return err
		}
		if limits, err = targets(tx, t); err != nil {
			return err
		}
		siblings, err = caseSiblings(tx, t, f)
		return err
	})
	if err != nil {
		return Case{}, err
	}
	if _, err := who(ctx, tenant.CaseRead, f.Product); err != nil {
		return Case{}, err
	}
	c, err = s.showBy(ctx, f, limits)
	c.Siblings = siblings
	return c, err
}

// Cases lists cases without their events, newest first; open leaves out the closed ones.
func (s *Service) Cases(ctx context.Context, open bool, after string, n int) ([]Case, error) {
	t, l := within(ctx, after, n)
	if !l.Whole && len(l.Products) == 0 {
		return nil, nil
	}
	where, args := l.where()
	if open {
		where = "closed = 0 AND " + where
	}
	var fs []file
	var limits Targets
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		if limits, err = targets(tx, t); err == nil {
			fs, err = files(tx, t, where, args...)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	out := make([]Case, len(fs))
	for i, f := range fs {
		if out[i], err = s.showBy(ctx, f, limits); err != nil {
			return nil, err
		}
		out[i].Events = nil
	}
	return out, nil
}

// Title is what a signal of the tenant says, for itself, for its assessment and for its case.
func (s *Service) Title(ctx context.Context, tenant, id string) (title string, err error) {
	err = s.cfg.DB.QueryRow(ctx, `SELECT title FROM respond_signal WHERE tenant = $1 AND (id = $2
		OR id = (SELECT signal FROM respond_assessment WHERE tenant = $1 AND id = $2) OR id = (SELECT signal FROM respond_case WHERE tenant = $1 AND id = $2))`, tenant, id).Scan(&title)
	if errors.Is(err, store.ErrNoRows) {
		err = problem.NotFound("There is no case, assessment or signal %s.", id)
	}
	return title, err
}
