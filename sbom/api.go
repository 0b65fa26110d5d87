// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"context"
	"io"
	"net/http"
	"strconv"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/tenant"
)

// Routes registers the routes; a bill arrives together with its release.
func (s *Service) Routes(a *api.API) {
	s.evidenceRoutes(a)
	s.compareRoute(a)
	s.exportRoute(a)
	api.Raw(a, api.Op{ID: "get-release-sbom", Method: "GET", Path: "/v1/releases/{id}/sbom", Verb: string(tenant.SBOMRead), Stage: "sbom",
		Summary: "The bill of materials of a release, byte for byte as it was uploaded"}, s.getOriginal)

	type describeIn struct {
		ID string `path:"id" maxLength:"64"`
	}
	api.Handle(a, api.Op{ID: "describe-release-sbom", Method: "GET", Path: "/v1/releases/{id}/sbom/record", Verb: string(tenant.SBOMRead), Stage: "sbom",
		Summary: "Format, digests and quality of a release's bill of materials"},
		func(ctx context.Context, in *describeIn) (*api.Out[Record], error) {
			if err := s.require(ctx, tenant.SBOMRead, in.ID); err != nil {
				return nil, err
			}
			r, err := s.Current(ctx, tenant.MustTenant(ctx), in.ID)
			if err != nil {
				return nil, err
			}
			return api.One(r), nil
		})

	type listIn struct {
		ID string `path:"id" maxLength:"64"`
		api.Paging
	}
	api.Handle(a, api.Op{ID: "list-release-components", Method: "GET", Path: "/v1/releases/{id}/components", Verb: string(tenant.SBOMRead), Stage: "sbom",
		Summary: "The components of a release, by name"},
		func(ctx context.Context, in *listIn) (*api.List[Part], error) {
			if err := s.require(ctx, tenant.SBOMRead, in.ID); err != nil {
				return nil, err
			}
			after, err := in.After(a)
			if err != nil {
				return nil, err
			}
			parts, err := s.Components(ctx, tenant.MustTenant(ctx), in.ID, after, in.Size()+1)
			if err != nil {
				return nil, err
			}
			return api.More(a, in.Paging, parts, Part.Cursor), nil
		})
}

// Compared is the comparison of two releases, by what each lists now.
type Compared struct {
	Release string `json:"release" doc:"What is compared: the earlier one, as a rule"`
	With    string `json:"with"`
	Comparison
}

func (s *Service) compareRoute(a *api.API) {
	type compareIn struct {
		ID   string `path:"id" maxLength:"64"`
		With string `query:"with" required:"true" maxLength:"64" doc:"The release to compare with: the later one, as a rule"`
	}
	api.Handle(a, api.Op{ID: "compare-release-sboms", Method: "GET", Path: "/v1/releases/{id}/sbom/compare", Verb: string(tenant.SBOMRead), Stage: "sbom",
		Summary: "What another release adds, leaves out and changes: components, versions, licences, suppliers"},
		func(ctx context.Context, in *compareIn) (*api.Out[Compared], error) {
			for _, release := range []string{in.ID, in.With} {
				if err := s.require(ctx, tenant.SBOMRead, release); err != nil {
					return nil, err
				}
			}
			c, err := s.Compare(ctx, tenant.MustTenant(ctx), in.ID, in.With)
			if err != nil {
				return nil, err
			}
			return api.One(Compared{in.ID, in.With, c}), nil
		})
}

// require refuses unless the caller may do this with the release.
func (s *Service) require(ctx context.Context, verb tenant.Verb, release string) error {
	t := tenant.MustTenant(ctx)
	product, err := s.cfg.ProductOf(ctx, t, release)
	if err != nil {
		return err
	}
	return tenant.Require(ctx, verb, tenant.Thing{Tenant: t, Product: product})
}

func (s *Service) getOriginal(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	if err := s.require(r.Context(), tenant.SBOMRead, id); err != nil {
		return err
	}
	rec, f, err := s.Original(r.Context(), tenant.MustTenant(r.Context()), id)
	if err != nil {
		return err
	}
	defer f.Close()
	return serveOriginal(w, "sbom-"+id, rec.Document, f)
}

// serveOriginal sends kept bytes: foreign, so never shown as a page of ours, whatever they hold.
func serveOriginal(w http.ResponseWriter, name string, doc Document, f io.Reader) error {
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", `attachment; filename="`+name+`"`)
	h.Set("Content-Length", strconv.FormatInt(doc.Size, 10))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Checksum-Sha512", doc.SHA512)
	_, err := io.Copy(w, f)
	return err
}
