// SPDX-License-Identifier: AGPL-3.0-only

package sim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	mrand "math/rand/v2"
	"time"
)

// errCut is the end of a step because the power went.
var errCut = errors.New("sim: the power went")

// device is one unit as its disk would have it: what survives a power cut, and nothing else.
type device struct {
	id, serial string
	rnd        *mrand.Rand

	idevid  credential
	ldevid  credential        // in service; empty before the first
	next    credential        // issued, not yet seen at work
	nextKey *ecdsa.PrivateKey // made before the request leaves, so that a lost answer is asked for again
	bundle  int64             // version of the trust bundle

	renewal time.Time // when it asks for the next certificate
	absent  time.Time // switched off until then
	revoked bool      // what the operator did; the device does not know
}

// credential is a certificate as it lies on the device: a million parsed ones would take 16 GB. Its key is not kept, since
// nobody asks for a proof of it here.
type credential struct {
	der       []byte
	from, end time.Time
}

func newCredential(c *x509.Certificate) credential { return credential{c.Raw, c.NotBefore, c.NotAfter} }

func (c credential) good(now time.Time) bool { return c.der != nil && now.Before(c.end) }

// cut says whether the power goes now.
func (d *device) cut(chance float64) error {
	if d.rnd.Float64() < chance {
		return errCut
	}
	return nil
}

// promote puts the next certificate into service. Its successor is due after two thirds of its life, give or take a tenth.
func (d *device) promote() {
	d.ldevid, d.next, d.nextKey = d.next, credential{}, nil
	life := d.ldevid.end.Sub(d.ldevid.from)
	d.renewal = d.ldevid.from.Add(life*2/3 + time.Duration((d.rnd.Float64()-0.5)*0.2*float64(life)))
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func request(key *ecdsa.PrivateKey, serial string) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{SerialNumber: serial}}, key)
}
