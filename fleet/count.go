// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/store"
)

const (
	foldRows  = 500 // installations folded in one transaction: at most two counters each
	markEvery = 32  // events of a release between two marks: what a question about the past reads at most, beside a mark
	// countEpoch is where moments are counted from, in ms since 1970 UTC: 2020. From 1970 on the sum over a large fleet
	// would come near the end of 64 bits.
	countEpoch = 1577836800000
)

// event is one end of an interval: from at on one device more, or one less, runs the release.
type event struct {
	tenant, release string
	at, sign        int64
}

func (e event) moment() int64 { return e.sign * (e.at - countEpoch) }

// count is what is folded of a release.
type count struct {
	tenant, release                     string
	n, moment, events, lastAt, markedAt int64
}

// add counts an event in.
func (c *count) add(e event) {
	c.n += e.sign
	c.moment += e.moment()
	c.events++
	c.lastAt = max(c.lastAt, e.at)
}

// mark is what was folded of a release until an instant, that instant included.
type mark struct {
	tenant, release string
	at, n, moment   int64
}

// foldAll folds all there is to fold, if the lease is ours.
func (s *Service) foldAll(ctx context.Context) error {
	s.pending.Store(0)
	if more, err := hasDeltas(ctx, s.cfg.DB); err != nil || !more {
		return err
	}
	lease, ok, err := s.cfg.DB.TakeLease(ctx, foldLease, s.holder, foldTTL)
	if err != nil || !ok {
		return err
	}
	for n := foldRows; n == foldRows; {
		if err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) (err error) {
			if err := tx.Fence(lease, foldTTL); err != nil {
				return err
			}
			n, err = fold(tx)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// fold moves some installations into the counters and returns how many.
func fold(tx *store.Tx) (int, error) {
	deltas, err := takeDeltas(tx, foldRows)
	if err != nil {
		return 0, err
	}
	var events []event
	for _, d := range deltas {
		events = append(events, d.events()...)
	}
	return len(deltas), apply(tx, events)
}

// apply adds events to the counters and marks. Only who holds the lease of folding may.
func apply(tx *store.Tx, events []event) error {
	// In the order of keys: who else writes counters at the same time must not wait for us while we wait for it.
	slices.SortFunc(events, func(a, b event) int {
		return cmp.Or(strings.Compare(a.tenant, b.tenant), strings.Compare(a.release, b.release), cmp.Compare(a.at, b.at))
	})
	var counts []*count
	for _, e := range events {
		if n := len(counts); n == 0 || counts[n-1].tenant != e.tenant || counts[n-1].release != e.release {
			counts = append(counts, &count{tenant: e.tenant, release: e.release, markedAt: -1})
		}
	}
	if err := readCounts(tx, counts); err != nil {
		return err
	}
	var marks []mark
	rest := events
	for _, c := range counts {
		n := 0
		for n < len(rest) && rest[n].tenant == c.tenant && rest[n].release == c.release {
			n++
		}
		for _, e := range rest[:n] {
			if e.at > c.markedAt {
				continue
			}
			if err := moveMarks(tx, e); err != nil { // it came late
				return err
			}
		}
		marks = append(marks, c.fold(rest[:n])...)
		rest = rest[n:]
	}
	if err := putMarks(tx, marks); err != nil {
		return err
	}
	return putCounts(tx, counts)
}

// fold counts the events of the release, which are in the order of time, and returns marks to be made on the way. A mark
// stands where nothing later is counted yet, and never within a millisecond.
func (c *count) fold(events []event) (marks []mark) {
	lastAt := c.lastAt // of what was folded before
	seen := c.events
	for i, e := range events {
		c.add(e)
		if i+1 < len(events) && events[i+1].at == e.at {
			continue
		}
		if e.at >= lastAt && e.at > c.markedAt && c.events/markEvery > seen/markEvery {
			marks = append(marks, mark{c.tenant, c.release, e.at, c.n, c.moment})
			c.markedAt, seen = e.at, c.events
		}
	}
	return marks
}

// Recount counts every release from the intervals alone, says in the log where the counters or marks say something else
// and puts those right. It returns how many were wrong.
func (s *Service) Recount(ctx context.Context) (wrong int, err error) {
	last := mark{}
	for {
		last.tenant, last.release, err = nextRelease(ctx, s.cfg.DB, last.tenant, last.release)
		if err != nil || last.release == "" {
			return wrong, err
		}
		ok, err := s.countIsRight(ctx, last.tenant, last.release)
		if err != nil {
			return wrong, err
		}
		if ok {
			continue
		}
		wrong++
		s.cfg.Log.ErrorContext(ctx, "the counters of a release were wrong and are counted again", slog.String("tenant", last.tenant), slog.String("release", last.release))
		if err := s.rebuild(ctx, last.tenant, last.release); err != nil {
			return wrong, err
		}
	}
}

// rebuild counts one release again.
func (s *Service) rebuild(ctx context.Context, tenant, release string) error {
	lease, ok, err := s.cfg.DB.TakeLease(ctx, foldLease, s.holder, foldTTL)
	if err != nil || !ok {
		return err // another process folds now: the next recount finds it
	}
	return s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
		if err := tx.Fence(lease, foldTTL); err != nil {
			return err
		}
		return rebuild(tx, tenant, release)
	})
}

