// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/blob"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/vuln/feed"
	"github.com/openthings-platform/openthings/vuln/record"
)

var day0 = time.Date(2026, 11, 1, 9, 0, 0, 0, time.UTC)

// house is the part of the platform that a vulnerability passes through, with real neighbours.
type house struct {
	*testing.T
	db       *store.DB
	clock    *clock.Hand
	sbom     *sbom.Service
	fleet    *fleet.Service
	vuln     *Service
	releases map[string]Release // by tenant and id
	images   map[string]string  // digests, by release
	checks   map[string]string  // by release: the gate's last verdict and evidence
	mu       sync.Mutex         // jobs run beside each other
	signals  []Exploited
}

var houseSchema = []store.Migrations{audit.Schema, sbom.Schema, fleet.Schema, Schema}

// each runs fn once per engine in a house of its own, beside other tests.
func each(t *testing.T, fn func(h *house)) {
	t.Parallel()
	hand := clock.NewHand(day0)
	storetest.Each(t, houseSchema, func(t *testing.T, db *store.DB) {
		hand.Set(day0)
		fn(newHouse(t, db, hand))
	}, func(c *store.Config) { c.Clock = hand })
}

func newHouse(t *testing.T, db *store.DB, hand *clock.Hand) *house { return furnish(t, db, hand, nil) }

// furnish is newHouse with the devices' own room, which a few questions reach into.
func furnish(t *testing.T, db *store.DB, hand *clock.Hand, devices *identity.Service) *house {
	blobs, err := blob.NewDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	h := &house{T: t, db: db, clock: hand, releases: map[string]Release{}, checks: map[string]string{}}
	h.sbom = sbom.New(sbom.Config{DB: db, Blobs: blobs, Clock: hand})
	h.fleet = fleet.New(fleet.Config{DB: db, Clock: hand, Identity: devices})
	h.vuln = New(Config{DB: db, Clock: hand, SBOM: h.sbom, Fleet: h.fleet, Publisher: lampWorks,
		Release: func(_ context.Context, tenant, release string) (Release, error) {
			r, ok := h.releases[tenant+" "+release]
			if !ok {
				return r, problem.NotFound("no such release")
			}
			return r, nil
		},
		RecordCheck: func(_ *store.Tx, _, release, _, verdict, evidence, _ string) error {
			h.checks[release] = verdict + ": " + evidence
			return nil
		}})
	db.On("vuln.exploited", "test", func(_ context.Context, e store.Event) error {
		var x Exploited
		h.mu.Lock()
		defer h.mu.Unlock()
		defer func() { h.signals = append(h.signals, x) }()
		return e.Decode(&x)
	})
	return h
}

// release uploads a bill of Go modules ("path@version") for a release and lets the events run.
func (h *house) release(tenant, id, product, version string, modules ...string) {
	h.Helper()
	h.attach(tenant, id, product, version, goBill(modules...))
}

func goBill(modules ...string) []byte {
	var parts []string
	for _, m := range modules {
		name, v, _ := strings.Cut(m, "@")
		parts = append(parts, fmt.Sprintf(`{"type":"library","name":%q,"version":%q,"purl":%q}`, name, v, "pkg:golang/"+strings.ToLower(m)))
	}
	return []byte(`{"bomFormat":"CycloneDX","specVersion":"1.6","components":[` + strings.Join(parts, ",") + `]}`)
}

func (h *house) attach(tenant, id, product, version string, doc []byte) {
	h.Helper()
	h.releases[tenant+" "+id] = Release{Product: product, Version: version, Image: h.images[id]}
	h.document(tenant, id, doc)
	h.run()
}

// document attaches a bill, of which nobody has heard yet.
func (h *house) document(tenant, id string, doc []byte) {
	h.Helper()
	b, err := sbom.Parse(doc)
	h.must(err)
	kept, err := h.sbom.Keep(h.Context(), doc)
	h.must(err)
	h.must(h.db.Write(h.Context(), func(tx *store.Tx) error { return h.sbom.Attach(tx, tenant, id, b, kept, "per_1") }))
}

