// SPDX-License-Identifier: AGPL-3.0-only

package openbao_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openbao/openbao/api/v2"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/identity/issuertest"
	"github.com/openthings-platform/openthings/identity/openbao"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
)

// ours are the algorithms of the authorities that an engine makes.
var ours = []identity.Algorithm{identity.AlgP256, identity.AlgP384}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// away is an issuer whose engine does not listen.
func away(t *testing.T, e issuertest.Engine) *openbao.Issuer {
	e.Config.Address = "https://127.0.0.1:1" // a port that only root could open
	return e.Open(t)
}

func TestEngine(t *testing.T) {
	for name, store := range map[string]bool{"not stored": false, "stored": true} {
		t.Run(name, func(t *testing.T) {
			issuertest.Run(t, func(t *testing.T) issuertest.Backend {
				e, root := issuertest.NewEngine(t), issuertest.NewRoot(t)
				e.Store = store
				is := e.Open(t)
				must(t, is.Setup(t.Context()))
				root.Found(t, is)
				return issuertest.Backend{Issuer: is, Down: away(t, e), Certify: root.Certify, Algorithms: ours}
			})
		})
	}
}

// roots is an embedded issuer that leaves the engine's roles to the engine.
func roots(t *testing.T) *embedded.Issuer {
	t.Helper()
	keys, err := seal.Open(t.TempDir()+"/keys", clock.System)
	must(t, err)
	base, err := embedded.Open(embedded.Config{Dir: t.TempDir() + "/ca", Keys: keys, Name: "Test", Roles: openbao.Beside})
	must(t, err)
	return base
}

func TestComposed(t *testing.T) {
	issuertest.Run(t, func(t *testing.T) issuertest.Backend {
		e, base := issuertest.NewEngine(t), roots(t)
		c := openbao.Compose(base, e.Open(t))
		for range 2 {
			must(t, c.Found(t.Context(), "Test"))
		}
		return issuertest.Backend{Issuer: c, Down: openbao.Compose(base, away(t, e)), Algorithms: ours, Certify: func(r identity.Role, csr []byte) ([]byte, error) {
			return base.Certify("root-1", r, csr, embedded.OtherLife)
		}}
	})
}

