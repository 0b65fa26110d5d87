// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// Proof shows that somebody could open a recovery file: each key in it has signed the challenge that lies beside it.
type Proof struct {
	Challenge  []byte            `json:"challenge"`
	Signatures map[string][]byte `json:"signatures"` // by id of the root or anchor
}

// proofContext keeps a proof from being anything else that these keys sign.
const proofContext = "openthings recovery proof 1\n"

// Sign adds the signature of one key.
func (p Proof) Sign(id string, key crypto.Signer) (err error) {
	message := append([]byte(proofContext), p.Challenge...)
	hash := crypto.Hash(0)
	switch AlgorithmOf(key.Public()) {
	case "":
		return fmt.Errorf("identity: a key of type %T proves nothing", key.Public())
	case AlgEd25519:
	default:
		sum := sha256.Sum256(message)
		message, hash = sum[:], crypto.SHA256
	}
	p.Signatures[id], err = key.Sign(rand.Reader, message, hash)
	return err
}

// by says whether the key of the certificate has signed.
func (p Proof) by(id string, cert *x509.Certificate) bool {
	alg := x509.ECDSAWithSHA256
	if AlgorithmOf(cert.PublicKey) == AlgEd25519 {
		alg = x509.PureEd25519
	}
	return cert.CheckSignature(alg, append([]byte(proofContext), p.Challenge...), p.Signatures[id]) == nil
}

// ParseProof reads what openthings ca root prove wrote.
func ParseProof(raw []byte) (Proof, error) {
	var p Proof
	if err := json.Unmarshal(raw, &p); err != nil || len(p.Challenge) == 0 {
		return Proof{}, problem.Invalid("This is not a proof of a recovery file.").Because(err)
	}
	return p, nil
}

// RootKey is a root or anchor whose key lies on this machine.
type RootKey struct {
	Authority
	Key crypto.Signer
}

// RootKeys are the keys of roots and anchors that lie on this machine.
func (s *Service) RootKeys(ctx context.Context) (out []RootKey, err error) {
	keeper, ok := s.cfg.Issuer.(RootKeeper)
	if !ok {
		return nil, nil
	}
	all, err := s.Authorities(ctx)
	if err != nil {
		return nil, err
	}
	for _, a := range all {
		if a.Role.Above() != a.Role {
			continue
		}
		key, err := keeper.RootKey(ctx, a.ID)
		switch {
		case problem.Is(err, problem.KindNotFound):
		case err != nil:
			return nil, err
		default:
			out = append(out, RootKey{a, key})
		}
	}
	return out, nil
}

// HandOut records that a recovery file with these keys is being written and returns the challenge that goes into it.
func (s *Service) HandOut(ctx context.Context, keys []RootKey, actor string) (challenge []byte, err error) {
	if len(keys) == 0 {
		return nil, problem.NotFound("No key of a root or anchor is on this machine.")
	}
	challenge = make([]byte, 32)
	rand.Read(challenge)
	ids := make([]string, len(keys))
	for i, k := range keys {
		ids[i] = k.ID
	}
	now := s.cfg.Clock.Now()
	return challenge, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO recovery(challenge, authorities, created, proven) VALUES ($1, $2, $3, 0)`, hex.EncodeToString(challenge), strings.Join(ids, " "), store.Millis(now))
		if err != nil {
			return err
		}
		for _, k := range keys {
			if err := s.changed(tx, "authority.key-exported", k.Authority, actor, map[string]any{}); err != nil {
				return err
			}
		}
		return nil
	})
}

// RemoveRootKeys deletes the keys of roots and anchors from this machine, once the proof shows that the recovery file
// which was handed out with them can be opened and holds them. It returns the ids.
func (s *Service) RemoveRootKeys(ctx context.Context, p Proof, actor string) ([]string, error) {
	keeper, err := s.RootKeeper()
	if err != nil {
		return nil, err
	}
	var ids string
	err = s.cfg.DB.QueryRow(ctx, `SELECT authorities FROM recovery WHERE challenge = $1`, hex.EncodeToString(p.Challenge)).Scan(&ids)
	if errors.Is(err, store.ErrNoRows) {
		return nil, problem.Forbidden("ca.proof", "The proof is not about a recovery file of this platform.").Hint("openthings ca root export writes one.")
	}
	if err != nil {
		return nil, err
	}
	keys, err := s.RootKeys(ctx)
	if err != nil {
		return nil, err
	}
	var gone []string
	for _, k := range keys {
		cert, err := k.Certificate()
		if err != nil {
			return nil, err
		}
		if !strings.Contains(" "+ids+" ", " "+k.ID+" ") || !p.by(k.ID, cert) {
			return nil, problem.Forbidden("ca.proof", "The proof does not show that the recovery file holds the key of %s.", k.ID).
				Hint("Export again, and prove that file.")
		}
		gone = append(gone, k.ID)
	}
	now := s.cfg.Clock.Now()
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error { // said first: a key that is gone without an entry is worse than the reverse
		if _, err := tx.Exec(`UPDATE recovery SET proven = $1 WHERE challenge = $2`, store.Millis(now), hex.EncodeToString(p.Challenge)); err != nil {
			return err
		}
		for _, k := range keys {
			if err := s.changed(tx, "authority.key-removed", k.Authority, actor, map[string]any{"recovery": hex.EncodeToString(p.Challenge)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, id := range gone {
		if err := keeper.RemoveRootKey(ctx, id); err != nil {
			return nil, fmt.Errorf("identity: the key of %s: %w", id, err)
		}
	}
	return gone, nil
}
