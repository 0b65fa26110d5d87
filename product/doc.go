// SPDX-License-Identifier: AGPL-3.0-only

// Package product is what is sold: products, their hardware revisions, and how long each is supported.
//
// Invariants:
//
//   - A product belongs to one tenant for ever and fixes the tenant of every device made of it.
//
//   - A hardware revision states when its support ends. The date is five years after it is placed on the market or
//     later; an earlier one needs a written reason, which the revision keeps (CRA article 13(8)).
//
//   - The model, a short name for machines, is unique within the tenant and never changes.
//
//   - A product's commissioning baseline has versions that only grow; each is under the platform's signature, and one
//     that is not what was signed stops commissioning instead of being believed.
//
//   - Where a product is available is declared by a person, Member State by Member State.
//
//   - Support is promised to placement cohorts. What was published of one stays for ever, under the platform's signature;
//     the next version never ends earlier and never lets units fall out. Publishing is an act with a name.
//
//   - Each notice of an end is announced once: 24, 12, 6, 3 and 1 months before it, at it and a month after it. Who was
//     told of an end that is extended gets a correction.
//
//   - Strangers read what was published and nothing else.
//
//   - A unit has the promise of the day on which it was placed on the market, as said of itself, else of its batch, else of
//     its making.
//
// Audit: unit.placed, product.created, revision.created, product.baseline, product.availability, product.information,
// product.page-published, cohort.created, cohort.prepared, cohort.published, cohort.shortening-refused,
// cohort.end-decided, revision.enrol-allowed, support.notice, cessation.declared, cessation.step. Events: support.notice,
// business.ceasing.
package product
