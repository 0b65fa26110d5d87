// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/record"
)

// system is the actor of what follows by itself.
const system = "system"

const decisionColumns = `d.id, d.product, d.ident, d.component_id, d.release_id, d.seq, d.status, d.justification, d.evidence, d.action, d.origin, d.basis,
	d.decided_by, d.at, d.until, d.why`

func scanDecision(r *sql.Rows, more ...any) (d Decision, err error) {
	var at, until int64
	var text string
	err = r.Scan(append([]any{&d.ID, &d.Product, &d.ident, &d.Component, &d.Release, &d.seq, &d.Status, &d.Justification, &d.Evidence, &d.Action, &d.Origin, &text,
		&d.By, &at, &until, &d.Why}, more...)...)
	d.At = store.Time(at)
	if until != forever {
		d.Until = store.Time(until)
	}
	return d, cmp.Or(err, json.Unmarshal([]byte(text), &d.basis))
}

// book reads decisions, and the evidence that they rest on, within one transaction.
type book struct {
	s        *Service
	tx       *store.Tx
	tenant   string
	evidence map[string][]sbom.EvidenceState // nil: not read yet
}

func (s *Service) book(tx *store.Tx, tenant string) *book { return &book{s: s, tx: tx, tenant: tenant} }

// on reads the decisions made about any name of a vulnerability; product "" means all.
func (b *book) on(group, product string) (decided, error) {
	rows, err := b.tx.Query(`SELECT `+decisionColumns+` FROM vuln_member m CROSS JOIN vuln_decision d
		WHERE d.tenant = m.tenant AND d.ident = m.ident AND m.tenant = $1 AND m.group_id = $2 AND (d.product = $3 OR $3 = '') ORDER BY d.product, d.seq`, b.tenant, group, product)
	list, err := store.Collect(rows, err, func(r *sql.Rows) (d Decision, err error) { return scanDecision(r) })
	if err != nil || len(list) == 0 {
		return decided{}, err
	}
	err = b.readEvidence()
	return decided{list, b.evidence}, err
}

// all reads every decision of the tenant, by group.
func (b *book) all() (map[string]decided, error) {
	out := map[string]decided{}
	rows, err := b.tx.Query(`SELECT `+decisionColumns+`, m.group_id FROM vuln_decision d JOIN vuln_member m ON m.tenant = d.tenant AND m.ident = d.ident
		WHERE d.tenant = $1 ORDER BY m.group_id, d.product, d.seq`, b.tenant)
	if _, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var group string
		d, err := scanDecision(r, &group)
		out[group] = decided{list: append(out[group].list, d)}
		return struct{}{}, err
	}); err != nil || len(out) == 0 {
		return out, err
	}
	err = b.readEvidence()
	for group, l := range out {
		out[group] = decided{l.list, b.evidence}
	}
	return out, err
}

func (b *book) readEvidence() (err error) {
	if b.evidence == nil {
		b.evidence, err = b.s.cfg.SBOM.EvidenceHistory(b.tx, b.tenant)
	}
	return err
}

// attempts is how often a decision is tried that another node's decision came between.
const attempts = 5

// Decide appends a decision on the vulnerability known by ident and returns what was appended, one per component. Two that
// are made at once both stay, in the order in which they were written; who names what was seen is told of the other.
func (s *Service) Decide(ctx context.Context, tenant, actor, ident string, in Deciding) ([]Decision, error) {
	for n := 1; ; n++ {
		out, err := s.decide(ctx, tenant, actor, ident, in)
		if n < attempts && store.IsUnique(err) {
			continue
		}
		if err == nil {
			s.lists.forget(tenant)
			s.told.forget(tenant)
		}
		return out, err
	}
}

func (s *Service) decide(ctx context.Context, tenant, actor, ident string, in Deciding) ([]Decision, error) {
	var out []Decision
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		out = nil
		in := in
		group, err := s.group(tx, tenant, ident)
		if err != nil {
			return err
		}
		if err := s.takeOver(tx, tenant, group, &in); err != nil {
			return err
		}
		if err := in.check(s.cfg.Clock.Now()); err != nil {
			return err
		}
		earlier, err := s.book(tx, tenant).on(group.ID, in.Product)
		if err != nil {
			return err
		}
		if err := in.compare(earlier.list); err != nil {
			return err
		}
		c, err := s.concerned(tx, tenant, group.ID, in)
		if err != nil {
			return err
		}
		evidence, err := s.evidenceOf(tx, tenant, c.releases)
		if err != nil {
			return err
		}
		if in.rests != nil {
			evidence = in.rests
		}
		for _, component := range sortedKeys(c.said) {
			d := Decision{ID: store.NewID("dec"), Product: in.Product, Component: component, Release: in.Release, Status: in.Status,
				Justification: in.Justification, Evidence: in.Evidence, Action: in.Action, Origin: in.Origin, By: actor, At: store.Time(s.now()), ident: group.Name,
				basis: basis{Known: true, Exploited: group.Exploited, Said: c.said[component], Evidence: evidence}}
			if !in.Expires.IsZero() {
				d.Until, d.Why = store.Time(store.Millis(in.Expires)), Expired
			}
			if err := s.putDecision(tx, tenant, &d); err != nil {
				return err
			}
			if err := audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "vulnerability.decided", Subject: d.Product,
				Data: map[string]any{"vulnerability": group.Name, "decision": d}}); err != nil {
				return err
			}
			out = append(out, d)
		}
		return s.settleReleases(tx, tenant, c.releases)
	})
	return out, err
}

