// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

const campaignColumns = `id, tenant, source, kind, severity, product, case_id, vulnerability, subject, audience, revisions, devices, lang, texts, url,
	template, replaces, state, version, created, actor, sent, sent_by, query, finished`

func scanCampaign(r scanner) (c Campaign, err error) {
	var revisions, texts, query string
	var devices, created, sent, finished int64
	err = r.Scan(&c.ID, &c.tenant, &c.source, &c.Kind, &c.Severity, &c.Product, &c.Case, &c.Vulnerability, &c.Subject, &c.Audience, &revisions, &devices, &c.Language, &texts, &c.URL,
		&c.Template, &c.Replaces, &c.State, &c.Version, &created, &c.Actor, &sent, &c.SentBy, &query, &finished)
	if err != nil {
		return c, missing(err, "campaign")
	}
	c.Revisions, c.Devices = strings.Fields(revisions), devices == 1
	c.Created, c.Sent, c.Finished = store.Time(created), store.Time(sent), store.Time(finished)
	if err := json.Unmarshal([]byte(texts), &c.Texts); err != nil {
		return c, fmt.Errorf("campaign: %w", err)
	}
	if query != "" {
		c.Query = &Query{}
		err = json.Unmarshal([]byte(query), c.Query)
	}
	return c, err
}

// insertCampaign adds one; false means that what it was made from has made one before.
func insertCampaign(tx *store.Tx, c Campaign) (fresh bool, err error) {
	texts, err := json.Marshal(c.Texts)
	if err != nil {
		return false, fmt.Errorf("campaign: %w", err)
	}
	n, err := tx.Exec(`INSERT INTO inform_campaign(`+campaignColumns+`, served) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,
		$16, $17, $18, $19, $20, $21, 0, '', '', 0, 0) ON CONFLICT (tenant, source) DO NOTHING`,
		c.ID, c.tenant, c.source, c.Kind, c.Severity, c.Product, c.Case, c.Vulnerability, c.Subject, c.Audience, strings.Join(c.Revisions, " "), flag(c.Devices), c.Language, string(texts), c.URL,
		c.Template, c.Replaces, c.State, c.Version, store.Millis(c.Created), c.Actor)
	return n == 1, err
}

// updateDraft replaces the words of a draft that is still what was read.
func updateDraft(tx *store.Tx, c Campaign) error {
	texts, err := json.Marshal(c.Texts)
	if err != nil {
		return fmt.Errorf("campaign: %w", err)
	}
	n, err := tx.Exec(`UPDATE inform_campaign SET kind = $4, severity = $5, product = $6, case_id = $7, vulnerability = $8, subject = $9, audience = $10, revisions = $11, devices = $12,
		lang = $13, texts = $14, url = $15, version = version + 1 WHERE tenant = $1 AND id = $2 AND version = $3 AND state = 'draft'`,
		c.tenant, c.ID, c.Version, c.Kind, c.Severity, c.Product, c.Case, c.Vulnerability, c.Subject, c.Audience, strings.Join(c.Revisions, " "), flag(c.Devices), c.Language, string(texts), c.URL)
	if err == nil && n == 0 {
		err = errChanged(tx, c)
	}
	return err
}

// moveDraft ends a draft that is still what was read: sent or discarded.
func moveDraft(tx *store.Tx, c Campaign, to, actor string, at time.Time, q *Query) error {
	query := ""
	if q != nil {
		b, err := json.Marshal(q)
		if err != nil {
			return fmt.Errorf("campaign: %w", err)
		}
		query = string(b)
	}
	n, err := tx.Exec(`UPDATE inform_campaign SET state = $4, sent = $5, sent_by = $6, query = $7 WHERE tenant = $1 AND id = $2 AND version = $3 AND state = 'draft'`,
		c.tenant, c.ID, c.Version, to, store.Millis(at), actor, query)
	if err == nil && n == 0 {
		err = errChanged(tx, c)
	}
	return err
}

