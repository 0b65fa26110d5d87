// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

const (
	twinTellers = 16               // devices told at the same time
	twinTime    = 30 * time.Second // for a device to acknowledge what is desired
	twinLook    = time.Second      // how often what other nodes have set is looked for
	twinOverlap = 10 * time.Second // a transaction may become visible that much later than others of its time
	twinBatch   = 2000
)

// told remembers which version each device acknowledged in its present session, so that it is not told twice. A device
// that goes by the newest version, or has gone, is forgotten.
type told struct {
	mu      sync.Mutex // guards the fields below
	version map[string]int64
	telling map[string]bool // devices that are being told and were not forgotten meanwhile
	again   map[string]bool // devices that could not be told; the next look tries once more
}

func newTold() *told {
	return &told{version: map[string]int64{}, telling: map[string]bool{}, again: map[string]bool{}}
}

func (t *told) failed(device string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.again[device] = true
}

// takeFailed returns whom to tell again, once.
func (t *told) takeFailed() map[string]bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := t.again
	t.again = map[string]bool{}
	return out
}

func (t *told) has(device string, version int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.version[device] == version
}

// begin is called by a device's one teller before it reads what the device goes by.
func (t *told) begin(device string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.telling[device] = true
}

// end records what a device acknowledged (0: nothing), unless it said or did something since begin that makes it untrue:
// a device may answer that it lost everything, or be back in another session, before its teller has seen the acknowledgement.
func (t *told) end(device string, version int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.telling[device] && version != 0 {
		t.version[device] = version
	}
	delete(t.telling, device)
}

func (t *told) lost(device string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.version, device)
	delete(t.telling, device)
}

// TwinReady is called when a device has subscribed: it hears what is desired of it if it does not go by that yet. It does
// not block.
func (s *Service) TwinReady(device string) {
	s.told.lost(device)
	s.turns.Add(device)
}

// WorkTwins tells devices what is desired of them until ctx ends.
func (s *Service) WorkTwins(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { s.followTwins(ctx) })
	s.turns.Serve(ctx, twinTellers, func(device string) {
		if err := s.tell(ctx, device); err != nil && ctx.Err() == nil {
			s.cfg.Log.WarnContext(ctx, "what is desired of a device waits", slog.String("device", device), slog.Any("error", err))
			s.told.failed(device)
		}
	})
	wg.Wait()
	return nil
}

// followTwins looks for what was desired on other nodes of devices that are connected here, and for what could not be
// delivered a moment ago.
func (s *Service) followTwins(ctx context.Context) {
	since := s.cfg.Clock.Now().Add(-twinOverlap)
	for {
		t := s.cfg.Clock.NewTimer(twinLook)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		for device := range s.told.takeFailed() {
			s.turns.Add(device)
		}
		next, err := s.lookForTwins(ctx, since)
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.ErrorContext(ctx, "what is desired of devices cannot be read", slog.Any("error", err))
			continue // from the same moment, when the database is back
		}
		since = next
	}
}

func (s *Service) lookForTwins(ctx context.Context, since time.Time) (next time.Time, err error) {
	next = s.cfg.Clock.Now().Add(-twinOverlap)
	found, err := behindSince(ctx, s.cfg.DB, store.Millis(since), twinBatch)
	if err != nil {
		return since, err
	}
	for _, b := range found {
		if s.cfg.Live(b.device) && !s.told.has(b.device, b.version) {
			s.turns.Add(b.device)
		}
	}
	if len(found) == twinBatch {
		if last := store.Time(found[twinBatch-1].asked); last.After(since) && last.Before(next) {
			next = last
		}
	}
	return next, nil
}

// tell sends a device what it does not go by yet.
func (s *Service) tell(ctx context.Context, device string) error {
	if !s.cfg.Live(device) {
		s.told.lost(device)
		return nil // TwinReady comes when it is back
	}
	b, is, err := behindOne(ctx, s.cfg.DB, device)
	if err != nil || !is || s.told.has(device, b.version) {
		return err
	}
	var heard int64
	s.told.begin(device)
	defer func() { s.told.end(device, heard) }()
	t, err := s.openTwin(ctx, b.tenant, device)
	if err != nil || t.behindSince == 0 {
		return err
	}
	base, err := s.versionDoc(ctx, t)
	if err != nil {
		return err
	}
	payload, err := json.Marshal(t.delta(t.applied, base))
	if err != nil {
		return err
	}
	sctx, cancel := context.WithTimeout(ctx, twinTime)
	defer cancel()
	err = s.cfg.Send(sctx, gateway.Downlink{Device: device, Topic: topicDesired, Payload: payload, Type: "application/json"})
	switch {
	case errors.Is(err, gateway.ErrOffline), errors.Is(err, gateway.ErrNotSubscribed):
		return nil
	case err != nil:
		return err
	}
	heard = t.version
	return nil
}

// versionDoc is the document of the version that the device goes by, or nil when that is not kept any more.
func (s *Service) versionDoc(ctx context.Context, t twin) (wire.Doc, error) {
	if t.applied == 0 {
		return nil, nil
	}
	vs, err := s.openVersions(ctx, t.tenant, t.device, t.applied+1, 1)
	if err != nil || len(vs) == 0 || vs[0].version != t.applied {
		return nil, err
	}
	return vs[0].doc, nil
}
