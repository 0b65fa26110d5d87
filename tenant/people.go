// SPDX-License-Identifier: AGPL-3.0-only

package tenant

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// Person is somebody who signs in with a passkey.
type Person struct {
	ID     string    `json:"id"`
	Tenant string    `json:"-"`
	Name   string    `json:"name"`
	At     time.Time `json:"joined"`
	Seen   time.Time `json:"last_sign_in,omitzero"`
	Grants []Grant   `json:"grants"`
	handle []byte
}

const (
	setupLife  = 15 * time.Minute
	inviteLife = 24 * time.Hour
	linkBytes  = 16 // 128 bits
)

// ErrHasPeople says that somebody has joined already, so that no setup link is given.
var ErrHasPeople = problem.Conflict("Somebody has joined already.").Hint("An owner can invite others; the host administrator can invite an owner.")

// SetupLink makes the one-time link, valid for 15 minutes, by which the first person enters; the path is to be joined to an
// origin. An older setup link ends. With people in the house it returns ErrHasPeople.
func (s *Service) SetupLink(ctx context.Context) (path string, err error) {
	text, hash := secret(linkBytes)
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := mustBeEmpty(tx); err != nil {
			return err
		}
		if _, err := tx.Exec(`DELETE FROM entry_link WHERE tenant = ''`); err != nil {
			return err
		}
		return s.insertLink(tx, hash, "", Grant{Role: Owner}, KindHost, setupLife)
	})
	if err != nil {
		return "", err
	}
	return "/enter/" + text, nil
}

func mustBeEmpty(tx *store.Tx) error {
	n, err := count(tx, `SELECT COUNT(*) FROM person`)
	if err == nil && n > 0 {
		return ErrHasPeople
	}
	return err
}

// Invite makes a one-time link, valid for a day, by which one more person enters with the grant. by must hold what it gives; Gives checks it before.
func (s *Service) Invite(tx *store.Tx, by, name string, g Grant) (path string, err error) {
	if !g.Role.Known() {
		return "", problem.Invalid("There is no role %q.", string(g.Role)).At("role")
	}
	text, hash := secret(linkBytes)
	if err := s.insertLink(tx, hash, name, g, by, inviteLife); err != nil {
		return "", err
	}
	return "/enter/" + text, audit.Append(tx, audit.Entry{Tenant: g.Tenant, Actor: by, Kind: "access.person-invited", Subject: g.Tenant,
		Data: map[string]any{"name": name, "grant": g}})
}

func (s *Service) insertLink(tx *store.Tx, hash, name string, g Grant, by string, life time.Duration) error {
	now := s.cfg.Clock.Now()
	if _, err := tx.Exec(`DELETE FROM entry_link WHERE expires < $1`, store.Millis(now)); err != nil {
		return err
	}
	_, err := tx.Exec(`INSERT INTO entry_link (hash, tenant, name, role, product, solution, made_by, at, expires, used) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0)`,
		hash, g.Tenant, name, string(g.Role), g.Product, g.Solution, by, store.Millis(now), store.Millis(now.Add(life)))
	return err
}

// endLinks ends the invitations that somebody made and nobody has used: who loses access does not keep a way back in.
func endLinks(tx *store.Tx, madeBy string) error {
	_, err := tx.Exec(`DELETE FROM entry_link WHERE made_by = $1 AND used = 0`, madeBy)
	return err
}

// link is an entry link that still works.
type link struct {
	hash, name string
	grant      Grant
	madeBy     string
}

func (l link) setup() bool { return l.grant.Tenant == "" }

var errLink = problem.NotFound("This link does not work: it was used, has ended, or never existed.").
	Hint("Ask for a new one: an owner invites people, and openthings up prints a new setup link while nobody has joined.")

func (s *Service) openLink(ctx context.Context, text string) (l link, err error) {
	l.hash = hashOf(text)
	err = s.cfg.DB.QueryRow(ctx, `SELECT tenant, name, role, product, solution, made_by FROM entry_link WHERE hash = $1 AND used = 0 AND expires > $2`,
		l.hash, store.Millis(s.cfg.Clock.Now())).Scan(&l.grant.Tenant, &l.name, &l.grant.Role, &l.grant.Product, &l.grant.Solution, &l.madeBy)
	if errors.Is(err, store.ErrNoRows) {
		return l, errLink
	}
	return l, err
}

// useLink uses the link up, in the transaction that lets the person in.
func (s *Service) useLink(tx *store.Tx, hash string) error {
	now := store.Millis(s.cfg.Clock.Now())
	n, err := tx.Exec(`UPDATE entry_link SET used = $1 WHERE hash = $2 AND used = 0 AND expires > $1`, now, hash)
	if err == nil && n != 1 {
		return errLink
	}
	return err
}

