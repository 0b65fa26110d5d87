// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"context"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// SourceReport is a finder's report at the disclosure desk that says it was seen exploited.
const SourceReport = "report"

// Reported records in the caller's transaction that a finder saw something exploited, and returns the signal that waits
// for a person's assessment. It starts no clock. Ref is the report; its second signal is the first. A finder need not know
// the product: whoever assesses the signal names it, or the desk does (Attribute).
func (s *Service) Reported(tx *store.Tx, tenantID string, sig Signal) (id string, err error) {
	sig.ID, sig.Source = store.NewID("sig"), SourceReport
	key := sig.Ref + " " + sig.Product
	fresh, err := s.take(tx, tenantID, &sig, key)
	if err != nil || fresh {
		return sig.ID, err
	}
	return id, tx.QueryRow(`SELECT id FROM respond_signal WHERE tenant = $1 AND source = $2 AND key = $3`, tenantID, SourceReport, key).Scan(&id)
}

// Attribute records in the caller's transaction which product a signal is about that named none; false if it names one.
// Further products are named by whoever declares awareness.
func (s *Service) Attribute(tx *store.Tx, tenantID, signal, product, actor string) (bool, error) {
	n, err := tx.Exec(`UPDATE respond_signal SET product = $1 WHERE tenant = $2 AND id = $3 AND product = ''`, product, tenantID, signal)
	if err != nil || n == 0 {
		return false, err
	}
	return true, audit.Append(tx, audit.Entry{Tenant: tenantID, Actor: actor, Kind: "signal.attributed", Subject: signal, Data: map[string]any{"product": product}})
}

// AttributeSignal is a person's answer to which product a signal is about that named none.
func (s *Service) AttributeSignal(ctx context.Context, id, product string) (Signal, error) {
	sig, err := s.Signal(ctx, id)
	if err != nil {
		return Signal{}, err
	}
	for _, p := range []string{sig.Product, product} {
		if _, err := person(ctx, tenant.CaseWrite, p); err != nil {
			return Signal{}, err
		}
	}
	a, _ := tenant.ActorFrom(ctx)
	if _, err := s.cfg.Products.Get(ctx, a.Tenant, product); err != nil {
		return Signal{}, err
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		ok, err := s.Attribute(tx, a.Tenant, id, product, a.ID)
		if err == nil && !ok {
			err = problem.Conflict("The signal names a product already.").Hint("Whoever declares awareness names all that are concerned.")
		}
		return err
	})
	sig.Product = product
	return sig, err
}
