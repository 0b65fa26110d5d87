// SPDX-License-Identifier: AGPL-3.0-only

package evidence

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/openthings-platform/openthings/evidence/verify"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/tenant"
)

// ExportCase makes the sealed bundle of a case for whoever asks: its events as the log has them, what was submitted with the
// receipts, the signal with its assessments and decisions, and the proof that users were told.
func (s *Service) ExportCase(ctx context.Context, id string) ([]byte, error) {
	who, _ := tenant.ActorFrom(ctx)
	r, err := s.cfg.Cases.Record(ctx, who.Tenant, id, receiptRoom)
	if err != nil {
		return nil, err
	}
	if err := mayExport(ctx, r.Case.Product); err != nil {
		return nil, err
	}
	rs := []respond.Record{r}
	informed, related, err := s.informed(ctx, who.Tenant, []string{id})
	if err != nil {
		return nil, err
	}
	d := verify.Document{Subject: id, Tenant: who.Tenant}
	for _, x := range []struct {
		name string
		data any
	}{{verify.SectionCases, []caseRecord{recordOf(r)}}, {sectionSignals, signalsIn(rs)}, {sectionInformed, informed}} {
		if d.Sections, err = add(d.Sections, x.name, x.data); err != nil {
			return nil, err
		}
	}
	return s.bundle(ctx, d, append(related, signalIDs(rs)...), who.ID)
}

// ExportProduct makes the sealed bundle of a product for whoever asks: with answer 0 of everything, else of what answers that
// question of the auditor.
func (s *Service) ExportProduct(ctx context.Context, id string, answer int) ([]byte, error) {
	who, _ := tenant.ActorFrom(ctx)
	if err := mayExport(ctx, id); err != nil {
		return nil, err
	}
	if _, err := s.cfg.Products.Get(ctx, who.Tenant, id); err != nil {
		return nil, err
	}
	d := verify.Document{Subject: id, Tenant: who.Tenant}
	wanted := func(string) bool { return true }
	var err error
	if answer != 0 {
		a, ok := answerTo(answer)
		if !ok || a.Sections == nil {
			return nil, problem.Invalid("No file about a product answers question %d.", answer).At("answer").Hint("GET /v1/evidence/answers says which questions have one.")
		}
		if d.Sections, err = add(nil, sectionQuestion, asked{a.Number, a.Question}); err != nil {
			return nil, err
		}
		wanted = func(name string) bool { return name == sectionProduct || slices.Contains(a.Sections, name) }
	}
	var related []string
	for _, p := range s.parts() {
		if !wanted(p.name) {
			continue
		}
		data, ids, err := p.collect(ctx, who.Tenant, id)
		if err != nil {
			return nil, fmt.Errorf("evidence: section %s: %w", p.name, err)
		}
		if d.Sections, err = add(d.Sections, p.name, data); err != nil {
			return nil, err
		}
		related = append(related, ids...)
	}
	return s.bundle(ctx, d, related, who.ID)
}

// sectionQuestion says which question of the auditor a bundle answers.
const sectionQuestion = "question"

type asked struct {
	Number   int    `json:"number"`
	Question string `json:"question"`
}

func add(sections []verify.Section, name string, data any) ([]verify.Section, error) {
	b, err := json.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("evidence: section %s: %w", name, err)
	}
	return append(sections, verify.Section{Name: name, Data: b}), nil
}

// mayExport asks for the right to take evidence out and for the right to read cases: a bundle about a product holds both.
func mayExport(ctx context.Context, product string) error {
	who, _ := tenant.ActorFrom(ctx)
	thing := tenant.Thing{Tenant: who.Tenant, Product: product}
	if err := tenant.Require(ctx, tenant.EvidenceExport, thing); err != nil {
		return err
	}
	return tenant.Require(ctx, tenant.CaseRead, thing)
}
