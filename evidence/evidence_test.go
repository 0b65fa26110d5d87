// SPDX-License-Identifier: AGPL-3.0-only

package evidence_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"embed"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/evidence"
	"github.com/openthings-platform/openthings/evidence/verify"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

//go:embed testdata/slot.html
var slotFS embed.FS

var schema = []store.Migrations{seal.Schema, audit.Schema, product.Schema, identity.Schema}

// house is the stage over a real register and a running log, with one device.
type house struct {
	*evidence.Service
	t      *testing.T
	db     *store.DB
	log    *audit.Log
	still  func() // ends the sequencing: what is appended from then on stays pending
	device identity.Device
	key    *ecdsa.PrivateKey // of the device's IDevID
	wipe   any               // what the section "wipe" says; nil: nothing
}

func each(t *testing.T, fn func(t *testing.T, h *house)) {
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) { fn(t, newHouse(t, db)) })
}

func newHouse(t *testing.T, db *store.DB) *house {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	keys, err := seal.Open(filepath.Join(dir, "keys"), clock.System)
	must(err)
	issuer, err := embedded.Open(embedded.Config{Dir: filepath.Join(dir, "ca"), Keys: keys, Name: "Test", Clock: clock.System})
	must(err)
	ids, err := identity.New(identity.Config{DB: db, Issuer: issuer, Journal: filepath.Join(dir, "journal", "distrust")})
	must(err)
	slogger := slog.New(slog.NewTextHandler(t.Output(), nil))
	h := &house{t: t, db: db}
	h.log, err = audit.New(audit.Config{DB: db, Keys: keys, Log: slogger, Origin: "log.test/openthings", Journal: filepath.Join(dir, "journal", "checkpoints"),
		Require: func(ctx context.Context, verb string) (string, error) {
			id := tenant.MustTenant(ctx)
			return id, tenant.Require(ctx, tenant.Verb(verb), tenant.Thing{Tenant: id})
		}})
	must(err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.log.Run(ctx) }()
	h.still = sync.OnceFunc(func() {
		stop()
		must(<-done)
	})
	t.Cleanup(func() {
		h.still()
		must(h.log.Close())
	})

	h.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, h.key)
	must(err)
	csr, err := identity.ParseCSR(der)
	must(err)
	must(db.WriteFirst(ctx, func(tx *store.Tx) error {
		h.device, err = ids.Register(tx, identity.Device{Tenant: "ten_a", Product: "prd_a", Revision: "rev_a", Serial: "L-1"}, "sta_a")
		return err
	}))
	_, _, err = ids.Issue(ctx, identity.IssueRequest{Tenant: "ten_a", Subject: h.device.ID, Kind: identity.IDevID, CSR: csr, Actor: "sta_a"})
	must(err)
	for _, tenantID := range []string{"ten_a", "ten_b"} {
		h.append(audit.Entry{Tenant: tenantID, Actor: "per_1", Kind: "release.uploaded", Subject: "rel_1", Data: map[string]string{"version": "1.0 <beta>"}})
	}
	h.Service = evidence.New(evidence.Config{DB: db, Audit: h.log, Identity: ids, Log: slogger,
		Rooms: evidence.Rooms{Products: product.New(product.Config{DB: db, Clock: clock.System})},
		Sections: []evidence.Section{
			evidence.JSON(verify.SectionWipe, func(context.Context, string, string) (any, error) { return h.wipe, nil }),
			evidence.JSON("installations", func(context.Context, string, string) ([]string, error) { return []string{"rel_1"}, nil }),
			{Name: "tombstone", Collect: func(context.Context, string, string) (json.RawMessage, error) { return nil, nil }},
		},
		Related: func(context.Context, string, string) ([]string, error) {
			return []string{"rel_1", h.device.ID, "", "rel_1"}, nil
		},
	})
	return h
}

func (h *house) append(e audit.Entry) {
	h.t.Helper()
	if err := h.db.Write(h.t.Context(), func(tx *store.Tx) error { return audit.Append(tx, e) }); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) receipt(key *ecdsa.PrivateKey, device string) any {
	h.t.Helper()
	signed, err := wire.Sign(rand.Reader, key, wire.WipeReceipt{Device: device, Serial: "L-1", Areas: []string{"ldevid-key"}, At: time.Now().UnixMilli()})
	if err != nil {
		h.t.Fatal(err)
	}
	return verify.Wipe{Receipt: signed}
}

