// SPDX-License-Identifier: AGPL-3.0-only

// Package store keeps rows on SQLite (one machine) or PostgreSQL (a server) behind one SQL text.
//
// Invariants:
//   - A nil error of Write means that the rows are on disk: WAL with synchronous=FULL on SQLite, synchronous_commit=on
//     on PostgreSQL.
//   - Callers of Write share commits (group commit) but not fates: each runs in its own savepoint, so an error, a
//     panic or a unique violation of one rolls back that one alone. A caller's context never reaches the shared
//     transaction, since cancelling a statement would take the others down with it.
//   - A deadlock with another node, or a serialization failure, is not the caller's: its function is run again.
//   - Order of service: WriteFirst (revocation) before Write before WriteBulk.
//   - Jobs, events and leases are rows. Nothing that matters waits in memory only.
//   - A lease is fenced: what its holder writes goes through Tx.Fence, so a paused holder cannot write after its
//     successor began.
//
// One process has one writer per handle, so read-modify-write inside one Write is serial within the process; between
// processes on PostgreSQL use conditional updates (UPDATE … WHERE state = …) and look at the affected count.
package store