// bill is document for a bill of Go modules.
func (h *house) bill(tenant, id string, modules ...string) {
	h.Helper()
	h.document(tenant, id, goBill(modules...))
}

func (h *house) run() {
	h.Helper()
	_, err := h.db.RunDue(h.Context())
	h.must(err)
}

func (h *house) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *house) install(tenant, product, release string, devices ...string) {
	h.Helper()
	h.must(h.db.Write(h.Context(), func(tx *store.Tx) error {
		for _, d := range devices {
			if err := h.fleet.Installed(tx, tenant, product, d, release, h.clock.Now()); err != nil {
				return err
			}
		}
		return nil
	}))
}

// feed imports records written as JSON.
func (h *house) feed(tenant string, records ...string) (Imported, error) {
	h.Helper()
	z := zipped(h.T, records...)
	f, err := feed.Open(bytes.NewReader(z), int64(len(z)))
	if err != nil {
		return Imported{}, err
	}
	out, err := h.vuln.Import(h.Context(), tenant, "per_1", "test", f)
	h.run()
	return out, err
}

func xnet(id, alias, fixed, extra string) string {
	return fmt.Sprintf(`{"id":%q,"aliases":[%q],"summary":"a fault"%s,"affected":[{"package":{"ecosystem":"Go","name":"golang.org/x/net"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":%q}]}]}]}`, id, alias, extra, fixed)
}

const kevRapidReset = `{"catalogVersion":"1","count":1,"vulnerabilities":[{"cveID":"CVE-2023-44487","dateAdded":"2023-10-10"}]}`

// affected returns the answer as "devices: release=n …", exposed releases only.
func (h *house) affected(tenant, ident string, asOf time.Time) string {
	h.Helper()
	e, err := h.vuln.Affected(h.Context(), tenant, ident, asOf)
	h.must(err)
	out := fmt.Sprint(e.Devices, ":")
	for _, r := range e.Releases {
		if r.Exposed {
			out += fmt.Sprintf(" %s=%d", r.Release, r.Devices)
		}
	}
	page, err := h.vuln.AffectedDevices(h.Context(), tenant, ident, asOf, func(string) bool { return true }, fleet.Page{Limit: 1000})
	h.must(err)
	if int64(len(page)) != e.Devices {
		h.Errorf("the summary counts %d devices and the list has %d", e.Devices, len(page))
	}
	return out
}

