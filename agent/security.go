// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/wire"
)

const (
	sealEvery = 32        // security events, and then a checkpoint
	sealAfter = time.Hour // of at least one security event
)

// chainEnd is the last link of the chain of security events.
type chainEnd struct {
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"`
}

// chain makes security events, each on disk before it counts. Its end is the end of the log itself, and stands in the boot
// record as of the last start, so that a log that was cut or deleted meanwhile shows.
type chain struct {
	mu    sync.Mutex // guards the fields below; before the buffer's
	end   chainEnd
	since int // events since the last checkpoint
}

// openChain finds the end of the chain, and says what is wrong with the log.
func (a *agent) openChain() (wrong string, err error) {
	c, log := &a.chain, a.buffer.security
	known := a.rec.Chain
	if n := len(log.segs); n > 0 {
		for _, g := range log.segs {
			entries, err := log.entries(g)
			if err != nil {
				return "", err
			}
			for _, e := range entries {
				c.end = chainEnd{e.no, wire.Digest(e.body)}
				if c.since++; e.topic == wire.SecurityPrefix+wire.SecurityCheckpoint {
					c.since = 0
				}
				if c.end.Seq == known.Seq && c.end.Hash != known.Hash {
					wrong = fmt.Sprintf("security event %d is not the one that was there at the last start", known.Seq)
				}
			}
			g.read = nil
		}
	}
	switch {
	case c.end.Seq < known.Seq:
		wrong = fmt.Sprintf("the log of security events ends at %d, and ended at %d at the last start", c.end.Seq, known.Seq)
		c.end = known // what is missing stays missing: the platform sees the hole
	case log.hole > 0:
		wrong = fmt.Sprintf("%d security events are missing inside the log", log.hole)
	}
	return wrong, nil
}

// secure tells a security event. That it could not be kept is logged: the device goes on.
func (a *agent) secure(kind, detail string, data map[string]any) {
	if err := a.link(kind, detail, data); err != nil {
		a.Log.Error("a security event could not be kept", "kind", kind, "detail", detail, "error", err)
	}
}

// link appends a security event to the chain, and a checkpoint after each so many.
func (a *agent) link(kind, detail string, data map[string]any) error {
	if err := wire.CheckSecurityKind(kind); err != nil {
		return err
	}
	if kind == wire.SecurityCheckpoint {
		return errors.New("checkpoints are the agent's own")
	}
	e := wire.SecurityEvent{Kind: kind, Detail: detail}
	if len(data) > 0 {
		var err error
		if e.Data, err = json.Marshal(data); err != nil {
			return err
		}
	}
	a.chain.mu.Lock()
	defer a.chain.mu.Unlock()
	if err := a.appendLink(e); err != nil {
		return err
	}
	if a.chain.since >= sealEvery {
		if err := a.checkpoint(); err != nil {
			a.Log.Error("the chain of security events could not be signed", "error", err) // the next event tries again
		}
	}
	return nil
}

// appendLink is for whoever holds the chain.
func (a *agent) appendLink(e wire.SecurityEvent) error {
	c := &a.chain
	e.Seq, e.Prev, e.TS, e.Boot = c.end.Seq+1, c.end.Hash, a.stamp(), a.record().Boot
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if len(body) > wire.MaxSecurityEvent {
		return fmt.Errorf("a security event of %d bytes; at most %d", len(body), wire.MaxSecurityEvent)
	}
	if err := a.buffer.putSecurity(entry{no: e.Seq, topic: wire.SecurityPrefix + e.Kind, body: body, ts: e.TS, boot: e.Boot}); err != nil {
		return err
	}
	c.end = chainEnd{e.Seq, wire.Digest(body)}
	if c.since++; e.Kind == wire.SecurityCheckpoint {
		c.since = 0
	}
	nudge(a.kick)
	return nil
}

// checkpoint signs the chain as it stands, under the key that the device was born with. The caller holds the chain.
func (a *agent) checkpoint() error {
	end := a.chain.end
	signed, err := wire.Sign(rand.Reader, a.idevid.key, wire.SecurityState{Device: a.unit.Device, Seq: end.Seq, Hash: end.Hash, At: a.stamp()})
	if err != nil {
		return err
	}
	return a.appendLink(wire.SecurityEvent{Kind: wire.SecurityCheckpoint, Signed: &signed})
}

// sealing signs what is new in the chain once an hour.
func (a *agent) sealing(ctx context.Context) {
	for a.sleep(ctx, sealAfter) == nil {
		a.chain.mu.Lock()
		if a.chain.since > 0 {
			if err := a.checkpoint(); err != nil {
				a.Log.Error("the chain of security events could not be signed", "error", err)
			}
		}
		a.chain.mu.Unlock()
	}
}

// drift is how far the device's clock may be from the platform's, or move against it, before that is told.
const drift = time.Minute

// clockChecked tells of a device's clock that is wrong, or has been turned, when the platform has said the time. by is
// how far it is behind.
func (a *agent) clockChecked(by time.Duration) {
	a.mu.Lock()
	jump := by - a.behind
	if told := jump.Abs() > drift; told {
		a.behind = by
	}
	a.mu.Unlock()
	if jump.Abs() > drift {
		a.secure(wire.SecurityClock, "the device's clock is not where it was, by the platform's", map[string]any{"behind_s": math.Round(by.Seconds())})
	}
}

// baselineName holds the last report of how the device is set up, but for its time and start.
const baselineName = "buffer/baseline.json"

// baselineChecked tells when the device is set up in another way than at the last report.
func (a *agent) baselineChecked(r wire.BaselineReport) {
	r.At, r.Boot = 0, 0
	b, err := json.Marshal(r)
	var old, now map[string]json.RawMessage
	if err == nil {
		err = json.Unmarshal(b, &now)
	}
	if err == nil && (a.disk.readJSON(baselineName, &old) != nil || old == nil) {
		err = a.disk.write(baselineName, b) // the first, or unreadable
		old = now
	}
	if err != nil {
		a.Log.Error("the last baseline report", "error", err)
		return
	}
	var changed []string
	for _, m := range []map[string]json.RawMessage{old, now} {
		for name := range m {
			if string(old[name]) != string(now[name]) && !slices.Contains(changed, name) {
				changed = append(changed, name)
			}
		}
	}
	if len(changed) == 0 {
		return
	}
	slices.Sort(changed)
	a.secure(wire.SecurityBaseline, "the device is set up in another way than at the last report", map[string]any{"changed": changed})
	if err := a.disk.write(baselineName, b); err != nil {
		a.Log.Error("the last baseline report", "error", err)
	}
}

// keyFailed tells once in a power cycle that a key or certificate could not be used.
func (a *agent) keyFailed(what string, err error) {
	if _, told := a.failed.LoadOrStore(what, true); !told {
		a.secure(wire.SecurityKey, err.Error(), map[string]any{"what": what})
	}
}
