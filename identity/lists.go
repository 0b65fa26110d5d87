// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/identity/status"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

const (
	listLife    = 48 * time.Hour // thisUpdate to nextUpdate
	listRefresh = 24 * time.Hour // a list is signed anew after this also without a change
	listAlarm   = 12 * time.Hour // before nextUpdate: two attempts an hour have failed for half a day by then
	listEvery   = time.Second    // how long changes gather
	listBatch   = 100            // shards at a time
	listLease   = 30 * time.Second
	listSkew    = 5 * time.Minute // how far the clocks of nodes may be apart; beyond it a list of the future is signed anew
	listFaults  = 3               // an issuer that refused so many lists is left alone until the next turn
)

// touchCertificates notes that the revocation lists of the certificates have to be signed anew.
func touchCertificates(tx *store.Tx, fps []string) error {
	if len(fps) == 0 {
		return nil
	}
	list, args := store.In(nil, fps)
	_, err := tx.Exec(`UPDATE crl SET touched = touched + 1 WHERE (authority, shard) IN (
		SELECT authority, shard FROM certificate WHERE fp IN `+list+` AND shard > 0)`, args...)
	return err
}

// touchSubject is touchCertificates for everything that a device has.
func touchSubject(tx *store.Tx, tenant, subject string) error {
	_, err := tx.Exec(`UPDATE crl SET touched = touched + 1 WHERE (authority, shard) IN (
		SELECT authority, shard FROM certificate WHERE tenant = $1 AND subject = $2 AND shard > 0)`, tenant, subject)
	return err
}

type shardID struct {
	authority string
	shard     int64
}

// SignLists signs the revocation lists that something changed in, and those whose time has come: one node at a time, so
// that no list is signed twice for nothing. It says how many. An issuer that is away holds up the lists of its own
// authorities only.
func (s *Service) SignLists(ctx context.Context) (int, error) {
	if _, ok := s.cfg.Issuer.(CRLSigner); !ok {
		return 0, nil
	}
	due, err := s.dueLists(ctx, nil)
	if err != nil || len(due) == 0 && s.doubt.why() == "" {
		return 0, err
	}
	if err := s.doubtful(ctx); err != nil || len(due) == 0 {
		return 0, err
	}
	lease, ok, err := s.cfg.DB.TakeLease(ctx, "identity.crl", s.node, listLease)
	if err != nil || !ok {
		return 0, err
	}
	var errs []error
	var away []string // authorities whose issuer does not sign
	signed, faults := 0, map[string]int{}
	for len(due) > 0 {
		full, known := len(due) == listBatch, len(away)
		for _, id := range due {
			if slices.Contains(away, id.authority) {
				continue
			}
			err := s.signList(ctx, id)
			if err == nil {
				signed++
				continue
			}
			errs = append(errs, fmt.Errorf("list %s/%d: %w", id.authority, id.shard, err))
			if errors.Is(err, errListSigner) {
				if faults[id.authority]++; faults[id.authority] == listFaults {
					away = append(away, id.authority)
				}
			}
		}
		if !full || len(away) == known {
			break
		}
		if due, err = s.dueLists(ctx, away); err != nil { // what those had crowded out
			errs = append(errs, err)
		}
	}
	return signed, errors.Join(append(errs, s.cfg.DB.ReleaseLease(ctx, lease))...)
}

// dueLists are the lists to be signed now, at most listBatch, without those of the authorities named: what something changed
// in, what is a day old, and what a clock that was ahead has signed, which nobody takes before its time comes.
func (s *Service) dueLists(ctx context.Context, without []string) ([]shardID, error) {
	now := s.cfg.Clock.Now()
	args, others := []any{store.Millis(now), listBatch, store.Millis(now.Add(listSkew))}, ""
	if len(without) > 0 {
		var list string
		list, args = store.In(args, without)
		others = ` AND authority NOT IN ` + list
	}
	rows, err := s.cfg.DB.Query(ctx, `SELECT authority, shard FROM crl WHERE touched <> signed`+others+` UNION SELECT authority, shard FROM crl WHERE refresh <= $1`+others+
		` UNION SELECT authority, shard FROM crl WHERE updated > $3`+others+` LIMIT $2`, args...)
	return store.Collect(rows, err, func(r *sql.Rows) (id shardID, err error) { return id, r.Scan(&id.authority, &id.shard) })
}

