// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/wire"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// bubble is the time of a synctest bubble, as many years on as makes it later than this agent.
type bubble struct{}

func (bubble) Now() time.Time { return time.Now().AddDate(30, 0, 0) }

func (bubble) NewTimer(d time.Duration) *clock.Timer { return clock.System.NewTimer(d) }

var errGone = errors.New("the power is gone")

// flash is what lies under a state directory. When the power goes, it loses what it may: appends that were not synced are
// torn somewhere, and what was made, replaced or removed since the directory was synced is so, or is not.
type flash struct {
	dir  string
	off  func()
	rand *mrand.Rand

	mu     sync.Mutex // guards the fields below
	left   int        // effects until the power goes; below 0: never
	dead   bool
	wrote  int               // syncs: what wears the flash
	size   map[string]int64  // of files that were appended to since their last sync
	before map[string][]byte // of names that changed since the last sync of the directory; nil: there was none
}

func (f *flash) cut(effect string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left == 0 && !f.dead {
		f.dead = true
		f.off()
	}
	if f.dead {
		return errGone
	}
	f.left--
	what := strings.Fields(effect)
	name := what[1]
	remember := func(name string) {
		if _, known := f.before[name]; !known {
			b, err := os.ReadFile(filepath.Join(f.dir, name))
			if err != nil {
				b = nil
			}
			f.before[name] = b
		}
	}
	switch what[0] {
	case "write":
		if filepath.Ext(name) == ".log" {
			info, err := os.Stat(filepath.Join(f.dir, name))
			if err != nil {
				remember(name)
			} else if _, known := f.size[name]; !known {
				f.size[name] = info.Size()
			}
		}
	case "sync":
		f.wrote++
		delete(f.size, name)
	case "rename":
		remember(what[2])
	case "remove":
		remember(name)
	case "syncdir":
		for name := range f.before {
			if filepath.Dir(name) == what[1] {
				delete(f.before, name)
			}
		}
	}
	return nil
}

