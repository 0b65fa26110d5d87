// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// Seat is where a manufacturer is, as CRA Art. 14(7) asks for it. Each answer is the code of a Member State, or empty
// where it cannot be determined.
type Seat struct {
	InUnion        bool   `json:"in_union" doc:"The manufacturer has an establishment in the Union"`
	Decisions      string `json:"decisions,omitempty" doc:"Where the decisions about the cybersecurity of its products are predominantly taken"`
	Employees      string `json:"employees,omitempty" doc:"Where its establishment with the most employees in the Union is"`
	Representative string `json:"representative,omitempty" doc:"Where the authorised representative for the most of its products is established"`
	Importer       string `json:"importer,omitempty" doc:"Where the importer of the most of its products is established"`
	Distributor    string `json:"distributor,omitempty" doc:"Where the distributor of the most of its products is established"`
	Users          string `json:"users,omitempty" doc:"Where the most users of its products are"`
}

// Step is one question of the order that the law prescribes, with its answer.
type Step struct {
	Question string `json:"question"`
	Answer   string `json:"answer" doc:"A Member State, or empty: cannot be determined"`
	Decides  bool   `json:"decides,omitempty" doc:"The first answer that there is decides"`
}

// Path walks the order of CRA Art. 14(7): the first answer that there is decides. It is empty where none is given.
func (s Seat) Path() (steps []Step, state string) {
	steps = []Step{{Question: "Where are the decisions about the cybersecurity of your products predominantly taken?", Answer: s.Decisions},
		{Question: "Else: where is your establishment with the most employees in the Union?", Answer: s.Employees}}
	if !s.InUnion {
		steps = []Step{{Question: "Where is the authorised representative for the most of your products established?", Answer: s.Representative},
			{Question: "Else: where is the importer of the most of your products established?", Answer: s.Importer},
			{Question: "Else: where is the distributor of the most of your products established?", Answer: s.Distributor},
			{Question: "Else: where are the most users of your products?", Answer: s.Users}}
	}
	for i, x := range steps {
		if x.Answer != "" {
			steps[i].Decides, state = true, x.Answer
			break
		}
	}
	return steps, state
}

// byUsers reports whether only the number of users decided. Then the first coordinator may stay (Art. 14(7), last sentence).
func (s Seat) byUsers() bool {
	return !s.InUnion && s.Representative+s.Importer+s.Distributor == "" && s.Users != ""
}

func (s Seat) check() error {
	for name, code := range map[string]string{"decisions": s.Decisions, "employees": s.Employees, "representative": s.Representative, "importer": s.Importer, "distributor": s.Distributor, "users": s.Users} {
		if _, ok := law.State(code); code != "" && !ok {
			return problem.Invalid("%q is not the code of a Member State, such as DE.", code).At(name)
		}
	}
	return nil
}

// Confirmed is a coordinator that a person confirmed, with the facts that it rests on.
type Confirmed struct {
	Seat
	State  string          `json:"state" doc:"Member State of the coordinator"`
	CSIRT  law.Coordinator `json:"csirt" doc:"The coordinator as the list names it, and how well that is known"`
	AsOf   law.Date        `json:"as_of" doc:"Date of the list"`
	Steps  []Step          `json:"steps"`
	Reason string          `json:"reason,omitempty" doc:"Why another than the path leads to"`
	At     time.Time       `json:"at"`
	Actor  string          `json:"actor"`
}

// ConfirmCoordinator stores whose CSIRT is the tenant's coordinator. A person confirms what the path leads to; another
// one needs a reason, such as that the first coordinator stays where only users decided.
func (s *Service) ConfirmCoordinator(ctx context.Context, seat Seat, state, reason string) (Confirmed, error) {
	a, err := person(ctx, tenant.CaseDeclare, "")
	if err != nil {
		return Confirmed{}, err
	}
	if err := seat.check(); err != nil {
		return Confirmed{}, err
	}
	steps, found := seat.Path()
	csirt, known := law.CoordinatorOf(state)
	switch {
	case found == "":
		return Confirmed{}, problem.Invalid("The answers lead to no Member State yet.").At("decisions").Hint("Answer the first question that you can.")
	case !known:
		return Confirmed{}, problem.Invalid("%q is not the code of a Member State, such as DE.", state).At("state")
	case state != found && !text(reason, 1, 4000):
		hint := "The notification may be invalid if it goes to the wrong coordinator, and the clock runs on."
		if seat.byUsers() {
			hint = "Where only users decided, you may stay with the coordinator that you first reported to; say so."
		}
		return Confirmed{}, problem.Forbidden("respond.coordinator", "The answers lead to %s, not to %s; say why.", found, state).At("reason").Hint("%s", hint)
	case !text(reason, 0, 4000):
		return Confirmed{}, problem.Invalid("A reason has at most 4000 characters.").At("reason")
	}
	c := Confirmed{Seat: seat, State: state, CSIRT: csirt, AsOf: law.AllCoordinators().AsOf, Steps: steps, Reason: reason, At: s.now(), Actor: a.ID}
	return c, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := insertCoordinator(tx, a.Tenant, c); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: a.Tenant, Actor: a.ID, Kind: "coordinator.confirmed", Subject: a.Tenant, Data: c})
	})
}

// Coordinator is what was confirmed last; false while nobody has.
func (s *Service) Coordinator(ctx context.Context) (Confirmed, bool, error) {
	a, err := who(ctx, tenant.CaseRead, "")
	if err != nil {
		return Confirmed{}, false, err
	}
	return s.coordinator(ctx, a.Tenant)
}

// coordinator is Coordinator for whoever may read one case: it is the default of each.
func (s *Service) coordinator(ctx context.Context, t string) (c Confirmed, ok bool, err error) {
	var data string
	err = s.cfg.DB.QueryRow(ctx, `SELECT data FROM respond_coordinator WHERE tenant = $1 ORDER BY seq DESC LIMIT 1`, t).Scan(&data)
	if errors.Is(err, store.ErrNoRows) {
		return c, false, nil
	}
	if err == nil {
		err = json.Unmarshal([]byte(data), &c)
	}
	return c, err == nil, err
}

func insertCoordinator(tx *store.Tx, t string, c Confirmed) error {
	data, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("coordinator: %w", err)
	}
	_, err = tx.Exec(`INSERT INTO respond_coordinator(tenant, seq, data) VALUES ($1, (SELECT coalesce(max(seq), 0) + 1 FROM respond_coordinator WHERE tenant = $1), $2)`, t, string(data))
	return raced(err)
}
