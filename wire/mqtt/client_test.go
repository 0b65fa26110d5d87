// SPDX-License-Identifier: Apache-2.0

package mqtt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
)

// server is the other end of a client's connection, played by the test.
type server struct {
	t    *testing.T
	conn net.Conn
	r    *Reader
}

// served connects a client to a server that answers CONNECT with ack.
func served(t *testing.T, cfg ClientConfig, ack *Connack) (*Client, *server, error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ours, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	if err := theirs.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	s := &server{t, theirs, NewReader(theirs, 1<<20)}
	s.send(ack) // it may wait in the socket for its CONNECT
	c, err := NewClient(t.Context(), ours, cfg)
	if err == nil {
		t.Cleanup(func() { c.Close() })
		if p, ok := s.next().(*Connect); !ok || p.Version != V5 || !p.CleanStart {
			t.Errorf("the client opened with %+v", p)
		}
	}
	return c, s, err
}

func (s *server) send(ps ...Packet) {
	s.t.Helper()
	var b []byte
	for _, p := range ps {
		var err error
		if b, err = Append(b, V5, p); err != nil {
			s.t.Fatal(err)
		}
	}
	if _, err := s.conn.Write(b); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) next() Packet {
	s.t.Helper()
	p, err := next(s.r)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func reasonOf(err error) Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return Success
}

func TestClientIsRefused(t *testing.T) {
	if _, _, err := served(t, ClientConfig{}, &Connack{Reason: NotAuthorized}); reasonOf(err) != NotAuthorized {
		t.Errorf("NewClient: %v", err)
	}
}

