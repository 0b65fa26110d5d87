// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"cmp"
	"context"
	"database/sql"
	"maps"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/store"
)

// point is a release at an instant, in ms since 1970 UTC.
type point struct {
	release string
	at      int64
}

const (
	// pointsPerStatement bounds what one statement is asked; more go in several, on one snapshot.
	pointsPerStatement = 1_000
	// fewPoints of one instant are named one by one. Of more, all releases of the tenant are asked for where that is not many
	// times as much: a thousand parameters cost more than the answer.
	fewPoints, wholeTimes = 32, 4
	maxNamed              = 64 // likewise of counters, which are cheaper still
)

// asks is how a statement is put: to the database, which keeps it prepared, or to a snapshot.
type asks func(query string, args ...any) (*sql.Rows, error)

// asking calls fn with what statements about the points are put to: a snapshot, unless they fit in one statement.
func (s *Service) asking(ctx context.Context, points []point, fn func(ask asks) error) error {
	other := func(p point) bool { return p.at != points[0].at }
	if len(points) <= fewPoints || len(points) <= pointsPerStatement && !slices.ContainsFunc(points, other) {
		return fn(s.ask(ctx))
	}
	return s.cfg.DB.View(ctx, func(tx *store.Tx) error { return fn(tx.Query) })
}

// ask puts one statement to the database.
func (s *Service) ask(ctx context.Context) asks {
	return func(query string, args ...any) (*sql.Rows, error) { return s.cfg.DB.Query(ctx, query, args...) }
}

