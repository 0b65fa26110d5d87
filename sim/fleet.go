// SPDX-License-Identifier: AGPL-3.0-only

package sim

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
)

// Config says how large the fleet is and how hard its life. Dir and Devices are mandatory.
type Config struct {
	Dir     string // for the database and the keys; empty at the start
	URL     string // of the database; empty: SQLite in Dir
	Devices int
	Days    int    // of virtual time; 0: 140
	Seed    uint64 // of every choice but keys

	// Shares of the fleet or chances of a step, 0 to 1; 0: the default in brackets.
	Absent  float64 // switched off for 65 to 115 days [0.1]
	Revoked float64 // decommissioned by an operator at some time [0.05]
	Cut     float64 // power goes at each step of a renewal [0.05]

	Progress func(day, days int, r Report) // after each virtual day; may be nil
}

// Report is what happened.
type Report struct {
	Devices    int
	Issued     int64 // certificates
	Renewals   int64 // with the LDevID
	Returns    int64 // with the IDevID, of devices that had an LDevID before
	Bootstraps int64 // at the bootstrap door, by devices that did not know the root of the day
	Cuts       int64 // times that the power went at a bad moment
	Absences   int64
	Revoked    int64
	Refused    int64 // attempts of revoked devices
	Rollovers  int

	Stranded                int64 // must be 0
	Duplicates              int64 // must be 0
	AcceptedAfterRevocation int64 // must be 0
}

// slice is the grain of virtual time: what falls into one is served at once.
const (
	slice  = 6 * time.Hour
	perDay = int64(24 * time.Hour / slice)
)

// parallel is how many devices are served at once, so that they share commits.
const parallel = 256

// epoch is when the run begins.
var epoch = time.Date(2027, 1, 4, 0, 0, 0, 0, time.UTC)

const tenantID = "ten_sim"

type fleet struct {
	cfg     Config
	clock   *clock.Hand
	db      *store.DB
	issuer  *embedded.Issuer
	svc     *identity.Service
	trust   *trust
	devices []*device
	due     map[int64][]*device // by slice since the epoch
	report  Report

	mu    sync.Mutex // guards due while devices of one slice are served at once
	count struct{ issued, renewals, returns, bootstraps, cuts, absences, refused, accepted atomic.Int64 }
}

// Run lives through the whole time and counts.
func Run(ctx context.Context, cfg Config) (Report, error) {
	cfg.defaults()
	f := &fleet{cfg: cfg, clock: clock.NewHand(epoch), due: map[int64][]*device{}}
	if err := f.open(ctx); err != nil {
		return Report{}, err
	}
	defer f.db.Close()
	if err := f.birth(ctx); err != nil {
		return Report{}, fmt.Errorf("birth: %w", err)
	}
	for n := int64(0); n < int64(cfg.Days)*perDay; n++ {
		f.clock.Set(epoch.Add(time.Duration(n) * slice))
		if n%perDay == 0 {
			if err := f.day(ctx, int(n/perDay)); err != nil {
				return Report{}, fmt.Errorf("day %d: %w", n/perDay, err)
			}
		}
		if err := f.look(); err != nil {
			return Report{}, err
		}
		now := f.due[n]
		delete(f.due, n)
		if err := f.each(ctx, now, f.step); err != nil {
			return Report{}, err
		}
	}
	return f.judge(ctx)
}

func (c *Config) defaults() {
	or := func(v *float64, d float64) {
		if *v == 0 {
			*v = d
		}
	}
	or(&c.Absent, 0.1)
	or(&c.Revoked, 0.05)
	or(&c.Cut, 0.05)
	if c.Days == 0 {
		c.Days = 140
	}
	if c.URL == "" {
		c.URL = "sqlite://" + filepath.Join(c.Dir, "platform.db")
	}
}

func (f *fleet) open(ctx context.Context) error {
	keys, err := seal.Open(filepath.Join(f.cfg.Dir, "keys"), f.clock)
	if err != nil {
		return err
	}
	if f.issuer, err = embedded.Open(embedded.Config{Dir: filepath.Join(f.cfg.Dir, "ca"), Keys: keys, Name: "Simulation", Clock: f.clock}); err != nil {
		return err
	}
	if f.db, err = store.Open(ctx, store.Config{URL: f.cfg.URL, Schema: []store.Migrations{audit.Schema, identity.Schema}, Clock: f.clock}); err != nil {
		return err
	}
	if f.svc, err = identity.New(identity.Config{DB: f.db, Issuer: f.issuer, Clock: f.clock, Journal: filepath.Join(f.cfg.Dir, "journal")}); err != nil {
		return err
	}
	return f.openTrust(ctx)
}

// each calls fn for all devices given, many at once.
func (f *fleet) each(ctx context.Context, ds []*device, fn func(context.Context, *device) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, d := range ds {
		g.Go(func() error { return fn(ctx, d) })
	}
	return g.Wait()
}

