// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"
	"crypto/cipher"
	"database/sql"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

// Config is what the stage needs.
type Config struct {
	DB       *store.DB // the platform handle
	Identity *identity.Service
	Fleet    *fleet.Service   // whom a job reaches; nil: there are no jobs
	Product  *product.Service // nil: any id is a product
	Tenant   *tenant.Service  // solutions that stand in others; nil: none do
	// Acting returns who made a job, with the rights that they hold now (tenant.Service.Acting); needed for jobs.
	Acting func(ctx context.Context, tenant, id string) (tenant.Actor, error)
	Keys   *seal.Keys  // seals what is asked of a device and what it answers
	Clock  clock.Clock // default clock.System
	Log    *slog.Logger
	// Deliver publishes to a device and returns nil once the device acknowledged it (gateway.Send). An error leaves the
	// command queued until Kick.
	Deliver func(context.Context, gateway.Downlink) error
	// Live says whether the device has a session, so that nothing is tried in vain (gateway.Live); nil: try always.
	Live func(device string) bool
}

// Hook looks at the result of a command in the transaction that ends it; what was asked is sealed in c. A problem of kind invalid makes the command
// fail with its text; any other error leaves the command open, and the result is handed over again.
type Hook func(tx *store.Tx, c Command, r wire.CommandResult) error

// Service is the stage. Its methods are safe for concurrent use.
type Service struct {
	cfg        Config
	hooks      map[string]Hook // by command name; complete before work begins
	noticeHook NoticeHook
	turns      *gateway.Turns // devices to look at

	returned *arrivals // devices that have come back, for jobs
}

// New makes the stage and takes over its jobs, and what devices say of their twins if there is a fleet.
func New(cfg Config) *Service {
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{cfg: cfg, hooks: map[string]Hook{}, turns: gateway.NewTurns(), returned: newArrivals()}
	cfg.DB.Handle(driveJob, s.drive)
	cfg.DB.On(identity.TopicBarred, "command", s.endBarred)
	if cfg.Fleet != nil {
		cfg.Fleet.OnApplied(s.applied)
		cfg.Fleet.UsedBy(s.usesGroup)
	}
	return s
}

// OnResult lets a later stage look at results of commands of that name. Call it before work begins.
func (s *Service) OnResult(name string, h Hook) {
	if s.hooks[name] != nil {
		panic("command: two hooks for results of " + name)
	}
	s.hooks[name] = h
}

// Request asks one device to do something. The caller has checked that the device is the tenant's.
type Request struct {
	Tenant, Device, Name string
	Args                 any // a JSON object; nil: none
	NotAfter             time.Time
	Actor                string
	Key                  string // the same key for a device is the same command; empty: each is another
	Job                  string
	Policy               Policy // zero: DefaultPolicy
}

// Send is Ask for what needs no key, job or policy.
func (s *Service) Send(tx *store.Tx, tenant, device, name string, args any, notAfter time.Time, actor string) (id string, err error) {
	return s.Ask(tx, Request{Tenant: tenant, Device: device, Name: name, Args: args, NotAfter: notAfter, Actor: actor})
}

// Ask asks a device to do something, and tries to deliver it once the transaction is durable.
func (s *Service) Ask(tx *store.Tx, r Request) (id string, err error) {
	raw := json.RawMessage(`{}`)
	if r.Args != nil {
		if raw, err = json.Marshal(r.Args); err != nil {
			return "", problem.Invalid("The arguments cannot be written as JSON.").At("args").Because(err)
		}
	}
	if r.Policy == (Policy{}) {
		r.Policy = DefaultPolicy
	}
	now := s.cfg.Clock.Now()
	c := Command{ID: store.NewID("cmd"), Tenant: r.Tenant, Device: r.Device, Name: r.Name, Args: raw, State: Queued, Actor: r.Actor, Created: now,
		NotAfter: r.NotAfter, Key: r.Key, Job: r.Job, Policy: r.Policy}
	if err := c.check(now); err != nil {
		return "", err
	}
	if c.Name == wire.CommandNotice {
		n, err := checkNotice(raw)
		if err != nil {
			return "", err
		}
		c.Notice = n.ID
	}
	key, err := s.keyTx(tx, c.Tenant, c.Device)
	if errors.Is(err, seal.ErrDestroyed) {
		return "", problem.Conflict("The device's data was erased: it takes no commands any more.")
	}
	if err != nil {
		return "", err
	}
	c.asked = key.Seal(nil, nil, raw, c.bind("args"))
	fresh, err := insert(tx, c)
	if err != nil {
		return "", err
	}
	if !fresh {
		return repeated(tx, c, key)
	}
	if c.Notice != "" {
		if err := askNotice(tx, c); err != nil {
			return "", err
		}
	}
	data := map[string]any{"command": c.ID, "name": c.Name, "args": wire.Digest(c.asked), "not_after": store.Millis(c.NotAfter)}
	if c.Job != "" {
		data["job"] = c.Job
	}
	if err := audit.Append(tx, audit.Entry{Tenant: c.Tenant, Actor: c.Actor, Kind: "command.created", Subject: c.Device, Data: data}); err != nil {
		return "", err
	}
	tx.After(func() { s.Kick(c.Device) })
	return c.ID, nil
}

