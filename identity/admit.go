// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"crypto/x509"
	"database/sql"
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

	authority, origin, maker, batch string // who signed and who brought the certificate; who brought the device, and its batch
}

// check is the whole policy of the doors, pure.
func (a admission) check(now time.Time) error {
	switch {
	case a.barred != "":
		return problem.Forbidden(RuleBarred, "Everything that came with this certificate's origin is barred: %s.", a.barred)
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

// LongestLapse is how long after its end an LDevID may at most come to be renewed, whatever Config.Lapsed says: the
// journal forgets its revocation after that.
const LongestLapse = 3 * 366 * 24 * time.Hour

// onlyLapsed says that the certificate is an LDevID that would be admitted if its end had not passed.
func (a admission) onlyLapsed(now time.Time) bool {
	if !now.Before(a.notAfter.Add(LongestLapse)) {
		return false
	}
	then := a.notAfter.Add(-1)
	return a.kind == LDevID && !now.Before(a.notAfter) && a.check(then) == nil
}

// Admit says whose certificate cert is, or refuses. It changes nothing: it is asked before the peer has proven that it
// holds the key. There is no cache: one indexed read is small beside a handshake, and a revocation counts from its
// commit on. After the proof a peer that is Pending goes to Used.
func (s *Service) Admit(ctx context.Context, cert *x509.Certificate) (gateway.Peer, error) {
	if err := s.Ready(); err != nil {
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
	p.Groups = a.groups()
	return p, nil
}

// groups are the names under which a bar finds the live sessions of this certificate.
func (a admission) groups() (out []string) {
	if a.authority != "" {
		out = append(out, groupOf(ScopeAuthority, "", a.authority))
	}
	for i, id := range []string{a.origin, a.maker} {
		if id != "" && (i == 0 || id != a.origin) {
			out = append(out, groupOf(ScopeStation, a.tenant, id), groupOf(ScopeCA, a.tenant, id))
		}
	}
	if a.batch != "" {
		out = append(out, groupOf(ScopeBatch, a.tenant, a.batch))
	}
	return out
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

// admissionQuery reads what is decided on; the certificates follow.
const admissionQuery = `SELECT c.fp, c.tenant, c.subject, c.kind, c.phase, c.not_after, coalesce(d.state, ''), c.authority, c.origin, coalesce(d.origin, ''),
	coalesce(d.batch, ''), coalesce((SELECT b.reason FROM bar b WHERE ` + barred + ` LIMIT 1), '')
	FROM certificate c LEFT JOIN device d ON d.id = c.subject AND d.tenant = c.tenant WHERE c.fp `

func scanAdmission(r scanner) (fp string, a admission, err error) {
	var notAfter int64
	err = r.Scan(&fp, &a.tenant, &a.subject, &a.kind, &a.phase, &notAfter, &a.state, &a.authority, &a.origin, &a.maker, &a.batch, &a.barred)
	a.notAfter = store.Time(notAfter)
	return fp, a, err
}

// lookUp reads what Admit decides on. The fingerprint is the only key: who a peer is, its tenant included, is the answer.
func (s *Service) lookUp(ctx context.Context, fp string) (admission, error) {
	_, a, err := scanAdmission(s.cfg.DB.QueryRow(ctx, admissionQuery+`= $1`, fp))
	switch {
	case errors.Is(err, store.ErrNoRows):
		return admission{}, problem.Forbidden("identity.unknown", "This certificate is not in the register.").Because(gateway.ErrUnknown)
	case err != nil: // unknown status is refused, never admitted
		return admission{}, problem.Unavailable("The register of certificates cannot be read.").Because(err)
	}
	return a, nil
}

// lookUpAll is lookUp for live sessions, at least one, by fingerprint.
func (s *Service) lookUpAll(ctx context.Context, peers []gateway.Peer) (map[string]admission, error) {
	fps := make([]string, len(peers))
	for i, p := range peers {
		fps[i] = p.Fingerprint
	}
	list, args := store.In(nil, fps)
	out := map[string]admission{}
	rows, err := s.cfg.DB.Query(ctx, admissionQuery+`IN `+list, args...)
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		fp, a, err := scanAdmission(r)
		out[fp] = a
		return struct{}{}, err
	})
	return out, err
}
