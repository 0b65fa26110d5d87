// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"fmt"
	"io"
	"sync"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// ErrForeign is returned for a key file that another TPM made, that was altered, or whose TPM was cleared since.
var ErrForeign = errors.New("the key file does not belong to this TPM")

// srk is where the TCG wants the storage root key.
const srk tpm2.TPMHandle = 0x81000001

// Device is an open TPM. Its methods and those of its keys may be called at the same time.
type Device struct {
	where string

	mu      sync.Mutex // a TPM does one thing at a time; guards the fields below
	link    transport.TPMCloser
	parents map[tpm2.TPMHandle]tpm2.AuthHandle // by the parent that key files name
	loaded  *Key                               // stays loaded until another key is used
	handle  tpm2.AuthHandle                    // of loaded
}

// Open opens the TPM: a device file such as /dev/tpmrm0, or a software TPM's socket as unix:/path or tcp:host:port.
func Open(where string) (*Device, error) {
	link, err := dial(where)
	if err != nil {
		return nil, fmt.Errorf("tpm: %w", err)
	}
	d := &Device{where: where, link: link, parents: map[tpm2.TPMHandle]tpm2.AuthHandle{}}
	if _, err := d.parent(srk); err == nil {
		return d, nil
	} else if !errors.Is(err, tpm2.TPMRCHandle) { // anything but "there is none"
		return nil, errors.Join(fmt.Errorf("tpm: %s: %w", where, err), link.Close())
	}
	if err := d.persist(); err != nil {
		return nil, errors.Join(fmt.Errorf("tpm: %s: %w", where, err), link.Close())
	}
	return d, nil
}

// Where is what Open was given.
func (d *Device) Where() string { return d.where }

// Health returns nil when the TPM answers.
func (d *Device) Health() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := (tpm2.GetRandom{BytesRequested: 1}).Execute(d.link); err != nil {
		return fmt.Errorf("tpm: %s does not answer: %w", d.where, err)
	}
	return nil
}

// Close frees what is loaded in the TPM. The keys cannot sign any more.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unload()
	for _, p := range d.parents {
		if transient(p.Handle) {
			d.flush(p.Handle)
		}
	}
	return d.link.Close()
}

// persist makes the storage root key and puts it where everybody looks for it. Where there is no room it is kept loaded,
// and key files name the owner's hierarchy as their parent.
func (d *Device) persist() error {
	root, err := d.primary(tpm2.TPMRHOwner, keyfile.ECCSRK_H2_Template)
	if err != nil {
		return err
	}
	_, err = tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: tpm2.NamedHandle{Handle: root.Handle, Name: root.Name}, PersistentHandle: srk}.Execute(d.link)
	if err != nil {
		d.parents[tpm2.TPMRHOwner] = root
		return nil //nolint:nilerr // the loaded root is as good while the device is open
	}
	d.flush(root.Handle)
	_, err = d.parent(srk)
	return err
}

// primary makes the primary key of a hierarchy; the same template gives the same key each time.
func (d *Device) primary(hierarchy tpm2.TPMHandle, template tpm2.TPMTPublic) (tpm2.AuthHandle, error) {
	r, err := tpm2.CreatePrimary{PrimaryHandle: hierarchy, InPublic: tpm2.New2B(template)}.Execute(d.link)
	if err != nil {
		return tpm2.AuthHandle{}, fmt.Errorf("making the primary key: %w", err)
	}
	return tpm2.AuthHandle{Handle: r.ObjectHandle, Name: r.Name, Auth: tpm2.PasswordAuth(nil)}, nil
}

// parent is the loaded key that a key file names as its parent: a persistent one, or the primary of a hierarchy.
func (d *Device) parent(h tpm2.TPMHandle) (tpm2.AuthHandle, error) {
	if p, ok := d.parents[h]; ok {
		return p, nil
	}
	var p tpm2.AuthHandle
	if keyfile.IsMSO(h, keyfile.TPM_HT_PERSISTENT) {
		r, err := tpm2.ReadPublic{ObjectHandle: h}.Execute(d.link)
		if err != nil {
			return p, err
		}
		pub, err := r.OutPublic.Contents()
		if err != nil {
			return p, err
		}
		if a := pub.ObjectAttributes; !a.Restricted || !a.Decrypt || !a.FixedTPM {
			return p, fmt.Errorf("the object at %#x is no storage key", uint32(h))
		}
		p = tpm2.AuthHandle{Handle: h, Name: r.Name, Auth: tpm2.PasswordAuth(nil)}
	} else {
		var err error
		if p, err = d.primary(h, keyfile.ECCSRK_H2_Template); err != nil {
			return p, err
		}
	}
	d.parents[h] = p
	return p, nil
}

