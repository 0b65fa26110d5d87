// SPDX-License-Identifier: AGPL-3.0-only

package retire

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
)

const (
	jobDeprovision = "retire.deprovision"
	// resumeAfter is when the job looks whether the request that began a deprovision also finished it.
	resumeAfter = 5 * time.Second
)

// The steps of a deprovision, in order.
const (
	stepTrust     = "trust"     // certificates revoked, IDevID barred: in the transaction of the request; identity cuts sessions with it
	stepSessions  = "sessions"  // whatever slipped in meanwhile is cut too
	stepTelemetry = "telemetry" // data and its key gone
	stepState     = "state"     // what it should be like and said that it is like
	stepTombstone = "tombstone" // state, erasure record and proof
)

// erased is what the erasure record says is gone: the first two are deleted, the rest nobody can read any more.
var erased = []string{"telemetry", "state", "arguments and answers of commands", "their key"}

// kept is what the erasure record says remains, and why.
var kept = []string{"device register", "certificates", "installations", "commands", "wipe receipt", "audit log"}

// which is the device that a job is about.
type which struct{ Tenant, Device string }

// Deprovision ends a device on our side for ever. Without a wipe receipt it is refused, unless unwiped says that the
// device is lost or broken. When it returns without an error every step is done; otherwise the job goes on.
func (s *Service) Deprovision(ctx context.Context, tenant, device, actor, reason string, unwiped bool) (Retirement, error) {
	if err := checkReason(reason); err != nil {
		return Retirement{}, err
	}
	err := s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error { return s.endTrust(tx, tenant, device, actor, reason, unwiped) })
	if err != nil {
		return Retirement{}, err
	}
	if err := s.finish(ctx, which{tenant, device}); err != nil {
		s.cfg.Log.WarnContext(ctx, "deprovision goes on as a job", slog.String("device", device), slog.Any("error", err))
	}
	return s.Retirement(ctx, tenant, device)
}

// endTrust is the first step, durable before any other begins: whatever fails later, the device is not trusted any more.
func (s *Service) endTrust(tx *store.Tx, tenant, device, actor, reason string, unwiped bool) error {
	d, err := s.cfg.Identity.GetTx(tx, tenant, device)
	if err != nil {
		return err
	}
	if _, ok, err := tombstone(tx, tenant, device); err != nil || ok {
		return err // asked for already: finish does what is open
	}
	w, ok, err := lastWipe(tx, tenant, device)
	if err != nil {
		return err
	}
	wiped := ok && w.Signed != nil
	if !wiped && !unwiped {
		return problem.Forbidden(RuleWipeFirst, "The device has not proven that it wiped itself.").
			Hint("Decommission it first. For one that is lost or broken, deprovision it without a wipe and say why.")
	}
	if d.State.Barred() { // by another way than bar, perhaps
		err = s.cfg.Identity.Revoke(tx, tenant, device, actor, reason)
		if err == nil {
			err = s.cfg.Command.EndOpen(tx, tenant, device, "", actor, "the device is deprovisioned: "+reason)
		}
	} else {
		err = s.bar(tx, d, "", actor, reason)
	}
	if err != nil {
		return err
	}
	now := s.now()
	if err := insertTombstone(tx, tenant, d.Product, Tombstone{Device: device, Reason: reason, Unwiped: !wiped, Actor: actor, Begun: now}); err != nil {
		return err
	}
	if err := completed(tx, tenant, device, Step{stepTrust, now, "certificates revoked, barred for ever"}); err != nil {
		return err
	}
	err = audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "device.deprovisioning", Subject: device, Data: map[string]any{"reason": reason, "wiped": wiped}})
	if err != nil {
		return err
	}
	return s.cfg.DB.Enqueue(tx, jobDeprovision, device, now.Add(resumeAfter), which{tenant, device})
}

// resume is the job: it finishes what a request began.
func (s *Service) resume(ctx context.Context, j store.Job) error {
	var w which
	if err := j.Decode(&w); err != nil {
		return err
	}
	return s.finish(ctx, w)
}

// finish does the steps that are not completed yet, in order. Running it twice, or twice at once, is harmless.
func (s *Service) finish(ctx context.Context, w which) error {
	var done []Step
	var t Tombstone
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		if t, _, err = tombstone(tx, w.Tenant, w.Device); err == nil {
			done, err = steps(tx, w.Tenant, w.Device)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("retire: %w", err)
	}
	for _, step := range []struct {
		name string
		do   func(context.Context, which, Tombstone) (detail string, err error)
	}{
		{stepSessions, s.cutSessions},
		{stepTelemetry, s.eraseTelemetry},
		{stepState, s.eraseState},
	} {
		if slices.ContainsFunc(done, func(d Step) bool { return d.Name == step.name }) {
			continue
		}
		detail, err := step.do(ctx, w, t)
		if err == nil {
			err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
				return completed(tx, w.Tenant, w.Device, Step{step.name, s.now(), detail})
			})
		}
		if err != nil {
			return fmt.Errorf("retire: step %s of %s: %w", step.name, w.Device, err)
		}
	}
	return s.bury(ctx, w)
}

