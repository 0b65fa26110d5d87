// SPDX-License-Identifier: AGPL-3.0-only

package keystore_test

import (
	"crypto"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/hardware/hardwaretest"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/keystore"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
)

// Each kind of store makes what it can, says what it is, and opens its own entries only.
func TestStores(t *testing.T) {
	keys, err := seal.Open(filepath.Join(t.TempDir(), "keys"), clock.System)
	if err != nil {
		t.Fatal(err)
	}
	hw, err := keystore.Open("tpm:" + hardwaretest.NewTPM(t).Where)
	if err != nil {
		t.Fatal(err)
	}
	defer hw.Close() //nolint:errcheck // the test is over
	for kind, c := range map[string]struct {
		store keystore.Store
		makes []identity.Algorithm
	}{
		keystore.Sealed: {keystore.Files{Keys: keys}, []identity.Algorithm{identity.AlgP256, identity.AlgP384, identity.AlgEd25519}},
		keystore.TPM:    {hw, []identity.Algorithm{identity.AlgP256, identity.AlgP384}},
	} {
		if c.store.Kind() != kind || c.store.Health() != nil {
			t.Errorf("%s is %s (%v)", kind, c.store.Kind(), c.store.Health())
		}
		for _, alg := range c.makes {
			entry, key, err := c.store.Make("factory-1", alg)
			if err != nil {
				t.Fatal(err)
			}
			if keystore.KindOf(entry) != kind || identity.AlgorithmOf(key.Public()) != alg {
				t.Errorf("%s made %s as %s", kind, alg, keystore.KindOf(entry))
			}
			again, err := c.store.Open("factory-1", entry)
			if err != nil || !again.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
				t.Errorf("%s: %s came back as another: %v", kind, alg, err)
			}
		}
		if _, _, err := c.store.Make("factory-1", identity.AlgMLDSA65); err == nil {
			t.Errorf("%s makes ML-DSA", kind)
		}
		if _, err := c.store.Open("factory-1", []byte("no entry")); err == nil {
			t.Errorf("%s opens anything", kind)
		}
	}
}

// What cannot be opened is said with what to do.
func TestOpenRefuses(t *testing.T) {
	for where, want := range map[string]string{
		"paper": "Use sealed", "tpm:": "Use sealed", "tpm:/nowhere": "May this user open", "pkcs11:token=a": "module-path",
	} {
		s, err := keystore.Open(where)
		if err == nil {
			t.Errorf("%s was opened: %v", where, s)
			continue
		}
		if p := problem.Of(err); !strings.Contains(p.Text+p.Help+err.Error(), want) {
			t.Errorf("%s: %v", where, err)
		}
	}
	for _, none := range []string{"", "sealed"} {
		if s, err := keystore.Open(none); s != nil || err != nil {
			t.Errorf("%q: %v %v", none, s, err)
		}
	}
}