func (h *house) want(what, got, want string) {
	h.Helper()
	if got != want {
		h.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestExposureNowAndInThePast(t *testing.T) {
	each(t, func(h *house) {
		h.release("ten_a", "rel_10", "prd_lamp", "1.0.0", "golang.org/x/net@v0.10.0", "golang.org/x/text@v0.9.0")
		h.release("ten_a", "rel_11", "prd_lamp", "1.1.0", "golang.org/x/net@v0.62.0")
		h.install("ten_a", "prd_lamp", "rel_10", "dev_1", "dev_2", "dev_3")
		installed := h.clock.Now()
		h.clock.Advance(24 * time.Hour)

		beforeFeed := h.clock.Now()
		h.clock.Advance(time.Hour)
		done, err := h.feed("ten_a", xnet("GO-1", "CVE-2023-44487", "0.17.0", ""))
		h.must(err)
		if done.New != 1 || done.Changed != 0 {
			t.Errorf("imported %+v", done)
		}
		found := h.clock.Now()
		h.want("by CVE", h.affected("ten_a", "CVE-2023-44487", time.Time{}), "3: rel_10=3")
		h.want("by record", h.affected("ten_a", "GO-1", time.Time{}), "3: rel_10=3")
		h.want("before the feed", h.affected("ten_a", "GO-1", beforeFeed), "0:")

		e, err := h.vuln.Affected(h.Context(), "ten_a", "GO-1", time.Time{})
		h.must(err)
		if r := e.Releases[0]; r.Version != "1.0.0" || r.FixedIn != "0.17.0" || r.Has != "v0.10.0" || !r.KnownSince.Equal(found) {
			t.Errorf("release %+v", r)
		}
		list, err := h.vuln.AffectedDevices(h.Context(), "ten_a", "GO-1", time.Time{}, func(string) bool { return true }, fleet.Page{After: "rel_10 dev_1", Limit: 1})
		h.must(err)
		if len(list) != 1 || list[0].Device != "dev_2" || !list[0].Since.Equal(installed) || !list[0].ExposedSince.Equal(found) {
			t.Errorf("page %+v", list)
		}

		h.clock.Advance(24 * time.Hour)
		beforeUpdate := h.clock.Now()
		h.clock.Advance(time.Hour)
		h.install("ten_a", "prd_lamp", "rel_11", "dev_1", "dev_2")
		h.want("after the update", h.affected("ten_a", "GO-1", time.Time{}), "1: rel_10=1")
		h.want("before the update", h.affected("ten_a", "GO-1", beforeUpdate), "3: rel_10=3")

		h.clock.Advance(time.Hour)
		beforeDecision := h.clock.Now()
		h.clock.Advance(time.Hour)
		_, err = h.vuln.Decide(h.Context(), "ten_a", "per_1", "CVE-2023-44487", Deciding{Product: "prd_lamp", Status: NotAffected,
			Justification: "vulnerable_code_not_in_execute_path", Evidence: "No HTTP/2 server is started."})
		h.must(err)
		h.want("after the decision", h.affected("ten_a", "GO-1", time.Time{}), "0:")
		h.want("before the decision", h.affected("ten_a", "GO-1", beforeDecision), "1: rel_10=1")

		h.clock.Advance(time.Hour)
		h.release("ten_a", "rel_101", "prd_lamp", "1.0.1", "golang.org/x/net@v0.10.0") // the same component: inherited
		h.release("ten_a", "rel_102", "prd_lamp", "1.0.2", "golang.org/x/net@v0.11.0") // another: decided anew
		h.install("ten_a", "prd_lamp", "rel_101", "dev_4")
		h.install("ten_a", "prd_lamp", "rel_102", "dev_5")
		h.want("inherited", h.affected("ten_a", "GO-1", time.Time{}), "1: rel_102=1")

		h.clock.Advance(time.Hour)
		if _, err := h.feed("ten_a", xnet("GO-1", "CVE-2023-44487", "0.17.0", `,"withdrawn":"2026-11-04T00:00:00Z"`)); err != nil {
			t.Fatal(err)
		}
		h.want("withdrawn", h.affected("ten_a", "GO-1", time.Time{}), "0:")
		h.want("before it was withdrawn", h.affected("ten_a", "GO-1", beforeUpdate), "3: rel_10=3")
		d, err := h.vuln.Get(h.Context(), "ten_a", "GO-1")
		h.must(err)
		for _, f := range d.Findings {
			if f.Closed.IsZero() || f.Why != endedWithdrawn {
				t.Errorf("finding %+v", f)
			}
		}
		if len(d.Sources) != 2 || len(d.Decisions) != 1 {
			t.Errorf("%d contents, %d decisions: the past must stay", len(d.Sources), len(d.Decisions))
		}
		if _, err := h.vuln.Affected(h.Context(), "ten_a", "GO-1", h.clock.Now().Add(time.Hour)); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("the future was answered: %v", err)
		}
	})
}

func TestTenantsAreApart(t *testing.T) {
	each(t, func(h *house) {
		for _, tenant := range []string{"ten_a", "ten_b"} {
			h.release(tenant, "rel_"+tenant, "prd_"+tenant, "1.0.0", "golang.org/x/net@v0.10.0")
			h.install(tenant, "prd_"+tenant, "rel_"+tenant, "dev_"+tenant)
		}
		_, err := h.feed("ten_a", xnet("GO-1", "CVE-2023-44487", "0.17.0", ""), kevRapidReset)
		h.must(err)
		h.want("a", h.affected("ten_a", "GO-1", time.Time{}), "1: rel_ten_a=1")
		if _, err := h.vuln.Affected(h.Context(), "ten_b", "GO-1", time.Time{}); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("what one imports is read by another: %v", err)
		}
		if _, err := h.feed("ten_b", xnet("GO-1", "CVE-2023-44487", "0.17.0", "")); err != nil {
			t.Fatal(err)
		}
		h.want("b", h.affected("ten_b", "GO-1", time.Time{}), "1: rel_ten_b=1")
		h.want("a again", h.affected("ten_a", "GO-1", time.Time{}), "1: rel_ten_a=1")
		// The same group id is no way around: an id of one tenant names nothing in another.
		d, err := h.vuln.Get(h.Context(), "ten_a", "GO-1")
		h.must(err)
		if _, err := h.vuln.Affected(h.Context(), "ten_b", d.ID, time.Time{}); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("a foreign id was answered: %v", err)
		}
		if len(h.signals) != 1 || h.signals[0].Product != "prd_ten_a" {
			t.Errorf("signals %+v", h.signals)
		}
	})
}

