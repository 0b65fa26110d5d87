// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/vuln/vex"
)

// vexRoutes registers the operations of statements.
func (s *Service) vexRoutes(a *api.API) {
	read := string(tenant.VulnRead)
	const formats = "?format= is openvex (the default), cyclonedx or csaf. All three say the same, from the same decisions; the version grows whenever that changes. " +
		"What nobody has decided is not in it."
	api.Raw(a, api.Op{ID: "export-release-vex", Method: "GET", Path: "/v1/releases/{id}/vex", Verb: read, Stage: "vuln",
		Summary: "What was decided about the vulnerabilities of a release, as VEX", Doc: formats},
		func(w http.ResponseWriter, r *http.Request) error {
			t, id := tenant.MustTenant(r.Context()), r.PathValue("id")
			about, err := s.cfg.Release(r.Context(), t, id)
			if err != nil {
				return err
			}
			return s.getVEX(w, r, about.Product, func(f vex.Format) ([]byte, error) { return s.ReleaseVEX(r.Context(), t, id, f) })
		})
	api.Raw(a, api.Op{ID: "export-product-vex", Method: "GET", Path: "/v1/products/{id}/vex", Verb: read, Stage: "vuln",
		Summary: "What was decided about the vulnerabilities of every release of a product, as VEX", Doc: formats},
		func(w http.ResponseWriter, r *http.Request) error {
			t, id := tenant.MustTenant(r.Context()), r.PathValue("id")
			return s.getVEX(w, r, id, func(f vex.Format) ([]byte, error) { return s.ProductVEX(r.Context(), t, id, f) })
		})
	api.Raw(a, api.Op{ID: "import-vex", Method: "POST", Path: "/v1/vex", Verb: string(tenant.FeedImport), Stage: "vuln", Status: 201, MaxBody: vex.MaxBytes,
		Summary: "Import statements of others: OpenVEX, CycloneDX or CSAF",
		Doc: "The body is the document. ?origin= says whose it is: vendor (the maker of a component; the default), distribution, or own. " +
			"It decides nothing: what it says is proposed for the findings that it fits, also for products that appear later."}, s.postVEX)

	type listIn struct{ api.Paging }
	api.Handle(a, api.Op{ID: "list-vex", Method: "GET", Path: "/v1/vex", Verb: string(tenant.FeedImport), Stage: "vuln", Summary: "Documents of statements that were imported"},
		func(ctx context.Context, in *listIn) (*api.List[Taken], error) {
			after, err := in.After(a)
			if err != nil {
				return nil, err
			}
			list, err := s.TakenVEX(ctx, tenant.MustTenant(ctx), after, in.Size()+1)
			if err != nil {
				return nil, err
			}
			return api.More(a, in.Paging, list, func(t Taken) string { return t.ID }), nil
		})

	type proposalsIn struct {
		ID string `path:"id" maxLength:"128" doc:"CVE number, record id or our own id"`
	}
	api.Handle(a, api.Op{ID: "list-proposals", Method: "GET", Path: "/v1/vulnerabilities/{id}/proposals", Verb: read, Stage: "vuln",
		Summary: "What might be decided on a vulnerability: earlier decisions that do not hold everywhere, and what others say",
		Doc:     "Nothing follows from a proposal until a person decides, naming it as the origin. Where a decision holds and others say otherwise, both are shown."},
		func(ctx context.Context, in *proposalsIn) (*api.List[Proposal], error) {
			list, err := s.Proposals(ctx, tenant.MustTenant(ctx), in.ID, visible(ctx))
			if err != nil {
				return nil, err
			}
			return api.Items(list), nil
		})
}

var mediaTypes = map[vex.Format]string{
	vex.OpenVEX: "application/json", vex.CycloneDX: "application/vnd.cyclonedx+json; version=1.6", vex.CSAF: "application/json",
}

func (s *Service) getVEX(w http.ResponseWriter, r *http.Request, product string, export func(vex.Format) ([]byte, error)) error {
	ctx := r.Context()
	if err := tenant.Require(ctx, tenant.VulnRead, tenant.Thing{Tenant: tenant.MustTenant(ctx), Product: product}); err != nil {
		return err
	}
	format := vex.OpenVEX
	if f := r.URL.Query().Get("format"); f != "" {
		format = vex.Format(f)
	}
	if mediaTypes[format] == "" {
		return problem.Invalid("%.40q is not a format of VEX.", format).At("query.format").Hint("use openvex, cyclonedx or csaf")
	}
	b, err := export(format)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", mediaTypes[format])
	h.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="vex-%s.%s.json"`, r.PathValue("id"), format))
	h.Set("X-Content-Type-Options", "nosniff")
	_, err = w.Write(b)
	return err
}

func (s *Service) postVEX(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	t := tenant.MustTenant(ctx)
	if err := tenant.Require(ctx, tenant.FeedImport, tenant.Thing{Tenant: t}); err != nil {
		return err
	}
	origin := vex.Vendor
	if o := r.URL.Query().Get("origin"); o != "" {
		origin = vex.Origin(strings.ToLower(o))
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return problem.TooLarge("A VEX document is at most %d bytes.", tooLarge.Limit)
		}
		return problem.Invalid("The upload broke off.").Because(err)
	}
	d, err := vex.Parse(b)
	if err != nil {
		return err
	}
	actor, _ := tenant.ActorFrom(ctx)
	taken, err := s.TakeVEX(ctx, t, actor.ID, origin, d)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	return json.NewEncoder(w).Encode(taken)
}
