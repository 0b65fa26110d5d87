// SPDX-License-Identifier: AGPL-3.0-only

package gateway_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// numbered are the normative statements of MQTT 5.0 (its appendix B): section, first and last number.
const numbered = `1.5.4 1 3, 1.5.5 1 1, 1.5.7 1 1, 2.1.3 1 1, 2.2.1 2 6, 2.2.2 1 1, 3.1.0 1 2, 3.1.2 1 30, 3.1.3 1 12, 3.1.4 1 6,
3.2.0 1 2, 3.2.2 1 22, 3.3.1 1 13, 3.3.2 1 20, 3.3.4 1 10, 3.4.2 1 3, 3.5.2 1 3, 3.6.1 1 1, 3.6.2 1 3, 3.7.2 1 3, 3.8.1 1 1, 3.8.3 1 5,
3.8.4 1 8, 3.9.2 1 2, 3.9.3 1 2, 3.10.1 1 1, 3.10.3 1 2, 3.10.4 1 6, 3.11.2 1 2, 3.11.3 1 2, 3.12.4 1 1, 3.14.0 1 1, 3.14.1 1 1,
3.14.2 1 4, 3.14.4 1 3, 3.15.1 1 1, 3.15.2 1 3, 4.1.0 1 2, 4.2.0 1 1, 4.3.1 1 1, 4.3.2 1 5, 4.3.3 1 13, 4.4.0 1 2, 4.5.0 1 2, 4.6.0 1 6,
4.7.0 1 1, 4.7.1 1 2, 4.7.2 1 1, 4.7.3 1 4, 4.8.2 1 6, 4.9.0 1 3, 4.12.0 1 7, 4.12.1 1 2, 4.13.1 1 1, 4.13.2 1 1, 6.0.0 1 4`

// TestMQTTReference: docs/reference/mqtt.md has each statement once, in order, and each supported one names a test that
// there is. Nothing that is checked is missing from the page.
func TestMQTTReference(t *testing.T) {
	var want []string
	for _, r := range strings.Split(numbered, ",") {
		var section string
		var first, last int
		if _, err := fmt.Sscan(r, &section, &first, &last); err != nil {
			t.Fatal(err)
		}
		for n := first; n <= last; n++ {
			want = append(want, fmt.Sprintf("%s-%d", section, n))
		}
	}
	page, err := os.ReadFile("../docs/reference/mqtt.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := testNames(t)
	checked := map[string]bool{}
	for _, s := range allStatements() {
		for _, id := range strings.Fields(s.ids) {
			if checked[id] || !slices.Contains(want, id) {
				t.Errorf("TestConformance has %s twice, or the standard does not have it", id)
			}
			checked[id] = true
		}
	}
	row := regexp.MustCompile(`(?m)^\| MQTT-(\S+) \| ([^|]+) \| ([^|]+) \| (?:` + "`(\\w+)`" + `)? \| ([^|]*)\|$`)
	var got []string
	count := map[string]int{}
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		id, status, test, remark := m[1], m[3], m[4], strings.TrimSpace(m[5])
		got = append(got, id)
		count[status]++
		switch status {
		case "supported":
			if test == "" {
				t.Errorf("%s names no test", id)
			}
		case "refused on purpose", "not applicable":
			if remark == "" {
				t.Errorf("%s does not say why it is %s", id, status)
			}
		case "not applicable: duty of the client":
		default:
			t.Errorf("%s is %q", id, status)
		}
		if test != "" && !tests[test] {
			t.Errorf("%s names %s, which is no test of this package", id, test)
		}
		if test == "TestConformance" && !checked[id] || checked[id] && test == "" {
			t.Errorf("the page and TestConformance disagree about %s", id)
		}
	}
	if total := fmt.Sprintf("All %d of them: %d supported, %d refused on purpose, %d without an object here, %d duties of a client", len(got),
		count["supported"], count["refused on purpose"], count["not applicable"], count["not applicable: duty of the client"]); !strings.Contains(string(page), total) {
		t.Errorf("the page does not say: %s", total)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the page has %d statements, the standard %d; the first that differs is number %d of the page", len(got), len(want), differs(got, want)+1)
	}
}

func differs(a, b []string) int {
	for i := range a {
		if i >= len(b) || a[i] != b[i] {
			return i
		}
	}
	return len(a)
}

// testNames are the test functions of this package.
func testNames(t *testing.T) map[string]bool {
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)
	names := map[string]bool{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range name.FindAllStringSubmatch(string(b), -1) {
			names[m[1]] = true
		}
	}
	return names
}
