// SPDX-License-Identifier: AGPL-3.0-only

package enroll_test

import (
	"bufio"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
)

// noteKey is a signing key as the platform's log has one.
func noteKey(t testing.TB) (sign func(string) ([]byte, error), verify func([]byte) (string, error)) {
	t.Helper()
	secret, public, err := note.GenerateKey(rand.Reader, "test/openthings")
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

// lite is a house on SQLite alone, for what no engine decides.
func lite(t *testing.T) *house {
	t.Helper()
	hand := clock.NewHand(time.Now())
	return newHouse(t, storetest.Open(t, storetest.SQLiteURL(t), schema, func(c *store.Config) { c.Clock = hand }), hand)
}

// exchange is do with the answer's headers.
func (h *house) exchange(as *credential, method, path, body string, headers ...string) (*http.Response, string) {
	h.t.Helper()
	conf := &tls.Config{RootCAs: h.roots, Time: h.clock.Now}
	if as != nil {
		conf.Certificates = []tls.Certificate{*as.cert}
	}
	tr := &http.Transport{TLSClientConfig: conf}
	defer tr.CloseIdleConnections()
	r, err := http.NewRequest(method, h.door+path, strings.NewReader(body))
	h.must(err)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := (&http.Client{Transport: tr}).Do(r)
	if err != nil {
		return &http.Response{Header: http.Header{}}, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	h.must(err)
	return resp, string(b)
}

// lines cuts text in lines of n with the line end given.
func lines(text string, n int, end string) string {
	var b strings.Builder
	for line := range slices.Chunk([]byte(text), n) {
		b.Write(line)
		b.WriteString(end)
	}
	return b.String()
}

// A request is read however its base64 is written and whatever its headers say of it (RFC 8951 3), by curl and by a
// client that writes each byte itself; what goes out is in lines of 64 that every client reads.
func TestI24_BodiesWrappedUnwrappedAndCRLF(t *testing.T) {
	h := lite(t)
	s := shell{t, t.TempDir(), h.door}
	s.write("root.pem", string(h.identity.Roots()))
	st, _ := h.station("B1", 10, 10)
	idevid, unit := h.unit(st, "L1")
	if code, m := h.claim(unit.Claim); code != 201 {
		t.Fatal(code, m)
	}
	keyDER, err := x509.MarshalECPrivateKey(idevid.key)
	h.must(err)
	s.write("idevid.key", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})))
	s.write("idevid.pem", unit.Certificate)
	csr := csrFor(t, newKey(t), nil)
	text := base64.StdEncoding.EncodeToString(csr)
	bodies := map[string]string{
		"one line": text, "one line, LF": text + "\n", "one line, CRLF": text + "\r\n", "64, LF": lines(text, 64, "\n"), "64, CRLF": lines(text, 64, "\r\n"),
		"76, LF": lines(text, 76, "\n"), "76, CRLF, no last end": strings.TrimSuffix(lines(text, 76, "\r\n"), "\r\n"), "one letter a line": lines(text, 1, "\n"),
		"spaces and tabs": " \t" + lines(text, 50, " \t\r\n\r\n"), "DER": string(csr),
		"PEM":       string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
		"PEM, CRLF": strings.ReplaceAll(string(pem.EncodeToMemory(&pem.Block{Type: "NEW CERTIFICATE REQUEST", Bytes: csr})), "\n", "\r\n"),
	}
	var first string
	same := func(who, out string) {
		t.Helper()
		if first == "" {
			first = out
		}
		if out != first {
			t.Errorf("%s: %q", who, out)
		}
	}
	for name, body := range bodies {
		for _, encoding := range []string{"", "base64", "binary", "quoted-printable"} {
			s.write("body", body)
			args := []string{"-H", "Content-Type: application/pkcs10", "--data-binary", "@body"}
			if encoding != "" {
				args = append(args, "-H", "Content-Transfer-Encoding: "+encoding)
			}
			if code := s.curl("idevid", "/.well-known/est/simpleenroll", args...); code != "200" {
				t.Fatalf("curl, %s, %q: %s %s", name, encoding, code, s.read("out"))
			}
			same("curl, "+name, s.read("out"))
		}
		same("raw, "+name, h.raw(idevid, body))
	}
	all := strings.Split(strings.TrimSuffix(first, "\n"), "\n")
	for i, line := range all {
		if len(line) > 64 || len(line) < 64 && i < len(all)-1 || strings.ContainsAny(line, "\r \t") {
			t.Errorf("line %d of the answer: %q", i, line)
		}
	}
	s.write("out", first)
	s.unpack("ldevid.pem")
	if got := strings.Count(s.read("ldevid.pem"), "BEGIN CERTIFICATE"); got != 1 {
		t.Errorf("%d certificates in the answer", got)
	}
	if n := h.count(`SELECT count(*) FROM certificate WHERE subject = $1 AND kind = 'ldevid'`, unit.Device); n != 1 {
		t.Errorf("%d certificates for one key", n)
	}
	for _, bad := range []string{"", "\n", "hello world", text[:len(text)-8] + "!!!!", "-----BEGIN CERTIFICATE REQUEST-----\n", "MAA="} {
		resp, out := h.exchange(&idevid, "POST", "/.well-known/est/simpleenroll", bad)
		if resp.StatusCode != 400 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
			t.Errorf("%q: %d %s", bad, resp.StatusCode, out)
		}
	}
}

