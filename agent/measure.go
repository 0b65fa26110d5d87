// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"time"

	"github.com/openthings-platform/openthings/wire"
)

// stream is where the device's own measurements go, below tele/.
const stream = "env"

var streamShape = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// measure fills the buffer at the interval in force.
func (a *agent) measure(ctx context.Context) {
	for {
		a.mu.Lock()
		interval := a.interval
		a.mu.Unlock()
		t := a.Clock.NewTimer(interval)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-a.retime:
			t.Stop()
			continue
		case <-t.C:
		}
		values := map[string]float64{"uptime_s": a.Clock.Now().Sub(a.started).Seconds()}
		if a.Sensors != nil {
			values = a.Sensors()
		}
		if err := a.keep(stream, values); err != nil {
			a.Log.Error("a measurement could not be kept", "error", err)
		}
	}
}

// keep counts a measurement and puts it into the buffer.
func (a *agent) keep(stream string, values map[string]float64) error {
	if !streamShape.MatchString(stream) {
		return fmt.Errorf("%.70q is no name of a stream: 1 to 64 of A-Z a-z 0-9 . _ -", stream)
	}
	a.counting.Lock()
	defer a.counting.Unlock()
	m := wire.Telemetry{TS: a.stamp(), Boot: a.record().Boot, Seq: a.seq + 1, Values: values}
	body, err := json.Marshal(m)
	if err != nil {
		return err // a value that is no number, which leaves no hole
	}
	a.seq++
	err = a.buffer.put(entry{topic: "tele/" + stream, body: body, ts: m.TS, boot: m.Boot, seq: m.Seq}, a.Clock.Now())
	nudge(a.kick)
	return err
}

// flushing writes measurements that nobody took from memory to disk, and the rest at the end.
func (a *agent) flushing(ctx context.Context) {
	for ctx.Err() == nil {
		wait, err := a.buffer.flush(a.Clock.Now(), false)
		if err != nil {
			a.Log.Error("measurements cannot be written", "error", err)
		}
		if a.sleep(ctx, max(wait, time.Millisecond)) != nil {
			break
		}
	}
}

// tell keeps an event until the platform has it. Its boot makes two that agree in all else different.
func (a *agent) tell(kind string, detail string, data map[string]any) {
	boot := a.record().Boot
	data["boot"] = boot
	ts := a.stamp()
	body, err := json.Marshal(wire.Event{TS: ts, Detail: detail, Data: data})
	if err == nil {
		err = a.buffer.putEvent(entry{topic: "event/" + kind, body: body, ts: ts, boot: boot})
	}
	if err != nil {
		a.Log.Error("an event could not be kept", "event", kind, "error", err)
	}
	nudge(a.kick)
}

// setInterval changes the pace of measurements for good.
func (a *agent) setInterval(d time.Duration) error {
	a.mu.Lock()
	old := a.interval
	a.mu.Unlock()
	if err := a.disk.writeJSON("config.json", settings{d}); err != nil {
		return err
	}
	a.mu.Lock()
	a.interval = d
	a.mu.Unlock()
	nudge(a.retime)
	nudge(a.twin.kick) // the device is not as it said it was
	if d != old {
		a.secure(wire.SecurityConfig, "the interval between measurements", map[string]any{"from_s": old.Seconds(), "to_s": d.Seconds()})
	}
	return nil
}

// settings is config.json.
type settings struct {
	Interval time.Duration `json:"interval_ns"`
}
