// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func openTestJournal(t testing.TB, text string) *journal {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "distrust.jsonl"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	j, err := openJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.file.Close() })
	return j
}

func (j *journal) text(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(j.path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func testLink(n int64, e entry) link {
	e.ID = fmt.Sprintf("dis_%d", n)
	return link{N: n, Hash: fmt.Sprint("h", n), entry: e}
}

// TestCompactKeepsWhatCounts: the last state of each device, revocations of certificates that would still be good or could
// still come to be renewed, every bar, what cannot be read, and the last line stay; a second run changes nothing more.
func TestCompactKeepsWhatCounts(t *testing.T) {
	j := openTestJournal(t, "")
	links := []link{
		testLink(1, entry{Tenant: "a", Subject: "dev_1", State: Suspended}),
		testLink(2, entry{Tenant: "a", Subject: "bat_1", Scope: ScopeBatch, Reason: "stolen"}),
		testLink(3, entry{Tenant: "a", Subject: "dev_1", State: Commissioned}),
		testLink(4, entry{Tenant: "b", Subject: "dev_1", State: Suspended}),
		testLink(5, entry{Tenant: "a", Subject: "dev_2", Certificates: []string{"over"}, Until: 999}),
		testLink(6, entry{Tenant: "a", Subject: "dev_2", Certificates: []string{"may be renewed"}, Until: 1001}),
		testLink(7, entry{Tenant: "a", Subject: "dev_3", Certificates: []string{"older writers say no end"}}),
		testLink(8, entry{Tenant: "a", Subject: "dev_3", State: Decommissioned}),
		testLink(9, entry{Tenant: "a", Subject: "dev_3", State: Deprovisioned}),
		testLink(10, entry{Tenant: "a", Subject: "dev_4", Certificates: []string{"over, and the last"}, Until: 999}),
	}
	if err := j.append(links); err != nil {
		t.Fatal(err)
	}
	if _, err := j.file.WriteString("not JSON\n"); err != nil {
		t.Fatal(err)
	}
	j.size += 9
	if err := j.append([]link{testLink(11, entry{Tenant: "a", Subject: "dev_4", Certificates: []string{"over"}, Until: 999})}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := j.compact(1000 + LongestLapse.Milliseconds()); err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range strings.Lines(j.text(t)) {
			l, ok := parseLine([]byte(strings.TrimSpace(line)))
			if !ok {
				got = append(got, "?")
				continue
			}
			got = append(got, fmt.Sprint(l.N))
		}
		if s := strings.Join(got, " "); s != "2 3 4 6 7 9 ? 11" {
			t.Fatalf("kept %s", s)
		}
	}
	if l, ok := j.last(); !ok || l.N != 11 {
		t.Errorf("the last line is %d, %v", l.N, ok)
	}
	if err := j.append([]link{testLink(12, entry{Tenant: "a", Subject: "dev_5", State: Suspended})}); err != nil {
		t.Fatal(err)
	}
	if l, ok := j.last(); !ok || l.N != 12 || int64(len(j.text(t))) != j.length() {
		t.Errorf("after the next append: %d, %v, %d bytes", l.N, ok, j.length())
	}
}

// FuzzJournal: whatever lies in the file, opening it cuts a torn end off and nothing else, and the reader sees each line
// once.
func FuzzJournal(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte(`{"n":1,"hash":"a","id":"dis_1","at":1,"tenant":"t","subject":"dev_1","state":"suspended"}` + "\n" + `{"id":"dis_2","sub`))
	f.Add([]byte("\n\n"))
	f.Add(bytes.Repeat([]byte("x"), 9000))
	f.Fuzz(func(t *testing.T, b []byte) {
		j := openTestJournal(t, string(b))
		want := b[:bytes.LastIndexByte(b, '\n')+1]
		if j.text(t) != string(want) {
			t.Fatalf("%d bytes are left of %d, want %d", j.length(), len(b), len(want))
		}
		lines := 0
		err := j.each(j.length(), func(raw [][]byte, links []link) error {
			lines += len(links)
			for i := range raw {
				if !bytes.HasSuffix(raw[i], []byte("\n")) {
					t.Errorf("%q is no line", raw[i])
				}
			}
			return nil
		})
		if err != nil || lines != bytes.Count(want, []byte("\n")) {
			t.Fatalf("%d lines, %v", lines, err)
		}
		j.last()
		if err := j.compact(0); err != nil {
			t.Fatal(err)
		}
	})
}