// sumsAt tells what had happened at each of the points.
func sumsAt(ask asks, tenant string, points []point) (map[point]sum, error) {
	points = slices.Compact(slices.SortedFunc(slices.Values(points), func(a, b point) int {
		return cmp.Or(strings.Compare(a.release, b.release), cmp.Compare(a.at, b.at))
	}))
	out := make(map[point]sum, len(points))
	points, err := wholes(ask, tenant, points, out)
	if err != nil {
		return nil, err
	}
	for part := range slices.Chunk(points, pointsPerStatement) {
		args := []any{tenant}
		for _, p := range part {
			args = append(args, p.release, p.at)
		}
		n := padded(len(part))
		for range n - len(part) {
			args = append(args, "", int64(0)) // no release
		}
		if err := sumsOf(ask, namedPoints(n), args, part, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// wholes answers points that are so many of one instant that it asks for all releases of the tenant, and returns the rest.
func wholes(ask asks, tenant string, points []point, out map[point]sum) (rest []point, err error) {
	if len(points) <= fewPoints {
		return points, nil
	}
	rows, err := ask(`SELECT count(*) FROM fleet_count WHERE tenant = $1`, tenant)
	have, err := store.Collect(rows, err, func(r *sql.Rows) (n int, err error) { return n, r.Scan(&n) })
	if err != nil {
		return nil, err
	}
	at := map[int64][]point{}
	for _, p := range points {
		at[p.at] = append(at[p.at], p)
	}
	for _, t := range slices.Sorted(maps.Keys(at)) {
		if len(at[t]) <= fewPoints || have[0] > wholeTimes*len(at[t]) {
			rest = append(rest, at[t]...)
			continue
		}
		if err := sumsOf(ask, `SELECT release_id, CAST($2 AS bigint), n, moment, last_at, mark_at FROM fleet_count WHERE tenant = $1`, []any{tenant, t}, at[t], out); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

// namedPoints writes a query for n points with what is counted of their releases; $1 is the tenant.
func namedPoints(n int) string {
	var b strings.Builder
	b.WriteString("SELECT column1, column2, n, moment, last_at, mark_at FROM (VALUES ")
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("($" + strconv.Itoa(2*i+2) + ", CAST($" + strconv.Itoa(2*i+3) + " AS bigint))")
	}
	b.WriteString(") p CROSS JOIN fleet_count c WHERE c.tenant = $1 AND c.release_id = p.column1")
	return b.String()
}

// What a row of pastQuery tells.
const (
	rowMark  = 1 + iota // the mark after a point
	rowTail             // what happened after a point, where there is no mark after it
	rowCount            // what its release has come to, likewise
	rowDelta            // an event that is not folded yet
)

// sumsOf asks one statement about points, which a query names with its arguments: see pastQuery.
func sumsOf(ask asks, named string, args []any, points []point, out map[point]sum) error {
	var wait []event
	known, tails, counts := map[point]sum{}, map[point]sum{}, map[string]count{}
	rows, err := ask(pastQuery(named), args...)
	if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var what, a int64
		var p point
		var s sum
		var body []byte
		if err := r.Scan(&what, &p.release, &p.at, &a, &s.n, &s.moment, &body); err != nil {
			return struct{}{}, err
		}
		switch what {
		case rowMark:
			changes, err := unpacked(a, body)
			known[p] = mark{a, s, changes}.until(p.at)
			return struct{}{}, err
		case rowTail:
			tails[p] = sum{tails[p].n + s.n, tails[p].moment + s.moment}
		case rowCount:
			counts[p.release] = count{sum: s, lastAt: a}
		case rowDelta:
			wait = append(wait, event{release: p.release, change: change{p.at, s.n}})
		}
		return struct{}{}, nil
	}); err != nil {
		return err
	}
	waiting := map[string][]change{}
	for _, e := range wait {
		waiting[e.release] = append(waiting[e.release], e.change)
	}
	for _, p := range points {
		s, found := known[p]
		tail := false
		if c := counts[p.release]; !found { // all that came after the point is taken back, folded or not
			s = sum{c.n - tails[p].n, c.moment - tails[p].moment}
			tail = p.at < c.lastAt
		}
		for _, c := range waiting[p.release] {
			if tail || c.at <= p.at {
				s = s.plus(c)
			}
		}
		out[p] = s
	}
	return nil
}

// pastQuery asks for points in one statement, and so on one snapshot: the fold moves rows between what it reads. points is a
// query of (release_id, at, n, moment, last_at, mark_at), $1 is the tenant.
//
// Where a point lies, before the last mark or behind it, is known before any interval is looked at: hence MATERIALIZED, or
// PostgreSQL reads all that came after the point and drops it then. SQLite keeps CROSS JOINs in their order.
func pastQuery(points string) string {
	const tail = ` FROM p CROSS JOIN install i WHERE p.mark_at < p.at AND p.last_at > p.at AND i.tenant = $1 AND i.release_id = p.release_id AND `
	return `WITH p(release_id, at, n, moment, last_at, mark_at) AS MATERIALIZED (` + points + `)
		SELECT 1 AS what, p.release_id, p.at, m.at AS a, m.n, m.moment, m.body FROM p CROSS JOIN fleet_mark m WHERE p.mark_at >= p.at AND m.tenant = $1 AND m.release_id = p.release_id AND m.at = (
			SELECT min(x.at) FROM fleet_mark x WHERE x.tenant = $1 AND x.release_id = p.release_id AND x.at >= p.at)
		UNION ALL SELECT 2, p.release_id, p.at, 0, 1, i.from_ts - 1577836800000, NULL` + tail + `i.from_ts > p.at
		UNION ALL SELECT 2, p.release_id, p.at, 0, -1, 1577836800000 - i.to_ts, NULL` + tail + `i.to_ts > p.at AND i.to_ts < 9223372036854775807
		UNION ALL SELECT 3, release_id, 0, last_at, n, moment, NULL FROM p WHERE mark_at < at
		UNION ALL SELECT 4, to_release, at, 0, 1, 0, NULL FROM fleet_delta WHERE tenant = $1 AND to_release <> ''
		UNION ALL SELECT 4, from_release, at, 0, -1, 0, NULL FROM fleet_delta WHERE tenant = $1 AND from_release <> ''`
}

// padded is at least n and at most an eighth more: lists of any length make few texts of statements, which are kept
// prepared.
func padded(n int) int {
	step := 1 << max(0, bits.Len(uint(n))-3)
	return (n + step - 1) / step * step
}

// CountByRelease returns how many devices run each release now.
func (s *Service) CountByRelease(ctx context.Context, tenant string) (map[string]int64, error) {
	return s.CountOf(ctx, tenant, nil, time.Time{})
}

// CountOf returns how many devices ran each of the releases at the moment given; the zero time means now, no releases mean
// all. Those that no device ran are absent.
func (s *Service) CountOf(ctx context.Context, tenant string, releases []string, at time.Time) (out map[string]int64, err error) {
	if len(releases) == 0 && !at.IsZero() {
		if releases, err = releasesSeen(ctx, s.cfg.DB, tenant); err != nil {
			return nil, err
		}
	}
	if at.IsZero() {
		return countNow(s.ask(ctx), tenant, releases)
	}
	err = s.asking(ctx, pointsAt(releases, at), func(ask asks) error {
		out, err = countOf(ask, tenant, releases, at)
		return err
	})
	return out, err
}

func pointsAt(releases []string, at time.Time) []point {
	points := make([]point, len(releases))
	for i, r := range releases {
		points[i] = point{r, store.Millis(at)}
	}
	return points
}

func countOf(ask asks, tenant string, releases []string, at time.Time) (map[string]int64, error) {
	if at.IsZero() {
		return countNow(ask, tenant, releases)
	}
	sums, err := sumsAt(ask, tenant, pointsAt(releases, at))
	out := map[string]int64{}
	for p, sum := range sums {
		if sum.n != 0 {
			out[p.release] = sum.n
		}
	}
	return out, err
}

// countNow reads the counters of the releases, in one statement; of all there are where the list is empty or long. What
// waits to be folded is little, and is not worth a second list.
func countNow(ask asks, tenant string, releases []string) (map[string]int64, error) {
	args, among := []any{tenant}, ""
	if n := len(releases); n > 0 && n <= maxNamed {
		among, args = store.In(args, releases)
		among = " AND release_id IN " + among
	}
	counts, err := collectCounts(ask(`SELECT release_id, CAST(sum(n) AS bigint) FROM (
			SELECT release_id, n FROM fleet_count WHERE tenant = $1`+among+`
			UNION ALL SELECT to_release, 1 FROM fleet_delta WHERE tenant = $1 AND to_release <> ''
			UNION ALL SELECT from_release, -1 FROM fleet_delta WHERE tenant = $1 AND from_release <> '') q
		GROUP BY release_id HAVING sum(n) <> 0`, args...))
	if err != nil || len(releases) == 0 {
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
