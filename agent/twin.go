// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/wire"
)

// Apply brings the device to what is desired and returns what the device is like then. It is called after every change
// and once at each start, so that it must not mind being asked for what is so already. Numbers are json.Number. An error
// is told to the platform; what was in force before stays what the device reports. The members agent and telemetry are the
// agent's own.
type Apply func(ctx context.Context, desired map[string]any) (reported map[string]any, err error)

const (
	topicDesired  = "state/desired"
	topicReported = "state/reported"
)

// twin is what the platform wants of the device, and how far that has come.
type twin struct {
	kick chan struct{} // something is to be applied or told

	mu       sync.Mutex // guards the fields below
	kept     twinFile
	reported wire.Doc // as it was told last in this session; nil: not yet
	like     wire.Doc // what Apply says
	seq      uint64   // of reports since this start
	lost     bool     // the whole desired state is asked for
	applied  bool     // Apply has been called in this start
}

// twinFile is twin.json.
type twinFile struct {
	Version int64           `json:"version"` // of Desired
	Desired json.RawMessage `json:"desired"`
	Applied int64           `json:"applied"` // the version that the device goes by
	Failed  int64           `json:"failed,omitempty"`
	Error   string          `json:"error,omitempty"`
}

func (a *agent) loadTwin() error {
	a.twin.kick = make(chan struct{}, 1)
	a.twin.like = wire.Doc{}
	nudge(a.twin.kick) // what is desired is applied at each start
	return a.disk.readJSON("twin.json", &a.twin.kept)
}

// desired takes what the platform wants. It is on disk when this returns, and applied later.
func (a *agent) desired(payload []byte) {
	if a.record().Wiping != "" {
		return // nothing is desired any more
	}
	var d wire.TwinDelta
	err := json.Unmarshal(payload, &d)
	if err == nil {
		err = a.keepDesired(d)
	}
	if err != nil {
		a.Log.Error("what is desired cannot be kept", "error", err)
		a.twin.mu.Lock()
		a.twin.lost = true
		a.twin.mu.Unlock()
	}
	nudge(a.twin.kick)
}

var errBase = errors.New("the patch is for another version")

func (a *agent) keepDesired(d wire.TwinDelta) error {
	t := &a.twin
	t.mu.Lock()
	defer t.mu.Unlock()
	next := t.kept
	switch {
	case d.Full != nil:
		doc, err := wire.ParseDoc(d.Full)
		if err != nil {
			return err
		}
		if d.Version == next.Version && string(doc.Bytes()) == string(next.Desired) {
			return nil
		}
		next.Desired = doc.Bytes()
		if d.Version <= next.Version { // the platform's database was restored: its word counts, not the number
			next.Applied = 0
		}
	case d.Version == next.Version:
		return nil // a repeat
	case d.Base != next.Version:
		return fmt.Errorf("%w: it leads from %d, version %d is kept", errBase, d.Base, next.Version)
	default:
		patch, err := wire.ParsePatch(d.Patch)
		if err != nil {
			return err
		}
		doc, err := wire.ParseDoc(next.Desired)
		if err != nil {
			return err
		}
		doc = doc.Merge(patch)
		if err := doc.Check(); err != nil {
			return err
		}
		next.Desired = doc.Bytes()
	}
	next.Version, next.Failed, next.Error = d.Version, 0, ""
	if err := a.disk.writeJSON("twin.json", next); err != nil {
		return err
	}
	t.kept = next
	return nil
}

// liveTwin applies what is desired and tells what the device is like, until ctx ends.
func (a *agent) liveTwin(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.twin.kick:
		}
		if err := a.applyTwin(ctx); err != nil {
			a.Log.Error("what is desired", "error", err)
		}
		if err := a.tellTwin(ctx); err != nil && ctx.Err() == nil {
			a.Log.Info("the state of the device is not told yet", "error", err)
		}
	}
}