// raw enrols over a connection on which every byte is written here, in pieces, without any header about the body but
// its chunks.
func (h *house) raw(as credential, body string) string {
	h.t.Helper()
	conn, err := tls.Dial("tcp", strings.TrimPrefix(h.door, "https://"), &tls.Config{RootCAs: h.roots, Certificates: []tls.Certificate{*as.cert}})
	h.must(err)
	defer conn.Close()
	_, err = io.WriteString(conn, "POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
	h.must(err)
	for piece := range slices.Chunk([]byte(body), 97) {
		_, err = fmt.Fprintf(conn, "%x\r\n%s\r\n", len(piece), piece)
		h.must(err)
	}
	_, err = io.WriteString(conn, "0\r\n\r\n")
	h.must(err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	h.must(err)
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	h.must(err)
	if resp.StatusCode != 200 {
		h.t.Errorf("raw: %d %s", resp.StatusCode, out)
	}
	return string(out)
}

// What RFC 7030 says of statuses, content types and paths.
func TestESTAnswersAsTheStandardSays(t *testing.T) {
	h := lite(t)
	st, _ := h.station("B1", 10, 10)
	idevid, unit := h.unit(st, "L1")
	const certs, attrs, plain = "application/pkcs7-mime; smime-type=certs-only", "application/csrattrs", "text/plain; charset=utf-8"
	for _, c := range []struct {
		as                       *credential
		method, path, body       string
		status                   int
		contentType, says, about string
	}{
		{nil, "GET", "cacerts", "", 200, certs, "", "4.1.2: without a certificate"},
		{&idevid, "GET", "cacerts", "", 200, certs, "", "4.1.2"},
		{nil, "GET", "any-label/cacerts", "", 200, certs, "", "who has no certificate does not learn which labels there are"},
		{&idevid, "GET", "default/cacerts", "", 200, certs, "", "3.2.2: a label"},
		{&idevid, "GET", "unknown/cacerts", "", 404, plain, "unknown", "3.2.2: an unknown label"},
		{nil, "GET", "-bad-/cacerts", "", 404, plain, "", "a label that could be none"},
		{nil, "GET", "csrattrs", "", 200, attrs, "", "4.5"},
		{&idevid, "GET", "csrattrs", "", 200, attrs, "", "4.5.2"},
		{&idevid, "GET", "unknown/csrattrs", "", 404, plain, "", "3.2.2"},
		{&idevid, "POST", "unknown/simpleenroll", "x", 404, plain, "", "3.2.2"},
		{&idevid, "POST", "simpleenroll", string(csrFor(t, newKey(t), nil)), 202, plain, "claim", "4.2.3: later"},
		{&idevid, "POST", "simpleenroll", "x", 400, plain, "", "4.2.3"},
		{nil, "POST", "fullcmc", "x", 404, plain, "simpleenroll", "4.3 is not served"},
		{&idevid, "POST", "fullcmc", "x", 404, plain, "simpleenroll", "4.3 is not served"},
		{nil, "POST", "serverkeygen", "x", 404, plain, "device", "4.4 is not served"},
		{&idevid, "POST", "default/serverkeygen", "x", 404, plain, "device", "4.4 is not served"},
		{&idevid, "GET", "simpleenroll", "", 404, "application/problem+json", "", "enrolment is a POST"},
	} {
		resp, out := h.exchange(c.as, c.method, "/.well-known/est/"+c.path, c.body)
		if resp.StatusCode != c.status || resp.Header.Get("Content-Type") != c.contentType || !strings.Contains(strings.ToLower(out), c.says) {
			t.Errorf("%s %s (%s): %d %s %s", c.method, c.path, c.about, resp.StatusCode, resp.Header.Get("Content-Type"), out)
		}
		if (resp.StatusCode == 202) != (resp.Header.Get("Retry-After") != "") {
			t.Errorf("%s: Retry-After %q", c.path, resp.Header.Get("Retry-After"))
		}
		if c.method != "GET" || c.status != 200 {
			continue
		}
		head, body := h.exchange(c.as, "HEAD", "/.well-known/est/"+c.path, "")
		if head.StatusCode != 200 || body != "" || head.Header.Get("Content-Type") != c.contentType || head.ContentLength != int64(len(out)) {
			t.Errorf("HEAD %s: %d, %d bytes announced for %d", c.path, head.StatusCode, head.ContentLength, len(out))
		}
	}
	if n := h.count(`SELECT count(*) FROM certificate WHERE subject = $1 AND kind = 'ldevid'`, unit.Device); n != 0 {
		t.Errorf("%d certificates came of it", n)
	}
}

// estTemplate reads CSR attributes: the template if there is one, as RFC 9908 4 tells clients to.
type estTemplate struct {
	legacyKey, legacySAN bool
	subject              string
	curve                asn1.ObjectIdentifier
	san                  string
}

func readAttrs(t *testing.T, body string) (e estTemplate) {
	t.Helper()
	der, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(body, "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	var items []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &items); err != nil || len(rest) > 0 {
		t.Fatal(err)
	}
	type attribute struct {
		Type   asn1.ObjectIdentifier
		Values []asn1.RawValue `asn1:"set"`
	}
	san := func(a attribute) string {
		var extensions []pkix.Extension
		if _, err := asn1.Unmarshal(a.Values[0].FullBytes, &extensions); err != nil || len(extensions) != 1 || extensions[0].Id.String() != "2.5.29.17" {
			t.Fatalf("%v %v", extensions, err)
		}
		var names []asn1.RawValue
		if _, err := asn1.Unmarshal(extensions[0].Value, &names); err != nil || len(names) != 1 || names[0].Tag != 6 {
			t.Fatal(names, err)
		}
		return string(names[0].Bytes)
	}
	for _, item := range items {
		if item.Tag == asn1.TagOID {
			continue
		}
		var a attribute
		if _, err := asn1.Unmarshal(item.FullBytes, &a); err != nil {
			t.Fatal(err)
		}
		switch a.Type.String() {
		case "1.2.840.10045.2.1", "1.3.101.112":
			e.legacyKey = true
		case "1.2.840.113549.1.9.14":
			e.legacySAN = san(a) != ""
		case "1.2.840.113549.1.9.16.2.61":
			rest := a.Values[0].Bytes
			var version int
			if rest, err = asn1.Unmarshal(rest, &version); err != nil || version != 0 {
				t.Fatal(version, err)
			}
			var part asn1.RawValue
			for len(rest) > 0 {
				if rest, err = asn1.Unmarshal(rest, &part); err != nil {
					t.Fatal(err)
				}
				switch {
				case part.Class == asn1.ClassUniversal:
					var name pkix.RDNSequence
					if _, err := asn1.Unmarshal(part.FullBytes, &name); err != nil {
						t.Fatal(err)
					}
					e.subject = name.String()
				case part.Tag == 0:
					var alg pkix.AlgorithmIdentifier
					if _, err := asn1.Unmarshal(part.Bytes, &alg); err != nil {
						t.Fatal(err)
					}
					e.curve = alg.Algorithm
					if len(alg.Parameters.FullBytes) > 0 {
						if _, err := asn1.Unmarshal(alg.Parameters.FullBytes, &e.curve); err != nil {
							t.Fatal(err)
						}
					}
				case part.Tag == 1 && len(part.Bytes) > 0:
					var a attribute
					if _, err := asn1.Unmarshal(part.Bytes, &a); err != nil {
						t.Fatal(err)
					}
					e.san = san(a)
				}
			}
		}
	}
	return e
}

// The CSR attributes say which key a policy wants and, to a device, its names; a request made by them is taken.
func TestCSRAttributesAreATemplate(t *testing.T) {
	h := lite(t)
	st, _ := h.station("B1", 10, 10)
	for alg, want := range map[identity.Algorithm]string{identity.AlgP256: "1.2.840.10045.3.1.7", identity.AlgP384: "1.3.132.0.34", identity.AlgEd25519: "1.3.101.112"} {
		label := strings.TrimPrefix(string(alg), "ecdsa-")
		if code, m := h.call("PUT", "/v1/enrolment-policies/"+label, map[string]any{"keys": []any{alg}}); code != 200 {
			t.Fatal(code, m)
		}
		idevid, unit := h.unit(st, "L-"+label)
		h.claim(unit.Claim)
		code, body := h.do(&idevid, "GET", "/.well-known/est/"+label+"/csrattrs", "", "")
		if code != 200 {
			t.Fatal(code, body)
		}
		e := readAttrs(t, body)
		uri := identity.DeviceURI(ten, unit.Device)
		if e.curve.String() != want || e.san != uri.String() || !strings.Contains(e.subject, unit.Device) || !e.legacyKey || !e.legacySAN {
			t.Errorf("%s: %+v", alg, e)
		}
		var key any
		var err error
		switch alg {
		case identity.AlgP256:
			key = newKey(t)
		case identity.AlgP384:
			key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		case identity.AlgEd25519:
			_, key, err = ed25519.GenerateKey(rand.Reader)
		}
		h.must(err)
		d, err := h.identity.Get(t.Context(), ten, unit.Device)
		h.must(err)
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: d.Subject(), URIs: []*url.URL{uri}}, key)
		h.must(err)
		if code, body := h.enrol(idevid, label+"/simpleenroll", csr); code != 200 {
			t.Errorf("%s: %d %s", alg, code, body)
		}
		if alg == identity.AlgP256 {
			continue
		}
		if code, body := h.enrol(idevid, "simpleenroll", csrWith(t, key)); code != 403 || !strings.Contains(body, identity.RuleKey) {
			t.Errorf("%s by the policy of everybody: %d %s", alg, code, body)
		}
	}
	_, body := h.do(nil, "GET", "/.well-known/est/csrattrs", "", "")
	if e := readAttrs(t, body); e.san != "" || e.subject != "" || e.legacySAN || !e.legacyKey || e.curve.String() != "1.2.840.10045.3.1.7" {
		t.Errorf("without a certificate: %+v", e)
	}
	s := shell{t, t.TempDir(), h.door}
	s.write("attrs.b64", body)
	s.run("openssl", "base64", "-d", "-in", "attrs.b64", "-out", "attrs.der")
	if out := s.run("openssl", "asn1parse", "-inform", "DER", "-in", "attrs.der"); !strings.Contains(out, "prime256v1") || !strings.Contains(out, "ecdsa-with-SHA256") {
		t.Errorf("openssl reads %s", out)
	}
}

