// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

func (s *Service) evidenceRoutes(a *api.API) {
	api.Raw(a, api.Op{ID: "put-release-evidence", Method: "PUT", Path: "/v1/releases/{id}/evidence/{kind}", Verb: string(tenant.ReleaseUpload), Stage: "sbom",
		MaxBody: MaxEvidence, Summary: "Show how a release was built: which kernel sources were compiled, or the kernel's configuration",
		Doc: "The body is the file itself. `compiled-files` takes compile_commands.json, a build log of the kernel, or one path a line; " +
			"`kernel-config` takes the .config. The newest document of a kind counts; the bytes are kept."}, s.putEvidence)

	api.Raw(a, api.Op{ID: "get-release-evidence", Method: "GET", Path: "/v1/releases/{id}/evidence/{kind}", Verb: string(tenant.SBOMRead), Stage: "sbom",
		Summary: "The newest evidence of a kind, byte for byte as it was uploaded"}, s.getEvidence)

	type listIn struct {
		ID string `path:"id" maxLength:"64"`
	}
	api.Handle(a, api.Op{ID: "list-release-evidence", Method: "GET", Path: "/v1/releases/{id}/evidence", Verb: string(tenant.SBOMRead), Stage: "sbom",
		Summary: "The newest evidence of each kind about how a release was built"},
		func(ctx context.Context, in *listIn) (*api.List[Evidence], error) {
			if err := s.require(ctx, tenant.SBOMRead, in.ID); err != nil {
				return nil, err
			}
			list, err := s.Evidence(ctx, tenant.MustTenant(ctx), in.ID)
			if err != nil {
				return nil, err
			}
			return api.Items(list), nil
		})
}

func (s *Service) putEvidence(w http.ResponseWriter, r *http.Request) error {
	ctx, release := r.Context(), r.PathValue("id")
	if err := s.require(ctx, tenant.ReleaseUpload, release); err != nil {
		return err
	}
	actor, _ := tenant.ActorFrom(ctx)
	e, err := s.AddEvidence(ctx, tenant.MustTenant(ctx), release, EvidenceKind(r.PathValue("kind")), uploaded{r.Body}, actor.ID)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(e)
}

// uploaded gives the errors of a body their names.
type uploaded struct{ io.Reader }

func (u uploaded) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil || err == io.EOF:
	case errors.As(err, &tooLarge):
		err = problem.TooLarge("The upload is larger than %d bytes.", tooLarge.Limit)
	default:
		err = problem.Invalid("The upload broke off.").Because(err)
	}
	return n, err
}

func (s *Service) getEvidence(w http.ResponseWriter, r *http.Request) error {
	ctx, release := r.Context(), r.PathValue("id")
	if err := s.require(ctx, tenant.SBOMRead, release); err != nil {
		return err
	}
	kind := EvidenceKind(r.PathValue("kind"))
	e, f, err := s.OriginalEvidence(ctx, tenant.MustTenant(ctx), release, kind)
	if err != nil {
		return err
	}
	defer f.Close()
	return serveOriginal(w, string(kind)+"-"+release, e.Document, f)
}
