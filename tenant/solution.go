// SPDX-License-Identifier: AGPL-3.0-only

package tenant

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// Solution is where devices serve: one deployment for one customer. It may stand in another: a distributor has
// customers, a customer has sites. A right on a solution reaches all that lies below it, and nothing beside or above.
type Solution struct {
	ID     string    `json:"id"`
	Tenant string    `json:"-"`
	Parent string    `json:"parent,omitempty" doc:"What it stands in; empty at the top of what the caller can see"`
	Name   string    `json:"name"`
	Owner  string    `json:"owner" doc:"The customer, in words"`
	At     time.Time `json:"created"`
	Path   string    `json:"path,omitempty" doc:"The names down to it, from the top of what the caller can see"`
	Depth  int       `json:"depth,omitempty" doc:"How many levels down it stands, from 1, as far as the caller can see"`
}

const (
	// MaxDepth bounds how deep solutions stand in each other: distributor, customer, region, site, building.
	MaxDepth = 5
	// MaxBelow bounds how many solutions one solution holds, itself included. It is what one question about devices can
	// name; a tenant may have any number.
	MaxBelow = 10_000
)

// CreateSolution makes a solution that stands in parent, or with "" right under the tenant, in the transaction of tx.
// The caller checks before that actor may.
func (s *Service) CreateSolution(tx *store.Tx, tenant, parent, name, owner, actor string) (Solution, error) {
	sol := Solution{ID: store.NewID("sol"), Tenant: tenant, Parent: parent, Name: name, Owner: owner, At: s.cfg.Clock.Now().UTC()}
	if err := lockTree(tx, tenant); err != nil {
		return sol, err
	}
	if err := fits(tx, tenant, parent, nil, 1, 1); err != nil {
		return sol, err
	}
	if err := insertSolution(tx, sol); err != nil {
		return sol, err
	}
	return sol, audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "access.solution-created", Subject: sol.ID,
		Data: map[string]string{"name": name, "owner": owner, "parent": parent}})
}

// fits refuses unless a part of so many levels and solutions may stand in parent. was is the way up from the top of the
// part, itself first, from where it stands now; empty for a new one.
func fits(tx *store.Tx, tenant, parent string, was []string, levels, solutions int64) error {
	if parent == "" {
		return nil
	}
	up, err := above(tx, tenant, parent)
	switch {
	case err != nil:
		return err
	case len(up) == 0:
		return errNoSolution(parent)
	case len(was) > 0 && slices.Contains(up, was[0]):
		return problem.Conflict("A solution cannot stand in itself, nor in what lies below it.").At("parent")
	case int64(len(up))+levels > MaxDepth:
		return problem.Conflict("Solutions stand in each other at most %d deep.", MaxDepth).At("parent")
	}
	for _, id := range up {
		if slices.Contains(was, id) {
			break // it holds the part already, and so does all above
		}
		_, have, err := extent(tx, tenant, id)
		if err != nil {
			return err
		}
		if have+solutions > MaxBelow {
			return problem.Conflict("A solution holds at most %d solutions.", MaxBelow).At("parent")
		}
	}
	return nil
}

// Change is what PATCH may change of a solution; nil leaves it.
type Change struct {
	Name   *string `json:"name,omitempty"`
	Owner  *string `json:"owner,omitempty" maxLength:"200" doc:"The customer, in words"`
	Parent *string `json:"parent,omitempty" doc:"What it shall stand in; empty: right under the tenant. All that lies below goes with it."`
}

// ChangeSolution renames a solution, says whom it serves, or moves it with all below to another parent. was is the
// solution as the caller knew it when it checked that actor may; if it stands elsewhere by now, nothing happens.
// Invitations that are still open into what moves end, since who made them may have no right there any more.
func (s *Service) ChangeSolution(tx *store.Tx, was Solution, c Change, actor string) (Solution, error) {
	if err := lockTree(tx, was.Tenant); err != nil {
		return was, err
	}
	sol, err := readSolution(tx.QueryRow(solutionColumns+` WHERE tenant = $1 AND id = $2`, was.Tenant, was.ID))
	if errors.Is(err, store.ErrNoRows) {
		return sol, errNoSolution(was.ID)
	}
	if err != nil {
		return sol, err
	}
	if sol.Parent != was.Parent {
		return sol, problem.Conflict("The solution was moved at the same time.").Hint("Look where it stands now, and try again.")
	}
	before := sol
	for to, from := range map[*string]*string{&sol.Name: c.Name, &sol.Owner: c.Owner, &sol.Parent: c.Parent} {
		if from != nil {
			*to = *from
		}
	}
	if sol.Parent != before.Parent {
		if err := s.moved(tx, sol); err != nil {
			return before, err
		}
	}
	if err := updateSolution(tx, sol); err != nil {
		return before, err
	}
	if sol.Name != before.Name || sol.Owner != before.Owner {
		if err := audit.Append(tx, audit.Entry{Tenant: sol.Tenant, Actor: actor, Kind: "access.solution-changed", Subject: sol.ID,
			Data: map[string]string{"name": sol.Name, "owner": sol.Owner, "was_name": before.Name, "was_owner": before.Owner}}); err != nil {
			return before, err
		}
	}
	if sol.Parent == before.Parent {
		return sol, nil
	}
	return sol, audit.Append(tx, audit.Entry{Tenant: sol.Tenant, Actor: actor, Kind: "access.solution-moved", Subject: sol.ID,
		Data: map[string]string{"from": before.Parent, "to": sol.Parent}})
}

