// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
)

// dial connects to a TPM: a device file (/dev/tpmrm0; the kernel's resource manager keeps programs apart), or the
// socket of a software TPM as unix:/path or tcp:host:port.
func dial(where string) (transport.TPMCloser, error) {
	network, addr, ok := strings.Cut(where, ":")
	if ok && (network == "unix" || network == "tcp") && addr != "" {
		return socket{network, addr}, nil
	}
	if !strings.HasPrefix(where, "/") {
		return nil, fmt.Errorf("%q is no TPM: use a device file such as /dev/tpmrm0, unix:/path or tcp:host:port", where)
	}
	return linuxtpm.Open(where)
}

// socket is a software TPM that takes bare commands (swtpm --server). It serves one connection at a time, so each
// command has its own, and several programs can share it.
type socket struct{ network, addr string }

const (
	patience   = time.Minute // the longest a command may take; making an RSA key is slow
	headerSize = 10          // tag, length, code
	mostBytes  = 4096        // the largest answer of a TPM
)

// connect waits for its turn: the queue of a software TPM holds one.
func (s socket) connect() (c net.Conn, err error) {
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		c, err = net.DialTimeout(s.network, s.addr, 10*time.Second)
		if !errors.Is(err, syscall.EAGAIN) || time.Now().After(end) {
			return c, err
		}
	}
}

// Send implements transport.TPM. A TPM that says "again" is asked again, as the kernel's users do for a device file: the
// first use of a key under dictionary attack protection is answered so.
func (s socket) Send(command []byte) (answer []byte, err error) {
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		answer, err = s.once(command)
		if err != nil || binary.BigEndian.Uint32(answer[6:]) != uint32(tpm2.TPMRCRetry) || time.Now().After(end) {
			return answer, err
		}
	}
}

func (s socket) once(command []byte) ([]byte, error) {
	c, err := s.connect()
	if err != nil {
		return nil, err
	}
	defer c.Close() //nolint:errcheck // the answer is complete or an error is on its way
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if _, err := c.Write(command); err != nil {
		return nil, err
	}
	answer := make([]byte, headerSize, 512)
	if _, err := io.ReadFull(c, answer); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(answer[2:])
	if n < headerSize || n > mostBytes {
		return nil, fmt.Errorf("the TPM at %s:%s says that its answer has %d bytes", s.network, s.addr, n)
	}
	answer = append(answer, make([]byte, n-headerSize)...)
	_, err = io.ReadFull(c, answer[headerSize:])
	return answer, err
}

// Close implements transport.TPMCloser.
func (s socket) Close() error { return nil }
