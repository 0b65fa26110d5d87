// SPDX-License-Identifier: AGPL-3.0-only

package evidence

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

// Routes registers the stage's operations.
func (s *Service) Routes(a *api.API) {
	const checked = "A text file that `openthings verify BUNDLE --log-key KEY` checks without the platform. The export itself becomes an entry of the audit log."
	api.Raw(a, api.Op{ID: "export-evidence", Method: "GET", Path: "/v1/devices/{id}/evidence", Verb: string(tenant.EvidenceExport), Stage: "evidence",
		Summary: "The sealed evidence bundle of a device", Doc: checked},
		func(w http.ResponseWriter, r *http.Request) error { return s.download(w, r, r.PathValue("id"), 0) })
	api.Raw(a, api.Op{ID: "export-case-evidence", Method: "GET", Path: "/v1/cases/{id}/evidence", Verb: string(tenant.EvidenceExport), Stage: "evidence",
		Summary: "The sealed evidence bundle of a case", Doc: checked + " The verifier recomputes each deadline from the events."},
		func(w http.ResponseWriter, r *http.Request) error { return s.download(w, r, r.PathValue("id"), 0) })
	api.Raw(a, api.Op{ID: "export-product-evidence", Method: "GET", Path: "/v1/products/{id}/evidence", Verb: string(tenant.EvidenceExport), Stage: "evidence",
		Summary: "The sealed evidence bundle of a product, or of what answers one question of an auditor",
		Doc:     checked + " With `?answer=5` it holds what answers that question; see GET /v1/evidence/answers."},
		func(w http.ResponseWriter, r *http.Request) error {
			n, err := number(r.URL.Query().Get("answer"))
			if err != nil {
				return err
			}
			return s.download(w, r, r.PathValue("id"), n)
		})
	api.Handle(a, api.Op{ID: "list-answers", Method: "GET", Path: "/v1/evidence/answers", Verb: string(tenant.EvidenceRead), Stage: "evidence",
		Summary: "The fifteen questions of an auditor, and what answers each"},
		func(context.Context, *struct{}) (*api.List[AuditQuestion], error) {

			return api.Items(Answers), nil
		})
	s.logRoutes(a)
}

// number reads the number of a question; 0 is none.
func number(text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, problem.Invalid("%q is not the number of a question.", text).At("answer")
	}
	return n, nil
}

// download answers with the bundle of a device, a case or a product, whichever the id names.
func (s *Service) download(w http.ResponseWriter, r *http.Request, id string, answer int) error {
	id = strings.TrimSpace(id)
	var b []byte
	var err error
	name := id
	switch kind, _, _ := strings.Cut(id, "_"); kind {
	case "cas":
		b, err = s.ExportCase(r.Context(), id)
	case "prd":
		if answer > 0 {
			name += ".answer-" + strconv.Itoa(answer)
		}
		b, err = s.ExportProduct(r.Context(), id, answer)
	default:
		b, err = s.export(r.Context(), id)
	}
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Disposition", `attachment; filename="`+name+`.evidence.txt"`) // there is such a thing, so it is an id of ours
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
