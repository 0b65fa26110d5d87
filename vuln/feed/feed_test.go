// SPDX-License-Identifier: AGPL-3.0-only

package feed

import (
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/realdata"
)

func TestHostileFeedsAreRefused(t *testing.T) {
	pack := func(files ...string) []byte { return packed(t, files...) }
	good := pack("A.json", `{"id":"A"}`, "B.json", `{"id":"B"}`)
	if f, err := Open(bytes.NewReader(good), int64(len(good))); err != nil || f.Records != 2 {
		t.Fatalf("a good feed: %v", err)
	}
	for name, c := range map[string]struct {
		doc []byte
		say string
	}{
		"empty":          {nil, "empty"},
		"no record":      {pack("readme.txt", "x"), "no record"},
		"cut":            {good[:len(good)-30], "whole zip"},
		"one broken":     {pack("A.json", `{"id":"A"}`, "B.json", `{"id":`), "B.json"},
		"outside":        {pack("../A.json", `{"id":"A"}`), "outside"},
		"twice the name": {pack("A.json", `{"id":"A"}`, "A.json", `{"id":"B"}`), "two files"},
		"twice the id":   {pack("A.json", `{"id":"A"}`, "B.json", `{"id":"A","summary":"other"}`), "two records"},
		"bomb":           {pack("A.json", `{"id":"A","details":"`+strings.Repeat("a", 8<<20)+`"}`), "at most"},
		"half a KEV":     {pack("kev.json", `{"catalogVersion":"1","count":2,"vulnerabilities":[{"cveID":"CVE-2024-1","dateAdded":"2024-01-01"}]}`), "says it has 2"},
		"KEV date":       {pack("kev.json", `{"catalogVersion":"1","count":1,"vulnerabilities":[{"cveID":"CVE-2024-1","dateAdded":"soon"}]}`), "date"},
		"prose":          {[]byte("hello"), "the file: "},
		"a bill":         {[]byte(`{"bomFormat":"CycloneDX","specVersion":"1.6"}`), "the file: it is neither an OSV record nor one of the CVE list"},
	} {
		if _, err := Open(bytes.NewReader(c.doc), int64(len(c.doc))); err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v, want %q", name, err, c.say)
		}
	}
}

// packed writes a zip of names and contents in turn.
func packed(t testing.TB, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		w, err := z.Create(files[i])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(files[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func FuzzFeed(f *testing.F) {
	f.Add([]byte(`{"catalogVersion":"2025.08.25","count":1,"vulnerabilities":[{"cveID":"CVE-2023-44487","dateAdded":"2023-10-10"}]}`))
	f.Add([]byte(`{"id":"A"}`))
	f.Add([]byte("PK\x03\x04"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		feed, err := Open(bytes.NewReader(doc), int64(len(doc)))
		if err == nil && feed.Records == 0 && feed.KEV == nil {
			t.Fatal("an empty feed was taken")
		}
		if err != nil && problem.Of(err).Kind == problem.KindInternal {
			t.Fatalf("not a clear refusal: %v", err)
		}
	})
}

func TestRealCatalogue(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(realdata.Dir(t), "vuln/kev.json"))
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParseKEV(b)
	if err != nil || len(k.Entries) != 1404 || kindOf(b) != kindKEV {
		t.Fatalf("%d entries, %v", len(k.Entries), err)
	}
	if _, err := ParseKEV(b[:len(b)/2]); err == nil {
		t.Fatal("half a catalogue was taken for a whole one")
	}
}
