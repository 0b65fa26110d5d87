// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// Bounds of a list of blocked keys.
const (
	MaxBlockList  = 32 << 20 // bytes
	maxBlocked    = 1_000_000
	blockedDigits = 30 // 120 bits of a key's hash; published lists of weak keys are cut there
)

var blockedLine = regexp.MustCompile(`^[0-9a-f]{30,64}$`)

// BlockKeys adds keys that nobody of the tenant may enrol with: one hash a line, at least the first 30 hex digits of the
// SHA-256 of the subject public key info; empty lines and what follows # do not count. Keys that have a certificate
// already keep it: suspend their devices. It returns how many lines counted.
func (s *Service) BlockKeys(ctx context.Context, tenant string, r io.Reader, reason, actor string) (n int, err error) {
	if strings.TrimSpace(reason) == "" || len(reason) > 200 {
		return 0, problem.Invalid("Say in at most 200 bytes why these keys are blocked.").At("reason")
	}
	var prefixes []string
	lines := bufio.NewScanner(io.LimitReader(r, MaxBlockList+1))
	read := 0
	for number := 1; lines.Scan(); number++ {
		read += len(lines.Bytes()) + 1
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.ToLower(strings.TrimSpace(text)); text == "" {
			continue
		}
		if !blockedLine.MatchString(text) {
			return 0, problem.Invalid("Line %d is no hash of a key: at least %d hex digits.", number, blockedDigits).At(fmt.Sprintf("line %d", number))
		}
		if prefixes = append(prefixes, text[:blockedDigits]); len(prefixes) > maxBlocked || read > MaxBlockList {
			return 0, problem.TooLarge("A list has at most %d keys and %d bytes.", maxBlocked, MaxBlockList)
		}
	}
	if err := lines.Err(); err != nil {
		return 0, problem.Invalid("The list cannot be read.").Because(err)
	}
	now := store.Millis(s.cfg.Clock.Now())
	for part := range slices.Chunk(prefixes, 1000) {
		err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
			for _, p := range part {
				if err := blockKey(tx, tenant, p, reason, now); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return len(prefixes), s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "keys.blocked", Subject: tenant, Data: map[string]any{"keys": len(prefixes), "reason": reason}})
	})
}

func blockKey(tx *store.Tx, tenant, keyHash, reason string, at int64) error {
	_, err := tx.Exec(`INSERT INTO blocked_key(tenant, prefix, reason, at) VALUES ($1, $2, $3, $4) ON CONFLICT (tenant, prefix) DO NOTHING`, tenant, keyHash[:blockedDigits], reason, at)
	return err
}

// ownKey blocks a key of the platform itself, on every node.
func (s *Service) ownKey(ctx context.Context, keyHash string) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		return blockKey(tx, "", keyHash, "it is a key of the platform's own doors", store.Millis(s.cfg.Clock.Now()))
	})
}

// UsableKey refuses a key that is on a list, or that belongs to an authority or a door of the platform.
func (s *Service) UsableKey(tx *store.Tx, tenant, keyHash string) error {
	return usableKey(tx.QueryRow, tenant, keyHash)
}

// NotOurs is UsableKey outside a transaction.
func (s *Service) NotOurs(ctx context.Context, tenant, keyHash string) error {
	return usableKey(s.reads(ctx), tenant, keyHash)
}

func usableKey(q querier, tenant, keyHash string) error {
	const keyIDDigits = 40 // see KeyID
	var reason string      // of a list; empty: an authority's
	err := q(`SELECT reason FROM blocked_key WHERE prefix = $1 AND tenant IN ('', $2) UNION ALL SELECT '' FROM authority WHERE key_id = $3 LIMIT 1`,
		keyHash[:blockedDigits], tenant, keyHash[:keyIDDigits]).Scan(&reason)
	switch {
	case errors.Is(err, store.ErrNoRows):
		return nil
	case err != nil:
		return err
	case reason == "":
		return problem.Forbidden(RuleUsedKey, "This key is that of an authority.").At("csr")
	}
	return problem.Forbidden(RuleBlockedKey, "This key is blocked: %s.", reason).At("csr").Hint("Make a new key.")
}

// errUsedKey refuses a key that somebody else has; whoever shows it proved to hold it, so there are two of them.
func errUsedKey() error {
	return ruled(problem.Conflict("This public key already has a certificate of another subject or kind."), RuleUsedKey).At("csr").
		Hint("Each unit and each purpose needs a key of its own; a unit that shows another one's key is a clone.")
}
