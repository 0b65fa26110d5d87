// SPDX-License-Identifier: AGPL-3.0-only

package tenant

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"database/sql"
	"encoding/base32"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// Token lets a program act. Its secret is shown once, when it is made.
type Token struct {
	ID      string    `json:"id"`
	Tenant  string    `json:"-"`
	Name    string    `json:"name"`
	MadeBy  string    `json:"made_by"`
	At      time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Used    time.Time `json:"last_used,omitzero"`
	Revoked time.Time `json:"revoked,omitzero"`
	Grants  []Grant   `json:"grants"`
	hash    string
}

// maxTokenLife bounds how long a token can live.
const maxTokenLife = 366 * 24 * time.Hour

// usedEvery is how exactly the last use of tokens and sessions is known, so that reading does not become writing.
const usedEvery = time.Minute

var secretText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// newTokenSecret makes the text of a token, ot_<id>_<256 random bits>, in letters that secret scanners can match, and its hash.
func newTokenSecret(id string) (text, hash string) {
	b := make([]byte, 32)
	rand.Read(b)
	sec := secretText.EncodeToString(b)
	return "ot_" + strings.TrimPrefix(id, "tok_") + "_" + sec, hashOf(sec)
}

// CreateToken makes a token for the grant in the grant's tenant and returns its text, which is not stored. by is the
// actor, who must hold what the token gets; Gives checks it before.
func (s *Service) CreateToken(tx *store.Tx, by, name string, g Grant, expires time.Time) (Token, string, error) {
	now := s.cfg.Clock.Now().UTC()
	switch {
	case !g.Role.Known():
		return Token{}, "", problem.Invalid("There is no role %q.", string(g.Role)).At("role").Hint("openthings roles lists them.")
	case !expires.After(now) || expires.After(now.Add(maxTokenLife)):
		return Token{}, "", problem.Invalid("A token must end within a year and a day, and not in the past.").At("expires")
	}
	t := Token{ID: store.NewID("tok"), Tenant: g.Tenant, Name: name, MadeBy: by, At: now, Expires: expires.UTC(), Grants: []Grant{g}}
	text, hash := newTokenSecret(t.ID)
	if _, err := tx.Exec(`INSERT INTO token (id, tenant, name, hash, made_by, at, expires, used, revoked) VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0)`,
		t.ID, t.Tenant, t.Name, hash, by, store.Millis(t.At), store.Millis(t.Expires)); err != nil {
		return t, "", err
	}
	if err := insertGrant(tx, t.ID, g); err != nil {
		return t, "", err
	}
	return t, text, audit.Append(tx, audit.Entry{Tenant: t.Tenant, Actor: by, Kind: "access.token-created", Subject: t.ID,
		Data: map[string]any{"name": name, "grant": g, "expires": t.Expires}})
}

// RevokeToken ends a token of the tenant at once.
func (s *Service) RevokeToken(tx *store.Tx, tenant, id, by string) error {
	n, err := tx.Exec(`UPDATE token SET revoked = $1 WHERE tenant = $2 AND id = $3 AND revoked = 0`, store.Millis(s.cfg.Clock.Now()), tenant, id)
	if err != nil {
		return err
	}
	if n == 0 {
		return errNoToken(id)
	}
	if err := endLinks(tx, id); err != nil {
		return err
	}
	return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: by, Kind: "access.token-revoked", Subject: id})
}

// revokeHeld ends a token that reaches nothing but what by may write access to.
func (s *Service) revokeHeld(tx *store.Tx, by Actor, id string) error {
	held, err := grantsOf(tx, id)
	if err != nil {
		return err
	}
	if within, rest := by.part(AccessWrite, held); len(within) == 0 || len(rest) > 0 {
		return errNoToken(id)
	}
	return s.RevokeToken(tx, by.Tenant, id, by.ID)
}

func errNoToken(id string) error {
	return problem.NotFound("There is no token %s that could be revoked.", id)
}

// Tokens lists the tokens that reach nothing but what a can see access to, newest first.
func (s *Service) Tokens(ctx context.Context, a Actor) ([]Token, error) {
	rows, err := s.cfg.DB.Query(ctx, tokenColumns+` WHERE tenant = $1 ORDER BY id DESC`, a.Tenant)
	ts, err := store.Collect(rows, err, func(r *sql.Rows) (Token, error) { return readToken(r) })
	if err != nil {
		return nil, err
	}
	held, err := grantsIn(s.reading(ctx), a.Tenant)
	for i := range ts {
		ts[i].Grants = held[ts[i].ID]
	}
	return slices.DeleteFunc(ts, func(t Token) bool {
		within, rest := a.part(AccessRead, t.Grants)
		return len(within) == 0 || len(rest) > 0
	}), err
}

var errToken = problem.Unauthenticated("This token is not valid, has ended or was revoked.")

// byToken finds who holds the token.
func (s *Service) byToken(ctx context.Context, text string) (Actor, error) {
	parts := strings.Split(text, "_")
	if len(parts) != 3 || parts[0] != "ot" || len(text) > 200 {
		return Actor{}, errToken
	}
	t, err := readToken(s.cfg.DB.QueryRow(ctx, tokenColumns+` WHERE id = $1`, "tok_"+parts[1]))
	if errors.Is(err, store.ErrNoRows) || problem.Is(err, problem.KindInvalid) { // the store refuses text that is not UTF-8
		return Actor{}, errToken
	}
	if err != nil {
		return Actor{}, err
	}
	now := s.cfg.Clock.Now()
	if subtle.ConstantTimeCompare([]byte(t.hash), []byte(hashOf(parts[2]))) != 1 || !t.Revoked.IsZero() || !now.Before(t.Expires) {
		return Actor{}, errToken
	}
	grants, err := grantsOf(s.reading(ctx), t.ID)
	if err != nil {
		return Actor{}, err
	}
	if now.Sub(t.Used) > usedEvery {
		s.note(ctx, `UPDATE token SET used = $1 WHERE id = $2`, store.Millis(now), t.ID)
	}
	return s.Rooted(ctx, Actor{ID: t.ID, Kind: KindToken, Name: t.Name, Tenant: t.Tenant, Grants: grants})
}

// note writes something that a request does not fail for.
func (s *Service) note(ctx context.Context, query string, args ...any) {
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(query, args...)
		return err
	})
	if err != nil {
		s.cfg.Log.WarnContext(ctx, "last use not noted", "err", err)
	}
}
