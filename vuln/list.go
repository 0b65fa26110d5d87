// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/record"
)

// Summary is one vulnerability with what it means for each product: a row of the matrix.
type Summary struct {
	Group
	Devices  int64            `json:"devices"` // exposed
	Products []ProductSummary `json:"products"`
}

// ProductSummary is one vulnerability in one product.
type ProductSummary struct {
	Product  string `json:"product"`
	Releases int    `json:"releases"` // with an open finding
	FixedIn  string `json:"fixed_in,omitempty" doc:"The version of the component that has the fix; empty: no fix is known"`
	Devices  int64  `json:"devices"` // exposed
	Status   Status `json:"status" doc:"The gravest decision that applies; undecided where one is owed"`
}

// Undecided is shown where a finding has no decision yet; it is none of the statuses of VEX.
const Undecided Status = "undecided"

// gravity orders statuses: what still needs a person comes first.
var gravity = []Status{Undecided, DecidedAffected, UnderInvestigation, Fixed, NotAffected}

// Cursor is where a page of summaries goes on: the exploited first, then by name.
func (s Summary) Cursor() string {
	rank := 1
	if s.Exploited {
		rank = 0
	}
	return fmt.Sprintf("%d %s %s", rank, s.Name, s.ID)
}

// List returns every vulnerability with an open finding in a visible product, the exploited first.
func (s *Service) List(ctx context.Context, tenant string, visible func(product string) bool) ([]Summary, error) {
	counts, err := s.cfg.Fleet.CountByRelease(ctx, tenant)
	if err != nil {
		return nil, err
	}
	type row struct {
		group                              Group
		release, component, product, fixed string
	}
	var open []row
	decided := map[string]decisionList{}
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		rows, err := tx.Query(`SELECT g.id, g.name, g.summary, g.exploited, f.release_id, f.component_id, r.product, f.fixed FROM finding f
			JOIN vuln_group g ON g.tenant = f.tenant AND g.id = f.group_id
			JOIN vuln_release r ON r.tenant = f.tenant AND r.release_id = f.release_id
			WHERE f.tenant = $1 AND f.closed_at = 9223372036854775807 ORDER BY g.id, r.product, f.release_id`, tenant)
		if open, err = store.Collect(rows, err, func(r *sql.Rows) (x row, err error) {
			var exploited int64
			err = r.Scan(&x.group.ID, &x.group.Name, &x.group.Summary, &exploited, &x.release, &x.component, &x.product, &x.fixed)
			x.group.Exploited, x.group.ExploitedKnown = exploited > 0, store.Time(exploited)
			return x, err
		}); err != nil {
			return err
		}
		rows, err = tx.Query(`SELECT group_id, id, product, component_id, release_id, seq, status, justification, evidence, decided_by, at FROM decision
			WHERE tenant = $1 ORDER BY group_id, product, seq`, tenant)
		_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
			var group string
			var d Decision
			var at int64
			err := r.Scan(&group, &d.ID, &d.Product, &d.Component, &d.Release, &d.seq, &d.Status, &d.Justification, &d.Evidence, &d.By, &at)
			d.At = store.Time(at)
			decided[group] = append(decided[group], d)
			return struct{}{}, err
		})
		return err
	})
	if err != nil {
		return nil, err
	}

	var out []Summary
	exposed := map[[2]string]bool{} // group, release: counted already
	listed := map[[2]string]bool{}
	for _, x := range open { // ordered by group, then product
		if !visible(x.product) {
			continue
		}
		if len(out) == 0 || out[len(out)-1].ID != x.group.ID {
			out = append(out, Summary{Group: x.group})
		}
		sum := &out[len(out)-1]
		if n := len(sum.Products); n == 0 || sum.Products[n-1].Product != x.product {
			sum.Products = append(sum.Products, ProductSummary{Product: x.product, Status: NotAffected})
		}
		p := &sum.Products[len(sum.Products)-1]
		key := [2]string{x.group.ID, x.release}
		if !listed[key] {
			listed[key] = true
			p.Releases++
		}
		p.FixedIn = cmp.Or(p.FixedIn, x.fixed)
		d := decided[x.group.ID].at(x.product, x.component, x.release, forever)
		status := Undecided
		if d != nil {
			status = d.Status
		}
		if slices.Index(gravity, status) < slices.Index(gravity, p.Status) {
			p.Status = status
		}
		if (d == nil || !d.harmless()) && !exposed[key] {
			exposed[key] = true
			p.Devices += counts[x.release]
			sum.Devices += counts[x.release]
		}
	}
	slices.SortFunc(out, func(a, b Summary) int { return cmp.Compare(a.Cursor(), b.Cursor()) })
	return out, nil
}

