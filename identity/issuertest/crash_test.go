// SPDX-License-Identifier: AGPL-3.0-only

package issuertest_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/identity/issuertest"
	"github.com/openthings-platform/openthings/identity/openbao"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// place is a platform's data as the test and the process that it kills both see it.
type place struct {
	Dir    string         // database, keys and authorities
	Engine openbao.Config // no address: the embedded issuer
	Device string
	CSR    []byte
	clock  clock.Clock
}

// crashVar makes this test binary the process that dies: it holds a place as JSON.
const crashVar = "OPENTHINGS_TEST_CRASH"

func TestMain(m *testing.M) {
	if text := os.Getenv(crashVar); text != "" {
		fmt.Fprintln(os.Stderr, "it should be dead:", dieAfterSigning(text))
		os.Exit(3)
	}
	os.Exit(m.Run())
}

// dieAfterSigning issues a certificate with a kill -9 between the signature and the register.
func dieAfterSigning(text string) error {
	p := place{clock: clock.System}
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return err
	}
	is, err := p.issuer()
	if err != nil {
		return err
	}
	_, svc, err := p.open(deadly{is, filepath.Join(p.Dir, "signed")})
	if err != nil {
		return err
	}
	return p.issue(context.Background(), svc, nil)
}

// deadly is an issuer whose process dies when it has signed. What it signed is left for the test to try.
type deadly struct {
	identity.Issuer
	leave string
}

