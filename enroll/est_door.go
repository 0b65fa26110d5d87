// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

const (
	estRoot = "/.well-known/est/"
	notYet  = 5 * time.Second // how long a unit is asked to wait for a person, or for its own report
)

// estDoors mounts EST (RFC 7030), with and without a label. A label selects a policy of the tenant of the certificate
// that was shown; it never says who the device is.
func (s *Service) estDoors(g *gateway.Gateway) {
	for _, root := range []string{estRoot, estRoot + "{label}/"} {
		mount := func(method, operation string, need gateway.Kind, h func(http.ResponseWriter, *http.Request, gateway.Peer) error, also ...gateway.Kind) {
			g.Route(method+" "+root+operation, need, func(w http.ResponseWriter, r *http.Request, p gateway.Peer) {
				if err := h(w, r, p); err != nil {
					s.failEST(w, r, p, err)
				}
			}, also...)
		}
		mount("GET", "cacerts", gateway.None, s.caCerts)
		mount("GET", "csrattrs", gateway.None, s.csrAttrs)
		mount("POST", "simpleenroll", gateway.IDevID, s.simpleEnroll)
		mount("POST", "simplereenroll", gateway.LDevID, s.simpleReenroll, gateway.Lapsed)
		if root == estRoot {
			mount("POST", tokenLabel+"/simpleenroll", gateway.None, s.tokenEnroll)
		}
		mount("POST", "fullcmc", gateway.None, notServed("Full CMC (RFC 7030 4.3) is not served here.", "Use simpleenroll and simplereenroll."))
		mount("POST", "serverkeygen", gateway.None, notServed("Keys are not made by this server (RFC 7030 4.4): a key that was never outside its device cannot leak on the way to it.",
			"Make the key on the device and use simpleenroll."))
	}
}

func notServed(text, hint string) func(http.ResponseWriter, *http.Request, gateway.Peer) error {
	return func(http.ResponseWriter, *http.Request, gateway.Peer) error {
		return problem.NotFound("%s", text).Hint("%s", hint)
	}
}

