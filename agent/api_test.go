// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/agent"
	"github.com/openthings-platform/openthings/wire"
)

// TestWhatAMakerHandsIn: by function and over the local socket, across a restart; the platform sees one chain.
func TestWhatAMakerHandsIn(t *testing.T) {
	h := newHouse(t)
	u := h.born("dev_1")
	u.cfg.Socket = filepath.Join(t.TempDir(), "agent.sock")
	seq, prev := uint64(0), ""
	next := func(kind string) wire.SecurityEvent {
		t.Helper()
		r := await(h, "event/security."+kind, func(json.RawMessage) bool { return true })
		e, err := wire.ParseSecurityEvent(r)
		if seq++; err != nil || e.Seq != seq || e.Prev != prev || e.Kind != kind {
			t.Fatalf("link %d: %+v, %v", seq, e, err)
		}
		prev = wire.Digest(r)
		return e
	}
	for boot := uint64(1); boot <= 2; boot++ {
		x := agent.New(u.cfg)
		if err := x.Measure("env", nil); !errors.Is(err, agent.ErrOff) {
			t.Errorf("switched off it takes a measurement: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- x.Supervise(ctx) }()
		if e := next("boot"); e.Boot != boot {
			t.Errorf("start %d: %+v", boot, e)
		}
		eventually(t, func() bool { _, err := os.Stat(u.cfg.Socket); return err == nil })
		if err := x.Security("login", "root", map[string]any{"tty": "S0"}); err != nil {
			t.Fatal(err)
		}
		if e := next("login"); e.Detail != "root" || string(e.Data) != `{"tty":"S0"}` {
			t.Errorf("%+v", e)
		}
		if err := x.Measure("motor", map[string]float64{"rpm": 900}); err != nil {
			t.Fatal(err)
		}
		ofThisStart := func(m wire.Telemetry) bool { return m.Boot == boot } // what the one before has no receipt of comes again
		if m := await(h, "tele/motor", ofThisStart); m.Values["rpm"] != 900 || m.Seq != 1 {
			t.Errorf("%+v", m)
		}
		for _, bad := range []error{x.Measure("a/b", nil), x.Security("Login", "", nil), x.Security("checkpoint", "", nil), x.Security("login", strings.Repeat("x", 9000), nil)} {
			if bad == nil {
				t.Error("nonsense was taken")
			}
		}
		c, err := net.Dial("unix", u.cfg.Socket)
		if err != nil {
			t.Fatal(err)
		}
		in := bufio.NewScanner(c)
		answered := func(line string, want bool) {
			t.Helper()
			fmt.Fprintln(c, line)
			var r agent.Reply
			if !in.Scan() || json.Unmarshal(in.Bytes(), &r) != nil || r.OK != want {
				t.Errorf("answered %s; want %t", in.Bytes(), want)
			}
		}
		// One after the other: security events wait for each other's receipt, measurements do not.
		answered(`{"kind":"tamper","detail":"the lid is open"}`, true)
		next("tamper")
		answered(`{"stream":"motor","values":{"rpm":901}}`, true)
		if m := await(h, "tele/motor", ofThisStart); m.Seq != 2 {
			t.Errorf("%+v", m)
		}
		answered(`{"kind":"tamper","stream":"motor"}`, false)
		c.Close()
		cancel()
		<-ended
	}
}

// ExampleAgent hands in a measurement and a login.
func ExampleAgent() {
	a := agent.New(agent.Config{Dir: "/var/lib/openthings"}) // and the doors, product and revision
	// go a.Supervise(ctx)
	if err := a.Measure("env", map[string]float64{"temp": 21.5}); err != nil {
		fmt.Println(err)
	}
	if err := a.Security(wire.SecurityLogin, "root on ttyS0", map[string]any{"user": "root"}); err != nil {
		fmt.Println(err)
	}
	// Output:
	// agent: it does not run
	// agent: it does not run
}