// errChanged says why a draft is not what was read any more.
func errChanged(tx *store.Tx, c Campaign) error {
	now, err := campaignByID(tx, c.tenant, c.ID)
	switch {
	case err != nil:
		return err
	case now.State == Sent:
		return problem.Forbidden(RuleSent, "The campaign was sent at %s by %s.", now.Sent.Format(time.RFC3339), now.SentBy).Hint("What was sent stays. Send another one to correct it.")
	case now.State == Discarded:
		return problem.Conflict("The draft was discarded.")
	}
	return problem.Conflict("The draft was changed since you read it.").Hint("Look again and repeat.")
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func campaignByID(tx *store.Tx, tenant, id string) (Campaign, error) {
	c, err := scanCampaign(tx.QueryRow(`SELECT `+campaignColumns+` FROM inform_campaign WHERE tenant = $1 AND id = $2`, tenant, id))
	if err != nil {
		return c, err
	}
	c.Documents, err = documents(tx, tenant, id)
	return c, err
}

// list says which campaigns are wanted, the newest first.
type list struct {
	Before   string
	Limit    int
	Case     string
	Whole    bool
	Products []string
}

// unfinished counts the drafts and the campaigns on their way among those of the products, or of all.
func unfinished(tx *store.Tx, tenant string, whole bool, products []string) (drafts, sending int64, err error) {
	q, args := `SELECT coalesce(sum(CASE WHEN state = $2 THEN 1 END), 0), coalesce(sum(CASE WHEN state = $3 AND finished = 0 THEN 1 END), 0)
		FROM inform_campaign WHERE tenant = $1`, []any{tenant, Draft, Sent}
	if !whole {
		var in string
		in, args = store.In(args, products)
		q += ` AND product IN ` + in
	}
	return drafts, sending, tx.QueryRow(q, args...).Scan(&drafts, &sending)
}

func campaigns(tx *store.Tx, tenant string, l list) ([]Campaign, error) {
	q, args := `SELECT `+campaignColumns+` FROM inform_campaign WHERE tenant = $1 AND ($2 = '' OR id < $2)`, []any{tenant, l.Before}
	if l.Case != "" {
		args = append(args, l.Case)
		q += fmt.Sprintf(` AND case_id = $%d`, len(args))
	}
	if !l.Whole {
		var in string
		in, args = store.In(args, l.Products)
		q += ` AND product IN ` + in
	}
	args = append(args, l.Limit)
	rows, err := tx.Query(q+fmt.Sprintf(` ORDER BY id DESC LIMIT $%d`, len(args)), args...)
	return store.Collect(rows, err, func(r *sql.Rows) (Campaign, error) { return scanCampaign(r) })
}

func insertDocuments(tx *store.Tx, c Campaign, docs []Document) error {
	for i, d := range docs {
		if d.Body == nil {
			d.Body = []byte{}
		}
		if _, err := tx.Exec(`INSERT INTO inform_document(campaign, n, tenant, kind, name, url, sha256, size, body) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
			c.ID, i+1, c.tenant, d.Kind, d.Name, d.URL, d.SHA256, d.Size, d.Body); err != nil {
			return err
		}
	}
	return nil
}

func documents(tx *store.Tx, tenant, campaign string) ([]Document, error) {
	rows, err := tx.Query(`SELECT kind, name, url, sha256, size, body FROM inform_document WHERE tenant = $1 AND campaign = $2 ORDER BY n`, tenant, campaign)
	return store.Collect(rows, err, func(r *sql.Rows) (d Document, err error) {
		return d, r.Scan(&d.Kind, &d.Name, &d.URL, &d.SHA256, &d.Size, &d.Body)
	})
}

// audience is the condition on contacts c behind "c.tenant = $1", with its arguments.
func (q Query) audience(args []any) (string, []any) {
	if q.Product == "" {
		return ` AND c.erased = 0`, args
	}
	args = append(args, q.Product)
	of := fmt.Sprintf(`h.tenant = $1 AND h.product = $%d`, len(args))
	if len(q.Revisions) > 0 {
		var in string
		in, args = store.In(args, q.Revisions)
		of += ` AND (h.revision = '' OR h.revision IN ` + in + `)`
	}
	return ` AND c.erased = 0 AND c.id IN (SELECT h.contact FROM inform_holding h WHERE ` + of + `)`, args
}

type group struct {
	role, channel, lang string
	n                   int64
}

func countAudience(tx *store.Tx, tenant string, q Query) ([]group, error) {
	where, args := q.audience([]any{tenant})
	rows, err := tx.Query(`SELECT c.role, c.channel, c.lang, count(*) FROM inform_contact c WHERE c.tenant = $1`+where+` GROUP BY c.role, c.channel, c.lang`, args...)
	return store.Collect(rows, err, func(r *sql.Rows) (g group, err error) { return g, r.Scan(&g.role, &g.channel, &g.lang, &g.n) })
}

// insertDeliveries writes one delivery for each contact that is meant, in the language that it gets.
func insertDeliveries(tx *store.Tx, c Campaign, q Query, at time.Time) (int64, error) {
	args := []any{c.tenant, c.ID, store.Millis(at), c.Language}
	in, args := store.In(args, c.Languages())
	where, args := q.audience(args)
	return tx.Exec(`INSERT INTO inform_delivery(id, tenant, campaign, contact, role, channel, lang, hash, state, attempts, next, busy, ended, answer, bounced, reason, read_at)
		SELECT 'idl_' || substr($2, 5) || '_' || substr(c.id, 5), c.tenant, $2, c.id, c.role, c.channel, CASE WHEN c.lang IN `+in+` THEN c.lang ELSE $4 END, c.hash,
			'waiting', 0, $3, 0, 0, '', 0, '', 0 FROM inform_contact c WHERE c.tenant = $1`+where, args...)
}

func insertJob(tx *store.Tx, c Campaign, job string) error {
	_, err := tx.Exec(`INSERT INTO inform_job(campaign, job, tenant) VALUES ($1, $2, $3)`, c.ID, job, c.tenant)
	return err
}

func jobsOf(tx *store.Tx, tenant, campaign string) ([]string, error) {
	rows, err := tx.Query(`SELECT job FROM inform_job WHERE tenant = $1 AND campaign = $2 ORDER BY job`, tenant, campaign)
	return store.Collect(rows, err, func(r *sql.Rows) (id string, err error) { return id, r.Scan(&id) })
}
