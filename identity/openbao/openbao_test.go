// SPDX-License-Identifier: AGPL-3.0-only

package openbao_test

import (
	"testing"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/identity/issuertest"
	"github.com/openthings-platform/openthings/identity/openbao"
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