// Key is a key that only this TPM can use. It implements crypto.Signer.
type Key struct {
	d      *Device
	file   *keyfile.TPMKey
	public *ecdsa.PublicKey
}

var _ crypto.Signer = (*Key)(nil)

// New makes a P-256 or P-384 key. File is what must be kept of it.
func (d *Device) New(curve elliptic.Curve) (*Key, error) {
	t, err := signing(curve)
	if err != nil {
		return nil, err
	}
	return d.create(t)
}

// curves are those that TPMs must (P-256) or commonly (P-384) have.
var curves = map[elliptic.Curve]tpm2.TPMECCCurve{elliptic.P256(): tpm2.TPMECCNistP256, elliptic.P384(): tpm2.TPMECCNistP384}

// signing is the template of a signing key that never leaves its TPM.
func signing(curve elliptic.Curve) (tpm2.TPMTPublic, error) {
	id, ok := curves[curve]
	if !ok {
		return tpm2.TPMTPublic{}, errors.New("tpm: a TPM makes keys on P-256 or P-384 only")
	}
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, SignEncrypt: true},
		Parameters:       tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: id}),
	}, nil
}

func (d *Device) create(template tpm2.TPMTPublic) (*Key, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := srk
	if _, ok := d.parents[srk]; !ok {
		at = tpm2.TPMRHOwner
	}
	var r *tpm2.CreateResponse
	err := d.try(func() error {
		parent, err := d.parent(at)
		if err == nil {
			r, err = tpm2.Create{ParentHandle: parent, InPublic: tpm2.New2B(template)}.Execute(d.link)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("tpm: making a key: %w", err)
	}
	f := keyfile.NewTPMKey(keyfile.OIDLoadableKey, r.OutPublic, r.OutPrivate, keyfile.WithParent(at))
	public, err := publicOf(f)
	return &Key{d, f, public}, err
}

// Load opens the key of a key file (PEM or DER) and fails with ErrForeign if the TPM cannot use it.
func (d *Device) Load(file []byte) (*Key, error) {
	f, public, err := parse(file)
	if err != nil {
		return nil, err
	}
	k := &Key{d, f, public}
	d.mu.Lock()
	defer d.mu.Unlock()
	return k, d.use(k, func(tpm2.AuthHandle) error { return nil })
}

// parse reads a key file of a key that can sign without a password.
func parse(file []byte) (*keyfile.TPMKey, *ecdsa.PublicKey, error) {
	f, err := keyfile.Decode(file)
	if err != nil {
		if f, err = keyfile.Parse(file); err != nil {
			return nil, nil, fmt.Errorf("tpm: no key file: %w", err)
		}
	}
	if !f.Keytype.Equal(keyfile.OIDLoadableKey) || f.HasAuth() {
		return nil, nil, errors.New("tpm: the key file is of another kind: it needs a password, or was imported")
	}
	public, err := publicOf(f)
	return f, public, err
}

// publicOf is the public key of a signing key on P-256 or P-384.
func publicOf(f *keyfile.TPMKey) (*ecdsa.PublicKey, error) {
	if _, err := f.Pubkey.Contents(); err != nil { // the library would panic
		return nil, fmt.Errorf("tpm: %w", err)
	}
	pub, err := f.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("tpm: %w", err)
	}
	ec, ok := pub.(*ecdsa.PublicKey)
	if !ok || !f.HasSigner() || curves[ec.Curve] == 0 {
		return nil, errors.New("tpm: the key is no ECDSA signing key on P-256 or P-384")
	}
	if _, err := ec.ECDH(); err != nil { // a point that is not on the curve
		return nil, fmt.Errorf("tpm: %w", err)
	}
	return ec, nil
}

// IsFile says whether b is a TSS2 PRIVATE KEY in PEM, as File gives it.
func IsFile(b []byte) bool { return bytes.HasPrefix(b, []byte("-----BEGIN TSS2 PRIVATE KEY-----")) }

// File is the key as a TSS2 PRIVATE KEY in PEM, encrypted by the TPM.
func (k *Key) File() []byte { return k.file.Bytes() }

// Area is the public area of the key as the TPM has it (TPMT_PUBLIC).
func (k *Key) Area() ([]byte, error) {
	pub, err := k.file.Pubkey.Contents()
	if err != nil {
		return nil, err
	}
	return tpm2.Marshal(pub), nil
}

// Public implements crypto.Signer.
func (k *Key) Public() crypto.PublicKey { return k.public }

// hashes are those that a TPM signs.
var hashes = map[crypto.Hash]tpm2.TPMAlgID{crypto.SHA256: tpm2.TPMAlgSHA256, crypto.SHA384: tpm2.TPMAlgSHA384}

// Sign implements crypto.Signer for digests of SHA-256 and SHA-384. The TPM brings its own random numbers.
func (k *Key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	alg, ok := hashes[opts.HashFunc()]
	if !ok || len(digest) != opts.HashFunc().Size() {
		return nil, fmt.Errorf("tpm: a digest of %d bytes with %v cannot be signed", len(digest), opts.HashFunc())
	}
	d := k.d
	d.mu.Lock()
	defer d.mu.Unlock()
	var sig []byte
	err := d.use(k, func(h tpm2.AuthHandle) error {
		r, err := tpm2.Sign{
			KeyHandle: h, Digest: tpm2.TPM2BDigest{Buffer: digest}, Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck},
			InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: alg})},
		}.Execute(d.link)
		if err != nil {
			return err
		}
		if sig, err = keyfile.EncodeSignatureASN1(&r.Signature); err != nil {
			return err
		}
		if !ecdsa.VerifyASN1(k.public, digest, sig) {
			return errWrongKey
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("tpm: signing: %w", err)
	}
	return sig, nil
}

