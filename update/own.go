// SPDX-License-Identifier: AGPL-3.0-only

package update

import (
	"context"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

// OwnProduct is the platform itself as a product. It is never sold, so it is no row among the products: nothing that the law
// asks of a manufacturer's product is asked of it here. Its releases are the versions of the program that have run.
const OwnProduct = "prd_openthings"

// notOurs refuses what only makes sense for software of the manufacturer's.
func notOurs() error {
	return problem.Conflict("This is the platform's own program: it is watched, and neither published nor withdrawn.")
}

// WatchOwn makes the running program a release that is watched: it has a bill of materials, and no device ever gets it.
// image is its digest; a program that was watched before changes nothing.
func (s *Service) WatchOwn(ctx context.Context, tenant, version, image string, length int64, doc []byte) (Release, error) {
	r, err := s.ByImage(ctx, tenant, image)
	if err == nil || !problem.Is(err, problem.KindNotFound) {
		return r, err
	}
	bill, err := sbom.Parse(doc)
	if err != nil {
		return Release{}, err
	}
	kept, err := s.cfg.SBOM.Keep(ctx, doc)
	if err != nil {
		return Release{}, err
	}
	r = Release{ID: store.NewID("rel"), Tenant: tenant, Product: OwnProduct, Version: version, Class: "feature", Path: "openthings/" + image, HW: []string{}, Image: image,
		Length: length, SBOM: wire.Digest(doc), Signers: []string{}, State: Watched, Actor: "system", Created: store.Time(store.Millis(s.cfg.Clock.Now()))}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := insertRelease(tx, r); err != nil {
			return err
		}
		data := map[string]any{"product": r.Product, "version": r.Version, "image": r.Image, "length": r.Length, "sbom": r.SBOM}
		if err := audit.Append(tx, audit.Entry{Tenant: tenant, Actor: r.Actor, Kind: "release.watched", Subject: r.ID, Data: data}); err != nil {
			return err
		}
		return s.cfg.SBOM.Attach(tx, tenant, r.ID, bill, kept, r.Actor)
	})
	if problem.Is(err, problem.KindConflict) { // another node of the house was faster
		return s.ByImage(ctx, tenant, image)
	}
	return r, err
}
