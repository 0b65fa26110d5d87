// SPDX-License-Identifier: AGPL-3.0-only

package pgp

import (
	"bytes"
	"context"
	"crypto"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
)

// Key is an OpenPGP key of a tenant: an Ed25519 key that signs, with a Curve25519 subkey that others encrypt to.
type Key struct {
	Fingerprint string // hex digits of the primary key's
	Public      string // armored
	Made        time.Time

	tenant string
	sealed []byte
}

// Service keeps the keys. DB's clock is its clock.
type Service struct {
	db   *store.DB
	keys *seal.Keys
}

// New makes the service. The table is in the schema of package respond.
func New(db *store.DB, keys *seal.Keys) *Service { return &Service{db: db, keys: keys} }

func (s *Service) now() time.Time { return s.db.Clock().Now().UTC().Truncate(time.Second) }

// purpose binds what is sealed to its place. Its first words date from when keys signed advisories only.
func purpose(tenant, fingerprint string) string {
	return "respond.advisory-key/" + tenant + "/" + fingerprint
}

// config is how keys and signatures are made: Ed25519, SHA-512, at the time of our clock.
func (s *Service) config() *packet.Config {
	return &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Curve: packet.Curve25519, DefaultHash: crypto.SHA512, Time: s.now}
}

// Signer is the tenant's newest key; the first is made when it is first needed, in the given name.
func (s *Service) Signer(ctx context.Context, tenant, actor, name string) (Key, error) {
	keys, err := s.Keys(ctx, tenant)
	if err != nil || len(keys) > 0 {
		return last(keys), err
	}
	k, err := s.make(tenant, name)
	if err != nil {
		return k, err
	}
	err = s.db.Write(ctx, func(tx *store.Tx) error {
		if keys, err = Of(tx, tenant); err != nil || len(keys) > 0 {
			return err // somebody else was faster
		}
		keys = []Key{k}
		if err := insert(tx, k); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "pgp.key_made", Subject: tenant, Data: map[string]any{"fingerprint": k.Fingerprint}})
	})
	return last(keys), err
}

func last(keys []Key) (k Key) {
	if len(keys) > 0 {
		k = keys[len(keys)-1]
	}
	return k
}

func (s *Service) make(tenant, name string) (Key, error) {
	plainName := strings.Map(func(r rune) rune {
		if strings.ContainsRune("()<>\x00", r) {
			return -1
		}
		return r
	}, name)
	e, err := openpgp.NewEntity(plainName, "", "", s.config())
	if err != nil {
		return Key{}, fmt.Errorf("OpenPGP key: %w", err)
	}
	var secret, public bytes.Buffer
	if err := e.SerializePrivate(&secret, s.config()); err != nil {
		return Key{}, fmt.Errorf("OpenPGP key: %w", err)
	}
	w, err := armor.Encode(&public, openpgp.PublicKeyType, nil)
	if err == nil {
		err = errors.Join(e.Serialize(w), w.Close())
	}
	if err != nil {
		return Key{}, fmt.Errorf("OpenPGP key: %w", err)
	}
	k := Key{tenant: tenant, Fingerprint: hex.EncodeToString(e.PrimaryKey.Fingerprint), Public: public.String() + "\n", Made: s.now()}
	k.sealed, err = s.keys.Wrap(purpose(tenant, k.Fingerprint), secret.Bytes())
	return k, err
}

// secret opens the private part.
func (s *Service) secret(k Key) (*openpgp.Entity, error) {
	b, err := s.keys.Unwrap(purpose(k.tenant, k.Fingerprint), k.sealed)
	if err != nil {
		return nil, err
	}
	e, err := openpgp.ReadEntity(packet.NewReader(bytes.NewReader(b)))
	if err != nil {
		return nil, fmt.Errorf("OpenPGP key: %w", err)
	}
	return e, nil
}

// Sign makes an armored detached signature, and checks it as a reader would.
func (s *Service) Sign(k Key, document []byte) (string, error) {
	e, err := s.secret(k)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := openpgp.ArmoredDetachSign(&b, e, bytes.NewReader(document), s.config()); err != nil {
		return "", fmt.Errorf("signature: %w", err)
	}
	signature := b.String() + "\n"
	return signature, s.Believes(k, document, signature)
}

