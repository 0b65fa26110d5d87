// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// admission is what the register knows of a certificate that knocks.
type admission struct {
	tenant, subject string
	kind            Kind
	phase           Phase
	state           State // of the device; empty for a station
	notAfter        time.Time
	barred          string // why everything of its authority, origin or batch is refused; empty if it is not
}

// check is the whole policy of the doors, pure.
func (a admission) check(now time.Time) error {
	switch {
	case a.barred != "":
		return problem.Forbidden("identity.barred", "Everything that came with this certificate's origin is barred: %s.", a.barred)
	case a.phase == PhaseRevoked:
		return problem.Forbidden("identity.revoked", "This certificate was revoked.")
	case a.phase != PhasePending && a.phase != PhaseActive:
		return problem.Forbidden("identity.superseded", "This certificate was replaced by a newer one.").Because(gateway.ErrSpent)
	case !now.Before(a.notAfter):
		return problem.Forbidden("identity.expired", "This certificate expired on %s.", a.notAfter.Format(time.DateOnly)).
			Hint("Enrol again with the IDevID.")
	case a.kind != Station && !a.state.Admits(a.kind):
		return problem.Forbidden("identity.state", "A device that is %s may not come in with its %s.", a.state, a.kind)
	}
	return nil
}

// onlyLapsed says that the certificate is an LDevID that would be admitted if its end had not passed.
func (a admission) onlyLapsed(now time.Time) bool {
	then := a.notAfter.Add(-1)
	return a.kind == LDevID && !now.Before(a.notAfter) && a.check(then) == nil
}

// Admit says whose certificate cert is, or refuses. It changes nothing: it is asked before the peer has proven that it
// holds the key. There is no cache: one indexed read is small beside a handshake, and a revocation counts from its
// commit on. After the proof a peer that is Pending goes to Used.
func (s *Service) Admit(ctx context.Context, cert *x509.Certificate) (gateway.Peer, error) {
	if err := s.open(); err != nil {
		return gateway.Peer{}, err
	}
	fp := Fingerprint(cert.Raw)
	a, err := s.lookUp(ctx, fp)
	if err != nil {
		return gateway.Peer{}, err
	}
	p := gateway.Peer{Kind: gateway.Kind(a.kind), Tenant: a.tenant, Device: a.subject, Fingerprint: fp, Pending: a.phase == PhasePending, Cert: cert}
	now := s.cfg.Clock.Now()
	if err := a.check(now); err != nil {
		if errors.Is(err, gateway.ErrSpent) {
			return p, err // whoever proves to hold its key is heard (gateway.Config.Spent) and refused
		}
		if !a.onlyLapsed(now) || s.cfg.Lapsed == nil || s.cfg.Lapsed(ctx, a.tenant, a.subject, a.notAfter) != nil {
			return gateway.Peer{}, err
		}
		p.Kind, p.Pending = gateway.Lapsed, false // its use never takes anything over
		return p, nil
	}
	if a.kind == Station {
		p.Device, p.Station = "", a.subject
	}
	return p, nil
}

// Used tells that the peer has proven to hold the key of its pending LDevID: that first use makes it the active one and
// supersedes the one before.
func (s *Service) Used(ctx context.Context, p gateway.Peer) error {
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return activate(tx, p.Tenant, p.Device, p.Fingerprint) })
	if err != nil {
		return problem.Unavailable("The register of certificates cannot be written.").Because(err)
	}
	return nil
}

// lookUp reads what Admit decides on. The fingerprint is the only key: who a peer is, its tenant included, is the answer.
func (s *Service) lookUp(ctx context.Context, fp string) (admission, error) {
	var a admission
	var notAfter int64
	err := s.cfg.DB.QueryRow(ctx, `SELECT c.tenant, c.subject, c.kind, c.phase, c.not_after, coalesce(d.state, ''), coalesce((
			SELECT b.reason FROM bar b WHERE b.scope = 'authority' AND b.id = c.authority OR b.scope IN ('station', 'ca') AND b.id = c.origin
			OR b.scope = 'batch' AND b.id = d.batch LIMIT 1), '')
		FROM certificate c LEFT JOIN device d ON d.id = c.subject AND d.tenant = c.tenant WHERE c.fp = $1`, fp).
		Scan(&a.tenant, &a.subject, &a.kind, &a.phase, &notAfter, &a.state, &a.barred)
	a.notAfter = store.Time(notAfter)
	switch {
	case errors.Is(err, store.ErrNoRows):
		return admission{}, problem.Forbidden("identity.unknown", "This certificate is not in the register.").Because(gateway.ErrUnknown)
	case err != nil: // unknown status is refused, never admitted
		return admission{}, problem.Unavailable("The register of certificates cannot be read.").Because(err)
	}
	return a, nil
}
