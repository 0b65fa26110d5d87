// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"crypto/x509/pkix"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/store"
)

// Subject is the name in the certificates that the platform gives the device.
func (d Device) Subject() pkix.Name { return deviceName(d) }

// AtLeast says whether g is as sure as want. Empty, nobody has looked, is as sure as C: a file.
func (g Grade) AtLeast(want Grade) bool {
	rank := func(g Grade) int {
		switch g {
		case GradeA:
			return 2
		case GradeB:
			return 1
		}
		return 0
	}
	return rank(g) >= rank(want)
}

// setGrade records how sure we are of the key that the device works with from now on. Why goes into the audit log, which
// is told only of a change.
func (s *Service) setGrade(tx *store.Tx, d Device, g Grade, actor, why string) error {
	if g == "" || g == d.Grade {
		return nil
	}
	if _, err := tx.Exec(`UPDATE device SET grade = $1, updated = $2 WHERE tenant = $3 AND id = $4`, g, store.Millis(s.cfg.Clock.Now()), d.Tenant, d.ID); err != nil {
		return err
	}
	return audit.Append(tx, audit.Entry{Tenant: d.Tenant, Actor: actor, Kind: "device.graded", Subject: d.ID, Data: map[string]any{"from": d.Grade, "to": g, "why": why}})
}
