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
	expireJob    = "command.expire"
	deliverTime  = 30 * time.Second // for one command to be acknowledged
	deliverers   = 32               // devices served at the same time
	topicPrefix  = "cmd/"
	maxCommandID = 64
)

type expiry struct{ Tenant, Command string }

// expire ends a command whose time has come.
func (s *Service) expire(ctx context.Context, j store.Job) error {
	var e expiry
	if err := j.Decode(&e); err != nil {
		return err
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		c, err := byID(tx.QueryRow, e.Tenant, e.Command)
		if err != nil || c.State.Ended() {
			return err
		}
		reason := "the device did not take it in time"
		if c.State == Accepted {
			reason = "the device accepted it and never said how it ended"
		}
		_, err = s.end(tx, c, Expired, reason, "")
		return err
	})
}

// Kick looks for commands that wait for the device and delivers them; call it when the device has come back. It does
// not block.
func (s *Service) Kick(device string) { s.queue.add(device) }

// Work delivers until ctx ends.
func (s *Service) Work(ctx context.Context) error {
	var wg sync.WaitGroup
	for range deliverers {
		wg.Go(func() {
			for {
				device, ok := s.queue.take(ctx)
				if !ok {
					return
				}
				if err := s.deliverAll(ctx, device); err != nil && ctx.Err() == nil {
					s.cfg.Log.WarnContext(ctx, "commands wait for a device", slog.String("device", device), slog.Any("error", err))
				}
				s.queue.done(device)
			}
		})
	}
	wg.Wait()
	return nil
}

// deliverAll sends what waits for the device, in order, until one fails.
func (s *Service) deliverAll(ctx context.Context, device string) error {
	if s.cfg.Live != nil && !s.cfg.Live(device) {
		return nil // Kick comes when it is back
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
	if err := s.note(ctx, c, Sent, ""); err != nil {
		return err
	}
	dctx, cancel := context.WithTimeout(ctx, deliverTime)
	err := s.cfg.Deliver(dctx, gateway.Downlink{
		Device: c.Device, Topic: topicPrefix + c.ID + "/" + c.Name, Payload: c.Args, Type: "application/json",
		Expires: c.NotAfter, Reply: topicPrefix + c.ID + "/res", Correlation: c.ID,
	})
	cancel()
	ctx = context.WithoutCancel(ctx)
	if err != nil {
		if nerr := s.note(ctx, c, Queued, shorten(err.Error())); nerr != nil {
			return nerr
		}
		return err
	}
	return s.note(ctx, c, Received, "")
}

// note records a step of the transport; an answer that was faster stays.
func (s *Service) note(ctx context.Context, c Command, to State, reason string) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if c.State == Sent && to == Sent { // handed over before, never acknowledged
			if _, err := move(tx, c.Tenant, c.ID, Queued, 0, "", ""); err != nil {
				return err
			}
		}
		_, err := move(tx, c.Tenant, c.ID, to, store.Millis(s.cfg.Clock.Now()), reason, "")
		return err
	})
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
		_, err := s.end(tx, c, Failed, shorten("refused by the device: "+a.Reason), "")
		return err
	}
	_, err := move(tx, c.Tenant, c.ID, Accepted, store.Millis(s.cfg.Clock.Now()), "", "")
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
		_, err := s.end(tx, c, to, shorten(res.Detail), string(res.Data))
		return err
	})
	var refused *hookError
	if errors.As(err, &refused) && problem.Is(refused.cause, problem.KindInvalid) {
		return s.answer(ctx, r, id, func(tx *store.Tx, c Command) error {
			_, err := s.end(tx, c, Failed, shorten(problem.Of(refused.cause).Text), string(res.Data))
			return err
		})
	}
	return err
}

// hookError marks an error as that of a hook; it hides the kind, so that no other problem of a hook drops the result.
type hookError struct{ cause error }

func (e *hookError) Error() string { return fmt.Sprintf("command: result hook: %v", e.cause) }
