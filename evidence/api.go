// SPDX-License-Identifier: AGPL-3.0-only

package evidence

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/tenant"
)

// Routes registers the stage's operations.
func (s *Service) Routes(a *api.API) {
	api.Raw(a, api.Op{ID: "export-evidence", Method: "GET", Path: "/v1/devices/{id}/evidence", Verb: string(tenant.EvidenceExport), Stage: "evidence",
		Summary: "The sealed evidence bundle of a device",
		Doc:     "A text file that `openthings verify BUNDLE --log-key KEY` checks without the platform. The export itself becomes an entry of the audit log."},
		func(w http.ResponseWriter, r *http.Request) error { return s.download(w, r, r.PathValue("id")) })
}

// download answers with the bundle of a device.
func (s *Service) download(w http.ResponseWriter, r *http.Request, id string) error {
	id = strings.TrimSpace(id)
	b, err := s.export(r.Context(), id)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Disposition", `attachment; filename="`+id+`.evidence.txt"`) // there is such a device, so it is an id of ours
	h.Set("Content-Length", strconv.Itoa(len(b)))
	h.Set("Cache-Control", "no-store")
	_, err = w.Write(b)
	return err
}

// export checks access to the device and exports it for whoever asks.
func (s *Service) export(ctx context.Context, id string) ([]byte, error) {
	d, err := s.cfg.Identity.Visible(ctx, tenant.EvidenceExport, id)
	if err != nil {
		return nil, err
	}
	actor, _ := tenant.ActorFrom(ctx)
	return s.Export(ctx, d.Tenant, d.ID, actor.ID)
}