// errWrongKey says that a handle stood for another key: somebody else emptied and filled the TPM meanwhile.
var errWrongKey = errors.New("the TPM signed with another key")

// use calls fn with the loaded key. d.mu is held.
func (d *Device) use(k *Key, fn func(tpm2.AuthHandle) error) error {
	return d.try(func() error {
		if d.loaded != k {
			d.unload()
			h, err := d.load(k)
			if err != nil {
				return err
			}
			d.loaded, d.handle = k, h
		}
		return fn(d.handle)
	})
}

// try repeats fn if what this process had loaded is gone (the TPM was restarted), or if the TPM is full of what a
// process that was killed left behind; one can follow the other.
func (d *Device) try(fn func() error) (err error) {
	for range 3 {
		err = fn()
		switch {
		case errors.Is(err, tpm2.TPMRCReferenceH0), errors.Is(err, errWrongKey):
			d.forget()
		case errors.Is(err, tpm2.TPMRCObjectMemory):
			d.forget()
			d.clear()
		default:
			return err
		}
	}
	return err
}

// load brings a key into the TPM; the caller flushes the handle.
func (d *Device) load(k *Key) (tpm2.AuthHandle, error) {
	parent, err := d.parent(k.file.Parent)
	if err != nil {
		return tpm2.AuthHandle{}, err
	}
	r, err := tpm2.Load{ParentHandle: parent, InPrivate: k.file.Privkey, InPublic: k.file.Pubkey}.Execute(d.link)
	if errors.Is(err, tpm2.TPMRCIntegrity) {
		return tpm2.AuthHandle{}, fmt.Errorf("%w (%w)", ErrForeign, err)
	}
	if err != nil {
		return tpm2.AuthHandle{}, err
	}
	return tpm2.AuthHandle{Handle: r.ObjectHandle, Name: r.Name, Auth: tpm2.PasswordAuth(nil)}, nil
}

func (d *Device) unload() {
	if d.loaded != nil {
		d.flush(d.handle.Handle)
		d.loaded = nil
	}
}

// forget drops what is loaded without asking the TPM, which may not know the handles any more.
func (d *Device) forget() {
	d.loaded = nil
	for at, p := range d.parents {
		if transient(p.Handle) {
			delete(d.parents, at)
		}
	}
}

// clear empties the TPM's memory of all loaded objects that it shows us. Behind a resource manager these are our own;
// without one, nobody else can have the TPM open.
func (d *Device) clear() {
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: uint32(tpm2.TPMHTTransient) << 24, PropertyCount: 32}.Execute(d.link)
	if err != nil {
		return
	}
	handles, err := r.CapabilityData.Data.Handles()
	if err != nil {
		return
	}
	for _, h := range handles.Handle {
		d.flush(h)
	}
}

// flush frees a loaded object. If that fails it is gone already, or the next load will say that the TPM is full.
func (d *Device) flush(h tpm2.TPMHandle) {
	tpm2.FlushContext{FlushHandle: h}.Execute(d.link) //nolint:errcheck // see above
}

func transient(h tpm2.TPMHandle) bool { return keyfile.IsMSO(h, keyfile.TPM_HT_TRANSIENT) }
