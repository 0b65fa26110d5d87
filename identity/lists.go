// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"fmt"
	"strings"

	"github.com/openthings-platform/openthings/store"
)

// touchCertificates notes that the revocation lists of the certificates have to be signed anew.
func touchCertificates(tx *store.Tx, fps []string) error {
	if len(fps) == 0 {
		return nil
	}
	marks, args := make([]string, len(fps)), make([]any, len(fps))
	for i, fp := range fps {
		marks[i], args[i] = fmt.Sprintf("$%d", i+1), fp
	}
	_, err := tx.Exec(`UPDATE crl SET touched = touched + 1 WHERE (authority, shard) IN (
		SELECT authority, shard FROM certificate WHERE fp IN (`+strings.Join(marks, ", ")+`) AND shard > 0)`, args...)
	return err
}

// touchSubject is touchCertificates for everything that a device has.
func touchSubject(tx *store.Tx, tenant, subject string) error {
	_, err := tx.Exec(`UPDATE crl SET touched = touched + 1 WHERE (authority, shard) IN (
		SELECT authority, shard FROM certificate WHERE tenant = $1 AND subject = $2 AND shard > 0)`, tenant, subject)
	return err
}
