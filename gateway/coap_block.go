// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"crypto/sha256"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/wire/coap"
)

// maxAssemblies bounds the bodies that one association sends in blocks at the same time.
const maxAssemblies = 4

// assembly is a body of which blocks have come (RFC 7959, section 2.5).
type assembly struct {
	body []byte
	held int64     // of it in the memory of all
	last time.Time // when the last block came
}

// body is what a request carries, once its last block has come. Until then, and if it cannot be, an answer is returned
// instead. What the body holds of the memory of all is to be given back.
func (d *dialogue) body(m *coap.Message, path string) (body []byte, held int64, a *coap.Message) {
	most := d.g.cfg.Limits.Packet
	b, blockwise, valid := m.Block(coap.Block1)
	if !valid {
		return nil, 0, ptr(diagnose(coap.BadRequest, "coap.block", "a block of the reserved size"))
	}
	if size, ok := m.Uint(coap.Size1); ok && uint64(size) > uint64(most) || len(m.Payload) > most {
		return nil, 0, tooLarge(most)
	}
	if !blockwise {
		return m.Payload, 0, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s, refusal := d.assemble(m, path, b)
	if refusal != nil {
		refusal.SetBlock(coap.Block1, b)
		return nil, 0, refusal
	}
	if b.More {
		a = &coap.Message{Code: coap.Continue}
		a.SetBlock(coap.Block1, b)
		return nil, 0, a
	}
	return s.body, s.held, nil
}

// assemble adds a block to its body; after the last one the assembly is the caller's. The caller holds mu.
func (d *dialogue) assemble(m *coap.Message, path string, b coap.Block) (*assembly, *coap.Message) {
	now := d.g.cfg.Clock.Now()
	for key, s := range d.bodies {
		if now.Sub(s.last) > exchangeLifetime {
			d.drop(key)
		}
	}
	tag, _ := m.Get(coap.RequestTag) // RFC 9175, section 3.3
	key := strings.Join(append(m.Query(), path, string(tag)), "\x00")
	if b.Num == 0 {
		d.drop(key)
		if len(d.bodies) >= maxAssemblies {
			return nil, ptr(busyAnswer(exchangeLifetime))
		}
		d.bodies[key] = &assembly{}
	}
	s := d.bodies[key]
	var refusal *coap.Message
	switch {
	case s == nil || len(s.body) != b.Offset():
		refusal = ptr(diagnose(coap.Incomplete, "coap.block", "blocks before number %d are missing", b.Num))
	case b.More && len(m.Payload) != b.Size:
		refusal = ptr(diagnose(coap.BadRequest, "coap.block", "a block of %d bytes that says %d", len(m.Payload), b.Size))
	case len(s.body)+len(m.Payload) > d.g.cfg.Limits.Packet:
		refusal = tooLarge(d.g.cfg.Limits.Packet)
	case !d.hold(s, len(m.Payload)):
		refusal = ptr(busyAnswer(comeBack))
	}
	if refusal != nil {
		d.drop(key)
		return nil, refusal
	}
	s.body, s.last = append(s.body, m.Payload...), now
	if !b.More {
		delete(d.bodies, key)
	}
	return s, nil
}

// hold takes memory for n more bytes of a body, once it is larger than what is free.
func (d *dialogue) hold(s *assembly, n int) bool {
	need := 2*int64(len(s.body)+n) - firstBody // a body that grows is there twice for a moment
	if need <= s.held {
		return true
	}
	if !d.g.memory.try(need-s.held, 4) {
		return false
	}
	s.held = need
	return true
}

// drop forgets a body that is not complete. The caller holds mu.
func (d *dialogue) drop(key string) {
	if s := d.bodies[key]; s != nil {
		d.g.memory.give(s.held)
		delete(d.bodies, key)
	}
}

// cut makes a the block of an answer that its request asks for, or the first one if the whole is too long.
func cut(m *coap.Message, a coap.Message) coap.Message {
	b, asked, valid := m.Block(coap.Block2)
	if !valid {
		return diagnose(coap.BadRequest, "coap.block", "a block of the reserved size")
	}
	if !asked {
		if len(a.Payload) <= coap.MaxBlock {
			return a
		}
		b.Size = coap.MaxBlock
	}
	sum, whole := sha256.Sum256(a.Payload), len(a.Payload)
	var ok bool
	if a.Payload, ok = b.Of(a.Payload); !ok {
		return diagnose(coap.BadRequest, "coap.block", "there is no block %d", b.Num)
	}
	a.Options = append(a.Options, coap.Option{Number: coap.ETag, Value: sum[:8]})
	a.SetBlock(coap.Block2, b)
	a.Set(coap.Size2, uint32(whole))
	return a
}

func tooLarge(most int) *coap.Message {
	a := diagnose(coap.TooLarge, "message.size", "a body may have %d bytes", most)
	a.Set(coap.Size1, uint32(most))
	return &a
}

func ptr(m coap.Message) *coap.Message { return &m }
