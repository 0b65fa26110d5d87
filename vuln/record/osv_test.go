// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/sbom"
)

const (
	introducedAt = "4a4b63daaa01ef59b131d91e8e6e6dfe275c0f08"
	fixedAt      = "fb4415d8aee6c1045be932a34fe6107c2f5ed147"
	elsewhere    = "00000000000000000000000000000000000000aa"
)

// A project's record in the form that curl publishes: no package, numbers, commits and tags.
const gitRecord = `{"id":"LAMP-1","aliases":["CVE-2026-10010"],"summary":"x","severity":[{"type":"CVSS_V3","score":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}],
	"affected":[{"ranges":[{"type":"SEMVER","events":[{"introduced":"7.69.0"},{"fixed":"8.4.0"}]},
	{"type":"GIT","repo":"https://git.example/Lamp/lampd.git","events":[{"introduced":"` + introducedAt + `"},{"fixed":"` + fixedAt + `"}]}],"versions":["8.3.0","lampd-8_3_0"]}]}`

func commit(version string) sbom.Identity {
	return sbom.Identity{Space: sbom.SpaceGit, Name: "git.example/lamp/lampd", Version: version}
}

func TestTrapCommitsHaveNoOrder(t *testing.T) {
	r := parsed(t, []byte(gitRecord))
	if c := r.Claims(); len(c) != 1 || c[0].Space != sbom.SpaceGit {
		t.Fatalf("claims %+v", c)
	}
	cases := []want{
		{commit(introducedAt), StateAffected, "", "", ""}, {commit(strings.ToUpper(introducedAt)), StateAffected, "", "", ""}, {commit(fixedAt), StateClean, "", "", ""},
		{commit("lampd-8_3_0"), StateAffected, "", "", ""}, {commit("8.0.0"), StateAffected, "8.4.0", "", ""}, {commit("8.4.0"), StateClean, "", "", ""},
		{commit("nightly"), StateUnknown, "", "", ""},
	}
	check(t, r, append(cases, want{commit(elsewhere), StateUnknown, "", "", ""})...)
	if v, _ := judged(t, r, commit(introducedAt)); v.Rule != RuleGit || v.Confidence != ConfidenceExact {
		t.Errorf("%+v", v)
	}

	answers := `,"x_commits":[{"repo":"git@git.example:lamp/lampd.git","affected":["` + strings.ToUpper(elsewhere) + `"],"unaffected":["` + strings.Repeat("b", 40) + `"]},
		{"repo":"https://git.example/other","affected":["` + strings.Repeat("c", 40) + `"]}]}`
	r = parsed(t, []byte(strings.TrimSuffix(gitRecord, "}")+answers))
	looked := []want{{commit(elsewhere), StateAffected, "", "", ""}, {commit(strings.Repeat("b", 40)), StateClean, "", "", ""}, {commit(strings.Repeat("c", 40)), StateUnknown, "", "", ""}}
	check(t, r, append(cases, looked...)...)

	b, err := os.ReadFile("testdata/kernel.json") // the same for the kernel in a record of the CVE List
	if err != nil {
		t.Fatal(err)
	}
	for repo, state := range map[string]State{"https://git.kernel.org/pub/scm/linux/kernel/git/stable/linux.git": StateAffected, "https://git.example/linux": StateUnknown} {
		r := parsed(t, []byte(strings.TrimSuffix(strings.TrimSpace(string(b)), "}")+`,"x_commits":[{"repo":"`+repo+`","affected":["`+elsewhere+`"]}]}`))
		check(t, r, want{kernel(elsewhere), state, "", "", ""}, want{kernel("0123456789abcdef0123456789abcdef01234567"), StateAffected, "", "Linux", ""}, want{kernel("89abcdef0123456789abcdef0123456789abcdef"), StateClean, "", "Linux", ""})
	}
}

func TestListsOfCommitsAreRefused(t *testing.T) {
	for list, say := range map[string]string{
		`{"repo":"nowhere"}`: "no repository",
		`{"repo":"https://a.example/b","affected":["1234567"]}`:  "not the whole name",
		`{"repo":"https://a.example/b","unaffected":["v1.0.0"]}`: "not the whole name",
		`{"repo":"https://a.example/b","affected":[` + strings.TrimSuffix(strings.Repeat(`"`+elsewhere+`",`, maxCommits/2), ",") + `],"unaffected":[` + strings.TrimSuffix(strings.Repeat(`"`+elsewhere+`",`, maxCommits/2+1), ",") + `]}`: "more than",
	} {
		doc := `{"id":"A","x_commits":[` + list + `]}`
		if len(doc) > maxRecord {
			t.Fatal("the record is refused for its size alone")
		}
		if _, err := Parse([]byte(doc)); !problem.Is(err, problem.KindInvalid) && !problem.Is(err, problem.KindTooLarge) || !strings.Contains(err.Error(), say) {
			t.Errorf("%.60q: %v, want %q", list, err, say)
		}
	}
}

