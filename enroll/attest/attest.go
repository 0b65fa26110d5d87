// SPDX-License-Identifier: AGPL-3.0-only

package attest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/wire"
)

// Life is how long a challenge may be answered. Making an RSA key in a slow TPM takes half of it.
const Life = 5 * time.Minute

// Pending is what the platform remembers of a challenge. It is no secret worth stealing: the answer is only hashed.
type Pending struct {
	ID      string    `json:"id"`
	Answer  [32]byte  `json:"answer"` // SHA-256 of the secret in the challenge
	Nonce   []byte    `json:"nonce"`
	Expires time.Time `json:"expires"`

	Request wire.AttestRequest `json:"request"`
}

// Evidence is what was found out, for the register and the log.
type Evidence struct {
	Grade   identity.Grade `json:"grade"`
	At      time.Time      `json:"at"`
	Reasons []string       `json:"reasons,omitempty" doc:"Why the grade is not A"`

	Manufacturer string `json:"manufacturer,omitempty" doc:"TPM vendor id of the TCG registry"`
	Model        string `json:"model,omitempty"`
	Version      string `json:"version,omitempty"`
	EK           string `json:"ek" doc:"SHA-256 of the endorsement key's subject public key info, hex: one per TPM"`
	Certificate  string `json:"ek_certificate,omitempty" doc:"SHA-256 of the endorsement certificate, hex"`
	Issuer       string `json:"ek_issuer,omitempty" doc:"Who signed the endorsement certificate"`
	Key          string `json:"key" doc:"TPM name of the certified key, hex"`
	Firmware     string `json:"firmware,omitempty" doc:"Version of the TPM's own firmware, as it states, hex"`
}

func refused(format string, args ...any) error {
	return problem.Forbidden("attest.proof", format, args...).Hint("Ask for a new challenge and prove the key again.")
}

func malformed(what string, err error) error {
	return problem.Invalid("%s cannot be read", what).At("attestation").Because(err)
}

// Challenge answers a device's request with what only the TPM that it names can answer.
func Challenge(r wire.AttestRequest, now time.Time) (wire.AttestChallenge, Pending, error) {
	none := func(err error) (wire.AttestChallenge, Pending, error) { return wire.AttestChallenge{}, Pending{}, err }
	if len(r.Chain) > wire.MaxAttestChain {
		return none(problem.TooLarge("The chain of the endorsement certificate is longer than %d.", wire.MaxAttestChain))
	}
	for _, c := range slices.Concat(r.Chain, [][]byte{r.Certificate}) {
		if len(c) > wire.MaxAttestCertificate {
			return none(problem.TooLarge("A certificate has more than %d bytes.", wire.MaxAttestCertificate))
		}
	}
	ek, ekKey, err := area("the endorsement key", r.EK)
	if err != nil {
		return none(err)
	}
	if a := ek.ObjectAttributes; !a.FixedTPM || !a.FixedParent || !a.Restricted || !a.Decrypt || a.SignEncrypt {
		return none(refused("The endorsement key is none: it must be a restricted decryption key that never leaves its TPM."))
	}
	if len(r.Certificate) != 0 {
		c, err := x509.ParseCertificate(r.Certificate)
		if err != nil {
			return none(malformed("the endorsement certificate", err))
		}
		if c.PublicKey != nil && !same(c.PublicKey, ekKey) {
			return none(refused("The endorsement certificate is over another key than the endorsement key."))
		}
	}
	ak, akKey, err := area("the attestation key", r.AK)
	if err != nil {
		return none(err)
	}
	if _, ok := akKey.(*ecdsa.PublicKey); !ok {
		return none(problem.Invalid("the attestation key must be ECDSA on P-256 or P-384").At("attestation"))
	}
	// A key that is not restricted signs whatever it is given: such statements would be the device's own, not its TPM's.
	if a := ak.ObjectAttributes; !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin || !a.Restricted || !a.SignEncrypt || a.Decrypt {
		return none(refused("The attestation key is none: it must be a restricted signing key, made in its TPM and never leaving it."))
	}
	to, err := tpm2.ImportEncapsulationKey(ek)
	if err != nil {
		return none(malformed("the endorsement key", err))
	}
	secret, nonce := make([]byte, 32), make([]byte, 32)
	rand.Read(secret)
	rand.Read(nonce)
	credential, sealed, err := tpm2.CreateCredential(rand.Reader, to, name(ak.NameAlg, r.AK), secret)
	if err != nil {
		return none(malformed("the endorsement key", err))
	}
	id := rand.Text()
	return wire.AttestChallenge{ID: id, Credential: credential, Secret: sealed, Nonce: nonce},
		Pending{ID: id, Answer: sha256.Sum256(secret), Nonce: nonce, Expires: now.Add(Life), Request: r}, nil
}

