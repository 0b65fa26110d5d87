// SPDX-License-Identifier: AGPL-3.0-only

package identity_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/ceremony"
	"github.com/openthings-platform/openthings/store"
)

// notOurs are the sources of lints that do not apply, each with the reason. Every other source does, those of the RFCs
// above all.
var notOurs = map[string]string{
	"CABF_BR":       "baseline requirements of browsers for public TLS: names in the DNS, 398 days, CT; a device has no DNS name",
	"CABF_CS_BR":    "code signing",
	"CABF_SMIME_BR": "mail",
	"CABF_EV":       "extended validation of companies",
	"Mozilla":       "root programme of a browser",
	"Apple":         "root programme of a browser; CT",
	"ETSI_ESI":      "qualified certificates of the EU",
}

// shown is a chain as somebody outside checks it.
type shown struct {
	leaf    []byte
	between [][]byte
	roots   [][]byte
}

func pemOf(list ...[]byte) []byte {
	var b bytes.Buffer
	for _, der := range list {
		pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	return b.Bytes()
}

// verdicts asks Go, OpenSSL and GnuTLS.
func (s shown) verdicts(t *testing.T) map[string]error {
	t.Helper()
	dir := t.TempDir()
	file := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(pemOf(s.roots...))
	between.AppendCertsFromPEM(pemOf(s.between...))
	leaf, err := x509.ParseCertificate(s.leaf)
	if err == nil {
		_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	}
	out := map[string]error{"go": err}

	anchors := file("roots.pem", pemOf(s.roots...))
	cmd := exec.Command("openssl", "verify", "-x509_strict", "-CAfile", anchors, "-untrusted", file("between.pem", pemOf(s.between...)), file("leaf.pem", pemOf(s.leaf)))
	if len(s.between) == 0 {
		cmd = exec.Command("openssl", "verify", "-x509_strict", "-CAfile", anchors, filepath.Join(dir, "leaf.pem"))
		file("leaf.pem", pemOf(s.leaf))
	}
	text, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, text)
	}
	out["openssl"] = err

	cmd = exec.Command("certtool", "--verify", "--load-ca-certificate", anchors, "--infile", file("chain.pem", pemOf(append([][]byte{s.leaf}, s.between...)...)))
	text, err = cmd.CombinedOutput()
	if err == nil && !bytes.Contains(text, []byte("Chain verification output: Verified.")) {
		err = fmt.Errorf("no verdict")
	}
	if err != nil {
		err = fmt.Errorf("%w: %s", err, text)
	}
	out["gnutls"] = err
	return out
}

// agree fails unless all three say the same, and what is expected.
func (s shown) agree(t *testing.T, what string, want bool) {
	t.Helper()
	for who, err := range s.verdicts(t) {
		if (err == nil) != want {
			t.Errorf("%s: %s: %v, want accepted: %v", what, who, err, want)
		}
	}
}

