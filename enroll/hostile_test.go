// SPDX-License-Identifier: AGPL-3.0-only

package enroll_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/wire"
)

func lineRequest(t testing.TB, serial string, key *ecdsa.PrivateKey) wire.LineRequest {
	return wire.LineRequest{Serial: serial, CSR: csrPEM(t, key)}
}

// hostile is a request that must be refused by its rule.
type hostile struct {
	name, rule string
	der        []byte
}

func signedBy(t testing.TB, key crypto.Signer, change func(*x509.CertificateRequest)) []byte {
	t.Helper()
	r := &x509.CertificateRequest{}
	if change != nil {
		change(r)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, r, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func asking(t testing.TB, id asn1.ObjectIdentifier, value any) func(*x509.CertificateRequest) {
	t.Helper()
	b, err := asn1.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return func(r *x509.CertificateRequest) { r.ExtraExtensions = []pkix.Extension{{Id: id, Value: b}} }
}

// resigned is the request with its body changed and signed anew, so that only the change can be what is refused.
func resigned(t testing.TB, key *ecdsa.PrivateKey, der []byte, change func(info []byte) []byte) []byte {
	t.Helper()
	var r struct{ Info, Algorithm, Signature asn1.RawValue }
	if _, err := asn1.Unmarshal(der, &r); err != nil {
		t.Fatal(err)
	}
	info := change(bytes.Clone(r.Info.FullBytes))
	h := crypto.SHA256.New()
	h.Write(info)
	sig, err := ecdsa.SignASN1(rand.Reader, key, h.Sum(nil))
	if err != nil {
		t.Fatal(err)
	}
	signature, err := asn1.Marshal(asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)})
	if err != nil {
		t.Fatal(err)
	}
	out, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: append(append(info, r.Algorithm.FullBytes...), signature...)})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestI15_HostileRequestsAreRefusedByTheirRule at every door that takes a certificate request.
