// SPDX-License-Identifier: AGPL-3.0-only

package respond

import "github.com/openthings-platform/openthings/store"

// SourceReport is a finder's report at the disclosure desk that says it was seen exploited.
const SourceReport = "report"

// Reported records in the caller's transaction that a finder saw a product exploited, and returns the signal that waits
// for a person's assessment. It starts no clock. Ref is the report; its second signal for the same product is the first.
func (s *Service) Reported(tx *store.Tx, tenantID string, sig Signal) (id string, err error) {
	sig.ID, sig.Source = store.NewID("sig"), SourceReport
	key := sig.Ref + " " + sig.Product
	fresh, err := s.take(tx, tenantID, &sig, key)
	if err != nil || fresh {
		return sig.ID, err
	}
	return id, tx.QueryRow(`SELECT id FROM respond_signal WHERE tenant = $1 AND source = $2 AND key = $3`, tenantID, SourceReport, key).Scan(&id)
}
