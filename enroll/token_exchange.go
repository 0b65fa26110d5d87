// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// guesses bounds how often one network address may show tokens that do not work: five at once, one in six seconds in
// the long run. 128 bits cannot be guessed; the bound keeps whoever tries from costing more than a read. Addresses have
// a budget each, so nobody can use up another's.
var guesses = api.Limits{PerSecond: 1.0 / 6, Burst: 5}

// tokenEnroll answers POST /.well-known/est/token/simpleenroll: EST with HTTP authentication (RFC 7030 3.2.3) by an
// enrolment token, or with a claim certificate. What comes back is the device's own certificate of birth; its first
// operational one follows at /.well-known/est/simpleenroll.
func (s *Service) tokenEnroll(w http.ResponseWriter, r *http.Request, p gateway.Peer) error {
	t, err := s.presented(r, p)
	if err != nil {
		if problem.Is(err, problem.KindUnauthenticated) {
			w.Header().Set("WWW-Authenticate", `Basic realm="openthings enrolment token"`)
		}
		if wait, ok := api.RetryAfter(err); ok {
			w.Header().Set("Retry-After", wait)
		}
		return err
	}
	csr, err := estRequest(w, r, nil)
	if err != nil {
		return err
	}
	if err := csr.OnlyFor(""); err != nil {
		return err
	}
	c, err := s.exchange(r.Context(), t, csr, r.RemoteAddr)
	if err != nil {
		return err
	}
	return answer(w, c.DER)
}

// tokenLabel is the label of the door for tokens; no policy has it.
const tokenLabel = "token"

// presented is the token that a request shows.
func (s *Service) presented(r *http.Request, p gateway.Peer) (Token, error) {
	ctx := r.Context()
	if p.Kind == gateway.Claim {
		t, err := s.Token(ctx, p.Tenant, p.Station)
		if err != nil {
			return t, err
		}
		return t, t.alive()
	}
	_, text, basic := r.BasicAuth() // the user name says nothing
	if !basic {
		text, _ = strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	}
	if text == "" {
		return Token{}, problem.Unauthenticated("Send an enrolment token: as a bearer token, or as the password of basic authentication.")
	}
	address := api.Address(r)
	if err := s.guesses.Take(address, 0); err != nil {
		return Token{}, err
	}
	t, err := Token{}, error(problem.NotFound("This is no enrolment token."))
	if strings.HasPrefix(text, tokenPrefix) && len(text) <= 64 {
		t, err = tokenBySecret(s.reads(ctx), hashToken(text))
	}
	if problem.Is(err, problem.KindNotFound) {
		if err := s.guesses.Take(address, 1); err != nil {
			return Token{}, err
		}
		return Token{}, problem.Unauthenticated("This enrolment token does not work.")
	}
	if err != nil {
		return Token{}, err
	}
	return t, t.alive()
}

// exchange gives a new device its certificate of birth and uses the token once. The same request again gives the same
// certificate, also when the token has ended meanwhile, and uses nothing.
func (s *Service) exchange(ctx context.Context, t Token, csr *identity.CSR, from string) (identity.Certificate, error) {
	serial := csr.Subject.SerialNumber
	if err := t.takes(serial); err != nil {
		return identity.Certificate{}, s.refusedByToken(ctx, t, serial, err)
	}
	if err := csr.Names(identity.Device{Tenant: t.Tenant, Serial: serial}); err != nil {
		return identity.Certificate{}, err
	}
	var had identity.Certificate
	known := func(tx *store.Tx) (err error) {
		had, err = s.exchanged(tx, t, serial, csr.KeyHash)
		return err
	}
	err := s.cfg.DB.View(ctx, known)
	if err == nil && had.Fingerprint == "" { // the hook is asked once, not about each lost answer
		if err := s.ask(ctx, Question{Kind: AskRegister, Tenant: t.Tenant, Product: t.Product, Serial: serial, Key: csr.KeyHash}); err != nil {
			return identity.Certificate{}, err
		}
	}
	r := identity.IssueRequest{Tenant: t.Tenant, Kind: identity.IDevID, CSR: csr, Actor: t.ID, Origin: t.ID}
	var intent identity.Intent
	var d identity.Device
	if err == nil {
		err = s.cfg.DB.Write(ctx, func(tx *store.Tx) (err error) {
			if err = known(tx); err != nil || had.Fingerprint != "" {
				return err
			}
			if d, err = s.unitOfToken(tx, t, serial, csr.KeyHash); err != nil {
				return err
			}
			r.Subject = d.ID
			intent, err = s.cfg.Identity.Intend(tx, r)
			return err
		})
	}
	if err != nil {
		seen := Sighting{by: t.ID, Door: ByToken, Place: place(from), Key: csr.KeyHash, Serial: serial, Detail: "the enrolment token " + t.ID}
		return identity.Certificate{}, s.refusedByToken(ctx, t, serial, s.suspect(ctx, err, seen, t.Tenant, t.Product))
	}
	if had.Fingerprint != "" { // the answer was lost; the device may have gone on meanwhile
		x, err := had.Parse()
		if err == nil && x.Subject.SerialNumber != serial {
			err = errSerialTaken(serial)
		}
		return had, err
	}
	r.Finish = func(tx *store.Tx) error {
		return s.seat(tx, d, t.Solution, ByToken, t.ID, map[string]string{"token": t.ID, "name": t.Name, "kind": t.Kind, "place": place(from)})
	}
	c, _, err := s.cfg.Identity.Complete(ctx, r, intent)
	return c, err
}

