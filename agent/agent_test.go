// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/agent"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/update/trust"
	"github.com/openthings-platform/openthings/wire"
)

func TestLifeOfAUnit(t *testing.T) {
	h := newHouse(t)
	h.admit = false
	u := h.born("dev_1")
	u.cfg.Interval = 5 * time.Millisecond
	u.cfg.Sensors = func() map[string]float64 { return map[string]float64{"lux": 300} }
	u.on()
	// Before it is claimed the platform answers 403 again and again; the unit keeps asking.
	h.set(func() { h.admit = true })
	inv := await(h, "inv", anyInventory)
	if inv.Version != "1.0.0" || inv.Image != wire.Digest([]byte(factoryImage)) || inv.Slot != "a" || inv.Floor != 3 || inv.Boot != 1 {
		t.Errorf("first inventory %+v", inv)
	}
	for seq := uint64(1); seq <= 5; seq++ {
		m := await(h, "tele/env", func(wire.Telemetry) bool { return true })
		if m.Seq != seq || m.Boot != 1 || m.Values["lux"] != 300 || m.TS == 0 {
			t.Fatalf("measurement %+v; want number %d", m, seq)
		}
	}
	u.off()
	u.on()
	if inv := await(h, "inv", anyInventory); inv.Boot != 2 {
		t.Errorf("the second start calls itself %d", inv.Boot)
	}
	h.set(func() {
		if h.enrolled != 1 {
			t.Errorf("it enrolled %d times", h.enrolled)
		}
	})
}

func TestUpdateCommits(t *testing.T) {
	h := newHouse(t)
	u := h.born("dev_1").on()
	await(h, "inv", anyInventory)
	image := h.image("2.0.0", 5, strings.Repeat("new image ", 20000))
	u.list(1, u.signer, image)
	h.set(func() { h.breakAt = 70000 }) // the first download breaks off and is taken up where it was
	u.offer("upd_1", image)
	inv := await(h, "inv", anyInventory)
	want := wire.Inventory{Version: "2.0.0", SecurityVersion: 5, Image: image.SHA256, Slot: "b", Floor: 5, Boot: 2, Update: "upd_1", Agent: agent.Version}
	if inv != want {
		t.Errorf("after the update it says %+v; want %+v", inv, want)
	}
	if s := await(h, "ota/upd_1/status", func(wire.UpdateStatus) bool { return true }); s.State != wire.UpdateCommitted {
		t.Errorf("status after the restart: %+v", s)
	}
	// The next one goes into slot a.
	next := h.image("3.0.0", 5, "third")
	u.list(2, u.signer, image, next)
	u.offer("upd_2", next)
	if inv := await(h, "inv", anyInventory); inv.Slot != "a" || inv.Version != "3.0.0" || inv.Floor != 5 {
		t.Errorf("after the second update %+v", inv)
	}
}

