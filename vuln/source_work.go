// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/feed"
	"github.com/openthings-platform/openthings/webhook"
)

// Jobs of feeds. A sync has the key "<tenant>/<name>"; the watch is one for all.
const (
	jobSync  = "vuln.sync"
	jobWatch = "vuln.feed_watch"
)

const (
	syncLease  = 2 * time.Minute // a look whose node died is begun again after this
	syncBeat   = 20 * time.Second
	syncMost   = 6 * time.Hour // the longest wait after failures
	watchEvery = 5 * time.Minute
)

// Topics of feeds.
const (
	FeedStale = "vuln.feed_stale" // once per outage and source; subject: the source's name
	FeedGood  = "vuln.feed_good"  // when it is good again
)

// FeedHealth is the data of both.
type FeedHealth struct {
	Name     string      `json:"name"`
	State    SourceState `json:"state"`
	LastGood time.Time   `json:"last_good,omitzero"`
	Made     time.Time   `json:"made,omitzero"`
	Error    string      `json:"error,omitempty"`
}

func syncKey(tenant, name string) string { return tenant + "/" + name }

// mayReach refuses an address that the host's administrator does not let tenants reach.
func (s *Service) mayReach(address string) error {
	return webhook.Check(address, "feed.inside", s.cfg.PrivateFeeds)
}

func (s *Service) listenFeeds() {
	s.cfg.DB.Handle(jobSync, func(ctx context.Context, j store.Job) error {
		tenant, name, _ := strings.Cut(j.Key, "/")
		return s.sync(ctx, tenant, name)
	})
	s.cfg.DB.Handle(jobWatch, func(ctx context.Context, _ store.Job) error { return s.watchFeeds(ctx) })
}

// sync looks at one source. Only one node does at a time: the lease lives as long as its holder does.
func (s *Service) sync(ctx context.Context, tenant, name string) error {
	begun := s.cfg.Clock.Now()
	again := func(at time.Time) error {
		return s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.cfg.DB.Enqueue(tx, jobSync, syncKey(tenant, name), at, nil) })
	}
	x, err := s.Source(ctx, tenant, name)
	switch {
	case problem.Is(err, problem.KindNotFound) || err == nil && x.Next.IsZero():
		return nil
	case err != nil:
		return err
	case begun.Before(x.Next):
		return again(x.Next)
	}
	lease, ok, err := s.cfg.DB.TakeLease(ctx, jobSync+" "+syncKey(tenant, name), store.NewID("run"), syncLease)
	if err != nil {
		return err
	}
	if !ok {
		return again(begun.Add(syncLease))
	}
	defer s.cfg.DB.ReleaseLease(context.WithoutCancel(ctx), lease) //nolint:errcheck // it runs out by itself
	ctx, stop := context.WithCancel(ctx)
	live := s.alive(ctx, stop, x, lease)
	o := s.look(ctx, x, live.say)
	o.begun = begun
	live.end()
	if ctx.Err() != nil {
		return ctx.Err() // another node has it, or the house is closing: nothing is known of the source
	}
	stop()
	if o.err != nil {
		s.cfg.Log.WarnContext(ctx, "a source of vulnerabilities could not be read", slog.String("source", name), slog.Any("error", o.err))
	}
	return s.ended(context.WithoutCancel(ctx), x, o, nil)
}

// outcome is what one look came to. A nil feed without an error says that nothing changed.
type outcome struct {
	begun  time.Time
	feed   *feed.Feed
	cursor *feed.Cursor
	done   Imported
	err    error
}

// look brings what changed, judges it whole and takes it over. A panic of a parser is a failed look, and no more.
func (s *Service) look(ctx context.Context, x FeedSource, say func(feed.Progress)) (o outcome) {
	last, err := s.cursor(ctx, x.tenant, x.Name)
	if err != nil {
		return outcome{err: err}
	}
	f := &feed.Fetcher{Client: webhook.Client(s.cfg.PrivateFeeds), Clock: s.cfg.Clock, Root: s.cfg.FeedDir, Spool: s.spool(x), Progress: say}
	haul, err := f.Gather(ctx, x.Source, last)
	if err != nil || haul == nil {
		return outcome{err: err}
	}
	defer haul.Close()
	if o.feed, err = haul.Feed(); err != nil {
		return outcome{err: errors.Join(err, f.Clear())}
	}
	defer o.feed.Close()
	if o.done, err = s.take(ctx, x.tenant, "system", x.Name, originOf(x.Source), o.feed); err != nil {
		return outcome{err: err}
	}
	o.cursor = &haul.Cursor
	if err := f.Clear(); err != nil {
		s.cfg.Log.WarnContext(ctx, "fetched files cannot be removed", slog.Any("error", err))
	}
	return o
}

