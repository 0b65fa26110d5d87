// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// receipt is what somebody waits for until a batch is durable: an MQTT session for its PUBACK, or a channel.
type receipt struct {
	session *session
	id      uint16
	refusal *mqtt.Error // decided before: it waits in line only to keep the order of PUBACKs
	done    chan<- error
}

// collector joins the messages of all connections into group commits. A batch is open while the one before it is being
// appended: at low load a message waits for one commit, at high load a commit carries many.
type collector struct {
	commit  func(context.Context, []Record) error
	fence   func(context.Context) error // Sessions.Overtaken, or nil
	limits  Limits
	log     *slog.Logger
	clock   clock.Clock
	dropped atomic.Int64 // QoS 0 messages that found no room

	mu       sync.Mutex // guards the open batch below
	room     sync.Cond  // the open batch was taken
	records  []Record
	bytes    int
	lossy    int // records among them that nobody waits for
	receipts []receipt
	running  bool

	failed int       // records not made durable and not yet told of; used by run only, as is told
	told   time.Time // when the log was told last
}

func newCollector(cfg Config) *collector {
	c := &collector{commit: cfg.Append, limits: cfg.Limits, log: cfg.Log, clock: cfg.Clock}
	c.room.L = &c.mu
	if cfg.Sessions != nil {
		c.fence = cfg.Sessions.Overtaken
	}
	return c
}

// add puts records and the receipt for them into the open batch. While the batch is full it blocks: that is the
// back-pressure that a socket feels.
func (c *collector) add(r receipt, records ...Record) {
	size := 0
	for _, rec := range records {
		size += len(rec.Body)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.receipts) >= 2*c.limits.Batch ||
		len(c.records) > 0 && (len(c.records)+len(records) > c.limits.Batch || c.bytes+size > c.limits.BatchBytes) {
		c.room.Wait()
	}
	c.records = append(c.records, records...)
	c.bytes += size
	c.receipts = append(c.receipts, r)
	c.start()
}

// offer puts a record without receipt into the open batch, or drops and counts it.
func (c *collector) offer(rec Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lossy >= c.limits.QoS0 || len(c.records) >= c.limits.Batch || c.bytes+len(rec.Body) > c.limits.BatchBytes/2 {
		c.dropped.Add(1)
		return
	}
	c.records = append(c.records, rec)
	c.bytes += len(rec.Body)
	c.lossy++
	c.start()
}

// wait returns when everything that was added before is settled.
func (c *collector) wait(ctx context.Context) error {
	done := make(chan error, 1)
	go c.add(receipt{done: done}) // it blocks while the open batch is full
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *collector) start() {
	if !c.running {
		c.running = true
		go c.run()
	}
}

func (c *collector) run() {
	var spare []receipt
	var dirty []*session
	for {
		c.mu.Lock()
		records, receipts := c.records, c.receipts
		if len(records) == 0 && len(receipts) == 0 {
			c.running = false
			c.mu.Unlock()
			return
		}
		c.records = make([]Record, 0, len(records))
		c.receipts, c.bytes, c.lossy = spare[:0], 0, 0
		c.room.Broadcast()
		c.mu.Unlock()

		now := c.clock.Now().UnixMilli()
		records = slices.DeleteFunc(records, func(r Record) bool { return r.Expires > 0 && r.Expires <= now }) // [MQTT-3.3.2-5]
		err := c.fenced(records)
		if err != nil {
			c.complain(len(records), err)
		}
		dirty = settle(receipts, err, dirty[:0])
		clear(receipts)
		clear(dirty)
		spare = receipts
	}
}

// complain logs that a batch failed: the first one, then every tenth second how many more. Only run calls it.
func (c *collector) complain(records int, err error) {
	c.failed += records
	if now := c.clock.Now(); now.Sub(c.told) >= 10*time.Second {
		c.log.Error("messages were not made durable and are not acknowledged", "records", c.failed, "err", err)
		c.failed, c.told = 0, now
	}
}

// fenced appends records, and meanwhile has sessions end that another node took over: what such a connection published
// afterwards gets no receipt from it. Both take a round trip to the same database, so nobody waits longer.
func (c *collector) fenced(records []Record) error {
	if c.fence == nil || len(records) == 0 {
		return c.appendAll(records)
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.limits.Opening)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.fence(ctx) }()
	err := c.appendAll(records)
	return errors.Join(err, <-ended)
}

// appendAll calls Append. A panic in it is a failure of this batch, not the end of all devices.
func (c *collector) appendAll(records []Record) (err error) {
	if len(records) == 0 {
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("append panicked: %v\n%s", p, debug.Stack())
		}
	}()
	return c.commit(context.Background(), records)
}

// settle hands out the receipts of a batch that was appended with err, then lets each session write once.
func settle(receipts []receipt, err error, dirty []*session) []*session {
	failed := mqtt.UnspecifiedError
	said := mqtt.Properties{{ID: mqtt.ReasonString, Str: "the message could not be kept; send it again later"}}
	if problem.Is(err, problem.KindLimited) {
		p := problem.Of(err)
		failed, said = mqtt.QuotaExceeded, mqtt.Properties{{ID: mqtt.ReasonString, Str: fmt.Sprintf("%s (rule %s)", p.Text, p.Rule)}}
	}
	var ack mqtt.Ack
	for _, r := range receipts {
		if r.session == nil {
			r.done <- err
			continue
		}
		ack = mqtt.Ack{Kind: mqtt.PUBACK, ID: r.id}
		switch {
		case r.refusal != nil:
			ack.Reason, ack.Properties = r.refusal.Reason, mqtt.Properties{{ID: mqtt.ReasonString, Str: r.refusal.Text}}
		case err != nil:
			ack.Reason, ack.Properties = failed, said
		}
		if r.session.acknowledge(&ack) {
			dirty = append(dirty, r.session)
		}
	}
	for _, s := range dirty {
		s.kick()
	}
	return dirty
}
