// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"

	"github.com/openthings-platform/openthings/agent/keys"
)

// An LDevID in service and the one to come have their keys under these names in turn; the certificate's file says which.
const (
	keyA = "ldevid-a"
	keyB = "ldevid-b"
)

// otherKey is the name for the key that follows the one in service; "" is a device that has none yet.
func otherKey(inService string) string {
	if inService == keyA {
		return keyB
	}
	return keyA
}

// openKeys opens the key store of a state directory.
func openKeys(where string, d disk) (keys.Store, error) {
	return keys.Open(where, keys.Disk{Read: d.read, Write: d.write, Shred: d.shred})
}

// Identity reads "idevid" or "ldevid" from a state directory, for other programs of the device that speak to the
// platform. Where the key lies in hardware, the hardware stays open as long as the process lives.
func Identity(dir, kind string) (tls.Certificate, error) {
	d := disk{dir: dir}
	var u unit
	if err := d.readJSON("unit.json", &u); err != nil {
		return tls.Certificate{}, err
	}
	store, err := openKeys(u.Keys, d)
	if err != nil {
		return tls.Certificate{}, err
	}
	c, err := readPair(d, store, kind+".pem")
	if err != nil {
		return tls.Certificate{}, err
	}
	return c.Certificate, nil
}

// credential is a key, its name in the key store, and the certificate over it.
type credential struct {
	tls.Certificate
	key  crypto.Signer
	name string
}

// pairFile is the file of an LDevID: the name of its key, then the certificate and those of its issuers.
func pairFile(name string, certs []byte) []byte { return append([]byte(keyMark+name+"\n"), certs...) }

const keyMark = "key "

// readPair reads a certificate of the device and opens its key: of an IDevID, the one named idevid.
func readPair(d disk, store keys.Store, file string) (*credential, error) {
	b, err := d.read(file)
	if err != nil {
		return nil, err
	}
	name := "idevid"
	if line, rest, ok := bytes.Cut(b, []byte("\n")); ok && bytes.HasPrefix(line, []byte(keyMark)) {
		name, b = string(line[len(keyMark):]), rest
	} else if file != "idevid.pem" {
		return nil, errors.New("it names no key")
	}
	key, err := store.Open(name)
	if err != nil {
		return nil, err
	}
	c, err := newCredential(key, b)
	if err != nil {
		return nil, err
	}
	c.name = name
	return c, nil
}

// newCredential joins a key with a certificate (the first CERTIFICATE in certPEM, those that follow are its issuers) and
// refuses a certificate over another key.
func newCredential(key crypto.Signer, certPEM []byte) (*credential, error) {
	c := tls.Certificate{PrivateKey: key}
	for block, rest := pem.Decode(certPEM); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			c.Certificate = append(c.Certificate, block.Bytes)
		}
	}
	if len(c.Certificate) == 0 {
		return nil, errors.New("no certificate in PEM")
	}
	var err error
	if c.Leaf, err = x509.ParseCertificate(c.Certificate[0]); err != nil {
		return nil, err
	}
	if !sameKey(key.Public(), c.Leaf.PublicKey) {
		return nil, errors.New("the certificate is over another key")
	}
	return &credential{Certificate: c, key: key}, nil
}

// sameKey compares public keys of any kind.
func sameKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// parseChain reads CA certificates in PEM; there must be at least one.
func parseChain(b []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		if !c.IsCA {
			return nil, errors.New("a certificate in the chain is not a CA")
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("no certificate in PEM")
	}
	return out, nil
}

func certPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}
