// SPDX-License-Identifier: AGPL-3.0-only

package evidence

import (
	"context"
	"encoding/json"

	"github.com/openthings-platform/openthings/conform"
	"github.com/openthings-platform/openthings/evidence/verify"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/respond/disclosure"
)

// Bounds of a bundle about a product. What is beyond them is named by its number, never left out silently.
const (
	receiptRoom   = 24 << 20 // bytes of receipts in one bundle, together
	maxComponents = 10_000
	maxRelated    = 900 // ids whose entries join a bundle: the record of the export names each, and an entry has its limit
	maxPages      = 50
)

// part is one section of a bundle about a product, with the ids whose entries of the log prove it.
type part struct {
	name    string
	collect func(ctx context.Context, tenant, product string) (data any, related []string, err error)
}

// The names of the sections about a product, beside those that the verifier reads.
const (
	sectionProduct    = "product"
	sectionSupport    = "support"
	sectionPages      = "user_information"
	sectionConformity = "conformity"
	sectionComponents = "components"
	sectionEndings    = "component_conflicts"
	sectionNegatives  = "not_reported"
	sectionSignals    = "signals"
	sectionInformed   = "users_informed"
	sectionReleases   = "releases"
)

// parts are all sections of a bundle about a product, in their order.
func (s *Service) parts() []part {
	return []part{
		{sectionProduct, func(ctx context.Context, t, p string) (any, []string, error) {
			x, err := s.cfg.Products.Get(ctx, t, p)
			return x, nil, err
		}},
		{sectionSupport, func(ctx context.Context, t, p string) (any, []string, error) {
			x, err := s.cfg.Products.SupportRecords(ctx, t, p)
			return orEmpty(x), nil, err
		}},
		{sectionPages, func(ctx context.Context, t, p string) (any, []string, error) {
			x, err := s.cfg.Products.PageVersions(ctx, t, p, maxPages)
			return orEmpty(x), nil, err
		}},
		{sectionConformity, func(ctx context.Context, t, p string) (any, []string, error) {
			x, err := s.cfg.Conform.File(ctx, t, p)
			return x, nil, err
		}},
		{sectionComponents, func(ctx context.Context, t, p string) (any, []string, error) {
			x, err := s.cfg.Conform.Components(ctx, t, p, maxComponents)
			return orEmpty(x), nil, err
		}},
		{sectionEndings, func(ctx context.Context, t, p string) (any, []string, error) {
			x, err := s.cfg.Conform.Endings(ctx, t, p)
			return orEmpty(x), nil, err
		}},
		{verify.SectionCases, s.casesOf},
		{sectionSignals, s.signalsOf},
		{sectionInformed, s.informedOf},
		{sectionNegatives, func(ctx context.Context, t, p string) (any, []string, error) {
			x, err := s.cfg.Cases.Negatives(ctx, t, p, respond.MaxRecords)
			var related []string
			for _, j := range x {
				related = append(append(related, j.ID), assessed(j.Assessments)...)
			}
			return orEmpty(x), related, err
		}},
		{verify.SectionDrills, s.drillsOf},
		{verify.SectionReports, func(ctx context.Context, t, p string) (any, []string, error) {
			x, err := s.cfg.Reports.Records(ctx, t, p, respond.MaxRecords)
			var ids []string
			for _, r := range x {
				ids = append(ids, r.ID)
			}
			return x, ids, err
		}},
		{sectionReleases, func(ctx context.Context, t, p string) (any, []string, error) {
			if s.cfg.Releases == nil {
				return nil, nil, nil
			}
			return s.cfg.Releases(ctx, t, p)
		}},
	}
}

// orEmpty is the list as JSON has one when it is empty.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// caseRecord is a case as a bundle holds it: the verifier's members, and what people read beside them.
type caseRecord struct {
	verify.Case
	Clocks []respond.Deadline `json:"clocks"` // in the place of the verifier's
	Title  string             `json:"title"`
	Ref    string             `json:"ref,omitempty"`
	Status string             `json:"status"`
	Signal string             `json:"signal"`
}

// recordOf is the record of a case for the verifier and for people.
func recordOf(r respond.Record) caseRecord {
	c := r.Case
	out := caseRecord{Case: verify.Case{ID: c.ID, Product: c.Product, Kind: string(c.Kind), Count: int64(len(c.Events)), Limits: limitsOf(r.Limits), Packs: []verify.Pack{}, Receipts: []verify.Receipt{}},
		Clocks: c.Clocks, Title: c.Title, Ref: c.Ref, Status: c.Status, Signal: c.Signal}
	for _, p := range r.Packs {
		out.Packs = append(out.Packs, verify.Pack{Attempt: p.Attempt, Body: p.Body})
	}
	for _, f := range r.Receipts {
		out.Receipts = append(out.Receipts, verify.Receipt{File: f.ID, Bytes: f.Bytes})
	}
	return out
}

func limitsOf(t respond.Targets) verify.Limits {
	return verify.Limits{EarlyWarningHours: int64(t.EarlyWarningHours), NotificationHours: int64(t.NotificationHours), FinalDays: int64(t.FinalDays), UsersHours: int64(t.UsersHours)}
}

