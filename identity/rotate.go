// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// RootKeeper is an Issuer that knows roots and anchors made elsewhere, and on whose machine the keys of the first ones
// may still lie.
type RootKeeper interface {
	// Adopt makes the certificate of a root or anchor known whose key is elsewhere. A repeat is harmless.
	Adopt(ctx context.Context, id string, cert []byte) error
	// RootKey is the key of a root or anchor, or a problem of kind not-found if it is not on this machine.
	RootKey(ctx context.Context, id string) (crypto.Signer, error)
	// RemoveRootKey deletes it from this machine.
	RemoveRootKey(ctx context.Context, id string) error
}

// RootKeeper returns the issuer as the keeper of roots, or a problem.
func (s *Service) RootKeeper() (RootKeeper, error) {
	k, ok := s.cfg.Issuer.(RootKeeper)
	if !ok {
		return nil, problem.Unavailable("The issuer in use keeps its roots itself.").Hint("Work on them with its own tools.")
	}
	return k, nil
}

// titles are the roles in the names of authorities.
var titles = map[Role]string{Root: "Root", Anchor: "Anchor", Factory: "Factory CA", Operational: "Operational CA", Server: "Server CA", Bootstrap: "Bootstrap CA"}

// AuthorityName is the name of an authority from its second generation on. It is another one in each generation, so
// that software which finds issuers by name alone finds the right one.
func AuthorityName(organization string, r Role, generation int64) pkix.Name {
	return pkix.Name{Organization: []string{organization}, OrganizationalUnit: []string{AuthorityID(r, generation)},
		CommonName: fmt.Sprintf("OpenThings %s %d", titles[r], generation)}
}

// RequestAuthority makes the key of the next authority of the role and returns its request for the one above to sign. A
// request that is open is returned again.
func (s *Service) RequestAuthority(ctx context.Context, r Role, alg Algorithm, actor string) (Authority, []byte, error) {
	rotator, ok := s.cfg.Issuer.(Rotator)
	if !ok {
		return Authority{}, nil, problem.Unavailable("The issuer in use makes no authorities.").Hint("Make it with the tools of the issuer, then restart.")
	}
	if !slices.Contains(Roles, r) {
		return Authority{}, nil, problem.Invalid("%q issues nothing: an authority is %s.", r, problem.Or(Roles)).At("role")
	}
	all, err := s.Authorities(ctx)
	if err != nil {
		return Authority{}, nil, err
	}
	a := Authority{Role: r, Generation: 1, Algorithm: alg, Status: Requested, Created: s.cfg.Clock.Now(), Cert: []byte{}}
	organization := "OpenThings"
	for _, old := range all { // the newest generation of a role comes first
		if old.Role != r {
			continue
		}
		if old.Status == Requested {
			a = old
		} else {
			a.Generation, a.Backend = old.Generation+1, old.Backend
		}
		break
	}
	if current, err := s.activeChain(ctx, r); err == nil && len(current[0].Subject.Organization) > 0 {
		organization = current[0].Subject.Organization[0]
	}
	a.ID = AuthorityID(r, a.Generation)
	csr, err := rotator.Generate(ctx, a.ID, r, a.Algorithm, AuthorityName(organization, r, a.Generation))
	if err != nil {
		return Authority{}, nil, problem.Unavailable("The issuer cannot make the key.").Because(err)
	}
	held, err := s.cfg.Issuer.Authorities(ctx)
	if err != nil {
		return Authority{}, nil, problem.Unavailable("The issuer does not answer.").Because(err)
	}
	if i := slices.IndexFunc(held, func(h Held) bool { return h.ID == a.ID }); i >= 0 {
		a.Backend = held[i].Backend // not always the one of the generation before
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if _, err := authorityByID(tx.QueryRow, a.ID); err == nil {
			return nil
		}
		if err := putAuthority(tx, a); err != nil {
			return err
		}
		return s.changed(tx, "authority.requested", a, actor, map[string]any{"algorithm": a.Algorithm})
	})
	return a, csr, err
}

// changed records what happened to an authority; the doors then look again at who signs for them.
func (s *Service) changed(tx *store.Tx, kind string, a Authority, actor string, data map[string]any) error {
	data["role"] = a.Role
	tx.After(func() { s.authorityLife.Add(1) })
	return audit.Append(tx, audit.Entry{Actor: actor, Kind: kind, Subject: a.ID, Data: data})
}

