// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/osv-scalibr/semantic"
	modsemver "golang.org/x/mod/semver"
	"pgregory.net/rapid"

	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/testpeers"
)

// pairsEach is how many pairs of versions are compared per ecosystem.
const pairsEach = 10_000

// grammar draws versions that an ecosystem allows: numbers from a small set, so that many pairs share their beginning.
type grammar struct {
	ecosystem string
	draw      func(r *rand.Rand) string
}

func number(r *rand.Rand) string {
	return pick(r, "0", "0", "1", "1", "2", "3", "9", "10", "11", "100", "20230101")
}

func pick(r *rand.Rand, words ...string) string { return words[r.IntN(len(words))] }

func numbers(r *rand.Rand, least, most int) string {
	parts := make([]string, least+r.IntN(most-least+1))
	for i := range parts {
		parts[i] = number(r)
	}
	return strings.Join(parts, ".")
}

func maybe(r *rand.Rand, s string) string { return pick(r, "", s) }

func drawSemver(r *rand.Rand) string {
	v := numbers(r, 3, 3)
	if r.IntN(2) == 0 {
		v += "-" + pick(r, "alpha", "alpha.1", "alpha.beta", "beta", "beta.2", "beta.11", "rc.1", "0", "0.3.7", "x-y-z", "20230101120000-abcdefabcdef", "0.20230101120000-abcdefabcdef")
	}
	return v + maybe(r, "+build.5")
}

func drawDebian(r *rand.Rand) string {
	v := pick(r, "", "", "1:", "2:") + numbers(r, 1, 4) + pick(r, "", "", "~rc1", "~", "+dfsg", "+dfsg1", "a", "b", "+git20230101", "~beta2", "-1-2")
	return v + pick(r, "", "-1", "-2", "-10", "-1~bpo12+1", "-1+deb12u1", "-1+deb12u10", "-0ubuntu1", "-0.1", "-1.1")
}

func drawRPM(r *rand.Rand) string {
	v := pick(r, "", "", "1:", "2:") + numbers(r, 1, 4) + pick(r, "", "", "~rc1", "~beta", "^git1", "^20230101", "a", "b", "rc1")
	return v + pick(r, "-1", "-2.el8", "-10.el9", "-1.fc38", "-1.el9_2.1", "-0.1.rc1")
}

func drawAlpine(r *rand.Rand) string {
	return numbers(r, 1, 4) + pick(r, "", "", "a", "b", "z") + pick(r, "", "", "_alpha", "_beta1", "_pre2", "_rc", "_rc3", "_p", "_p1", "_git20230101") + pick(r, "", "-r0", "-r1", "-r12")
}

func drawPython(r *rand.Rand) string {
	return pick(r, "", "", "1!") + numbers(r, 1, 4) + pick(r, "", "", "a1", "b2", "rc1", "rc10", "c1", "alpha", "-beta-2") + pick(r, "", "", ".post1", ".post2", "-3") + pick(r, "", "", ".dev1", ".dev10") + pick(r, "", "", "+local.1", "+abc")
}

func drawMaven(r *rand.Rand) string {
	return numbers(r, 1, 4) + pick(r, "", "", "-alpha-1", "-alpha1", "-beta", "-milestone-1", "-m2", "-rc1", "-cr2", "-SNAPSHOT", "-final", "-ga", "-sp", "-sp-1", "-1", ".Final", ".RELEASE", "-jre", "-android", "-redhat-1")
}

func drawGem(r *rand.Rand) string {
	return numbers(r, 1, 4) + pick(r, "", "", ".a", ".rc1", ".pre", ".pre.2", ".beta.1", ".b")
}

var grammars = []grammar{{"Go", drawSemver}, {"npm", drawSemver}, {"crates.io", drawSemver}, {"Debian:12", drawDebian}, {"Ubuntu:22.04", drawDebian}, {"Alpine:v3.20", drawAlpine}, {"Red Hat", drawRPM},
	{"PyPI", drawPython}, {"Maven", drawMaven}, {"RubyGems", drawGem}, {sbom.SpaceKernel, drawUpstream}}

func drawUpstream(r *rand.Rand) string {
	return pick(r, "", "", "v") + numbers(r, 1, 4) + pick(r, "", "", "", "a", "z", "za", "p1", "-rc1", "-rc10", "_rc2", "-alpha1", "-1", "-5", "~rc1", "+git5", ".beta3")
}

