// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"context"
	"database/sql"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// Unit is what is known of one unit when its promise is looked for.
type Unit struct {
	Tenant, Product, Revision string
	Device, Batch             string // "" where there is none
	Made                      time.Time
}

// Placement says when units were placed on the market, or which cohort they belong to. One of the two is given.
type Placement struct {
	Placed Day    `json:"placed,omitempty" required:"false" doc:"Day on which it was placed on the market, such as 2027-03-01"`
	Cohort string `json:"cohort,omitempty" required:"false" doc:"Placement cohort that it belongs to, in place of the day"`
}

// Where the day of a unit comes from.
const (
	ByDevice = "device" // said of the unit itself
	ByBatch  = "batch"  // said of its batch
	ByMaking = "making" // nobody said: the day on which it was made
)

// UnitSupport is until when one unit is supported, why, and what comes next.
type UnitSupport struct {
	Cohort    string    `json:"cohort,omitempty" doc:"Placement cohort whose promise holds; absent while none is published"`
	Name      string    `json:"cohort_name,omitempty"`
	End       Month     `json:"support_end,omitempty" doc:"Month at whose last instant security support ends"`
	Until     time.Time `json:"supported_until,omitzero" doc:"That instant"`
	Months    int       `json:"months_left"`
	Ended     bool      `json:"ended"`
	Placed    Day       `json:"placed,omitempty" doc:"Day that decides; absent where the cohort was named"`
	By        string    `json:"by" enum:"device,batch,making" doc:"Where that comes from: said of the device, of its batch, or the day of its making"`
	Why       string    `json:"why" doc:"The same in a sentence"`
	Decision  string    `json:"decision,omitempty" doc:"What was decided about the end"`
	Successor string    `json:"successor,omitempty" doc:"Hardware revision that follows"`
	Next      string    `json:"next" doc:"What comes next, in a sentence"`
	Page      string    `json:"page,omitempty" doc:"Public page of the product"`

	Declaration Declaration `json:"-"`
}

// Place says in the caller's transaction when a device, or the units of a batch, of a hardware revision were placed on the
// market. The caller knows that the subject is of that revision.
func (s *Service) Place(tx *store.Tx, tenant, product, revision, subject string, p Placement, actor string) error {
	if (p.Placed == "") == (p.Cohort == "") {
		return problem.Invalid("Say the day of placing or the cohort, one of them.").At("placed")
	}
	if err := p.Placed.check("placed"); err != nil {
		return err
	}
	if p.Cohort != "" {
		var n int64
		if err := tx.QueryRow(`SELECT count(*) FROM product_cohort WHERE tenant = $1 AND id = $2 AND revision = $3`, tenant, p.Cohort, revision).Scan(&n); err != nil {
			return err
		}
		if n == 0 {
			return problem.Invalid("The hardware revision has no such placement cohort.").At("cohort")
		}
	}
	if _, err := tx.Exec(`INSERT INTO product_placement(tenant, subject, product, cohort, day, actor, at) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (tenant, subject) DO UPDATE SET cohort = excluded.cohort, day = excluded.day, actor = excluded.actor, at = excluded.at`,
		tenant, subject, product, p.Cohort, string(p.Placed), actor, store.Millis(s.now())); err != nil {
		return err
	}
	return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "unit.placed", Subject: subject, Data: p})
}

// placement returns what was said of the unit, else of its batch.
func placement(tx *store.Tx, u Unit) (p Placement, by string, err error) {
	rows, err := tx.Query(`SELECT subject, cohort, day FROM product_placement WHERE tenant = $1 AND subject IN ($2, $3)`, u.Tenant, u.Device, u.Batch)
	type said struct {
		subject string
		Placement
	}
	found, err := store.Collect(rows, err, func(r *sql.Rows) (p said, err error) {
		err = r.Scan(&p.subject, &p.Cohort, &p.Placed)
		return p, err
	})
	for _, f := range found {
		if f.subject == u.Device {
			return f.Placement, ByDevice, err
		}
		p, by = f.Placement, ByBatch
	}
	if by == "" {
		by = ByMaking
	}
	return p, by, err
}

// of returns the place of the unit's cohort among those that are published, or -1, and the day that decided.
func (p Placement) of(cs []Cohort, u Unit) (at int, day Day) {
	if p.Cohort != "" {
		return slices.IndexFunc(cs, func(c Cohort) bool { return c.ID == p.Cohort && c.Public != nil }), ""
	}
	if day = p.Placed; day == "" {
		day = dayOf(u.Made)
	}
	at = -1
	var best Day
	for i, c := range cs {
		if c.Revision != u.Revision || c.Public == nil {
			continue
		}
		// The latest one that began by then; units that were made before the first began are of the first.
		first := c.Public.FirstPlaced
		if at < 0 || first <= day && (first > best || best > day) || first > day && best > day && first < best {
			at, best = i, first
		}
	}
	return at, day
}

// Promised is the published support of a unit: that of the cohort which it, or its batch, was said to belong to, else of
// the cohort that had begun when it was placed, else when it was made. False says that none was published.
func (s *Service) Promised(ctx context.Context, u Unit) (d Declaration, ok bool, err error) {
	out, err := s.SupportOfUnit(ctx, u)
	return out.Declaration, out.Cohort != "", err
}

// SupportOfUnit says until when a unit is supported, why, and what comes next.
func (s *Service) SupportOfUnit(ctx context.Context, u Unit) (out UnitSupport, err error) {
	var p Placement
	if err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) { p, out.By, err = placement(tx, u); return err }); err != nil {
		return out, err
	}
	cs, err := s.Cohorts(ctx, u.Tenant, u.Product)
	if err != nil {
		return out, err
	}
	i, day := p.of(cs, u)
	out.Placed = day
	source := map[string]string{ByDevice: "It was placed on the market on ", ByBatch: "Its batch was placed on the market on ", ByMaking: "Nobody said when it was placed on the market; it was made on "}[out.By] + string(day)
	if day == "" {
		source = map[string]string{ByDevice: "It was put into its cohort", ByBatch: "Its batch was put into its cohort"}[out.By]
	}
	if i < 0 {
		out.Why, out.Next = source+". No end of support is published for such units.", "The maker publishes the support period."
		return out, nil
	}
	c, now := cs[i], s.now()
	d := c.Public.Declaration
	out.Cohort, out.Name, out.Declaration, out.End, out.Until = c.ID, c.Name, d, d.SupportEnd, d.End().UTC()
	out.Months, out.Ended, out.Page = monthsLeft(d.SupportEnd, d.Location(), now), c.Ended(now), s.PublicURL(u.Product)
	out.Why = source + "; the cohort " + c.Name + " is supported until the end of " + d.SupportEnd.Words() + "."
	ds, err := s.EndDecisions(ctx, u.Tenant, c.ID)
	if err != nil {
		return out, err
	}
	if len(ds) > 0 {
		out.Decision, out.Successor = ds[0].Kind, ds[0].Successor
	}
	out.Next = next(out)
	return out, nil
}

// next says what comes after the end.
func next(u UnitSupport) string {
	switch {
	case u.Decision == EndSuccessor:
		return "Another hardware revision follows; ask the maker for it."
	case u.Decision == EndRestrict:
		return "After the end it is used only for what is safe without updates."
	case u.Decision == EndIsolate:
		return "After the end it stays in use only where no network reaches it."
	case u.Decision == EndExtend:
		return "The maker decided to extend the support; the later end is published here."
	case u.Ended:
		return "It gets no security updates any more: take it out of service, or cut it off from networks."
	}
	return "Nothing was decided about the end yet."
}
