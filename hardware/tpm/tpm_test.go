// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"github.com/openthings-platform/openthings/hardware/hardwaretest"
	"github.com/openthings-platform/openthings/hardware/tpm"
)

func open(t testing.TB, where string) *tpm.Device {
	t.Helper()
	d, err := tpm.Open(where)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() }) //nolint:errcheck // the test is over
	return d
}

func newKey(t testing.TB, d *tpm.Device, c elliptic.Curve) *tpm.Key {
	t.Helper()
	k, err := d.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sign(k crypto.Signer, text string) error {
	h := sha256.Sum256([]byte(text))
	sig, err := k.Sign(rand.Reader, h[:], crypto.SHA256)
	if err == nil && !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), h[:], sig) {
		err = errors.New("the signature is wrong")
	}
	return err
}

// A key signs on both curves, after its file went through the disk, and after the TPM was off.
func TestKeys(t *testing.T) {
	peer := hardwaretest.NewTPM(t)
	d := open(t, peer.Where)
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		k := newKey(t, d, curve)
		if err := sign(k, "first"); err != nil {
			t.Error(err)
		}
		if curve == elliptic.P384() {
			h := sha512.Sum384([]byte("x"))
			if sig, err := k.Sign(nil, h[:], crypto.SHA384); err != nil || !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), h[:], sig) {
				t.Error(err)
			}
		}
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := x509.ParseCertificateRequest(csr); err != nil || r.CheckSignature() != nil {
			t.Error(err)
		}
		again, err := d.Load(k.File())
		if err != nil {
			t.Fatal(err)
		}
		if !again.Public().(*ecdsa.PublicKey).Equal(k.Public()) {
			t.Error("another key came back")
		}
		peer.Stop()
		peer.Start()
		for _, k := range []*tpm.Key{k, again} {
			if err := sign(k, "after the power cut"); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := d.New(elliptic.P521()); err == nil {
		t.Error("P-521")
	}
	k := newKey(t, d, elliptic.P256())
	if _, err := k.Sign(nil, make([]byte, 20), crypto.SHA1); err == nil {
		t.Error("SHA-1")
	}
	if _, err := k.Sign(nil, make([]byte, 31), crypto.SHA256); err == nil {
		t.Error("a short digest")
	}
}