func compared(t testing.TB, ecosystem, a, b string) int {
	t.Helper()
	x, ok := parseVersion(a, ecosystem, false)
	y, ok2 := parseVersion(b, ecosystem, false)
	if !ok || !ok2 {
		t.Fatalf("%s: %q or %q is no version", ecosystem, a, b)
	}
	c, err := x.Compare(y)
	if err != nil {
		t.Fatalf("%s: %q against %q: %v", ecosystem, a, b, err)
	}
	return sign(c)
}

// TestOrderIsAnOrder: antisymmetric and transitive, in every ecosystem.
func TestOrderIsAnOrder(t *testing.T) {
	for _, g := range grammars {
		rapid.Check(t, func(t *rapid.T) {
			r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
			v := [3]string{g.draw(r), g.draw(r), g.draw(r)}
			c := func(i, j int) int {
				x, _ := parseVersion(v[i], g.ecosystem, false)
				y, _ := parseVersion(v[j], g.ecosystem, false)
				c, err := x.Compare(y)
				if err != nil {
					t.Fatal(err)
				}
				return sign(c)
			}
			for i := range v {
				if c(i, i) != 0 {
					t.Fatalf("%s: %s is not itself", g.ecosystem, v[i])
				}
				for j := range v {
					if c(i, j) != -c(j, i) {
						t.Fatalf("%s: %s and %s are each above the other", g.ecosystem, v[i], v[j])
					}
				}
			}
			if slices.SortFunc(v[:], func(a, b string) int {
				x, _ := parseVersion(a, g.ecosystem, false)
				y, _ := parseVersion(b, g.ecosystem, false)
				c, _ := x.Compare(y)
				return c
			}); c(0, 1) > 0 || c(1, 2) > 0 || c(0, 2) > 0 || c(0, 1) == 0 && c(1, 2) != c(0, 2) {
				t.Fatalf("%s: %v are in no order", g.ecosystem, v)
			}
		})
	}
}

// TestOrderAgainstOthers compares at least ten thousand pairs of each ecosystem with an implementation that shares
// nothing with ours: x/mod's for Go, and a program of other people's libraries for the others.
func TestOrderAgainstOthers(t *testing.T) {
	bin, err := testpeers.Versions(t.Context())
	if err != nil {
		t.Fatalf("the comparison did not run: %v", err)
	}
	for _, g := range grammars {
		family, _, _ := strings.Cut(g.ecosystem, ":")
		if family == "Ubuntu" || family == "crates.io" || family == sbom.SpaceKernel { // the order of Debian, of npm, and one of our own
			continue
		}
		r := rand.New(rand.NewPCG(7, uint64(len(family))))
		var pairs [][2]string
		var in bytes.Buffer
		for range pairsEach {
			p := [2]string{g.draw(r), g.draw(r)}
			pairs = append(pairs, p)
			fmt.Fprintf(&in, "%s\t%s\t%s\n", family, p[0], p[1])
		}
		var theirs []string
		if family == "Go" {
			for _, p := range pairs {
				theirs = append(theirs, fmt.Sprint(modsemver.Compare("v"+p[0], "v"+p[1])))
			}
		} else {
			cmd := exec.CommandContext(t.Context(), bin)
			cmd.Stdin = &in
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%s: %v", family, err)
			}
			theirs = strings.Fields(string(out))
		}
		if len(theirs) != pairsEach {
			t.Fatalf("%s: %d answers", family, len(theirs))
		}
		unequal, excused, none := 0, map[string]int{}, 0
		for i, p := range pairs {
			if theirs[i] == "none" {
				none++
				continue
			}
			if ours := compared(t, g.ecosystem, p[0], p[1]); fmt.Sprint(ours) != theirs[i] {
				if why := excuse(family, p[0], p[1]); why != "" {
					excused[why]++
				} else if unequal++; unequal <= 10 {
					t.Errorf("%s: %s against %s: %d, by the other %s", family, p[0], p[1], ours, theirs[i])
				}
			}
		}
		if wants := map[string]int{"Alpine": 1, "RubyGems": 1}[family]; len(excused) != wants {
			t.Errorf("%s: %d known differences, the reference names %d", family, len(excused), wants)
		}
		t.Logf("%s: %d pairs, %d that the other cannot read, %d unequal, differences %v", family, len(pairs), none, unequal, excused)
		if none > pairsEach/3 {
			t.Errorf("%s: the comparison proves too little", family)
		}
	}
}