func TestRepositories(t *testing.T) {
	for text, want := range map[string]string{"https://github.com/curl/curl.git": "github.com/curl/curl", "git@github.com:Curl/curl.git": "github.com/curl/curl", "https://user@github.com/curl/curl/": "github.com/curl/curl",
		"ssh://git@github.com/curl/curl": "github.com/curl/curl", "": "", "https://git.kernel.org": "", "curl": ""} {
		if got := repository(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestClaimsOfPackages(t *testing.T) {
	r := parsed(t, []byte(`{"id":"A","affected":[
		{"package":{"ecosystem":"Ubuntu:22.04:LTS","name":"curl"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"7.81.0-1ubuntu1.14"}]}]},
		{"package":{"ecosystem":"Go","name":"Example.org/Lamp"},"versions":["1.0.0"]},
		{"package":{"ecosystem":"Go","name":"example.org/lamp"},"ranges":[{"type":"SEMVER","events":[{"introduced":"1.2.0"}]}],
			"ecosystem_specific":{"imports":[{"path":"example.org/lamp/x"}],"custom_ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"}]}]}},
		{"package":{"ecosystem":"PyPI","name":"Lamp_Tools.x"},"versions":["1"]},
		{"package":{"ecosystem":"Linux","name":"Kernel"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"5.10.219"},{"introduced":"5.11.0"},{"fixed":"5.15.161"}]}]}]}`))
	var names []string
	for _, c := range r.Claims() {
		names = append(names, c.Space+" "+c.Name)
	}
	if want := []string{"Go example.org/lamp", "PyPI lamp-tools-x", "Ubuntu:22.04 curl", "kernel linux"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
	lamp := func(v string) sbom.Identity { return sbom.Identity{Space: "Go", Name: "example.org/lamp", Version: v} }
	check(t, r, want{lamp("1.0.0"), StateAffected, "", "", ""}, want{lamp("1.1.0"), StateClean, "", "", ""}, want{lamp("1.3.0"), StateAffected, "", "", ""}, // custom_ranges open nothing
		want{kernel("5.10.100-v8+"), StateAffected, "5.10.219", "", ConfidenceRange}, want{kernel("5.10.219"), StateClean, "", "", ""}, want{kernel("5.14"), StateAffected, "5.15.161", "", ""})
}

// TestBetterIsAnOrder: the best of several verdicts does not depend on which came first.
func TestBetterIsAnOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) Verdict {
			word := rapid.SampledFrom([]string{"", "a", "b"})
			return Verdict{State: rapid.SampledFrom([]State{StateAffected, StateUnknown, StateClean}).Draw(t, name+" state"), Confidence: rapid.SampledFrom([]string{ConfidenceExact, ConfidenceLikely}).Draw(t, name+" confidence"),
				Rule: word.Draw(t, name+" rule"), Fixed: word.Draw(t, name+" fixed"), Reason: word.Draw(t, name+" reason"), Speaker: word.Draw(t, name+" speaker"), Conditions: rapid.SliceOfN(word, 0, 2).Draw(t, name+" conditions")}
		}
		a, b := draw("a"), draw("b")
		if same := cmp.Equal(a, b, cmpopts.EquateEmpty()); !same && a.Better(b) == b.Better(a) || same && a.Better(b) {
			t.Fatalf("%+v and %+v: %v and %v", a, b, a.Better(b), b.Better(a))
		}
	})
}

// TestBetterKnowsNoTies: verdicts that differ in one member alone have an order too.
func TestBetterKnowsNoTies(t *testing.T) {
	a := Verdict{State: StateAffected, Confidence: ConfidenceLikely, Conditions: []string{"a"}}
	for _, change := range []func(*Verdict){func(v *Verdict) { v.Rule = "x" }, func(v *Verdict) { v.Fixed = "x" }, func(v *Verdict) { v.Speaker = "x" }, func(v *Verdict) { v.Reason = "x" },
		func(v *Verdict) { v.Conditions = []string{"x"} }, func(v *Verdict) { v.Confidence = ConfidenceRange }} {
		b := a
		change(&b)
		if a.Better(b) == b.Better(a) {
			t.Errorf("%+v and %+v: the best depends on their order", a, b)
		}
	}
}

func TestBetter(t *testing.T) {
	worst := []Verdict{{State: StateAffected, Confidence: ConfidenceExact}, {State: StateAffected, Confidence: ConfidenceLikely}, {State: StateAffected, Confidence: ConfidenceLikely, Conditions: []string{"x"}},
		{State: StateAffected, Confidence: ConfidenceProse}, {State: StateUnknown, Confidence: ConfidenceExact}, {State: StateClean, Confidence: ConfidenceExact}}
	for i, a := range worst {
		for k, b := range worst {
			if a.Better(b) != (i < k) {
				t.Errorf("%+v against %+v", a, b)
			}
		}
	}
}
