// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"cmp"
	"context"
	"crypto/cipher"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/store"
)

// Latest is what a device said last.
type Latest struct {
	Streams []LatestStream `json:"streams"`
	// Missing counts messages of the device's newest boot that never arrived, or not yet.
	Missing uint64 `json:"missing" doc:"Messages since the last start that did not arrive, by the device's own count"`
	// Refused counts payloads that were received and dropped because they could not be read.
	Refused   int64      `json:"refused" doc:"Payloads dropped because they could not be read"`
	RefusedAt *time.Time `json:"refused_at,omitempty"`
	Reason    string     `json:"refused_reason,omitempty" doc:"Why the last one was dropped"`
	Holes     []Hole     `json:"holes,omitempty" doc:"Runs of messages that did not arrive, the latest first, at most 20"`
	Dropped   []Dropped  `json:"dropped,omitempty" doc:"Values that the product's catalogue refused, by field and rule"`
}

// LatestStream is the last message of one stream.
type LatestStream struct {
	Stream string             `json:"stream"`
	Time   time.Time          `json:"time"`
	Boot   uint64             `json:"boot,omitempty"`
	Seq    uint64             `json:"seq,omitempty"`
	Values map[string]float64 `json:"values" doc:"Each value as it was said last"`
}

// Latest returns the last values of each stream, and how much of what the device sent was lost or could not be read.
func (s *Service) Latest(ctx context.Context, tenant, device string) (Latest, error) {
	snap, err := s.read(ctx, tenant, device, "", 0, 0)
	if err != nil {
		return Latest{}, err
	}
	key, err := s.readKey(ctx, tenant, device)
	if err != nil {
		return Latest{}, err
	}
	out := Latest{Streams: []LatestStream{}, Refused: snap.refused.n, Reason: snap.refused.reason}
	if snap.refused.n > 0 {
		at := store.Time(snap.refused.at)
		out.RefusedAt = &at
	}
	states := map[string]*lastState{}
	for _, l := range snap.latest {
		if states[l.stream], err = openLatest(key, l); err != nil {
			return Latest{}, err
		}
	}
	fresh, sets, err := snap.fresh()
	if err != nil {
		return Latest{}, err
	}
	if fresh, err = s.admitted(ctx, tenant, device, fresh); err != nil {
		return Latest{}, err
	}
	for stream, points := range byStream(fresh) {
		if states[stream] == nil {
			states[stream] = &lastState{}
		}
		states[stream].add(points, tableOf(points))
	}
	for stream, l := range states {
		if len(l.values) == 0 {
			continue // nothing that it said is kept
		}
		v := LatestStream{Stream: stream, Time: time.UnixMilli(l.t).UTC(), Boot: l.boot, Seq: l.seq, Values: map[string]float64{}}
		for name, x := range l.values {
			v.Values[name] = x.V
		}
		out.Streams = append(out.Streams, v)
	}
	slices.SortFunc(out.Streams, func(a, b LatestStream) int { return strings.Compare(a.Stream, b.Stream) })
	var all []seen
	for _, set := range sets {
		all = append(all, set)
	}
	out.Missing = missing(all)
	holes, _ := holesIn(all)
	out.Holes = holes[:min(len(holes), holesShown)]
	out.Dropped, err = s.droppedOf(ctx, key, tenant, device)
	return out, err
}

// lastState is a stream's latest row in the clear: each value carries its own time, since messages may name different
// values and may be late.
type lastState struct {
	t         int64
	boot, seq uint64
	values    map[string]lastValue
}

type lastValue struct {
	T int64   `json:"t"`
	V float64 `json:"v"`
}

// add takes what is newer; t is the points, sorted by time, as a table. Of two at the same time the greater stays, so that the
// order of arrival never shows.
func (l *lastState) add(points []point, t table) {
	if l.values == nil {
		l.values = map[string]lastValue{}
	}
	for _, p := range points {
		if p.t > l.t || p.t == l.t && cmp.Or(cmp.Compare(p.boot, l.boot), cmp.Compare(p.seq, l.seq)) > 0 {
			l.t, l.boot, l.seq = p.t, p.boot, p.seq
		}
	}
	for j, name := range t.names {
		old, ok := l.values[name]
		if !ok && len(l.values) >= chunkColumns {
			continue // a device that invents names without end keeps its first ones
		}
		if newest := t.newest(j); !ok || newest.t > old.T || newest.t == old.T && newest.v > old.V {
			l.values[name] = lastValue{newest.t, newest.v}
		}
	}
}

func openLatest(key cipher.AEAD, l latestRow) (*lastState, error) {
	body, err := key.Open(nil, nil, l.body, l.bind("latest", ""))
	if err != nil {
		return nil, fmt.Errorf("telemetry: latest of %s: %w", l.device, err)
	}
	s := &lastState{t: l.t, boot: l.boot, seq: l.seq}
	if err := json.Unmarshal(body, &s.values); err != nil {
		return nil, fmt.Errorf("telemetry: latest of %s: %w", l.device, err)
	}
	return s, nil
}

func sealLatest(key cipher.AEAD, l *latestRow, s *lastState) {
	body, err := json.Marshal(s.values)
	if err != nil {
		panic(err) // finite numbers under plain names: cannot fail
	}
	l.t, l.boot, l.seq = s.t, s.boot, s.seq
	l.body = key.Seal(nil, nil, body, l.bind("latest", ""))
}