// lose leaves on disk what the power cut leaves.
func (f *flash) lose(t *testing.T) {
	f.mu.Lock()
	defer f.mu.Unlock()
	must := func(err error) {
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if f.dead {
		for name, had := range f.size {
			info, err := os.Stat(filepath.Join(f.dir, name))
			if err == nil {
				must(os.Truncate(filepath.Join(f.dir, name), had+f.rand.Int64N(max(info.Size()-had, 0)+1)))
			}
		}
		for name, b := range f.before {
			switch {
			case f.rand.IntN(2) == 0:
			case b == nil:
				must(os.Remove(filepath.Join(f.dir, name)))
			default:
				must(os.WriteFile(filepath.Join(f.dir, name), b, 0o600))
			}
		}
	}
	f.size, f.before, f.dead = map[string]int64{}, map[string][]byte{}, false
}

// count tells a measurement apart.
type count struct{ boot, seq uint64 }

// taker is a platform: what it acknowledges it has, and it keeps it once.
type taker struct {
	mu       sync.Mutex // guards the fields below
	rand     *mrand.Rand
	mood     string // "", "refuses", "mute": it takes and the receipt is lost
	has      map[count]time.Time
	old      []time.Time // when measurements older than a minute came
	lost     []wire.Lost
	events   map[string]int
	chain    map[uint64][]byte
	forked   int
	messages int
}

// serve is one session over a connection that may be cut. It reads at once whatever comes: a pipe holds nothing, and
// somebody who waits for a mutex of a writer that waits for the pipe would stop virtual time.
func (s *taker) serve(c net.Conn) {
	packets := make(chan mqtt.Packet, 1000)
	go func() {
		defer close(packets)
		for r := mqtt.NewReader(c, 256<<10); ; {
			h, body, err := r.Next()
			if err != nil {
				return
			}
			p, err := mqtt.Decode(mqtt.V5, h, bytes.Clone(body))
			if err != nil {
				return
			}
			packets <- p
		}
	}()
	defer func() {
		c.Close()
		for range packets {
		}
	}()
	send := func(p mqtt.Packet) bool {
		b, err := mqtt.Append(nil, mqtt.V5, p)
		if err == nil {
			_, err = c.Write(b)
		}
		return err == nil
	}
	for p := range packets {
		switch p := p.(type) {
		case *mqtt.Connect:
			if !send(&mqtt.Connack{Properties: mqtt.Properties{{ID: mqtt.ReceiveMaximum, Num: 6}}}) {
				return
			}
		case *mqtt.Pingreq:
			send(&mqtt.Pingresp{})
		case *mqtt.Publish:
			time.Sleep(20 * time.Millisecond) // one commit
			why, answer := s.take(p)
			if answer && !send(&mqtt.Ack{Kind: mqtt.PUBACK, ID: p.ID, Reason: why}) {
				return
			}
			if !answer {
				return
			}
		case *mqtt.Disconnect:
			return
		}
	}
}

func (s *taker) take(p *mqtt.Publish) (why mqtt.Reason, answer bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages++
	if s.mood == "refuses" {
		return mqtt.QuotaExceeded, true
	}
	now, topic := bubble{}.Now(), strings.TrimPrefix(p.Topic, wire.Root)
	switch kind, secure := strings.CutPrefix(topic, wire.SecurityPrefix); {
	case secure:
		e, err := wire.ParseSecurityEvent(p.Payload)
		if err != nil || e.Kind != kind {
			panic(fmt.Sprint(err, string(p.Payload)))
		}
		if b := s.chain[e.Seq]; b != nil && !bytes.Equal(b, p.Payload) {
			s.forked++
		}
		s.chain[e.Seq] = bytes.Clone(p.Payload)
	case topic == "event/lost":
		var e struct{ Data wire.Lost }
		if err := json.Unmarshal(p.Payload, &e); err != nil {
			panic(err)
		}
		if s.events[string(p.Payload)]++; s.events[string(p.Payload)] == 1 {
			s.lost = append(s.lost, e.Data)
		}
	case strings.HasPrefix(topic, "event/"):
		s.events[string(p.Payload)]++
	default:
		var m wire.Telemetry
		if err := json.Unmarshal(p.Payload, &m); err != nil {
			panic(err)
		}
		k := count{m.Boot, m.Seq}
		if _, known := s.has[k]; !known {
			s.has[k] = now
		}
		if now.Sub(time.UnixMilli(m.TS)) > time.Minute {
			s.old = append(s.old, now)
		}
	}
	return mqtt.Success, s.mood != "mute" && s.rand.IntN(400) > 0
}

// life is a device whose power comes and goes.
type life struct {
	t        *testing.T
	dir      string
	rand     *mrand.Rand
	limits   Buffer
	key      *ecdsa.PrivateKey
	flash    *flash
	platform *taker

	mu       sync.Mutex // guards the fields below
	reach    bool
	quiet    bool // it measures nothing
	made     map[count]time.Time
	events   []string
	killed   map[uint64]time.Time // starts that ended by a power cut
	sessions int
}

func newLife(t *testing.T, seed uint64, limits Buffer) *life {
	l := &life{t: t, dir: t.TempDir(), rand: mrand.New(mrand.NewPCG(seed, 1)), limits: limits, made: map[count]time.Time{}, killed: map[uint64]time.Time{}, reach: true}
	l.flash = &flash{dir: l.dir, rand: l.rand, size: map[string]int64{}, before: map[string][]byte{}, left: -1}
	l.platform = &taker{rand: mrand.New(mrand.NewPCG(seed, 2)), has: map[count]time.Time{}, events: map[string]int{}, chain: map[uint64][]byte{}}
	var err error
	if l.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(l.dir, "buffer"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := (disk{dir: l.dir}).save(&record{Active: "a"}); err != nil {
		t.Fatal(err)
	}
	return l
}

// start is one power cycle of so long, or until the power goes before effect number cut (below 0: it does not).
func (l *life) start(long time.Duration, cut int) {
	ctx, cancel := context.WithTimeout(l.t.Context(), long)
	defer cancel()
	l.flash.mu.Lock()
	l.flash.off, l.flash.left = cancel, cut
	l.flash.mu.Unlock()
	boot, err := l.cycle(ctx)
	l.flash.mu.Lock()
	dead := l.flash.dead
	l.flash.mu.Unlock()
	if err != nil && !dead {
		l.t.Fatalf("it does not start: %v", err)
	}
	if dead {
		l.mu.Lock()
		l.killed[boot] = bubble{}.Now()
		l.mu.Unlock()
	}
	l.flash.lose(l.t)
}

func (l *life) cycle(ctx context.Context) (boot uint64, err error) {
	d := disk{dir: l.dir, cut: l.flash.cut}
	a := &agent{Config: Config{Clock: bubble{}, Log: slog.New(slog.DiscardHandler), Retry: time.Second, Buffer: l.limits}, disk: d,
		kick: make(chan struct{}, 1), retime: make(chan struct{}, 1), timely: make(chan struct{}, 1), unit: unit{Device: "dev_1"}, idevid: &credential{key: l.key}}
	if a.rec, err = d.load(); err != nil {
		return 0, err
	}
	a.time = openCalendar(a.Clock, d)
	if err := a.time.told(a.Clock.Now()); err != nil {
		return 0, err
	}
	if a.buffer, err = openBuffer(d, a.Buffer); err != nil {
		return 0, err
	}
	if _, err := a.boot(); err != nil {
		return a.rec.Boot, err
	}
	boot = a.rec.Boot
	a.startedUp(false)
	var work sync.WaitGroup
	work.Go(func() { a.flushing(ctx) })
	work.Go(func() { a.sealing(ctx) })
	work.Go(func() { l.measure(ctx, a) })
	work.Go(func() { l.connect(ctx, a) })
	work.Wait()
	_, err = a.buffer.flush(a.Clock.Now(), true)
	return boot, err
}

// measure is what the device has to say: a value every ten seconds, an event every hour, a login now and then.
func (l *life) measure(ctx context.Context, a *agent) {
	for n := 0; !l.quiet && a.sleep(ctx, 10*time.Second) == nil; n++ {
		a.counting.Lock()
		k := count{a.rec.Boot, a.seq + 1}
		a.counting.Unlock()
		l.mu.Lock()
		l.made[k] = a.Clock.Now()
		l.mu.Unlock()
		_ = a.keep("env", map[string]float64{"n": float64(k.seq)}) // an error is the power cut's
		if n%360 == 100 {
			detail := fmt.Sprintf("event %d of start %d", n, k.boot)
			body, err := json.Marshal(wire.Event{TS: a.stamp(), Detail: detail})
			if err == nil && a.buffer.putEvent(entry{topic: "event/door", body: body, ts: 1, boot: k.boot}) == nil {
				l.mu.Lock()
				l.events = append(l.events, string(body))
				l.mu.Unlock()
			}
			nudge(a.kick)
		}
		if n%500 == 200 {
			a.secure(wire.SecurityLogin, "root", nil)
		}
	}
}

// connect is live without TLS and certificates.
func (l *life) connect(ctx context.Context, a *agent) {
	for n := 0; ctx.Err() == nil; n++ {
		l.mu.Lock()
		reach := l.reach
		l.mu.Unlock()
		if reach {
			began := a.Clock.Now()
			here, there := net.Pipe()
			var served sync.WaitGroup
			served.Go(func() { l.platform.serve(there) })
			c, err := mqtt.NewClient(ctx, here, mqtt.ClientConfig{ClientID: "dev_1", Clock: a.Clock})
			if err == nil {
				l.mu.Lock()
				l.sessions++
				l.mu.Unlock()
				sctx, cancel := context.WithCancel(ctx)
				var pump sync.WaitGroup
				pump.Go(func() { a.drain(sctx, c) })
				for ended := false; !ended; {
					t := time.NewTimer(time.Second)
					select {
					case <-c.Done():
						ended = true
					case <-ctx.Done():
						ended = true
					case <-t.C:
						l.mu.Lock()
						ended = !l.reach
						l.mu.Unlock()
					}
					t.Stop()
				}
				cancel()
				_ = here.Close()
				_ = c.Close()
				pump.Wait()
			}
			served.Wait()
			if a.Clock.Now().Sub(began) > time.Minute {
				n = 0
			}
		}
		_ = a.sleep(ctx, a.backoff(n))
	}
}

// in turns something at a time from now.
func (l *life) in(d time.Duration, what func()) {
	time.AfterFunc(d, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.platform.mu.Lock()
		defer l.platform.mu.Unlock()
		what()
	})
}

// check compares what the platform has with what was made: once, all of it, but for what was told as lost and for the last
// measurements in memory before a power cut. It returns how many measurements are missing for either reason.
func (l *life) check() (dropped, cut int) {
	l.t.Helper()
	p := l.platform
	p.mu.Lock()
	defer p.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	told := uint64(0)
	for _, r := range p.lost {
		told += r.Count - r.Events
	}
	for k, at := range l.made {
		if _, there := p.has[k]; there {
			continue
		}
		named := false
		for _, r := range p.lost {
			named = named || r.Boot == k.boot && r.From <= k.seq && k.seq <= r.To
		}
		if named {
			dropped++
			continue
		}
		if when, killed := l.killed[k.boot]; killed && when.Sub(at) <= l.limits.withDefaults().Flush+time.Second {
			cut++
			continue
		}
		l.t.Errorf("measurement %d of start %d is missing, and nobody told", k.seq, k.boot)
	}
	for k := range p.has {
		if _, made := l.made[k]; !made {
			l.t.Errorf("the platform has measurement %d of start %d, which was never made", k.seq, k.boot)
		}
	}
	if told < uint64(dropped) || told > uint64(dropped)+inFlight*uint64(l.sessions) {
		l.t.Errorf("%d measurements were dropped, %d are told as lost", dropped, told)
	}
	for _, e := range l.events {
		if p.events[e] == 0 {
			l.t.Errorf("an event is missing: %s", e)
		}
	}
	if p.forked > 0 {
		l.t.Errorf("%d security events are there in two versions", p.forked)
	}
	prev := ""
	for seq := uint64(1); seq <= uint64(len(p.chain)); seq++ {
		e, err := wire.ParseSecurityEvent(p.chain[seq])
		if err != nil || e.Seq != seq || e.Prev != prev {
			l.t.Errorf("the chain is broken at %d: %+v, %v", seq, e, err)
			break
		}
		if e.Signed != nil {
			var s wire.SecurityState
			if err := e.Signed.Open(l.key.Public(), &s); err != nil || s.Seq != seq-1 || s.Hash != prev || s.Device != "dev_1" {
				l.t.Errorf("checkpoint %d: %+v, %v", seq, s, err)
			}
		}
		prev = wire.Digest(p.chain[seq])
	}
	return dropped, cut
}

// TestADaysOutageLosesNothing: a day without the platform at the defaults, with a switch-off in the middle. All of it
// arrives, old values at the pace that was asked for, and no fresh value waits for them.
func TestADaysOutageLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLife(t, 1, Buffer{})
		l.in(time.Hour, func() { l.reach = false })
		l.start(12*time.Hour, -1)
		l.in(13*time.Hour, func() { l.reach = true })
		syncs := l.flash.wrote
		l.start(12*time.Hour, -1)
		syncs = l.flash.wrote - syncs
		l.start(3*time.Hour, -1)
		l.quiet = true
		l.start(time.Minute, -1)
		if dropped, cut := l.check(); dropped != 0 || cut != 0 {
			t.Errorf("%d dropped, %d lost in memory", dropped, cut)
		}
		p := l.platform
		late := 0
		for k, at := range p.has {
			if made := l.made[k]; k.boot == 3 && at.Sub(made) > 10*time.Second && made.Sub(l.made[count{3, 1}]) > 2*time.Hour {
				late++
			}
		}
		if late > 0 {
			t.Errorf("%d fresh values waited for more than ten seconds behind old ones", late)
		}
		most := 0
		for i, from := 0, 0; i < len(p.old); i++ {
			for p.old[i].Sub(p.old[from]) > 10*time.Second {
				from++
			}
			most = max(most, i-from+1)
		}
		if len(p.old) < 8000 || most > 11*50+backlogBusy {
			t.Errorf("%d old values came, up to %d in ten seconds; at most 50 a second were asked for", len(p.old), most)
		}
		t.Logf("%d old values, at most %d in ten seconds; %d syncs in 12 h without a platform", len(p.old), most, syncs)
		if syncs > 12*60+100 {
			t.Errorf("%d syncs in 12 hours wear the flash out", syncs)
		}
	})
}

