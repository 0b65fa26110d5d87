// SPDX-License-Identifier: AGPL-3.0-only

// Package gateway is the device doors: MQTT 5 and 3.1.1 (port 8883) and HTTPS (port 8444), mutual TLS 1.3, CoAP (UDP port
// 5684), mutual DTLS 1.2, and the registry of live sessions. It knows no stage: who may enter and what becomes of a message
// is handed in by Config.
//
// It is a star, not a general broker: a device talks to the platform only, on the topics of package wire. QoS 2,
// retained messages, shared subscriptions and enhanced authentication are refused on purpose; docs/reference/mqtt.md says
// of each normative statement of MQTT 5 what becomes of it here.
//
// Promises
//
//   - A PUBACK with a success reason, a 200 and a 2.04 are receipts: Config.Append returned nil for that message before.
//     When Append fails, an MQTT 5 client gets a PUBACK with an error, a 3.1.1 client no PUBACK and a closed connection. The
//     same goes for a topic that nobody behind the door takes; all but 3.1.1 hear why in words.
//   - The certificate is the identity. Config.Admit decides at each handshake (session tickets are off, so that there
//     is no resumption to forget) and once more when the session or the request begins. A client id, a user name or a
//     topic never says who somebody is: topics are compared with the certificate.
//   - A certificate is no secret. Until its peer has signed the handshake, showing it takes nothing from its device: no
//     place among its connections, no first use, no session.
//   - What a session that outlives its connection was promised is durable first: a subscription before its SUBACK, a
//     downlink before it leaves. Config.Sessions keeps it, for all nodes, and lets one connection of a device write.
//   - Cut closes every live connection of a device within a second, also one that does not read.
//   - Malformed, greedy, slow or silent clients harm their own connection only: no declared length is believed before
//     the bytes arrive, each read and write has a deadline, each queue a bound.
//
// A connection over TCP costs one goroutine; it borrows a read buffer only while bytes flow and a writer only while bytes leave.
package gateway
