// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// EventCeasing is announced when a maker declares that it ceases operations, and each time the day changes; its data is
// the Cessation, its subject the tenant.
const EventCeasing = "business.ceasing"

// cessationSteps are what a maker does before it ceases operations. The first two are duties (CRA article 13(23)); the
// others keep users from being left alone.
var cessationSteps = []struct{ ID, Words string }{
	{"authorities", "Market surveillance authorities are informed (CRA Article 13(23))"},
	{"users", "Users are informed, by any means that reach them (CRA Article 13(23))"},
	{"deposit", "Last firmware, verification keys and documentation are deposited"},
	{"exports", "Customers have exports of their configuration and data"},
	{"contact", "A contact for vulnerabilities stays reachable"},
	{"keys", "Signing keys are handed over, or destroyed with a record"},
	{"evidence", "Technical documentation is kept where authorities reach it"},
}

// Cessation is the run by which a maker ceases operations: declared once, then step by step.
type Cessation struct {
	EndsAt time.Time       `json:"ends_at,omitzero" doc:"When operations cease; absent while nothing is declared"`
	Reason string          `json:"reason,omitempty"`
	Actor  string          `json:"actor,omitempty"`
	At     time.Time       `json:"at,omitzero" doc:"When it was declared"`
	Steps  []CessationStep `json:"steps"`
}

// CessationStep is one step; Note is its evidence.
type CessationStep struct {
	ID    string    `json:"id"`
	Words string    `json:"words"`
	Note  string    `json:"note,omitempty" doc:"What was done, and where the proof is"`
	Actor string    `json:"actor,omitempty"`
	At    time.Time `json:"at,omitzero" doc:"When it was done; absent while it is open"`
}

// Cessation returns the run of a tenant; all steps are open while nothing is declared.
func (s *Service) Cessation(ctx context.Context, tenant string) (c Cessation, err error) {
	var ends, at int64
	err = s.cfg.DB.QueryRow(ctx, `SELECT ends_at, reason, actor, at FROM product_cessation WHERE tenant = $1`, tenant).Scan(&ends, &c.Reason, &c.Actor, &at)
	if err != nil && !errors.Is(err, store.ErrNoRows) {
		return c, err
	}
	if err == nil {
		c.EndsAt, c.At = store.Time(ends), store.Time(at)
	}
	rows, err := s.cfg.DB.Query(ctx, `SELECT step, note, actor, at FROM product_cessation_step WHERE tenant = $1`, tenant)
	done, err := store.Collect(rows, err, func(r *sql.Rows) (p CessationStep, err error) {
		var at int64
		err = r.Scan(&p.ID, &p.Note, &p.Actor, &at)
		p.At = store.Time(at)
		return p, err
	})
	for _, step := range cessationSteps {
		p := CessationStep{ID: step.ID}
		if i := slices.IndexFunc(done, func(d CessationStep) bool { return d.ID == step.ID }); i >= 0 {
			p = done[i]
		}
		p.Words = step.Words
		c.Steps = append(c.Steps, p)
	}
	return c, err
}

// DeclareCessation records that a maker ceases operations, or moves the day.
func (s *Service) DeclareCessation(ctx context.Context, tenant string, ends time.Time, reason, actor string) (Cessation, error) {
	if err := checkReason(reason); err != nil {
		return Cessation{}, err
	}
	now := s.now()
	if ends = store.Time(store.Millis(ends)); !ends.After(now) {
		return Cessation{}, problem.Invalid("Authorities and users are informed before operations cease: the day lies ahead.").At("ends_at")
	}
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if _, err := tx.Exec(`INSERT INTO product_cessation(tenant, ends_at, reason, actor, at) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (tenant) DO UPDATE SET ends_at = excluded.ends_at, reason = excluded.reason, actor = excluded.actor, at = excluded.at`,
			tenant, store.Millis(ends), reason, actor, store.Millis(now)); err != nil {
			return err
		}
		c := Cessation{EndsAt: ends, Reason: reason, Actor: actor, At: now, Steps: []CessationStep{}}
		if err := audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "cessation.declared", Subject: tenant, Data: c}); err != nil {
			return err
		}
		return s.cfg.DB.Emit(tx, EventCeasing, tenant, tenant, c)
	})
	if err != nil {
		return Cessation{}, err
	}
	return s.Cessation(ctx, tenant)
}

