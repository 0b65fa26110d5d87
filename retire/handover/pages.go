// SPDX-License-Identifier: AGPL-3.0-only

package handover

import (
	"context"
	"embed"
	"net/http"
	"slices"

	"github.com/openthings-platform/openthings/console"
	prd "github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/update"
)

//go:embed pages/*.html
var pagesFS embed.FS

// Pages fills the slots "product" and "device" and serves the downloads to people.
func (s *Service) Pages(c *console.Console) {
	c.Fragment("product", console.Fragment{Order: 48, Title: "For those who keep using it", Verb: string(tenant.EvidenceExport), FS: pagesFS, Template: "pages/product.html",
		Load: func(r *http.Request, id string) (any, error) {
			ready, err := s.published(r.Context(), tenant.MustTenant(r.Context()), id)
			return struct {
				Product string
				Ready   bool
			}{id, ready}, err
		}})
	c.Fragment("device", console.Fragment{Order: 94, Title: "Take the data along", Verb: string(tenant.TelemetryRead), FS: pagesFS, Template: "pages/device.html",
		Load: func(r *http.Request, id string) (any, error) {
			d, err := s.cfg.Identity.Visible(r.Context(), tenant.TelemetryRead, id)
			return struct{ Device string }{d.ID}, err
		}})
	c.Handle("GET /devices/{id}/data/export", string(tenant.TelemetryRead), func(w http.ResponseWriter, r *http.Request) error { return s.serveData(w, r, r.PathValue("id")) })
	c.Handle("GET /configuration/export", string(tenant.DeviceRead), s.serveConfiguration)
	c.Handle("GET /products/{id}/orphan-bundle", string(tenant.EvidenceExport), func(w http.ResponseWriter, r *http.Request) error {
		return s.serveOrphan(w, r, r.PathValue("id"), "")
	})
}

// published says whether there is anything to hand over for a product.
func (s *Service) published(ctx context.Context, tenant, product string) (bool, error) {
	p, err := s.cfg.Products.Page(ctx, tenant, product)
	if err != nil || p.Version > 0 {
		return err == nil, err
	}
	cs, err := s.cfg.Products.Cohorts(ctx, tenant, product)
	if err != nil || slices.ContainsFunc(cs, func(c prd.Cohort) bool { return c.Public != nil }) {
		return err == nil, err
	}
	rs, err := s.cfg.Update.List(ctx, tenant, product)
	return slices.ContainsFunc(rs, func(r update.Release) bool { return r.State == update.Published }), err
}
