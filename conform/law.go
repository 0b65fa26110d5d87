// SPDX-License-Identifier: AGPL-3.0-only

package conform

import (
	"context"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/law"
)

// RuleView is a rule of the law with its age.
type RuleView struct {
	law.Rule
	InForce bool         `json:"in_force"`
	Age     int          `json:"age_days" doc:"Days since it was compared with its source"`
	Stale   bool         `json:"stale" doc:"Not compared with its source for more than 90 days"`
	Covered *law.Covered `json:"covered,omitempty" doc:"What stands behind a row of Annexes I, II, V and VII and of Articles 13 and 14"`
}

// rules lists the law with the age of each rule, and how many are stale.
func rules(now time.Time) (out []RuleView, stale int) {
	for _, r := range law.Rules() {
		v := RuleView{Rule: r, InForce: r.Applies(now), Age: int(now.Sub(r.Checked.Time) / (24 * time.Hour)), Stale: r.Stale(now)}
		if c := law.CoverageOf(r.ID); c.Step != nil || len(c.Tests)+len(c.Controls) > 0 {
			v.Covered = &c
		}
		if v.Stale {
			stale++
		}
		out = append(out, v)
	}
	return out, stale
}

func (s *Service) lawRoutes(a *api.API) {
	api.Handle(a, api.Op{ID: "list-law", Method: "GET", Path: "/v1/law", Verb: mayRead, Stage: stage,
		Summary: "The obligations that clocks, gates and records follow, with source, age, and what stands behind each"},
		func(context.Context, *struct{}) (*api.List[RuleView], error) {
			list, _ := rules(s.now())
			return api.Items(list), nil
		})
	api.Handle(a, api.Op{ID: "list-citations", Method: "GET", Path: "/v1/law/citations", Verb: mayRead, Stage: stage,
		Summary: "Harmonised standards that the Official Journal cites for the Regulation; empty until there is one"},
		func(context.Context, *struct{}) (*api.List[law.Citation], error) {
			return api.Items(law.Citations()), nil
		})
}