func (d deadly) Sign(ctx context.Context, r identity.SignRequest) ([]byte, error) {
	der, err := d.Issuer.Sign(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(d.leave, der, 0o600); err != nil {
		return nil, err
	}
	syscall.Kill(os.Getpid(), syscall.SIGKILL) //nolint:errcheck // nobody is left to tell
	select {}
}

func (p place) issuer() (identity.Issuer, error) {
	keys, err := seal.Open(filepath.Join(p.Dir, "keys"), p.clock)
	if err != nil {
		return nil, err
	}
	cfg := embedded.Config{Dir: filepath.Join(p.Dir, "ca"), Keys: keys, Name: "Test", Clock: p.clock}
	if p.Engine.Address == "" {
		return embedded.Open(cfg)
	}
	cfg.Roles = openbao.Beside
	base, err := embedded.Open(cfg)
	if err != nil {
		return nil, err
	}
	engine, err := openbao.New(p.Engine)
	if err != nil {
		return nil, err
	}
	c := openbao.Compose(base, engine)
	return c, c.Found(context.Background(), "Test")
}

func (p place) open(is identity.Issuer) (*store.DB, *identity.Service, error) {
	db, err := store.Open(context.Background(), store.Config{URL: "sqlite://" + filepath.Join(p.Dir, "platform.db"), Schema: []store.Migrations{audit.Schema, identity.Schema}, Clock: p.clock})
	if err != nil {
		return nil, nil, err
	}
	svc, err := identity.New(identity.Config{DB: db, Issuer: is, Clock: p.clock, Journal: filepath.Join(p.Dir, "journal")})
	return db, svc, err
}

// issue asks for the device's LDevID and puts it into c.
func (p place) issue(ctx context.Context, svc *identity.Service, c *identity.Certificate) error {
	csr, err := identity.ParseCSR(p.CSR)
	if err != nil {
		return err
	}
	got, _, err := svc.Issue(ctx, identity.IssueRequest{Tenant: "ten_1a", Subject: p.Device, Kind: identity.LDevID, CSR: csr, Actor: p.Device})
	if err == nil && c != nil {
		*c = got
	}
	return err
}

// The platform is killed between signature and register, with each backend. What was signed is trusted by nobody: the
// doors ask the register, and an engine that keeps it is told to revoke it. The same request again gives one
// certificate, however often it is sent.
func TestI05_KillBetweenSignatureAndRegister(t *testing.T) {
	for _, c := range []struct {
		name          string
		engine, store bool
	}{{"embedded", false, false}, {"engine that stores nothing", true, false}, {"engine that stores", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			hand := clock.NewHand(time.Now())
			p := place{Dir: t.TempDir(), clock: hand}
			if c.engine {
				p.Engine = issuertest.NewEngine(t).Config
				p.Engine.Store = c.store
			}
			is, err := p.issuer()
			must(t, err)
			db, svc, err := p.open(is)
			must(t, err)
			p.claimed(t, db, svc)
			must(t, db.Close())

			text, err := json.Marshal(p)
			must(t, err)
			child := exec.Command(os.Args[0])
			child.Env = append(os.Environ(), crashVar+"="+string(text))
			child.Stderr = os.Stderr
			child.Run() //nolint:errcheck // it is killed, which is looked at
			if ws := child.ProcessState.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != syscall.SIGKILL {
				t.Fatalf("the process was not killed: %v", child.ProcessState)
			}
			lost, err := os.ReadFile(filepath.Join(p.Dir, "signed"))
			must(t, err)

			db, svc, err = p.open(is)
			must(t, err)
			defer db.Close()
			x, err := x509.ParseCertificate(lost)
			must(t, err)
			if have, err := svc.Certificates(t.Context(), "ten_1a", p.Device); err != nil || len(have) != 0 {
				t.Fatalf("the register has %v (%v)", have, err)
			}
			if _, err := svc.Admit(t.Context(), x); problem.Of(err).Rule != "identity.unknown" {
				t.Fatalf("what was lost is admitted: %v", err)
			}
			var first, again identity.Certificate
			must(t, p.issue(t.Context(), svc, &first))
			for range 3 {
				must(t, p.issue(t.Context(), svc, &again))
				if again.Fingerprint != first.Fingerprint {
					t.Fatalf("the same request gave %s and %s", first.Fingerprint, again.Fingerprint)
				}
			}
			have, err := svc.Certificates(t.Context(), "ten_1a", p.Device)
			must(t, err)
			if len(have) != 1 {
				t.Fatalf("the device has %d certificates", len(have))
			}
			if _, err := svc.Admit(t.Context(), x); problem.Of(err).Rule != "identity.unknown" {
				t.Fatalf("what was lost is admitted: %v", err)
			}

			if n, err := svc.Reconcile(t.Context()); err != nil || n != 0 {
				t.Fatalf("%d found before anything can be called lost (%v)", n, err)
			}
			hand.Advance(2 * time.Hour)
			want := 0
			if c.store {
				want = 1
			}
			for _, n := range []int{want, 0} {
				if found, err := svc.Reconcile(t.Context()); err != nil || found != n {
					t.Fatalf("%d found, want %d (%v)", found, n, err)
				}
			}
			var leaves int
			must(t, db.QueryRow(t.Context(), `SELECT count(*) FROM audit_entry WHERE kind = 'certificate.disowned' AND subject = $1 AND tenant = 'ten_1a'`, p.Device).Scan(&leaves))
			if leaves != want {
				t.Errorf("%d leaves, want %d", leaves, want)
			}
			if !c.store {
				return
			}
			r := is.(identity.Reconciler)
			if _, revoked, err := r.Certificate(t.Context(), x.SerialNumber); err != nil || !revoked {
				t.Errorf("the engine has not revoked what was lost: %v", err)
			}
			kept, err := first.Parse()
			must(t, err)
			if _, revoked, err := r.Certificate(t.Context(), kept.SerialNumber); err != nil || revoked {
				t.Errorf("the engine has revoked what the register knows: %v", err)
			}
		})
	}
}

// claimed makes a device that waits for its first LDevID.
func (p *place) claimed(t *testing.T, db *store.DB, svc *identity.Service) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	p.CSR, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "unit"}}, key)
	must(t, err)
	must(t, db.Write(t.Context(), func(tx *store.Tx) error {
		d, err := svc.Register(tx, identity.Device{Tenant: "ten_1a", Product: "prd_1", Revision: "rev_1", Serial: "S1"}, "test")
		if err != nil {
			return err
		}
		p.Device = d.ID
		for _, to := range []identity.State{identity.Provisioned, identity.Pending} {
			if err := svc.SetState(tx, "ten_1a", d.ID, to, "test", ""); err != nil {
				return err
			}
		}
		return nil
	}))
}