func TestExploitedIsSignalledOnce(t *testing.T) {
	each(t, func(h *house) {
		h.release("ten_a", "rel_1", "prd_lamp", "1.0.0", "golang.org/x/net@v0.10.0")
		if !strings.Contains(h.checks["rel_1"], "no feed was ever imported") {
			t.Errorf("check without a feed: %q", h.checks["rel_1"])
		}
		_, err := h.feed("ten_a", xnet("GO-1", "CVE-2023-44487", "0.17.0", ""))
		h.must(err)
		if len(h.signals) != 0 || !strings.HasPrefix(h.checks["rel_1"], verdictPass) {
			t.Fatalf("signals %+v, check %q", h.signals, h.checks["rel_1"])
		}
		_, err = h.feed("ten_a", kevRapidReset) // known as exploited later than found
		h.must(err)
		want := Exploited{Group: "CVE-2023-44487", Product: "prd_lamp", Release: "rel_1", Version: "1.0.0"}
		if len(h.signals) != 1 || h.signals[0].ID == "" {
			t.Fatalf("signals %+v", h.signals)
		}
		want.ID = h.signals[0].ID
		if h.signals[0] != want || !strings.HasPrefix(h.checks["rel_1"], verdictFail) {
			t.Fatalf("signal %+v, check %q", h.signals[0], h.checks["rel_1"])
		}
		h.release("ten_a", "rel_2", "prd_lamp", "1.0.1", "golang.org/x/net@v0.11.0") // the same product: no second signal
		_, err = h.feed("ten_a", kevRapidReset)
		h.must(err)
		h.release("ten_a", "rel_3", "prd_meter", "1.0.0", "golang.org/x/net@v0.11.0") // another product: one more
		if len(h.signals) != 2 || h.signals[1].Product != "prd_meter" {
			t.Fatalf("signals %+v", h.signals)
		}
		_, err = h.vuln.Decide(h.Context(), "ten_a", "per_1", "CVE-2023-44487", Deciding{Product: "prd_lamp", Release: "rel_1", Status: Fixed, Evidence: "Patch 7 backported."})
		h.must(err)
		if !strings.HasPrefix(h.checks["rel_1"], verdictPass) || !strings.HasPrefix(h.checks["rel_2"], verdictFail) {
			t.Errorf("fixed in one release only: %q, %q", h.checks["rel_1"], h.checks["rel_2"])
		}
		list, err := h.vuln.List(h.Context(), "ten_a", func(p string) bool { return p == "prd_lamp" })
		h.must(err)
		if len(list) != 1 || !list[0].Exploited || len(list[0].Products) != 1 || list[0].Products[0].Status != Undecided || list[0].Products[0].Releases != 2 || list[0].Products[0].FixedIn == "" {
			t.Errorf("matrix %+v", list)
		}
	})
}

