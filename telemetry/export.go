// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// Formats of an export.
const (
	formatCSV   = "csv"
	formatLines = "jsonl" // JSON Lines: one object a line
)

// Measurement is one line of an export: what was measured where and when.
type Measurement struct {
	Device string    `json:"device"`
	Serial string    `json:"serial"`
	Time   time.Time `json:"time"`
	Stream string    `json:"stream"`
	Field  string    `json:"field"`
	Value  float64   `json:"value"`
	Unit   string    `json:"unit,omitempty" doc:"As the product's catalogue declares it"`
}

// Export asks for the measurements of devices in [From, To).
type Export struct {
	Device   string // only this one
	Filter   string // of the fleet; "": every device that whoever asks may read
	Fields   []string
	From, To time.Time
	Format   string
}

func (e Export) check() error {
	switch {
	case e.Format != formatCSV && e.Format != formatLines:
		return problem.Invalid("format is csv or jsonl").At("query.format")
	case !e.From.Before(e.To):
		return problem.Invalid("from must be before to").At("query.from")
	}
	return nil
}

const (
	exportPage   = 200       // devices looked up together
	exportPoints = 200_000   // points held in memory, about
	exportLeast  = time.Hour // a stretch is not cut below this
	exportFlush  = 64 << 10  // bytes kept back before the line takes them
)

// lines writes measurements in one of the formats.
type lines struct {
	to   *bufio.Writer
	csv  *csv.Writer // nil: JSON Lines
	json *json.Encoder
}

func newLines(w io.Writer, format string) (*lines, error) {
	l := &lines{to: bufio.NewWriterSize(w, exportFlush)}
	if format == formatLines {
		l.json = json.NewEncoder(l.to)
		l.json.SetEscapeHTML(false)
		return l, nil
	}
	l.csv = csv.NewWriter(l.to)
	return l, l.csv.Write([]string{"device", "serial", "time", "stream", "field", "value", "unit"})
}

// timeText is RFC 3339 with milliseconds, which sorts as it reads.
const timeText = "2006-01-02T15:04:05.000Z07:00"

func (l *lines) write(m Measurement) error {
	if l.json != nil {
		return l.json.Encode(m)
	}
	return l.csv.Write([]string{m.Device, m.Serial, m.Time.UTC().Format(timeText), m.Stream, m.Field, strconv.FormatFloat(m.Value, 'g', -1, 64), m.Unit})
}

func (l *lines) flush() error {
	if l.csv != nil {
		l.csv.Flush()
		if err := l.csv.Error(); err != nil {
			return err
		}
	}
	return l.to.Flush()
}

// export writes what e asks for, device by device and from early to late, within the reach of whoever asks.
func (s *Service) export(ctx context.Context, e Export, w io.Writer) error {
	out, err := newLines(w, e.Format)
	if err != nil {
		return err
	}
	for after := ""; ; {
		devices, err := s.exported(ctx, e, after)
		if err != nil {
			return err
		}
		for _, d := range devices {
			after = d.ID
			if !tenant.Can(actor(ctx), tenant.TelemetryRead, tenant.Thing{Tenant: d.Tenant, Product: d.Product, Solution: d.Solution}) {
				continue
			}
			if err := s.exportDevice(ctx, d, e, out); err != nil {
				return err
			}
		}
		if len(devices) < exportPage {
			return out.flush()
		}
	}
}

// exported returns the next devices of an export.
func (s *Service) exported(ctx context.Context, e Export, after string) ([]identity.Device, error) {
	if e.Device != "" {
		return s.readable(ctx, identity.Filter{IDs: []string{e.Device}, After: after, Limit: exportPage})
	}
	return s.selected(ctx, e.Filter, after, exportPage)
}

func actor(ctx context.Context) tenant.Actor {
	a, _ := tenant.ActorFrom(ctx)
	return a
}

// selected returns devices within the reach of whoever asks, all of them without a filter.
func (s *Service) selected(ctx context.Context, filter, after string, limit int) ([]identity.Device, error) {
	if filter != "" {
		if s.cfg.Select == nil {
			return nil, problem.Unavailable("This platform has no fleet to choose from.")
		}
		return s.cfg.Select(ctx, tenant.MustTenant(ctx), filter, after, limit)
	}
	return s.readable(ctx, identity.Filter{After: after, Limit: limit})
}

