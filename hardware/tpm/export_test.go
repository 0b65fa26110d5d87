// SPDX-License-Identifier: Apache-2.0

package tpm

import "github.com/google/go-tpm/tpm2/transport"

// Link is the way to the TPM past the package. Nothing else may sign meanwhile.
func (d *Device) Link() transport.TPM {
	d.unload()
	return d.link
}

// Parse reads a key file without a TPM.
func Parse(file []byte) error {
	_, _, err := parse(file)
	return err
}