func TestDecisionsAreRefusedWithoutReason(t *testing.T) {
	each(t, func(h *house) {
		h.release("ten_a", "rel_1", "prd_lamp", "1.0.0", "golang.org/x/net@v0.10.0")
		_, err := h.feed("ten_a", xnet("GO-1", "CVE-2023-44487", "0.17.0", ""))
		h.must(err)
		for name, c := range map[string]struct {
			in   Deciding
			kind problem.Kind
		}{
			"no product":       {Deciding{Status: DecidedAffected}, problem.KindInvalid},
			"no status":        {Deciding{Product: "prd_lamp"}, problem.KindInvalid},
			"no justification": {Deciding{Product: "prd_lamp", Status: NotAffected, Evidence: "x"}, problem.KindInvalid},
			"own words":        {Deciding{Product: "prd_lamp", Status: NotAffected, Justification: "we_think_so", Evidence: "x"}, problem.KindInvalid},
			"no evidence":      {Deciding{Product: "prd_lamp", Status: NotAffected, Justification: "component_not_present", Evidence: "  "}, problem.KindInvalid},
			"stray reason":     {Deciding{Product: "prd_lamp", Status: DecidedAffected, Justification: "component_not_present"}, problem.KindInvalid},
			"fixed everywhere": {Deciding{Product: "prd_lamp", Status: Fixed, Evidence: "x"}, problem.KindInvalid},
			"foreign bytes":    {Deciding{Product: "prd\x00lamp", Status: DecidedAffected}, problem.KindInvalid},
			"NUL in evidence":  {Deciding{Product: "prd_lamp", Status: DecidedAffected, Evidence: "a\x00b"}, problem.KindInvalid},
			"other product":    {Deciding{Product: "prd_else", Status: DecidedAffected}, problem.KindNotFound},
			"other component":  {Deciding{Product: "prd_lamp", Component: "cmp_else", Status: DecidedAffected}, problem.KindNotFound},
		} {
			if _, err := h.vuln.Decide(h.Context(), "ten_a", "per_1", "GO-1", c.in); !problem.Is(err, c.kind) {
				t.Errorf("%s: %v, want %s", name, err, c.kind)
			}
		}
		if _, err := h.vuln.Affected(h.Context(), "ten_a", "GO-1\x00\xff", time.Time{}); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("foreign bytes for a name: %v", err)
		}
		if _, err := h.vuln.Decide(h.Context(), "ten_b", "per_1", "GO-1", Deciding{Product: "prd_lamp", Status: DecidedAffected}); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("another tenant decided: %v", err)
		}
	})
}

func TestBrokenFeedChangesNothing(t *testing.T) {
	each(t, func(h *house) {
		h.release("ten_a", "rel_1", "prd_lamp", "1.0.0", "golang.org/x/net@v0.10.0")
		if _, err := h.feed("ten_a", xnet("GO-1", "CVE-2023-44487", "0.17.0", ""), `{"id":"GO-2","affected":[`); !problem.Is(err, problem.KindInvalid) {
			t.Fatalf("a broken feed was taken: %v", err)
		}
		if _, err := h.vuln.Get(h.Context(), "ten_a", "GO-1"); !problem.Is(err, problem.KindNotFound) {
			t.Fatalf("a broken feed left a record: %v", err)
		}
	})
}