// Believes reports why a reader who has the public key alone would not take the detached signature for one of the document.
func (s *Service) Believes(k Key, document []byte, signature string) error {
	ring, err := openpgp.ReadArmoredKeyRing(strings.NewReader(k.Public))
	if err != nil {
		return fmt.Errorf("the public key: %w", err)
	}
	if _, err := openpgp.CheckArmoredDetachedSignature(ring, bytes.NewReader(document), strings.NewReader(signature), s.config()); err != nil {
		return fmt.Errorf("the signature: %w", err)
	}
	return nil
}

// ClearSign puts a cleartext signature around a text (RFC 9580 section 7).
func (s *Service) ClearSign(k Key, text []byte) ([]byte, error) {
	e, err := s.secret(k)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, e.PrivateKey, s.config())
	if err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	_, err = w.Write(text)
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	// The armor has no checksum, and GnuPG 2.4 does not find the end of one without.
	block, _ := clearsign.Decode(b.Bytes())
	if block == nil {
		return nil, errors.New("signature: it is not read back")
	}
	at := bytes.LastIndex(b.Bytes(), []byte("-----BEGIN "+openpgp.SignatureType))
	b.Truncate(at)
	a, err := armor.Encode(&b, openpgp.SignatureType, nil)
	if err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	_, err = io.Copy(a, block.ArmoredSignature.Body)
	if err := errors.Join(err, a.Close()); err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// Binary reports whether b begins as an encrypted message that is not armored: with a session key for a public key (RFC 9580,
// sections 4.2 and 5.1), of version 3 or 6.
func Binary(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	length := 0 // bytes of the packet's length
	switch b[0] {
	case 0x84, 0x85, 0x86:
		length = 1 << (b[0] & 3)
	case 0xc1:
		switch {
		case len(b) > 1 && b[1] < 192:
			length = 1
		case len(b) > 1 && b[1] < 224:
			length = 2
		case len(b) > 1 && b[1] == 255:
			length = 5
		}
	}
	return length > 0 && len(b) > 1+length && (b[1+length] == 3 || b[1+length] == 6)
}

// Decrypt opens a message, armored or not, that was encrypted to one of the tenant's keys and is at most most bytes long inside.
// What cannot be opened is a problem of kind invalid; nothing of it is returned then, not even its beginning.
func (s *Service) Decrypt(ctx context.Context, tenant string, message []byte, most int64) ([]byte, error) {
	keys, err := s.Keys(ctx, tenant)
	if err != nil {
		return nil, err
	}
	var ring openpgp.EntityList
	for _, k := range keys {
		e, err := s.secret(k)
		if err != nil {
			return nil, err
		}
		ring = append(ring, e)
	}
	var body io.Reader = bytes.NewReader(message)
	if !Binary(message) {
		block, err := armor.Decode(body)
		if err != nil {
			return nil, problem.Invalid("This is no OpenPGP message.").Because(err)
		}
		body = block.Body
	}
	m, err := openpgp.ReadMessage(body, ring, nil, s.config())
	if err != nil {
		return nil, problem.Invalid("The message was not encrypted to a key of this manufacturer, or is damaged.").Because(err)
	}
	text, err := io.ReadAll(io.LimitReader(m.UnverifiedBody, most+1)) // its end says whether it is whole
	switch {
	case err != nil:
		return nil, problem.Invalid("The encrypted message is damaged.").Because(err)
	case int64(len(text)) > most:
		return nil, problem.TooLarge("The message is longer than %d bytes inside.", most)
	}
	return text, nil
}

// Keys are the tenant's keys, oldest first.
func (s *Service) Keys(ctx context.Context, tenant string) (keys []Key, err error) {
	err = s.db.View(ctx, func(tx *store.Tx) error { keys, err = Of(tx, tenant); return err })
	return keys, err
}

// Of is Keys within a transaction.
func Of(tx *store.Tx, tenant string) ([]Key, error) {
	rows, err := tx.Query(`SELECT fingerprint, public, sealed, made FROM respond_signing_key WHERE tenant = $1 ORDER BY made, fingerprint`, tenant)
	return store.Collect(rows, err, func(r *sql.Rows) (Key, error) {
		k := Key{tenant: tenant}
		var made int64
		err := r.Scan(&k.Fingerprint, &k.Public, &k.sealed, &made)
		k.Made = store.Time(made)
		return k, err
	})
}

func insert(tx *store.Tx, k Key) error {
	_, err := tx.Exec(`INSERT INTO respond_signing_key(tenant, fingerprint, public, sealed, made) VALUES ($1, $2, $3, $4, $5)`,
		k.tenant, k.Fingerprint, k.Public, k.sealed, store.Millis(k.Made))
	return err
}
