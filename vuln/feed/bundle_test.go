// SPDX-License-Identifier: AGPL-3.0-only

package feed

import (
	"archive/zip"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/update/trust"
)

func key(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := trust.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func public(t testing.TB, k crypto.Signer) string {
	t.Helper()
	line, err := Public(k)
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// inMemory are files of names and contents in turn.
func inMemory(files ...string) (out []File) {
	for i := 0; i < len(files); i += 2 {
		out = append(out, fileOf(files[i], strings.NewReader(files[i+1]), 0, int64(len(files[i+1]))))
	}
	return out
}

func bundled(t testing.TB, k crypto.Signer, sequence int64, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := WriteBundle(&b, k, Manifest{Sequence: sequence, Made: day0}, inMemory(files...)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func open(b []byte, last int64, keys ...string) (*Feed, error) {
	return OpenBundle(bytes.NewReader(b), int64(len(b)), keys, last)
}

func TestBundleGoesRound(t *testing.T) {
	k := key(t)
	b := bundled(t, k, 7, "osv/Go/all.zip", string(packed(t, "A.json", `{"id":"A"}`, "B.json", `{"id":"B"}`)),
		"kev.json", `{"catalogVersion":"1","count":1,"vulnerabilities":[{"cveID":"CVE-2024-0001","dateAdded":"2024-01-01"}]}`,
		"epss.csv", "#model_version:v1,score_date:2026-11-01T00:00:00Z\ncve,epss,percentile\nCVE-2024-0001,0.5,0.9\n")
	f, err := open(b, 6, public(t, key(t)), public(t, k))
	if err != nil || f.Records != 2 || f.KEV == nil || f.EPSS == nil || f.Sequence != 7 {
		t.Fatalf("%+v %v", f, err)
	}
	if want := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC); !f.Made.Equal(want) {
		t.Errorf("made %s, want the age of its oldest part %s", f.Made, want)
	}
	if _, err := open(b, 7, public(t, k)); err != nil {
		t.Errorf("the same again: %v", err)
	}
	if !IsBundle(bytes.NewReader(b), int64(len(b))) {
		t.Error("it is not told from an archive")
	}
}

func refusedBy(t *testing.T, rule string, err error) {
	t.Helper()
	if problem.Of(err).Rule != rule {
		t.Fatalf("%v, want a refusal by %s", err, rule)
	}
}

func TestUnsignedBundleIsRefused(t *testing.T) {
	k := key(t)
	b := bundled(t, k, 7, "A.json", `{"id":"A"}`)
	_, err := open(b, 0, public(t, key(t)))
	refusedBy(t, RuleUnsigned, err)
	_, err = open(b, 0)
	refusedBy(t, RuleUnsigned, err)
	_, err = open(packed(t, "A.json", `{"id":"A"}`), 0, public(t, k))
	refusedBy(t, RuleUnsigned, err)
	stripped := rezipped(t, b, func(name string, body []byte) (string, []byte) {
		if name == ManifestName {
			text, _, _ := bytes.Cut(body, []byte("\n— "))
			return name, text
		}
		return name, body
	})
	_, err = open(stripped, 0, public(t, k))
	refusedBy(t, RuleUnsigned, err)
}

func TestOldBundleIsRefused(t *testing.T) {
	k := key(t)
	_, err := open(bundled(t, k, 7, "A.json", `{"id":"A"}`), 8, public(t, k))
	refusedBy(t, RuleOlder, err)
}

func TestAlteredBundleIsRefused(t *testing.T) {
	k := key(t)
	b := bundled(t, k, 7, "A.json", `{"id":"A"}`, "B.json", `{"id":"B"}`)
	for what, change := range map[string]func(name string, body []byte) (string, []byte){
		"a byte": func(name string, body []byte) (string, []byte) {
			return name, bytes.Replace(body, []byte(`{"id":"B"}`), []byte(`{"id":"C"}`), 1)
		},
		"a file less": func(name string, body []byte) (string, []byte) {
			if name == "B.json" {
				return "", nil
			}
			return name, body
		},
		"another name": func(name string, body []byte) (string, []byte) { return strings.Replace(name, "B.", "C.", 1), body },
		"longer":       func(name string, body []byte) (string, []byte) { return name, append(body, ' ') },
	} {
		_, err := open(rezipped(t, b, change), 0, public(t, k))
		if rule := problem.Of(err).Rule; rule != RuleAltered && (what != "longer" || rule != RuleUnsigned) {
			t.Errorf("%s: %v", what, err)
		}
	}
	added := rezipped(t, b, func(name string, body []byte) (string, []byte) { return name, body }, "D.json", `{"id":"D"}`)
	_, err := open(added, 0, public(t, k))
	refusedBy(t, RuleAltered, err)
	// The same bytes under another number: the text was signed, so nothing in it can be changed.
	renumbered := rezipped(t, b, func(name string, body []byte) (string, []byte) {
		return name, bytes.Replace(body, []byte(`"sequence": 7`), []byte(`"sequence": 9`), 1)
	})
	_, err = open(renumbered, 0, public(t, k))
	refusedBy(t, RuleUnsigned, err)
}

// Wherever a copy breaks off, nothing of it is taken.
func TestTruncatedBundleIsRefused(t *testing.T) {
	k := key(t)
	b := bundled(t, k, 7, "A.json", `{"id":"A"}`, "all.zip", string(packed(t, "B.json", `{"id":"B"}`)))
	for n := range b {
		if f, err := open(b[:n], 0, public(t, k)); err == nil {
			t.Fatalf("%d of %d bytes were taken: %+v", n, len(b), f)
		}
	}
}

func TestNoBundleIsMadeOfWhatIsRefused(t *testing.T) {
	k := key(t)
	for name, files := range map[string][]File{
		"broken":  inMemory("A.json", `{"id":`),
		"nothing": inMemory("readme.txt", "x"),
		"twice":   inMemory("A.json", `{"id":"A"}`, "A.json", `{"id":"A"}`),
		"outside": inMemory("../A.json", `{"id":"A"}`),
	} {
		if _, err := WriteBundle(io.Discard, k, Manifest{Sequence: 1, Made: day0}, files); err == nil {
			t.Errorf("%s: a bundle was made", name)
		}
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := WriteBundle(io.Discard, other, Manifest{Sequence: 1, Made: day0}, inMemory("A.json", `{"id":"A"}`)); err == nil {
		t.Error("a key of another kind signed")
	}
}

// A bundle becomes a mirror, a mirror a source: only what changed is fetched, and nothing that the manifest does not name.
func TestMirrorOfABundle(t *testing.T) {
	k, dir := key(t), t.TempDir()
	put := func(b []byte) {
		t.Helper()
		if _, err := WriteMirror(dir, bytes.NewReader(b), int64(len(b)), []string{public(t, k)}); err != nil {
			t.Fatal(err)
		}
	}
	put(bundled(t, k, 1, "osv/A.json", `{"id":"A"}`, "osv/B.json", `{"id":"B"}`))
	h, err := Serve(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	defer s.Close()
	f, _ := fetcher(t)
	src := Source{Kind: KindMirror, Location: s.URL, Keys: []string{public(t, k)}}
	got, first, err := brought(t, f, src, Cursor{})
	if err != nil || got.Records != 2 || got.Sequence != 1 {
		t.Fatalf("%+v %v", got, err)
	}
	if err := f.Clear(); err != nil {
		t.Fatal(err)
	}
	if got, _, err := brought(t, f, src, first); got != nil || err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	put(bundled(t, k, 2, "osv/A.json", `{"id":"A"}`, "osv/B.json", `{"id":"B","summary":"new"}`))
	got, second, err := brought(t, f, src, first)
	if err != nil || got.Records != 1 || !got.Has("B") || second.Sequence != 2 {
		t.Fatalf("changed: %+v %v", got, err)
	}
	if err := f.Clear(); err != nil {
		t.Fatal(err)
	}

	put(bundled(t, k, 1, "osv/A.json", `{"id":"A"}`))
	_, _, err = brought(t, f, src, second)
	refusedBy(t, RuleOlder, err)
	_, _, err = brought(t, f, Source{Kind: KindMirror, Location: s.URL, Keys: []string{public(t, key(t))}}, Cursor{})
	refusedBy(t, RuleUnsigned, err)
	if err := f.Clear(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "osv/A.json"), []byte(`{"id":"X"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err = brought(t, f, src, Cursor{})
	refusedBy(t, RuleAltered, err)
	for path, want := range map[string]int{"/osv/A.json": 200, "/MANIFEST": 200, "/osv/B.json": 404, "/osv/": 404, "/": 404, "/../http_test.go": 404} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "http://mirror"+path, nil))
		if w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
}

// rezipped writes an archive anew with its files changed, stored as the bundle stores them.
func rezipped(t testing.TB, b []byte, change func(name string, body []byte) (string, []byte), more ...string) []byte {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	put := func(name string, body []byte) {
		if err := store(w, name, day0, bytes.NewReader(body)); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range z.File {
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		if name, body := change(f.Name, body); name != "" {
			put(name, body)
		}
	}
	for i := 0; i < len(more); i += 2 {
		put(more[i], []byte(more[i+1]))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func FuzzManifest(f *testing.F) {
	k := key(f)
	signed, err := Manifest{Sequence: 1, Made: day0, Files: []Sealed{{Name: "A.json", Size: 10, SHA256: strings.Repeat("0", 64)}}}.Bytes(k)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed)
	f.Add([]byte(manifestHead + "{}\n\n— x AAAAAA==\n"))
	line := public(f, k)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseManifest(b, nil)
		if err == nil && m.check() != nil {
			t.Fatal("a manifest was taken that its own check refuses")
		}
		if _, err := ParseManifest(b, []string{line}); err == nil && !bytes.Contains(b, signed[:len(signed)-1]) && !bytes.HasPrefix(b, signed[:bytes.Index(signed, []byte("\n\n"))]) {
			t.Fatal("a text that the key never saw was taken for signed")
		}
	})
}

func FuzzBundle(f *testing.F) {
	k := key(f)
	f.Add(bundled(f, k, 1, "A.json", `{"id":"A"}`))
	line := public(f, k)
	f.Fuzz(func(t *testing.T, b []byte) {
		if feed, err := open(b, 0, line); err == nil && feed.Sequence != 1 {
			t.Fatal("a bundle that nobody signed was taken")
		} else if err != nil && problem.Of(err).Kind == problem.KindInternal {
			t.Fatalf("not a clear refusal: %v", err)
		}
	})
}