// failEST answers with text for people, as RFC 7030 4.2.3 says: 202 and Retry-After for what may succeed later by
// itself, and else what was wrong. The last line names the rule, for programs.
func (s *Service) failEST(w http.ResponseWriter, r *http.Request, p gateway.Peer, err error) {
	e := problem.Of(err)
	status := problem.Kinds[e.Kind].Status
	var l *later
	switch {
	case errors.As(err, &l):
		status = http.StatusAccepted
		w.Header().Set("Retry-After", strconv.FormatInt(seconds(l.wait), 10))
	case status == http.StatusServiceUnavailable: // those who wait for the same thing come back one after the other
		w.Header().Set("Retry-After", strconv.FormatInt(seconds(30*time.Second+jitter(p.Device, time.Minute)), 10))
	case status == http.StatusTooManyRequests:
		w.Header().Set("Retry-After", strconv.FormatInt(seconds(time.Hour), 10))
	}
	if status >= 500 {
		s.cfg.Log.ErrorContext(r.Context(), "request of a device failed", slog.String("path", r.URL.Path), slog.String("device", p.Device), slog.Any("error", err))
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	text := e.Text
	if e.Help != "" {
		text += " " + e.Help
	}
	if e.Rule != "" {
		text += "\nrule: " + e.Rule
	}
	io.WriteString(w, text+"\n") //nolint:errcheck // nothing can be said to a peer that is gone
}

// asks is who asks, and the policy that applies to the request.
func (s *Service) asks(r *http.Request, p gateway.Peer) (identity.Device, Policy, error) {
	d, err := s.cfg.Identity.Get(r.Context(), p.Tenant, p.Device)
	if err != nil {
		return d, Policy{}, problem.Unavailable("The register cannot be read.").Because(err)
	}
	pol, err := s.PolicyFor(r.Context(), d.Tenant, d.Product, r.PathValue("label"))
	return d, pol, err
}

// asksOpenly is asks for what anybody may read: without a device's certificate there is no device, and any label that
// could be one has the platform's own policy, so that nobody learns which there are.
func (s *Service) asksOpenly(r *http.Request, p gateway.Peer) (*identity.Device, Policy, error) {
	if p.Device != "" {
		d, pol, err := s.asks(r, p)
		return &d, pol, err
	}
	if label := r.PathValue("label"); label != "" && checkLabel(label) != nil {
		return nil, Policy{}, problem.NotFound("There is no enrolment policy %q.", label)
	}
	return nil, builtin(), nil
}

func (s *Service) caCerts(w http.ResponseWriter, r *http.Request, p gateway.Peer) error {
	if _, _, err := s.asksOpenly(r, p); err != nil {
		return err
	}
	chain, err := s.cfg.Identity.CACerts(r.Context())
	if err != nil {
		return err
	}
	ders := make([][]byte, len(chain))
	for i, c := range chain {
		ders[i] = c.Raw
	}
	return answer(w, ders...)
}

func (s *Service) csrAttrs(w http.ResponseWriter, r *http.Request, p gateway.Peer) error {
	d, pol, err := s.asksOpenly(r, p)
	if err != nil {
		return err
	}
	der, err := csrAttributes(preferred(pol), d)
	if err != nil {
		return err
	}
	return answerDER(w, "application/csrattrs", der)
}

func (s *Service) simpleEnroll(w http.ResponseWriter, r *http.Request, p gateway.Peer) error {
	d, pol, err := s.asks(r, p)
	if err != nil {
		return err
	}
	csr, err := estRequest(w, r, pol.Keys)
	if err != nil {
		return err
	}
	if err := errors.Join(csr.OnlyFor(identity.DeviceURI(p.Tenant, p.Device).String()), csr.Names(d)); err != nil {
		return err
	}
	var v verdict
	return s.certify(w, r, request{p, d, pol, csr}, func(ctx context.Context) (err error) {
		if err := pol.shown(len(r.TLS.PeerCertificates) - 1); err != nil {
			return err
		}
		if v.grade, v.why, err = gradeOf(s.reads(ctx), d, csr.KeyHash); err != nil {
			return err
		}
		return s.mayEnrol(ctx, d, pol, csr, v.grade)
	}, func(*store.Tx) (verdict, error) { return v, nil })
}

func (s *Service) simpleReenroll(w http.ResponseWriter, r *http.Request, p gateway.Peer) error {
	d, pol, err := s.asks(r, p)
	if err != nil {
		return err
	}
	csr, err := estRequest(w, r, pol.Keys)
	if err != nil {
		return err
	}
	if err := csr.Keeps(p.Cert); err != nil {
		return err
	}
	return s.certify(w, r, request{p, d, pol, csr}, nil, func(tx *store.Tx) (verdict, error) { return s.mayRenew(tx, p, d, pol, csr.KeyHash) })
}

// request is one for an LDevID: who asks, by which policy, and for which key.
type request struct {
	p   gateway.Peer
	d   identity.Device
	pol Policy
	csr *identity.CSR
}

// verdict is what was found about a request that nothing speaks against. also runs in the transaction that makes the
// certificate known; it may be nil.
type verdict struct {
	grade identity.Grade
	why   string
	also  func(*store.Tx) error
}

// certify gives the device its LDevID when it is the device's turn and nothing is against it. What takes time or asks
// others is asked by before, which may be nil; decide is asked in the transaction that writes the intent, and there the
// ask for the key is noted as well. A request that is refused is noted by itself: two units with one identity are found
// out whether they get anything or not.
func (s *Service) certify(w http.ResponseWriter, r *http.Request, q request, before func(context.Context) error, decide func(*store.Tx) (verdict, error)) error {
	ctx := r.Context()
	leave, err := s.crowd.enter(ctx, q.d.ID)
	if err != nil {
		return s.turnedAway(ctx, q, err)
	}
	defer leave()
	if before != nil {
		if err := before(ctx); err != nil {
			return s.turnedAway(ctx, q, err)
		}
	}
	ask := identity.IssueRequest{Tenant: q.d.Tenant, Subject: q.d.ID, Kind: identity.LDevID, CSR: q.csr, Actor: q.d.ID, Life: q.pol.Life(), With: q.p.Fingerprint}
	var intent identity.Intent
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := s.noteAsk(tx, q.p, q.csr.KeyHash); err != nil {
			return err
		}
		v, err := decide(tx)
		if err != nil {
			return err
		}
		ask.Grade, ask.Why, ask.Finish = v.grade, v.why, v.also
		intent, err = s.cfg.Identity.Intend(tx, ask)
		return err
	})
	if err != nil {
		return s.turnedAway(ctx, q, err)
	}
	c, _, err := s.cfg.Identity.Complete(ctx, ask, intent)
	if err != nil {
		return s.suspects(ctx, q, err)
	}
	return answer(w, c.DER) // that certificate only (RFC 7030 4.2.3); the authorities are in cacerts
}

