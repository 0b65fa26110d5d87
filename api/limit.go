// SPDX-License-Identifier: AGPL-3.0-only

package api

import (
	"errors"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
)

// Limits are the rates of one caller and of one address. Zero means the default.
type Limits struct {
	PerSecond float64 // requests a second in the long run; default 200
	Burst     float64 // requests at once; default 2000
}

// failureCost is what a failed authentication takes from its address's bucket for guesses: at the default rate four a second.
const failureCost = 50

// maxBuckets bounds the memory of a Limiter, about 100 bytes each; beyond it full buckets are forgotten, and then any.
const maxBuckets = 100_000

// Limiter is a set of token buckets by key.
type Limiter struct {
	clk    clock.Clock
	limits Limits

	mu      sync.Mutex // guards buckets
	buckets map[string]*bucket
}

type bucket struct {
	left float64
	at   time.Time
}

// NewLimiter makes a limiter.
func NewLimiter(clk clock.Clock, l Limits) *Limiter {
	if l.PerSecond == 0 {
		l.PerSecond = 200
	}
	if l.Burst == 0 {
		l.Burst = 2000
	}
	return &Limiter{clk: clk, limits: l, buckets: map[string]*bucket{}}
}

// limited is the cause of a problem of kind rate-limited.
type limited struct{ wait time.Duration }

func (l limited) Error() string { return "retry after " + l.wait.String() }

// Take takes cost from the bucket of key, or refuses with a problem that RetryAfter reads.
func (l *Limiter) Take(key string, cost float64) error {
	now := l.clk.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.buckets[key]
	if b == nil {
		if len(l.buckets) >= maxBuckets {
			l.forget(now)
		}
		b = &bucket{left: l.limits.Burst, at: now}
		l.buckets[key] = b
	}
	b.left = math.Min(l.limits.Burst, b.left+now.Sub(b.at).Seconds()*l.limits.PerSecond)
	b.at = now
	if b.left < cost {
		wait := time.Duration((cost - b.left) / l.limits.PerSecond * float64(time.Second))
		b.left = math.Max(0, b.left) // a refusal takes nothing
		return problem.Limited("Too many requests.").Hint("Wait as long as Retry-After says.").Because(limited{wait})
	}
	b.left -= cost
	return nil
}

func (l *Limiter) forget(now time.Time) {
	for k, b := range l.buckets {
		if b.left+now.Sub(b.at).Seconds()*l.limits.PerSecond >= l.limits.Burst {
			delete(l.buckets, k)
		}
	}
	for k := range l.buckets {
		if len(l.buckets) < maxBuckets {
			return
		}
		delete(l.buckets, k)
	}
}

// RetryAfter is the header value, in whole seconds, for a refusal by Take.
func RetryAfter(err error) (string, bool) {
	var l limited
	if !errors.As(err, &l) {
		return "", false
	}
	return strconv.Itoa(int(math.Ceil(math.Max(1, l.wait.Seconds())))), true
}

// Address is the network that the request came from: an IPv4 address, or the /64 of an IPv6 address, which one host owns whole.
func Address(r *http.Request) string {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return "unknown"
	}
	ip := ap.Addr().Unmap()
	if ip.Is6() {
		if p, err := ip.WithZone("").Prefix(64); err == nil {
			return p.String()
		}
	}
	return ip.String()
}
