// SPDX-License-Identifier: AGPL-3.0-only

package enroll_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

const day = 24 * time.Hour

// policy sets an enrolment policy as the owner.
func (h *house) policy(label string, members map[string]any) {
	h.t.Helper()
	if code, m := h.call("PUT", "/v1/enrolment-policies/"+label, members); code != 200 {
		h.t.Fatalf("policy %s: %d %v", label, code, m)
	}
}

// renewal is a request for a new key with the names of the certificate in use.
func (h *house) renewal(of credential) (csr []byte, key credential) {
	h.t.Helper()
	x, err := x509.ParseCertificate(of.cert.Certificate[0])
	h.must(err)
	k := newKey(h.t)
	return csrFor(h.t, k, func(r *x509.CertificateRequest) { r.RawSubject, r.URIs = x.RawSubject, x.URIs }), credential{key: k}
}

func refusedBy(code int, body, rule string) bool {
	return code == 403 && strings.HasSuffix(body, "\nrule: "+rule+"\n")
}

// A label selects a policy of the tenant of the certificate, and what that policy demands is what counts.
func TestEnrolmentPolicies(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		st, station := h.station("B1", 20, 20)
		type made struct {
			credential
			wire.LineResponse
		}
		units := map[string]made{}
		if code, m := h.call("POST", "/v1/preauthorised", map[string]any{"product": h.product(), "serial": "L8"}); code != 201 {
			t.Fatal(code, m)
		}
		for i := range 8 { // at once: the station is open for a day
			serial := fmt.Sprintf("L%d", i+1)
			c, u := h.unit(st, serial)
			units[serial] = made{c, u}
		}
		claimed := func(serial string) (credential, string) {
			if code, m := h.claim(units[serial].Claim); code != 201 {
				t.Fatal(code, m)
			}
			return units[serial].credential, units[serial].Device
		}
		csr := func() []byte { return csrFor(t, newKey(t), nil) }

		h.policy("short", map[string]any{"leaf_days": 30, "renew_days": 15})
		a, device := claimed("L1")
		key := newKey(t)
		if code, body := h.enrol(a, "short/simpleenroll", csrFor(t, key, nil)); code != 200 {
			t.Fatal(code, body)
		}
		ldevid := h.issued(key)
		x, err := x509.ParseCertificate(ldevid.cert.Certificate[0])
		h.must(err)
		if life := x.NotAfter.Sub(h.clock.Now()).Round(time.Minute); life != 30*day {
			t.Errorf("it lives %s", life)
		}
		// Its renewal has a window, and keeps it under the label; without the label there is another policy.
		next, _ := h.renewal(ldevid)
		if code, body := h.enrol(ldevid, "short/simplereenroll", next); !refusedBy(code, body, "enroll.early") {
			t.Errorf("an early renewal: %d %s", code, body)
		}
		h.clock.Advance(16 * day)
		if code, body := h.enrol(ldevid, "short/simplereenroll", next); code != 200 {
			t.Errorf("a renewal in its window: %d %s", code, body)
		}
		if code, body := h.enrol(ldevid, "short/simplereenroll", next); code != 200 {
			t.Errorf("the same again: %d %s", code, body)
		}

		h.policy("hardware", map[string]any{"grade": "B"})
		b, second := claimed("L2")
		if code, body := h.enrol(b, "hardware/simpleenroll", csr()); !refusedBy(code, body, "enroll.grade") {
			t.Errorf("a key of which nothing is known: %d %s", code, body)
		}
		if code, body := h.do(&b, "POST", "/d/1/baseline", "application/json", `{"root":"secure-element"}`); code != 200 {
			t.Fatal(code, body)
		}
		if code, body := h.enrol(b, "hardware/simpleenroll", csr()); code != 200 {
			t.Errorf("hardware claimed: %d %s", code, body)
		}
		for id, want := range map[string]identity.Grade{device: identity.GradeC, second: identity.GradeB} {
			if d, err := h.identity.Get(t.Context(), ten, id); err != nil || d.Grade != want {
				t.Errorf("grade %q, want %q (%v)", d.Grade, want, err)
			}
		}

		// Without a person: straight into the solution.
		h.policy("auto", map[string]any{"approval": "automatic", "solution": h.solution})
		c, unit := units["L3"].credential, units["L3"]
		if code, _ := h.enrol(c, "simpleenroll", csr()); code != 202 {
			t.Errorf("nobody has claimed it: %d", code)
		}
		if code, body := h.enrol(c, "auto/simpleenroll", csr()); code != 200 {
			t.Errorf("automatic: %d %s", code, body)
		}
		if d, err := h.identity.Get(t.Context(), ten, unit.Device); err != nil || d.Solution != h.solution || d.State != identity.Commissioned {
			t.Errorf("%+v %v", d, err)
		}

		h.policy("known", map[string]any{"preauthorised": true})
		d, _ := claimed("L4")
		if code, body := h.enrol(d, "known/simpleenroll", csr()); !refusedBy(code, body, "enroll.preauthorised") {
			t.Errorf("a serial number that was not announced: %d %s", code, body)
		}
		d, _ = claimed("L8")
		if code, body := h.enrol(d, "known/simpleenroll", csr()); code != 200 {
			t.Errorf("announced: %d %s", code, body)
		}

		h.policy("mine", map[string]any{"origins": []string{station}})
		h.policy("others", map[string]any{"origins": []string{"sta_other"}})
		e, _ := claimed("L5")
		if code, body := h.enrol(e, "others/simpleenroll", csr()); !refusedBy(code, body, "enroll.origin") {
			t.Errorf("another station's: %d %s", code, body)
		}
		if code, body := h.enrol(e, "mine/simpleenroll", csr()); code != 200 {
			t.Errorf("this station's: %d %s", code, body)
		}

		h.policy("bare", map[string]any{"chain_depth": 1})
		f, _ := claimed("L6")
		long := f
		chain := [][]byte{f.cert.Certificate[0], f.cert.Certificate[0], f.cert.Certificate[0]}
		long.cert = &tls.Certificate{Certificate: chain, PrivateKey: f.key}
		if code, body := h.enrol(long, "bare/simpleenroll", csr()); !refusedBy(code, body, "enroll.chain") {
			t.Errorf("a long chain: %d %s", code, body)
		}
		if code, body := h.enrol(f, "bare/simpleenroll", csr()); code != 200 {
			t.Errorf("its own certificate alone: %d %s", code, body)
		}

		// The product is named: now its devices have no other way in.
		h.policy("strict", map[string]any{"products": []string{h.product()}, "grade": "A"})
		g, _ := claimed("L7")
		for _, path := range []string{"auto/simpleenroll", "short/simpleenroll", "default/simpleenroll"} {
			if code, body := h.enrol(g, path, csr()); !refusedBy(code, body, "enroll.label") {
				t.Errorf("%s gets around the policy of the product: %d %s", path, code, body)
			}
		}
		for _, path := range []string{"simpleenroll", "strict/simpleenroll"} {
			if code, body := h.enrol(g, path, csr()); !refusedBy(code, body, "enroll.grade") {
				t.Errorf("%s: %d %s", path, code, body)
			}
		}
		// Who is at work already renews under a demand that was raised later.
		current := h.issued(key)
		again, _ := h.renewal(current)
		if code, body := h.enrol(current, "simplereenroll", again); code != 200 {
			t.Errorf("a demand that came later strands a device: %d %s", code, body)
		}
		if code, m := h.call("POST", "/v1/enrolment-policies/strict/end", nil); code != 200 || m["ended"] != true {
			t.Errorf("end: %d %v", code, m)
		}
		if code, body := h.enrol(g, "simpleenroll", csr()); code != 200 {
			t.Errorf("after its end: %d %s", code, body)
		}
		if code, body := h.enrol(g, "strict/simpleenroll", csr()); code != 404 {
			t.Errorf("an ended label: %d %s", code, body)
		}
	})
}

