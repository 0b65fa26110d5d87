// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"context"
	"database/sql"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// Rules that refuse identities to new units.
const (
	RuleEnded      = "product.support-ended" // their support has ended
	RuleRestricted = "product.restricted"    // it was decided to restrict or isolate them
)

// What a maker can decide when support ends.
const (
	EndExtend    = "extend"    // support goes on: publish a later end
	EndSuccessor = "successor" // users are led to another hardware revision
	EndRestrict  = "restrict"  // functions are reduced to what is safe without updates; no leave brings new units after the end
	EndIsolate   = "isolate"   // units stay in use, cut off from the network; no leave brings new units after the end
)

// EndDecision is what a person decided about the end of a cohort's support. A later one replaces it, none is removed.
type EndDecision struct {
	ID        string    `json:"id"`
	Cohort    string    `json:"cohort"`
	Kind      string    `json:"kind" enum:"extend,successor,restrict,isolate"`
	Successor string    `json:"successor,omitempty" doc:"Hardware revision that follows"`
	Reason    string    `json:"reason"`
	Actor     string    `json:"actor"`
	At        time.Time `json:"at"`
}

// DecideEnd records a decision about a cohort of the tenant; ID and At are filled in.
func (s *Service) DecideEnd(ctx context.Context, tenant string, d EndDecision) (EndDecision, error) {
	switch d.Kind {
	case EndExtend, EndSuccessor, EndRestrict, EndIsolate:
	default:
		return EndDecision{}, problem.Invalid("A decision is extend, successor, restrict or isolate.").At("kind")
	}
	if err := checkReason(d.Reason); err != nil {
		return EndDecision{}, err
	}
	c, err := s.Cohort(ctx, tenant, d.Cohort)
	if err != nil {
		return EndDecision{}, err
	}
	if (d.Kind == EndSuccessor) != (d.Successor != "") {
		return EndDecision{}, problem.Invalid("The decision for a successor names the hardware revision that follows, and no other does.").At("successor")
	}
	if d.Successor != "" {
		if _, err := s.Revision(ctx, tenant, d.Successor); err != nil {
			return EndDecision{}, err
		}
		if d.Successor == c.Revision {
			return EndDecision{}, problem.Invalid("A hardware revision does not follow itself.").At("successor")
		}
	}
	d.ID, d.At = store.NewID("end"), s.now()
	return d, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if _, err := tx.Exec(`INSERT INTO product_end_decision(id, tenant, cohort, kind, successor, reason, actor, at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
			d.ID, tenant, d.Cohort, d.Kind, d.Successor, d.Reason, d.Actor, store.Millis(d.At)); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: d.Actor, Kind: "cohort.end-decided", Subject: c.Product, Data: d})
	})
}

// EndDecisions returns what was decided about a cohort, the newest first.
func (s *Service) EndDecisions(ctx context.Context, tenant, cohort string) ([]EndDecision, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT id, cohort, kind, successor, reason, actor, at FROM product_end_decision WHERE tenant = $1 AND cohort = $2 ORDER BY at DESC, id DESC LIMIT 200`, tenant, cohort)
	return store.Collect(rows, err, func(r *sql.Rows) (d EndDecision, err error) {
		var at int64
		err = r.Scan(&d.ID, &d.Cohort, &d.Kind, &d.Successor, &d.Reason, &d.Actor, &at)
		d.At = store.Time(at)
		return d, err
	})
}

// Leave lets new units of a hardware revision get identities although its support has ended, until an instant.
type Leave struct {
	Revision string    `json:"revision"`
	Reason   string    `json:"reason"`
	Until    time.Time `json:"until"`
	Actor    string    `json:"actor"`
	At       time.Time `json:"at"`
}

// maxLeave bounds a leave, so that it is asked for again.
const maxLeave = 90 * 24 * time.Hour

// AllowEnrol gives leave to enrol units of a hardware revision of the tenant; At is filled in.
func (s *Service) AllowEnrol(ctx context.Context, tenant string, l Leave) (Leave, error) {
	if err := checkReason(l.Reason); err != nil {
		return Leave{}, err
	}
	l.At, l.Until = s.now(), store.Time(store.Millis(l.Until))
	if !l.Until.After(l.At) || l.Until.After(l.At.Add(maxLeave)) {
		return Leave{}, problem.Invalid("Leave ends within %d days from now.", int(maxLeave.Hours()/24)).At("until")
	}
	v, err := s.Revision(ctx, tenant, l.Revision)
	if err != nil {
		return Leave{}, err
	}
	return l, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if _, err := tx.Exec(`INSERT INTO product_enrol_leave(id, tenant, revision, reason, until, actor, at) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			store.NewID("lve"), tenant, l.Revision, l.Reason, store.Millis(l.Until), l.Actor, store.Millis(l.At)); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: l.Actor, Kind: "revision.enrol-allowed", Subject: v.Product, Data: l})
	})
}

func checkReason(s string) error {
	if strings.TrimSpace(s) == "" || len(s) > 2000 {
		return problem.Invalid("A reason is mandatory and has at most 2000 bytes.").At("reason")
	}
	return law.CheckClaim("reason", s)
}
