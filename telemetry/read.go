// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"crypto/cipher"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
)

// snapshot is everything known of one device at one moment.
type snapshot struct {
	chunks  []chunkRow
	latest  []latestRow
	refused refusal
	inbox   []streamPoint // parsed, in order of arrival; repeats included
}

type streamPoint struct {
	stream string
	point
}

// read takes chunks (of the time given, and the stream unless it is "") and inbox from one snapshot, since the compactor moves
// points from one to the other.
func (s *Service) read(ctx context.Context, tenant, device, stream string, from, to int64) (snapshot, error) {
	var snap snapshot
	var rows []inboxRow
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		if rows, err = viewInbox(tx); err != nil {
			return err
		}
		if snap.latest, err = viewLatest(tx, tenant, device); err != nil {
			return err
		}
		if snap.refused, err = viewRefused(tx, tenant, device); err != nil {
			return err
		}
		if from < to {
			snap.chunks, err = viewChunks(tx, tenant, device, stream, from, to)
		}
		return err
	})
	if err != nil {
		return snap, fmt.Errorf("telemetry: read: %w", err)
	}
	for _, row := range rows {
		records, damaged, err := s.open(ctx, row)
		if damaged {
			continue // the compactor reports it
		}
		if err != nil {
			return snap, err
		}
		for _, r := range records {
			if r.Tenant != tenant || r.Device != device || !strings.HasPrefix(r.Topic, prefix) {
				continue
			}
			points, err := s.understand(ctx, r)
			if err != nil && !problem.Is(err, problem.KindInvalid) {
				return snap, err
			}
			snap.inbox = append(snap.inbox, points...)
		}
	}
	return snap, nil
}

// understand is how compactor and readers alike see a measurement: the points that a record holds, those of one stream
// one after the other, or a refusal (kind invalid) that is counted against the device. Another error stops the compactor.
func (s *Service) understand(_ context.Context, r gateway.Record) ([]streamPoint, error) {
	stream, err := streamOf(r.Topic)
	if err != nil {
		return nil, err
	}
	points, err := measurements(r)
	if err != nil {
		return nil, err
	}
	out := make([]streamPoint, len(points))
	for i, p := range points {
		out[i] = streamPoint{stream, p}
	}
	return out, nil
}

// fresh leaves out of the inbox what arrived before, and returns what has arrived in all, by stream.
func (snap snapshot) fresh() ([]streamPoint, map[string]seen, error) {
	sets, err := seenOf(snap.latest)
	if err != nil {
		return nil, nil, err
	}
	var out []streamPoint
	kept := false
	for _, p := range snap.inbox {
		set := sets[p.stream]
		if kept = set.takes(p.point, kept); kept {
			out = append(out, p)
		}
		sets[p.stream] = set
	}
	return out, sets, nil
}

// byStream sorts points into streams, by time.
func byStream(points []streamPoint) map[string][]point {
	out := map[string][]point{}
	for _, p := range points {
		out[p.stream] = append(out[p.stream], p.point)
	}
	for _, points := range out {
		slices.SortStableFunc(points, byTime)
	}
	return out
}

// readKey returns the device's key, nil when it has not said anything yet, or a not-found problem when it was erased.
func (s *Service) readKey(ctx context.Context, tenant, device string) (cipher.AEAD, error) {
	key, err := s.subject(ctx, tenant, device)
	if errors.Is(err, seal.ErrDestroyed) {
		return nil, problem.NotFound("The data of this device was erased.").Because(err)
	}
	return key, err
}

func (s *Service) openChunk(key cipher.AEAD, c chunkRow) ([]point, error) {
	t, err := s.openTable(key, c, nil)
	return t.points(), err
}

// openTable opens the columns of a chunk that are wanted; nil: all.
func (s *Service) openTable(key cipher.AEAD, c chunkRow, want func(name string) bool) (table, error) {
	body, err := key.Open(nil, nil, c.body, c.bind("chunk", c.id))
	if err != nil {
		return table{}, fmt.Errorf("telemetry: chunk %s of %s: %w", c.id, c.device, err)
	}
	t, err := s.codec.decodeTable(body, want)
	if err != nil {
		return table{}, fmt.Errorf("telemetry: chunk %s of %s: %w", c.id, c.device, err)
	}
	return t, nil
}

func seenOf(latest []latestRow) (map[string]seen, error) {
	sets := map[string]seen{}
	for _, l := range latest {
		set, err := decodeSeen(l.seen)
		if err != nil {
			return nil, err
		}
		sets[l.stream] = set
	}
	return sets, nil
}
