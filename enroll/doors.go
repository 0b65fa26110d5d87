// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
)

// notYet is how long a unit that nobody has claimed is asked to wait, in seconds.
const notYet = 5

// Doors mounts the line and EST routes on the device door. Which certificate opens each is part of the route.
func (s *Service) Doors(g *gateway.Gateway) {
	mount := func(pattern string, need gateway.Kind, h func(http.ResponseWriter, *http.Request, gateway.Peer) error) {
		g.Route(pattern, need, func(w http.ResponseWriter, r *http.Request, p gateway.Peer) {
			if err := h(w, r, p); err != nil {
				s.fail(w, r, p, err)
			}
		})
	}
	mount("POST /d/1/line/devices", gateway.Station, s.line)
	mount("POST /d/1/line/renew", gateway.Station, s.renew)
	mount("GET /d/1/line/journal", gateway.Station, s.journalState)
	mount("POST /d/1/line/journal", gateway.Station, s.journal)
	mount("GET /d/1/time", gateway.None, s.time)
	mount("GET /.well-known/est/cacerts", gateway.None, s.caCerts)
	mount("GET /.well-known/est/csrattrs", gateway.IDevID, s.csrAttrs)
	mount("POST /.well-known/est/simpleenroll", gateway.IDevID, s.simpleEnroll)
	mount("POST /.well-known/est/simplereenroll", gateway.LDevID, s.simpleReenroll)
}

// body reads at most limit bytes.
func body(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return nil, problem.TooLarge("The body is larger than %d bytes.", limit)
	}
	if err != nil {
		return nil, problem.Invalid("The body broke off.").Because(err)
	}
	return b, nil
}

func (s *Service) fail(w http.ResponseWriter, r *http.Request, p gateway.Peer, err error) {
	e := problem.Of(err)
	switch {
	case e.Rule == "enroll.unclaimed": // it may succeed later without the client changing anything (RFC 7030 4.2.3)
		w.Header().Set("Retry-After", strconv.Itoa(notYet))
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusAccepted)
		io.WriteString(w, e.Text+" "+e.Help+"\n") //nolint:errcheck // nothing can be said to a peer that is gone
		return
	case problem.Kinds[e.Kind].Status >= 500:
		s.cfg.Log.ErrorContext(r.Context(), "request of a device failed", slog.String("path", r.URL.Path), slog.String("device", p.Device+p.Station), slog.Any("error", err))
	}
	gateway.WriteProblem(w, err)
}

func (s *Service) caCerts(w http.ResponseWriter, r *http.Request, _ gateway.Peer) error {
	chain, err := s.cfg.Identity.CACerts(r.Context())
	if err != nil {
		return err
	}
	return answer(w, chain...)
}

func (s *Service) csrAttrs(w http.ResponseWriter, _ *http.Request, _ gateway.Peer) error {
	der, err := csrAttributes()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/csrattrs")
	w.Header().Set("Content-Transfer-Encoding", "base64")
	_, err = w.Write(encodeEST(der))
	return err
}

func (s *Service) simpleEnroll(w http.ResponseWriter, r *http.Request, p gateway.Peer) error {
	csr, err := estRequest(w, r)
	if err != nil {
		return err
	}
	if err := csr.OnlyFor(identity.DeviceURI(p.Tenant, p.Device).String()); err != nil {
		return err
	}
	return s.enrol(w, r, p, csr)
}

func (s *Service) simpleReenroll(w http.ResponseWriter, r *http.Request, p gateway.Peer) error {
	csr, err := estRequest(w, r)
	if err != nil {
		return err
	}
	if err := sameNames(csr, p.Cert); err != nil {
		return err
	}
	return s.enrol(w, r, p, csr)
}

func (s *Service) enrol(w http.ResponseWriter, r *http.Request, p gateway.Peer, csr *identity.CSR) error {
	c, _, err := s.cfg.Identity.Issue(r.Context(), identity.IssueRequest{Tenant: p.Tenant, Subject: p.Device, Kind: identity.LDevID, CSR: csr, Actor: p.Device})
	if err != nil {
		return err
	}
	x, err := c.Parse()
	if err != nil {
		return err
	}
	return answer(w, x) // that certificate only (RFC 7030 4.2.3); the authorities are in cacerts
}

func estRequest(w http.ResponseWriter, r *http.Request) (*identity.CSR, error) {
	b, err := body(w, r, MaxEST)
	if err != nil {
		return nil, err
	}
	der, err := decodeEST(b)
	if err != nil {
		return nil, err
	}
	return identity.ParseCSR(der)
}

// sameNames refuses a renewal that is not for the very subject and alternative names of the certificate in use
// (RFC 7030 4.2.2). Names are compared by meaning, since clients differ in string types and order.
func sameNames(csr *identity.CSR, now *x509.Certificate) error {
	sorted := func(s []string) []string { slices.Sort(s); return s }
	var asked, have []string
	for _, u := range csr.URIs {
		asked = append(asked, u.String())
	}
	for _, u := range now.URIs {
		have = append(have, u.String())
	}
	others := len(csr.DNSNames) + len(csr.EmailAddresses) + len(csr.IPAddresses)
	if csr.Subject.String() != now.Subject.String() || others > 0 || !slices.Equal(sorted(asked), sorted(have)) {
		return problem.Forbidden("enroll.same-names", "A renewal keeps the subject and the subject alternative name of the certificate in use.").At("csr").
			Hint("Ask for subject %q and %q (RFC 7030 4.2.2).", now.Subject, have)
	}
	return nil
}

// answer sends certificates as a certs-only CMS.
func answer(w http.ResponseWriter, certs ...*x509.Certificate) error {
	der, err := certsOnly(certs...)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/pkcs7-mime; smime-type=certs-only")
	w.Header().Set("Content-Transfer-Encoding", "base64")
	_, err = w.Write(encodeEST(der))
	return err
}
