// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"context"
	"database/sql"
	"io"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/feed"
	"github.com/openthings-platform/openthings/vuln/vex"
)

// scoresAhead is how far the clocks of whoever makes scores may be ahead.
const scoresAhead = 48 * time.Hour

// take takes over all that a feed carries: records and lists by Import, then scores, documents, and what a whole source
// names no longer. Each part can be taken twice without harm, so a process that dies in between goes on by taking all again.
func (s *Service) take(ctx context.Context, tenant, actor, name string, origin vex.Origin, f *feed.Feed) (Imported, error) {
	if f.EPSS != nil && f.EPSS.Date.After(s.cfg.Clock.Now().Add(scoresAhead)) {
		return Imported{}, problem.Invalid("the EPSS scores are of %s, which is yet to come", f.EPSS.Date.Format(time.DateOnly)).
			Hint("look at the clock of this host; scores of later days could not replace these")
	}
	listed := 0
	if len(f.Exploited) > 0 { // before the records, so that their match sees it
		list := make([]exploited, len(f.Exploited))
		for i, l := range f.Exploited {
			list[i] = exploited{cve: l.CVE, added: l.Since, source: l.List}
		}
		var err error
		if listed, err = s.putExploited(ctx, tenant, list); err != nil {
			return Imported{}, err
		}
	}
	done, err := s.Import(ctx, tenant, actor, name, f)
	if err != nil {
		return done, err
	}
	done.Exploited += listed
	if f.EPSS != nil {
		if err := s.putScores(ctx, tenant, f.EPSS); err != nil {
			return done, err
		}
	}
	if done.Documents, done.Unread, err = s.takeDocuments(ctx, tenant, actor, origin, f.CSAF); err != nil {
		return done, err
	}
	if f.Whole {
		err = s.noteUnnamed(ctx, tenant, name, f)
	}
	return done, err
}

// Upload takes a file that a person brings. Where a source of that name is a bundle, only a bundle signed by its keys and
// newer than the last is taken; a bundle is taken nowhere else, since nobody would have checked it.
func (s *Service) Upload(ctx context.Context, tenant, actor, name string, r io.ReaderAt, size int64) (Imported, error) {
	if !feedName.MatchString(name) {
		return Imported{}, problem.Invalid("%.80q is not the name of a feed", name).At("name").Hint("use lower-case letters, digits, dots and dashes")
	}
	x, err := s.Source(ctx, tenant, name)
	known := err == nil
	if err != nil && !problem.Is(err, problem.KindNotFound) {
		return Imported{}, err
	}
	begun := s.cfg.Clock.Now()
	var f *feed.Feed
	switch {
	case known && x.Kind == feed.KindBundle:
		f, err = feed.OpenBundle(r, size, x.Keys, x.Sequence)
	case feed.IsBundle(r, size):
		err = problem.Forbidden(feed.RuleUnsigned, "This is a signed bundle, and no key is known to check it with.").
			Hint("name one first: openthings feed add %s --kind bundle --key KEY", name)
	default:
		f, err = feed.Open(r, size)
	}
	var done Imported
	if err == nil {
		defer f.Close()
		if f.Sequence > 0 && f.Sequence == x.Sequence && x.Digest != "" && f.Digest != x.Digest {
			err = problem.Forbidden(feed.RuleOlder, "Another bundle with the number %d was taken before.", f.Sequence)
		} else {
			done, err = s.take(ctx, tenant, actor, name, originOf(x.Source), f)
		}
	}
	if err != nil {
		if known && !fetched(x.Kind) {
			err = s.ended(ctx, x, outcome{begun: begun, err: err}, err)
		}
		return done, err
	}
	if !known {
		if err := s.uploaded(ctx, tenant, name); err != nil {
			return done, err
		}
	}
	if known && fetched(x.Kind) {
		return done, nil // whether the source itself can be reached is another question
	}
	x.tenant, x.Name = tenant, name
	return done, s.ended(ctx, x, outcome{begun: begun, feed: f, done: done}, nil)
}