// readable returns devices whose telemetry whoever asks may read; it needs no other right, as a third party has none.
func (s *Service) readable(ctx context.Context, f identity.Filter) ([]identity.Device, error) {
	who := actor(ctx)
	whole, products, solutions := tenant.Scope(who, tenant.TelemetryRead)
	if !whole {
		if len(products)+len(solutions) == 0 {
			return nil, nil
		}
		f.Products, f.Solutions = products, solutions
	}
	return s.cfg.Identity.List(ctx, who.Tenant, f)
}

// exportDevice writes what one device measured. One that was erased has nothing.
func (s *Service) exportDevice(ctx context.Context, d identity.Device, e Export, out *lines) error {
	units, err := s.unitsOf(ctx, d)
	if err != nil {
		return err
	}
	for from := later(e.From, store.Time(tsFloor)); from.Before(e.To); {
		end, err := s.stretch(ctx, d, from, e.To)
		if err != nil {
			return err
		}
		err = s.Samples(ctx, d.Tenant, d.ID, Query{Fields: e.Fields, From: from, To: end}, func(stream, field string, at time.Time, v float64) error {
			return out.write(Measurement{d.ID, d.Serial, at, stream, field, v, units[[2]string{stream, field}]})
		})
		if problem.Is(err, problem.KindNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		from = end
	}
	return out.flush()
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// stretch returns the end of the next stretch of [from, to) that holds few enough points for memory.
func (s *Service) stretch(ctx context.Context, d identity.Device, from, to time.Time) (time.Time, error) {
	for to.Sub(from) > exportLeast {
		var n int64
		err := s.cfg.DB.QueryRow(ctx, `SELECT coalesce(sum(n), 0) FROM telemetry_chunk WHERE tenant = $1 AND device = $2 AND t0 < $4 AND t1 >= $3`,
			d.Tenant, d.ID, store.Millis(from), store.Millis(to)).Scan(&n)
		if err != nil || n <= exportPoints {
			return to, err
		}
		to = from.Add(to.Sub(from) / 2).Truncate(time.Millisecond)
	}
	return to, nil
}

// unitsOf returns the units that the device's product declares, by stream and field.
func (s *Service) unitsOf(ctx context.Context, d identity.Device) (map[[2]string]string, error) {
	r, err := s.productRules(ctx, d.Tenant, d.Product)
	if err != nil {
		return nil, err
	}
	out := map[[2]string]string{}
	for stream, fields := range r.streams {
		for name, f := range fields {
			out[[2]string{stream, name}] = f.unit
		}
	}
	return out, nil
}

// serveExport answers a request for an export as a download.
func (s *Service) serveExport(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	e := Export{Filter: q.Get("filter"), Format: q.Get("format"), Fields: q["fields"], To: s.cfg.Clock.Now().Add(time.Millisecond)}
	if e.Format == "" {
		e.Format = formatCSV
	}
	for name, into := range map[string]*time.Time{"from": &e.From, "to": &e.To} {
		if err := queryTime(q.Get(name), "query."+name, into); err != nil {
			return err
		}
	}
	if id := q.Get("device"); id != "" {
		d, err := s.cfg.Identity.Visible(r.Context(), tenant.TelemetryRead, id)
		if err != nil {
			return err
		}
		if e.Filter != "" {
			return problem.Invalid("Name a device or a filter, not both.").At("query.filter")
		}
		e.Device = d.ID
	}
	if err := e.check(); err != nil {
		return err
	}
	if _, err := s.exported(r.Context(), e, ""); err != nil { // before the first byte, so that it can be said
		return err
	}
	h := w.Header()
	h.Set("Content-Type", map[string]string{formatCSV: "text/csv; charset=utf-8; header=present", formatLines: "application/jsonl"}[e.Format])
	h.Set("Content-Disposition", `attachment; filename="telemetry.`+e.Format+`"`)
	return s.export(r.Context(), e, api.Stream(w))
}

// queryTime reads a time of a query: RFC 3339 or a day. Empty leaves what is there.
func queryTime(text, at string, into *time.Time) error {
	if text == "" {
		return nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			*into = t.UTC()
			return nil
		}
	}
	return problem.Invalid("%q is no time such as 2026-11-21T09:00:00Z, and no day", cut(text)).At(at)
}
