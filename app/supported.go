// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"

	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/wire"
)

// serveSupport tells a device until when its maker supports it (GET /d/1/support), so that it can be read on the device
// without a network (CRA article 13(19)). The device is the one of the certificate.
func (h *house) serveSupport(w http.ResponseWriter, r *http.Request, p gateway.Peer) {
	s, err := h.supportOf(r.Context(), p.Tenant, p.Device)
	if err != nil {
		if problem.Of(err).Kind == problem.KindInternal {
			h.cfg.Log.ErrorContext(r.Context(), "the end of support", slog.String("device", p.Device), slog.Any("error", err))
		}
		gateway.WriteProblem(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s) // to a device that went away nothing can be told
}

// supportOf is what was published for the device's placement cohort; a problem of kind not-found if nothing was.
func (h *house) supportOf(ctx context.Context, tenant, device string) (s wire.Support, err error) {
	d, err := h.identity.Get(ctx, tenant, device)
	if err != nil {
		return s, err
	}
	promise, ok, err := h.product.Promised(ctx, enroll.UnitOf(d))
	if err != nil {
		return s, err
	}
	if !ok {
		return s, problem.NotFound("No end of support is published for this device.")
	}
	s = wire.Support{End: string(promise.SupportEnd), Until: promise.End().UnixMilli(), Product: h.productName(ctx, d.Tenant, d.Product), URL: h.product.PublicURL(d.Product)}
	s.Maker, err = h.manufacturer(ctx, d.Tenant)
	return s, err
}
