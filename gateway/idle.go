// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"syscall"
)

// idle is how an MQTT session waits for its device: at the socket, and not inside crypto/tls. The frames of a TLS read
// are so deep that the stack of whoever waits in them stays at 8 KiB; from here the garbage collector takes it down to 4.
// Its Read has crypto/tls read until there is nothing more, which a TLS connection survives as it survives a deadline,
// and then waits for what comes next.
type idle struct {
	tls  *tls.Conn
	raw  syscall.RawConn
	fill func(fd uintptr) bool // the method receive, bound once

	// What the socket gave and TLS has not asked for yet. The buffer is borrowed while there is any.
	lent *[4096]byte
	left []byte // of lent
	err  error  // of the socket, behind what is left
}

var lendings = sync.Pool{New: func() any { return new([4096]byte) }}

// reader is where a session reads once its handshake is over.
func (l *link) reader(conn *tls.Conn) (io.Reader, error) {
	s, ok := l.Conn.(syscall.Conn)
	if !ok { // no socket: it waits inside crypto/tls
		return conn, nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil, err
	}
	i := &idle{tls: conn, raw: raw}
	i.fill = i.receive
	l.idle = i
	return i, nil
}

// Read is for the session.
func (i *idle) Read(b []byte) (int, error) {
	for {
		n, err := i.tls.Read(b)
		if err != errNothingYet {
			return n, err
		}
		if err := i.raw.Read(i.fill); err != nil {
			return 0, err
		}
	}
}

// receive takes what the socket fd has; false: it has nothing and must be waited for.
func (i *idle) receive(fd uintptr) bool {
	lent := lendings.Get().(*[4096]byte)
	n, err := syscall.Read(int(fd), lent[:])
	for err == syscall.EINTR {
		n, err = syscall.Read(int(fd), lent[:])
	}
	switch {
	case n > 0:
		i.lent, i.left = lent, lent[:n]
		return true
	case err == nil:
		i.err = io.EOF
	case err != syscall.EAGAIN:
		i.err = err
	}
	lendings.Put(lent)
	return i.err != nil
}

// take gives TLS what was received.
func (i *idle) take(b []byte) (int, error) {
	switch {
	case len(i.left) > 0:
	case i.err != nil:
		return 0, i.err
	default:
		return 0, errNothingYet
	}
	n := copy(b, i.left)
	if i.left = i.left[n:]; len(i.left) == 0 {
		lendings.Put(i.lent)
		i.lent, i.left = nil, nil
	}
	return n, nil
}

// errNothingYet is a temporary net.Error, after which crypto/tls can be asked again.
var errNothingYet net.Error = nothingYet{}

type nothingYet struct{}

func (nothingYet) Error() string   { return "nothing has arrived yet" }
func (nothingYet) Timeout() bool   { return true }
func (nothingYet) Temporary() bool { return true }
