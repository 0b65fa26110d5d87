// SPDX-License-Identifier: AGPL-3.0-only

package handover

import (
	"net/http"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/tenant"
)

const stage = "retire"

// Routes registers the operations of the room.
func (s *Service) Routes(a *api.API) {
	api.Raw(a, api.Op{ID: "export-orphan-bundle", Method: "GET", Path: "/v1/products/{id}/orphan-bundle", Verb: string(tenant.EvidenceExport), Stage: stage,
		Summary: "What keeps the units of a product usable and verifiable without its maker and without this platform",
		Doc: "A ZIP with the last published firmware of each hardware revision (`revision` names one), the maker's signatures and keys, bill of materials, statements about vulnerabilities, advisories and the " +
			"user information. Its README.md says how to verify it with openssl, sha256sum and openthings-agent. Equal inputs make equal bytes. Making one is an entry of the audit log."},
		func(w http.ResponseWriter, r *http.Request) error {
			return s.serveOrphan(w, r, r.PathValue("id"), r.URL.Query().Get("revision"))
		})
}

// serveOrphan answers with the orphan bundle of a product; programs and people come here alike.
func (s *Service) serveOrphan(w http.ResponseWriter, r *http.Request, product, revision string) error {
	ctx := r.Context()
	t := tenant.MustTenant(ctx)
	for _, v := range []tenant.Verb{tenant.EvidenceExport, tenant.ReleaseRead, tenant.SBOMRead, tenant.VulnRead} {
		if err := tenant.Require(ctx, v, tenant.Thing{Tenant: t, Product: product}); err != nil {
			return err
		}
	}
	o, err := s.orphan(ctx, t, product, revision)
	if err != nil {
		return err
	}
	actor, _ := tenant.ActorFrom(ctx)
	download(w, o.Product.Model+"-orphan-bundle.zip")
	return s.writeOrphan(ctx, t, actor.ID, o, api.Stream(w))
}

// download says that a ZIP with the name follows.
func download(w http.ResponseWriter, name string) {
	h := w.Header()
	h.Set("Content-Type", "application/zip")
	h.Set("Content-Disposition", `attachment; filename="`+name+`"`) // names are models and ids: letters, digits and dashes
	h.Set("Cache-Control", "no-store")
}