// uploaded makes the row by which the age of what was uploaded is watched.
func (s *Service) uploaded(ctx context.Context, tenant, name string) error {
	in := SourceIn{Source: feed.Source{Kind: KindUpload}}
	if err := in.check(); err != nil {
		return err
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.newSource(tx, tenant, name, `{"kind":"upload"}`, in, 0) })
}

// originOf is whose statements the documents of a source are.
func originOf(s feed.Source) vex.Origin {
	if s.Origin == string(vex.Distribution) {
		return vex.Distribution
	}
	return vex.Vendor
}

// noteUnnamed marks the records of a whole source that it no longer names, and unmarks those that it names again. Nothing
// else happens to them: that a list is silent does not say that a fault is gone, so findings stay open until a record is
// withdrawn or a person decides. The page of feeds says how many there are.
func (s *Service) noteUnnamed(ctx context.Context, tenant, name string, f *feed.Feed) error {
	ids := func(q string) (map[string]bool, error) {
		rows, err := s.cfg.DB.Query(ctx, q, tenant, name)
		list, err := store.Collect(rows, err, func(r *sql.Rows) (id string, err error) { return id, r.Scan(&id) })
		out := make(map[string]bool, len(list))
		for _, id := range list {
			out[id] = true
		}
		return out, err
	}
	ours, err := ids(`SELECT id FROM vuln_record WHERE tenant = $1 AND source = $2 AND is_current = 1`)
	if err != nil {
		return err
	}
	marked, err := ids(`SELECT record_id FROM vuln_unnamed WHERE tenant = $1 AND name = $2`)
	if err != nil {
		return err
	}
	var gone, back []string
	for id := range ours {
		if !f.Has(id) && !marked[id] {
			gone = append(gone, id)
		}
	}
	for id := range marked {
		if f.Has(id) {
			back = append(back, id)
		}
	}
	slices.Sort(gone)
	slices.Sort(back)
	for part := range slices.Chunk(gone, 500) {
		err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
			for _, id := range part {
				if _, err := tx.Exec(`INSERT INTO vuln_unnamed (tenant, name, record_id, since) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`, tenant, name, id, s.now()); err != nil {
					return err
				}
			}
			return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: "system", Kind: "feed.records-unnamed", Subject: name, Data: map[string]any{"records": part}})
		})
		if err != nil {
			return err
		}
	}
	for part := range slices.Chunk(back, 500) {
		err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
			for _, id := range part {
				if _, err := tx.Exec(`DELETE FROM vuln_unnamed WHERE tenant = $1 AND name = $2 AND record_id = $3`, tenant, name, id); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Unnamed lists the records that a source names no longer, with since when.
func (s *Service) Unnamed(ctx context.Context, tenant, name string) (map[string]time.Time, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT record_id, since FROM vuln_unnamed WHERE tenant = $1 AND name = $2`, tenant, name)
	out := map[string]time.Time{}
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var id string
		var since int64
		err := r.Scan(&id, &since)
		out[id] = store.Time(since)
		return struct{}{}, err
	})
	return out, err
}

// maxUnreadDocuments bounds how many documents are named that could not be read.
const maxUnreadDocuments = 10

// takeDocuments takes over what CSAF documents say of products, as statements of their provider. A document that holds none
// that can be read is named in the result: one odd advisory must not hold back all others.
func (s *Service) takeDocuments(ctx context.Context, tenant, actor string, origin vex.Origin, docs []feed.CSAF) (taken int, unread []string, err error) {
	for _, d := range docs {
		b, err := d.Read()
		if err != nil {
			return taken, unread, err
		}
		doc, err := vex.Parse(b)
		if err == nil {
			_, err = s.TakeVEX(ctx, tenant, actor, origin, doc)
		}
		switch p := problem.Of(err); {
		case err == nil:
			taken++
		case p.Kind == problem.KindInternal:
			return taken, unread, err
		case len(unread) < maxUnreadDocuments:
			unread = append(unread, d.ID+": "+p.Text)
		}
	}
	return taken, unread, nil
}
