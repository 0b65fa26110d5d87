// SPDX-License-Identifier: Apache-2.0

// Package mqtt reads and writes MQTT 5.0 and 3.1.1 packets (OASIS standards of 2019 and 2014), and holds a small client.
//
// It is made for a door that faces strangers. Nothing that a peer claims is believed before it is there:
//
//   - Reader allocates for bytes that arrived, never for a declared length; it refuses a packet beyond its limit as
//     soon as the length is read, and a length of more than four bytes.
//   - Decode checks each field's length against the body before it reads the field, refuses QoS 3, text that is not
//     UTF-8 or holds U+0000, reserved bits, reserved packet types, trailing bytes, reason codes and properties that
//     have no place in the packet, properties given twice, and numbers of filters or user properties beyond a bound.
//   - What Decode accepts, Append writes, and Decode reads again as the same packet; Append refuses what Decode refuses.
//
// References such as [MQTT-3.3.1-4] name a normative statement of MQTT 5.0.
package mqtt