// join lets a person in through a link: the first one with a tenant of the name given, others where they were invited to.
func (s *Service) join(tx *store.Tx, l link, organisation string, p Person) (Person, error) {
	if err := s.useLink(tx, l.hash); err != nil {
		return p, err
	}
	p.ID, p.At = store.NewID("per"), s.cfg.Clock.Now().UTC()
	g := l.grant
	if l.setup() {
		if err := mustBeEmpty(tx); err != nil {
			return p, err
		}
		t, err := s.ensureTenant(tx, organisation, p.ID, true)
		if err != nil {
			return p, err
		}
		g.Tenant = t.ID
		if err := audit.Append(tx, audit.Entry{Tenant: t.ID, Actor: p.ID, Kind: "access.setup-used", Subject: p.ID}); err != nil {
			return p, err
		}
	}
	p.Tenant = g.Tenant
	if err := insertPerson(tx, p); err != nil {
		return p, err
	}
	if err := insertGrant(tx, p.ID, g); err != nil {
		return p, err
	}
	return p, audit.Append(tx, audit.Entry{Tenant: p.Tenant, Actor: p.ID, Kind: "access.person-joined", Subject: p.ID,
		Data: map[string]any{"name": p.Name, "grant": g, "invited_by": l.madeBy}})
}

// People lists who may enter what a can see access to, by name, with the grants that lie there.
func (s *Service) People(ctx context.Context, a Actor) ([]Person, error) {
	rows, err := s.cfg.DB.Query(ctx, personColumns+` WHERE tenant = $1 AND removed = 0 ORDER BY name, id`, a.Tenant)
	ps, err := store.Collect(rows, err, func(r *sql.Rows) (Person, error) { return readPerson(r) })
	if err != nil {
		return nil, err
	}
	held, err := grantsIn(s.reading(ctx), a.Tenant)
	for i := range ps {
		ps[i].Grants, _ = a.part(AccessRead, held[ps[i].ID])
	}
	whole := Can(a, AccessRead, Thing{Tenant: a.Tenant})
	return slices.DeleteFunc(ps, func(p Person) bool { return !whole && len(p.Grants) == 0 }), err
}

// part parts grants into those that lie where a holds v, and the rest.
func (a Actor) part(v Verb, grants []Grant) (within, rest []Grant) {
	within = []Grant{}
	for _, g := range grants {
		if Can(a, v, g.on()) {
			within = append(within, g)
		} else {
			rest = append(rest, g)
		}
	}
	return within, rest
}

// ActorName is the name of a person or of a token of the tenant, also after they were removed or revoked. Who is held to
// a solution learns the names of those who have a right there; everybody else is the tenant, by its name.
func (s *Service) ActorName(ctx context.Context, id string) (name string, err error) {
	a, _ := ActorFrom(ctx)
	knows, err := s.knows(ctx, a, id)
	if err != nil {
		return "", err
	}
	if !knows {
		t, err := s.Get(ctx, a.Tenant)
		return t.Name, err
	}
	token := strings.HasPrefix(id, "tok_")
	table := "person"
	if token {
		table = "token"
	}
	err = s.cfg.DB.QueryRow(ctx, `SELECT name FROM `+table+` WHERE tenant = $1 AND id = $2`, a.Tenant, id).Scan(&name)
	if errors.Is(err, store.ErrNoRows) {
		err = problem.NotFound("There is no person or token %s.", id)
	}
	if token {
		name = "token “" + name + "”"
	}
	return name, err
}

// knows says whether a may learn who the holder of that id is: the manufacturer's own people know everybody.
func (s *Service) knows(ctx context.Context, a Actor, id string) (bool, error) {
	if a.ID == id || a.staff() {
		return true, nil
	}
	held, err := grantsOf(s.reading(ctx), id)
	return slices.ContainsFunc(held, func(h Grant) bool {
		return slices.ContainsFunc(a.Grants, func(g Grant) bool { return g.covers(h.on(), a.tree) })
	}), err
}

// SolutionName is what the solution is called, for who has a right there; staff of the manufacturer know all.
func (s *Service) SolutionName(ctx context.Context, id string) (string, error) {
	a, _ := ActorFrom(ctx)
	on := Thing{Tenant: a.Tenant, Solution: id}
	if !a.staff() && !slices.ContainsFunc(a.Grants, func(g Grant) bool { return g.covers(on, a.tree) }) {
		return "", errNoSolution(id)
	}
	sol, err := s.Solution(ctx, a.Tenant, id)
	return sol.Name, err
}

// beyond returns what a person holds where by may not write access; all says that by may act on the person as a whole.
// Who holds nothing within by's reach does not exist for it.
func beyond(tx *store.Tx, by Actor, id string) (rest []Grant, all bool, err error) {
	held, err := grantsOf(tx, id)
	if err != nil {
		return nil, false, err
	}
	within, rest := by.part(AccessWrite, held)
	whole := Can(by, AccessWrite, Thing{Tenant: by.Tenant})
	if !whole && len(within) == 0 {
		return nil, false, errNoPerson(id)
	}
	return rest, whole || len(rest) == 0, nil
}

// removeHeld takes from a person what it holds where by may write access. A person with nothing left is removed.
func (s *Service) removeHeld(tx *store.Tx, by Actor, id string) error {
	rest, all, err := beyond(tx, by, id)
	if err != nil {
		return err
	}
	if all {
		return s.RemovePerson(tx, by.Tenant, id, by.ID)
	}
	return s.SetGrants(tx, by.Tenant, id, by.ID, rest)
}