// Detail is all that is known about one vulnerability.
type Detail struct {
	Group
	Names     []string     `json:"names"` // every name, the records' own among them
	Text      string       `json:"text,omitempty"`
	Links     []string     `json:"links"`
	Sources   []Source     `json:"sources"`
	Findings  []Finding    `json:"findings"`
	Decisions decisionList `json:"decisions"`
}

// Source is one content of one record.
type Source struct {
	Record    string    `json:"record"`
	Feed      string    `json:"feed"`
	Hash      string    `json:"sha256"`
	Seen      time.Time `json:"seen"`
	Withdrawn time.Time `json:"withdrawn,omitzero"`
	Review    string    `json:"review,omitempty" doc:"What the record says of itself: reviewed or unreviewed"`
	Current   bool      `json:"current"`
}

// Finding is a vulnerability of one component of one release, from when to when.
type Finding struct {
	Release    string       `json:"release"`
	Product    string       `json:"product"`
	Version    string       `json:"version"`
	Component  string       `json:"component"`
	Name       string       `json:"component_name"`
	Record     string       `json:"record"`
	State      record.State `json:"state"`
	Reason     string       `json:"reason,omitempty"`
	Rule       string       `json:"rule"`
	Confidence string       `json:"confidence"`
	FirstSeen  time.Time    `json:"first_seen"`
	Closed     time.Time    `json:"closed,omitzero"`
	Why        string       `json:"why_closed,omitempty"`
}

// Only keeps the products that the caller may see.
func (d *Detail) Only(visible func(product string) bool) {
	d.Findings = slices.DeleteFunc(d.Findings, func(f Finding) bool { return !visible(f.Product) })
	d.Decisions = slices.DeleteFunc(d.Decisions, func(x Decision) bool { return !visible(x.Product) })
}

// maxFindings is how many findings a detail lists at most, the newest first.
const maxFindings = 1000

// Get returns what is known about the vulnerability with this name.
func (s *Service) Get(ctx context.Context, tenant, ident string) (Detail, error) {
	d := Detail{Links: []string{}, Findings: []Finding{}, Decisions: decisionList{}}
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		var err error
		if d.Group, err = s.group(tx, tenant, ident); err != nil {
			return err
		}
		rows, err := tx.Query(`SELECT ident FROM vuln_member WHERE tenant = $1 AND group_id = $2 ORDER BY ident`, tenant, d.ID)
		if d.Names, err = store.Collect(rows, err, func(r *sql.Rows) (n string, err error) { return n, r.Scan(&n) }); err != nil {
			return err
		}
		if err := s.sources(tx, tenant, &d); err != nil {
			return err
		}
		rows, err = tx.Query(`SELECT f.release_id, r.product, r.version, f.component_id, coalesce((SELECT min(p.name) FROM release_part u JOIN part p ON p.id = u.part_id
				WHERE u.component_id = f.component_id AND u.tenant = f.tenant AND u.release_id = f.release_id), ''), f.record_id, f.state, f.reason, f.rule, f.confidence,
			f.first_seen, f.closed_at, f.why_closed FROM finding f JOIN vuln_release r ON r.tenant = f.tenant AND r.release_id = f.release_id
			WHERE f.tenant = $1 AND f.group_id = $2 ORDER BY f.first_seen DESC, f.id DESC LIMIT $3`, tenant, d.ID, maxFindings)
		found, err := store.Collect(rows, err, func(r *sql.Rows) (f Finding, err error) {
			var first, closed int64
			err = r.Scan(&f.Release, &f.Product, &f.Version, &f.Component, &f.Name, &f.Record, &f.State, &f.Reason, &f.Rule, &f.Confidence, &first, &closed, &f.Why)
			f.FirstSeen = store.Time(first)
			if closed != forever {
				f.Closed = store.Time(closed)
			}
			return f, err
		})
		if err != nil {
			return err
		}
		d.Findings = append(d.Findings, found...)
		decided, err := s.decisions(tx, tenant, d.ID, "")
		d.Decisions = append(d.Decisions, decided...)
		return err
	})
	return d, err
}

