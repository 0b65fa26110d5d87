// SPDX-License-Identifier: AGPL-3.0-only

package embedded_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/hardware/hardwaretest"
	"github.com/openthings-platform/openthings/hardware/tpm"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/identity/issuertest"
	"github.com/openthings-platform/openthings/identity/keystore"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
)

// hardware opens a store and closes it with the test.
func hardware(t *testing.T, where string) keystore.Store {
	t.Helper()
	s, err := keystore.Open(where)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() }) //nolint:errcheck // the test is over
	return s
}

// contract runs the suite of all issuers on the embedded one over hardware.
func contract(t *testing.T, where func(t *testing.T) string) {
	issuertest.Run(t, func(t *testing.T) issuertest.Backend {
		p := newPlace(t)
		p.cfg.Hardware = hardware(t, where(t))
		is := p.open(t)
		return issuertest.Backend{Issuer: is, Algorithms: []identity.Algorithm{identity.AlgP256, identity.AlgP384},
			Certify: func(r identity.Role, csr []byte) ([]byte, error) {
				return is.Certify(identity.AuthorityID(r.Above(), 1), r, csr, embedded.OtherLife)
			}}
	})
}

func TestContractTPM(t *testing.T) {
	contract(t, func(t *testing.T) string { return "tpm:" + hardwaretest.NewTPM(t).Where })
}

// protections are what the issuer says about the key of each authority.
func protections(t *testing.T, is *embedded.Issuer) map[string]string {
	t.Helper()
	held, err := is.Authorities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, h := range held {
		out[h.ID] = h.Protection
	}
	return out
}

// moves is a platform that gets hardware after its first start: what it had goes on, what is new is in the hardware, and
// the roots stay files, since they are to leave.
func moves(t *testing.T, where, kind string) {
	p := newPlace(t)
	p.open(t)
	p.cfg.Hardware = hardware(t, where)
	is := p.open(t)
	if got := protections(t, is); got["operational-1"] != keystore.Sealed {
		t.Errorf("%v", got)
	}
	csr, err := is.Generate(t.Context(), "operational-2", identity.Operational, identity.AlgP256, pkix.Name{CommonName: "Second"})
	if err != nil {
		t.Fatal(err)
	}
	again := p.open(t) // a start between the making of the key and its certificate
	der, err := again.Certify("root-1", identity.Operational, csr, embedded.OtherLife)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Install(t.Context(), "operational-2", der); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Generate(t.Context(), "root-2", identity.Root, identity.AlgP384, pkix.Name{CommonName: "Root 2"}); err != nil {
		t.Fatal(err)
	}
	if got := protections(t, again); got["operational-2"] != kind || got["operational-1"] != keystore.Sealed || got["root-2"] != keystore.Sealed {
		t.Errorf("%v", got)
	}
	if _, err := again.Generate(t.Context(), "factory-2", identity.Factory, identity.AlgEd25519, pkix.Name{}); err == nil {
		t.Error("hardware makes Ed25519 keys")
	}
	if err := again.Health(t.Context()); err != nil {
		t.Error(err)
	}
	p.cfg.Hardware = nil
	if _, err := embedded.Open(p.cfg); err == nil || !strings.Contains(err.Error(), "--ca-keys "+kind) {
		t.Errorf("without its hardware: %v", err)
	}
}

func TestMovesIntoTPM(t *testing.T) { moves(t, "tpm:"+hardwaretest.NewTPM(t).Where, keystore.TPM) }

// The keys of the authorities, copied to another machine with everything that lies beside them, are of no use there:
// sealed ones lack the platform key, those of a TPM their TPM.
func TestI18_CAKeysCopiedToAnotherHost(t *testing.T) {
	p := newPlace(t)
	p.cfg.Hardware = hardware(t, "tpm:"+hardwaretest.NewTPM(t).Where)
	p.open(t)

	sealed := newPlace(t)
	sealed.cfg.Dir, sealed.cfg.Hardware = p.cfg.Dir, p.cfg.Hardware
	if _, err := embedded.Open(sealed.cfg); !errors.Is(err, seal.ErrSealed) {
		t.Errorf("sealed keys under another platform key: %v", err)
	}
	// Even with the platform key: a whole data folder on another machine.
	p.cfg.Hardware = hardware(t, "tpm:"+hardwaretest.NewTPM(t).Where)
	if _, err := embedded.Open(p.cfg); !errors.Is(err, tpm.ErrForeign) {
		t.Errorf("keys of another TPM: %v", err)
	}
}

// A TPM that does not answer is a pause and no end: what signs says so, and goes on once it is back.
func TestTPMAway(t *testing.T) {
	peer := hardwaretest.NewTPM(t)
	p := newPlace(t)
	p.cfg.Hardware = hardware(t, "tpm:"+peer.Where)
	is := p.open(t)
	r := request(identity.Operational, t0.Add(time.Hour), newKey(t))
	peer.Stop()
	_, signed := is.Sign(t.Context(), r)
	_, listed := is.SignCRL(t.Context(), r.Authority, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: t0, NextUpdate: t0.Add(time.Hour)})
	for what, err := range map[string]error{"health": is.Health(t.Context()), "sign": signed, "list": listed} {
		if !problem.Is(err, problem.KindUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	peer.Start()
	if err := is.Health(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := is.Sign(t.Context(), r); err != nil {
		t.Error(err)
	}
}

// No file says a key that is in a TPM, and the TPM's own files are no keys.
func TestTPMKeysAreNotOnDisk(t *testing.T) {
	p := newPlace(t)
	p.cfg.Hardware = hardware(t, "tpm:"+hardwaretest.NewTPM(t).Where)
	p.open(t)
	for _, r := range identity.Roles {
		b, err := os.ReadFile(filepath.Join(p.cfg.Dir, identity.AuthorityID(r, 1)+".key"))
		if err != nil || keystore.KindOf(b) != keystore.TPM {
			t.Errorf("%s: %.40q %v", r, b, err)
		}
	}
	noPlainKeys(t, p.dir)
}

// noPlainKeys looks for the marks of PKCS #8 and SEC 1 keys in every file.
func noPlainKeys(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, mark := range [][]byte{[]byte("BEGIN PRIVATE KEY"), []byte("BEGIN EC PRIVATE KEY"), {0x02, 0x01, 0x01, 0x04, 0x20}, {0x02, 0x01, 0x01, 0x04, 0x30}} {
			if bytes.Contains(b, mark) {
				t.Errorf("%s holds a private key in the clear", path)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
