// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"cmp"
	"fmt"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// Quota is how much may be sent: each second on average, and after a silence the amount of Burst seconds at once. What is
// beyond it is refused before it costs memory or disk, so that whoever sends without end takes nobody else's receipts.
type Quota struct {
	Messages int           // each second
	Bytes    int           // of payload, each second
	Burst    time.Duration // how long a silence counts
}

func (q Quota) withDefaults(d Quota) Quota {
	return Quota{Messages: cmp.Or(q.Messages, d.Messages), Bytes: cmp.Or(q.Bytes, d.Bytes), Burst: cmp.Or(q.Burst, d.Burst)}
}

// Rules that a refusal for a quota names.
const (
	RuleDeviceQuota = "quota.device"
	RuleTenantQuota = "quota.tenant"
)

// quotas remembers what each device and each tenant sent lately. Who was silent for a while is forgotten.
type quotas struct {
	device, tenant Quota
	clock          clock.Clock

	mu      sync.Mutex // guards the fields below
	buckets map[bucketKey]*bucket
	sweep   int // number of buckets at which the full ones are forgotten
}

type bucketKey struct{ rule, id string }

// bucket is what may be sent at once, as of a moment. It may fall below zero by one request, however large that was; the
// next one waits until it is above.
type bucket struct {
	messages, bytes float64
	at              time.Time
}

const leastSweep = 1024

func newQuotas(l Limits, clk clock.Clock) *quotas {
	return &quotas{device: l.Device, tenant: l.Tenant, clock: clk, buckets: map[bucketKey]*bucket{}, sweep: leastSweep}
}

// refill brings the bucket to the present and says whether it is full.
func (b *bucket) refill(q Quota, now time.Time) bool {
	most, gone := q.Burst.Seconds(), max(0, now.Sub(b.at).Seconds())
	b.at = now
	b.messages = min(b.messages+gone*float64(q.Messages), most*float64(q.Messages))
	b.bytes = min(b.bytes+gone*float64(q.Bytes), most*float64(q.Bytes))
	return b.messages >= most*float64(q.Messages) && b.bytes >= most*float64(q.Bytes)
}

// over is a quota that is used up.
type over struct {
	rule string
	wait time.Duration // until there is room again
}

// spend takes what a device is about to send from its quota and its tenant's, or says which one is used up and takes nothing.
func (q *quotas) spend(p Peer, messages, bytes int) *over {
	now := q.clock.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	var of [2]*bucket
	for i, b := range []struct {
		rule, id string
		q        Quota
	}{{RuleDeviceQuota, p.Device, q.device}, {RuleTenantQuota, p.Tenant, q.tenant}} {
		key := bucketKey{b.rule, b.id}
		of[i] = q.buckets[key]
		if of[i] == nil {
			of[i] = &bucket{at: now.Add(-b.q.Burst)}
			q.buckets[key] = of[i]
		}
		of[i].refill(b.q, now)
		wait := max(-of[i].messages/float64(b.q.Messages), -of[i].bytes/float64(b.q.Bytes))
		if of[i].messages <= 0 || of[i].bytes <= 0 {
			return &over{b.rule, time.Duration(wait*float64(time.Second)) + time.Millisecond}
		}
	}
	for _, b := range of {
		b.messages -= float64(messages)
		b.bytes -= float64(bytes)
	}
	q.forget(now)
	return nil
}

// charge takes more for what was let in before all of it was known.
func (q *quotas) charge(p Peer, messages, bytes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, key := range []bucketKey{{RuleDeviceQuota, p.Device}, {RuleTenantQuota, p.Tenant}} {
		if b := q.buckets[key]; b != nil {
			b.messages -= float64(messages)
			b.bytes -= float64(bytes)
		}
	}
}

// forget drops the buckets that are full again, each time that their number has doubled.
func (q *quotas) forget(now time.Time) {
	if len(q.buckets) < q.sweep {
		return
	}
	for key, b := range q.buckets {
		of := q.device
		if key.rule == RuleTenantQuota {
			of = q.tenant
		}
		if b.refill(of, now) {
			delete(q.buckets, key)
		}
	}
	q.sweep = max(leastSweep, 2*len(q.buckets))
}

func (o *over) text() string {
	who := "this device"
	if o.rule == RuleTenantQuota {
		who = "the devices of this tenant together"
	}
	return fmt.Sprintf("%s sent more than allowed (rule %s)", who, o.rule)
}

func (o *over) problem() *problem.Error {
	e := problem.Limited("Refused: %s.", o.text()).Hint("Send again in %s.", o.wait.Round(time.Millisecond))
	e.Rule = o.rule
	return e
}

// afford takes a publish from the quotas. A refusal can be told in MQTT 5; a 3.1.1 device waits, unread, until there is room.
func (s *session) afford(p *mqtt.Publish) *mqtt.Error {
	for {
		o := s.g.quotas.spend(s.peer, 1, len(p.Payload))
		if o == nil {
			return nil
		}
		if s.version == mqtt.V5 || p.QoS == 0 {
			s.g.refused(s.peer, o.rule, p.Topic)
			return &mqtt.Error{Reason: mqtt.QuotaExceeded, Text: o.text()}
		}
		s.mu.Lock()
		closing := s.closing
		s.mu.Unlock()
		if closing { // take says so
			return nil
		}
		<-s.g.cfg.Clock.NewTimer(min(o.wait, time.Second)).C
	}
}
