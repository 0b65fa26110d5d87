// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/vuln/feed"
)

// The deltas that a process takes over, one after the other, and is killed in.
const (
	killDeltas   = 4
	killRecords  = 120 // of a delta, in three transactions; half of them replace what an earlier one said
	killReleases = 12
	killTimes    = 30 // at most
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

// TestKillChild is the process that is killed: it takes over the deltas from one on and says so. It dies before one of its
// transactions: what it would have done in half of it would be gone anyway.
func TestKillChild(t *testing.T) {
	url := os.Getenv("VULN_CHILD_DATABASE")
	if url == "" {
		return // not a test of its own
	}
	number := func(name string) int {
		n, err := strconv.Atoi(os.Getenv(name))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	left := number("VULN_CHILD_TRANSACTIONS")
	db, err := store.Open(t.Context(), store.Config{URL: url, Schema: houseSchema, Watch: func(query string, _ []any) { // of one writer
		if !strings.HasPrefix(query, "BEGIN") {
			return
		}
		if left--; left < 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	h := newHouse(t, db, clock.NewHand(day0))
	for delta := number("VULN_CHILD_FROM"); delta < killDeltas; delta++ {
		z := zipped(t, killDelta(t, delta)...)
		f, err := feed.Open(bytes.NewReader(z), int64(len(z)))
		h.must(err)
		_, err = h.vuln.Import(t.Context(), "ten_a", "per_1", "test", f)
		h.must(err)
		fmt.Println("taken", delta)
	}
}

// TestKillNineInADelta kills the process between any two of its transactions while it takes deltas over; the next goes on with the one that was
// not taken. When the last has finished, everything is as if the last contents had come at once, and the bills after them.
func TestKillNineInADelta(t *testing.T) {
	t.Parallel()
	storetest.EachURL(t, func(t *testing.T, url string) {
		t.Parallel() // most of it is other processes
		func() {
			db, err := store.Open(t.Context(), store.Config{URL: url, Schema: houseSchema, Clock: clock.NewHand(day0)})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			newHouse(t, db, clock.NewHand(day0)).killBills("ten_a")
		}()
		kills, taken := 0, 0
		for taken < killDeltas {
			transactions := kills % 7
			if kills == killTimes {
				transactions = 1 << 30
			}
			if taken = killedChild(t, url, taken, transactions); taken < killDeltas {
				kills++
			}
		}
		if kills < 7 {
			t.Fatalf("%d processes were killed: the test proves little", kills)
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

// killedChild starts the process with one of the deltas; it dies when it has done so many transactions. It returns how many
// deltas are taken then.
func killedChild(t *testing.T, url string, taken, transactions int) int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKillChild$")
	cmd.Env = append(os.Environ(), "VULN_CHILD_DATABASE="+url, fmt.Sprint("VULN_CHILD_FROM=", taken), fmt.Sprint("VULN_CHILD_TRANSACTIONS=", transactions), "TMPDIR="+t.TempDir())
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
	for lines.Scan() {
		if lines.Text() == fmt.Sprint("taken ", taken) {
			taken++
		}
	}
	err = cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); err != nil && (!ok || status.Signal() != syscall.SIGKILL) {
		t.Fatalf("the process failed by itself: %v\n%s%s", err, said.String(), complained.String())
	}
	return taken
}
