// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/store"
)

// Span is a stretch of time in which a release is asked about: [From, To), in ms since 1970 UTC. To may be Forever.
type Span struct {
	Release string `json:"r"`
	From    int64  `json:"f"`
	To      int64  `json:"t"`
}

// merged puts spans in order, joins those of one release that meet, and drops what is empty or begins at until or later.
func merged(spans []Span, until int64) []Span {
	sorted := slices.SortedFunc(slices.Values(spans), func(a, b Span) int {
		return cmp.Or(strings.Compare(a.Release, b.Release), cmp.Compare(a.From, b.From))
	})
	var out []Span
	for _, s := range sorted {
		if s.From >= min(s.To, until) {
			continue
		}
		if n := len(out); n > 0 && out[n-1].Release == s.Release && s.From <= out[n-1].To {
			out[n-1].To = max(out[n-1].To, s.To)
			continue
		}
		out = append(out, s)
	}
	return out
}

// DeviceTime returns for how long devices ran the releases within their spans until a moment, summed over devices, to the
// millisecond: exposure-days are this by 86,400,000.
func (s *Service) DeviceTime(ctx context.Context, tenant string, spans []Span, until time.Time) (millis int64, err error) {
	end := store.Millis(until)
	spans = merged(spans, end)
	if len(spans) == 0 {
		return 0, nil
	}
	points := make([]point, 0, 2*len(spans))
	for _, sp := range spans {
		points = append(points, point{sp.Release, sp.From}, point{sp.Release, min(sp.To, end)})
	}
	err = s.asking(ctx, points, func(ask asks) error {
		sums, err := sumsAt(ask, tenant, points)
		millis = 0
		for i, p := range points {
			if i%2 == 0 {
				millis -= sums[p].ran(p.at)
			} else {
				millis += sums[p].ran(p.at)
			}
		}
		return err
	})
	return millis, err
}

// Curve returns how many devices ran the releases within their spans at each of the instants.
func (s *Service) Curve(ctx context.Context, tenant string, spans []Span, instants []time.Time) ([]int64, error) {
	spans = merged(spans, Forever)
	var points []point
	var of []int // the instant of each point
	for i, at := range instants {
		for _, sp := range spans {
			if t := store.Millis(at); sp.From <= t && t < sp.To {
				points, of = append(points, point{sp.Release, t}), append(of, i)
			}
		}
	}
	out := make([]int64, len(instants))
	if len(points) == 0 {
		return out, nil
	}
	err := s.asking(ctx, points, func(ask asks) error {
		sums, err := sumsAt(ask, tenant, points)
		clear(out)
		for i, p := range points {
			out[of[i]] += sums[p].n
		}
		return err
	})
	return out, err
}

const (
	everLive   = 5_000 // intervals: more are answered from what is stored
	everFresh  = time.Hour
	everForget = 30 * 24 * time.Hour // answers that nobody asks for any more
)

// jobEver counts an answer of Ever again.
const jobEver = "fleet.ever"

// Ever returns how many different devices ever ran one of the releases within its spans until now, and the moment that the
// answer is for: now where that is soon counted, else when it was last counted. An answer older than an hour is counted
// again behind the scenes. Spans that begin in the future do not count yet.
func (s *Service) Ever(ctx context.Context, tenant string, spans []Span, now time.Time) (devices int64, asOf time.Time, err error) {
	q := everQuestion{tenant, merged(spans, Forever)}
	if len(merged(q.Spans, store.Millis(now))) == 0 {
		return 0, now, nil
	}
	few, err := s.fewEver(ctx, q)
	if err != nil {
		return 0, now, err
	}
	if few {
		devices, err = s.countEver(ctx, q, now)
		return devices, now, err
	}
	var at int64
	err = s.cfg.DB.QueryRow(ctx, `SELECT devices, as_of FROM fleet_ever WHERE tenant = $1 AND id = $2`, tenant, q.id()).Scan(&devices, &at)
	if errors.Is(err, store.ErrNoRows) {
		devices, err = s.answerEver(ctx, q, now)
		return devices, now, err
	}
	asOf = store.Time(at)
	if err == nil && now.Sub(asOf) > everFresh {
		err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.cfg.DB.Enqueue(tx, jobEver, tenant+" "+q.id(), now, q) })
	}
	return devices, asOf, err
}

// everQuestion is what an answer is stored for.
type everQuestion struct {
	Tenant string `json:"tenant"`
	Spans  []Span `json:"spans"` // merged
}

func (q everQuestion) id() string {
	h := sha256.New()
	for _, s := range q.Spans {
		fmt.Fprintf(h, "%s %d %d\n", s.Release, s.From, s.To)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// fewEver says whether so little happened to the releases that it can be counted at each asking.
func (s *Service) fewEver(ctx context.Context, q everQuestion) (bool, error) {
	seen, events := map[string]bool{}, int64(0)
	for _, sp := range q.Spans {
		seen[sp.Release] = true
	}
	rows, err := s.cfg.DB.Query(ctx, `SELECT release_id, events FROM fleet_count WHERE tenant = $1`, q.Tenant)
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var release string
		var n int64
		err := r.Scan(&release, &n)
		if seen[release] {
			events += n
		}
		return struct{}{}, err
	})
	return events <= 2*everLive, err
}

// countEver visits what ran within the spans: first what still does, then what ended.
func (s *Service) countEver(ctx context.Context, q everQuestion, now time.Time) (n int64, err error) {
	var values []string
	args := []any{q.Tenant}
	for _, sp := range merged(q.Spans, store.Millis(now)) {
		args = append(args, sp.Release)
		values = append(values, fmt.Sprintf("($%d, %d, %d)", len(args), sp.From, min(sp.To, store.Millis(now)+1)))
	}
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error { // not prepared: hardly a text comes twice
		return tx.QueryRow(`WITH p(release_id, began, ended) AS (VALUES `+strings.Join(values, ", ")+`)
			SELECT count(*) FROM (
				SELECT i.device_id FROM p CROSS JOIN install i WHERE i.tenant = $1 AND i.release_id = p.release_id AND i.to_ts = 9223372036854775807 AND i.from_ts < p.ended
				UNION SELECT i.device_id FROM p CROSS JOIN install i
					WHERE i.tenant = $1 AND i.release_id = p.release_id AND i.to_ts > p.began AND i.to_ts < 9223372036854775807 AND i.from_ts < p.ended) q`, args...).Scan(&n)
	})
	return n, err
}

// answerEver counts and stores.
func (s *Service) answerEver(ctx context.Context, q everQuestion, now time.Time) (int64, error) {
	devices, err := s.countEver(ctx, q, now)
	if err != nil {
		return 0, err
	}
	return devices, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO fleet_ever(tenant, id, devices, as_of) VALUES ($1, $2, $3, $4)
			ON CONFLICT (tenant, id) DO UPDATE SET devices = excluded.devices, as_of = excluded.as_of WHERE fleet_ever.as_of < excluded.as_of`, q.Tenant, q.id(), devices, store.Millis(now))
		return err
	})
}

// answerAgain is the job that an old answer asks for.
func (s *Service) answerAgain(ctx context.Context, j store.Job) error {
	var q everQuestion
	if err := j.Decode(&q); err != nil {
		return err
	}
	_, err := s.answerEver(ctx, q, s.cfg.Clock.Now())
	return err
}

func (s *Service) forgetAnswers(ctx context.Context) error {
	return s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`DELETE FROM fleet_ever WHERE as_of < $1`, store.Millis(s.cfg.Clock.Now().Add(-everForget)))
		return err
	})
}