// Installed says what a certificate turned out to be.
type Installed struct {
	What      string    `json:"what"` // authority, root, anchor, bridge
	Authority Authority `json:"authority"`
}

// InstallAuthority takes a certificate from a ceremony: of an authority that was requested here, of a new root or
// anchor, or a bridge between two that are known. It becomes standby; a repeat changes nothing.
func (s *Service) InstallAuthority(ctx context.Context, der []byte, actor string) (Installed, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return Installed{}, problem.Invalid("This is not a certificate.").Because(err)
	}
	if !c.IsCA || !c.BasicConstraintsValid || c.KeyUsage&x509.KeyUsageCertSign == 0 || len(c.SubjectKeyId) == 0 || AlgorithmOf(c.PublicKey) == "" {
		return Installed{}, problem.Forbidden("ca.profile", "The certificate of %s is not that of an authority.", c.Subject)
	}
	if now := s.cfg.Clock.Now(); !now.Before(c.NotAfter) || now.Before(c.NotBefore) {
		return Installed{}, problem.Forbidden("ca.validity", "The certificate of %s is good from %s to %s only.", c.Subject, c.NotBefore.Format(time.DateOnly), c.NotAfter.Format(time.DateOnly))
	}
	all, err := s.Authorities(ctx)
	if err != nil {
		return Installed{}, err
	}
	var known Authority // a root or anchor over the same key
	for _, a := range all {
		if x, err := a.Certificate(); err == nil && bytes.Equal(x.RawSubjectPublicKeyInfo, c.RawSubjectPublicKeyInfo) {
			known = a
		}
	}
	switch {
	case known.ID != "" && bytes.Equal(known.Cert, der):
		return Installed{What: "authority", Authority: known}, nil
	case known.ID != "" && known.Role.Above() == known.Role:
		return s.installBridge(ctx, c, known, all, actor)
	case known.ID != "":
		return Installed{}, problem.Conflict("%s has another certificate already.", known.ID)
	case c.CheckSignatureFrom(c) == nil:
		return s.installRoot(ctx, c, all, actor)
	}
	return s.installRequested(ctx, c, all, actor)
}

// installRoot adopts a root or anchor that a ceremony made; its name says which.
func (s *Service) installRoot(ctx context.Context, c *x509.Certificate, all []Authority, actor string) (Installed, error) {
	keeper, err := s.RootKeeper()
	if err != nil {
		return Installed{}, err
	}
	role, name := Root, ""
	if len(c.Subject.OrganizationalUnit) == 1 {
		name = c.Subject.OrganizationalUnit[0]
	}
	if strings.HasPrefix(name, string(Anchor)) {
		role = Anchor
	}
	a := Authority{Role: role, Generation: 1, Backend: "offline", Algorithm: AlgorithmOf(c.PublicKey), Status: Standby, Cert: c.Raw,
		KeyID: hex.EncodeToString(c.SubjectKeyId), NotBefore: c.NotBefore, NotAfter: c.NotAfter, Created: s.cfg.Clock.Now()}
	for _, old := range all {
		if old.Role == role {
			a.Generation = old.Generation + 1
			break
		}
	}
	a.ID = AuthorityID(role, a.Generation)
	if name != a.ID {
		return Installed{}, problem.Conflict("The certificate calls itself %q (OU of its subject), but %s is next here.", name, a.ID).
			Hint("openthings ca ceremony --generation %d makes the next root and anchor.", a.Generation)
	}
	a.Parent = a.ID
	if err := keeper.Adopt(ctx, a.ID, c.Raw); err != nil {
		return Installed{}, problem.Unavailable("The issuer does not take the certificate.").Because(err)
	}
	return Installed{What: string(role), Authority: a}, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := putAuthority(tx, a); err != nil {
			return err
		}
		return s.changed(tx, "authority.installed", a, actor, map[string]any{"fingerprint": Fingerprint(c.Raw)})
	})
}

