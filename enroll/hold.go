// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// RuleHold refuses a new identity to a unit while its making is stopped.
const RuleHold = "enroll.hold"

// holdWait is how long a unit that has been sold already is asked to wait: it enrols by itself when the hold was lifted.
const holdWait = 10 * time.Minute

// Bounds of a hold.
const (
	MaxHoldFirmware = 1000 // images
	maxHolds        = 1000 // that stand, of a tenant
)

// Hold stops the making of units: as long as it stands, no unit that it matches gets a new identity, at any door.
// Devices in the field are never held: a renewal is how they get the fix.
type Hold struct {
	ID       string    `json:"id"`
	Tenant   string    `json:"tenant"`
	Product  string    `json:"product"`
	Firmware []string  `json:"firmware,omitempty" doc:"Digests of the images concerned. A unit whose image nobody has told counts as running one of them. Empty: whatever they run"`
	Batch    string    `json:"batch,omitempty" doc:"Only units of this batch"`
	Origin   string    `json:"origin,omitempty" doc:"Only units of this line station, trusted CA or token"`
	Cause    string    `json:"cause,omitempty" doc:"The vulnerability that it is about"`
	Reason   string    `json:"reason"`
	By       string    `json:"by"`
	Since    time.Time `json:"since"`
	Lifted   time.Time `json:"lifted,omitzero"`
	LiftedBy string    `json:"lifted_by,omitempty"`
	Why      string    `json:"lifted_why,omitempty"`
}

// Stands reports whether nobody has lifted it yet.
func (h Hold) Stands() bool { return h.Lifted.IsZero() }

func (h Hold) check() error {
	if err := checkReason(h.Reason); err != nil {
		return err
	}
	if h.Product == "" {
		return problem.Invalid("Units of one product are held.").At("product")
	}
	if len(h.Firmware) > MaxHoldFirmware {
		return problem.TooLarge("A hold names at most %d images.", MaxHoldFirmware).At("firmware")
	}
	for _, digest := range h.Firmware {
		if !digestPattern.MatchString(digest) {
			return problem.Invalid("The firmware is named by its digest, sha256: and 64 hex digits.").At("firmware")
		}
	}
	return nil
}

// refusal is what a unit, a line and a person are told that the hold stops.
func (h Hold) refusal() *problem.Error {
	about := ""
	if h.Cause != "" {
		about = " because of " + h.Cause
	}
	return problem.Forbidden(RuleHold, "Since %s no such unit gets a new identity%s: %s (hold %s).", h.Since.UTC().Format("2006-01-02 15:04 UTC"), about, strings.TrimSuffix(h.Reason, "."), h.ID).
		Hint("Whoever may %s of the product lifts it, on the product's page or with openthings stop lift %s.", tenant.VulnDecide.Text(), h.ID)
}

// notHeld is the one place where units are held. The register asks it before a device gets its first certificate of
// birth and of operation, so every door ends here: stations with and without a network, tokens, trusted CAs, EST.
// Claims and approvals ask earlier, so that a person learns of it.
//
// Nor does a new unit get an identity whose cohort is no longer supported, or was decided to be restricted or isolated.
func (s *Service) notHeld(tx *store.Tx, d identity.Device) error {
	why := s.cfg.Products.MayEnrol(tx, UnitOf(d))
	if why != nil && !slices.Contains([]string{product.RuleEnded, product.RuleRestricted}, problem.Of(why).Rule) {
		return why
	}
	h, found, err := holdOn(tx, d)
	if err != nil {
		return err
	}
	if found {
		why = h.refusal()
	}
	if why == nil {
		return nil
	}
	if served, err := s.cfg.Identity.Served(tx, d.Tenant, d.ID); err != nil || served {
		return err
	}
	return why
}

// waitsForHold asks a unit that is out there already to come again: nobody has to touch it when the hold was lifted.
func (s *Service) waitsForHold(ctx context.Context, d identity.Device) error {
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) error { return s.notHeld(tx, d) })
	if e := problem.Of(err); e != nil && e.Rule == RuleHold {
		return &later{e, holdWait}
	}
	return err
}