// TestStolenServer: whatever a server does that has every key but the manufacturer's, the device runs what it ran.
func TestStolenServer(t *testing.T) {
	h := newHouse(t)
	u := h.born("dev_1").on()
	await(h, "inv", anyInventory)
	stranger, err := trust.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	list := int64(10)
	for _, row := range []struct {
		name string
		rule string
		lie  func(t *trust.Target) // told before the list is signed
		do   func(trust.Target)    // done after the list is signed with the right key
	}{
		{name: "signed by a stranger", rule: trust.RuleSignature, do: func(x trust.Target) { u.list(list, stranger, x) }},
		{name: "unsigned", rule: trust.RuleSignature, do: func(trust.Target) {
			h.set(func() {
				h.targets = bytes.Replace(h.targets, []byte(`"signatures": [`), []byte(`"signatures": [], "x": [`), 1)
			})
		}},
		{name: "list tampered with", rule: trust.RuleSignature, do: func(trust.Target) {
			h.set(func() {
				h.targets = bytes.Replace(h.targets, []byte(`"security_version": 9`), []byte(`"security_version": 99`), 1)
			})
		}},
		{name: "not a list", rule: trust.RuleFormat, do: func(trust.Target) { h.set(func() { h.targets = []byte("<html>") }) }},
		{name: "image tampered with", rule: trust.RuleDigest, do: func(x trust.Target) {
			h.set(func() { h.images[strings.TrimPrefix(x.SHA256, "sha256:")] = []byte("evil imagE") })
		}},
		{name: "image too long", rule: trust.RuleDigest, do: func(x trust.Target) {
			h.set(func() { h.images[strings.TrimPrefix(x.SHA256, "sha256:")] = []byte("an image that does not end") })
		}},
		{name: "foreign product", rule: trust.RuleProduct, lie: func(x *trust.Target) { x.Product = "prd_meter" }},
		{name: "foreign hardware", rule: trust.RuleHardware, lie: func(x *trust.Target) { x.HW = []string{"rev-a"} }},
		{name: "lower security version", rule: trust.RuleFloor, lie: func(x *trust.Target) { x.SecurityVersion = 2 }},
		{name: "step left out", rule: trust.RuleMinFrom, lie: func(x *trust.Target) { x.MinFrom = 8 }},
		{name: "not in the list", rule: trust.RuleTarget, do: func(x trust.Target) { x.Path = "lamp/other"; u.list(list, u.signer, x) }},
		{name: "expired list", rule: trust.RuleExpired, do: func(x trust.Target) {
			b, err := trust.SignTargets(list, time.Now().Add(-time.Minute), []trust.Target{x}, u.signer)
			if err != nil {
				t.Fatal(err)
			}
			h.set(func() { h.targets = b })
		}},
		// Last: the image tampered with above was decided upon under list version 14, so an older list is a rollback.
		{name: "older list", rule: trust.RuleRollback, do: func(x trust.Target) { u.list(2, u.signer, x) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			x := h.image("9.0.0", 9, "evil image")
			if row.lie != nil {
				row.lie(&x)
			}
			list++
			u.list(list, u.signer, x)
			if row.do != nil {
				row.do(x)
			}
			id := fmt.Sprintf("upd_%d", list)
			u.offer(id, x)
			s := await(h, "ota/"+id+"/status", func(s wire.UpdateStatus) bool { return s.State != wire.UpdateDownloading })
			if s.State != wire.UpdateRefused || s.Rule != row.rule {
				t.Errorf("it answered %s by rule %q (%s); want refused by %s", s.State, s.Rule, s.Reason, row.rule)
			}
			if s.Inventory.Version != "1.0.0" || s.Inventory.Floor != 3 || s.Inventory.Boot != 1 {
				t.Errorf("it runs %+v", s.Inventory)
			}
			if left, err := filepath.Glob(u.dir + "/slot-b*"); err != nil || len(left) != 0 {
				t.Errorf("left in the other slot: %v, %v", left, err)
			}
		})
	}
	u.send(wire.TopicOffer, wire.Offer{Update: "upd_late", Release: "rel_1", Target: "x", NotAfter: time.Now().Add(-time.Second).UnixMilli()})
	if s := await(h, "ota/upd_late/status", func(wire.UpdateStatus) bool { return true }); s.Rule != trust.RuleExpired {
		t.Errorf("an expired offer: %+v", s)
	}
	u.off()
	u.on()
	if inv := await(h, "inv", anyInventory); inv.Image != wire.Digest([]byte(factoryImage)) {
		t.Errorf("after all that it runs %+v", inv)
	}
}

func TestUnhealthyImageRollsBack(t *testing.T) {
	for name, health := range map[string]func(context.Context, string) error{
		"the hook says no": func(context.Context, string) error { return errors.New("the fan does not turn") },
		"it hangs":         func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			u := h.born("dev_1")
			u.cfg.Health, u.cfg.HealthFor = health, 300*time.Millisecond
			u.on()
			await(h, "inv", anyInventory)
			image := h.image("2.0.0", 5, "bad image")
			u.list(1, u.signer, image)
			u.offer("upd_1", image)
			inv := await(h, "inv", anyInventory)
			if inv.Version != "1.0.0" || inv.Slot != "a" || inv.Floor != 3 || inv.Boot != 3 || inv.Update != "" {
				t.Errorf("after the rollback %+v", inv)
			}
			s := await(h, "ota/upd_1/status", func(wire.UpdateStatus) bool { return true })
			if s.State != wire.UpdateRolledBack || s.Reason == "" {
				t.Errorf("it reported %+v", s)
			}
		})
	}
}

