// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

// Declared is a command that the devices of a product understand.
type Declared struct {
	Product string   `json:"product"`
	Name    string   `json:"name"`
	Title   string   `json:"title" doc:"What people call it"`
	About   string   `json:"about,omitempty"`
	Args    []Arg    `json:"args"`
	Roles   []string `json:"roles" doc:"Who may send it; empty: every role that may send commands"`
	Policy
	Actor   string    `json:"actor"`
	Updated time.Time `json:"updated"`
}

// Arg is one argument of a declared command.
type Arg struct {
	Name     string   `json:"name"`
	Type     string   `json:"type" enum:"string,number,integer,boolean"`
	About    string   `json:"about,omitempty"`
	Required bool     `json:"required,omitempty"`
	Min      *float64 `json:"min,omitempty" doc:"Least value of a number"`
	Max      *float64 `json:"max,omitempty" doc:"Greatest value of a number"`
	Choices  []string `json:"choices,omitempty" doc:"The only values of a string"`
	Default  string   `json:"default,omitempty" doc:"What a form begins with"`
}

// Bounds of a declaration.
const (
	maxDeclared = 100 // commands of a product
	maxArgCount = 20
	maxAbout    = 500
	maxString   = 1000 // bytes of an argument
)

var argPattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,31}$`)

// check refuses a declaration that no form could show.
func (d Declared) check() error {
	if !namePattern.MatchString(d.Name) {
		return problem.Invalid("A command's name is 1 to 32 of a-z, 0-9 and -, beginning with a letter.").At("name")
	}
	if why := reserved[d.Name]; why != "" {
		return problem.Forbidden("command.reserved", "%q has a meaning of its own.", d.Name).Hint("%s", why)
	}
	if d.Name == wire.CommandNotice {
		return problem.Forbidden("command.reserved", "%q has a meaning of its own.", d.Name).Hint("Every product can be sent notices: its arguments are those of a notice.")
	}
	if d.Title == "" || len(d.Title) > maxTitle || len(d.About) > maxAbout {
		return problem.Invalid("A title has 1 to %d bytes, a text at most %d.", maxTitle, maxAbout).At("title")
	}
	if len(d.Args) > maxArgCount {
		return problem.Invalid("A command has at most %d arguments.", maxArgCount).At("args")
	}
	seen := map[string]bool{}
	for i, a := range d.Args {
		at := fmt.Sprintf("args[%d]", i)
		number := a.Type == "number" || a.Type == "integer"
		switch {
		case !argPattern.MatchString(a.Name) || seen[a.Name]:
			return problem.Invalid("An argument's name is 1 to 32 letters, digits and _, and its own.").At(at + ".name")
		case !number && a.Type != "string" && a.Type != "boolean":
			return problem.Invalid("An argument is a string, number, integer or boolean.").At(at + ".type")
		case !number && (a.Min != nil || a.Max != nil), a.Type != "string" && len(a.Choices) > 0:
			return problem.Invalid("Bounds are for numbers, choices for strings.").At(at)
		case a.Min != nil && a.Max != nil && *a.Min > *a.Max, len(a.Choices) > 50, len(a.About) > maxAbout:
			return problem.Invalid("These bounds leave nothing.").At(at)
		}
		seen[a.Name] = true
	}
	for _, r := range d.Roles {
		if !tenant.Role(r).Has(tenant.CommandSend) {
			return problem.Invalid("The role %q sends no commands.", r).At("roles")
		}
	}
	return d.Policy.check()
}

// policy is the declared one, or the default for a command that nobody declared.
func (d Declared) policy() Policy {
	if d.Name == "" {
		return DefaultPolicy
	}
	return d.Policy
}

// accepts says whether the arguments are as declared. A command that nobody declared takes any.
func (d Declared) accepts(args json.RawMessage) error {
	if d.Name == "" {
		return nil
	}
	var given map[string]any
	if err := json.Unmarshal(args, &given); err != nil {
		return problem.Invalid("The arguments must be a JSON object.").At("args").Because(err)
	}
	for _, a := range d.Args {
		v, ok := given[a.Name]
		delete(given, a.Name)
		if !ok {
			if a.Required {
				return problem.Invalid("%s needs the argument %s.", d.Name, a.Name).At("args." + a.Name)
			}
			continue
		}
		if why := a.refuses(v); why != "" {
			return problem.Invalid("The argument %s %s.", a.Name, why).At("args." + a.Name)
		}
	}
	for name := range given {
		return problem.Invalid("%s has no argument %s.", d.Name, name[:min(len(name), 64)]).At("args").Hint("It takes: %s.", strings.Join(d.names(), ", "))
	}
	return nil
}

func (d Declared) names() []string {
	out := []string{}
	for _, a := range d.Args {
		out = append(out, a.Name)
	}
	if len(out) == 0 {
		return []string{"none"}
	}
	return out
}

// refuses says in words what is wrong with a value, or "".
func (a Arg) refuses(v any) string {
	switch a.Type {
	case "string":
		s, ok := v.(string)
		switch {
		case !ok:
			return "is not a text"
		case len(s) > maxString:
			return fmt.Sprintf("is longer than %d bytes", maxString)
		case len(a.Choices) > 0 && !slices.Contains(a.Choices, s):
			return "is none of " + strings.Join(a.Choices, ", ")
		}
	case "boolean":
		if _, ok := v.(bool); !ok {
			return "is neither true nor false"
		}
	default:
		n, ok := v.(float64)
		switch {
		case !ok:
			return "is not a number"
		case a.Type == "integer" && n != math.Trunc(n):
			return "is not a whole number"
		case a.Min != nil && n < *a.Min:
			return fmt.Sprintf("is less than %v", *a.Min)
		case a.Max != nil && n > *a.Max:
			return fmt.Sprintf("is greater than %v", *a.Max)
		}
	}
	return ""
}

// allows says whether one of the roles that the actor holds on the thing may send it.
func (d Declared) allows(who tenant.Actor, thing tenant.Thing) error {
	if len(d.Roles) == 0 {
		return nil
	}
	for _, g := range who.Grants {
		one := who
		one.Grants = []tenant.Grant{g}
		if slices.Contains(d.Roles, string(g.Role)) && tenant.Can(one, tenant.CommandSend, thing) {
			return nil
		}
	}
	return problem.Forbidden("command.role", "%s is for %s.", d.Title, strings.Join(d.Roles, ", "))
}

// fits says whether whoever asks may send the command with these arguments to devices of the thing. Where a product
// declares its commands, others are for those who may declare them.
func (s *Service) fits(ctx context.Context, thing tenant.Thing, name string, args json.RawMessage) (Declared, error) {
	who, _ := tenant.ActorFrom(ctx)
	if name == wire.CommandNotice {
		if !tenant.Can(who, tenant.CatalogueWrite, thing) { // a customer may send commands to the devices that it uses
			return Declared{}, problem.Forbidden("command.notice", "A notice on a device speaks for its maker.").Hint("It is sent by whoever holds %s.", tenant.CatalogueWrite)
		}
		_, err := checkNotice(args)
		return noticeKind, err
	}
	all, err := s.Catalogue(ctx, thing.Tenant, thing.Product)
	if err != nil || len(all) == 0 {
		return Declared{}, err
	}
	i := slices.IndexFunc(all, func(d Declared) bool { return d.Name == name })
	if i < 0 {
		if tenant.Can(who, tenant.CatalogueWrite, thing) {
			return Declared{}, nil
		}
		return Declared{}, problem.Forbidden("command.undeclared", "This product declares no command %q.", name).Hint("Whoever holds %s may declare it, or send it as it is.", tenant.CatalogueWrite)
	}
	if err := all[i].allows(who, thing); err != nil {
		return Declared{}, err
	}
	return all[i], all[i].accepts(args)
}

// Declare puts a command into a product's catalogue, over the one of that name.
func (s *Service) Declare(ctx context.Context, tenantID string, d Declared) (Declared, error) {
	if err := d.check(); err != nil {
		return d, err
	}
	d.Updated = store.Time(store.Millis(s.cfg.Clock.Now()))
	if d.Args == nil {
		d.Args = []Arg{}
	}
	if d.Roles == nil {
		d.Roles = []string{}
	}
	args, err := json.Marshal(d.Args)
	if err != nil {
		return d, err
	}
	roles, err := json.Marshal(d.Roles)
	if err != nil {
		return d, err
	}
	return d, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		var n int64
		if err := tx.QueryRow(`SELECT count(*) FROM command_declared WHERE tenant = $1 AND product = $2 AND name <> $3`, tenantID, d.Product, d.Name).Scan(&n); err != nil {
			return err
		}
		if n >= maxDeclared {
			return problem.Conflict("A product declares at most %d commands.", maxDeclared)
		}
		_, err := tx.Exec(`INSERT INTO command_declared(tenant, product, name, title, about, args, idempotent, ack_timeout, result_timeout, retries, backoff, roles, actor, updated)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
			ON CONFLICT (tenant, product, name) DO UPDATE SET title = excluded.title, about = excluded.about, args = excluded.args, idempotent = excluded.idempotent,
				ack_timeout = excluded.ack_timeout, result_timeout = excluded.result_timeout, retries = excluded.retries, backoff = excluded.backoff, roles = excluded.roles, actor = excluded.actor, updated = excluded.updated`,
			tenantID, d.Product, d.Name, d.Title, d.About, string(args), flag(d.Idempotent), d.AckTimeout, d.ResultTimeout, d.Retries, d.Backoff, string(roles), d.Actor, store.Millis(d.Updated))
		if err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: tenantID, Actor: d.Actor, Kind: "command.declared", Subject: d.Product, Data: map[string]any{"name": d.Name, "idempotent": d.Idempotent, "roles": d.Roles}})
	})
}

// Withdraw takes a command out of a product's catalogue.
func (s *Service) Withdraw(ctx context.Context, tenantID, product, name, actor string) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		n, err := tx.Exec(`DELETE FROM command_declared WHERE tenant = $1 AND product = $2 AND name = $3`, tenantID, product, name)
		if err != nil {
			return err
		}
		if n == 0 {
			return problem.NotFound("The product declares no such command.")
		}
		return audit.Append(tx, audit.Entry{Tenant: tenantID, Actor: actor, Kind: "command.withdrawn", Subject: product, Data: map[string]any{"name": name}})
	})
}

const declaredColumns = `product, name, title, about, args, idempotent, ack_timeout, result_timeout, retries, backoff, roles, actor, updated`

func scanDeclared(scan func(...any) error) (d Declared, err error) {
	var args, roles string
	var idempotent, updated int64
	if err := scan(&d.Product, &d.Name, &d.Title, &d.About, &args, &idempotent, &d.AckTimeout, &d.ResultTimeout, &d.Retries, &d.Backoff, &roles, &d.Actor, &updated); err != nil {
		return d, err
	}
	d.Idempotent, d.Updated = idempotent == 1, store.Time(updated)
	return d, errors.Join(json.Unmarshal([]byte(args), &d.Args), json.Unmarshal([]byte(roles), &d.Roles))
}

// isProduct refuses what is no product of the tenant.
func (s *Service) isProduct(ctx context.Context, tenantID, id string) error {
	if s.cfg.Product == nil {
		return nil
	}
	_, err := s.cfg.Product.Get(ctx, tenantID, id)
	return err
}

// Catalogue lists what a product declares, by name.
func (s *Service) Catalogue(ctx context.Context, tenantID, product string) ([]Declared, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT `+declaredColumns+` FROM command_declared WHERE tenant = $1 AND product = $2 ORDER BY name`, tenantID, product)
	return store.Collect(rows, err, func(r *sql.Rows) (Declared, error) { return scanDeclared(r.Scan) })
}

// declared returns one command of a product, or a zero one if the product does not declare it.
func (s *Service) declared(ctx context.Context, tenantID, product, name string) (Declared, error) {
	d, err := scanDeclared(s.cfg.DB.QueryRow(ctx, `SELECT `+declaredColumns+` FROM command_declared WHERE tenant = $1 AND product = $2 AND name = $3`, tenantID, product, name).Scan)
	if errors.Is(err, store.ErrNoRows) {
		return Declared{}, nil
	}
	return d, err
}

// declaredAs returns every product's command of that name.
func (s *Service) declaredAs(ctx context.Context, tenantID, name string) ([]Declared, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT `+declaredColumns+` FROM command_declared WHERE tenant = $1 AND name = $2 ORDER BY product`, tenantID, name)
	return store.Collect(rows, err, func(r *sql.Rows) (Declared, error) { return scanDeclared(r.Scan) })
}
