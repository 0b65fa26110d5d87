// SPDX-License-Identifier: AGPL-3.0-only

// Package fleet is what is out there: which device ran which release from when to when, how many run each, and who is
// online.
//
// Invariants:
//   - A device's installation intervals [from, to) neither overlap nor leave a hole; the present one ends at the end of
//     time (Forever), never NULL, so that one index answers now and any past moment.
//   - Counters equal a recount at any moment, now and as of any past millisecond: an installation appends one delta in its
//     own transaction, a leased job folds deltas into counters and marks, and readers add what is not folded yet, in one
//     statement. Nothing serialises a wave on one row. A mark says what had come of a release and how it came to that since
//     the mark before; news that come late correct the marks after them. A daily recount says aloud where it finds
//     otherwise (docs/decisions/0035-exposure.md).
//   - Every list and count carries the tenant; lists are keyset pages in the order of device ids, of releases first where
//     releases are asked for.
//   - A filter selects exactly what it says, in the tenant it is asked for and within what whoever asks may read, in keyset
//     pages and with one statement a page (TestS19_FiltersMeanWhatTheySay).
//   - Presence follows the sessions of the gateway. Each node says that it lives; when one has not for nodeLives its devices
//     are offline. A device is online where it came last.
//   - A device's twin has two documents: what the device shall be like, which people and programs change in versions, and
//     what it says that it is like. Both are sealed with the device's own key and gone with it. A device hears what is
//     desired until its acknowledgement is on record, whole or as a patch to the version that it says it goes by; it is
//     behind until it says that it goes by the newest. An older report never undoes a newer one.
//
// It announces no events.
package fleet
