// SPDX-License-Identifier: AGPL-3.0-only

package advisory

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/respond/disclosure"
	"github.com/openthings-platform/openthings/respond/pgp"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/blob"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/testpeers"
	"github.com/openthings-platform/openthings/vuln"
	"github.com/openthings-platform/openthings/vuln/csaf"
	"github.com/openthings-platform/openthings/vuln/feed"
	"github.com/openthings-platform/openthings/vuln/record"
)

const cve = "CVE-2026-1234"

var (
	pso      = signedIn("per_bob", tenant.ProductSecurityOfficer) // publishes
	engineer = signedIn("per_eve", tenant.FirmwareEngineer)
	reader   = tenant.WithActor(context.Background(), tenant.Actor{ID: "per_cus", Kind: tenant.KindPerson, Tenant: maker,
		Grants: []tenant.Grant{{Role: tenant.Customer, Tenant: maker, Solution: "sol_1"}}})
	rival = tenant.WithActor(context.Background(), tenant.Actor{ID: "per_riv", Kind: tenant.KindPerson, Tenant: "ten_rival",
		Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: "ten_rival"}}})
)

const maker = "ten_maker"

func signedIn(id string, role tenant.Role) context.Context {
	return tenant.WithActor(context.Background(), tenant.Actor{ID: id, Kind: tenant.KindPerson, Tenant: maker, Grants: []tenant.Grant{{Role: role, Tenant: maker}}})
}

// press is the room with everything that an advisory is made of, all of it real.
type press struct {
	*Service
	t          *testing.T
	db         *store.DB
	hand       *clock.Hand
	product    string
	pgp        *pgp.Service
	disclosure *disclosure.Service
	cases      *respond.Service
	sbom       *sbom.Service
	vuln       *vuln.Service
	released   []Release
}

var pressSchema = []store.Migrations{audit.Schema, seal.Schema, product.Schema, sbom.Schema, fleet.Schema, vuln.Schema, respond.Schema, disclosure.Schema}

// eachPress runs on both engines. The clock stands at the real time, since other programs check signatures by theirs.
func eachPress(t *testing.T, fn func(p *press)) {
	hand := clock.NewHand(time.Now().UTC().Truncate(time.Second).Add(-time.Hour))
	start := hand.Now()
	storetest.Each(t, pressSchema, func(t *testing.T, db *store.DB) {
		hand.Set(start)
		fn(newPress(t, db, hand))
	}, func(c *store.Config) { c.Clock = hand })
}

// onePress runs on SQLite alone, for tests that do not depend on the engine.
func onePress(t *testing.T) *press {
	hand := clock.NewHand(time.Now().UTC().Truncate(time.Second).Add(-time.Hour))
	return newPress(t, storetest.Open(t, storetest.SQLiteURL(t), pressSchema, func(c *store.Config) { c.Clock = hand }), hand)
}

func newPress(t *testing.T, db *store.DB, hand *clock.Hand) *press {
	t.Helper()
	blobs, err := blob.NewDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	keys, err := seal.Open(t.TempDir()+"/keys", hand)
	if err != nil {
		t.Fatal(err)
	}
	p := &press{t: t}
	p.sbom = sbom.New(sbom.Config{DB: db, Blobs: blobs, Clock: hand})
	p.vuln = vuln.New(vuln.Config{DB: db, Clock: hand, SBOM: p.sbom, Fleet: fleet.New(fleet.Config{DB: db, Clock: hand}),
		Release: func(_ context.Context, _, id string) (vuln.Release, error) {
			for _, r := range p.released {
				if r.ID == id {
					return vuln.Release{Product: p.product, Version: r.Version}, nil
				}
			}
			return vuln.Release{}, problem.NotFound("no such release")
		}})
	ps := product.New(product.Config{DB: db, Clock: hand})
	lamp, err := ps.Create(t.Context(), product.Product{Tenant: maker, Name: "Street lamp", Model: "lamp"}, "per_ann")
	if err != nil {
		t.Fatal(err)
	}
	p.db, p.hand, p.product, p.pgp = db, hand, lamp.ID, pgp.New(db, keys)
	manufacturer := func(context.Context, string) (string, error) { return "Acme Ltd", nil }
	p.cases = respond.New(respond.Config{DB: db, Products: ps, Vuln: p.vuln, Manufacturer: manufacturer})
	p.Service = New(Config{DB: db, Products: ps, Vuln: p.vuln, Cases: p.cases, Keys: p.pgp, URL: "https://maker.example", Manufacturer: manufacturer,
		Releases: func(_ context.Context, _, _ string) ([]Release, error) { return slices.Clone(p.released), nil }})
	return p
}

