// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// MaxCohorts bounds the cohorts of a product; one a month lasts for forty years.
const MaxCohorts = 500

// Cohort is the units of a hardware revision that are placed on the market within one span: new units placed later need
// their own support period (Commission FAQ 4.5.3).
type Cohort struct {
	ID       string      `json:"id"`
	Tenant   string      `json:"-"`
	Product  string      `json:"product"`
	Revision string      `json:"revision"`
	Name     string      `json:"name" doc:"Unique within the hardware revision"`
	Draft    Declaration `json:"declaration" doc:"As it is being prepared"`
	Missing  []string    `json:"missing" doc:"Members of the declaration that publishing still needs"`
	Version  int64       `json:"version" doc:"Of what is published; 0: nothing is"`
	Public   *Published  `json:"published,omitempty" doc:"What is published"`
	Created  time.Time   `json:"created"`
}

// Published is one version of a declaration that buyers were told. None is ever changed or removed.
type Published struct {
	Declaration
	Version   int64     `json:"version"`
	Actor     string    `json:"actor" doc:"Who published it"`
	Published time.Time `json:"published_at"`
	Note      string    `json:"note,omitempty" doc:"The declaration under the platform's signature (C2SP signed note, the key of the audit log)"`
}

// Declared is the published declaration, or the draft of a cohort that has none.
func (c Cohort) Declared() Declaration {
	if c.Public != nil {
		return c.Public.Declaration
	}
	return c.Draft
}

// Ended reports whether the published support is over.
func (c Cohort) Ended(now time.Time) bool { return c.Public != nil && now.After(c.Public.End()) }

// Support is what holds for a unit of a cohort.
type Support struct {
	Product, Revision, Cohort, Name string
	Declaration
	EndsAt    time.Time // last instant of support
	Version   int64     // 0: declared but not published
	Published time.Time
}

// Ended reports whether support is over.
func (s Support) Ended(now time.Time) bool { return now.After(s.EndsAt) }

// SupportOf returns the support of a cohort of the tenant's hardware revision. Without a cohort it is the one that ends
// last. A problem of kind not-found says that there is none.
func (s *Service) SupportOf(ctx context.Context, tenant, revision, cohort string) (Support, error) {
	cs, err := s.cohorts(ctx, `c.tenant = $1 AND c.revision = $2 AND ($3 = '' OR c.id = $3)`, tenant, revision, cohort)
	if err != nil {
		return Support{}, err
	}
	if len(cs) == 0 {
		return Support{}, problem.NotFound("There is no such placement cohort.")
	}
	c := slices.MaxFunc(cs, func(a, b Cohort) int { return a.Declared().End().Compare(b.Declared().End()) })
	d := c.Declared()
	out := Support{Product: c.Product, Revision: c.Revision, Cohort: c.ID, Name: c.Name, Declaration: d, EndsAt: d.End(), Version: c.Version}
	if c.Public != nil {
		out.Published = c.Public.Published
	}
	return out, nil
}

// AddCohort adds a cohort to a hardware revision of the tenant, as a draft.
func (s *Service) AddCohort(ctx context.Context, tenant, revision, name string, d Declaration, actor string) (Cohort, error) {
	if err := checkName(name); err != nil {
		return Cohort{}, err
	}
	if err := d.check(); err != nil {
		return Cohort{}, err
	}
	rev, err := s.Revision(ctx, tenant, revision)
	if err != nil {
		return Cohort{}, err
	}
	c := Cohort{ID: store.NewID("coh"), Tenant: tenant, Product: rev.Product, Revision: rev.ID, Name: name, Draft: d, Missing: d.Missing(), Created: s.now()}
	return c, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		var n int64
		if err := tx.QueryRow(`SELECT count(*) FROM product_cohort WHERE tenant = $1 AND product = $2`, tenant, c.Product).Scan(&n); err != nil {
			return err
		}
		if n >= MaxCohorts {
			return problem.Conflict("A product has at most %d placement cohorts.", MaxCohorts)
		}
		if err := insertCohort(tx, c, &d); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "cohort.created", Subject: c.Product, Data: c})
	})
}

// Prepare replaces the draft of a cohort. What was published stays as it is.
func (s *Service) Prepare(ctx context.Context, tenant, cohort string, d Declaration, actor string) (Cohort, error) {
	c, err := s.Cohort(ctx, tenant, cohort)
	if err != nil {
		return Cohort{}, err
	}
	if err := d.check(); err != nil {
		return Cohort{}, err
	}
	if c.Public != nil {
		if err := d.succeeds(c.Public.Declaration); err != nil {
			return Cohort{}, s.refusedShortening(ctx, c, d, actor, err)
		}
	}
	c.Draft, c.Missing = d, d.Missing()
	return c, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := saveDraft(tx, c); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "cohort.prepared", Subject: c.Product, Data: map[string]any{"cohort": c.ID, "declaration": d}})
	})
}

// refusedShortening keeps that somebody tried to take back published support: it may be a non-conformity (CRA article
// 13(21)), and never passes in silence. It returns why.
func (s *Service) refusedShortening(ctx context.Context, c Cohort, d Declaration, actor string, why error) error {
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		return audit.Append(tx, audit.Entry{Tenant: c.Tenant, Actor: actor, Kind: "cohort.shortening-refused", Subject: c.Product,
			Data: map[string]any{"cohort": c.ID, "rule": RuleShortened, "published": c.Public.SupportEnd, "attempted": d.SupportEnd, "declaration": d}})
	})
	if err != nil {
		return err
	}
	return why
}

