// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"context"
	"encoding/json"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/respond/inform"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/update"
)

// maxReleases is how many releases of a product one bundle holds, the newest first.
const maxReleases = 100

// releaseRecord is a release as a bundle about its product holds it: what binds the bill of materials to the image.
type releaseRecord struct {
	Release update.Release  `json:"release"`
	Checks  []update.Check  `json:"checks"`
	Bill    *sbom.Record    `json:"bill,omitempty"`
	Targets json.RawMessage `json:"targets"` // the list that the manufacturer signed
}

// releasesOfProduct are the newest releases of a product for its evidence, with the ids whose entries of the log prove them.
func (h *house) releasesOfProduct(ctx context.Context, tenant, product string) (json.RawMessage, []string, error) {
	list, err := h.update.List(ctx, tenant, product)
	if err != nil {
		return nil, nil, err
	}
	out, ids := []releaseRecord{}, []string{}
	for _, r := range list[:min(len(list), maxReleases)] {
		x := releaseRecord{Release: r}
		if x.Checks, err = h.update.Checks(ctx, tenant, r.ID); err != nil {
			return nil, nil, err
		}
		if x.Targets, err = h.update.SignedTargets(ctx, r); err != nil {
			return nil, nil, err
		}
		switch bill, err := h.sbom.Current(ctx, tenant, r.ID); {
		case err == nil:
			x.Bill = &bill
		case !problem.Is(err, problem.KindNotFound):
			return nil, nil, err
		}
		out, ids = append(out, x), append(ids, r.ID)
	}
	b, err := json.Marshal(out)
	return b, ids, err
}

// maxCampaigns is how many campaigns about one case a bundle proves.
const maxCampaigns = 50

// informedOf is the proof that users were told of a case: each campaign that was sent, with its texts and deliveries, and the ids
// whose entries of the log prove it. Nil if none was.
func (h *house) informedOf(ctx context.Context, _, caseID string) (json.RawMessage, []string, error) {
	list, err := h.inform.Campaigns(ctx, caseID, "", maxCampaigns)
	proofs, ids := []inform.Proof{}, []string{}
	for _, c := range list {
		if err != nil {
			return nil, nil, err
		}
		if c.State != inform.Sent {
			continue
		}
		var p inform.Proof
		p, err = h.inform.Proof(ctx, c.ID)
		proofs, ids = append(proofs, p), append(ids, c.ID)
	}
	if err != nil || len(proofs) == 0 {
		return nil, nil, err
	}
	b, err := json.Marshal(proofs)
	return b, ids, err
}

// productsOf is how the rooms know the product of what they keep, by the prefixes of ids.
func (h *house) productsOf() map[string]func(ctx context.Context, tenant string, ids []string) (map[string]string, error) {
	return map[string]func(context.Context, string, []string) (map[string]string, error){
		"rev": h.product.ProductsOf, "dev": h.identity.ProductsOf, "bat": h.enroll.ProductsOf, "rel": h.update.ProductsOf, "dpl": h.update.ProductsOf,
		"sig": h.respond.ProductsOf, "asm": h.respond.ProductsOf, "cas": h.respond.ProductsOf, "drl": h.respond.ProductsOf, "rpt": h.desk.ProductsOf, "adv": h.advisory.ProductsOf,
	}
}