// compare refuses to decide past a decision that the person has not seen.
func (d *Deciding) compare(earlier []Decision) error {
	if d.Seen == nil {
		return nil
	}
	newest := Decision{}
	if n := len(earlier); n > 0 {
		newest = earlier[n-1] // of one product, in the order of seq
	}
	if newest.ID == *d.Seen {
		return nil
	}
	return problem.Conflict("Somebody decided meanwhile: %s on %s, %q.", newest.Status, newest.At.UTC().Format("2006-01-02 15:04:05 UTC"), newest.Evidence).At("seen").
		Hint("Look at it, and decide again if you still think otherwise.")
}

func (s *Service) putDecision(tx *store.Tx, tenant string, d *Decision) error {
	text, err := json.Marshal(d.basis)
	if err != nil {
		return err
	}
	until := int64(forever)
	if !d.Until.IsZero() {
		until = store.Millis(d.Until)
		if err := s.cfg.DB.Enqueue(tx, jobExpire, d.ID, d.Until, expireJob{tenant, d.ident}); err != nil {
			return err
		}
	}
	return tx.QueryRow(`INSERT INTO vuln_decision (id, tenant, product, ident, component_id, release_id, seq, status, justification, evidence, action, origin, basis, decided_by, at, until, why)
		SELECT $1, $2, $3, $4, $5, $6, (SELECT coalesce(max(seq), 0) + 1 FROM vuln_decision WHERE tenant = $2 AND product = $3), $7, $8, $9, $10, $11, $12, $13, $14, $15, $16
		RETURNING seq`, d.ID, tenant, d.Product, d.ident, d.Component, d.Release, string(d.Status), d.Justification, d.Evidence, d.Action, d.Origin, string(text),
		d.By, store.Millis(d.At), until, string(d.Why)).Scan(&d.seq)
}

// concern is what a decision is about: releases, and the components with what records say about each.
type concern struct {
	releases []string
	said     map[string][]string
}

// concerned finds the components and releases that a decision is about. A decision about nothing is refused.
func (s *Service) concerned(tx *store.Tx, tenant, group string, in Deciding) (concern, error) {
	c := concern{said: map[string][]string{}}
	found, err := s.findings(tx, tenant, group, s.now())
	if err != nil {
		return c, err
	}
	releases := map[string]bool{}
	for _, f := range found {
		releases[f.release] = true
	}
	about, err := s.releases(tx, tenant, sortedKeys(releases))
	if err != nil {
		return c, err
	}
	for _, f := range found {
		if about[f.release].Product == in.Product && (in.Component == "" || in.Component == f.component) && (in.Release == "" || in.Release == f.release) {
			c.said[f.component] = append(c.said[f.component], wordsOf(f.State, f.Fixed))
			c.releases = append(c.releases, f.release)
		}
	}
	for component, words := range c.said {
		slices.Sort(words)
		c.said[component] = slices.Compact(words)
	}
	slices.Sort(c.releases)
	c.releases = slices.Compact(c.releases)
	if len(c.said) == 0 {
		err = problem.NotFound("No release of the product has an open finding of this vulnerability that the decision could be about.")
	}
	return c, err
}

// evidenceOf are the distinct hashes of the evidence that the releases have now.
func (s *Service) evidenceOf(tx *store.Tx, tenant string, releases []string) ([]string, error) {
	history, err := s.cfg.SBOM.EvidenceHistory(tx, tenant)
	if err != nil {
		return nil, err
	}
	l := decided{evidence: history}
	hashes := map[string]bool{}
	for _, r := range releases {
		hashes[l.evidenceAt(r, s.now())] = true
	}
	return sortedKeys(hashes), nil
}