// I25: every profile is clean in the eyes of zlint, and its chain is accepted by Go, OpenSSL and GnuTLS alike: before,
// during and after a rollover, for whoever knows only the old root or only the new one. What is broken all three refuse.
func TestI25_ZlintCleanAndChainsAgreed(t *testing.T) {
	for _, name := range []string{"openssl", "certtool"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("%s is needed: scripts/deps.sh test installs it", name)
		}
	}
	for _, alg := range []identity.Algorithm{identity.AlgP256, identity.AlgP384, identity.AlgEd25519} {
		t.Run(string(alg), func(t *testing.T) {
			w := aloneAt(t, time.Now()) // certtool knows no other time
			files := map[string][]byte{}
			before := w.held()
			keep := func(stage string, leaves map[string]tls.Certificate) {
				for profile, c := range leaves {
					files[stage+"-"+profile] = c.Certificate[0]
				}
			}
			old := w.leaves("A", alg)
			keep("before", old)
			rootOf := func(r ceremony.Recovery, profile string) []byte {
				role := identity.Root
				if profile == "bootstrap" {
					role = identity.Anchor
				}
				h, err := r.Of(role)
				if err != nil {
					t.Fatal(err)
				}
				return h.Cert.Raw
			}
			for profile, c := range old {
				shown{c.Certificate[0], c.Certificate[1:], [][]byte{rootOf(before, profile)}}.agree(t, "before, "+profile, true)
			}
			after := w.ceremony(before, 2, alg)
			devices, err := w.List(t.Context(), "ten_a", identity.Filter{})
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range devices {
				if err := w.AckBundle(t.Context(), d.Tenant, d.ID, 2); err != nil {
					t.Fatal(err)
				}
			}
			bundle, _, err := w.Bundle(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, role := range identity.Roles {
				w.promote(w.next(role, alg, after).ID)
			}
			w.promote("root-2")
			w.promote("anchor-2")
			fresh := w.leaves("B", alg)
			keep("after", fresh)
			for profile := range fresh {
				o, n := old[profile].Certificate, fresh[profile].Certificate
				oldRoot, newRoot := rootOf(before, profile), rootOf(after, profile)
				shown{n[0], n[1:2], [][]byte{newRoot}}.agree(t, "after, new root, "+profile, true)
				shown{n[0], n[1:2], [][]byte{oldRoot}}.agree(t, "after, old root, no bridge, "+profile, false)
				shown{n[0], append(n[1:2:2], bridge(t, bundle.Bridges, newRoot)), [][]byte{oldRoot}}.agree(t, "after, old root, bridge, "+profile, true)
				shown{o[0], o[1:2], [][]byte{newRoot}}.agree(t, "old certificate, new root, no bridge, "+profile, false)
				shown{o[0], append(o[1:2:2], bridge(t, bundle.Bridges, oldRoot)), [][]byte{newRoot}}.agree(t, "old certificate, new root, bridge, "+profile, true)
				broken := bytes.Clone(n[0])
				broken[len(broken)-1] ^= 1
				shown{broken, n[1:2], [][]byte{newRoot}}.agree(t, "broken signature, "+profile, false)
				shown{n[0], nil, [][]byte{newRoot}}.agree(t, "nothing between, "+profile, false)
			}
			all, err := w.Authorities(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range all {
				files[a.ID] = a.Cert
			}
			for i, b := range bundle.Bridges {
				files[fmt.Sprintf("bridge-%d", i)] = b
			}
			for name, findings := range lint(t, files) {
				for _, f := range findings {
					t.Errorf("%s: %s", name, f)
				}
			}
		})
	}
	for what, c := range map[string]struct {
		years, months int
		still         string // the profile that has not ended
	}{"certificates that have ended": {0, -5, "idevid"}, "authorities that have ended": {-31, 0, ""}} {
		w := aloneAt(t, time.Now().AddDate(c.years, c.months, 0))
		for profile, x := range w.leaves("A", identity.AlgP256) {
			root, err := w.held().Of(identity.Role(map[bool]string{true: "anchor", false: "root"}[profile == "bootstrap"]))
			if err != nil {
				t.Fatal(err)
			}
			shown{x.Certificate[0], x.Certificate[1:], [][]byte{root.Cert.Raw}}.agree(t, what+", "+profile, profile == c.still)
		}
	}
}

// leaves makes a certificate of every profile with what is shown above it.
func (w *world) leaves(serial string, alg identity.Algorithm) map[string]tls.Certificate {
	w.t.Helper()
	var d identity.Device
	w.write(func(tx *store.Tx) (err error) {
		d, err = w.Register(tx, identity.Device{Tenant: "ten_a", Product: "prd_a", Revision: "rev_a", Batch: "bat_a", Serial: serial}, "sta_a")
		return err
	})
	idevid := w.issue(d.ID, identity.IDevID, csrOf(w.t, alg))
	w.write(func(tx *store.Tx) error { return w.SetState(tx, d.Tenant, d.ID, identity.Pending, "per_a", "") })
	ldevid := w.issue(d.ID, identity.LDevID, csrOf(w.t, alg))
	station := w.issue("sta_"+serial, identity.Station, csrOf(w.t, alg))
	out := map[string]tls.Certificate{}
	for profile, c := range map[string]identity.Certificate{"idevid": idevid, "ldevid": ldevid, "station": station} {
		chain, err := w.Chain(w.t.Context(), c.Kind)
		if err != nil {
			w.t.Fatal(err)
		}
		b, _ := pem.Decode(chain)
		out[profile] = tls.Certificate{Certificate: [][]byte{c.DER, b.Bytes}}
	}
	get, err := w.ServerTLS([]string{"things.example", "127.0.0.1"})
	if err != nil {
		w.t.Fatal(err)
	}
	for profile, name := range map[string]string{"server": "things.example", "bootstrap": identity.BootstrapName} {
		c, err := get(&tls.ClientHelloInfo{ServerName: name})
		if err != nil {
			w.t.Fatal(err)
		}
		out[profile] = tls.Certificate{Certificate: c.Certificate[:2]}
	}
	return out
}

// csrOf is a request over a new key of the algorithm.
func csrOf(t *testing.T, alg identity.Algorithm) *identity.CSR {
	t.Helper()
	var key crypto.Signer
	var err error
	switch alg {
	case identity.AlgP256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case identity.AlgP384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	default:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := identity.ParseCSR(der, alg)
	if err != nil {
		t.Fatal(err)
	}
	if x, err := x509.ParseCertificateRequest(der); err != nil || identity.AlgorithmOf(x.PublicKey) != alg {
		t.Fatal(alg, err)
	}
	return c
}

// bridge is the one over the key of root.
func bridge(t *testing.T, bridges [][]byte, root []byte) []byte {
	t.Helper()
	r, err := x509.ParseCertificate(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, der := range bridges {
		if c, err := x509.ParseCertificate(der); err == nil && bytes.Equal(c.RawSubjectPublicKeyInfo, r.RawSubjectPublicKeyInfo) {
			return der
		}
	}
	t.Fatal("there is no bridge to", r.Subject)
	return nil
}

// A certificate that breaks RFC 5280 is found: the linter is awake.
func TestZlintFinds(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: t0, NotAfter: t0.AddDate(0, 1, 0), KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key) // neither subject nor alternative name, signs and is no authority
	if err != nil {
		t.Fatal(err)
	}
	if found := lint(t, map[string][]byte{"wrong": der}); len(found["wrong"]) == 0 {
		t.Error("zlint found nothing")
	}
}

// lint runs zlint, of the nested module testpeers/zlint, and returns what it found by file.
func lint(t *testing.T, files map[string][]byte) map[string][]string {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "zlint")
	build := exec.Command("go", "build", "-trimpath", "-o", bin, ".")
	build.Dir = filepath.Join("..", "testpeers", "zlint")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("zlint does not build: %v\n%s", err, out)
	}
	var sources []string
	for s := range notOurs {
		sources = append(sources, s)
	}
	args := []string{"-exclude", strings.Join(sources, ",")}
	for name, der := range files {
		path := filepath.Join(dir, name+".der")
		if err := os.WriteFile(path, der, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	out, err := exec.Command(bin, args...).Output()
	if err != nil {
		t.Fatalf("zlint: %v\n%s", err, err.(*exec.ExitError).Stderr)
	}
	n, found := 0, map[string][]string{}
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); n++ {
		var r struct {
			File     string
			Lints    int
			Findings []struct{ Lint, Result, Source, Details string }
		}
		if err := d.Decode(&r); err != nil {
			t.Fatal(err)
		}
		if r.Lints < 30 {
			t.Errorf("%s: only %d lints ran", r.File, r.Lints)
		}
		for _, f := range r.Findings {
			name := strings.TrimSuffix(filepath.Base(r.File), ".der")
			found[name] = append(found[name], fmt.Sprintf("%s %s (%s) %s", f.Result, f.Lint, f.Source, f.Details))
		}
	}
	if n != len(files) {
		t.Errorf("zlint spoke of %d files, want %d", n, len(files))
	}
	return found
}
