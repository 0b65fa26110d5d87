// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"crypto/x509"
	"errors"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// refusedByCA counts a device that a trusted CA vouched for, that has proven to hold its key, and that was refused all the
// same, and returns why. The first leaves a leaf.
func (s *Service) refusedByCA(ctx context.Context, c TrustedCA, leaf *x509.Certificate, serial string, why error) error {
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		var n int64
		if err := tx.QueryRow(`UPDATE trusted_ca SET refused = refused + 1 WHERE tenant = $1 AND id = $2 RETURNING refused`, c.Tenant, c.ID).Scan(&n); err != nil || n > 1 {
			return err
		}
		return s.auditCA(tx, c, c.ID, caRefused, map[string]any{"serial": serial, "rule": problem.Of(why).Rule, "text": problem.Of(why).Text})
	})
	s.tellRefused(ctx, c, leaf, why)
	return errors.Join(why, err)
}

const caRefused = "trusted-ca.refused"

// tellRefused announces that a device with a certificate which the trusted CA has signed was refused, once an hour for each
// CA and reason: a revocation list that has ended or a quota that is used keep out every device, and nobody would know why.
// Most have not proven to hold their key yet, so nothing else is written.
func (s *Service) tellRefused(ctx context.Context, c TrustedCA, leaf *x509.Certificate, why error) {
	rule := problem.Of(why).Rule
	if !c.toBeTold(rule) || s.floods.Take(c.Tenant+" "+c.ID+" "+rule, 1) != nil {
		return
	}
	data := map[string]any{"ca": c.ID, "rule": rule, "text": problem.Of(why).Text}
	if m, err := c.Policy.Mapping.Read(leaf); err == nil {
		data["serial"] = m.Serial
	}
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.cfg.DB.Emit(tx, caRefused, c.Tenant, c.ID, data) })
	if err != nil {
		s.cfg.Log.ErrorContext(ctx, "a refusal by a trusted CA was not told", "ca", c.ID, "rule", rule, "error", err)
	}
}

// toBeTold says whether people should hear of a refusal by the rule. They know what they decided themselves about the CA, and
// a unit that is seen twice is told of as a clone. What a CA that signs for others too has signed may be theirs, until the
// tenant has named the serial number.
func (c TrustedCA) toBeTold(rule string) bool {
	others := c.Policy.Shared || c.Others
	switch {
	case c.State != CAActive:
		return false
	case rule == RuleCAClosed || rule == RuleCAMapping || rule == RuleListed:
		return !others
	}
	return rule == RuleCAStale || rule == RuleCARevoked || rule == RuleTombstone
}
