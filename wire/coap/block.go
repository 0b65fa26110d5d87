// SPDX-License-Identifier: Apache-2.0

package coap

// Block is the value of Block1 or Block2: one block of a body (RFC 7959, section 2.2).
type Block struct {
	Num  uint32 // of the block, from 0; at most 2^20-1
	More bool   // blocks follow
	Size int    // bytes of each block but the last: a power of two from 16 to 1024
}

// MaxBlock is the largest block, and what an answer carries at once.
const MaxBlock = 1024

// Block reads Block1 or Block2. ok says that it is there; a reserved size makes valid false.
func (m *Message) Block(number uint16) (b Block, ok, valid bool) {
	n, ok := m.Uint(number)
	if !ok {
		return Block{}, false, true
	}
	exponent := n & 7
	return Block{Num: n >> 4, More: n&8 != 0, Size: 16 << exponent}, true, exponent < 7
}

// SetBlock adds Block1 or Block2. b.Size is a size that Block may return.
func (m *Message) SetBlock(number uint16, b Block) {
	n := b.Num << 4
	if b.More {
		n |= 8
	}
	for size := 16; size < b.Size; size <<= 1 {
		n++
	}
	m.Set(number, n)
}

// Offset is where the block begins in the body.
func (b Block) Offset() int { return int(b.Num) * b.Size }

// Of cuts the block out of a body and says in More whether others follow; false: the body ends before it. The first
// block of an empty body is empty.
func (b *Block) Of(body []byte) ([]byte, bool) {
	at := b.Offset()
	if at >= len(body) && at > 0 {
		return nil, false
	}
	end := min(at+b.Size, len(body))
	b.More = end < len(body)
	return body[at:end], true
}
