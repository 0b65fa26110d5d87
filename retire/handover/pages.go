// SPDX-License-Identifier: AGPL-3.0-only

package handover

import (
	"embed"
	"net/http"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed pages/*.html
var pagesFS embed.FS

// Pages fills the slots "product" and "device" and serves the downloads to people.
func (s *Service) Pages(c *console.Console) {
	c.Fragment("product", console.Fragment{Order: 48, Title: "For those who keep using it", Verb: string(tenant.EvidenceExport), FS: pagesFS, Template: "pages/product.html",
		Load: func(_ *http.Request, id string) (any, error) { return struct{ Product string }{id}, nil }})
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
