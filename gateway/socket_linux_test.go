// SPDX-License-Identifier: AGPL-3.0-only

package gateway_test

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// vanish has the peer's socket drop all that comes, before TCP can acknowledge it: what the platform sees of a device
// whose power or network is gone.
func vanish(t *testing.T, conn net.Conn) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var set error
	drop := *syscall.LsfStmt(syscall.BPF_RET|syscall.BPF_K, 0)
	if err := raw.Control(func(fd uintptr) { set = syscall.AttachLsf(int(fd), []syscall.SockFilter{drop}) }); err != nil || set != nil {
		t.Fatal(err, set)
	}
}

// TestVanishedDeviceIsNoticed sends a command to a device that is gone without a word, and whose keep-alive is an hour:
// TCP gives up by itself only after a quarter of an hour.
func TestVanishedDeviceIsNoticed(t *testing.T) {
	h := newHouse(t, gateway.Limits{Unacked: time.Second})
	s := h.raw(h.device("dev_1"), mqtt.V5)
	s.send(&mqtt.Connect{Version: mqtt.V5, CleanStart: true, KeepAlive: 3600},
		&mqtt.Subscribe{ID: 1, Filters: []mqtt.Filter{{Topic: "ot/1/me/cmd/#", QoS: 1}}})
	h.await("ready dev_1")
	vanish(t, s.NetConn())
	sent := make(chan error, 1)
	go func() {
		sent <- h.g.Send(t.Context(), gateway.Downlink{Device: "dev_1", Topic: "cmd/1/reboot"})
	}()
	h.await("offline dev_1")
	if err := <-sent; !errors.Is(err, gateway.ErrLost) {
		t.Errorf("Send: %v, want %v", err, gateway.ErrLost)
	}
}
