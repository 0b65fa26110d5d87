// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"net/textproto"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/notify"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/webhook"
)

const (
	patience = 20 * time.Second // for one attempt
	claimFor = 5 * time.Minute  // what a process that died had taken is taken again after this
	batch    = 10               // deliveries taken together; 10 attempts end well within claimFor
	workers  = 8                // batches at the same time
	poll     = 2 * time.Second
	rest     = time.Minute // while the mail server takes nothing at all
)

// errNoServer says nothing about the recipient.
var errNoServer = errors.New("this platform knows no mail server")

// erasedError ends what was on its way to a contact that is gone.
type erasedError struct{}

func (erasedError) Error() string { return erasedAnswer }

// pause is how long a delivery rests after so many attempts; false if it is not tried again: the last attempt was made, or
// the answer is for good.
func pause(attempts int64, fault error) (time.Duration, bool) {
	var said *textproto.Error
	var refused *webhook.Refused
	var erased erasedError
	wait, more := notify.Wait(attempts)
	switch {
	case errors.As(fault, &said) && said.Code >= 500, errors.As(fault, &erased):
		return 0, false
	case errors.As(fault, &refused):
		longest, _ := notify.Wait(lastWait)
		return max(wait, min(refused.After, longest)), more && !refused.Gone()
	}
	return wait, more
}

// lastWait is the number of the longest pause.
const lastWait = 9

func (s *Service) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Work delivers until ctx ends.
func (s *Service) Work(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, workers)
	for ctx.Err() == nil {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		ds, err := s.claim(ctx)
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.ErrorContext(ctx, "deliveries to users cannot be read", slog.Any("error", err))
		}
		if len(ds) == 0 {
			<-slots
			if err := s.finishAll(ctx); err != nil && ctx.Err() == nil {
				s.cfg.Log.ErrorContext(ctx, "campaigns cannot be finished", slog.Any("error", err))
			}
			s.idle(ctx)
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := s.deliver(ctx, ds); err != nil && ctx.Err() == nil {
				s.cfg.Log.ErrorContext(ctx, "deliveries to users cannot be settled", slog.Any("error", err))
			}
		})
	}
	return nil
}

func (s *Service) idle(ctx context.Context) {
	t := s.cfg.DB.Clock().NewTimer(poll)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-s.wake:
	case <-t.C:
	}
}

// claim takes some deliveries that are due. Reading first keeps an idle platform from writing.
func (s *Service) claim(ctx context.Context) (ds []Delivery, err error) {
	now := s.now()
	var campaign string
	err = s.cfg.DB.QueryRow(ctx, nextCampaign, store.Millis(now)).Scan(&campaign)
	if err == nil {
		err = s.cfg.DB.Write(ctx, func(tx *store.Tx) (err error) {
			ds, err = claim(tx, now, now.Add(claimFor), batch)
			return err
		})
	}
	if errors.Is(err, store.ErrNoRows) {
		return nil, nil
	}
	return ds, err
}

// deliver tries what was taken. If the mail server takes nothing at all, the other mails rest without an attempt.
func (s *Service) deliver(ctx context.Context, ds []Delivery) error {
	var down bool
	for i, d := range ds {
		if down && d.Channel == Mail {
			if err := s.back(ctx, ds[i:i+1], s.now().Add(rest)); err != nil {
				return err
			}
			continue
		}
		answer, fault := s.attempt(ctx, &d)
		if fault != nil && ctx.Err() != nil { // stopped half-way: the next start tries again
			return s.back(ctx, ds[i:], s.now())
		}
		d.settle(s.now(), answer, fault)
		if err := s.cfg.DB.Write(context.WithoutCancel(ctx), func(tx *store.Tx) error { return putAttempt(tx, d) }); err != nil {
			return err
		}
		down = down || d.Channel == Mail && fault != nil && serverDown(fault)
	}
	s.kick()
	return nil
}

func (s *Service) back(ctx context.Context, ds []Delivery, next time.Time) error {
	return s.cfg.DB.Write(context.WithoutCancel(ctx), func(tx *store.Tx) error { return giveBack(tx, ds, next) })
}

// serverDown says whether a fault is that of the mail server, whoever the mail is for.
func serverDown(fault error) bool {
	var said *textproto.Error
	var erased erasedError
	return !errors.As(fault, &said) && !errors.As(fault, &erased)
}

// attempt tells one contact once. The address is that which the contact has now, and its hash goes on record.
func (s *Service) attempt(ctx context.Context, d *Delivery) (answer string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := s.contact(ctx, d.tenant, d.Contact)
	switch {
	case err != nil:
		return "", err
	case c.Address == "":
		return "", erasedError{}
	}
	d.Address = c.hash
	m, err := s.message(ctx, *d)
	if err != nil {
		return "", err
	}
	if d.Channel == Mail {
		if s.cfg.Mailer == nil {
			return "", errNoServer
		}
		answer, err = s.cfg.Mailer.Send(ctx, m.letter(c.Address))
	} else {
		answer, err = s.post(ctx, m, c)
	}
	if err != nil {
		return "", said{without(err.Error(), c.Address), err}
	}
	return plain(without(answer, c.Address), 300), nil
}

// said is a fault in words that name nobody.
type said struct {
	text  string
	cause error
}

func (e said) Error() string { return e.text }
func (e said) Unwrap() error { return e.cause }

// finishAll tells of campaigns of which nothing waits any more, each once.
func (s *Service) finishAll(ctx context.Context) error {
	rows, err := s.cfg.DB.Query(ctx, done)
	over, err := store.Collect(rows, err, func(r *sql.Rows) (c Campaign, err error) { return c, r.Scan(&c.tenant, &c.ID) })
	for _, c := range over {
		if err == nil {
			err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.finish(tx, c) })
		}
	}
	return err
}

func (s *Service) finish(tx *store.Tx, c Campaign) error {
	if first, err := finish(tx, c, s.now()); err != nil || !first {
		return err
	}
	c, err := campaignByID(tx, c.tenant, c.ID)
	if err != nil {
		return err
	}
	states, err := tally(tx, c.tenant, c.ID, "state")
	if err != nil {
		return err
	}
	return s.cfg.DB.Emit(tx, TopicFinished, c.tenant, c.ID, Told{Subject: c.Subject, Kind: c.Kind, Product: c.Product, By: c.SentBy, States: states})
}
