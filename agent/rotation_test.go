// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestRenewalSpreads: whatever the device and the life, the renewal falls between 0.56 and 0.77 of it, at a place that
// only the device's id decides; and a fleet that was enrolled in one second is spread evenly over that window.
func TestRenewalSpreads(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		from := time.Unix(r.Int64N(4e9), 0)
		life := time.Duration(1 + r.Int64N(int64(10*365*24*time.Hour)))
		device := fmt.Sprintf("dev_%x", r.Uint64())
		at := renewAt(from, from.Add(life), device)
		if share := float64(at.Sub(from)) / float64(life); share < 2./3-0.1-1e-6 && life > time.Microsecond || share > 2./3+0.1+1e-6 {
			t.Fatalf("%s renews at %.3f of %s", device, share, life)
		}
		if again := renewAt(from, from.Add(life), device); again != at {
			t.Fatalf("%s draws again: %s, then %s", device, at, again)
		}
	}
	const fleet, windows = 100_000, 20
	from, life := time.Unix(1.8e9, 0), 60*24*time.Hour
	var in [windows]int
	for i := range fleet {
		share := float64(renewAt(from, from.Add(life), fmt.Sprintf("dev_%06d", i)).Sub(from)) / float64(life)
		in[min(windows-1, int((share-2./3+0.1)/0.2*windows))]++
	}
	for w, n := range in {
		if n < fleet/windows*9/10 || n > fleet/windows*11/10 {
			t.Errorf("%d of %d devices renew in window %d of %d", n, fleet, w, windows)
		}
	}
}

// TestPauses: a platform that is out of reach is tried again within about a minute, one that said no within about an
// hour, and what it asked for is always kept.
func TestPauses(t *testing.T) {
	a := &agent{Config: Config{Retry: time.Second}}
	no := &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}
	for _, row := range []struct {
		name        string
		err         error
		n           int
		least, most time.Duration
	}{
		{"first", errors.New("connection refused"), 0, time.Second / 2, time.Second},
		{"third", errors.New("connection refused"), 2, 2 * time.Second, 4 * time.Second},
		{"for long", errors.New("connection refused"), 1000, 32 * time.Second, 64 * time.Second},
		{"unclaimed", &statusError{status: http.StatusAccepted, after: 5 * time.Second}, 1000, 37 * time.Second, 69 * time.Second},
		{"too much to do", &statusError{status: http.StatusServiceUnavailable, after: time.Hour}, 0, time.Hour + time.Second/2, time.Hour + time.Second},
		{"refused by policy", &statusError{status: http.StatusForbidden, rule: "enroll.grade"}, 1000, 2048 * time.Second, 4096 * time.Second},
		{"shut out", no, 1000, 2048 * time.Second, 4096 * time.Second},
		{"server at fault", &net.OpError{Op: "remote error", Err: errors.New("tls: internal error")}, 1000, 32 * time.Second, 64 * time.Second},
	} {
		for range 100 {
			if d := a.pause(row.n, fmt.Errorf("wrapped: %w", row.err)); d < row.least || d > row.most {
				t.Errorf("%s: %s, want %s to %s", row.name, d, row.least, row.most)
				break
			}
		}
	}
	for n, left := range map[int]time.Duration{0: 20 * 24 * time.Hour, 50: 20 * 24 * time.Hour, 51: time.Hour, 52: -time.Hour} {
		d := a.renewalPause(n, errors.New("x"), left)
		if d > 4096*time.Second || left > 0 && d > left/8 || d < time.Second {
			t.Errorf("renewal %d with %s left waits %s", n, left, d)
		}
	}
	if a.renewalPause(9, &statusError{status: 503, after: 3 * time.Hour}, time.Hour) < 3*time.Hour {
		t.Error("Retry-After was not kept for a renewal")
	}
}

// TestRefusalOf: the header and the rule are read, and no answer keeps a device away for more than a day.
func TestRefusalOf(t *testing.T) {
	for _, row := range []struct {
		after string
		want  time.Duration
	}{{"7", 7 * time.Second}, {"", 0}, {"-1", 0}, {"soon", 0}, {"9999999999", 24 * time.Hour}, {"9223372036854775807", 24 * time.Hour}} {
		for _, body := range []string{`{"rule":"enroll.grade"}`, "A key of grade A is demanded.\nrule: enroll.grade\n"} {
			e := refusalOf(&http.Response{StatusCode: 503, Header: http.Header{"Retry-After": {row.after}}}, []byte(body))
			if e.after != row.want || e.rule != "enroll.grade" {
				t.Errorf("Retry-After %q: %s, rule %q", row.after, e.after, e.rule)
			}
		}
	}
}