// list is a shard's row with what has to be in its list.
type list struct {
	status.List
	touched, number int64
	refresh, ends   time.Time
	base            []byte
}

func (s *Service) readList(ctx context.Context, id shardID) (l list, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		var updated, refresh int64
		var url string
		err := tx.QueryRow(`SELECT url, touched, number, updated, refresh FROM crl WHERE authority = $1 AND shard = $2`, id.authority, id.shard).
			Scan(&url, &l.touched, &l.number, &updated, &refresh)
		if err != nil {
			return err
		}
		l.URL, l.DeltaURL, l.Updated, l.refresh = url+completeEnding, url+deltaEnding, store.Time(updated), store.Time(refresh)
		err = tx.QueryRow(`SELECT base FROM crl_list WHERE authority = $1 AND shard = $2`, id.authority, id.shard).Scan(&l.base)
		if err != nil && !errors.Is(err, store.ErrNoRows) {
			return err
		}
		ts, err := shardTrust(tx, id.authority, id.shard)
		if err != nil {
			return err
		}
		for _, t := range ts {
			if t.notAfter.After(l.ends) {
				l.ends = t.notAfter
			}
			st := t.standing()
			if st.State != status.Revoked {
				continue
			}
			serial, ok := new(big.Int).SetString(t.serial, 16)
			if !ok {
				return fmt.Errorf("serial number %q", t.serial)
			}
			l.Revoked = append(l.Revoked, status.Entry{Serial: serial, At: st.At, Reason: st.Reason})
		}
		return nil
	})
	return l, err
}

// signList signs one shard: the complete list and the delta, both of the next number, which is what says that a list is newer
// (RFC 5280 5.2.3). thisUpdate is now: it goes back when the clock does, since a list of the future is one that nobody takes. If it
// goes back by more than a day, doubtful holds that up for an hour.
// The complete list of the day's first signing is the base of the day's deltas, and no base is of the future.
func (s *Service) signList(ctx context.Context, id shardID) error {
	l, err := s.readList(ctx, id)
	if err != nil {
		return err
	}
	now := s.cfg.Clock.Now().UTC().Truncate(time.Second)
	if a, err := s.Authority(ctx, id.authority); err != nil {
		return err
	} else if now.Before(a.NotBefore) { // a machine that began at 1970; the list that is out is better
		return fmt.Errorf("the clock says %s, and the authority begins at %s", now.Format(time.RFC3339), a.NotBefore.UTC().Format(time.RFC3339))
	}
	ahead := l.Updated.After(now)
	old := l.number
	l.Number, l.Updated, l.Until = old+1, now, now.Add(listLife)
	complete, err := s.signCRL(ctx, id.authority, func() (*x509.RevocationList, error) { return l.Complete() })
	if err != nil {
		return err
	}
	if ahead || len(l.base) == 0 || !now.Before(l.refresh) {
		l.base, l.refresh = complete, now.Add(listRefresh)
		if !l.ends.IsZero() && l.ends.Before(now.Add(-listLife)) { // every certificate has ended: the last list stays
			l.refresh = Forever
		}
	}
	base, err := x509.ParseRevocationList(l.base)
	if err != nil {
		return err
	}
	delta, err := s.signCRL(ctx, id.authority, func() (*x509.RevocationList, error) { return l.Delta(base) })
	if err != nil {
		return err
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if _, err := lockFeed(tx); err != nil {
			return err
		}
		n, err := tx.Exec(`UPDATE crl SET signed = $3, number = $4, updated = $5, until = $6, refresh = $7, ends = $8 WHERE authority = $1 AND shard = $2 AND number = $9`,
			id.authority, id.shard, l.touched, l.Number, store.Millis(l.Updated), store.Millis(l.Until), store.Millis(l.refresh), store.Millis(l.ends), old)
		if err != nil || n == 0 { // another node was faster
			return err
		}
		_, err = tx.Exec(`INSERT INTO crl_list(authority, shard, base, complete, delta) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (authority, shard) DO UPDATE SET base = excluded.base, complete = excluded.complete, delta = excluded.delta`,
			id.authority, id.shard, l.base, complete, delta)
		return err
	})
}

