// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"cmp"
	"context"
	"database/sql"
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
	Priority record.Priority  `json:"priority"`
	Score    *record.Score    `json:"cvss,omitempty"`
	EPSS     *float64         `json:"epss,omitempty" doc:"Probability of an attack within 30 days, 0 to 1"`
	Products []ProductSummary `json:"products"`

	facts record.Facts
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

// Cursor is where a page of summaries goes on: the most urgent first, then by name.
func (s Summary) Cursor() string {
	key := []byte(s.Priority.Key)
	for i, c := range key { // so that what sorts last comes first
		key[i] = '0' + 'f' - c
	}
	return fmt.Sprintf("%s %s %s", key, s.Name, s.ID)
}

// Chance is the EPSS probability in words, empty where it is unknown.
func (s Summary) Chance() string { return chance(s.EPSS) }

func chance(epss *float64) string {
	switch {
	case epss == nil:
		return ""
	case *epss < 0.001:
		return "< 0.1 %"
	}
	return fmt.Sprintf("%.1f %%", *epss*100)
}

// portfolio is everything that is open in a tenant. It is shared by all who ask, and changed by nobody.
type portfolio struct {
	list []Summary // the most urgent first
	// exposed are the devices of each product that are exposed to anything, each once; exploited those exposed to something
	// that is known as exploited.
	exposed, exploited map[string]int64
}

// List returns every vulnerability with an open finding in a visible product, the most urgent first (record.Prioritize). It
// may be as old as kept lets it be; a decision made here is in it at once.
func (s *Service) List(ctx context.Context, tenant string, visible func(product string) bool) ([]Summary, error) {
	all, _, err := s.overview(ctx, tenant)
	return all.only(visible).list, err
}

// overview is everything of a tenant, and the instant that it is told for.
func (s *Service) overview(ctx context.Context, tenant string) (portfolio, time.Time, error) {
	return s.lists.get(s.cfg.Clock.Now, tenant, func() (portfolio, error) { return s.openAll(ctx, tenant) })
}

// only keeps what is visible, with the devices and the order that follow from it.
func (p portfolio) only(visible func(product string) bool) portfolio {
	out := portfolio{exposed: map[string]int64{}, exploited: map[string]int64{}}
	for product, n := range p.exposed {
		if visible(product) {
			out.exposed[product], out.exploited[product] = n, p.exploited[product]
		}
	}
	cut := false
	for _, sum := range p.list {
		if slices.ContainsFunc(sum.Products, func(x ProductSummary) bool { return !visible(x.Product) }) {
			cut = true
			sum.Products = slices.DeleteFunc(slices.Clone(sum.Products), func(x ProductSummary) bool { return !visible(x.Product) })
			sum.weigh()
		}
		if len(sum.Products) > 0 {
			out.list = append(out.list, sum)
		}
	}
	if cut {
		slices.SortFunc(out.list, func(a, b Summary) int { return cmp.Compare(a.Cursor(), b.Cursor()) })
	}
	return out
}

// weigh finds the place in the order of work that follows from the devices of the products.
func (s *Summary) weigh() {
	s.Devices = 0
	for _, p := range s.Products {
		s.Devices += p.Devices
	}
	s.facts.Devices = s.Devices
	s.Priority, s.Score, s.EPSS = record.Prioritize(s.facts), s.facts.Score, s.facts.EPSS
}

// openPart is a component with an open hit of a vulnerability.
type openPart struct{ group, component, fixed string }

// opened is what a portfolio is worked out from.
type opened struct {
	hits      []openPart // ordered by vulnerability
	groups    map[string]Group
	facts     map[string]record.Facts
	uses      map[string][]string // component: releases that list it
	about     map[string]Release
	decisions map[string]decided // by vulnerability
	counts    map[string]int64   // devices by release
}

func (s *Service) openAll(ctx context.Context, tenant string) (portfolio, error) {
	var o opened
	counts, err := s.cfg.Fleet.CountByRelease(ctx, tenant)
	if err == nil {
		err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
			o = opened{counts: counts}
			return s.readOpen(tx, tenant, &o)
		})
	}
	if err != nil {
		return portfolio{}, err
	}
	now := s.now()
	out := portfolio{exposed: map[string]int64{}, exploited: map[string]int64{}}
	exposed, exploited := map[string]bool{}, map[string]bool{} // releases
	for hits := o.hits; len(hits) > 0; {
		n := slices.IndexFunc(hits, func(h openPart) bool { return h.group != hits[0].group })
		if n < 0 {
			n = len(hits)
		}
		sum := Summary{Group: o.groups[hits[0].group], facts: o.facts[hits[0].group]}
		var open []string
		sum.Products, open = o.inProducts(hits[:n], now)
		for _, release := range open {
			exposed[release] = true
			exploited[release] = exploited[release] || sum.Exploited
		}
		if len(sum.Products) > 0 {
			sum.weigh()
			out.list = append(out.list, sum)
		}
		hits = hits[n:]
	}
	for release := range exposed {
		product := o.about[release].Product
		out.exposed[product] += counts[release]
		if exploited[release] {
			out.exploited[product] += counts[release]
		}
	}
	slices.SortFunc(out.list, func(a, b Summary) int { return cmp.Compare(a.Cursor(), b.Cursor()) })
	return out, nil
}

