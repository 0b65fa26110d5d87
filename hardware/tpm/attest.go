// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/openthings-platform/openthings/wire"
)

// Endorsement is the identity of the TPM itself: the key that its maker certified.
type Endorsement struct {
	Certificate []byte   // DER; empty if the TPM carries none
	Chain       [][]byte // DER of the authorities above it, as far as the TPM carries them
	Area        []byte   // TPMT_PUBLIC of the key

	kind ekKind
}

// ekKind is one of the endorsement keys of the TCG EK Credential Profile for TPM 2.0: where its certificate lies, where
// the key may lie, and how it is made again.
type ekKind struct {
	certificate, key tpm2.TPMHandle
	template         tpm2.TPMTPublic
	byPolicy         bool // the key is used by PolicySecret(endorsement), not by its empty password
}

// ekKinds in the order of preference: short keys first.
var ekKinds = []ekKind{
	{0x01c0000a, 0x81010002, tpm2.ECCEKTemplate, true}, // L-2
	{0x01c00014, 0x81010014, highEK(tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256, 128, policyB256), false},
	{0x01c00016, 0x81010016, highEK(tpm2.TPMECCNistP384, tpm2.TPMAlgSHA384, 256, policyB384), false},
	{0x01c00002, 0x81010001, tpm2.RSAEKTemplate, true}, // L-1
}

// The policies of the high range (EK Credential Profile B.6): PolicyOR of PolicySecret(endorsement) and PolicyAuthorizeNV.
var (
	policyB256 = []byte("\xca\x3d\x0a\x99\xa2\xb9\x39\x06\xf7\xa3\x34\x24\x14\xef\xcf\xb3\xa3\x85\xd4\x4c\xd1\xfd\x45\x90\x89\xd1\x9b\x50\x71\xc0\xb7\xa0")
	policyB384 = []byte("\xb2\x6e\x7d\x28\xd1\x1a\x50\xbc\x53\xd8\x82\xbc\xf5\xfd\x3a\x1a\x07\x41\x48\xbb\x35\xd3\xb4\xe4\xcb\x1c\x0a\xd9\xbd\xe4\x19\xca\xcb\x47\xba\x09\x69\x96\x46\x15\x0f\x9f\xc0\x00\xf3\xf8\x0e\x12")
)

// highEK is template H-2 or H-3 (EK Credential Profile B.4.5, B.4.6).
func highEK(curve tpm2.TPMECCCurve, name tpm2.TPMAlgID, aes tpm2.TPMKeyBits, policy []byte) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: name,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, AdminWithPolicy: true, Restricted: true, Decrypt: true},
		AuthPolicy:       tpm2.TPM2BDigest{Buffer: policy},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgAES, KeyBits: tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, aes),
				Mode: tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB)},
			CurveID: curve,
		}),
	}
}

// Endorsement finds the endorsement key whose certificate the TPM carries. Without a certificate it is the P-256 key.
func (d *Device) Endorsement() (Endorsement, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unload()
	for _, kind := range ekKinds {
		cert, err := d.certificate(kind.certificate)
		if err != nil {
			continue // no such certificate in this TPM
		}
		parsed, err := x509.ParseCertificate(cert)
		if err != nil {
			continue
		}
		h, area, err := d.endorsementKey(kind, parsed.PublicKey)
		if err != nil {
			continue // made by a template of the maker's own
		}
		d.drop(h)
		return Endorsement{Certificate: cert, Chain: d.chain(), Area: area, kind: kind}, nil
	}
	h, area, err := d.endorsementKey(ekKinds[0], nil)
	if err != nil {
		return Endorsement{}, fmt.Errorf("tpm: the endorsement key: %w", err)
	}
	d.drop(h)
	return Endorsement{Area: area, kind: ekKinds[0]}, nil
}

// endorsementKey loads the endorsement key, from where it is persistent or by its template. It must be want, if given.
func (d *Device) endorsementKey(kind ekKind, want crypto.PublicKey) (tpm2.AuthHandle, []byte, error) {
	is := func(out tpm2.TPM2BPublic) ([]byte, bool) {
		pub, err := out.Contents()
		if err != nil {
			return nil, false
		}
		key, err := tpm2.Pub(*pub)
		return tpm2.Marshal(pub), err == nil && (want == nil || want.(interface{ Equal(crypto.PublicKey) bool }).Equal(key))
	}
	auth := tpm2.PasswordAuth(nil)
	if kind.byPolicy {
		auth = tpm2.Policy(tpm2.TPMAlgSHA256, 16, endorse)
	}
	if want != nil { // a key at that handle is the right one only if it is the certified one
		if r, err := (tpm2.ReadPublic{ObjectHandle: kind.key}).Execute(d.link); err == nil {
			if area, ok := is(r.OutPublic); ok {
				return tpm2.AuthHandle{Handle: kind.key, Name: r.Name, Auth: auth}, area, nil
			}
		}
	}
	var r *tpm2.CreatePrimaryResponse
	err := d.try(func() (err error) {
		r, err = tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(kind.template)}.Execute(d.link)
		return err
	})
	if err != nil {
		return tpm2.AuthHandle{}, nil, err
	}
	area, ok := is(r.OutPublic)
	if !ok {
		d.flush(r.ObjectHandle)
		return tpm2.AuthHandle{}, nil, errors.New("the key of the template is not the one of the certificate")
	}
	return tpm2.AuthHandle{Handle: r.ObjectHandle, Name: r.Name, Auth: auth}, area, nil
}

