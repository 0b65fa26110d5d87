// SPDX-License-Identifier: AGPL-3.0-only

package gateway_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// TestIdleSessionsWaitOutsideTLS holds what keeps an idle connection small: nobody who waits for a device has the frames
// of a TLS read on the stack.
func TestIdleSessionsWaitOutsideTLS(t *testing.T) {
	h := newHouse(t, gateway.Limits{})
	const devices = 5
	for i := range devices {
		s := h.session(h.device(fmt.Sprint("d", i)), mqtt.V5)
		s.send(&mqtt.Pingreq{})
		if _, ok := s.next().(*mqtt.Pingresp); !ok {
			t.Fatal("no answer to a PINGREQ")
		}
	}
	dump := make([]byte, 1<<20)
	for t.Context().Err() == nil {
		waiting := 0
		for stack := range strings.SplitSeq(string(dump[:runtime.Stack(dump, true)]), "\n\n") {
			head, frames, _ := strings.Cut(stack, "\n")
			if !strings.Contains(head, "[IO wait") || !strings.Contains(frames, "gateway.(*session).loop") {
				continue
			}
			if strings.Contains(frames, "crypto/tls.") {
				t.Fatalf("a session waits inside crypto/tls:\n%s", stack)
			}
			waiting++
		}
		if waiting == devices {
			return
		}
		runtime.Gosched()
	}
}

// pieces writes to a socket in pieces of its own choice.
type pieces struct {
	net.Conn
	size int          // of a piece
	held bytes.Buffer // what is written later, if size is 0
}

func (p *pieces) Write(b []byte) (n int, err error) {
	if p.size == 0 {
		return p.held.Write(b)
	}
	for len(b) > 0 && err == nil {
		var m int
		m, err = p.Conn.Write(b[:min(p.size, len(b))])
		n, b = n+m, b[m:]
	}
	return n, err
}

// TestRecordsInPieces has TLS records arrive byte by byte, and a hundred of them with one read of the socket, which ends
// in the middle of one.
func TestRecordsInPieces(t *testing.T) {
	h := newHouse(t, gateway.Limits{Receive: 200})
	cert := h.device("d1")
	socket, err := net.Dial("tcp", h.mqtt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	p := &pieces{Conn: socket, size: 1}
	conn := tls.Client(p, h.clientTLS(&cert))
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	s := &raw{t, conn, mqtt.NewReader(conn, 1<<20), mqtt.V5}
	s.send(&mqtt.Connect{Version: mqtt.V5, CleanStart: true})
	if ack, ok := s.next().(*mqtt.Connack); !ok || ack.Reason != mqtt.Success {
		t.Fatalf("CONNECT was answered by %+v", ack)
	}
	s.send(qos1(1, "ot/1/me/tele/x", "a message in pieces"))
	s.wantAck(1, mqtt.Success)

	p.size = 0
	for id := range uint16(100) {
		s.send(qos1(2+id, "ot/1/me/tele/x", strings.Repeat("x", 100)))
	}
	if _, err := p.held.WriteTo(socket); err != nil {
		t.Fatal(err)
	}
	for id := range uint16(100) {
		s.wantAck(2+id, mqtt.Success)
	}
	if n := len(h.appended()); n != 101 {
		t.Errorf("%d messages were appended, want 101", n)
	}
}
