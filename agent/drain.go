// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/wire"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// never lists the refusals that a repeat does not change: what they hit must not hold up all the rest.
var never = []mqtt.Reason{mqtt.PacketTooLarge, mqtt.TopicNameInvalid, mqtt.NotAuthorized, mqtt.PayloadFormatInvalid}

// inFlight is how many messages of the buffer are sent and not acknowledged at most. The server's Receive Maximum may
// lower it, which the Client sees to.
const inFlight = 16

// outcome is what became of a message.
type outcome struct {
	p   parcel
	err error
}

// drain sends the buffer until the session ends. When the platform has no room for a message (0x97, or it cannot make
// durable), the device waits, longer each time, and then tries with one message alone.
func (a *agent) drain(ctx context.Context, c *mqtt.Client) {
	defer a.buffer.release()
	results := make(chan outcome, inFlight) // as many as there can be: nobody waits to put one
	open, refusals := 0, 0
	var hold time.Time // by the device's clock: nothing is sent before
	rate := pace{perSecond: a.buffer.limits.Pace, at: a.Clock.Now(), saved: a.buffer.limits.Pace}
	for ctx.Err() == nil {
		now := a.Clock.Now()
		rate.pass(now)
		most := inFlight
		if refusals > 0 {
			most = 1
		}
		wait := time.Duration(-1)
		if open < most && !now.Before(hold) {
			p, ok, err := a.buffer.take(a.certain(), rate.saved >= 1)
			if err != nil {
				a.Log.Error("the buffer", "error", err)
			}
			if ok {
				if p.class == backlogClass {
					rate.saved--
				}
				open++
				if err := c.Go(ctx, wire.Root+p.topic, p.body, func(err error) { results <- outcome{p, err} }); err != nil {
					return // the session is over
				}
				select {
				case r := <-results:
					open--
					refusals, hold = a.settle(r, refusals, hold)
				default:
				}
				continue
			}
			if rate.saved < 1 && a.buffer.waits() {
				wait = rate.next()
			}
		} else if open < most {
			wait = hold.Sub(now)
		}
		var due <-chan time.Time
		stop := func() bool { return true }
		if wait >= 0 {
			t := a.Clock.NewTimer(wait)
			due, stop = t.C, t.Stop
		}
		select {
		case r := <-results:
			open--
			refusals, hold = a.settle(r, refusals, hold)
		case <-a.kick:
		case <-due:
		case <-ctx.Done():
		}
		stop()
	}
}

// settle takes the platform's answer to a message, and returns how many refusals there were in a row and until when to
// hold back.
func (a *agent) settle(r outcome, refusals int, hold time.Time) (int, time.Time) {
	var refused *mqtt.Error
	var err error
	switch {
	case r.err == nil:
		refusals, err = 0, a.buffer.done(r.p)
	case errors.As(r.err, &refused) && slices.Contains(never, refused.Reason):
		a.Log.Error("the platform can never take this message", "topic", r.p.topic, "error", r.err)
		err = a.buffer.refused(r.p)
	default: // not durable over there: it stays here
		a.buffer.back(r.p)
		if now := a.Clock.Now(); !now.Before(hold) { // those that were in flight with it say the same
			hold = now.Add(a.pause(refusals, r.err))
			refusals++
		}
	}
	if err != nil {
		a.Log.Error("the buffer", "error", err) // at worst it is sent once more, which its number makes harmless
	}
	return refusals, hold
}

// certain is the time in ms, or 0 when the platform has not confirmed it.
func (a *agent) certain() int64 {
	if t, sure := a.time.now(); sure {
		return t.UnixMilli()
	}
	return 0
}

// pace lets perSecond pass in a second, and as many at once after a rest.
type pace struct {
	perSecond float64
	at        time.Time
	saved     float64
}

func (p *pace) pass(now time.Time) {
	if d := now.Sub(p.at); d > 0 {
		p.saved = min(p.saved+d.Seconds()*p.perSecond, max(p.perSecond, 1))
	}
	p.at = now
}

// next is when there is one more.
func (p *pace) next() time.Duration {
	return time.Duration((1-p.saved)/p.perSecond*float64(time.Second)) + time.Millisecond
}

// nudge wakes who waits on c.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