// setHeld replaces what a person holds where by may write access.
func (s *Service) setHeld(tx *store.Tx, by Actor, id string, grants []Grant) error {
	rest, _, err := beyond(tx, by, id)
	if err != nil {
		return err
	}
	return s.SetGrants(tx, by.Tenant, id, by.ID, slices.Concat(rest, grants))
}

// signOutHeld ends a person's sessions, if all that it holds lies where by may write access.
func (s *Service) signOutHeld(tx *store.Tx, by Actor, id string) error {
	_, all, err := beyond(tx, by, id)
	if err != nil {
		return err
	}
	if all {
		return s.SignOut(tx, by.Tenant, id, by.ID)
	}
	return problem.Forbidden("access.elsewhere", "This person has a right elsewhere too, so you cannot end all sessions.").Hint("Remove the person: what it holds with you ends at once.")
}

func errNoPerson(id string) error { return problem.NotFound("There is no person %s.", id) }

// RemovePerson ends a person's access and sessions at once. The last owner of the tenant stays.
func (s *Service) RemovePerson(tx *store.Tx, tenant, id, by string) error {
	n, err := tx.Exec(`UPDATE person SET removed = $1 WHERE tenant = $2 AND id = $3 AND removed = 0`, store.Millis(s.cfg.Clock.Now()), tenant, id)
	if err != nil {
		return err
	}
	if n == 0 {
		return errNoPerson(id)
	}
	held, err := grantsOf(tx, id)
	if err != nil {
		return err
	}
	if err := mustHaveOwner(tx, tenant, held); err != nil {
		return err
	}
	if err := errors.Join(endSessions(tx, id), endLinks(tx, id)); err != nil {
		return err
	}
	return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: by, Kind: "access.person-removed", Subject: id})
}

// SignOut ends all sessions of a person at once: a browser was lost, not the person.
func (s *Service) SignOut(tx *store.Tx, tenant, id, by string) error {
	n, err := count(tx, `SELECT COUNT(*) FROM person WHERE tenant = $1 AND id = $2`, tenant, id)
	if err != nil {
		return err
	}
	if n == 0 {
		return errNoPerson(id)
	}
	if err := endSessions(tx, id); err != nil {
		return err
	}
	return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: by, Kind: "access.sessions-ended", Subject: id})
}

// SetGrants replaces what a person holds. The tenant must keep an owner.
func (s *Service) SetGrants(tx *store.Tx, tenant, id, by string, grants []Grant) error {
	n, err := count(tx, `SELECT COUNT(*) FROM person WHERE tenant = $1 AND id = $2 AND removed = 0`, tenant, id)
	if err != nil {
		return err
	}
	if n == 0 {
		return errNoPerson(id)
	}
	before, err := grantsOf(tx, id)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(`DELETE FROM access_grant WHERE holder = $1`, id); err != nil {
		return err
	}
	for _, g := range grants {
		if g.Tenant != tenant || !g.Role.Known() {
			return problem.Invalid("There is no role %q here.", string(g.Role)).At("role")
		}
		if err := insertGrant(tx, id, g); err != nil {
			return err
		}
	}
	if err := errors.Join(mustHaveOwner(tx, tenant, before), endLinks(tx, id)); err != nil {
		return err
	}
	return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: by, Kind: "access.grant-changed", Subject: id, Data: map[string]any{"before": before, "after": grants}})
}

// mustHaveOwner is the last check of whatever takes access away. It locks the tenant's row, so that on PostgreSQL two
// owners who remove each other at the same time do not both succeed. taken is what somebody held until now.
func mustHaveOwner(tx *store.Tx, tenant string, taken []Grant) error {
	if !slices.Contains(taken, Grant{Role: Owner, Tenant: tenant}) {
		return nil
	}
	if _, err := tx.Exec(`UPDATE tenant SET at = at WHERE id = $1`, tenant); err != nil {
		return err
	}
	n, err := count(tx, `SELECT COUNT(*) FROM person p JOIN access_grant g ON g.holder = p.id
		WHERE p.tenant = $1 AND p.removed = 0 AND g.tenant = $1 AND g.role = $2 AND g.product = '' AND g.solution = ''`, tenant, string(Owner))
	if err == nil && n == 0 {
		return problem.Forbidden("access.last-owner", "This is the last owner of the tenant.").Hint("Make somebody else an owner first.")
	}
	return err
}

// Gives refuses unless a may hand g to somebody else: it may write access there and holds every verb of the role itself.
func Gives(a Actor, g Grant) error {
	if g.Product != "" && g.Solution != "" {
		return problem.Invalid("A role is held on a product or on a solution, not on both.").At("solution")
	}
	t := g.on()
	if !Can(a, AccessWrite, t) {
		return problem.Forbidden("access."+string(AccessWrite), "Your roles do not let you give access there.")
	}
	for _, v := range Verbs {
		if g.Role.Has(v.Verb) && !Can(a, v.Verb, t) {
			return problem.Forbidden("access.give", "You cannot give %s, which you do not hold yourself.", v.Verb)
		}
	}
	return nil
}