func (h *house) export() []byte {
	h.t.Helper()
	b, err := h.Export(h.t.Context(), "ten_a", h.device.ID, "per_1")
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

func TestExport(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		h.wipe = h.receipt(h.key, h.device.ID)
		b := h.export()
		r, err := verify.Bundle(bytes.NewReader(b), h.log.VerifierKey(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		// device.manufactured, its move to provisioned, certificate.issued, release.uploaded of ten_a, evidence.exported
		if !r.Proven || r.Device != h.device.ID || r.Tenant != "ten_a" || r.Entries != 5 || len(r.Facts) != 8 {
			t.Errorf("%+v", r)
		}
		if strings.Contains(string(b), "ten_b") {
			t.Error("the bundle shows another tenant")
		}
		for i := range b {
			if h.db.Engine() == store.Postgres {
				break // the same file; once is enough
			}
			bad := bytes.Clone(b)
			bad[i] ^= 1
			if _, err := verify.Bundle(bytes.NewReader(bad), h.log.VerifierKey(), time.Now()); err == nil {
				t.Fatalf("a flipped byte at %d of %d went unnoticed", i, len(b))
			}
		}
		// A later bundle holds the earlier export as one more entry.
		again, err := verify.Bundle(bytes.NewReader(h.export()), h.log.VerifierKey(), time.Now())
		if err != nil || again.Entries != 6 {
			t.Errorf("%+v, %v", again, err)
		}
	})
}

func TestExportsAtTheSameTime(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		const n = 4
		errs := make(chan error, n)
		for range n {
			go func() {
				b, err := h.Export(context.Background(), "ten_a", h.device.ID, "per_1")
				if err == nil {
					_, err = verify.Bundle(bytes.NewReader(b), h.log.VerifierKey(), time.Now())
				}
				errs <- err
			}()
		}
		for range n {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})
}

