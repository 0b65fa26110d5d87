// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"errors"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/store"
)

// OpenBatch adds a batch to a hardware revision of the tenant. Product, ID and Head are filled in.
func (s *Service) OpenBatch(ctx context.Context, b Batch, actor string) (Batch, error) {
	if err := errors.Join(checkName(b.Name), checkCount(b.Size, "size")); err != nil {
		return Batch{}, err
	}
	rev, err := s.cfg.Products.Revision(ctx, b.Tenant, b.Revision)
	if err != nil {
		return Batch{}, err
	}
	b.ID, b.Product, b.Created = store.NewID("bat"), rev.Product, s.now()
	b.Head = firstHash(b.ID)
	return b, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := insertBatch(tx, b); err != nil {
			return err
		}
		if b.Placed != (product.Placement{}) {
			if err := s.cfg.Products.Place(tx, b.Tenant, b.Product, b.Revision, b.ID, b.Placed, actor); err != nil {
				return err
			}
		}
		return audit.Append(tx, audit.Entry{Tenant: b.Tenant, Actor: actor, Kind: "batch.opened", Subject: b.ID, Data: b})
	})
}

// CloseBatch records how many units the factory made. More identities than units is the counterfeit alarm.
func (s *Service) CloseBatch(ctx context.Context, tenant, id string, produced int64, actor string) (b Batch, err error) {
	return s.closeBatch(ctx, tenant, id, produced, "", actor)
}

// closeBatch closes a batch; list names the serial numbers that were made, if the factory gave them.
func (s *Service) closeBatch(ctx context.Context, tenant, id string, produced int64, list, actor string) (b Batch, err error) {
	if produced < 0 || produced > MaxBatch {
		return Batch{}, problem.Invalid("The number of units made is 0 to %d.", MaxBatch).At("produced")
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if _, err := batchByID(tx.QueryRow, tenant, id); err != nil {
			return err
		}
		if err := closeBatch(tx, tenant, id, produced, list, s.now()); err != nil {
			return err
		}
		if b, err = batchByID(tx.QueryRow, tenant, id); err != nil {
			return err
		}
		data := map[string]any{"batch": id, "issued": b.Issued, "produced": b.Produced}
		if list != "" {
			if err := putSurplus(tx, &b); err != nil {
				return err
			}
			data["serials"] = b.surplus
		}
		if err := audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "batch.closed", Subject: id, Data: b}); err != nil {
			return err
		}
		if b.Surplus() == 0 {
			return nil
		}
		return s.alarm(tx, tenant, id, actor, data)
	})
	return b, err
}

// alarm says that more units have, or want, an identity than should exist.
func (s *Service) alarm(tx *store.Tx, tenant, batch, actor string, data any) error {
	return s.tell(tx, "batch.surplus", tenant, batch, actor, data)
}

// tell makes an alarm: a leaf of the log and an event.
func (s *Service) tell(tx *store.Tx, kind, tenant, subject, actor string, data any) error {
	if err := audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: kind, Subject: subject, Data: data}); err != nil {
		return err
	}
	return s.cfg.DB.Emit(tx, kind, tenant, subject, data)
}
