// SPDX-License-Identifier: AGPL-3.0-only

// Package station is the other side of the line: what runs in the factory and gives units their identities, with the
// platform or, under a permit, without a network.
//
// All of a station is one folder (0700): its key and certificate, and for one that works offline its own authority, its
// permit and its journal. The authority signs itself, so nobody trusts what it signs until the platform has it in its
// register.
//
// Invariants:
//   - A unit is answered once its entry is on disk: appended to the journal and flushed. A power cut at any moment
//     leaves a journal whose last entry is whole, and the same request gets the same identity.
//   - Entries are counted and chained, each signed by the authority. Two processes cannot write at once.
//   - Nothing is made beyond the permit: serial numbers, quota, time. A clock that was set back makes nothing.
//   - A claim code is shown once; the journal has its hash. No private key but the station's own two is ever on its disk.
package station
