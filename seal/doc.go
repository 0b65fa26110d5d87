// SPDX-License-Identifier: AGPL-3.0-only

// Package seal owns every key of the platform: it seals secrets at rest and makes data unreadable by destroying keys.
//
//	platform key   DIR/platform.key                file, 0600           seals CA keys, the log key and epoch keys
//	epoch key      DIR/epochs/<tenant>/<n>.key     file, 30 days each   wraps the keys below
//	subject key    table seal_subject              row, wrapped         seals what is kept about one device
//	hour key       table seal_hour                 row, wrapped         seals the telemetry inbox of one hour
//
// Invariants:
//   - Epoch keys never enter the database, so a backup of the database alone opens nothing. Keep DIR out of the backups
//     of the database, and keep it: without DIR/platform.key nothing sealed can be read again.
//   - Erasure reaches backups. DestroySubject removes the wrapped key from the live database at once; Rotate moves every
//     living key to the newest epoch and destroys epoch keys one whole epoch after they ended. A copy of the database
//     taken before the destruction cannot be read from Horizon on, and a backup stays restorable for 30 days at least.
//   - What is sealed for one purpose does not open under another: the purpose is authenticated.
//   - The ciphers make their own random nonces (NonceSize is 0: pass nil), so no caller can repeat one. One key seals at
//     most 2^32 messages.
//   - A key directory that others can read is refused.
//
// Several processes of one platform share DIR. Rotate wants every database handle whose tables hold wrapped keys.
package seal