// TestOnlineWearsNoFlash: what the platform takes within a minute is never written.
func TestOnlineWearsNoFlash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLife(t, 7, Buffer{})
		l.start(24*time.Hour, -1)
		l.quiet = true
		l.start(time.Minute, -1)
		l.check()
		if l.flash.wrote > 250 { // the start, an event and at most a checkpoint an hour
			t.Errorf("%d syncs on a day with the platform in reach", l.flash.wrote)
		}
		t.Logf("%d syncs", l.flash.wrote)
	})
}

// TestOutagesAndPowerCuts: days of outages, refusals, lost receipts and power cuts before whatever effect on disk. What
// the platform acknowledged it has once; what is missing was told, or was in memory for less than a minute when the power
// went.
func TestOutagesAndPowerCuts(t *testing.T) {
	for _, limits := range []Buffer{{}, {Bytes: leastBytes, Pace: 20}} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("%d bytes, draw %d", limits.withDefaults().Bytes, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := newLife(t, seed, limits)
					for range 10 {
						for range l.rand.IntN(4) {
							reach, mood := l.rand.IntN(3) > 0, []string{"", "", "refuses", "mute"}[l.rand.IntN(4)]
							l.in(time.Duration(l.rand.Int64N(int64(4*time.Hour))), func() { l.reach, l.platform.mood = reach, mood })
						}
						cut := -1
						if l.rand.IntN(4) > 0 {
							cut = l.rand.IntN(200)
						}
						l.start(time.Duration(l.rand.Int64N(int64(4*time.Hour))), cut)
					}
					time.Sleep(6 * time.Hour) // what was to change has changed
					l.in(0, func() { l.reach, l.platform.mood = true, "" })
					l.quiet = true
					l.start(2*time.Hour, -1)
					dropped, cut := l.check()
					if full := limits.Bytes > 0; dropped > 0 && !full {
						t.Errorf("%d measurements were dropped, and there was room", dropped)
					}
					t.Logf("%d made, %d dropped by the bound, %d lost in memory by %d power cuts, %d messages, %d links", len(l.made), dropped, cut, len(l.killed), l.platform.messages, len(l.platform.chain))
				})
			})
		}
	}
}
