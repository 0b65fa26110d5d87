// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

const (
	handlerTime = 10 * time.Second // for one record
	handlers    = 16               // devices served at the same time
	retryMost   = 5 * time.Minute  // between two attempts; there is no last one
)

// Handler takes a record of another class. An error that no retry can heal is a problem (invalid, forbidden, not
// found, too large, unprocessable): it is logged and the record dropped. Any other is tried again with back-off.
type Handler func(ctx context.Context, r gateway.Record) error

// Route hands records whose topic begins with prefix ("cmd/", "inv", "ota/") to h, at least once and usually in the
// order of receipt; the longest prefix wins. Call it before the first Append.
func (s *Service) Route(prefix string, h Handler) {
	if s.Takes(prefix) && s.route(prefix) == nil || s.routes[prefix] != nil {
		panic("telemetry: two handlers for topics " + prefix)
	}
	s.routes[prefix] = h
}

// route returns the handler of a topic, or nil.
func (s *Service) route(topic string) (h Handler) {
	longest := -1
	for p, candidate := range s.routes {
		if len(p) > longest && strings.HasPrefix(topic, p) {
			longest, h = len(p), candidate
		}
	}
	return h
}

// Takes says whether a message on the topic has somewhere to go.
func (s *Service) Takes(topic string) bool {
	return strings.HasPrefix(topic, prefix) || strings.HasPrefix(topic, eventPrefix) || s.route(topic) != nil
}

// pend seals a record for the table in which it waits for its handler.
func (s *Service) pend(ctx context.Context, id string, r gateway.Record) (pendingRow, error) {
	now := s.cfg.Clock.Now()
	keyID, key, err := s.hourKey(ctx, now)
	if err != nil {
		return pendingRow{}, err
	}
	body := key.Seal(nil, nil, s.codec.encodeRecords([]gateway.Record{r}), []byte(id))
	return pendingRow{id: id, device: r.Device, at: store.Millis(now), keyID: keyID, body: body}, nil
}

// dispatchAll hands over what is due until ctx ends.
func (s *Service) dispatchAll(ctx context.Context) {
	for ctx.Err() == nil {
		n, err := s.dispatch(ctx)
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.ErrorContext(ctx, "records cannot be handed over", slog.Any("error", err))
		}
		if n == 0 || err != nil {
			s.rest(ctx, s.due)
		}
	}
}

// dispatch hands over what is due now, devices beside each other, each device's records in order, and returns how many.
func (s *Service) dispatch(ctx context.Context) (int, error) {
	due, err := duePending(ctx, s.cfg.DB, store.Millis(s.cfg.Clock.Now()))
	if err != nil || len(due) == 0 {
		return 0, err
	}
	s.pass.Lock()
	ok, err := s.lead(ctx)
	s.pass.Unlock()
	if err != nil || !ok {
		return 0, err
	}
	byDevice := map[string][]pendingRow{}
	for _, p := range due {
		byDevice[p.device] = append(byDevice[p.device], p)
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, handlers)
	for _, rows := range byDevice {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			for _, p := range rows {
				if err := s.handOver(ctx, p); err != nil && ctx.Err() == nil {
					s.cfg.Log.ErrorContext(ctx, "record cannot be handed over", slog.String("row", p.id), slog.Any("error", err))
				}
			}
		})
	}
	wg.Wait()
	return len(due), ctx.Err()
}

// handOver delivers one row and removes it, or notes when to try again.
func (s *Service) handOver(ctx context.Context, p pendingRow) error {
	records, damaged, err := s.open(ctx, inboxRow{id: p.id, keyID: p.keyID, body: p.body})
	switch {
	case damaged:
		s.cfg.Log.ErrorContext(ctx, "pending record is damaged and was dropped", slog.String("row", p.id), slog.Any("error", err))
		err = nil
	case err != nil:
		return err
	default:
		if err = s.deliver(ctx, records[0]); err != nil && ctx.Err() != nil {
			return ctx.Err() // stopped half-way: the next start tries again
		}
	}
	return s.cfg.DB.Write(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		if err == nil {
			return deletePending(tx, p.id)
		}
		again := s.cfg.Clock.Now().Add(min(time.Second<<min(p.attempts, 20), retryMost))
		return postponePending(tx, p.id, p.attempts+1, store.Millis(again), err.Error())
	})
}

// deliver runs the handler of a record. Only an error worth another try is returned.
func (s *Service) deliver(ctx context.Context, r gateway.Record) (err error) {
	log := s.cfg.Log.With(slog.String("device", r.Device), slog.String("topic", cut(r.Topic)))
	h := s.route(r.Topic)
	if h == nil { // it was acknowledged when there still was one, and waits for it to come back
		log.ErrorContext(ctx, "record has no handler")
		return errors.New("no handler")
	}
	ctx, cancel := context.WithTimeout(ctx, handlerTime)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			log.ErrorContext(ctx, "handler panicked", slog.Any("error", err))
		}
	}()
	err = h(ctx, r)
	switch {
	case err == nil:
	case permanent(err):
		log.WarnContext(ctx, "record was refused by its handler and dropped", slog.Any("error", err))
		return nil
	default:
		log.WarnContext(ctx, "record will be handed over again", slog.Any("error", err))
	}
	return err
}

func permanent(err error) bool {
	switch problem.Of(err).Kind {
	case problem.KindInvalid, problem.KindForbidden, problem.KindNotFound, problem.KindTooLarge, problem.KindUnprocessable:
		return true
	}
	return false
}
