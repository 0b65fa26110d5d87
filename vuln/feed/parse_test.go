// SPDX-License-Identifier: AGPL-3.0-only

package feed

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/realdata"
)

const scoreHead = "#model_version:v2025.03.14,score_date:2026-05-18T12:55:00Z\ncve,epss,percentile\n"

func gzipped(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestScores(t *testing.T) {
	text := scoreHead + "CVE-2024-0002,0.00046,0.1385\nCVE-1999-0001,1,1.0\n"
	for _, doc := range [][]byte{[]byte(text), gzipped(t, text), []byte(strings.ReplaceAll(text, "\n", "\r\n"))} {
		e, err := ParseEPSS(bytes.NewReader(doc))
		if err != nil {
			t.Fatal(err)
		}
		want := []Score{{1999, 1, 100_000, 100_000}, {2024, 2, 46, 13_850}}
		if e.Model != "v2025.03.14" || !e.Date.Equal(time.Date(2026, 5, 18, 12, 55, 0, 0, time.UTC)) || fmt.Sprint(e.Scores) != fmt.Sprint(want) {
			t.Fatalf("%+v", e)
		}
	}
	for name, doc := range map[string][]byte{
		"cut in a line":     []byte(text[:len(text)-3]),
		"cut gzip":          gzipped(t, text)[:40],
		"no head":           []byte("cve,epss,percentile\nCVE-2024-0001,0.1,0.1\n"),
		"no date":           []byte("#model_version:v1\ncve,epss,percentile\nCVE-2024-0001,0.1,0.1\n"),
		"other columns":     []byte(strings.Replace(text, "cve,epss", "epss,cve", 1)),
		"no scores":         []byte(scoreHead),
		"above one":         []byte(scoreHead + "CVE-2024-0001,1.1,0.1\n"),
		"below zero":        []byte(scoreHead + "CVE-2024-0001,-0.1,0.1\n"),
		"not a number":      []byte(scoreHead + "CVE-2024-0001,NaN,0.1\n"),
		"no CVE":            []byte(scoreHead + "GHSA-1,0.1,0.1\n"),
		"a number too long": []byte(scoreHead + "CVE-2024-99999999999,0.1,0.1\n"),
		"four columns":      []byte(scoreHead + "CVE-2024-0001,0.1,0.1,x\n"),
		"twice":             []byte(scoreHead + "CVE-2024-0001,0.1,0.1\nCVE-2024-0001,0.2,0.1\n"),
		"a page":            []byte("<html>\n"),
		"a bomb":            gzipped(t, scoreHead+strings.Repeat("a", 1<<20)),
	} {
		if e, err := ParseEPSS(bytes.NewReader(doc)); err == nil || problem.Of(err).Kind == problem.KindInternal {
			t.Errorf("%s: %+v %v", name, e, err)
		}
	}
}

const euvd = `[{"id":"EUVD-2025-0001","aliases":"CVE-2025-0001\nGHSA-aaaa-bbbb-cccc\n","exploitedSince":"Oct 30, 2025, 12:00:00 AM"},
	{"id":"EUVD-2025-0002","aliases":"GHSA-aaaa-bbbb-dddd\n","exploitedSince":"Nov 1, 2025, 3:04:05 PM"}]`

func TestEUVD(t *testing.T) {
	for _, doc := range []string{euvd, `{"total":2,"items":` + euvd + `}`} {
		list, err := ParseEUVD([]byte(doc))
		if err != nil || fmt.Sprint(list) != "[{EUVD CVE-2025-0001 EUVD-2025-0001 2025-10-30}]" {
			t.Fatalf("%+v %v", list, err)
		}
		if f, err := Open(strings.NewReader(doc), int64(len(doc))); err != nil || len(f.Exploited) != 1 {
			t.Fatalf("as a feed: %v", err)
		}
	}
	for name, doc := range map[string]string{
		"a page of more":   `{"total":3,"items":` + euvd + `}`,
		"cut":              euvd[:100],
		"no date":          strings.Replace(euvd, "Oct 30, 2025, 12:00:00 AM", "soon", 1),
		"another database": strings.Replace(euvd, "EUVD-2025-0001", "XYZ-1", 1),
	} {
		if _, err := ParseEUVD([]byte(doc)); err == nil || problem.Of(err).Kind == problem.KindInternal {
			t.Errorf("%s: %v", name, err)
		}
	}
}

const advisory = `{"document":{"category":"csaf_security_advisory","csaf_version":"2.0","publisher":{"namespace":"https://acme.example"},
	"tracking":{"id":"ACME-2026-1","version":"1","current_release_date":"2026-11-01T10:00:00Z"}}}`

func TestCSAFIsTold(t *testing.T) {
	f, err := Open(strings.NewReader(advisory), int64(len(advisory)))
	if err != nil || len(f.CSAF) != 1 || f.CSAF[0].ID != "ACME-2026-1" || f.Records != 0 {
		t.Fatalf("%+v %v", f, err)
	}
	if b, err := f.CSAF[0].Read(); err != nil || string(b) != advisory {
		t.Fatalf("its bytes: %v", err)
	}
	for _, doc := range []string{strings.Replace(advisory, `"2.0"`, `"1.9"`, 1), strings.Replace(advisory, "ACME-2026-1", "no id", 1), strings.Replace(advisory, "https://acme.example", "", 1), advisory[:90]} {
		if _, err := Open(strings.NewReader(doc), int64(len(doc))); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("%s: %v", doc, err)
		}
	}
}

