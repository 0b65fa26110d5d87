// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"sync"
)

// ErrOff is returned by an Agent that does not run: before Run, after it, and while the device restarts.
var ErrOff = errors.New("agent: it does not run")

// Agent is the handle that the rest of the firmware holds on the agent. Its methods are safe for concurrent use.
type Agent struct {
	cfg Config

	mu  sync.RWMutex // guards the field below, and its buffer against the end of the power cycle
	now *agent       // nil while none runs
}

// New makes the handle of an agent that is yet to be run.
func New(c Config) *Agent { return &Agent{cfg: c} }

// Run is one power cycle, as the function Run.
func (x *Agent) Run(ctx context.Context) error { return run(ctx, x.cfg, disk{dir: x.cfg.Dir}, x.set) }

// Supervise runs the agent again after each restart, as the function Supervise.
func (x *Agent) Supervise(ctx context.Context) error { return supervise(ctx, x.Run) }

func (x *Agent) set(a *agent) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.now = a
}

// Measure hands in values of one moment, which is now, for the stream tele/<stream>. They are counted, kept while the
// platform is out of reach (see Buffer), and sent in their order. It does not wait for the platform.
func (x *Agent) Measure(stream string, values map[string]float64) error {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.now == nil {
		return ErrOff
	}
	return x.now.keep(stream, values)
}

// Security hands in a security event: somebody logged in, the case was opened. kind is one of wire.Security… or the maker's
// own; detail is for people, data, which may be nil, for programs. When it returns nil the event is on disk and a link of the
// device's chain, whatever happens next.
func (x *Agent) Security(kind, detail string, data map[string]any) error {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.now == nil {
		return ErrOff
	}
	return x.now.link(kind, detail, data)
}
