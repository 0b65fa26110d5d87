// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"context"
	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

// strict demands all that can be demanded.
var strict = Baseline{SecureBoot: true, HardwareRoot: true, Ports: &[]string{"tcp/443"}, Debug: []string{"uart", "jtag"}, NoDefaults: true, TLS: "1.2",
	Privileges: []string{"agent-unprivileged"}}

// sound is a report that fulfils strict.
func sound() wire.BaselineReport {
	return wire.BaselineReport{Root: wire.RootTPM, SecureBoot: wire.BootOn, Ports: &[]string{"tcp/443"}, Debug: map[string]string{"jtag": "closed", "uart": "closed"},
		Credentials: &[]string{}, TLS: "1.3", Privileges: map[string]bool{"agent-unprivileged": true}}
}

// Each demand fails on its own, with a sentence that names what is wrong; what was not looked at is not fulfilled.
func TestBaselineNamesEachFault(t *testing.T) {
	if failed := strict.Check(sound()); len(failed) > 0 || !strict.Demands() {
		t.Fatalf("a sound device: %q", failed)
	}
	if failed := (Baseline{}).Check(wire.BaselineReport{}); len(failed) > 0 || (Baseline{}).Demands() {
		t.Errorf("nothing demanded: %q", failed)
	}
	for want, spoil := range map[string]func(*wire.BaselineReport){
		"Secure boot is off.":                                       func(r *wire.BaselineReport) { r.SecureBoot = wire.BootOff },
		"Secure boot is unsupported.":                               func(r *wire.BaselineReport) { r.SecureBoot = wire.BootUnsupported },
		"Secure boot is not reported.":                              func(r *wire.BaselineReport) { r.SecureBoot = "" },
		"The hardware root of trust is none.":                       func(r *wire.BaselineReport) { r.Root = wire.RootNone },
		"The hardware root of trust is not reported.":               func(r *wire.BaselineReport) { r.Root = "" },
		"The port tcp/23 is open.":                                  func(r *wire.BaselineReport) { r.Ports = &[]string{"tcp/23", "tcp/443", "tcp/23"} },
		"The port udp/443 is open.":                                 func(r *wire.BaselineReport) { r.Ports = &[]string{"udp/443"} },
		"The open ports are not reported.":                          func(r *wire.BaselineReport) { r.Ports = nil },
		"The debug interface jtag is open.":                         func(r *wire.BaselineReport) { r.Debug["jtag"] = "open" },
		"The debug interface uart is not reported.":                 func(r *wire.BaselineReport) { delete(r.Debug, "uart") },
		"The account root has a factory password.":                  func(r *wire.BaselineReport) { r.Credentials = &[]string{"root"} },
		"Whether accounts have a factory password is not reported.": func(r *wire.BaselineReport) { r.Credentials = nil },
		"The least TLS version is 1.1, and must be 1.2.":            func(r *wire.BaselineReport) { r.TLS = "1.1" },
		"The least TLS version is not reported, and must be 1.2.":   func(r *wire.BaselineReport) { r.TLS = "" },
		"agent-unprivileged does not hold.":                         func(r *wire.BaselineReport) { r.Privileges["agent-unprivileged"] = false },
		"agent-unprivileged is not reported.":                       func(r *wire.BaselineReport) { r.Privileges = nil },
	} {
		r := sound()
		spoil(&r)
		if failed := strict.Check(r); !slices.Equal(failed, []string{want}) {
			t.Errorf("%q, want %q", failed, want)
		}
	}
	if failed := strict.Check(wire.BaselineReport{}); len(failed) != 8 {
		t.Errorf("an empty report fails %d items: %q", len(failed), failed)
	}
	none := Baseline{Ports: &[]string{}}
	r := sound()
	if failed := none.Check(r); len(failed) != 1 || !none.Demands() {
		t.Errorf("no port allowed: %q", failed)
	}
}

