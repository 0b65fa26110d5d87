// SPDX-License-Identifier: AGPL-3.0-only

// Package tenant is who may do what: tenants, solutions, people, roles, tokens and sessions.
//
// A tenant is a manufacturer, a legal entity and the wall that nothing crosses. A right is a role held on a tenant, on
// one of its products or on one of its solutions; Can decides, and is pure. Solutions stand in each other, at most five
// deep: a distributor has customers, a customer has sites. An actor carries the tree of the moment that it was let in.
//
// Promises
//   - Nobody acts outside the own tenant, whatever they hold.
//   - No password exists. People enter with a passkey, which the one-time setup link or an invitation lets them register.
//   - A link works once, for a limited time, and only its hash is stored; so it is with tokens and sessions.
//   - A command line acts as a person only after that person, signed in with a passkey in a browser, has typed its code; for
//     12 hours, and it lets no other in.
//   - A right on a solution reaches what lies below it, never beside or above, from the next request after the tree has
//     changed; who holds one learns no name of what stands elsewhere.
//   - No solution stands in itself. It is moved by who has a right on what it stands in and on where it goes.
//   - Nobody can give what they do not hold, and a tenant never loses its last owner.
//
// Leaves of the log: access.tenant-created, access.setup-used, access.person-invited, access.person-joined,
// access.person-removed, access.sessions-ended, access.grant-changed, access.token-created, access.token-revoked, access.command-line,
// access.solution-created (with its parent), access.solution-changed, access.solution-moved.
package tenant