func (p *press) jobs() {
	p.t.Helper()
	_, err := p.db.RunDue(p.t.Context())
	p.must(err)
}

func (p *press) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// release adds a release whose bill lists the Go modules ("path@version"), an hour after the one before.
func (p *press) release(id, version string, modules ...string) {
	p.t.Helper()
	p.hand.Advance(time.Minute)
	p.released = append(p.released, Release{ID: id, Version: version, Image: "sha256:" + strings.Repeat("ab", 32), File: "lamp-" + version + ".img", Published: p.hand.Now()})
	var parts []string
	for _, m := range modules {
		name, v, _ := strings.Cut(m, "@")
		parts = append(parts, fmt.Sprintf(`{"type":"library","name":%q,"version":%q,"purl":%q}`, name, v, "pkg:golang/"+m))
	}
	doc := []byte(`{"bomFormat":"CycloneDX","specVersion":"1.6","components":[` + strings.Join(parts, ",") + `]}`)
	b, err := sbom.Parse(doc)
	p.must(err)
	kept, err := p.sbom.Keep(p.t.Context(), doc)
	p.must(err)
	p.must(p.db.Write(p.t.Context(), func(tx *store.Tx) error { return p.sbom.Attach(tx, maker, id, b, kept, "per_1") }))
	p.jobs()
}

// record imports one record: the module is faulty before the fixed version.
func (p *press) record(id, module, fixed string) {
	p.t.Helper()
	var z bytes.Buffer
	w := zip.NewWriter(&z)
	f, err := w.Create(id + ".json")
	p.must(err)
	fmt.Fprintf(f, `{"id":%q,"aliases":[%q],"modified":"2026-01-01T00:00:00Z","summary":"Overflow while reading a header","affected":[{"package":{"ecosystem":"Go","name":%q},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":%q}]}]}],"severity":[{"type":"CVSS_V3","score":%q}],"references":[{"type":"WEB","url":"https://upstream.example/1"}]}`,
		id, cve, module, fixed, recordScore)
	p.must(w.Close())
	read, err := feed.Open(bytes.NewReader(z.Bytes()), int64(z.Len()))
	p.must(err)
	_, err = p.vuln.Import(p.t.Context(), maker, "per_1", "test", read)
	p.must(err)
	p.jobs()
}

const (
	module      = "example.com/radio"
	recordScore = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H"
)

// story is a product of five releases: one before the fault, two with it, one with the fixed component, one not published.
func (p *press) story() {
	p.t.Helper()
	p.release("rel_08", "0.8.0", "example.com/other@v1.0.0")
	p.release("rel_10", "1.0.0", module+"@v1.0.0")
	p.release("rel_11", "1.1.0", module+"@v1.1.0")
	p.release("rel_12", "1.2.0", module+"@v1.2.0")
	p.release("rel_13", "1.3.0", module+"@v1.0.0")
	p.released[4].Published = time.Time{} // nobody outside knows it
	p.record("GO-2026-1", module, "1.2.0")
}

func (p *press) words() Text {
	return Text{Title: "Overflow in the radio", Summary: "A message of the radio can write past the end of a buffer.\nAn attacker nearby can stop the lamp.",
		Action: "Switch the radio off.", CVSS: "CVSS:3.1/AV:A/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H", CWE: "CWE-787",
		References: []Link{{"Our note", "https://maker.example/notes/1"}}, Acknowledgments: []Thanks{{Names: []string{"Finn Finder"}, Summary: "reported it"}}}
}

func (p *press) draft() Advisory {
	p.t.Helper()
	a, err := p.Draft(pso, p.product, cve, p.words())
	p.must(err)
	return a
}

func (p *press) publish(id, change string) Advisory {
	p.t.Helper()
	p.hand.Advance(time.Minute)
	a, err := p.Publish(pso, id, change)
	p.must(err)
	return a
}

// document is the newest published revision.
func (p *press) document(id string) *csaf.Document {
	p.t.Helper()
	r, err := p.Document(pso, id, 0)
	p.must(err)
	d, err := csaf.Parse(r.document)
	p.must(err)
	return d
}

