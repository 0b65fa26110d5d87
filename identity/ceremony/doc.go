// SPDX-License-Identifier: AGPL-3.0-only

// Package ceremony is what happens at the table where a root key is made and used: on a machine without a network, by
// people, a few times in thirty years.
//
// A ceremony makes a root (it signs the issuing authorities) and an anchor (it signs the bootstrap authority and the
// trust bundles). Their keys exist in memory only; what is written is a recovery file that is encrypted with age to
// recipients of the administrator's choice. Every later act reads that file, does its work in memory and forgets:
// signing the request of an authority, certifying another root's key (a bridge), signing a trust bundle, and proving to
// the platform that the file can be opened before the platform deletes its own copy.
package ceremony
