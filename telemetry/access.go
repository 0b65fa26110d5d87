// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
)

// Description says what data a device makes and what becomes of it, so that who reads the data understands them
// (Regulation (EU) 2023/2854, articles 3(2), 3(3) and 4(1): data together with the metadata needed to use them).
type Description struct {
	Device    string          `json:"device"`
	Serial    string          `json:"serial"`
	Product   string          `json:"product"`
	Catalogue int64           `json:"catalogue_version" doc:"0: the manufacturer has not declared what the device sends"`
	Fields    []DescribedData `json:"fields"`
	From      time.Time       `json:"from,omitzero" doc:"Oldest measurement kept"`
	To        time.Time       `json:"to,omitzero" doc:"Newest measurement kept"`
	Values    int64           `json:"messages" doc:"Measurement messages kept, about"`
	Formats   []string        `json:"formats"`
	Read      []string        `json:"read" doc:"Where to read them"`
}

// DescribedData is one value that a device makes.
type DescribedData struct {
	Field
	Declared bool       `json:"declared" doc:"The product's catalogue names it"`
	Latest   *float64   `json:"latest,omitempty"`
	At       *time.Time `json:"at,omitempty"`
	Days     int        `json:"kept_days" doc:"Days after which it is deleted"`
}

// describe tells whoever may read a device's data what they are.
func (s *Service) describe(ctx context.Context, d identity.Device) (Description, error) {
	out := Description{Device: d.ID, Serial: d.Serial, Product: d.Product, Fields: []DescribedData{}, Formats: []string{formatCSV, formatLines},
		Read: []string{"/v1/devices/" + d.ID + "/data", "/v1/telemetry/export?device=" + d.ID, "/v1/devices/" + d.ID + "/telemetry", "/v1/devices/" + d.ID + "/events"}}
	v, err := s.Catalogue(ctx, d.Tenant, d.Product)
	if err != nil {
		return out, err
	}
	days, err := s.Retention(ctx, d.Tenant)
	if err != nil {
		return out, err
	}
	out.Catalogue = v.Version
	for _, f := range v.Fields {
		x := DescribedData{Field: f, Declared: true, Days: days}
		if f.Retention > 0 {
			x.Days = f.Retention
		}
		out.Fields = append(out.Fields, x)
	}
	latest, err := s.Latest(ctx, d.Tenant, d.ID)
	if problem.Is(err, problem.KindNotFound) {
		return out, nil // erased: what it would send, and nothing that it sent
	}
	if err != nil {
		return out, err
	}
	for _, l := range latest.Streams {
		for name, value := range l.Values {
			i := slices.IndexFunc(out.Fields, func(f DescribedData) bool { return f.Stream == l.Stream && f.Name == name })
			if i < 0 {
				i = len(out.Fields)
				out.Fields = append(out.Fields, DescribedData{Field: Field{Stream: l.Stream, Name: name, Type: Number}, Days: days})
			}
			out.Fields[i].Latest, out.Fields[i].At = &value, &l.Time
		}
	}
	slices.SortFunc(out.Fields, func(a, b DescribedData) int { return strings.Compare(a.key(), b.key()) })
	var from, to int64
	err = s.cfg.DB.QueryRow(ctx, `SELECT coalesce(min(t0), 0), coalesce(max(t1), 0), coalesce(sum(n), 0) FROM telemetry_chunk WHERE tenant = $1 AND device = $2`,
		d.Tenant, d.ID).Scan(&from, &to, &out.Values)
	if from > 0 {
		out.From, out.To = store.Time(from), store.Time(to)
	}
	return out, err
}

// Feed is what a device measured since a place in the order of storing, so that late measurements are in it too.
type Feed struct {
	Items []Measurement `json:"items"`
	Next  string        `json:"next_cursor" doc:"Give it as cursor to read on, also when nothing new has come yet"`
	More  bool          `json:"more" doc:"There is more already; otherwise ask again later"`
}

// A page of a feed ends with the chunk that reaches feedPoints.
const (
	feedPoints = 5_000
	feedChunks = 64
)

// feed reads a device's measurements in the order in which they were stored, after the place given ("": from the first).
// Every measurement comes at least once, as long as the clocks of the nodes agree to the time that a takeover takes;
// merging small chunks may bring some again, and (stream, field, time, value) tells them.
func (s *Service) feed(ctx context.Context, d identity.Device, after string) (Feed, error) {
	out := Feed{Items: []Measurement{}, Next: after}
	key, err := s.subject(ctx, d.Tenant, d.ID)
	if errors.Is(err, seal.ErrDestroyed) {
		return out, problem.NotFound("The data of this device was erased.").Because(err)
	}
	if err != nil {
		return out, err
	}
	units, err := s.unitsOf(ctx, d)
	if err != nil {
		return out, err
	}
	chunks, err := s.storedAfter(ctx, d.Tenant, d.ID, after, feedChunks+1)
	if err != nil {
		return out, err
	}
	for i, c := range chunks {
		if i == feedChunks || len(out.Items) >= feedPoints {
			out.More = true
			break
		}
		points, err := s.openChunk(key, c)
		if err != nil {
			return out, err
		}
		for _, p := range points {
			for _, v := range p.values {
				out.Items = append(out.Items, Measurement{d.ID, d.Serial, time.UnixMilli(p.t).UTC(), c.stream, v.name, v.v, units[[2]string{c.stream, v.name}]})
			}
		}
		out.Next = c.id
	}
	return out, nil
}

// storedAfter returns the device's chunks whose ids follow the one given, in the order of storing.
func (s *Service) storedAfter(ctx context.Context, tenant, device, after string, limit int) ([]chunkRow, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT tenant, device, stream, t0, t1, id, n, body FROM telemetry_chunk
		WHERE tenant = $1 AND device = $2 AND id > $3 ORDER BY id LIMIT $4`, tenant, device, after, limit)
	chunks, err := store.Collect(rows, err, func(r *sql.Rows) (chunkRow, error) { return scanChunk(r) })
	if err != nil {
		return nil, fmt.Errorf("telemetry: feed: %w", err)
	}
	return chunks, nil
}