// moved checks that the solution may stand in its new parent, and ends the open invitations into it.
func (s *Service) moved(tx *store.Tx, sol Solution) error {
	was, err := above(tx, sol.Tenant, sol.ID)
	if err != nil {
		return err
	}
	levels, solutions, err := extent(tx, sol.Tenant, sol.ID)
	if err != nil {
		return err
	}
	if err := fits(tx, sol.Tenant, sol.Parent, was, levels, solutions); err != nil {
		return err
	}
	_, err = tx.Exec(`DELETE FROM entry_link WHERE tenant = $1 AND used = 0 AND solution IN (SELECT id FROM (`+belowSQL+`) AS below)`, sol.Tenant, sol.ID, int64(MaxDepth))
	return err
}

func errNoSolution(id string) error { return problem.NotFound("There is no solution %s.", id) }

// Solution returns a solution of the tenant as it is stored. What a person or program is shown comes from Seen.
func (s *Service) Solution(ctx context.Context, tenant, id string) (Solution, error) {
	sol, err := readSolution(s.cfg.DB.QueryRow(ctx, solutionColumns+` WHERE tenant = $1 AND id = $2`, tenant, id))
	if errors.Is(err, store.ErrNoRows) {
		return sol, errNoSolution(id)
	}
	return sol, err
}

// visible returns a solution that whoever asks holds v on, and, for others, is as if it did not exist: nobody learns
// from an answer what stands beside.
func (s *Service) visible(ctx context.Context, v Verb, id string) (Solution, error) {
	a, _ := ActorFrom(ctx)
	sol, err := s.Solution(ctx, a.Tenant, id)
	if err == nil && !Can(a, v, Thing{Tenant: a.Tenant, Solution: id}) {
		if Can(a, DeviceRead, Thing{Tenant: a.Tenant, Solution: id}) {
			return sol, Require(ctx, v, Thing{Tenant: a.Tenant, Solution: id})
		}
		err = errNoSolution(id)
	}
	return sol, err
}

// place refuses unless whoever asks may make and change what stands in parent; "" is the tenant itself.
func (s *Service) place(ctx context.Context, parent string) error {
	if parent != "" {
		_, err := s.visible(ctx, AccessWrite, parent)
		return err
	}
	_, err := tenantWide(ctx, AccessWrite)
	return err
}

func (s *Service) newSolution(ctx context.Context, parent, name, owner string) (sol Solution, err error) {
	if err := s.place(ctx, parent); err != nil {
		return sol, err
	}
	if name, err = checkName("solution", name); err != nil {
		return sol, err
	}
	a, _ := ActorFrom(ctx)
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		sol, err = s.CreateSolution(tx, a.Tenant, parent, name, owner, a.ID)
		return err
	})
	return sol, err
}

// change is ChangeSolution for whoever asks. What a solution is and where it stands is the business of what it stands
// in: its own people run what lies below. A move takes the right on both places.
func (s *Service) change(ctx context.Context, id string, c Change) (sol Solution, err error) {
	was, err := s.visible(ctx, AccessWrite, id)
	if err != nil {
		return sol, err
	}
	a, _ := ActorFrom(ctx)
	if !Can(a, AccessWrite, Thing{Tenant: a.Tenant, Solution: was.Parent}) {
		return sol, problem.Forbidden("access.solution-above", "A solution is named and moved by who has a right on what it stands in.")
	}
	if c.Parent != nil && *c.Parent != was.Parent {
		if err := s.place(ctx, *c.Parent); err != nil {
			return sol, err
		}
	}
	if c.Name != nil {
		name, err := checkName("solution", *c.Name)
		if err != nil {
			return sol, err
		}
		c.Name = &name
	}
	err = s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error {
		sol, err = s.ChangeSolution(tx, was, c, a.ID)
		return err
	})
	return sol, err
}
