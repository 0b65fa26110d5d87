// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestEveryFactHasItsGoodAndItsBadDocument takes one thing after the other out of a document that lacks nothing.
func TestEveryFactHasItsGoodAndItsBadDocument(t *testing.T) {
	good, err := os.ReadFile("testdata/good.cdx.json")
	if err != nil {
		t.Fatal(err)
	}
	whole := fixture(t, "good.cdx.json").Quality()
	if whole.Grade != GradeComplete || len(whole.Missing) != 0 || len(whole.Facts) != 23 {
		t.Fatalf("the good document: %+v", whole)
	}
	bad := map[string]struct{ old, new string }{
		"bsi.format":             {`"specVersion":"1.6"`, `"specVersion":"1.5"`},
		"bsi.no-vulnerabilities": {`"version":1,`, `"version":1,"vulnerabilities":[{"id":"CVE-2026-0001"}],`},
		"bsi.sbom-creator":       {`"contact":[{"email":"security@lamp.example"}]`, `"contact":[]`},
		"bsi.timestamp":          {`"timestamp":"2026-11-01T08:00:00Z",`, ``},
		"bsi.primary":            {`"name":"lamp","version":"1.0"`, `"name":"lamp"`},
		"bsi.completeness":       {`"aggregate":"complete"`, `"aggregate":"not_specified"`},
		"bsi.component-creator":  {`"url":["https://curl.se"]`, `"url":[]`},
		"bsi.component-version":  {`"name":"curl","version":"8.4.0"`, `"name":"curl"`},
		"bsi.filename":           {`"bsi:component:filename"`, `"x"`},
		"bsi.dependencies":       {`"dependsOn":["curl"]`, `"dependsOn":[]`},
		"bsi.licences":           {`{"id":"curl"}`, `{"name":"MIT-like"}`},
		"bsi.hash":               {`"alg":"SHA-512"`, `"alg":"SHA-1"`},
		"bsi.executable":         {`"bsi:component:executable"`, `"x"`},
		"bsi.archive":            {`"bsi:component:archive"`, `"x"`},
		"bsi.structured":         {`"bsi:component:structured"`, `"x"`},
		"bsi.identifiers":        {`"cpe":"cpe:2.3:a:haxx:curl:8.4.0:*:*:*:*:*:*:*",`, ``},
		"ntia.supplier":          {`"name":"The curl project",`, `"name":"",`},
		"ntia.component-name":    {`"name":"curl"`, `"name":""`}, // refused altogether
		"ntia.author":            {`"manufacturer":{"name":"Lamp GmbH","contact":[{"email":"security@lamp.example"}]},`, ``},
	}
	same := map[string]string{"ntia.component-version": "bsi.component-version", "ntia.identifiers": "bsi.identifiers",
		"ntia.dependencies": "bsi.dependencies", "ntia.timestamp": "bsi.timestamp"}
	for _, f := range whole.Facts {
		name := f.Name
		if same[name] != "" {
			name = same[name]
		}
		cut, ok := bad[name]
		if !ok || !strings.Contains(string(good), cut.old) {
			t.Errorf("%s has no bad document", f.Name)
			continue
		}
		b, err := Parse([]byte(strings.Replace(string(good), cut.old, cut.new, 1)))
		if name == "ntia.component-name" {
			if err == nil {
				t.Errorf("a part without a name was read")
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: a bad document is graded, never refused: %v", f.Name, err)
			continue
		}
		q := b.Quality()
		i := slices.IndexFunc(q.Facts, func(x Fact) bool { return x.Name == f.Name })
		if q.Facts[i].Given() || q.Facts[i].Has >= q.Facts[i].Of || q.Grade == GradeComplete || !slices.Contains(q.Missing, q.Facts[i].Missing) {
			t.Errorf("%s is not missed: %+v in %+v", f.Name, q.Facts[i], q)
		}
		for _, other := range q.Facts {
			list, _, _ := strings.Cut(f.Name, ".")
			if strings.HasPrefix(other.Name, list+".") && other.Name != f.Name && !other.Given() {
				t.Errorf("without %s, %s is missed too: %s", f.Name, other.Name, other.Missing)
			}
		}
	}
	for _, list := range []string{ListBSI, ListNTIA} {
		if facts, given := whole.List(list); given != len(facts) || given < 7 {
			t.Errorf("%s: %d of %d", list, given, len(facts))
		}
	}
}

func TestGradesAreInOrder(t *testing.T) {
	var got []string
	for _, g := range Grades {
		got = append(got, fmt.Sprint(g, " ", g.AtLeast(GradeUsable)))
	}
	if s := strings.Join(got, ", "); s != "not-matchable false, partial false, usable true, complete true" {
		t.Errorf("%s", s)
	}
}
