// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"bytes"
	"context"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

// eventPrefix of the topics that carry events.
const eventPrefix = "event/"

const (
	maxEvent  = 8 << 10 // bytes of one event; a longer one is refused
	maxSameMs = 64      // events of one device and millisecond that a repeat is compared with; beyond, it is kept twice
)

// Event is something that happened on a device, the security events of its firmware among them.
type Event struct {
	ID       string         `json:"id"`
	Type     string         `json:"type" doc:"The last part of the topic event/{type}"`
	At       time.Time      `json:"at" doc:"When it happened by the device's clock; when it was received if that clock cannot be right"`
	Received time.Time      `json:"received"`
	Detail   string         `json:"detail,omitempty" doc:"In the device's words"`
	Data     map[string]any `json:"data,omitempty"`
}

// happening is an event on its way from the inbox to its row.
type happening struct {
	id       string // by its place in the inbox: ids sort in the order of receipt
	kind     string // the type
	at       int64  // ms
	received int64
	timed    bool // at is the device's own, so that a repeat can be recognised
	body     []byte
}

// parseEvent reads a record of event/<type>. The body stays as the device wrote it, but for white space.
func parseEvent(r gateway.Record) (happening, error) {
	kind := strings.TrimPrefix(r.Topic, eventPrefix)
	if !validName(kind) {
		return happening{}, problem.Invalid("event type %q is not 1 to %d of A-Z a-z 0-9 . _ -", cut(kind), maxName)
	}
	if len(r.Body) > maxEvent {
		return happening{}, problem.Invalid("an event of more than %d bytes", maxEvent)
	}
	var e *wire.Event
	if err := json.Unmarshal(r.Body, &e); err != nil || e == nil {
		return happening{}, problem.Invalid("the event is not a JSON object with ts, detail and data").Because(err)
	}
	var body bytes.Buffer
	if err := json.Compact(&body, r.Body); err != nil {
		return happening{}, err
	}
	at := believable(e.TS, r.At)
	return happening{kind: kind, at: at, received: r.At, timed: at == e.TS, body: body.Bytes()}, nil
}

func (h happening) same(o happening) bool {
	return h.kind == o.kind && h.at == o.at && bytes.Equal(h.body, o.body)
}

// note puts an event to its device, or counts it as refused.
func (b *batch) note(id string, r gateway.Record) {
	h, err := parseEvent(r)
	if err != nil {
		b.refuse(r.Tenant, r.Device, r.At, problem.Of(err).Text)
		return
	}
	h.id = id
	k := [2]string{r.Tenant, r.Device}
	b.happened[k] = append(b.happened[k], h)
	b.noted++
}

// packEvents drops repeats and seals what is new. A repeat is an event with the device's own time that says exactly what
// an earlier one of that time said; an event without such a time is kept as often as it was received.
//
// Repeats are found by opening the rows of that time: a digest to compare would let whoever holds a backup check guesses
// of what an erased device said.
func (s *Service) packEvents(ctx context.Context, b *batch) error {
	for k, events := range b.happened {
		key, err := s.writeKey(ctx, k[0], k[1])
		if errors.Is(err, seal.ErrDestroyed) {
			s.cfg.Log.WarnContext(ctx, "events of an erased device were dropped", slog.String("device", k[1]), slog.Int("events", len(events)))
			continue
		}
		if err != nil {
			return err
		}
		known := map[int64][]happening{} // by time
		for _, h := range events {
			if h.timed {
				if _, asked := known[h.at]; !asked {
					if known[h.at], err = s.eventsAt(ctx, key, k[0], k[1], h.at); err != nil {
						return err
					}
				}
				if slices.ContainsFunc(known[h.at], h.same) {
					continue
				}
				known[h.at] = append(known[h.at], h)
			}
			row := eventRow{tenant: k[0], device: k[1], id: h.id, at: h.at, received: h.received, kind: h.kind}
			row.body = key.Seal(nil, nil, h.body, row.bind())
			b.events = append(b.events, row)
		}
	}
	return nil
}

// eventsAt returns the events that a device is known to have had at a time (ms).
func (s *Service) eventsAt(ctx context.Context, key cipher.AEAD, tenant, device string, at int64) ([]happening, error) {
	rows, err := readEventsAt(ctx, s.cfg.DB, tenant, device, at)
	if err != nil {
		return nil, err
	}
	var out []happening
	for _, row := range rows {
		body, err := key.Open(nil, nil, row.body, row.bind())
		if err != nil { // one device's damage must not stop the others
			s.cfg.Log.ErrorContext(ctx, "event is damaged", slog.String("device", device), slog.String("event", row.id), slog.Any("error", err))
			continue
		}
		out = append(out, happening{kind: row.kind, at: row.at, body: body})
	}
	return out, nil
}

// Events returns at most n events of a device, the one received last first, starting after the one with the id given
// ("": at the newest). A device whose data was erased has none: kind not-found.
func (s *Service) Events(ctx context.Context, tenant, device, after string, n int) ([]Event, error) {
	key, err := s.readKey(ctx, tenant, device)
	if err != nil {
		return nil, err
	}
	rows, err := listEvents(ctx, s.cfg.DB, tenant, device, after, n)
	if err != nil {
		return nil, fmt.Errorf("telemetry: events: %w", err)
	}
	out := make([]Event, 0, len(rows))
	for _, row := range rows {
		body, err := key.Open(nil, nil, row.body, row.bind())
		if err != nil {
			return nil, fmt.Errorf("telemetry: event %s of %s: %w", row.id, row.device, err)
		}
		var e wire.Event
		if err := json.Unmarshal(body, &e); err != nil {
			return nil, fmt.Errorf("telemetry: event %s of %s: %w", row.id, row.device, err)
		}
		out = append(out, Event{ID: row.id, Type: row.kind, At: store.Time(row.at), Received: store.Time(row.received), Detail: e.Detail, Data: e.Data})
	}
	return out, nil
}
