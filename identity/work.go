// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"fmt"
	"log/slog"
	"math/big"

	"github.com/openthings-platform/openthings/store"
)

// Work applies what a restored database lost, opens the doors, and ends.
func (s *Service) Work(ctx context.Context) error {
	l := s.shut.Load()
	if l == nil {
		return nil
	}
	for _, e := range l.entries {
		err := s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error { return s.replay(tx, e) })
		if err != nil && ctx.Err() != nil {
			return nil // the next start goes on; until then the doors stay shut
		}
		if err != nil {
			return fmt.Errorf("identity: replay of %s: %w", e.ID, err)
		}
	}
	s.shut.Store(nil)
	s.cfg.Log.Warn("the revocations that the database had lost are in force again", slog.Int("entries", len(l.entries)))
	return nil
}

// jobAtIssuer tells the issuer about a revoked certificate, for its own lists; repeated until it answers. Nothing waits
// for it: the register has refused the certificate since the commit.
const jobAtIssuer = "identity.revoke-at-issuer"

type atIssuer struct {
	Authority string `json:"authority"`
	Serial    string `json:"serial"` // hex
	At        int64  `json:"at"`     // ms
}

func (s *Service) revokeAtIssuer(ctx context.Context, j store.Job) error {
	var r atIssuer
	if err := j.Decode(&r); err != nil {
		return err
	}
	serial, ok := new(big.Int).SetString(r.Serial, 16)
	if !ok {
		return fmt.Errorf("identity: serial number %q", r.Serial)
	}
	return s.cfg.Issuer.Revoke(ctx, r.Authority, serial, store.Time(r.At))
}
