// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// State says what became of a delivery.
type State string

// The states of a delivery.
const (
	Waiting State = "waiting"     // for its turn, or to be tried again
	Handed  State = "handed-over" // the mail server or the receiver took it and said so
	Failed  State = "failed"      // nobody took it
	Bounced State = "bounced"     // it came back, as a person or a program recorded
	Read    State = "read"        // the reader said so
)

// States lists them in their order.
var States = []State{Waiting, Handed, Read, Bounced, Failed}

// erasedAnswer stands with what waited for a contact that was erased.
const erasedAnswer = "the contact was erased"

// Delivery is one contact's part of a campaign. It names nobody.
type Delivery struct {
	ID       string    `json:"id" doc:"Message-ID of the mail, webhook-id of the webhook"`
	Contact  string    `json:"contact"`
	Role     string    `json:"role"`
	Channel  string    `json:"channel"`
	Language string    `json:"language" doc:"That it was told in"`
	Address  string    `json:"address_hash" doc:"Keyed hash of the address that was used"`
	State    State     `json:"state" enum:"waiting,handed-over,read,bounced,failed"`
	Attempts int64     `json:"attempts"`
	Next     time.Time `json:"next,omitzero" doc:"When it is tried again"`
	Ended    time.Time `json:"ended,omitzero" doc:"When it was handed over, or failed for good"`
	Answer   string    `json:"answer,omitempty" doc:"What the mail server or the receiver said last, without the address"`
	Bounced  time.Time `json:"bounced,omitzero"`
	Reason   string    `json:"reason,omitempty" doc:"Why it came back"`
	Read     time.Time `json:"read,omitzero" doc:"When the reader said so"`

	tenant, campaign string
}

// settle is what an attempt leads to.
func (d *Delivery) settle(now time.Time, answer string, fault error) {
	d.Attempts++
	if fault == nil {
		d.State, d.Ended, d.Answer = Handed, now, answer
		return
	}
	d.Answer = plain(fault.Error(), 300)
	wait, more := pause(d.Attempts, fault)
	if !more {
		d.State, d.Ended = Failed, now
		return
	}
	d.Next = now.Add(wait)
}

// plain makes one line of at most so many bytes.
func plain(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "�"))
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// without takes an address out of what a server said: the answer stays when the address is erased.
func without(said, address string) string {
	for at := 0; address != ""; {
		i := strings.Index(strings.ToLower(said[at:]), strings.ToLower(address))
		if i < 0 || at+i+len(address) > len(said) {
			break
		}
		said = said[:at+i] + "(address)" + said[at+i+len(address):]
		at += i + len("(address)")
	}
	return said
}

// Deliveries lists those of a campaign in the order of their ids.
func (s *Service) Deliveries(ctx context.Context, id string, state State, after string, limit int) (ds []Delivery, err error) {
	c, _, err := s.campaign(ctx, tenant.CaseRead, id)
	if err != nil {
		return nil, err
	}
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error { ds, err = deliveries(tx, c.tenant, id, state, after, limit); return err })
	return ds, err
}

// Bounce records that a delivery came back, by a person or a program that reads such mails.
func (s *Service) Bounce(ctx context.Context, campaign, id, reason string) (d Delivery, err error) {
	c, a, err := s.campaign(ctx, tenant.CaseWrite, campaign)
	if err != nil {
		return d, err
	}
	if reason = strings.TrimSpace(reason); reason == "" || utf8.RuneCountInString(reason) > 300 || !utf8.ValidString(reason) {
		return d, problem.Invalid("Say in at most 300 characters why it came back.").At("reason").Hint("Without the address: what stands here stays when the contact is erased.")
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if d, err = deliveryByID(tx, c.tenant, id); err != nil {
			return err
		}
		switch {
		case d.campaign != campaign:
			return problem.NotFound("There is no such delivery.")
		case d.State == Waiting:
			return problem.Conflict("It was not handed over yet.")
		case d.State == Bounced:
			return problem.Conflict("That it came back is on record since %s.", d.Bounced.Format(time.RFC3339))
		}
		d.State, d.Bounced, d.Reason = Bounced, s.now(), plain(reason, 1200)
		if err := putBounce(tx, d); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: c.tenant, Actor: a.ID, Kind: "delivery.bounced", Subject: campaign, Data: map[string]any{"delivery": id, "reason": d.Reason}})
	})
	return d, err
}

// read records that the reader of a delivery said so, once.
func (s *Service) read(ctx context.Context, t, id string) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return putRead(tx, t, id, s.now()) })
}

// Retry tries again what failed, such as after the mail server was repaired, and says how many deliveries that is.
func (s *Service) Retry(ctx context.Context, id string) (n int64, err error) {
	c, a, err := s.campaign(ctx, tenant.CaseDeclare, id)
	if err != nil {
		return 0, err
	}
	return n, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if n, err = retry(tx, c, s.now()); err != nil {
			return err
		}
		if n == 0 {
			return problem.Conflict("Nothing failed that could be tried again.")
		}
		tx.After(s.kick)
		return audit.Append(tx, audit.Entry{Tenant: c.tenant, Actor: a.ID, Kind: "campaign.retried", Subject: id, Data: map[string]any{"deliveries": n}})
	})
}

// OfCase refuses what is not a campaign of the case that was sent.
func (s *Service) OfCase(tx *store.Tx, t, of, campaign string) error {
	c, err := campaignByID(tx, t, campaign)
	switch {
	case problem.Is(err, problem.KindNotFound), err == nil && c.Case != of:
		return problem.Invalid("%.64q is not a campaign of this case.", campaign).At("campaign")
	case err == nil && c.State != Sent:
		return problem.Conflict("The campaign was not sent.").At("campaign")
	}
	return err
}
