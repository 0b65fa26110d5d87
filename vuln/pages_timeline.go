// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/store"
)

// moment is something that happened to a vulnerability.
type moment struct {
	At    time.Time
	Tone  string // good, busy, warn, bad or empty
	What  string
	Note  string
	Who   string // id of the person; empty: nobody
	State Status // that was decided or proposed
	Code  string // id of a record or hash
}

// momentsShown bounds the timeline, the newest first.
const momentsShown = 200

// marks are what happened beside findings and decisions.
type marks struct {
	fixes   []fixedRelease // the oldest first
	signals []signalled
}

// fixedRelease is a release that came with the fix.
type fixedRelease struct {
	Closed
	Version string
}

type signalled struct {
	product string
	at      time.Time
}

// marks reads which releases came with the fix, and when people were asked to assess it.
func (s *Service) marks(ctx context.Context, tenant, group string, visible func(product string) bool) (marks, error) {
	var m marks
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		rows, err := tx.Query(`SELECT c.release_id, c.product, c.component_id, c.fixed, c.at, coalesce(r.version, '') FROM vuln_member m
			JOIN vuln_closed c ON c.tenant = m.tenant AND c.ident = m.ident LEFT JOIN vuln_release r ON r.tenant = c.tenant AND r.release_id = c.release_id
			WHERE m.tenant = $1 AND m.group_id = $2 ORDER BY c.at, c.release_id, c.component_id`, tenant, group)
		if m.fixes, err = store.Collect(rows, err, func(r *sql.Rows) (f fixedRelease, err error) {
			var at int64
			err = r.Scan(&f.Release, &f.product, &f.Component, &f.Fixed, &at, &f.Version)
			f.At = store.Time(at)
			return f, err
		}); err != nil {
			return err
		}
		rows, err = tx.Query(`SELECT v.product, v.at FROM vuln_member m JOIN vuln_signal v ON v.tenant = m.tenant AND v.ident = m.ident
			WHERE m.tenant = $1 AND m.group_id = $2 ORDER BY v.at, v.product`, tenant, group)
		m.signals, err = store.Collect(rows, err, func(r *sql.Rows) (x signalled, err error) {
			var at int64
			err = r.Scan(&x.product, &at)
			x.at = store.Time(at)
			return x, err
		})
		return err
	})
	m.fixes = slices.DeleteFunc(m.fixes, func(f fixedRelease) bool { return !visible(f.product) })
	m.signals = slices.DeleteFunc(m.signals, func(x signalled) bool { return !visible(x.product) })
	return m, err
}

// endWords say why a finding ended.
var endWords = map[string]string{endedWithdrawn: "the record was withdrawn", endedRecord: "the record no longer says so", endedComponent: "the bill no longer lists the component"}

// Ended is why a finding ended, in words.
func (f Finding) Ended() string { return cmp.Or(endWords[f.Why], f.Why) }

// timeline joins what records said, what was found, fixed, decided and proposed: the newest first.
func (p *detailPage) timeline(m marks, proposals []Proposal) []moment {
	var out []moment
	add := func(x moment) { out = append(out, x) }
	for _, s := range p.Sources {
		x := moment{At: s.Seen, What: "A record came in from " + s.Feed, Code: s.Record}
		if !s.Current {
			x.What, x.Note = "A record came in from "+s.Feed, "a newer content took its place"
		}
		add(x)
		if !s.Withdrawn.IsZero() && s.Current {
			add(moment{At: s.Withdrawn, Tone: "good", What: "Its authors withdrew the record", Code: s.Record})
		}
	}
	if p.Exploited {
		add(moment{At: p.ExploitedKnown, Tone: "bad", What: "It became known as exploited"})
	}
	asked := map[time.Time][]string{}
	for _, x := range m.signals {
		asked[x.at] = append(asked[x.at], p.Product(x.product))
	}
	for at, products := range asked {
		slices.Sort(products)
		add(moment{At: at, Tone: "bad", What: "People were asked to assess it", Note: "for " + someOf(products)})
	}
	for _, x := range m.fixes {
		add(moment{At: x.At, Tone: "good", What: "Fixed in " + p.Product(x.product) + " " + x.Version, Note: "it carries a version from " + x.Fixed + " on"})
	}
	p.found(add)
	for _, d := range p.Decisions {
		for_ := p.Product(d.Product)
		if d.Release != "" {
			for_ += ", one release"
		}
		add(moment{At: d.At, State: d.Status, What: "decided for " + for_, Note: cmp.Or(d.Reason(), d.Evidence), Who: d.By})
		if !d.Until.IsZero() && !d.Until.After(p.Exposure.AsOf) {
			add(moment{At: d.Until, Tone: "warn", What: "A decision for " + for_ + " ended", Note: d.Why.Word()})
		}
	}
	said := map[string][]string{} // products for which a statement is proposed
	for _, x := range proposals {
		if x.Document != nil {
			said[x.Origin] = append(said[x.Origin], p.Product(x.Product))
		}
	}
	for _, x := range proposals {
		if for_ := said[x.Origin]; for_ != nil {
			delete(said, x.Origin)
			add(moment{At: x.At, Tone: "busy", State: x.Status, What: "says " + cmp.Or(x.By, "an unnamed author"), Note: "proposed for " + someOf(slices.Compact(for_))})
		}
	}
	slices.SortStableFunc(out, func(a, b moment) int {
		return cmp.Or(b.At.Compare(a.At), cmp.Compare(a.What, b.What), cmp.Compare(a.Note, b.Note))
	})
	return out[:min(len(out), momentsShown)]
}

// found adds what was found and what ended, releases of one moment together.
func (p *detailPage) found(add func(moment)) {
	type key struct {
		at  time.Time
		why string // of an end
	}
	releases := map[key][]string{}
	note := func(k key, f Finding) {
		if name := p.Product(f.Product) + " " + f.Version; !slices.Contains(releases[k], name) {
			releases[k] = append(releases[k], name)
		}
	}
	for _, f := range p.Findings {
		note(key{f.FirstSeen, ""}, f)
		if !f.Closed.IsZero() {
			note(key{f.Closed, f.Ended()}, f)
		}
	}
	for k, names := range releases {
		slices.Sort(names)
		what := console.Plural(len(names), "release", "releases")
		if k.why == "" {
			add(moment{At: k.at, Tone: "warn", What: "Found in " + what, Note: someOf(names)})
		} else {
			add(moment{At: k.at, Tone: "good", What: "Ended in " + what + ": " + k.why, Note: someOf(names)})
		}
	}
}
