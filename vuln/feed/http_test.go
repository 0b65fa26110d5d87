// SPDX-License-Identifier: AGPL-3.0-only

package feed

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
)

var day0 = time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)

// fetcher reads over the real network of this machine.
func fetcher(t *testing.T) (*Fetcher, *clock.Hand) {
	t.Helper()
	hand := clock.NewHand(day0)
	return &Fetcher{Client: &http.Client{}, Clock: hand, Spool: filepath.Join(t.TempDir(), "spool")}, hand
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// brought is the feed of one look; nil when nothing changed.
func brought(t *testing.T, f *Fetcher, s Source, last Cursor) (*Feed, Cursor, error) {
	t.Helper()
	h, err := f.Gather(t.Context(), s, last)
	if err != nil || h == nil {
		return nil, last, err
	}
	t.Cleanup(func() { h.Close() })
	got, err := h.Feed()
	return got, h.Cursor, err
}

func TestServersThatMisbehave(t *testing.T) {
	good := packed(t, "A.json", `{"id":"A"}`)
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(tls.Close)
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request)
		kind   problem.Kind
		say    string
	}{
		"a body that breaks off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(good)))
			w.Write(good[:len(good)/2])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, problem.KindUnavailable, "broke off"},
		"a chunked body that breaks off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Write(good[:len(good)/2])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, problem.KindUnavailable, "broke off"},
		"half a file, stated as whole": {func(w http.ResponseWriter, _ *http.Request) { w.Write(good[:len(good)-10]) }, problem.KindInvalid, "whole zip"},
		"an error":                     {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", 500) }, problem.KindUnavailable, "500"},
		"nothing there":                {http.NotFound, problem.KindNotFound, "404"},
		"unchanged, but never seen":    {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(304) }, problem.KindUnavailable, "304"},
		"a page in place of a file":    {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>log in</html>") }, problem.KindInvalid, "record"},
		"packed on the way": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(good)
		}, problem.KindInvalid, "packs"},
		"a length beyond the bound": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(int64(MaxBytes)+1))
			w.Write(good)
		}, problem.KindTooLarge, "at most"},
		"a circle": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, 302) }, problem.KindUnavailable, "sends on"},
		"on to plain http elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://feeds.example/all.zip", 302)
		}, problem.KindForbidden, "without TLS"},
		"on to a certificate of nobody": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, tls.URL, 302) }, problem.KindUnavailable, "cannot be reached"},
	} {
		f, _ := fetcher(t)
		got, _, err := brought(t, f, Source{Kind: KindURL, Location: serve(t, c.answer) + "/all.zip"}, Cursor{})
		if got != nil || problem.Of(err).Kind != c.kind || !strings.Contains(problem.Of(err).Text, c.say) {
			t.Errorf("%s: %v, want %s %q", name, err, c.kind, c.say)
		}
	}
}

// A body without an end is read no further than the bound of its file.
func TestEndlessBodyIsCut(t *testing.T) {
	var sent atomic.Int64
	at := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		for {
			n, err := w.Write(bytes.Repeat([]byte("a"), 1<<16))
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	})
	f, _ := fetcher(t)
	if _, err := f.small(t.Context(), at+"/provider-metadata.json", maxMetadata); !problem.Is(err, problem.KindTooLarge) {
		t.Fatalf("an endless body: %v", err)
	}
	if names, err := filepath.Glob(filepath.Join(f.Spool, "*.json")); err != nil || len(names) > 0 {
		t.Fatalf("it is kept as if it were whole: %v %v", names, err)
	}
}

// A server that says nothing for a minute is given up; one that goes on slowly is not.
func TestQuietServerIsGivenUp(t *testing.T) {
	over := make(chan struct{})
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("PK"))
		w.(http.Flusher).Flush()
		select {
		case <-over:
		case <-r.Context().Done():
		}
	})
	defer close(over)
	f, hand := fetcher(t)
	went := make(chan error, 1)
	first := make(chan struct{})
	f.Progress = func(p Progress) {
		if p.Bytes > 0 {
			close(first)
		}
	}
	go func() {
		_, err := f.Gather(t.Context(), Source{Kind: KindURL, Location: at + "/all.zip"}, Cursor{})
		went <- err
	}()
	<-first
	waits := make(chan struct{})
	go func() {
		for { // the sign of life begins the wait anew
			hand.WaitTimers(1)
			select {
			case waits <- struct{}{}:
			case <-over:
				return
			}
		}
	}()
	for {
		select {
		case <-waits:
			hand.Advance(quiet)
		case err := <-went:
			if !problem.Is(err, problem.KindUnavailable) || !strings.Contains(err.Error(), "a minute") {
				t.Fatalf("a quiet server: %v", err)
			}
			return
		}
	}
}