// FinishStep records that a step of a declared run was done, with its evidence. A step that is done stays.
func (s *Service) FinishStep(ctx context.Context, tenant, step, note, actor string) (Cessation, error) {
	if !slices.ContainsFunc(cessationSteps, func(c struct{ ID, Words string }) bool { return c.ID == step }) {
		return Cessation{}, problem.NotFound("A cessation has no step %.40q.", step)
	}
	if err := checkReason(note); err != nil {
		return Cessation{}, problem.Invalid("Say what was done and where the proof is, in at most 2000 bytes.").At("note")
	}
	c, err := s.Cessation(ctx, tenant)
	if err != nil {
		return Cessation{}, err
	}
	if c.At.IsZero() {
		return Cessation{}, problem.Conflict("No cessation of operations is declared.")
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		n, err := tx.Exec(`INSERT INTO product_cessation_step(tenant, step, note, actor, at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`, tenant, step, note, actor, store.Millis(s.now()))
		if err != nil {
			return err
		}
		if n == 0 {
			return problem.Conflict("This step is done already.")
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "cessation.step", Subject: tenant, Data: map[string]any{"step": step, "note": note}})
	})
	if err != nil {
		return Cessation{}, err
	}
	return s.Cessation(ctx, tenant)
}

type cessationIn struct {
	Body struct {
		EndsAt time.Time `json:"ends_at"`
		Reason string    `json:"reason" maxLength:"2000"`
	}
}

type cessationStepIn struct {
	Step string `path:"step" doc:"authorities, users, deposit, exports, contact, keys or evidence"`
	Body struct {
		Note string `json:"note" maxLength:"2000" doc:"What was done, and where the proof is"`
	}
}

func (s *Service) cessationRoutes(a *api.API) {
	const stage, read, write = "product", string(tenant.ProductRead), string(tenant.ProductWrite)
	api.Handle(a, api.Op{ID: "get-cessation", Method: "GET", Path: "/v1/cessation", Verb: read, Stage: stage,
		Summary: "Read the run by which the maker ceases operations (CRA article 13(23))"}, func(ctx context.Context, _ *struct{}) (*api.Out[Cessation], error) {
		t, _, err := tenant.Whole(ctx, tenant.ProductRead)
		if err != nil {
			return nil, err
		}
		c, err := s.Cessation(ctx, t)
		return api.One(c), err
	})
	api.Handle(a, api.Op{ID: "declare-cessation", Method: "PUT", Path: "/v1/cessation", Verb: write, Stage: stage,
		Summary: "Declare that the maker ceases operations on a day, or move the day"}, func(ctx context.Context, in *cessationIn) (*api.Out[Cessation], error) {
		c, err := s.declareCessation(ctx, in.Body.EndsAt, in.Body.Reason)
		return api.One(c), err
	})
	api.Handle(a, api.Op{ID: "finish-cessation-step", Method: "PUT", Path: "/v1/cessation/steps/{step}", Verb: write, Stage: stage,
		Summary: "Record that a step of the cessation was done, with its evidence"}, func(ctx context.Context, in *cessationStepIn) (*api.Out[Cessation], error) {
		c, err := s.finishStep(ctx, in.Step, in.Body.Note)
		return api.One(c), err
	})
}

func (s *Service) declareCessation(ctx context.Context, ends time.Time, reason string) (Cessation, error) {
	t, actor, err := tenant.Whole(ctx, tenant.ProductWrite)
	if err != nil {
		return Cessation{}, err
	}
	return s.DeclareCessation(ctx, t, ends, reason, actor)
}

func (s *Service) finishStep(ctx context.Context, step, note string) (Cessation, error) {
	t, actor, err := tenant.Whole(ctx, tenant.ProductWrite)
	if err != nil {
		return Cessation{}, err
	}
	return s.FinishStep(ctx, t, step, note, actor)
}

type cessationPage struct {
	Cessation
	Names    *console.Names
	MayWrite bool
}

func (s *Service) cessationPages(c *console.Console) {
	const write = string(tenant.ProductWrite)
	c.Page(console.Page{Path: "/cessation", Title: "Cessation of operations", Menu: "Products", Verb: string(tenant.ProductRead), FS: pagesFS, Template: "pages/cessation.html",
		Load: func(r *http.Request) (any, error) {
			t, _, err := tenant.Whole(r.Context(), tenant.ProductRead)
			if err != nil {
				return nil, err
			}
			run, err := s.Cessation(r.Context(), t)
			return cessationPage{run, c.Names(r.Context()), tenant.Holds(r.Context(), write)}, err
		}})
	c.Form("/cessation", write, func(r *http.Request) (string, error) {
		ends, err := day(r, "ends_at")
		if err != nil {
			return "", err
		}
		_, err = s.declareCessation(r.Context(), ends, text(r, "reason"))
		return "/cessation", err
	})
	c.Form("/cessation/{step}", write, func(r *http.Request) (string, error) {
		_, err := s.finishStep(r.Context(), r.PathValue("step"), text(r, "note"))
		return "/cessation", err
	})
}
