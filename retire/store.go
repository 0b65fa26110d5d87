// SPDX-License-Identifier: AGPL-3.0-only

package retire

import (
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"time"

	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

//go:embed migrations/*.sql
var migrationsFS embed.FS

// Schema holds wipes, tombstones and the steps of deprovisions.
var Schema = store.Migrations{Stage: "retire", FS: migrationsFS}

// wipe is a row of retire_wipe.
type wipe struct {
	Wipe
	tenant, nonce string
	key           []byte
}

const wipeColumns = `command, tenant, device, serial, nonce, key, reason, actor, asked, receipt, answered`

func scanWipe(r interface{ Scan(...any) error }) (w wipe, err error) {
	var asked, answered int64
	var receipt []byte
	if err := r.Scan(&w.Command, &w.tenant, &w.device, &w.Serial, &w.nonce, &w.key, &w.Reason, &w.Actor, &asked, &receipt, &answered); err != nil {
		return w, err
	}
	w.Asked, w.Answered = store.Time(asked), store.Time(answered)
	if len(receipt) == 0 {
		return w, nil
	}
	var s wire.Signed
	if err := json.Unmarshal(receipt, &s); err != nil {
		return w, err
	}
	w.Signed = &s
	return w, json.Unmarshal(s.Payload, &w.Receipt)
}

func insertWipe(tx *store.Tx, w wipe) error {
	_, err := tx.Exec(`INSERT INTO retire_wipe(`+wipeColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0)`,
		w.Command, w.tenant, w.device, w.Serial, w.nonce, w.key, w.Reason, w.Actor, store.Millis(w.Asked), []byte{})
	return err
}

func wipeOf(tx *store.Tx, tenant, command string) (wipe, error) {
	return scanWipe(tx.QueryRow(`SELECT `+wipeColumns+` FROM retire_wipe WHERE tenant = $1 AND command = $2`, tenant, command))
}

// lastWipe is the newest wipe that was asked of the device; ok is false when there was none.
func lastWipe(tx *store.Tx, tenant, device string) (w wipe, ok bool, err error) {
	w, err = scanWipe(tx.QueryRow(`SELECT `+wipeColumns+` FROM retire_wipe WHERE tenant = $1 AND device = $2 ORDER BY answered DESC, asked DESC, command DESC LIMIT 1`, tenant, device))
	if errors.Is(err, store.ErrNoRows) {
		return w, false, nil
	}
	return w, err == nil, err
}

func keepReceipt(tx *store.Tx, tenant, command string, s wire.Signed, at time.Time) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`UPDATE retire_wipe SET receipt = $1, answered = $2 WHERE tenant = $3 AND command = $4 AND answered = 0`, b, store.Millis(at), tenant, command)
	return err
}

func insertTombstone(tx *store.Tx, tenant, product string, t Tombstone) error {
	unwiped := 0
	if t.Unwiped {
		unwiped = 1
	}
	_, err := tx.Exec(`INSERT INTO retire_tombstone(tenant, device, product, reason, unwiped, actor, begun, done, erased, horizon) VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0, 0)`,
		tenant, t.Device, product, t.Reason, unwiped, t.Actor, store.Millis(t.Begun))
	return err
}

// tombstone reads a device's tombstone; ok is false when it has none.
func tombstone(tx *store.Tx, tenant, device string) (t Tombstone, ok bool, err error) {
	var unwiped, begun, done, erased, horizon int64
	err = tx.QueryRow(`SELECT device, reason, unwiped, actor, begun, done, erased, horizon FROM retire_tombstone WHERE tenant = $1 AND device = $2`, tenant, device).
		Scan(&t.Device, &t.Reason, &unwiped, &t.Actor, &begun, &done, &erased, &horizon)
	if errors.Is(err, store.ErrNoRows) {
		return t, false, nil
	}
	t.Unwiped, t.Begun, t.Done, t.Erased, t.Horizon = unwiped == 1, store.Time(begun), store.Time(done), store.Time(erased), store.Time(horizon)
	return t, err == nil, err
}

func finishTombstone(tx *store.Tx, tenant string, t Tombstone) error {
	_, err := tx.Exec(`UPDATE retire_tombstone SET done = $1, erased = $2, horizon = $3 WHERE tenant = $4 AND device = $5`,
		store.Millis(t.Done), store.Millis(t.Erased), store.Millis(t.Horizon), tenant, t.Device)
	return err
}

// completed records that a step is done; the first time counts.
func completed(tx *store.Tx, tenant, device string, s Step) error {
	_, err := tx.Exec(`INSERT INTO retire_step(tenant, device, step, at, detail) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant, device, step) DO NOTHING`,
		tenant, device, s.Name, store.Millis(s.At), s.Detail)
	return err
}

func steps(tx *store.Tx, tenant, device string) ([]Step, error) {
	rows, err := tx.Query(`SELECT step, at, detail FROM retire_step WHERE tenant = $1 AND device = $2 ORDER BY at, step`, tenant, device)
	return store.Collect(rows, err, func(r *sql.Rows) (s Step, err error) {
		var at int64
		err = r.Scan(&s.Name, &at, &s.Detail)
		s.At = store.Time(at)
		return s, err
	})
}
