// SPDX-License-Identifier: AGPL-3.0-only

package attest_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"github.com/openthings-platform/openthings/enroll/attest"
	"github.com/openthings-platform/openthings/hardware/hardwaretest"
	"github.com/openthings-platform/openthings/hardware/tpm"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/wire"
)

// device is a TPM with an attestation key, as an agent has it.
type device struct {
	*tpm.Device
	t  *testing.T
	e  tpm.Endorsement
	ak *tpm.Key
}

func newDevice(t *testing.T, peer *hardwaretest.TPM) device {
	t.Helper()
	d, err := tpm.Open(peer.Where)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() }) //nolint:errcheck // the test is over
	e, err := d.Endorsement()
	if err != nil {
		t.Fatal(err)
	}
	ak, err := d.NewAttestationKey()
	if err != nil {
		t.Fatal(err)
	}
	return device{d, t, e, ak}
}

func area(t *testing.T, k *tpm.Key) []byte {
	t.Helper()
	b, err := k.Area()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (d device) request() wire.AttestRequest {
	return wire.AttestRequest{Certificate: d.e.Certificate, Chain: d.e.Chain, EK: d.e.Area, AK: area(d.t, d.ak)}
}

func (d device) key() *tpm.Key {
	k, err := d.New(elliptic.P256())
	if err != nil {
		d.t.Fatal(err)
	}
	return k
}

func (d device) prove(k *tpm.Key, c wire.AttestChallenge) wire.AttestProof {
	d.t.Helper()
	opened, err := d.Activate(d.e, d.ak, c.Credential, c.Secret)
	if err != nil {
		d.t.Fatal(err)
	}
	return d.certify(k, c, opened)
}

func (d device) certify(k *tpm.Key, c wire.AttestChallenge, opened []byte) wire.AttestProof {
	d.t.Helper()
	info, sig, err := d.Certify(k, d.ak, c.Nonce)
	if err != nil {
		d.t.Fatal(err)
	}
	return wire.AttestProof{ID: c.ID, Opened: opened, Key: area(d.t, k), Info: info, Signature: sig}
}

func challenge(t *testing.T, r wire.AttestRequest) (wire.AttestChallenge, attest.Pending) {
	t.Helper()
	c, p, err := attest.Challenge(r, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(p) // as a table keeps it
	if err != nil {
		t.Fatal(err)
	}
	p = attest.Pending{}
	if err := json.Unmarshal(b, &p); err != nil {
		t.Fatal(err)
	}
	return c, p
}

// world is what the tests share, since making a certified TPM takes a second: two TPMs of one maker.
type world struct {
	maker       *hardwaretest.Maker
	peer, other *hardwaretest.TPM
}

func TestAttestation(t *testing.T) {
	m := hardwaretest.NewMaker(t)
	w := world{m, m.NewTPM(), m.NewTPM()}
	for name, f := range map[string]func(*testing.T, world){
		"grade A": gradeA, "grade B": gradeB, "lies": lies, "foreign attestation key": foreignAttestationKey, "one TPM": oneTPM,
		"exportable key": exportableKey, "requests refused": requestsRefused,
	} {
		t.Run(name, func(t *testing.T) { f(t, w) })
	}
	t.Run("RSA endorsement key", func(t *testing.T) { // last: it takes the other certificate away
		if _, err := (tpm2.NVUndefineSpace{AuthHandle: tpm2.TPMRHPlatform, NVIndex: named(t, w.peer, 0x01c00016)}).Execute(link(t, w.peer)); err != nil {
			t.Fatal(err)
		}
		d := newDevice(t, w.peer)
		c, err := x509.ParseCertificate(d.e.Certificate)
		if err != nil || c.PublicKeyAlgorithm != x509.RSA {
			t.Fatalf("the endorsement key is not RSA: %v", err)
		}
		gradeA(t, w)
	})
}

// named is an NV index with its name, as commands want it.
func named(t *testing.T, peer *hardwaretest.TPM, index tpm2.TPMHandle) tpm2.NamedHandle {
	t.Helper()
	r, err := tpm2.NVReadPublic{NVIndex: index}.Execute(link(t, peer))
	if err != nil {
		t.Fatal(err)
	}
	return tpm2.NamedHandle{Handle: index, Name: r.NVName}
}

func link(t *testing.T, peer *hardwaretest.TPM) transport.TPM {
	t.Helper()
	l, err := linuxudstpm.Open(strings.TrimPrefix(peer.Where, "unix:"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A certified TPM leads to grade A, with what its certificate says.
func gradeA(t *testing.T, w world) {
	maker, d := w.maker, newDevice(t, w.peer)
	k := d.key()
	for name, makers := range map[string][]*x509.Certificate{"root and below": append(maker.Chain, maker.Root), "below": maker.Chain} {
		c, p := challenge(t, d.request())
		proof, now := d.prove(k, c), time.Now()
		e, err := attest.Verify(p, proof, k.Public(), makers, now)
		if err != nil {
			t.Fatal(err)
		}
		record(t, recorded{p, proof, [][]byte{maker.Chain[0].Raw}, now})
		if e.Grade != identity.GradeA || len(e.Reasons) != 0 || e.Manufacturer == "" || e.Model == "" || e.Certificate == "" || e.Issuer == "" {
			t.Errorf("%s: %+v", name, e)
		}
	}
	// The TPM carries the authority between its certificate and the root, padded; then trust in the root is enough.
	l := link(t, w.peer)
	chain := append(bytes.Clone(maker.Chain[0].Raw), 0xff, 0xff)
	index := tpm2.TPMHandle(0x01c00100)
	if _, err := (tpm2.NVReadPublic{NVIndex: index}).Execute(l); err != nil {
		if _, err := (tpm2.NVDefineSpace{AuthHandle: tpm2.TPMRHPlatform, PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{NVIndex: index, NameAlg: tpm2.TPMAlgSHA256,
			Attributes: tpm2.TPMANV{PlatformCreate: true, AuthRead: true, OwnerRead: true, PPWrite: true, NoDA: true, NT: tpm2.TPMNTOrdinary}, DataSize: uint16(len(chain))})}).Execute(l); err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(chain); at += 512 {
			if _, err := (tpm2.NVWrite{AuthHandle: tpm2.TPMRHPlatform, NVIndex: named(t, w.peer, index), Offset: uint16(at),
				Data: tpm2.TPM2BMaxNVBuffer{Buffer: chain[at:min(at+512, len(chain))]}}).Execute(l); err != nil {
				t.Fatal(err)
			}
		}
	}
	d = newDevice(t, w.peer)
	k = d.key()
	r := d.request()
	if len(r.Chain) != 1 {
		t.Fatalf("the TPM carries %d authorities", len(r.Chain))
	}
	c, p := challenge(t, r)
	if e, err := attest.Verify(p, d.prove(k, c), k.Public(), []*x509.Certificate{maker.Root}, time.Now()); err != nil || e.Grade != identity.GradeA {
		t.Errorf("%+v %v", e, err)
	}
}

// Who is not certified by a trusted maker is B at best.
func gradeB(t *testing.T, w world) {
	maker, d := w.maker, newDevice(t, w.peer)
	bare := newDevice(t, hardwaretest.NewTPM(t))
	k := d.key()
	for name, c := range map[string]struct {
		d      device
		makers []*x509.Certificate
		at     time.Time
		want   string
	}{
		"another maker":  {d, []*x509.Certificate{anotherMaker(t)}, time.Now(), "not trusted"},
		"no maker":       {d, nil, time.Now(), "not trusted"},
		"not yet valid":  {d, maker.Chain, time.Now().AddDate(-20, 0, 0), "not trusted"},
		"no certificate": {bare, maker.Chain, time.Now(), "no certificate"},
	} {
		k := k
		if c.d.Device == bare.Device {
			k = bare.key()
		}
		ch, p, err := attest.Challenge(c.d.request(), c.at)
		if err != nil {
			t.Fatal(err)
		}
		e, err := attest.Verify(p, c.d.prove(k, ch), k.Public(), c.makers, c.at)
		if err != nil || e.Grade != identity.GradeB || !strings.Contains(strings.Join(e.Reasons, " "), c.want) {
			t.Errorf("%s: %+v %v", name, e, err)
		}
	}
}

// anotherMaker is an authority that has certified none of the TPMs here.
func anotherMaker(t *testing.T) *x509.Certificate {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "swtpm-localca"}, NotAfter: time.Now().AddDate(1, 0, 0), BasicConstraintsValid: true, IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c
}

// Each lie is found out.
func lies(t *testing.T, w world) {
	maker, d, accomplice := w.maker, newDevice(t, w.peer), newDevice(t, w.other)
	k, foreign := d.key(), accomplice.key()
	soft, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	old, oldPending := challenge(t, d.request())
	used := d.prove(k, old)

	type attempt struct {
		pending attest.Pending
		proof   wire.AttestProof
		key     crypto.PublicKey
		at      time.Time
	}
	for name, lie := range map[string]func(*attempt, wire.AttestChallenge){
		"a replayed proof":              func(a *attempt, c wire.AttestChallenge) { a.proof = used },
		"a replayed proof, renamed":     func(a *attempt, c wire.AttestChallenge) { a.proof = used; a.proof.ID = c.ID },
		"a replayed statement":          func(a *attempt, c wire.AttestChallenge) { a.proof.Info, a.proof.Signature = used.Info, used.Signature },
		"another challenge's answer":    func(a *attempt, c wire.AttestChallenge) { a.proof.Opened = used.Opened },
		"the challenge not opened":      func(a *attempt, c wire.AttestChallenge) { a.proof.Opened = nil },
		"too late":                      func(a *attempt, c wire.AttestChallenge) { a.at = a.at.Add(attest.Life) },
		"no challenge":                  func(a *attempt, c wire.AttestChallenge) { a.pending, a.proof.ID = attest.Pending{}, "" },
		"a software key in the request": func(a *attempt, c wire.AttestChallenge) { a.key = soft.Public() },
		"another key in the request":    func(a *attempt, c wire.AttestChallenge) { a.key = d.key().Public() },
		"a key of another TPM": func(a *attempt, c wire.AttestChallenge) {
			a.proof, a.key = accomplice.certify(foreign, c, a.proof.Opened), foreign.Public()
		},
		"a statement about another key": func(a *attempt, c wire.AttestChallenge) {
			p := d.certify(d.key(), c, a.proof.Opened)
			a.proof.Info, a.proof.Signature = p.Info, p.Signature
		},
		"an altered statement": func(a *attempt, c wire.AttestChallenge) {
			a.proof.Info = slices.Clone(a.proof.Info)
			a.proof.Info[len(a.proof.Info)-1] ^= 1
		},
		"an altered public area": func(a *attempt, c wire.AttestChallenge) { a.proof.Key = append(slices.Clone(a.proof.Key), 0) },
		"a signature by the key": func(a *attempt, c wire.AttestChallenge) { a.proof.Signature = []byte{0, 0} },
		"a flood":                func(a *attempt, c wire.AttestChallenge) { a.proof.Info = make([]byte, 1<<20) },
		"a flood of key":         func(a *attempt, c wire.AttestChallenge) { a.proof.Key = make([]byte, 1<<20) },
	} {
		c, p := challenge(t, d.request())
		a := attempt{p, d.prove(k, c), k.Public(), time.Now()}
		if e, err := attest.Verify(a.pending, a.proof, a.key, maker.Chain, a.at); err != nil || e.Grade != identity.GradeA {
			t.Fatalf("%s: the honest proof: %+v %v", name, e, err)
		}
		lie(&a, c)
		if e, err := attest.Verify(a.pending, a.proof, a.key, maker.Chain, a.at); err == nil {
			t.Errorf("%s was believed: %+v", name, e)
		}
	}
	if _, err := attest.Verify(oldPending, used, k.Public(), maker.Chain, time.Now()); err != nil {
		t.Error("the first challenge was spoilt by the later ones:", err)
	}
}

// One TPM is one, however the device describes its endorsement key: otherwise it could lend itself to many devices.
func oneTPM(t *testing.T, w world) {
	d := newDevice(t, w.peer)
	r := d.request()
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](r.EK)
	if err != nil {
		t.Fatal(err)
	}
	area.ObjectAttributes.NoDA = !area.ObjectAttributes.NoDA
	disguised := r
	disguised.EK = tpm2.Marshal(area)
	seen := map[string]bool{}
	for _, r := range []wire.AttestRequest{r, disguised} {
		k := d.key()
		c, p := challenge(t, r)
		e, err := attest.Verify(p, d.prove(k, c), k.Public(), nil, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		seen[e.EK] = true
	}
	if len(seen) != 1 {
		t.Errorf("one TPM has the names %v", seen)
	}
}

// An attestation key of another TPM cannot be passed off as one of a trusted TPM: only the TPM with both opens the secret.
func foreignAttestationKey(t *testing.T, w world) {
	d, foreign := newDevice(t, w.peer), newDevice(t, hardwaretest.NewTPM(t))
	c, _ := challenge(t, wire.AttestRequest{Certificate: d.e.Certificate, EK: d.e.Area, AK: area(t, foreign.ak)})
	if _, err := d.Activate(d.e, d.ak, c.Credential, c.Secret); err == nil {
		t.Error("the trusted TPM opened a challenge for a foreign attestation key")
	}
	if _, err := foreign.Activate(foreign.e, foreign.ak, c.Credential, c.Secret); err == nil {
		t.Error("the foreign TPM opened a challenge for the trusted endorsement key")
	}
}

// laboratory makes keys that tpm.Device refuses to make.
type laboratory struct {
	t    *testing.T
	link transport.TPM
	srk  tpm2.AuthHandle
}

func newLaboratory(t *testing.T, peer *hardwaretest.TPM) laboratory {
	t.Helper()
	l := link(t, peer)
	r, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(0x81000001)}.Execute(l)
	if err != nil {
		t.Fatal(err)
	}
	return laboratory{t, l, tpm2.AuthHandle{Handle: 0x81000001, Name: r.Name, Auth: tpm2.PasswordAuth(nil)}}
}

func (l laboratory) make(attributes tpm2.TPMAObject, scheme tpm2.TPMTECCScheme) (tpm2.AuthHandle, []byte) {
	l.t.Helper()
	r, err := tpm2.Create{ParentHandle: l.srk, InPublic: tpm2.New2B(tpm2.TPMTPublic{Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: attributes,
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256, Scheme: scheme})})}.Execute(l.link)
	if err != nil {
		l.t.Fatal(err)
	}
	h, err := tpm2.Load{ParentHandle: l.srk, InPrivate: r.OutPrivate, InPublic: r.OutPublic}.Execute(l.link)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { tpm2.FlushContext{FlushHandle: h.ObjectHandle}.Execute(l.link) }) //nolint:errcheck // the TPM ends with the test
	pub, err := r.OutPublic.Contents()
	if err != nil {
		l.t.Fatal(err)
	}
	return tpm2.AuthHandle{Handle: h.ObjectHandle, Name: h.Name, Auth: tpm2.PasswordAuth(nil)}, tpm2.Marshal(pub)
}

