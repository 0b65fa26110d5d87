// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/store"
)

// signingKey is an OpenPGP key of a tenant. Its private part is sealed under the platform key: it speaks for what the
// platform publishes and for no update.
type signingKey struct {
	Fingerprint string
	Public      string // armored
	Made        time.Time

	sealed []byte
}

func sealPurpose(tenant, fingerprint string) string {
	return "respond.advisory-key/" + tenant + "/" + fingerprint
}

// pgp is how keys and signatures are made: Ed25519, SHA-512, at the time of our clock.
func (s *Service) pgp() *packet.Config {
	return &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Curve: packet.Curve25519, DefaultHash: crypto.SHA512, Time: s.now}
}

// newKey makes a key in the publisher's name.
func (s *Service) newKey(tenant, name string) (signingKey, error) {
	plainName := strings.Map(func(r rune) rune {
		if strings.ContainsRune("()<>\x00", r) {
			return -1
		}
		return r
	}, name)
	e, err := openpgp.NewEntity(plainName, "", "", s.pgp())
	if err != nil {
		return signingKey{}, fmt.Errorf("signing key: %w", err)
	}
	var secret, public bytes.Buffer
	if err := e.SerializePrivate(&secret, s.pgp()); err != nil {
		return signingKey{}, fmt.Errorf("signing key: %w", err)
	}
	w, err := armor.Encode(&public, openpgp.PublicKeyType, nil)
	if err == nil {
		err = errors.Join(e.Serialize(w), w.Close())
	}
	if err != nil {
		return signingKey{}, fmt.Errorf("signing key: %w", err)
	}
	k := signingKey{Fingerprint: hex.EncodeToString(e.PrimaryKey.Fingerprint), Public: public.String() + "\n", Made: s.now()}
	k.sealed, err = s.cfg.Keys.Wrap(sealPurpose(tenant, k.Fingerprint), secret.Bytes())
	return k, err
}

// signer is the tenant's newest key; the first is made when it is first needed.
func (s *Service) signer(ctx context.Context, tenant, actor, name string) (signingKey, error) {
	keys, err := s.signingKeys(ctx, tenant)
	if err != nil || len(keys) > 0 {
		return lastOf(keys), err
	}
	k, err := s.newKey(tenant, name)
	if err != nil {
		return k, err
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if keys, err = signingKeys(tx, tenant); err != nil || len(keys) > 0 {
			return err // somebody else was faster
		}
		keys = []signingKey{k}
		if err := insertKey(tx, tenant, k); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "advisory.key_made", Subject: tenant, Data: map[string]any{"fingerprint": k.Fingerprint}})
	})
	return lastOf(keys), err
}

func lastOf(keys []signingKey) (k signingKey) {
	if len(keys) > 0 {
		k = keys[len(keys)-1]
	}
	return k
}

// prove adds digests and signature to the bytes of a document, and checks them as a reader would.
func (s *Service) prove(tenant string, k signingKey, r *AdvisoryRevision) error {
	secret, err := s.cfg.Keys.Unwrap(sealPurpose(tenant, k.Fingerprint), k.sealed)
	if err != nil {
		return err
	}
	e, err := openpgp.ReadEntity(packet.NewReader(bytes.NewReader(secret)))
	if err != nil {
		return fmt.Errorf("signing key: %w", err)
	}
	var signature bytes.Buffer
	if err := openpgp.ArmoredDetachSign(&signature, e, bytes.NewReader(r.document), s.pgp()); err != nil {
		return fmt.Errorf("signature: %w", err)
	}
	r.SHA256, r.SHA512 = digests(r.document)
	r.signature, r.Fingerprint = signature.String()+"\n", k.Fingerprint
	return s.proven(k, r)
}

// proven reports why a reader of the revision would not believe it: nothing is published without it being nil.
func (s *Service) proven(k signingKey, r *AdvisoryRevision) error {
	short, long := digests(r.document)
	if r.SHA256 != short || r.SHA512 != long {
		return errors.New("advisory: the digests are not those of the document")
	}
	ring, err := openpgp.ReadArmoredKeyRing(strings.NewReader(k.Public))
	if err != nil {
		return fmt.Errorf("advisory: the public key: %w", err)
	}
	if _, err := openpgp.CheckArmoredDetachedSignature(ring, bytes.NewReader(r.document), strings.NewReader(r.signature), s.pgp()); err != nil {
		return fmt.Errorf("advisory: the signature: %w", err)
	}
	return nil
}

func digests(b []byte) (short, long string) {
	a, c := sha256.Sum256(b), sha512.Sum512(b)
	return hex.EncodeToString(a[:]), hex.EncodeToString(c[:])
}
