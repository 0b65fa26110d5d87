// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/feed"
)

// KindUpload is a source that somebody sends: nothing is fetched and nothing is signed.
const KindUpload feed.Kind = "upload"

// Bounds of a source's times.
const (
	everyDefault = 6 * time.Hour
	everyLeast   = 5 * time.Minute
	everyMost    = 31 * 24 * time.Hour
	staleLeast   = time.Hour
	staleMost    = 366 * 24 * time.Hour
	broughtStale = 7 * 24 * time.Hour // of what people bring
	fetchedStale = 3 * 24 * time.Hour
	maxSources   = 100 // of a tenant
	syncsKept    = 30
)

// SourceState is how a source is, in one word.
type SourceState string

// The states of a source.
const (
	SourceCurrent SourceState = "current" // the last look went well
	SourceSyncing SourceState = "syncing"
	SourceWaiting SourceState = "waiting" // never looked at
	SourceFailing SourceState = "failing" // the last look failed; what was taken before is not old yet
	SourceStale   SourceState = "stale"   // no good look for too long
	SourceBehind  SourceState = "behind"  // looks go well, but what they bring was made too long ago
)

// FeedSource is a named source and its health.
type FeedSource struct {
	Name string `json:"name"`
	feed.Source
	EveryMinutes int64          `json:"every_minutes"` // 0: nothing is fetched
	StaleMinutes int64          `json:"stale_minutes"` // from then on people are told
	State        SourceState    `json:"state"`
	LastTry      time.Time      `json:"last_try,omitzero"`
	LastGood     time.Time      `json:"last_good,omitzero"`
	Next         time.Time      `json:"next,omitzero"`
	Failures     int64          `json:"failures,omitempty"` // in a row
	Error        string         `json:"error,omitempty"`
	Hint         string         `json:"hint,omitempty"`
	Digest       string         `json:"digest,omitempty"`
	Records      int64          `json:"records"` // in what was taken last: records, entries of lists, scores and documents
	Made         time.Time      `json:"made,omitzero"`
	BehindDays   int64          `json:"behind_days,omitempty"` // age of what was taken last, where its maker dates it
	Catalogue    string         `json:"catalogue,omitempty"`   // version of the KEV catalogue that was taken last
	Sequence     int64          `json:"sequence,omitempty"`
	Unnamed      int64          `json:"unnamed,omitempty"` // records that it named once and names no longer
	Progress     *feed.Progress `json:"progress,omitempty"`
	Syncs        []Sync         `json:"syncs,omitempty"` // the last ones, the oldest first

	tenant     string
	created    time.Time
	staleSince time.Time
}

// Sync is one look at a source.
type Sync struct {
	At      time.Time `json:"at"`
	TookMS  int64     `json:"took_ms"`
	Outcome string    `json:"outcome" enum:"changed,same,failed"`
	New     int64     `json:"new"`
	Changed int64     `json:"changed"`
	Error   string    `json:"error,omitempty"`
}

// SourceIn is what a person says of a source.
type SourceIn struct {
	feed.Source
	EveryMinutes int64 `json:"every_minutes,omitempty" doc:"Absent: 6 hours, or never for what a person brings"`
	StaleMinutes int64 `json:"stale_minutes,omitempty" doc:"After how long without a good look people are told; absent: 3 days, or 7 for what a person brings"`
}

// fetched says whether the platform looks at the source by itself.
func fetched(k feed.Kind) bool { return k != feed.KindBundle && k != KindUpload }