// Another TPM cannot use the file, nor can this one once it is altered.
func TestForeignFile(t *testing.T) {
	d := open(t, hardwaretest.NewTPM(t).Where)
	other := open(t, hardwaretest.NewTPM(t).Where)
	k := newKey(t, d, elliptic.P256())
	if _, err := other.Load(k.File()); !errors.Is(err, tpm.ErrForeign) {
		t.Errorf("another TPM: %v", err)
	}
	for _, bad := range []string{"", "no file", "-----BEGIN TSS2 PRIVATE KEY-----\nAAAA\n-----END TSS2 PRIVATE KEY-----\n"} {
		if _, err := d.Load([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// The file is the format of others: the OpenSSL provider of TPMs is not in Debian 12 without engines, so what is
// compared is the structure (RFC-like ASN.1 module of the TSS2 PRIVATE KEY) by openssl's own parser.
func TestFileFormat(t *testing.T) {
	d := open(t, hardwaretest.NewTPM(t).Where)
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, newKey(t, d, elliptic.P256()).File(), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("openssl", "asn1parse", "-in", path).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "2.23.133.10.1.3") || !strings.Contains(string(out), ":81000001") {
		t.Errorf("%v\n%s", err, out)
	}
}

// More keys are used at once, by two programs, than a TPM can hold; and a program that was killed leaves its keys behind.
func TestCrowd(t *testing.T) {
	peer := hardwaretest.NewTPM(t)
	devices := []*tpm.Device{open(t, peer.Where), open(t, peer.Where)}
	var keys []*tpm.Key
	for i := range 8 {
		keys = append(keys, newKey(t, devices[i%2], elliptic.P256()))
	}
	var wg sync.WaitGroup
	for i, k := range keys[:2] { // one of each program keeps its own loaded
		if err := sign(k, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; i < len(keys); i += 2 {
		wg.Go(func() {
			if err := sign(keys[i], "at once"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for range 4 { // killed: nothing is closed
		d, err := tpm.Open(peer.Where)
		if err != nil {
			t.Fatal(err)
		}
		if err := sign(newKey(t, d, elliptic.P256()), "x"); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range keys {
		if err := sign(k, "after the others died"); err != nil {
			t.Error(err)
		}
	}
}

// raw speaks to the TPM past the package.
func raw(t *testing.T, peer *hardwaretest.TPM) transport.TPM {
	t.Helper()
	link, err := linuxudstpm.Open(strings.TrimPrefix(peer.Where, "unix:"))
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// Where the root cannot be made persistent it is kept loaded, and the files work all the same, also when it can later.
func TestFullTPM(t *testing.T) {
	peer := hardwaretest.NewTPM(t)
	link := raw(t, peer)
	root, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(link)
	if err != nil {
		t.Fatal(err)
	}
	evict := func(object, at tpm2.TPMHandle) error {
		name := root.Name
		_, err := tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: tpm2.NamedHandle{Handle: object, Name: name}, PersistentHandle: at}.Execute(link)
		return err
	}
	first := tpm2.TPMHandle(0x81000100)
	last := first
	for evict(root.ObjectHandle, last) == nil {
		last++
	}
	if last == first {
		t.Fatal("nothing fits into this TPM")
	}
	d := open(t, peer.Where)
	k := newKey(t, d, elliptic.P256())
	if err := sign(k, "x"); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for at := first; at < last; at++ {
		if err := evict(at, at); err != nil {
			t.Fatal(err)
		}
	}
	again, err := open(t, peer.Where).Load(k.File())
	if err != nil {
		t.Fatal(err)
	}
	if err := sign(again, "y"); err != nil {
		t.Error(err)
	}
}

// An owner's password does not stand in the way once there is a root key.
func TestOwnedTPM(t *testing.T) {
	own := func(peer *hardwaretest.TPM) {
		if _, err := (tpm2.HierarchyChangeAuth{AuthHandle: tpm2.TPMRHOwner, NewAuth: tpm2.TPM2BAuth{Buffer: []byte("secret")}}).Execute(raw(t, peer)); err != nil {
			t.Fatal(err)
		}
	}
	peer := hardwaretest.NewTPM(t)
	if err := open(t, peer.Where).Close(); err != nil {
		t.Fatal(err)
	}
	own(peer)
	if err := sign(newKey(t, open(t, peer.Where), elliptic.P256()), "x"); err != nil {
		t.Error(err)
	}
	bare := hardwaretest.NewTPM(t)
	own(bare)
	if _, err := tpm.Open(bare.Where); err == nil {
		t.Error("an owned TPM without a root key makes keys")
	}
}

// The places that are no TPM are said at once.
func TestOpenRefuses(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, where := range []string{"", "tpm0", "unix:", "unix:/nowhere", "tcp:localhost:1", "/nowhere", plain} {
		if _, err := tpm.Open(where); err == nil {
			t.Errorf("%q was opened", where)
		}
	}
}

// The TPM says who made it, opens a credential for its own keys, and states what it holds.
func TestAttestation(t *testing.T) {
	maker := hardwaretest.NewMaker(t)
	d := open(t, maker.NewTPM().Where)
	e, err := d.Endorsement()
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(e.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.CheckSignatureFrom(maker.Chain[0]); err != nil {
		t.Error(err)
	}
	if again, err := d.Endorsement(); err != nil || !bytes.Equal(again.Area, e.Area) {
		t.Error("the endorsement key is not stable", err)
	}
	ak, err := d.NewAttestationKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := sign(ak, "anything"); err == nil {
		t.Error("an attestation key signs what it is given")
	}
	if _, _, err := d.Certify(newKey(t, d, elliptic.P256()), ak, []byte("nonce")); err != nil {
		t.Error(err)
	}
}

// A software TPM is reached over TCP as well.
func TestTCP(t *testing.T) {
	peer := hardwaretest.NewTPM(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // the test is over
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("unix", strings.TrimPrefix(peer.Where, "unix:"))
			if err != nil {
				in.Close() //nolint:errcheck // the client sees that it ends
				continue
			}
			go func() {
				io.Copy(out, in) //nolint:errcheck // one command
				out.Close()      //nolint:errcheck // it is answered
			}()
			io.Copy(in, out) //nolint:errcheck // its answer
			in.Close()       //nolint:errcheck // the client has it
		}
	}()
	if err := sign(newKey(t, open(t, "tcp:"+l.Addr().String()), elliptic.P256()), "x"); err != nil {
		t.Error(err)
	}
}

// What answers on a socket and is no TPM is found out.
func TestNoTPMAnswers(t *testing.T) {
	for name, answer := range map[string]string{
		"nothing": "", "half a header": "\x80\x01\x00", "a length of a gigabyte": "\x80\x01\x40\x00\x00\x00\x00\x00\x00\x00",
		"a length below its own": "\x80\x01\x00\x00\x00\x01\x00\x00\x00\x00", "success without content": "\x80\x01\x00\x00\x00\x0a\x00\x00\x00\x00",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Read(make([]byte, 4096)) //nolint:errcheck // whatever it wants
				io.WriteString(c, answer)  //nolint:errcheck // it may be gone
				c.Close()                  //nolint:errcheck // that was all
			}
		}()
		if _, err := tpm.Open("tcp:" + l.Addr().String()); err == nil {
			t.Errorf("%s is a TPM", name)
		}
		l.Close() //nolint:errcheck // the test goes on
	}
}

// Files in the state directory are read without harm, whatever is in them.
func FuzzKeyFile(f *testing.F) {
	b, err := os.ReadFile("testdata/key.pem")
	if err != nil {
		f.Fatal(err)
	}
	if err := tpm.Parse(b); err != nil {
		f.Fatal(err)
	}
	block, _ := pem.Decode(b)
	f.Add(b)
	f.Add(block.Bytes)
	f.Add([]byte("-----BEGIN TSS2 PRIVATE KEY-----\nMAA=\n-----END TSS2 PRIVATE KEY-----\n"))
	f.Fuzz(func(_ *testing.T, file []byte) { tpm.Parse(file) }) //nolint:errcheck // it must only not panic
}
