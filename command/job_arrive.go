// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"
	"errors"
	"sync"

	"github.com/openthings-platform/openthings/store"
)

// arrivals are devices that have come back since they were last taken.
type arrivals struct {
	mu      sync.Mutex // guards devices
	devices map[string]bool
	wake    chan struct{} // capacity 1
}

func newArrivals() *arrivals {
	return &arrivals{devices: map[string]bool{}, wake: make(chan struct{}, 1)}
}

func (a *arrivals) add(device string) {
	a.mu.Lock()
	a.devices[device] = true
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// take returns at most n of them.
func (a *arrivals) take(n int) (out []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for d := range a.devices {
		if len(out) == n {
			break
		}
		out = append(out, d)
		delete(a.devices, d)
	}
	return out
}

// welcome lets devices that have come back wait for their turn again.
func (s *Service) welcome(ctx context.Context) error {
	for {
		devices := s.returned.take(walkPage)
		if len(devices) == 0 {
			return nil
		}
		found, err := away(ctx, s.cfg.DB, devices)
		if err == nil && len(found) > 0 {
			err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
				now := s.cfg.Clock.Now()
				for _, p := range found {
					if _, err := setPart(tx, p.job, p.device, Away, Waiting, now, "", 0, isBack); err != nil {
						return err
					}
					if err := s.cfg.DB.Enqueue(tx, driveJob, p.job, now, driven{p.tenant}); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err != nil {
			for _, d := range devices { // they are looked for again
				s.returned.add(d)
			}
			return errors.Join(err, ctx.Err())
		}
	}
}
