// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/sbom"
)

// spell writes a line of events: "0" introduced, "-1.2" fixed, "+1.3" introduced again, "~1.4" last affected, "<2" limit.
func spell(kind string, words ...string) Affected {
	r := Range{Type: kind}
	for i, w := range words {
		switch {
		case i == 0:
			r.Events = append(r.Events, RangeEvent{Introduced: w})
		case w[0] == '-':
			r.Events = append(r.Events, RangeEvent{Fixed: w[1:]})
		case w[0] == '+':
			r.Events = append(r.Events, RangeEvent{Introduced: w[1:]})
		case w[0] == '~':
			r.Events = append(r.Events, RangeEvent{LastAffected: w[1:]})
		case w[0] == '<':
			r.Events = append(r.Events, RangeEvent{Limit: w[1:]})
		}
	}
	return Affected{Ranges: []Range{r}}
}

func TestRanges(t *testing.T) {
	for _, c := range []struct {
		ecosystem, version string
		a                  Affected
		state              State
		fixed              string
	}{
		{"Go", "1.20.9", spell("SEMVER", "0", "-1.20.10", "+1.21.0-0", "-1.21.3"), StateAffected, "1.20.10"},
		{"Go", "1.20.10", spell("SEMVER", "0", "-1.20.10", "+1.21.0-0", "-1.21.3"), StateClean, ""},
		{"Go", "1.21.0-rc.1", spell("SEMVER", "0", "-1.20.10", "+1.21.0-0", "-1.21.3"), StateAffected, "1.21.3"},
		{"Go", "1.21.3", spell("SEMVER", "0", "-1.20.10", "+1.21.0-0", "-1.21.3"), StateClean, ""},
		{"Go", "1.21.3", spell("SEMVER", "1.21.0-0", "-1.21.3", "+0", "-1.20.10"), StateClean, ""}, // written out of order
		{"Go", "0.0.0-20210101000000-abcdefabcdef", spell("SEMVER", "0", "-0.0.0-20220101000000-aaaaaaaaaaaa"), StateAffected, "0.0.0-20220101000000-aaaaaaaaaaaa"},
		{"Go", "0.0.0-20230101000000-abcdefabcdef", spell("SEMVER", "0", "-0.0.0-20220101000000-aaaaaaaaaaaa"), StateClean, ""},
		{"Go", "2.0.0+incompatible", spell("SEMVER", "0"), StateAffected, ""}, // no fix at all
		{"Go", "1.4.0", spell("SEMVER", "0", "~1.4.0"), StateAffected, ""},
		{"Go", "1.4.1", spell("SEMVER", "0", "~1.4.0"), StateClean, ""},
		{"Go", "2.1.0", spell("SEMVER", "0", "<2.0.0"), StateClean, ""},
		{"Go", "1.9.0", spell("SEMVER", "0", "<2.0.0"), StateAffected, ""},
		{"Go", "1.9.0", spell("SEMVER", "1.0.0", "-1.0.0"), StateClean, ""},
		{"Go", "(devel)", spell("SEMVER", "0", "-1.0.0"), StateUnknown, ""},
		{"Go", "1.0.0", spell("SEMVER", "0", "-next"), StateUnknown, ""},
		{"Go", "1.0.0", spell("GIT", "0", "-abc"), StateUnknown, ""},
		{"Go", "1.0.0", spell("WEIRD", "0"), StateUnknown, ""},
		{"Nowhere", "1.0.0", spell("ECOSYSTEM", "0", "-2"), StateUnknown, ""},
		{"Debian:12", "1:4.13+dfsg1-1", spell("ECOSYSTEM", "0", "-1:4.13+dfsg1-1+deb12u1"), StateAffected, "1:4.13+dfsg1-1+deb12u1"},
		{"Debian:12", "2.36-9+deb12u10", spell("ECOSYSTEM", "0", "-2.36-9+deb12u7"), StateClean, ""},
		{"Debian:12", "2.0~rc1-1", spell("ECOSYSTEM", "2.0-1"), StateClean, ""}, // a tilde sorts before the release
		{"npm", "4.17.20", spell("SEMVER", "0", "-4.17.21"), StateAffected, "4.17.21"},
		{"PyPI", "1.0.post1", Affected{Versions: []string{"1.0.post1"}}, StateAffected, ""},
		{"PyPI", "1.0", Affected{Versions: []string{"1.0.post1"}}, StateClean, ""},
	} {
		got := compileOSV(c.ecosystem, []Affected{c.a}, nil).Judge(sbom.Identity{Space: c.ecosystem, Version: c.version})
		if got.State != c.state || got.Fixed != c.fixed || (got.State == StateUnknown) != (got.Reason != "") {
			t.Errorf("%s %s in %v: %+v, want %s fixed %q", c.ecosystem, c.version, c.a, got, c.state, c.fixed)
		}
	}
}