// birth makes the fleet at the line and claims it; each device comes for its first LDevID within the first ten days.
func (f *fleet) birth(ctx context.Context) error {
	f.devices = make([]*device, f.cfg.Devices)
	for i := range f.devices {
		f.devices[i] = &device{bundle: 1, serial: fmt.Sprintf("S%07d", i), rnd: mrand.New(mrand.NewPCG(f.cfg.Seed, uint64(i)))}
	}
	return f.each(ctx, f.devices, func(ctx context.Context, d *device) error {
		key, err := newKey()
		if err != nil {
			return err
		}
		err = f.db.Write(ctx, func(tx *store.Tx) error {
			made, err := f.svc.Register(tx, identity.Device{Tenant: tenantID, Product: "prd_sim", Revision: "rev_sim", Batch: "bat_sim", Serial: d.serial}, "sta_sim")
			d.id = made.ID
			return err
		})
		if err != nil {
			return err
		}
		cert, err := f.issue(ctx, d, identity.IDevID, key)
		if err != nil {
			return err
		}
		d.idevid = newCredential(cert)
		err = f.db.Write(ctx, func(tx *store.Tx) error {
			return f.svc.SetState(tx, tenantID, d.id, identity.Pending, "per_sim", "")
		})
		f.wake(d, epoch.Add(time.Duration(d.rnd.Int64N(int64(10*24*time.Hour)))))
		return err
	})
}

// issue asks the register as the doors would.
func (f *fleet) issue(ctx context.Context, d *device, k identity.Kind, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := request(key, d.serial)
	if err != nil {
		return nil, err
	}
	csr, err := identity.ParseCSR(der)
	if err != nil {
		return nil, err
	}
	c, fresh, err := f.svc.Issue(ctx, identity.IssueRequest{Tenant: tenantID, Subject: d.id, Kind: k, CSR: csr, Actor: d.id})
	if err != nil {
		return nil, err
	}
	if fresh {
		f.count.issued.Add(1)
	}
	return c.Parse()
}

// wake plans the device's next step.
func (f *fleet) wake(d *device, at time.Time) {
	n := max(int64(at.Sub(epoch)/slice), int64(f.clock.Now().Sub(epoch)/slice)+1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.due[n] = append(f.due[n], d)
}

// step is one time that a device is on: it comes in, renews if it is time, and plans when it comes again.
func (f *fleet) step(ctx context.Context, d *device) error {
	now := f.clock.Now()
	if now.Before(d.absent) {
		f.wake(d, d.absent)
		return nil
	}
	err := f.comeIn(ctx, d)
	if err == nil && now.After(d.renewal) {
		if err = f.renew(ctx, d); err == nil {
			err = f.comeIn(ctx, d)
		}
	}
	switch {
	case errors.Is(err, errCut):
		f.count.cuts.Add(1)
		f.wake(d, now.Add(time.Duration(d.rnd.Int64N(int64(3*24*time.Hour)))))
		return nil
	case d.revoked && refused(err): // it tries again now and then, as a stolen device would
		f.count.refused.Add(1)
		f.wake(d, now.Add(30*24*time.Hour))
		return nil
	case err != nil:
		return fmt.Errorf("%s on day %d: %w", d.serial, int(now.Sub(epoch)/(24*time.Hour)), err)
	}
	f.wake(d, d.renewal)
	return nil
}

func refused(err error) bool { return problem.Is(err, problem.KindForbidden) }

// comeIn connects with what the device holds: the newest certificate first, its certificate of birth when no other is good.
func (f *fleet) comeIn(ctx context.Context, d *device) error {
	if err := f.reach(ctx, d); err != nil {
		return err
	}
	now := f.clock.Now()
	if d.next.good(now) {
		err := f.admit(ctx, d, d.next)
		if err == nil {
			if err := d.cut(f.cfg.Cut); err != nil { // the platform has seen it at work, the disk does not know
				return err
			}
			d.promote()
			return nil
		}
		if !refused(err) {
			return err
		}
	}
	if d.ldevid.good(now) {
		if err := f.admit(ctx, d, d.ldevid); err == nil || !refused(err) {
			return err
		}
	}
	if err := f.admit(ctx, d, d.idevid); err != nil {
		return err
	}
	if d.ldevid.der != nil {
		f.count.returns.Add(1)
	}
	if err := f.enrol(ctx, d); err != nil {
		return err
	}
	if err := f.admit(ctx, d, d.next); err != nil {
		return err
	}
	d.promote()
	return nil
}

// admit is the handshake: the register's word, then the proof of the key.
func (f *fleet) admit(ctx context.Context, d *device, c credential) error {
	cert, err := x509.ParseCertificate(c.der)
	if err != nil {
		return err
	}
	p, err := f.svc.Admit(ctx, cert)
	if err == nil && p.Pending {
		err = f.svc.Used(ctx, p)
	}
	if err != nil {
		return err
	}
	if d.revoked {
		f.count.accepted.Add(1)
	}
	if p.Device != d.id {
		return fmt.Errorf("the certificate of %s is taken for that of %s", d.id, p.Device)
	}
	return nil
}

// renew asks for the next certificate with the one in service.
func (f *fleet) renew(ctx context.Context, d *device) error {
	if err := f.admit(ctx, d, d.ldevid); err != nil {
		return err
	}
	f.count.renewals.Add(1)
	return f.enrol(ctx, d)
}

// enrol goes through the steps of a request. The power may go between any two.
func (f *fleet) enrol(ctx context.Context, d *device) error {
	if d.nextKey == nil {
		key, err := newKey()
		if err != nil {
			return err
		}
		d.nextKey = key
	}
	if err := d.cut(f.cfg.Cut); err != nil {
		return err
	}
	cert, err := f.issue(ctx, d, identity.LDevID, d.nextKey)
	if err != nil && problem.Of(err).Rule == "identity.key-spent" { // the answer was lost so long ago that its certificate is over
		d.nextKey = nil
		return f.enrol(ctx, d)
	}
	if err != nil {
		return err
	}
	if d.revoked {
		f.count.accepted.Add(1)
	}
	if err := d.cut(f.cfg.Cut); err != nil { // the answer is lost
		return err
	}
	d.next = newCredential(cert)
	return d.cut(f.cfg.Cut)
}
