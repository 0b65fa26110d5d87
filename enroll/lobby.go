// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// RuleDenied refuses a device that a person turned away in the lobby.
const RuleDenied = "enroll.denied"

// Verdict is what a person has decided about a device in the lobby.
type Verdict string

// The verdicts. A device that never was in the lobby has none.
const (
	Waiting  Verdict = "waiting"
	Approved Verdict = "approved"
	Denied   Verdict = "denied"
)

// How a device came to the lobby.
const (
	ByLine  = "line"  // made at a station, switched on before anybody claimed it
	ByCA    = "jitp"  // its certificate is from a trusted CA
	ByToken = "token" // it brought an enrolment token
)

// MaxDecide is how many devices one decision may be about.
const MaxDecide = 200

// Guest is a device in the lobby.
type Guest struct {
	Device   string          `json:"device"`
	Serial   string          `json:"serial"`
	Product  string          `json:"product"`
	Batch    string          `json:"batch,omitempty"`
	State    identity.State  `json:"state"`
	Since    time.Time       `json:"since"`
	How      string          `json:"how" doc:"line, jitp or token"`
	Evidence json.RawMessage `json:"evidence" doc:"What it showed"`
	Verdict  Verdict         `json:"verdict" enum:"waiting,approved,denied"`
	Actor    string          `json:"actor,omitempty" doc:"Who decided"`
	Reason   string          `json:"reason,omitempty"`
	Decided  time.Time       `json:"decided,omitzero"`
}

// Wait puts a provisioned device into the lobby until a person decides; how is one of ByLine, ByCA and ByToken, and
// evidence becomes JSON. A device that already waits keeps its place, one that was denied stays denied, and one that
// was approved and then released by its owner waits anew.
func (s *Service) Wait(tx *store.Tx, tenant, device, how string, evidence any) error {
	b, err := json.Marshal(evidence)
	if err != nil {
		return err
	}
	n, err := tx.Exec(`INSERT INTO lobby(device, tenant, since, how, evidence, verdict, actor, reason, decided) VALUES ($1, $2, $3, $4, $5, $6, '', '', 0)
		ON CONFLICT (device) DO UPDATE SET since = excluded.since, how = excluded.how, evidence = excluded.evidence, verdict = excluded.verdict, actor = '', reason = '', decided = 0
		WHERE lobby.verdict = $7`, device, tenant, store.Millis(s.now()), how, string(b), Waiting, Approved)
	if err != nil || n == 0 {
		return err
	}
	return s.cfg.DB.Emit(tx, "device.waiting", tenant, device, map[string]string{"how": how})
}

// Decided says what was decided about a device; the empty verdict: it never was in the lobby.
func (s *Service) Decided(q querier, tenant, device string) (v Verdict, err error) {
	err = q(`SELECT verdict FROM lobby WHERE tenant = $1 AND device = $2`, tenant, device).Scan(&v)
	if errors.Is(err, store.ErrNoRows) {
		return "", nil
	}
	return v, err
}

// notDenied refuses a device that a person turned away.
func (s *Service) notDenied(q querier, tenant, device string) error {
	v, err := s.Decided(q, tenant, device)
	if err == nil && v == Denied {
		return problem.Forbidden(RuleDenied, "A person has turned this device away.").Hint("Whoever runs the lobby can still approve it.")
	}
	return err
}

// knock puts a unit of the line that asks before anybody claimed it into the lobby, once.
func (s *Service) knock(ctx context.Context, tenant, device string) error {
	v, err := s.Decided(s.reads(ctx), tenant, device)
	if err != nil || v == Waiting || v == Denied {
		return err
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		d, err := s.cfg.Identity.GetTx(tx, tenant, device)
		if err != nil || d.State != identity.Provisioned {
			return err
		}
		return s.Wait(tx, tenant, device, ByLine, map[string]string{"batch": d.Batch, "station": d.Origin})
	})
}

// Approve lets waiting devices into a solution with labels, all of them or none. A claim code on the box is used up by
// it. A device that was denied before may be approved.
func (s *Service) Approve(ctx context.Context, tenant string, devices []string, solution string, labels map[string]string, actor string) error {
	if err := errors.Join(checkDevices(devices), checkLabels(labels)); err != nil {
		return err
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		for _, id := range devices {
			if err := s.approve(tx, tenant, id, solution, labels, actor); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Service) approve(tx *store.Tx, tenant, device, solution string, labels map[string]string, actor string) error {
	d, err := s.decide(tx, tenant, device, Approved, "", actor)
	if err != nil {
		return err
	}
	if err := s.notHeld(tx, d); err != nil {
		return err
	}
	if err := s.cfg.Identity.SetSolution(tx, tenant, device, solution); err != nil {
		return err
	}
	if err := s.cfg.Identity.SetState(tx, tenant, device, identity.Pending, actor, ""); err != nil {
		return err
	}
	if err := spendClaim(tx, tenant, device, solution, s.now()); err != nil {
		return err
	}
	if err := putLabels(tx, tenant, device, labels); err != nil {
		return err
	}
	return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "device.approved", Subject: device,
		Data: map[string]any{"solution": solution, "labels": labels, "serial": d.Serial}})
}

