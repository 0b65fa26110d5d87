// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"crypto"
	"crypto/elliptic"
	"errors"
	"fmt"
	"io/fs"

	"github.com/openthings-platform/openthings/hardware/tpm"
	"github.com/openthings-platform/openthings/wire"
)

// tpmStore keeps keys in the device's TPM.
type tpmStore struct {
	disk Disk
	d    *tpm.Device
}

var _ Attester = tpmStore{}

// attestationKey is the name of the key that the TPM makes its statements with. It is made once.
const attestationKey = "attestation"

func openTPM(where string, disk Disk) (Store, error) {
	d, err := tpm.Open(where)
	if err != nil {
		return nil, err
	}
	return tpmStore{disk, d}, nil
}

func (tpmStore) Kind() string { return KindTPM }

func (s tpmStore) Close() error { return s.d.Close() }

func (s tpmStore) New(name string) (crypto.Signer, error) {
	return s.make(name, func() (*tpm.Key, error) { return s.d.New(elliptic.P256()) })
}

func (s tpmStore) make(name string, in func() (*tpm.Key, error)) (*tpm.Key, error) {
	at, err := path(name)
	if err != nil {
		return nil, err
	}
	k, err := in()
	if err != nil {
		return nil, err
	}
	return k, s.disk.Write(at, k.File())
}

func (s tpmStore) Open(name string) (crypto.Signer, error) {
	k, err := s.open(name)
	if err != nil {
		return nil, err
	}
	return k, nil
}

func (s tpmStore) open(name string) (*tpm.Key, error) {
	at, err := path(name)
	if err != nil {
		return nil, err
	}
	b, err := s.disk.Read(at)
	if err != nil {
		return nil, err
	}
	if !tpm.IsFile(b) {
		return nil, fmt.Errorf("%s: %w", at, ErrElsewhere)
	}
	k, err := s.d.Load(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	return k, nil
}

// Destroy removes the key's file: the TPM has no other copy.
func (s tpmStore) Destroy(name string) error { return shred(s.disk, name) }

func (s tpmStore) Request() (wire.AttestRequest, error) {
	ak, err := s.open(attestationKey)
	if errors.Is(err, fs.ErrNotExist) {
		ak, err = s.make(attestationKey, s.d.NewAttestationKey)
	}
	if err != nil {
		return wire.AttestRequest{}, err
	}
	e, err := s.d.Endorsement()
	if err != nil {
		return wire.AttestRequest{}, err
	}
	area, err := ak.Area()
	return wire.AttestRequest{Certificate: e.Certificate, Chain: e.Chain, EK: e.Area, AK: area}, err
}

func (s tpmStore) Prove(name string, c wire.AttestChallenge) (wire.AttestProof, error) {
	k, err := s.open(name)
	if err != nil {
		return wire.AttestProof{}, err
	}
	ak, err := s.open(attestationKey)
	if err != nil {
		return wire.AttestProof{}, err
	}
	e, err := s.d.Endorsement()
	if err != nil {
		return wire.AttestProof{}, err
	}
	p := wire.AttestProof{ID: c.ID}
	if p.Opened, err = s.d.Activate(e, ak, c.Credential, c.Secret); err != nil {
		return wire.AttestProof{}, err
	}
	if p.Info, p.Signature, err = s.d.Certify(k, ak, c.Nonce); err != nil {
		return wire.AttestProof{}, err
	}
	p.Key, err = k.Area()
	return p, err
}
