// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"bufio"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	randv2 "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/telemetry/history"
	"github.com/openthings-platform/openthings/wire"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// The rig of the crash tests: a child process with the real gateway in front of the real inbox, devices with certificates
// on real connections, and a history of what they sent, what was acknowledged and what is there afterwards.

// TestMain lets the test binary be its own child, so that it can be killed.
func TestMain(m *testing.M) {
	child := map[string]func() error{"compact": compactChild, "door": doorChild}[os.Getenv("TELEMETRY_CHILD")]
	if child == nil {
		os.Exit(m.Run())
	}
	if err := child(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// rounds is how often a crash test repeats: few times, or OPENTHINGS_ROUNDS.
func rounds(few int) int {
	if n, err := strconv.Atoi(os.Getenv("OPENTHINGS_ROUNDS")); err == nil && n > 0 {
		return n
	}
	return few
}

// place is where a child keeps its data.
type place struct {
	Platform, Records, Keys string // URLs and the folder of keys
	Reserve                 int64
}

// sqlitePlace is a folder with the two files of a house on SQLite.
func sqlitePlace(dir string) place {
	return place{Platform: "sqlite://" + filepath.Join(dir, "platform.db"), Records: "sqlite://" + filepath.Join(dir, "telemetry.db"), Keys: filepath.Join(dir, "keys")}
}

// open opens a place in this process.
func (p place) open(ctx context.Context, log *slog.Logger) (s *Service, done func() error, err error) {
	platform, err := store.Open(ctx, store.Config{URL: p.Platform, Schema: []store.Migrations{seal.Schema}, Log: log})
	if err != nil {
		return nil, nil, err
	}
	records, err := store.Open(ctx, store.Config{URL: p.Records, Schema: schema, Log: log})
	if err != nil {
		return nil, nil, errors.Join(err, platform.Close())
	}
	done = func() error { return errors.Join(records.Close(), platform.Close()) }
	keys, err := seal.Open(p.Keys, clock.System)
	if err != nil {
		return nil, nil, errors.Join(err, done())
	}
	return New(Config{DB: records, Platform: platform, Keys: keys, Log: log, Linger: 20 * time.Millisecond, Reserve: p.Reserve}), done, nil
}

// party is an authority with a server certificate and devices, all in a folder that a child can read.
type party struct {
	dir   string
	roots *x509.CertPool
	certs []tls.Certificate // of dev_0, dev_1, …

	window int // publishes in flight of one device; 0: the client's default
}

func newParty(t testing.TB, devices int) *party {
	p := &party{dir: t.TempDir(), roots: x509.NewCertPool()}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	issue := func(i int, name string, tmpl *x509.Certificate) tls.Certificate {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(err)
		if tmpl == ca {
			key = caKey
		}
		tmpl.SerialNumber, tmpl.NotAfter, tmpl.Subject.CommonName = big.NewInt(int64(i)), ca.NotAfter, name
		der, err := x509.CreateCertificate(rand.Reader, tmpl, ca, key.Public(), caKey)
		must(err)
		pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
		must(err)
		must(os.WriteFile(filepath.Join(p.dir, name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
		must(os.WriteFile(filepath.Join(p.dir, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
		leaf, err := x509.ParseCertificate(der)
		must(err)
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	}
	p.roots.AddCert(issue(1, "ca", ca).Leaf)
	issue(2, "server", &x509.Certificate{DNSNames: []string{"localhost"}})
	for i := range devices {
		p.certs = append(p.certs, issue(3+i, fmt.Sprintf("dev_%d", i), &x509.Certificate{}))
	}
	return p
}

// doorChild serves MQTT in front of an inbox, prints its address and works until it is killed or its input ends. The
// lines of its input are commands for the disk that it stands on.
func doorChild() error {
	ctx := context.Background()
	var at place
	if err := json.Unmarshal([]byte(os.Getenv("TELEMETRY_CHILD_PLACE")), &at); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	s, _, err := at.open(ctx, log)
	if err != nil {
		return err
	}
	l, err := serveMQTT(ctx, os.Getenv("TELEMETRY_CHILD_PARTY"), s.Append, log)
	if err != nil {
		return err
	}
	go s.Work(ctx)
	fmt.Println("listening", l.Addr())
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		answer := "done"
		if err := diskCommand(lines.Text(), s); err != nil {
			answer = err.Error()
		}
		fmt.Println(answer)
	}
	return nil
}

// serveMQTT serves the real MQTT door to a party's devices, in front of an inbox, until ctx ends.
func serveMQTT(ctx context.Context, party string, keep func(context.Context, []gateway.Record) error, log *slog.Logger) (net.Listener, error) {
	server, err := tls.LoadX509KeyPair(filepath.Join(party, "server.pem"), filepath.Join(party, "server.key"))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(filepath.Join(party, "ca.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	g, err := gateway.New(gateway.Config{
		Admit: func(_ context.Context, c *x509.Certificate) (gateway.Peer, error) {
			_, err := c.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
			return gateway.Peer{Kind: gateway.LDevID, Tenant: "ten", Device: c.Subject.CommonName}, err
		},
		Append: keep, TLS: &tls.Config{Certificates: []tls.Certificate{server}}, Log: log,
	})
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go g.ServeMQTT(ctx, l)
	return l, nil
}

// door is a running child.
type door struct {
	t    testing.TB
	cmd  *exec.Cmd
	addr string
	in   io.Writer
	out  *bufio.Reader
}

// startDoor runs a child on a place. Before it, wrap may name a program that starts it, with its arguments.
func startDoor(t testing.TB, p *party, at place, wrap ...string) *door {
	t.Helper()
	where, err := json.Marshal(at)
	if err != nil {
		t.Fatal(err)
	}
	args := append(wrap, os.Args[0])
	d := &door{t: t, cmd: exec.Command(args[0], args[1:]...)}
	d.cmd.Env = append(os.Environ(), "TELEMETRY_CHILD=door", "TELEMETRY_CHILD_PLACE="+string(where), "TELEMETRY_CHILD_PARTY="+p.dir)
	d.cmd.Stderr = newWords(t)
	d.in, err = d.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	d.out = bufio.NewReader(out)
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.kill)
	line, err := d.out.ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "listening ")
	if err != nil || !ok {
		t.Fatalf("the child says %q, %v", line, err)
	}
	d.addr = addr
	return d
}

// words are what a child said; the last of them are shown if the test fails.
type words struct {
	mu sync.Mutex
	b  []byte
}

func newWords(t testing.TB) *words {
	w := &words{}
	t.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if t.Failed() {
			t.Logf("the child said:\n%s", w.b[max(0, len(w.b)-8000):])
		}
	})
	return w
}

func (w *words) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b = append(w.b, b...)
	return len(b), nil
}

// kill is kill -9.
func (d *door) kill() {
	_ = d.cmd.Process.Kill() // it may have ended
	_ = d.cmd.Wait()
}

// tell gives the child a command and waits until it is carried out.
func (d *door) tell(command string) {
	d.t.Helper()
	if _, err := fmt.Fprintln(d.in, command); err != nil {
		d.t.Fatal(err)
	}
	if line, err := d.out.ReadString('\n'); err != nil || strings.TrimSpace(line) != "done" {
		d.t.Fatalf("%s: the child says %q, %v", command, line, err)
	}
}

// dial opens a session of device i.
func (p *party) dial(ctx context.Context, addr string, i int) (*mqtt.Client, error) {
	d := tls.Dialer{Config: &tls.Config{RootCAs: p.roots, ServerName: "localhost", Certificates: []tls.Certificate{p.certs[i]}}}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return mqtt.NewClient(ctx, conn, mqtt.ClientConfig{Window: p.window})
}

// load is what devices have sent so far. Measurements count in stream "load", every eighth message is an event beside.
type load struct {
	*party
	history.History
	base   time.Time // message n carries base + n ms
	sent   []uint64  // by device: the last number given out
	open   []map[uint64]bool
	pad    int          // further random letters in each event
	events bool         // every eighth message is an event
	acks   atomic.Int64 // receipts so far
	failed atomic.Int64 // publishes that were answered by an error of the server
	reason sync.Map     // of mqtt.Reason: what they said
	olds   uint64       // messages of the 3.1.1 device
}

func newLoad(p *party) *load {
	l := &load{party: p, base: time.Now().UTC().Truncate(time.Second), sent: make([]uint64, len(p.certs)), events: true}
	for range p.certs {
		l.open = append(l.open, map[uint64]bool{})
	}
	return l
}

func (l *load) device(i int) string { return l.certs[i].Leaf.Subject.CommonName }

// line is the name of message n's device in the history. Its events are a history of their own: they are kept in the
// order in which they were received, measurements in that of their times.
func (l *load) line(i int, n uint64) string {
	if l.events && n%8 == 0 {
		return l.device(i) + " events"
	}
	return l.device(i)
}

// most bounds what one device sends, so that a query shows each message.
const most = MaxPoints - 1

// publish sends on all devices until ctx ends, at most each messages per device. A device that loses its connection comes
// back with what it has no receipt for, the oldest first.
func (l *load) publish(ctx context.Context, addr string, each int) {
	var wg sync.WaitGroup
	for i := range l.certs {
		wg.Go(func() {
			last := min(l.sent[i]+uint64(each), most)
			for ctx.Err() == nil && (l.sent[i] < last || len(l.open[i]) > 0) {
				if l.session(ctx, addr, i, last) != nil && ctx.Err() == nil {
					pause := time.NewTimer(5 * time.Millisecond)
					<-pause.C
				}
			}
		})
	}
	wg.Wait()
}

func (l *load) session(ctx context.Context, addr string, i int, last uint64) error {
	c, err := l.dial(ctx, addr, i)
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	var mu sync.Mutex // guards l.open[i]
	var wg sync.WaitGroup
	var refused error
	send := func(n uint64) error {
		topic, body := l.message(n)
		l.Sent(l.line(i, n), n)
		wg.Add(1)
		err := c.Go(ctx, wire.Root+topic, body, func(err error) {
			defer wg.Done()
			var answer *mqtt.Error
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				l.Acked(l.line(i, n), n)
				l.acks.Add(1)
				delete(l.open[i], n)
			case errors.As(err, &answer):
				l.failed.Add(1)
				l.reason.Store(answer.Reason, true)
				refused = cmp.Or(refused, err)
			}
		})
		if err != nil {
			wg.Done()
		}
		return err
	}
	var again []uint64
	for n := uint64(1); n <= l.sent[i]; n++ {
		if l.open[i][n] {
			again = append(again, n)
		}
	}
	for _, n := range again {
		if err = send(n); err != nil {
			break
		}
	}
	for err == nil && ctx.Err() == nil && l.sent[i] < last {
		l.sent[i]++
		n := l.sent[i]
		mu.Lock()
		l.open[i][n] = true
		failed := refused
		mu.Unlock()
		if err = failed; err == nil {
			err = send(n)
		}
	}
	if err != nil {
		c.Close()
	}
	wg.Wait()
	return cmp.Or(err, refused)
}

// message n is the same on each device.
func (l *load) message(n uint64) (topic string, body []byte) {
	ts := l.base.UnixMilli() + int64(n)
	if l.events && n%8 == 0 {
		pad := make([]byte, l.pad)
		for random, i := randv2.New(randv2.NewPCG(n, 0)), 0; i < len(pad); i++ { // the same when it is sent again
			pad[i] = 'A' + byte(random.IntN(26))
		}
		return "event/load", fmt.Appendf(nil, `{"ts":%d,"detail":"%s","data":{"n":%d}}`, ts, pad, n)
	}
	return "tele/load", fmt.Appendf(nil, `{"ts":%d,"boot":1,"seq":%d,"values":{"n":%d}}`, ts, n, n)
}

// found notes in h everything that a service knows of the load's devices: measurements by time, events in the order in
// which they were received.
func (l *load) found(ctx context.Context, s *Service, h *history.History) error {
	for i := range l.certs {
		series, err := s.Series(ctx, "ten", l.device(i), Query{From: l.base, To: l.base.Add(MaxPoints * time.Millisecond), Max: MaxPoints})
		if err != nil {
			return err
		}
		for _, f := range series {
			for _, b := range f.Points {
				for range b.Count {
					if f.Stream == "old" {
						h.Found("dev_0 old", uint64(b.Last))
						continue
					}
					h.Found(l.line(i, uint64(b.Last)), uint64(b.Last))
				}
			}
		}
		rows, err := s.Events(ctx, "ten", l.device(i), "", 1<<30)
		if err != nil {
			return err
		}
		for j := len(rows) - 1; j >= 0; j-- {
			n, ok := rows[j].Data["n"].(float64)
			if !ok {
				return fmt.Errorf("event %s tells nothing of its number", rows[j].ID)
			}
			h.Found(l.line(i, uint64(n)), uint64(n))
		}
	}
	return nil
}

// judge compares what is at the place with the history, before and after compaction, and returns the verdict.
func (l *load) judge(t testing.TB, at place) history.Verdict {
	t.Helper()
	s, done, err := at.open(t.Context(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := done(); err != nil {
			t.Error(err)
		}
	}()
	if err := s.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	h := &l.History
	if err := l.found(t.Context(), s, h); err != nil {
		t.Fatal(err)
	}
	l.save(t)
	return h.Check()
}

// settle compacts everything. The lease of a killed process runs out on PostgreSQL; here it is enough to go on without.
func (s *Service) settle(ctx context.Context) error {
	for {
		more, err := hasInbox(ctx, s.cfg.DB, "")
		if err != nil || !more {
			return err
		}
		s.pass.Lock()
		_, err = s.compact(ctx)
		s.pass.Unlock()
		if err != nil {
			return err
		}
	}
}

// save writes the raw history to the folder OPENTHINGS_HISTORY, if there is one.
func (l *load) save(t testing.TB) {
	dir := os.Getenv("OPENTHINGS_HISTORY")
	if dir == "" {
		return
	}
	f, err := os.Create(filepath.Join(dir, strings.NewReplacer("/", "-").Replace(t.Name())+".jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.WriteTo(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
