// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/openthings-platform/openthings/store"
)

// connectionsKept is how many connections of a device are kept: the slots of its ring.
const connectionsKept = 16

// putPresence writes what this node knows. Of a device that went to another node meanwhile the row speaks already: this
// one, however late it writes, has no say in it any more and only notes its own connections.
func putPresence(tx *store.Tx, node, device string, p presence) error {
	var begun int64
	for _, c := range p.news {
		if !c.from.IsZero() {
			begun++
		}
	}
	var n int64
	err := tx.QueryRow(`INSERT INTO presence(device_id, tenant, online, since, seen, reason, node, connections, generation) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (device_id) DO UPDATE SET tenant = excluded.tenant, online = excluded.online, seen = excluded.seen, reason = excluded.reason, node = excluded.node, generation = excluded.generation,
			since = CASE WHEN presence.online = 1 AND excluded.online = 1 THEN presence.since ELSE excluded.since END, connections = presence.connections + excluded.connections
		WHERE presence.generation <= excluded.generation
		RETURNING connections`,
		device, p.tenant, p.online(), store.Millis(p.since), store.Millis(p.seen), p.reason, node, begun, p.generation).Scan(&n)
	if errors.Is(err, store.ErrNoRows) {
		err = tx.QueryRow(`UPDATE presence SET connections = connections + $1 WHERE device_id = $2 RETURNING connections`, begun, device).Scan(&n)
	}
	if err != nil {
		return err
	}
	for _, c := range p.news {
		if c.from.IsZero() {
			if _, err := tx.Exec(`UPDATE connection SET to_ts = $1, reason = $2 WHERE device_id = $3 AND node = $4 AND to_ts = 9223372036854775807`,
				store.Millis(c.to), c.reason, device, node); err != nil {
				return err
			}
			continue
		}
		begun--
		to := int64(Forever)
		if !c.to.IsZero() {
			to = store.Millis(c.to)
		}
		if _, err := tx.Exec(`INSERT INTO connection(device_id, slot, tenant, node, from_ts, to_ts, reason) VALUES ($1, $2, $3, $4, $5, $6, $7)
			ON CONFLICT (device_id, slot) DO UPDATE SET tenant = excluded.tenant, node = excluded.node, from_ts = excluded.from_ts, to_ts = excluded.to_ts, reason = excluded.reason`,
			device, (n-begun)%connectionsKept, p.tenant, node, store.Millis(c.from), to, c.reason); err != nil {
			return err
		}
	}
	return nil
}

func connections(ctx context.Context, db *store.DB, tenant, device string) ([]Connection, error) {
	rows, err := db.Query(ctx, `SELECT node, from_ts, to_ts, reason FROM connection WHERE device_id = $1 AND tenant = $2 ORDER BY from_ts DESC, to_ts DESC`, device, tenant)
	return store.Collect(rows, err, func(r *sql.Rows) (c Connection, err error) {
		var from, to int64
		err = r.Scan(&c.Node, &from, &to, &c.Reason)
		c.From = store.Time(from)
		if to != Forever {
			t := store.Time(to)
			c.To = &t
		}
		return c, err
	})
}

func liveAt(ctx context.Context, db *store.DB, tenant, device string) (node string, live bool, err error) {
	err = db.QueryRow(ctx, `SELECT node FROM presence WHERE device_id = $1 AND tenant = $2 AND online = 1`, device, tenant).Scan(&node)
	if errors.Is(err, store.ErrNoRows) {
		return "", false, nil
	}
	return node, err == nil, err
}

// beat says that the node lives until then. false: it was taken for dead meanwhile.
func beat(ctx context.Context, db *store.DB, node string, until time.Time, online map[string]int) (known bool, err error) {
	err = db.Write(ctx, func(tx *store.Tx) error {
		n, err := tx.Exec(`UPDATE fleet_node SET until = $1 WHERE node = $2`, store.Millis(until), node)
		if err != nil {
			return err
		}
		if known = n == 1; !known {
			if _, err := tx.Exec(`INSERT INTO fleet_node(node, until) VALUES ($1, $2)`, node, store.Millis(until)); err != nil {
				return err
			}
		}
		for tenant, n := range online {
			if _, err := tx.Exec(`INSERT INTO fleet_node_online(node, tenant, n) VALUES ($1, $2, $3) ON CONFLICT (node, tenant) DO UPDATE SET n = excluded.n`, node, tenant, int64(n)); err != nil {
				return err
			}
		}
		return nil
	})
	return known, err
}

// elsewhere counts who is online at the other nodes, by tenant.
func elsewhere(ctx context.Context, db *store.DB, node string) (map[string]int, error) {
	out := map[string]int{}
	rows, err := db.Query(ctx, `SELECT tenant, CAST(sum(n) AS bigint) FROM fleet_node_online WHERE node <> $1 GROUP BY tenant`, node)
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var tenant string
		var n int64
		err := r.Scan(&tenant, &n)
		out[tenant] = int(n)
		return struct{}{}, err
	})
	return out, err
}

// deadNode is one whose time has run out.
type deadNode struct {
	name string
	seen time.Time // its last sign of life
}

// deadNodes lists the nodes that gave no sign of life, and those that nothing is known of but their devices. alone: the
// file belongs to this process, and every other node is gone.
func deadNodes(ctx context.Context, db *store.DB, node string, now time.Time, alone bool) ([]deadNode, error) {
	limit := store.Millis(now)
	if alone {
		limit = Forever
	}
	rows, err := db.Query(ctx, `SELECT node, until FROM fleet_node WHERE node <> $1 AND until < $2
		UNION SELECT node, 0 FROM presence WHERE node = '' AND online = 1`, node, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (d deadNode, err error) {
		var until int64
		err = r.Scan(&d.name, &until)
		if d.seen = now; until != 0 {
			d.seen = store.Time(min(until, store.Millis(now))).Add(-nodeLives)
		}
		return d, err
	})
}

// buryStep marks some devices of a dead node as offline, and says how many; after the last it forgets the node.
func buryStep(tx *store.Tx, d deadNode, now time.Time, limit int) (int64, error) {
	n, err := tx.Exec(`UPDATE presence SET online = 0, since = $1, seen = CASE WHEN seen > $2 THEN seen ELSE $2 END, reason = $3 WHERE device_id IN (
			SELECT device_id FROM presence WHERE node = $4 AND online = 1 ORDER BY device_id LIMIT $5)`,
		store.Millis(now), store.Millis(d.seen), reasonNodeGone, d.name, limit)
	if err != nil || n == int64(limit) {
		return n, err
	}
	for _, q := range []string{`DELETE FROM fleet_node_online WHERE node = $1`, `DELETE FROM fleet_node WHERE node = $1`} {
		if _, err := tx.Exec(q, d.name); err != nil {
			return n, err
		}
	}
	return n, nil
}

// closeStep ends some connections to a dead node, and says how many.
func closeStep(tx *store.Tx, d deadNode, limit int) (int64, error) {
	return tx.Exec(`UPDATE connection SET to_ts = CASE WHEN from_ts > $1 THEN from_ts ELSE $1 END, reason = $2 WHERE node = $3 AND to_ts = 9223372036854775807 AND device_id IN (
			SELECT device_id FROM connection WHERE node = $3 AND to_ts = 9223372036854775807 ORDER BY device_id LIMIT $4)`,
		store.Millis(d.seen), reasonNodeGone, d.name, limit)
}
