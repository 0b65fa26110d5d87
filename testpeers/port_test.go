// SPDX-License-Identifier: AGPL-3.0-only

package testpeers_test

import (
	"fmt"
	"net"
	"os"
	"testing"

	"github.com/openthings-platform/openthings/testpeers"
)

// A port that was found free is free, and none that the system gives away by itself.
func TestFreePort(t *testing.T) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Skipf("this system does not say which ports it gives away: %v", err)
	}
	var low, high int
	if _, err := fmt.Sscan(string(b), &low, &high); err != nil {
		t.Fatal(err)
	}
	port, err := testpeers.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	if low > 4096 && port >= low {
		t.Errorf("%d is one of %d to %d", port, low, high)
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}
