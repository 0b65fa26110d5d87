// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// IssueRequest asks for a certificate. Its names come from the register, never from the CSR.
type IssueRequest struct {
	Tenant  string
	Subject string // id of the device or station
	Kind    Kind
	CSR     *CSR
	Actor   string
	Origin  string        // station or trusted CA that brings it in; empty for EST
	Life    time.Duration // 0: the profile's; more than the profile allows is cut
	With    string        // fingerprint of the certificate that it is asked with; once that is revoked nothing comes of it. May be empty
	Grade   Grade         // how sure we are of the key, and Why; the device has it once the certificate is known. Empty: nothing is said
	Why     string
	// Finish runs in the transaction that makes the certificate known, only when it is new. May be nil.
	Finish func(tx *store.Tx) error
}

// Issue gives the subject its certificate for the key of the CSR. The same request again returns the same certificate;
// fresh says whether this one was new. A key that has a certificate of another subject or kind is a conflict: two
// devices with one key are a clone.
//
// A device moves along: its IDevID takes it from manufactured to provisioned, its first LDevID from pending to
// commissioned, in the transaction that makes the certificate known.
func (s *Service) Issue(ctx context.Context, r IssueRequest) (c Certificate, fresh bool, err error) {
	var in Intent
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		in, err = s.Intend(tx, r)
		return err
	})
	if err != nil {
		return Certificate{}, false, err
	}
	return s.Complete(ctx, r, in)
}

// Intend is the first half of Issue, for callers that write rows of their own in the same transaction: it decides
// about the certificate and makes the decision durable. Complete follows once the transaction is committed.
func (s *Service) Intend(tx *store.Tx, r IssueRequest) (Intent, error) {
	if err := s.Ready(); err != nil {
		return Intent{}, err
	}
	signs, err := activeSigner(tx, Profiles[r.Kind].Role)
	if err != nil {
		return Intent{}, err
	}
	d, err := r.receiver(tx, signs.ID, false)
	if err != nil {
		return Intent{}, err
	}
	name, uri, err := s.names(tx, r, d)
	if err != nil {
		return Intent{}, err
	}
	if err := s.UsableKey(tx, r.Tenant, r.CSR.KeyHash); err != nil {
		return Intent{}, err
	}
	if err := s.mayBegin(tx, d, r.Kind); err != nil {
		return Intent{}, err
	}
	now := s.cfg.Clock.Now()
	from, until := Profiles[r.Kind].validity(now, r.Life)
	until, ending := Profiles[r.Kind].within(signs, from, until)
	shard, err := s.takeShard(tx, signs.ID)
	if err != nil {
		return Intent{}, err
	}
	want := Intent{keyHash: r.CSR.KeyHash, tenant: r.Tenant, subject: r.Subject, kind: r.Kind, authority: signs.ID, shard: shard,
		serial: newSerial(), notBefore: from, notAfter: until}
	in, err := recordIntent(tx, want, now)
	if err != nil {
		return Intent{}, err
	}
	if !in.fresh && in.outdated(signs, now) {
		if in, err = renewIntent(tx, in, want, now); err != nil {
			return Intent{}, err
		}
	}
	if !in.fresh {
		s.returnShard(signs.ID, shard)
	}
	if in.tenant != r.Tenant || in.subject != r.Subject || in.kind != r.Kind {
		return Intent{}, errUsedKey()
	}
	if in.fresh && ending != nil { // a repeat gets what it was given before the end came near
		return Intent{}, ending
	}
	if in.fresh && r.Kind == LDevID {
		if err := mayAskAgain(tx, r.Subject, now); err != nil {
			return Intent{}, err
		}
	}
	in.name, in.uri, in.state = name, uri, d.State
	return in, nil
}

// outdated says of a decision that led to no certificate, since the issuer was away or the platform died, that it is not what
// would be decided now: another authority signs, or a good part of the life is over that it gave. Its certificate could
// come from an authority that signs nothing any more, or have ended before it is made.
func (in Intent) outdated(signs Authority, now time.Time) bool {
	return in.authority != signs.ID || now.After(in.notBefore.Add(in.notAfter.Sub(in.notBefore)/3))
}

