// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"
	"database/sql"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

// Config is what the stage needs.
type Config struct {
	DB       *store.DB // the platform handle
	Identity *identity.Service
	Clock    clock.Clock // default clock.System
	Log      *slog.Logger
	// Deliver publishes to a device and returns nil once the device acknowledged it (gateway.Send). An error leaves the
	// command queued until Kick.
	Deliver func(context.Context, gateway.Downlink) error
	// Live says whether the device has a session, so that nothing is tried in vain (gateway.Live); nil: try always.
	Live func(device string) bool
}

// Hook looks at the result of a command in the transaction that ends it. A problem of kind invalid makes the command
// fail with its text; any other error leaves the command open, and the result is handed over again.
type Hook func(tx *store.Tx, c Command, r wire.CommandResult) error

// Service is the stage. Its methods are safe for concurrent use.
type Service struct {
	cfg   Config
	hooks map[string]Hook // by command name; complete before work begins
	queue *queue          // devices to look at
}

// New makes the stage and takes over the jobs that expire commands.
func New(cfg Config) *Service {
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{cfg: cfg, hooks: map[string]Hook{}, queue: newQueue()}
	cfg.DB.Handle(expireJob, s.expire)
	return s
}

// OnResult lets a later stage look at results of commands of that name. Call it before work begins.
func (s *Service) OnResult(name string, h Hook) {
	if s.hooks[name] != nil {
		panic("command: two hooks for results of " + name)
	}
	s.hooks[name] = h
}

// Send asks the device to do something, with args as a JSON object (nil: none), and tries to deliver it once the
// transaction is durable. The caller has checked that the device is the tenant's.
func (s *Service) Send(tx *store.Tx, tenant, device, name string, args any, notAfter time.Time, actor string) (id string, err error) {
	raw := json.RawMessage(`{}`)
	if args != nil {
		if raw, err = json.Marshal(args); err != nil {
			return "", problem.Invalid("The arguments cannot be written as JSON.").At("args").Because(err)
		}
	}
	now := s.cfg.Clock.Now()
	c := Command{ID: store.NewID("cmd"), Tenant: tenant, Device: device, Name: name, Args: raw, State: Queued, Actor: actor, Created: now, NotAfter: notAfter}
	if err := c.check(now); err != nil {
		return "", err
	}
	if err := insert(tx, c); err != nil {
		return "", err
	}
	if err := audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "command.created", Subject: device,
		Data: map[string]any{"command": c.ID, "name": name, "args": wire.Digest(raw), "not_after": store.Millis(notAfter)}}); err != nil {
		return "", err
	}
	if err := s.cfg.DB.Enqueue(tx, expireJob, c.ID, notAfter, expiry{tenant, c.ID}); err != nil {
		return "", err
	}
	tx.After(func() { s.Kick(device) })
	return c.ID, nil
}

// Get returns a command of the tenant.
func (s *Service) Get(ctx context.Context, tenant, id string) (Command, error) {
	return byID(func(q string, args ...any) *sql.Row { return s.cfg.DB.QueryRow(ctx, q, args...) }, tenant, id)
}

// List returns a page of the device's commands, the newest first; before is the id of the last one of the page before.
func (s *Service) List(ctx context.Context, tenant, device, before string, limit int) ([]Command, error) {
	return ofDevice(ctx, s.cfg.DB, tenant, device, before, limit)
}

// end moves a command to its end and tells everybody, in one transaction. It says whether the command moved.
func (s *Service) end(tx *store.Tx, c Command, to State, reason, result string) (bool, error) {
	ok, err := move(tx, c.Tenant, c.ID, to, store.Millis(s.cfg.Clock.Now()), reason, result)
	if err != nil || !ok {
		return false, err
	}
	data := map[string]any{"command": c.ID, "name": c.Name, "state": to, "reason": reason}
	if result != "" {
		data["result"] = wire.Digest([]byte(result))
	}
	if c.State == Expired {
		data["late"] = true
	}
	actor := c.Device
	if to == Expired {
		actor = "system"
	}
	if err := audit.Append(tx, audit.Entry{Tenant: c.Tenant, Actor: actor, Kind: "command.ended", Subject: c.Device, Data: data}); err != nil {
		return false, err
	}
	return true, s.cfg.DB.Emit(tx, "command.ended", c.Tenant, c.ID, map[string]any{"device": c.Device, "name": c.Name, "state": to})
}
