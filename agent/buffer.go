// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/wire"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// maxBuffered bounds the measurements and events kept while the platform is out of reach: at 10 s, almost three hours.
const maxBuffered = 1000

// stream is where measurements go, below tele/.
const stream = "tele/env"

// buffer keeps measurements and events as files until they are acknowledged. The files are not fsynced one by one, which would
// wear out flash: a power cut may cost the last seconds of them, but never one that was acknowledged.
type buffer struct {
	disk  disk
	mu    sync.Mutex // guards the fields below, and the folder against a wipe
	names []string   // oldest first; nil once closed
	shut  bool
}

func openBuffer(d disk) (*buffer, error) {
	files, err := os.ReadDir(d.path("buffer"))
	if err != nil {
		return nil, err
	}
	b := &buffer{disk: d}
	for _, f := range files { // ReadDir sorts by name, and names sort by age
		b.names = append(b.names, filepath.Join("buffer", f.Name()))
	}
	return b, nil
}

// put adds a message under a name that sorts by age, and drops the oldest ones beyond the bound.
func (b *buffer) put(name string, message any) error {
	body, err := json.Marshal(message)
	if err != nil {
		return err
	}
	name = filepath.Join("buffer", name)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.shut {
		return nil
	}
	if err := b.disk.powered("write " + name); err != nil {
		return err
	}
	if err := os.WriteFile(b.disk.path(name), body, 0o600); err != nil {
		return err
	}
	b.names = append(b.names, name)
	for len(b.names) > maxBuffered {
		if err := b.disk.remove(b.names[0]); err != nil {
			return err
		}
		b.names = b.names[1:]
	}
	return nil
}

// close forgets everything and takes nothing more: the device is about to be wiped.
func (b *buffer) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.names, b.shut = nil, true
}

// oldest returns the first message and its name, or "" when there is none. What cannot be read, because a power
// cut tore it, is dropped.
func (b *buffer) oldest() (name string, body []byte) {
	for {
		b.mu.Lock()
		if len(b.names) == 0 {
			b.mu.Unlock()
			return "", nil
		}
		name = b.names[0]
		b.mu.Unlock()
		if body, err := b.disk.read(name); err == nil && json.Valid(body) {
			return name, body
		}
		b.drop(name)
	}
}

// drop forgets a message that was acknowledged or is unreadable.
func (b *buffer) drop(name string) {
	b.mu.Lock()
	if i := slices.Index(b.names, name); i >= 0 {
		b.names = slices.Delete(b.names, i, i+1)
	}
	b.mu.Unlock()
	_ = b.disk.remove(name) // if it stays, it is sent again, and its boot and seq, or its time, make that harmless
}

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
		a.seq++
		m := wire.Telemetry{TS: a.stamp(), Boot: a.record().Boot, Seq: a.seq, Values: values}
		if err := a.buffer.put(fmt.Sprintf("%010d-%010d.json", m.Boot, m.Seq), m); err != nil {
			a.Log.Error("a measurement could not be kept", "error", err)
		}
		nudge(a.kick)
	}
}

// tell keeps an event until the platform has it. Its boot makes two that agree in all else different.
func (a *agent) tell(kind string, detail string, data map[string]any) {
	boot := a.record().Boot
	data["boot"] = boot
	name := fmt.Sprintf("%010d-e%09d.%s.json", boot, a.told.Add(1), kind)
	if err := a.buffer.put(name, wire.Event{TS: a.stamp(), Detail: detail, Data: data}); err != nil {
		a.Log.Error("an event could not be kept", "event", kind, "error", err)
	}
	nudge(a.kick)
}

// topicOf is where a file of the buffer goes.
func topicOf(name string) string {
	if parts := strings.Split(filepath.Base(name), "."); len(parts) == 3 {
		return wire.Root + "event/" + parts[1]
	}
	return wire.Root + stream
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// never lists the refusals that a repeat does not change: what they hit must not hold up all the rest.
var never = []mqtt.Reason{mqtt.PacketTooLarge, mqtt.TopicNameInvalid, mqtt.NotAuthorized}

// drain sends the buffer, oldest first, until the session ends.
func (a *agent) drain(ctx context.Context, c *mqtt.Client) {
	for {
		name, body := a.buffer.oldest()
		if name == "" {
			select {
			case <-a.kick:
				continue
			case <-ctx.Done():
				return
			}
		}
		err := c.Publish(ctx, topicOf(name), body)
		var refused *mqtt.Error
		switch {
		case err == nil:
			a.buffer.drop(name)
		case errors.As(err, &refused) && slices.Contains(never, refused.Reason):
			a.Log.Error("the platform can never take this message", "error", err)
			a.buffer.drop(name)
		default: // not durable over there: it stays here
			if a.sleep(ctx, a.backoff(0)) != nil {
				return
			}
		}
	}
}

// setInterval changes the pace of measurements for good.
func (a *agent) setInterval(d time.Duration) error {
	if err := a.disk.writeJSON("config.json", settings{d}); err != nil {
		return err
	}
	a.mu.Lock()
	a.interval = d
	a.mu.Unlock()
	nudge(a.retime)
	nudge(a.twin.kick) // the device is not as it said it was
	return nil
}

// settings is config.json.
type settings struct {
	Interval time.Duration `json:"interval_ns"`
}