// TestUnreachablePlatformRollsBack: a new image that cuts the device off is not kept.
func TestUnreachablePlatformRollsBack(t *testing.T) {
	h := newHouse(t)
	u := h.born("dev_1")
	u.cfg.HealthFor = 500 * time.Millisecond
	u.cfg.Health = func(context.Context, string) error {
		h.set(func() { h.shut = true })
		return nil
	}
	u.on()
	await(h, "inv", anyInventory)
	image := h.image("2.0.0", 5, "image without network")
	u.list(1, u.signer, image)
	u.offer("upd_1", image)
	<-h.refused // the new image knocks in vain
	eventually(t, func() bool { return boots(t, u.dir) >= 3 })
	h.set(func() { h.shut = false })
	if inv := await(h, "inv", anyInventory); inv.Version != "1.0.0" || inv.Boot != 3 {
		t.Errorf("it runs %+v", inv)
	}
	if s := await(h, "ota/upd_1/status", func(wire.UpdateStatus) bool { return true }); s.State != wire.UpdateRolledBack {
		t.Errorf("it reported %+v", s)
	}
}

// TestPowerCutInTrial: the one start that a new image gets ends without a commit; the old one comes back.
func TestPowerCutInTrial(t *testing.T) {
	h := newHouse(t)
	u := h.born("dev_1")
	trial := make(chan struct{})
	u.cfg.Health = func(ctx context.Context, _ string) error {
		close(trial)
		<-ctx.Done()
		return ctx.Err()
	}
	u.on()
	await(h, "inv", anyInventory)
	image := h.image("2.0.0", 5, "image")
	u.list(1, u.signer, image)
	u.offer("upd_1", image)
	<-trial
	u.off()
	u.cfg.Health = nil
	u.on()
	if inv := await(h, "inv", anyInventory); inv.Version != "1.0.0" || inv.Slot != "a" {
		t.Errorf("it runs %+v", inv)
	}
	if s := await(h, "ota/upd_1/status", func(wire.UpdateStatus) bool { return true }); s.State != wire.UpdateRolledBack {
		t.Errorf("it reported %+v", s)
	}
}

// TestSwitchedOffOnTheWay: switched off at each reported step before the restart, the update goes on and commits.
func TestSwitchedOffOnTheWay(t *testing.T) {
	for _, step := range []string{wire.UpdateDownloading, wire.UpdateVerified, wire.UpdateStaged} {
		t.Run(step, func(t *testing.T) {
			h := newHouse(t)
			u := h.born("dev_1").on()
			await(h, "inv", anyInventory)
			image := h.image("2.0.0", 5, strings.Repeat("image", 1000))
			u.list(1, u.signer, image)
			u.offer("upd_1", image)
			await(h, "ota/upd_1/status", func(s wire.UpdateStatus) bool { return s.State == step })
			u.off()
			u.on()
			await(h, "inv", func(inv wire.Inventory) bool {
				return inv.Version == "2.0.0" && inv.Update == "upd_1" && inv.Floor == 5
			})
			await(h, "ota/upd_1/status", func(s wire.UpdateStatus) bool { return s.State == wire.UpdateCommitted })
		})
	}
}