// reopen ends the decisions on a vulnerability that no longer rest on what is known. They stay and are proposed again.
func (s *Service) reopen(tx *store.Tx, tenant, group string) error {
	now := s.now()
	rows, err := tx.Query(`SELECT `+decisionColumns+` FROM vuln_member m CROSS JOIN vuln_decision d
		WHERE d.tenant = m.tenant AND d.ident = m.ident AND m.tenant = $1 AND m.group_id = $2 AND d.until > $3 ORDER BY d.product, d.seq`, tenant, group, now)
	standing, err := store.Collect(rows, err, func(r *sql.Rows) (d Decision, err error) { return scanDecision(r) })
	if err != nil || len(standing) == 0 {
		return err
	}
	var exploited int64
	if err := tx.QueryRow(`SELECT exploited FROM vuln_group WHERE tenant = $1 AND id = $2`, tenant, group).Scan(&exploited); err != nil {
		return err
	}
	words := map[string][]string{}
	rows, err = tx.Query(`SELECT h.component_id, h.state, h.fixed FROM vuln_grouped g CROSS JOIN vuln_hit h
		WHERE h.tenant = g.tenant AND h.record_id = g.record_id AND g.tenant = $1 AND g.group_id = $2 AND h.until = 9223372036854775807`, tenant, group)
	if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var component, state, fixed string
		err := r.Scan(&component, &state, &fixed)
		words[component] = append(words[component], wordsOf(record.State(state), fixed))
		return struct{}{}, err
	}); err != nil {
		return err
	}
	ended := false
	for _, d := range standing {
		why := d.shaken(exploited > 0, words[d.Component])
		if why == "" {
			continue
		}
		ended = true
		if _, err := tx.Exec(`UPDATE vuln_decision SET until = $3, why = $4 WHERE tenant = $1 AND id = $2 AND until > $3`, tenant, d.ID, now, string(why)); err != nil {
			return err
		}
		if err := s.logReopened(tx, tenant, d.ident, d, why); err != nil {
			return err
		}
	}
	if !ended {
		return nil
	}
	return s.stirGroup(tx, tenant, group)
}

func (s *Service) logReopened(tx *store.Tx, tenant, name string, d Decision, why Lapse) error {
	return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: system, Kind: "vulnerability.reopened", Subject: d.Product,
		Data: map[string]any{"vulnerability": name, "decision": d.ID, "component": d.Component, "release": d.Release, "status": d.Status, "why": why}})
}

// reopenRecords is reopen for the vulnerabilities of records whose hits have changed.
func (s *Service) reopenRecords(tx *store.Tx, tenant string, records []string) error {
	groups := map[string]bool{} // with a decision that stands
	for part := range slices.Chunk(records, 256) {
		list, args := store.In([]any{tenant, s.now()}, part)
		rows, err := tx.Query(`SELECT r.group_id FROM vuln_grouped r CROSS JOIN vuln_member m CROSS JOIN vuln_decision d
			WHERE r.tenant = $1 AND d.until > $2 AND r.record_id IN `+list+`
			AND m.tenant = r.tenant AND m.group_id = r.group_id AND d.tenant = m.tenant AND d.ident = m.ident`, args...)
		if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
			var group string
			err := r.Scan(&group)
			groups[group] = true
			return struct{}{}, err
		}); err != nil {
			return err
		}
	}
	for _, group := range sortedKeys(groups) {
		if err := s.reopen(tx, tenant, group); err != nil {
			return err
		}
	}
	return nil
}

// jobExpire comes when the date of a decision has passed. Its key is the decision. That the decision has ended follows
// from the date alone; the job tells the log and whoever waits for the gate.
const jobExpire = "vuln.expire"

type expireJob struct {
	Tenant string `json:"tenant"`
	Ident  string `json:"ident"`
}

func (s *Service) expire(ctx context.Context, j store.Job) error {
	var in expireJob
	if err := j.Decode(&in); err != nil {
		return err
	}
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		rows, err := tx.Query(`SELECT `+decisionColumns+` FROM vuln_decision d WHERE d.tenant = $1 AND d.id = $2 AND d.why = $3 AND d.until <= $4`,
			in.Tenant, j.Key, string(Expired), s.now())
		list, err := store.Collect(rows, err, func(r *sql.Rows) (d Decision, err error) { return scanDecision(r) })
		if err != nil || len(list) == 0 {
			return err // it ended for another reason before
		}
		if err := s.logReopened(tx, in.Tenant, in.Ident, list[0], Expired); err != nil {
			return err
		}
		group, err := groupOf(tx, in.Tenant, in.Ident)
		if err != nil || group == "" {
			return err
		}
		return s.stirGroup(tx, in.Tenant, group)
	})
	if err != nil {
		return err
	}
	return s.settleStirred(ctx, in.Tenant)
}

