// SPDX-License-Identifier: AGPL-3.0-only

package tenant

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"crypto/rand"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// ceremonyLife is how long somebody may take to touch the key.
const ceremonyLife = 5 * time.Minute

// ceremony is what is remembered between the two requests of a passkey being made or used (WebAuthn Level 3, 7.1 and 7.2).
type ceremony struct {
	Session      webauthn.SessionData `json:"session"`
	Name         string               `json:"name,omitempty"`
	Organisation string               `json:"organisation,omitempty"`
	Handle       []byte               `json:"handle,omitempty"`
	Link         string               `json:"link,omitempty"` // hash
}

func (s *Service) keepCeremony(ctx context.Context, w http.ResponseWriter, c ceremony) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	text, hash := secret(32)
	now := s.cfg.Clock.Now()
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if _, err := tx.Exec(`DELETE FROM ceremony WHERE expires < $1`, store.Millis(now)); err != nil {
			return err
		}
		_, err := tx.Exec(`INSERT INTO ceremony (hash, data, expires) VALUES ($1, $2, $3)`, hash, string(b), store.Millis(now.Add(ceremonyLife)))
		return err
	})
	if err == nil {
		setCookie(w, ceremonyCookie, text, ceremonyLife)
	}
	return err
}

// takeCeremony returns what was remembered, once: a challenge is never answered twice.
func (s *Service) takeCeremony(ctx context.Context, w http.ResponseWriter, r *http.Request) (c ceremony, err error) {
	hash := hashOf(cookieOf(r, ceremonyCookie))
	setCookie(w, ceremonyCookie, "", 0)
	var data string
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		return tx.QueryRow(`DELETE FROM ceremony WHERE hash = $1 AND expires > $2 RETURNING data`, hash, store.Millis(s.cfg.Clock.Now())).Scan(&data)
	})
	if errors.Is(err, store.ErrNoRows) {
		return c, problem.Invalid("This took too long or was answered before.").Hint("Begin again.")
	}
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal([]byte(data), &c)
}

// keyHolder is a person as the WebAuthn library wants to see one.
type keyHolder struct {
	id, tenant, name string
	handle           []byte
	keys             []webauthn.Credential
}

func (k keyHolder) WebAuthnID() []byte                         { return k.handle }
func (k keyHolder) WebAuthnName() string                       { return k.name }
func (k keyHolder) WebAuthnDisplayName() string                { return k.name }
func (k keyHolder) WebAuthnCredentials() []webauthn.Credential { return k.keys }

// beginJoin starts making a passkey for who follows the link.
func (s *Service) beginJoin(ctx context.Context, w http.ResponseWriter, linkText, name, organisation string) (any, error) {
	l, err := s.openLink(ctx, linkText)
	if err != nil {
		return nil, err
	}
	if name, err = checkName("person", name); err != nil {
		return nil, err
	}
	if l.setup() {
		if organisation, err = checkName("organisation", organisation); err != nil {
			return nil, err
		}
	}
	handle := make([]byte, 64)
	rand.Read(handle)
	options, session, err := s.keys.BeginRegistration(keyHolder{name: name, handle: handle})
	if err != nil {
		return nil, err
	}
	return options, s.keepCeremony(ctx, w, ceremony{Session: *session, Name: name, Organisation: organisation, Handle: handle, Link: l.hash})
}

// finishJoin checks the new passkey, lets the person in and starts a session.
func (s *Service) finishJoin(ctx context.Context, w http.ResponseWriter, r *http.Request, linkText string) error {
	c, err := s.takeCeremony(ctx, w, r)
	if err != nil {
		return err
	}
	l, err := s.openLink(ctx, linkText)
	if err != nil {
		return err
	}
	if l.hash != c.Link {
		return problem.Invalid("This answer belongs to another link.")
	}
	answer, err := protocol.ParseCredentialCreationResponseBody(io.LimitReader(r.Body, 64<<10))
	if err != nil {
		return problem.Invalid("The passkey's answer could not be read.").Because(err)
	}
	key, err := s.keys.CreateCredential(keyHolder{name: c.Name, handle: c.Handle}, c.Session, answer)
	if err != nil {
		return problem.Invalid("The passkey was not accepted.").Because(err).Hint("Use one that verifies you, by fingerprint, face or PIN.")
	}
	keyJSON, err := json.Marshal(key)
	if err != nil {
		return err
	}
	var cookie string
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		p, err := s.join(tx, l, c.Organisation, Person{Name: c.Name, handle: c.Handle})
		if err != nil {
			return err
		}
		now := store.Millis(s.cfg.Clock.Now())
		if _, err := tx.Exec(`INSERT INTO passkey (id, person, credential, at, used) VALUES ($1, $2, $3, $4, $4)`, keyID(key.ID), p.ID, string(keyJSON), now); err != nil {
			return err
		}
		cookie, err = s.startSession(tx, p.ID, cookieOf(r, sessionCookie), sessionLife)
		return err
	})
	if store.IsUnique(err) {
		return problem.Conflict("This passkey is registered already.")
	}
	if err == nil {
		setCookie(w, sessionCookie, cookie, sessionLife)
	}
	return err
}

