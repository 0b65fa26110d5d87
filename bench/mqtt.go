// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openthings-platform/openthings/wire"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

const (
	mqttClients  = 200
	mqttWindow   = 16     // publishes in flight per client
	mqttMessages = 60_000 // per round
	mqttRounds   = 5      // odd: the median is reported
	mqttPayload  = 200    // bytes
)

// broker is one side of the comparison: a running MQTT server and the certificates that open it.
type broker struct {
	certs []tls.Certificate
	roots *x509.CertPool
	addr  string
	pid   int // of the server process, whose CPU time is read
}

// mqttQoS1 measures the server's CPU time per acknowledged QoS 1 publish of the platform against that of mosquitto,
// over TLS 1.3 with client certificates, under the same load: many clients, each with a window of publishes in flight.
// The platform acknowledges what is on disk, mosquitto what is in memory; what else the platform does with a message
// while the load runs (compaction) counts. Rounds alternate between the two, so that the machine's mood hits both.
func mqttQoS1(ctx context.Context, platform broker) (Result, error) {
	peer, stop, err := startMosquitto(ctx, mqttClients)
	if err != nil {
		return Result{}, err
	}
	defer stop()
	ours, err := openLoad(ctx, platform)
	if err != nil {
		return Result{}, fmt.Errorf("platform: %w", err)
	}
	defer ours.close()
	theirs, err := openLoad(ctx, peer)
	if err != nil {
		return Result{}, fmt.Errorf("mosquitto: %w", err)
	}
	defer theirs.close()
	var a, b []float64
	for range mqttRounds {
		for _, side := range []struct {
			l   *load
			out *[]float64
		}{{ours, &a}, {theirs, &b}} {
			us, err := side.l.round(ctx)
			if err != nil {
				return Result{}, err
			}
			*side.out = append(*side.out, us)
		}
	}
	slices.Sort(a)
	slices.Sort(b)
	value, base := a[len(a)/2], b[len(b)/2]
	return Result{Name: "mqtt_qos1_cpu", Value: value, Unit: "us/message", Baseline: "mosquitto, acknowledging from memory",
		BaselineValue: base, Ratio: value / base}, nil
}

// load is the clients of one broker.
type load struct {
	broker  broker
	clients []*mqtt.Client
}

func openLoad(ctx context.Context, b broker) (*load, error) {
	l := &load{broker: b}
	for _, cert := range b.certs {
		c, err := b.dial(ctx, cert, mqtt.ClientConfig{Window: mqttWindow})
		if err != nil {
			l.close()
			return nil, err
		}
		l.clients = append(l.clients, c)
	}
	return l, nil
}

func (l *load) close() {
	for _, c := range l.clients {
		c.Close()
	}
}

// round publishes mqttMessages and returns the server's CPU time per message in microseconds.
func (l *load) round(ctx context.Context) (float64, error) {
	before, err := cpuTime(l.broker.pid)
	if err != nil {
		return 0, err
	}
	var wg sync.WaitGroup
	errs := make(chan error, len(l.clients))
	each := mqttMessages / len(l.clients)
	for _, c := range l.clients {
		wg.Go(func() { errs <- publishAll(ctx, c, each) })
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return 0, err
		}
	}
	after, err := cpuTime(l.broker.pid)
	return float64((after - before).Microseconds()) / float64(each*len(l.clients)), err
}

var sequence atomic.Uint64 // of all messages of this process

// payload is one message of mqttPayload bytes.
func payload() []byte {
	body := fmt.Appendf(nil, `{"boot":1,"seq":%d,"values":{"temperature":21.5,"humidity":40.25,"voltage":3.31`, sequence.Add(1))
	body = append(body, `}`...)
	body = append(body, bytes.Repeat([]byte(" "), max(0, mqttPayload-1-len(body)))...)
	return append(body, '}')
}

// publishAll sends n messages through one client's window and waits for every PUBACK.
func publishAll(ctx context.Context, c *mqtt.Client, n int) error {
	acked := make(chan error, n)
	for range n {
		if err := c.Go(ctx, wire.Root+"tele/bench", payload(), func(err error) { acked <- err }); err != nil {
			return err
		}
	}
	for range n {
		if err := <-acked; err != nil {
			return err
		}
	}
	return nil
}

