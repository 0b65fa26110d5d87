// SPDX-License-Identifier: AGPL-3.0-only

package identity

import "github.com/openthings-platform/openthings/store"

// BeforeFirst has ask say whether a device may get its first certificate of birth or of operation: every door to a new
// identity ends in this register, so none gets around the answer. It is asked inside the transaction that decides, and
// again in the one that makes the certificate known, since the answer may have changed while the issuer signed. Renewals
// and returns are not asked about. Call it once, before the doors open.
func (s *Service) BeforeFirst(ask func(tx *store.Tx, d Device) error) { s.first = ask }

// mayBegin asks about a device that is about to get a certificate of the kind, if that makes it what it is not yet.
func (s *Service) mayBegin(tx *store.Tx, d Device, k Kind) error {
	if s.first == nil || !(k == IDevID && d.State == Manufactured || k == LDevID && d.State == Pending) {
		return nil
	}
	return s.first(tx, d)
}

// Served says whether the device ever had a certificate of operation: then it is in the field, also where an owner has
// released it since.
func (s *Service) Served(tx *store.Tx, tenant, device string) (bool, error) {
	var n int64
	err := tx.QueryRow(`SELECT count(*) FROM certificate WHERE tenant = $1 AND subject = $2 AND kind = $3`, tenant, device, LDevID).Scan(&n)
	return n > 0, err
}
