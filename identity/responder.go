// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/identity/status"
)

// ocspProfile is for the delegated responders (RFC 6960 4.2.2.2). It is of no role: each authority has a responder of its
// own, whose key lives in memory only and whose certificate is so short that it needs no revocation of its own.
var ocspProfile = Profile{Name: "ocsp", Usage: x509.ExtKeyUsageOCSPSigning, Life: 7 * 24 * time.Hour, Slack: time.Hour, Truncate: true}

const (
	ocspLife  = 10 * time.Minute // how long an answer may be kept: a revocation is heard of after this at the latest
	ocspBusy  = 32               // answers in the making; whoever comes on top is told to try later
	ocspAgain = 10 * time.Second // how long what failed is not tried again, and what is unknown not looked for
)

// responders holds what answers for each authority.
type responders struct {
	busy chan struct{}

	mu      sync.Mutex // guards the fields below
	names   map[issuerName]string
	read    time.Time // when the authorities were last read
	signers map[string]*responder
}

type issuerName struct {
	hash crypto.Hash
	status.Issuer
}

type responder struct {
	cert   *x509.Certificate
	key    crypto.Signer
	failed time.Time // of the last attempt to renew it
	err    error
}

// ending names a responder that was not renewed in time.
func (r *responders) ending(now time.Time) (authority string, end time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, a := range r.signers {
		if a.err != nil && a.cert != nil && now.After(renewAt(a.cert)) && (end.IsZero() || a.cert.NotAfter.Before(end)) {
			authority, end = id, a.cert.NotAfter
		}
	}
	return authority, end
}

var ocspHashes = []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384, crypto.SHA512}

// authorityOf is the authority that the client means; empty if it is none of ours.
func (s *Service) authorityOf(ctx context.Context, id status.CertID) (string, error) {
	if id.Hash == 0 {
		return "", nil
	}
	r := &s.responders
	r.mu.Lock()
	defer r.mu.Unlock()
	want := issuerName{id.Hash, id.Issuer()}
	now := s.cfg.Clock.Now()
	if a, ok := r.names[want]; ok || now.Sub(r.read).Abs() < ocspAgain {
		return a, nil
	}
	as, err := s.Authorities(ctx)
	if err != nil {
		return "", err
	}
	r.names, r.read = map[issuerName]string{}, now
	for _, a := range as {
		if len(a.Cert) == 0 {
			continue
		}
		c, err := a.Certificate()
		if err != nil {
			return "", fmt.Errorf("identity: authority %s: %w", a.ID, err)
		}
		for _, h := range ocspHashes {
			n, err := status.IssuerOf(h, c)
			if err != nil {
				return "", err
			}
			r.names[issuerName{h, n}] = a.ID
		}
	}
	return r.names[want], nil
}

// responder is what signs for the authority, renewed at two thirds of its life.
func (s *Service) responder(ctx context.Context, authority string) (*responder, error) {
	r := &s.responders
	r.mu.Lock()
	defer r.mu.Unlock()
	now := s.cfg.Clock.Now()
	have := r.signers[authority]
	if have == nil {
		have = &responder{}
		r.signers[authority] = have
	}
	if have.cert != nil && serves(have.cert, now) {
		return have, nil
	}
	if now.Sub(have.failed).Abs() >= ocspAgain || have.failed.IsZero() {
		cert, key, err := s.newResponder(ctx, authority, now)
		if err == nil {
			r.signers[authority] = &responder{cert: cert, key: key}
			return r.signers[authority], nil
		}
		have.failed, have.err = s.cfg.Clock.Now(), err // an issuer that lets us wait is not asked again at once
		s.cfg.Log.Error("an OCSP responder could not be made or renewed", "authority", authority, "err", err)
	}
	if have.cert != nil && now.Before(have.cert.NotAfter) {
		return have, nil
	}
	return nil, have.err
}