// cpuTime is the user and system time that a process has used (proc_pid_stat(5), fields 14 and 15, in 1/100 s).
func cpuTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(b), ") ") // field 2 may hold spaces
	fields := strings.Fields(rest)
	if !ok || len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has an unknown form", pid)
	}
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err1, err2)
}

// startMosquitto runs Debian's broker with certificates made for this run.
func startMosquitto(ctx context.Context, clients int) (broker, func(), error) {
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path = "/usr/sbin/mosquitto" // not on every user's PATH
	}
	dir, err := os.MkdirTemp("", "bench-mosquitto-")
	if err != nil {
		return broker{}, nil, err
	}
	b, err := throwAwayCertificates(dir, clients)
	if err != nil {
		return broker{}, nil, errors.Join(err, os.RemoveAll(dir))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return broker{}, nil, errors.Join(err, os.RemoveAll(dir))
	}
	b.addr = l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(b.addr)
	conf := fmt.Sprintf("user root\nlistener %s 127.0.0.1\ncafile %[2]s/ca.pem\ncertfile %[2]s/server.pem\nkeyfile %[2]s/server.key\n"+
		"require_certificate true\nuse_identity_as_username true\nallow_anonymous true\ntls_version tlsv1.3\nlog_type error\n", port, dir)
	if err := os.WriteFile(filepath.Join(dir, "mosquitto.conf"), []byte(conf), 0o600); err != nil {
		return broker{}, nil, errors.Join(err, os.RemoveAll(dir))
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", `ulimit -n $(ulimit -Hn); exec "$0" -c "$1"`, path, filepath.Join(dir, "mosquitto.conf"))
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return broker{}, nil, errors.Join(err, os.RemoveAll(dir))
	}
	b.pid = cmd.Process.Pid
	stop := func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		conn, err := net.Dial("tcp", b.addr)
		if err == nil {
			conn.Close()
			return b, stop, nil
		}
		if time.Now().After(deadline) {
			stop()
			return broker{}, nil, fmt.Errorf("mosquitto did not start: %w\n%s", err, said.String())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// throwAwayCertificates makes an authority, a server certificate (both as files in dir) and one certificate per client.
func throwAwayCertificates(dir string, clients int) (broker, error) {
	var failed error
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		failed = cmp.Or(failed, err)
		return k
	}
	serial := int64(0)
	caKey := key()
	ca := &x509.Certificate{Subject: pkix.Name{CommonName: "bench"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	issue := func(tmpl *x509.Certificate, k *ecdsa.PrivateKey) []byte {
		serial++
		tmpl.SerialNumber, tmpl.NotAfter = big.NewInt(serial), time.Now().Add(24*time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, tmpl, ca, k.Public(), caKey)
		failed = cmp.Or(failed, err)
		return der
	}
	file := func(name, kind string, der []byte) {
		failed = cmp.Or(failed, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	}
	caDER := issue(ca, caKey)
	serverKey := key()
	server := issue(&x509.Certificate{DNSNames: []string{"localhost"}}, serverKey)
	keyDER, err := x509.MarshalPKCS8PrivateKey(serverKey)
	failed = cmp.Or(failed, err)
	file("ca.pem", "CERTIFICATE", caDER)
	file("server.pem", "CERTIFICATE", server)
	file("server.key", "PRIVATE KEY", keyDER)

	b := broker{roots: x509.NewCertPool()}
	root, err := x509.ParseCertificate(caDER)
	if failed = cmp.Or(failed, err); failed != nil {
		return broker{}, failed
	}
	b.roots.AddCert(root)
	for i := range clients {
		k := key()
		b.certs = append(b.certs, tls.Certificate{PrivateKey: k,
			Certificate: [][]byte{issue(&x509.Certificate{Subject: pkix.Name{CommonName: fmt.Sprintf("client%d", i)}}, k)}})
	}
	return b, failed
}
