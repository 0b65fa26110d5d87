// SPDX-License-Identifier: AGPL-3.0-only

package retire

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/command"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/telemetry"
	"github.com/openthings-platform/openthings/wire"
)

// WipeCommand is the name of the command that ends a device's own side.
const WipeCommand = "wipe"

// wipeWithin is how long a device has to come back and wipe itself.
const wipeWithin = 30 * 24 * time.Hour

// Rules that a refusal names.
const (
	RuleWipeFirst = "retire.wipe-first"
	RuleReason    = "retire.reason"
)

// Config is what the stage needs; all but Log is mandatory.
type Config struct {
	DB        *store.DB // the platform handle; its clock is the stage's
	Identity  *identity.Service
	Command   *command.Service
	Telemetry *telemetry.Service
	Fleet     *fleet.Service
	Keys      *seal.Keys
	// Cut closes the live sessions of a device and says how many there were (gateway.Cut).
	Cut func(device, reason string) int
	Log *slog.Logger
}

// Service is the stage.
type Service struct{ cfg Config }

// New makes the stage, takes over the results of wipe commands and the job that finishes deprovisions. Call it before
// the store runs jobs and before command works.
func New(cfg Config) *Service {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{cfg: cfg}
	cfg.Command.OnResult(WipeCommand, s.wiped)
	cfg.DB.Handle(jobDeprovision, s.resume)
	cfg.DB.On("device.state", "retire", s.eraseAgain)
	return s
}

func (s *Service) now() time.Time { return s.cfg.DB.Clock().Now().UTC().Truncate(time.Millisecond) }

// Wipe is one wipe command with the device's answer.
type Wipe struct {
	Command  string           `json:"command"`
	Serial   string           `json:"serial"`
	Reason   string           `json:"reason"`
	Actor    string           `json:"actor"`
	Asked    time.Time        `json:"asked"`
	Answered time.Time        `json:"answered,omitzero" doc:"When a true receipt came"`
	State    command.State    `json:"state" doc:"Of the command"`
	Problem  string           `json:"problem,omitempty" doc:"Why the device's answer was refused, or what the device could not do"`
	Receipt  wire.WipeReceipt `json:"receipt,omitzero"`
	Signed   *wire.Signed     `json:"signed,omitempty" doc:"The receipt as the device signed it"`

	device string
}

// Tombstone is what remains of a deprovisioned device beside its evidence.
type Tombstone struct {
	Device  string    `json:"device"`
	Reason  string    `json:"reason"`
	Unwiped bool      `json:"unwiped" doc:"Without a wipe receipt: lost or broken"`
	Actor   string    `json:"actor"`
	Begun   time.Time `json:"begun"`
	Done    time.Time `json:"done,omitzero" doc:"When every step was completed"`
	Erased  time.Time `json:"erased,omitzero" doc:"When the key of the device's data was destroyed"`
	Horizon time.Time `json:"horizon,omitzero" doc:"From then on no backup of the database opens the data either"`
	Steps   []Step    `json:"steps"`
}

// Step is one completed step of a deprovision.
type Step struct {
	Name   string    `json:"name"`
	At     time.Time `json:"at"`
	Detail string    `json:"detail"`
}

// Retirement is how far a device is on its last way.
type Retirement struct {
	Device    string         `json:"device"`
	State     identity.State `json:"state"`
	Wipe      *Wipe          `json:"wipe,omitempty"`
	Tombstone *Tombstone     `json:"tombstone,omitempty"`
}

// Decommission asks the device to wipe itself. Asked again, it sends a new command once the one before has ended
// without a true receipt.
func (s *Service) Decommission(ctx context.Context, tenant, device, actor, reason string) (Retirement, error) {
	d, err := s.cfg.Identity.Get(ctx, tenant, device)
	if err != nil {
		return Retirement{}, err
	}
	if err := checkReason(reason); err != nil {
		return Retirement{}, err
	}
	pub, err := s.cfg.Identity.IDevIDKey(ctx, tenant, device)
	if err != nil {
		return Retirement{}, err
	}
	key, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return Retirement{}, fmt.Errorf("retire: key of %s: %w", device, err)
	}
	last, err := s.Retirement(ctx, tenant, device)
	if err != nil {
		return Retirement{}, err
	}
	if last.State == identity.Decommissioning && last.Wipe != nil && !last.Wipe.State.Ended() {
		return Retirement{}, problem.Conflict("The device is asked to wipe itself already.").Hint("Wait for its receipt, or deprovision it without one if it is lost.")
	}
	w := wipe{tenant: tenant, nonce: rand.Text(), key: key}
	w.Serial, w.Reason, w.Actor, w.Asked, w.device = d.Serial, reason, actor, s.now(), device
	err = s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error {
		if err := s.begin(tx, w); err != nil {
			return err
		}
		id, err := s.cfg.Command.Send(tx, tenant, device, WipeCommand, wire.WipeArgs{Nonce: w.nonce}, w.Asked.Add(wipeWithin), actor)
		if err != nil {
			return err
		}
		w.Command = id
		return insertWipe(tx, w)
	})
	if err != nil {
		return Retirement{}, err
	}
	return s.Retirement(ctx, tenant, device)
}

