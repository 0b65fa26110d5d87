// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// Placed is a device that runs, or ran at the time asked for, one of some releases.
type Placed struct {
	Device  string    `json:"device"`
	Release string    `json:"release"`
	Since   time.Time `json:"since"`
}

// Cursor is where a page that ends with this device is gone on from (Page.After).
func (p Placed) Cursor() string { return p.Release + " " + p.Device }

// Page asks for at most Limit things after the cursor After (of the last one of the page before; empty: from the
// beginning).
type Page struct {
	After string
	Limit int
}

// Devices returns a page of the devices that ran one of the releases at the moment given, in the order of releases and of
// devices in each (Placed.Cursor); the zero time means now. The counters say which releases are worth a visit.
func (s *Service) Devices(ctx context.Context, tenant string, releases []string, at time.Time, page Page) ([]Placed, error) {
	release, device, _ := strings.Cut(page.After, " ")
	releases = slices.DeleteFunc(slices.Compact(slices.Sorted(slices.Values(releases))), func(r string) bool { return r < release })
	var out []Placed
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		out = nil
		counts, err := countOf(tx.Query, tenant, releases, at)
		if err != nil {
			return err
		}
		for _, r := range slices.Sorted(maps.Keys(counts)) {
			after := ""
			if r == release {
				after = device
			}
			part, err := devicesOf(tx, tenant, r, at, Page{after, page.Limit - len(out)})
			if err != nil {
				return err
			}
			if out = append(out, part...); len(out) == page.Limit {
				return nil
			}
		}
		return nil
	})
	return out, err
}

// devicesOf returns a page of one release, after a device. Both ends of time are their own index.
func devicesOf(tx *store.Tx, tenant, release string, at time.Time, page Page) ([]Placed, error) {
	const now = `SELECT device_id, from_ts FROM install WHERE tenant = $1 AND release_id = $2 AND to_ts = 9223372036854775807 AND device_id > $3 ORDER BY device_id LIMIT $4`
	const past = `SELECT device_id, from_ts FROM (
			SELECT * FROM (SELECT device_id, from_ts FROM install WHERE tenant = $1 AND release_id = $2 AND to_ts = 9223372036854775807 AND device_id > $3 AND from_ts <= $5 ORDER BY device_id LIMIT $4) n
			UNION ALL SELECT device_id, from_ts FROM install WHERE tenant = $1 AND release_id = $2 AND to_ts > $5 AND to_ts < 9223372036854775807 AND from_ts <= $5 AND device_id > $3) q
		ORDER BY device_id LIMIT $4`
	query, args := now, []any{tenant, release, page.After, page.Limit}
	if !at.IsZero() {
		query, args = past, append(args, store.Millis(at))
	}
	rows, err := tx.Query(query, args...)
	return store.Collect(rows, err, func(r *sql.Rows) (Placed, error) {
		p, from := Placed{Release: release}, int64(0)
		err := r.Scan(&p.Device, &from)
		p.Since = store.Time(from)
		return p, err
	})
}

// eachStep is how many devices come at a time: they cross as one text, which costs a fraction of as many rows.
var eachStep = 10_000 // a test makes it smaller

// EachDevice hands out all devices that run one of the releases now, of one snapshot, release by release in the order of
// devices; those of a large one come in several parts.
func (s *Service) EachDevice(ctx context.Context, tenant string, releases []string, fn func(release string, devices []string) error) error {
	return s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		counts, err := countOf(tx.Query, tenant, releases, time.Time{})
		if err != nil {
			return err
		}
		var some []string // small ones, asked for together
		for _, r := range slices.Sorted(maps.Keys(counts)) {
			if counts[r] <= int64(eachStep/eachTogether) {
				if some = append(some, r); len(some) < eachTogether {
					continue
				}
				err = eachOfSome(tx, tenant, some, fn)
			} else if err = eachOfSome(tx, tenant, some, fn); err == nil {
				err = eachOfOne(tx, tenant, r, fn)
			}
			some = some[:0]
			if err != nil {
				return err
			}
		}
		return eachOfSome(tx, tenant, some, fn)
	})
}

func eachOfOne(tx *store.Tx, tenant, release string, fn func(release string, devices []string) error) error {
	for after := ""; ; {
		var list sql.NullString
		if err := tx.QueryRow(`SELECT string_agg(device_id, ' ') FROM (SELECT device_id FROM install
			WHERE tenant = $1 AND release_id = $2 AND to_ts = 9223372036854775807 AND device_id > $3 ORDER BY device_id LIMIT $4) q`, tenant, release, after, eachStep).Scan(&list); err != nil {
			return err
		}
		devices := strings.Fields(list.String)
		if len(devices) == 0 {
			return nil
		}
		slices.Sort(devices) // they are; no engine promises it
		if err := fn(release, devices); err != nil || len(devices) < eachStep {
			return err
		}
		after = devices[len(devices)-1]
	}
}

