// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/wire"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

var (
	errRenewed     = errors.New("agent: a new certificate waits to be used")
	errNotEnrolled = errors.New("agent: not enrolled yet")
)

// refusals is how many handshakes in a row the platform may refuse a certificate before the device stops to show it: one
// that was to be next is given up, and in place of the one in service it asks for another with its certificate of birth. A
// device that was shut out on purpose is refused there as well.
const refusals = 3

const (
	// keepSession is how long the platform keeps the session: what it had sent and has no acknowledgement of comes again at
	// once when the device is back, and nothing falls between CONNECT and SUBSCRIBE.
	keepSession = 24 * time.Hour
	// goneAfter is how long a device may be away without a goodbye before the platform says so for it.
	goneAfter = time.Minute
)

// farewell is what the platform says for a device whose session ended without a goodbye: power or line went, or the
// agent died. It has no time of its own: when it is said counts.
func farewell() *mqtt.Will {
	return &mqtt.Will{Topic: wire.Root + "event/gone", QoS: 1, Payload: []byte(`{"detail":"its session ended without a goodbye"}`),
		Properties: mqtt.Properties{{ID: mqtt.WillDelay, Num: uint32(goneAfter / time.Second)}}}
}

// standing is how the platform has taken to the device's certificates in this power cycle. Only live and what it calls touch it.
type standing struct {
	refused  int       // handshakes in a row that turned away the LDevID in service
	spurned  int       // handshakes in a row that turned away the one that was to be next
	doubted  bool      // the last of them did, or its key would not sign: the one in service has the next turn
	renewals int       // renewals in a row that came to nothing
	notUntil time.Time // by the device's clock: no renewal before
}

// live keeps the device enrolled and connected until ctx ends.
func (a *agent) live(ctx context.Context, work *sync.WaitGroup) {
	for n := 0; ctx.Err() == nil; n++ {
		cred, fresh, err := a.certified(ctx)
		lost := false
		if err == nil {
			began := a.Clock.Now()
			lost, err = a.session(ctx, cred, fresh, work)
			if errors.Is(err, errRenewed) {
				n, a.standing.doubted = -1, false
				continue
			}
			if err := a.judge(err, fresh && !lost); err != nil {
				a.Log.Error("a certificate that is not wanted stays on disk", "error", err)
			}
			if a.Clock.Now().Sub(began) > a.backoff(busy) {
				n = 0
			}
			if a.route.take(err, lost, a.MQTT) {
				a.moved(err)
			}
		}
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errUntrusted) {
			if berr := a.bootstrap(ctx); berr != nil {
				err = errors.Join(err, berr)
			}
		}
		pause := a.pause(n, err)
		if lost && n == 0 {
			pause += a.straggle() // everybody else lost theirs in the same second
			n = stumbled
		}
		a.Log.Info("not connected", "error", err, "again_in", pause)
		if a.sleep(ctx, pause) != nil {
			return
		}
	}
}

// judge draws the conclusion from how a session ended. Fresh is a certificate that was to be next and is not in service yet.
func (a *agent) judge(err error, fresh bool) error {
	a.standing.doubted = fresh && (shutOut(err) || unsigned(err))
	switch {
	case shutOut(err) && fresh:
		a.standing.spurned++
	case shutOut(err):
		a.standing.refused++
	}
	if shutOut(err) {
		a.keyFailed("ldevid refused", err)
	}
	if a.standing.spurned < refusals {
		return nil
	}
	a.standing.spurned = 0
	a.putOff(err)
	return a.dropNext()
}

// putOff keeps the next renewal waiting, longer each time.
func (a *agent) putOff(err error) {
	left := time.Duration(0)
	if c := a.current.Load(); c != nil {
		now, _ := a.time.now()
		left = c.Leaf.NotAfter.Sub(now)
	}
	a.standing.notUntil = a.Clock.Now().Add(a.renewalPause(a.standing.renewals, err, left))
	a.standing.renewals++
}

