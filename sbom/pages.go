// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"embed"
	"net/http"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed pages/*.html
var pagesFS embed.FS

// explorerParts is how many components the page shows; the API has them all.
const explorerParts = 500

type explorer struct {
	Record Record
	Parts  []Part
	More   bool
}

// Pages registers the explorer on the page of a release.
func (s *Service) Pages(c *console.Console) {
	c.Fragment("release", console.Fragment{Order: 30, Title: "Bill of materials", Verb: string(tenant.SBOMRead), FS: pagesFS, Template: "pages/explorer.html",
		Load: func(r *http.Request, release string) (any, error) {
			ctx := r.Context()
			if err := s.require(ctx, tenant.SBOMRead, release); err != nil {
				return nil, err
			}
			rec, err := s.Current(ctx, tenant.MustTenant(ctx), release)
			if problem.Is(err, problem.KindNotFound) {
				return nil, nil
			}
			if err != nil {
				return nil, err
			}
			parts, err := s.Components(ctx, tenant.MustTenant(ctx), release, "", explorerParts+1)
			if err != nil {
				return nil, err
			}
			return explorer{Record: rec, Parts: parts[:min(len(parts), explorerParts)], More: len(parts) > explorerParts}, nil
		}})
}
