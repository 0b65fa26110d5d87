// SPDX-License-Identifier: AGPL-3.0-only

package conform

import (
	"context"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// File is all that was decided about the conformity of a product, as it stands now; what was sealed or signed before is
// in it too, as far as the newest hundred of each.
type File struct {
	Classes       []Classified `json:"classifications" doc:"The newest first"`
	Route         Route        `json:"route"`
	Risk          Draft        `json:"risk" doc:"The 22 rows as they stand"`
	Assessments   []Assessment `json:"assessments" doc:"Sealed versions, the newest first"`
	Modifications []Screened   `json:"modifications" doc:"The signed screen of each release, the newest release first"`
}

// fileLimit bounds each list of a File.
const fileLimit = 100

// File reads what was decided about the conformity of a product of the tenant.
func (s *Service) File(ctx context.Context, tenant, product string) (f File, err error) {
	if f.Classes, err = s.Classifications(ctx, tenant, product, 0, fileLimit); err != nil {
		return f, err
	}
	if f.Route, err = s.Route(ctx, tenant, product); err != nil {
		return f, err
	}
	if f.Risk, err = s.Draft(ctx, tenant, product); err != nil {
		return f, err
	}
	if f.Assessments, err = s.Assessments(ctx, tenant, product, 0, fileLimit); err != nil {
		return f, err
	}
	f.Modifications, err = s.Modifications(ctx, tenant, product)
	return f, err
}

// Modifications are the newest signed screens of the releases of a product, the newest release first.
func (s *Service) Modifications(ctx context.Context, tenant, product string) (out []Screened, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		out = []Screened{}
		list, err := allNewest[Screen](tx, tenant, product, kindScreen)
		for i := len(list) - 1; err == nil && i >= 0 && len(out) < fileLimit; i-- { // keys are ids of releases, which sort by time
			var x Screened
			x, err = s.screened(tx, tenant, product, list[i].Key)
			out = append(out, x)
		}
		return err
	})
	return out, err
}

// Components are the components of the newest release of a product with the newest review of each, at most limit.
func (s *Service) Components(ctx context.Context, tenant, product string, limit int) ([]Entry, error) {
	list, err := s.Register(ctx, tenant, product, "", limit+1)
	if len(list) > limit {
		return nil, problem.TooLarge("The product has more than %d components.", limit)
	}
	return list, err
}
