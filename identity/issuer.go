// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"crypto"
	"crypto/x509"
	"math/big"
	"time"
)

// SignRequest is a certificate that policy has decided on in every field. The issuer adds its name and signature.
type SignRequest struct {
	Profile  string // for issuers that keep a role per profile
	Role     Role
	Template *x509.Certificate
	Key      crypto.PublicKey
}

// Issuer signs what identity has decided. It is never the only holder of anything: the register keeps each certificate
// and each revocation.
type Issuer interface {
	// Sign returns the DER of the certificate.
	Sign(ctx context.Context, r SignRequest) ([]byte, error)
	// Chain returns the authority of the role, then each one above it; the last is a root.
	Chain(ctx context.Context, role Role) ([]*x509.Certificate, error)
	// Revoke tells the issuer for its own lists (CRL, OCSP). A repeat is harmless.
	Revoke(ctx context.Context, role Role, serial *big.Int, at time.Time) error
}