// TestAdvisoryListsExactlyTheAffectedReleases: what is published about each release is what findings and decisions say,
// and nothing is said of what was never published.
func TestAdvisoryListsExactlyTheAffectedReleases(t *testing.T) {
	eachPress(t, func(p *press) {
		p.story()
		a := p.draft()
		if a.State != "draft" || a.Tracking != fmt.Sprintf("ACME-LTD-%d-0001", p.hand.Now().Year()) {
			t.Errorf("%+v", a)
		}
		p.publish(a.ID, "")
		st := p.document(a.ID).Vulnerabilities[0].ProductStatus
		for name, c := range map[string]struct{ got, want []string }{
			"affected": {st.KnownAffected, []string{"rel_10", "rel_11"}}, "fixed": {st.Fixed, []string{"rel_12"}},
			"not affected": {st.KnownNotAffected, []string{"rel_08"}}, "under investigation": {st.UnderInvestigation, nil}, "recommended": {st.Recommended, []string{"rel_12"}},
		} {
			if !slices.Equal(c.got, c.want) {
				t.Errorf("%s: %v, want %v", name, c.got, c.want)
			}
		}

		// A decision changes what is known; the advisory says so, and the next revision says it.
		decided, err := p.vuln.Decide(t.Context(), maker, "per_bob", cve, vuln.Deciding{Product: p.product, Release: "rel_11", Status: vuln.NotAffected,
			Justification: string(csaf.VulnerableCodeNotInPath), Evidence: "The radio is off in this release, see review 7."})
		p.must(err)
		if len(decided) == 0 {
			t.Fatal("nothing was decided")
		}
		now, err := p.Get(pso, a.ID)
		p.must(err)
		if !now.Outdated || now.State != "published" {
			t.Errorf("after a decision: outdated %v, %s", now.Outdated, now.State)
		}
		p.publish(a.ID, "Release 1.1.0 is not affected.")
		d := p.document(a.ID)
		st = d.Vulnerabilities[0].ProductStatus
		if !slices.Equal(st.KnownAffected, []string{"rel_10"}) || !slices.Equal(st.KnownNotAffected, []string{"rel_08", "rel_11"}) {
			t.Errorf("%+v", st)
		}
		if tr := d.Document.Tracking; tr.Version != "2" || len(tr.RevisionHistory) != 2 || !tr.InitialReleaseDate.Before(tr.CurrentReleaseDate) {
			t.Errorf("%+v", tr)
		}
		if now, err = p.Get(pso, a.ID); err != nil || now.Outdated {
			t.Errorf("right after publication: outdated %v, %v", now.Outdated, err)
		}
	})
}

// TestStatuses is the table of what findings and decisions make of a release.
func TestStatuses(t *testing.T) {
	decided := func(s vuln.Status, why string) *vuln.Decision { return &vuln.Decision{Status: s, Justification: why} }
	for name, c := range map[string]struct {
		found []vuln.ReleaseExposure
		want  string
	}{
		"nothing found":           {nil, "not_affected vulnerable_code_not_present, not_affected vulnerable_code_not_present"},
		"found":                   {[]vuln.ReleaseExposure{{Release: "a", State: record.StateAffected}}, "affected , fixed "},
		"found later":             {[]vuln.ReleaseExposure{{Release: "b", State: record.StateAffected}}, "not_affected vulnerable_code_not_present, affected "},
		"not comparable":          {[]vuln.ReleaseExposure{{Release: "a", State: record.StateUnknown}}, "under_investigation , fixed "},
		"being investigated":      {[]vuln.ReleaseExposure{{Release: "a", State: record.StateAffected, Decision: decided(vuln.UnderInvestigation, "")}}, "under_investigation , fixed "},
		"decided: fixed in it":    {[]vuln.ReleaseExposure{{Release: "a", State: record.StateAffected}, {Release: "b", State: record.StateAffected, Decision: decided(vuln.Fixed, "")}}, "affected , fixed "},
		"decided: not affected":   {[]vuln.ReleaseExposure{{Release: "a", State: record.StateAffected, Decision: decided(vuln.NotAffected, "component_not_present")}}, "not_affected component_not_present, fixed "},
		"one part of two":         {[]vuln.ReleaseExposure{{Release: "a", Name: "x", State: record.StateAffected, Decision: decided(vuln.NotAffected, "component_not_present")}, {Release: "a", Name: "y", State: record.StateAffected}}, "affected , fixed "},
		"one part not comparable": {[]vuln.ReleaseExposure{{Release: "a", Name: "x", State: record.StateUnknown}, {Release: "a", Name: "y", State: record.StateAffected, Decision: decided(vuln.Fixed, "")}}, "under_investigation , fixed "},
	} {
		var got []string
		for _, s := range statuses([]Release{{ID: "a", Version: "1"}, {ID: "b", Version: "2"}}, c.found) {
			got = append(got, string(s.Status)+" "+s.Justification)
		}
		if g := strings.Join(got, ", "); g != c.want {
			t.Errorf("%s: %q, want %q", name, g, c.want)
		}
	}
}

