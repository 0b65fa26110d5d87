// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// Scope is what a bar covers.
type Scope string

// The scopes of a bar. Each names what brought certificates into the register.
const (
	ScopeAuthority Scope = "authority" // all that one of our authorities signed
	ScopeStation   Scope = "station"   // all that a line station made
	ScopeBatch     Scope = "batch"     // every device of a batch
	ScopeCA        Scope = "ca"        // all that a trusted manufacturer CA brought
)

// Bar refuses everything of the scope's id from its commit on. Call it in a WriteFirst. The reason must not be empty.
func (s *Service) Bar(tx *store.Tx, tenant string, scope Scope, id, actor, reason string) error {
	if id == "" || reason == "" {
		return problem.Invalid("A bar names what it bars, and why.")
	}
	now := s.cfg.Clock.Now()
	_, err := tx.Exec(`INSERT INTO bar(scope, id, reason, at) VALUES ($1, $2, $3, $4) ON CONFLICT (scope, id) DO NOTHING`, scope, id, reason, store.Millis(now))
	if err != nil {
		return err
	}
	if err := s.distrust(tx, entry{Tenant: tenant, Subject: id, Scope: scope, Reason: reason}); err != nil {
		return err
	}
	data := map[string]any{"scope": scope, "reason": reason}
	return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "trust.barred", Subject: id, Data: data})
}
