// SPDX-License-Identifier: AGPL-3.0-only

package gateway_test

import (
	"crypto/rand"
	"errors"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestHostileMemory: forty connections that claim the largest packet and send a part of it cost what they sent, not
// what they claimed.
func TestHostileMemory(t *testing.T) {
	h := newHouse(t, gateway.Limits{Packet: 200 << 20, PerPeer: 100})
	cert := h.device("dev_1")
	var conns []*raw
	for range 40 { // the connections stay: each takes the session over, and a handshake is all the others need
		conns = append(conns, h.raw(cert, mqtt.V5))
	}
	before := heap()
	for _, c := range conns {
		// Before CONNECT was accepted the limit is 4 KiB: this is refused by its length.
		if _, err := c.Write([]byte{0x10, 0xFF, 0xFF, 0xFF, 0x7F}); err != nil {
			t.Fatal(err)
		}
		c.silentEnd()
	}
	last := h.session(cert, mqtt.V5)
	if _, err := last.Write(append([]byte{0x30, 0xFF, 0xFF, 0xFF, 0x5F}, make([]byte, 10000)...)); err != nil { // claims 192 MiB
		t.Fatal(err)
	}
	other := h.session(h.device("dev_2"), mqtt.V5)
	other.send(qos1(1, "ot/1/me/inv", "{}"))
	other.wantAck(1, mqtt.Success)
	if after := heap(); after > before+4<<20 {
		t.Errorf("the heap grew from %d to %d KiB", before>>10, after>>10)
	}
}

// silentEnd asserts an end without any word.
func (r *raw) silentEnd() {
	r.t.Helper()
	if p := r.next(); p != nil {
		r.t.Errorf("got %+v, want the end", p)
	}
}

// TestRandomBytes throws noise at the door, before and after CONNECT; a neighbour does not notice.
func TestRandomBytes(t *testing.T) {
	h := newHouse(t, gateway.Limits{})
	cert := h.device("dev_1")
	neighbour := h.session(h.device("dev_2"), mqtt.V5)
	for i := range 60 {
		r := h.raw(cert, mqtt.V5)
		if i%2 == 0 {
			r.Close()
			r = h.session(cert, mqtt.V5)
		}
		noise := make([]byte, 512)
		rand.Read(noise)
		_, _ = r.Write(noise)
		_ = r.CloseWrite()
		for {
			if _, _, err := r.r.Next(); err != nil {
				break
			}
		}
	}
	neighbour.send(&mqtt.Pingreq{})
	if _, ok := neighbour.next().(*mqtt.Pingresp); !ok {
		t.Error("a neighbour was harmed")
	}
}

// TestPanicEndsOneConnection: a defect met by one device's bytes ends that device's connection only.
func TestPanicEndsOneConnection(t *testing.T) {
	h := newHouse(t, gateway.Limits{})
	neighbour := h.session(h.device("dev_2"), mqtt.V5)
	r := h.session(h.device("dev_1"), mqtt.V5)
	r.send(qos1(1, "panic/please", ""))
	r.ended(mqtt.UnspecifiedError)
	h.await("refused dev_1 mqtt.panic")
	h.await("offline dev_1")
	neighbour.send(&mqtt.Pingreq{})
	if _, ok := neighbour.next().(*mqtt.Pingresp); !ok {
		t.Error("a neighbour was harmed")
	}
}

// TestPendingConnectionsAreBounded: whoever opens sockets and says nothing is turned away beyond the limit, and those
// inside time out.
func TestPendingConnectionsAreBounded(t *testing.T) {
	h := newHouse(t, gateway.Limits{Pending: 3, Opening: 2 * time.Second})
	for i, addr := range []string{h.mqtt, h.https} {
		var silent []net.Conn
		for range 4 {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			silent = append(silent, c)
		}
		for i := len(silent) - 1; i >= 0; i-- {
			_, err := silent[i].Read(make([]byte, 100))
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
				t.Errorf("%s: silent connection %d was left open", addr, i)
			}
		}
		if n := h.g.Load().Refused["door"]; n != int64(i+1) {
			t.Errorf("%s: %d connections were turned away, want one of each door", addr, n)
		}
	}
	h.session(h.device("dev_1"), mqtt.V5)
}

// TestSlowReaderDoesNotHoldOthers: a device that asks for pings and never reads loses its connection; the committer and
// other devices go on.
func TestSlowReaderDoesNotHoldOthers(t *testing.T) {
	h := newHouse(t, gateway.Limits{Out: 32 << 10, Write: time.Second})
	slow := h.session(h.device("dev_1"), mqtt.V5)
	ping, _ := mqtt.Append(nil, mqtt.V5, &mqtt.Pingreq{})
	var burst []byte
	for range 8000 {
		burst = append(burst, ping...)
	}
	for {
		if _, err := slow.Write(burst); err != nil {
			break
		}
	}
	h.await("offline dev_1")
	other := h.session(h.device("dev_2"), mqtt.V5)
	other.send(qos1(1, "ot/1/me/inv", "{}"))
	other.wantAck(1, mqtt.Success)
}