// The second look asks with the marks of the first, and a change is found by content.
func TestUnchangedIsNotFetchedAgain(t *testing.T) {
	body := packed(t, "A.json", `{"id":"A"}`)
	var full, asked atomic.Int64
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("ETag", fmt.Sprintf(`"%d"`, len(body)))
		if r.Header.Get("If-None-Match") == w.Header().Get("ETag") {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		full.Add(1)
		w.Write(body)
	})
	f, _ := fetcher(t)
	src := Source{Kind: KindOSV, Location: at, Ecosystems: []string{"Go", "npm"}}
	got, cursor, err := brought(t, f, src, Cursor{})
	if err != nil || got.Records != 1 || full.Load() != 2 {
		t.Fatalf("first: %v, %d fetched", err, full.Load())
	}
	if err := f.Clear(); err != nil {
		t.Fatal(err)
	}
	if got, _, err := brought(t, f, src, cursor); got != nil || err != nil || full.Load() != 2 || asked.Load() != 4 {
		t.Fatalf("unchanged: %v, fetched %d of %d", err, full.Load(), asked.Load())
	}
	body = packed(t, "A.json", `{"id":"A","summary":"new"}`)
	got, _, err = brought(t, f, src, cursor)
	if err != nil || got == nil || full.Load() != 4 {
		t.Fatalf("changed: %v, %d fetched", err, full.Load())
	}
}

// Of a whole source all is read when one part changed: what it names no longer is told from all of it.
func TestWholeSourceIsReadWhole(t *testing.T) {
	etag := map[string]string{"/Go/all.zip": `"1"`, "/npm/all.zip": `"1"`}
	body := map[string][]byte{"/Go/all.zip": packed(t, "A.json", `{"id":"A"}`), "/npm/all.zip": packed(t, "B.json", `{"id":"B"}`)}
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", etag[r.URL.Path])
		if r.Header.Get("If-None-Match") == etag[r.URL.Path] {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Write(body[r.URL.Path])
	})
	f, _ := fetcher(t)
	src := Source{Kind: KindOSV, Location: at, Ecosystems: []string{"Go", "npm"}, Whole: true}
	_, cursor, err := brought(t, f, src, Cursor{})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Clear(); err != nil {
		t.Fatal(err)
	}
	etag["/npm/all.zip"], body["/npm/all.zip"] = `"2"`, packed(t, "C.json", `{"id":"C"}`)
	got, _, err := brought(t, f, src, cursor)
	if err != nil || !got.Whole || !got.Has("A") || got.Has("B") || !got.Has("C") {
		t.Fatalf("%+v %v", got, err)
	}
}