// perDay bounds the LDevIDs that one device can make us issue, log and keep: a healthy one asks six times a year.
const perDay = 50

func mayAskAgain(tx *store.Tx, device string, now time.Time) error {
	n, err := countIntents(tx, device, LDevID, now.Add(-24*time.Hour))
	if err == nil && n > perDay {
		return problem.Limited("The device asked for more than %d certificates in a day.", perDay).
			Hint("A request that is repeated with the same key is not counted.")
	}
	return err
}

// names is what the register says the subject is called, once its state permits the certificate.
func (s *Service) names(tx *store.Tx, r IssueRequest, d Device) (pkix.Name, *url.URL, error) {
	if r.Kind == Station {
		return pkix.Name{Organization: []string{r.Tenant}, CommonName: r.Subject}, StationURI(r.Tenant, r.Subject), nil
	}
	if err := d.mayReceive(r.Kind); err != nil {
		return pkix.Name{}, nil, err
	}
	if r.Kind == LDevID {
		return deviceName(d), DeviceURI(d.Tenant, d.ID), nil
	}
	if d.State == Provisioned { // only a repeat of the request that gave it its IDevID
		c, err := certificateByKey(tx.QueryRow, r.Tenant, r.CSR.KeyHash)
		if errors.Is(err, store.ErrNoRows) || err == nil && c.Subject != d.ID {
			err = errOtherKey(d)
		}
		if err != nil {
			return pkix.Name{}, nil, err
		}
	}
	return deviceName(d), nil, nil
}

func errOtherKey(d Device) error {
	return ruled(problem.Conflict("The unit with the serial number %s already has its IDevID, for another key.", d.Serial), RuleUsedSerial).At("serial").
		Hint("A second unit that shows this serial number is a clone, or a label was printed twice.")
}

// mayReceive refuses a certificate that the device's state does not allow.
func (d Device) mayReceive(k Kind) error {
	switch {
	case k == IDevID && (d.State == Manufactured || d.State == Provisioned), k == LDevID && (d.State == Pending || d.State == Commissioned):
		return nil
	case k == LDevID && d.State == Provisioned:
		return problem.Forbidden("enroll.unclaimed", "The device has not been claimed yet.").Hint("Claim it with the code on its box, then try again.")
	}
	return problem.Forbidden("enroll.state", "A device that is %s gets no %s.", d.State, k)
}

// Complete is the second half of Issue.
func (s *Service) Complete(ctx context.Context, r IssueRequest, in Intent) (c Certificate, fresh bool, err error) {
	if !in.fresh {
		if c, err = s.issued(ctx, in); !errors.Is(err, store.ErrNoRows) {
			return c, false, err
		}
	}
	p := Profiles[in.kind]
	t, err := p.template(in.name, in.serial, in.notBefore, in.notAfter, r.CSR.PublicKey)
	if err != nil {
		return Certificate{}, false, err
	}
	if in.uri != nil {
		t.URIs = []*url.URL{in.uri}
	}
	s.stampStatus(t, in)
	der, err := s.cfg.Issuer.Sign(ctx, SignRequest{Authority: in.authority, Profile: p.Name, Template: t, Key: r.CSR.PublicKey, CSR: r.CSR.Raw})
	if err != nil {
		return Certificate{}, false, problem.Unavailable("The issuer cannot sign now.").Because(err)
	}
	signed, err := x509.ParseCertificate(der)
	if err != nil {
		return Certificate{}, false, fmt.Errorf("identity: what %s signed: %w", in.authority, err)
	}
	c = Certificate{Fingerprint: Fingerprint(der), Tenant: in.tenant, Subject: in.subject, Kind: in.kind, Phase: p.Phase, Authority: in.authority, Origin: r.Origin, Shard: in.shard,
		Serial: signed.SerialNumber.Text(16), KeyHash: in.keyHash, NotBefore: signed.NotBefore, NotAfter: signed.NotAfter, DER: der}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		fresh, err = insertCertificate(tx, c, s.cfg.Clock.Now())
		if err != nil || !fresh {
			return err
		}
		return s.enter(tx, r, c, in.state == Commissioned)
	})
	if err == nil && !fresh { // the same request was answered meanwhile; what was signed here is forgotten
		c, err = s.issued(ctx, in)
	}
	return c, fresh, err
}

