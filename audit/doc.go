// SPDX-License-Identifier: AGPL-3.0-only

// Package audit is the log of what matters: a Merkle tree (RFC 6962 hashing) over leaves that are written in the same
// transaction as what they tell of.
//
//	business transaction   Append: one row, pos NULL (pending)
//	sequencer              lease holder, fenced batch: positions, tiles, tip and head in one transaction
//	signer                 note under the log key for each stored head, journalled outside the database, then published
//
// Invariants:
//   - A rolled-back business transaction leaves no entry; a committed one is sequenced exactly once, whatever the order
//     in which ids were committed: pending is "pos IS NULL", never "id beyond the last".
//   - Size and root are stored before anything is signed, and only a stored root is signed: there is one root per size.
//     A sequencer whose lease has passed on writes nothing.
//   - The tree in memory is dropped on any error and read again, verified against the stored root.
//   - Proofs are checked against the stored root before they are handed out.
//   - A payload can be erased (Erase) and every proof stays valid: the leaf holds a salted digest.
//   - A database that is behind the journal of checkpoints, or forked from it, takes no new position until an operator
//     has acknowledged it (Acknowledge).
//   - Checkpoints older than a day are thinned to one an hour. The tree keeps proving consistency with any size.
//   - Every query of a tenant's entries carries the tenant.
//
// What it does not prove: whoever holds the log key and the machine can rewrite what no outsider has seen. Archive
// checkpoints (GET /v1/audit/checkpoint) elsewhere; two of them and a consistency proof show that history only grew.
//
// It announces no events. Kinds written here: audit.erased, audit.acknowledged.
package audit
