// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
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

// refusals is how many handshakes in a row the platform may refuse an LDevID before the device asks for another one
// with its certificate of birth. A device that was shut out on purpose is refused there as well.
const refusals = 3

// live keeps the device enrolled and connected until ctx ends.
func (a *agent) live(ctx context.Context, work *sync.WaitGroup) {
	refused := 0
	for n := 0; ctx.Err() == nil; n++ {
		cred, fresh, err := a.certified(ctx, n, refused >= refusals)
		if err == nil {
			began := a.Clock.Now()
			err = a.session(ctx, cred, fresh, work)
			if errors.Is(err, errRenewed) {
				n = -1
				continue
			}
			if shutOut(err) {
				refused++
			} else {
				refused = 0
			}
			if a.Clock.Now().Sub(began) > a.backoff(6) {
				n = 0
			}
		}
		if ctx.Err() != nil {
			return
		}
		pause := a.backoff(n)
		var status *statusError
		if errors.As(err, &status) && status.after > 0 {
			pause = status.after + pause // never earlier than asked, and not all at once
		}
		a.Log.Info("not connected", "error", err, "again_in", pause)
		if a.sleep(ctx, pause) != nil {
			return
		}
	}
}

// shutOut says that the other side refused our certificate, which TLS 1.3 tells after the handshake.
func shutOut(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// certified returns the LDevID to connect with, and whether it is a new one that has not been seen at work. A new one
// takes turns with the one in service, so that a renewal which went wrong strands nobody.
func (a *agent) certified(ctx context.Context, attempt int, again bool) (cred *credential, fresh bool, err error) {
	if a.record().Wiping != "" {
		if current := a.current.Load(); current != nil {
			return current, false, nil // from memory; a device that wipes itself never enrols again
		}
		return nil, false, ErrWiped
	}
	now := a.Clock.Now()
	current, next := a.pair("ldevid.pem"), a.pair("next.pem")
	if current != nil && (again || now.After(current.Leaf.NotAfter)) {
		current = nil
	}
	switch {
	case next != nil && (current == nil || attempt%2 == 0) && !again && now.Before(next.Leaf.NotAfter):
		return next, true, nil
	case current != nil:
		return current, false, nil
	}
	next, err = a.request(ctx, a.idevid, "/.well-known/est/simpleenroll")
	return next, true, err
}

// pair reads a key and its certificate; one that cannot be used is as good as none.
func (a *agent) pair(name string) *credential {
	b, err := a.disk.read(name)
	if err != nil {
		return nil
	}
	c, err := newCredential(b, b)
	if err != nil {
		a.Log.Error("a certificate on disk cannot be used", "file", name, "error", err)
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

// session is one MQTT session from connect to disconnect.
func (a *agent) session(ctx context.Context, cred *credential, fresh bool, work *sync.WaitGroup) error {
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: 30 * time.Second}, Config: a.tls(cred)}
	conn, err := dialer.DialContext(ctx, "tcp", a.MQTT)
	if err != nil {
		return err
	}
	sctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ready := make(chan struct{}) // what arrives is handled once the session is set up
	var gate sync.Mutex          // held while a message is handled; closed is set when none may be handled any more
	closed := false
	var c *mqtt.Client
	c, err = mqtt.NewClient(sctx, conn, mqtt.ClientConfig{ClientID: a.unit.Device, Clock: a.Clock, Handler: func(topic string, payload []byte) {
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
		return err
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
		if err := a.promote(); err != nil {
			return err
		}
	}
	a.current.Store(cred)
	if err := c.Subscribe(ctx, wire.Root+"cmd/#", wire.Root+"ota/#"); err != nil {
		return err
	}
	if err := a.commit(); err != nil { // the platform is in reach: a trial has proved itself
		return err
	}
	a.online.Store(c)
	if err := a.publish(ctx, wire.TopicInv, a.inventory()); err != nil {
		return err
	}
	a.reportUpdate()
	a.resendResults(ctx)
	close(ready)
	a.resume(ctx, work)
	pump.Go(func() { a.drain(sctx, c) })
	return a.watch(ctx, c, cred)
}

// watch waits for the end of the session and renews the certificate when two thirds of its life are over.
func (a *agent) watch(ctx context.Context, c *mqtt.Client, cred *credential) error {
	renew := a.Clock.NewTimer(cred.renewAt().Sub(a.Clock.Now()))
	defer func() { renew.Stop() }()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.Done():
			return c.Err()
		case <-renew.C:
		}
		if _, err := a.request(ctx, cred, "/.well-known/est/simplereenroll"); err != nil {
			a.Log.Warn("the certificate is not renewed yet", "error", err)
			renew = a.Clock.NewTimer(a.backoff(min(n, 6)) * 8)
			continue
		}
		return errRenewed
	}
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
