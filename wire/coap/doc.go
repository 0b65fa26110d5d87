// SPDX-License-Identifier: Apache-2.0

// Package coap reads and writes messages of CoAP (RFC 7252), its block-wise transfers (RFC 7959) and the options that a
// device door needs. It knows no socket and no time.
//
// It is made for a door that faces strangers. A message is one datagram, so nothing that a peer claims is longer than what
// arrived; Decode allocates in proportion to it, refuses what the RFC calls a format error, and bounds the number of options.
// What Decode accepts, Append writes, and Decode reads again as the same message; Append refuses what Decode refuses.
package coap
