// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"errors"
	"net"
	"syscall"
)

// tcpUserTimeout is TCP_USER_TIMEOUT of linux/tcp.h, which package syscall does not have.
const tcpUserTimeout = 18

// tend has TCP give a device's connection up when what was sent to it has had no acknowledgement for Limits.Unacked
// (tcp(7)): without it a device that has vanished keeps its session, and the command on its way, for a quarter of an
// hour. TCP sends no probes of its own, which would wake a sleeping radio every 15 seconds: a device that is only silent
// is told from a dead one by its own keep-alive.
func (g *Gateway) tend(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err == nil {
		var set error
		err = raw.Control(func(fd uintptr) {
			set = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(g.cfg.Limits.Unacked.Milliseconds()))
		})
		err = errors.Join(err, set, tcp.SetKeepAlive(false))
	}
	if err != nil { // the peer has left already, most likely
		g.cfg.Log.Debug("a socket could not be set up", "remote", conn.RemoteAddr().String(), "err", err)
	}
}
