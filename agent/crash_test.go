// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/agent"
	"github.com/openthings-platform/openthings/wire"
)

// medium is what lies under a state directory: it knows what a power cut may take. What was written and not synced may
// be lost or torn; a rename or removal that no sync of the directory followed may not have happened, each for itself.
type medium struct {
	dir  string
	stop context.CancelFunc
	at   string // the power goes before the first effect of this name; "": never

	mu    sync.Mutex // guards the fields below
	dead  bool
	live  map[string]*inode
	names map[string]*inode // as the last sync of the directory made certain
	since []change          // of names, since then
	steps []string
}

// inode is one file's content: certain, or in doubt between what it was and what it was to be.
type inode struct {
	content []byte
	doubt   bool
	file    string // where the running program has it, while in doubt
}

// change gives a name another content, or none; gone is the name that went in the same step.
type change struct {
	name, gone string
	node       *inode
}

// newMedium begins with a directory all of which is certain.
func newMedium(t *testing.T, dir, at string) *medium {
	m := &medium{dir: dir, at: at, live: map[string]*inode{}, names: map[string]*inode{}}
	for _, e := range names(t, dir) {
		if e.IsDir() {
			continue
		}
		node := &inode{content: ok(os.ReadFile(filepath.Join(dir, e.Name())))(t)}
		m.live[e.Name()], m.names[e.Name()] = node, node
	}
	return m
}

// cut is asked before each effect.
func (m *medium) cut(effect string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return errPower
	}
	f := strings.Fields(effect)
	if strings.HasPrefix(f[1], "buffer") {
		return nil // measurements are not synced, and nothing rests on them
	}
	if effect == m.at {
		m.dead = true
		m.stop()
		return errPower
	}
	m.steps = append(m.steps, effect)
	switch f[0] {
	case "write": // into a new file beside the old one
		name := f[1] + ".tmp"
		m.live[name] = &inode{doubt: true, file: name}
		m.since = append(m.since, change{name: name, node: m.live[name]})
	case "overwrite":
		if node := m.live[f[1]]; node != nil {
			node.doubt, node.file = true, f[1]
		}
	case "sync":
		b, err := os.ReadFile(filepath.Join(m.dir, f[1]))
		if err != nil {
			return err
		}
		m.live[f[1]].content, m.live[f[1]].doubt = b, false
	case "rename":
		node := m.live[f[1]]
		delete(m.live, f[1])
		m.live[f[2]] = node
		m.since = append(m.since, change{name: f[2], gone: f[1], node: node})
	case "remove":
		delete(m.live, f[1])
		m.since = append(m.since, change{gone: f[1]})
	case "syncdir":
		for _, c := range m.since {
			c.apply(m.names)
		}
		m.since = nil
	}
	return nil
}

func (c change) apply(names map[string]*inode) {
	delete(names, c.gone)
	if c.node != nil {
		names[c.name] = c.node
	}
}

