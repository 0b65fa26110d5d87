// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

const (
	feedPoll   = 100 * time.Millisecond // how often a node looks for what others wrote
	feedPause  = 2 * time.Second        // after a failure
	sweepEvery = time.Minute            // how often every live session meets the register again
	readBatch  = 500                    // rows and lines at a time
)

// place is a position in the feed. Equal hashes mean equal histories up to n.
type place struct {
	n    int64
	hash string
}

// feed is how far this node has followed the losses of trust that all nodes write.
//
// No entry can be missed: n is taken under a row lock that is held until its transaction has ended, so entries become
// visible in the order of n and without gaps; a node starts at a head that it read before it admits anybody, so what was
// committed before is seen by Admit and what comes after is read here; and a connection enters the gateway's registry
// before Admit is asked for the last time (gateway.again), so an entry that comes after that question finds it there.
type feed struct {
	heard atomic.Int64 // ms; when the last successful look began

	mu   sync.Mutex      // one look at a time; guards the fields below
	at   place           // everything up to here has ended its live sessions on this node
	kept place           // everything up to here is in this node's journal
	own  map[string]bool // entries beyond at that this node wrote, and for which it has ended the sessions already
	owes bool            // the journal could not be written; said once
}

// lost says that the journal has what the database has not.
type lost struct{ entries int }

// Ready refuses while the database is behind the journal, and while this node does not hear of revocations: then it
// admits nobody, issues nothing, and no command should leave.
func (s *Service) Ready() error {
	if l := s.shut.Load(); l != nil {
		return problem.Unavailable("The doors are shut: the database has lost %d revocations that the journal holds.", l.entries).
			Hint("They are being applied again; if this lasts, the log of the platform says why.")
	}
	if age, stale := s.age(s.cfg.Stale); stale {
		return problem.Unavailable("This node has heard of no revocation for %s, so it trusts nobody new.", age.Truncate(time.Second)).
			Hint("It goes on by itself once it reaches the database.")
	}
	return nil
}

// age is how long ago the feed was heard, and whether that is more than the bound. A bound of zero holds always.
func (s *Service) age(bound time.Duration) (time.Duration, bool) {
	age := s.cfg.Clock.Now().Sub(store.Time(s.feed.heard.Load()))
	return age, bound > 0 && age > bound
}

// distrust records e in the feed, in the transaction of what it is about. Once that is durable, live sessions end here at
// once and on the other nodes with their next look, and the journal has it before the caller's Write returns.
func (s *Service) distrust(tx *store.Tx, e entry) error {
	e.ID, e.At = store.NewID("dis"), store.Millis(s.cfg.Clock.Now())
	n, err := s.chainEntry(tx, e)
	if err != nil {
		return err
	}
	tx.After(func() {
		s.feed.mu.Lock()
		if n > s.feed.at.n {
			s.feed.own[e.ID] = true
		}
		s.feed.mu.Unlock()
		s.cut(e)
		if err := s.follow(context.Background()); err != nil { // said there; Work goes on
			s.cfg.Log.Debug("feed", "err", err)
		}
	})
	return nil
}

// lockFeed makes the transaction the next one that writes the feed. Whatever ends trust begins with it: rows that several
// devices share, such as those of revocation lists, are then locked in one order on all nodes, and never in a circle.
func lockFeed(tx *store.Tx) (at place, err error) {
	if err = tx.QueryRow(`UPDATE feed SET n = n WHERE one = 1 RETURNING n, hash`).Scan(&at.n, &at.hash); err != nil {
		err = fmt.Errorf("identity: feed: %w", err)
	}
	return at, err
}

// chainEntry appends e to the feed and returns its place; 0 if it is in there already.
func (s *Service) chainEntry(tx *store.Tx, e entry) (int64, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return 0, err
	}
	at, err := lockFeed(tx)
	if err != nil {
		return 0, err
	}
	at = place{at.n + 1, next(at.hash, b)}
	n, err := tx.Exec(`INSERT INTO distrust(id, entry, n, hash) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING`, e.ID, string(b), at.n, at.hash)
	if err != nil || n == 0 {
		return 0, err
	}
	_, err = tx.Exec(`UPDATE feed SET n = $1, hash = $2 WHERE one = 1`, at.n, at.hash)
	return at.n, err
}

