// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"database/sql"
	"time"

	"github.com/openthings-platform/openthings/store"
)

const deliveryColumns = `id, tenant, campaign, contact, role, channel, lang, hash, state, attempts, next, ended, answer, bounced, reason, read_at`

func scanDelivery(r scanner) (d Delivery, err error) {
	var next, ended, bounced, read int64
	err = r.Scan(&d.ID, &d.tenant, &d.campaign, &d.Contact, &d.Role, &d.Channel, &d.Language, &d.Address, &d.State, &d.Attempts, &next, &ended, &d.Answer, &bounced, &d.Reason, &read)
	d.Ended, d.Bounced, d.Read = store.Time(ended), store.Time(bounced), store.Time(read)
	if d.State == Waiting {
		d.Next = store.Time(next)
	}
	return d, missing(err, "delivery")
}

func deliveryByID(tx *store.Tx, tenant, id string) (Delivery, error) {
	return scanDelivery(tx.QueryRow(`SELECT `+deliveryColumns+` FROM inform_delivery WHERE tenant = $1 AND id = $2`, tenant, id))
}

// tenantOf is whose delivery an id is; it comes from a link that nobody can make but the platform.
func tenantOf(tx *store.Tx, id string) (tenant string, err error) {
	err = tx.QueryRow(`SELECT tenant FROM inform_delivery WHERE id = $1`, id).Scan(&tenant)
	return tenant, missing(err, "message")
}

// deliveries is a page of those of a campaign; empty state means any.
func deliveries(tx *store.Tx, tenant, campaign string, state State, after string, limit int) ([]Delivery, error) {
	rows, err := tx.Query(`SELECT `+deliveryColumns+` FROM inform_delivery WHERE tenant = $1 AND campaign = $2 AND ($3 = '' OR state = $3) AND id > $4 ORDER BY id LIMIT $5`,
		tenant, campaign, string(state), after, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (Delivery, error) { return scanDelivery(r) })
}

// nextCampaign is the one with something due whose turn it is.
const nextCampaign = `SELECT c.id FROM inform_campaign c WHERE c.state = 'sent' AND c.finished = 0
	AND EXISTS (SELECT 1 FROM inform_delivery d WHERE d.campaign = c.id AND d.state = 'waiting' AND d.next <= $1 AND d.busy <= $1) ORDER BY c.served, c.id LIMIT 1`

// claim takes some deliveries of the campaign whose turn it is, so that nobody else delivers them until then.
func claim(tx *store.Tx, now, until time.Time, limit int) ([]Delivery, error) {
	skip := ""
	if tx.Engine() == store.Postgres {
		skip = " FOR UPDATE SKIP LOCKED"
	}
	var campaign string
	if err := tx.QueryRow(nextCampaign, store.Millis(now)).Scan(&campaign); err != nil {
		return nil, err
	}
	if _, err := tx.Exec(`UPDATE inform_campaign SET served = $2 WHERE id = $1`, campaign, store.Millis(now)); err != nil {
		return nil, err
	}
	rows, err := tx.Query(`UPDATE inform_delivery SET busy = $2 WHERE id IN (SELECT id FROM inform_delivery WHERE campaign = $4 AND state = 'waiting' AND next <= $1 AND busy <= $1
		ORDER BY next, id LIMIT $3`+skip+`) RETURNING `+deliveryColumns, store.Millis(now), store.Millis(until), limit, campaign)
	return store.Collect(rows, err, func(r *sql.Rows) (Delivery, error) { return scanDelivery(r) })
}

// putAttempt records an attempt and gives the delivery back.
func putAttempt(tx *store.Tx, d Delivery) error {
	_, err := tx.Exec(`UPDATE inform_delivery SET state = $3, attempts = $4, next = $5, busy = 0, ended = $6, answer = $7, hash = $8 WHERE tenant = $1 AND id = $2 AND state = 'waiting'`,
		d.tenant, d.ID, string(d.State), d.Attempts, store.Millis(d.Next), store.Millis(d.Ended), d.Answer, d.Address)
	return err
}

// giveBack returns what was taken and not tried.
func giveBack(tx *store.Tx, ds []Delivery, next time.Time) error {
	for _, d := range ds {
		if _, err := tx.Exec(`UPDATE inform_delivery SET busy = 0, next = CASE WHEN next > $3 THEN next ELSE $3 END WHERE tenant = $1 AND id = $2 AND state = 'waiting'`,
			d.tenant, d.ID, store.Millis(next)); err != nil {
			return err
		}
	}
	return nil
}

func putBounce(tx *store.Tx, d Delivery) error {
	_, err := tx.Exec(`UPDATE inform_delivery SET state = 'bounced', bounced = $3, reason = $4 WHERE tenant = $1 AND id = $2`, d.tenant, d.ID, store.Millis(d.Bounced), d.Reason)
	return err
}

// putRead notes the first time only. Who reads what came back elsewhere has read it all the same.
func putRead(tx *store.Tx, tenant, id string, at time.Time) error {
	_, err := tx.Exec(`UPDATE inform_delivery SET read_at = $3, state = CASE WHEN state = 'handed-over' THEN 'read' ELSE state END WHERE tenant = $1 AND id = $2 AND read_at = 0`,
		tenant, id, store.Millis(at))
	return err
}

// done are campaigns of which nothing waits any more and nobody has said so.
const done = `SELECT c.tenant, c.id FROM inform_campaign c WHERE c.state = 'sent' AND c.finished = 0
	AND NOT EXISTS (SELECT 1 FROM inform_delivery d WHERE d.campaign = c.id AND d.state = 'waiting') ORDER BY c.id LIMIT 50`

// finish notes that nothing waits; false if somebody else has.
func finish(tx *store.Tx, c Campaign, at time.Time) (bool, error) {
	n, err := tx.Exec(`UPDATE inform_campaign SET finished = $3 WHERE tenant = $1 AND id = $2 AND finished = 0`, c.tenant, c.ID, store.Millis(at))
	return n == 1, err
}

// tally counts the deliveries of a campaign by state, or by another column.
func tally(tx *store.Tx, tenant, campaign, column string) (map[string]int64, error) {
	rows, err := tx.Query(`SELECT `+column+`, count(*) FROM inform_delivery WHERE tenant = $1 AND campaign = $2 GROUP BY `+column, tenant, campaign)
	out := map[string]int64{}
	_, err = store.Collect(rows, err, func(r *sql.Rows) (n int64, err error) {
		var word string
		err = r.Scan(&word, &n)
		out[word] = n
		return n, err
	})
	return out, err
}

// retry lets what failed wait again, but for contacts that were erased.
func retry(tx *store.Tx, c Campaign, at time.Time) (int64, error) {
	n, err := tx.Exec(`UPDATE inform_delivery SET state = 'waiting', attempts = 0, next = $3, busy = 0, ended = 0 WHERE tenant = $1 AND campaign = $2 AND state = 'failed'
		AND EXISTS (SELECT 1 FROM inform_contact c WHERE c.id = inform_delivery.contact AND c.erased = 0)`, c.tenant, c.ID, store.Millis(at))
	if err == nil && n > 0 {
		_, err = tx.Exec(`UPDATE inform_campaign SET finished = 0 WHERE tenant = $1 AND id = $2`, c.tenant, c.ID)
	}
	return n, err
}