// TestPublishedRevisionsNeverChange: new words, new facts and a new publisher change the next revision only.
func TestPublishedRevisionsNeverChange(t *testing.T) {
	eachPress(t, func(p *press) {
		p.story()
		a := p.draft()
		p.publish(a.ID, "")
		first, err := p.Document(pso, a.ID, 1)
		p.must(err)
		words := p.words()
		words.Summary = "Other words."
		if _, err := p.Change(pso, a.ID, words); err != nil {
			t.Fatal(err)
		}
		if _, err := p.SetPublisher(pso, Publisher{Name: "Acme Holding", Prefix: "AH"}); err != nil {
			t.Fatal(err)
		}
		if got, _ := p.get(nil, p.path(a, "")); !bytes.Equal(got, first.document) {
			t.Error("words that were not published are public")
		}
		p.publish(a.ID, "Other words")
		again, err := p.Document(pso, a.ID, 1)
		p.must(err)
		if !bytes.Equal(first.document, again.document) || first.SHA256 != again.SHA256 || first.signature != again.signature {
			t.Error("the first revision changed")
		}
		// Not even somebody who is inside can put another in its place.
		again.document = []byte("{}")
		adv, _, err := p.advisory(pso, tenant.AdvisoryRead, a.ID)
		p.must(err)
		if err := p.db.Write(t.Context(), func(tx *store.Tx) error { return insertRevision(tx, maker, adv, again) }); !problem.Is(err, problem.KindConflict) {
			t.Errorf("a second revision 1: %v", err)
		}
		// What everybody has read cannot become a secret.
		words.TLP = csaf.TLPAmber
		if _, err := p.Change(pso, a.ID, words); !problem.Is(err, problem.KindConflict) {
			t.Errorf("published as WHITE, now AMBER: %v", err)
		}
	})
}

// TestNothingIsPublishedWithoutDigestsAndSignature: neither by the room nor by its tables.
func TestNothingIsPublishedWithoutDigestsAndSignature(t *testing.T) {
	eachPress(t, func(p *press) {
		p.story()
		a := p.draft()
		adv, actor, err := p.advisory(pso, tenant.AdvisoryPublish, a.ID)
		p.must(err)
		good, _, pub, err := p.next(pso, adv, actor, p.instant(), "x")
		p.must(err)
		key, err := p.pgp.Signer(t.Context(), maker, "per_bob", pub.Name)
		p.must(err)
		p.must(p.prove(key, &good))
		other, err := p.pgp.Signer(t.Context(), "ten_other", "per_x", "Somebody else")
		p.must(err)
		for name, harm := range map[string]func(r *Revision){
			"no signature":    func(r *Revision) { r.signature = "" },
			"no SHA-256":      func(r *Revision) { r.SHA256 = "" },
			"no SHA-512":      func(r *Revision) { r.SHA512 = "" },
			"another SHA-512": func(r *Revision) { r.SHA512 = strings.Repeat("0", 128) },
			"a byte more":     func(r *Revision) { r.document = append(slices.Clone(r.document), ' ') },
			"another key":     func(r *Revision) { p.must(p.prove(other, r)) },
		} {
			r := good
			harm(&r)
			if err := p.proven(key, &r); err == nil {
				t.Errorf("%s: it was believed", name)
			}
			if r.signature != "" && len(r.SHA256) == 64 && len(r.SHA512) == 128 {
				continue // the tables cannot know better
			}
			if err := p.db.Write(t.Context(), func(tx *store.Tx) error { return insertRevision(tx, maker, adv, r) }); err == nil {
				t.Errorf("%s: the tables took it", name)
			}
		}
		if err := p.proven(key, &good); err != nil {
			t.Error(err)
		}
	})
}

