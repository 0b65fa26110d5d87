// SPDX-License-Identifier: AGPL-3.0-only

package conform

import (
	"context"
	"strconv"

	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

// draft reads the assessment as it stands.
func draft(tx *store.Tx, tenant, product string) (d Draft, err error) {
	d.Product = product
	if d.Basis, err = newest(tx, place{tenant, product, kindContext, ""}, &d.Context); err != nil {
		return d, err
	}
	decided, err := allNewest[Decision](tx, tenant, product, kindRow)
	if err != nil {
		return d, err
	}
	by := map[string]record[Decision]{}
	for _, x := range decided {
		by[x.Key] = x
	}
	for _, r := range law.Annex("cra.i") {
		x := by[r.ID]
		d.Rows = append(d.Rows, Row{ID: r.ID, Ref: r.Ref, Say: r.Wording, Decision: x.Doc, Stamp: x.Stamp})
	}
	var a Assessment
	if d.Sealed, err = newest(tx, place{tenant, product, kindSealed, ""}, &a); err != nil {
		return d, err
	}
	d.Due = []Due{}
	if d.Sealed.Version > 0 { // what was never assessed is not due for review, it is owed
		open, err := since[Due](tx, tenant, product, kindDue, d.Sealed.seq)
		if err != nil {
			return d, err
		}
		for _, x := range open {
			d.Due = append(d.Due, x.Doc)
		}
	}
	return d, nil
}

// Draft returns the risk assessment as it stands.
func (s *Service) Draft(ctx context.Context, tenant, product string) (d Draft, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		d, err = draft(tx, tenant, product)
		return err
	})
	return d, err
}

// SetContext records what the assessment rests on.
func (s *Service) SetContext(ctx context.Context, tenant, product, actor string, c Context) (d Draft, err error) {
	if err := c.check(); err != nil {
		return d, err
	}
	return s.drafted(ctx, place{tenant, product, kindContext, ""}, c, actor)
}

// Decide records what is decided on a row of Annex I.
func (s *Service) Decide(ctx context.Context, tenant, product, row, actor string, dec Decision) (d Draft, err error) {
	known := false
	for _, r := range law.Annex("cra.i") {
		known = known || r.ID == row
	}
	if !known {
		return d, problem.NotFound("Annex I has no row %q.", row)
	}
	if err := dec.check(row); err != nil {
		return d, err
	}
	return s.drafted(ctx, place{tenant, product, kindRow, row}, dec, actor)
}

func (s *Service) drafted(ctx context.Context, p place, doc any, actor string) (d Draft, err error) {
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if _, err := put(tx, p, doc, actor, s.now()); err != nil {
			return err
		}
		d, err = draft(tx, p.tenant, p.product)
		return err
	})
	return d, err
}

// Seal makes the draft the next version of the assessment, which answers every reason for review that is open.
func (s *Service) Seal(ctx context.Context, tenant, product, actor, note string) (a Assessment, err error) {
	if err := texts("note", note); err != nil {
		return a, err
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		d, err := draft(tx, tenant, product)
		if err != nil {
			return err
		}
		if err := d.seal(); err != nil {
			return err
		}
		c, err := classified(tx, tenant, product)
		if err != nil {
			return err
		}
		a = Assessment{Format: format, Product: product, Note: note, Context: d.Context, Rows: d.Rows, Class: c.Classification, ClassName: c.Class, Classified: c.Version,
			LawChecked: oldest(law.Annex("cra.i")).String(), Reviewed: d.Due}
		a.Stamp, err = put(tx, place{tenant, product, kindSealed, ""}, a, actor, s.now())
		return err
	})
	return a, err
}

// oldest is the day on which the rule that was compared with its source longest ago was.
func oldest(rules []law.Rule) law.Date {
	day := rules[0].Checked
	for _, r := range rules {
		if r.Checked.Before(day.Time) {
			day = r.Checked
		}
	}
	return day
}

