// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/store"
)

const (
	writers      = 16
	writeRounds  = 4 // of each kind, in turns
	writesARound = 8_000
)

// exposureWriteRate measures installations per second of 16 writers, each of another device somewhere, one per transaction,
// until all are folded. Beside it stand the same writes to the same intervals without counters.
func exposureWriteRate(houses exposureHouses, engine string) func(context.Context) (Result, error) {
	return func(ctx context.Context) (Result, error) {
		h, err := houses.open(ctx, engine)
		if err != nil {
			return Result{}, err
		}
		delete(houses, engine) // what happened is no longer what is in there
		defer exposureHouses{engine: h}.close()
		// The fleet works as it does in the platform, but for the daily recount: it is not due today.
		if _, _, err := h.db.TakeLease(ctx, "fleet.recount", "bench", 24*time.Hour); err != nil {
			return Result{}, err
		}
		working, rest := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- h.fleet.Work(working) }()
		defer func() { rest(); <-ended }()

		m := newMover(h.exposureWorld)
		counted := func(tx *store.Tx, w writing) error {
			return h.fleet.Installed(tx, w.tenant, exposureProduct, w.device, w.release, w.at)
		}
		var with, without []float64
		for range writeRounds {
			for _, round := range []struct {
				write func(*store.Tx, writing) error
				took  *[]float64
			}{{counted, &with}, {m.intervalOnly, &without}} {
				rate, err := h.round(ctx, m, round.write)
				if err != nil {
					return Result{}, err
				}
				*round.took = append(*round.took, rate)
			}
		}
		if err := h.countedRight(ctx, m); err != nil {
			return Result{}, err
		}
		fmt.Fprintf(os.Stderr, "  %s: with counters %.0f, without %.0f installations a second\n", engine, with, without)
		r := Result{Name: "exposure_write_rate", Value: mean(with), Unit: "1/s", Baseline: "the same without counters", BaselineValue: mean(without)}
		if engine != string(store.SQLite) {
			r.Name += "_" + engine
		}
		r.Ratio = r.Value / r.BaselineValue
		return r, nil
	}
}

// writing is one installation.
type writing struct {
	tenant, device, release string
	at                      time.Time
}

// mover thinks of installations: of each device once in all, so that writers do not wait for one another.
type mover struct {
	*exposureWorld
	mu    sync.Mutex // guards the fields below
	rnd   *rand.Rand
	order []int
	at    int64
	net   map[string]int64 // by release: what was written and not counted
}

func newMover(w *exposureWorld) *mover {
	rnd := rand.New(rand.NewPCG(34, 55))
	return &mover{exposureWorld: w, rnd: rnd, order: rnd.Perm(len(w.devices)), at: time.Now().UnixMilli(), net: map[string]int64{}}
}

func (m *mover) next() writing {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.order[0]
	m.order = m.order[1:]
	t := m.tenants[m.devices[d].tenant]
	m.at++
	return writing{t.id, m.devices[d].id, m.releases[t.release[0]+m.rnd.IntN(t.release[1]-t.release[0])].id, time.UnixMilli(m.at)}
}

// round lets all writers write and returns the rate, until the last is folded.
func (h *exposureHouse) round(ctx context.Context, m *mover, write func(*store.Tx, writing) error) (float64, error) {
	todo := make(chan writing, writers)
	failed := make(chan error, writers)
	begun := time.Now()
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for w := range todo {
				if err := h.db.Write(ctx, func(tx *store.Tx) error { return write(tx, w) }); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	var err error
	for i := 0; i < writesARound && err == nil; i++ {
		select {
		case todo <- m.next():
		case err = <-failed:
		}
	}
	close(todo)
	wg.Wait()
	if err == nil {
		err = h.fleet.Fold(ctx)
	}
	return writesARound / time.Since(begun).Seconds(), err
}

// intervalOnly is what is left of an installation when nobody counts: it closes one interval and opens another.
func (m *mover) intervalOnly(tx *store.Tx, w writing) error {
	var release string
	var from, to int64
	err := tx.QueryRow(`SELECT release_id, from_ts, to_ts FROM install WHERE tenant = $1 AND device_id = $2 ORDER BY from_ts DESC LIMIT 1`, w.tenant, w.device).Scan(&release, &from, &to)
	if err != nil {
		return err
	}
	running := to == fleet.Forever
	if running && release == w.release {
		return nil
	}
	if running {
		if _, err := tx.Exec(`UPDATE install SET to_ts = $4 WHERE tenant = $1 AND device_id = $2 AND from_ts = $3 AND to_ts = 9223372036854775807`, w.tenant, w.device, from, w.at.UnixMilli()); err != nil {
			return err
		}
	}
	tx.After(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.net[w.release]++
		if running {
			m.net[release]--
		}
	})
	_, err = tx.Exec(`INSERT INTO install(tenant, product, device_id, release_id, from_ts, to_ts) VALUES ($1, $2, $3, $4, $5, $6)`,
		w.tenant, exposureProduct, w.device, w.release, w.at.UnixMilli(), int64(fleet.Forever))
	return err
}

// countedRight compares all counters with the intervals, but for what was written past them.
func (h *exposureHouse) countedRight(ctx context.Context, m *mover) error {
	for _, t := range h.tenants {
		got, err := h.fleet.CountByRelease(ctx, t.id)
		if err != nil {
			return err
		}
		rows, err := h.db.Query(ctx, `SELECT release_id, count(*) FROM install WHERE tenant = $1 AND to_ts = 9223372036854775807 GROUP BY release_id`, t.id)
		if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
			var release string
			var n int64
			if err := r.Scan(&release, &n); err != nil {
				return struct{}{}, err
			}
			if got[release]+m.net[release] != n {
				return struct{}{}, fmt.Errorf("the counters say %d of %s, %d run it", got[release]+m.net[release], release, n)
			}
			return struct{}{}, nil
		}); err != nil {
			return err
		}
	}
	return nil
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}