var (
	ecdsa256   = tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})}
	restricted = tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, SignEncrypt: true, Restricted: true}
)

// A key that can be taken out of its TPM is no better than a file, whatever the TPM.
func exportableKey(t *testing.T, w world) {
	maker, d, l := w.maker, newDevice(t, w.peer), newLaboratory(t, w.peer)
	c, p := challenge(t, d.request())
	opened, err := d.Activate(d.e, d.ak, c.Credential, c.Secret)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	ak, akArea := l.make(restricted, ecdsa256)
	p.Request.AK = akArea // the challenge for d.ak is opened; what counts here is the statement
	for name, attributes := range map[string]tpm2.TPMAObject{
		"may go anywhere":    {SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, SignEncrypt: true},
		"may change parents": {SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, SignEncrypt: true, EncryptedDuplication: true},
	} {
		key, keyArea := l.make(attributes, tpm2.TPMTECCScheme{})
		r, err := tpm2.Certify{ObjectHandle: key, SignHandle: ak, QualifyingData: tpm2.TPM2BData{Buffer: c.Nonce}, InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull}}.Execute(l.link)
		if err != nil {
			t.Fatal(err)
		}
		pub, err := tpm2.Unmarshal[tpm2.TPMTPublic](keyArea)
		if err != nil {
			t.Fatal(err)
		}
		public, err := tpm2.Pub(*pub)
		if err != nil {
			t.Fatal(err)
		}
		e, err := attest.Verify(p, wire.AttestProof{ID: c.ID, Opened: opened, Key: keyArea, Info: r.CertifyInfo.Bytes(), Signature: tpm2.Marshal(r.Signature)}, public, maker.Chain, time.Now())
		if err != nil || e.Grade != identity.GradeC || len(e.Reasons) == 0 {
			t.Errorf("%s: %+v %v", name, e, err)
		}
		tpm2.FlushContext{FlushHandle: key.Handle}.Execute(l.link) //nolint:errcheck // the TPM ends with the test
	}
}