func assessed(list []respond.Assessment) (ids []string) {
	for _, a := range list {
		ids = append(ids, a.ID)
	}
	return ids
}

// records reads the newest cases of a product.
func (s *Service) records(ctx context.Context, tenant, product string) (out []respond.Record, err error) {
	ids, err := s.cfg.Cases.RecordsOf(ctx, respond.WhatCases, tenant, product, respond.MaxRecords)
	room := int64(receiptRoom)
	for _, id := range ids {
		if err != nil {
			return nil, err
		}
		var r respond.Record
		r, err = s.cfg.Cases.Record(ctx, tenant, id, room)
		for _, f := range r.Receipts {
			room -= int64(len(f.Bytes))
		}
		out = append(out, r)
	}
	return out, err
}

func (s *Service) casesOf(ctx context.Context, tenant, product string) (any, []string, error) {
	rs, err := s.records(ctx, tenant, product)
	out, ids := []caseRecord{}, []string{}
	for _, r := range rs {
		out, ids = append(out, recordOf(r)), append(ids, r.Case.ID)
	}
	return out, ids, err
}

// signalsOf are the signals of the cases: what came in when, who assessed it, and what was decided on which evidence.
func (s *Service) signalsOf(ctx context.Context, tenant, product string) (any, []string, error) {
	rs, err := s.records(ctx, tenant, product)
	return signalsIn(rs), signalIDs(rs), err
}

func signalsIn(rs []respond.Record) []respond.Judged {
	out, seen := []respond.Judged{}, map[string]bool{}
	for _, r := range rs {
		if !seen[r.Signal.ID] && r.Signal.ID != "" {
			seen[r.Signal.ID] = true
			out = append(out, respond.Judged{Signal: r.Signal, Assessments: r.Assessments})
		}
	}
	return out
}

func signalIDs(rs []respond.Record) (ids []string) {
	for _, j := range signalsIn(rs) {
		ids = append(append(ids, j.ID), assessed(j.Assessments)...)
	}
	return ids
}

// informedOf are the proofs that the users of a product were told of each case, by the id of the case.
func (s *Service) informedOf(ctx context.Context, tenant, product string) (any, []string, error) {
	ids, err := s.cfg.Cases.RecordsOf(ctx, respond.WhatCases, tenant, product, respond.MaxRecords)
	if err != nil {
		return nil, nil, err
	}
	return s.informed(ctx, tenant, ids)
}

func (s *Service) informed(ctx context.Context, tenant string, cases []string) (map[string]json.RawMessage, []string, error) {
	out := map[string]json.RawMessage{}
	var related []string
	for _, id := range cases {
		if s.cfg.Informed == nil {
			break
		}
		b, ids, err := s.cfg.Informed(ctx, tenant, id)
		if err != nil {
			return nil, nil, err
		}
		if b != nil {
			out[id], related = b, append(related, ids...)
		}
	}
	return out, related, nil
}

// drillRecord is a drill as a bundle holds it. The verifier calls it one, and nothing in it can pass for a case.
type drillRecord struct {
	verify.Case
	Clocks   []respond.Deadline `json:"clocks"`
	Notice   string             `json:"notice"`
	Scenario string             `json:"scenario"`
	OffHours bool               `json:"off_hours"`
	Score    respond.Score      `json:"score"`
	Lesson   string             `json:"lesson,omitempty"`
}

func (s *Service) drillsOf(ctx context.Context, tenant, product string) (any, []string, error) {
	ids, err := s.cfg.Cases.RecordsOf(ctx, respond.WhatDrills, tenant, product, respond.MaxRecords)
	out := []drillRecord{}
	for _, id := range ids {
		if err != nil {
			return nil, nil, err
		}
		var d respond.Drill
		var clocks []respond.Deadline
		var limits respond.Targets
		d, clocks, limits, err = s.cfg.Cases.DrillRecord(ctx, tenant, id)
		out = append(out, drillRecord{Clocks: orEmpty(clocks), Notice: "DRILL: nothing of this was reported to anybody.", Scenario: d.Scenario, OffHours: d.OffHours, Score: d.Score, Lesson: d.Lesson,
			Case: verify.Case{ID: d.ID, Product: d.Product, Kind: string(d.Kind), Drill: true, Count: int64(len(d.Events)), Limits: limitsOf(limits), Packs: []verify.Pack{}, Receipts: []verify.Receipt{}}})
	}
	return out, ids, err
}

// Rooms are the rooms whose records a bundle about a case or a product holds.
type Rooms struct {
	Products *product.Service
	Cases    *respond.Service
	Reports  *disclosure.Service
	Conform  *conform.Service
	// Releases are those of a product with what binds each bill of materials to its image, and their ids. Optional.
	Releases func(ctx context.Context, tenant, product string) (json.RawMessage, []string, error)
	// Informed is the proof that users were told of a case, and the ids of the log's entries about it; nil: they were not.
	// Optional.
	Informed func(ctx context.Context, tenant, caseID string) (json.RawMessage, []string, error)
}
