// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"context"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// UsersInformed appends users.informed to a case in the transaction that tells its users (CRA Art. 14(8)): both happen or
// neither. Run the transaction through Insist. The caller has checked that the actor may.
func (s *Service) UsersInformed(tx *store.Tx, tenantID, id string, a tenant.Actor, d Data) error {
	f, err := fileByID(tx, tenantID, id)
	if err != nil {
		return err
	}
	return s.append(tx, &f, a, UsersInformed, d)
}

// Insist runs a transaction that appends to a case, again if somebody else took the next place in its log.
func (s *Service) Insist(ctx context.Context, fn func(*store.Tx) error) error {
	return s.insist(ctx, fn)
}

// sentCampaign refuses a campaign that is not one of the case, or that nobody has sent.
func (s *Service) sentCampaign(tx *store.Tx, f file, campaign string) error {
	if s.cfg.Campaign == nil {
		return problem.Invalid("No campaigns are known here.").At("campaign")
	}
	return s.cfg.Campaign(tx, f.Tenant, f.ID, campaign)
}
