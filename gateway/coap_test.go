// SPDX-License-Identifier: AGPL-3.0-only

package gateway_test

import (
	"crypto/tls"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/openthings-platform/openthings/gateway"
)

// coapClients are builds of libcoap's client that speak DTLS with certificates.
var coapClients = []string{"coap-client-openssl", "coap-client-gnutls"}

// libcoap runs coap-client on a path of the door and returns what it says.
func (h *house) libcoap(client string, cert tls.Certificate, path string, args ...string) string {
	h.t.Helper()
	program, err := exec.LookPath(client)
	if err != nil {
		h.t.Fatalf("%s is not installed: scripts/deps.sh test installs libcoap3-bin", client)
	}
	certFile, keyFile := h.pem(cert)
	args = append([]string{"-v", "6", "-B", "60", "-c", certFile, "-j", keyFile, "-C", h.caFile}, args...)
	out, err := exec.CommandContext(h.t.(*testing.T).Context(), program, append(args, "coaps://"+h.coap+"/"+path)...).CombinedOutput()
	if err != nil {
		h.t.Errorf("%s: %v\n%s", client, err, out)
	}
	return string(out)
}

// TestLibcoapRepeats: a receipt is lost, the client sends its message again, hears the receipt, and the platform has one.
func TestLibcoapRepeats(t *testing.T) {
	for _, client := range coapClients {
		t.Run(client, func(t *testing.T) {
			h := newHouse(t, gateway.Limits{})
			var answers atomic.Int64
			front, _ := h.nat(func(b []byte) bool {
				return b[0] == 23 && answers.Add(1) == 1 // application data
			})
			h.coap = front.String()
			out := h.libcoap(client, h.device("dev_1"), "ot/1/me/tele/env", "-m", "post", "-e", "1")
			if !strings.Contains(out, "2.04") || answers.Load() < 2 {
				t.Errorf("%d answers, the client says\n%s", answers.Load(), out)
			}
			if n := len(h.appended()); n != 1 {
				t.Errorf("%d records", n)
			}
		})
	}
}

// TestLibcoap: the door works for a program that is not ours, on two implementations of DTLS.
func TestLibcoap(t *testing.T) {
	for _, client := range coapClients {
		t.Run(client, func(t *testing.T) {
			h := newHouse(t, gateway.Limits{})
			cert := h.device("dev_1")
			out := h.libcoap(client, cert, "ot/1/me/tele/env?boot=3&seq=7", "-m", "post", "-t", "50", "-e", `{"t":21}`)
			if !strings.Contains(out, "2.04") {
				t.Errorf("the client says\n%s", out)
			}
			rs := h.appended()
			if len(rs) != 1 || rs[0].Device != "dev_1" || rs[0].Topic != "tele/env" || string(rs[0].Body) != `{"t":21}` ||
				rs[0].Type != "application/json" || rs[0].Boot != 3 || rs[0].Seq != 7 {
				t.Errorf("appended %+v", rs)
			}
			big := filepath.Join(t.TempDir(), "big")
			if err := os.WriteFile(big, []byte(strings.Repeat("0123456789abcdef", 1000)), 0o600); err != nil {
				t.Fatal(err)
			}
			out = h.libcoap(client, cert, "ot/1/me/tele/big", "-m", "post", "-f", big, "-b", "512")
			if rs = h.appended(); len(rs) != 2 || len(rs[1].Body) != 16000 {
				t.Errorf("%d records, the client says\n%s", len(rs), out)
			}
			if out = h.libcoap(client, cert, ".well-known/core"); !strings.Contains(out, "</ot/1/me/tele>") {
				t.Errorf("the client says\n%s", out)
			}
			if out = h.libcoap(client, cert, "ot/1/acme/dev_2/tele/env", "-m", "post", "-e", "1"); !strings.Contains(out, "4.03") {
				t.Errorf("the client says\n%s", out)
			}
		})
	}
}
