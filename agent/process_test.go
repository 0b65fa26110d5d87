// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// program builds the agent as make build does.
func program(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "openthings-agent")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", bin, "../cmd/openthings-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// start runs the unit as a process of its own, under the clock of this machine.
func (d *device) start(bin string) *exec.Cmd {
	d.h.t.Helper()
	c := exec.Command(bin, "run", "-dir", d.dir, "-https", d.h.https, "-mqtt", d.h.mqtt, "-product", d.h.product, "-revision", "A", "-interval", "1h")
	d.h.must(c.Start())
	d.h.t.Cleanup(func() {
		_ = c.Process.Kill() // it may have ended
		_ = c.Wait()
	})
	return c
}

// TestProcess: the agent as it is shipped is small, needs little memory, and survives kill -9 at any moment of its
// renewals. Its clock is months behind the platform's all the while.
func TestProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("memory is read from /proc")
	}
	bin := program(t)
	if size := ok(os.Stat(bin))(t).Size(); size > 10<<20 {
		t.Errorf("the stripped agent has %d bytes", size)
	} else {
		t.Logf("%d bytes", size)
	}
	h := newPlatform(t)
	d := h.born("SN-1")
	c := d.start(bin)
	d.inventory(anyInventory)
	status := string(ok(os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Process.Pid)))(t))
	_, rest, _ := strings.Cut(status, "VmHWM:")
	var kib int
	if _, err := fmt.Sscan(rest, &kib); err != nil || kib > 20<<10 {
		t.Errorf("it needed %d kB of memory (%v)", kib, err)
	}
	t.Logf("%d kB resident at most", kib)
	kill := func(c *exec.Cmd) {
		h.must(c.Process.Kill())
		_ = c.Wait() // it says that it was killed
	}
	kill(c)
	h.admitted.Clear()
	for round := 1; round <= 6; round++ {
		h.hand.Advance(47 * 24 * time.Hour)
		for handshakes := 1; d.certificates()["ldevid superseded"] < round && handshakes < 60; handshakes++ {
			h.forget()
			c := d.start(bin)
			seen := 0 // killed one handshake later each time, until the renewal is through
			eventually(t, func() bool {
				for ; len(h.shown) > 0; seen++ {
					<-h.shown
				}
				return seen >= handshakes || d.certificates()["ldevid superseded"] == round
			})
			kill(c)
		}
	}
	if got := d.certificates(); got["ldevid active"] != 1 || got["ldevid superseded"] != 6 || got["idevid active"] != 1 || len(got) != 3 {
		t.Errorf("certificates %v", got)
	}
	if _, needed := h.admitted.Load("idevid"); needed {
		t.Error("it needed its certificate of birth")
	}
}