// endorse is the policy of the endorsement keys of the low range.
func endorse(link transport.TPM, session tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
	_, err := tpm2.PolicySecret{AuthHandle: tpm2.TPMRHEndorsement, PolicySession: session, NonceTPM: nonce}.Execute(link)
	return err
}

// drop flushes a handle unless it is persistent.
func (d *Device) drop(h tpm2.AuthHandle) {
	if transient(h.Handle) {
		d.flush(h.Handle)
	}
}

// nvChunk is what every TPM gives in one read (TPM_PT_NV_BUFFER_MAX is at least 512).
const nvChunk = 512

// read reads an index of the TPM's own memory.
func (d *Device) read(index tpm2.TPMHandle) ([]byte, error) {
	r, err := tpm2.NVReadPublic{NVIndex: index}.Execute(d.link)
	if err != nil {
		return nil, err
	}
	pub, err := r.NVPublic.Contents()
	if err != nil {
		return nil, err
	}
	at := tpm2.NamedHandle{Handle: index, Name: r.NVName}
	var out []byte
	for len(out) < int(pub.DataSize) {
		n := min(nvChunk, int(pub.DataSize)-len(out))
		r, err := tpm2.NVRead{AuthHandle: tpm2.AuthHandle{Handle: index, Name: at.Name, Auth: tpm2.PasswordAuth(nil)}, NVIndex: at,
			Size: uint16(n), Offset: uint16(len(out))}.Execute(d.link)
		if err != nil {
			return nil, err
		}
		if len(r.Data.Buffer) == 0 {
			return nil, errors.New("the TPM gave no bytes")
		}
		out = append(out, r.Data.Buffer...)
	}
	return out, nil
}

// certificate reads an endorsement certificate. Some makers pad it: what follows the DER is cut off.
func (d *Device) certificate(index tpm2.TPMHandle) ([]byte, error) {
	b, err := d.read(index)
	if err != nil {
		return nil, err
	}
	var der asn1.RawValue
	_, err = asn1.Unmarshal(b, &der)
	return der.FullBytes, err
}

// Where makers put the authorities above their endorsement certificates: one after the other, over as many indices as
// it takes (EK Credential Profile 2.2.1.5.2).
const (
	chainFirst tpm2.TPMHandle = 0x01c00100
	chainMost                 = 16 // indices
)

// chain reads the authorities above the endorsement certificate; most TPMs carry none.
func (d *Device) chain() (out [][]byte) {
	var all []byte
	for i := range tpm2.TPMHandle(chainMost) {
		b, err := d.read(chainFirst + i)
		if err != nil {
			break
		}
		all = append(all, b...)
	}
	for len(all) > 0 && len(out) < wire.MaxAttestChain {
		var der asn1.RawValue
		rest, err := asn1.Unmarshal(all, &der)
		if err != nil || der.Tag != asn1.TagSequence || len(der.FullBytes) > wire.MaxAttestCertificate {
			break // padding
		}
		out, all = append(out, der.FullBytes), rest
	}
	return out
}

// NewAttestationKey makes a key that signs nothing but what this TPM says about itself.
func (d *Device) NewAttestationKey() (*Key, error) {
	t, err := signing(elliptic.P256())
	if err != nil {
		return nil, err
	}
	t.ObjectAttributes.Restricted = true
	t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256, Scheme: tpm2.TPMTECCScheme{
		Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})}})
	return d.create(t)
}

// Activate opens a credential (TPM2_ActivateCredential): only the TPM that has both the endorsement key and ak can.
func (d *Device) Activate(e Endorsement, ak *Key, credential, secret []byte) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var want crypto.PublicKey
	if len(e.Certificate) != 0 {
		c, err := x509.ParseCertificate(e.Certificate)
		if err != nil {
			return nil, err
		}
		want = c.PublicKey
	}
	d.unload()
	ek, area, err := d.endorsementKey(e.kind, want)
	if err != nil {
		return nil, fmt.Errorf("tpm: the endorsement key: %w", err)
	}
	defer d.drop(ek)
	if !bytes.Equal(area, e.Area) {
		return nil, errors.New("tpm: the endorsement key has changed")
	}
	h, err := d.load(ak)
	if err != nil {
		return nil, fmt.Errorf("tpm: the attestation key: %w", err)
	}
	defer d.flush(h.Handle)
	r, err := tpm2.ActivateCredential{ActivateHandle: h, KeyHandle: ek, CredentialBlob: tpm2.TPM2BIDObject{Buffer: credential},
		Secret: tpm2.TPM2BEncryptedSecret{Buffer: secret}}.Execute(d.link)
	if err != nil {
		return nil, fmt.Errorf("tpm: activating the credential: %w", err)
	}
	return r.CertInfo.Buffer, nil
}

// Certify has the TPM state, signed by ak, that it holds key (TPM2_Certify). Qualifying is the challenge that makes the
// statement fresh. It returns a TPMS_ATTEST and a TPMT_SIGNATURE.
func (d *Device) Certify(key, ak *Key, qualifying []byte) (info, signature []byte, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unload()
	var r *tpm2.CertifyResponse
	err = d.try(func() error {
		k, err := d.load(key)
		if err != nil {
			return err
		}
		defer d.flush(k.Handle)
		a, err := d.load(ak)
		if err != nil {
			return err
		}
		defer d.flush(a.Handle)
		r, err = tpm2.Certify{ObjectHandle: k, SignHandle: a, QualifyingData: tpm2.TPM2BData{Buffer: qualifying},
			InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull}}.Execute(d.link)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("tpm: certifying the key: %w", err)
	}
	return r.CertifyInfo.Bytes(), tpm2.Marshal(r.Signature), nil
}