// excuse names the known difference that a pair shows, or ""; docs/reference/matching.md has the verdicts.
func excuse(ecosystem, a, b string) string {
	if !strings.Contains(a+b, ".0") {
		return ""
	}
	x, y := leading.FindString(a), leading.FindString(b)
	for strings.HasSuffix(x, ".0") || strings.HasSuffix(y, ".0") {
		x, y = strings.TrimSuffix(x, ".0"), strings.TrimSuffix(y, ".0")
	}
	switch {
	case x != y:
		return ""
	case ecosystem == "Alpine":
		return "Alpine: numbers that differ by zeros at the end only (1z against 1.0)"
	case ecosystem == "RubyGems" && strings.ContainsFunc(a+b, func(c rune) bool { return c >= 'a' }):
		return "RubyGems: a pre-release after zeros (9.b against 9.0.beta.1)"
	}
	return ""
}

var leading = regexp.MustCompile(`^[0-9]+(\.[0-9]+)*`)

// TestOrderAgainstTheDistributions compares with the programs that install packages. Both orders are total, so a list
// that is sorted by ours and found in order by theirs at every step agrees in all its pairs.
func TestOrderAgainstTheDistributions(t *testing.T) {
	const n = 500
	sorted := func(ecosystem string, draw func(*rand.Rand) string) (list []string) {
		r := rand.New(rand.NewPCG(3, 3))
		for range n {
			list = append(list, draw(r))
		}
		slices.SortFunc(list, func(a, b string) int { return cmp.Or(compared(t, ecosystem, a, b), strings.Compare(a, b)) })
		return list
	}
	for _, name := range []string{"dpkg", "rpm"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("the comparison did not run: %s is absent; scripts/deps.sh test installs it", name)
		}
	}
	list := sorted("Debian:12", drawDebian)
	var script strings.Builder
	for i := 1; i < n; i++ {
		op := "lt"
		if compared(t, "Debian:12", list[i-1], list[i]) == 0 {
			op = "eq"
		}
		fmt.Fprintf(&script, "dpkg --compare-versions '%s' %s '%s' || echo '%s is not %s %s'\n", list[i-1], op, list[i], list[i-1], op, list[i])
	}
	run(t, script.String(), "sh")
	list = sorted("Red Hat", drawRPM)
	script.Reset()
	for i := 1; i < n; i++ {
		want := -1
		if compared(t, "Red Hat", list[i-1], list[i]) == 0 {
			want = 0
		}
		fmt.Fprintf(&script, "do local a, b = rpm.ver('%s'), rpm.ver('%s'); local c = a < b and -1 or (b < a and 1 or 0); if c ~= %d then print('%s against %s: '..c..', ours %d\\n') end end ",
			list[i-1], list[i], want, list[i-1], list[i], want)
	}
	run(t, "", "rpm", "--eval", "%{lua:"+script.String()+"}")
	t.Logf("%d pairs each", n*(n-1)/2)
}

// run runs a program that says nothing as long as all is well.
func run(t *testing.T, in string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(in)
	out, err := cmd.CombinedOutput()
	if said := strings.TrimSpace(string(out)); err != nil || said != "" {
		t.Errorf("%s: %v\n%.3000s", args[0], err, said)
	}
}

func FuzzUpstreamOrder(f *testing.F) {
	for _, s := range []string{"8.4.0", "1.1.1za", "9.5p1", "6.10-rc3", "v5.17-rc3", "6.0~rc1", "6.3+rc4", "2024.01", "5.10.*", "1.0.0-0", "3.x", "00.0", "1..2", "1.0-"} {
		f.Add(s, "1.0", false)
	}
	f.Fuzz(func(t *testing.T, a, b string, semver bool) {
		x, ok := parseUpstream(a, semver)
		y, ok2 := parseUpstream(b, semver)
		if !ok || !ok2 {
			return
		}
		if x.compare(y) != -y.compare(x) || x.compare(x) != 0 {
			t.Fatalf("%q against %q", a, b)
		}
		if c, err := x.Compare(semantic.Version(y)); err != nil || c != x.compare(y) {
			t.Fatal(c, err)
		}
	})
}