// check refuses what cannot work, and fills in what was left out.
func (in *SourceIn) check() error {
	if in.Kind == KindUpload {
		if in.Location != "" || in.Whole || len(in.Keys)+len(in.Ecosystems) > 0 {
			return problem.Invalid("What people upload has no address, keys or ecosystems.").At("kind")
		}
	} else if err := in.Source.Check(); err != nil {
		return err
	}
	every, stale := time.Duration(in.EveryMinutes)*time.Minute, time.Duration(in.StaleMinutes)*time.Minute
	if !fetched(in.Kind) {
		if every != 0 {
			return problem.Invalid("Nothing is fetched of what a person brings.").At("every_minutes")
		}
		stale = cmp.Or(stale, broughtStale)
	} else {
		every, stale = cmp.Or(every, everyDefault), cmp.Or(stale, fetchedStale)
		if every < everyLeast || every > everyMost {
			return problem.Invalid("A source is looked at every 5 minutes at most, and once in 31 days at least.").At("every_minutes")
		}
	}
	if stale < staleLeast || stale > staleMost || stale < every {
		return problem.Invalid("A source is called stale after an hour at least, a year at most, and not before the next look.").At("stale_minutes")
	}
	in.EveryMinutes, in.StaleMinutes = int64(every/time.Minute), int64(stale/time.Minute)
	return nil
}

// late says that people must know: no good look for too long, or one that brings old things.
func (s FeedSource) late(now time.Time) (SourceState, bool) {
	allowed := time.Duration(s.StaleMinutes) * time.Minute
	since := s.LastGood
	if since.IsZero() {
		since = s.created
	}
	switch {
	case now.Sub(since) > allowed:
		return SourceStale, true
	case !s.Made.IsZero() && now.Sub(s.Made) > allowed:
		return SourceBehind, true
	}
	if made := catalogueMade(s.Catalogue); !made.IsZero() && now.Sub(made) > max(allowed, catalogueQuiet) {
		return SourceBehind, true
	}
	return "", false
}

// catalogueQuiet is how long CISA may find nothing new: its longest silence, at the end of 2021, was 26 days.
const catalogueQuiet = 30 * 24 * time.Hour

// catalogueMade is the day that the version of a KEV catalogue names, such as 2025.08.25; zero if it names none.
func catalogueMade(version string) time.Time {
	day, err := time.Parse("2006.01.02", version)
	if err != nil {
		return time.Time{}
	}
	return day
}

// judge fills in what follows from the row and the time.
func (s *FeedSource) judge(now time.Time) {
	for _, made := range []time.Time{s.Made, catalogueMade(s.Catalogue)} {
		if !made.IsZero() {
			s.BehindDays = max(s.BehindDays, int64(now.Sub(made)/(24*time.Hour)))
		}
	}
	word, late := s.late(now)
	switch {
	case s.Progress != nil:
		s.State = SourceSyncing
	case late:
		s.State = word
	case s.Error != "":
		s.State = SourceFailing
	case s.LastGood.IsZero():
		s.State = SourceWaiting
	default:
		s.State = SourceCurrent
	}
}

const sourceColumns = `tenant, name, spec, every, stale_after, created, next_at, last_try, last_good, failures, error, hint, digest, records, made, sequence, stale_since, beat, progress,
	(SELECT count(*) FROM vuln_unnamed u WHERE u.tenant = vuln_source.tenant AND u.name = vuln_source.name),
	coalesce((SELECT catalogue FROM vuln_feed f WHERE f.tenant = vuln_source.tenant AND f.name = vuln_source.name), '')`

func (s *Service) scanSource(r *sql.Rows) (x FeedSource, err error) {
	var spec, progress string
	var every, stale, created, next, try, good, made, since, beat int64
	if err := r.Scan(&x.tenant, &x.Name, &spec, &every, &stale, &created, &next, &try, &good, &x.Failures, &x.Error, &x.Hint, &x.Digest, &x.Records, &made, &x.Sequence,
		&since, &beat, &progress, &x.Unnamed, &x.Catalogue); err != nil {
		return x, err
	}
	if err := json.Unmarshal([]byte(spec), &x.Source); err != nil {
		return x, err
	}
	x.EveryMinutes, x.StaleMinutes = every/60_000, stale/60_000
	x.created, x.Next, x.LastTry, x.LastGood, x.Made, x.staleSince = store.Time(created), store.Time(next), store.Time(try), store.Time(good), store.Time(made), store.Time(since)
	now := s.cfg.Clock.Now()
	if progress != "" && now.Sub(store.Time(beat)) < syncLease {
		x.Progress = &feed.Progress{}
		if err := json.Unmarshal([]byte(progress), x.Progress); err != nil {
			return x, err
		}
	}
	x.judge(now)
	return x, nil
}