// turnedAway notes the ask of a request that came to nothing, and returns why it did.
func (s *Service) turnedAway(ctx context.Context, q request, why error) error {
	var two *twoHolders
	if !errors.As(why, &two) {
		if err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.noteAsk(tx, q.p, q.csr.KeyHash) }); err == nil {
			return s.suspects(ctx, q, why)
		} else if !errors.As(err, &two) {
			return errors.Join(why, err)
		}
	}
	if err := s.cloned(ctx, q.d.Tenant, CloneIDevID, q.d.ID, []string{q.d.ID}, two.seen...); err != nil {
		return err
	}
	return problem.Forbidden("enroll.clone", "Two units ask with the identity of this device; it is suspended.")
}

// suspects looks whether the refusal shows a clone, and returns it.
func (s *Service) suspects(ctx context.Context, q request, why error) error {
	seen := Sighting{Device: q.d.ID, Serial: q.d.Serial, Place: place(q.p.From), Door: "est", Key: q.csr.KeyHash, Detail: "asks for an LDevID"}
	return s.suspect(ctx, why, seen, q.d.Tenant, q.d.Product)
}

// mayEnrol is everything that stands between a device and its certificate of operation when it comes with its IDevID.
func (s *Service) mayEnrol(ctx context.Context, d identity.Device, pol Policy, csr *identity.CSR, grade identity.Grade) error {
	if err := errors.Join(s.notDenied(s.reads(ctx), d.Tenant, d.ID), pol.admits(d)); err != nil {
		return err
	}
	if d.State == identity.Provisioned || d.State == identity.Pending {
		if err := s.waitsForHold(ctx, d); err != nil {
			return err
		}
	}
	if pol.Preauthorised {
		if err := s.announced(ctx, d); err != nil {
			return err
		}
	}
	if d.State == identity.Provisioned && pol.Approval != Automatical {
		if err := s.knock(ctx, d.Tenant, d.ID); err != nil {
			return err
		}
		return &later{problem.Forbidden("enroll.unclaimed", "The device has not been claimed yet.").Hint("Claim it with the code on its box, or approve it in the lobby; it enrols by itself then."), notYet}
	}
	if d.State == identity.Provisioned || d.State == identity.Pending {
		if err := s.fulfilsBaseline(ctx, d); err != nil {
			return err
		}
	}
	if err := pol.sure(grade); err != nil {
		return err
	}
	if err := s.ask(ctx, Question{Kind: AskEnrol, Tenant: d.Tenant, Product: d.Product, Batch: d.Batch, Device: d.ID, Serial: d.Serial, Key: csr.KeyHash}); err != nil {
		return err
	}
	if d.State != identity.Provisioned {
		return nil
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		actor := "policy/" + pol.Label
		if err := s.cfg.Identity.SetSolution(tx, d.Tenant, d.ID, pol.Solution); err != nil {
			return err
		}
		if err := leaveLobby(tx, d.Tenant, d.ID, actor, s.now()); err != nil {
			return err
		}
		if err := spendClaim(tx, d.Tenant, d.ID, pol.Solution, s.now()); err != nil {
			return err
		}
		return s.cfg.Identity.SetState(tx, d.Tenant, d.ID, identity.Pending, actor, "approved by policy")
	})
}

