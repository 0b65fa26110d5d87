// SPDX-License-Identifier: AGPL-3.0-only

package retire

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/command"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/telemetry"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

const maker = "ten_maker"

var t0 = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// world is the stage among its real neighbours.
type world struct {
	*Service
	t    *testing.T
	db   *store.DB
	hand *clock.Hand

	mu   sync.Mutex // guards cuts
	cuts []string
}

// unit is a device with its real keys.
type unit struct {
	identity.Device
	key    *ecdsa.PrivateKey // of the IDevID
	idevid *x509.Certificate
	ldevid *x509.Certificate
}

func each(t *testing.T, fn func(w *world)) {
	hand := clock.NewHand(t0)
	schema := []store.Migrations{audit.Schema, seal.Schema, identity.Schema, fleet.Schema, command.Schema, telemetry.CatalogueSchema, telemetry.Schema, Schema}
	storetest.Each(t, schema, func(t *testing.T, db *store.DB) {
		hand.Set(t0)
		w := &world{t: t, db: db, hand: hand}
		cut := func(id, reason string) int {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.cuts = append(w.cuts, id)
			return 1
		}
		dir := t.TempDir()
		keys, err := seal.Open(filepath.Join(dir, "keys"), hand)
		w.must(err)
		issuer, err := embedded.Open(embedded.Config{Dir: filepath.Join(dir, "ca"), Keys: keys, Name: "Test", Clock: hand})
		w.must(err)
		devices, err := identity.New(identity.Config{DB: db, Issuer: issuer, Clock: hand, Journal: filepath.Join(dir, "journal"), Cut: cut})
		w.must(err)
		commands := command.New(command.Config{DB: db, Identity: devices, Keys: keys, Clock: hand, Deliver: func(context.Context, gateway.Downlink) error { return nil }})
		readings := telemetry.New(telemetry.Config{DB: db, Platform: db, Keys: keys, Identity: devices, Clock: hand})
		w.Service = New(Config{DB: db, Identity: devices, Command: commands, Telemetry: readings, Fleet: fleet.New(fleet.Config{DB: db, Identity: devices, Clock: hand}), Keys: keys, Cut: cut, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
		fn(w)
	}, func(c *store.Config) { c.Clock = hand })
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// commissioned is a device at work, with both certificates and a key for its data.
func (w *world) commissioned(serial string) unit {
	w.t.Helper()
	u := unit{}
	w.must(w.db.Write(w.t.Context(), func(tx *store.Tx) (err error) {
		if u.Device, err = w.cfg.Identity.Register(tx, identity.Device{Tenant: maker, Product: "prd_a", Revision: "rev_a", Serial: serial}, "sta_a"); err != nil {
			return err
		}
		return w.cfg.Keys.NewSubject(tx, maker, u.ID)
	}))
	u.key, u.idevid = w.issue(u.ID, identity.IDevID)
	w.must(w.db.Write(w.t.Context(), func(tx *store.Tx) error {
		return w.cfg.Identity.SetState(tx, maker, u.ID, identity.Pending, "per_a", "")
	}))
	_, u.ldevid = w.issue(u.ID, identity.LDevID)
	_, err := w.cfg.Identity.Admit(w.t.Context(), u.ldevid)
	w.must(err)
	return u
}

func (w *world) issue(device string, k identity.Kind) (*ecdsa.PrivateKey, *x509.Certificate) {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	w.must(err)
	csr, err := identity.ParseCSR(der)
	w.must(err)
	c, _, err := w.cfg.Identity.Issue(w.t.Context(), identity.IssueRequest{Tenant: maker, Subject: device, Kind: k, CSR: csr, Actor: device})
	w.must(err)
	cert, err := c.Parse()
	w.must(err)
	return key, cert
}

// asked returns the wipe that the device received.
func (w *world) asked(device string) (id string, args wire.WipeArgs) {
	w.t.Helper()
	r, err := w.Retirement(w.t.Context(), maker, device)
	w.must(err)
	c, err := w.cfg.Command.Get(w.t.Context(), maker, r.Wipe.Command)
	w.must(err)
	w.must(json.Unmarshal(c.Args, &args))
	return c.ID, args
}

// answers hands a result to the platform as the gateway would.
func (w *world) answers(device, id string, r wire.CommandResult) {
	w.t.Helper()
	b, err := json.Marshal(r)
	w.must(err)
	w.must(w.cfg.Command.Receive(w.t.Context(), gateway.Record{Tenant: maker, Device: device, Topic: "cmd/" + id + "/res", At: w.hand.Now().UnixMilli(), Body: b}))
}

func (u unit) receipt(t *testing.T, id, nonce string, change func(*wire.WipeReceipt), key *ecdsa.PrivateKey) wire.CommandResult {
	t.Helper()
	r := wire.WipeReceipt{Device: u.ID, Serial: u.Serial, Command: id, Nonce: nonce, Method: "unlink+overwrite", Areas: []string{"telemetry-buffer", "ldevid-key"}, Image: wire.Digest(nil), At: t0.UnixMilli()}
	if change != nil {
		change(&r)
	}
	s, err := wire.Sign(rand.Reader, key, r)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return wire.CommandResult{OK: true, Detail: "wiped", Data: b}
}

func (w *world) state(device string) identity.State {
	w.t.Helper()
	d, err := w.cfg.Identity.Get(w.t.Context(), maker, device)
	w.must(err)
	return d.State
}

// refusedEverywhere: neither certificate opens a door.
func (w *world) refusedEverywhere(u unit) {
	w.t.Helper()
	for _, c := range []*x509.Certificate{u.idevid, u.ldevid} {
		if p, err := w.cfg.Identity.Admit(w.t.Context(), c); err == nil {
			w.t.Errorf("a retired device came in as %s", p.Kind)
		}
	}
}

// leaves lists the kinds in the log about a device, and whether one of them says text.
func (w *world) leaves(device, text string) (kinds []string, says bool) {
	w.t.Helper()
	rows, err := w.db.Query(w.t.Context(), `SELECT kind, payload FROM audit_entry WHERE subject = $1 ORDER BY id`, device)
	w.must(err)
	defer rows.Close()
	for rows.Next() {
		var kind string
		var payload []byte
		w.must(rows.Scan(&kind, &payload))
		kinds = append(kinds, kind)
		says = says || strings.Contains(string(payload), text)
	}
	w.must(rows.Err())
	return kinds, says
}

// TestWholeEnd: wipe, true receipt, deprovision; the device is out for ever and the proof stays.
func TestWholeEnd(t *testing.T) {
	each(t, func(w *world) {
		u := w.commissioned("L-1")
		w.must(w.cfg.Telemetry.Append(w.t.Context(), []gateway.Record{{Tenant: maker, Device: u.ID, Topic: "tele/env", At: t0.UnixMilli(), Body: []byte(`{"values":{"temp":21}}`)}}))
		w.must(w.db.Write(w.t.Context(), func(tx *store.Tx) error {
			return w.cfg.Fleet.Installed(tx, maker, u.Product, u.ID, "rel_1", w.hand.Now())
		}))
		r, err := w.Decommission(w.t.Context(), maker, u.ID, "per_a", "end of contract")
		w.must(err)
		if r.State != identity.Decommissioning || r.Wipe == nil || r.Wipe.State != command.Queued {
			t.Fatalf("%+v", r)
		}
		if _, err := w.Decommission(w.t.Context(), maker, u.ID, "per_a", "again"); !problem.Is(err, problem.KindConflict) {
			t.Errorf("asked twice: %v", err)
		}
		if _, err := w.Deprovision(w.t.Context(), maker, u.ID, "per_a", "impatient", false); problem.Of(err).Rule != RuleWipeFirst {
			t.Errorf("deprovisioned without a receipt: %v", err)
		}
		if _, err := w.cfg.Identity.Admit(w.t.Context(), u.ldevid); err != nil {
			t.Errorf("the device cannot come in to wipe itself: %v", err)
		}
		id, args := w.asked(u.ID)
		w.hand.Advance(time.Minute)
		w.answers(u.ID, id, u.receipt(w.t, id, args.Nonce, nil, u.key))
		if n, err := w.cfg.Fleet.CountByRelease(w.t.Context(), maker); err != nil || n["rel_1"] != 0 {
			t.Errorf("it counts on as one that runs its release: %v, %v", n, err)
		}
		r, err = w.Retirement(w.t.Context(), maker, u.ID)
		w.must(err)
		if r.State != identity.Decommissioned || r.Wipe.Signed == nil || r.Wipe.Receipt.Nonce != args.Nonce || r.Wipe.State != command.Done {
			t.Fatalf("%+v", r.Wipe)
		}
		w.refusedEverywhere(u)
		pub, err := w.cfg.Identity.IDevIDKey(w.t.Context(), maker, u.ID)
		w.must(err)
		var again wire.WipeReceipt
		w.must(r.Wipe.Signed.Open(pub, &again)) // what is kept verifies on its own

		cutsBefore := len(w.cuts)
		r, err = w.Deprovision(w.t.Context(), maker, u.ID, "per_a", "scrapped", false)
		w.must(err)
		if r.State != identity.Deprovisioned || r.Tombstone == nil || r.Tombstone.Unwiped || r.Tombstone.Done.IsZero() || len(r.Tombstone.Steps) != 5 {
			t.Fatalf("%+v", r.Tombstone)
		}
		if !r.Tombstone.Horizon.After(r.Tombstone.Erased) {
			t.Errorf("horizon %s, erased %s", r.Tombstone.Horizon, r.Tombstone.Erased)
		}
		if len(w.cuts) == cutsBefore || w.cuts[len(w.cuts)-1] != u.ID {
			t.Error("no session was cut")
		}
		w.refusedEverywhere(u)
		if _, err := w.cfg.Keys.Subject(w.t.Context(), w.db, maker, u.ID); !errors.Is(err, seal.ErrDestroyed) {
			t.Errorf("the key of the device's data: %v", err)
		}
		again2, err := w.Deprovision(w.t.Context(), maker, u.ID, "per_a", "once more", false)
		w.must(err)
		if again2.Tombstone.Reason != "scrapped" || !again2.Tombstone.Done.Equal(r.Tombstone.Done) {
			t.Errorf("the tombstone changed: %+v", again2.Tombstone)
		}
		kinds, says := w.leaves(u.ID, "backup_horizon")
		for _, k := range []string{"device.decommissioning", "device.wiped", "device.decommissioned", "device.revoked", "device.deprovisioning", "device.deprovisioned", "device.erased"} {
			if !slices.Contains(kinds, k) {
				t.Errorf("the log does not hold %s: %v", k, kinds)
			}
		}
		if !says {
			t.Error("the erasure record names no backup horizon")
		}
		if cs, err := w.cfg.Identity.Certificates(w.t.Context(), maker, u.ID); err != nil || len(cs) != 2 {
			t.Errorf("the evidence is gone: %d certificates, %v", len(cs), err)
		}
	})
}

// TestFalseReceipts: whatever the device's own key did not sign for this very wipe leaves it untrusted and unretired.
func TestFalseReceipts(t *testing.T) {
	each(t, func(w *world) {
		other := w.commissioned("L-2")
		for name, forge := range map[string]func(u unit, id, nonce string) wire.CommandResult{
			"foreign key": func(u unit, id, nonce string) wire.CommandResult { return u.receipt(w.t, id, nonce, nil, other.key) },
			"foreign device": func(u unit, id, nonce string) wire.CommandResult {
				return other.receipt(w.t, id, nonce, nil, other.key)
			},
			"foreign serial": func(u unit, id, nonce string) wire.CommandResult {
				return u.receipt(w.t, id, nonce, func(r *wire.WipeReceipt) { r.Serial = other.Serial }, u.key)
			},
			"wrong nonce": func(u unit, id, nonce string) wire.CommandResult { return u.receipt(w.t, id, "guess", nil, u.key) },
			"wrong command": func(u unit, id, nonce string) wire.CommandResult {
				return u.receipt(w.t, "cmd_other", nonce, nil, u.key)
			},
			"key not erased": func(u unit, id, nonce string) wire.CommandResult {
				return u.receipt(w.t, id, nonce, func(r *wire.WipeReceipt) { r.Areas = []string{"config"} }, u.key)
			},
			"tampered": func(u unit, id, nonce string) wire.CommandResult {
				r := u.receipt(w.t, id, nonce, nil, u.key)
				var s wire.Signed
				w.must(json.Unmarshal(r.Data, &s))
				s.Payload[len(s.Payload)/2] ^= 1
				r.Data, _ = json.Marshal(s)
				return r
			},
			"nothing": func(unit, string, string) wire.CommandResult { return wire.CommandResult{OK: true} },
			"no JSON": func(unit, string, string) wire.CommandResult {
				return wire.CommandResult{OK: true, Data: json.RawMessage(`"wiped"`)}
			},
		} {
			u := w.commissioned("L-" + strings.ReplaceAll(name, " ", "-"))
			_, err := w.Decommission(w.t.Context(), maker, u.ID, "per_a", "test")
			w.must(err)
			id, args := w.asked(u.ID)
			w.answers(u.ID, id, forge(u, id, args.Nonce))
			r, err := w.Retirement(w.t.Context(), maker, u.ID)
			w.must(err)
			if r.State != identity.Decommissioning || r.Wipe.Signed != nil || r.Wipe.State != command.Failed || r.Wipe.Problem == "" {
				w.t.Errorf("%s: %s, %+v", name, r.State, r.Wipe)
			}
			if _, says := w.leaves(u.ID, "wipe receipt"); !says {
				w.t.Errorf("%s: the refusal is not in the log", name)
			}
			if _, err := w.Deprovision(w.t.Context(), maker, u.ID, "per_a", "x", false); problem.Of(err).Rule != RuleWipeFirst {
				w.t.Errorf("%s counted as a wipe: %v", name, err)
			}
		}
	})
}

// TestReplay: the receipt of an earlier wipe does not answer a later one, and a refused wipe can be asked for again.
func TestReplay(t *testing.T) {
	each(t, func(w *world) {
		u := w.commissioned("L-1")
		_, err := w.Decommission(w.t.Context(), maker, u.ID, "per_a", "first")
		w.must(err)
		first, args := w.asked(u.ID)
		old := u.receipt(w.t, first, args.Nonce, nil, u.key)
		w.answers(u.ID, first, wire.CommandResult{OK: false, Detail: "flash error"})
		if r, _ := w.Retirement(w.t.Context(), maker, u.ID); r.Wipe.Problem != "flash error" || r.State != identity.Decommissioning {
			t.Errorf("%+v", r.Wipe)
		}
		w.answers(u.ID, first, old) // too late: the command has ended
		w.hand.Advance(time.Minute)
		_, err = w.Decommission(w.t.Context(), maker, u.ID, "per_a", "second")
		w.must(err)
		second, args := w.asked(u.ID)
		if second == first {
			t.Fatal("no new command")
		}
		w.answers(u.ID, second, old)
		if s := w.state(u.ID); s != identity.Decommissioning {
			t.Fatalf("a replayed receipt made it %s", s)
		}
		w.hand.Advance(time.Minute)
		_, err = w.Decommission(w.t.Context(), maker, u.ID, "per_a", "third")
		w.must(err)
		third, args := w.asked(u.ID)
		w.answers(u.ID, third, u.receipt(w.t, third, args.Nonce, nil, u.key))
		if s := w.state(u.ID); s != identity.Decommissioned {
			t.Errorf("a true receipt left it %s", s)
		}
		w.answers(u.ID, third, u.receipt(w.t, third, args.Nonce, nil, u.key)) // a repeat changes nothing
		if n := count(w.leaves(u.ID, ""))["device.wiped"]; n != 1 {
			t.Errorf("%d receipts in the log", n)
		}
	})
}

func count(kinds []string, _ bool) map[string]int {
	m := map[string]int{}
	for _, k := range kinds {
		m[k]++
	}
	return m
}

// TestLostDevice: without a wipe only with a reason and said aloud; a device that was never claimed ends the same way.
func TestLostDevice(t *testing.T) {
	each(t, func(w *world) {
		u := w.commissioned("L-1")
		if _, err := w.Deprovision(w.t.Context(), maker, u.ID, "per_a", "  ", true); problem.Of(err).Rule != RuleReason {
			t.Errorf("no reason: %v", err)
		}
		r, err := w.Deprovision(w.t.Context(), maker, u.ID, "per_a", "stolen from the field", true)
		w.must(err)
		if r.State != identity.Deprovisioned || !r.Tombstone.Unwiped {
			t.Fatalf("%+v", r)
		}
		w.refusedEverywhere(u)
		var d identity.Device
		w.must(w.db.Write(w.t.Context(), func(tx *store.Tx) (err error) {
			d, err = w.cfg.Identity.Register(tx, identity.Device{Tenant: maker, Product: "prd_a", Revision: "rev_a", Serial: "L-9"}, "sta_a")
			return err
		}))
		if r, err := w.Deprovision(w.t.Context(), maker, d.ID, "per_a", "broke on the line", true); err != nil || r.State != identity.Deprovisioned {
			t.Errorf("%+v, %v", r, err)
		}
		if _, err := w.Deprovision(w.t.Context(), "ten_other", u.ID, "per_x", "not mine", true); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("another tenant retired the device: %v", err)
		}
	})
}

// states are those of all commands to a device, and why each ended.
func (w *world) states(device string) (out []string) {
	w.t.Helper()
	cs, err := w.cfg.Command.List(w.t.Context(), maker, device, "", 10)
	w.must(err)
	for _, c := range cs {
		if out = append(out, c.Name+" "+string(c.State)); c.State.Ended() && c.Ended == nil {
			w.t.Errorf("%s ended at no time", c.Name)
		}
	}
	slices.Sort(out)
	return out
}

// TestNothingWaitsForTheGone: whatever way a device ends, nothing that was asked of it stays open, in the transaction that
// ends the trust in it.
func TestNothingWaitsForTheGone(t *testing.T) {
	each(t, func(w *world) {
		ask := func(device, name string) {
			w.must(w.db.Write(w.t.Context(), func(tx *store.Tx) error {
				_, err := w.cfg.Command.Send(tx, maker, device, name, nil, w.hand.Now().Add(time.Hour), "per_a")
				return err
			}))
		}
		lost, other := w.commissioned("L-1"), w.commissioned("L-2")
		ask(lost.ID, "reboot")
		ask(other.ID, "reboot")
		w.hand.Advance(time.Second)
		ask(lost.ID, "blink")
		cs, err := w.cfg.Command.List(w.t.Context(), maker, lost.ID, "", 1)
		w.must(err)
		b, err := json.Marshal(wire.CommandAck{OK: true})
		w.must(err)
		w.must(w.cfg.Command.Receive(w.t.Context(), gateway.Record{Tenant: maker, Device: lost.ID, Topic: "cmd/" + cs[0].ID + "/ack", At: t0.UnixMilli(), Body: b}))
		_, err = w.Decommission(w.t.Context(), maker, lost.ID, "per_a", "gone")
		w.must(err)
		w.must(w.db.WriteFirst(w.t.Context(), func(tx *store.Tx) error { return w.endTrust(tx, maker, lost.ID, "per_a", "lost at sea", true) }))
		if got := w.states(lost.ID); !slices.Equal(got, []string{"blink expired", "reboot cancelled", "wipe cancelled"}) {
			t.Errorf("of a lost device: %v", got)
		}
		if _, says := w.leaves(lost.ID, "lost at sea"); !says || count(w.leaves(lost.ID, ""))["command.ended"] != 3 {
			t.Error("the log does not say how its commands ended")
		}
		if got := w.states(other.ID); !slices.Equal(got, []string{"reboot queued"}) {
			t.Errorf("of another device: %v", got)
		}

		_, err = w.Decommission(w.t.Context(), maker, other.ID, "per_a", "end of contract")
		w.must(err)
		id, args := w.asked(other.ID)
		w.answers(other.ID, id, other.receipt(w.t, id, args.Nonce, nil, other.key))
		if got := w.states(other.ID); !slices.Equal(got, []string{"reboot cancelled", "wipe done"}) {
			t.Errorf("of a wiped device: %v", got)
		}
		if n := count(w.leaves(other.ID, ""))["command.ended"]; n != 2 {
			t.Errorf("%d ends in the log", n)
		}

		barred := w.commissioned("L-3") // by a way that is not this stage's
		ask(barred.ID, "reboot")
		w.must(w.db.Write(w.t.Context(), func(tx *store.Tx) error {
			return w.cfg.Identity.SetState(tx, maker, barred.ID, identity.Decommissioned, "per_a", "a clone")
		}))
		_, err = w.db.RunDue(w.t.Context())
		w.must(err)
		if got := w.states(barred.ID); !slices.Equal(got, []string{"reboot cancelled"}) {
			t.Errorf("of a device that was barred elsewhere: %v", got)
		}
		_, err = w.Deprovision(w.t.Context(), maker, barred.ID, "per_a", "a clone", true)
		w.must(err)
		if got := w.states(barred.ID); !slices.Equal(got, []string{"reboot cancelled"}) {
			t.Errorf("of a barred device: %v", got)
		}
	})
}

// TestResumed: where the platform dies after the first step, trust is gone already and the job does the rest.
func TestResumed(t *testing.T) {
	each(t, func(w *world) {
		u := w.commissioned("L-1")
		w.must(w.db.WriteFirst(w.t.Context(), func(tx *store.Tx) error { return w.endTrust(tx, maker, u.ID, "per_a", "stolen", true) }))
		w.refusedEverywhere(u)
		if !slices.Contains(w.cuts, u.ID) {
			t.Error("the session was not cut at once")
		}
		if s := w.state(u.ID); s != identity.Decommissioned {
			t.Errorf("state %s before the erasure", s)
		}
		w.hand.Advance(resumeAfter)
		_, err := w.db.RunDue(w.t.Context())
		w.must(err)
		r, err := w.Retirement(w.t.Context(), maker, u.ID)
		w.must(err)
		if r.State != identity.Deprovisioned || len(r.Tombstone.Steps) != 5 {
			t.Errorf("%+v", r.Tombstone)
		}
		var g sync.WaitGroup
		for range 4 {
			g.Go(func() {
				if err := w.finish(w.t.Context(), which{maker, u.ID}); err != nil {
					t.Error(err)
				}
			})
		}
		g.Wait()
		if n := count(w.leaves(u.ID, ""))["device.erased"]; n != 1 {
			t.Errorf("%d erasure records", n)
		}
	})
}

// TestDoors drives both acts over HTTP and looks at the page.
func TestDoors(t *testing.T) {
	each(t, func(w *world) {
		u := w.commissioned("L-1")
		role := tenant.Auditor
		auth := func(*http.Request) (context.Context, error) {
			return tenant.WithActor(w.t.Context(), tenant.Actor{ID: "per_a", Kind: tenant.KindPerson, Tenant: maker, Grants: []tenant.Grant{{Role: role, Tenant: maker}}}), nil
		}
		log := slog.New(slog.NewTextHandler(w.t.Output(), nil))
		a := api.New(api.Config{Title: "test", Clock: w.hand, Log: log, Authenticate: auth, Holds: tenant.Holds, Caller: func(context.Context) string { return "per_a" }})
		w.Routes(a)
		c := console.New(console.Config{Clock: w.hand, Log: log, Authenticate: auth, Holds: tenant.Holds})
		w.Pages(c)
		do := func(door http.Handler, method, path, kind, body string) (int, string) {
			r := httptest.NewRequest(method, "https://iot.example"+path, strings.NewReader(body))
			if body != "" {
				r.Header.Set("Content-Type", kind)
			}
			rec := httptest.NewRecorder()
			door.ServeHTTP(rec, r)
			return rec.Code, rec.Body.String()
		}
		part := func(want ...string) {
			w.t.Helper()
			r := httptest.NewRequest("GET", "https://iot.example/devices/"+u.ID, nil)
			ctx, _ := auth(r)
			html := string(c.Slot("device").Render(r.WithContext(ctx), u.ID))
			for _, s := range want {
				if !strings.Contains(html, s) {
					w.t.Errorf("the page does not say %q:\n%s", s, html)
				}
			}
		}
		base := "/v1/devices/" + u.ID
		if code, _ := do(a, "POST", base+"/decommission", "application/json", `{"reason":"x"}`); code != 403 {
			w.t.Errorf("an auditor decommissioned: %d", code)
		}
		role = tenant.FleetOperator
		part("Decommission: ask it to wipe itself", "cannot wipe itself")
		if code, body := do(a, "POST", base+"/decommission", "application/json", `{"reason":"x"}`); code != 202 {
			w.t.Fatalf("%d %s", code, body)
		}
		if code, body := do(a, "POST", base+"/deprovision", "application/json", `{"reason":"x"}`); code != 403 || !strings.Contains(body, RuleWipeFirst) {
			w.t.Errorf("%d %s", code, body)
		}
		id, args := w.asked(u.ID)
		w.answers(u.ID, id, u.receipt(w.t, id, args.Nonce, nil, u.key))
		part("signed by the key that the device was born with", "ldevid-key")
		form := url.Values{"reason": {"scrapped"}}
		if code, body := do(c, "POST", "/devices/"+u.ID+"/deprovision", "application/x-www-form-urlencoded", form.Encode()); code != http.StatusSeeOther {
			w.t.Fatalf("%d %s", code, body)
		}
		part("Deprovisioned", "no backup opens the data")
		if code, body := do(a, "GET", base+"/retirement", "", ""); code != 200 || !strings.Contains(body, `"state":"deprovisioned"`) || !strings.Contains(body, `"signature"`) {
			w.t.Errorf("%d %s", code, body)
		}
	})
}

// FuzzReceipt: no bytes but the device's own signature make a receipt, and none do harm.
func FuzzReceipt(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	want := expected{Device: "dev_1", Serial: "L-1", Command: "cmd_1", Nonce: "n"}
	s, err := wire.Sign(rand.Reader, key, wire.WipeReceipt{Device: "dev_1", Serial: "L-1", Command: "cmd_1", Nonce: "n", Method: "m", Areas: []string{areaKey}})
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(s)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"payload":"e30=","signature":"MAA="}`))
	f.Add([]byte(`null`))
	f.Add(append(slices.Clone(good), good...))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, _, err := verify(data, &key.PublicKey, want)
		if err == nil && string(got.Payload) != string(s.Payload) {
			t.Fatalf("accepted %q", data)
		}
		if err != nil && !problem.Is(err, problem.KindInvalid) {
			t.Fatalf("%v is not the device's fault", err)
		}
	})
}
