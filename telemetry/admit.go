// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"

	"github.com/openthings-platform/openthings/store"
)

// admit leaves of the points of a stream what the product's catalogue lets in, and counts the rest with the batch. What
// it takes out is written nowhere.
func (s *Service) admit(ctx context.Context, b *batch, k streamKey, points []point) ([]point, error) {
	r, err := s.rulesOf(ctx, k.tenant, k.device)
	if err != nil {
		return nil, err
	}
	now := store.Millis(s.cfg.Clock.Now())
	return r.sift(k.stream, points, now, b.drops.of(k, now)), nil
}

// admitted is admit for readers of what the inbox still holds: they see what will be kept, and count nothing.
func (s *Service) admitted(ctx context.Context, tenant, device string, points []streamPoint) ([]streamPoint, error) {
	if len(points) == 0 {
		return nil, nil
	}
	r, err := s.rulesOf(ctx, tenant, device)
	if r == nil || err != nil {
		return points, err
	}
	now := store.Millis(s.cfg.Clock.Now())
	kept := points[:0]
	for _, p := range points {
		if one := r.sift(p.stream, []point{p.point}, now, untold); len(one) > 0 {
			kept = append(kept, streamPoint{p.stream, one[0]})
		}
	}
	return kept, nil
}
