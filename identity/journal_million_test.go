// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// TestJournalOfAMillion reads a journal of a million entries as a start does: the last line if the database agrees, and
// all of it after a restore.
func TestJournalOfAMillion(t *testing.T) {
	if os.Getenv("OPENTHINGS_MILLION") == "" {
		t.Skip("set OPENTHINGS_MILLION to run it")
	}
	const all, step = 1_000_000, 10_000
	j := openTestJournal(t, "")
	links := make([]link, step)
	for from := 0; from < all; from += step {
		for i := range links {
			links[i] = testLink(int64(from+i+1), entry{Tenant: "ten_0123456789", Subject: fmt.Sprintf("dev_%026d", from+i), State: Suspended, Certificates: []string{fmt.Sprintf("%064x", from+i)}})
		}
		if err := j.append(links); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	again, err := openJournal(filepath.Dir(j.path))
	if err != nil {
		t.Fatal(err)
	}
	defer again.file.Close()
	l, ok := again.last()
	opened := time.Since(began)
	if !ok || l.N != all {
		t.Fatalf("the last line is %+v, %v", l, ok)
	}
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	n, most := 0, uint64(0)
	began = time.Now()
	if err := again.each(again.size, func(_ [][]byte, links []link) error {
		if n += len(links); n%100_000 < len(links) {
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapInuse)
		}
		return nil
	}); err != nil || n != all {
		t.Fatalf("%d of %d lines: %v", n, all, err)
	}
	t.Logf("%d MB: opened with its last line in %s, read whole in %s with %d MB of heap beyond the %d MB before", again.size>>20, opened, time.Since(began), (most-min(most, before.HeapInuse))>>20, before.HeapInuse>>20)
}
