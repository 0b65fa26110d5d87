// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"context"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// Outcome is how a promise to a finder went.
type Outcome string

// The outcomes. Of a step without a promise only Done and Waiting are said.
const (
	Met     Outcome = "met"
	Late    Outcome = "late"
	Done    Outcome = "done"
	Waiting Outcome = "waiting"
	Overdue Outcome = "overdue"
	Dropped Outcome = "not_needed"
)

// DeskStep is one step of a report, from the day it came.
type DeskStep struct {
	Hours   float64   `json:"hours,omitempty" doc:"How long it took, to a tenth of an hour"`
	At      time.Time `json:"at,omitzero"`
	Due     time.Time `json:"due,omitzero" doc:"By the promise that the report came under; absent where none was made"`
	Outcome Outcome   `json:"outcome" enum:"met,late,done,waiting,overdue,not_needed"`
}

// DeskRecord is how one report went, beside the policy that it came under.
type DeskRecord struct {
	Report      string    `json:"report"`
	Received    time.Time `json:"received"`
	Status      Status    `json:"status"`
	Verdict     Verdict   `json:"verdict,omitempty"`
	Withheld    bool      `json:"withheld,omitempty" doc:"An embargo keeps verdict and fix from you"`
	Policy      int64     `json:"policy" doc:"Version of the policy"`
	Acknowledge DeskStep  `json:"acknowledge"`
	Triage      DeskStep  `json:"triage"`
	Fix         DeskStep  `json:"fix"`
	Publication DeskStep  `json:"publication"`
}

// step is how a step went that ended at met, zero if it has not, as of now. A report that was closed needs it no more.
func step(s State, met, due, now time.Time) DeskStep {
	out := DeskStep{At: met, Due: due}
	if !met.IsZero() {
		out.Hours = float64(met.Sub(s.Received).Round(6*time.Minute)) / float64(time.Hour)
	}
	switch {
	case !met.IsZero() && due.IsZero():
		out.Outcome = Done
	case !met.IsZero() && met.After(due):
		out.Outcome = Late
	case !met.IsZero():
		out.Outcome = Met
	case !s.Closed.IsZero() || s.Verdict != "" && s.Verdict != Valid:
		out.Outcome, out.Due = Dropped, time.Time{}
	case !due.IsZero() && now.After(due):
		out.Outcome = Overdue
	default:
		out.Outcome = Waiting
	}
	return out
}

// Recorded is how a report went, as of now, from its events alone.
func Recorded(id string, s State, now time.Time) DeskRecord {
	due := map[TimerName]time.Time{}
	for _, t := range Timers(s) {
		due[t.Name] = t.Due
	}
	return DeskRecord{Report: id, Received: s.Received, Status: s.Status, Verdict: s.Verdict,
		Acknowledge: step(s, s.Acknowledged, due[TimerAcknowledge], now), Triage: step(s, s.Triaged, due[TimerTriage], now),
		Fix: step(s, s.Fixed, time.Time{}, now), Publication: step(s, s.Published, due[TimerDisclosure], now)}
}

// maxRecords is how many reports one answer compares with their policies.
const maxRecords = 100

// Record compares the newest reports that the caller may see with the policies that they came under.
func (s *Service) Record(ctx context.Context, newest int) ([]DeskRecord, error) {
	if newest < 1 || newest > maxRecords {
		return nil, problem.Invalid("Ask for 1 to %d reports.", maxRecords).At("newest")
	}
	a, _ := tenant.ActorFrom(ctx)
	whole, products, _ := tenant.Scope(a, tenant.CaseRead)
	if !whole && len(products) == 0 {
		return nil, nil
	}
	where, args := list{Limit: newest, Whole: whole, Products: products}.where()
	var fs []file
	if err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) { fs, err = files(tx, a.Tenant, where, args...); return err }); err != nil {
		return nil, err
	}
	out := make([]DeskRecord, len(fs))
	for i, f := range fs {
		st := f.state()
		out[i] = Recorded(f.ID, st, s.now())
		out[i].Policy = f.Rows[0].Data.Policy
		if !st.May(a.ID, s.now()) {
			out[i].Withheld, out[i].Verdict, out[i].Fix = true, "", DeskStep{Outcome: Waiting}
		}
	}
	return out, nil
}
