// SPDX-License-Identifier: AGPL-3.0-only

package identity_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/mldsa"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
)

// NIST's object identifiers of ML-DSA (RFC 9881).
var (
	oidMLDSA65 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, 18}
	oidMLDSA87 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, 19}
	oidPadding = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 55555, 1} // an extension that only this test knows
)

// quantum is a key of tomorrow.
type quantum struct {
	key *mldsa.PrivateKey
	oid asn1.ObjectIdentifier
}

func newQuantum(t *testing.T, p mldsa.Parameters, oid asn1.ObjectIdentifier) quantum {
	t.Helper()
	key, err := mldsa.GenerateKey(p)
	if err != nil {
		t.Fatal(err)
	}
	return quantum{key, oid}
}

func (q quantum) algorithm(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(q.oid) })
}

// spki is the subject public key info (RFC 9881 4).
func (q quantum) spki(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		q.algorithm(b)
		b.AddASN1BitString(q.key.PublicKey().Bytes())
	})
}

// signed wraps a structure with its ML-DSA signature.
func (q quantum) signed(t *testing.T, body []byte) []byte {
	t.Helper()
	sig, err := q.key.Sign(nil, body, crypto.Hash(0))
	if err != nil {
		t.Fatal(err)
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(body)
		q.algorithm(b)
		b.AddASN1BitString(sig)
	})
	return b.BytesOrPanic()
}

func rdn(name pkix.Name) []byte {
	der, err := asn1.Marshal(name.ToRDNSequence())
	if err != nil {
		panic(err)
	}
	return der
}

// certify makes a certificate over subject's key, signed by q, with an extension that brings it to at least size bytes.
func (q quantum) certify(t *testing.T, tmpl *x509.Certificate, issuer pkix.Name, subject quantum, size int) []byte {
	t.Helper()
	var body cryptobyte.Builder
	instant := func(b *cryptobyte.Builder, at time.Time) {
		if at.Year() >= 2050 {
			b.AddASN1GeneralizedTime(at)
			return
		}
		b.AddASN1UTCTime(at)
	}
	extension := func(b *cryptobyte.Builder, oid asn1.ObjectIdentifier, critical bool, value []byte) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oid)
			if critical {
				b.AddASN1Boolean(true)
			}
			b.AddASN1OctetString(value)
		})
	}
	explicit := func(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }
	body.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { b.AddASN1Int64(2) })
		b.AddASN1BigInt(tmpl.SerialNumber)
		q.algorithm(b)
		b.AddBytes(rdn(issuer))
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { instant(b, tmpl.NotBefore); instant(b, tmpl.NotAfter) })
		b.AddBytes(rdn(tmpl.Subject))
		subject.spki(b)
		b.AddASN1(explicit(3), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				if tmpl.IsCA {
					extension(b, asn1.ObjectIdentifier{2, 5, 29, 19}, true, []byte{0x30, 0x03, 0x01, 0x01, 0xff})
				}
				extension(b, asn1.ObjectIdentifier{2, 5, 29, 14}, false, append([]byte{0x04, 20}, tmpl.SubjectKeyId...))
				extension(b, oidPadding, false, bytes.Repeat([]byte{0xa5}, size))
			})
		})
	})
	return q.signed(t, body.BytesOrPanic())
}

// checkSignature fails unless the certificate is still what the authority signed, bit for bit.
func (q quantum) checkSignature(t *testing.T, der []byte) {
	t.Helper()
	x, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := mldsa.Verify(q.key.PublicKey(), x.RawTBSCertificate, x.Signature, nil); err != nil {
		t.Error(err)
	}
}

// tomorrow is an issuer whose operational authority signs with ML-DSA; the others are those of today.
type tomorrow struct {
	*embedded.Issuer
	t       *testing.T
	ca      quantum
	cert    []byte
	subject quantum // the device's key
}

const quantumCA = "operational-7"

func (is *tomorrow) Authorities(ctx context.Context) ([]identity.Held, error) {
	held, err := is.Issuer.Authorities(ctx)
	return append(held, identity.Held{ID: quantumCA, Role: identity.Operational, Generation: 7, Algorithm: identity.AlgMLDSA65, Backend: "tomorrow", Protection: "backend", Parent: "root-1", Cert: is.cert}), err
}