// The first line of what is signed says what it is, so that no other note of the platform passes for one.
const supportNote = "openthings support 1"

// Publish makes the draft of a cohort what buyers are told, as its next version. It is the act of whoever asks, and the
// draft names who decided and who approved.
func (s *Service) Publish(ctx context.Context, ten, cohort string, who tenant.Actor) (Cohort, error) {
	if who.Kind == tenant.KindSystem || who.ID == "" {
		return Cohort{}, problem.Forbidden(RulePublish, "A support period is published by a person.")
	}
	c, err := s.Cohort(ctx, ten, cohort)
	if err != nil {
		return Cohort{}, err
	}
	if missing := c.Draft.Missing(); len(missing) > 0 {
		return Cohort{}, problem.Invalid("Before it is published the declaration needs: %s.", list(missing)).At(missing[0])
	}
	if err := c.Draft.check(); err != nil {
		return Cohort{}, err
	}
	if c.Public != nil {
		if err := c.Draft.succeeds(c.Public.Declaration); err != nil {
			return Cohort{}, s.refusedShortening(ctx, c, c.Draft, who.ID, err)
		}
	}
	p := Published{Declaration: c.Draft, Version: c.Version + 1, Actor: who.ID, Published: s.now()}
	text, err := json.Marshal(p.Declaration)
	if err != nil {
		return Cohort{}, err
	}
	if s.cfg.Sign != nil {
		note, err := s.cfg.Sign(fmt.Sprintf("%s\n%s\n%s\n%d\n%s\n", supportNote, c.Product, c.ID, p.Version, text))
		if err != nil {
			return Cohort{}, err
		}
		p.Note = string(note)
	}
	c.Public, c.Version = &p, p.Version
	return c, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := insertVersion(tx, c, p); err != nil {
			return err
		}
		if err := audit.Append(tx, audit.Entry{Tenant: ten, Actor: who.ID, Kind: "cohort.published", Subject: c.Product,
			Data: map[string]any{"cohort": c.ID, "version": p.Version, "declaration": p.Declaration}}); err != nil {
			return err
		}
		return s.soon(tx) // an extension may owe a correction
	})
}

// MayEnrol says in the caller's transaction whether a new unit may get an identity: as long as its cohort is supported or
// not published, or somebody gave leave with a reason. Where it was decided to restrict or isolate the cohort, leave does
// not help after the end. A unit of which nothing was said may be of any cohort of its hardware revision.
func (s *Service) MayEnrol(tx *store.Tx, u Unit) error {
	p, _, err := placement(tx, u)
	if err != nil {
		return err
	}
	if p.Placed != "" {
		cs, err := cohortsIn(tx, `c.tenant = $1 AND c.revision = $2`, u.Tenant, u.Revision)
		if err != nil {
			return err
		}
		if i, _ := p.of(cs, u); i >= 0 {
			p.Cohort = cs[i].ID
		}
	}
	now := store.Millis(s.cfg.Clock.Now())
	rows, err := tx.Query(`SELECT c.ends_at, coalesce((SELECT d.kind FROM product_end_decision d WHERE d.tenant = c.tenant AND d.cohort = c.id ORDER BY d.at DESC, d.id DESC LIMIT 1), '')
		FROM product_cohort c WHERE c.tenant = $1 AND c.revision = $2 AND ($3 = '' OR c.id = $3)`, u.Tenant, u.Revision, p.Cohort)
	type end struct {
		at   int64
		kind string
	}
	all, err := store.Collect(rows, err, func(r *sql.Rows) (e end, err error) { err = r.Scan(&e.at, &e.kind); return e, err })
	if err != nil || len(all) == 0 || slices.ContainsFunc(all, func(e end) bool { return e.at == 0 || e.at >= now }) {
		return err
	}
	// The cohort that ended last speaks for units that may be of any.
	switch last := slices.MaxFunc(all, func(a, b end) int { return cmp.Compare(a.at, b.at) }); last.kind {
	case EndRestrict, EndIsolate:
		return problem.Forbidden(RuleRestricted, "Support of these units has ended, and it was decided to %s them: no new one gets an identity.", last.kind).
			Hint("Leave does not help here. Extend their support, or decide otherwise on the product's page.")
	}
	var leave int64
	if err := tx.QueryRow(`SELECT count(*) FROM product_enrol_leave WHERE tenant = $1 AND revision = $2 AND until >= $3`, u.Tenant, u.Revision, now).Scan(&leave); err != nil || leave > 0 {
		return err
	}
	return problem.Forbidden(RuleEnded, "Support of these units has ended: no new one gets an identity.").
		Hint("Extend their support, or give leave with a reason on the product's page.")
}

func (s *Service) now() time.Time { return store.Time(store.Millis(s.cfg.Clock.Now())) }

// same reports whether two declarations say the same.
func same(a, b Declaration) bool {
	x, errA := json.Marshal(a)
	y, errB := json.Marshal(b)
	return errA == nil && errB == nil && string(x) == string(y)
}

// list is the members of a declaration in words.
func list(names []string) string {
	out := ""
	for i, n := range names {
		switch {
		case i > 0 && i == len(names)-1:
			out += " and "
		case i > 0:
			out += ", "
		}
		out += memberWords[n]
	}
	return out
}

// memberWords say the members of a declaration to people.
var memberWords = map[string]string{
	"expected_use_months": "the expected use time", "factors": "what was considered", "security_support": "the kind of technical security support",
	"update_policy": "the update policy", "latest_terms": "how users get the latest version", "decided_by": "who decided", "approved_by": "who approved",
}
