// SPDX-License-Identifier: AGPL-3.0-only

package openbao

import (
	"context"
	"time"
)

// Definition is what the issuer writes as the role of a profile.
func Definition(profile string, store bool) map[string]any { return definition(profile, store) }

// Renew is one renewal of the token.
func (is *Issuer) Renew(ctx context.Context) (time.Duration, error) { return is.renew(ctx) }
