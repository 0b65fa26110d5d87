// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/sbom"
)

// This is a second reading of the CVE record format, by the letter of its document on versions
// (https://github.com/CVEProject/cve-schema/blob/main/schema/docs/versions.md): slow, for the kernel's numbers only, and
// sharing nothing with the code that it judges.

type letterRecord struct {
	Metadata struct {
		ID string `json:"cveId"`
	} `json:"cveMetadata"`
	Containers struct {
		CNA struct {
			Provider struct {
				Name string `json:"shortName"`
			} `json:"providerMetadata"`
			Affected []letterEntry `json:"affected"`
		} `json:"cna"`
		ADP []struct {
			Affected []letterEntry `json:"affected"`
		} `json:"adp"`
	} `json:"containers"`
}

type letterEntry struct {
	Product  string `json:"product"`
	Default  string `json:"defaultStatus"`
	Versions []struct {
		Version, Status, VersionType, LessThan, LessThanOrEqual string
		Changes                                                 []struct{ At, Status string }
	} `json:"versions"`
}

// letterVersion is a kernel's number: up to four numbers and the number of the release candidate, which is endless for
// the release itself.
type letterVersion [5]int

var letterForm = regexp.MustCompile(`^v?(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:\.(\d+))?(?:[-~_]rc(\d+))?$`)

var letterRead = map[string]*letterVersion{} // what was read before; nil: no version

func letterParse(s string) (letterVersion, bool) {
	if v, known := letterRead[s]; known {
		if v == nil {
			return letterVersion{}, false
		}
		return *v, true
	}
	m := letterForm.FindStringSubmatch(s)
	if m == nil {
		letterRead[s] = nil
		return letterVersion{}, false
	}
	v := letterVersion{4: math.MaxInt}
	defer func() { letterRead[s] = &v }()
	for i, text := range m[1:] {
		if n, err := strconv.Atoi(text); err == nil {
			v[i] = n
		}
	}
	return v, true
}

// letterEnd reads the end of a range; a star is endless at its place.
func letterEnd(s string) (letterVersion, bool) {
	head, star := strings.CutSuffix(s, "*")
	if !star {
		return letterParse(s)
	}
	v := letterVersion{math.MaxInt, math.MaxInt, math.MaxInt, math.MaxInt, math.MaxInt}
	for i, text := range strings.Split(strings.TrimSuffix(head, "."), ".") {
		if text == "" {
			break
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return v, false
		}
		v[i] = n
	}
	return v, true
}

func (v letterVersion) compare(w letterVersion) int { return slices.Compare(v[:], w[:]) }

// status is what the entry says about a version. whole says that every version in it could be read, and numbers that any could.
func (a letterEntry) status(v letterVersion) (status string, whole, numbers bool) {
	whole, numbers = true, len(a.Versions) == 0
	for _, e := range a.Versions {
		low, ok := letterParse(e.Version)
		if e.VersionType == "git" || !ok {
			whole = false
			continue
		}
		numbers = true
		in := low.compare(v) == 0
		if text := e.LessThan + e.LessThanOrEqual; text != "" {
			high, ok := letterEnd(text)
			if !ok || e.LessThan == e.Version {
				whole = false
				continue
			}
			in = low.compare(v) <= 0 && (v.compare(high) < 0 || e.LessThanOrEqual != "" && v.compare(high) == 0)
		}
		if in && status == "" {
			status = e.Status
			for _, c := range e.Changes {
				if at, ok := letterParse(c.At); ok && at.compare(v) <= 0 {
					status = c.Status
				}
			}
		}
	}
	if status == "" {
		status = a.Default
	}
	if status == "" {
		status = "unknown"
	}
	return status, whole, numbers
}

// letterJudge returns the status of the version of a kernel, and whether any entry could be read at all.
func letterJudge(r letterRecord, version string) (string, bool) {
	v, ok := letterParse(version)
	if !ok {
		return "", false
	}
	answer, any := "unaffected", false
	for _, a := range r.Containers.CNA.Affected {
		status, _, numbers := a.status(v)
		any = any || numbers
		if numbers && status == "affected" {
			answer = "affected"
		}
	}
	return answer, any
}

// knownDifferences are where we depart from the letter, with the reason; docs/reference/matching.md repeats them.
var knownDifferences = map[string]string{
	"CVE-2024-26794": "ranges that end before they begin (6.6.24 to below 6.6.21): between the two ends we say unknown, the letter unaffected",
}