// OpenHold stops units from getting identities, in the transaction of whoever found out why.
func (s *Service) OpenHold(tx *store.Tx, h Hold) (Hold, error) {
	if err := h.check(); err != nil {
		return h, err
	}
	h.ID, h.Since = store.NewID("hld"), s.now()
	n, err := countHolds(tx, h.Tenant)
	if err != nil {
		return h, err
	}
	if n >= maxHolds {
		return h, problem.Conflict("A tenant has at most %d holds that stand.", maxHolds)
	}
	if err := insertHold(tx, h); err != nil {
		return h, err
	}
	return h, audit.Append(tx, audit.Entry{Tenant: h.Tenant, Actor: h.By, Kind: "hold.opened", Subject: h.Product, Data: h})
}

// WidenHold adds images to a hold as it was read.
func (s *Service) WidenHold(tx *store.Tx, h Hold, firmware []string, actor string) error {
	if len(h.Firmware) == 0 {
		return nil // it holds every unit as it is
	}
	h.Firmware = firmware
	if err := h.check(); err != nil {
		return err
	}
	added, err := addFirmware(tx, h.Tenant, h.ID, firmware)
	if err != nil || len(added) == 0 {
		return err
	}
	return audit.Append(tx, audit.Entry{Tenant: h.Tenant, Actor: actor, Kind: "hold.widened", Subject: h.Product, Data: map[string]any{"hold": h.ID, "cause": h.Cause, "firmware": added}})
}

// LiftHold lets units have identities again. Nothing but this lifts a hold.
func (s *Service) LiftHold(tx *store.Tx, tenant, id, actor, why string) (Hold, error) {
	if err := checkReason(why); err != nil {
		return Hold{}, err
	}
	lifted, err := liftHold(tx, tenant, id, actor, why, s.now())
	if err != nil {
		return Hold{}, err
	}
	h, err := holdByID(tx, tenant, id)
	if err != nil {
		return h, err
	}
	if !lifted {
		return h, problem.Conflict("The hold was lifted on %s already.", h.Lifted.UTC().Format("2006-01-02 15:04 UTC"))
	}
	return h, audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "hold.lifted", Subject: h.Product, Data: map[string]any{"hold": id, "cause": h.Cause, "why": why, "since": h.Since}})
}

// HoldTx returns one of the tenant's holds.
func (s *Service) HoldTx(tx *store.Tx, tenant, id string) (Hold, error) {
	return holdByID(tx, tenant, id)
}

// CheckHold refuses a hold of a product, batch or origin that does not exist: it would hold nothing, and look as if it did.
func (s *Service) CheckHold(ctx context.Context, h Hold) error {
	if _, err := s.cfg.Products.Get(ctx, h.Tenant, h.Product); err != nil {
		return err
	}
	if h.Batch != "" {
		b, err := batchByID(s.reads(ctx), h.Tenant, h.Batch)
		if err == nil && b.Product != h.Product {
			err = problem.Invalid("The batch %s is of another product.", b.Name).At("batch")
		}
		if err != nil {
			return err
		}
	}
	if h.Origin == "" {
		return nil
	}
	_, station := stationByID(s.reads(ctx), h.Tenant, h.Origin)
	_, ca := s.TrustedCA(ctx, h.Tenant, h.Origin)
	_, token := s.Token(ctx, h.Tenant, h.Origin)
	if station != nil && ca != nil && token != nil {
		return problem.NotFound("There is no line station, trusted CA or token %.64q.", h.Origin).At("origin")
	}
	return nil
}

// HoldFilter narrows the list of holds. Empty fields do not narrow.
type HoldFilter struct {
	Product  string
	Standing bool // only those that nobody has lifted
}

// Holds lists the tenant's holds, the newest first.
func (s *Service) Holds(ctx context.Context, tenant string, f HoldFilter) (list []Hold, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		list, err = listHolds(tx, tenant, f)
		return err
	})
	return list, err
}

// HoldsTx is Holds inside a transaction.
func (s *Service) HoldsTx(tx *store.Tx, tenant string, f HoldFilter) ([]Hold, error) {
	return listHolds(tx, tenant, f)
}