func (s *Service) readOpen(tx *store.Tx, tenant string, o *opened) error {
	rows, err := tx.Query(`SELECT r.group_id, h.component_id, h.fixed FROM vuln_hit h JOIN vuln_grouped r ON r.tenant = h.tenant AND r.record_id = h.record_id
		WHERE h.tenant = $1 AND h.until = 9223372036854775807 ORDER BY r.group_id, h.component_id, h.record_id`, tenant)
	components, open := map[string]bool{}, map[string]bool{}
	if o.hits, err = store.Collect(rows, err, func(r *sql.Rows) (h openPart, err error) {
		err = r.Scan(&h.group, &h.component, &h.fixed)
		components[h.component], open[h.group] = true, true
		return h, err
	}); err != nil {
		return err
	}
	if o.groups, err = s.groups(tx, tenant, sortedKeys(open)); err != nil {
		return err
	}
	if o.facts, err = s.facts(tx, tenant, sortedKeys(open)); err != nil {
		return err
	}
	if o.uses, err = s.cfg.SBOM.Listed(tx, tenant, sortedKeys(components)); err != nil {
		return err
	}
	releases := map[string]bool{}
	for _, in := range o.uses {
		for _, release := range in {
			releases[release] = true
		}
	}
	if o.about, err = s.releases(tx, tenant, sortedKeys(releases)); err != nil {
		return err
	}
	o.decisions, err = s.book(tx, tenant).all()
	return err
}

// inProducts tells what the hits of one vulnerability mean for each product, and which releases are exposed by them.
func (o *opened) inProducts(hits []openPart, now int64) (out []ProductSummary, open []string) {
	products := map[string]*ProductSummary{}
	listed, exposed := map[string]bool{}, map[string]bool{} // releases that were counted
	for _, h := range hits {
		for _, release := range o.uses[h.component] {
			r, ok := o.about[release]
			if !ok {
				continue
			}
			p := products[r.Product]
			if p == nil {
				p = &ProductSummary{Product: r.Product, Status: NotAffected}
				products[r.Product] = p
			}
			if !listed[release] {
				listed[release] = true
				p.Releases++
			}
			p.FixedIn = cmp.Or(p.FixedIn, h.fixed)
			d := o.decisions[h.group].at(r.Product, h.component, release, now)
			status := Undecided
			if d != nil {
				status = d.Status
			}
			if slices.Index(gravity, status) < slices.Index(gravity, p.Status) {
				p.Status = status
			}
			if (d == nil || !d.harmless()) && !exposed[release] {
				exposed[release] = true
				p.Devices += o.counts[release]
				open = append(open, release)
			}
		}
	}
	for _, product := range sortedKeys(products) {
		out = append(out, *products[product])
	}
	return out, open
}

// groups reads vulnerabilities by their ids.
func (s *Service) groups(tx *store.Tx, tenant string, ids []string) (map[string]Group, error) {
	out := map[string]Group{}
	for part := range slices.Chunk(ids, 256) {
		list, args := store.In([]any{tenant}, part)
		rows, err := tx.Query(`SELECT id, name, summary, exploited FROM vuln_group WHERE tenant = $1 AND id IN `+list, args...)
		if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
			var g Group
			var exploited int64
			err := r.Scan(&g.ID, &g.Name, &g.Summary, &exploited)
			g.Exploited, g.ExploitedKnown = exploited > 0, store.Time(exploited)
			out[g.ID] = g
			return struct{}{}, err
		}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// FeedState is when a feed was last brought in, and what it was.
type FeedState struct {
	Name      string    `json:"name"`
	Digest    string    `json:"digest"`
	Records   int64     `json:"records"`
	Catalogue string    `json:"catalogue,omitempty"`
	At        time.Time `json:"at"`
}

// Feeds lists what was imported. "Nothing found" means nothing without it; whether it is old is said by Sources.
func (s *Service) Feeds(ctx context.Context, tenant string) ([]FeedState, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT name, digest, records, catalogue, at FROM vuln_feed WHERE tenant = $1 ORDER BY name`, tenant)
	return store.Collect(rows, err, func(r *sql.Rows) (f FeedState, err error) {
		var at int64
		err = r.Scan(&f.Name, &f.Digest, &f.Records, &f.Catalogue, &at)
		f.At = store.Time(at)
		return f, err
	})
}
