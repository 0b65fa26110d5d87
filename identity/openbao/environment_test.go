// SPDX-License-Identifier: AGPL-3.0-only

package openbao_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"github.com/openthings-platform/openthings/identity/openbao"
)

// What the environment says to the engine's own programs on this machine is not meant for us: no call follows it, and no
// mistake in it keeps us from calling.
func TestTheEnvironmentIsNotRead(t *testing.T) {
	for name, value := range map[string]string{"BAO_NAMESPACE": "elsewhere", "VAULT_NAMESPACE": "elsewhere", "BAO_TOKEN": "theirs", "BAO_MAX_RETRIES": "many", "BAO_CACERT": "/nowhere"} {
		t.Setenv(name, value)
	}
	var mu sync.Mutex
	var paths []string
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		paths = append(paths, r.URL.Path)
		if r.Header.Get("X-Vault-Namespace") != "" || r.Header.Get("X-Vault-Token") == "theirs" {
			t.Errorf("%s bears %v", r.URL.Path, r.Header)
		}
		if r.URL.Path != "/v1/sys/health" && r.Header.Get("X-Vault-Token") != "ours" {
			t.Errorf("%s bears no token of ours", r.URL.Path)
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte(`{"initialized":true,"sealed":false,"data":{"ttl":3600,"renewable":true}}`)) //nolint:errcheck // seen by the client
	}))
	defer engine.Close()
	is, err := openbao.New(openbao.Config{Address: engine.URL, Token: "ours"})
	if err != nil {
		t.Fatal(err)
	}
	if err := is.Health(t.Context()); err != nil {
		t.Error(err)
	}
	if !slices.Contains(paths, "/v1/auth/token/lookup-self") {
		t.Errorf("asked %v", paths)
	}
	if _, err := is.Renew(t.Context()); err != nil { // an answer without what a renewal gives is no reason to fall
		t.Error(err)
	}
}