// Sources lists the sources of a tenant with their last looks.
func (s *Service) Sources(ctx context.Context, tenant string) ([]FeedSource, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT `+sourceColumns+` FROM vuln_source WHERE tenant = $1 ORDER BY name`, tenant)
	list, err := store.Collect(rows, err, s.scanSource)
	if err != nil {
		return nil, err
	}
	looks := map[string][]Sync{}
	rows, err = s.cfg.DB.Query(ctx, `SELECT name, at, took, outcome, fresh, changed, error FROM vuln_sync WHERE tenant = $1 ORDER BY name, at`, tenant)
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var name string
		var at int64
		var x Sync
		err := r.Scan(&name, &at, &x.TookMS, &x.Outcome, &x.New, &x.Changed, &x.Error)
		x.At = store.Time(at)
		looks[name] = append(looks[name], x)
		return struct{}{}, err
	})
	for i := range list {
		list[i].Syncs = looks[list[i].Name]
	}
	return list, err
}

// Source is one of them.
func (s *Service) Source(ctx context.Context, tenant, name string) (FeedSource, error) {
	list, err := s.Sources(ctx, tenant)
	if err != nil {
		return FeedSource{}, err
	}
	for _, x := range list {
		if x.Name == name {
			return x, nil
		}
	}
	return FeedSource{}, noSource(name)
}

func noSource(name string) error {
	return problem.NotFound("There is no source named %.80q.", name).Hint("openthings feed list shows those there are")
}

// source reads one row inside a transaction.
func (s *Service) source(tx *store.Tx, tenant, name string) (FeedSource, error) {
	rows, err := tx.Query(`SELECT `+sourceColumns+` FROM vuln_source WHERE tenant = $1 AND name = $2`, tenant, name)
	list, err := store.Collect(rows, err, s.scanSource)
	if err == nil && len(list) == 0 {
		err = noSource(name)
	}
	if err != nil {
		return FeedSource{}, err
	}
	return list[0], nil
}

// lateSources says which sources are stale or behind, in words for evidence.
func (s *Service) lateSources(tx *store.Tx, tenant string) ([]string, error) {
	rows, err := tx.Query(`SELECT `+sourceColumns+` FROM vuln_source WHERE tenant = $1 ORDER BY name`, tenant)
	list, err := store.Collect(rows, err, s.scanSource)
	var words []string
	for _, x := range list {
		switch state, late := x.late(s.cfg.Clock.Now()); {
		case late && state == SourceBehind:
			words = append(words, fmt.Sprintf("%s (%d days behind)", x.Name, x.BehindDays))
		case late && x.LastGood.IsZero():
			words = append(words, x.Name+" (never read)")
		case late:
			words = append(words, x.Name+" (last read "+x.LastGood.UTC().Format("2006-01-02 15:04 UTC")+")")
		}
	}
	return words, err
}

// PutSource makes or changes a source. What is fetched is looked at once at once.
func (s *Service) PutSource(ctx context.Context, tenant, actor, name string, in SourceIn) (FeedSource, error) {
	if !feedName.MatchString(name) {
		return FeedSource{}, problem.Invalid("%.80q is not the name of a feed.", name).At("name").Hint("use lower-case letters, digits, dots and dashes")
	}
	if err := in.check(); err != nil {
		return FeedSource{}, err
	}
	if fetched(in.Kind) && in.Kind != feed.KindFile {
		if err := s.mayReach(in.Location); err != nil {
			return FeedSource{}, err
		}
	}
	spec, err := json.Marshal(in.Source)
	if err != nil {
		return FeedSource{}, err
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		now, next := s.now(), int64(0)
		if fetched(in.Kind) {
			next = now
		}
		before, err := s.source(tx, tenant, name)
		switch {
		case err == nil:
			// Another place is another source: what was remembered of the old one says nothing of it.
			if was, _ := json.Marshal(before.Source); string(was) != string(spec) {
				if _, err := tx.Exec(`DELETE FROM vuln_cursor WHERE tenant = $1 AND name = $2`, tenant, name); err != nil {
					return err
				}
			}
			_, err = tx.Exec(`UPDATE vuln_source SET spec = $3, every = $4, stale_after = $5, next_at = $6 WHERE tenant = $1 AND name = $2`,
				tenant, name, string(spec), in.EveryMinutes*60_000, in.StaleMinutes*60_000, next)
		case problem.Is(err, problem.KindNotFound):
			err = s.newSource(tx, tenant, name, string(spec), in, next)
		}
		if err != nil {
			return err
		}
		if next > 0 {
			if err := s.cfg.DB.Enqueue(tx, jobSync, syncKey(tenant, name), s.cfg.Clock.Now(), nil); err != nil {
				return err
			}
		}
		if err := s.cfg.DB.Enqueue(tx, jobWatch, watchKey, s.cfg.Clock.Now(), nil); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "feed.source-set", Subject: name, Data: in})
	})
	if err != nil {
		return FeedSource{}, err
	}
	return s.Source(ctx, tenant, name)
}

func (s *Service) newSource(tx *store.Tx, tenant, name, spec string, in SourceIn, next int64) error {
	var have int64
	if err := tx.QueryRow(`SELECT count(*) FROM vuln_source WHERE tenant = $1`, tenant).Scan(&have); err != nil {
		return err
	}
	if have >= maxSources {
		return problem.Conflict("There are %d sources already; more are not kept.", maxSources)
	}
	_, err := tx.Exec(`INSERT INTO vuln_source (tenant, name, spec, every, stale_after, created, next_at, last_try, last_good, failures, error, hint, digest, records, made, sequence, stale_since, beat, progress)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0, 0, '', '', '', 0, 0, 0, 0, 0, '')`,
		tenant, name, spec, in.EveryMinutes*60_000, in.StaleMinutes*60_000, s.now(), next)
	return err
}

// DeleteSource ends a source. Its records stay.
func (s *Service) DeleteSource(ctx context.Context, tenant, actor, name string) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		n, err := tx.Exec(`DELETE FROM vuln_source WHERE tenant = $1 AND name = $2`, tenant, name)
		if err == nil && n == 0 {
			return noSource(name)
		}
		for _, table := range []string{"vuln_cursor", "vuln_sync", "vuln_unnamed"} {
			if err == nil {
				_, err = tx.Exec(`DELETE FROM `+table+` WHERE tenant = $1 AND name = $2`, tenant, name)
			}
		}
		if err != nil {
			return err
		}
		if err := s.cfg.DB.Cancel(tx, jobSync, syncKey(tenant, name)); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "feed.source-removed", Subject: name, Data: struct{}{}})
	})
}

// SyncNow asks for a look at once.
func (s *Service) SyncNow(ctx context.Context, tenant, name string) (FeedSource, error) {
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		x, err := s.source(tx, tenant, name)
		if err != nil {
			return err
		}
		if !fetched(x.Kind) {
			return problem.Conflict("%s is brought by a person; there is nothing to fetch.", name).Hint("openthings feed import %s FILE", name)
		}
		if _, err := tx.Exec(`UPDATE vuln_source SET next_at = $3 WHERE tenant = $1 AND name = $2`, tenant, name, s.now()); err != nil {
			return err
		}
		return s.cfg.DB.Enqueue(tx, jobSync, syncKey(tenant, name), s.cfg.Clock.Now(), nil)
	})
	if err != nil {
		return FeedSource{}, err
	}
	return s.Source(ctx, tenant, name)
}

// cursor is what is remembered of the last look.
func (s *Service) cursor(ctx context.Context, tenant, name string) (c feed.Cursor, err error) {
	var text string
	err = s.cfg.DB.QueryRow(ctx, `SELECT cursor FROM vuln_cursor WHERE tenant = $1 AND name = $2`, tenant, name).Scan(&text)
	if errors.Is(err, store.ErrNoRows) {
		return c, nil
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), &c)
	}
	return c, err
}
