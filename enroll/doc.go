// SPDX-License-Identifier: AGPL-3.0-only

// Package enroll is how a device gets into the fleet: made at a line station, claimed into a solution, enrolled over EST.
//
//	line     POST /d/1/line/devices, with the station's certificate: a unit gets its IDevID and a claim code; a station
//	         without a network (enroll/station) makes units under a permit and brings them to POST /d/1/line/journal
//	claim    POST /v1/claims: the code on the box binds the unit to a solution
//	transfer POST /v1/devices/{id}/transfer: whoever may claim in both moves it from one solution to another
//	enrol    EST simpleenroll (RFC 7030, RFC 8951) with the IDevID: the first LDevID, or a new one for a unit that returns
//	renew    EST simplereenroll with the LDevID: the next one, same subject and names
//	lobby    who is known and not claimed waits for a person, who approves into a solution, or denies
//
// Invariants:
//   - A unit makes its own key; no two units have the same key or, within a product, the same serial number.
//   - A station makes no more units than its quota, a batch no more than its size; the count is taken in the
//     transaction that names the unit. A station has an end and a kill switch, and is refused when its clock is off.
//   - Every identity of a batch is an entry of its manifest, counted and chained in the transaction that makes the
//     certificate known. The manifest is signed with the log key and checked without a platform (VerifyManifest).
//   - What an offline station made is not trusted until it was brought: in order, without gaps, within its permit. A unit
//     that cannot be taken is refused by name; a second journal is an alarm and nothing of it is taken.
//   - A hook that is not told otherwise fails closed: without its yes nobody gets in. The hook of a product opens nothing that
//     the hook of its tenant refuses.
//   - A claim code has 128 random bits, is shown once, and only its hash is kept. It is used once.
//   - While a hold stands, no unit that it matches gets a new identity at any door; devices in the field are never held.
//   - Every step may be repeated after a lost answer and has the same outcome; only a claim code is made anew, and
//     only until it was used.
//   - What a certificate says comes from the register. What a CSR asks for beyond its key is refused or ignored.
//
// Events: batch.surplus {batch,issued,size|produced}: more units have an identity than were made, or somebody tries;
// station.clock {station,off_ms}; station.forked {station,seq}; unit.refused {station,serial,rule}; device.waiting {how};
// trusted-ca.refused {ca,serial,rule,text}: why devices that a trusted CA has signed are kept out, once an hour for each reason;
// clone.detected {what,mark,devices}, clone.decided {genuine,devices,reason};
// clone.flood {serial,door,place}: one line station, trusted CA or token names more serial numbers of others than are believed.
package enroll
