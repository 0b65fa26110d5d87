// SPDX-License-Identifier: AGPL-3.0-only

package evidence_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/conform"
	"github.com/openthings-platform/openthings/evidence"
	"github.com/openthings-platform/openthings/evidence/verify"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/law"
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
	"github.com/openthings-platform/openthings/update"
)

var deskSchema = []store.Migrations{seal.Schema, audit.Schema, product.Schema, identity.Schema, sbom.Schema, update.Schema, respond.Schema, disclosure.Schema, conform.Schema}

// desk is the stage over a running log with the rooms whose records it proves, and no device at all: a maker who has not
// connected one.
type desk struct {
	*house
	products *product.Service
	cases    *respond.Service
	reports  *disclosure.Service
	conform  *conform.Service
	product  string
}

func person(id string, role tenant.Role) context.Context {
	return tenant.WithActor(context.Background(), tenant.Actor{ID: id, Kind: tenant.KindPerson, Name: "Ann", Tenant: "ten_a", Grants: []tenant.Grant{{Role: role, Tenant: "ten_a"}}})
}

var (
	ann   = person("per_ann", tenant.ComplianceOfficer)
	bob   = person("per_bob", tenant.ProductSecurityOfficer)
	other = tenant.WithActor(context.Background(), tenant.Actor{ID: "per_mal", Kind: tenant.KindPerson, Tenant: "ten_b", Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: "ten_b"}}})
)

func eachDesk(t *testing.T, fn func(t *testing.T, d *desk)) {
	storetest.Each(t, deskSchema, func(t *testing.T, db *store.DB) { fn(t, newDesk(t, db)) })
}

func oneDesk(t *testing.T) *desk {
	return newDesk(t, storetest.Open(t, storetest.SQLiteURL(t), deskSchema))
}

func newDesk(t *testing.T, db *store.DB) *desk {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	keys, err := seal.Open(filepath.Join(dir, "keys"), clock.System)
	must(err)
	blobs, err := blob.NewDir(filepath.Join(dir, "blobs"))
	must(err)
	slogger := slog.New(slog.NewTextHandler(t.Output(), nil))
	d := &desk{house: &house{t: t, db: db}}
	d.log, err = audit.New(audit.Config{DB: db, Keys: keys, Log: slogger, Origin: "log.test/openthings", Journal: filepath.Join(dir, "journal", "checkpoints"),
		Require: func(ctx context.Context, verb string) (string, error) {
			id := tenant.MustTenant(ctx)
			return id, tenant.Require(ctx, tenant.Verb(verb), tenant.Thing{Tenant: id})
		}})
	must(err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.log.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		must(<-done)
		must(d.log.Close())
	})
	d.products = product.New(product.Config{DB: db, Clock: clock.System})
	bills := sbom.New(sbom.Config{DB: db, Blobs: blobs, Clock: clock.System})
	up := update.New(update.Config{DB: db, Blobs: blobs, Product: d.products, SBOM: bills, Clock: clock.System})
	d.cases = respond.New(respond.Config{DB: db, Products: d.products, Keys: keys, Log: slogger})
	d.conform = conform.New(conform.Config{DB: db, Products: d.products, SBOM: bills, Update: up, Clock: clock.System, Tenants: func(context.Context) ([]string, error) { return []string{"ten_a"}, nil }})
	d.reports = disclosure.New(disclosure.Config{DB: db, Keys: keys, Blobs: blobs, PGP: pgp.New(db, keys), Products: d.products, Respond: d.cases, Log: slogger, URL: "https://iot.example",
		Maker: func(context.Context, string) (string, error) { return "Acme Ltd", nil }, Tenants: func(context.Context) ([]string, error) { return []string{"ten_a"}, nil }})
	p, err := d.products.Create(t.Context(), product.Product{Tenant: "ten_a", Name: "Sensor", Model: "s1"}, "per_ann")
	must(err)
	d.product = p.ID
	d.Service = evidence.New(evidence.Config{DB: db, Audit: d.log, Log: slogger,
		ProductsOf: map[string]func(context.Context, string, []string) (map[string]string, error){"sig": d.cases.ProductsOf, "asm": d.cases.ProductsOf, "cas": d.cases.ProductsOf, "drl": d.cases.ProductsOf},
		Rooms: evidence.Rooms{Products: d.products, Cases: d.cases, Reports: d.reports, Conform: d.conform,
			Informed: func(_ context.Context, _, id string) (json.RawMessage, []string, error) {
				return json.RawMessage(`{"told":"` + id + `"}`), nil, nil
			}}})
	return d
}

