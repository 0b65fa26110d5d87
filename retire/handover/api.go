// SPDX-License-Identifier: AGPL-3.0-only

package handover

import (
	"cmp"
	"net/http"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
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
	api.Raw(a, api.Op{ID: "export-device-data", Method: "GET", Path: "/v1/devices/{id}/data/export", Verb: string(tenant.TelemetryRead), Stage: stage,
		Summary: "Everything that a device measured, told, was asked and answered, in open formats",
		Doc: "A ZIP with CSV (`format=jsonl`: JSON Lines) of all measurements, events, security events, commands and state; manifest.json stands at its end with the SHA-256 of each file. It is for whoever uses the device " +
			"(Data Act, article 4), and before its data is erased. The export is an entry of the audit log."},
		func(w http.ResponseWriter, r *http.Request) error { return s.serveData(w, r, r.PathValue("id")) })
	api.Raw(a, api.Op{ID: "export-configuration", Method: "GET", Path: "/v1/configuration/export", Verb: string(tenant.DeviceRead), Stage: stage,
		Summary: "What was set for devices: labels, desired state, groups, alarm rules, commands and catalogues of their products",
		Doc: "A ZIP of the devices that match `filter`, in the language of the fleet (product:…, solution:…, group:…), or of a placement cohort (`cohort`); without either of all devices that whoever asks may read. Each " +
			"file is what an operation of the API takes; README.md says which. manifest.json stands at its end. The export is an entry of the audit log."},
		s.serveConfiguration)
}

// serveData answers with the data of a device; programs and people come here alike.
func (s *Service) serveData(w http.ResponseWriter, r *http.Request, id string) error {
	d, err := s.cfg.Identity.Visible(r.Context(), tenant.TelemetryRead, id)
	if err != nil {
		return err
	}
	format := cmp.Or(r.URL.Query().Get("format"), "csv")
	if format != "csv" && format != "jsonl" {
		return problem.Invalid("format is csv or jsonl").At("query.format")
	}
	download(w, d.ID+"-data.zip")
	return s.writeData(r.Context(), d, format, api.Stream(w))
}

// serveConfiguration answers with what was set for devices.
func (s *Service) serveConfiguration(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	c, err := s.configuration(r.Context(), q.Get("filter"), q.Get("cohort"))
	if err != nil {
		return err
	}
	download(w, "configuration.zip")
	return s.writeConfiguration(r.Context(), c, api.Stream(w))
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
