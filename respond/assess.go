// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// Assess opens an assessment of a signal. One that ended negative, or is watched, is followed by another only when there
// is new evidence, which the new assessment names; from then on decisions are made there.
func (s *Service) Assess(ctx context.Context, signal, evidence string) (Assessment, error) {
	sig, err := s.Signal(ctx, signal)
	if err != nil {
		return Assessment{}, err
	}
	a, err := person(ctx, tenant.CaseWrite, sig.Product)
	if err != nil {
		return Assessment{}, err
	}
	if !text(evidence, 0, 4000) {
		return Assessment{}, problem.Invalid("The new evidence is told in at most 4000 characters.").At("evidence")
	}
	as := Assessment{ID: store.NewID("asm"), Signal: signal, Opened: s.now(), OpenedBy: a.ID}
	err = s.insist(ctx, func(tx *store.Tx) error {
		sig, err := signalByID(tx, a.Tenant, signal)
		if err != nil {
			return err
		}
		as.Evidence = ""
		if last := sig.Assessment; last != nil {
			switch {
			case last.Verdict != Negative && last.Verdict != Watch:
				return s.decided(ctx, *last, "The signal has the assessment %s.", last.ID)
			case evidence == "":
				return problem.Invalid("Name the new evidence: the last verdict was %s.", last.Verdict).At("evidence")
			}
			as.Evidence = evidence
		}
		if err := insertAssessment(tx, a.Tenant, as); err != nil {
			return err
		}
		if err := audit.Append(tx, audit.Entry{Tenant: a.Tenant, Actor: a.ID, Kind: "assessment.opened", Subject: as.ID, Data: as}); err != nil {
			return err
		}
		sig.Assessment = &as
		return s.armSignal(tx, a.Tenant, sig)
	})
	return as, err
}

// Decide records a decision about an assessment. Aware opens a case per product and kind, each with its T0; nothing else
// does. Of two people who decide at once one wins, and the other is told who and when.
func (s *Service) Decide(ctx context.Context, assessment string, d Declaration) (Decision, []string, error) {
	kinds, err := d.kinds()
	if err != nil {
		return Decision{}, nil, err
	}
	t := tenant.MustTenant(ctx)
	var sig Signal
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		as, err := assessmentByID(tx, t, assessment)
		if err == nil {
			sig, err = signalByID(tx, t, as.Signal)
		}
		return err
	})
	if err != nil {
		return Decision{}, nil, err
	}
	products, err := d.concerned(sig)
	if err != nil {
		return Decision{}, nil, err
	}
	a, err := s.mayDecide(ctx, d.Verdict, append(slices.Clone(products), sig.Product))
	if err != nil {
		return Decision{}, nil, err
	}
	now := s.now()
	dec := Decision{ID: store.NewID("dec"), Verdict: d.Verdict, Basis: d.Basis, At: now, Actor: a.ID}
	switch d.Verdict {
	case Watch:
		dec.Again = now.Add(watchFor)
	case Negative:
		dec.Reason, dec.KnownSince = d.Reason, d.KnownSince.UTC().Truncate(time.Millisecond)
		if dec.Reason == "" {
			dec.Reason = ReasonElsewhere
		}
	case Joined:
		dec.Case = d.Case
	}
	openings, err := s.openings(ctx, sig, d, dec, kinds, products)
	if err != nil {
		return Decision{}, nil, err
	}
	err = s.insist(ctx, func(tx *store.Tx) error {
		as, err := s.undecidedYet(ctx, tx, a.Tenant, assessment, d.Seen)
		if err != nil {
			return err
		}
		if d.Verdict == Joined {
			if err := s.mayJoin(tx, a.Tenant, d.Case, sig.Product); err != nil {
				return err
			}
		}
		if err := insertDecision(tx, a.Tenant, as, dec); err != nil {
			return err
		}
		if err := audit.Append(tx, audit.Entry{Tenant: a.Tenant, Actor: a.ID, Kind: "decision.recorded", Subject: assessment, Data: dec}); err != nil {
			return err
		}
		as.Decisions, as.Verdict = append(as.Decisions, dec), dec.Verdict
		watched := sig
		watched.Assessment = &as
		if err := s.armSignal(tx, a.Tenant, watched); err != nil {
			return err
		}
		if err := s.cfg.DB.Emit(tx, TopicDecided, a.Tenant, sig.ID, SignalDecided{Verdict: dec.Verdict}); err != nil {
			return err
		}
		return s.openAll(tx, a, openings)
	})
	ids := make([]string, len(openings))
	for i := range openings {
		ids[i] = openings[i].file.ID
	}
	return dec, ids, err
}

// mayDecide refuses unless the caller is a person who may decide so about each of the products.
func (s *Service) mayDecide(ctx context.Context, v Verdict, products []string) (a tenant.Actor, err error) {
	verb := tenant.CaseWrite
	if v == Aware {
		verb = tenant.CaseDeclare
	}
	for _, p := range products {
		if a, err = person(ctx, verb, p); err != nil {
			return a, err
		}
		if p == "" { // the signal names none: the right was asked for on the whole tenant
			continue
		}
		if _, err := s.cfg.Products.Get(ctx, a.Tenant, p); err != nil && v == Aware {
			return a, err
		}
	}
	return a, nil
}

// opening is a case that a declaration opens, with its first event.
type opening struct {
	file  file
	first Data
}

