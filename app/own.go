// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"context"
	"time"

	"github.com/openthings-platform/openthings/conform/self"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/vuln"
)

// watchOwn makes the platform the first product that it watches: the program's bill of materials, from its own file, is
// attached to a release of its own as soon as there is a tenant to watch it for.
func (h *house) watchOwn(ctx context.Context) error {
	for {
		tenants, err := h.tenant.Tenants(ctx)
		if err != nil {
			return err
		}
		if len(tenants) > 0 {
			if err := h.attachOwn(ctx, tenants[0].ID); err != nil {
				h.cfg.Log.WarnContext(ctx, "the platform's own bill of materials", "err", err)
			}
			<-ctx.Done()
			return nil
		}
		again := h.cfg.Clock.NewTimer(time.Minute)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return nil
		}
	}
}

func (h *house) attachOwn(ctx context.Context, tenant string) error {
	p, err := self.ReadFile(h.cfg.Self, self.Stamped())
	if err != nil {
		return err
	}
	if p.Published.IsZero() { // no release: two builds are two versions
		p.Version = "devel-" + p.SHA256[:12]
	}
	doc, err := p.Bill()
	if err != nil {
		return err
	}
	_, err = h.update.WatchOwn(ctx, tenant, p.Version, "sha256:"+p.SHA256, p.Size, doc)
	return err
}

// foundInOwn says what the feeds of a tenant find in the running program, where it is watched.
func (h *house) foundInOwn(ctx context.Context, tenant string, p self.Program) (self.Found, error) {
	feeds, err := h.vuln.Feeds(ctx, tenant)
	if err != nil {
		return self.Found{}, err
	}
	out := self.Found{Feeds: len(feeds)}
	for _, f := range feeds {
		if f.At.After(out.Newest) {
			out.Newest = f.At
		}
	}
	r, err := h.update.ByImage(ctx, tenant, "sha256:"+p.SHA256)
	if problem.Is(err, problem.KindNotFound) {
		return out, nil
	}
	if err != nil {
		return out, err
	}
	out.Release = r.ID
	open, err := h.vuln.OpenFindings(ctx, tenant, r.ID)
	seen := map[string]bool{}
	for _, f := range open {
		switch harmless := f.Status == vuln.NotAffected || f.Status == vuln.Fixed; {
		case seen[f.Group.ID]:
		case harmless:
			out.Decided++
		default:
			out.Open = append(out.Open, f.Group.ID)
		}
		seen[f.Group.ID] = true
	}
	return out, err
}
