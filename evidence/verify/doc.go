// SPDX-License-Identifier: Apache-2.0

// Package verify checks an evidence bundle with no server and no network. It links nothing of the platform but the wire
// formats, so that whoever distrusts the platform can read all of it in one sitting.
//
// A bundle is one text file, a signed note (golang.org/x/mod/sumdb/note):
//
//	openthings evidence bundle 1
//	{ …Document as canonical JSON… }
//
//	— <origin> <base64 of key hash and Ed25519 signature>
//
// What Bundle checks, in this order:
//   - the file is exactly the one encoding of what it says, and its signature covers every byte of it;
//   - the key that signed it is the one that the caller had before (without one the bundle is at most consistent);
//   - each entry stands in the log at its index under one checkpoint signed by that key (RFC 6962 inclusion proof);
//   - each payload has the digest that its leaf states;
//   - no entry about the device is missing: the log itself counted them in the entry "evidence.exported";
//   - each section has the digest that this entry states;
//   - each certificate is one whose issue the log recorded;
//   - the wipe receipt was signed by the key in the device's IDevID;
//   - of a case: its events are entries of the log without a gap, what was submitted has the digests that they state, and every
//     deadline is recomputed from them by this package alone; what the platform says of it is compared, never believed;
//   - of a finder's report: each step that the house took stands in the log with its digest.
//
// An export of the log (see export.go) is read as a stream; there, too, every byte counts.
//
// What it cannot check: which product an entry belongs to, the words that people wrote into records whose entries are not in
// the bundle (their sections have a recorded digest), and that the holder of the log key did not rewrite the whole log before anyone outside saw a
// checkpoint of it. Compare the checkpoint with one that was archived elsewhere.
package verify