// Assessment returns a sealed version; 0 is the newest.
func (s *Service) Assessment(ctx context.Context, tenant, product string, n int64) (a Assessment, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		a = Assessment{}
		p := place{tenant, product, kindSealed, ""}
		if n > 0 {
			a.Stamp, err = version(tx, p, n, &a)
			return err
		}
		stamp, err := newest(tx, p, &a)
		a.Stamp = stamp
		if err == nil && stamp.Version == 0 {
			return problem.NotFound("The risk assessment was never sealed.")
		}
		return err
	})
	return a, err
}

// Assessments returns the sealed versions, the newest first.
func (s *Service) Assessments(ctx context.Context, tenant, product string, before int64, limit int) (out []Assessment, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		list, err := history[Assessment](tx, place{tenant, product, kindSealed, ""}, before, limit)
		out = nil
		for _, x := range list {
			x.Doc.Stamp = x.Stamp
			out = append(out, x.Doc)
		}
		return err
	})
	return out, err
}

// Screened is the signed screen of a release.
type Screened struct {
	Release string `json:"release"`
	Screen
	Stamp
	Placed   bool `json:"placed" doc:"A release of the product was published before: only then can a change modify what is on the market"`
	Assessed bool `json:"assessed" doc:"An assessment was sealed after the screen was signed"`
}

// Blocks says whether the release may not be published because of what was signed.
func (s Screened) Blocks() bool { return s.Version > 0 && s.Substantial && !s.Assessed }

func (s *Service) screened(tx *store.Tx, tenant, product, release string) (x Screened, err error) {
	x.Release = release
	if x.Stamp, err = newest(tx, place{tenant, product, kindScreen, release}, &x.Screen); err != nil {
		return x, err
	}
	sealed, err := newest(tx, place{tenant, product, kindSealed, ""}, &Assessment{})
	if err != nil {
		return x, err
	}
	x.Assessed = sealed.seq > x.seq
	published, err := s.cfg.Update.EverPublished(tx, tenant, product)
	for _, r := range published {
		x.Placed = x.Placed || r.ID != release
	}
	return x, err
}

// Screened returns the newest screen of a release; version 0 if nobody answered it.
func (s *Service) Screened(ctx context.Context, tenant, product, release string) (x Screened, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		x, err = s.screened(tx, tenant, product, release)
		return err
	})
	return x, err
}

// Sign records a person's answers to the screen of a release.
func (s *Service) Sign(ctx context.Context, tenant, product, release, actor string, in Screen) (x Screened, err error) {
	if err := in.check(); err != nil {
		return x, err
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if _, err := put(tx, place{tenant, product, kindScreen, release}, in, actor, s.now()); err != nil {
			return err
		}
		if in.Substantial {
			if err := s.due(tx, tenant, product, Due{Cause: "modification:" + release, Text: "A release was signed as a substantial modification.", Href: "/releases/" + release + "/modification"}); err != nil {
				return err
			}
		}
		x, err = s.screened(tx, tenant, product, release)
		return err
	})
	return x, err
}

// MayPlace refuses the publication of a release that was signed as a substantial modification until a later assessment
// is sealed, and of one without an answered screen where the tenant demands it. It reads in the transaction that
// publishes.
func (s *Service) MayPlace(tx *store.Tx, tenant, product, release string) error {
	x, err := s.screened(tx, tenant, product, release)
	if err != nil {
		return err
	}
	if x.Blocks() {
		return problem.Forbidden(RuleModification, "%s", "The release was signed as a substantial modification: it is placed like a new product.").
			Hint("Seal a new risk assessment first, and follow the conformity route again.")
	}
	if x.Version > 0 || !x.Placed {
		return nil
	}
	set, _, err := settings(tx, tenant)
	if err == nil && set.Screen {
		return problem.Forbidden(RuleUnscreened, "Nobody has answered whether the release is a substantial modification.").Hint("Answer it on the page of the release.")
	}
	return err
}
