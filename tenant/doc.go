// SPDX-License-Identifier: AGPL-3.0-only

// Package tenant is who may do what: tenants, solutions, people, roles, tokens and sessions.
//
// A tenant is a manufacturer, a legal entity and the wall that nothing crosses. A right is a role held on a tenant, on
// one of its products or on one of its solutions; Can decides, and is pure.
//
// Promises
//   - Nobody acts outside the own tenant, whatever they hold.
//   - No password exists. People enter with a passkey, which the one-time setup link or an invitation lets them register.
//   - A link works once, for a limited time, and only its hash is stored; so it is with tokens and sessions.
//   - Nobody can give what they do not hold, and a tenant never loses its last owner.
//
// Leaves of the log: access.tenant-created, access.setup-used, access.person-invited, access.person-joined,
// access.person-removed, access.sessions-ended, access.grant-changed, access.token-created, access.token-revoked,
// access.solution-created.
package tenant