func (is *tomorrow) Sign(ctx context.Context, r identity.SignRequest) ([]byte, error) {
	if r.Authority != quantumCA {
		return is.Issuer.Sign(ctx, r)
	}
	return is.ca.certify(is.t, r.Template, pkix.Name{CommonName: "Operational CA 7"}, is.subject, 8<<10), nil
}

// I23: certificates and keys of 16 kB, such as ML-DSA makes them, go through register, API and bundle without losing a
// bit; what Go's TLS cannot speak yet the doors refuse in words, and go on.
func TestI23_MLDSACertificatesThroughStoreAPIAndDoors(t *testing.T) {
	hand := clock.NewHand(t0)
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		hand.Set(t0)
		w := &world{t: t, db: db, clock: hand, dir: t.TempDir()}
		keys, err := seal.Open(filepath.Join(w.dir, "keys"), hand)
		if err != nil {
			t.Fatal(err)
		}
		if w.issuer, err = embedded.Open(embedded.Config{Dir: filepath.Join(w.dir, "ca"), Keys: keys, Name: "Test", Clock: hand}); err != nil {
			t.Fatal(err)
		}
		is := &tomorrow{Issuer: w.issuer, t: t, ca: newQuantum(t, mldsa.MLDSA65(), oidMLDSA65), subject: newQuantum(t, mldsa.MLDSA87(), oidMLDSA87)}
		is.cert = is.ca.certify(t, &x509.Certificate{SerialNumber: big.NewInt(7), NotBefore: t0.Add(-time.Hour), NotAfter: t0.AddDate(10, 0, 0), IsCA: true,
			Subject: pkix.Name{CommonName: "Operational CA 7"}, SubjectKeyId: make([]byte, 20)}, pkix.Name{CommonName: "Root"}, is.ca, 10<<10)
		if w.Service, err = identity.New(identity.Config{DB: db, Issuer: is, Clock: hand}); err != nil {
			t.Fatal(err)
		}
		good := w.deviceOfToday()
		if _, err := w.PromoteAuthority(t.Context(), quantumCA, 0, "the day has come", "host"); err != nil {
			t.Fatal(err)
		}
		d, _ := w.born("PQ-1")
		w.write(func(tx *store.Tx) error { return w.SetState(tx, d.Tenant, d.ID, identity.Pending, "per_a", "") })

		// A request over such a key is refused in words until there is a profile for it.
		var info cryptobyte.Builder
		info.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1Int64(0)
			b.AddBytes(rdn(pkix.Name{CommonName: d.ID}))
			is.subject.spki(b)
			b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(*cryptobyte.Builder) {})
		})
		csr := is.subject.signed(t, info.BytesOrPanic())
		_, err = identity.ParseCSR(csr)
		refused(t, err, "identity.key")
		req, err := x509.ParseCertificateRequest(csr)
		if err != nil {
			t.Fatal(err)
		}

		// Through the register. The key in the request is the one that today's template can name; the certificate carries ML-DSA.
		today, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keyHash := identity.KeyHash(req.RawSubjectPublicKeyInfo)
		req.PublicKey = today.Public()
		c, fresh, err := w.Issue(t.Context(), identity.IssueRequest{Tenant: "ten_a", Subject: d.ID, Kind: identity.LDevID, CSR: &identity.CSR{CertificateRequest: req, KeyHash: keyHash}, Actor: d.ID})
		if err != nil || !fresh {
			t.Fatalf("%v, %v", fresh, err)
		}
		if len(c.DER) < 14<<10 || len(is.cert) < 15<<10 {
			t.Fatalf("the certificates have only %d and %d bytes", len(c.DER), len(is.cert))
		}
		is.ca.checkSignature(t, c.DER)
		list, err := w.Certificates(t.Context(), "ten_a", d.ID)
		i := slices.IndexFunc(list, func(x identity.Certificate) bool { return x.Fingerprint == identity.Fingerprint(c.DER) })
		if err != nil || i < 0 || !bytes.Equal(list[i].DER, c.DER) || list[i].KeyHash != keyHash {
			t.Errorf("the register changed it: %v", err)
		}
		a, err := w.Authority(t.Context(), quantumCA)
		if err != nil || !bytes.Equal(a.Cert, is.cert) || a.Algorithm != identity.AlgMLDSA65 {
			t.Errorf("the authority's row: %s, %v", a.Algorithm, err)
		}

		// Through the API.
		var out struct {
			Items []struct{ DER, Cert []byte }
		}
		door := programs(w.Service)
		for path, want := range map[string][]byte{"/v1/devices/" + d.ID + "/certificates": c.DER, "/v1/authorities": is.cert} {
			answer := httptest.NewRecorder()
			door.ServeHTTP(answer, httptest.NewRequest("GET", "https://iot.example"+path, nil))
			out.Items = nil
			if err := json.Unmarshal(answer.Body.Bytes(), &out); err != nil || answer.Code != 200 {
				t.Fatalf("%s: %d, %v: %.200s", path, answer.Code, err, answer.Body)
			}
			found := false
			for _, x := range out.Items {
				found = found || bytes.Equal(x.DER, want) || bytes.Equal(x.Cert, want)
			}
			if !found {
				t.Errorf("%s does not answer with the whole certificate", path)
			}
		}

		// Admission goes by the fingerprint, whatever the algorithm.
		w.admits(c)
		w.write(func(tx *store.Tx) error { return w.Revoke(tx, "ten_a", d.ID, "per_a", "lost") })
		w.refuses(c, "identity.revoked")

		// At the doors.
		w.quantumDoors(t, c.DER, good)
	}, func(c *store.Config) { c.Clock = hand })
}

