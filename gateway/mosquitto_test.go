// SPDX-License-Identifier: AGPL-3.0-only

package gateway_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/store/storetest"
)

// pem writes a certificate and its key to files.
func (h *house) pem(c tls.Certificate) (cert, key string) {
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		h.t.Fatal(err)
	}
	return h.write("cert.pem", "CERTIFICATE", c.Certificate[0]), h.write("key.pem", "PRIVATE KEY", der)
}

// mosquitto is one of Debian's clients with the certificate of a device.
func (h *house) mosquitto(ctx context.Context, program, version string, c tls.Certificate, args ...string) *exec.Cmd {
	path, err := exec.LookPath(program)
	if err != nil {
		h.t.Fatalf("%s is not installed; scripts/deps.sh test does it", program)
	}
	cert, key := h.pem(c)
	_, port, err := net.SplitHostPort(h.mqtt)
	if err != nil {
		h.t.Fatal(err)
	}
	return exec.CommandContext(ctx, path, append([]string{"-V", version, "-h", "localhost", "-p", port, "--cafile", h.caFile,
		"--cert", cert, "--key", key}, args...)...)
}

// TestMosquitto drives the door with the clients that Debian ships.
func TestMosquitto(t *testing.T) {
	for _, version := range []string{"mqttv311", "mqttv5"} {
		t.Run(version, func(t *testing.T) {
			h := newHouse(t, gateway.Limits{})
			cert := h.device("dev_1")
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			pub := func(args ...string) (string, error) {
				out, err := h.mosquitto(ctx, "mosquitto_pub", version, cert, args...).CombinedOutput()
				return string(out), err
			}

			for _, qos := range []string{"0", "1"} {
				if out, err := pub("-q", qos, "-t", "ot/1/me/tele/env", "-m", `{"q":`+qos+`}`); err != nil {
					t.Errorf("QoS %s: %v\n%s", qos, err, out)
				}
			}
			lines := h.mosquitto(ctx, "mosquitto_pub", version, cert, "-q", "1", "-t", "ot/1/acme/dev_1/tele/env", "-l")
			lines.Stdin = strings.NewReader(strings.Repeat("{\"q\":2}\n", 200))
			if out, err := lines.CombinedOutput(); err != nil {
				t.Errorf("200 lines: %v\n%s", err, out)
			}
			n := map[string]int{}
			for _, r := range h.appended() {
				n[string(r.Body)]++
			}
			if n[`{"q":1}`] != 1 || n[`{"q":2}`] != 200 {
				t.Errorf("appended %v", n)
			}

			refusedArgs := map[string][]string{
				"another device's topic": {"-q", "1", "-t", "ot/1/acme/dev_2/tele/env", "-m", "x"},
				"a downward topic":       {"-q", "1", "-t", "ot/1/me/cmd/c1/reboot", "-m", "x"},
				"QoS 2":                  {"-q", "2", "-t", "ot/1/me/tele/env", "-m", "x"},
			}
			if version == "mqttv311" { // with 5, mosquitto_pub reads in the CONNACK that it may not retain, and does not
				refusedArgs["a retained message"] = []string{"-q", "1", "-r", "-t", "ot/1/me/tele/env", "-m", "x"}
			}
			for name, args := range refusedArgs {
				out, err := pub(args...)
				// With 5, mosquitto_pub names a refusal and exits with 0.
				if err == nil && !strings.Contains(out, "Not authorized") && !strings.Contains(out, "QoS not supported") {
					t.Errorf("%s was not refused:\n%s", name, out)
				}
			}
			if got := len(h.appended()); got != 202 {
				t.Errorf("%d records after refused publishes", got)
			}

			stranger := h.issue(&x509.Certificate{})
			if out, err := h.mosquitto(ctx, "mosquitto_pub", version, stranger, "-q", "1", "-t", "ot/1/me/tele/env", "-m", "x").CombinedOutput(); err == nil {
				t.Errorf("a stranger's certificate was accepted:\n%s", out)
			}

			sub := h.mosquitto(ctx, "mosquitto_sub", version, cert, "-q", "1", "-t", "ot/1/me/cmd/#", "-v")
			out, err := sub.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := sub.Start(); err != nil {
				t.Fatal(err)
			}
			h.await("ready dev_1")
			if err := h.g.Send(ctx, gateway.Downlink{Device: "dev_1", Topic: "cmd/c1/reboot", Payload: []byte(`{"in":5}`)}); err != nil {
				t.Errorf("Send: %v", err)
			}
			r := bufio.NewReader(out)
			if line, err := r.ReadString('\n'); err != nil || line != "ot/1/me/cmd/c1/reboot {\"in\":5}\n" {
				t.Errorf("mosquitto_sub printed %q, %v", line, err)
			}
			h.revoke(cert)
			h.g.Cut("dev_1", "revoked")
			h.await("offline dev_1")
			cancel()
			_ = sub.Wait() // it tries to come back until it is killed

			ctx, cancel = context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			foreign := h.mosquitto(ctx, "mosquitto_sub", version, h.device("dev_3"), "-q", "1", "-t", "ot/1/acme/dev_4/#", "-E")
			if out, _ := foreign.CombinedOutput(); !strings.Contains(string(out), "All subscription requests were denied") {
				t.Errorf("a foreign subscription was not refused:\n%s", out)
			}
		})
	}
}

// TestMosquittoComesBack: a subscription of a session that was kept brings its messages to Debian's client, though it
// did not ask again.
func TestMosquittoComesBack(t *testing.T) {
	for version, keep := range map[string][]string{"mqttv311": {"-c", "-i", "k"}, "mqttv5": {"-c", "-i", "k", "-x", "600"}} {
		t.Run(version, func(t *testing.T) {
			k := newKept(t, storetest.SQLiteURL(t), gateway.Limits{})
			cert := k.device("dev_1")
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			if out, err := k.mosquitto(ctx, "mosquitto_sub", version, cert, append(keep, "-q", "1", "-t", "ot/1/me/cmd/#", "-E")...).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			k.left("dev_1")
			sub := k.mosquitto(ctx, "mosquitto_sub", version, cert, append(keep, "-q", "1", "-t", "ot/1/me/ota/offer", "-C", "1", "-v")...)
			out, err := sub.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := sub.Start(); err != nil {
				t.Fatal(err)
			}
			k.await("ready dev_1") // before it has subscribed to anything
			if err := k.g.Send(ctx, gateway.Downlink{Device: "dev_1", Topic: "cmd/c1/reboot", Payload: []byte("now"), Reply: "cmd/c1/res", Correlation: "c1"}); err != nil {
				t.Errorf("Send: %v", err)
			}
			if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ot/1/me/cmd/c1/reboot now\n" {
				t.Errorf("mosquitto_sub printed %q, %v", line, err)
			}
			if err := sub.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}