func TestAliasesAreOneVulnerability(t *testing.T) {
	each(t, func(h *house) {
		h.release("ten_a", "rel_1", "prd_lamp", "1.0.0", "golang.org/x/net@v0.10.0")
		h.install("ten_a", "prd_lamp", "rel_1", "dev_1")
		_, err := h.feed("ten_a", xnet("GO-1", "CVE-1", "0.17.0", ""), xnet("GHSA-1", "CVE-2", "0.17.0", ""))
		h.must(err)
		_, err = h.vuln.Decide(h.Context(), "ten_a", "per_1", "GHSA-1", Deciding{Product: "prd_lamp", Status: UnderInvestigation})
		h.must(err)
		// A third record says that both are the same.
		_, err = h.feed("ten_a", `{"id":"X-1","aliases":["CVE-1","CVE-2"]}`)
		h.must(err)
		list, err := h.vuln.List(h.Context(), "ten_a", func(string) bool { return true })
		h.must(err)
		if len(list) != 1 || list[0].Name != "CVE-1" || list[0].Devices != 1 || list[0].Products[0].Status != UnderInvestigation {
			t.Errorf("after the merge %+v", list)
		}
		h.want("by either name", h.affected("ten_a", "CVE-2", time.Time{}), h.affected("ten_a", "CVE-1", time.Time{}))
	})
}

func TestNewBillClosesAndUnknownIsShown(t *testing.T) {
	each(t, func(h *house) {
		_, err := h.feed("ten_a", xnet("GO-1", "CVE-1", "0.17.0", ""))
		h.must(err)
		h.release("ten_a", "rel_1", "prd_lamp", "1.0.0", "golang.org/x/net@v0.10.0")
		h.clock.Advance(time.Hour)
		h.release("ten_a", "rel_1", "prd_lamp", "1.0.0", "golang.org/x/net@master") // cannot be compared
		e, err := h.vuln.Affected(h.Context(), "ten_a", "GO-1", time.Time{})
		h.must(err)
		if len(e.Releases) != 1 || e.Releases[0].State != record.StateUnknown || e.Releases[0].Reason == "" {
			t.Errorf("%+v; what cannot be compared is shown as unknown", e.Releases)
		}
		h.clock.Advance(time.Hour)
		h.release("ten_a", "rel_1", "prd_lamp", "1.0.0", "golang.org/x/text@v0.9.0")
		d, err := h.vuln.Get(h.Context(), "ten_a", "GO-1")
		h.must(err)
		for _, f := range d.Findings {
			if f.Why != endedComponent {
				t.Errorf("finding %+v", f)
			}
		}
		if len(d.Findings) != 2 {
			t.Errorf("%d findings, want 2", len(d.Findings))
		}
	})
}

// TestImportGoesOnAfterADeath writes the records as an import does and stops there, as a killed process would.
func TestImportGoesOnAfterADeath(t *testing.T) {
	each(t, func(h *house) {
		h.release("ten_a", "rel_1", "prd_lamp", "1.0.0", "golang.org/x/net@v0.10.0")
		h.install("ten_a", "prd_lamp", "rel_1", "dev_1")
		body := []byte(xnet("GO-1", "CVE-1", "0.17.0", ""))
		r, err := record.Parse(body)
		h.must(err)
		in := arrived(r, body, true)
		h.must(h.db.WriteBulk(h.Context(), func(tx *store.Tx) error {
			return h.vuln.putRecords(tx, "ten_a", "test", 0, []incoming{in})
		}))
		h.want("before the restart", h.affected("ten_a", "GO-1", time.Time{}), "0:")
		h.clock.Advance(2 * matchLater)
		h.run()
		h.want("after the restart", h.affected("ten_a", "GO-1", time.Time{}), "1: rel_1=1")
		if done, err := h.feed("ten_a", string(body)); err != nil || done.New+done.Changed != 0 {
			t.Errorf("the same feed once more: %+v, %v", done, err)
		}
		if list := h.findings("ten_a"); len(list) != 1 {
			t.Errorf("findings %q", list)
		}
	})
}

// zipped packs records under names of their own.
func zipped(t *testing.T, records ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i, r := range records {
		w, err := z.Create(fmt.Sprintf("%d.json", i))
		if err == nil {
			_, err = w.Write([]byte(r))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