// eachTogether is how many small releases one statement asks for.
const eachTogether = 64

func eachOfSome(tx *store.Tx, tenant string, releases []string, fn func(release string, devices []string) error) error {
	if len(releases) == 0 {
		return nil
	}
	values, args := make([]string, len(releases)), make([]any, len(releases), len(releases)+1)
	for i, r := range releases {
		args[i], values[i] = r, fmt.Sprintf("($%d)", i+1)
	}
	args = append(args, tenant)
	rows, err := tx.Query(`WITH p(release_id) AS (VALUES `+strings.Join(values, ", ")+`)
		SELECT release_id, (SELECT string_agg(device_id, ' ') FROM install i WHERE i.tenant = $`+strconv.Itoa(len(args))+` AND i.release_id = p.release_id AND i.to_ts = 9223372036854775807) FROM p`, args...)
	type found struct {
		release string
		devices sql.NullString
	}
	lists, err := store.Collect(rows, err, func(r *sql.Rows) (f found, err error) { return f, r.Scan(&f.release, &f.devices) })
	if err != nil {
		return err
	}
	slices.SortFunc(lists, func(a, b found) int { return strings.Compare(a.release, b.release) })
	for _, f := range lists {
		if f.devices.String == "" {
			continue
		}
		devices := strings.Split(f.devices.String, " ")
		slices.Sort(devices)
		if err := fn(f.release, devices); err != nil {
			return err
		}
	}
	return nil
}

// CountryLabel is the label that says in which country a device serves, by its code of ISO 3166: no country is kept of a
// device that nobody said one of.
const CountryLabel = "country"

// breakdowns are what devices are told apart by, over identity's row "device".
var breakdowns = map[string]string{
	"revision": "device.revision",
	"solution": "device.solution",
	"batch":    "device.batch",
	"country":  `COALESCE((SELECT value FROM label WHERE label.tenant = device.tenant AND label.device_id = device.id AND label.name = '` + CountryLabel + `'), '')`,
}

// Breakdown counts the devices that ran one of the releases at the moment given (the zero time means now) by "revision",
// "solution", "batch" or "country", as each device is today: "" is those without. Devices that were erased since are in
// no breakdown of the past.
func (s *Service) Breakdown(ctx context.Context, tenant string, releases []string, at time.Time, by string) (map[string]int64, error) {
	expr, ok := breakdowns[by]
	if !ok {
		return nil, problem.Invalid("Devices are not broken down by %q.", by).Hint("By revision, country, solution or batch.")
	}
	ran := func(bind func(any) string) string {
		if at.IsZero() {
			return "install.to_ts = 9223372036854775807"
		}
		t := bind(store.Millis(at))
		return "install.from_ts <= " + t + " AND install.to_ts > " + t
	}
	out := map[string]int64{}
	for part := range slices.Chunk(slices.Compact(slices.Sorted(slices.Values(releases))), pointsPerStatement) {
		rows, err := s.cfg.Identity.Tally(ctx, tenant, identity.Filter{Limit: maxBreakdown, Where: func(bind func(any) string) string {
			marks := make([]string, len(part))
			t := bind(tenant)
			for i, r := range part {
				marks[i] = bind(r)
			}
			return "device.id IN (SELECT install.device_id FROM install WHERE install.tenant = " + t + " AND install.release_id IN (" + strings.Join(marks, ", ") + ") AND " + ran(bind) + ")"
		}}, expr)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			out[r.Keys[0]] += r.Devices
		}
	}
	return out, nil
}

// maxBreakdown is more devices than there are.
const maxBreakdown = 1 << 40

// Silent counts the devices that run one of the releases now and were not heard from since before; since is when the first
// of them fell silent, zero where none did. A device that never had a session has told nobody what it runs, unless over
// another door: it counts, but says nothing about since when.
func (s *Service) Silent(ctx context.Context, tenant string, releases []string, before time.Time) (devices int64, since time.Time, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		devices, since = 0, time.Time{}
		for part := range slices.Chunk(slices.Compact(slices.Sorted(slices.Values(releases))), pointsPerStatement) {
			list, args := store.In([]any{tenant, store.Millis(before)}, part)
			var n, first int64
			if err := tx.QueryRow(`SELECT count(*), coalesce(min(CASE WHEN p.seen > 0 THEN p.seen END), 0) FROM install i LEFT JOIN presence p ON p.device_id = i.device_id
				WHERE i.tenant = $1 AND i.to_ts = 9223372036854775807 AND coalesce(p.online, 0) = 0 AND coalesce(p.seen, 0) < $2 AND i.release_id IN `+list, args...).Scan(&n, &first); err != nil {
				return err
			}
			if devices += n; first > 0 && (since.IsZero() || store.Time(first).Before(since)) {
				since = store.Time(first)
			}
		}
		return nil
	})
	return devices, since, err
}