// left writes into a new directory what the power cut left: the least for seed 0, everything for seed 1, chance beyond.
func (m *medium) left(t *testing.T, seed uint64) string {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, uint64(len(m.steps))))
	keep := func() bool { return seed == 1 || seed > 1 && r.IntN(2) == 0 }
	names := map[string]*inode{}
	for name, node := range m.names {
		names[name] = node
	}
	for _, c := range m.since {
		if keep() {
			c.apply(names)
		}
	}
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.MkdirAll(filepath.Join(dir, "buffer"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, node := range names {
		b := node.content
		if node.doubt {
			now, err := os.ReadFile(filepath.Join(m.dir, node.file))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			switch n := min(len(b), len(now)) / 2; {
			case keep():
				b = now
			case keep():
				b = bytes.Join([][]byte{now[:n], b[n:]}, nil)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// renewOn runs the unit on m, and turns the clock past its renewal once it is connected, until the new certificate is in
// use and confirmed, or the power goes. It says whether the clock was turned.
func (d *device) renewOn(m *medium) (turned bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	m.stop = cancel
	var beside sync.WaitGroup
	beside.Go(func() {
		defer cancel()
		_ = agent.RunUntilCut(ctx, d.cfg, m.cut)
	})
	for ctx.Err() == nil {
		select {
		case r := <-d.h.heard:
			if r.Device == d.id && r.Topic == wire.TopicInv && !turned {
				turned = true
				d.h.hand.Advance(47 * 24 * time.Hour)
			}
		case <-ctx.Done():
		}
		if d.certificates()["ldevid superseded"] == 1 {
			break
		}
	}
	if m.at == "" { // to the last effect, which erases the old key
		eventually(d.h.t, func() bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			return slices.Contains(m.steps, "remove ldevid-a.key")
		})
	}
	cancel()
	<-ctx.Done()
	beside.Wait()
	return turned
}

// comes waits until the unit has an inventory to tell, and says whether it came without its certificate of birth.
func (d *device) comes() bool {
	var told, birth bool
	eventually(d.h.t, func() bool {
		for !told && len(d.h.heard) > 0 {
			r := <-d.h.heard
			told = r.Device == d.id && r.Topic == wire.TopicInv
		}
		_, birth = d.h.admitted.Load("idevid")
		return told || birth
	})
	return !birth
}

// TestI06_PowerCutAtEachRenewalStepLeavesAWorkingIdentity: a renewal on the real platform loses its power before each
// durable step in turn, and with it whatever was not synced by then. The unit always comes back with an LDevID, never
// needs its IDevID, and completes this renewal and the next without wasting a certificate.
func TestI06_PowerCutAtEachRenewalStepLeavesAWorkingIdentity(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprintf("what is left, draw %d", seed), func(t *testing.T) {
			h := newPlatform(t)
			cuts, made := []string{""}, 0 // the first run is whole, and shows where the power can go
			for ; made < len(cuts); made++ {
				at := cuts[made]
				d := h.born(fmt.Sprintf("SN-%d", made)).on()
				d.inventory(anyInventory)
				d.off()
				h.forget()
				m := newMedium(t, d.dir, at)
				turned := d.renewOn(m)
				if at == "" {
					cuts = slices.Compact(slices.Sorted(slices.Values(m.steps)))
					cuts = slices.Insert(cuts, 0, "")
					continue
				}
				dir := m.left(t, seed)
				if !m.dead { // it went by without this step
					dir = d.dir
				}
				h.forget()
				h.admitted.Clear()
				d.dir, d.cfg.Dir = dir, dir
				d.on()
				if !d.comes() {
					t.Fatalf("power cut before %q: it came back with its certificate of birth", at)
				}
				if !turned {
					h.hand.Advance(47 * 24 * time.Hour)
				}
				eventually(t, func() bool { return d.certificates()["ldevid superseded"] == 1 })
				h.hand.Advance(47 * 24 * time.Hour) // and what the cut left behind does not stand in the way of the next one
				eventually(t, func() bool { return d.certificates()["ldevid superseded"] == 2 })
				d.off()
				if got := d.certificates(); got["idevid active"] != 1 || got["ldevid active"] != 1 || got["ldevid superseded"] != 2 || len(got) != 3 {
					t.Errorf("power cut before %q: its certificates are %v", at, got)
				}
				if _, needed := h.admitted.Load("idevid"); needed {
					t.Errorf("power cut before %q: it came back with its certificate of birth", at)
				}
			}
			if n := h.identities(); n != made {
				t.Errorf("%d devices were made, %d are known", made, n)
			}
			for _, step := range []string{"sync ldevid-b.key.tmp", "syncdir . ldevid-b.key", "sync next.pem.tmp", "syncdir . next.pem",
				"rename next.pem ldevid.pem", "syncdir . ldevid.pem", "overwrite ldevid-a.key", "remove ldevid-a.key"} {
				if !slices.Contains(cuts, step) {
					t.Errorf("the power was never cut before %q: %v", step, cuts)
				}
			}
		})
	}
}
