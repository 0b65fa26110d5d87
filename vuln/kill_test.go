// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/vuln/feed"
)

// The deltas that a process takes over, one after the other, and is killed in.
const (
	killDeltas   = 6
	killRecords  = 150 // of a delta; half of them replace what an earlier one said
	killReleases = 12
	killModules  = 40
)

// killRecord is a record as the delta gives it: with other ranges, tied to others by a name, or withdrawn.
func killRecord(delta, n int) string {
	rnd := rand.New(rand.NewPCG(uint64(delta), uint64(n)))
	extra := ""
	if rnd.IntN(9) == 0 {
		extra = `,"withdrawn":"2026-10-01T00:00:00Z"`
	}
	return fmt.Sprintf(`{"id":"R-%03d","aliases":["CVE-2026-%04d"],"summary":"fault %d"%s,"affected":[{"package":{"ecosystem":"Go","name":"example.com/m%d"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"1.%d.0"}]}]}]}`,
		n, 1000+n/(1+rnd.IntN(3)), n, extra, n%killModules, rnd.IntN(20))
}

func killDelta(t testing.TB, delta int) []string {
	t.Helper()
	var records []string
	for i := range killRecords {
		records = append(records, killRecord(delta, delta*killRecords/2+i))
	}
	if delta == killDeltas/2 {
		records = append(records, `{"catalogVersion":"1","count":2,"vulnerabilities":[{"cveID":"CVE-2026-1010","dateAdded":"2026-10-10"},{"cveID":"CVE-2026-1100","dateAdded":"2026-10-10"}]}`)
	}
	return records
}

func (h *house) killBills(tenant string) {
	h.Helper()
	for r := range killReleases {
		var modules []string
		for m := range killModules {
			modules = append(modules, fmt.Sprintf("example.com/m%d@v1.%d.0", m, (r*7+m*3)%20))
		}
		h.release(tenant, fmt.Sprintf("%s_rel_%02d", tenant, r), fmt.Sprintf("prd_%d", r%3), fmt.Sprint(r), modules...)
	}
}

// TestKillChild is the process that is killed: it takes over every delta and says so.
func TestKillChild(t *testing.T) {
	url := os.Getenv("VULN_CHILD_DATABASE")
	if url == "" {
		return // not a test of its own
	}
	db, err := store.Open(t.Context(), store.Config{URL: url, Schema: houseSchema})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	h := newHouse(t, db, clock.NewHand(day0))
	fmt.Println("open")
	for delta := range killDeltas {
		z := zipped(t, killDelta(t, delta)...)
		f, err := feed.Open(bytes.NewReader(z), int64(len(z)))
		h.must(err)
		_, err = h.vuln.Import(t.Context(), "ten_a", "per_1", "test", f)
		h.must(err)
		fmt.Println("taken", delta)
	}
}

// TestKillNineInADelta kills the process at random moments while it takes deltas over. When it was left to finish, everything
// is as if the last contents had come at once, and the bills after them.
func TestKillNineInADelta(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		func() {
			db, err := store.Open(t.Context(), store.Config{URL: url, Schema: houseSchema, Clock: clock.NewHand(day0)})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			newHouse(t, db, clock.NewHand(day0)).killBills("ten_a")
		}()
		kills, unfinished := 6, 0
		for range kills {
			if !killedChild(t, url, time.Duration(rand.IntN(700))*time.Millisecond) {
				unfinished++
			}
		}
		if !killedChild(t, url, time.Hour) {
			t.Fatal("the last process did not finish")
		}
		if unfinished == 0 {
			t.Error("every process had finished before it was killed: the test proves nothing")
		}

		hand := clock.NewHand(day0)
		db, err := store.Open(t.Context(), store.Config{URL: url, Schema: houseSchema, Clock: hand})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		h := newHouse(t, db, hand)
		hand.Advance(2 * matchLater)
		h.run()
		last := map[string]string{}
		for delta := range killDeltas {
			for _, r := range killDelta(t, delta) {
				last[strings.SplitN(r, ",", 2)[0]] = r
			}
		}
		var all []string
		for _, r := range last {
			all = append(all, r)
		}
		h.mustFeed("ten_b", all...)
		h.killBills("ten_b")
		killed, signalled := signals(h.dump("ten_a"))
		whole, owed := signals(h.dump("ten_b"))
		if killed != whole {
			t.Errorf("after %d kills it is\n%s\nand at once\n%s", kills, killed, whole)
		}
		for _, s := range owed { // there may be more: what was exploited on the way was told then
			if !slices.Contains(signalled, s) {
				t.Errorf("nobody was told: %s", s)
			}
		}
		if len(owed) == 0 || !strings.Contains(whole, "finding") {
			t.Error("nothing was found: the test proves nothing")
		}
	})
}

// signals takes the signals out of a dump.
func signals(dump string) (rest string, told []string) {
	for line := range strings.Lines(dump) {
		if strings.HasPrefix(strings.TrimLeft(line, " ["), "signal") {
			told = append(told, line)
			continue
		}
		rest += line
	}
	return rest, told
}

// killedChild starts the process and kills it some time after it has opened the database; it reports whether it had finished.
func killedChild(t *testing.T, url string, after time.Duration) bool {
	t.Helper()
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestKillChild$") // Cancel sends SIGKILL
	cmd.Env = append(os.Environ(), "VULN_CHILD_DATABASE="+url)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said, complained bytes.Buffer // two goroutines write
	cmd.Stderr = &complained
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(io.TeeReader(out, &said))
	for lines.Scan() && lines.Text() != "open" {
	}
	timer := time.AfterFunc(after, kill)
	defer timer.Stop()
	finished := false
	for lines.Scan() {
		finished = finished || lines.Text() == fmt.Sprint("taken ", killDeltas-1)
	}
	if err := cmd.Wait(); err != nil && ctx.Err() == nil {
		t.Fatalf("the process failed by itself: %v\n%s%s", err, said.String(), complained.String())
	}
	return finished
}
