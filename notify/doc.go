// SPDX-License-Identifier: AGPL-3.0-only

// Package notify tells people and programs outside that something happened: by webhook (Standard Webhooks), by mail, by pager
// (PagerDuty Events API v2) and by syslog over TLS (RFC 5424, RFC 5425).
//
// A stage calls Tell in the transaction of what it tells about; who is told is set by the tenant, as endpoints that
// listen to topics ("alarm.raised", "alarm.*", "*").
//
//	Tell: notice + one delivery per endpoint that listens, in the caller's transaction
//	Work: endpoint by endpoint, oldest delivery first, until it is done or its last attempt failed
//
// Invariants:
//   - What was told is delivered at least once to each endpoint that listened, or is on record as failed with the answer.
//     A receiver tells repeats by the id: the webhook-id, the Message-ID of a mail or the id in a syslog message is that of the
//     delivery; a pager tells them by the dedup_key.
//   - A thread is one incident of a pager: what is over is told to whoever was told that it began, and never overtaken by it.
//   - A slow or dead endpoint delays its own deliveries only: one connection to each at a time, and a pause after a fault.
//   - No endpoint queues without bound; what finds no room is on record as failed.
//   - No address of the inside is reached unless the administrator of the host allows it; mail and syslog leave over TLS.
//   - A webhook's secret is shown once; that, a pager's key and the value of a header are sealed and stand in no log. Who is told
//     what is a leaf of the audit log, a notice is none.
//
// It announces no events.
package notify
