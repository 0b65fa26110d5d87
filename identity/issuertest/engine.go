// SPDX-License-Identifier: AGPL-3.0-only

package issuertest

import (
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/openbao/openbao/api/v2"

	"github.com/openthings-platform/openthings/identity/openbao"
	"github.com/openthings-platform/openthings/testpeers"
)

// Engine is a PKI engine for one test: a mount of its own in a server that this process starts once, or in the OpenBao
// that OPENTHINGS_TEST_BAO_ADDR, _TOKEN and _CA (a PEM file) name.
type Engine struct {
	openbao.Config // Address, CA, Mount and TokenFile are filled; the token may do everything
	Client         *api.Client
}

var server struct {
	once  sync.Once
	vault *testpeers.Vault
	err   error
}

// NewEngine starts it; nothing is mounted yet.
func NewEngine(t testing.TB) Engine {
	t.Helper()
	e := Engine{}
	token := os.Getenv("OPENTHINGS_TEST_BAO_TOKEN")
	e.Address, e.CA, e.Mount = os.Getenv("OPENTHINGS_TEST_BAO_ADDR"), os.Getenv("OPENTHINGS_TEST_BAO_CA"), "openthings-"+rand.Text()[:8]
	if e.Address == "" {
		// It lives as long as this process, which holds its standard input.
		server.once.Do(func() { server.vault, server.err = testpeers.StartVault(context.Background()) })
		if server.err != nil {
			t.Fatal(server.err)
		}
		e.Address, token, e.CA = server.vault.Address, server.vault.Token, Write(t, "engine-ca.pem", server.vault.CA)
	}
	e.TokenFile = Write(t, "token", token)
	c := api.NewConfig()
	c.Address = e.Address
	if err := c.ConfigureTLS(&api.TLSConfig{CACert: e.CA}); err != nil {
		t.Fatal(err)
	}
	var err error
	if e.Client, err = api.NewClient(c); err != nil {
		t.Fatal(err)
	}
	e.Client.SetToken(token)
	t.Cleanup(func() { e.Client.Sys().Unmount(e.Mount) }) //nolint:errcheck // it may never have been mounted
	return e
}

// Token makes a token with the policies and returns the file that holds it.
func (e Engine) Token(t testing.TB, ttl string, policies ...string) string {
	t.Helper()
	var names []string
	for _, hcl := range policies {
		name := "openthings-test-" + rand.Text()
		if err := e.Client.Sys().PutPolicy(name, hcl); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	s, err := e.Client.Auth().Token().Create(&api.TokenCreateRequest{Policies: names, NoDefaultPolicy: true, TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	return Write(t, "token", s.Auth.ClientToken)
}

// Open makes an issuer over the engine.
func (e Engine) Open(t testing.TB) *openbao.Issuer {
	t.Helper()
	is, err := openbao.New(e.Config)
	if err != nil {
		t.Fatal(err)
	}
	return is
}

// Write puts text into a file of the test that only its owner may read.
func Write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