// deviceOfToday has an LDevID on P-256.
func (w *world) deviceOfToday() tls.Certificate {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		w.t.Fatal(err)
	}
	csr, err := identity.ParseCSR(der)
	if err != nil {
		w.t.Fatal(err)
	}
	d, _ := w.born("P256-1")
	w.write(func(tx *store.Tx) error { return w.SetState(tx, d.Tenant, d.ID, identity.Pending, "per_a", "") })
	return tls.Certificate{Certificate: [][]byte{w.issue(d.ID, identity.LDevID, csr).DER}, PrivateKey: key}
}

// quantumDoors shows the certificate at both doors, then a good one.
func (w *world) quantumDoors(t *testing.T, pq []byte, good tls.Certificate) {
	get, err := w.ServerTLS([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(gateway.Config{Admit: w.Admit, Used: w.Used, Append: func(context.Context, []gateway.Record) error { return nil },
		TLS: &tls.Config{GetCertificate: get, Time: w.clock.Now}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.Roots())
	for name, serve := range map[string]func(context.Context, net.Listener) error{"HTTPS": g.ServeHTTPS, "MQTT": g.ServeMQTT} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- serve(ctx, l) }()
		defer func() { stop(); <-done }()
		knock := func(c tls.Certificate) error {
			conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", Time: w.clock.Now,
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }})
			if err != nil {
				return err
			}
			defer conn.Close()
			if name == "HTTPS" {
				_, err = conn.Write([]byte("GET /d/1/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
			} else {
				_, err = conn.Write([]byte{0x10, 0x10, 0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 60, 0, 0, 3, 'o', 't', '1'}) // CONNECT
			}
			if err == nil {
				_, err = conn.Read(make([]byte, 1))
			}
			return err
		}
		// A client of today holds its other key; the door judges the certificate before the signature.
		err = knock(tls.Certificate{Certificate: [][]byte{pq}, PrivateKey: good.PrivateKey})
		if err == nil || !strings.Contains(err.Error(), "unsupported certificate") {
			t.Errorf("%s: %v, want the alert unsupported_certificate", name, err)
		}
		if err := knock(good); err != nil {
			t.Errorf("%s: after it the door refuses a good device: %v", name, err)
		}
	}
}

// programs is the API of a register, for an owner of tenant ten_a.
func programs(s *identity.Service) http.Handler {
	a := api.New(api.Config{Title: "test", Clock: clock.System, Log: slog.New(slog.DiscardHandler), Holds: tenant.Holds, Caller: func(context.Context) string { return "per_a" },
		Authenticate: func(r *http.Request) (context.Context, error) {
			if r.Header.Get("Nobody") != "" {
				return nil, problem.Unauthenticated("nobody")
			}
			return tenant.WithActor(r.Context(), tenant.Actor{ID: "per_a", Kind: tenant.KindPerson, Tenant: "ten_a", Grants: []tenant.Grant{{Tenant: "ten_a", Role: tenant.Owner}}}), nil
		}})
	s.Routes(a)
	mux := http.NewServeMux()
	a.Mount(mux)
	return mux
}