func TestI15_HostileRequestsAreRefusedByTheirRule(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0")
	h := lite(t)
	ctx := context.Background()
	st, _ := h.station("B1", 1000, 1000)
	victim, _ := h.unit(st, "V-1")
	m := newMaker(h, "Maker")
	h.trust(m, nil)
	me := m.born("H-1")
	h.enrolled(&me, "simpleenroll", newKey(t), nil)
	id := h.device("H-1").ID
	_, text := h.token(100, nil)
	blocked := newKey(t)
	spki, err := x509.MarshalPKIXPublicKey(&blocked.PublicKey)
	h.must(err)
	if n, err := h.identity.BlockKeys(ctx, ten, strings.NewReader("# a list of weak keys\n"+identity.KeyHash(spki)[:30]+"\n"), "CVE-2008-0166", owner.ID); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	h.must(err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	h.must(err)
	one, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), big.NewInt(77).FillBytes(make([]byte, 32)))
	h.must(err)
	key := newKey(t)
	good := signedBy(t, key, nil)
	broken := bytes.Clone(good)
	broken[len(broken)-5] ^= 1
	ext := func(id asn1.ObjectIdentifier, v any) []byte { return signedBy(t, key, asking(t, id, v)) }
	basic, usage, keyUsage := asn1.ObjectIdentifier{2, 5, 29, 19}, asn1.ObjectIdentifier{2, 5, 29, 37}, asn1.ObjectIdentifier{2, 5, 29, 15}
	cases := []hostile{
		{"CA:true", identity.RuleCSRAuthority, ext(basic, struct{ IsCA bool }{true})},
		{"signs certificates", identity.RuleCSRAuthority, ext(keyUsage, asn1.BitString{Bytes: []byte{0x04}, BitLength: 6})},
		{"any usage", identity.RuleCSRUsage, ext(usage, []asn1.ObjectIdentifier{{2, 5, 29, 37, 0}})},
		{"server", identity.RuleCSRUsage, ext(usage, []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 1}})},
		{"code signing beside client", identity.RuleCSRUsage, ext(usage, []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 2}, {1, 3, 6, 1, 5, 5, 7, 3, 3}})},
		{"RSA-1024", identity.RuleKey, signedBy(t, short, nil)},
		{"P-384", identity.RuleKey, signedBy(t, p384, nil)},
		{"a private key of 77", identity.RuleWeakKey, signedBy(t, one, nil)},
		{"bad signature", identity.RuleCSRSignature, broken},
		{"blocked", identity.RuleBlockedKey, signedBy(t, blocked, nil)},
		{"another device's key", identity.RuleUsedKey, signedBy(t, victim.key, nil)},
		{"a host name", identity.RuleCSRName, signedBy(t, key, func(r *x509.CertificateRequest) { r.DNSNames = []string{"example.com"} })},
		{"an address", identity.RuleCSRName, signedBy(t, key, func(r *x509.CertificateRequest) { r.IPAddresses = []net.IP{{1, 2, 3, 4}} })},
		{"another device", identity.RuleCSRName, signedBy(t, key, func(r *x509.CertificateRequest) { r.URIs = []*url.URL{identity.DeviceURI(ten, "dev_other")} })},
		{"another tenant", identity.RuleCSRName, signedBy(t, key, func(r *x509.CertificateRequest) { r.URIs = []*url.URL{identity.DeviceURI("ten_b", id)} })},
		{"a name of another type", identity.RuleCSRName, signedBy(t, key, func(r *x509.CertificateRequest) {
			san, err := asn1.Marshal([]asn1.RawValue{{Class: 2, Tag: 8, Bytes: []byte{42, 3}}})
			h.must(err)
			r.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: san}}
		})},
		{"trailing data", identity.RuleCSREncoding, append(bytes.Clone(good), 0)},
		{"a length that is not minimal", identity.RuleCSREncoding, append([]byte{0x30, 0x82, 0, byte(len(good) - 3)}, good[3:]...)},
		{"a negative version", identity.RuleCSREncoding, resigned(t, key, good, func(b []byte) []byte { return bytes.Replace(b, []byte{2, 1, 0}, []byte{2, 1, 0xff}, 1) })},
		{"a boolean of 1 in an attribute that nobody knows", identity.RuleCSREncoding, resigned(t, key, good, func(b []byte) []byte {
			return withAttributes(t, b, []byte{0x30, 0x0a, 6, 3, 42, 3, 4, 0x31, 3, 1, 1, 1})
		})},
		{"an extension twice", identity.RuleCSRDuplicate, resigned(t, key, ext(basic, struct{}{}), func(b []byte) []byte { return twiceExtended(t, b) })},
		{"empty", identity.RuleCSREncoding, []byte{0x30, 0}},
		{"1 MB", "", make([]byte, 1<<20)},
	}
	for _, c := range cases {
		enc := base64.StdEncoding.EncodeToString(c.der)
		pemText := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: c.der}))
		check := func(door string, code int, body string) {
			t.Helper()
			if c.rule == identity.RuleUsedKey && code == 0 { // both devices are suspended, which cuts the one that asked
				h.wantClone(enroll.CloneKey, []string{h.device("V-1").ID, id}, "127.0.0.1")
				return
			}
			if code < 400 || code >= 500 || !strings.Contains(body, c.rule) {
				t.Errorf("%s, %s: %d %s, want the rule %s", door, c.name, code, body, c.rule)
			}
		}
		code, body := h.do(&me, "POST", "/.well-known/est/simpleenroll", "application/pkcs10", enc)
		check("EST", code, body)
		if c.rule != identity.RuleUsedKey { // its two devices are suspended by now
			code, _, body := h.line(st, wire.LineRequest{Serial: "H-2", CSR: pemText})
			check("line", code, body)
		}
		status, out := h.call("POST", "/v1/stations", map[string]any{"batch": h.batch("B2"), "name": "line", "csr": pemText})
		if status < 400 || status >= 500 || c.rule != "" && out["rule"] != c.rule {
			t.Errorf("station, %s: %d %v, want the rule %s", c.name, status, out, c.rule)
		}
		if strings.HasPrefix(c.rule, "identity.csr") && c.rule != identity.RuleCSRName || c.rule == identity.RuleKey || c.rule == identity.RuleWeakKey {
			r, body := h.exchangeToken("Bearer "+text, enc)
			check("token", r.StatusCode, body)
		}
		if c.rule == identity.RuleUsedKey {
			h.resume(id)
			h.resume(h.device("V-1").ID)
		}
	}
	// Who somebody else is, in the subject.
	for what, n := range map[string]pkix.Name{
		"another device": {CommonName: h.device("V-1").ID}, "another serial number": {SerialNumber: "V-1"}, "another tenant": {Organization: []string{"ten_b"}},
	} {
		code, body := h.est(&me, "simpleenroll", csrFor(t, newKey(t), func(r *x509.CertificateRequest) { r.Subject = n }))
		if code != 403 || !strings.Contains(body, identity.RuleCSRName) {
			t.Errorf("%s: %d %s", what, code, body)
		}
	}
	// The platform's own keys, by their public half: nobody else can sign with them, so the register is asked directly.
	leaf := h.serverLeaf()
	authorities, err := h.identity.Authorities(ctx)
	h.must(err)
	wantRule(t, "the server's key", h.identity.NotOurs(ctx, ten, identity.KeyHash(leaf.RawSubjectPublicKeyInfo)), identity.RuleBlockedKey)
	for _, a := range authorities {
		x, err := a.Certificate()
		h.must(err)
		wantRule(t, a.ID, h.identity.NotOurs(ctx, ten, identity.KeyHash(x.RawSubjectPublicKeyInfo)), identity.RuleUsedKey)
	}
}

