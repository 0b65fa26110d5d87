// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

const (
	deliverers   = 32               // devices served at the same time
	lookEvery    = time.Second      // how often deadlines, and what other nodes were asked for, are looked at
	lookBack     = 10 * time.Second // a transaction may become visible that much later than others of its time
	overdueBatch = 200
	topicPrefix  = "cmd/"
	maxCommandID = 64
)

// Kick looks for commands that wait for the device and delivers them. It does not block.
func (s *Service) Kick(device string) { s.turns.Add(device) }

// Ready is Kick for a device that has come back, and lets it have its part in jobs.
func (s *Service) Ready(device string) {
	s.Kick(device)
	s.returned.add(device)
}

// Work delivers and keeps time until ctx ends.
func (s *Service) Work(ctx context.Context) error {
	if err := s.sealOld(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() { s.keepTime(ctx) })
	s.turns.Serve(ctx, deliverers, func(device string) {
		if err := s.deliverAll(ctx, device); err != nil && ctx.Err() == nil {
			s.cfg.Log.WarnContext(ctx, "commands wait for a device", slog.String("device", device), slog.Any("error", err))
		}
	})
	wg.Wait()
	return nil
}

// keepTime looks at deadlines, at what may be tried again, and at what other nodes were asked for.
func (s *Service) keepTime(ctx context.Context) {
	since := s.cfg.Clock.Now().Add(-lookBack)
	for {
		t := s.cfg.Clock.NewTimer(lookEvery)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		case <-s.returned.wake:
			t.Stop()
		}
		next := s.cfg.Clock.Now().Add(-lookBack)
		err := errors.Join(s.sweep(ctx), s.look(ctx, since), s.welcome(ctx))
		if err == nil {
			since = next
		} else if ctx.Err() == nil {
			s.cfg.Log.ErrorContext(ctx, "commands cannot be looked at", slog.Any("error", err))
		}
	}
}

// look has devices that are connected here served with what is to be handed over since then.
func (s *Service) look(ctx context.Context, since time.Time) error {
	devices, err := devicesWith(ctx, s.cfg.DB, store.Millis(since), store.Millis(s.cfg.Clock.Now()))
	for _, d := range devices {
		if s.live(d) {
			s.Kick(d)
		}
	}
	return err
}

func (s *Service) live(device string) bool { return s.cfg.Live == nil || s.cfg.Live(device) }

// sweep moves commands on whose state has lasted too long. Several nodes may do it at once: the first one counts.
func (s *Service) sweep(ctx context.Context) error {
	for ctx.Err() == nil {
		now := s.cfg.Clock.Now()
		late, err := overdue(ctx, s.cfg.DB, store.Millis(now), overdueBatch)
		if err != nil || len(late) == 0 {
			return err
		}
		if err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
			for _, c := range late {
				if c, err = byID(tx.QueryRow, c.Tenant, c.ID); err != nil {
					return err
				}
				if c.State.Ended() || c.due > store.Millis(now) {
					continue // it moved on meanwhile
				}
				if err := s.late(tx, c, now); err != nil {
					return err
				}
			}
			return nil
		}); err != nil || len(late) < overdueBatch {
			return err
		}
	}
	return ctx.Err()
}

// late decides what becomes of a command that has been in its state for too long.
func (s *Service) late(tx *store.Tx, c Command, now time.Time) error {
	reason := "the device did not take it in time"
	switch {
	case !now.Before(c.NotAfter):
		if c.State == Accepted {
			reason = "the device accepted it and never said how it ended"
		}
	case c.State == Sent: // whoever handed it over is gone
		return s.unacknowledged(tx, c, c.Attempts, "no acknowledgement")
	case c.Idempotent && c.Attempts <= c.Retries:
		_, err := move(tx, c, Queued, step{at: now, attempt: c.Attempts, next: now.Add(c.pause(c.Attempts)), reason: fmt.Sprintf("no result within %d s; it is asked again", c.ResultTimeout)})
		return err
	default:
		reason = fmt.Sprintf("no result within %d s", c.ResultTimeout)
	}
	_, err := s.end(tx, c, Expired, "system", reason, nil)
	return err
}

// unacknowledged ends an attempt that the device may or may not have received: it did not say so, and so it will be
// handed over again, unless that was done often enough.
func (s *Service) unacknowledged(tx *store.Tx, c Command, attempt int64, why string) error {
	now := s.cfg.Clock.Now()
	if attempt > c.Retries {
		_, err := s.end(tx, c, Failed, "system", fmt.Sprintf("handed over %d times and never acknowledged: %s", attempt, why), nil)
		return err
	}
	_, err := move(tx, c, Queued, step{at: now, attempt: attempt, next: now.Add(c.pause(attempt)), reason: why})
	return err
}

