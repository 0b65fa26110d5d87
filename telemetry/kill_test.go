// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

const (
	killDevices = 8
	killRounds  = 3
	killMost    = 3000 // messages of one device in one round
)

// TestMain lets the test binary be its own child: a process that appends until it is killed.
func TestMain(m *testing.M) {
	if url := os.Getenv("TELEMETRY_CHILD_URL"); url != "" {
		if err := child(url, os.Getenv("TELEMETRY_CHILD_KEYS"), os.Getenv("TELEMETRY_CHILD_FIRST")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child appends from several devices at once while it compacts, and prints "device sequence" after each receipt.
func child(url, keyDir, first string) error {
	ctx := context.Background()
	from, err := strconv.Atoi(first)
	if err != nil {
		return err
	}
	db, err := store.Open(ctx, store.Config{URL: url, Schema: schema})
	if err != nil {
		return err
	}
	keys, err := seal.Open(keyDir, clock.System)
	if err != nil {
		return err
	}
	s := New(Config{DB: db, Platform: db, Keys: keys, Linger: 5 * time.Millisecond})
	go s.Work(ctx)
	var wg sync.WaitGroup
	for d := range killDevices {
		wg.Go(func() {
			for seq := from; seq < from+killMost; seq++ {
				m := message(fmt.Sprintf("dev_%d", d), t0.Add(time.Duration(seq)*time.Millisecond), seq, float64(seq))
				if err := s.Append(ctx, []gateway.Record{m}); err != nil {
					return
				}
				os.Stdout.WriteString(fmt.Sprintf("%d %d\n", d, seq)) // one write: never torn
			}
		})
	}
	wg.Wait()
	return nil
}

// Promise 1: what was acknowledged is on disk. The process is killed at random moments while it acknowledges and
// compacts; afterwards every acknowledged value is there, once.
func TestKillNineLosesNothingAcknowledged(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		keyDir := filepath.Join(t.TempDir(), "keys")
		acked := map[[2]int]bool{}
		for round := range killRounds {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "TELEMETRY_CHILD_URL="+url, "TELEMETRY_CHILD_KEYS="+keyDir,
				"TELEMETRY_CHILD_FIRST="+strconv.Itoa(1+round*killMost))
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			n, last := 0, 200+rand.IntN(600)
			for lines := bufio.NewScanner(out); lines.Scan(); n++ {
				var k [2]int
				if _, err := fmt.Sscan(lines.Text(), &k[0], &k[1]); err != nil {
					t.Fatal(err)
				}
				acked[k] = true
				if n == last {
					if err := cmd.Process.Kill(); err != nil {
						t.Fatal(err)
					}
				}
			}
			cmd.Wait()
			if n < last {
				t.Fatalf("the child ended by itself after %d receipts", n)
			}
		}
		db := storetest.Open(t, url, schema)
		keys, err := seal.Open(keyDir, clock.System)
		if err != nil {
			t.Fatal(err)
		}
		s := New(Config{DB: db, Platform: db, Keys: keys})
		for _, when := range []string{"before", "after"} {
			found := map[[2]int]int{}
			for d := range killDevices {
				series, err := s.Series(t.Context(), "ten", fmt.Sprintf("dev_%d", d), Query{From: t0, To: t0.Add(MaxPoints * time.Millisecond), Max: MaxPoints})
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range series {
					for _, b := range f.Points {
						found[[2]int{d, int(b.Last)}] += b.Count
					}
				}
			}
			lost := 0
			for k := range acked {
				if found[k] != 1 {
					lost++
				}
			}
			if lost > 0 {
				t.Fatalf("%s compaction %d of %d acknowledged values are missing or double", when, lost, len(acked))
			}
			t.Logf("%s compaction: %d acknowledged, %d found", when, len(acked), len(found))
			for more := true; more; {
				if more, err = s.step(t.Context()); err != nil {
					t.Fatal(err)
				}
				// The lease of the killed process runs out on PostgreSQL; here it is enough to compact without it.
				if inbox, err := hasInbox(t.Context(), db, ""); err != nil {
					t.Fatal(err)
				} else if inbox && !more {
					if err := s.compact(t.Context()); err != nil {
						t.Fatal(err)
					}
					more = true
				}
			}
		}
	})
}