// twiceExtended repeats the one extension of a request's body.
func twiceExtended(t testing.TB, info []byte) []byte {
	t.Helper()
	type extension struct {
		ID    asn1.ObjectIdentifier
		Value []byte
	}
	e := extension{asn1.ObjectIdentifier{2, 5, 29, 19}, []byte{0x30, 0}}
	set := func(es []extension) []byte {
		b, err := asn1.Marshal(struct {
			ID     asn1.ObjectIdentifier
			Values [][]extension `asn1:"set"`
		}{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}, [][]extension{es}})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	return withAttributes(t, info, set([]extension{e, e}))
}

// withAttributes is a request's body with these attributes instead of its own.
func withAttributes(t testing.TB, info, attributes []byte) []byte {
	t.Helper()
	var body struct{ Version, Subject, Key, Attributes asn1.RawValue }
	if _, err := asn1.Unmarshal(info, &body); err != nil {
		t.Fatal(err)
	}
	attributes, err := asn1.Marshal(asn1.RawValue{Class: 2, Tag: 0, IsCompound: true, Bytes: attributes})
	if err != nil {
		t.Fatal(err)
	}
	all := bytes.Join([][]byte{body.Version.FullBytes, body.Subject.FullBytes, body.Key.FullBytes, attributes}, nil)
	out, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: all})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestI16_ARenewalThatChangesItsNamesIsRefused (RFC 7030 4.2.2).
func TestI16_ARenewalThatChangesItsNamesIsRefused(t *testing.T) {
	h := lite(t)
	m := newMaker(h, "Maker")
	h.trust(m, nil)
	born := m.born("N-1")
	l := h.enrolled(&born, "simpleenroll", newKey(t), nil)
	now := l.cert.Leaf
	keep := func(r *x509.CertificateRequest) { r.RawSubject, r.URIs = now.RawSubject, now.URIs }
	var rdns pkix.RDNSequence
	if _, err := asn1.Unmarshal(now.RawSubject, &rdns); err != nil || len(rdns) < 3 {
		t.Fatal(rdns, err)
	}
	subject := func(change func(pkix.RDNSequence) pkix.RDNSequence) func(*x509.CertificateRequest) {
		raw, err := asn1.Marshal(change(append(pkix.RDNSequence{}, rdns...)))
		h.must(err)
		return func(r *x509.CertificateRequest) { r.RawSubject, r.URIs = raw, now.URIs }
	}
	names := func(ns ...asn1.RawValue) func(*x509.CertificateRequest) {
		san, err := asn1.Marshal(ns)
		h.must(err)
		return func(r *x509.CertificateRequest) {
			r.RawSubject, r.ExtraExtensions = now.RawSubject, []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: san}}
		}
	}
	mine := asn1.RawValue{Class: 2, Tag: 6, Bytes: []byte(now.URIs[0].String())}
	for _, c := range []struct {
		name   string
		change func(*x509.CertificateRequest)
	}{
		{"no subject", func(r *x509.CertificateRequest) { r.URIs = now.URIs }},
		{"another common name", func(r *x509.CertificateRequest) { r.Subject, r.URIs = pkix.Name{CommonName: "dev_other"}, now.URIs }},
		{"another order", subject(func(s pkix.RDNSequence) pkix.RDNSequence { s[0], s[1] = s[1], s[0]; return s })},
		{"one attribute less", subject(func(s pkix.RDNSequence) pkix.RDNSequence { return s[1:] })},
		{"one attribute twice", subject(func(s pkix.RDNSequence) pkix.RDNSequence { return append(s, s[0]) })},
		{"one more attribute", subject(func(s pkix.RDNSequence) pkix.RDNSequence {
			return append(s, pkix.RelativeDistinguishedNameSET{{Type: asn1.ObjectIdentifier{2, 5, 4, 12}, Value: "boss"}})
		})},
		{"no alternative name", func(r *x509.CertificateRequest) { r.RawSubject = now.RawSubject }},
		{"another device", func(r *x509.CertificateRequest) {
			r.RawSubject, r.URIs = now.RawSubject, []*url.URL{identity.DeviceURI(ten, "dev_other")}
		}},
		{"twice", names(mine, mine)},
		{"one more host", func(r *x509.CertificateRequest) { keep(r); r.DNSNames = []string{"example.com"} }},
		{"the same as a host name", names(asn1.RawValue{Class: 2, Tag: 2, Bytes: mine.Bytes})},
		{"one more of a rare type", names(mine, asn1.RawValue{Class: 2, Tag: 8, Bytes: []byte{42, 3}})},
	} {
		if code, body := h.est(&l, "simplereenroll", csrFor(t, newKey(t), c.change)); code != 403 || !strings.Contains(body, "enroll.same-names") {
			t.Errorf("%s: %d %s", c.name, code, body)
		}
	}
	// The attribute that asks for a change (RFC 7030 4.2.2), even with the same names.
	key := newKey(t)
	asks := resigned(t, key, csrFor(t, key, keep), func(info []byte) []byte {
		var body struct{ Version, Subject, Key, Attributes asn1.RawValue }
		_, err := asn1.Unmarshal(info, &body)
		h.must(err)
		change, err := asn1.Marshal(struct {
			ID     asn1.ObjectIdentifier
			Values []struct{ Subject pkix.RDNSequence } `asn1:"set"`
		}{asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 7, 36}, []struct{ Subject pkix.RDNSequence }{{rdns}}})
		h.must(err)
		attributes, err := asn1.Marshal(asn1.RawValue{Class: 2, Tag: 0, IsCompound: true, Bytes: append(bytes.Clone(body.Attributes.Bytes), change...)})
		h.must(err)
		out, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true,
			Bytes: bytes.Join([][]byte{body.Version.FullBytes, body.Subject.FullBytes, body.Key.FullBytes, attributes}, nil)})
		h.must(err)
		return out
	})
	if code, body := h.est(&l, "simplereenroll", asks); code != 403 || !strings.Contains(body, "change of names") {
		t.Errorf("ChangeSubjectName: %d %s", code, body)
	}
	h.enrolled(&l, "simplereenroll", newKey(t), keep)
}

