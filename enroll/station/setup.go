// SPDX-License-Identifier: AGPL-3.0-only

package station

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// Config is what a station knows of itself.
type Config struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Batch   string    `json:"batch"`
	Quota   int64     `json:"quota"`
	Expires time.Time `json:"expires"`
	Devices string    `json:"devices"` // address of the platform's device door
}

// Request is what a station asks to be admitted with, PEM. Authority is empty for one that has a network.
type Request struct {
	CSR       string
	Authority string
}

// Prepare makes the station's keys where they will stay, and returns what it asks with. A second call asks with the
// same keys. A folder whose station worked with the platform and has a certificate that has ended is used again, with a new
// key: nobody can go on with what lies in it.
func Prepare(dir, name string, offline bool, now time.Time) (Request, error) {
	if err := folder(dir); err != nil {
		return Request{}, err
	}
	d := disk{dir: dir}
	own := keyFile
	if d.has(certFile) {
		ended, err := d.ended(now)
		if err != nil {
			return Request{}, err
		}
		if !ended || offline || d.has(permitFile) {
			return Request{}, problem.Conflict("%s holds a station already.", dir).Hint("Choose another folder.")
		}
		// As for a renewal: it takes the place of the old key once there is a certificate for it. One of a renewal whose answer
		// was lost has a certificate of the station before, and no key gets two.
		if own = nextKeyFile; d.has(own) {
			if err := d.remove(own); err != nil {
				return Request{}, err
			}
		}
	}
	key, err := d.key(own)
	if err != nil {
		return Request{}, err
	}
	csr, err := request(key, name)
	if err != nil || !offline {
		return Request{CSR: csr}, err
	}
	ca, err := d.key(authorityKey)
	if err != nil {
		return Request{}, err
	}
	if !d.has(authorityFile) {
		serial := make([]byte, 16)
		rand.Read(serial) // never fails since Go 1.24
		t := &x509.Certificate{SerialNumber: new(big.Int).SetBytes(serial), Subject: pkix.Name{CommonName: "Line station " + name}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(30, 0, 0),
			IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
		der, err := x509.CreateCertificate(rand.Reader, t, t, ca.Public(), ca)
		if err != nil {
			return Request{}, err
		}
		if err := d.write(authorityFile, encode("CERTIFICATE", der)); err != nil {
			return Request{}, err
		}
	}
	authority, err := d.read(authorityFile)
	return Request{CSR: csr, Authority: string(authority)}, err
}

// Install keeps what the platform answered: the station's certificate, the roots of the platform and, offline, the
// permit.
func Install(dir string, c Config, certificate, roots, permit string) error {
	d := disk{dir: dir}
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	files := []struct {
		name string
		b    string
	}{{configFile, string(text)}, {rootsFile, roots}, {permitFile, permit}, {certFile, certificate}} // the certificate last: it says that all is there
	for _, f := range files {
		if f.name == permitFile && permit == "" {
			continue
		}
		if err := d.write(f.name, []byte(f.b)); err != nil {
			return err
		}
	}
	return nil
}

// ended says whether the station's certificate has ended.
func (d disk) ended(now time.Time) (bool, error) {
	c, err := d.certificate()
	return err == nil && !now.Before(c.NotAfter), err
}

// key reads a key, and makes it first if there is none.
func (d disk) key(name string) (*ecdsa.PrivateKey, error) {
	b, err := d.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		return key, d.write(name, encode("PRIVATE KEY", der))
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, problem.Invalid("%s holds no key.", d.path(name))
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := k.(*ecdsa.PrivateKey)
	if err != nil || !ok {
		return nil, problem.Invalid("%s holds no ECDSA key.", d.path(name)).Because(err)
	}
	return key, nil
}

func request(key *ecdsa.PrivateKey, name string) (string, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	return string(encode("CERTIFICATE REQUEST", der)), err
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