// TestRangesAgainstOracle compares the walk with an oracle that asks of each version alone which event it last passed.
func TestRangesAgainstOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := []string{"0"}
		var ends []int
		on := true
		for n := range rapid.IntRange(0, 6).Draw(t, "pairs") {
			step := rapid.IntRange(1, 3).Draw(t, fmt.Sprint("step", n))
			last := 0
			if len(ends) > 0 {
				last = ends[len(ends)-1]
			}
			ends = append(ends, last+step)
			if on {
				words = append(words, fmt.Sprintf("-1.%d.0", last+step))
			} else {
				words = append(words, fmt.Sprintf("+1.%d.0", last+step))
			}
			on = !on
		}
		v := rapid.IntRange(0, 20).Draw(t, "version")
		passed := 0
		for _, e := range ends {
			if v >= e {
				passed++
			}
		}
		want := StateClean
		if passed%2 == 0 {
			want = StateAffected
		}
		a := spell("SEMVER", words...)
		ev := a.Ranges[0].Events
		for i := range ev { // the order in which events are written says nothing
			j := rapid.IntRange(0, i).Draw(t, "swap")
			ev[i], ev[j] = ev[j], ev[i]
		}
		if got := compileOSV("Go", []Affected{a}, nil).Judge(sbom.Identity{Space: "Go", Version: fmt.Sprintf("1.%d.0", v)}); got.State != want {
			t.Fatalf("1.%d.0 in %v: %s, want %s", v, words, got.State, want)
		}
	})
}

func TestBrokenRecordsAreRefused(t *testing.T) {
	for doc, say := range map[string]string{
		``:                          "not valid OSV",
		`{"id":"GO-1"`:              "not valid OSV",
		`{"id":""}`:                 "no id",
		`{"id":"a b"}`:              "identifier",
		`{"id":"A","aliases":[""]}`: "identifier",
		`{"id":"A","affected":[{"package":{"ecosystem":"Go"}}]}`:                                                                                   "without a package",
		`{"id":"A","affected":[{"package":{"ecosystem":"Go","name":"a"},"ranges":[{"type":"SEMVER","events":[{}]}]}]}`:                             "exactly one",
		`{"id":"A","affected":[{"package":{"ecosystem":"Go","name":"a"},"ranges":[{"type":"SEMVER","events":[{"fixed":"1","introduced":"0"}]}]}]}`: "exactly one",
		`{"id":"A","affected":[{"package":{"ecosystem":"Go","name":"a\u0000"}}]}`:                                                                  "cannot be one",
		`{"id":"A","details":"\u0000"}`:       "NUL",
		"{\"id\":\"A\",\"details\":\"\xff\"}": "UTF-8",
		`{"id":"A","withdrawn":"yesterday"}`:  "not valid OSV",
	} {
		if _, err := Parse([]byte(doc)); !problem.Is(err, problem.KindInvalid) || !strings.Contains(err.Error(), say) {
			t.Errorf("%s: %v, want %q", doc, err, say)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"id":"GO-2023-2102","aliases":["CVE-2023-39325"],"affected":[{"package":{"ecosystem":"Go","name":"golang.org/x/net"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"0.17.0"}]}]}]}`), "0.10.0")
	f.Add([]byte(`{"id":"DSA-1","affected":[{"package":{"ecosystem":"Debian:12","name":"glibc"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"last_affected":"2.36-9~a"},{"limit":"*"}]}],"versions":["2.36-9"]}]}`), "2.36-9+deb12u1")
	f.Add([]byte(`{"id":"A","affected":[{"package":{"ecosystem":"PyPI","name":"x"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"1!0.dev1"}]},{"type":"GIT","events":[{"introduced":"0"}]}]}]}`), "1.0.post1")
	fixtures, err := filepath.Glob("testdata/*.json")
	if err != nil || len(fixtures) == 0 {
		f.Fatal("no fixtures", err)
	}
	for _, name := range fixtures {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, "1.0.1")
	}
	f.Add([]byte(gitRecord), fixedAt)
	f.Fuzz(func(t *testing.T, doc []byte, version string) {
		r, err := Parse(doc)
		if err != nil {
			if problem.Of(err).Kind == problem.KindInternal {
				t.Fatalf("not a clear refusal: %v", err)
			}
			return
		}
		again, err := Parse(doc)
		if d := cmp.Diff(r.Claims(), again.Claims()); err != nil || d != "" {
			t.Fatalf("the same record claims two things: %v\n%s", err, d)
		}
		for _, c := range r.Claims() {
			j, err := Compile(c.Space, c.Body)
			if err != nil {
				t.Fatal(err)
			}
			if v := j.Judge(sbom.Identity{Space: c.Space, Name: c.Name, Version: version}); (v.State == StateUnknown) != (v.Reason != "") {
				t.Fatalf("%+v", v)
			}
		}
	})
}

// TestTwoPublishersOneNumber keeps a record of the CVE List and one in the OSV format apart, though both are named as the CVE.
func TestTwoPublishersOneNumber(t *testing.T) {
	osv, err := Parse([]byte(`{"id":"CVE-2024-0001","aliases":["GHSA-1"]}`))
	if err != nil {
		t.Fatal(err)
	}
	cve, err := Parse([]byte(`{"dataType":"CVE_RECORD","dataVersion":"5.1","cveMetadata":{"cveId":"CVE-2024-0001","state":"PUBLISHED"},"containers":{"cna":{}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if osv.ID == cve.ID || !slices.Contains(osv.Idents(), cve.ID) {
		t.Errorf("%q with the names %q, and %q", osv.ID, osv.Idents(), cve.ID)
	}
}