// deliverAll sends what waits for the device, in order, until one fails.
func (s *Service) deliverAll(ctx context.Context, device string) error {
	if !s.live(device) {
		return nil // Ready comes when it is back
	}
	waits, err := waiting(ctx, s.cfg.DB, device, store.Millis(s.cfg.Clock.Now()))
	if err != nil {
		return err
	}
	for _, c := range waits {
		if err := s.deliver(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) deliver(ctx context.Context, c Command) error {
	if err := s.open(ctx, &c); err != nil || c.Erased {
		return err
	}
	mine := false
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) (err error) {
		mine, err = handOver(tx, c, s.cfg.Clock.Now())
		return err
	})
	if err != nil || !mine {
		return err
	}
	attempt := c.Attempts + 1
	dctx, cancel := context.WithTimeout(ctx, c.ackTimeout())
	defer cancel()
	err = s.cfg.Deliver(dctx, gateway.Downlink{
		Device: c.Device, Topic: topicPrefix + c.ID + "/" + c.Name, Payload: c.Args, Type: "application/json",
		Expires: c.NotAfter, Reply: topicPrefix + c.ID + "/res", Correlation: c.ID,
	})
	now := s.cfg.Clock.Now()
	ctx = context.WithoutCancel(ctx)
	return errors.Join(err, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		switch {
		case err == nil:
			_, err := move(tx, c, Received, step{at: now})
			return err
		case errors.Is(err, gateway.ErrOffline), errors.Is(err, gateway.ErrNotSubscribed), errors.Is(err, gateway.ErrExpired):
			_, err := move(tx, c, Queued, step{at: now, attempt: attempt, undone: true, reason: shorten(err.Error())})
			return err
		case errors.Is(err, gateway.ErrLost): // it is handed over again as soon as the device is back
			if attempt <= c.Retries {
				_, err := move(tx, c, Queued, step{at: now, attempt: attempt, next: now, reason: shorten(err.Error())})
				return err
			}
		}
		return s.unacknowledged(tx, c, attempt, shorten(err.Error()))
	}))
}

// Receive takes a device's answer: register it with telemetry.Route("cmd/", …). What can never be accepted is a
// problem of kind invalid or not-found.
func (s *Service) Receive(ctx context.Context, r gateway.Record) error {
	id, kind, ok := strings.Cut(strings.TrimPrefix(r.Topic, topicPrefix), "/")
	if !ok || len(id) > maxCommandID {
		return problem.Invalid("%q is no answer to a command.", r.Topic)
	}
	switch kind {
	case "ack":
		var a wire.CommandAck
		if err := json.Unmarshal(r.Body, &a); err != nil {
			return problem.Invalid("The acknowledgement is not valid JSON.").Because(err)
		}
		return s.answer(ctx, r, id, func(tx *store.Tx, c Command) error { return s.acknowledged(tx, c, a) })
	case "res":
		var res wire.CommandResult
		if err := json.Unmarshal(r.Body, &res); err != nil {
			return problem.Invalid("The result is not valid JSON.").Because(err)
		}
		if len(res.Data) > maxResult {
			return problem.TooLarge("The result is longer than %d bytes.", maxResult)
		}
		return s.result(ctx, r, id, res)
	}
	return problem.Invalid("%q is no answer to a command.", r.Topic)
}

// answer runs fn with the command that the record is about. Only the device that was asked may answer.
func (s *Service) answer(ctx context.Context, r gateway.Record, id string, fn func(*store.Tx, Command) error) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		c, err := byID(tx.QueryRow, r.Tenant, id)
		if err != nil {
			return err
		}
		if c.Device != r.Device {
			return problem.NotFound("There is no such command for this device.")
		}
		return fn(tx, c)
	})
}

func (s *Service) acknowledged(tx *store.Tx, c Command, a wire.CommandAck) error {
	if !a.OK {
		_, err := s.end(tx, c, Failed, c.Device, "", &answer{Detail: shorten("refused by the device: " + a.Reason)})
		return err
	}
	_, err := move(tx, c, Accepted, step{at: s.cfg.Clock.Now()})
	return err
}

// result ends the command. A hook that finds the answer invalid makes it fail instead, in a transaction of its own,
// since what the hook wrote must not stay.
func (s *Service) result(ctx context.Context, r gateway.Record, id string, res wire.CommandResult) error {
	err := s.answer(ctx, r, id, func(tx *store.Tx, c Command) error {
		if !c.State.May(Done) {
			return nil // a repeat
		}
		if hook := s.hooks[c.Name]; hook != nil {
			if err := hook(tx, c, res); err != nil {
				return &hookError{err}
			}
		}
		to := Failed
		if res.OK {
			to = Done
		}
		_, err := s.end(tx, c, to, c.Device, "", &answer{shorten(res.Detail), res.Data})
		return err
	})
	var refused *hookError
	if errors.As(err, &refused) && problem.Is(refused.cause, problem.KindInvalid) {
		return s.answer(ctx, r, id, func(tx *store.Tx, c Command) error {
			_, err := s.end(tx, c, Failed, c.Device, shorten(problem.Of(refused.cause).Text), &answer{Data: res.Data})
			return err
		})
	}
	return err
}

// hookError marks an error as that of a hook; it hides the kind, so that no other problem of a hook drops the result.
type hookError struct{ cause error }

func (e *hookError) Error() string { return fmt.Sprintf("command: result hook: %v", e.cause) }