func TestBufferKeepsWhatWasNotAcknowledged(t *testing.T) {
	h := newHouse(t)
	h.fail = errors.New("disk full")
	u := h.born("dev_1")
	u.cfg.Interval = time.Millisecond
	var measured atomic.Int64
	u.cfg.Sensors = func() map[string]float64 { return map[string]float64{"n": float64(measured.Add(1))} }
	u.on()
	await(h, "inv", anyInventory)
	eventually(t, func() bool { return measured.Load() > 20 })
	u.off()
	u.cfg.Interval = time.Hour
	h.set(func() { h.fail = nil })
	u.on()
	for seq := uint64(1); seq <= 20; seq++ {
		if m := await(h, "tele/env", func(wire.Telemetry) bool { return true }); m.Boot != 1 || m.Seq != seq {
			t.Fatalf("measurement %+v; want start 1, number %d", m, seq)
		}
	}
}

// TestEvents: each start and each refused update is told, also when the platform was away.
func TestEvents(t *testing.T) {
	h := newHouse(t)
	u := h.born("dev_1").on()
	image := wire.Digest([]byte(factoryImage))
	isBoot := func(n float64) func(wire.Event) bool {
		return func(e wire.Event) bool { return e.Data["boot"] == n && e.Data["image"] == image && e.TS != 0 }
	}
	await(h, "event/boot", isBoot(1))
	u.off()
	h.set(func() { h.shut = true })
	u.on()
	<-h.refused
	u.off()
	h.forget()
	h.set(func() { h.shut = false })
	u.on()
	await(h, "event/boot", isBoot(2))
	await(h, "event/boot", isBoot(3))
	x := h.image("9.0.0", 9, "evil image")
	x.Product = "prd_meter"
	u.list(1, u.signer, x)
	u.offer("upd_1", x)
	if e := await(h, "event/update-refused", func(wire.Event) bool { return true }); e.Data["update"] != "upd_1" || e.Data["rule"] != trust.RuleProduct || e.Detail == "" {
		t.Errorf("it tells %+v", e)
	}
}

func TestCommands(t *testing.T) {
	h := newHouse(t)
	u := h.born("dev_1").on()
	await(h, "inv", anyInventory)
	ok := func(a wire.CommandAck) bool { return true }
	result := func(wire.CommandResult) bool { return true }
	u.send("cmd/c1/ping", struct{}{})
	if a := await(h, "cmd/c1/ack", ok); !a.OK {
		t.Errorf("ping: %+v", a)
	}
	if r := await(h, "cmd/c1/res", result); !r.OK || !strings.Contains(string(r.Data), `"version":"1.0.0"`) {
		t.Errorf("ping: %+v", r)
	}
	u.send("cmd/c2/fly", struct{}{})
	if a := await(h, "cmd/c2/ack", ok); a.OK || a.Reason == "" {
		t.Errorf("an unknown command: %+v", a)
	}
	u.send("cmd/c3/set-interval", map[string]float64{"seconds": -1})
	if r := await(h, "cmd/c3/res", result); r.OK {
		t.Errorf("a negative interval: %+v", r)
	}
	// The restart may be faster than the PUBACK of the command; the platform then sends it again, as below.
	_ = h.g.Send(t.Context(), gateway.Downlink{Device: u.id, Topic: "cmd/c4/reboot", Payload: []byte("{}")})
	await(h, "cmd/c4/res", result)
	if inv := await(h, "inv", anyInventory); inv.Boot != 2 {
		t.Errorf("after the reboot %+v", inv)
	}
	u.send("cmd/c4/reboot", struct{}{}) // delivered once more: answered again, not carried out again
	await(h, "cmd/c4/res", result)
	u.send("cmd/c5/set-interval", map[string]float64{"seconds": 0.01})
	if r := await(h, "cmd/c5/res", result); !r.OK {
		t.Errorf("set-interval: %+v", r)
	}
	if m := await(h, "tele/env", func(wire.Telemetry) bool { return true }); m.Boot != 2 {
		t.Errorf("it measured in start %d: the repeated command rebooted it", m.Boot)
	}
}

