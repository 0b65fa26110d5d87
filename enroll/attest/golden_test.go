// SPDX-License-Identifier: AGPL-3.0-only

package attest_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/openthings-platform/openthings/enroll/attest"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/wire"
)

var golden = flag.Bool("golden", false, "capture testdata anew from a software TPM")

// recorded is one exchange with a real (software) TPM, so that what was once proven stays proven.
type recorded struct {
	Pending attest.Pending
	Proof   wire.AttestProof
	Makers  [][]byte // DER
	At      time.Time
}

const recording = "testdata/exchange.json"

// record keeps an exchange if it is asked to.
func record(t *testing.T, r recorded) {
	t.Helper()
	if !*golden {
		return
	}
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(recording, append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

func replay(t testing.TB) (r recorded) {
	t.Helper()
	b, err := os.ReadFile(recording)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r recorded) verify() (attest.Evidence, error) {
	key, err := attest.Key(r.Proof.Key)
	if err != nil {
		return attest.Evidence{}, err
	}
	var makers []*x509.Certificate
	for _, der := range r.Makers {
		m, err := x509.ParseCertificate(der)
		if err != nil {
			return attest.Evidence{}, err
		}
		makers = append(makers, m)
	}
	return attest.Verify(r.Pending, r.Proof, key, makers, r.At)
}

// Every byte of the proof counts: none can be changed without its being noticed.
func TestRecordedExchange(t *testing.T) {
	r := replay(t)
	e, err := r.verify()
	if err != nil || e.Grade != identity.GradeA {
		t.Fatalf("%+v %v", e, err)
	}
	for name, field := range map[string]*[]byte{"opened": &r.Proof.Opened, "key": &r.Proof.Key, "info": &r.Proof.Info, "signature": &r.Proof.Signature} {
		whole := *field
		for i := range whole {
			*field = bytes.Clone(whole)
			(*field)[i] ^= 0x40
			if e, err := r.verify(); err == nil {
				t.Errorf("%s: byte %d does not count: %+v", name, i, e)
			}
		}
		for i := range whole {
			*field = whole[:i]
			if _, err := r.verify(); err == nil {
				t.Errorf("%s: cut at %d it is still good", name, i)
			}
		}
		*field = whole
	}
}

// What a device sends first is parsed without harm, and no challenge is given for what is no TPM's.
func FuzzChallenge(f *testing.F) {
	r := replay(f).Pending.Request
	f.Add(r.Certificate, r.EK, r.AK)
	f.Add([]byte(nil), r.EK, r.AK)
	f.Add(r.Certificate, r.AK, r.EK)
	f.Add(r.Certificate, tpm2.Marshal(tpm2.RSAEKTemplate), r.AK)
	f.Add([]byte(nil), tpm2.Marshal(tpm2.ECCEKTemplate), r.AK)
	f.Fuzz(func(t *testing.T, certificate, ek, ak []byte) {
		c, p, err := attest.Challenge(wire.AttestRequest{Certificate: certificate, Chain: [][]byte{certificate}, EK: ek, AK: ak}, time.Now())
		if err != nil {
			return
		}
		if len(c.Credential) == 0 || len(c.Secret) == 0 || p.ID != c.ID {
			t.Errorf("half a challenge: %+v", c)
		}
	})
}

// The statement is parsed without harm even when it is rightly signed: whoever has an attestation key may be hostile.
func FuzzVerify(f *testing.F) {
	r := replay(f)
	ak, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	r.Pending.Request.AK = softArea(f, &ak.PublicKey)
	f.Add(r.Proof.Info, r.Proof.Key, r.Proof.Signature, true)
	f.Add(r.Proof.Info, r.Proof.Key, r.Proof.Signature, false)
	f.Add([]byte("\xff\x54\x43\x47\x80\x17"), r.Pending.Request.EK, []byte{0, 0x18, 0, 0x0b}, true)
	f.Add(r.Proof.Info[:40], tpm2.Marshal(tpm2.RSAEKTemplate), []byte{0, 0x14}, true)
	f.Fuzz(func(t *testing.T, info, area, signature []byte, sign bool) {
		r := r
		if sign {
			signature = softSign(t, ak, info)
		}
		r.Proof.Info, r.Proof.Key, r.Proof.Signature = info, area, signature
		e, err := r.verify()
		if err == nil && !bytes.Contains(info, r.Pending.Nonce) {
			t.Errorf("a statement without the nonce: %+v", e)
		}
	})
}

// softArea is the public area of a key that only pretends to be in a TPM.
func softArea(t testing.TB, k *ecdsa.PublicKey) []byte {
	t.Helper()
	point, err := k.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return tpm2.Marshal(tpm2.TPMTPublic{Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: restricted,
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256, Scheme: ecdsa256}),
		Unique:     tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]}})})
}

func softSign(t testing.TB, k *ecdsa.PrivateKey, info []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(info)
	r, s, err := ecdsa.Sign(rand.Reader, k, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return tpm2.Marshal(tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgECDSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
		Hash: tpm2.TPMAlgSHA256, SignatureR: tpm2.TPM2BECCParameter{Buffer: r.Bytes()}, SignatureS: tpm2.TPM2BECCParameter{Buffer: s.Bytes()}})})
}

// A program that plays a TPM without a certificate is believed as far as grade B, and no further.
func TestPretendedTPM(t *testing.T) {
	r := replay(t)
	ak, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r.Pending.Request.AK, r.Pending.Request.Certificate = softArea(t, &ak.PublicKey), nil
	r.Proof.Signature = softSign(t, ak, r.Proof.Info)
	var key crypto.PublicKey
	if key, err = attest.Key(r.Proof.Key); err != nil {
		t.Fatal(err)
	}
	if e, err := attest.Verify(r.Pending, r.Proof, key, nil, r.At); err != nil || e.Grade != identity.GradeB {
		t.Errorf("%+v %v", e, err)
	}
}
