// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/gateway"
)

// line is the way between a device and the platform, which can go deaf in one direction and be cut.
type line struct {
	addr string

	mu   sync.Mutex // guards the fields below
	deaf bool       // what the device says gets lost
	down bool       // it is cut: nobody gets through
	ends []net.Conn
}

func newLine(t *testing.T, to string) *line {
	t.Helper()
	l := ok(net.Listen("tcp", "127.0.0.1:0"))(t)
	w := &line{addr: l.Addr().String()}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			device, err := l.Accept()
			if err != nil {
				return
			}
			door, err := net.Dial("tcp", to)
			if err != nil {
				t.Error(err)
				return
			}
			w.mu.Lock()
			down := w.down
			if !down {
				w.ends = append(w.ends, device, door)
			}
			w.mu.Unlock()
			if down {
				device.Close()
				door.Close()
				continue
			}
			served.Go(func() { defer device.Close(); defer door.Close(); io.Copy(device, door) })
			served.Go(func() { defer device.Close(); defer door.Close(); io.Copy(upward{w, door}, device) })
		}
	})
	t.Cleanup(func() { l.Close(); w.cut(); served.Wait() })
	return w
}

// upward is what the device says.
type upward struct {
	*line
	net.Conn
}

func (u upward) Write(b []byte) (int, error) {
	u.mu.Lock()
	deaf := u.deaf
	u.mu.Unlock()
	if deaf {
		return len(b), nil
	}
	return u.Conn.Write(b)
}

func (w *line) deafen() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deaf = true
}

// cut ends every connection and lets none through until the line is mended: the platform notices the end before the device
// is back, or may not tell of it.
func (w *line) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.ends {
		c.Close()
	}
	w.ends, w.down = nil, true
}

func (w *line) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deaf, w.down = false, false
}

// due has the platform do what the time has come for.
func (h *platform) due() {
	h.t.Helper()
	_, err := h.db.RunDue(h.t.Context())
	h.must(err)
}

// next is the device's next message on a topic.
func (d *device) next(topic string) gateway.Record {
	d.h.t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case r := <-d.h.heard:
			if r.Device == d.id && r.Topic == topic {
				return r
			}
		case <-deadline:
			d.h.t.Fatalf("nothing came on %s", topic)
		}
	}
}

// A command whose acknowledgement was lost with the line comes again by itself when the device is back: the platform kept
// the session. The device carries it out once, and answers.
func TestTheSessionIsKept(t *testing.T) {
	h := newPlatform(t)
	d := h.born("SN-1")
	w := newLine(t, h.mqtt)
	d.cfg.MQTT = w.addr
	d.on()
	d.inventory(anyInventory)
	w.deafen()
	sent := make(chan error, 1)
	go func() {
		sent <- h.gateway.Send(t.Context(), gateway.Downlink{Device: d.id, Topic: "cmd/cmd_1/ping", Payload: []byte(`{}`), Expires: time.Now().Add(time.Hour)})
	}()
	for b := []byte(nil); !bytes.Contains(b, []byte("cmd_1")); { // until the device has it, and has said so in vain
		b, _ = os.ReadFile(filepath.Join(d.dir, "commands.json"))
		h.must(t.Context().Err())
	}
	w.cut()
	if err := <-sent; !errors.Is(err, gateway.ErrLost) {
		t.Errorf("the platform was told %v", err)
	}
	if why := <-h.gone; !strings.HasPrefix(why, d.id+": ") || len(why) < len(d.id)+6 {
		t.Errorf("its sudden end is told as %q", why)
	}
	w.mend()
	d.next("cmd/cmd_1/ack") // only who gets the packet again says this
}

// A device that is gone without a goodbye is told of once it has been away for a minute; one that says goodbye is not,
// nor one that is back in time.
func TestWill(t *testing.T) {
	h := newPlatform(t)
	d := h.born("SN-1")
	w := newLine(t, h.mqtt)
	d.cfg.MQTT = w.addr
	d.on()
	d.inventory(anyInventory)
	w.cut()
	<-h.gone // what it left behind is kept by then, its will too
	w.mend()
	d.inventory(anyInventory) // back in time
	h.hand.Advance(2 * time.Minute)
	h.due()
	d.off() // goodbye
	<-h.gone
	h.hand.Advance(2 * time.Minute)
	h.due()
	for len(h.heard) > 0 {
		if r := <-h.heard; r.Topic == "event/gone" {
			t.Error("a device that was back, or said goodbye, is told of as gone")
		}
	}
	c := d.start(program(t))
	d.inventory(anyInventory)
	h.must(c.Process.Kill())
	<-h.gone
	before := h.hand.Now().UnixMilli()
	h.hand.Advance(2 * time.Minute)
	h.due()
	for len(h.heard) > 0 {
		if r := <-h.heard; r.Topic == "event/gone" {
			if r.Device != d.id || r.At <= before || !strings.Contains(string(r.Body), "without a goodbye") {
				t.Errorf("%s says %s at %d", r.Device, r.Body, r.At)
			}
			return
		}
	}
	t.Error("nobody said that the device is gone")
}
