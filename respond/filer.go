// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// FilerRole is what an assigned representative is on the reporting platform (ENISA SRP, manual for assigned representatives).
type FilerRole string

// The roles. A secondary one sees there only what they filed themselves.
const (
	Primary   FilerRole = "primary"
	Secondary FilerRole = "secondary"
)

// unverifiedFilings is how many notifications an assigned representative may file who was not verified yet.
const unverifiedFilings = 20

// Filer is somebody who can file on the reporting platform, by their own word.
type Filer struct {
	Person   string    `json:"person"`
	Since    time.Time `json:"since"`
	Role     FilerRole `json:"role" enum:"primary,secondary"`
	Verified bool      `json:"verified" doc:"The reporting platform has verified them as an assigned representative"`
	Filed    int       `json:"filed" doc:"Submissions of theirs that are on record here"`
}

// Barred says why somebody cannot file the next report of a case whose earlier reports were filed by those people; "" is: they
// can.
func (f Filer) Barred(earlier []string) string {
	switch {
	case !f.Verified && f.Filed >= unverifiedFilings:
		return fmt.Sprintf("has filed %d times and is not verified: the reporting platform takes %d", f.Filed, unverifiedFilings)
	case f.Role == Secondary && slices.ContainsFunc(earlier, func(p string) bool { return p != f.Person }):
		return "is a secondary representative, who sees only their own filings: somebody else filed for this case"
	}
	return ""
}

// Line is who files next, then the deputies: those who can, whoever is on call first and in the order of the rota.
func Line(filers []Filer, turn, earlier []string) (out []Filer) {
	for _, f := range filers {
		if f.Barred(earlier) == "" {
			out = append(out, f)
		}
	}
	place := func(f Filer) int {
		if i := slices.Index(turn, f.Person); i >= 0 {
			return i
		}
		return len(turn)
	}
	slices.SortStableFunc(out, func(a, b Filer) int {
		return cmp.Or(cmp.Compare(place(a), place(b)), a.Since.Compare(b.Since), cmp.Compare(a.Person, b.Person))
	})
	return out
}

// earlier are the people who filed the accepted reports of a case.
func (s State) earlier() (out []string) {
	for _, st := range []Stage{EarlyWarning, Notification, Final} {
		if sub, ok := s.Accepted[st]; ok && !slices.Contains(out, sub.Submitter) {
			out = append(out, sub.Submitter)
		}
	}
	return out
}

// Filers are the people who said that they can file, in the order in which they said it, with what they have filed.
func (s *Service) Filers(ctx context.Context) ([]Filer, error) {
	a, err := who(ctx, tenant.CaseRead, "")
	if err != nil {
		return nil, err
	}
	return s.filers(ctx, a.Tenant)
}

// filers counts what is on record as submitted, in cases alone: a drill is filed nowhere. What failed there counts as well, so
// that the warning comes too early rather than too late.
func (s *Service) filers(ctx context.Context, t string) ([]Filer, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT f.person, f.at, f.role, f.verified, (SELECT count(*) FROM respond_event e WHERE e.tenant = f.tenant AND e.actor = f.person AND e.kind = 'submission.attempted')
		FROM respond_filer f WHERE f.tenant = $1 ORDER BY f.at, f.person`, t)
	return store.Collect(rows, err, func(r *sql.Rows) (f Filer, err error) {
		var at, verified int64
		err = r.Scan(&f.Person, &at, &f.Role, &verified, &f.Filed)
		f.Since, f.Verified = store.Time(at), verified == 1
		return f, err
	})
}

// SetFiler records whether the caller has an EU Login with a second factor, which filing on the reporting platform needs
// (ENISA SRP FAQ), and what they are there. Nobody can say so for somebody else.
func (s *Service) SetFiler(ctx context.Context, can bool, role FilerRole, verified bool) error {
	a, err := person(ctx, tenant.CaseWrite, "")
	if err != nil {
		return err
	}
	if role = cmp.Or(role, Primary); role != Primary && role != Secondary {
		return problem.Invalid("An assigned representative is primary or secondary.").At("role")
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		var err error
		if can {
			_, err = tx.Exec(`INSERT INTO respond_filer(tenant, person, at, role, verified) VALUES ($1, $2, $3, $4, $5)
				ON CONFLICT (tenant, person) DO UPDATE SET at = excluded.at, role = excluded.role, verified = excluded.verified`, a.Tenant, a.ID, store.Millis(s.now()), role, flag(verified))
		} else {
			_, err = tx.Exec(`DELETE FROM respond_filer WHERE tenant = $1 AND person = $2`, a.Tenant, a.ID)
		}
		if err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: a.Tenant, Actor: a.ID, Kind: "filer.set", Subject: a.ID, Data: map[string]any{"can_file": can, "role": role, "verified": verified}})
	})
}

// turn are the people who are called now, in their order; none without a rota.
func (s *Service) turn(ctx context.Context) ([]string, error) {
	if s.cfg.Rota.Turn == nil {
		return nil, nil
	}
	return s.cfg.Rota.Turn(ctx, tenant.MustTenant(ctx))
}

// Line is who files the next report of a case, then the deputies.
func (s *Service) Line(ctx context.Context, c Case) ([]Filer, error) {
	fs, err := s.Filers(ctx)
	if err != nil {
		return nil, err
	}
	turn, err := s.turn(ctx)
	return Line(fs, turn, c.state.earlier()), err
}