func (d *desk) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// declared opens a case of which somebody has been aware for so long.
func (d *desk) declared(since time.Duration, si bool) string {
	d.t.Helper()
	sig, err := d.cases.AddSignal(ann, respond.Signal{Product: d.product, Title: "shells on sensors", Ref: "CVE-2026-1", Exploited: "yes"})
	d.must(err)
	as, err := d.cases.Assess(ann, sig.ID, "")
	d.must(err)
	aev := !si
	_, ids, err := d.cases.Decide(ann, as.ID, respond.Declaration{Verdict: respond.Aware, Basis: "three units with a shell", AEV: &aev, SI: &si, T0: time.Now().Add(-since),
		Title: "Shells on sensors", Summary: "A shell was opened on three sensors.", Coordinator: "DE", MemberStates: []string{"DE"}})
	d.must(err)
	return ids[0]
}

// submit records a report as submitted and confirmed, with a receipt as a file.
func (d *desk) submit(id string, st respond.Stage, note string) {
	d.t.Helper()
	e, err := d.cases.Append(ann, id, respond.SubmissionAttempted, respond.Data{Stage: st, At: time.Now().Truncate(time.Millisecond), Note: note, Deviation: "the form asked for less"})
	d.must(err)
	_, err = d.cases.StoreReceipt(ann, id, e.Seq, "receipt.pdf", []byte("received by the platform: "+string(st)))
	d.must(err)
	_, err = d.cases.Append(bob, id, respond.SubmissionAccepted, respond.Data{Attempt: e.Seq, Receipt: "SRP-1"})
	d.must(err)
}

func (d *desk) verified(b []byte) verify.Report {
	d.t.Helper()
	r, err := verify.Bundle(bytes.NewReader(b), d.log.VerifierKey(), time.Now())
	d.must(err)
	return r
}

func verdicts(c verify.CaseReport) map[string]verify.Verdict {
	out := map[string]verify.Verdict{}
	for _, x := range c.Deadlines {
		out[x.Stage] = x.Verdict
	}
	return out
}

// TestACaseInABundle: who has nothing but the file and the log's key sees what was owed when, what was submitted, and that a
// report was late and why.
func TestACaseInABundle(t *testing.T) {
	eachDesk(t, func(t *testing.T, d *desk) {
		id := d.declared(30*time.Hour, false)
		d.submit(id, respond.EarlyWarning, "the person on call slept")
		d.submit(id, respond.Notification, "")
		b, err := d.ExportCase(ann, id)
		d.must(err)
		r := d.verified(b)
		if !r.Proven || r.Subject != id || len(r.Cases) != 1 {
			t.Fatalf("%+v", r)
		}
		want := map[string]verify.Verdict{"early_warning": verify.Late, "notification": verify.OnTime, "final": verify.Undetermined, "users": verify.Late}
		if got := verdicts(r.Cases[0]); len(got) != 4 || got["early_warning"] != want["early_warning"] || got["notification"] != want["notification"] || got["final"] != want["final"] || got["users"] != want["users"] {
			t.Errorf("%v, want %v", got, want)
		}
		if r.Cases[0].Deadlines[0].Reason != "the person on call slept" {
			t.Errorf("the reason: %+v", r.Cases[0].Deadlines[0])
		}
		for _, part := range []string{"SRP-1", "three units with a shell", `"told":"` + id, "decision.recorded", "assessment.opened", "signal.received"} {
			if !bytes.Contains(bytes.ReplaceAll(b, []byte(`": "`), []byte(`":"`)), []byte(part)) {
				t.Errorf("the bundle does not hold %s", part)
			}
		}
		if _, err := d.ExportCase(other, id); err == nil {
			t.Error("another tenant exported it")
		}
		if _, err := d.ExportCase(bob, id); err == nil {
			t.Error("somebody without the right to export did")
		}
		if d.db.Engine() == store.Postgres {
			return
		}
		for i := 0; i < len(b); i += 13 { // each byte of a smaller one: evidence/verify
			bad := bytes.Clone(b)
			bad[i] ^= 1
			if _, err := verify.Bundle(bytes.NewReader(bad), d.log.VerifierKey(), time.Now()); err == nil {
				t.Fatalf("a flipped byte at %d of %d went unnoticed", i, len(b))
			}
		}
	})
}

