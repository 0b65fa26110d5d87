// SPDX-License-Identifier: AGPL-3.0-only

package ceremony

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/wire"
)

// How long what a ceremony makes is good for. The factory's authority lives as long as the root, since IDevIDs have no end.
const (
	RootLife      = 30 * 365 * 24 * time.Hour
	AuthorityLife = 10 * 365 * 24 * time.Hour
)

// Options say what a ceremony makes.
type Options struct {
	Organization string // in the names of root and anchor
	Generation   int64  // 1 for the first, 2 for its successor
	Algorithm    identity.Algorithm
	Now          time.Time
}

// Make makes a root and an anchor.
func Make(o Options) (Recovery, error) {
	if o.Organization == "" || o.Generation < 1 {
		return Recovery{}, problem.Invalid("A ceremony needs the name of the organization and a generation from 1 on.")
	}
	var out Recovery
	for _, role := range []identity.Role{identity.Root, identity.Anchor} {
		key, err := newKey(o.Algorithm)
		if err != nil {
			return Recovery{}, err
		}
		id := identity.AuthorityID(role, o.Generation)
		t, err := identity.AuthorityTemplate(role, identity.AuthorityName(o.Organization, role, o.Generation), key.Public(), o.Now.Add(-time.Hour), o.Now.Add(RootLife))
		if err != nil {
			return Recovery{}, err
		}
		cert, err := sign(t, t, key.Public(), key)
		if err != nil {
			return Recovery{}, err
		}
		out.Held = append(out.Held, Held{ID: id, Role: role, Cert: cert, Key: key})
	}
	return out, nil
}

func newKey(alg identity.Algorithm) (crypto.Signer, error) {
	switch alg {
	case identity.AlgP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case identity.AlgP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case identity.AlgEd25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, problem.Invalid("No root can be made for the algorithm %q.", alg).At("--algorithm").Hint("ecdsa-p256, ecdsa-p384 or ed25519")
}

func sign(t, parent *x509.Certificate, key crypto.PublicKey, by crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key, by)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// Request is the request of an issuing authority, checked.
type Request struct {
	ID   string // "operational-2"
	Role identity.Role
	*x509.CertificateRequest
}

var idPattern = regexp.MustCompile(`^([a-z]+)-([1-9][0-9]{0,8})$`)

// ParseRequest reads the request of an issuing authority (PKCS #10 in DER): its name says which one it is to become, its
// key is one that we accept, and it asks for nothing beyond.
func ParseRequest(der []byte) (Request, error) {
	if len(der) > identity.MaxCSR {
		return Request{}, problem.TooLarge("A certificate request has at most %d bytes.", identity.MaxCSR)
	}
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return Request{}, problem.Invalid("This is not a certificate request (PKCS #10).").Because(err)
	}
	if err := r.CheckSignature(); err != nil {
		return Request{}, problem.Invalid("The request is not signed by its own key.").Because(err)
	}
	if identity.AlgorithmOf(r.PublicKey) == "" {
		return Request{}, problem.Forbidden("ca.key", "The key of an authority is ECDSA on P-256 or P-384, or Ed25519.")
	}
	if why := identity.Weakness(r.PublicKey); why != "" {
		return Request{}, problem.Forbidden("ca.key", "Others can compute this private key: %s.", why)
	}
	if len(r.Extensions) > 0 {
		return Request{}, problem.Forbidden("ca.request", "The request asks for extensions; what an authority may do is decided at the ceremony.")
	}
	if len(r.Subject.OrganizationalUnit) != 1 || !idPattern.MatchString(r.Subject.OrganizationalUnit[0]) {
		return Request{}, problem.Invalid("The name in the request does not say which authority it is for.").
			Hint("Make the request with openthings ca request: its organizational unit is the authority's id.")
	}
	out := Request{ID: r.Subject.OrganizationalUnit[0], CertificateRequest: r}
	m := idPattern.FindStringSubmatch(out.ID)
	out.Role = identity.Role(m[1])
	if !slices.Contains(identity.Roles, out.Role) {
		return Request{}, problem.Forbidden("ca.request", "A ceremony signs issuing authorities only, not %q.", out.Role)
	}
	gen, err := strconv.ParseInt(m[2], 10, 64)
	if err != nil || len(r.Subject.Organization) != 1 || identity.AuthorityName(r.Subject.Organization[0], out.Role, gen).String() != r.Subject.String() {
		return Request{}, problem.Forbidden("ca.request", "The request asks for the name %q, which is not that of %s.", r.Subject, out.ID)
	}
	return out, nil
}

// Certify signs the request with the root, or the anchor for a bootstrap authority: no further authority below it, and
// no longer life than its own.
func (r Recovery) Certify(req Request, now time.Time) (*x509.Certificate, error) {
	by, err := r.Of(req.Role.Above())
	if err != nil {
		return nil, err
	}
	life := AuthorityLife
	if req.Role == identity.Factory {
		life = RootLife
	}
	t, err := identity.AuthorityTemplate(req.Role, req.Subject, req.PublicKey, now.Add(-time.Hour), now.Add(life))
	if err != nil {
		return nil, err
	}
	return sign(within(t, by.Cert), by.Cert, req.PublicKey, by.Key)
}

// within ends t with the signer at the latest, and begins it with the signer at the earliest.
func within(t, by *x509.Certificate) *x509.Certificate {
	if t.NotAfter.After(by.NotAfter) {
		t.NotAfter = by.NotAfter
	}
	if t.NotBefore.Before(by.NotBefore) {
		t.NotBefore = by.NotBefore
	}
	return t
}

// CrossSign certifies two roots, or two anchors, with each other's keys: whoever trusts one of them verifies what stands
// below the other (RFC 4210 4.4: NewWithOld and OldWithNew).
func CrossSign(a, b Held, now time.Time) (bridges []*x509.Certificate, err error) {
	if a.Role != b.Role || equal(a.Cert.PublicKey, b.Cert.PublicKey) {
		return nil, problem.Invalid("Two roots or two anchors certify each other, not %s and %s.", a.ID, b.ID)
	}
	for _, pair := range [][2]Held{{a, b}, {b, a}} {
		of, by := pair[0], pair[1]
		t, err := identity.AuthorityTemplate(of.Role, of.Cert.Subject, of.Cert.PublicKey, now.Add(-time.Hour), of.Cert.NotAfter)
		if err != nil {
			return nil, err
		}
		t.RawSubject, t.SubjectKeyId = of.Cert.RawSubject, of.Cert.SubjectKeyId
		c, err := sign(within(t, by.Cert), by.Cert, of.Cert.PublicKey, by.Key)
		if err != nil {
			return nil, fmt.Errorf("bridge from %s to %s: %w", by.ID, of.ID, err)
		}
		bridges = append(bridges, c)
	}
	return bridges, nil
}

// SignBundle signs a draft of the platform with the anchors of the files.
func SignBundle(draft []byte, files ...Recovery) (wire.SignedBundle, error) {
	b, err := wire.ParseBundle(draft)
	if err != nil {
		return wire.SignedBundle{}, problem.Invalid("This is not the draft of a trust bundle.").Because(err)
	}
	var keys []crypto.Signer
	for _, f := range files {
		for _, h := range f.Held {
			if h.Role == identity.Anchor {
				keys = append(keys, h.Key)
			}
		}
	}
	if len(keys) == 0 {
		return wire.SignedBundle{}, problem.NotFound("The recovery files hold no anchor.")
	}
	return wire.SignBundle(rand.Reader, b, keys...)
}
