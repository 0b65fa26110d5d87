// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// errPending is the platform's "not yet": the unit is known, but nobody has claimed it.
var errPending = errors.New("the platform has not admitted this unit yet")

// statusError is an HTTP answer that was not the one hoped for.
type statusError struct {
	status int
	after  time.Duration // Retry-After, if the platform sent one
	text   string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("the platform answered %d: %s", e.status, e.text)
}

// refused says that repeating the same request at once is useless.
func (e *statusError) refused() bool {
	return e.status == http.StatusForbidden || e.status == http.StatusNotFound
}

// do sends a request with the credential given and returns at most limit bytes of a 200 answer.
func (a *agent) do(ctx context.Context, c *credential, method, path, contentType string, body []byte, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "https://"+a.HTTPS+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if body != nil && contentType == "application/pkcs10" {
		req.Header.Set("Content-Transfer-Encoding", "base64")
	}
	resp, err := a.client(c).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: the answer is longer than %d bytes", path, limit)
	}
	if resp.StatusCode != http.StatusOK {
		e := &statusError{status: resp.StatusCode, text: string(b[:min(len(b), 200)])}
		if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 && s < 86400 {
			e.after = time.Duration(s) * time.Second
		}
		return nil, e
	}
	return b, nil
}

// request asks for a certificate over the key in next.key and stores both in next.pem. The key is on disk before the
// platform hears of it, so that an answer lost to a power cut is asked for again and not lost. path is simpleenroll, as
// the IDevID, or simplereenroll, as the LDevID in service (RFC 7030 4.2.1 and 4.2.2).
func (a *agent) request(ctx context.Context, as *credential, path string) (*credential, error) {
	anchors, err := a.cacerts(ctx)
	if err != nil {
		return nil, err
	}
	keyPEM, err := a.disk.read("next.key")
	if err != nil {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		if keyPEM, err = marshalKey(key); err != nil {
			return nil, err
		}
		if err := a.disk.write("next.key", keyPEM); err != nil {
			return nil, err
		}
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	// A renewal repeats subject and alternative names of the certificate in service; the platform takes neither as identity.
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		RawSubject: as.Leaf.RawSubject, URIs: as.Leaf.URIs, DNSNames: as.Leaf.DNSNames}, key)
	if err != nil {
		return nil, err
	}
	body := []byte(base64.StdEncoding.EncodeToString(csr))
	answer, err := a.do(ctx, as, "POST", path, "application/pkcs10", body, 64<<10)
	var status *statusError
	if errors.As(err, &status) && (status.status == http.StatusAccepted || status.status == http.StatusForbidden) {
		return nil, fmt.Errorf("%w: %w", errPending, err)
	}
	if err != nil {
		return nil, err
	}
	certs, err := readCertsOnly(answer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	pem := bytes.Clone(keyPEM)
	var leaf *x509.Certificate
	intermediates := x509.NewCertPool()
	for _, c := range certs {
		if pub, ok := c.PublicKey.(*ecdsa.PublicKey); ok && pub.Equal(&key.PublicKey) {
			leaf = c
		} else {
			intermediates.AddCert(c)
		}
	}
	if leaf == nil {
		return nil, errors.New("the platform did not certify the key that was asked for")
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: anchors, Intermediates: intermediates, CurrentTime: a.Clock.Now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return nil, err
	}
	pem = append(pem, certPEM(leaf)...)
	for _, c := range certs {
		if c != leaf && c.CheckSignatureFrom(c) != nil { // send issuing CAs along, not the root
			pem = append(pem, certPEM(c)...)
		}
	}
	next, err := newCredential(pem, pem)
	if err != nil {
		return nil, err
	}
	return next, a.disk.write("next.pem", pem)
}

// promote puts the pair of next.pem into service. Until the platform has seen it at work, the old pair stays.
func (a *agent) promote() error {
	if err := a.disk.rename("next.pem", "ldevid.pem"); err != nil {
		return err
	}
	return a.disk.shred("next.key")
}

// cacerts asks for the CA certificates (RFC 7030 4.1) and returns those that the unit has reason to trust.
func (a *agent) cacerts(ctx context.Context) (*x509.CertPool, error) {
	b, err := a.do(ctx, nil, "GET", "/.well-known/est/cacerts", "", nil, 64<<10)
	if err != nil {
		return nil, err
	}
	certs, err := readCertsOnly(b)
	if err != nil {
		return nil, fmt.Errorf("cacerts: %w", err)
	}
	pool := x509.NewCertPool()
	for _, c := range certs {
		if !c.IsCA {
			return nil, errors.New("cacerts: a certificate is not a CA")
		}
		pool.AddCert(c)
	}
	return pool, nil
}

var (
	oidSignedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidData       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
)

// readCertsOnly reads the "certs-only" CMS that EST answers with (RFC 7030 4.1.3, RFC 8951: base64, white space allowed).
// The container is unsigned; the certificates inside must be judged by the caller.
func readCertsOnly(b []byte) ([]*x509.Certificate, error) {
	der, err := base64.StdEncoding.DecodeString(string(bytes.Join(bytes.Fields(b), nil)))
	if err != nil {
		return nil, fmt.Errorf("not base64: %w", err)
	}
	var info struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"explicit,tag:0"`
	}
	if rest, err := asn1.Unmarshal(der, &info); err != nil || len(rest) != 0 || !info.Type.Equal(oidSignedData) {
		return nil, errors.New("not a CMS SignedData")
	}
	var data struct {
		Version      int
		Digests      asn1.RawValue `asn1:"set"`
		Content      struct{ Type asn1.ObjectIdentifier }
		Certificates asn1.RawValue `asn1:"optional,tag:0"`
		CRLs         asn1.RawValue `asn1:"optional,tag:1"`
		Signers      asn1.RawValue `asn1:"set"`
	}
	if rest, err := asn1.Unmarshal(info.Content.Bytes, &data); err != nil || len(rest) != 0 || !data.Content.Type.Equal(oidData) {
		return nil, errors.New("not a certs-only SignedData")
	}
	certs, err := x509.ParseCertificates(data.Certificates.Bytes)
	if err != nil {
		return nil, err
	}
	if len(certs) == 0 || len(certs) > 8 {
		return nil, fmt.Errorf("%d certificates", len(certs))
	}
	return certs, nil
}