func (s *Service) signCRL(ctx context.Context, authority string, template func() (*x509.RevocationList, error)) ([]byte, error) {
	t, err := template()
	if err != nil {
		return nil, err
	}
	der, err := s.cfg.Issuer.(CRLSigner).SignCRL(ctx, authority, t)
	if err != nil {
		err = fmt.Errorf("%w: %w", errListSigner, err)
	}
	return der, err
}

// errListSigner is a list that the issuer did not sign.
var errListSigner = errors.New("the issuer did not sign it")

// ListState is how the published revocation lists stand.
type ListState struct {
	Lists   int64     `json:"lists" doc:"Published, one per shard of an authority"`
	Revoked int64     `json:"revoked" doc:"Certificates of the tenant that are revoked"`
	Next    time.Time `json:"next_update,omitzero" doc:"When the first of them ends unless it is signed again"`
	Alarm   string    `json:"alarm,omitempty" doc:"What an operator has to look at before next_update"`
}

// ListState reads how the lists stand, and raises the alarm half a day before the first one ends, or its OCSP responder
// does. What it counts grows with the platform: it is for who looks, not for every second.
func (s *Service) ListState(ctx context.Context, tenant string) (st ListState, err error) {
	if err = s.cfg.DB.QueryRow(ctx, `SELECT count(*) FROM crl`).Scan(&st.Lists); err == nil {
		err = s.ends(ctx, &st, store.Millis(Forever)-1)
	}
	if err != nil {
		return st, err
	}
	return st, s.cfg.DB.QueryRow(ctx, `SELECT count(*) FROM certificate WHERE tenant = $1 AND kind IN ($2, $3, $4) AND phase = $5`,
		tenant, IDevID, LDevID, Station, PhaseRevoked).Scan(&st.Revoked)
}

// ends finds the first end among the lists that were to be signed again until refresh, and sets the alarm. One that was never
// signed counts as if it had been when its shard was made: certificates have named it since, and whoever asks finds nothing.
func (s *Service) ends(ctx context.Context, st *ListState, refresh int64) error {
	var until, never int64
	err := s.cfg.DB.QueryRow(ctx, `SELECT coalesce(min(CASE WHEN number > 0 THEN until END), 0), coalesce(min(CASE WHEN number = 0 AND until > 0 THEN until END), 0)
		FROM crl WHERE refresh <= $1`, refresh).Scan(&until, &never)
	if err != nil {
		return err
	}
	st.Next = store.Time(until)
	now := s.cfg.Clock.Now()
	near := func(end int64) bool { return end > 0 && !now.Before(store.Time(end).Add(-listAlarm)) }
	var alarms []string
	if why := s.doubt.why(); why != "" {
		alarms = append(alarms, why)
	}
	if near(until) {
		alarms = append(alarms, fmt.Sprintf("A revocation list ends at %s and was not signed again; whoever relies on it will refuse every certificate of its shard.", st.Next.UTC().Format(time.RFC3339)))
	}
	if near(never) {
		alarms = append(alarms, fmt.Sprintf("A revocation list that certificates have named since %s was never signed; whoever relies on it refuses every certificate of its shard.",
			store.Time(never).Add(-listLife).UTC().Format(time.RFC3339)))
	}
	if id, end := s.responders.ending(now); id != "" {
		alarms = append(alarms, fmt.Sprintf("The OCSP responder of %s ends at %s and could not be renewed.", id, end.UTC().Format(time.RFC3339)))
	}
	st.Alarm = strings.Join(alarms, " ")
	return nil
}

