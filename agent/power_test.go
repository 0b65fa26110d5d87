// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/agent"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/update/trust"
	"github.com/openthings-platform/openthings/wire"
)

var errPower = errors.New("power cut")

// cutter lets the power go before effect number at, and counts.
type cutter struct {
	mu      sync.Mutex // guards the fields below
	at, n   int        // at 0: never
	effects []string
	stop    context.CancelFunc
}

func (c *cutter) cut(effect string) error {
	if strings.HasPrefix(effect, "sync") {
		return nil // what a lost sync costs is crash_test's question
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	c.effects = append(c.effects, effect)
	if c.at > 0 && c.n >= c.at {
		c.stop()
		return errPower
	}
	return nil
}

// powered runs the unit until the power goes before effect number at, or until says that it is enough. It returns the
// effects that were asked for. Beside it the platform tries to send until that succeeds once.
func (u *unit) powered(at int, send func(context.Context) error, until func() bool) []string {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c := &cutter{at: at, stop: cancel}
	var beside sync.WaitGroup
	beside.Go(func() {
		defer cancel()
		for err := agent.ErrReboot; errors.Is(err, agent.ErrReboot) && ctx.Err() == nil; {
			err = agent.RunUntilCut(ctx, u.cfg, c.cut)
		}
	})
	beside.Go(func() {
		eventually(u.h.t, func() bool { return ctx.Err() != nil || send(ctx) == nil })
	})
	eventually(u.h.t, func() bool { return ctx.Err() != nil || until() })
	cancel()
	beside.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.effects
}

// TestPowerCutAtEveryEffect cuts the power before every single effect on disk that an update has, from the start before
// the offer to the acknowledged report. Whatever the moment: the unit starts again, runs the old image or the new one
// whole, says which, and its floor fits.
func TestPowerCutAtEveryEffect(t *testing.T) {
	h := newHouse(t)
	image := h.image("2.0.0", 5, strings.Repeat("image", 1000))
	outcomes, lost := map[string]int{}, map[string]bool{}
	for at, whole := 0, 1; at <= whole; at++ {
		u := h.born("dev_" + strconv.Itoa(at)).on()
		await(h, "inv", anyInventory)
		u.off() // it is enrolled; what follows is the update alone
		u.list(1, u.signer, image)
		offer := func(ctx context.Context) error { return u.tryOffer(ctx, image) }
		effects := u.powered(at, offer, func() bool { return at == 0 && reported(u.dir) })
		if at == 0 {
			if whole = len(effects); whole < 15 {
				t.Fatalf("only %d effects: %v", whole, effects)
			}
		}
		h.forget()
		u.on()
		await(h, "inv", anyInventory)
		eventually(t, func() bool { return offer(t.Context()) == nil }) // repeated, as after every connection
		eventually(t, func() bool { return reported(u.dir) })
		u.off()
		h.forget()
		u.on()
		inv := await(h, "inv", anyInventory)
		switch {
		case inv.Version == "2.0.0" && inv.Slot == "b" && inv.Image == image.SHA256 && inv.Floor == 5:
		case inv.Version == "1.0.0" && inv.Slot == "a" && inv.Image == wire.Digest([]byte(factoryImage)) && inv.Floor == 3:
			if at > 0 && at <= len(effects) {
				lost[effects[at-1]] = true // by name: the buffer is emptied beside, so that numbers shift by one
			}
		default:
			t.Errorf("power cut before effect %d (%s): it ends as %+v", at, effects[len(effects)-1], inv)
		}
		outcomes[inv.Version]++
		u.off()
	}
	t.Logf("outcomes: %v", outcomes)
	// Only a cut during the one start of the new image, which has four effects, may cost the update.
	if len(lost) > 4 || outcomes["2.0.0"] < 15 {
		t.Errorf("outcomes %v, lost by a cut before %v", outcomes, lost)
	}
}

// TestPowerCutAtEveryEffectOfAWipe: once the intent to wipe is on disk the unit never comes back, nothing is left on it,
// and a receipt was sent only if everything that it names was gone.
func TestPowerCutAtEveryEffectOfAWipe(t *testing.T) {
	h := newHouse(t)
	receipts := 0
	for at, whole := 0, 1; at <= whole; at++ {
		u := h.born("dev_" + strconv.Itoa(at)).on()
		await(h, "inv", anyInventory)
		u.off()
		h.forget()
		wiped := func() bool { _, err := os.Stat(filepath.Join(u.dir, "wiped")); return err == nil }
		effects := u.powered(at, func(ctx context.Context) error {
			return h.g.Send(ctx, gateway.Downlink{Device: u.id, Topic: "cmd/w1/wipe", Payload: []byte(`{"nonce":"n"}`)})
		}, func() bool { return false })
		if at == 0 {
			whole = len(effects)
		}
		began := slices.ContainsFunc(effects[:len(effects)-1], func(e string) bool { return strings.HasPrefix(e, "overwrite slot-a") })
		sent := false
		for len(h.heard) > 0 {
			r := <-h.heard
			sent = sent || strings.HasSuffix(r.Topic, "cmd/w1/res") && strings.Contains(string(r.Body), `"ok":true`)
		}
		if sent {
			receipts++
			if left := names(t, u.dir); slices.ContainsFunc(left, func(f os.DirEntry) bool {
				return strings.HasPrefix(f.Name(), "slot-") || strings.HasPrefix(f.Name(), "ldevid")
			}) {
				t.Errorf("power cut before effect %d (%s): a receipt, and %v is left", at, effects[len(effects)-1], left)
			}
		}
		if !began && !wiped() && !sent {
			continue // the command had not arrived; the platform sends it again
		}
		if err := agent.Run(t.Context(), u.cfg); !errors.Is(err, agent.ErrWiped) {
			t.Errorf("power cut before effect %d (%s): it ran again: %v", at, effects[len(effects)-1], err)
		}
		if left := names(t, u.dir); len(left) != 1 || left[0].Name() != "wiped" {
			t.Errorf("power cut before effect %d (%s): left %v", at, effects[len(effects)-1], left)
		}
	}
	if receipts < 3 {
		t.Errorf("%d receipts", receipts)
	}
}

func (u *unit) tryOffer(ctx context.Context, x trust.Target) error {
	b, err := json.Marshal(wire.Offer{Update: "upd_1", Release: "rel_1", Target: x.Path})
	if err != nil {
		return err
	}
	return u.h.g.Send(ctx, gateway.Downlink{Device: u.id, Topic: wire.TopicOffer, Payload: b})
}

// reported says that the boot record holds no update any more.
func reported(dir string) bool {
	newest, seq := "", ""
	for _, name := range []string{"boot.0", "boot.1"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return false
		}
		_, rest, _ := strings.Cut(string(b), `"seq":`)
		n, _, _ := strings.Cut(rest, ",")
		if len(n) > len(seq) || len(n) == len(seq) && n > seq {
			newest, seq = string(b), n
		}
	}
	return strings.Contains(newest, `"done":["upd_1"]`) && !strings.Contains(newest, `"update":`)
}