// applyTwin brings the device to the newest version, unless it was tried already.
func (a *agent) applyTwin(ctx context.Context) error {
	t := &a.twin
	t.mu.Lock()
	kept := t.kept
	due := kept.Version > 0 && (!t.applied || kept.Applied != kept.Version && kept.Failed != kept.Version)
	t.mu.Unlock()
	if !due {
		return nil
	}
	doc, err := wire.ParseDoc(kept.Desired)
	if err != nil {
		return err
	}
	like, err := a.apply(ctx, doc)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.applied = true
	if err == nil {
		t.like = like
	}
	if t.kept.Version != kept.Version {
		nudge(t.kick) // another version came meanwhile
		return nil
	}
	next := t.kept
	if next.Failed, next.Error = 0, ""; err != nil {
		next.Failed, next.Error = next.Version, err.Error()
	} else {
		next.Applied = next.Version
	}
	if string(mustJSON(next)) == string(mustJSON(t.kept)) {
		return nil
	}
	if err := a.disk.writeJSON("twin.json", next); err != nil {
		return err
	}
	t.kept = next
	a.secure(wire.SecurityConfig, cmp.Or(next.Error, "what is desired was applied"), map[string]any{"version": kept.Version, "applied": err == nil})
	return nil
}

func mustJSON(f twinFile) []byte {
	b, err := json.Marshal(f)
	if err != nil {
		panic("agent: " + err.Error()) // its only raw member was read as JSON
	}
	return b
}

// apply sets what is the agent's own and hands the whole to the product.
func (a *agent) apply(ctx context.Context, desired wire.Doc) (wire.Doc, error) {
	own, _ := desired["telemetry"].(map[string]any)
	if v, ok := own["interval_s"]; ok {
		d, err := interval(v)
		if err != nil {
			return nil, fmt.Errorf("telemetry.interval_s: %w", err)
		}
		if err := a.setInterval(d); err != nil {
			return nil, err
		}
	}
	if a.Apply == nil {
		return wire.Doc{}, nil
	}
	like, err := a.Apply(ctx, desired)
	if err != nil {
		return nil, err
	}
	// Through JSON, so that whatever the product returns is a document.
	b, err := json.Marshal(like)
	if err != nil {
		return nil, err
	}
	if like == nil {
		b = []byte(`{}`)
	}
	return wire.ParseDoc(b)
}

// interval reads the time between measurements, in seconds.
func interval(v any) (time.Duration, error) {
	n, ok := v.(json.Number)
	f, err := n.Float64()
	if !ok || err != nil {
		return 0, errors.New("not a number")
	}
	if f < 0.01 || f > 86400 {
		return 0, errors.New("it must lie between 0.01 and 86400")
	}
	return time.Duration(f * float64(time.Second)), nil
}

// likeness is what the device is like now.
func (a *agent) likeness() wire.Doc {
	a.mu.Lock()
	every := a.interval.Seconds()
	a.mu.Unlock()
	out := wire.Doc{}
	for k, v := range a.twin.like {
		out[k] = v
	}
	out["agent"] = map[string]any{"version": Version}
	out["telemetry"] = map[string]any{"interval_s": json.Number(fmt.Sprint(every))}
	return out
}

// tellTwin reports in the live session: the whole the first time, then what has changed.
func (a *agent) tellTwin(ctx context.Context) error {
	if a.online.Load() == nil {
		return nil // the next session begins with it
	}
	t := &a.twin
	t.mu.Lock()
	now := a.likeness()
	t.seq++
	r := wire.TwinReport{Boot: a.record().Boot, Seq: t.seq, Applied: t.kept.Applied, Failed: t.kept.Failed, Error: t.kept.Error, Resync: t.lost}
	if t.reported == nil {
		r.Full = now.Bytes()
	} else if patch := wire.Diff(t.reported, now); len(patch) > 0 {
		r.Patch = patch.Bytes()
	}
	t.mu.Unlock()
	if err := a.publish(ctx, topicReported, r); err != nil {
		t.mu.Lock()
		t.reported = nil // whether it has arrived is not known
		t.mu.Unlock()
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reported = now
	if r.Resync {
		t.lost = false
	}
	return nil
}

// meetTwin has a new session begin with the whole state.
func (a *agent) meetTwin() {
	a.twin.mu.Lock()
	a.twin.reported = nil
	a.twin.mu.Unlock()
	nudge(a.twin.kick)
}
