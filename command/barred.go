// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// How many devices, and how many of their commands, are looked at in one step when many are barred at once.
const (
	endDevices = 200
	endBatch   = 200
)

// endBarred is EndOpen for all that one act barred for ever with their batch, line station or trusted CA. It goes over the
// devices from the beginning when it is run again: what has ended is not open. What loses a certificate with its authority
// comes back with another, as a device does whose certificates are revoked, and what waits for it stays.
func (s *Service) endBarred(ctx context.Context, e store.Event) error {
	var b identity.Bar
	if err := e.Decode(&b); err != nil || !b.Scope.ForEver() {
		return err
	}
	reason := shorten("the device lost its trust with its " + b.Scope.Words() + ": " + b.Reason)
	for after := ""; ; {
		devices, err := s.cfg.Identity.Made(ctx, e.Tenant, b.Scope, b.ID, after, endDevices)
		if err != nil || len(devices) == 0 {
			return err
		}
		for ended := endBatch; ended == endBatch; {
			if ended, err = s.endSome(ctx, e.Tenant, devices, b.Actor, reason); err != nil {
				return err
			}
		}
		after = devices[len(devices)-1]
	}
}

// endSome ends at most endBatch of the commands that are open for the devices, and says how many it found.
func (s *Service) endSome(ctx context.Context, tenant string, devices []string, actor, reason string) (found int, err error) {
	return found, s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
		open, err := openAmong(tx, tenant, devices, endBatch)
		if err != nil {
			return err
		}
		found = len(open)
		return s.endThese(tx, open, actor, reason)
	})
}

// takes refuses a device that no command reaches any more.
func (s *Service) takes(ctx context.Context, d identity.Device) error {
	if d.State != identity.Commissioned && d.State != identity.Suspended {
		return problem.Conflict("The device is %s and takes no commands.", d.State)
	}
	lost, err := s.cfg.Identity.LostOf(ctx, d.Tenant, []identity.Device{d})
	if l := lost[d.ID]; err == nil && l.Scope.ForEver() {
		err = problem.Conflict("The device was revoked with its %s and takes no commands.", l.With())
	}
	return err
}
