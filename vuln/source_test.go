// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/rand"

	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/update/trust"
	"github.com/openthings-platform/openthings/vuln/feed"
	"github.com/openthings-platform/openthings/vuln/vex"
)

// publisher serves one file, or fails as told.
type publisher struct {
	*httptest.Server
	mu    sync.Mutex // guards what follows
	body  []byte
	fail  int // status; 0: none
	cut   bool
	asked int
}

func publish(t *testing.T) *publisher {
	p := &publisher{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		body, fail, cut := p.body, p.fail, p.cut
		p.asked++
		p.mu.Unlock()
		if fail != 0 {
			http.Error(w, "no", fail)
			return
		}
		etag := fmt.Sprintf(`"%x"`, len(body))
		w.Header().Set("ETag", etag)
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		if cut {
			w.Write(body[:len(body)/2])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		w.Write(body)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *publisher) set(body []byte, fail int, cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.body, p.fail, p.cut = body, fail, cut
}

// eachFeeds is each with what feeds may reach in a test, and a listener for their alarms.
func eachFeeds(t *testing.T, fn func(h *house, told func() []string)) {
	each(t, func(h *house) {
		h.vuln.cfg.PrivateFeeds, h.vuln.cfg.FeedSpool, h.vuln.cfg.FeedDir = true, filepath.Join(h.TempDir(), "spool"), h.TempDir()
		var mu sync.Mutex
		var heard []string
		for _, topic := range []string{FeedStale, FeedGood} {
			h.db.On(topic, "test", func(_ context.Context, e store.Event) error {
				mu.Lock()
				defer mu.Unlock()
				heard = append(heard, e.Topic+" "+e.Subject)
				return nil
			})
		}
		fn(h, func() []string {
			mu.Lock()
			defer mu.Unlock()
			return append([]string{}, heard...)
		})
	})
}

func (h *house) source(name string) FeedSource {
	h.Helper()
	x, err := h.vuln.Source(h.Context(), "tnt_a", name)
	if err != nil {
		h.Fatal(err)
	}
	return x
}

func (h *house) put(name string, in SourceIn) FeedSource {
	h.Helper()
	x, err := h.vuln.PutSource(h.Context(), "tnt_a", "usr_1", name, in)
	if err != nil {
		h.Fatal(err)
	}
	return x
}

// due runs the jobs that are due at an instant.
func (h *house) due(at time.Time) {
	h.Helper()
	h.clock.Set(at)
	if _, err := h.db.RunDue(h.Context()); err != nil {
		h.Fatal(err)
	}
}

func (h *house) records() (n int64) {
	h.Helper()
	if err := h.db.QueryRow(h.Context(), `SELECT count(*) FROM vuln_record WHERE tenant = 'tnt_a' AND is_current = 1`).Scan(&n); err != nil {
		h.Fatal(err)
	}
	return n
}

// archive packs files of names and contents in turn.
func archive(t *testing.T, files ...string) []byte {
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

func TestSourceIsLookedAt(t *testing.T) {
	eachFeeds(t, func(h *house, _ func() []string) {
		p := publish(h.T)
		p.set(archive(h.T, "A.json", `{"id":"A"}`), 0, false)
		src := SourceIn{Source: feed.Source{Kind: feed.KindURL, Location: p.URL + "/all.zip"}, EveryMinutes: 60}
		if x := h.put("osv", src); x.State != SourceWaiting || !x.Next.Equal(day0) {
			h.Fatalf("%+v", x)
		}
		h.due(day0)
		x := h.source("osv")
		if x.State != SourceCurrent || x.Records != 1 || x.Digest == "" || !x.LastGood.Equal(day0) || !x.Next.Equal(day0.Add(time.Hour)) || len(x.Syncs) != 1 || x.Syncs[0].New != 1 {
			h.Fatalf("%+v", x)
		}
		// Not before its time; unchanged is a good look; what changed is found.
		h.due(day0.Add(59 * time.Minute))
		if p.asked != 1 {
			h.Fatalf("asked %d times", p.asked)
		}
		h.due(day0.Add(time.Hour))
		if x := h.source("osv"); x.Syncs[1].Outcome != "same" || !x.LastGood.Equal(day0.Add(time.Hour)) || x.Digest == "" {
			h.Fatalf("%+v", x)
		}
		p.set(archive(h.T, "A.json", `{"id":"A","summary":"x"}`, "B.json", `{"id":"B"}`), 0, false)
		h.due(day0.Add(2 * time.Hour))
		if x := h.source("osv"); x.Syncs[2].Outcome != "changed" || x.Syncs[2].New != 1 || x.Syncs[2].Changed != 1 || h.records() != 2 {
			h.Fatalf("%+v", x)
		}
		if _, err := h.vuln.SyncNow(h.Context(), "tnt_a", "osv"); err != nil {
			h.Fatal(err)
		}
		h.due(day0.Add(2*time.Hour + time.Minute))
		if x := h.source("osv"); len(x.Syncs) != 4 {
			h.Fatalf("not looked at when asked: %+v", x)
		}
		if _, err := h.vuln.Source(h.Context(), "tnt_b", "osv"); !problem.Is(err, problem.KindNotFound) {
			h.Fatalf("another tenant sees it: %v", err)
		}
		if err := h.vuln.DeleteSource(h.Context(), "tnt_a", "usr_1", "osv"); err != nil {
			h.Fatal(err)
		}
		h.due(day0.Add(24 * time.Hour))
		if p.asked != 4 || h.records() != 2 {
			h.Fatalf("a source that was removed was asked, or its records went: %d asked, %d records", p.asked, h.records())
		}
	})
}

// A feed that breaks off, or holds one broken record, changes nothing at all.
func TestHalfAFeedChangesNothing(t *testing.T) {
	eachFeeds(t, func(h *house, _ func() []string) {
		p := publish(h.T)
		p.set(archive(h.T, "A.json", `{"id":"A"}`), 0, false)
		h.put("osv", SourceIn{Source: feed.Source{Kind: feed.KindURL, Location: p.URL + "/all.zip"}, EveryMinutes: 60})
		h.due(day0)
		before := h.source("osv")
		for i, broken := range []struct {
			body []byte
			cut  bool
		}{
			{archive(h.T, "A.json", `{"id":"A"}`, "B.json", `{"id":"B"}`, "C.json", `{"id":"C"}`), true},
			{archive(h.T, "A.json", `{"id":"A"}`, "B.json", `{"id":"B"}`, "C.json", `{"id":"C`), false},
		} {
			p.set(broken.body, 0, broken.cut)
			h.due(h.source("osv").Next)
			x := h.source("osv")
			if h.records() != 1 || x.Digest != before.Digest || !x.LastGood.Equal(before.LastGood) || x.State != SourceFailing || x.Error == "" || x.Failures != int64(i+1) {
				h.Fatalf("%d records, %+v", h.records(), x)
			}
		}
		p.set(archive(h.T, "A.json", `{"id":"A"}`, "B.json", `{"id":"B"}`), 0, false)
		h.due(h.source("osv").Next)
		if x := h.source("osv"); h.records() != 2 || x.State != SourceCurrent || x.Error != "" || x.Failures != 0 {
			h.Fatalf("%d records, %+v", h.records(), x)
		}
	})
}

func TestBackOffAfterFailures(t *testing.T) {
	eachFeeds(t, func(h *house, _ func() []string) {
		p := publish(h.T)
		p.set(nil, 500, false)
		h.put("osv", SourceIn{Source: feed.Source{Kind: feed.KindURL, Location: p.URL + "/all.zip"}, EveryMinutes: 6 * 60})
		at := day0
		for _, wait := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360} {
			h.due(at)
			x := h.source("osv")
			if got := x.Next.Sub(at); got != wait*time.Minute || !strings.Contains(x.Error, "500") {
				h.Fatalf("after %d failures the next look is in %s, want %s; %q", x.Failures, got, wait*time.Minute, x.Error)
			}
			at = x.Next
		}
	})
}

// One outage of one source is told once, and its end once.
func TestStaleIsToldOnce(t *testing.T) {
	eachFeeds(t, func(h *house, told func() []string) {
		p := publish(h.T)
		p.set(archive(h.T, "A.json", `{"id":"A"}`), 0, false)
		h.put("osv", SourceIn{Source: feed.Source{Kind: feed.KindURL, Location: p.URL + "/all.zip"}, EveryMinutes: 60, StaleMinutes: 24 * 60})
		h.due(day0)
		p.set(nil, 503, false)
		for at := day0; at.Before(day0.Add(72 * time.Hour)); at = at.Add(30 * time.Minute) {
			h.due(at)
			if at.Equal(day0.Add(24*time.Hour)) && len(told()) > 0 {
				h.Fatalf("told too early: %v", told())
			}
		}
		if x := h.source("osv"); x.State != SourceStale || fmt.Sprint(told()) != "["+FeedStale+" osv]" {
			h.Fatalf("%s, told %v", x.State, told())
		}
		p.set(archive(h.T, "A.json", `{"id":"A"}`), 0, false)
		h.due(h.source("osv").Next)
		h.due(h.clock.Now().Add(time.Hour))
		if x := h.source("osv"); x.State != SourceCurrent || fmt.Sprint(told()) != "["+FeedStale+" osv "+FeedGood+" osv]" {
			h.Fatalf("%s, told %v", x.State, told())
		}
	})
}

func bundle(t *testing.T, key []byte, sequence int64, made time.Time, name, doc string) []byte {
	t.Helper()
	k, err := feed.ParseKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	files, end, err := feed.Files(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	var b bytes.Buffer
	if _, err := feed.WriteBundle(&b, k, feed.Manifest{Sequence: sequence, Made: made}, files); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func feedKey(t *testing.T) (key []byte, line string) {
	t.Helper()
	k, err := trust.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if key, err = trust.MarshalKey(k); err != nil {
		t.Fatal(err)
	}
	if line, err = feed.Public(k); err != nil {
		t.Fatal(err)
	}
	return key, line
}

func (h *house) upload(name string, b []byte) (Imported, error) {
	return h.vuln.Upload(h.Context(), "tnt_a", "usr_1", name, bytes.NewReader(b), int64(len(b)))
}

// A site without a network takes bundles in their order, refuses what nobody signed, and knows how old its newest is.
func TestBundlesOfASite(t *testing.T) {
	eachFeeds(t, func(h *house, told func() []string) {
		key, line := feedKey(h.T)
		one, two := bundle(h.T, key, 1, day0, "A.json", `{"id":"A"}`), bundle(h.T, key, 2, day0, "B.json", `{"id":"B"}`)
		if _, err := h.upload("site", one); problem.Of(err).Rule != feed.RuleUnsigned {
			h.Fatalf("a bundle was taken without a key: %v", err)
		}
		h.put("site", SourceIn{Source: feed.Source{Kind: feed.KindBundle, Keys: []string{line}}})
		if _, err := h.upload("site", archive(h.T, "A.json", `{"id":"A"}`)); problem.Of(err).Rule != feed.RuleUnsigned || h.records() != 0 {
			h.Fatalf("an archive was taken for a bundle: %v", err)
		}
		if _, err := h.upload("site", two); err != nil || h.records() != 1 {
			h.Fatalf("%d records, %v", h.records(), err)
		}
		if _, err := h.upload("site", two); err != nil {
			h.Fatalf("the same again: %v", err)
		}
		if _, err := h.upload("site", one); problem.Of(err).Rule != feed.RuleOlder {
			h.Fatalf("an older bundle: %v", err)
		}
		if _, err := h.upload("site", bundle(h.T, key, 2, day0, "C.json", `{"id":"C"}`)); problem.Of(err).Rule != feed.RuleOlder {
			h.Fatalf("another bundle of the same number: %v", err)
		}
		if x := h.source("site"); h.records() != 1 || x.Sequence != 2 || x.State != SourceFailing || x.Error == "" {
			h.Fatalf("%d records, %+v", h.records(), x)
		}
		if err := h.vuln.watchFeeds(h.Context()); err != nil {
			h.Fatal(err)
		}
		h.due(day0.Add(8 * 24 * time.Hour))
		if x := h.source("site"); x.State != SourceStale || x.BehindDays != 8 || fmt.Sprint(told()) != "["+FeedStale+" site]" {
			h.Fatalf("a week later: %+v, told %v", x, told())
		}
		err := h.db.View(h.Context(), func(tx *store.Tx) error {
			line, err := h.vuln.feedsLine(tx, "tnt_a")
			if !strings.Contains(line, "sha256:") || !strings.HasSuffix(line, "NOT up to date: site (last read 2026-11-01 09:00 UTC)") {
				h.Errorf("the evidence says %q", line)
			}
			return err
		})
		if err != nil {
			h.Fatal(err)
		}
		// A new bundle of old records does not make it good.
		if _, err := h.upload("site", bundle(h.T, key, 3, day0, "D.json", `{"id":"D"}`)); err != nil {
			h.Fatal(err)
		}
		h.due(day0.Add(8*24*time.Hour + time.Minute))
		if x := h.source("site"); x.State != SourceBehind || len(told()) != 1 {
			h.Fatalf("%s, told %v", x.State, told())
		}
		if _, err := h.upload("site", bundle(h.T, key, 4, h.clock.Now(), "E.json", `{"id":"E"}`)); err != nil {
			h.Fatal(err)
		}
		h.due(h.clock.Now().Add(time.Minute))
		if x := h.source("site"); x.State != SourceCurrent || len(told()) != 2 {
			h.Fatalf("%s, told %v", x.State, told())
		}
	})
}

// What a whole source leaves out is marked and stays: silence does not say that a fault is gone.
func TestVanishedRecordsStay(t *testing.T) {
	eachFeeds(t, func(h *house, _ func() []string) {
		p := publish(h.T)
		p.set(archive(h.T, "A.json", `{"id":"A"}`, "B.json", `{"id":"B"}`), 0, false)
		h.put("osv", SourceIn{Source: feed.Source{Kind: feed.KindURL, Location: p.URL + "/all.zip", Whole: true}, EveryMinutes: 60})
		h.due(day0)
		p.set(archive(h.T, "A.json", `{"id":"A"}`), 0, false)
		h.due(day0.Add(time.Hour))
		gone, err := h.vuln.Unnamed(h.Context(), "tnt_a", "osv")
		if x := h.source("osv"); err != nil || h.records() != 2 || x.Unnamed != 1 || !gone["B"].Equal(day0.Add(time.Hour)) {
			h.Fatalf("%d records, %+v %v", h.records(), gone, err)
		}
		p.set(archive(h.T, "A.json", `{"id":"A"}`, "B.json", `{"id":"B" }`), 0, false)
		h.due(day0.Add(2 * time.Hour))
		if x := h.source("osv"); x.Unnamed != 0 {
			h.Fatalf("%d are still marked", x.Unnamed)
		}
	})
}

// A process that dies in the middle of a look is followed by another that goes on; two never look at once.
func TestOneNodeLooksAndTheNextGoesOn(t *testing.T) {
	eachFeeds(t, func(h *house, _ func() []string) {
		p := publish(h.T)
		p.set(archive(h.T, "A.json", `{"id":"A"}`), 0, false)
		h.put("osv", SourceIn{Source: feed.Source{Kind: feed.KindURL, Location: p.URL + "/all.zip"}, EveryMinutes: 60})
		// Another node has begun, and dies.
		lease, ok, err := h.db.TakeLease(h.Context(), jobSync+" "+syncKey("tnt_a", "osv"), "dead", syncLease)
		if err != nil || !ok {
			h.Fatal(err)
		}
		h.vuln.alive(h.Context(), func() {}, h.source("osv"), lease).end()
		if x := h.source("osv"); x.State != SourceSyncing {
			h.Fatalf("%s while a node looks", x.State)
		}
		h.due(day0)
		if p.asked != 0 {
			h.Fatal("two nodes looked at once")
		}
		h.due(day0.Add(syncLease + time.Second))
		if x := h.source("osv"); x.State != SourceCurrent || h.records() != 1 {
			h.Fatalf("%d records, %+v", h.records(), x)
		}
	})
}

func TestScoresAreKept(t *testing.T) {
	eachFeeds(t, func(h *house, _ func() []string) {
		put := func(day int, rows ...string) {
			h.Helper()
			text := fmt.Sprintf("#model_version:v1,score_date:2026-11-%02dT00:00:00Z\ncve,epss,percentile\n", day)
			for _, r := range rows {
				text += r + "\n"
			}
			if _, err := h.upload("epss", []byte(text)); err != nil {
				h.Fatal(err)
			}
		}
		ask := func(cves ...string) map[string]EPSS {
			h.Helper()
			var out map[string]EPSS
			err := h.db.View(h.Context(), func(tx *store.Tx) (err error) {
				out, err = h.vuln.Scores(tx, "tnt_a", cves)
				return err
			})
			if err != nil {
				h.Fatal(err)
			}
			return out
		}
		if got := ask("CVE-2024-0001"); len(got) != 0 {
			h.Fatalf("before there are any: %v", got)
		}
		put(2, "CVE-2024-4095,0.00046,0.1385", "CVE-2024-4096,1,1", "CVE-2024-123456,0.5,0.9", "CVE-1999-0001,0.1,0.2")
		got := ask("CVE-2024-4095", "CVE-2024-4096", "CVE-2024-123456", "CVE-1999-0001", "CVE-2024-4097", "GHSA-1")
		if len(got) != 4 || got["CVE-2024-4095"].Probability != 0.00046 || got["CVE-2024-4096"].Percentile != 1 || got["CVE-2024-123456"].Probability != 0.5 || got["CVE-1999-0001"].Model != "v1" {
			h.Fatalf("%+v", got)
		}
		put(1, "CVE-2024-4095,0.9,0.9") // yesterday's, late
		if got := ask("CVE-2024-4095"); got["CVE-2024-4095"].Probability != 0.00046 {
			h.Fatalf("older scores replaced newer ones: %+v", got)
		}
		if _, err := h.upload("epss", []byte("#model_version:v1,score_date:2999-01-01T00:00:00Z\ncve,epss,percentile\nCVE-2024-4095,1,1\n")); !problem.Is(err, problem.KindInvalid) {
			h.Fatalf("scores of a day that is yet to come: %v", err)
		}
		put(3, "CVE-2024-4095,0.9,0.9")
		if got := ask("CVE-2024-4095", "CVE-2024-4096"); len(got) != 1 || got["CVE-2024-4095"].Probability != 0.9 {
			h.Fatalf("%+v", got)
		}
	})
}

func TestDocumentsBecomeStatements(t *testing.T) {
	eachFeeds(t, func(h *house, _ func() []string) {
		doc := func(id, version, more string) string {
			return `{"document":{"category":"csaf_vex","csaf_version":"2.0","title":"x","publisher":{"category":"vendor","name":"ACME","namespace":"https://acme.example"},
				"tracking":{"id":"` + id + `","version":"` + version + `","status":"final","initial_release_date":"2026-11-01T10:00:00Z","current_release_date":"2026-11-0` + version + `T10:00:00Z",
				"revision_history":[{"date":"2026-11-01T10:00:00Z","number":"1","summary":"x"}]}}` + more + `}`
		}
		said := `,"product_tree":{"full_product_names":[{"product_id":"P1","name":"lib 1.0","product_identification_helper":{"purl":"pkg:generic/lib@1.0"}}]},
			"vulnerabilities":[{"cve":"CVE-2026-0001","product_status":{"known_not_affected":["P1"]},"flags":[{"label":"component_not_present","product_ids":["P1"]}]}]`
		for i, version := range []string{"1", "1", "2"} {
			done, err := h.upload("acme", archive(h.T, "1.json", doc("ACME-1", version, said), "2.json", doc("ACME-2", version, `,"vulnerabilities":7`)))
			if err != nil || done.Documents != 1 || len(done.Unread) != 1 || !strings.HasPrefix(done.Unread[0], "ACME-2: ") {
				h.Fatalf("%d: %+v %v", i, done, err)
			}
		}
		list, err := h.vuln.TakenVEX(h.Context(), "tnt_a", "", 10)
		if err != nil || len(list) != 2 {
			h.Fatalf("%+v %v", list, err)
		}
		for _, x := range list {
			if x.Document != "ACME-1" || x.Origin != vex.Vendor || x.Current != (x.Version == "2") {
				h.Errorf("%+v", x)
			}
		}
	})
}

func TestSourcesThatAreRefused(t *testing.T) {
	each(t, func(h *house) {
		key := "openthings-feed+" // no whole key
		for name, c := range map[string]struct {
			name string
			in   SourceIn
			kind problem.Kind
		}{
			"a name":        {"OSV!", SourceIn{Source: feed.Source{Kind: feed.KindURL, Location: "https://feeds.example/x"}}, problem.KindInvalid},
			"a kind":        {"osv", SourceIn{Source: feed.Source{Kind: "ftp", Location: "https://feeds.example/x"}}, problem.KindInvalid},
			"plain http":    {"osv", SourceIn{Source: feed.Source{Kind: feed.KindURL, Location: "http://feeds.example/x"}}, problem.KindInvalid},
			"the inside":    {"osv", SourceIn{Source: feed.Source{Kind: feed.KindURL, Location: "https://127.0.0.1/x"}}, problem.KindForbidden},
			"a bundle":      {"osv", SourceIn{Source: feed.Source{Kind: feed.KindBundle}}, problem.KindInvalid},
			"a broken key":  {"osv", SourceIn{Source: feed.Source{Kind: feed.KindBundle, Keys: []string{key}}}, problem.KindInvalid},
			"ecosystems":    {"osv", SourceIn{Source: feed.Source{Kind: feed.KindOSV, Location: "https://feeds.example"}}, problem.KindInvalid},
			"too often":     {"osv", SourceIn{Source: feed.Source{Kind: feed.KindURL, Location: "https://feeds.example/x"}, EveryMinutes: 1}, problem.KindInvalid},
			"stale at once": {"osv", SourceIn{Source: feed.Source{Kind: feed.KindURL, Location: "https://feeds.example/x"}, EveryMinutes: 600, StaleMinutes: 100}, problem.KindInvalid},
			"a way out":     {"osv", SourceIn{Source: feed.Source{Kind: feed.KindFile, Location: "../secret"}}, problem.KindInvalid},
			"an upload":     {"osv", SourceIn{Source: feed.Source{Kind: KindUpload, Location: "x"}}, problem.KindInvalid},
		} {
			if _, err := h.vuln.PutSource(h.Context(), "tnt_a", "usr_1", c.name, c.in); problem.Of(err).Kind != c.kind {
				h.Errorf("%s: %v, want %s", name, err, c.kind)
			}
		}
		if _, err := h.vuln.SyncNow(h.Context(), "tnt_a", "osv"); !problem.Is(err, problem.KindNotFound) {
			h.Error(err)
		}
	})
}

// A name that turns to an address inside is stopped when it is called, not only when it is typed.
func TestInsideIsNotReachedByName(t *testing.T) {
	eachFeeds(t, func(h *house, _ func() []string) {
		p := publish(h.T)
		p.set(archive(h.T, "A.json", `{"id":"A"}`), 0, false)
		h.put("osv", SourceIn{Source: feed.Source{Kind: feed.KindURL, Location: p.URL + "/all.zip"}})
		h.vuln.cfg.PrivateFeeds = false
		h.due(day0)
		if x := h.source("osv"); p.asked != 0 || x.State != SourceFailing || h.records() != 0 {
			h.Fatalf("asked %d, %+v", p.asked, x)
		}
	})
}

// A list counts what it lists, and a catalogue whose version names a day of long ago is behind, however well it is read.
func TestCatalogueOfLongAgo(t *testing.T) {
	eachFeeds(t, func(h *house, _ func() []string) {
		catalogue := func(version string) []byte {
			return fmt.Appendf(nil, `{"catalogVersion":%q,"count":1,"vulnerabilities":[{"cveID":"CVE-2024-0001","dateAdded":"2024-01-01"}]}`, version)
		}
		for _, c := range []struct {
			version string
			state   SourceState
		}{
			{day0.Add(-29 * 24 * time.Hour).Format("2006.01.02"), SourceCurrent}, // CISA may be silent for a while
			{day0.Add(-32 * 24 * time.Hour).Format("2006.01.02"), SourceBehind},
			{"of our own", SourceCurrent},
		} {
			if _, err := h.upload("kev", catalogue(c.version)); err != nil {
				h.Fatal(err)
			}
			x := h.source("kev")
			if x.State != c.state || x.Catalogue != c.version || x.Records != 1 {
				h.Errorf("a catalogue of %s: %+v, want %s with 1 entry", c.version, x, c.state)
			}
		}
		if _, err := h.upload("kev", catalogue(day0.Add(-32*24*time.Hour).Format("2006.01.02"))); err != nil {
			h.Fatal(err)
		}
		err := h.db.View(h.Context(), func(tx *store.Tx) error {
			line, err := h.vuln.feedsLine(tx, "tnt_a")
			if !strings.HasSuffix(line, "NOT up to date: kev (32 days behind)") {
				h.Errorf("the evidence says %q", line)
			}
			return err
		})
		if err != nil {
			h.Fatal(err)
		}
	})
}