// spool is where fetched files of a source lie until they were taken.
func (s *Service) spool(x FeedSource) string {
	sum := sha256.Sum256([]byte(syncKey(x.tenant, x.Name)))
	return filepath.Join(s.cfg.FeedSpool, hex.EncodeToString(sum[:8]))
}

// ended writes how a look went: what was taken, when the next one is, and whether people must be told. It returns also.
func (s *Service) ended(ctx context.Context, x FeedSource, o outcome, also error) error {
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		now := s.cfg.Clock.Now()
		row, err := s.source(tx, x.tenant, x.Name)
		if problem.Is(err, problem.KindNotFound) {
			return nil // it was removed meanwhile
		}
		if err != nil {
			return err
		}
		look := Sync{At: o.begun, TookMS: now.Sub(o.begun).Milliseconds(), Outcome: "same", New: int64(o.done.New), Changed: int64(o.done.Changed)}
		row.LastTry, row.Progress = o.begun, nil
		every := time.Duration(row.EveryMinutes) * time.Minute
		switch {
		case o.err != nil:
			p := problem.Of(o.err)
			look.Outcome, look.Error = "failed", p.Text
			row.Failures++
			row.Error, row.Hint = p.Text, p.Help
			every = min(every, syncMost, time.Minute<<min(row.Failures-1, 20))
		default:
			row.LastGood, row.Failures, row.Error, row.Hint = now, 0, "", ""
			if o.feed != nil {
				look.Outcome, look.Error = "changed", strings.Join(o.done.Unread, "; ")
				row.Digest, row.Records, row.Made, row.Sequence = o.feed.Digest, int64(o.feed.Held()), o.feed.Made, max(row.Sequence, o.feed.Sequence)
			}
		}
		next := int64(0)
		if fetched(row.Kind) {
			at := now.Add(every)
			if row.Next.After(o.begun) && row.Next.Before(at) { // somebody asked meanwhile
				at = row.Next
			}
			next = store.Millis(at)
			if err := s.cfg.DB.Enqueue(tx, jobSync, syncKey(row.tenant, row.Name), at, nil); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(`UPDATE vuln_source SET next_at = $3, last_try = $4, last_good = $5, failures = $6, error = $7, hint = $8, digest = $9, records = $10, made = $11, sequence = $12,
			beat = 0, progress = '' WHERE tenant = $1 AND name = $2`, row.tenant, row.Name, next, store.Millis(row.LastTry), store.Millis(row.LastGood), row.Failures,
			row.Error, row.Hint, row.Digest, row.Records, store.Millis(row.Made), row.Sequence); err != nil {
			return err
		}
		if o.cursor != nil {
			if err := putCursor(tx, row, *o.cursor); err != nil {
				return err
			}
		}
		if look.Outcome == "same" { // what was taken over before is what the source says now
			if _, err := tx.Exec(`UPDATE vuln_feed SET at = $3 WHERE tenant = $1 AND name = $2`, row.tenant, row.Name, store.Millis(now)); err != nil {
				return err
			}
		}
		if err := putSync(tx, row, look); err != nil {
			return err
		}
		return s.tell(tx, row, now)
	})
	return errors.Join(also, err)
}

