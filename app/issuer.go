// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/identity/openbao"
	"github.com/openthings-platform/openthings/problem"
)

// The issuers.
const (
	IssuerEmbedded = "embedded" // keys on this machine; the default
	IssuerOpenBao  = "openbao"  // device certificates from the PKI engine of OpenBao or Vault, the root and the doors' from here
)

// organization is in the names of the authorities of a first start.
const organization = "OpenThings"

// openIssuer opens who signs: base, or base with an engine below its root.
func (h *house) openIssuer(ctx context.Context, base embedded.Config) (identity.Issuer, error) {
	switch h.cfg.Issuer {
	case "", IssuerEmbedded:
		return embedded.Open(base)
	case IssuerOpenBao:
	default:
		return nil, problem.Invalid("There is no issuer %q.", h.cfg.Issuer).At("issuer").Hint("Say %s or %s.", IssuerEmbedded, IssuerOpenBao)
	}
	bao := h.cfg.OpenBao
	bao.Clock, bao.Log = h.cfg.Clock, h.cfg.Log
	engine, err := openbao.New(bao)
	if err != nil {
		return nil, err
	}
	base.Roles = openbao.Beside
	own, err := embedded.Open(base)
	if err != nil {
		return nil, err
	}
	c := openbao.Compose(own, engine)
	h.issuerWork = c.Work
	if err := c.Found(ctx, organization); err != nil {
		if !problem.Is(err, problem.KindUnavailable) {
			return nil, fmt.Errorf("issuer: %w", err)
		}
		// A register that knows authorities opens without it; a new one says that it cannot.
		h.cfg.Log.Warn("the PKI engine is away", slog.Any("error", err))
	}
	return c, nil
}