// TestAProductInABundle: cases, drills, signals that were not reported, the support, the conformity file and the reports of
// finders in one file, and no word of a finder.
func TestAProductInABundle(t *testing.T) {
	eachDesk(t, func(t *testing.T, d *desk) {
		first, second := d.declared(time.Hour, false), d.declared(2*time.Hour, true)
		sig, err := d.cases.AddSignal(ann, respond.Signal{Product: d.product, Title: "a scanner's guess", Ref: "CVE-2026-2", Exploited: "no"})
		d.must(err)
		as, err := d.cases.Assess(ann, sig.ID, "")
		d.must(err)
		_, _, err = d.cases.Decide(ann, as.ID, respond.Declaration{Verdict: respond.Negative, Basis: "the code is not reachable, see test 12", Reason: respond.NotReachable})
		d.must(err)
		drill, err := d.cases.StartDrill(ann, d.product, respond.AEV, "a weekend", false)
		d.must(err)
		_, err = d.cases.StartDrill(ann, d.product, respond.SI, "nobody came", false)
		d.must(err)
		_, err = d.cases.AppendDrill(ann, drill.ID, respond.T0Set, respond.Data{At: time.Now().Add(-time.Minute), Title: "An exercise", Note: "played", Coordinator: "FR", MemberStates: []string{"FR"}})
		d.must(err)
		_, err = d.conform.Classify(ann, "ten_a", d.product, "per_ann", conform.Classification{Core: "Measures", Reason: "It measures"})
		d.must(err)
		_, err = d.conform.Decide(ann, "ten_a", d.product, law.Annex("cra.i")[0].ID, "per_ann", conform.Decision{Applies: "yes", Treatment: "As designed", Evidence: []string{"/x"}})
		d.must(err)
		rpt := d.report("a finder's own words", "finder@example.org")

		b, err := d.ExportProduct(ann, d.product, 0)
		d.must(err)
		r := d.verified(b)
		var ids []string
		for _, c := range r.Cases {
			ids = append(ids, c.ID)
		}
		if len(ids) != 4 || !slices.Contains(ids, first) || !slices.Contains(ids, second) || !slices.Contains(ids, drill.ID) {
			t.Errorf("cases and drills: %v", ids)
		}
		for _, c := range r.Cases {
			if c.Drill != strings.HasPrefix(c.ID, "drl_") {
				t.Errorf("%s is a drill: %v", c.ID, c.Drill)
			}
		}
		for _, part := range []string{rpt, "not reachable, see test 12", "DRILL: nothing of this was reported", "It measures", "As designed"} {
			if !bytes.Contains(b, []byte(part)) {
				t.Errorf("the bundle does not hold %s", part)
			}
		}
		for _, part := range []string{"own words", "finder@example.org", "answered by us"} {
			if bytes.Contains(b, []byte(part)) {
				t.Errorf("the bundle holds %q of a finder's report", part)
			}
		}
		if _, err := d.ExportProduct(other, d.product, 0); err == nil {
			t.Error("another tenant exported it")
		}
	})
}

// report takes a finder's report in and answers it.
func (d *desk) report(words, contact string) string {
	d.t.Helper()
	got, err := d.reports.Enter(ann, disclosure.Intake{Channel: "mail", Product: d.product, Finder: disclosure.Finder{Name: "Eve", Contact: contact},
		Sending: disclosure.Sending{Subject: "Overflow", Words: disclosure.Words{Text: words}, Exploited: "no"}})
	d.must(err)
	_, err = d.reports.Append(ann, got.ID, disclosure.ReportAck, "answered by us", disclosure.Data{})
	d.must(err)
	return got.ID
}
