// SPDX-License-Identifier: AGPL-3.0-only

package tenant

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// CommandLinePath is the page on which a person lets a command line in.
const CommandLinePath = SignInPath + "/command-line"

const (
	commandLineWait = 10 * time.Minute
	commandLineLife = 12 * time.Hour
	commandLinePoll = 2 * time.Second
	sessionPrefix   = "os_" // of a session that comes as a bearer token
	maxCommandLines = 1000  // that wait at a time, of all tenants
)

// codeLetters have no vowels, so that no code is a word, and nothing that looks like a digit (RFC 8628 section 6.1).
const codeLetters = "BCDFGHJKLMNPQRSTVWXZ"

// CommandLine is what a program needs to be let in by a person: it shows Code and Page, and asks with Secret until somebody
// has typed the code (after RFC 8628). The address of the page does not hold the code: a person who is led there by a link
// of somebody else has nothing to confirm.
type CommandLine struct {
	Secret string    `json:"secret"`
	Code   string    `json:"code"`
	Page   string    `json:"page"`  // a path of the console
	Every  int       `json:"every"` // seconds between two questions
	Until  time.Time `json:"until"`
}

// Entered is the answer to a program that waits: Session is absent until a person has let it in, and is told once.
type Entered struct {
	Session string    `json:"session,omitempty"`
	Name    string    `json:"name,omitempty"`
	Until   time.Time `json:"until,omitzero"`
}

// waitForPerson begins to wait for a person. origin is what the program says that it is.
func (s *Service) waitForPerson(ctx context.Context, origin string) (c CommandLine, err error) {
	if origin, err = checkName("command line", origin); err != nil {
		return c, err
	}
	text, hash := secret(32)
	code := newCode()
	now := s.cfg.Clock.Now().UTC()
	c = CommandLine{Secret: text, Code: code[:4] + "-" + code[4:], Page: CommandLinePath, Every: int(commandLinePoll / time.Second), Until: now.Add(commandLineWait)}
	return c, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if _, err := tx.Exec(`DELETE FROM command_line WHERE expires <= $1`, store.Millis(now)); err != nil {
			return err
		}
		n, err := count(tx, `SELECT COUNT(*) FROM command_line`)
		if err != nil {
			return err
		}
		if n >= maxCommandLines {
			return problem.Limited("Too many command lines wait to be let in.").Hint("Try again in some minutes.")
		}
		_, err = tx.Exec(`INSERT INTO command_line (hash, code, origin, person, expires) VALUES ($1, $2, $3, '', $4)`, hash, code, origin, store.Millis(c.Until))
		return err
	})
}

// newCode makes eight letters, 34 bits: with five tries a second at most, ten minutes are too short to hit one.
func newCode() string {
	b := make([]byte, 8)
	rand.Read(b)
	for i := range b {
		// 256 is no multiple of 20, which makes the first letters likelier by a twelfth: the bound above does not mind.
		b[i] = codeLetters[int(b[i])%len(codeLetters)]
	}
	return string(b)
}

// letIn lets the command line with that code in as the person who asks, and returns what it says that it is.
func (s *Service) letIn(ctx context.Context, typed string) (origin string, err error) {
	a, _ := ActorFrom(ctx)
	if a.Kind != KindPerson {
		return "", problem.Forbidden("access.person-only", "Only a person who signed in lets a command line in.")
	}
	if err := s.limiter.Take(a.ID, 1); err != nil {
		return "", err
	}
	code := strings.NewReplacer("-", "", " ", "").Replace(strings.ToUpper(typed))
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		err := tx.QueryRow(`UPDATE command_line SET person = $1 WHERE code = $2 AND person = '' AND expires > $3 RETURNING origin`,
			a.ID, code, store.Millis(s.cfg.Clock.Now())).Scan(&origin)
		if errors.Is(err, store.ErrNoRows) || problem.Is(err, problem.KindInvalid) {
			return problem.Invalid("No command line waits with this code.").At("code").Hint("A code lasts ten minutes and works once: openthings login shows a new one.")
		}
		if err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: a.Tenant, Actor: a.ID, Kind: "access.command-line", Subject: a.ID, Data: map[string]any{"origin": origin}})
	})
	return origin, err
}

// enter gives a program its session, once a person has let it in.
func (s *Service) enter(ctx context.Context, text string) (e Entered, err error) {
	hash, now := hashOf(text), s.cfg.Clock.Now().UTC()
	return e, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		var id string
		err := tx.QueryRow(`SELECT person FROM command_line WHERE hash = $1 AND expires > $2`, hash, store.Millis(now)).Scan(&id)
		switch {
		case errors.Is(err, store.ErrNoRows):
			return problem.Unauthenticated("This took too long, or the session was told before.").Hint("Begin again: openthings login.")
		case err != nil || id == "":
			return err
		}
		if _, err := tx.Exec(`DELETE FROM command_line WHERE hash = $1`, hash); err != nil {
			return err
		}
		if err := tx.QueryRow(`SELECT name FROM person WHERE id = $1 AND removed = 0`, id).Scan(&e.Name); err != nil {
			if errors.Is(err, store.ErrNoRows) {
				return errSession
			}
			return err
		}
		e.Until = now.Add(commandLineLife)
		session, err := s.startSession(tx, id, "", commandLineLife)
		e.Session = sessionPrefix + session
		return err
	})
}

// commandLineDoors are what a command line and the person who lets it in use.
func (s *Service) commandLineDoors(c *console.Console) {
	c.Handle("POST "+CommandLinePath+"/begin", "", s.ceremony(func(_ http.ResponseWriter, r *http.Request) (any, error) {
		var in struct{ Origin string }
		if err := json.NewDecoder(io.LimitReader(r.Body, 4<<10)).Decode(&in); err != nil {
			return nil, problem.Invalid("The request could not be read.").Because(err)
		}
		return s.waitForPerson(r.Context(), in.Origin)
	}))
	c.Handle("POST "+CommandLinePath+"/session", "", s.ceremony(func(_ http.ResponseWriter, r *http.Request) (any, error) {
		var in struct{ Secret string }
		if err := json.NewDecoder(io.LimitReader(r.Body, 4<<10)).Decode(&in); err != nil {
			return nil, problem.Invalid("The request could not be read.").Because(err)
		}
		return s.enter(r.Context(), in.Secret)
	}))
	c.Handle("POST "+CommandLinePath+"/end", string(DeviceRead), func(w http.ResponseWriter, r *http.Request) error {
		return s.endSession(r.Context(), strings.TrimPrefix(api.Bearer(r), sessionPrefix))
	})
	c.Page(console.Page{Path: CommandLinePath, Title: "Let a command line in", Verb: string(DeviceRead), FS: pagesFS, Template: "pages/command-line.html",
		Load: func(r *http.Request) (any, error) {
			a, _ := ActorFrom(r.Context())
			return struct{ Name string }{a.Name}, nil
		}})
	c.Form(CommandLinePath, string(DeviceRead), func(r *http.Request) (string, error) {
		if api.Bearer(r) != "" {
			return "", problem.Forbidden("access.person-only", "A command line lets no other in.").Hint("Open this page in a browser.")
		}
		origin, err := s.letIn(r.Context(), r.PostFormValue("code"))
		console.Say(r, "The command line “"+origin+"” acts as you for the next 12 hours. Was it not yours? An owner ends your sessions on the page Access.")
		return CommandLinePath, err
	})
}