// A record that speaks of catalogues and advisories stays a record.
func TestRecordsAreNotMistaken(t *testing.T) {
	doc := `{"id":"A","details":"\"catalogVersion\" \"csaf_version\" \"exploitedSince\"","catalogVersion":"1"}`
	if f, err := Open(strings.NewReader(doc), int64(len(doc))); err != nil || f.Records != 1 {
		t.Fatalf("%v", err)
	}
}

// One record in the archives of two ecosystems is one record; with two contents, the later one counts.
func TestOneRecordInTwoArchives(t *testing.T) {
	dir := t.TempDir()
	put := func(name, doc string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), packed(t, "A.json", doc), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("go.zip", `{"id":"A","modified":"2026-01-01T00:00:00Z"}`)
	put("npm.zip", `{"id":"A","modified":"2026-01-01T00:00:00Z"}`)
	f, err := OpenPath(dir)
	if err != nil || f.Records != 1 {
		t.Fatalf("%v", err)
	}
	f.Close()
	for _, modified := range [][2]string{{"2026-01-02", "2026-01-01"}, {"2026-01-01", "2026-01-02"}} {
		put("go.zip", `{"id":"A","modified":"`+modified[0]+`T00:00:00Z"}`)
		put("npm.zip", `{"id":"A","modified":"`+modified[1]+`T00:00:00Z"}`)
		f, err := OpenPath(dir)
		if err != nil || f.Records != 1 || f.files[0].modified != "2026-01-02T00:00:00Z" {
			t.Fatalf("%v: %v", modified, err)
		}
		f.Close()
	}
}

// The CVE list is published as an archive in an archive; a third one inside is a bomb.
func TestArchiveInAnArchive(t *testing.T) {
	inner := packed(t, "cves/A.json", `{"id":"A"}`)
	outer := packed(t, "cves.zip", string(inner))
	f, err := Open(bytes.NewReader(outer), int64(len(outer)))
	if err != nil || f.Records != 1 {
		t.Fatalf("%v", err)
	}
	defer f.Close()
	bomb := packed(t, "a.zip", string(outer))
	if _, err := Open(bytes.NewReader(bomb), int64(len(bomb))); !problem.Is(err, problem.KindInvalid) {
		t.Fatalf("three deep: %v", err)
	}
}

func TestRealRecords(t *testing.T) {
	dir := filepath.Join(realdata.Dir(t), "vuln")
	f, err := OpenPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Records != 3809+727 || f.KEV == nil || len(f.KEV.Entries) != 1404 {
		t.Fatalf("%d records, KEV %v", f.Records, f.KEV != nil)
	}
}

func FuzzEPSS(f *testing.F) {
	f.Add([]byte(scoreHead + "CVE-2024-0001,0.1,0.1\n"))
	f.Add(gzipped(f, scoreHead+"CVE-2024-0001,0.1,0.1\n"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		e, err := ParseEPSS(bytes.NewReader(doc))
		if err == nil && (len(e.Scores) == 0 || e.Model == "" || e.Date.IsZero()) {
			t.Fatal("scores without a model, a date or themselves")
		}
		if err != nil && problem.Of(err).Kind == problem.KindInternal {
			t.Fatalf("not a clear refusal: %v", err)
		}
	})
}

func FuzzEUVD(f *testing.F) {
	f.Add([]byte(euvd))
	f.Add([]byte(`{"total":2,"items":` + euvd + `}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		list, err := ParseEUVD(doc)
		for _, l := range list {
			if !isCVE(l.CVE) {
				t.Fatalf("%q is listed", l.CVE)
			}
		}
		if err != nil && problem.Of(err).Kind == problem.KindInternal {
			t.Fatalf("not a clear refusal: %v", err)
		}
	})
}

func FuzzProviderLists(f *testing.F) {
	f.Add([]byte(`{"feed":{"entry":[{"updated":"2026-11-01T10:00:00Z","content":{"src":"https://acme.example/1.json"},"link":[{"rel":"hash","href":"https://acme.example/1.json.sha512"}]}]}}`))
	f.Add([]byte("2026/acme-2026-1.json\n"))
	f.Add([]byte("\"2026/acme-2026-1.json\",\"2026-11-01T10:00:00Z\"\n"))
	f.Add([]byte(advisory))
	f.Fuzz(func(t *testing.T, doc []byte) {
		docs, err1 := parseROLIE("https://acme.example/feed.json", doc)
		for _, d := range docs {
			if _, err := checkURL(d.address); err != nil {
				t.Fatalf("a document at %q", d.address)
			}
		}
		names, err2 := indexed(string(doc))
		for _, n := range names {
			if strings.Contains(n, "..") && strings.HasPrefix(filepath.Clean(n), "..") {
				t.Fatalf("a name outside: %q", n)
			}
		}
		_, err3 := parseChanges(doc)
		_, err4 := parseCSAF(doc)
		for _, err := range []error{err1, err2, err3, err4} {
			if err != nil && problem.Of(err).Kind == problem.KindInternal {
				t.Fatalf("not a clear refusal: %v", err)
			}
		}
	})
}
