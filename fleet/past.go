// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"database/sql"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/store"
)

// point is a release at an instant, in ms since 1970 UTC.
type point struct {
	release string
	at      int64
}

// sum is what happened to a release until a point: how many devices ran it then, and the moment of its events.
type sum struct{ n, moment int64 }

// ran is how long the release ran until the point, summed over devices, in ms.
func (s sum) ran(p point) int64 { return s.n*(p.at-countEpoch) - s.moment }

// pointsPerStatement bounds what one statement is asked; more go in several, on one snapshot.
const pointsPerStatement = 256

// asks is how a statement is put: to the database, which keeps it prepared, or to a snapshot.
type asks func(query string, args ...any) (*sql.Rows, error)

// snapshot calls fn with what one statement is put to where one is enough, and else with one snapshot for all of them.
func (s *Service) snapshot(ctx context.Context, one bool, fn func(ask asks) error) error {
	if one {
		return fn(func(query string, args ...any) (*sql.Rows, error) { return s.cfg.DB.Query(ctx, query, args...) })
	}
	return s.cfg.DB.View(ctx, func(tx *store.Tx) error { return fn(tx.Query) })
}

// sumsAt tells what had happened at each of the points: the last mark before it, what began and ended since, and what is
// counted in no mark yet. moments says that more is wanted than the number of devices.
func sumsAt(ask asks, tenant string, points []point, moments bool) (map[point]sum, error) {
	out := make(map[point]sum, len(points))
	for part := range slices.Chunk(points, pointsPerStatement) {
		if err := sumsOf(ask, tenant, part, moments, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func sumsOf(ask asks, tenant string, points []point, moments bool, out map[point]sum) error {
	latest := points[0].at
	args := []any{tenant, nil}
	for _, p := range points {
		latest = max(latest, p.at)
		args = append(args, p.release, p.at)
	}
	args[1] = latest
	n := upToPower(len(points))
	for range n - len(points) {
		args = append(args, points[0].release, points[0].at)
	}
	marked := map[string][]point{}
	markOf := make(map[point]int64, len(points))
	rows, err := ask(pastQuery(n, moments), args...)
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var p point
		var s sum
		var mark, delta int64
		if err := r.Scan(&delta, &p.release, &p.at, &mark, &s.n, &s.moment); err != nil {
			return struct{}{}, err
		}
		if delta == 0 {
			if _, ok := markOf[p]; !ok {
				marked[p.release] = append(marked[p.release], p)
			}
			markOf[p], out[p] = mark, s
			return struct{}{}, nil
		}
		for _, q := range marked[p.release] { // what the mark does not know yet; what is later is counted from the intervals
			if p.at <= markOf[q] {
				out[q] = sum{out[q].n + s.n, out[q].moment + s.moment}
			}
		}
		return struct{}{}, nil
	})
	return err
}

// pastQuery asks for n points in one statement, and so on one snapshot: the fold moves rows between what it reads.
// $1 is the tenant, $2 the latest of the points. First come the points, then what is not folded.
func pastQuery(n int, moments bool) string {
	began, ended := `0`, `0`
	if moments {
		began = `COALESCE((SELECT sum(i.from_ts - 1577836800000) FROM install i WHERE i.tenant = $1 AND i.release_id = p.release_id AND i.from_ts > COALESCE(m.at, -1) AND i.from_ts <= p.at), 0)`
		ended = `COALESCE((SELECT sum(i.to_ts - 1577836800000) FROM install i WHERE i.tenant = $1 AND i.release_id = p.release_id AND i.to_ts > COALESCE(m.at, -1) AND i.to_ts <= p.at AND i.to_ts < 9223372036854775807), 0)`
	}
	values := strings.Repeat(`, ($%d, CAST($%d AS bigint))`, n)[2:]
	places := make([]any, 2*n)
	for i := range places {
		places[i] = i + 3
	}
	return `WITH p(release_id, at) AS (VALUES ` + fmt.Sprintf(values, places...) + `)
		SELECT 0 AS delta, p.release_id, p.at, COALESCE(m.at, -1) AS mark,
			COALESCE(m.n, 0)
				+ (SELECT count(*) FROM install i WHERE i.tenant = $1 AND i.release_id = p.release_id AND i.from_ts > COALESCE(m.at, -1) AND i.from_ts <= p.at)
				- (SELECT count(*) FROM install i WHERE i.tenant = $1 AND i.release_id = p.release_id AND i.to_ts > COALESCE(m.at, -1) AND i.to_ts <= p.at AND i.to_ts < 9223372036854775807) AS n,
			CAST(COALESCE(m.moment, 0) + ` + began + ` - ` + ended + ` AS bigint) AS moment
		FROM p LEFT JOIN fleet_mark m ON m.tenant = $1 AND m.release_id = p.release_id AND m.at = (
			SELECT max(x.at) FROM fleet_mark x WHERE x.tenant = $1 AND x.release_id = p.release_id AND x.at <= p.at)
		UNION ALL SELECT 1, to_release, at, 0, 1, at - 1577836800000 FROM fleet_delta WHERE tenant = $1 AND at <= $2
		UNION ALL SELECT 1, from_release, at, 0, -1, 1577836800000 - at FROM fleet_delta WHERE tenant = $1 AND at <= $2
		ORDER BY 1`
}

// upToPower is the next power of two, so that lists of any length make few texts of statements: texts are kept prepared.
func upToPower(n int) int { return 1 << bits.Len(uint(n-1)) }

// CountByRelease returns how many devices run each release now.
func (s *Service) CountByRelease(ctx context.Context, tenant string) (map[string]int64, error) {
	return s.CountOf(ctx, tenant, nil, time.Time{})
}

// CountAsOf is CountOf for all releases.
func (s *Service) CountAsOf(ctx context.Context, tenant string, at time.Time) (map[string]int64, error) {
	return s.CountOf(ctx, tenant, nil, at)
}

// CountOf returns how many devices ran each of the releases at the moment given; the zero time means now, no releases mean
// all. Those that no device ran are absent.
func (s *Service) CountOf(ctx context.Context, tenant string, releases []string, at time.Time) (out map[string]int64, err error) {
	if len(releases) == 0 && !at.IsZero() {
		if releases, err = releasesSeen(ctx, s.cfg.DB, tenant); err != nil {
			return nil, err
		}
	}
	err = s.snapshot(ctx, at.IsZero() || len(releases) <= pointsPerStatement, func(ask asks) error {
		out, err = countOf(ask, tenant, releases, at)
		return err
	})
	return out, err
}

func countOf(ask asks, tenant string, releases []string, at time.Time) (map[string]int64, error) {
	if at.IsZero() {
		return countNow(ask, tenant, releases)
	}
	points := make([]point, len(releases))
	for i, r := range releases {
		points[i] = point{r, store.Millis(at)}
	}
	sums, err := sumsAt(ask, tenant, points, false)
	out := map[string]int64{}
	for p, sum := range sums {
		if sum.n != 0 {
			out[p.release] = sum.n
		}
	}
	return out, err
}

// countNow reads the counters of the releases, in one statement; of all there are where the list is empty or long, and
// drops the rest here.
func countNow(ask asks, tenant string, releases []string) (map[string]int64, error) {
	args := []any{tenant}
	among := func(string) string { return "" }
	some := len(releases) > 0 && len(releases) <= pointsPerStatement
	if some {
		var list string
		list, args = store.In(args, releases)
		among = func(column string) string { return " AND " + column + " IN " + list }
	}
	counts, err := collectCounts(ask(`SELECT release_id, CAST(sum(n) AS bigint) FROM (
			SELECT release_id, n FROM fleet_count WHERE tenant = $1`+among("release_id")+`
			UNION ALL SELECT to_release, 1 FROM fleet_delta WHERE tenant = $1 AND to_release <> ''`+among("to_release")+`
			UNION ALL SELECT from_release, -1 FROM fleet_delta WHERE tenant = $1 AND from_release <> ''`+among("from_release")+`) q
		GROUP BY release_id HAVING sum(n) <> 0`, args...))
	if err != nil || some || len(releases) == 0 {
		return counts, err
	}
	wanted := make(map[string]int64, len(releases))
	for _, r := range releases {
		if n := counts[r]; n != 0 {
			wanted[r] = n
		}
	}
	return wanted, nil
}
