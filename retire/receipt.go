// SPDX-License-Identifier: AGPL-3.0-only

package retire

import (
	"bytes"
	"crypto"
	"crypto/subtle"
	"encoding/json"
	"slices"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/wire"
)

// areaKey is the one area that a wipe cannot leave out: with its operational key a device could come back.
const areaKey = "ldevid-key"

// expected is what a true receipt says.
type expected struct {
	Device, Serial, Command, Nonce string
}

// verify reads the data of a wipe's result and refuses whatever the device's own key did not sign for this very wipe.
// Every refusal is a problem of kind invalid, so that the command ends as failed with its text.
func verify(data json.RawMessage, key crypto.PublicKey, want expected) (wire.Signed, wire.WipeReceipt, error) {
	var s wire.Signed
	var r wire.WipeReceipt
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields() // what is kept as evidence holds nothing beside the receipt
	if err := d.Decode(&s); err != nil || len(s.Payload) == 0 || d.More() {
		return s, r, problem.Invalid("The wipe receipt cannot be read.").Because(err)
	}
	if err := s.Open(key, &r); err != nil {
		return s, r, problem.Invalid("The wipe receipt was not signed by the key that the device was born with.").Because(err)
	}
	switch {
	case r.Device != want.Device || r.Serial != want.Serial:
		return s, r, problem.Invalid("The wipe receipt is of another device.")
	case r.Command != want.Command || subtle.ConstantTimeCompare([]byte(r.Nonce), []byte(want.Nonce)) != 1:
		return s, r, problem.Invalid("The wipe receipt answers another command.")
	case r.Method == "" || !slices.Contains(r.Areas, areaKey):
		return s, r, problem.Invalid("The wipe receipt does not say that the operational key was erased.")
	}
	return s, r, nil
}
