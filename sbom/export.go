// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"io"
	"net/http"
	"slices"
	"strconv"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// Bill reads the bill that counts for a release, from its original bytes.
func (s *Service) Bill(ctx context.Context, tenant, release string) (Bill, Record, error) {
	rec, f, err := s.Original(ctx, tenant, release)
	if err != nil {
		return Bill{}, rec, err
	}
	defer f.Close()
	doc, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err != nil {
		return Bill{}, rec, err
	}
	b, err := Parse(doc)
	return b, rec, err
}

// Export writes a release's bill in a form of ours, whole or reduced to what somebody needs to know. That a copy was made,
// of what and how much of it, is a leaf of the audit log.
func (s *Service) Export(ctx context.Context, tenant, release string, form Output, r Reduction, actor string) ([]byte, error) {
	b, rec, err := s.Bill(ctx, tenant, release)
	if err != nil {
		return nil, err
	}
	if b.Created.IsZero() { // our copy is a document of ours, and as old as what it was made of
		b.Created = rec.At
	}
	doc, err := b.Reduce(r).Write(form)
	if err != nil {
		return nil, err
	}
	sum := sha512.Sum512(doc)
	data := map[string]any{"format": form, "sha512": hex.EncodeToString(sum[:]), "of": rec.Document.SHA512}
	if !r.None() {
		data["reduced"] = r
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "sbom.exported", Subject: release, Data: data})
	})
	return doc, err
}

func (s *Service) exportRoute(a *api.API) {
	api.Raw(a, api.Op{ID: "export-release-sbom", Method: "GET", Path: "/v1/releases/{id}/sbom/export", Verb: string(tenant.SBOMRead), Stage: "sbom",
		Summary: "A copy of a release's bill of materials in another form, whole or reduced to what somebody needs to know",
		Doc: "`format` is cyclonedx-1.6 (default), cyclonedx-1.7, spdx-3.0.1 or spdx-2.3. `top_level=true` leaves out all but what the product itself needs, `without_paths=true` files, " +
			"repositories and links, `without_hashes=true` digests, and each `without_supplier` the parts of that supplier. A reduced copy says that it is one. The copy becomes an entry of the audit log."},
		func(w http.ResponseWriter, r *http.Request) error { return s.download(w, r, r.PathValue("id")) })
}

// download answers with a copy as the query asks for it; programs and people come here alike.
func (s *Service) download(w http.ResponseWriter, r *http.Request, release string) error {
	ctx := r.Context()
	if err := s.require(ctx, tenant.SBOMRead, release); err != nil {
		return err
	}
	q := r.URL.Query()
	form := Output(q.Get("format"))
	if form == "" {
		form = Outputs[0]
	}
	less := Reduction{TopLevel: on(q.Get("top_level")), WithoutPaths: on(q.Get("without_paths")), WithoutHashes: on(q.Get("without_hashes")),
		WithoutSuppliers: slices.DeleteFunc(q["without_supplier"], func(s string) bool { return s == "" })}
	if len(less.WithoutSuppliers) > 100 {
		return problem.Invalid("At most 100 suppliers can be left out at once.").At("without_supplier")
	}
	actor, _ := tenant.ActorFrom(ctx)
	doc, err := s.Export(ctx, tenant.MustTenant(ctx), release, form, less, actor.ID)
	if err != nil {
		return err
	}
	kind, end := "application/vnd.cyclonedx+json", ".cdx.json"
	if form == SPDX23 || form == SPDX301 {
		kind, end = "application/spdx+json", ".spdx.json"
	}
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Disposition", `attachment; filename="sbom-`+release+end+`"`) // there is such a release, so it is an id of ours
	h.Set("Content-Length", strconv.Itoa(len(doc)))
	h.Set("Cache-Control", "no-store")
	_, err = w.Write(doc)
	return err
}

func on(s string) bool { return s == "true" || s == "1" || s == "on" }
