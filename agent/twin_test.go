// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/wire"
)

// reports waits for a report of the unit's state.
func reports(h *house, want func(wire.TwinReport) bool) wire.TwinReport {
	h.t.Helper()
	return await(h, "state/reported", want)
}

func applied(version int64) func(wire.TwinReport) bool {
	return func(r wire.TwinReport) bool { return r.Applied == version }
}

// A unit applies what is desired, says so, and asks for the whole when a patch does not fit what it holds.
func TestTwin(t *testing.T) {
	h := newHouse(t)
	u := h.born("dev_1")
	u.cfg.Apply = func(_ context.Context, d map[string]any) (map[string]any, error) {
		light, _ := d["light"].(map[string]any)
		if fmt.Sprint(light["level"]) == "200" {
			return nil, errors.New("too bright")
		}
		return map[string]any{"light": light}, nil
	}
	u.on()
	if r := reports(h, applied(0)); !strings.Contains(string(r.Full), `"interval_s"`) || r.Seq != 1 {
		t.Errorf("at first %+v %s", r, r.Full)
	}
	u.send("state/desired", wire.TwinDelta{Version: 1, Full: json.RawMessage(`{"light":{"level":40},"telemetry":{"interval_s":7}}`)})
	r := reports(h, applied(1))
	if s := string(r.Patch); !strings.Contains(s, `"level":40`) || !strings.Contains(s, `"interval_s":7`) {
		t.Errorf("after version 1: %s", s)
	}
	u.send("state/desired", wire.TwinDelta{Version: 2, Base: 1, Patch: json.RawMessage(`{"light":{"level":50}}`)})
	if r := reports(h, applied(2)); string(r.Patch) != `{"light":{"level":50}}` {
		t.Errorf("after version 2: %s", r.Patch)
	}
	u.send("state/desired", wire.TwinDelta{Version: 5, Base: 4, Patch: json.RawMessage(`{"light":{"level":60}}`)})
	if r := reports(h, func(r wire.TwinReport) bool { return r.Resync }); r.Applied != 2 {
		t.Errorf("a patch to a version that it does not hold: %+v", r)
	}
	u.send("state/desired", wire.TwinDelta{Version: 5, Full: json.RawMessage(`{"light":{"level":60}}`)})
	reports(h, applied(5))
	for i, bad := range []string{`{"light":{"level":200}}`, `{"telemetry":{"interval_s":-1}}`} {
		version := int64(6 + i)
		u.send("state/desired", wire.TwinDelta{Version: version, Full: json.RawMessage(bad)})
		if r := reports(h, func(r wire.TwinReport) bool { return r.Failed == version }); r.Error == "" || r.Applied != 5 {
			t.Errorf("%s: %+v", bad, r)
		}
	}
	// After the restore of a backup the platform counts from below: its word holds.
	u.send("state/desired", wire.TwinDelta{Version: 3, Full: json.RawMessage(`{"light":{"level":30}}`)})
	reports(h, applied(3))
	u.off()
	u.on()
	if r := reports(h, applied(3)); !strings.Contains(string(r.Full), `"level":30`) || r.Boot != 2 {
		t.Errorf("after a restart: %+v %s", r, r.Full)
	}
}

// TestPowerCutAtEveryEffectOfATwin: whatever the moment of a power cut, the unit comes to what is desired, and what it
// says that it goes by is in force.
func TestPowerCutAtEveryEffectOfATwin(t *testing.T) {
	h := newHouse(t)
	for at, whole := 0, 1; at <= whole; at++ {
		h.forget()
		u := h.born(fmt.Sprintf("dev_%d", at))
		send := func(ctx context.Context) error {
			return h.g.Send(ctx, gateway.Downlink{Device: u.id, Topic: "state/desired", Payload: []byte(`{"version":1,"full":{"telemetry":{"interval_s":77}}}`)})
		}
		done := func() bool {
			var kept struct{ Applied int64 }
			b, err := os.ReadFile(filepath.Join(u.cfg.Dir, "twin.json"))
			return err == nil && json.Unmarshal(b, &kept) == nil && kept.Applied == 1
		}
		effects := u.powered(at, send, done)
		if at == 0 {
			whole = len(effects)
			continue
		}
		h.forget()
		// Power is back. The platform sends until the device says that it goes by the version: the acknowledgement of a
		// packet alone may be the last word of a device whose power went.
		u.powered(0, func(ctx context.Context) error {
			if done() {
				return nil
			}
			return errors.Join(send(ctx), errors.New("not yet applied"))
		}, done)
		u.on()
		r := reports(h, func(r wire.TwinReport) bool { return r.Applied == 1 && r.Full != nil })
		if !strings.Contains(string(r.Full), `"interval_s":77`) {
			t.Errorf("cut before %q: it says that it goes by version 1 and is %s", effects[min(at, len(effects))-1], r.Full)
		}
		u.off()
	}
}