// signer is a signing key as the platform has one.
func signer(t *testing.T) (sign func(string) ([]byte, error), verify func([]byte) (string, error)) {
	t.Helper()
	secret, public, err := note.GenerateKey(nil, "test/openthings")
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	return func(text string) ([]byte, error) { return note.Sign(&note.Note{Text: text}, s) }, func(b []byte) (string, error) {
		n, err := note.Open(b, note.VerifierList(v))
		if err != nil {
			return "", err
		}
		return n.Text, nil
	}
}

func TestBaselineVersions(t *testing.T) {
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		sign, verify := signer(t)
		s := New(Config{DB: db, Clock: clock.NewHand(day0), Sign: sign, Verify: verify})
		p, err := s.Create(ctx, Product{Tenant: "ten_a", Name: "Lamp", Model: "lamp"}, "per_x")
		if err != nil {
			t.Fatal(err)
		}
		other, err := s.Create(ctx, Product{Tenant: "ten_a", Name: "Lamp 2", Model: "lamp-2"}, "per_x")
		if err != nil {
			t.Fatal(err)
		}
		if v, err := s.Baseline(ctx, "ten_a", p.ID); err != nil || v.Version != 0 || v.Demands() {
			t.Fatalf("before: %+v %v", v, err)
		}
		for i, b := range []Baseline{{SecureBoot: true}, strict, strict, {}} { // the same again is no new version
			v, err := s.SetBaseline(ctx, "ten_a", p.ID, b, "per_x")
			if want := []int64{1, 2, 2, 3}[i]; err != nil || v.Version != want {
				t.Errorf("%d: version %d, want %d (%v)", i, v.Version, want, err)
			}
		}
		v, err := s.SetBaseline(ctx, "ten_a", p.ID, strict, "per_x")
		if err != nil || v.Version != 4 {
			t.Fatal(v.Version, err)
		}
		got, err := s.Baseline(ctx, "ten_a", p.ID)
		if a, b := asJSON(t, got), asJSON(t, v); err != nil || a != b {
			t.Errorf("%s, want %s (%v)", a, b, err)
		}
		if _, err := s.SetBaseline(ctx, "ten_b", p.ID, strict, "per_x"); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("another tenant's: %v", err)
		}
		if v, err := s.Baseline(ctx, "ten_b", p.ID); err != nil || v.Version != 0 {
			t.Errorf("another tenant reads %+v %v", v, err)
		}
		for at, b := range map[string]Baseline{"ports": {Ports: &[]string{"443"}}, "debug_closed": {Debug: []string{"JTAG"}}, "least_privilege": {Privileges: []string{"a b"}}, "least_tls": {TLS: "1.0"}} {
			if _, err := s.SetBaseline(ctx, "ten_a", p.ID, b, "per_x"); !problem.Is(err, problem.KindInvalid) {
				t.Errorf("%s: %v", at, err)
			}
		}
		if _, err := (&Service{cfg: Config{DB: db, Clock: clock.System}}).Baseline(ctx, "ten_a", p.ID); err == nil {
			t.Error("a baseline is believed without a key to verify it")
		}
		// Who writes past the platform stops commissioning; the doctored text is never believed.
		for name, change := range map[string]string{
			"an item is struck out":               `UPDATE baseline SET note = replace(note, '"secure_boot":true,', '') WHERE version = 4`,
			"an older version is made the newest": `UPDATE baseline SET note = (SELECT b.note FROM baseline b WHERE b.version = 1 AND b.product = baseline.product) WHERE version = 4`,
		} {
			if err := db.Write(ctx, func(tx *store.Tx) error { _, err := tx.Exec(change); return err }); err != nil {
				t.Fatal(err)
			}
			if v, err := s.Baseline(ctx, "ten_a", p.ID); !problem.Is(err, problem.KindUnavailable) {
				t.Errorf("%s: %+v %v", name, v, err)
			}
		}
		if err := db.Write(ctx, func(tx *store.Tx) error {
			_, err := tx.Exec(`INSERT INTO baseline SELECT tenant, $1, version, note, actor, created FROM baseline WHERE version = 1`, other.ID)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if v, err := s.Baseline(ctx, "ten_a", other.ID); !problem.Is(err, problem.KindUnavailable) {
			t.Errorf("another product's baseline: %+v %v", v, err)
		}
		var leaves int
		if err := db.QueryRow(ctx, `SELECT count(*) FROM audit_entry WHERE kind = 'product.baseline'`).Scan(&leaves); err != nil || leaves != 4 {
			t.Errorf("%d leaves, want 4 (%v)", leaves, err)
		}
		if _, err := (&Service{cfg: Config{DB: db, Clock: clock.System, Verify: verify, Sign: func(string) ([]byte, error) { return nil, errors.New("no key") }}}).SetBaseline(ctx, "ten_a", other.ID, strict, "x"); err == nil {
			t.Error("a baseline without a signature was kept")
		}
	})
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestBaselineDoors(t *testing.T) {
	db := storetest.Open(t, storetest.SQLiteURL(t), schema)
	sign, verify := signer(t)
	s := New(Config{DB: db, Clock: clock.NewHand(day0), Sign: sign, Verify: verify})
	p, err := s.Create(t.Context(), Product{Tenant: "ten_a", Name: "Lamp", Model: "lamp"}, "per_x")
	if err != nil {
		t.Fatal(err)
	}
	door := func(role tenant.Role, method, path, body string) (int, string) {
		a := api.New(api.Config{Clock: clock.System, Log: slog.New(slog.DiscardHandler), Authenticate: as(role), Holds: tenant.Holds, Caller: func(context.Context) string { return "x" }})
		s.Routes(a)
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	path := "/v1/products/" + p.ID + "/baseline"
	if code, body := door(tenant.Auditor, "PUT", path, `{"secure_boot":true}`); code != 403 {
		t.Errorf("an auditor sets it: %d %s", code, body)
	}
	if code, body := door(tenant.Owner, "PUT", path, `{"secure_boot":true,"ports":[],"least_tls":"1.3"}`); code != 200 || !strings.Contains(body, `"ports":[]`) || !strings.Contains(body, "openthings baseline 1") {
		t.Errorf("set: %d %s", code, body)
	}
	if code, body := door(tenant.Owner, "PUT", path, `{"ports":["tcp/99999"]}`); code != 400 {
		t.Errorf("a port that is none: %d %s", code, body)
	}
	if code, body := door(tenant.Auditor, "GET", path, ""); code != 200 || !strings.Contains(body, `"version":1`) {
		t.Errorf("get: %d %s", code, body)
	}
	door(tenant.Owner, "PUT", path, `{"secure_boot":true}`)
	if code, body := door(tenant.Auditor, "GET", path+"s?page_size=1", ""); code != 200 || !strings.Contains(body, `"version":2`) || !strings.Contains(body, "next_page_token") {
		t.Errorf("list: %d %s", code, body)
	}
	c := console.New(console.Config{Clock: clock.System, Log: slog.New(slog.DiscardHandler), Menu: []string{"Products"}, Authenticate: as(tenant.Owner), Holds: tenant.Holds,
		Visitor: func(context.Context) string { return "x" }})
	s.Pages(c)
	post := httptest.NewRequest("POST", path[len("/v1"):], strings.NewReader("secure_boot=1&ports=none&debug_closed=jtag+uart&least_tls=1.2"))
	post.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	c.ServeHTTP(w, post)
	if w.Code != 303 {
		t.Fatalf("form: %d %s", w.Code, w.Body)
	}
	w = httptest.NewRecorder()
	c.ServeHTTP(w, httptest.NewRequest("GET", "/products/"+p.ID, nil))
	for _, want := range []string{"Version 3", "jtag uart", `value="none"`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("the page lacks %s: %s", want, w.Body)
		}
	}
}
