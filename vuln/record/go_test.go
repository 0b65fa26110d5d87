// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/semver"

	"github.com/openthings-platform/openthings/sbom"
)

// letterOSV is the evaluation of the OSV schema as its document has it
// (https://ossf.github.io/osv-schema/#evaluation), for SEMVER ranges, with the Go project's own order of versions.
func letterOSV(affected []Affected, version string) bool {
	v := "v" + version
	at := func(text string) string {
		if text == "0" {
			return "v0.0.0-0"
		}
		return "v" + text
	}
	for _, a := range affected {
		if slices.Contains(a.Versions, version) {
			return true
		}
		for _, r := range a.Ranges {
			type step struct {
				at string
				on bool
			}
			var steps []step
			for _, e := range r.Events {
				if e.Introduced != "" {
					steps = append(steps, step{at(e.Introduced), true})
				} else {
					steps = append(steps, step{at(e.Fixed), false})
				}
			}
			slices.SortStableFunc(steps, func(a, b step) int { return semver.Compare(a.at, b.at) })
			vulnerable := false
			for _, s := range steps {
				if semver.Compare(v, s.at) >= 0 {
					vulnerable = s.on
				}
			}
			if vulnerable {
				return true
			}
		}
	}
	return false
}

// TestGoRecordsAgreeWithTheLetter compares all real Go records at every end of their ranges and beside it: pre-releases
// and pseudo-versions among them.
func TestGoRecordsAgreeWithTheLetter(t *testing.T) {
	compared, affected, dashes := 0, 0, 0
	for id, doc := range readZip(t, "vuln/osv/Go/all.zip") {
		r := parsed(t, doc)
		byName := map[string][]Affected{}
		versions := map[string]bool{"0.0.0": true, "1.0.0": true, "99.0.0": true, "0.0.0-20200101000000-abcdefabcdef": true}
		for _, a := range r.Affected {
			name := sbom.Fold("Go", a.Package.Name)
			byName[name] = append(byName[name], a)
			for _, rg := range a.Ranges {
				for _, e := range rg.Events {
					end := e.Introduced + e.Fixed
					if e.LastAffected+e.Limit != "" || rg.Type != "SEMVER" {
						t.Fatalf("%s has an event that the second reading does not know", id)
					}
					core, _, dash := strings.Cut(end, "-")
					if dash {
						dashes++
					}
					for _, v := range []string{end, core, core + "-0", core + "-rc.1", core + "1", end + "+incompatible"} {
						if semver.IsValid("v"+v) && strings.Count(core, ".") == 2 {
							versions[v] = true
						}
					}
				}
			}
		}
		for _, c := range r.Claims() {
			j, err := Compile(c.Space, c.Body)
			if err != nil {
				t.Fatal(err)
			}
			for v := range versions {
				got := j.Judge(sbom.Identity{Space: "Go", Name: c.Name, Version: v})
				want := letterOSV(byName[c.Name], v)
				if compared++; want {
					affected++
				}
				if got.State == StateUnknown || (got.State == StateAffected) != want {
					t.Errorf("%s, %s@%s: %+v, by the letter %v", id, c.Name, v, got, want)
				}
			}
		}
	}
	t.Logf("%d comparisons, %d affected; %d ends are pre-releases", compared, affected, dashes)
	if compared < 40_000 || affected < 10_000 || dashes < 1000 {
		t.Error("the comparison proves too little")
	}
}
