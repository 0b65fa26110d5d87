// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"context"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

const jobIdle = "respond.idle"

// TopicIdle is announced when nobody has decided about a signal in time, and each day until somebody has.
const TopicIdle = "signal.idle"

// TopicDecided is announced when a person has decided about a signal.
const TopicDecided = "signal.decided"

// SignalDecided is the data of TopicDecided.
type SignalDecided struct {
	Verdict Verdict `json:"verdict"`
}

// idleAgain is how often people are told anew of a signal that nobody decides.
const idleAgain = 24 * time.Hour

// Idle is the data of TopicIdle.
type Idle struct {
	Product string    `json:"product"`
	Title   string    `json:"title"`
	Intake  time.Time `json:"intake"`
	Due     time.Time `json:"due" doc:"When a person should have decided"`
}

// idleJob is a job: at its time it looks whether the signal still waits.
type idleJob struct {
	Tenant, Signal string
	Due            int64 // ms since 1970 UTC
}

// armSignal sets the next alarm of a signal that waits for a decision.
func (s *Service) armSignal(tx *store.Tx, tenantID string, sig Signal) error {
	at, err := s.nextIdle(tx, tenantID, sig)
	if err != nil || at.IsZero() {
		return err
	}
	j := idleJob{tenantID, sig.ID, at.UnixMilli()}
	return s.cfg.DB.Enqueue(tx, jobIdle, sig.ID+" "+at.Format(time.RFC3339Nano), at, j)
}

// nextIdle is the next instant at which people are told that the signal waits; zero when it does not. What was missed
// while the platform stood still is told once, not once a day.
func (s *Service) nextIdle(tx *store.Tx, tenantID string, sig Signal) (time.Time, error) {
	limits, err := targets(tx, tenantID)
	if err != nil {
		return time.Time{}, err
	}
	due := sig.Due(limits)
	if due.IsZero() {
		return due, nil
	}
	var last int64
	err = tx.QueryRow(`SELECT coalesce(max(due), 0) FROM respond_idle WHERE tenant = $1 AND signal = $2 AND due >= $3`, tenantID, sig.ID, store.Millis(due)).Scan(&last)
	if err != nil || last == 0 {
		return due, err
	}
	missed := max(0, s.now().Sub(store.Time(last))/idleAgain-1)
	return store.Time(last).Add((missed + 1) * idleAgain), nil
}

// idle records once that nobody has decided about a signal, and announces it.
func (s *Service) idle(ctx context.Context, j store.Job) error {
	var x idleJob
	if err := j.Decode(&x); err != nil {
		return err
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		sig, err := signalByID(tx, x.Tenant, x.Signal)
		if err != nil {
			return err
		}
		at, err := s.nextIdle(tx, x.Tenant, sig)
		if err != nil || at.IsZero() {
			return err
		}
		if at.UnixMilli() != x.Due || s.now().Before(at) { // decided, told already, moved, or a clock was set back
			return s.armSignal(tx, x.Tenant, sig)
		}
		n, err := tx.Exec(`INSERT INTO respond_idle(signal, due, tenant, at) VALUES ($1, $2, $3, $4) ON CONFLICT (signal, due) DO NOTHING`, sig.ID, x.Due, x.Tenant, store.Millis(s.now()))
		if err != nil || n == 0 {
			return err
		}
		told := Idle{Product: sig.Product, Title: sig.Title, Intake: sig.Intake, Due: at}
		if err := audit.Append(tx, audit.Entry{Tenant: x.Tenant, Actor: tenant.System(x.Tenant).ID, Kind: TopicIdle, Subject: sig.ID, Data: told}); err != nil {
			return err
		}
		if err := s.cfg.DB.Emit(tx, TopicIdle, x.Tenant, sig.ID, told); err != nil {
			return err
		}
		return s.armSignal(tx, x.Tenant, sig)
	})
}
