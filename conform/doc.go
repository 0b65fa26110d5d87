// SPDX-License-Identifier: AGPL-3.0-only

// Package conform is what a manufacturer decides about a product before and while it is on the market: its class, the
// conformity route that the class permits, the risk assessment with the 22 rows of Annex I, due diligence on components,
// and for each release whether it is a substantial modification (CRA Articles 3(30), 7, 8, 13(2) to (5), 32).
//
// The platform computes what follows from answers and refuses what the law refuses; a named person answers. It states
// conformity of nothing, and it claims nothing for a standard that is not in law.Citations.
//
// Invariants:
//   - What was recorded is never changed: a record has versions, the newest counts, each names its author and its day.
//   - The class follows from the category of the core functionality alone; an integrated component moves nothing.
//   - A module that the class does not permit is refused with the reason.
//   - A risk assessment is sealed with 22 decided rows or not at all. A row that does not apply has a justification; Part
//     I(1) and Part II always apply (Article 13(3)).
//   - A release that a person signed as a substantial modification is not published before a later assessment is sealed.
//   - Who records a class does not confirm it.
//   - A component is reviewed under one name for all its versions and all products of the tenant.
//
// Not here: importers and distributors who become manufacturers (Article 21) and stewards (Article 24). Who rebrands a
// product describes it as a product of its own tenant.
//
// Audit: conform.classified, conform.class-confirmed, conform.route, conform.risk-context, conform.risk-row,
// conform.assessment-sealed, conform.review-due, conform.modification, conform.component, conform.settings. Events:
// law.stale, once per tenant and day of the comparison that is too old. Listens to sbom.attached, vuln.exploited and
// case.opened.
package conform