// Unknown is never good: when a table that decides cannot be read, the answer is 503 with a time to come again, and no
// certificate is made.
func TestEnrolmentFailsClosed(t *testing.T) {
	h := lite(t)
	st, _ := h.station("B1", 20, 20)
	for _, table := range []string{"enrol_policy", "attestation", "device_baseline", "lobby", "hook", "baseline", "authority"} {
		idevid, unit := h.unit(st, "L-"+table)
		h.claim(unit.Claim)
		rename := func(from, to string) {
			h.write(func(tx *store.Tx) error { _, err := tx.Exec(`ALTER TABLE ` + from + ` RENAME TO ` + to); return err })
		}
		rename(table, "lost")
		resp, body := h.exchange(&idevid, "POST", "/.well-known/est/simpleenroll", string(csrFor(t, newKey(t), nil)))
		rename("lost", table)
		if resp.StatusCode != 503 && resp.StatusCode != 500 {
			t.Errorf("without %s: %d %s", table, resp.StatusCode, body)
		}
		if strings.Contains(body, "SQL") || strings.Contains(body, "no such table") {
			t.Errorf("without %s it tells what failed inside: %s", table, body)
		}
		if n := h.count(`SELECT count(*) FROM certificate WHERE subject = $1 AND kind = 'ldevid'`, unit.Device); n != 0 {
			t.Errorf("without %s a certificate was made", table)
		}
		h.ldevid(idevid) // and it heals by itself
	}
}

func csrWith(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "unit"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// der is the certificate of a key in the register.
func (h *house) der(key crypto.Signer) (der []byte) {
	h.t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	h.must(err)
	h.must(h.db.QueryRow(h.t.Context(), `SELECT der FROM certificate WHERE key_hash = $1`, identity.KeyHash(spki)).Scan(&der))
	return der
}

func tlsCert(x *x509.Certificate, key crypto.Signer) *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{x.Raw}, PrivateKey: key}
}
