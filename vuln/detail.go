// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/record"
)

// Detail is all that is known about one vulnerability.
type Detail struct {
	Group
	Priority  record.Priority `json:"priority" doc:"Without devices, which depend on who asks"`
	Score     *record.Score   `json:"cvss,omitempty"`
	EPSS      *float64        `json:"epss,omitempty" doc:"Probability of an attack within 30 days, 0 to 1"`
	Names     []string        `json:"names"` // every name, the records' own among them
	Text      string          `json:"text,omitempty"`
	Links     []string        `json:"links"`
	Sources   []Source        `json:"sources"`
	Findings  []Finding       `json:"findings"`
	Decisions []Decision      `json:"decisions"`
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
	Conditions []string     `json:"conditions,omitempty" doc:"What must hold besides"`
	FirstSeen  time.Time    `json:"first_seen"`
	Closed     time.Time    `json:"closed,omitzero"`
	Why        string       `json:"why_closed,omitempty"`
}

// told is the finding as people read it; it is still open.
func (f finding) told(r Release, part sbom.Part) Finding {
	return Finding{Release: f.release, Product: r.Product, Version: r.Version, Component: f.component, Name: part.Name, Record: f.record, State: f.State,
		Reason: f.Reason, Rule: f.Rule, Confidence: f.Confidence, Conditions: f.Conditions, FirstSeen: store.Time(f.from)}
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
	d := Detail{Links: []string{}, Findings: []Finding{}, Decisions: []Decision{}}
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
		facts, err := s.facts(tx, tenant, []string{d.ID})
		if err != nil {
			return err
		}
		d.Priority, d.Score, d.EPSS = record.Prioritize(facts[d.ID]), facts[d.ID].Score, facts[d.ID].EPSS
		found, err := s.findings(tx, tenant, d.ID, anyTime)
		if err != nil {
			return err
		}
		slices.SortStableFunc(found, func(a, b finding) int {
			return cmp.Or(cmp.Compare(b.from, a.from), cmp.Compare(a.release, b.release), cmp.Compare(a.component, b.component), cmp.Compare(a.record, b.record))
		})
		found = found[:min(len(found), maxFindings)]
		about, spelled, err := s.describe(tx, tenant, found)
		if err != nil {
			return err
		}
		for _, f := range found {
			r, ok := about[f.release]
			if !ok {
				continue
			}
			x := f.told(r, spelled[[2]string{f.release, f.component}])
			if f.to != forever {
				x.Closed, x.Why = store.Time(f.to), f.why
			}
			d.Findings = append(d.Findings, x)
		}
		decided, err := s.book(tx, tenant).on(d.ID, "")
		d.Decisions = append(d.Decisions, decided.list...)
		return err
	})
	return d, err
}

// sources reads every content of every record of the group; the text is that of the first current one.
func (s *Service) sources(tx *store.Tx, tenant string, d *Detail) error {
	rows, err := tx.Query(`SELECT v.id, v.source, v.content_hash, v.seen, v.withdrawn, v.reviewed, v.is_current FROM vuln_grouped g CROSS JOIN vuln_record v
		WHERE v.tenant = g.tenant AND v.id = g.record_id AND g.tenant = $1 AND g.group_id = $2 ORDER BY v.id, v.seen`, tenant, d.ID)
	d.Sources, err = store.Collect(rows, err, func(r *sql.Rows) (x Source, err error) {
		var seen, withdrawn, current int64
		err = r.Scan(&x.Record, &x.Feed, &x.Hash, &seen, &withdrawn, &x.Review, &current)
		x.Seen, x.Withdrawn, x.Current = store.Time(seen), store.Time(withdrawn), current == 1
		return x, err
	})
	if err != nil {
		return err
	}
	for _, x := range d.Sources {
		if !x.Current || d.Text != "" {
			continue
		}
		b, err := body(tx, x.Hash)
		if err != nil {
			return err
		}
		rec, err := record.Parse(b)
		if err != nil {
			return fmt.Errorf("record %s: %w", x.Record, err)
		}
		d.Text = rec.Details
		for _, ref := range rec.References {
			d.Links = append(d.Links, ref.URL)
		}
	}
	return nil
}

// OpenFinding is an open finding of a release with the decision that applies to it.
type OpenFinding struct {
	Group
	Finding
	Status   Status
	FixedIn  string
	Priority record.Priority
	Score    *record.Score
	EPSS     *float64
}

// OpenFindings lists what is open in a release, the most urgent first by the devices that run it now; what was decided to be
// harmless comes last.
func (s *Service) OpenFindings(ctx context.Context, tenant, release string) ([]OpenFinding, error) {
	var out []OpenFinding
	counts, err := s.cfg.Fleet.CountOf(ctx, tenant, []string{release}, time.Time{})
	if err != nil {
		return nil, err
	}
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		out = nil
		about, err := s.releases(tx, tenant, []string{release})
		if err != nil || len(about) == 0 {
			return err
		}
		keys, err := s.cfg.SBOM.Keys(tx, tenant, release)
		if err != nil {
			return err
		}
		components := make([]string, len(keys))
		for i, k := range keys {
			components[i] = k.Component
		}
		byGroup := map[string][]finding{}
		for part := range slices.Chunk(slices.Compact(components), 128) {
			list, args := store.In([]any{tenant}, part)
			rows, err := tx.Query(`SELECT h.component_id, h.record_id, h.state, h.reason, h.fixed, h.rule, h.confidence, h.conditions, h.since, h.until, h.why, g.group_id
				FROM vuln_hit h CROSS JOIN vuln_grouped g
				WHERE g.tenant = h.tenant AND g.record_id = h.record_id AND h.tenant || '' = $1 AND h.until = 9223372036854775807 AND h.component_id IN `+list, args...) // so that SQLite goes by the component
			if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
				var group string
				f, err := scanHit(r, &group)
				f.release = release
				byGroup[group] = append(byGroup[group], f)
				return struct{}{}, err
			}); err != nil {
				return err
			}
		}
		groups, err := s.groups(tx, tenant, sortedKeys(byGroup))
		if err != nil {
			return err
		}
		facts, err := s.facts(tx, tenant, sortedKeys(byGroup))
		if err != nil {
			return err
		}
		decisions := s.book(tx, tenant)
		for id, found := range byGroup {
			found = oneEach(found)
			decided, err := decisions.on(id, about[release].Product)
			if err != nil {
				return err
			}
			_, spelled, err := s.describe(tx, tenant, found)
			if err != nil {
				return err
			}
			for _, f := range found {
				x := OpenFinding{Group: groups[id], Finding: f.told(about[release], spelled[[2]string{release, f.component}]), Status: Undecided, FixedIn: f.Fixed}
				weight := facts[id]
				weight.Devices = counts[release]
				if d := decided.at(x.Product, f.component, release, s.now()); d != nil {
					x.Status = d.Status
					if d.harmless() {
						weight.Devices = 0
					}
				}
				x.Priority, x.Score, x.EPSS = record.Prioritize(weight), weight.Score, weight.EPSS
				out = append(out, x)
			}
		}
		return nil
	})
	slices.SortFunc(out, func(a, b OpenFinding) int {
		return cmp.Or(cmp.Compare(quiet(a.Status), quiet(b.Status)), cmp.Compare(b.Priority.Key, a.Priority.Key),
			cmp.Compare(a.Group.Name, b.Group.Name), cmp.Compare(a.Component, b.Component))
	})
	return out, err
}

// quiet sorts what needs nobody behind what does.
func quiet(s Status) int {
	if s == NotAffected || s == Fixed {
		return 1
	}
	return 0
}