// sources reads every content of every record of the group; the text is that of the first current one.
func (s *Service) sources(tx *store.Tx, tenant string, d *Detail) error {
	rows, err := tx.Query(`SELECT v.id, v.source, v.content_hash, v.seen, v.withdrawn, v.reviewed, v.is_current, v.body FROM vuln_record v
		JOIN vuln_member m ON m.tenant = v.tenant AND m.ident = v.id WHERE v.tenant = $1 AND m.group_id = $2 ORDER BY v.id, v.seen`, tenant, d.ID)
	d.Sources, err = store.Collect(rows, err, func(r *sql.Rows) (x Source, err error) {
		var seen, withdrawn, current int64
		var body string
		if err := r.Scan(&x.Record, &x.Feed, &x.Hash, &seen, &withdrawn, &x.Review, &current, &body); err != nil {
			return x, err
		}
		x.Seen, x.Withdrawn, x.Current = store.Time(seen), store.Time(withdrawn), current == 1
		if !x.Current || d.Text != "" {
			return x, nil
		}
		var rec record.Record
		if err := json.Unmarshal([]byte(body), &rec); err != nil {
			return x, fmt.Errorf("record %s: %w", x.Record, err)
		}
		d.Text = rec.Details
		for _, ref := range rec.References {
			d.Links = append(d.Links, ref.URL)
		}
		return x, nil
	})
	return err
}

// OpenFinding is an open finding of a release with the decision that applies to it.
type OpenFinding struct {
	Group
	Finding
	Status Status
}

// OpenFindings lists what is open in a release, the exploited first.
func (s *Service) OpenFindings(ctx context.Context, tenant, release string) ([]OpenFinding, error) {
	var out []OpenFinding
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		rows, err := tx.Query(`SELECT g.id, g.name, g.summary, g.exploited, r.product, r.version, f.component_id, coalesce((SELECT min(p.name) FROM release_part u JOIN part p ON p.id = u.part_id
				WHERE u.component_id = f.component_id AND u.tenant = f.tenant AND u.release_id = f.release_id), ''), f.record_id, f.state, f.reason, f.first_seen
			FROM finding f JOIN vuln_group g ON g.tenant = f.tenant AND g.id = f.group_id
			JOIN vuln_release r ON r.tenant = f.tenant AND r.release_id = f.release_id
			WHERE f.tenant = $1 AND f.release_id = $2 AND f.closed_at = 9223372036854775807 ORDER BY g.name, f.component_id`, tenant, release)
		if out, err = store.Collect(rows, err, func(r *sql.Rows) (f OpenFinding, err error) {
			var exploited, first int64
			err = r.Scan(&f.ID, &f.Group.Name, &f.Summary, &exploited, &f.Product, &f.Version, &f.Component, &f.Finding.Name, &f.Record, &f.State, &f.Reason, &first)
			f.Release, f.Exploited, f.FirstSeen = release, exploited > 0, store.Time(first)
			return f, err
		}); err != nil {
			return err
		}
		for i := range out {
			f := &out[i]
			decided, err := s.decisions(tx, tenant, f.ID, f.Product)
			if err != nil {
				return err
			}
			f.Status = Undecided
			if d := decided.at(f.Product, f.Component, release, forever); d != nil {
				f.Status = d.Status
			}
		}
		return nil
	})
	slices.SortStableFunc(out, func(a, b OpenFinding) int {
		switch {
		case a.Exploited == b.Exploited:
			return 0
		case a.Exploited:
			return -1
		}
		return 1
	})
	return out, err
}

// FeedState is when a feed was last brought in, and what it was.
type FeedState struct {
	Name      string    `json:"name"`
	Digest    string    `json:"digest"`
	Records   int64     `json:"records"`
	Catalogue string    `json:"catalogue,omitempty"`
	At        time.Time `json:"at"`
	Stale     bool      `json:"stale"`
}

// staleAfter is when a feed is called stale: the public ones change daily.
const staleAfter = 3 * 24 * time.Hour

// Feeds lists what was imported. "Nothing found" means nothing without it.
func (s *Service) Feeds(ctx context.Context, tenant string) ([]FeedState, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT name, digest, records, catalogue, at FROM vuln_feed WHERE tenant = $1 ORDER BY name`, tenant)
	return store.Collect(rows, err, func(r *sql.Rows) (f FeedState, err error) {
		var at int64
		err = r.Scan(&f.Name, &f.Digest, &f.Records, &f.Catalogue, &at)
		f.At = store.Time(at)
		f.Stale = s.cfg.Clock.Now().Sub(f.At) > staleAfter
		return f, err
	})
}
