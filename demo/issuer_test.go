// SPDX-License-Identifier: AGPL-3.0-only

package demo

import (
	"bytes"
	"testing"

	"github.com/openthings-platform/openthings/identity/issuertest"
	"github.com/openthings-platform/openthings/identity/openbao"
)

// The whole circle closes while a PKI engine signs for the devices, with a token that may do what the printed policies
// say and no more. The first platform finds the engine empty.
func TestCircleWithAnEngine(t *testing.T) {
	e := issuertest.NewEngine(t)
	for name, value := range map[string]string{
		"OPENTHINGS_ISSUER": "openbao", "OPENTHINGS_BAO_ADDR": e.Address, "OPENTHINGS_BAO_CA": e.CA, "OPENTHINGS_BAO_MOUNT": e.Mount,
		"OPENTHINGS_BAO_TOKEN_FILE": e.Token(t, "1h", openbao.Policy(e.Mount, false), openbao.SetupPolicy(e.Mount)),
	} {
		t.Setenv(name, value)
	}
	var out bytes.Buffer
	ok, err := Run(t.Context(), Config{Devices: 5, Once: true, JSON: true, Binary: builtBinary, Out: &out, Progress: testWriter{t}})
	if err != nil || !ok {
		t.Fatalf("ok %v, %v\n%s", ok, err, out.String())
	}
	roles, err := e.Client.Logical().List(e.Mount + "/roles")
	if err != nil || roles == nil {
		t.Fatalf("the engine signed nothing: %v %v", roles, err)
	}
}
