// SPDX-License-Identifier: AGPL-3.0-only

package notify

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/webhook"
)

const (
	patience    = 15 * time.Second // for one attempt
	claimFor    = 5 * time.Minute  // an endpoint whose process died is taken again after this
	drain       = 10               // deliveries to one endpoint in a row; 10 attempts end well within claimFor
	workers     = 16               // endpoints at the same time
	poll        = time.Second
	maxAnswer   = 4 << 10
	keep        = 90 * 24 * time.Hour // how long what was delivered stays on record
	forgetEvery = time.Hour
)

// rejectedError is an answer that would be the same to the same message tomorrow.
type rejectedError struct{ why string }

func (e *rejectedError) Error() string { return e.why }

// Work delivers until ctx ends.
func (s *Service) Work(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, workers)
	var tidied time.Time
	for ctx.Err() == nil {
		if now := s.cfg.Clock.Now(); now.Sub(tidied) >= forgetEvery {
			tidied = now
			if err := s.forget(ctx); err != nil && ctx.Err() == nil {
				s.cfg.Log.ErrorContext(ctx, "old deliveries cannot be removed", slog.Any("error", err))
			}
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		e, ok, err := s.claim(ctx)
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.ErrorContext(ctx, "deliveries cannot be read", slog.Any("error", err))
		}
		if !ok {
			<-slots
			s.pause(ctx)
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := s.deliver(ctx, e); err != nil && ctx.Err() == nil {
				s.cfg.Log.ErrorContext(ctx, "deliveries cannot be settled", slog.String("endpoint", e.ID), slog.Any("error", err))
			}
			s.kick() // what came in for it meanwhile waits no longer
		})
	}
	return nil
}

func (s *Service) pause(ctx context.Context) {
	t := s.cfg.Clock.NewTimer(poll)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-s.wake:
	case <-t.C:
	}
}

// claim takes an endpoint for which something is due. Reading first keeps an idle platform from writing.
func (s *Service) claim(ctx context.Context) (e Endpoint, ok bool, err error) {
	now := s.cfg.Clock.Now()
	var n int64
	err = s.cfg.DB.QueryRow(ctx, `SELECT count(*) FROM (SELECT 1 FROM notify_delivery WHERE state = 'open' AND next <= $1 LIMIT 1) q`, store.Millis(now)).Scan(&n)
	if err != nil || n == 0 {
		return e, false, err
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) (err error) {
		e, err = claim(tx, now, now.Add(claimFor))
		return err
	})
	if errors.Is(err, store.ErrNoRows) {
		return e, false, nil
	}
	return e, err == nil, err
}

// deliver sends what is due to an endpoint that was claimed, until one attempt fails, and gives it back.
func (s *Service) deliver(ctx context.Context, e Endpoint) error {
	todo, err := due(ctx, s.cfg.DB, e.ID, s.cfg.Clock.Now(), drain)
	until := time.Time{}
	for _, d := range todo {
		var fault error
		if fault = s.attempt(ctx, e, d); fault != nil && ctx.Err() != nil {
			break // stopped half-way: the next start tries again
		}
		if until, err = s.settle(ctx, &e, d, fault); err != nil || fault != nil {
			break
		}
	}
	ctx = context.WithoutCancel(ctx)
	return errors.Join(err, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := release(tx, e, until); err != nil || e.Off == "" {
			return err
		}
		return failOpen(tx, e.ID, e.Off, s.cfg.Clock.Now())
	}))
}

// settle records an attempt and says how long the endpoint rests.
func (s *Service) settle(ctx context.Context, e *Endpoint, d Delivery, fault error) (until time.Time, err error) {
	now := s.cfg.Clock.Now()
	d.Attempts++
	var refused *webhook.Refused
	switch {
	case fault == nil:
		d.State, d.Ended, d.Answer = Done, now, "taken"
		e.Faults, e.Fault, e.Reached = 0, "", now
	default:
		e.Faults++
		e.Fault = plain(fault.Error(), 300)
		d.Answer = e.Fault
		until = now.Add(rest(e.Faults))
		waits := e.Kind.waits()
		if d.Attempts > int64(len(waits)) || errors.As(fault, new(*rejectedError)) {
			d.State, d.Ended = Failed, now
			break
		}
		wait := waits[d.Attempts-1]
		if errors.As(fault, &refused) {
			wait = max(wait, min(refused.After, waits[len(waits)-1]))
			if refused.Gone() {
				e.Off = e.Fault
			}
		}
		d.Next = now.Add(wait)
	}
	return until, s.cfg.DB.Write(context.WithoutCancel(ctx), func(tx *store.Tx) error { return settle(tx, d) })
}

// attempt tells an endpoint once.
func (s *Service) attempt(ctx context.Context, e Endpoint, d Delivery) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if d.notice.Link != "" {
		d.notice.Link = s.cfg.URL + d.notice.Link
	}
	switch e.Kind {
	case Mail:
		if s.cfg.Mailer == nil {
			return errors.New("this platform knows no mail server")
		}
		return s.cfg.Mailer.send(ctx, e.Address, d)
	case Pager:
		return s.page(ctx, e, d)
	case Syslog:
		return s.log(ctx, e, d)
	}
	return s.post(ctx, e, d)
}

// message is the body of a webhook, as Standard Webhooks recommend it, and what a syslog message says.
type message struct {
	Type      string      `json:"type"`
	Timestamp time.Time   `json:"timestamp"`
	Data      messageData `json:"data"`
}

type messageData struct {
	Subject  string          `json:"subject"`
	Title    string          `json:"title"`
	Text     string          `json:"text,omitempty"`
	Link     string          `json:"link,omitempty"`
	Severity Severity        `json:"severity"`
	Thread   string          `json:"thread,omitempty"` // what several messages are about together
	Phase    Phase           `json:"phase,omitempty"`  // what this one means for it: "", "taken" or "over"
	Facts    json.RawMessage `json:"facts"`
}

// message is the delivery as programs read it.
func (d Delivery) message() message {
	return message{Type: d.Topic, Timestamp: d.At.UTC(), Data: messageData{Subject: d.Subject, Title: d.Title, Text: d.notice.Text, Link: d.notice.Link,
		Severity: d.notice.Severity, Thread: d.notice.Thread, Phase: d.notice.Phase, Facts: json.RawMessage(d.data)}}
}

func (s *Service) post(ctx context.Context, e Endpoint, d Delivery) error {
	secret, err := s.cfg.Keys.Unwrap(purpose(e), e.secret)
	if err != nil {
		return err
	}
	body, err := json.Marshal(d.message())
	if err != nil {
		return err
	}
	req, err := webhook.Secret(secret).Request(ctx, e.Address, d.ID, s.cfg.Clock.Now(), body)
	if err != nil {
		return err
	}
	if e.Header != "" {
		value, err := s.cfg.Keys.Unwrap(credentialOf(e), e.credential)
		if err != nil {
			return err
		}
		req.Header.Set(e.Header, string(value))
	}
	_, err = webhook.Do(s.client, req)
	return err
}

// forget removes what was delivered long ago, in small transactions.
func (s *Service) forget(ctx context.Context) error {
	before := s.cfg.Clock.Now().Add(-keep)
	for {
		var n int64
		err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) (err error) {
			n, err = forget(tx, before, 500)
			return err
		})
		if err != nil || n < 500 {
			return err
		}
	}
}