// Deny turns waiting devices away: they are answered 403 with RuleDenied, and no claim code admits them.
func (s *Service) Deny(ctx context.Context, tenant string, devices []string, reason, actor string) error {
	if err := errors.Join(checkDevices(devices), checkReason(reason)); err != nil {
		return err
	}
	return s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error {
		for _, id := range devices {
			d, err := s.decide(tx, tenant, id, Denied, reason, actor)
			if err != nil {
				return err
			}
			err = audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "device.denied", Subject: id, Data: map[string]any{"reason": reason, "serial": d.Serial}})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// decide writes the verdict on a device that is in the lobby and still provisioned.
func (s *Service) decide(tx *store.Tx, tenant, device string, v Verdict, reason, actor string) (identity.Device, error) {
	d, err := s.cfg.Identity.GetTx(tx, tenant, device)
	if err != nil {
		return d, err
	}
	if d.State != identity.Provisioned {
		return d, problem.Conflict("%s is %s; only a provisioned device is decided about.", d.Serial, d.State)
	}
	n, err := tx.Exec(`UPDATE lobby SET verdict = $1, reason = $2, actor = $3, decided = $4 WHERE tenant = $5 AND device = $6 AND verdict <> $1`,
		v, reason, actor, store.Millis(s.now()), tenant, device)
	if err == nil && n == 0 {
		return d, problem.Conflict("%s does not wait in the lobby, or was %s already.", d.Serial, v)
	}
	return d, err
}

// leaveLobby notes that a device got in by its claim code, or by a policy.
func leaveLobby(tx *store.Tx, tenant, device, actor string, at time.Time) error {
	_, err := tx.Exec(`UPDATE lobby SET verdict = $1, actor = $2, decided = $3 WHERE tenant = $4 AND device = $5 AND verdict = $6`,
		Approved, actor, store.Millis(at), tenant, device, Waiting)
	return err
}

func checkDevices(ids []string) error {
	if len(ids) == 0 || len(ids) > MaxDecide {
		return problem.Invalid("Name 1 to %d devices.", MaxDecide).At("devices")
	}
	return nil
}

func checkReason(s string) error {
	if strings.TrimSpace(s) == "" || len(s) > 500 {
		return problem.Invalid("Say why, in at most 500 bytes.").At("reason")
	}
	return nil
}

// GuestFilter narrows the list of guests. Empty fields do not narrow.
type GuestFilter struct {
	Verdict  Verdict
	Products []string // only these; empty: all
	After    string   // id of the last device of the page before
	Limit    int
}

// notGone narrows a query over device d to those about which there is something left to decide.
const notGone = ` AND d.state NOT IN ('decommissioned', 'deprovisioned')`

// Lobby lists the devices in the lobby in the order of their ids, which is that of their registration.
func (s *Service) Lobby(ctx context.Context, tenant string, f GuestFilter) ([]Guest, error) {
	args := []any{tenant, f.After, f.Limit}
	where := ""
	arg := func(v any) string { args = append(args, v); return fmt.Sprintf("$%d", len(args)) }
	if f.Verdict != "" {
		where += " AND l.verdict = " + arg(f.Verdict)
	}
	if f.Verdict == Waiting {
		where += notGone
	}
	if len(f.Products) > 0 {
		var marks []string
		for _, p := range f.Products {
			marks = append(marks, arg(p))
		}
		where += " AND d.product IN (" + strings.Join(marks, ", ") + ")"
	}
	rows, err := s.cfg.DB.Query(ctx, `SELECT l.device, d.serial, d.product, d.batch, d.state, l.since, l.how, l.evidence, l.verdict, l.actor, l.reason, l.decided
		FROM lobby l JOIN device d ON d.id = l.device AND d.tenant = l.tenant WHERE l.tenant = $1 AND l.device > $2`+where+` ORDER BY l.device LIMIT $3`, args...)
	return store.Collect(rows, err, func(r *sql.Rows) (Guest, error) {
		var g Guest
		var since, decided int64
		var evidence string
		err := r.Scan(&g.Device, &g.Serial, &g.Product, &g.Batch, &g.State, &since, &g.How, &evidence, &g.Verdict, &g.Actor, &g.Reason, &decided)
		g.Since, g.Decided, g.Evidence = store.Time(since), store.Time(decided), json.RawMessage(evidence)
		return g, err
	})
}