// openings are the cases of a declaration: one per product and kind, those of one product beside each other.
func (s *Service) openings(ctx context.Context, sig Signal, d Declaration, dec Decision, kinds []Kind, products []string) ([]opening, error) {
	if len(kinds) == 0 {
		return nil, nil
	}
	title := d.Title
	if title == "" {
		title = sig.Title
	}
	t := tenant.MustTenant(ctx)
	var out []opening
	for i, p := range products {
		if slices.Contains(products[:i], p) {
			return nil, problem.Invalid("The product %s stands twice.", p).At("products")
		}
		own := d // each product has its own Member States where none are given
		if err := s.complete(ctx, t, p, &own); err != nil {
			return nil, err
		}
		for _, k := range kinds {
			out = append(out, opening{
				file{ID: store.NewID("cas"), Tenant: t, Product: p, Signal: sig.ID, Ref: sig.Ref, Glossary: law.NewestSRP().Version, Kind: k, Opened: dec.At},
				Data{At: own.T0, Note: own.Basis, Title: title, Summary: own.Summary, Coordinator: own.Coordinator, MemberStates: own.MemberStates,
					Decision: dec.ID, KnownSince: sig.KnownSince, Intake: sig.Intake, Fields: concerning(k, own.Fields)},
			})
		}
	}
	return out, nil
}

// openAll opens the cases and links those of one product to each other.
func (s *Service) openAll(tx *store.Tx, a tenant.Actor, openings []opening) error {
	for i := range openings {
		if err := s.open(tx, &openings[i].file, a, openings[i].first); err != nil {
			return err
		}
		if i == 0 || openings[i-1].file.Product != openings[i].file.Product {
			continue
		}
		one, two := &openings[i-1].file, &openings[i].file
		if err := errors.Join(s.append(tx, one, a, Linked, Data{Case: two.ID}), s.append(tx, two, a, Linked, Data{Case: one.ID})); err != nil {
			return err
		}
	}
	return nil
}

// undecidedYet reads an assessment that a decision may still be made in: the newest of its signal, not ended, and with no
// decision that the person who decides has not seen.
func (s *Service) undecidedYet(ctx context.Context, tx *store.Tx, tenantID, id string, seen *int) (Assessment, error) {
	as, err := assessmentByID(tx, tenantID, id)
	if err != nil {
		return as, err
	}
	sig, err := signalByID(tx, tenantID, as.Signal)
	switch {
	case err != nil:
		return as, err
	case as.Verdict != "" && as.Verdict != Watch:
		return as, s.decided(ctx, as, "The assessment ended with the verdict %s, which never changes.", as.Verdict)
	case sig.Assessment.ID != id:
		return as, problem.Conflict("%s opened the assessment %s of new evidence at %s.", s.called(ctx, sig.Assessment.OpenedBy), sig.Assessment.ID, instant(sig.Assessment.Opened)).Hint("Decide there.")
	case seen != nil && *seen != len(as.Decisions):
		return as, s.decided(ctx, as, "The assessment has changed since you looked.")
	}
	return as, nil
}

// mayJoin refuses unless a signal about the product, or about none that is known, can belong to the case.
func (s *Service) mayJoin(tx *store.Tx, tenantID, id, product string) error {
	f, err := fileByID(tx, tenantID, id)
	switch {
	case err != nil:
		return err
	case product != "" && f.Product != product:
		return problem.Invalid("That case is about another product.").At("case")
	case f.state().Closed:
		return problem.Conflict("That case is closed.").Hint("Exploitation that is known anew is a declaration of its own.")
	}
	return nil
}

// decided is the conflict with a decision that somebody made: who, what and when.
func (s *Service) decided(ctx context.Context, as Assessment, format string, args ...any) error {
	p := problem.Conflict(format, args...)
	if len(as.Decisions) == 0 {
		return p.Hint("%s opened it at %s. Decide there.", s.called(ctx, as.OpenedBy), instant(as.Opened))
	}
	last := as.Decisions[len(as.Decisions)-1]
	return p.Hint("%s decided %s at %s. With new evidence, assess the signal again.", s.called(ctx, last.Actor), last.Verdict, instant(last.At))
}

// called is what people call somebody, or the id.
func (s *Service) called(ctx context.Context, id string) string {
	if s.cfg.Name != nil {
		if name := s.cfg.Name(ctx, id); name != "" {
			return name
		}
	}
	return id
}

// insist writes, and again when somebody else wrote to the same place at the same moment: the second time sees it.
func (s *Service) insist(ctx context.Context, fn func(*store.Tx) error) (err error) {
	for range 5 {
		if err = s.cfg.DB.Write(ctx, fn); !errors.Is(err, errRaced) {
			return err
		}
	}
	return err
}

// changedSince reports whether a person wrote to the case after the event with this number; 0 has seen everything.
func (f file) changedSince(seen int64) bool {
	return seen > 0 && slices.ContainsFunc(f.Events, func(e Event) bool { return e.Person && e.Seq > seen })
}

// tellLast adds to a conflict who wrote last, what and when.
func (s *Service) tellLast(ctx context.Context, f file, err error) error {
	if !problem.Is(err, problem.KindConflict) {
		return err
	}
	for _, e := range slices.Backward(f.Events) {
		if e.Person {
			p := *problem.Of(err)
			p.Help = fmt.Sprintf("%s recorded %s at %s. %s", s.called(ctx, e.Actor), e.Kind, instant(e.Recorded), p.Help)
			return &p
		}
	}
	return err
}