func TestClientKeepsTheWindow(t *testing.T) {
	c, s, err := served(t, ClientConfig{Window: 10}, &Connack{Properties: Properties{{ID: ReceiveMaximum, Num: 2}}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 3)
	for range 2 {
		if err := c.Go(t.Context(), "t", []byte("x"), func(err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
	}
	full, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := c.Go(full, "t", nil, func(error) { t.Error("called after a failed Go") }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Go beyond the window: %v", err)
	}
	a, b := s.next().(*Publish), s.next().(*Publish)
	s.send(&Ack{Kind: PUBACK, ID: a.ID}, &Ack{Kind: PUBACK, ID: b.ID, Reason: QuotaExceeded})
	if err := <-done; err != nil {
		t.Errorf("first: %v", err)
	}
	if err := <-done; reasonOf(err) != QuotaExceeded {
		t.Errorf("second: %v", err)
	}
	if err := c.Go(t.Context(), "t/#", nil, func(error) { t.Error("called after a failed Go") }); reasonOf(err) != TopicNameInvalid {
		t.Errorf("Go to a wildcard: %v", err)
	}
	if err := c.Go(t.Context(), "t", nil, func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Errorf("in flight at Close: %v", err)
	}
	if err := c.Publish(t.Context(), "t", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestClientAcknowledgesAfterTheHandler: a PUBACK is the handler's receipt, and the handler may use the client.
func TestClientAcknowledgesAfterTheHandler(t *testing.T) {
	var c *Client
	ready := make(chan struct{})
	c, s, err := served(t, ClientConfig{Handler: func(topic string, payload []byte) {
		<-ready
		if err := c.Publish(t.Context(), topic+"/ack", payload); err != nil {
			t.Error(err)
		}
	}}, &Connack{})
	if err != nil {
		t.Fatal(err)
	}
	close(ready)
	s.send(&Publish{QoS: 1, ID: 77, Topic: "cmd", Payload: []byte("x")})
	p, ok := s.next().(*Publish)
	if !ok || p.Topic != "cmd/ack" || string(p.Payload) != "x" {
		t.Fatalf("the handler sent %+v", p)
	}
	s.send(&Ack{Kind: PUBACK, ID: p.ID})
	if a, ok := s.next().(*Ack); !ok || a.ID != 77 {
		t.Errorf("got %+v, want the PUBACK of 77", a)
	}
}

func TestClientPings(t *testing.T) {
	hand := clock.NewHand(time.Now())
	_, s, err := served(t, ClientConfig{Clock: hand}, &Connack{Properties: Properties{{ID: ServerKeepAlive, Num: 7}}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		hand.WaitTimers(1)
		hand.Advance(7 * time.Second)
		if p, ok := s.next().(*Pingreq); !ok {
			t.Errorf("got %+v, want PINGREQ", p)
		}
	}
}

// TestClientEnds: what a server may not do, and its goodbye, end the session with the reason.
func TestClientEnds(t *testing.T) {
	var flood []Packet
	for i := range 2*downlinks + 2 {
		flood = append(flood, &Publish{QoS: 1, ID: uint16(i + 1), Topic: "t"})
	}
	block := make(chan struct{})
	defer close(block)
	for name, c := range map[string]struct {
		send []Packet
		want Reason
	}{
		"goodbye":               {[]Packet{&Disconnect{Reason: AdministrativeAction}}, AdministrativeAction},
		"PUBACK for nothing":    {[]Packet{&Ack{Kind: PUBACK, ID: 9}}, ProtocolError},
		"PUBREC":                {[]Packet{&Ack{Kind: PUBREC, ID: 9}}, ProtocolError},
		"CONNECT":               {[]Packet{&Connect{Version: V5}}, ProtocolError},
		"more than was allowed": {flood, ReceiveMaxExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			cl, s, err := served(t, ClientConfig{Handler: func(string, []byte) { <-block }}, &Connack{})
			if err != nil {
				t.Fatal(err)
			}
			s.send(c.send...)
			<-cl.Done()
			if reasonOf(cl.Err()) != c.want {
				t.Errorf("Err = %v", cl.Err())
			}
			if err := cl.Subscribe(t.Context(), "t"); reasonOf(err) != c.want {
				t.Errorf("Subscribe after the end: %v", err)
			}
		})
	}
}

// TestClientWithMosquitto uses Debian's broker as the other end.
func TestClientWithMosquitto(t *testing.T) {
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path = "/usr/sbin/mosquitto" // not on every user's PATH
	}
	dir := t.TempDir()
	door := filepath.Join(dir, "door") // a socket of this test's own: no port that somebody else could take
	acl := "topic readwrite open/#\ntopic read closed/#\n"
	conf := fmt.Sprintf("user root\nlistener 0 %s\nallow_anonymous true\nacl_file %s/acl\nlog_type all\nlog_dest stderr\n", door, dir)
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "acl"), []byte(acl), 0o600), os.WriteFile(filepath.Join(dir, "conf"), []byte(conf), 0o600)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, "-c", filepath.Join(dir, "conf"))
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("mosquitto is not installed: %v", err)
	}
	defer cmd.Wait() //nolint:errcheck // it is killed
	defer cmd.Process.Kill()
	var said strings.Builder
	for b := make([]byte, 4096); !strings.Contains(said.String(), " running"); {
		n, err := out.Read(b)
		said.Write(b[:n])
		if err != nil {
			t.Fatalf("mosquitto ended: %s", said.String())
		}
	}
	go func() { // its log must not fill the pipe
		b := make([]byte, 4096)
		for {
			if _, err := out.Read(b); err != nil {
				return
			}
		}
	}()

	conn, err := net.Dial("unix", door)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1000)
	c, err := NewClient(t.Context(), conn, ClientConfig{ClientID: "test", Handler: func(topic string, payload []byte) { got <- topic + " " + string(payload) }})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Subscribe(t.Context(), "open/+"); err != nil {
		t.Fatal(err)
	}
	if err := c.Publish(t.Context(), "closed/a", nil); reasonOf(err) != NotAuthorized {
		t.Errorf("Publish to a closed topic: %v", err)
	}
	if err := c.PublishQoS0("open/zero", []byte("0")); err != nil {
		t.Fatal(err)
	}
	if m := <-got; m != "open/zero 0" {
		t.Errorf("received %q", m)
	}
	// In waves below the Receive Maximum, because mosquitto 2.0.11 loses count of it (its issue 2301).
	acked := make(chan error, 500)
	for i := 0; i < 500; {
		wave := i
		for ; i < wave+10; i++ {
			if err := c.Go(t.Context(), "open/n", fmt.Append(nil, i), func(err error) { acked <- err }); err != nil {
				t.Fatal(err)
			}
		}
		for n := wave; n < i; n++ {
			if err := <-acked; err != nil {
				t.Fatal(err)
			}
			if m := <-got; m != fmt.Sprintf("open/n %d", n) {
				t.Fatalf("message %d is %q", n, m)
			}
		}
	}
}