// overdue is ListState for every second: of the lists it reads only those that should have been signed again long ago,
// which are the only ones that can be near their end.
func (s *Service) overdue(ctx context.Context) (st ListState, err error) {
	return st, s.ends(ctx, &st, store.Millis(s.cfg.Clock.Now().Add(listAlarm-(listLife-listRefresh))))
}

// TopicLists is the topic of the event that the published revocation lists, or an OCSP responder, are about to end and were
// not renewed. Its tenant is empty: they belong to the platform. Every node that sees it says so.
const TopicLists = "revocation-lists.ending"

// TopicListsGood is the topic of the event that the alarm is over: the lists are signed again. Its tenant is empty.
const TopicListsGood = "revocation-lists.good"

// ListsEnding says what an operator has to look at.
type ListsEnding struct {
	Alarm string `json:"alarm"`
	Clock bool   `json:"clock,omitempty"` // a node's clock is in doubt, and it signs none
}

// listNews is what was said of the lists last.
type listNews struct{ text, alarm string }

// workLists signs what is due and says once when that fails, and again when the alarm is raised, which is announced.
func (s *Service) workLists(ctx context.Context, said *listNews) {
	_, err := s.SignLists(ctx)
	text := ""
	if err != nil && !errors.Is(err, errDoubt) { // which is an alarm
		text = err.Error()
	}
	st, err := s.overdue(ctx)
	if err == nil && st.Alarm != "" {
		text = strings.TrimSpace(st.Alarm + " " + text)
	}
	if err == nil && st.Alarm != said.alarm {
		topic := TopicLists
		if st.Alarm == "" {
			topic = TopicListsGood
		}
		err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
			return s.cfg.DB.Emit(tx, topic, "", "lists", ListsEnding{st.Alarm, s.doubt.why() != ""})
		})
		if err == nil { // else it is announced at the next look
			said.alarm = st.Alarm
		}
	}
	if text != "" && text != said.text && ctx.Err() == nil {
		s.cfg.Log.Error("revocation lists", slog.String("problem", text))
	}
	said.text = text
}

// Public serves what everybody may read, since it is signed: revocation lists under /crl/ and the OCSP responder under
// /ocsp. Everything else goes to next. It stands before any mux, which would clean the path of a GET of OCSP.
func (s *Service) Public(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/crl/"):
			s.serveList(w, r)
		case r.URL.Path == "/ocsp" || strings.HasPrefix(r.URL.Path, "/ocsp/"):
			s.serveOCSP(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// serveList answers /crl/{authority}/{shard}.crl and .delta.crl.
func (s *Service) serveList(w http.ResponseWriter, r *http.Request) {
	authority, file, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/crl/"), "/")
	column, name := "complete", strings.TrimSuffix(file, completeEnding)
	if n, ok := strings.CutSuffix(file, deltaEnding); ok {
		column, name = "delta", n
	}
	shard, err := strconv.ParseInt(name, 10, 64)
	if err != nil || !strings.HasSuffix(file, completeEnding) || r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "There is no such list.", http.StatusNotFound)
		return
	}
	var der []byte
	var number, updated int64
	err = s.cfg.DB.QueryRow(r.Context(), `SELECT l.`+column+`, c.number, c.updated FROM crl_list l JOIN crl c ON c.authority = l.authority AND c.shard = l.shard
		WHERE l.authority = $1 AND l.shard = $2`, authority, shard).Scan(&der, &number, &updated)
	switch {
	case errors.Is(err, store.ErrNoRows):
		http.Error(w, "There is no such list.", http.StatusNotFound)
		return
	case err != nil:
		s.cfg.Log.Error("list", "err", err)
		http.Error(w, problem.Kinds[problem.KindUnavailable].Title, http.StatusServiceUnavailable)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/pkix-crl")
	h.Set("Cache-Control", "public, max-age=60, must-revalidate")
	h.Set("ETag", fmt.Sprintf(`"%d"`, number))
	h.Set("Last-Modified", store.Time(updated).UTC().Format(http.TimeFormat))
	if r.Header.Get("If-None-Match") == h.Get("ETag") {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(der)))
	if r.Method == http.MethodGet {
		w.Write(der) //nolint:errcheck // the client left
	}
}
