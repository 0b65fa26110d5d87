// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"time"

	"github.com/openthings-platform/openthings/store"
)

// TakeShard is takeShard for tests of many nodes.
func (s *Service) TakeShard(tx *store.Tx, authority string) (int64, error) {
	return s.takeShard(tx, authority)
}

// RevokeRow revokes one certificate by its fingerprint, as the job behind a bar does.
func (s *Service) RevokeRow(tx *store.Tx, fp string) error {
	if _, err := revokeByFingerprint(tx, []string{fp}, "lost", s.cfg.Clock.Now()); err != nil {
		return err
	}
	return touchCertificates(tx, []string{fp})
}

// Look is one turn of Work after a sweep at that time.
func (s *Service) Look(ctx context.Context, swept time.Time) error { return s.look(ctx, &swept) }

// Overdue is what the work of every second looks for.
func (s *Service) Overdue(ctx context.Context) (ListState, error) { return s.overdue(ctx) }

// BarStep is one step of a bar's job.
func (s *Service) BarStep(ctx context.Context, tenant string, scope Scope, id string) (done bool, err error) {
	b, err := s.BarOf(ctx, tenant, scope, id)
	if err != nil {
		return false, err
	}
	return s.revokeSome(ctx, b, nil)
}

// Activate is what the first use of a certificate does.
func Activate(tx *store.Tx, tenant, device, fp string) error { return activate(tx, tenant, device, fp) }

// KeepBundles is the part of each turn of Work that looks after trust bundles and their journal.
func (s *Service) KeepBundles(ctx context.Context) error { return s.keepBundles(ctx) }

// WorkLists is the part that looks after revocation lists.
func (s *Service) WorkLists(ctx context.Context, said *ListNews) { s.workLists(ctx, said) }

// ListNews is what was said of the lists last.
type ListNews = listNews
