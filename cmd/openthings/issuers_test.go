// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/identity/issuertest"
	"github.com/openthings-platform/openthings/testpeers"
)

// TestIssuers executes docs/issuers.md against a PKI engine of its own, since the page seals it.
func TestIssuers(t *testing.T) {
	v, err := testpeers.StartVault(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Stop() }) //nolint:errcheck // it holds nothing
	for name, value := range map[string]string{"BAO_ADDR": v.Address, "BAO_CACERT": issuertest.Write(t, "engine-ca.pem", v.CA), "BAO_TOKEN": v.Token, "BAO_UNSEAL": v.Unseal} {
		t.Setenv(name, value)
	}
	p := openPage(t, "issuers.md")
	out := p.run(t, "openthings")
	token, err := os.ReadFile(filepath.Join(p.dir, "issuers", "token"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out+readAll(t, filepath.Join(p.dir, "issuers", "platform")), strings.TrimSpace(string(token))) {
		t.Error("the token of the engine was printed, logged or kept")
	}
	for _, want := range []string{"openbao", "cannot sign since", "true"} {
		if !strings.Contains(out, want) {
			t.Errorf("the reader does not see %q", want)
		}
	}
}