// The printed policy is enough for every day, and no more: roles have the shapes that we wrote, and nothing of the
// authorities can be touched. With the one for the setup, and only with it, authorities can be made.
func TestPolicy(t *testing.T) {
	for name, store := range map[string]bool{"not stored": false, "stored": true} {
		t.Run(name, func(t *testing.T) {
			e, root := issuertest.NewEngine(t), issuertest.NewRoot(t)
			e.Store = store
			daily, setup := openbao.Policy(e.Mount, store), openbao.SetupPolicy(e.Mount)
			e.TokenFile = e.Token(t, "1h", daily, setup)
			founder := e.Open(t)
			must(t, founder.Setup(t.Context()))
			root.Found(t, founder)

			e.TokenFile = e.Token(t, "1h", daily)
			issuertest.Run(t, func(t *testing.T) issuertest.Backend { return issuertest.Backend{Issuer: e.Open(t), Down: away(t, e)} })
			is := e.Open(t)
			must(t, is.Setup(t.Context()))
			if _, err := is.Generate(t.Context(), "operational-7", identity.Operational, identity.AlgP256, pkix.Name{CommonName: "x"}); !problem.Is(err, problem.KindUnavailable) {
				t.Errorf("a new authority: %v", err)
			}
			token, err := os.ReadFile(e.TokenFile)
			must(t, err)
			c, err := e.Client.Clone()
			must(t, err)
			c.SetToken(string(token))
			role := func(change map[string]any) map[string]any {
				s, err := e.Client.Logical().Read(e.Mount + "/roles/ldevid-ten_1a")
				must(t, err)
				if s == nil {
					t.Fatal("there is no role ldevid-ten_1a")
				}
				// As the issuer writes it, but for the change.
				d := openbao.Definition("ldevid", store)
				d["organization"] = "ten_1a"
				maps.Copy(d, change)
				return d
			}
			_, err = c.Logical().Write(e.Mount+"/roles/ldevid-ten_1a", role(nil))
			must(t, err)
			for what, write := range map[string]struct {
				path string
				data map[string]any
			}{
				"a role for servers":        {"roles/ldevid-ten_1a", role(map[string]any{"server_flag": "true"})},
				"a role for any name":       {"roles/ldevid-ten_1a", role(map[string]any{"allow_any_name": "true"})},
				"a role for other URIs":     {"roles/ldevid-ten_1a", role(map[string]any{"allowed_uri_sans": []any{"*"}})},
				"a role for one URI more":   {"roles/ldevid-ten_1a", role(map[string]any{"allowed_uri_sans": "urn:openthings:device:*,https://*"})},
				"a role that signs code":    {"roles/ldevid-ten_1a", role(map[string]any{"ext_key_usage": "CodeSigning"})},
				"a role that takes the CSR": {"roles/ldevid-ten_1a", role(map[string]any{"use_csr_sans": "true"})},
				"a role with a word more":   {"roles/ldevid-ten_1a", role(map[string]any{"ttl": "1h"})},
				"a role of another name":    {"roles/anything", role(nil)},
				"half a role":               {"roles/ldevid-ten_1a", map[string]any{"organization": "ten_1a"}},
				"signing without a role":    {"issuer/operational-1/sign-verbatim", map[string]any{"csr": "x"}},
				"signing an authority":      {"issuer/operational-1/sign-intermediate", map[string]any{"csr": "x"}},
				"an authority of its own":   {"root/generate/internal", map[string]any{"common_name": "x"}},
				"an issuer's settings":      {"issuer/operational-1", map[string]any{"leaf_not_after_behavior": "permit"}},
				"a policy":                  {"../sys/policies/acl/mine", map[string]any{"policy": "path \"*\" { capabilities = [\"sudo\"] }"}},
			} {
				var refused *api.ResponseError
				if _, err := c.Logical().Write(e.Mount+"/"+write.path, write.data); !errors.As(err, &refused) || refused.StatusCode != 403 {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

// The roles themselves refuse what no profile allows, also to somebody who holds the platform's token.
func TestRolesRefuse(t *testing.T) {
	e, root := issuertest.NewEngine(t), issuertest.NewRoot(t)
	is := e.Open(t)
	must(t, is.Setup(t.Context()))
	root.Found(t, is)
	r := issuertest.Request(t, "ldevid")
	_, err := is.Sign(t.Context(), r) // the role is there from now on
	must(t, err)
	csr := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: r.CSR}))
	for what, more := range map[string]map[string]any{
		"a DNS name": {"alt_names": "evil.example.com"}, "an address": {"ip_sans": "10.0.0.1"}, "an e-mail address": {"alt_names": "root@example.com"},
		"a URI of others": {"uri_sans": "https://example.com"}, "another kind of name": {"other_sans": "1.3.6.1.4.1.311.20.2.3;UTF8:root"}, "a user id": {"user_ids": "root"},
		"longer than the authority": {"not_after": "2099-01-01T00:00:00Z"},
	} {
		body := map[string]any{"csr": csr, "common_name": "dev_1", "exclude_cn_from_sans": true}
		maps.Copy(body, more)
		if s, err := e.Client.Logical().Write(e.Mount+"/issuer/operational-1/sign/ldevid-ten_1a", body); err == nil {
			t.Errorf("%s: it signed %v", what, s.Data["certificate"])
		}
	}
	for what, more := range map[string]map[string]any{"an authority": {"basic_constraints": "CA:true"}, "another use": {"ext_key_usage": "ServerAuth"}, "another key use": {"key_usage": "CertSign"}} {
		body := map[string]any{"csr": csr, "common_name": "dev_1", "exclude_cn_from_sans": true, "format": "der"}
		maps.Copy(body, more)
		s, err := e.Client.Logical().Write(e.Mount+"/issuer/operational-1/sign/ldevid-ten_1a", body)
		must(t, err)
		der, err := base64.StdEncoding.DecodeString(s.Data["certificate"].(string))
		must(t, err)
		c, err := x509.ParseCertificate(der)
		must(t, err)
		if c.IsCA || c.KeyUsage != x509.KeyUsageDigitalSignature || !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
			t.Errorf("%s: CA %v, %v, %v", what, c.IsCA, c.KeyUsage, c.ExtKeyUsage)
		}
	}
}

// kept is all that the engine keeps.
func kept(t *testing.T, is *openbao.Issuer) (all []*big.Int) {
	t.Helper()
	must(t, is.Kept(t.Context(), func(some []*big.Int) error { all = append(all, some...); return nil }))
	return all
}

// A role that somebody loosened signs something else than was asked; that is noticed, refused and revoked.
func TestWhatDiffersIsRefused(t *testing.T) {
	e, root := issuertest.NewEngine(t), issuertest.NewRoot(t)
	e.Store = true
	is := e.Open(t)
	must(t, is.Setup(t.Context()))
	root.Found(t, is)
	_, err := is.Sign(t.Context(), issuertest.Request(t, "ldevid"))
	must(t, err)
	before := kept(t, is)
	for what, change := range map[string]map[string]any{
		"servers too": {"server_flag": true}, "another organization": {"organization": "ten_other"}, "more uses of the key": {"key_usage": "DigitalSignature,CertSign"},
		"an end of its own": {"not_after": time.Now().UTC().AddDate(0, 0, 7).Format(time.RFC3339)}, "code too": {"code_signing_flag": true},
	} {
		d := openbao.Definition("ldevid", true)
		d["organization"] = "ten_1a"
		maps.Copy(d, change)
		_, err := e.Client.Logical().Write(e.Mount+"/roles/ldevid-ten_1a", d)
		must(t, err)
		if _, err := is.Sign(t.Context(), issuertest.Request(t, "ldevid")); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	after := kept(t, is)
	if len(after) != len(before)+5 {
		t.Fatalf("%d certificates before, %d after", len(before), len(after))
	}
	for _, n := range after {
		if slices.ContainsFunc(before, func(b *big.Int) bool { return b.Cmp(n) == 0 }) {
			continue
		}
		if _, revoked, err := is.Certificate(t.Context(), n); err != nil || !revoked {
			t.Errorf("%x: revoked %v, %v", n, revoked, err)
		}
	}
}

// A link without TLS, a token that others can read and no token at all are refused at the start.
func TestConfig(t *testing.T) {
	open := func(c openbao.Config) error { _, err := openbao.New(c); return err }
	if err := open(openbao.Config{Address: "http://vault.example.com:8200", Token: "x"}); problem.Of(err).Rule != "issuer.tls" {
		t.Errorf("no TLS: %v", err)
	}
	for what, c := range map[string]openbao.Config{"no address": {Token: "x"}, "no URL": {Address: "vault", Token: "x"}, "no token": {Address: "https://localhost:1"},
		"no file": {Address: "https://localhost:1", TokenFile: "/nowhere"}, "no CA": {Address: "https://localhost:1", Token: "x", CA: "/nowhere"}, "a slash": {Address: "https://localhost:1", Token: "x", Mount: "/pki"}} {
		if err := open(c); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	file := issuertest.Write(t, "token", "secret")
	must(t, open(openbao.Config{Address: "https://localhost:1", TokenFile: file}))
	must(t, open(openbao.Config{Address: "http://127.0.0.1:1", TokenFile: file}))
	must(t, os.Chmod(file, 0o640))
	if err := open(openbao.Config{Address: "https://localhost:1", TokenFile: file}); problem.Of(err).Rule != "issuer.token-file" {
		t.Errorf("a file for others: %v", err)
	}
}

// The token is renewed; one that was replaced in its file is picked up when the old one is refused; and no error says it.
func TestToken(t *testing.T) {
	e, root := issuertest.NewEngine(t), issuertest.NewRoot(t)
	is := e.Open(t)
	must(t, is.Setup(t.Context()))
	root.Found(t, is)
	e.TokenFile = e.Token(t, "1h", openbao.Policy(e.Mount, false))
	hand := clock.NewHand(time.Now())
	e.Clock = hand
	is = e.Open(t)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- is.Work(ctx) }()
	hand.WaitTimers(1) // it sleeps: the first renewal is over
	token, err := os.ReadFile(e.TokenFile)
	must(t, err)
	s, err := e.Client.Auth().Token().Lookup(string(token))
	must(t, err)
	if s.Data["last_renewal_time"] == nil {
		t.Error("the token was not renewed")
	}
	must(t, e.Client.Auth().Token().RevokeTree(string(token)))
	_, err = is.Sign(t.Context(), issuertest.Request(t, "ldevid"))
	if !problem.Is(err, problem.KindUnavailable) || strings.Contains(err.Error(), string(token)) {
		t.Errorf("with a token that ended: %v", err)
	}
	fresh, err := os.ReadFile(e.Token(t, "1h", openbao.Policy(e.Mount, false)))
	must(t, err)
	must(t, os.WriteFile(e.TokenFile, fresh, 0o600))
	if _, err := is.Sign(t.Context(), issuertest.Request(t, "ldevid")); err != nil {
		t.Errorf("with the new one: %v", err)
	}
	stop()
	must(t, <-done)
}

// Two platforms on one mount would sign with each other's authorities: the second is told.
func TestOneMountOnePlatform(t *testing.T) {
	e := issuertest.NewEngine(t)
	must(t, openbao.Compose(roots(t), e.Open(t)).Found(t.Context(), "Test"))
	if err := openbao.Compose(roots(t), e.Open(t)).Found(t.Context(), "Test"); !problem.Is(err, problem.KindConflict) {
		t.Error(err)
	}
}