// begin moves the device to decommissioning; one that is there already is asked again.
func (s *Service) begin(tx *store.Tx, w wipe) error {
	d, err := s.cfg.Identity.GetTx(tx, w.tenant, w.device)
	if err != nil || d.State == identity.Decommissioning {
		return err
	}
	return s.cfg.Identity.SetState(tx, w.tenant, w.device, identity.Decommissioning, w.Actor, w.Reason)
}

// wiped looks at the answer to a wipe, in the transaction that ends the command.
func (s *Service) wiped(tx *store.Tx, c command.Command, r wire.CommandResult) error {
	w, err := wipeOf(tx, c.Tenant, c.ID)
	if errors.Is(err, store.ErrNoRows) { // sent as a plain command, past this stage
		return problem.Invalid("Only a decommission may ask for a wipe.")
	}
	if err != nil || !r.OK { // a device that says it failed stays decommissioning; the command holds its words
		return err
	}
	key, err := x509.ParsePKIXPublicKey(w.key)
	if err != nil {
		return fmt.Errorf("retire: pinned key of %s: %w", c.Device, err)
	}
	signed, receipt, err := verify(r.Data, key, expected{Device: c.Device, Serial: w.Serial, Command: c.ID, Nonce: w.nonce})
	if err != nil {
		return err
	}
	if err := keepReceipt(tx, c.Tenant, c.ID, signed, s.now()); err != nil {
		return err
	}
	if err := audit.Append(tx, audit.Entry{Tenant: c.Tenant, Actor: c.Device, Kind: "device.wiped", Subject: c.Device, Data: map[string]any{"receipt": receipt, "signed": signed}}); err != nil {
		return err
	}
	d, err := s.cfg.Identity.GetTx(tx, c.Tenant, c.Device)
	if err != nil || d.State.Barred() { // given up before its receipt came
		return err
	}
	return s.bar(tx, d, c.ID, c.Device, "wiped")
}

// bar ends the trust in a device for ever. From then on it counts among those that run a release no more, and nothing is
// asked of it but what the command answered is about, which ends by itself.
func (s *Service) bar(tx *store.Tx, d identity.Device, answered, actor, reason string) error {
	if err := s.cfg.Identity.SetState(tx, d.Tenant, d.ID, identity.Decommissioned, actor, reason); err != nil {
		return err
	}
	if err := s.cfg.Identity.Revoke(tx, d.Tenant, d.ID, actor, reason); err != nil {
		return err
	}
	if err := s.cfg.Command.EndOpen(tx, d.Tenant, d.ID, answered, actor, "the device is decommissioned: "+reason); err != nil {
		return err
	}
	if err := s.cfg.Fleet.Uninstalled(tx, d.Tenant, d.ID, s.now()); err != nil {
		return err
	}
	return s.cfg.DB.Emit(tx, "device.decommissioned", d.Tenant, d.ID, map[string]any{"product": d.Product, "reason": reason})
}

// Retirement says how far the device is.
func (s *Service) Retirement(ctx context.Context, tenant, device string) (Retirement, error) {
	d, err := s.cfg.Identity.Get(ctx, tenant, device)
	if err != nil {
		return Retirement{}, err
	}
	out := Retirement{Device: d.ID, State: d.State}
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		w, ok, err := lastWipe(tx, tenant, device)
		if ok {
			out.Wipe = &w.Wipe
		}
		if err != nil {
			return err
		}
		t, ok, err := tombstone(tx, tenant, device)
		if err != nil || !ok {
			return err
		}
		t.Steps, err = steps(tx, tenant, device)
		out.Tombstone = &t
		return err
	})
	if err != nil || out.Wipe == nil {
		return out, err
	}
	c, err := s.cfg.Command.Get(ctx, tenant, out.Wipe.Command)
	if err != nil {
		return out, err
	}
	out.Wipe.State = c.State
	if c.State == command.Failed || c.State == command.Expired {
		out.Wipe.Problem = c.Reason
	}
	return out, nil
}

func checkReason(reason string) error {
	if n := utf8.RuneCountInString(strings.TrimSpace(reason)); n == 0 || n > 500 || !utf8.ValidString(reason) {
		return problem.Forbidden(RuleReason, "The end of a device needs a reason of at most 500 characters.").At("reason")
	}
	return nil
}