func (s *Service) cutSessions(_ context.Context, w which, t Tombstone) (string, error) {
	return fmt.Sprintf("%d more sessions cut", s.cfg.Cut(w.Device, t.Reason)), nil
}

func (s *Service) eraseTelemetry(ctx context.Context, w which, _ Tombstone) (string, error) {
	return "telemetry deleted, its key destroyed", s.cfg.Telemetry.EraseDevice(ctx, w.Tenant, w.Device)
}

func (s *Service) eraseState(ctx context.Context, w which, _ Tombstone) (string, error) {
	return "desired and reported state deleted", s.cfg.Fleet.EraseTwin(ctx, w.Tenant, w.Device)
}

// bury writes the tombstone: the final state and the record of the erasure, once.
func (s *Service) bury(ctx context.Context, w which) error {
	gone, ok, err := s.cfg.Keys.Destroyed(ctx, s.cfg.DB, w.Tenant, w.Device)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("retire: the key of %s still exists after its erasure", w.Device)
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		t, _, err := tombstone(tx, w.Tenant, w.Device)
		if err != nil || !t.Done.IsZero() {
			return err
		}
		t.Done, t.Erased, t.Horizon = s.now(), gone, seal.Horizon(gone)
		if err := s.cfg.Identity.SetState(tx, w.Tenant, w.Device, identity.Deprovisioned, t.Actor, t.Reason); err != nil {
			return err
		}
		if err := finishTombstone(tx, w.Tenant, t); err != nil {
			return err
		}
		if err := completed(tx, w.Tenant, w.Device, Step{stepTombstone, t.Done, "unreadable in every backup from " + t.Horizon.UTC().Format(time.DateOnly)}); err != nil {
			return err
		}
		record := map[string]any{"erased": erased, "kept": kept, "key_destroyed": t.Erased.UTC(), "backup_horizon": t.Horizon.UTC(), "rule": "gdpr.17", "reason": t.Reason}
		if err := audit.Append(tx, audit.Entry{Tenant: w.Tenant, Actor: t.Actor, Kind: "device.erased", Subject: w.Device, Data: record}); err != nil {
			return err
		}
		if err := s.cfg.DB.Cancel(tx, jobDeprovision, w.Device); err != nil {
			return err
		}
		return s.cfg.DB.Emit(tx, "device.erased", w.Tenant, w.Device, record)
	})
}

// eraseAgain follows device.state. Another stage may have barred the device, such as by a verdict about clones: what was asked
// of it ends here too. A deprovisioned device whose key exists has come back with a restored backup: the journal has ended
// the trust in it again, and here its data goes again too.
func (s *Service) eraseAgain(ctx context.Context, e store.Event) error {
	var change struct {
		To     identity.State
		Reason string
	}
	if err := e.Decode(&change); err != nil {
		return fmt.Errorf("retire: device.state of %s: %w", e.Subject, err)
	}
	if change.To.Barred() {
		if err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
			return s.cfg.Command.EndOpen(tx, e.Tenant, e.Subject, "", "system", "the device is "+string(change.To)+": "+change.Reason)
		}); err != nil {
			return err
		}
	}
	if change.To != identity.Deprovisioned {
		return nil
	}
	if _, gone, err := s.cfg.Keys.Destroyed(ctx, s.cfg.DB, e.Tenant, e.Subject); err != nil || gone {
		return err
	}
	if err := s.cfg.Telemetry.EraseDevice(ctx, e.Tenant, e.Subject); err != nil {
		return err
	}
	if err := s.cfg.Fleet.EraseTwin(ctx, e.Tenant, e.Subject); err != nil {
		return err
	}
	s.cfg.Log.WarnContext(ctx, "a restored backup had brought back the data of a deprovisioned device; it is erased again", slog.String("device", e.Subject))
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		return audit.Append(tx, audit.Entry{Tenant: e.Tenant, Actor: "system", Kind: "device.erased", Subject: e.Subject,
			Data: map[string]any{"erased": erased, "reason": "a restored backup had brought it back", "rule": "gdpr.17"}})
	})
}
