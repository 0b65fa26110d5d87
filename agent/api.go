// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"sync"

	"github.com/openthings-platform/openthings/wire"
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

// Notices lists what the maker tells the people who use the device, in the first of the languages that a notice has (see
// wire.Notice.In): the gravest first, then the newest. What has ended is not among them.
func (x *Agent) Notices(langs ...string) ([]Notice, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.now == nil {
		return nil, ErrOff
	}
	return x.now.noticesNow(langs), nil
}

// NoticeShown says that the notice stood before somebody's eyes. It is kept across power cuts and told to the platform once;
// said again it changes nothing. ErrNotice says that the device keeps no such notice.
func (x *Agent) NoticeShown(id string) error { return x.markNotice(id, wire.NoticeShown) }

// NoticeAcknowledged says that somebody at the device confirmed that they have read the notice, as NoticeShown does. Who has
// acknowledged a notice has seen it.
func (x *Agent) NoticeAcknowledged(id string) error {
	return x.markNotice(id, wire.NoticeAcknowledged)
}

func (x *Agent) markNotice(id, state string) error {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.now == nil {
		return ErrOff
	}
	return x.now.markNotice(id, state)
}

// Support is until when the maker supports this very device, as the platform said last. ErrSupport says that it never did.
func (x *Agent) Support() (wire.Support, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.now == nil {
		return wire.Support{}, ErrOff
	}
	return x.now.supportNow()
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