// Versions only grow, each is a leaf of the log, and another tenant's label is not there.
func TestPoliciesAreVersionedAndWalled(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		h.policy("lamps", map[string]any{"leaf_days": 30})
		h.policy("lamps", map[string]any{"leaf_days": 45})
		code, m := h.call("GET", "/v1/enrolment-policies/lamps/versions?page_size=1", nil)
		items, _ := m["items"].([]any)
		if code != 200 || len(items) != 1 || items[0].(map[string]any)["version"] != 2.0 || items[0].(map[string]any)["leaf_days"] != 45.0 {
			t.Errorf("%d %v", code, m)
		}
		code, m = h.call("GET", "/v1/enrolment-policies/lamps/versions?page_token="+m["next_page_token"].(string), nil)
		if items, _ = m["items"].([]any); code != 200 || len(items) != 1 || items[0].(map[string]any)["leaf_days"] != 30.0 {
			t.Errorf("%d %v", code, m)
		}
		if code, m := h.call("GET", "/v1/enrolment-policies", nil); code != 200 || len(m["items"].([]any)) != 2 {
			t.Errorf("%d %v", code, m)
		}
		if n := h.count(`SELECT count(*) FROM audit_entry WHERE kind = 'policy.set' AND subject = 'policy/lamps'`); n != 2 {
			t.Errorf("%d leaves", n)
		}
		if code, m := h.callAs("auditor", "PUT", "/v1/enrolment-policies/lamps", map[string]any{}); code != 403 {
			t.Errorf("an auditor sets a policy: %d %v", code, m)
		}
		if code, m := h.call("POST", "/v1/enrolment-policies/default/end", nil); code != 409 {
			t.Errorf("the platform's own ends: %d %v", code, m)
		}
		for name, bad := range map[string]map[string]any{"product": {"products": []string{"prd_other"}}, "solution": {"approval": "automatic", "solution": "sol_other"}} {
			if code, m := h.call("PUT", "/v1/enrolment-policies/x", bad); code != 404 {
				t.Errorf("a foreign %s: %d %v", name, code, m)
			}
		}
		h.write(func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE enrol_policy SET tenant = 'ten_b' WHERE label = 'lamps'`)
			return err
		})
		st, _ := h.station("B1", 5, 5)
		idevid, unit := h.unit(st, "L1")
		h.claim(unit.Claim)
		if code, body := h.enrol(idevid, "lamps/simpleenroll", csrFor(t, newKey(t), nil)); code != 404 {
			t.Errorf("another tenant's label: %d %s", code, body)
		}
		if code, _ := h.call("GET", "/v1/enrolment-policies/lamps", nil); code != 404 {
			t.Errorf("another tenant's policy is read: %d", code)
		}
	})
}

// A device back after two years renews with its ended LDevID where the policy allows it: over that one route, with its
// old key, once nothing else speaks against it, and leaving a trace.
func TestAnEndedLDevIDRenewsWhereThePolicyAllowsIt(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		st, _ := h.station("B1", 10, 10)
		commissioned := func(serial string) (string, credential) {
			idevid, unit := h.unit(st, serial)
			h.claim(unit.Claim)
			l := h.ldevid(idevid)
			if code, body := h.do(&l, "POST", "/d/1/messages", "application/json", "[]"); code != 200 {
				t.Fatal(code, body)
			}
			return unit.Device, l
		}
		device, old := commissioned("L1")
		revokedID, revoked := commissioned("L2")
		suspendedID, suspended := commissioned("L3")
		_, tooLate := commissioned("L4")
		h.clock.Advance(700 * day) // it ended 640 days ago
		csr, key := h.renewal(old)
		shut := func(c credential, why string) {
			t.Helper()
			csr, _ := h.renewal(c)
			for _, path := range []string{"/.well-known/est/simplereenroll", "/.well-known/est/simpleenroll", "/d/1/messages", "/d/1/baseline"} {
				code, body := h.do(&c, "POST", path, "application/json", string(csr)) // at the handshake, or at the first question to the register
				if code != 0 && !(code == 403 && strings.Contains(body, `"rule":"door.register"`)) {
					t.Errorf("%s: %s answers %d %s", why, path, code, body)
				}
			}
		}
		shut(old, "off by default")
		h.policy("default", map[string]any{"lapse_days": 600})
		shut(old, "beyond the window")
		h.policy("default", map[string]any{"lapse_days": 750})
		h.must(h.db.WriteFirst(t.Context(), func(tx *store.Tx) error { return h.identity.Revoke(tx, ten, revokedID, "per_a", "lost") }))
		h.must(h.identity.Suspend(t.Context(), ten, suspendedID, "per_a", "seen elsewhere"))
		shut(revoked, "revoked")
		shut(suspended, "suspended")

		for path, body := range map[string]string{"/d/1/messages": "[]", "/d/1/baseline": "{}", "/.well-known/est/simpleenroll": string(csr), "/d/1/line/devices": "{}"} {
			if code, out := h.do(&old, "POST", path, "application/json", body); code != 403 || !strings.Contains(out, "door.kind") {
				t.Errorf("an ended LDevID at %s: %d %s", path, code, out)
			}
		}
		if code, body := h.enrol(old, "simplereenroll", csrFor(t, newKey(t), nil)); code != 403 {
			t.Errorf("an ended LDevID changes its names: %d %s", code, body)
		}
		if code, body := h.enrol(old, "simplereenroll", csr); code != 200 {
			t.Fatalf("the return: %d %s", code, body)
		}
		fresh := h.issued(key.key)
		if code, body := h.do(&fresh, "POST", "/d/1/messages", "application/json", "[]"); code != 200 {
			t.Errorf("the new LDevID: %d %s", code, body)
		}
		shut(old, "after the return") // it is superseded
		if n := h.count(`SELECT count(*) FROM audit_entry WHERE kind = 'device.returned' AND subject = $1`, device); n != 1 {
			t.Errorf("%d traces of the return", n)
		}
		h.clock.Advance(120 * day)
		shut(tooLate, "the window has passed")
		if _, err := h.identity.Admit(t.Context(), mustParse(t, tooLate)); err == nil {
			t.Error("the register admits it")
		}
	})
}

func mustParse(t *testing.T, c credential) *x509.Certificate {
	t.Helper()
	x, err := x509.ParseCertificate(c.cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// product is the id of the house's product.
func (h *house) product() string {
	h.t.Helper()
	ps, err := h.products.List(h.t.Context(), ten)
	h.must(err)
	return ps[0].ID
}

// A device that does not fulfil its product's baseline stays pending, is told each fault, and is commissioned once it
// has mended them. One at work is never locked out for it, but nobody overlooks it.
func TestBaselineGatesCommissioning(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		st, _ := h.station("B1", 10, 10)
		commissioned, early := h.unit(st, "L0")
		h.claim(early.Claim)
		h.ldevid(commissioned)
		base := product.Baseline{SecureBoot: true, Ports: &[]string{"tcp/443"}, Debug: []string{"uart"}, NoDefaults: true, TLS: "1.3"}
		_, err := h.products.SetBaseline(t.Context(), ten, h.product(), base, "per_a")
		h.must(err)
		idevid, unit := h.unit(st, "L1")
		h.claim(unit.Claim)
		csr := csrFor(t, newKey(t), nil)
		ask := func(status int, says ...string) {
			t.Helper()
			resp, body := h.exchange(&idevid, "POST", "/.well-known/est/simpleenroll", string(csr))
			if resp.StatusCode != status || (status == 202) != (resp.Header.Get("Retry-After") == "5") {
				t.Errorf("%d, want %d: %s", resp.StatusCode, status, body)
			}
			for _, s := range says {
				if !strings.Contains(body, s) {
					t.Errorf("%q is not said in %s", s, body)
				}
			}
			want := identity.Pending
			if status == 200 {
				want = identity.Commissioned
			}
			if d, err := h.identity.Get(t.Context(), ten, unit.Device); err != nil || d.State != want {
				t.Errorf("the device is %s, want %s (%v)", d.State, want, err)
			}
		}
		report := func(as *credential, body, want string) {
			t.Helper()
			if code, out := h.do(as, "POST", "/d/1/baseline", "application/json", body); code != 200 || strings.TrimSpace(out) != want {
				t.Errorf("%d %s, want %s", code, out, want)
			}
		}
		const sound = `{"root":"tpm2","secure_boot":"on","ports":["tcp/443"],"debug":{"uart":"closed"},"default_credentials":[],"tls":"1.3"}`
		ask(202, "version 1", "/d/1/baseline", "rule: enroll.baseline")
		report(&idevid, `{"secure_boot":"on","ports":["tcp/23","tcp/443"],"debug":{"uart":"open"},"default_credentials":["root"],"tls":"1.3"}`,
			`{"ok":false,"version":1,"failed":["The port tcp/23 is open.","The debug interface uart is open.","The account root has a factory password."]}`)
		ask(403, "tcp/23", "uart is open", "account root", "rule: enroll.baseline")
		code, m := h.call("GET", "/v1/devices/"+unit.Device+"/baseline", nil)
		if failed, _ := m["failed"].([]any); code != 200 || m["ok"] != false || len(failed) != 3 {
			t.Errorf("%d %v", code, m)
		}
		if code, m := h.call("GET", "/v1/below-baseline", nil); code != 200 || len(m["items"].([]any)) != 1 {
			t.Errorf("%d %v", code, m)
		}
		report(&idevid, sound, `{"ok":true,"version":1}`)
		h.clock.Advance(25 * time.Hour)
		ask(202) // the report is stale
		report(&idevid, sound, `{"ok":true,"version":1}`)
		base.HardwareRoot = true
		_, err = h.products.SetBaseline(t.Context(), ten, h.product(), base, "per_a")
		h.must(err)
		ask(202, "version 2") // it was held against another baseline
		report(&idevid, sound, `{"ok":true,"version":2}`)

		// A baseline that somebody wrote past the platform commissions nobody.
		h.write(func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE baseline SET note = replace(note, '"hardware_root":true,', '') WHERE version = 2`)
			return err
		})
		if resp, body := h.exchange(&idevid, "POST", "/.well-known/est/simpleenroll", string(csr)); resp.StatusCode != 503 {
			t.Errorf("a doctored baseline: %d %s", resp.StatusCode, body)
		}
		_, err = h.products.Baseline(t.Context(), ten, h.product())
		if err == nil {
			t.Fatal("the doctored baseline is believed")
		}
		h.write(func(tx *store.Tx) error { _, err := tx.Exec(`DELETE FROM baseline WHERE version = 2`); return err })
		report(&idevid, sound, `{"ok":true,"version":1}`)
		ask(200)

		// At work: a fault is an event and a leaf, once; the device works on and renews.
		ldevid := h.ldevid(idevid)
		const worse = `{"root":"tpm2","secure_boot":"off","ports":[],"debug":{"uart":"closed"},"default_credentials":[],"tls":"1.3"}`
		leaves := func() int64 {
			return h.count(`SELECT count(*) FROM audit_entry WHERE kind = 'device.baseline' AND subject = $1`, unit.Device)
		}
		before := leaves()
		for range 3 {
			report(&ldevid, worse, `{"ok":false,"version":1,"failed":["Secure boot is off."]}`)
		}
		if n := leaves() - before; n != 1 {
			t.Errorf("%d leaves of one fault", n)
		}
		if code, body := h.do(&ldevid, "POST", "/d/1/messages", "application/json", "[]"); code != 200 {
			t.Errorf("locked out: %d %s", code, body)
		}
		next, _ := h.renewal(ldevid)
		if code, body := h.enrol(ldevid, "simplereenroll", next); code != 200 {
			t.Errorf("the renewal: %d %s", code, body)
		}
		if code, body := h.do(&idevid, "POST", "/d/1/baseline", "application/json", `{"ports":["nonsense"]}`); code != 400 {
			t.Errorf("nonsense: %d %s", code, body)
		}
		if code, body := h.do(nil, "POST", "/d/1/baseline", "application/json", sound); code != 403 {
			t.Errorf("nobody's report: %d %s", code, body)
		}
	})
}
