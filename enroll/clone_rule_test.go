// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// honest lives one device's life of requests, uses and moves for some days and reports what the rules think of it. It
// may lose answers, lose keys before they are stored, lose power, move between networks and renew whenever it likes;
// what it cannot do is have a key that it has left.
func honest(t *testing.T, r *rand.Rand) {
	now := time.Unix(1_800_000_000, 0)
	asked := map[string]time.Time{}
	key, keys := "", 0
	var inUse, firstUse time.Time // of the newest LDevID that was used
	var moves []swap
	where, alive := 0, false
	ask := func() {
		if returned(asked, key, now) {
			t.Fatalf("an honest device is flagged for asking for %s at %s: %v", key, now, asked)
		}
		if _, known := asked[key]; !known {
			asked[key] = now
		}
	}
	for range 200 {
		now = now.Add(time.Duration(r.Int64N(int64(6 * time.Hour))))
		switch r.IntN(6) {
		case 0: // makes a key: the first, for a renewal, or because it lost the one before
			keys++
			key = fmt.Sprintf("key %d", keys)
			ask()
		case 1, 2: // did not hear the answer, any number of times
			if key != "" {
				for range 1 + r.IntN(100) {
					ask()
					now = now.Add(time.Duration(r.Int64N(int64(time.Minute))))
				}
			}
		case 3: // uses the new LDevID; connections with the old one that were on their way arrive a little later
			if key != "" {
				firstUse, inUse = now, now
				late := inUse.Add(time.Duration(r.Int64N(int64(spentGrace))))
				if spentInUse(firstUse, late) {
					t.Fatal("a connection that was on its way is flagged")
				}
			}
		case 4: // moves to another network without saying goodbye, now and then quickly
			for range 1 + r.IntN(swapsNeeded-1) {
				to := r.IntN(3)
				if alive && to != where {
					moves = append(moves, swap{now, fmt.Sprint(where), fmt.Sprint(to)})
				}
				where, alive = to, true
				if pingPong(moves) {
					t.Fatalf("a device that moves is flagged: %v", moves)
				}
				now = now.Add(time.Duration(r.Int64N(int64(2 * time.Minute))))
			}
			now = now.Add(swapWindow)
		case 5: // ends its session in order
			alive = false
		}
	}
}

func TestHonestHistoriesAreNeverFlagged(t *testing.T) {
	for seed := range uint64(2000) {
		honest(t, rand.New(rand.NewPCG(seed, 1)))
	}
}

func TestCloneRules(t *testing.T) {
	t0 := time.Unix(1_800_000_000, 0)
	at := func(m int) time.Time { return t0.Add(time.Duration(m) * time.Minute) }
	asked := map[string]time.Time{"a": at(0), "b": at(1)}
	for _, c := range []struct {
		key  string
		when time.Time
		want bool
	}{{"a", at(2), true}, {"b", at(2), false}, {"c", at(2), false}, {"a", at(1 + 24*60), false}} {
		if got := returned(asked, c.key, c.when); got != c.want {
			t.Errorf("asks for %s at %s: %v", c.key, c.when, got)
		}
	}
	if spentInUse(time.Time{}, at(60)) || spentInUse(at(0), at(4)) || !spentInUse(at(0), at(5)) {
		t.Error("the use of a replaced certificate")
	}
	swaps := func(gap int, places ...string) (out []swap) {
		for i := 1; i < len(places); i++ {
			out = append(out, swap{at(i * gap), places[i-1], places[i]})
		}
		return out
	}
	for _, c := range []struct {
		name  string
		swaps []swap
		want  bool
	}{
		{"back and forth", swaps(1, "a", "b", "a", "b", "a", "b", "a"), true},
		{"after other moves", swaps(1, "c", "d", "a", "b", "a", "b", "a", "b", "a"), true},
		{"slowly", swaps(5, "a", "b", "a", "b", "a", "b", "a"), false},
		{"five times", swaps(1, "a", "b", "a", "b", "a", "b"), false},
		{"three networks", swaps(1, "a", "b", "c", "a", "b", "c", "a"), false},
	} {
		if got := pingPong(c.swaps); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestPlace(t *testing.T) {
	for from, want := range map[string]string{
		"192.0.2.77:1234": "192.0.2.0/24", "[2001:db8:1:2::3]:443": "2001:db8:1::/48", "[::ffff:192.0.2.77]:1": "192.0.2.0/24",
		"127.0.0.2:9": "127.0.0.2", "[fe80::1%eth0]:9": "fe80::/48", "": "unknown", "nonsense": "unknown",
	} {
		if got := place(from); got != want {
			t.Errorf("%s lies in %s, want %s", from, got, want)
		}
	}
}