// TestI07_AnAnswerThatIsLostAHundredTimesMakesOneIdentity: the connection breaks after the request, over real TLS.
func TestI07_AnAnswerThatIsLostAHundredTimesMakesOneIdentity(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		m := newMaker(h, "Maker")
		h.trust(m, nil)
		born := m.born("A-1")
		key := newKey(t)
		csr := base64.StdEncoding.EncodeToString(csrFor(t, key, nil))
		for range 100 {
			h.cutAfterRequest(&born, "/.well-known/est/simpleenroll", csr)
		}
		h.open.allGone() // until the door has noticed, they count towards the connections that a device may have
		code, body := h.do(&born, "POST", "/.well-known/est/simpleenroll", "application/pkcs10", csr)
		if code != 200 {
			t.Fatalf("%d %s", code, body)
		}
		d := h.device("A-1")
		cs, err := h.identity.Certificates(context.Background(), ten, d.ID)
		h.must(err)
		if len(cs) != 2 || len(h.clones()) != 0 { // of birth and of operation
			t.Errorf("%d certificates, %d suspicions", len(cs), len(h.clones()))
		}
		l := credential{key, h.certificate(body, key)}
		if code, body := h.do(&l, "POST", "/d/1/messages", "application/json", "[]"); code != 200 {
			t.Errorf("%d %s", code, body)
		}
		ds, err := h.identity.List(context.Background(), ten, identity.Filter{})
		if err != nil || len(ds) != 1 {
			t.Errorf("%d devices (%v)", len(ds), err)
		}
	})
}

// cutAfterRequest sends a request whole and closes the connection without reading the answer.
func (h *house) cutAfterRequest(as *credential, path, body string) {
	h.t.Helper()
	conn, err := tls.Dial("tcp", strings.TrimPrefix(h.door, "https://"), &tls.Config{RootCAs: h.roots, Certificates: []tls.Certificate{*as.cert}})
	if err != nil {
		h.t.Fatal(err)
	}
	_, err = conn.Write([]byte("POST " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/pkcs10\r\nContent-Length: " + name("%d", len(body)) + "\r\n\r\n" + body))
	h.must(err)
	h.must(conn.NetConn().(*net.TCPConn).SetLinger(0)) // a reset, as when the power goes
	conn.NetConn().Close()
}

// serverLeaf is what the device door shows.
func (h *house) serverLeaf() *x509.Certificate {
	h.t.Helper()
	conn, err := tls.Dial("tcp", strings.TrimPrefix(h.door, "https://"), &tls.Config{RootCAs: h.roots})
	h.must(err)
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}

// batch is a batch of the name, opened when it is not there.
func (h *house) batch(named string) string {
	h.t.Helper()
	_, out := h.call("GET", "/v1/batches", nil)
	for _, b := range out["items"].([]any) {
		if b := b.(map[string]any); b["name"] == named {
			return b["id"].(string)
		}
	}
	_, b := h.call("POST", "/v1/batches", map[string]any{"revision": h.revision, "name": named, "size": 1000})
	return b["id"].(string)
}

// resume ends a suspension.
func (h *house) resume(id string) {
	h.t.Helper()
	h.must(h.identity.Resume(context.Background(), ten, id, owner.ID, "the test goes on"))
}
