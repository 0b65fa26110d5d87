// SPDX-License-Identifier: AGPL-3.0-only

package oncall

import (
	"context"
	"errors"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// RuleReal names the refusal of a drill's call while somebody is called in earnest.
const RuleReal = "oncall.real"

// drillMark is the first word of everything that is told of a drill's call.
const drillMark = "DRILL: "

// topicDrill is what a drill's call is about.
const topicDrill = "oncall.drill"

// Rehearse calls whoever is on call because a drill says so, in the transaction in which the drill begins. It goes as a call
// does, to the same people by the same ways, says DRILL first, and gives way to any call in earnest.
func (s *Service) Rehearse(tx *store.Tx, t, drill, title, link string) error {
	rota, set, err := rotaOf(tx, t)
	if err != nil {
		return err
	}
	if !set {
		return problem.Precondition("Nobody is on call, so a drill can call nobody.").At("calls").Hint("Make the rota on the page On call first.")
	}
	real, err := open(tx, t, false)
	if err != nil {
		return err
	}
	if len(real) > 0 {
		return problem.Forbidden(RuleReal, "Somebody is being called in earnest: %s. A drill calls nobody meanwhile.", real[0].Title).At("calls")
	}
	c := Call{ID: "cal_" + drill, Topic: topicDrill, Subject: drill, Title: drillMark + title, Link: link, At: s.now(), Drill: true}
	if fresh, err := insertCall(tx, t, c); err != nil || !fresh {
		return err
	}
	return s.step(tx, t, rota, c, 0)
}

// Hush ends the call of a drill that has ended.
func (s *Service) Hush(tx *store.Tx, t, drill string) error {
	c, err := callByID(tx, t, "cal_"+drill)
	if problem.Is(err, problem.KindNotFound) || err == nil && !c.Ended.IsZero() {
		return nil
	}
	if err != nil {
		return err
	}
	return s.end(tx, t, c, "over", "")
}

// giveWay ends the calls of drills: somebody is called in earnest. What still waits to tell somebody of a drill never does.
func (s *Service) giveWay(tx *store.Tx, t string) error {
	drills, err := open(tx, t, true)
	for _, c := range drills {
		err = errors.Join(err, s.end(tx, t, c, "real", ""))
	}
	return err
}

// OfDrill is the call of a drill; false when it called nobody.
func (s *Service) OfDrill(ctx context.Context, t, drill string) (Call, bool, error) {
	c, err := s.call(ctx, t, "cal_"+drill)
	if problem.Is(err, problem.KindNotFound) {
		return Call{}, false, nil
	}
	return c, err == nil, err
}
