// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openthings-platform/openthings/wire"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

const (
	idleConnections = 5000
	stormDevices    = 10_000
)

// dial opens one session.
func (b broker) dial(ctx context.Context, cert tls.Certificate, cfg mqtt.ClientConfig) (*mqtt.Client, error) {
	d := tls.Dialer{Config: &tls.Config{RootCAs: b.roots, ServerName: "localhost", Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}}
	conn, err := d.DialContext(ctx, "tcp", b.addr)
	if err != nil {
		return nil, err
	}
	return mqtt.NewClient(ctx, conn, cfg)
}

// mqttIdleRSS measures what one idle connection over mutual TLS costs the server in resident memory, at the door (with
// register and inbox, in a process of its own, after a garbage collection) and at mosquitto.
func mqttIdleRSS(ctx context.Context) (Result, error) {
	d, err := startDoor(ctx, idleConnections)
	if err != nil {
		return Result{}, err
	}
	defer d.close()
	peer, stop, err := startMosquitto(ctx, idleConnections)
	if err != nil {
		return Result{}, err
	}
	defer stop()
	ours, err := idle(ctx, d.broker, func() (float64, error) {
		if _, err := d.state(); err != nil {
			return 0, err
		}
		now, _, err := rss(d.pid)
		return now, err
	})
	if err != nil {
		return Result{}, fmt.Errorf("door: %w", err)
	}
	theirs, err := idle(ctx, peer, func() (float64, error) { return calm(ctx, peer.pid) })
	if err != nil {
		return Result{}, fmt.Errorf("mosquitto: %w", err)
	}
	return Result{Name: "mqtt_idle_rss_kb", Value: ours, Unit: "kB/connection", Baseline: "mosquitto", BaselineValue: theirs, Ratio: ours / theirs}, nil
}

// idle opens a session per certificate and says by how much memory each raises what measure returns.
func idle(ctx context.Context, b broker, measure func() (float64, error)) (float64, error) {
	before, err := measure()
	if err != nil {
		return 0, err
	}
	clients := make([]*mqtt.Client, len(b.certs))
	defer func() {
		for _, c := range clients {
			if c != nil {
				c.Close()
			}
		}
	}()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(32)
	for i, cert := range b.certs {
		g.Go(func() (err error) {
			clients[i], err = b.dial(gctx, cert, mqtt.ClientConfig{KeepAlive: time.Hour})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	after, err := measure()
	return (after - before) / float64(len(clients)), err
}

// mqttReconnect has 10,000 devices come back at once: each opens a connection and publishes one message, and begins
// again after a jittered wait that doubles when it was turned away. Everyone has to be acknowledged, every acknowledged
// message has to be on disk, and the door's memory has to stay within its bound: 40 kB for each connection that it lets
// in, and what it had before. The value is the time until the last one is there; the baseline is the time that as many
// handshakes, one after the other on one processor, took at the start.
func mqttReconnect(ctx context.Context) (Result, error) {
	d, err := startDoor(ctx, stormDevices)
	if err != nil {
		return Result{}, err
	}
	defer d.close()
	if _, err := d.state(); err != nil {
		return Result{}, err
	}
	before, _, err := rss(d.pid)
	if err != nil {
		return Result{}, err
	}
	const sample = 200
	start := time.Now()
	for _, cert := range d.certs[:sample] {
		c, err := d.dial(ctx, cert, mqtt.ClientConfig{})
		if err != nil {
			return Result{}, err
		}
		c.Close()
	}
	base := time.Since(start).Seconds() / sample * stormDevices

	var acked, turned atomic.Int64
	clients := make([]*mqtt.Client, len(d.certs))
	defer func() {
		for _, c := range clients {
			if c != nil {
				c.Close()
			}
		}
	}()
	g, gctx := errgroup.WithContext(ctx)
	start = time.Now()
	for i, cert := range d.certs {
		g.Go(func() error {
			for wait := time.Second; ; wait = min(2*wait, 30*time.Second) {
				c, err := d.dial(gctx, cert, mqtt.ClientConfig{KeepAlive: time.Hour})
				if err == nil {
					if err = c.Publish(gctx, wire.Root+"tele/bench", []byte(`{"values":{"a":1}}`)); err == nil {
						clients[i] = c
						acked.Add(1)
						return nil
					}
					c.Close()
					if no := (*mqtt.Error)(nil); errors.As(err, &no) { // it was let in: coming again is of no use
						return fmt.Errorf("a message was refused: %w", err)
					}
				}
				turned.Add(1)
				select {
				case <-gctx.Done():
					return errors.Join(gctx.Err(), err)
				case <-time.After(rand.N(wait)):
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		return Result{}, err
	}
	took := time.Since(start).Seconds()
	_, most, err := rss(d.pid)
	if err != nil {
		return Result{}, err
	}
	s, err := d.state()
	if err != nil {
		return Result{}, err
	}
	fmt.Fprintf(os.Stderr, "%d devices back, %d attempts turned away, %d records on disk, memory %.0f MB before and %.0f MB at most; doors %+v\n",
		acked.Load(), turned.Load(), s.Records, before/1e3, most/1e3, s.Load)
	if s.Records < acked.Load() || s.Load.Sessions != len(d.certs) {
		return Result{}, fmt.Errorf("%d messages were acknowledged and %d are on disk, %d sessions of %d live", acked.Load(), s.Records, s.Load.Sessions, len(d.certs))
	}
	if bound := before + 40*float64(len(d.certs)); most > bound {
		return Result{}, fmt.Errorf("the door took %.0f kB, its bound is %.0f", most, bound)
	}
	return Result{Name: "mqtt_reconnect_10000", Value: took, Unit: "s", Baseline: "as many handshakes one by one", BaselineValue: base, Ratio: took / base}, nil
}

// ackP99 measures the 99th percentile from a publish to its PUBACK at a steady rate against that of one write and
// fdatasync on the same disk. Rounds alternate between the two, so that the machine's mood hits both; medians count.
func (d *durable) ackP99(ctx context.Context) (Result, error) {
	if err := d.open(ctx); err != nil {
		return Result{}, err
	}
	var acks, syncs []float64
	for range mqttRounds {
		s, err := paceSync(ctx, d.fleet.Data, steadyTime/mqttRounds)
		if err != nil {
			return Result{}, err
		}
		a, err := d.steady(ctx, func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(steadyTime / mqttRounds):
				return nil
			}
		})
		if err != nil {
			return Result{}, err
		}
		acks, syncs = append(acks, a), append(syncs, s)
	}
	slices.Sort(acks)
	slices.Sort(syncs)
	value, base := acks[len(acks)/2], syncs[len(syncs)/2]
	return Result{Name: "mqtt_ack_p99_ms", Value: value, Unit: "ms", Baseline: "write and fdatasync, p99", BaselineValue: base, Ratio: value / base}, nil
}

// paceSync writes 4 KiB and syncs, a hundred times a second for so long, and returns the p99 in milliseconds.
func paceSync(ctx context.Context, dir string, long time.Duration) (float64, error) {
	f, err := os.CreateTemp(dir, "sync-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	b := make([]byte, 4096)
	var took []time.Duration
	tick := time.NewTicker(time.Second / 100)
	defer tick.Stop()
	for range int(long.Seconds() * 100) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		start := time.Now()
		if _, err := f.Write(b); err != nil {
			return 0, err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return float64(took[len(took)*99/100].Microseconds()) / 1000, nil
}
