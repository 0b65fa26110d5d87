// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/openthings-platform/openthings/update/trust"
	"github.com/openthings-platform/openthings/wire"
)

// rollingBack is the state between the decision to leave a trial image and the start of the old one.
const rollingBack = "rolling_back"

// maxDone is how many ended updates a device remembers, so that a late offer does not start one again.
const maxDone = 16

func final(state string) bool {
	switch state {
	case wire.UpdateCommitted, wire.UpdateRefused, wire.UpdateRolledBack, wire.UpdateFailed:
		return true
	}
	return false
}

// boot plays the bootloader: it counts the start, chooses the slot, and tells whether this is the one start that an
// armed image gets. A trial that ended without a commit falls back here, whatever ended it.
func (a *agent) boot() (trial bool, err error) {
	if a.suspicion, err = a.openChain(); err != nil {
		return false, err
	}
	err = a.change(func(r *record) {
		r.Boot++
		r.Chain = a.chain.end
		a.slot = r.Active
		switch {
		case r.Trial != "" && !r.Tried:
			a.slot, r.Tried, trial = r.Trial, true, true
		case r.Trial != "":
			r.Trial, r.Tried = "", false
			r.Update.State, r.Update.Reason = wire.UpdateRolledBack, "it stopped before it proved healthy"
			a.fellBack = true
		case r.Update != nil && r.Update.State == rollingBack:
			r.Update.State = wire.UpdateRolledBack // seen to be true: the old slot runs
			a.fellBack = true
		}
	})
	if err != nil {
		return false, err
	}
	return trial, a.disk.readJSON(slotFile(a.slot)+".json", &a.image)
}

// startedUp tells of the start, and of what was found on the way.
func (a *agent) startedUp(trial bool) {
	data := map[string]any{"version": a.image.Version, "image": a.image.Image, "slot": a.slot, "trial": trial}
	a.secure(wire.SecurityBoot, "started", data)
	if a.suspicion != "" {
		a.secure(wire.SecurityTamper, a.suspicion, nil)
	}
	if r := a.record(); a.fellBack && r.Update != nil {
		a.updateEnded(r.Update.ID, wire.UpdateRolledBack, r.Update.Rule, r.Update.Reason)
	}
	a.tell("boot", "started", data)
}

// updateEnded tells how an update ended.
func (a *agent) updateEnded(id, state, rule, reason string) {
	data := map[string]any{"update": id, "state": state}
	if rule != "" {
		data["rule"] = rule
	}
	a.secure(wire.SecurityUpdate, reason, data)
}

// tryOut looks at a freshly booted image: are these the signed bytes, and does the device's own check like them?
func (a *agent) tryOut(ctx context.Context) error {
	target := a.record().Update.Target
	if err := a.checkSlot(a.slot, *target); err != nil {
		return err
	}
	if a.Health == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, a.HealthFor)
	defer cancel()
	return a.Health(ctx, a.disk.path(slotFile(a.slot)))
}

// watchdog ends a trial that was not committed in time.
func (a *agent) watchdog(ctx context.Context, cancel context.CancelCauseFunc) {
	if a.sleep(ctx, a.HealthFor) == nil && a.record().Trial != "" {
		cancel(errUnhealthy)
	}
}

// commit makes the trial slot the active one and raises the floor, in one write.
func (a *agent) commit() error {
	if a.record().Trial == "" {
		return nil
	}
	var id string
	err := a.change(func(r *record) {
		t := r.Update.Target
		r.Active, r.Trial, r.Tried = r.Trial, "", false
		r.Floor = max(r.Floor, t.SecurityVersion)
		r.DataFloor = t.DataFloor
		id, r.Update.State = r.Update.ID, wire.UpdateCommitted
	})
	if err == nil {
		a.updateEnded(id, wire.UpdateCommitted, "", a.image.Version)
	}
	return err
}

// rollBack gives the trial up; the next start runs the old slot.
func (a *agent) rollBack(why error) error {
	a.Log.Warn("update rolled back", "reason", why)
	err := a.change(func(r *record) {
		r.Trial, r.Tried = "", false
		r.Update.State, r.Update.Rule, r.Update.Reason = rollingBack, ruleOf(why), why.Error()
	})
	if err != nil {
		return err
	}
	return ErrReboot
}

// checkSlot reads the whole image back from a slot.
func (a *agent) checkSlot(slot string, t trust.Target) error { return a.checkFile(slotFile(slot), t) }

func (a *agent) checkFile(name string, t trust.Target) error {
	f, err := os.Open(a.disk.path(name))
	if err != nil {
		return err
	}
	defer f.Close()
	return t.Check(f)
}

// reported forgets an update whose end the platform has acknowledged.
func (a *agent) reported(id string) error {
	return a.change(func(r *record) {
		if r.Update == nil || r.Update.ID != id {
			return
		}
		r.Update = nil
		r.Done = append(slices.Clone(r.Done), id)
		r.Done = r.Done[max(0, len(r.Done)-maxDone):]
	})
}

func ruleOf(err error) string {
	var r *trust.Refusal
	if errors.As(err, &r) {
		return r.Rule
	}
	return ""
}