func (s *Service) newResponder(ctx context.Context, authority string, now time.Time) (*x509.Certificate, crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	name := pkix.Name{CommonName: "OpenThings OCSP " + authority}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: name}, key)
	if err != nil {
		return nil, nil, err
	}
	signs, err := s.Authority(ctx, authority)
	if err != nil {
		return nil, nil, err
	}
	from, until := ocspProfile.validity(now, 0)
	if until, err = ocspProfile.within(signs, from, until); err != nil {
		return nil, nil, err
	}
	t, err := ocspProfile.template(name, newSerial(), from, until, key.Public())
	if err != nil {
		return nil, nil, err
	}
	t.ExtraExtensions = []pkix.Extension{status.NoCheck()}
	der, err := s.cfg.Issuer.Sign(ctx, SignRequest{Authority: authority, Profile: ocspProfile.Name, Template: t, Key: key.Public(), CSR: csr})
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}

// serveOCSP answers POST /ocsp and GET /ocsp/{base64} (RFC 6960 A.1) to everybody. Refusals are answers too.
func (s *Service) serveOCSP(w http.ResponseWriter, r *http.Request) {
	var der []byte
	var err error
	switch r.Method {
	case http.MethodPost:
		if t, _, terr := mime.ParseMediaType(r.Header.Get("Content-Type")); terr != nil || t != "application/ocsp-request" {
			http.Error(w, "The body has to be application/ocsp-request.", http.StatusUnsupportedMediaType)
			return
		}
		der, err = io.ReadAll(http.MaxBytesReader(w, r.Body, status.MaxRequest))
	case http.MethodGet:
		text := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/ocsp"), "/")
		if len(text) > 2*status.MaxRequest {
			err = status.ErrMalformed
		} else {
			der, err = base64.StdEncoding.DecodeString(text)
		}
	default:
		w.Header().Set("Allow", "GET, POST")
		http.Error(w, "GET or POST.", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "application/ocsp-response")
	var q status.Request
	if err == nil {
		q, err = status.ParseRequest(der)
	}
	if err != nil {
		w.Write(status.Malformed) //nolint:errcheck // the client left
		return
	}
	select {
	case s.responders.busy <- struct{}{}:
		defer func() { <-s.responders.busy }()
	default:
		w.Write(status.TryLater) //nolint:errcheck // the client left
		return
	}
	answer, until := s.answer(r.Context(), q)
	if !until.IsZero() && r.Method == http.MethodGet && q.Nonce == nil { // RFC 5019 6.2
		h, now := w.Header(), s.cfg.Clock.Now()
		h.Set("Cache-Control", fmt.Sprintf("public, max-age=%d, no-transform, must-revalidate", int(until.Sub(now).Seconds())))
		h.Set("Last-Modified", now.UTC().Format(http.TimeFormat))
		h.Set("Expires", until.UTC().Format(http.TimeFormat))
		h.Set("ETag", `"`+Fingerprint(answer)+`"`)
	} else {
		w.Header().Set("Cache-Control", "no-store")
	}
	w.Write(answer) //nolint:errcheck // the client left
}

// answer asks the register and signs. Until is zero for what may not be kept. A node that cannot tell what is revoked, as
// after a restore, says so and never "good".
func (s *Service) answer(ctx context.Context, q status.Request) (body []byte, until time.Time) {
	if err := s.Ready(); err != nil {
		return status.TryLater, time.Time{}
	}
	now := s.cfg.Clock.Now().UTC().Truncate(time.Second)
	a := status.Answer{Request: q, Produced: now, Until: now.Add(ocspLife)}
	authority := ""
	for _, id := range q.IDs {
		by, err := s.authorityOf(ctx, id)
		if err != nil {
			return status.TryLater, time.Time{}
		}
		var st status.Standing
		if authority == "" {
			authority = by
		}
		if by != "" && by == authority { // one responder signs for one authority; the others stay unknown
			if st, err = s.Standing(ctx, by, id.Serial); err != nil {
				return status.TryLater, time.Time{}
			}
		}
		a.Standings = append(a.Standings, st)
	}
	if authority == "" {
		return status.Unauthorized, time.Time{}
	}
	r, err := s.responder(ctx, authority)
	if err != nil {
		return status.TryLater, time.Time{}
	}
	if body, err = a.Sign(r.cert, r.key); err != nil {
		s.cfg.Log.Error("ocsp", "err", err)
		return status.InternalError, time.Time{}
	}
	return body, a.Until
}
