// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// Ready is one thing that must be there before the first 24 hours begin, and whether it is.
type Ready struct {
	Text string `json:"text"`
	Done bool   `json:"done"`
	Note string `json:"note,omitempty" doc:"What is there, or what is missing"`
	Href string `json:"-"`
}

// Readiness says whether a tenant could file today. It asks for nothing that needs a connected device.
type Readiness struct {
	Done  int     `json:"done"`
	Of    int     `json:"of"`
	Items []Ready `json:"items"`
}

// fewestFilers is how many people must be able to file: one may be on a mountain.
const fewestFilers = 2

// Filers are the people who said that they have an EU Login with a second factor, by id, with when they said it.
func (s *Service) Filers(ctx context.Context) (map[string]time.Time, error) {
	a, err := who(ctx, tenant.CaseRead, "")
	if err != nil {
		return nil, err
	}
	return s.filers(ctx, a.Tenant)
}

func (s *Service) filers(ctx context.Context, t string) (map[string]time.Time, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT person, at FROM respond_filer WHERE tenant = $1`, t)
	type filer struct {
		person string
		at     int64
	}
	fs, err := store.Collect(rows, err, func(r *sql.Rows) (f filer, err error) { return f, r.Scan(&f.person, &f.at) })
	out := make(map[string]time.Time, len(fs))
	for _, f := range fs {
		out[f.person] = store.Time(f.at)
	}
	return out, err
}

// SetFiler records whether the caller has an EU Login with a second factor, which filing on the reporting platform needs
// (ENISA SRP FAQ). Nobody can say so for somebody else.
func (s *Service) SetFiler(ctx context.Context, can bool) error {
	a, err := person(ctx, tenant.CaseWrite, "")
	if err != nil {
		return err
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		var err error
		if can {
			_, err = tx.Exec(`INSERT INTO respond_filer(tenant, person, at) VALUES ($1, $2, $3) ON CONFLICT (tenant, person) DO UPDATE SET at = excluded.at`, a.Tenant, a.ID, store.Millis(s.now()))
		} else {
			_, err = tx.Exec(`DELETE FROM respond_filer WHERE tenant = $1 AND person = $2`, a.Tenant, a.ID)
		}
		if err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: a.Tenant, Actor: a.ID, Kind: "filer.set", Subject: a.ID, Data: map[string]any{"can_file": can}})
	})
}

// Readiness lists what must be there, of this room and of those that Config.Ready asks.
func (s *Service) Readiness(ctx context.Context) (Readiness, error) {
	a, err := who(ctx, tenant.CaseRead, "")
	if err != nil {
		return Readiness{}, err
	}
	filers, err := s.filers(ctx, a.Tenant)
	if err != nil {
		return Readiness{}, err
	}
	c, confirmed, err := s.coordinator(ctx, a.Tenant)
	if err != nil {
		return Readiness{}, err
	}
	var drilled time.Time
	if err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) { drilled, err = lastDrill(tx, a.Tenant); return err }); err != nil {
		return Readiness{}, err
	}
	items := []Ready{
		{fmt.Sprintf("%d people have an EU Login with a second factor", fewestFilers), len(filers) >= fewestFilers,
			fmt.Sprintf("%d said so. ENISA advises to make the logins in advance, and to register the manufacturer only with the first report.", len(filers)), "/readiness#filers"},
		{"The coordinator CSIRT is confirmed", confirmed, c.CSIRT.Name, "/coordinator"},
	}
	drill := Ready{"A drill came to a confirmed early warning within the last 90 days", !drilled.IsZero() && s.now().Sub(drilled) <= DrillEvery, "", "/drills"}
	if !drilled.IsZero() {
		drill.Note = "The last one ended on " + drilled.UTC().Format("2006-01-02") + "."
	}
	items = append(items, drill)
	for _, ask := range s.cfg.Ready {
		more, err := ask(ctx, a.Tenant)
		if err != nil {
			return Readiness{}, err
		}
		items = append(items, more...)
	}
	r := Readiness{Of: len(items), Items: items}
	for _, i := range items {
		if i.Done {
			r.Done++
		}
	}
	return r, nil
}
