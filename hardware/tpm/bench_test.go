// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/sha256"
	"testing"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/openthings-platform/openthings/hardware/hardwaretest"
)

// What a signature costs by what is loaded already (docs/decisions/0014-hardware-keys.md):
//
//	go test ./hardware/tpm -run '^$' -bench . -benchtime 200x -count 3
func BenchmarkSign(b *testing.B) {
	digest := sha256.Sum256([]byte("x"))
	sign := func(b *testing.B, keys ...crypto.Signer) {
		for i := 0; b.Loop(); i++ {
			if _, err := keys[i%len(keys)].Sign(nil, digest[:], crypto.SHA256); err != nil {
				b.Fatal(err)
			}
		}
	}
	peer := hardwaretest.NewTPM(b)
	d := open(b, peer.Where)
	first, second := newKey(b, d, elliptic.P256()), newKey(b, d, elliptic.P256())
	b.Run("key loaded", func(b *testing.B) { sign(b, first) })
	b.Run("keys in turn", func(b *testing.B) { sign(b, first, second) })
	b.Run("root made anew", func(b *testing.B) { // what go-tpm-keyfiles does by itself for a key below the owner's hierarchy
		k, err := keyfile.NewLoadableKey(noClose{d.Link()}, tpm2.TPMAlgECC, 256, nil)
		if err != nil {
			b.Fatal(err)
		}
		s, err := k.Signer(noClose{d.Link()}, nil, nil)
		if err != nil {
			b.Fatal(err)
		}
		sign(b, s)
	})
}

// noClose lends a TPM out.
type noClose struct{ transport.TPM }

func (noClose) Close() error { return nil }