// announced refuses a device whose serial number was not preauthorised, or was for another one.
func (s *Service) announced(ctx context.Context, d identity.Device) error {
	refusal := problem.Forbidden(RulePreauthorised, "The serial number %s was not announced.", d.Serial).Hint("Preauthorise it, alone or with a CSV file.")
	pre, err := preauthorisedSerial(s.reads(ctx), d.Tenant, d.Product, d.Serial)
	switch {
	case errors.Is(err, store.ErrNoRows), err == nil && !pre.Used.IsZero() && pre.Device != d.ID:
		return refusal
	case err != nil || !pre.Used.IsZero():
		return err
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.UsePreauthorised(tx, pre, d.ID) })
}

// mayRenew is everything that stands between a device and its next LDevID when it comes with the one that it has. A key
// of lower grade than policy demands is refused only where it is a step down: a demand that was raised later must not
// strand those who never fulfilled it.
func (s *Service) mayRenew(tx *store.Tx, p gateway.Peer, d identity.Device, pol Policy, keyHash string) (v verdict, err error) {
	now := s.now()
	switch {
	case p.Kind == gateway.Lapsed:
		if err := pol.lapse(p.Cert.NotAfter, now); err != nil {
			return v, err
		}
		v.also = func(tx *store.Tx) error {
			return audit.Append(tx, audit.Entry{Tenant: d.Tenant, Actor: d.ID, Kind: "device.returned", Subject: d.ID,
				Data: map[string]any{"with": p.Fingerprint, "ended": p.Cert.NotAfter, "policy": pol.Label, "policy_version": pol.Version}})
		}
	case pol.RenewDays > 0:
		signs, err := s.cfg.Identity.ActiveAuthorityTx(tx, identity.Operational)
		if err != nil {
			return v, err
		}
		if err := pol.renewal(p.Cert.NotAfter, now, signs.KeyID == hex.EncodeToString(p.Cert.AuthorityKeyId)); err != nil {
			return v, err
		}
	}
	if v.grade, v.why, err = gradeOf(tx.QueryRow, d, keyHash); err == nil && d.Grade.AtLeast(pol.Grade) {
		err = pol.sure(v.grade)
	}
	return v, err
}

// estRequest reads a certificate request for one of the key algorithms.
func estRequest(w http.ResponseWriter, r *http.Request, keys []identity.Algorithm) (*identity.CSR, error) {
	b, err := body(w, r, MaxEST)
	if err != nil {
		return nil, err
	}
	der, err := decodeEST(b)
	if err != nil {
		return nil, err
	}
	return identity.ParseCSR(der, keys...)
}

// answer sends certificates, each in DER, as a certs-only CMS.
func answer(w http.ResponseWriter, certs ...[]byte) error {
	der, err := certsOnly(certs...)
	if err != nil {
		return err
	}
	return answerDER(w, "application/pkcs7-mime; smime-type=certs-only", der)
}

// answerDER sends DER as base64. The header about it is for clients of RFC 7030; RFC 8951 reads none.
func answerDER(w http.ResponseWriter, contentType string, der []byte) error {
	text := encodeEST(der)
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Transfer-Encoding", "base64")
	h.Set("Content-Length", fmt.Sprint(len(text)))
	h.Set("Cache-Control", "no-store")
	_, err := w.Write(text)
	return err
}
