// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"archive/zip"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/openthings-platform/openthings/demo"
	"github.com/openthings-platform/openthings/wire"
)

const (
	durableClients  = 200
	durableMessages = 40_000 // of the count of fsyncs
	steadyRate      = 500    // messages a second of all clients together, for latencies
	steadyTime      = 20 * time.Second
	feedRecords     = 50_000
)

// durable measures on one platform what durability costs: it is started, with its devices, when the first one is asked for.
type durable struct {
	binary string
	fleet  *demo.Fleet
	load   *load
}

func (d *durable) open(ctx context.Context) (err error) {
	if d.load != nil {
		return nil
	}
	if d.fleet, err = demo.NewFleet(ctx, d.binary, durableClients); err != nil {
		return err
	}
	d.load, err = openLoad(ctx, broker{certs: d.fleet.Certs, roots: d.fleet.Roots, addr: d.fleet.MQTT, pid: d.fleet.PID})
	return err
}

func (d *durable) close() {
	if d.load != nil {
		d.load.close()
	}
	if d.fleet != nil {
		d.fleet.Close()
	}
}

// fsyncs counts the fsyncs of the whole platform while 200 clients with 16 publishes of 200 bytes in flight each get
// durableMessages receipts, compaction and everything else that it does meanwhile included.
func (d *durable) fsyncs(ctx context.Context) (Result, error) {
	if err := d.open(ctx); err != nil {
		return Result{}, err
	}
	if err := d.publish(ctx, 2000); err != nil { // warm
		return Result{}, err
	}
	dir, err := os.MkdirTemp("", "bench-strace-")
	if err != nil {
		return Result{}, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "calls")
	tracer := exec.CommandContext(ctx, "strace", "-f", "-qq", "-e", "signal=none", "-e", "trace=fsync,fdatasync,sync_file_range,msync,syncfs,sync", "-o", out, "-p", strconv.Itoa(d.fleet.PID))
	if err := tracer.Start(); err != nil {
		return Result{}, fmt.Errorf("strace counts the fsyncs: %w", err)
	}
	if err := traced(ctx, d.fleet.PID, tracer.Process.Pid); err != nil {
		return Result{}, err
	}
	err = d.publish(ctx, durableMessages)
	_ = tracer.Process.Signal(syscall.SIGINT) // it lets go and ends
	_ = tracer.Wait()                         // with the signal
	if err != nil {
		return Result{}, err
	}
	b, err := os.ReadFile(out)
	if err != nil {
		return Result{}, err
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "sync") && !strings.Contains(line, "resumed") {
			n++
		}
	}
	if n == 0 {
		return Result{}, errors.New("strace saw no fsync: nothing was measured")
	}
	value := float64(n) * 1000 / durableMessages
	return Result{Name: "mqtt_fsync_per_1000", Value: value, Unit: "fsyncs", Baseline: "one fsync per message", BaselineValue: 1000, Ratio: value / 1000}, nil
}

// traced waits until every thread of the process is traced.
func traced(ctx context.Context, pid, by int) error {
	for ctx.Err() == nil {
		status, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		if err != nil || len(status) == 0 {
			return fmt.Errorf("process %d is gone (%v)", pid, err)
		}
		free := false
		for _, path := range status {
			b, err := os.ReadFile(path)
			free = free || err == nil && !bytes.Contains(b, fmt.Appendf(nil, "TracerPid:\t%d\n", by))
		}
		if !free {
			return nil
		}
		if syscall.Kill(by, 0) != nil {
			return errors.New("strace ended: may this process trace others?")
		}
		time.Sleep(10 * time.Millisecond)
	}
	return ctx.Err()
}

