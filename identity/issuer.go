// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"time"
)

// SignRequest is a certificate that policy has decided on in every field. The issuer adds its name and signature.
type SignRequest struct {
	Authority string // id of the authority that signs
	Profile   string // for issuers that keep a role per profile
	Template  *x509.Certificate
	Key       crypto.PublicKey
	CSR       []byte // PKCS #10 in DER over Key, for issuers that want to see the proof of possession themselves
}

// Held is an authority as the issuer that holds it, or only knows it, describes it.
type Held struct {
	ID         string // "operational-2": role and generation, for ever
	Role       Role
	Generation int64
	Algorithm  Algorithm
	Backend    string // who signs: embedded, openbao
	Protection string // of the key: sealed, pkcs11, tpm, backend; away: the key is not on this machine
	Parent     string // id of the authority above; its own for a root
	Cert       []byte // DER; nil while it is only requested
}

// Issuer signs what identity has decided. It is never the only holder of anything: the register keeps each certificate
// and each revocation.
type Issuer interface {
	// Authorities lists every authority that the issuer knows, roots included.
	Authorities(ctx context.Context) ([]Held, error)
	// Sign returns the DER of the certificate. An issuer may choose another serial number; all else is as requested.
	Sign(ctx context.Context, r SignRequest) ([]byte, error)
	// Revoke tells the issuer for its own lists (CRL, OCSP). A repeat is harmless.
	Revoke(ctx context.Context, authority string, serial *big.Int, at time.Time) error
	// Health returns nil when the issuer can sign now.
	Health(ctx context.Context) error
}

// Rotator is an Issuer that makes keys for new authorities.
type Rotator interface {
	// Generate makes the key of a new authority and returns its request (PKCS #10 in DER). A repeat returns the request
	// over the same key.
	Generate(ctx context.Context, id string, role Role, alg Algorithm, name pkix.Name) (csr []byte, err error)
	// Install takes the certificate that the authority above signed over that key. A repeat is harmless.
	Install(ctx context.Context, id string, cert []byte) error
}

// CRLSigner is an Issuer that signs revocation lists as its authorities.
type CRLSigner interface {
	SignCRL(ctx context.Context, authority string, list *x509.RevocationList) ([]byte, error)
}