// TestKernelAgreesWithTheLetter compares both readings of all real kernel records, at every version that any of them
// names, and at its neighbours.
func TestKernelAgreesWithTheLetter(t *testing.T) {
	var records []letterRecord
	judges := map[string]Judge{}
	versions := map[string]bool{"2.6.12": true, "3.0": true, "4.19.0": true, "6.12-rc1": true, "6.12": true, "7.0": true}
	for id, doc := range cveList(t) {
		var r letterRecord
		if err := json.Unmarshal(doc, &r); err != nil {
			t.Fatal(err)
		}
		if r.Containers.CNA.Provider.Name != "Linux" {
			continue
		}
		ours := parsed(t, doc)
		for _, c := range ours.Claims() {
			if c.Space == sbom.SpaceKernel {
				j, err := Compile(c.Space, c.Body)
				if err != nil {
					t.Fatal(err)
				}
				judges[id] = j
			}
		}
		records = append(records, r)
		for _, a := range r.Containers.CNA.Affected {
			for _, e := range a.Versions {
				for _, text := range []string{e.Version, e.LessThan, e.LessThanOrEqual} {
					around(versions, strings.TrimSuffix(text, ".*"))
				}
			}
		}
	}
	if len(records) != 633 || len(judges) != 633 {
		t.Fatalf("%d kernel records, %d of them with a claim about the kernel; want 633", len(records), len(judges))
	}
	slices.SortFunc(records, func(a, b letterRecord) int { return strings.Compare(a.Metadata.ID, b.Metadata.ID) })
	list := slices.Sorted(maps.Keys(versions))
	compared, affected, different := 0, 0, map[string]int{}
	for i, r := range records {
		for k, version := range list {
			if (i+k)%3 != 0 { // each version against a third of the records
				continue
			}
			want, any := letterJudge(r, version)
			if !any {
				continue
			}
			got := judges[r.Metadata.ID].Judge(kernel(version))
			compared++
			if got.State == StateAffected {
				affected++
			}
			if same := map[State]string{StateAffected: "affected", StateClean: "unaffected"}[got.State] == want; !same {
				if different[r.Metadata.ID]++; different[r.Metadata.ID] == 1 && knownDifferences[r.Metadata.ID] == "" {
					t.Errorf("%s, %s: %+v; by the letter %s", r.Metadata.ID, version, got, want)
				}
			}
		}
	}
	t.Logf("%d records at %d versions: %d comparisons, %d affected, differences %v", len(records), len(list), compared, affected, different)
	if len(list) < 2000 || compared < 400_000 || affected < 100_000 {
		t.Error("the comparison proves too little")
	}
	for id := range knownDifferences {
		if different[id] == 0 {
			t.Errorf("%s does not differ any more: the reference says otherwise", id)
		}
	}
}

// TestEntriesAgreeWithTheLetter compares both readings of every entry of all real records that has numbers only, those of
// CISA's additions among them. They differ in one thing: what is not affected for us because the record gives no default
// is unknown by the letter.
func TestEntriesAgreeWithTheLetter(t *testing.T) {
	entries, compared, silent := 0, 0, 0
	for id, doc := range cveList(t) {
		var r letterRecord
		if err := json.Unmarshal(doc, &r); err != nil {
			t.Fatal(err)
		}
		ours := parsed(t, doc)
		theirs := [][]letterEntry{r.Containers.CNA.Affected}
		for _, c := range r.Containers.ADP {
			theirs = append(theirs, c.Affected)
		}
		for i, list := range theirs {
			for k, a := range list {
				if _, whole, _ := a.status(letterVersion{}); !whole || id == "CVE-2024-26794" {
					continue
				}
				entries++
				versions := map[string]bool{"1.0": true, "99.0": true}
				for _, e := range a.Versions {
					for _, text := range []string{e.Version, e.LessThan, e.LessThanOrEqual} {
						around(versions, strings.TrimSuffix(text, ".*"))
					}
				}
				e := ours.containers[i].Affected[k]
				mine := compileVersions(e.Versions, e.DefaultStatus, i == 0)
				for version := range versions {
					v, ok := letterParse(version)
					if !ok {
						t.Fatalf("%s: %s", id, version)
					}
					want, _, _ := a.status(v)
					got := mine.judge(&reading{text: version})
					compared++
					switch {
					case want == "unknown" && got.State == StateClean && (a.Default == "" || i > 0):
						silent++
					case got.State != map[string]State{"affected": StateAffected, "unaffected": StateClean, "unknown": StateUnknown}[want]:
						t.Errorf("%s, author %d, %s %s: %+v; by the letter %s", id, i, a.Product, version, got, want)
					}
				}
			}
		}
	}
	t.Logf("%d entries, %d comparisons, %d times silent", entries, compared, silent)
	if entries < 800 || compared < 50_000 || silent == 0 {
		t.Error("the comparison proves too little")
	}
}

// around adds a version with its neighbours: the patch before and after, and release candidates of it.
func around(versions map[string]bool, text string) {
	v, ok := letterParse(text)
	if !ok || v[0] == 0 {
		return
	}
	text = strings.TrimPrefix(text, "v")
	versions[text] = true
	switch {
	case v[4] != math.MaxInt || v[3] != 0:
	case v[2] > 0:
		for _, n := range []int{v[2] - 1, v[2] + 1} {
			versions[fmt.Sprintf("%d.%d.%d", v[0], v[1], n)] = true
		}
	default:
		for _, s := range []string{"-rc1", "-rc7", ".0", ".1", ".2"} {
			versions[fmt.Sprintf("%d.%d%s", v[0], v[1], s)] = true
		}
		for _, n := range []int{3, 7, 20, 50, 80, 99, 150, 200, 250, 300} { // along the stable branch before
			versions[fmt.Sprintf("%d.%d.%d", v[0], v[1]-min(1, v[1]), n)] = true
		}
	}
}
