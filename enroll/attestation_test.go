// SPDX-License-Identifier: AGPL-3.0-only

package enroll_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/hardware/hardwaretest"
	"github.com/openthings-platform/openthings/hardware/tpm"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/wire"
)

// attester is the TPM of one device, as an agent has it.
type attester struct {
	*tpm.Device
	t     *testing.T
	chain []*x509.Certificate
}

func (a attester) post(h *house, as credential, path string, in, out any) (int, string) {
	a.t.Helper()
	b, err := json.Marshal(in)
	h.must(err)
	code, body := h.do(&as, "POST", path, "application/json", string(b))
	if code == 200 {
		h.must(json.Unmarshal([]byte(body), out))
	}
	return code, body
}

// prove goes through the whole exchange for a key.
func (a attester) prove(h *house, as credential, key *tpm.Key) (int, string, wire.AttestProof) {
	a.t.Helper()
	e, err := a.Endorsement()
	h.must(err)
	ak, err := a.NewAttestationKey()
	h.must(err)
	area := func(k *tpm.Key) []byte { b, err := k.Area(); h.must(err); return b }
	request := wire.AttestRequest{Certificate: e.Certificate, EK: e.Area, AK: area(ak)}
	for _, c := range a.chain {
		request.Chain = append(request.Chain, c.Raw)
	}
	var c wire.AttestChallenge
	if code, body := a.post(h, as, "/d/1/attest/challenge", request, &c); code != 200 {
		a.t.Fatalf("challenge: %d %s", code, body)
	}
	opened, err := a.Activate(e, ak, c.Credential, c.Secret)
	h.must(err)
	info, sig, err := a.Certify(key, ak, c.Nonce)
	h.must(err)
	proof := wire.AttestProof{ID: c.ID, Opened: opened, Key: area(key), Info: info, Signature: sig}
	var out map[string]any
	code, body := a.post(h, as, "/d/1/attest/answer", proof, &out)
	return code, body, proof
}

func tpmCSR(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "unit"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// A policy demands grade A: only a key of which a TPM of a trusted maker said that it holds it becomes an LDevID. With
// swtpm, over the real doors.
func TestAPolicyDemandsAttestation(t *testing.T) {
	maker := hardwaretest.NewMaker(t)
	peer := maker.NewTPM()
	h := lite(t) // its clock stands still, and the maker's certificates are older
	dev, err := tpm.Open(peer.Where)
	h.must(err)
	t.Cleanup(func() { dev.Close() }) //nolint:errcheck // the test is over
	a := attester{dev, t, maker.Chain}
	h.policy("strict", map[string]any{"products": []string{h.product()}, "grade": "A"})
	st, _ := h.station("B1", 10, 10)
	idevid, unit := h.unit(st, "L1")
	h.claim(unit.Claim)
	key, err := dev.New(elliptic.P256())
	h.must(err)
	csr := tpmCSR(t, key)
	enrol := func(csr []byte, ok bool, why string) {
		t.Helper()
		code, body := h.enrol(idevid, "strict/simpleenroll", csr)
		if ok != (code == 200) || !ok && !refusedBy(code, body, "enroll.grade") {
			t.Errorf("%s: %d %s", why, code, body)
		}
	}
	enrol(csr, false, "a key that nothing was proven of")
	if code, body, _ := a.prove(h, idevid, key); code != 200 || !strings.Contains(body, `"grade":"B"`) {
		t.Fatalf("the maker is not trusted yet: %d %s", code, body)
	}
	enrol(csr, false, "a TPM of whatever maker")

	root := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: maker.Root.Raw}))
	code, m := h.call("POST", "/v1/tpm-makers", map[string]any{"name": "Maker", "certificate": root})
	if code != 201 {
		t.Fatal(code, m)
	}
	if code, m := h.call("POST", "/v1/tpm-makers", map[string]any{"name": "Again", "certificate": root}); code != 409 {
		t.Errorf("twice: %d %v", code, m)
	}
	if code, m := h.call("POST", "/v1/tpm-makers", map[string]any{"name": "Leaf", "certificate": unit.Certificate}); code != 400 {
		t.Errorf("no authority: %d %v", code, m)
	}
	code, body, proof := a.prove(h, idevid, key)
	if code != 200 || !strings.Contains(body, `"grade":"A"`) {
		t.Fatalf("%d %s", code, body)
	}
	if code, body := a.post(h, idevid, "/d/1/attest/answer", proof, new(map[string]any)); code != 409 {
		t.Errorf("the same proof again: %d %s", code, body)
	}
	enrol(csrFor(t, newKey(t), nil), false, "another key than the proven one")
	enrol(csr, true, "the proven key")
	d, err := h.identity.Get(t.Context(), ten, unit.Device)
	if err != nil || d.Grade != identity.GradeA {
		t.Errorf("grade %q %v", d.Grade, err)
	}
	code, m = h.call("GET", "/v1/devices/"+unit.Device+"/attestations", nil)
	if items, _ := m["items"].([]any); code != 200 || len(items) != 1 || items[0].(map[string]any)["manufacturer"] == "" {
		t.Errorf("%d %v", code, m)
	}

	// The TPM is one device's: another cannot borrow it.
	second, other := h.unit(st, "L2")
	h.claim(other.Claim)
	borrowed, err := dev.New(elliptic.P256())
	h.must(err)
	if code, body, _ := a.prove(h, second, borrowed); code != 403 || !strings.Contains(body, "attest.tpm-used") {
		t.Errorf("a borrowed TPM: %d %s", code, body)
	}
	// A renewal with a key outside the TPM would be a step down.
	x, err := x509.ParseCertificate(h.der(key))
	h.must(err)
	ldevid := credential{cert: tlsCert(x, key)}
	next, _ := h.renewal(ldevid)
	if code, body := h.enrol(ldevid, "strict/simplereenroll", next); !refusedBy(code, body, "enroll.grade") {
		t.Errorf("a step down: %d %s", code, body)
	}
	for _, junk := range []string{"", "{}", "[]", `{"ek":"AAAA","ak":"AAAA"}`, `{"id":"x"}`} {
		for _, path := range []string{"/d/1/attest/challenge", "/d/1/attest/answer"} {
			if code, body := h.do(&idevid, "POST", path, "application/json", junk); code < 400 || code >= 500 {
				t.Errorf("%s %q: %d %s", path, junk, code, body)
			}
		}
	}
	if n := h.count(`SELECT count(*) FROM audit_entry WHERE kind = 'device.attested' AND subject = $1`, unit.Device); n != 2 {
		t.Errorf("%d leaves", n)
	}
}
