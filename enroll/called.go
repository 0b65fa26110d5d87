// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"

	"github.com/openthings-platform/openthings/store"
)

// BatchNames returns what people call the tenant's batches, by id. Batches of two products may share a name.
func (s *Service) BatchNames(ctx context.Context, tenant string) (map[string]string, error) {
	return store.Pairs(s.cfg.DB.Query(ctx, `SELECT id, name FROM batch WHERE tenant = $1`, tenant))
}

// StationNames returns what people call the tenant's line stations, dead ones too, by id.
func (s *Service) StationNames(ctx context.Context, tenant string) (map[string]string, error) {
	return store.Pairs(s.cfg.DB.Query(ctx, `SELECT id, name FROM station WHERE tenant = $1`, tenant))
}