// beginSignIn asks for any passkey of ours; who it is comes with the answer.
func (s *Service) beginSignIn(ctx context.Context, w http.ResponseWriter) (any, error) {
	options, session, err := s.keys.BeginDiscoverableLogin(webauthn.WithUserVerification(protocol.VerificationRequired))
	if err != nil {
		return nil, err
	}
	return options, s.keepCeremony(ctx, w, ceremony{Session: *session})
}

var errKey = problem.Unauthenticated("This passkey is not known here, or its owner may no longer enter.").Hint("Ask an owner for an invitation.")

// finishSignIn checks the answer and starts a session.
func (s *Service) finishSignIn(ctx context.Context, w http.ResponseWriter, r *http.Request) error {
	c, err := s.takeCeremony(ctx, w, r)
	if err != nil {
		return err
	}
	answer, err := protocol.ParseCredentialRequestResponseBody(io.LimitReader(r.Body, 64<<10))
	if err != nil {
		return problem.Invalid("The passkey's answer could not be read.").Because(err)
	}
	var holder keyHolder
	_, key, err := s.keys.ValidatePasskeyLogin(func(rawID, handle []byte) (webauthn.User, error) {
		var err error
		holder, err = s.keyHolder(ctx, rawID, handle)
		return holder, err
	}, c.Session, answer)
	if err != nil {
		return errorsOr(err, errKey)
	}
	if key.Authenticator.CloneWarning {
		return problem.Forbidden("access.cloned-passkey", "This passkey seems to exist twice: its counter went back.").Hint("Ask an owner for an invitation and register another.")
	}
	keyJSON, err := json.Marshal(key)
	if err != nil {
		return err
	}
	var cookie string
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if n, err := count(tx, `SELECT COUNT(*) FROM person WHERE id = $1 AND removed = 0`, holder.id); err != nil {
			return err
		} else if n == 0 { // removed while the key was touched
			return errKey
		}
		if _, err := tx.Exec(`UPDATE passkey SET credential = $1, used = $2 WHERE id = $3`, string(keyJSON), store.Millis(s.cfg.Clock.Now()), keyID(key.ID)); err != nil {
			return err
		}
		var err error
		cookie, err = s.startSession(tx, holder.id, cookieOf(r, sessionCookie), sessionLife)
		return err
	})
	if err == nil {
		setCookie(w, sessionCookie, cookie, sessionLife)
	}
	return err
}

// errorsOr keeps a failure of ours, such as a database that is away, and turns any other refusal into the one given.
func errorsOr(err error, refusal *problem.Error) error {
	var failed *lookupError
	if errors.As(err, &failed) {
		return failed.err
	}
	e := *refusal
	return e.Because(err)
}

type lookupError struct{ err error }

func (l *lookupError) Error() string { return l.err.Error() }

// keyHolder finds the person that the passkey belongs to, by both its id and its user handle.
func (s *Service) keyHolder(ctx context.Context, rawID, handle []byte) (keyHolder, error) {
	var h keyHolder
	var keyJSON string
	err := s.cfg.DB.QueryRow(ctx, `SELECT p.id, p.tenant, p.name, p.handle, k.credential FROM passkey k JOIN person p ON p.id = k.person
		WHERE k.id = $1 AND p.handle = $2 AND p.removed = 0`, keyID(rawID), handle).Scan(&h.id, &h.tenant, &h.name, &h.handle, &keyJSON)
	if errors.Is(err, store.ErrNoRows) {
		return h, errKey
	}
	if err != nil {
		return h, &lookupError{err}
	}
	var key webauthn.Credential
	if err := json.Unmarshal([]byte(keyJSON), &key); err != nil {
		return h, &lookupError{err}
	}
	h.keys = []webauthn.Credential{key}
	return h, nil
}

func keyID(raw []byte) string { return base64.RawURLEncoding.EncodeToString(raw) }