// cut ends the live sessions that e concerns on this node.
func (s *Service) cut(e entry) {
	group := s.cfg.CutGroup
	if group == nil {
		group = func(string, string) int { return 0 }
	}
	one := s.cfg.Cut
	if one == nil {
		one = func(string, string) int { return 0 }
	}
	switch e.Scope {
	case "":
		if e.cuts() {
			one(e.Subject, e.Reason)
		}
	case ScopeAuthority:
		group(groupOf(ScopeAuthority, "", e.Subject), e.Reason)
	case ScopeStation:
		one(e.Subject, e.Reason)
		fallthrough
	default:
		group(groupOf(e.Scope, e.Tenant, e.Subject), e.Reason)
	}
}

// groupOf names everything that one authority, station, batch or trusted CA brought, for the gateway's registry.
func groupOf(scope Scope, tenant, id string) string { return string(scope) + ":" + tenant + ":" + id }

// openFeed finds this node's place in the feed and compares its journal with the database: what only the journal has
// means that the database was restored, and shuts the doors; what only the database has was written by other nodes, or
// was cut off between commit and append, and is appended. In the usual case the journal's last line decides.
func (s *Service) openFeed(ctx context.Context) error {
	s.feed.own = map[string]bool{}
	if err := s.chainOldRows(ctx); err != nil {
		return err
	}
	head, err := s.head(ctx)
	if err != nil {
		return err
	}
	s.feed.at, s.feed.kept = head, head
	s.feed.heard.Store(store.Millis(s.cfg.Clock.Now()))
	if s.cfg.Journal == "" {
		return nil
	}
	if s.journal, err = openJournal(s.cfg.Journal); err != nil {
		return err
	}
	s.feed.kept = place{}
	if s.journal.length() > 0 {
		l, ok := s.journal.last()
		if s.feed.kept = (place{l.N, l.Hash}); !ok || l.N == 0 || !s.holds(ctx, s.feed.kept) {
			lostNow, common, err := s.compare(ctx)
			if err != nil {
				return err
			}
			if s.feed.kept = common; lostNow > 0 {
				s.shutFor(lostNow)
			}
		}
	}
	return s.follow(ctx)
}

func (s *Service) shutFor(entries int) {
	s.shut.Store(&lost{entries})
	s.cfg.Log.Error("the database is behind the revocation journal; the device doors stay shut until it is replayed",
		slog.String("journal", s.journal.path), slog.Int("entries", entries))
}