// folded are the events of one release ($1, $2) that the counters ought to hold: those of all intervals, less those that
// are not folded yet. Whoever reads it sees both in one statement.
const folded = `SELECT from_ts AS at, 1 AS sign FROM install WHERE tenant = $1 AND release_id = $2
	UNION ALL SELECT to_ts, -1 FROM install WHERE tenant = $1 AND release_id = $2 AND to_ts < 9223372036854775807
	UNION ALL SELECT at, -1 FROM fleet_delta WHERE tenant = $1 AND to_release = $2
	UNION ALL SELECT at, 1 FROM fleet_delta WHERE tenant = $1 AND from_release = $2`

// ofEvents are the sums that a count and a mark consist of.
const ofEvents = `CAST(COALESCE(sum(sign), 0) AS bigint) AS n, CAST(COALESCE(sum(sign * (at - 1577836800000)), 0) AS bigint) AS moment`

func rebuild(tx *store.Tx, tenant, release string) error {
	if _, err := tx.Exec(`DELETE FROM fleet_mark WHERE tenant = $1 AND release_id = $2`, tenant, release); err != nil {
		return err
	}
	if _, err := tx.Exec(fmt.Sprintf(`INSERT INTO fleet_mark(tenant, release_id, at, n, moment)
		SELECT $1, $2, at, n, moment FROM (
			SELECT at, events, CAST(sum(n) OVER w AS bigint) AS n, CAST(sum(moment) OVER w AS bigint) AS moment, CAST(sum(events) OVER w AS bigint) AS seen FROM (
				SELECT at, %s, count(*) AS events FROM (%s) e GROUP BY at) g
			WINDOW w AS (ORDER BY at)) r
		WHERE seen / %[3]d > (seen - events) / %[3]d`, ofEvents, folded, markEvery), tenant, release); err != nil {
		return err
	}
	_, err := tx.Exec(fmt.Sprintf(`INSERT INTO fleet_count(tenant, release_id, n, moment, events, last_at, mark_at)
		SELECT $1, $2, n, moment, events, last_at, COALESCE((SELECT max(at) FROM fleet_mark WHERE tenant = $1 AND release_id = $2), -1)
			FROM (SELECT %s, count(*) AS events, COALESCE(max(at), 0) AS last_at FROM (%s) e) r WHERE true
		ON CONFLICT (tenant, release_id) DO UPDATE SET n = excluded.n, moment = excluded.moment, events = excluded.events, last_at = excluded.last_at, mark_at = excluded.mark_at`,
		ofEvents, folded), tenant, release)
	return err
}

// countIsRight compares the counter and each mark of a release with the intervals, on one snapshot.
func (s *Service) countIsRight(ctx context.Context, tenant, release string) (bool, error) {
	var wrong int64
	err := s.cfg.DB.QueryRow(ctx, fmt.Sprintf(`WITH folded AS (%s)
		SELECT (SELECT count(*) FROM (SELECT %s FROM folded) f
				WHERE NOT EXISTS (SELECT 1 FROM fleet_count c WHERE c.tenant = $1 AND c.release_id = $2 AND c.n = f.n AND c.moment = f.moment) AND (f.n <> 0 OR f.moment <> 0))
			+ (SELECT count(*) FROM (SELECT marked, n, moment, sum(sign) OVER w AS want, sum(was) OVER w AS want_moment FROM (
					SELECT at, sign, sign * (at - 1577836800000) AS was, 0 AS marked, 0 AS n, 0 AS moment FROM folded
					UNION ALL SELECT at, 0, 0, 1, n, moment FROM fleet_mark WHERE tenant = $1 AND release_id = $2) e
				WINDOW w AS (ORDER BY at)) q
				WHERE marked = 1 AND (n <> want OR moment <> want_moment))`, folded, ofEvents), tenant, release).Scan(&wrong)
	return wrong == 0, err
}