// TestABundleThatDoesNotVerifyIsNotHandedOut: a receipt that somebody else signed, and one of another device.
func TestABundleThatDoesNotVerifyIsNotHandedOut(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		for name, wipe := range map[string]any{"another key": h.receipt(other, h.device.ID), "another device": h.receipt(h.key, "dev_9")} {
			h.wipe = wipe
			if _, err := h.Export(t.Context(), "ten_a", h.device.ID, "per_1"); err == nil || !strings.Contains(err.Error(), "not handed out") {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// doors serves the stage and the log to one actor.
func (h *house) doors(who tenant.Actor) (pages, programs http.Handler) {
	auth := func(r *http.Request) (context.Context, error) { return tenant.WithActor(r.Context(), who), nil }
	log := slog.New(slog.NewTextHandler(h.t.Output(), nil))
	c := console.New(console.Config{Clock: clock.System, Log: log, Menu: []string{"Evidence"}, Authenticate: auth, Holds: tenant.Holds,
		Visitor: func(context.Context) string { return who.Name }})
	h.Pages(c)
	c.Page(console.Page{Path: "/devices/{id}", Title: "Device", Verb: string(tenant.DeviceRead), FS: slotFS, Template: "testdata/slot.html",
		Load: func(r *http.Request) (any, error) { return c.Slot("device").Render(r, r.PathValue("id")), nil }})
	a := api.New(api.Config{Title: "test", Clock: clock.System, Log: log, Authenticate: auth, Holds: tenant.Holds, Caller: func(context.Context) string { return who.ID }})
	h.Routes(a)
	h.log.Routes(a)
	return c, a
}

func do(t *testing.T, door http.Handler, method, path string, form url.Values) (int, string) {
	t.Helper()
	r := httptest.NewRequest(method, "https://iot.example"+path, strings.NewReader(form.Encode()))
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	w := httptest.NewRecorder()
	door.ServeHTTP(w, r)
	b, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(b)
}

func actor(role tenant.Role, tenantID string) tenant.Actor {
	return tenant.Actor{ID: "per_1", Kind: tenant.KindPerson, Name: "Ann", Tenant: tenantID, Grants: []tenant.Grant{{Role: role, Tenant: tenantID}}}
}

// TestWhoMay asks every door as every role, as another tenant and as a customer of one solution.
func TestWhoMay(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		if err := h.log.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		items, err := h.log.List(t.Context(), "ten_a", audit.Filter{Subject: h.device.ID}, 1)
		if err != nil {
			t.Fatal(err)
		}
		export := []tenant.Role{tenant.Owner, tenant.ComplianceOfficer, tenant.Auditor}
		read := []tenant.Role{tenant.Owner, tenant.FleetOperator, tenant.ProductSecurityOfficer, tenant.ComplianceOfficer, tenant.Auditor}
		for path, may := range map[string][]tenant.Role{
			"/v1/devices/" + h.device.ID + "/evidence":        export,
			"/v1/audit/entries":                               read,
			"/v1/audit/entries?subject=" + h.device.ID:        read,
			"/v1/audit/checkpoint":                            read,
			"/v1/audit/consistency?from=1":                    read,
			"/v1/audit/entries/" + items[0].ID + "/proof":     read,
			"/v1/audit/entries?page_size=1&kind=device.state": read,
		} {
			for _, row := range tenant.Roles {
				_, programs := h.doors(actor(row.Role, "ten_a"))
				want := 403
				if slices.Contains(may, row.Role) {
					want = 200
				}
				if got, body := do(t, programs, "GET", path, nil); got != want {
					t.Errorf("%s as %s: %d, want %d: %s", path, row.Role, got, want, body)
				}
			}
		}
		_, programs := h.doors(actor(tenant.Owner, "ten_b"))
		for path, want := range map[string]int{"/v1/devices/" + h.device.ID + "/evidence": 404, "/v1/audit/entries/" + items[0].ID + "/proof": 404, "/v1/audit/entries?subject=" + h.device.ID: 200} {
			got, body := do(t, programs, "GET", path, nil)
			if got != want || strings.Contains(body, "manufactured") {
				t.Errorf("%s as another tenant: %d, want %d: %s", path, got, want, body)
			}
		}
		for path, want := range map[string]int{"/v1/audit/consistency?from=999999": 400, "/v1/audit/consistency?from=1&to=999999": 404, "/v1/audit/consistency": 400, "/v1/audit/entries?page_token=x": 400, "/v1/audit/entries/aud_9/proof": 404} {
			if got, body := do(t, programs, "GET", path, nil); got != want {
				t.Errorf("%s: %d, want %d: %s", path, got, want, body)
			}
		}
		limited := actor(tenant.Auditor, "ten_a")
		limited.Grants[0].Product = "prd_a" // the whole log is more than one product
		_, programs = h.doors(limited)
		for path, want := range map[string]int{"/v1/devices/" + h.device.ID + "/evidence": 200, "/v1/audit/entries": 403, "/v1/audit/checkpoint": 403} {
			if got, body := do(t, programs, "GET", path, nil); got != want {
				t.Errorf("%s as auditor of one product: %d, want %d: %s", path, got, want, body)
			}
		}
	})
}

func TestPages(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		pages, _ := h.doors(actor(tenant.Owner, "ten_a"))
		if err := h.log.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		see := func(path string, want ...string) {
			t.Helper()
			code, body := do(t, pages, "GET", path, nil)
			if code != 200 {
				t.Fatalf("%s: %d %s", path, code, body)
			}
			for _, w := range want {
				if !strings.Contains(body, w) {
					t.Errorf("%s does not show %q: %s", path, w, body)
				}
			}
		}
		see("/evidence", "not since this process started", "certificate.issued", "device.manufactured", "release.uploaded", "log.test/openthings&#43;")
		if code, _ := do(t, pages, "POST", "/evidence/check", url.Values{}); code != 303 {
			t.Errorf("check: %d", code)
		}
		see("/evidence", "verified", "up to entry")
		see("/evidence?kind=no.such", "No entry matches.")
		see("/evidence?day="+time.Now().UTC().Format(time.DateOnly), "device.manufactured")
		see("/evidence?day=2001-01-01", "No entry matches.")
		if code, _ := do(t, pages, "GET", "/evidence?day=soon", nil); code != 400 {
			t.Errorf("a day that is none: %d", code)
		}
		see("/devices/"+h.device.ID, "Audit extract", "certificate.issued", "Export the evidence bundle")
		code, body := do(t, pages, "POST", "/evidence/export", url.Values{"device": {" " + h.device.ID}})
		if code != 200 {
			t.Fatalf("export: %d %s", code, body)
		}
		if r, err := verify.Bundle(strings.NewReader(body), h.log.VerifierKey(), time.Now()); err != nil {
			t.Errorf("%+v, %v", r, err)
		}
		h.still() // it would number them a fifth of a second later
		for i := range 60 {
			h.append(audit.Entry{Tenant: "ten_a", Actor: "per_1", Kind: "device.claimed", Subject: h.device.ID, Data: i})
		}
		see("/evidence?kind=device.claimed", `rel="next"`, "pending")
		see("/devices/"+h.device.ID, "All entries about this device")

		engineer, _ := h.doors(actor(tenant.FirmwareEngineer, "ten_a")) // reads evidence, not the log
		if code, body := do(t, engineer, "GET", "/evidence", nil); code != 200 || strings.Contains(body, "device.manufactured") || strings.Contains(body, "/evidence/export") {
			t.Errorf("as a firmware engineer: %d %s", code, body)
		}
		if code, _ := do(t, engineer, "POST", "/evidence/export", url.Values{"device": {h.device.ID}}); code != 403 {
			t.Errorf("export as a firmware engineer: %d", code)
		}
	})
}

func TestWorkFindsABrokenLog(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		if err := h.log.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if c, err := h.Check(t.Context()); err != nil || !c.OK() {
			t.Fatalf("%+v, %v", c, err)
		}
		if err := h.db.Write(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE audit_entry SET actor = 'per_2' WHERE kind = 'device.manufactured'`)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		c, err := h.Check(t.Context())
		if err != nil || c.OK() || h.LastCheck().OK() {
			t.Errorf("%+v, %v", c, err)
		}
		pages, _ := h.doors(actor(tenant.Owner, "ten_a"))
		if _, body := do(t, pages, "GET", "/evidence", nil); !strings.Contains(body, "The log is broken.") {
			t.Error("the page does not say so")
		}
		if _, err := h.Export(t.Context(), "ten_a", h.device.ID, "per_1"); err == nil {
			t.Error("a bundle was made from a tampered entry")
		}
	})
}
