// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"net"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/wire/mqtt"
)

// pooledOut is the largest output buffer that is kept for reuse.
const pooledOut = 8 << 10

var outs = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

// queue writes p into the session's output. The caller holds s.mu and calls start or kick after it.
func (s *session) queue(p mqtt.Packet) error {
	if s.closing {
		return net.ErrClosed
	}
	if s.out == nil {
		s.out = outs.Get().(*[]byte)
	}
	pub, alias := s.aliased(p)
	b, err := s.fit(*s.out, p)
	if err != nil {
		return err
	}
	if alias != "" {
		s.aliases.note(pub, alias)
	}
	*s.out = b
	if len(b) > s.g.cfg.Limits.Out || !s.affordOut(len(b)) { // it does not read what it asked for
		s.closing = true
		go s.link.Close()
	}
	return nil
}

// affordOut takes memory for output of n bytes, as far as it goes beyond what every session may have. The caller holds s.mu.
func (s *session) affordOut(n int) bool {
	if n <= pooledOut || n <= s.held {
		return true
	}
	more := max(n-s.held, pooledOut)
	if !s.g.memory.try(int64(more), 4) {
		return false
	}
	s.held += more
	return true
}

// send queues p and has it written.
func (s *session) send(p mqtt.Packet) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.queue(p)
	s.start()
	return err
}

// acknowledge queues the PUBACK of a publish that the device sent. It says true when a kick is due. MQTT 3.1.1 knows no
// PUBACK with an error: there the connection ends without it.
func (s *session) acknowledge(ack *mqtt.Ack) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unacked--
	s.room.Signal()
	if s.version == mqtt.V4 && ack.Reason.Failed() {
		s.explain("", &mqtt.Error{Reason: ack.Reason, Text: "the platform could not keep the message"})
		s.finish(ack.Reason, "refused: "+ack.Reason.String(), nil)
		return false
	}
	if s.queue(ack) != nil || s.dirty {
		return false
	}
	s.dirty = true
	return true
}

// kick has the queued acknowledgements written.
func (s *session) kick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirty = false
	s.start()
}

// start makes sure that somebody writes the output. The caller holds s.mu.
func (s *session) start() {
	if !s.writing && (s.out != nil || s.closing) {
		s.writing = true
		go s.flush()
	}
}

// flush writes until the output is empty, so that only it waits for the socket.
func (s *session) flush() {
	for {
		s.mu.Lock()
		out, held := s.out, s.held
		s.out, s.held = nil, 0
		if out == nil {
			s.writing = false
			closing := s.closing
			s.mu.Unlock()
			if closing {
				s.conn.Close()
			}
			return
		}
		s.mu.Unlock()
		_, err := s.conn.Write(*out)
		if held > 0 {
			s.g.memory.give(int64(held))
		}
		if cap(*out) <= pooledOut {
			*out = (*out)[:0]
			outs.Put(out)
		}
		if err != nil {
			s.link.Close()
		}
	}
}

// close ends the session from outside: the last words why (MQTT 5 only), then the connection, also when the peer does
// not read.
func (s *session) close(why mqtt.Reason, reason string) { s.closeWith(why, reason, nil) }

// closeWith is close with properties for the last words.
func (s *session) closeWith(why mqtt.Reason, reason string, ps mqtt.Properties) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finish(why, reason, ps)
}

// finish is closeWith for a caller that holds s.mu.
func (s *session) finish(why mqtt.Reason, reason string, ps mqtt.Properties) {
	if s.closing {
		return
	}
	s.cause = reason
	if s.version == mqtt.V5 && s.open && why != mqtt.Success {
		ps = append(ps, mqtt.Property{ID: mqtt.ReasonString, Str: reason})
		_ = s.queue(&mqtt.Disconnect{Reason: why, Properties: ps}) // a reason that no DISCONNECT may have is left unsaid
	}
	s.closing = true
	s.room.Broadcast()
	s.start()
	time.AfterFunc(grace, func() { s.link.Close() })
}