// closeFixed notes which findings of the release before this one ended because this one carries a version with the fix.
func (s *Service) closeFixed(ctx context.Context, tenant, release string) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		closed, err := s.fixedIn(tx, tenant, release)
		if err != nil {
			return err
		}
		for _, c := range closed {
			n, err := tx.Exec(`INSERT INTO vuln_closed (tenant, release_id, ident, component_id, product, before, fixed, at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING`,
				tenant, release, c.ident, c.Component, c.product, c.Before, c.Fixed, s.now())
			if err != nil {
				return err
			}
			if n == 0 {
				continue
			}
			if err := audit.Append(tx, audit.Entry{Tenant: tenant, Actor: system, Kind: "vulnerability.closed", Subject: release,
				Data: map[string]any{"vulnerability": c.ident, "product": c.product, "component": c.Component, "before": c.Before, "fixed": c.Fixed, "why": "the release carries a version with the fix"}}); err != nil {
				return err
			}
		}
		return nil
	})
}

// Closed is a vulnerability that a release no longer has, because its version of the component has the fix.
type Closed struct {
	Release   string    `json:"release"`
	Component string    `json:"component"`        // with the fix
	Before    string    `json:"before_component"` // the component of the release before
	Fixed     string    `json:"fixed_in"`         // the version with which the fix came
	At        time.Time `json:"at"`

	ident, product string
}

// fixedIn compares the release with the one before it in its product: a component of the same name, known to be affected
// up to a version that the new one has reached, and with no open hit of the same vulnerability.
func (s *Service) fixedIn(tx *store.Tx, tenant, release string) ([]Closed, error) {
	about, err := s.releases(tx, tenant, []string{release})
	if err != nil {
		return nil, err
	}
	product := about[release].Product
	var before string
	err = tx.QueryRow(`SELECT release_id FROM vuln_release WHERE tenant = $1 AND product = $2 AND release_id < $3 ORDER BY release_id DESC LIMIT 1`, tenant, product, release).Scan(&before)
	if errors.Is(err, store.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	was, err := s.hitsIn(tx, tenant, before)
	if err != nil || len(was) == 0 {
		return nil, err
	}
	is, err := s.hitsIn(tx, tenant, release)
	if err != nil {
		return nil, err
	}
	old, err := s.named(tx, tenant, before)
	if err != nil {
		return nil, err
	}
	fresh, err := s.named(tx, tenant, release)
	if err != nil {
		return nil, err
	}
	open := map[string]bool{} // vulnerability of a name in the new release
	for _, h := range is {
		for _, k := range fresh.of[h.component] {
			open[h.ident+"\x00"+k.Space+"\x00"+k.Name] = true
		}
	}
	var out []Closed
	seen := map[Closed]bool{}
	for _, h := range was {
		for _, k := range old.of[h.component] {
			if h.fixed == "" || open[h.ident+"\x00"+k.Space+"\x00"+k.Name] {
				continue
			}
			for _, now := range fresh.by[[2]string{k.Space, k.Name}] {
				c := Closed{Release: release, Component: now.Component, Before: h.component, Fixed: h.fixed, ident: h.ident, product: product}
				if now.Component != h.component && record.Reached(k.Space, now.Version, h.fixed) && !seen[c] {
					seen[c] = true
					out = append(out, c)
				}
			}
		}
	}
	return out, nil
}

// openIn is an open hit of a component, with the vulnerability's name.
type openIn struct{ component, ident, fixed string }

func (s *Service) hitsIn(tx *store.Tx, tenant, release string) ([]openIn, error) {
	names, err := s.named(tx, tenant, release)
	if err != nil {
		return nil, err
	}
	var out []openIn
	for part := range slices.Chunk(sortedKeys(names.of), 128) {
		list, args := store.In([]any{tenant}, part)
		rows, err := tx.Query(`SELECT h.component_id, v.name, h.fixed FROM vuln_hit h CROSS JOIN vuln_grouped g CROSS JOIN vuln_group v
			WHERE g.tenant = h.tenant AND g.record_id = h.record_id AND v.tenant = g.tenant AND v.id = g.group_id AND h.tenant || '' = $1 AND h.until = 9223372036854775807 AND h.component_id IN `+list+` ORDER BY v.name, h.component_id, h.fixed`, args...)
		some, err := store.Collect(rows, err, func(r *sql.Rows) (h openIn, err error) { return h, r.Scan(&h.component, &h.ident, &h.fixed) })
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
	}
	return out, nil
}

// names are the components of a release, by id and by name.
type names struct {
	of map[string][]sbom.Key
	by map[[2]string][]sbom.Key
}

func (s *Service) named(tx *store.Tx, tenant, release string) (names, error) {
	n := names{map[string][]sbom.Key{}, map[[2]string][]sbom.Key{}}
	keys, err := s.cfg.SBOM.Keys(tx, tenant, release)
	for _, k := range keys {
		n.of[k.Component] = append(n.of[k.Component], k)
		n.by[[2]string{k.Space, k.Name}] = append(n.by[[2]string{k.Space, k.Name}], k)
	}
	return n, err
}
