// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"context"
	"database/sql"
	"fmt"

	"filippo.io/age"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/store"
)

// ageKey is a key that finders encrypt to. Its private part is sealed under the platform key.
type ageKey struct {
	Recipient string
	sealed    []byte
}

func agePurpose(tenant, recipient string) string { return "disclosure.age/" + tenant + "/" + recipient }

func ageKeys(tx *store.Tx, tenant string) ([]ageKey, error) {
	rows, err := tx.Query(`SELECT recipient, sealed FROM disclosure_key WHERE tenant = $1 ORDER BY made, recipient`, tenant)
	return store.Collect(rows, err, func(r *sql.Rows) (k ageKey, err error) { return k, r.Scan(&k.Recipient, &k.sealed) })
}

// Recipient is the age key that finders encrypt to; the first is made when it is first asked for.
func (s *Service) Recipient(ctx context.Context, tenant string) (string, error) {
	var keys []ageKey
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) { keys, err = ageKeys(tx, tenant); return err })
	if err != nil || len(keys) > 0 {
		return last(keys).Recipient, err
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return "", fmt.Errorf("age key: %w", err)
	}
	k := ageKey{Recipient: id.Recipient().String()}
	if k.sealed, err = s.cfg.Keys.Wrap(agePurpose(tenant, k.Recipient), []byte(id.String())); err != nil {
		return "", err
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if keys, err = ageKeys(tx, tenant); err != nil || len(keys) > 0 {
			return err // somebody else was faster
		}
		keys = []ageKey{k}
		if _, err := tx.Exec(`INSERT INTO disclosure_key(tenant, recipient, sealed, made) VALUES ($1, $2, $3, $4)`, tenant, k.Recipient, k.sealed, store.Millis(s.now())); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: "system", Kind: "disclosure.key_made", Subject: tenant, Data: map[string]any{"recipient": k.Recipient}})
	})
	return last(keys).Recipient, err
}

func last(keys []ageKey) (k ageKey) {
	if len(keys) > 0 {
		k = keys[len(keys)-1]
	}
	return k
}

// identities are all age keys that the tenant's messages may be encrypted to.
func (s *Service) identities(ctx context.Context, tenant string) ([]age.Identity, error) {
	var keys []ageKey
	if err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) { keys, err = ageKeys(tx, tenant); return err }); err != nil {
		return nil, err
	}
	var out []age.Identity
	for _, k := range keys {
		secret, err := s.cfg.Keys.Unwrap(agePurpose(tenant, k.Recipient), k.sealed)
		if err != nil {
			return nil, err
		}
		id, err := age.ParseX25519Identity(string(secret))
		if err != nil {
			return nil, fmt.Errorf("age key: %w", err)
		}
		out = append(out, id)
	}
	return out, nil
}