// nextRelease returns the release after one, over all tenants, that some device runs or ran or that is counted; empty at
// the end.
func nextRelease(ctx context.Context, db *store.DB, tenant, release string) (t, r string, err error) {
	err = db.QueryRow(ctx, `SELECT tenant, release_id FROM (
			SELECT * FROM (SELECT tenant, release_id FROM install WHERE (tenant, release_id) > ($1, $2) ORDER BY tenant, release_id LIMIT 1) i
			UNION ALL SELECT * FROM (SELECT tenant, release_id FROM fleet_count WHERE (tenant, release_id) > ($1, $2) ORDER BY tenant, release_id LIMIT 1) c) q
		ORDER BY tenant, release_id LIMIT 1`, tenant, release).Scan(&t, &r)
	if errors.Is(err, store.ErrNoRows) {
		return "", "", nil
	}
	return t, r, err
}

// delta is an installation that is not folded yet.
type delta struct {
	tenant, from, to string // releases; empty: none
	at               int64
}

func (d delta) events() []event {
	var out []event
	if d.from != "" {
		out = append(out, event{d.tenant, d.from, d.at, -1})
	}
	if d.to != "" {
		out = append(out, event{d.tenant, d.to, d.at, +1})
	}
	return out
}

func addDelta(tx *store.Tx, d delta) error {
	_, err := tx.Exec(`INSERT INTO fleet_delta(tenant, id, from_release, to_release, at) VALUES ($1, $2, $3, $4, $5)`, d.tenant, store.NewID("fd"), d.from, d.to, d.at)
	return err
}

// takeDeltas removes some deltas and returns them. It never goes by "id beyond the last": a lower one may commit later.
func takeDeltas(tx *store.Tx, limit int) ([]delta, error) {
	rows, err := tx.Query(`DELETE FROM fleet_delta WHERE (tenant, id) IN (SELECT tenant, id FROM fleet_delta ORDER BY tenant, id LIMIT $1) RETURNING tenant, from_release, to_release, at`, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (d delta, err error) {
		return d, r.Scan(&d.tenant, &d.from, &d.to, &d.at)
	})
}

func hasDeltas(ctx context.Context, db *store.DB) (bool, error) {
	var n int64
	err := db.QueryRow(ctx, `SELECT count(*) FROM (SELECT 1 FROM fleet_delta LIMIT 1) q`).Scan(&n)
	return n > 0, err
}

// readCounts fills in what is folded so far.
func readCounts(tx *store.Tx, counts []*count) error {
	at := map[[2]string]*count{}
	for _, c := range counts {
		at[[2]string{c.tenant, c.release}] = c
	}
	for part := range slices.Chunk(counts, pointsPerStatement) {
		var args []any
		pairs := make([]string, upToPower(len(part)))
		for i := range pairs {
			c := part[min(i, len(part)-1)]
			args = append(args, c.tenant, c.release)
			pairs[i] = fmt.Sprintf("($%d, $%d)", 2*i+1, 2*i+2)
		}
		rows, err := tx.Query(`SELECT tenant, release_id, n, moment, events, last_at, mark_at FROM fleet_count WHERE (tenant, release_id) IN (VALUES `+strings.Join(pairs, ", ")+`)`, args...)
		if _, err = store.Collect(rows, err, func(r *sql.Rows) (c count, err error) {
			err = r.Scan(&c.tenant, &c.release, &c.n, &c.moment, &c.events, &c.lastAt, &c.markedAt)
			*at[[2]string{c.tenant, c.release}] = c
			return c, err
		}); err != nil {
			return err
		}
	}
	return nil
}

func putCounts(tx *store.Tx, counts []*count) error {
	rows := make([][]any, len(counts))
	for i, c := range counts {
		rows[i] = []any{c.tenant, c.release, c.n, c.moment, c.events, c.lastAt, c.markedAt}
	}
	return tx.InsertMany(`INSERT INTO fleet_count(tenant, release_id, n, moment, events, last_at, mark_at)`, rows,
		`ON CONFLICT (tenant, release_id) DO UPDATE SET n = excluded.n, moment = excluded.moment, events = excluded.events, last_at = excluded.last_at, mark_at = excluded.mark_at`)
}

func putMarks(tx *store.Tx, marks []mark) error {
	rows := make([][]any, len(marks))
	for i, m := range marks {
		rows[i] = []any{m.tenant, m.release, m.at, m.n, m.moment}
	}
	return tx.InsertMany(`INSERT INTO fleet_mark(tenant, release_id, at, n, moment)`, rows, ``)
}

// moveMarks counts an event into the marks that stand at it and after it.
func moveMarks(tx *store.Tx, e event) error {
	_, err := tx.Exec(`UPDATE fleet_mark SET n = n + $4, moment = moment + $5 WHERE tenant = $1 AND release_id = $2 AND at >= $3`, e.tenant, e.release, e.at, e.sign, e.moment())
	return err
}
