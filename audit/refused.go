// SPDX-License-Identifier: AGPL-3.0-only

package audit

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/store"
)

// Refusal is something that policy refused to somebody who was authenticated.
type Refusal struct {
	Tenant  string
	Actor   string // who was refused
	Subject string // the id that it is about, often the actor itself
	Rule    string // "topic.own"
	Detail  string // what was tried; cut to maxDetail bytes
}

const (
	refusalKind = "access.refused"
	// maxRefusals bounds the subjects and rules that are counted at a time, about 200 bytes each. Beyond it they are
	// counted for their tenant as a whole, and beyond twice that they are lost.
	maxRefusals = 20_000
	refusalHour = time.Hour
	maxDetail   = 200
)

// Refusals turns refusals into leaves without letting anybody fill the log: the first of a subject and rule is a leaf
// at once, those of the following hour together are one more, and so on until an hour passes without any. Its counts
// live in memory: a restart begins anew. Methods are safe for concurrent use.
type Refusals struct {
	db    *store.DB
	clock clock.Clock
	log   *slog.Logger
	max   int           // maxRefusals, less in tests
	wake  chan struct{} // capacity 1: something is to be written

	mu      sync.Mutex // guards the fields below
	open    map[refusalKey]*refusalCount
	pending []Entry
}

type refusalKey struct{ tenant, actor, subject, rule string }

type refusalCount struct {
	since time.Time // when the present hour began
	n     int       // refusals in it
}

// NewRefusals makes a counter over the platform handle. Run writes what it counted.
func NewRefusals(db *store.DB, clk clock.Clock, log *slog.Logger) *Refusals {
	return &Refusals{db: db, clock: clk, log: log, max: maxRefusals, wake: make(chan struct{}, 1), open: map[refusalKey]*refusalCount{}}
}

// Note counts one refusal. It does not block and writes nothing itself.
func (r *Refusals) Note(f Refusal) {
	now := r.clock.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	k := refusalKey{f.Tenant, f.Actor, f.Subject, f.Rule}
	c := r.open[k]
	if c == nil && len(r.open) >= r.max {
		k = refusalKey{tenant: f.Tenant, actor: "system", subject: f.Tenant, rule: f.Rule}
		c = r.open[k]
	}
	switch {
	case c != nil:
		c.n++
		return
	case len(r.open) >= 2*r.max:
		return
	}
	r.open[k] = &refusalCount{since: now}
	r.pending = append(r.pending, k.entry(map[string]any{"rule": k.rule, "detail": printable(f.Detail)}))
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (k refusalKey) entry(data any) Entry {
	return Entry{Tenant: k.tenant, Actor: k.actor, Kind: refusalKind, Subject: k.subject, Data: data}
}

// printable cuts what a stranger chose to what fits into a leaf.
func printable(s string) string {
	if len(s) > maxDetail {
		s = s[:maxDetail]
	}
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return '\uFFFD'
		}
		return c
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// Run writes leaves until ctx ends, and then what is counted by then.
func (r *Refusals) Run(ctx context.Context) error {
	for {
		t := r.clock.NewTimer(time.Minute)
		select {
		case <-ctx.Done():
			t.Stop()
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			r.total(true)
			r.write(last)
			return nil
		case <-r.wake:
		case <-t.C:
		}
		t.Stop()
		r.total(false)
		r.write(ctx)
	}
}

// total makes a leaf of each hour that is over, or of each count at all.
func (r *Refusals) total(all bool) {
	now := r.clock.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, c := range r.open {
		if !all && now.Sub(c.since) < refusalHour {
			continue
		}
		if c.n == 0 {
			delete(r.open, k)
			continue
		}
		r.pending = append(r.pending, k.entry(map[string]any{"rule": k.rule, "more": c.n, "since": c.since.UTC(), "until": now.UTC()}))
		*c = refusalCount{since: now}
	}
}

// write appends what is pending, a bounded number at a time. What fails is tried again with the next.
func (r *Refusals) write(ctx context.Context) {
	for {
		r.mu.Lock()
		es := r.pending[:min(len(r.pending), batch)]
		r.mu.Unlock()
		if len(es) == 0 {
			return
		}
		err := r.db.Write(ctx, func(tx *store.Tx) error {
			for _, e := range es {
				if err := Append(tx, e); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			r.log.WarnContext(ctx, "refusals are not in the log yet", slog.Int("leaves", len(es)), slog.Any("error", err))
			return
		}
		r.mu.Lock()
		r.pending = r.pending[len(es):]
		r.mu.Unlock()
	}
}
