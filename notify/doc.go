// SPDX-License-Identifier: AGPL-3.0-only

// Package notify tells people and programs outside that something happened: by webhook (Standard Webhooks) and by mail.
//
// A stage calls Tell in the transaction of what it tells about; who is told is set by the tenant, as endpoints that
// listen to topics ("alarm.raised", "alarm.*", "*").
//
//	Tell: notice + one delivery per endpoint that listens, in the caller's transaction
//	Work: endpoint by endpoint, oldest delivery first, until it is done or its last attempt failed
//
// Invariants:
//   - What was told is delivered at least once to each endpoint that listened, or is on record as failed with the answer.
//     A receiver tells repeats by the id: the webhook-id, or the Message-ID of a mail, is that of the delivery.
//   - A slow or dead endpoint delays its own deliveries only: one connection to each at a time, and a pause after a fault.
//   - No endpoint queues without bound; what finds no room is on record as failed.
//   - A webhook reaches no address of the inside unless the administrator of the host allows it; mail leaves over TLS.
//   - A webhook's secret is shown once and sealed; who is told what is a leaf of the audit log, a notice is none.
//
// It announces no events.
package notify