// exchanged is the certificate that the key got for this token before; its fingerprint is empty if there is none.
func (s *Service) exchanged(tx *store.Tx, t Token, serial, keyHash string) (identity.Certificate, error) {
	c, err := s.cfg.Identity.CertificateOfKey(tx, t.Tenant, keyHash)
	if problem.Is(err, problem.KindNotFound) || err == nil && (c.Kind != identity.IDevID || c.Origin != t.ID) {
		return identity.Certificate{}, nil
	}
	if err == nil {
		err = s.noTombstone(tx, t.Tenant, t.Product, serial, keyHash)
	}
	return c, err
}

// unitOfToken returns the device with the serial number that this token named before, or registers it and uses the
// token once.
func (s *Service) unitOfToken(tx *store.Tx, t Token, serial, keyHash string) (identity.Device, error) {
	if err := s.noTombstone(tx, t.Tenant, t.Product, serial, keyHash); err != nil {
		return identity.Device{}, err
	}
	d, err := s.cfg.Identity.BySerialTx(tx, t.Tenant, t.Product, serial)
	switch {
	case err == nil && d.Origin != t.ID:
		if err := t.open(s.now()); err != nil { // whoever finds an ended token accuses nobody with it
			return d, err
		}
		return d, errSerialTaken(serial)
	case err == nil && d.State != identity.Manufactured && !s.now().Before(t.Expires):
		return d, t.open(s.now())
	case err == nil || !problem.Is(err, problem.KindNotFound):
		return d, err
	}
	now := s.now()
	n, err := tx.Exec(`UPDATE enrol_token SET used = used + 1 WHERE tenant = $1 AND id = $2 AND revoked = 0 AND used < quota AND expires > $3`, t.Tenant, t.ID, store.Millis(now))
	if err != nil {
		return d, err
	}
	if n == 0 {
		if t, err = tokenByID(tx.QueryRow, t.Tenant, t.ID); err == nil {
			err = t.open(now)
		}
		return d, err
	}
	announced, err := s.Preauthorised(tx, t.Tenant, t.Product, serial)
	isAnnounced := err == nil
	if err != nil && (t.Listed || problem.Of(err).Rule != RuleListed) {
		return d, err
	}
	d, err = s.cfg.Identity.Register(tx, identity.Device{Tenant: t.Tenant, Product: t.Product, Revision: t.Revision, Serial: serial, Origin: t.ID}, t.ID)
	if err != nil {
		return d, err
	}
	if isAnnounced {
		if err := s.UsePreauthorised(tx, announced, d.ID); err != nil {
			return d, err
		}
	}
	return d, audit.Append(tx, audit.Entry{Tenant: t.Tenant, Actor: t.ID, Kind: "enrol-token.used", Subject: t.ID, Data: map[string]any{"device": d.ID, "serial": serial, "key_hash": keyHash}})
}

func errSerialTaken(serial string) error {
	e := problem.Conflict("A unit with the serial number %s came in by another way already.", serial).At("csr")
	e.Rule = identity.RuleUsedSerial
	return e
}

// refusedByToken counts an exchange that was refused, and returns why.
func (s *Service) refusedByToken(ctx context.Context, t Token, serial string, why error) error {
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		var n int64
		if err := tx.QueryRow(`UPDATE enrol_token SET refused = refused + 1 WHERE tenant = $1 AND id = $2 RETURNING refused`, t.Tenant, t.ID).Scan(&n); err != nil || n > 1 {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: t.Tenant, Actor: t.ID, Kind: "enrol-token.refused", Subject: t.ID, Data: map[string]any{"serial": serial, "rule": problem.Of(why).Rule}})
	})
	return errors.Join(why, err)
}
