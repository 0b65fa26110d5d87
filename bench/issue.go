// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
)

const (
	issueRounds  = 4
	issueRound   = 1000 // certificates
	issueCallers = 256  // at once, so that they share commits
)

// issueCPU counts LDevIDs per CPU-second from CSR to durable register (intent row, signature, certificate row, state
// and audit leaves, on SQLite), beside the two operations that cannot be left out: checking the CSR and signing.
// Rounds of both are interleaved, so that a busy machine harms them alike.
func issueCPU(ctx context.Context) (Result, error) {
	dir, err := os.MkdirTemp("", "openthings-bench-")
	if err != nil {
		return Result{}, err
	}
	defer os.RemoveAll(dir)
	register, err := openRegister(ctx, dir)
	if err != nil {
		return Result{}, err
	}
	defer register.db.Close()
	var issue, bare time.Duration
	for range issueRounds {
		csrs, err := makeCSRs(issueRound)
		if err != nil {
			return Result{}, err
		}
		devices, err := register.claimed(ctx, issueRound)
		if err != nil {
			return Result{}, err
		}
		spent, err := cpu(func() error { return register.issue(ctx, devices, csrs) })
		if err != nil {
			return Result{}, err
		}
		issue += spent
		if spent, err = cpu(func() error { return signOnly(csrs) }); err != nil {
			return Result{}, err
		}
		bare += spent
	}
	r := Result{Name: "issue_cpu", Unit: "issues/CPU-s", Baseline: "CSR check + x509.CreateCertificate",
		Value: issueRounds * issueRound / issue.Seconds(), BaselineValue: issueRounds * issueRound / bare.Seconds()}
	r.Ratio = r.Value / r.BaselineValue
	return r, nil
}

// cpu is the processor time, user and system, that this process spends while f runs.
func cpu(f func() error) (time.Duration, error) {
	before, err := usage()
	if err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	after, err := usage()
	return after - before, err
}

func usage() (time.Duration, error) {
	var r syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()), err
}

func makeCSRs(n int) ([][]byte, error) {
	csrs := make([][]byte, n)
	for i := range csrs {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		if csrs[i], err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "bench"}}, key); err != nil {
			return nil, err
		}
	}
	return csrs, nil
}

// signOnly is the baseline.
func signOnly(csrs [][]byte) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, NotAfter: time.Now().Add(time.Hour)}
	for _, der := range csrs {
		csr, err := x509.ParseCertificateRequest(der)
		if err != nil {
			return err
		}
		if err := csr.CheckSignature(); err != nil {
			return err
		}
		t := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "unit"}, NotAfter: time.Now().Add(time.Hour)}
		if _, err := x509.CreateCertificate(rand.Reader, t, ca, csr.PublicKey, key); err != nil {
			return err
		}
	}
	return nil
}

type register struct {
	db   *store.DB
	svc  *identity.Service
	made int
}

func openRegister(ctx context.Context, dir string) (*register, error) {
	keys, err := seal.Open(filepath.Join(dir, "keys"), clock.System)
	if err != nil {
		return nil, err
	}
	issuer, err := embedded.Open(embedded.Config{Dir: filepath.Join(dir, "ca"), Keys: keys, Name: "Bench"})
	if err != nil {
		return nil, err
	}
	db, err := store.Open(ctx, store.Config{URL: "sqlite://" + filepath.Join(dir, "platform.db"), Schema: []store.Migrations{audit.Schema, identity.Schema}})
	if err != nil {
		return nil, err
	}
	svc, err := identity.New(identity.Config{DB: db, Issuer: issuer, Journal: filepath.Join(dir, "journal")})
	return &register{db: db, svc: svc}, err
}

// claimed registers n devices that wait for their first LDevID.
func (r *register) claimed(ctx context.Context, n int) ([]string, error) {
	ids := make([]string, n)
	err := r.db.WriteBulk(ctx, func(tx *store.Tx) error {
		for i := range ids {
			d, err := r.svc.Register(tx, identity.Device{Tenant: "ten_bench", Product: "prd_bench", Revision: "rev_bench", Serial: fmt.Sprintf("B%d", r.made+i)}, "sta_bench")
			if err != nil {
				return err
			}
			ids[i] = d.ID
			for _, to := range []identity.State{identity.Provisioned, identity.Pending} {
				if err := r.svc.SetState(tx, d.Tenant, d.ID, to, "sta_bench", ""); err != nil {
					return err
				}
			}
		}
		return nil
	})
	r.made += n
	return ids, err
}

func (r *register) issue(ctx context.Context, devices []string, csrs [][]byte) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(issueCallers)
	for i, id := range devices {
		g.Go(func() error {
			csr, err := identity.ParseCSR(csrs[i])
			if err != nil {
				return err
			}
			_, fresh, err := r.svc.Issue(ctx, identity.IssueRequest{Tenant: "ten_bench", Subject: id, Kind: identity.LDevID, CSR: csr, Actor: id})
			if err == nil && !fresh {
				err = fmt.Errorf("device %s already had a certificate", id)
			}
			return err
		})
	}
	return g.Wait()
}