func (d *durable) publish(ctx context.Context, n int) error {
	var wg sync.WaitGroup
	errs := make(chan error, len(d.load.clients))
	for _, c := range d.load.clients {
		wg.Go(func() { errs <- publishAll(ctx, c, n/len(d.load.clients)) })
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// importing compares the p99 of the time to a receipt at a steady rate while a feed of 50,000 OSV records is imported with
// that without.
func (d *durable) importing(ctx context.Context) (Result, error) {
	if err := d.open(ctx); err != nil {
		return Result{}, err
	}
	feed, err := osvFeed(feedRecords)
	if err != nil {
		return Result{}, err
	}
	quiet, err := d.steady(ctx, func(ctx context.Context) error {
		select {
		case <-time.After(steadyTime):
		case <-ctx.Done():
		}
		return ctx.Err()
	})
	if err != nil {
		return Result{}, err
	}
	busy, err := d.steady(ctx, func(ctx context.Context) error { return d.fleet.Import(ctx, "osv", bytes.NewReader(feed)) })
	if err != nil {
		return Result{}, err
	}
	return Result{Name: "mqtt_ack_p99_import", Value: busy, Unit: "ms", Baseline: "the same without the import", BaselineValue: quiet, Ratio: busy / quiet}, nil
}

// steady publishes at steadyRate while work goes on, and returns the p99 of the time to a receipt in milliseconds. A
// message that is due waits for nobody: one that is sent late counts from when it was due.
func (d *durable) steady(ctx context.Context, work func(context.Context) error) (float64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan error, 1)
	go func() { done <- work(ctx) }()
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	begin := time.Now()
	for i := 0; ; i++ {
		due := begin.Add(time.Duration(i) * time.Second / steadyRate)
		select {
		case err := <-done:
			wg.Wait()
			mu.Lock()
			defer mu.Unlock()
			if err = errors.Join(err, context.Cause(ctx)); err != nil {
				return 0, err
			}
			if len(took) < steadyRate {
				return 0, fmt.Errorf("only %d messages in that time", len(took))
			}
			slices.Sort(took)
			return float64(took[len(took)*99/100].Microseconds()) / 1000, nil
		case <-time.After(time.Until(due)):
		}
		body := fmt.Appendf(nil, `{"boot":2,"seq":%d,"values":{"temperature":21.5,"humidity":40.25,"voltage":3.31}`, i+1)
		body = append(append(body, bytes.Repeat([]byte(" "), max(0, mqttPayload-1-len(body)))...), '}')
		wg.Add(1)
		err := d.load.clients[i%len(d.load.clients)].Go(ctx, wire.Root+"tele/steady", body, func(err error) {
			defer wg.Done()
			if err != nil {
				cancel(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(due))
		})
		if err != nil {
			wg.Done()
			cancel(err)
			return 0, err
		}
	}
}

// osvFeed is a zip of n records of the shape and size of those of osv.dev.
func osvFeed(n int) ([]byte, error) {
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	ecosystems := []string{"npm", "PyPI", "Go", "crates.io", "Debian:12"}
	for i := range n {
		type event map[string]string
		record := map[string]any{
			"schema_version": "1.6.0", "id": fmt.Sprintf("BENCH-2026-%d", i), "aliases": []string{fmt.Sprintf("CVE-2026-%d", 100_000+i)},
			"modified": "2026-11-01T00:00:00Z", "published": "2026-10-01T00:00:00Z",
			"summary": fmt.Sprintf("Out-of-bounds read number %d", i), "details": strings.Repeat(fmt.Sprintf("A crafted message number %d makes the parser read behind its buffer. ", i), 12),
			"severity":   []map[string]string{{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N"}},
			"references": []map[string]string{{"type": "ADVISORY", "url": fmt.Sprintf("https://example.com/advisories/%d", i)}},
			"affected": []map[string]any{{
				"package": map[string]string{"ecosystem": ecosystems[i%len(ecosystems)], "name": fmt.Sprintf("package-%d", i/3)},
				"ranges":  []map[string]any{{"type": "ECOSYSTEM", "events": []event{{"introduced": "0"}, {"fixed": fmt.Sprintf("1.%d.%d", i%40, i%7)}}}},
			}},
		}
		f, err := z.Create(fmt.Sprintf("BENCH-2026-%d.json", i))
		if err != nil {
			return nil, err
		}
		b := bufio.NewWriter(f)
		if err := errors.Join(json.NewEncoder(b).Encode(record), b.Flush()); err != nil {
			return nil, err
		}
	}
	err := z.Close()
	return out.Bytes(), err
}