// TestAHoldNeedsAReasonAndAnEnd, keeps the advisory back until then and reminds.
func TestAHoldNeedsAReasonAndAnEnd(t *testing.T) {
	eachPress(t, func(p *press) {
		p.story()
		a := p.draft()
		end := p.hand.Now().Add(48 * time.Hour)
		for name, h := range map[string]Hold{
			"no end": {Reason: "The fix is not out yet."}, "no reason": {Until: end}, "an end that was": {Reason: "x", Until: p.hand.Now()},
			"an end out of sight": {Reason: "x", Until: p.hand.Now().Add(2 * 366 * 24 * time.Hour)},
		} {
			if _, err := p.Hold(pso, a.ID, h); !problem.Is(err, problem.KindInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := p.Hold(engineer, a.ID, Hold{Reason: "x", Until: end}); !problem.Is(err, problem.KindForbidden) {
			t.Errorf("an engineer held it back: %v", err)
		}
		var told []HoldEnded
		p.db.On("advisory.hold_ended", "test", func(_ context.Context, e store.Event) error {
			var h HoldEnded
			defer func() { told = append(told, h) }()
			return e.Decode(&h)
		})
		held, err := p.Hold(pso, a.ID, Hold{Reason: "The fix rolls out this week.", Until: end})
		p.must(err)
		if held.State != "held" {
			t.Error(held.State)
		}
		if _, err := p.Publish(pso, a.ID, ""); problem.Of(err).Rule != RuleHold {
			t.Errorf("it was published while held back: %v", err)
		}
		p.hand.Advance(47 * time.Hour)
		p.jobs()
		if len(told) != 0 {
			t.Error("told too early")
		}
		p.hand.Advance(time.Hour)
		p.jobs()
		p.jobs()
		if len(told) != 1 || told[0].Tracking != a.Tracking || told[0].Reason != "The fix rolls out this week." {
			t.Errorf("told %+v", told)
		}
		a = p.publish(a.ID, "")
		if a.Hold != nil || a.State != "published" {
			t.Errorf("%+v", a)
		}

		// One that is lifted reminds nobody.
		b := p.draft()
		_, err = p.Hold(pso, b.ID, Hold{Reason: "x", Until: p.hand.Now().Add(time.Hour)})
		p.must(err)
		_, err = p.LiftHold(pso, b.ID)
		p.must(err)
		p.hand.Advance(2 * time.Hour)
		p.jobs()
		if len(told) != 1 {
			t.Errorf("told %+v", told)
		}
		p.publish(b.ID, "")
	})
}

// TestTypedThanks: what is typed in a form and what is kept are the same.
func TestTypedThanks(t *testing.T) {
	for _, want := range []Thanks{{Names: []string{"Ann", "Bob"}, Organization: "Finders", Summary: "found it: twice"}, {Names: []string{"Ann"}}, {Organization: "Finders", Summary: "helped"}} {
		if got := typedThanks(want.typed()); !slices.Equal(got.Names, want.Names) || got.Organization != want.Organization || got.Summary != want.Summary {
			t.Errorf("%q is read as %+v", want.typed(), got)
		}
	}
}

// TestNothingToTell: an advisory without words, or about what no published release has, is not published.
func TestNothingToTell(t *testing.T) {
	eachPress(t, func(p *press) {
		p.story()
		empty, err := p.Draft(pso, p.product, cve, Text{})
		p.must(err)
		if empty.Title != cve+" in Street lamp" || empty.CVSS != recordScore {
			t.Errorf("proposed: %q, %q", empty.Title, empty.CVSS)
		}
		if _, err := p.Publish(pso, empty.ID, ""); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("without words: %v", err)
		}
		if _, err := p.Publish(engineer, empty.ID, ""); !problem.Is(err, problem.KindForbidden) {
			t.Errorf("an engineer published: %v", err)
		}
		if _, err := p.Get(rival, empty.ID); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("another tenant: %v", err)
		}
		a := p.draft()
		for i := range p.released {
			p.released[i].Published = time.Time{}
		}
		if _, err := p.Publish(pso, a.ID, ""); !problem.Is(err, problem.KindConflict) {
			t.Errorf("about nothing: %v", err)
		}
	})
}

// get reads a file of the provider's tree as who; nil for nobody.
func (p *press) get(who context.Context, path string) ([]byte, int) {
	p.t.Helper()
	r := httptest.NewRequest(http.MethodGet, "https://maker.example"+path, nil)
	w := httptest.NewRecorder()
	p.front(who).ServeHTTP(w, r)
	return w.Body.Bytes(), w.Code
}

// path is where a published advisory is, or what lies beside it.
func (p *press) path(a Advisory, suffix string) string {
	p.t.Helper()
	now, err := p.Get(pso, a.ID)
	p.must(err)
	path, ok := strings.CutPrefix(now.URL, "https://maker.example")
	if !ok {
		p.t.Fatalf("its address is %q", now.URL)
	}
	if suffix == ".html" {
		return strings.TrimSuffix(path, ".json") + ".html"
	}
	return path + suffix
}

// judges starts the two judges of CSAF; that they do not start is a failure.
func judges(t *testing.T) *testpeers.CSAF {
	t.Helper()
	j, err := testpeers.StartCSAF(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatalf("the judges of CSAF did not start: %v", err)
	}
	t.Cleanup(func() {
		if err := j.Stop(); err != nil {
			t.Error(err)
		}
	})
	return j
}
