// SPDX-License-Identifier: AGPL-3.0-only

// Package api is the kit behind every route for programs: HTTP with JSON under /v1, described by OpenAPI 3.1.
//
// Promises
//   - Every operation declares the verb that it needs, or that it is public; one without either does not start.
//   - Every failure is a problem (RFC 9457) whose type is a page of this binary: /problems/{kind}.
//   - An error of unknown kind is "internal" to the caller and whole in the operator's log, joined by request_id.
//   - A POST with an Idempotency-Key takes effect once within 24 hours (draft-ietf-httpapi-idempotency-key-header), unless
//     it is public: a stranger keeps nothing here. What is kept of it can only be read with that key.
//   - No request is read beyond its limit, and no caller can take more than its rate.
//
// The kit knows no stage and no tenant: who asks and what they hold is handed in by Config.
package api