// Verify judges the proof for the key of a certificate request. Makers are the authorities of TPM makers that the tenant
// trusts, roots or those below them. An error says that the proof is none; a proof of too little has a lower grade and
// the reasons in its evidence.
func Verify(p Pending, proof wire.AttestProof, key crypto.PublicKey, makers []*x509.Certificate, now time.Time) (Evidence, error) {
	if proof.ID != p.ID || p.ID == "" || !now.Before(p.Expires) {
		return Evidence{}, refused("The proof answers no challenge that is open.")
	}
	if len(proof.Opened) > 64 || len(proof.Info) > wire.MaxAttestStructure || len(proof.Signature) > wire.MaxAttestStructure {
		return Evidence{}, problem.TooLarge("The proof is larger than a TPM makes one.")
	}
	if got := sha256.Sum256(proof.Opened); subtle.ConstantTimeCompare(got[:], p.Answer[:]) != 1 {
		return Evidence{}, refused("The challenge was not opened by the TPM with the endorsement key and the attestation key.")
	}
	_, ak, err := area("the attestation key", p.Request.AK)
	if err != nil {
		return Evidence{}, err
	}
	if err := checkSignature(ak, proof.Info, proof.Signature); err != nil {
		return Evidence{}, err
	}
	info, err := tpm2.Unmarshal[tpm2.TPMSAttest](proof.Info)
	if err != nil {
		return Evidence{}, malformed("the TPM's statement", err)
	}
	if info.Magic != tpm2.TPMGeneratedValue || info.Type != tpm2.TPMSTAttestCertify {
		return Evidence{}, refused("The statement is not of the kind that certifies a key.")
	}
	if !bytes.Equal(info.ExtraData.Buffer, p.Nonce) {
		return Evidence{}, refused("The statement was made for another challenge.")
	}
	about, err := info.Attested.Certify()
	if err != nil {
		return Evidence{}, malformed("the TPM's statement", err)
	}
	k, public, err := area("the key", proof.Key)
	if err != nil {
		return Evidence{}, err
	}
	keyName := name(k.NameAlg, proof.Key)
	if !bytes.Equal(about.Name.Buffer, keyName) {
		return Evidence{}, refused("The statement is about another key.")
	}
	if !same(public, key) {
		return Evidence{}, refused("The key that was proven is not the one that a certificate is wanted for.")
	}
	// The key alone, since the rest of its public area is what the device says: it could make one TPM look like many.
	_, ek, err := area("the endorsement key", p.Request.EK)
	if err != nil {
		return Evidence{}, err
	}
	spki, err := x509.MarshalPKIXPublicKey(ek)
	if err != nil {
		return Evidence{}, malformed("the endorsement key", err)
	}
	sum := sha256.Sum256(spki)
	e := Evidence{At: now.UTC(), EK: hex.EncodeToString(sum[:]), Key: hex.EncodeToString(keyName), Firmware: fmt.Sprintf("%016x", info.FirmwareVersion)}
	e.grade(k, p.Request, makers, now)
	return e, nil
}

