// SPDX-License-Identifier: AGPL-3.0-only

package tenant

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

const (
	sessionCookie  = "__Host-session"
	ceremonyCookie = "__Host-ceremony"
	sessionIdle    = 12 * time.Hour
	sessionLife    = 7 * 24 * time.Hour
)

// Authenticate says who sends the request: the holder of its bearer token, which may be the session of a person at a
// command line, or else of its session cookie. It is handed
// to the api and console kits.
func (s *Service) Authenticate(r *http.Request) (context.Context, error) {
	ctx := r.Context()
	if r.Header.Get("Authorization") != "" {
		by := s.byToken
		text, session := strings.CutPrefix(api.Bearer(r), sessionPrefix)
		if session {
			by = s.bySession
		}
		a, err := by(ctx, text)
		if err != nil {
			return nil, err
		}
		return WithActor(ctx, a), nil
	}
	ck, err := r.Cookie(sessionCookie)
	if err != nil {
		return nil, problem.Unauthenticated("This needs you to be signed in.").Hint("Programs send a token: Authorization: Bearer ot_…")
	}
	a, err := s.bySession(ctx, ck.Value)
	if err != nil {
		return nil, err
	}
	return WithActor(ctx, a), nil
}

// Caller names the actor for rate limits and idempotency.
func Caller(ctx context.Context) string {
	a, _ := ActorFrom(ctx)
	return a.ID
}

// Visitor names the person for the console's frame.
func Visitor(ctx context.Context) string {
	a, _ := ActorFrom(ctx)
	return a.Name
}

var errSession = problem.Unauthenticated("Your session has ended.").Hint("Sign in again.")

func (s *Service) bySession(ctx context.Context, text string) (Actor, error) {
	hash, now := hashOf(text), s.cfg.Clock.Now()
	a := Actor{Kind: KindPerson}
	var used, expires, removed int64
	err := s.cfg.DB.QueryRow(ctx, `SELECT p.id, p.name, p.tenant, p.removed, s.used, s.expires FROM session s JOIN person p ON p.id = s.person WHERE s.hash = $1`, hash).
		Scan(&a.ID, &a.Name, &a.Tenant, &removed, &used, &expires)
	if errors.Is(err, store.ErrNoRows) {
		return Actor{}, errSession
	}
	if err != nil {
		return Actor{}, err
	}
	if removed != 0 || !now.Before(store.Time(expires)) || now.Sub(store.Time(used)) > sessionIdle {
		return Actor{}, errSession
	}
	if a.Grants, err = grantsOf(s.reading(ctx), a.ID); err != nil {
		return Actor{}, err
	}
	if now.Sub(store.Time(used)) > usedEvery {
		s.note(ctx, `UPDATE session SET used = $1 WHERE hash = $2`, store.Millis(now), hash)
	}
	return s.Rooted(ctx, a)
}

// startSession gives the person a new session in tx, for life at most, and ends the one that the browser had before: ids
// never survive a sign-in.
func (s *Service) startSession(tx *store.Tx, person, before string, life time.Duration) (cookie string, err error) {
	text, hash := secret(32)
	now := s.cfg.Clock.Now()
	if _, err := tx.Exec(`DELETE FROM session WHERE expires < $1 OR used < $2 OR hash = $3`, store.Millis(now), store.Millis(now.Add(-sessionIdle)), hashOf(before)); err != nil {
		return "", err
	}
	if _, err := tx.Exec(`INSERT INTO session (hash, person, at, used, expires) VALUES ($1, $2, $3, $3, $4)`, hash, person, store.Millis(now), store.Millis(now.Add(life))); err != nil {
		return "", err
	}
	_, err = tx.Exec(`UPDATE person SET seen = $1 WHERE id = $2`, store.Millis(now), person)
	return text, err
}

func (s *Service) endSession(ctx context.Context, text string) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`DELETE FROM session WHERE hash = $1`, hashOf(text))
		return err
	})
}

// endSessions ends all sessions of a person.
func endSessions(tx *store.Tx, person string) error {
	_, err := tx.Exec(`DELETE FROM session WHERE person = $1`, person)
	return err
}

func setCookie(w http.ResponseWriter, name, value string, life time.Duration) {
	c := &http.Cookie{Name: name, Value: value, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: int(life / time.Second)}
	if value == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

func cookieOf(r *http.Request, name string) string {
	if c, err := r.Cookie(name); err == nil {
		return c.Value
	}
	return ""
}