// certified returns the LDevID to connect with, and whether it is a new one that has not been seen at work. A new one that
// the platform turns away takes turns with the one in service, so that a renewal which went wrong strands nobody. One that
// found no answer does not: it may have taken the other's place already, and who shows that one then is taken for a clone.
func (a *agent) certified(ctx context.Context) (cred *credential, fresh bool, err error) {
	if a.record().Wiping != "" {
		if current := a.current.Load(); current != nil {
			return current, false, nil // from memory; a device that wipes itself never enrols again
		}
		return nil, false, ErrWiped
	}
	current, next := a.pair("ldevid.pem"), a.pair("next.pem")
	if current != nil && (a.standing.refused >= refusals || a.over(ctx, current)) {
		current = nil
	}
	if next != nil && a.over(ctx, next) {
		next = nil
	}
	switch {
	case next != nil && (current == nil || !a.standing.doubted):
		return next, true, nil
	case current != nil:
		return current, false, nil
	}
	if err := a.beforeEnrolment(ctx); err != nil {
		return nil, false, err
	}
	next, err = a.request(ctx, a.idevid, "simpleenroll")
	if err == nil {
		return next, true, nil
	}
	a.afterEnrolment(err)
	if shutOut(err) {
		// The whole door may be shut, as while its register cannot be read. The LDevID gets another chance before the next try,
		// so that a fleet does not enrol anew because of a fault that has passed.
		a.standing.refused = min(a.standing.refused, refusals-1)
	}
	return nil, false, err
}

// over says that the certificate's life has ended for certain. When only the device's own clock says so, the platform is
// asked for the time first; if it does not answer, the certificate is still worth a try.
func (a *agent) over(ctx context.Context, c *credential) bool {
	now, sure := a.time.now()
	if !sure && now.After(c.Leaf.NotAfter) {
		if err := a.bootstrap(ctx); err != nil {
			a.Log.Warn("the time is not certain", "error", err)
		}
		now, sure = a.time.now()
	}
	return now.After(c.Leaf.NotAfter) && (sure || a.pins.current().Bootstrap == "")
}

// pair reads a certificate and its key; one that cannot be used is as good as none.
func (a *agent) pair(file string) *credential {
	c, err := readPair(a.disk, a.keys, file)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			a.Log.Error("a certificate on disk cannot be used", "file", file, "error", err)
			if a.buffer != nil { // while it is being opened
				a.keyFailed(file, err)
			}
		}
		return nil
	}
	return c
}

// operational is the credential of the live session, for the HTTPS door.
func (a *agent) operational() (*credential, error) {
	if c := a.current.Load(); c != nil {
		return c, nil
	}
	return nil, errNotEnrolled
}

// session is one MQTT session from connect to disconnect. Lost says that it was one: the platform had taken the device in.
func (a *agent) session(ctx context.Context, cred *credential, fresh bool, work *sync.WaitGroup) (lost bool, err error) {
	door := a.route.next(a.MQTT, a.record().Server)
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: 30 * time.Second}, Config: a.tls(cred, hostOf(door))}
	conn, err := dialer.DialContext(ctx, "tcp", door)
	if err != nil {
		return false, err
	}
	sctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ready := make(chan struct{}) // what arrives is handled once the session is set up
	var gate sync.Mutex          // held while a message is handled; closed is set when none may be handled any more
	closed := false
	var c *mqtt.Client
	c, err = mqtt.NewClient(sctx, conn, mqtt.ClientConfig{ClientID: a.unit.Device, Clock: a.Clock, Keep: keepSession, Will: farewell(), Handler: func(topic string, payload []byte) {
		select {
		case <-ready:
		case <-sctx.Done():
			return
		}
		gate.Lock()
		defer gate.Unlock()
		if !closed {
			a.received(ctx, work, topic, payload)
		}
	}})
	if err != nil {
		return false, err
	}
	var pump sync.WaitGroup
	defer func() {
		cancel()
		a.online.Store(nil)
		_ = c.Close() // the session is over; why is known already
		pump.Wait()
		gate.Lock()
		closed = true
		gate.Unlock()
	}()
	if fresh {
		if err := a.promote(cred); err != nil {
			return true, err
		}
		a.standing.spurned, a.standing.renewals = 0, 0
	}
	a.current.Store(cred)
	if err := c.Subscribe(ctx, wire.Root+"cmd/#", wire.Root+"ota/#", wire.Root+topicDesired); err != nil {
		return true, err
	}
	if err := a.commit(); err != nil { // the platform is in reach: a trial has proved itself
		return true, err
	}
	a.online.Store(c)
	a.standing.refused = 0
	if err := a.publish(ctx, wire.TopicInv, a.inventory()); err != nil {
		return true, err
	}
	a.reportUpdate()
	a.resendResults(ctx)
	close(ready)
	a.resume(ctx, work)
	a.meetTwin()
	nudge(a.notices.kick)
	pump.Go(func() { a.drain(sctx, c) })
	pump.Go(func() { a.chores(sctx, cred) })
	pump.Go(func() { a.owe(sctx, ctx, work) })
	return true, a.watch(ctx, c, cred)
}