// installRequested gives a requested authority its certificate.
func (s *Service) installRequested(ctx context.Context, c *x509.Certificate, all []Authority, actor string) (Installed, error) {
	rotator, ok := s.cfg.Issuer.(Rotator)
	if !ok {
		return Installed{}, problem.Unavailable("The issuer in use takes no authorities.")
	}
	if !c.MaxPathLenZero || c.MaxPathLen != 0 {
		return Installed{}, problem.Forbidden("ca.profile", "The certificate of %s would allow authorities below it.", c.Subject)
	}
	for _, a := range all {
		if a.Status != Requested || len(c.Subject.OrganizationalUnit) != 1 || c.Subject.OrganizationalUnit[0] != a.ID {
			continue
		}
		above, err := aboveOf(c, a.Role.Above(), all)
		if err != nil {
			return Installed{}, err
		}
		if err := rotator.Install(ctx, a.ID, c.Raw); err != nil {
			return Installed{}, problem.Invalid("The issuer does not take the certificate.").Because(err)
		}
		a.Status, a.Parent, a.Cert, a.KeyID = Standby, above.ID, c.Raw, hex.EncodeToString(c.SubjectKeyId)
		a.Algorithm, a.NotBefore, a.NotAfter = AlgorithmOf(c.PublicKey), c.NotBefore, c.NotAfter
		return Installed{What: "authority", Authority: a}, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
			if err := putAuthority(tx, a); err != nil {
				return err
			}
			return s.changed(tx, "authority.installed", a, actor, map[string]any{"fingerprint": Fingerprint(c.Raw), "parent": above.ID})
		})
	}
	return Installed{}, problem.NotFound("No authority that was requested here has this name and key: %s.", c.Subject).Hint("openthings ca request makes a request.")
}

// aboveOf is the root or anchor that signed c and is still good.
func aboveOf(c *x509.Certificate, role Role, all []Authority) (Authority, error) {
	for _, a := range all {
		if a.Role != role || a.Status == Compromised || a.Status == Retired {
			continue
		}
		if x, err := a.Certificate(); err == nil && c.CheckSignatureFrom(x) == nil {
			return a, nil
		}
	}
	return Authority{}, problem.Forbidden("ca.parent", "No %s that is known here signed the certificate of %s.", role, c.Subject).
		Hint("Install the new %s first.", role)
}

// PromoteAuthority makes a standby authority the one that signs what is new; the one before retires. When it stands
// below another root than the one before, so many devices must have acknowledged a trust bundle with that root as the
// gate demands; a reason forces it.
func (s *Service) PromoteAuthority(ctx context.Context, id string, percent float64, force, actor string) (Authority, error) {
	a, err := s.Authority(ctx, id)
	if err != nil {
		return Authority{}, err
	}
	if a.Status == Active {
		return a, nil
	}
	if a.Status != Standby {
		return Authority{}, problem.Conflict("%s is %s; only one on standby can be promoted.", id, a.Status)
	}
	if percent == 0 && force == "" { // left out, or a gate that lets everything pass and leaves no reason in the log
		return Authority{}, problem.Invalid("It is not said how many devices must know the root above %s.", id).At("percent").
			Hint("Say a share above 0; to go without the devices, force it with a reason that goes into the log: --force REASON.")
	}
	gate, err := s.Gate(ctx, a, percent)
	if err != nil {
		return Authority{}, err
	}
	if !gate.Open && force == "" {
		return Authority{}, gate.refusal(a)
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		old, err := activeAuthority(tx.QueryRow, a.Role)
		if err != nil && !problem.Is(err, problem.KindUnavailable) {
			return err
		}
		if err == nil {
			if err := setStatus(tx, old.ID, Active, Retiring); err != nil {
				return err
			}
		}
		if err := setStatus(tx, a.ID, Standby, Active); err != nil {
			return err
		}
		a.Status = Active
		data := map[string]any{"before": old.ID, "gate": gate}
		if force != "" {
			data["forced"] = force
		}
		return s.changed(tx, "authority.promoted", a, actor, data)
	})
	return a, err
}

// setStatus moves an authority while its old status still holds.
func setStatus(tx *store.Tx, id string, from, to Status) error {
	n, err := tx.Exec(`UPDATE authority SET status = $1 WHERE id = $2 AND status = $3`, to, id, from)
	if err == nil && n != 1 {
		err = problem.Conflict("The status of %s has just changed.", id)
	}
	return err
}