func TestRenewal(t *testing.T) {
	h := newHouse(t)
	h.back, h.life = 50*time.Minute, 10*time.Minute // two thirds are over: the renewal is due at once
	u := h.born("dev_1").on()
	await(h, "inv", anyInventory)
	await(h, "inv", anyInventory) // a new session, under the new certificate
	u.off()
	if h.renewed == 0 || h.enrolled != 1 {
		t.Errorf("%d renewals and %d enrolments; want a renewal only", h.renewed, h.enrolled)
	}
}

// TestExpiredLDevID: a unit that slept for too long comes back with its certificate of birth.
func TestExpiredLDevID(t *testing.T) {
	h := newHouse(t)
	h.life = -time.Second / 2
	u := h.born("dev_1")
	u.on()
	eventually(t, func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.enrolled >= 2 {
			h.life = time.Hour
		}
		return h.enrolled >= 2
	})
	await(h, "inv", anyInventory)
}

func TestWipe(t *testing.T) {
	h := newHouse(t)
	u := h.born("dev_1").on()
	await(h, "inv", anyInventory)
	image := h.image("2.0.0", 5, "SECRET-MARK of slot b")
	u.list(1, u.signer, image)
	u.offer("upd_1", image)
	await(h, "ota/upd_1/status", func(s wire.UpdateStatus) bool { return s.State == wire.UpdateCommitted })
	u.send("cmd/w0/wipe", struct{}{})
	if a := await(h, "cmd/w0/ack", func(wire.CommandAck) bool { return true }); a.OK {
		t.Error("a wipe without a nonce was accepted")
	}
	u.send("cmd/w1/wipe", wire.WipeArgs{Nonce: "n-42"})
	res := await(h, "cmd/w1/res", func(wire.CommandResult) bool { return true })
	var signed wire.Signed
	var receipt wire.WipeReceipt
	if err := json.Unmarshal(res.Data, &signed); err != nil || !res.OK {
		t.Fatalf("%+v: %v", res, err)
	}
	if err := signed.Open(u.key, &receipt); err != nil {
		t.Fatal(err)
	}
	if receipt.Device != "dev_1" || receipt.Serial != "SN-dev_1" || receipt.Command != "w1" || receipt.Nonce != "n-42" || receipt.Image != image.SHA256 || len(receipt.Areas) != 5 {
		t.Errorf("receipt %+v", receipt)
	}
	if err := <-u.ended; err != nil {
		t.Errorf("Supervise ended with %v", err)
	}
	u.ended <- nil
	err := filepath.WalkDir(u.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != "wiped" {
			t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if err := agent.Run(t.Context(), u.cfg); !errors.Is(err, agent.ErrWiped) {
		t.Errorf("a wiped unit ran: %v", err)
	}
	if _, err := agent.Provision(u.dir, "SN-2"); err == nil {
		t.Error("a wiped unit was provisioned again")
	}
}

func TestProvisionRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, serial := range []string{"", "a b", strings.Repeat("x", 65), "a/b"} {
		if _, err := agent.Provision(dir+"/x", serial); err == nil {
			t.Errorf("serial %q was accepted", serial)
		}
	}
	if _, err := agent.Provision(dir, "S1"); err != nil {
		t.Fatal(err)
	}
	if _, err := agent.Provision(dir, "S1"); err == nil {
		t.Error("a unit was born twice")
	}
	if err := agent.Install(dir, wire.LineResponse{Certificate: "nothing"}); err == nil {
		t.Error("nothing was installed as a certificate")
	}
	if err := agent.Run(t.Context(), agent.Config{Dir: dir, HTTPS: "x", MQTT: "x", Product: "p", Revision: "r"}); err == nil {
		t.Error("a unit that has not left the line ran")
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// boots reads the number of starts from the boot record.
func boots(t *testing.T, dir string) (n uint64) {
	for _, name := range []string{"boot.0", "boot.1"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		var r struct{ Record struct{ Boot uint64 } }
		if err := json.Unmarshal(b, &r); err != nil {
			t.Fatal(err)
		}
		n = max(n, r.Record.Boot)
	}
	return n
}

func names(t *testing.T, dir string) []os.DirEntry {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return list
}