// Requests that no honest TPM makes get no challenge.
func requestsRefused(t *testing.T, w world) {
	d, other, l := newDevice(t, w.peer), newDevice(t, w.other), newLaboratory(t, w.peer)
	free := restricted
	free.Restricted = false
	_, unrestricted := l.make(free, ecdsa256)
	wandering := restricted
	wandering.FixedTPM, wandering.FixedParent = false, false
	for name, change := range map[string]func(*wire.AttestRequest){
		"an attestation key that signs anything": func(r *wire.AttestRequest) { r.AK = unrestricted },
		"a decryption key as attestation key":    func(r *wire.AttestRequest) { r.AK = r.EK },
		"an attestation key as endorsement key":  func(r *wire.AttestRequest) { r.EK, r.Certificate = r.AK, nil },
		"another TPM's certificate":              func(r *wire.AttestRequest) { r.Certificate = other.e.Certificate },
		"another TPM's endorsement key":          func(r *wire.AttestRequest) { r.EK = other.e.Area },
		"no endorsement key":                     func(r *wire.AttestRequest) { r.EK = nil },
		"no attestation key":                     func(r *wire.AttestRequest) { r.AK = nil },
		"a certificate that is none":             func(r *wire.AttestRequest) { r.Certificate = []byte("no") },
		"a certificate of a megabyte":            func(r *wire.AttestRequest) { r.Certificate = make([]byte, 1<<20) },
		"a chain without end":                    func(r *wire.AttestRequest) { r.Chain = make([][]byte, wire.MaxAttestChain+1) },
		"a public area of a megabyte":            func(r *wire.AttestRequest) { r.AK = make([]byte, 1<<20) },
		"an attestation key cut off":             func(r *wire.AttestRequest) { r.AK = r.AK[:len(r.AK)-1] },
		"a point that is not on the curve":       func(r *wire.AttestRequest) { r.AK = slices.Clone(r.AK); r.AK[len(r.AK)-1] ^= 1 },
	} {
		r := d.request()
		change(&r)
		if _, _, err := attest.Challenge(r, time.Now()); err == nil || problem.Of(err).Kind == "internal" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