// grade fills in what the proof amounts to.
func (e *Evidence) grade(k *tpm2.TPMTPublic, r wire.AttestRequest, makers []*x509.Certificate, now time.Time) {
	maker := e.endorsement(r, makers, now)
	e.Grade = identity.GradeA
	if maker != "" {
		e.Grade = identity.GradeB
		e.Reasons = append(e.Reasons, maker)
	}
	for _, c := range []struct {
		bad bool
		why string
	}{
		{!k.ObjectAttributes.FixedTPM || !k.ObjectAttributes.FixedParent, "The key may leave its TPM."},
		{!k.ObjectAttributes.SensitiveDataOrigin, "The key was not made in the TPM."},
	} {
		if c.bad {
			e.Grade = identity.GradeC
			e.Reasons = append(e.Reasons, c.why)
		}
	}
}

// area reads the public area of a key; what is not of the kinds that this package knows is an error.
func area(what string, b []byte) (*tpm2.TPMTPublic, crypto.PublicKey, error) {
	if len(b) > wire.MaxAttestStructure {
		return nil, nil, problem.TooLarge("The public area of %s has more than %d bytes.", what, wire.MaxAttestStructure)
	}
	pub, err := tpm2.Unmarshal[tpm2.TPMTPublic](b)
	if err != nil {
		return nil, nil, malformed(what, err)
	}
	if pub.NameAlg != tpm2.TPMAlgSHA256 && pub.NameAlg != tpm2.TPMAlgSHA384 {
		return nil, nil, problem.Invalid("the name of %s is not made by SHA-256 or SHA-384", what).At("attestation")
	}
	key, err := tpm2.Pub(*pub)
	if err != nil {
		return nil, nil, malformed(what, err)
	}
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if _, err := k.ECDH(); err != nil || k.Params().BitSize > 384 { // also that the point is on the curve
			return nil, nil, problem.Invalid("%s is no point on P-256 or P-384", what).At("attestation").Because(err)
		}
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < 2048 || n > 4096 || k.E != 65537 {
			return nil, nil, problem.Invalid("%s is not of RSA 2048 to 4096", what).At("attestation")
		}
	}
	return pub, key, nil
}

// name is the TPM name of a public area: the algorithm, and the digest of the area by it (TPM 2.0 part 1, 16).
func name(alg tpm2.TPMIAlgHash, area []byte) []byte {
	h := crypto.SHA256
	if alg == tpm2.TPMAlgSHA384 {
		h = crypto.SHA384
	}
	d := h.New()
	d.Write(area) //nolint:errcheck // a hash takes everything
	return d.Sum([]byte{byte(alg >> 8), byte(alg)})
}

// checkSignature verifies a TPMT_SIGNATURE over the statement.
func checkSignature(ak crypto.PublicKey, statement, signature []byte) error {
	s, err := tpm2.Unmarshal[tpm2.TPMTSignature](signature)
	if err != nil {
		return malformed("the signature", err)
	}
	if s.SigAlg != tpm2.TPMAlgECDSA {
		return refused("The statement is not signed by ECDSA.")
	}
	ec, err := s.Signature.ECDSA()
	if err != nil {
		return malformed("the signature", err)
	}
	h, ok := map[tpm2.TPMIAlgHash]crypto.Hash{tpm2.TPMAlgSHA256: crypto.SHA256, tpm2.TPMAlgSHA384: crypto.SHA384}[ec.Hash]
	key, isEC := ak.(*ecdsa.PublicKey)
	if !ok || !isEC {
		return refused("The statement is not signed by ECDSA with SHA-256 or SHA-384.")
	}
	d := h.New()
	d.Write(statement) //nolint:errcheck // a hash takes everything
	if !ecdsa.Verify(key, d.Sum(nil), new(big.Int).SetBytes(ec.SignatureR.Buffer), new(big.Int).SetBytes(ec.SignatureS.Buffer)) {
		return refused("The statement is not signed by the attestation key.")
	}
	return nil
}

// same says whether two public keys are one.
func same(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}
