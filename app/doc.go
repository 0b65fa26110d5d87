// SPDX-License-Identifier: AGPL-3.0-only

// Package app is the one room that knows all others: it opens the store, wires the stages, mounts their routes, topics
// and pages, starts their work, and stops everything in order.
//
// Invariants: nothing is served before every schema is applied and the register of certificates is whole; the doors
// close before the work behind them ends, and the log is sequenced before the database is closed; nothing listens
// without TLS except health, on loopback.
package app