// repeated finds the command that was asked for with the same key before. The key of another one is a conflict.
func repeated(tx *store.Tx, c Command, key cipher.AEAD) (string, error) {
	before, err := byKey(tx, c.Tenant, c.Device, c.Key)
	if err != nil {
		return "", err
	}
	if err := before.open(key); err != nil {
		return "", err
	}
	if before.Name != c.Name || string(before.Args) != string(c.Args) {
		return "", problem.Conflict("The key %q was used for another command to this device.", c.Key).At("key")
	}
	return before.ID, nil
}

// Cancel takes a command back that the device does not have yet.
func (s *Service) Cancel(tx *store.Tx, tenant, id, actor, reason string) error {
	c, err := byID(tx.QueryRow, tenant, id)
	if err != nil {
		return err
	}
	if why := reserved[c.Name]; why != "" {
		return problem.Forbidden("command.reserved", "A %s cannot be taken back.", c.Name).Hint("%s", why)
	}
	ok, err := s.end(tx, c, Cancelled, actor, shorten(reason), nil)
	if err == nil && !ok {
		err = problem.Conflict("The command is %s: it cannot be taken back any more.", c.State)
	}
	return err
}

// EndOpen ends what is still asked of a device that has come to its end: what waits for it is taken back, what it may have
// begun expires. Of the commands, but is left alone; empty: none. A result that comes all the same still counts.
func (s *Service) EndOpen(tx *store.Tx, tenant, device, but, actor, reason string) error {
	open, err := openOf(tx, tenant, device)
	if err != nil {
		return err
	}
	return s.endThese(tx, slices.DeleteFunc(open, func(c Command) bool { return c.ID == but }), actor, shorten(reason))
}

// endThese ends commands that are open.
func (s *Service) endThese(tx *store.Tx, open []Command, actor, reason string) error {
	for _, c := range open {
		to := Cancelled
		if !c.State.May(to) {
			to = Expired
		}
		if _, err := s.end(tx, c, to, actor, reason, nil); err != nil {
			return err
		}
	}
	return nil
}

// Get returns a command of the tenant.
func (s *Service) Get(ctx context.Context, tenant, id string) (Command, error) {
	c, err := byID(func(q string, args ...any) *sql.Row { return s.cfg.DB.QueryRow(ctx, q, args...) }, tenant, id)
	if err != nil {
		return c, err
	}
	return c, s.open(ctx, &c)
}

// List returns a page of the device's commands, the newest first; before is the id of the last one of the page before.
func (s *Service) List(ctx context.Context, tenant, device, before string, limit int) ([]Command, error) {
	cs, err := ofDevice(ctx, s.cfg.DB, tenant, device, before, limit)
	if err != nil {
		return nil, err
	}
	all := make([]*Command, len(cs))
	for i := range cs {
		all[i] = &cs[i]
	}
	return cs, s.open(ctx, all...)
}

// end moves a command to its end and tells everybody, in one transaction. It says whether the command moved. The reason is
// the platform's or a person's and stands in the log; what the device said does so by the digest of what is kept of it,
// sealed, which tells nothing when the key is gone.
func (s *Service) end(tx *store.Tx, c Command, to State, actor, reason string, said *answer) (bool, error) {
	now := s.cfg.Clock.Now()
	var answered []byte
	if said != nil {
		var err error
		if answered, err = s.sealAnswer(tx, c, *said); err != nil {
			return false, err
		}
	}
	ok, err := move(tx, c, to, step{at: now, reason: reason, answered: answered})
	if err != nil || !ok {
		return false, err
	}
	data := map[string]any{"command": c.ID, "name": c.Name, "state": to, "reason": reason}
	if answered != nil {
		data["result"] = wire.Digest(answered)
	}
	if c.State == Expired || c.State == Cancelled {
		data["late"] = true
	}
	if err := audit.Append(tx, audit.Entry{Tenant: c.Tenant, Actor: actor, Kind: "command.ended", Subject: c.Device, Data: data}); err != nil {
		return false, err
	}
	if c.Job != "" {
		if err := s.ended(tx, c, to, reason, now); err != nil {
			return false, err
		}
	}
	if c.Notice != "" {
		if err := s.noticeEnded(tx, c, to, reason, now); err != nil {
			return false, err
		}
	}
	return true, s.cfg.DB.Emit(tx, "command.ended", c.Tenant, c.ID, map[string]any{"device": c.Device, "name": c.Name, "state": to})
}
