// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"context"
	"time"

	"github.com/openthings-platform/openthings/gateway"
)

// A node that does not reach the feed of revocations admits nobody new after staleAfter, and ends every session after
// severAfter: an outage of the database is shorter, and what devices said is not lost, since they have no receipt for it.
const (
	staleAfter = 5 * time.Second
	severAfter = time.Minute
)

// send hands a message to a device, unless this node cannot tell whether the device is still trusted.
func (h *house) send(ctx context.Context, d gateway.Downlink) error {
	if err := h.identity.Ready(); err != nil {
		return err
	}
	return h.gateway.Send(ctx, d)
}

// publicURL is where others reach the people's door, if somebody has said so.
func publicURL(cfg Config, d *doors) string {
	if cfg.PublicURL != "" || len(cfg.Names) == 0 {
		return cfg.PublicURL
	}
	return origin(cfg.Names[0], port(d.console))
}

// cutGroup and peers reach the doors, which are built after the register.
func (h *house) cutGroup(group, reason string) int { return h.gateway.CutGroup(group, reason) }
func (h *house) peers() []gateway.Peer             { return h.gateway.Peers() }