// RetireAuthority ends an authority that retires, once nothing it signed is in service any more: for one that signs
// devices, when its last certificate that is active or pending has ended; for a root or anchor, when no authority below
// it signs or is trusted. The next bundle no longer names it then.
func (s *Service) RetireAuthority(ctx context.Context, id, actor string) (Authority, error) {
	a, err := s.Authority(ctx, id)
	if err != nil {
		return Authority{}, err
	}
	if a.Status != Retiring {
		return Authority{}, problem.Conflict("%s is %s; only one that is retiring can be retired.", id, a.Status)
	}
	all, err := s.Authorities(ctx)
	if err != nil {
		return Authority{}, err
	}
	for _, b := range all {
		if b.Parent == a.ID && b.ID != a.ID && b.Status != Retired && b.Status != Compromised {
			return Authority{}, problem.Forbidden("ca.in-use", "%s stands below %s and is %s.", b.ID, a.ID, b.Status)
		}
	}
	n, last, err := inService(s.reads(ctx), a.ID, s.cfg.Clock.Now()) // not in the transaction: it reads all that the authority signed
	if err != nil {
		return Authority{}, err
	}
	if n > 0 {
		return Authority{}, problem.Forbidden("ca.in-use", "%d certificates of %s are in service, the last until %s.", n, a.ID, last.Format(time.DateOnly)).
			Hint("It may retire after the longest life of a certificate.")
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := setStatus(tx, a.ID, Retiring, Retired); err != nil {
			return err
		}
		a.Status = Retired
		return s.changed(tx, "authority.retired", a, actor, map[string]any{})
	})
	return a, err
}

// inService counts the certificates of an authority that a door would still admit. IDevIDs have no end: their authority
// retires with the last device.
func inService(q querier, id string, now time.Time) (n int64, last time.Time, err error) {
	var end int64
	err = q(`SELECT count(*), coalesce(max(not_after), 0) FROM certificate WHERE authority = $1 AND phase IN ($2, $3) AND not_after > $4`,
		id, PhaseActive, PhasePending, store.Millis(now)).Scan(&n, &end)
	return n, store.Time(end), err
}

// CompromiseAuthority ends the trust in everything that an authority signed, at once and for ever. A standby one of its
// role takes its place if it was active; without one nothing of the role is issued until another is promoted.
func (s *Service) CompromiseAuthority(ctx context.Context, id, actor, reason string) (Authority, error) {
	a, err := s.Authority(ctx, id)
	if err != nil {
		return Authority{}, err
	}
	if reason == "" {
		return Authority{}, problem.Invalid("Say what happened.").At("reason")
	}
	if a.Status == Compromised {
		return a, nil
	}
	all, err := s.Authorities(ctx)
	if err != nil {
		return Authority{}, err
	}
	lost := []Authority{a}
	for _, b := range all { // whoever holds a root's key can be every authority below it
		if b.Parent == a.ID && b.ID != a.ID && b.Status != Compromised {
			lost = append(lost, b)
		}
	}
	a.Status = Compromised
	return a, s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error {
		for _, b := range lost {
			if err := setStatus(tx, b.ID, b.Status, Compromised); err != nil {
				return err
			}
			if err := s.Bar(tx, "", ScopeAuthority, b.ID, actor, reason); err != nil {
				return err
			}
			if err := s.changed(tx, "authority.compromised", b, actor, map[string]any{"reason": reason, "was": b.Status}); err != nil {
				return err
			}
			if err := s.cfg.DB.Emit(tx, "authority.compromised", "", b.ID, map[string]any{"reason": reason}); err != nil {
				return err
			}
		}
		for _, b := range lost {
			if b.Status != Active {
				continue
			}
			next := slices.IndexFunc(all, func(c Authority) bool {
				return c.Role == b.Role && c.Status == Standby && !slices.ContainsFunc(lost, func(l Authority) bool { return l.ID == c.ID })
			})
			if next < 0 {
				continue
			}
			if err := setStatus(tx, all[next].ID, Standby, Active); err != nil {
				return err
			}
			if err := s.changed(tx, "authority.promoted", all[next], actor, map[string]any{"before": b.ID, "forced": "the one before is compromised"}); err != nil {
				return err
			}
		}
		return nil
	})
}
