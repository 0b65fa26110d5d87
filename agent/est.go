// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strconv"
	"time"
)

// statusError is an HTTP answer that was not the one hoped for.
type statusError struct {
	status int
	after  time.Duration // Retry-After, if the platform sent one
	rule   string        // of the policy that refused, if it named one: the member "rule" of RFC 9457, or the last line of text
	text   string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("the platform answered %d: %s", e.status, e.text)
}

// refused says that repeating the same request at once is useless.
func (e *statusError) refused() bool {
	return e.status == http.StatusForbidden || e.status == http.StatusNotFound
}

// ruleMark begins the last line of a refusal in text.
const ruleMark = "\nrule: "

// ruleSpent is the platform's word for a key whose one certificate is over.
const ruleSpent = "identity.key-spent"

// do sends a request with the credential given and returns at most limit bytes of a 200 answer.
func (a *agent) do(ctx context.Context, c *credential, method, path, contentType string, body []byte, limit int64) ([]byte, error) {
	b, _, err := a.ask(ctx, a.client(c), method, path, contentType, body, limit)
	return b, err
}

func (a *agent) get(ctx context.Context, door *http.Client, path string, limit int64) ([]byte, *tls.ConnectionState, error) {
	return a.ask(ctx, door, "GET", path, "", nil, limit)
}

func (a *agent) ask(ctx context.Context, door *http.Client, method, path, contentType string, body []byte, limit int64) ([]byte, *tls.ConnectionState, error) {
	req, err := http.NewRequestWithContext(ctx, method, "https://"+a.HTTPS+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if contentType == "application/pkcs10" {
		req.Header.Set("Content-Transfer-Encoding", "base64")
	}
	resp, err := door.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, nil, err
	}
	if int64(len(b)) > limit {
		return nil, nil, fmt.Errorf("%s: the answer is longer than %d bytes", path, limit)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, nil, refusalOf(resp, b)
	}
	return b, resp.TLS, nil
}

// refusalOf reads what an answer other than 200 says.
func refusalOf(resp *http.Response, body []byte) *statusError {
	e := &statusError{status: resp.StatusCode, text: string(body[:min(len(body), 200)])}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		e.after = min(time.Duration(s), 86400) * time.Second // a day at most: a mistake over there must not strand the device
	}
	var p struct{ Rule string }
	if json.Unmarshal(body, &p) == nil {
		e.rule = p.Rule
	} else if i := bytes.LastIndex(body, []byte(ruleMark)); i >= 0 { // EST answers with text
		e.rule = string(bytes.TrimSpace(body[i+len(ruleMark):]))
	}
	return e
}

// request asks for a certificate over the key to come and stores it in next.pem. The key is durable before the
// platform hears of it, so that an answer lost to a power cut is asked for again and not lost. op is simpleenroll, as
// the IDevID, or simplereenroll, as the LDevID in service (RFC 7030 4.2.1 and 4.2.2).
func (a *agent) request(ctx context.Context, as *credential, op string) (*credential, error) {
	at := a.est(op)
	key, name, err := a.nextKey()
	if err != nil {
		return nil, err
	}
	a.prove(ctx, as, name, key.Public())
	// A renewal repeats subject and alternative names of the certificate in service; the platform takes neither as identity.
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		RawSubject: as.Leaf.RawSubject, URIs: as.Leaf.URIs, DNSNames: as.Leaf.DNSNames}, key)
	if err != nil {
		return nil, err
	}
	body := []byte(base64.StdEncoding.EncodeToString(csr))
	answer, err := a.do(ctx, as, "POST", at, "application/pkcs10", body, 64<<10)
	if err != nil {
		var status *statusError
		if errors.As(err, &status) && status.rule == ruleSpent {
			err = errors.Join(err, a.dropNext()) // a key gets one certificate, and this one's is over: the next attempt makes another
		}
		return nil, err
	}
	certs, err := readCertsOnly(answer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	if certs, err = a.withIssuers(ctx, as, certs, key.Public()); err != nil {
		return nil, err
	}
	leaf := certs[0]
	now, _ := a.time.now()
	if now.Before(leaf.NotBefore) { // this device's clock is behind: the platform has just said so
		now = leaf.NotBefore
	}
	if err := a.pins.chains(certs, "", x509.ExtKeyUsageClientAuth, now); err != nil {
		return nil, err
	}
	var chain []byte
	for _, c := range certs {
		if c == leaf || leaf.CheckSignatureFrom(c) == nil { // who signed it is sent along, no root and no other authority
			chain = append(chain, certPEM(c)...)
		}
	}
	next, err := newCredential(key, chain)
	if err != nil {
		return nil, err
	}
	next.name = name
	if err := a.disk.write("next.pem", pairFile(name, chain)); err != nil {
		return nil, err
	}
	return next, a.time.seen(leaf.NotBefore)
}

// est is the path of an EST operation, below the label of the unit's enrolment policy if it has one (RFC 7030 3.2.2).
func (a *agent) est(op string) string { return path.Join("/.well-known/est", a.Label, op) }

// nextKey is the key of the certificate to come: the one that is there, since the platform may have certified it
// already, or a new one, also in place of what a power cut half erased.
func (a *agent) nextKey() (key crypto.Signer, name string, err error) {
	inService := ""
	if c := a.pair("ldevid.pem"); c != nil {
		inService = c.name
	}
	name = otherKey(inService)
	if key, err = a.keys.Open(name); err != nil {
		key, err = a.keys.New(name)
	}
	return key, name, err
}

// dropNext gives up the pair that was to be next. The certificate goes first: without it the key is only asked about again.
func (a *agent) dropNext() error {
	if err := a.disk.remove("next.pem"); err != nil {
		return err
	}
	inService := ""
	if c := a.pair("ldevid.pem"); c != nil {
		inService = c.name
	}
	return a.keys.Destroy(otherKey(inService))
}

// promote puts the pair of next.pem into service. Until the platform has seen it at work, the old pair stays. A key that
// a power cut leaves behind is found spent at the next renewal, and made anew.
func (a *agent) promote(next *credential) error {
	if err := a.disk.rename("next.pem", "ldevid.pem"); err != nil {
		return err
	}
	return a.keys.Destroy(otherKey(next.name))
}

// withIssuers puts the certificate over pub first and the authorities from cacerts (RFC 7030 4.1) after it. They stand
// between it and a root at best: who is a root, only the trust bundle says.
func (a *agent) withIssuers(ctx context.Context, as *credential, certs []*x509.Certificate, pub crypto.PublicKey) ([]*x509.Certificate, error) {
	i := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return sameKey(pub, c.PublicKey) })
	if i < 0 {
		return nil, errors.New("the platform did not certify the key that was asked for")
	}
	b, err := a.do(ctx, as, "GET", a.est("cacerts"), "", nil, 256<<10)
	if err != nil {
		return nil, err
	}
	authorities, err := readCertsOnly(b)
	if err != nil {
		return nil, fmt.Errorf("cacerts: %w", err)
	}
	for _, c := range authorities {
		if !c.IsCA {
			return nil, errors.New("cacerts: a certificate is not a CA")
		}
	}
	return slices.Concat(certs[i:i+1], certs[:i], certs[i+1:], authorities), nil
}

var (
	oidSignedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidData       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
)

// maxCerts bounds what an answer may hold: issuing authorities of a few generations, their roots and bridges.
const maxCerts = 32

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
	if len(certs) == 0 || len(certs) > maxCerts {
		return nil, fmt.Errorf("%d certificates", len(certs))
	}
	return certs, nil
}
