// SPDX-License-Identifier: AGPL-3.0-only

package embedded_test

import (
	"path/filepath"
	"testing"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/identity/issuertest"
	"github.com/openthings-platform/openthings/seal"
)

// The authority with sealed files passes what every issuer has to pass.
func TestContract(t *testing.T) {
	issuertest.Run(t, func(t *testing.T) issuertest.Backend {
		dir := t.TempDir()
		keys, err := seal.Open(filepath.Join(dir, "keys"), clock.System)
		if err != nil {
			t.Fatal(err)
		}
		is, err := embedded.Open(embedded.Config{Dir: filepath.Join(dir, "ca"), Keys: keys, Name: "Test"})
		if err != nil {
			t.Fatal(err)
		}
		return issuertest.Backend{Issuer: is, Certify: func(r identity.Role, csr []byte) ([]byte, error) {
			return is.Certify("root-1", r, csr, embedded.OtherLife)
		}}
	})
}
