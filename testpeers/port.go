// SPDX-License-Identifier: AGPL-3.0-only

package testpeers

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
)

// FreePort is a TCP port of loopback that nobody listens on, for a program that can be given no listener. It lies below those
// that the system gives to connections by itself (net.ipv4.ip_local_port_range): none of these takes it before the program does.
func FreePort() (int, error) {
	low := 32768 // Linux's own choice
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		_, _ = fmt.Sscan(string(b), &low)
	}
	var last error
	for range 100 {
		port := 0 // there are none below: any one
		if low > 4096 {
			port = low/2 + rand.IntN(low/2)
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return l.Addr().(*net.TCPAddr).Port, l.Close()
		}
		last = err
	}
	return 0, last
}
