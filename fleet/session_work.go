// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"time"

	"github.com/openthings-platform/openthings/store"
)

// Work watches over the sessions until ctx ends: it ends those of nodes that are gone, so that their devices' wills are
// said, and on a database that nodes share it ends those here that another node took over.
func (s *Sessions) Work(ctx context.Context) error {
	alone := s.cfg.DB.Engine() == store.SQLite // nobody else has this file: whoever was before is gone
	var next time.Time
	for ctx.Err() == nil {
		if now := s.cfg.Clock.Now(); !now.Before(next) {
			next = now.Add(nodeEvery)
			if err := s.buryNodes(ctx, alone); err != nil && ctx.Err() == nil {
				s.cfg.Log.ErrorContext(ctx, "sessions of nodes that are gone", slog.Any("error", err))
				next = now.Add(time.Second)
			} else if alone && err == nil {
				<-ctx.Done()
				return nil
			}
		}
		if err := s.takeNotes(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Log.ErrorContext(ctx, "sessions that another node took over", slog.Any("error", err))
		}
		t := s.cfg.Clock.NewTimer(takeoverEvery)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
	return nil
}

// takeNotes reads what other nodes left for this one.
func (s *Sessions) takeNotes(ctx context.Context) error {
	type note struct {
		device     string
		generation int64
		resumed    bool
	}
	rows, err := s.cfg.DB.Query(ctx, `SELECT device_id, generation, resumed FROM mqtt_takeover WHERE node = $1`, s.node)
	notes, err := store.Collect(rows, err, func(r *sql.Rows) (n note, err error) {
		var resumed int64
		err = r.Scan(&n.device, &n.generation, &resumed)
		n.resumed = resumed == 1
		return n, err
	})
	if err != nil || len(notes) == 0 {
		return err
	}
	for _, n := range notes {
		s.cfg.Supersede(n.device, n.generation, n.resumed)
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		for _, n := range notes {
			if _, err := tx.Exec(`DELETE FROM mqtt_takeover WHERE node = $1 AND device_id = $2 AND generation = $3`, s.node, n.device, n.generation); err != nil {
				return err
			}
		}
		return nil
	})
}

// buryNodes gives a sign of life, and ends the sessions of nodes that give none.
func (s *Sessions) buryNodes(ctx context.Context, alone bool) error {
	if !alone {
		if _, _, err := s.cfg.DB.TakeLease(ctx, nodeLease+s.node, s.node, nodeTTL); err != nil {
			return err
		}
	}
	for node := ""; ; {
		var found sql.NullString
		if err := s.cfg.DB.QueryRow(ctx, `SELECT min(node) FROM mqtt_session WHERE ended = 0 AND node > $1`, node).Scan(&found); err != nil || !found.Valid {
			return err
		}
		if node = found.String; node == s.node {
			continue
		}
		dead := alone
		if !alone {
			var err error
			if _, dead, err = s.cfg.DB.TakeLease(ctx, nodeLease+node, s.node, nodeTTL); err != nil {
				return err
			}
		}
		if dead {
			if err := s.bury(ctx, node); err != nil {
				return err
			}
		}
	}
}

// bury ends the sessions of a node that is gone. Their devices get a moment to come back before their wills are said.
func (s *Sessions) bury(ctx context.Context, node string) error {
	type ended struct {
		tenant, device    string
		generation, delay int64
		will              bool
	}
	for {
		n := 0
		err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
			now := s.cfg.Clock.Now()
			rows, err := tx.Query(`UPDATE mqtt_session SET ended = $1 WHERE device_id IN (
					SELECT device_id FROM mqtt_session WHERE node = $2 AND ended = 0 ORDER BY device_id LIMIT $3)
				RETURNING tenant, device_id, generation, will_delay, length(will)`, store.Millis(now), node, int64(endedAtOnce))
			all, err := store.Collect(rows, err, func(r *sql.Rows) (e ended, err error) {
				var will int64
				err = r.Scan(&e.tenant, &e.device, &e.generation, &e.delay, &will)
				e.will = will > 0
				return e, err
			})
			n = len(all)
			for _, e := range all {
				if e.will {
					err = errors.Join(err, s.willAt(tx, e.tenant, e.device, e.generation, now.Add(max(crashGrace, time.Duration(e.delay)*time.Millisecond))))
				}
			}
			if err != nil {
				return err
			}
			_, err = tx.Exec(`DELETE FROM mqtt_takeover WHERE at < $1`, store.Millis(now.Add(-takeoverKept)))
			return err
		})
		if err != nil || n < endedAtOnce {
			return err
		}
	}
}
