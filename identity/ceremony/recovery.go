// SPDX-License-Identifier: AGPL-3.0-only

package ceremony

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
)

// Held is a root or an anchor with its key, in memory.
type Held struct {
	ID   string // "root-1"
	Role identity.Role
	Cert *x509.Certificate
	Key  crypto.Signer
}

// Recovery is what a recovery file holds.
type Recovery struct {
	Held []Held
	// Challenge is set by a platform that hands its first keys over: who can answer it has opened the file.
	Challenge []byte
}

const (
	recoveryFormat = "openthings-recovery/1"
	maxRecovery    = 1 << 20 // bytes of a recovery file
)

// recoveryFile is the plaintext inside age.
type recoveryFile struct {
	Format    string        `json:"format"`
	Challenge []byte        `json:"challenge,omitempty"`
	Keys      []recoveryKey `json:"keys"`
}

type recoveryKey struct {
	ID          string        `json:"id"`
	Role        identity.Role `json:"role"`
	Certificate []byte        `json:"certificate"` // DER
	Key         []byte        `json:"key"`         // PKCS #8
}

// ParseRecipients reads age recipients, one a word: age1… (X25519) or age1pq1… (hybrid).
func ParseRecipients(texts []string) ([]age.Recipient, error) {
	rs, err := age.ParseRecipients(strings.NewReader(strings.Join(texts, "\n")))
	if err != nil || len(rs) == 0 {
		return nil, problem.Invalid("This is not a list of age recipients.").At("--recipient").
			Hint("age-keygen makes an identity and prints its recipient, age1….").Because(err)
	}
	return rs, nil
}

// Seal encrypts the recovery file to the recipients; any one of them opens it.
func (r Recovery) Seal(recipients []age.Recipient) ([]byte, error) {
	f := recoveryFile{Format: recoveryFormat, Challenge: r.Challenge}
	for _, h := range r.Held {
		key, err := x509.MarshalPKCS8PrivateKey(h.Key)
		if err != nil {
			return nil, fmt.Errorf("recovery file: %s: %w", h.ID, err)
		}
		defer clear(key)
		f.Keys = append(f.Keys, recoveryKey{ID: h.ID, Role: h.Role, Certificate: h.Cert.Raw, Key: key})
	}
	plain, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	var out bytes.Buffer
	lines := armor.NewWriter(&out)
	w, err := age.Encrypt(lines, recipients...)
	if err != nil {
		return nil, fmt.Errorf("recovery file: %w", err)
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	err = lines.Close()
	return out.Bytes(), err
}

// Check reads the outside of a recovery file: that it is whole, and how many recipients can open it. It needs no
// identity, so that the platform can read back what it wrote.
func Check(sealed []byte) error {
	if len(sealed) > maxRecovery {
		return problem.TooLarge("A recovery file has at most %d bytes.", maxRecovery)
	}
	raw, err := io.ReadAll(armor.NewReader(bytes.NewReader(sealed)))
	if err != nil {
		return problem.Invalid("This is not a recovery file.").Because(err)
	}
	if _, err := age.ExtractHeader(bytes.NewReader(raw)); err != nil {
		return problem.Invalid("This is not a recovery file.").Because(err)
	}
	return nil
}

// Open decrypts a recovery file with age identities (the text of a key file) and checks that each key belongs to its
// certificate.
func Open(sealed []byte, identities io.Reader) (Recovery, error) {
	if err := Check(sealed); err != nil {
		return Recovery{}, err
	}
	ids, err := age.ParseIdentities(identities)
	if err != nil {
		return Recovery{}, problem.Invalid("The identity file holds no age identity.").At("--identity").Because(err)
	}
	r, err := age.Decrypt(armor.NewReader(bytes.NewReader(sealed)), ids...)
	if err != nil {
		return Recovery{}, problem.Forbidden("ca.identity", "This identity does not open the recovery file.").At("--identity").Because(err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxRecovery))
	if err != nil {
		return Recovery{}, problem.Invalid("The recovery file is damaged.").Because(err)
	}
	defer clear(plain)
	return parse(plain)
}

// parse reads the plaintext.
func parse(plain []byte) (Recovery, error) {
	var f recoveryFile
	if err := json.Unmarshal(plain, &f); err != nil || f.Format != recoveryFormat || len(f.Keys) == 0 {
		return Recovery{}, problem.Invalid("This recovery file is of another format.").Because(err)
	}
	out := Recovery{Challenge: f.Challenge}
	for _, k := range f.Keys {
		defer clear(k.Key)
		h, err := k.open()
		if err != nil {
			return Recovery{}, problem.Invalid("The recovery file is damaged at %q.", k.ID).Because(err)
		}
		out.Held = append(out.Held, h)
	}
	return out, nil
}

func (k recoveryKey) open() (Held, error) {
	cert, err := x509.ParseCertificate(k.Certificate)
	if err != nil {
		return Held{}, err
	}
	key, err := x509.ParsePKCS8PrivateKey(k.Key)
	if err != nil {
		return Held{}, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok || !equal(signer.Public(), cert.PublicKey) {
		return Held{}, fmt.Errorf("the key is not that of the certificate")
	}
	if k.Role.Above() != k.Role || !strings.HasPrefix(k.ID, string(k.Role)+"-") {
		return Held{}, fmt.Errorf("%q is no %q", k.ID, k.Role)
	}
	return Held{ID: k.ID, Role: k.Role, Cert: cert, Key: signer}, nil
}

func equal(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// Of returns what the file holds for the role.
func (r Recovery) Of(role identity.Role) (Held, error) {
	for _, h := range r.Held {
		if h.Role == role {
			return h, nil
		}
	}
	return Held{}, problem.NotFound("The recovery file holds no %s.", role)
}

// Prove answers the challenge inside the file with every key in it.
func (r Recovery) Prove() (identity.Proof, error) {
	if len(r.Challenge) == 0 {
		return identity.Proof{}, problem.Invalid("This recovery file was not exported from a platform, so there is nothing to prove.")
	}
	p := identity.Proof{Challenge: r.Challenge, Signatures: map[string][]byte{}}
	for _, h := range r.Held {
		if err := p.Sign(h.ID, h.Key); err != nil {
			return identity.Proof{}, err
		}
	}
	return p, nil
}