// What was whole on disk when the process died is asked for with its own mark and not fetched again.
func TestInterruptedLookGoesOn(t *testing.T) {
	var full atomic.Int64
	var broken atomic.Bool
	broken.Store(true)
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"`+r.URL.Path+`"`)
		if r.Header.Get("If-None-Match") == w.Header().Get("ETag") {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		if strings.HasPrefix(r.URL.Path, "/npm") && broken.Load() {
			panic(http.ErrAbortHandler) // the process dies between two files
		}
		full.Add(1)
		w.Write(packed(t, "A.json", `{"id":"A"}`))
	})
	f, hand := fetcher(t)
	src := Source{Kind: KindOSV, Location: at, Ecosystems: []string{"Go", "npm"}}
	if _, _, err := brought(t, f, src, Cursor{}); err == nil {
		t.Fatal("half a set was taken")
	}
	broken.Store(false)
	again := &Fetcher{Client: &http.Client{}, Clock: hand, Spool: f.Spool}
	got, _, err := brought(t, again, src, Cursor{})
	if err != nil || got.Records != 1 || full.Load() != 2 {
		t.Fatalf("%v, %d fetched, want 2", err, full.Load())
	}
}

func TestMirrorWithAnIndex(t *testing.T) {
	files := map[string]string{"/m/index.txt": "osv/A.json\nnotes.txt\n", "/m/osv/A.json": `{"id":"A"}`}
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if text, ok := files[r.URL.Path]; ok {
			io.WriteString(w, text)
			return
		}
		http.NotFound(w, r)
	})
	f, _ := fetcher(t)
	src := Source{Kind: KindMirror, Location: at + "/m/"}
	got, _, err := brought(t, f, src, Cursor{})
	if err != nil || got.Records != 1 {
		t.Fatalf("%v", err)
	}
	for text, say := range map[string]string{"../A.json": "outside", "osv/A.json\nosv/A.json\n": "twice", "notes.txt": "no file", "/etc/passwd": "outside"} {
		files["/m/index.txt"] = text
		if _, _, err := brought(t, f, src, Cursor{}); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("index %q: %v", text, err)
		}
	}
	src.Keys = []string{public(t, key(t))}
	if _, _, err := brought(t, f, src, Cursor{}); !problem.Is(err, problem.KindNotFound) {
		t.Errorf("a mirror with a key was read without a manifest: %v", err)
	}
}

func TestAddressesThatAreRefused(t *testing.T) {
	for _, at := range []string{"http://feeds.example/x", "ftp://feeds.example/x", "https://user:secret@feeds.example/", "file:///etc/passwd", "", "https://", "https://feeds.example/#x"} {
		if err := (Source{Kind: KindURL, Location: at}).Check(); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("%q: %v", at, err)
		}
	}
	for _, at := range []string{"https://feeds.example/x", "http://127.0.0.1:99/x", "http://[::1]/x", "http://localhost/x"} {
		if err := (Source{Kind: KindURL, Location: at}).Check(); err != nil {
			t.Errorf("%q: %v", at, err)
		}
	}
}

// From https no way leads back to http, not even to this machine.
func TestNoWayBackFromTLS(t *testing.T) {
	plain := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Write(packed(t, "A.json", `{"id":"A"}`)) })
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, plain, http.StatusFound) }))
	defer s.Close()
	f, _ := fetcher(t)
	f.Client = s.Client()
	if _, _, err := brought(t, f, Source{Kind: KindURL, Location: s.URL + "/all.zip"}, Cursor{}); !problem.Is(err, problem.KindForbidden) {
		t.Fatalf("%v", err)
	}
}

func TestFilesOfTheHost(t *testing.T) {
	f, _ := fetcher(t)
	src := Source{Kind: KindFile, Location: "osv"}
	if _, _, err := brought(t, f, src, Cursor{}); problem.Of(err).Rule != "feed.no-folder" {
		t.Fatalf("without a folder: %v", err)
	}
	f.Root = t.TempDir()
	write := func(name, text string) {
		t.Helper()
		at := filepath.Join(f.Root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("osv/Go/A.json", `{"id":"A"}`)
	write("osv/deltaLog.json", `[]`)
	got, cursor, err := brought(t, f, src, Cursor{})
	if err != nil || got.Records != 1 {
		t.Fatalf("%v", err)
	}
	if got, _, err := brought(t, f, src, cursor); got != nil || err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	write("osv/Go/A.json", `{"id":"A","summary":"x"}`)
	if got, _, err = brought(t, f, src, cursor); err != nil || got == nil {
		t.Fatalf("changed: %v", err)
	}
	secret := filepath.Join(t.TempDir(), "secret.json")
	if err := os.WriteFile(secret, []byte(`{"id":"S"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(f.Root, "link.json")); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"../secret.json", secret, "link.json"} {
		if _, _, err := brought(t, f, Source{Kind: KindFile, Location: at}, Cursor{}); err == nil {
			t.Errorf("%s was read", at)
		}
	}
}

func TestProgressIsTold(t *testing.T) {
	at := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Write(packed(t, "A.json", `{"id":"A"}`)) })
	f, _ := fetcher(t)
	var last Progress
	f.Progress = func(p Progress) { last = p }
	if _, _, err := brought(t, f, Source{Kind: KindOSV, Location: at, Ecosystems: []string{"Go"}}, Cursor{}); err != nil || last.Bytes == 0 || last.File != "Go/all.zip" {
		t.Fatalf("%+v %v", last, err)
	}
}

// A look that is called off ends, and leaves nothing that counts as whole.
func TestCancelledLook(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"1"`)
		w.Write([]byte("PK"))
		w.(http.Flusher).Flush()
		stop()
		<-r.Context().Done()
	})
	f, _ := fetcher(t)
	if _, err := f.Gather(ctx, Source{Kind: KindURL, Location: at + "/all.zip"}, Cursor{}); err == nil {
		t.Fatal("it went on")
	}
	u, _ := url.Parse(at)
	if names, _ := filepath.Glob(filepath.Join(f.Spool, "*.json")); len(names) > 0 {
		t.Fatalf("%s left %v", u.Host, names)
	}
}