// recheck is how often a wait for the renewal is worked out anew: clocks are set right meanwhile.
const recheck = 24 * time.Hour

// watch waits for the end of the session and renews the certificate when its time has come.
func (a *agent) watch(ctx context.Context, c *mqtt.Client, cred *credential) error {
	for {
		due := a.Clock.NewTimer(min(a.renewal(cred), recheck))
		if a.renewal(cred) > 0 { // asked again once the timer is set: it knows nothing of a clock that was set right just before
			select {
			case <-ctx.Done():
				due.Stop()
				return ctx.Err()
			case <-c.Done():
				due.Stop()
				return c.Err()
			case <-a.timely:
			case <-due.C:
			}
		}
		due.Stop()
		if a.renewal(cred) > 0 {
			continue
		}
		// A renewal is never begun on the word of the device's own clock: one that runs ahead would renew again and again.
		err := optional(a.askTime(ctx, a.client(cred)))
		if err == nil && a.renewal(cred) > 0 {
			continue
		}
		if err == nil {
			_, err = a.request(ctx, cred, "simplereenroll")
		}
		if err == nil {
			return errRenewed
		}
		a.putOff(err)
		if shutOut(err) {
			return err // the session lives on a certificate that no door takes any more; live knows other ways in
		}
		a.Log.Warn("the certificate is not renewed yet", "error", err, "again_in", a.renewal(cred))
	}
}

// renewal is how long to wait before cred is renewed.
func (a *agent) renewal(cred *credential) time.Duration {
	now, _ := a.time.now()
	return max(renewAt(cred.Leaf.NotBefore, cred.Leaf.NotAfter, a.unit.Device).Sub(now), a.standing.notUntil.Sub(a.Clock.Now()))
}

// received handles one message from the platform. Its PUBACK leaves when this returns, so what must not be forgotten
// is on disk by then.
func (a *agent) received(ctx context.Context, work *sync.WaitGroup, topic string, payload []byte) {
	rest, mine := strings.CutPrefix(topic, wire.Root)
	if !mine {
		return
	}
	if rest == wire.TopicOffer {
		if a.offered(payload) {
			a.resume(ctx, work)
		}
		return
	}
	if rest == topicDesired {
		a.desired(payload)
		return
	}
	if parts := strings.Split(rest, "/"); len(parts) == 3 && parts[0] == "cmd" && idShape.MatchString(parts[1]) {
		a.command(ctx, work, parts[1], parts[2], payload)
	}
}

// resume starts the update machine if an update is unfinished and nobody works on it.
func (a *agent) resume(ctx context.Context, work *sync.WaitGroup) {
	r := a.record()
	if ctx.Err() != nil || r.Update == nil || r.Trial != "" || final(r.Update.State) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.installing != nil || a.rec.Wiping != "" {
		return
	}
	ictx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	a.installing = func() { cancel(); <-done }
	work.Go(func() {
		a.install(ictx)
		cancel()
		a.mu.Lock()
		a.installing = nil
		a.mu.Unlock()
		close(done)
		a.resume(ctx, work) // another offer may have waited for this one to end
	})
}

// publish sends v's JSON in the live session and waits for its PUBACK.
func (a *agent) publish(ctx context.Context, topic string, v any) error {
	c := a.online.Load()
	if c == nil {
		return net.ErrClosed
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.Publish(ctx, wire.Root+topic, b)
}