func putCursor(tx *store.Tx, x FeedSource, c feed.Cursor) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO vuln_cursor (tenant, name, cursor) VALUES ($1, $2, $3) ON CONFLICT (tenant, name) DO UPDATE SET cursor = excluded.cursor`, x.tenant, x.Name, string(b))
	return err
}

func putSync(tx *store.Tx, x FeedSource, look Sync) error {
	if _, err := tx.Exec(`INSERT INTO vuln_sync (tenant, name, at, took, outcome, fresh, changed, error) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (tenant, name, at) DO UPDATE SET took = excluded.took, outcome = excluded.outcome, fresh = excluded.fresh, changed = excluded.changed, error = excluded.error`,
		x.tenant, x.Name, store.Millis(look.At), look.TookMS, look.Outcome, look.New, look.Changed, look.Error); err != nil {
		return err
	}
	_, err := tx.Exec(`DELETE FROM vuln_sync WHERE tenant = $1 AND name = $2 AND at NOT IN (SELECT at FROM vuln_sync WHERE tenant = $1 AND name = $2 ORDER BY at DESC LIMIT $3)`,
		x.tenant, x.Name, int64(syncsKept))
	return err
}

// tell announces once that a source is late, and once that it is good again.
func (s *Service) tell(tx *store.Tx, x FeedSource, now time.Time) error {
	x.judge(now)
	_, late := x.late(now)
	topic, since := "", int64(0)
	switch {
	case late && x.staleSince.IsZero():
		topic, since = FeedStale, store.Millis(now)
	case !late && !x.staleSince.IsZero():
		topic = FeedGood
	default:
		return nil
	}
	if _, err := tx.Exec(`UPDATE vuln_source SET stale_since = $3 WHERE tenant = $1 AND name = $2`, x.tenant, x.Name, since); err != nil {
		return err
	}
	return s.cfg.DB.Emit(tx, topic, x.tenant, x.Name, FeedHealth{Name: x.Name, State: x.State, LastGood: x.LastGood, Made: x.Made, Error: x.Error})
}

// watchFeeds finds sources that have become late without a look that would say so: the node is down, the line is cut and
// waits for its next try, or nobody brought a bundle. It runs again by itself.
func (s *Service) watchFeeds(ctx context.Context) error {
	now := s.cfg.Clock.Now()
	rows, err := s.cfg.DB.Query(ctx, `SELECT tenant, name FROM vuln_source WHERE stale_since = 0
		AND (CASE WHEN last_good > 0 THEN last_good ELSE created END + stale_after < $1 OR made > 0 AND made + stale_after < $1)`, store.Millis(now))
	late, err := store.Collect(rows, err, func(r *sql.Rows) (x [2]string, err error) { return x, r.Scan(&x[0], &x[1]) })
	if err != nil {
		return err
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		for _, key := range late {
			x, err := s.source(tx, key[0], key[1])
			if problem.Is(err, problem.KindNotFound) {
				continue
			}
			if err == nil {
				err = s.tell(tx, x, now)
			}
			if err != nil {
				return err
			}
		}
		return s.cfg.DB.Enqueue(tx, jobWatch, watchKey, now.Add(watchEvery), nil)
	})
}

const watchKey = "all"

// heartbeat keeps the lease of a look and writes how far it is.
type heartbeat struct {
	mu   sync.Mutex
	at   feed.Progress
	done chan struct{}
	stop func()
}

func (h *heartbeat) say(p feed.Progress) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.Files == 0 && p.File == h.at.File { // only its bytes grew
		p.Files, p.Done = h.at.Files, h.at.Done
	}
	h.at = p
}

// end waits until nothing more is written.
func (h *heartbeat) end() {
	h.stop()
	<-h.done
}

// alive writes at once that the look has begun, and from then on how far it is. When the lease is gone, it calls lost.
func (s *Service) alive(ctx context.Context, lost func(), x FeedSource, lease store.Lease) *heartbeat {
	h := &heartbeat{done: make(chan struct{})}
	ctx, h.stop = context.WithCancel(ctx)
	beat := func() {
		h.mu.Lock()
		b, _ := json.Marshal(h.at) // numbers and a name: cannot fail
		h.mu.Unlock()
		err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
			if err := tx.Fence(lease, syncLease); err != nil {
				return err
			}
			_, err := tx.Exec(`UPDATE vuln_source SET beat = $3, progress = $4 WHERE tenant = $1 AND name = $2`, x.tenant, x.Name, s.now(), string(b))
			return err
		})
		if errors.Is(err, store.ErrFenced) {
			lost()
		}
	}
	beat()
	go func() {
		defer close(h.done)
		for {
			t := s.cfg.Clock.NewTimer(syncBeat)
			select {
			case <-ctx.Done():
				t.Stop()
				return
			case <-t.C:
				beat()
			}
		}
	}()
	return h
}
