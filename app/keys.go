// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"context"
	"log/slog"
	"slices"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/keystore"
)

// sayUnprotected names, at each start, the issuing authorities whose keys no hardware protects. The page Issuers and
// openthings ca status say the same.
func sayUnprotected(ctx context.Context, is identity.Issuer, log *slog.Logger) {
	held, err := is.Authorities(ctx)
	if err != nil {
		return // whoever needs the issuer next says so
	}
	var ids []string
	for _, h := range held {
		if h.Protection == keystore.Sealed && h.Role.Above() != h.Role {
			ids = append(ids, h.ID)
		}
	}
	if len(ids) > 0 {
		slices.Sort(ids)
		log.Warn("keys of authorities lie in sealed files and not in hardware; --ca-keys makes new ones in a TPM or a token", slog.Any("authorities", ids))
	}
}