// chainOldRows gives rows of a version before the feed their place in it.
func (s *Service) chainOldRows(ctx context.Context) error {
	for {
		rows, err := s.cfg.DB.Query(ctx, `SELECT entry FROM distrust WHERE n = 0 ORDER BY id LIMIT $1`, readBatch)
		old, err := store.Collect(rows, err, func(r *sql.Rows) (e entry, err error) {
			var text string
			if err := r.Scan(&text); err != nil {
				return e, err
			}
			return e, json.Unmarshal([]byte(text), &e)
		})
		if err != nil || len(old) == 0 {
			return err
		}
		err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
			for _, e := range old {
				if _, err := tx.Exec(`DELETE FROM distrust WHERE id = $1 AND n = 0`, e.ID); err != nil {
					return err
				}
				if _, err := s.chainEntry(tx, e); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

func (s *Service) head(ctx context.Context) (p place, err error) {
	err = s.cfg.DB.QueryRow(ctx, `SELECT n, hash FROM feed WHERE one = 1`).Scan(&p.n, &p.hash)
	return p, err
}

// holds says whether the database has the same history up to p.
func (s *Service) holds(ctx context.Context, p place) bool {
	var hash string
	err := s.cfg.DB.QueryRow(ctx, `SELECT hash FROM distrust WHERE n > 0 AND n = $1`, p.n).Scan(&hash)
	return err == nil && hash == p.hash
}

// compare reads the whole journal beside the database: how many entries the database lost, and the last place that both
// have. It runs after a restore, not at every start.
func (s *Service) compare(ctx context.Context) (lostNow int, common place, err error) {
	damaged := 0 // lines since common that cannot be read
	err = s.journal.each(s.journal.length(), func(_ [][]byte, links []link) error {
		have, err := s.places(ctx, links)
		for _, l := range links {
			at, ok := have[l.ID]
			switch {
			case l.ID == "":
				damaged++
			case !ok:
				lostNow++
			case at == place{l.N, l.Hash} && at.n > common.n:
				common, damaged = at, 0 // its hash covers the lines before
			}
		}
		return err
	})
	if err != nil {
		return 0, place{}, err
	}
	head, err := s.head(ctx)
	if err == nil && int64(damaged) > head.n-common.n {
		err = fmt.Errorf("identity: journal %s: %d lines at its end are damaged, and the database does not have them either", s.journal.path, damaged)
	}
	return lostNow, common, err
}

// places are where the database has the entries of links, at least one, by id.
func (s *Service) places(ctx context.Context, links []link) (map[string]place, error) {
	ids := make([]string, len(links))
	for i, l := range links {
		ids[i] = l.ID
	}
	list, args := store.In(nil, ids)
	out := map[string]place{}
	rows, err := s.cfg.DB.Query(ctx, `SELECT id, n, hash FROM distrust WHERE id IN `+list, args...)
	_, err = store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var id string
		var p place
		err := r.Scan(&id, &p.n, &p.hash)
		out[id] = p
		return struct{}{}, err
	})
	return out, err
}

// follow reads what the feed has beyond this node's place, ends the live sessions that it concerns, and appends it to
// the journal. While the doors are shut the journal waits: what it holds beyond the database must stay its end.
func (s *Service) follow(ctx context.Context) error {
	f := &s.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	began := s.cfg.Clock.Now()
	head, err := s.head(ctx)
	if err != nil {
		return err
	}
	keeps := s.journal != nil && s.shut.Load() == nil
	from := f.at
	if keeps && f.kept.n < from.n {
		from = f.kept
	}
	for head != from {
		links, err := s.after(ctx, from)
		if err != nil {
			return err
		}
		if len(links) == 0 {
			return s.forked(head)
		}
		for _, l := range links {
			if l.N > f.at.n {
				if !f.own[l.ID] {
					s.cut(l.entry)
				}
				delete(f.own, l.ID)
				f.at = place{l.N, l.Hash}
			}
			from = place{l.N, l.Hash}
		}
		if keeps {
			if err := s.keep(links); err != nil {
				f.heard.Store(store.Millis(began)) // it was heard; only the file is behind
				return err
			}
		}
		if from.n > head.n {
			head = from
		}
	}
	f.heard.Store(store.Millis(began))
	return nil
}

// keep appends links to the journal.
func (s *Service) keep(links []link) error {
	f := &s.feed
	for len(links) > 0 && links[0].N <= f.kept.n {
		links = links[1:]
	}
	if len(links) == 0 {
		return nil
	}
	err := s.journal.append(links)
	if err != nil && !f.owes {
		s.cfg.Log.Error("revocations are in the database but not in their journal; it is tried again",
			slog.String("journal", s.journal.path), slog.Any("error", err))
	}
	if f.owes = err != nil; f.owes {
		return err
	}
	f.kept = place{links[len(links)-1].N, links[len(links)-1].Hash}
	return nil
}

// errForked is a database that is no longer the one that this node followed.
var errForked = errors.New("identity: the database was replaced by an older one")

func (s *Service) forked(head place) error {
	if s.journal != nil && s.shut.Load() == nil {
		s.shutFor(int(max(1, s.feed.at.n-head.n)))
	}
	return errForked
}

// after reads the next entries after p and checks that they continue the same history. That n is above zero is said for
// the index, which leaves rows out that have no place yet: without it every look would read the whole history.
func (s *Service) after(ctx context.Context, p place) ([]link, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT n, hash, entry FROM distrust WHERE n > 0 AND n > $1 ORDER BY n LIMIT $2`, p.n, readBatch)
	forked := false
	links, err := store.Collect(rows, err, func(r *sql.Rows) (l link, err error) {
		var text string
		if err := r.Scan(&l.N, &l.Hash, &text); err != nil {
			return l, err
		}
		forked = forked || l.N != p.n+1 || l.Hash != next(p.hash, []byte(text))
		p = place{l.N, l.Hash}
		return l, json.Unmarshal([]byte(text), &l.entry)
	})
	if err == nil && forked {
		return nil, nil
	}
	return links, err
}

// Recover applies what a restored database lost and opens the doors. On an error they stay shut and nothing is lost by
// calling it again.
func (s *Service) Recover(ctx context.Context) error {
	if s.shut.Load() == nil {
		return nil
	}
	_, common, err := s.compare(ctx)
	if err != nil {
		return err
	}
	entries := 0
	err = s.journal.each(s.journal.length(), func(_ [][]byte, links []link) error {
		have, err := s.places(ctx, links)
		if err != nil {
			return err
		}
		for _, l := range links {
			if _, ok := have[l.ID]; ok || l.ID == "" {
				continue
			}
			if err := s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error { return s.replay(tx, l.entry) }); err != nil {
				return fmt.Errorf("identity: replay of %s: %w", l.ID, err)
			}
			entries++
		}
		return nil
	})
	if err != nil {
		return err
	}
	head, err := s.head(ctx)
	if err != nil {
		return err
	}
	s.feed.mu.Lock()
	s.feed.at, s.feed.kept = head, common
	s.feed.mu.Unlock()
	if err := s.Sweep(ctx); err != nil { // sessions that live on from before
		return err
	}
	s.shut.Store(nil)
	s.cfg.Log.Warn("the revocations that the database had lost are in force again", slog.Int("entries", entries))
	return s.follow(ctx)
}

// Sweep asks the register again about every live session of this node and ends those that it would no longer admit. The
// feed has ended them already, or they have outlived their certificate; whatever else may go wrong ends here.
func (s *Service) Sweep(ctx context.Context) error {
	if s.cfg.Peers == nil || s.cfg.Cut == nil {
		return nil
	}
	peers := s.cfg.Peers()
	for len(peers) > 0 {
		batch := peers[:min(len(peers), readBatch)]
		peers = peers[len(batch):]
		known, err := s.lookUpAll(ctx, batch)
		if err != nil {
			return err
		}
		for _, p := range batch {
			if p.Stranger { // it has no name yet, and its connection no session
				continue
			}
			a, ok := known[p.Fingerprint]
			err := error(problem.Forbidden("identity.unknown", "This certificate is not in the register."))
			if ok {
				err = a.check(s.cfg.Clock.Now())
			}
			if err == nil {
				continue
			}
			s.cfg.Cut(peerID(p), err.Error())
			s.cfg.Log.Info("a session outlived its trust", slog.String("peer", peerID(p)), slog.String("why", err.Error()))
		}
	}
	return nil
}

// sever ends all live sessions of a node that has heard of no revocation for so long that it cannot vouch for them.
func (s *Service) sever(age time.Duration) {
	if s.cfg.Peers == nil || s.cfg.Cut == nil {
		return
	}
	peers := s.cfg.Peers()
	if len(peers) > 0 {
		s.cfg.Log.Error("the feed of revocations is out of reach; live sessions are ended", slog.Duration("since", age), slog.Int("sessions", len(peers)))
	}
	for _, p := range peers {
		s.cfg.Cut(peerID(p), "the platform cannot tell who is trusted")
	}
}

// peerID is what Config.Cut is called with.
func peerID(p gateway.Peer) string { return cmp.Or(p.Device, p.Station, p.Fingerprint) }