// enter does what goes with a new certificate in the register. renewal is what it was when it was decided on.
func (s *Service) enter(tx *store.Tx, r IssueRequest, c Certificate, renewal bool) error {
	if c.Kind != Station {
		if err := s.receive(tx, r, c, renewal); err != nil {
			return err
		}
	}
	err := audit.Append(tx, audit.Entry{Tenant: c.Tenant, Actor: r.Actor, Kind: "certificate.issued", Subject: c.Subject, Data: issuedLeaf{
		Fingerprint: c.Fingerprint, KeyHash: c.KeyHash, Kind: c.Kind, NotAfter: c.NotAfter, Serial: c.Serial}})
	if err != nil || r.Finish == nil {
		return err
	}
	return r.Finish(tx)
}

// issuedLeaf is what the log is told of a new certificate.
type issuedLeaf struct {
	Fingerprint string    `json:"fingerprint"`
	KeyHash     string    `json:"key_hash"`
	Kind        Kind      `json:"kind"`
	NotAfter    time.Time `json:"not_after"`
	Serial      string    `json:"serial"`
}

// receive moves the device along that gets the certificate, if nothing has come between since it was decided on. A renewal
// holds the device's row from its first look on, so that a loss of trust comes before it or after it.
func (s *Service) receive(tx *store.Tx, r IssueRequest, c Certificate, renewal bool) error {
	d, err := r.receiver(tx, c.Authority, renewal)
	if err == nil && !renewal && c.Kind == LDevID && d.State == Commissioned { // it has become one meanwhile
		d, err = r.receiver(tx, c.Authority, true)
	}
	if err != nil {
		return err
	}
	if err := d.mayReceive(c.Kind); err != nil { // it may have changed while the issuer signed
		return err
	}
	if err := s.mayBegin(tx, d, c.Kind); err != nil {
		return err
	}
	switch {
	case d.State == Manufactured:
		err = s.move(tx, d, Provisioned, r.Actor, "")
	case d.State == Pending:
		err = s.move(tx, d, Commissioned, r.Actor, "")
	case c.Kind == IDevID:
		err = errOtherKey(d)
	default: // a renewal or a return
		if err = stillTrusted(tx, r); err == nil {
			err = trimPending(tx, c.Tenant, c.Subject, c.Fingerprint)
		}
	}
	if err != nil {
		return err
	}
	return s.setGrade(tx, d, r.Grade, r.Actor, r.Why)
}

// stillTrusted refuses a renewal whose certificate lost its trust while the issuer signed: who was cut off must not keep
// what it asked for just before. The device's row is held, and this is asked after it: on PostgreSQL a statement sees
// what was committed before it began, not before it got the row.
func stillTrusted(tx *store.Tx, r IssueRequest) error {
	if r.With == "" {
		return nil
	}
	var n int64
	err := tx.QueryRow(`SELECT count(*) FROM certificate WHERE tenant = $1 AND fp = $2 AND phase = $3`, r.Tenant, r.With, PhaseRevoked).Scan(&n)
	if err == nil && n > 0 {
		err = problem.Forbidden("identity.revoked", "The certificate that this one was asked with was revoked meanwhile.")
	}
	return err
}

// issued returns the certificate that the intent already led to; store.ErrNoRows if there is none.
func (s *Service) issued(ctx context.Context, in Intent) (Certificate, error) {
	c, err := certificateByKey(s.reads(ctx), in.tenant, in.keyHash)
	if err != nil {
		return Certificate{}, err
	}
	if c.Phase != PhasePending && c.Phase != PhaseActive || !s.cfg.Clock.Now().Before(c.NotAfter) {
		return Certificate{}, problem.Forbidden("identity.key-spent", "The certificate of this key is no longer good, and a key gets only one.").
			Hint("Make a new key and ask again.")
	}
	return c, nil
}
