// SPDX-License-Identifier: AGPL-3.0-only

package update

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/blob"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/update/trust"
)

//go:embed migrations/*.sql
var migrationsFS embed.FS

// Schema holds trust roots, releases, deployments and what devices reported.
var Schema = store.Migrations{Stage: "update", FS: migrationsFS}

// Config is what the stage needs. All services but Tenants, DB and Blobs are mandatory.
type Config struct {
	DB       *store.DB // the platform handle
	Blobs    blob.Store
	Identity *identity.Service
	Product  *product.Service
	SBOM     *sbom.Service
	Fleet    *fleet.Service
	// VEX reads statements that come with a release and returns what stores them in its transaction; nil takes none.
	VEX func(doc []byte) (put func(tx *store.Tx, tenant, actor string) error, err error)
	// Placing is asked in the transaction that publishes a release, once every check has passed; an error refuses. nil: nobody
	// is asked.
	Placing func(tx *store.Tx, r Release) error
	Tenants *tenant.Service // solutions to choose from on the release's page; nil offers none
	Clock   clock.Clock     // nil: clock.System
	Log     *slog.Logger
	// Send hands an offer to a device and returns once the device has it; gateway.ErrOffline says that it is not here.
	Send func(context.Context, gateway.Downlink) error
	// Live says whether a device is connected.
	Live func(device string) bool
	// Checks are the names of the checks that a release waits for; nil: DefaultChecks.
	Checks []string
	// SBOMGrade is what a bill of materials must reach before its release may be published; "": any.
	SBOMGrade sbom.Grade
	// Deadline is how long a device that took an offer may stay silent before that counts as a failure; 0: 24 hours.
	Deadline time.Duration
}

// Service is the stage. Its methods are safe for concurrent use.
type Service struct {
	cfg     Config
	arrived chan gateway.Peer // connected devices that may have an offer waiting
}

// maxArrived bounds the devices that wait to be looked at after they connected. One that finds no room gets its offer
// when the deployment is looked at next.
const maxArrived = 4096

// New makes the stage. It registers its jobs, so call it before the store runs them.
func New(cfg Config) *Service {
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Checks == nil {
		cfg.Checks = DefaultChecks
	}
	if cfg.Deadline <= 0 {
		cfg.Deadline = 24 * time.Hour
	}
	s := &Service{cfg: cfg, arrived: make(chan gateway.Peer, maxArrived)}
	cfg.DB.Handle(jobAdvance, s.advanceJob)
	cfg.DB.Handle(jobRecognise, s.recognise)
	return s
}

// Get returns a release, or problem.NotFound.
func (s *Service) Get(ctx context.Context, tenant, id string) (Release, error) {
	return one(scanRelease(s.cfg.DB.QueryRow(ctx, `SELECT `+releaseColumns+` FROM release WHERE tenant = $1 AND id = $2`, tenant, id)))("release")
}

// ByImage returns the release whose image has this digest, or problem.NotFound.
func (s *Service) ByImage(ctx context.Context, tenant, digest string) (Release, error) {
	return one(scanRelease(s.cfg.DB.QueryRow(ctx, `SELECT `+releaseColumns+` FROM release WHERE tenant = $1 AND image = $2`, tenant, digest)))("release")
}

// List returns the releases of a tenant, the newest first; product "" means all of them.
func (s *Service) List(ctx context.Context, tenant, product string) ([]Release, error) {
	return listReleases(ctx, s.cfg.DB, tenant, product)
}

// ProductOf tells the product of a release, or problem.NotFound.
func (s *Service) ProductOf(ctx context.Context, tenant, release string) (string, error) {
	r, err := s.Get(ctx, tenant, release)
	return r.Product, err
}

// ReleaseName is a release in words for people; an unknown id stands for itself.
func (s *Service) ReleaseName(ctx context.Context, tenant, release string) string {
	r, err := s.Get(ctx, tenant, release)
	if err != nil {
		return release
	}
	return r.Version
}

// one turns "no row" into problem.NotFound of a noun.
func one[T any](v T, err error) func(noun string) (T, error) {
	return func(noun string) (T, error) {
		if errors.Is(err, store.ErrNoRows) {
			return v, problem.NotFound("There is no such %s.", noun)
		}
		return v, err
	}
}

// forbidden turns a refusal of update/trust into a problem that names its rule.
func forbidden(err error) error {
	var r *trust.Refusal
	if errors.As(err, &r) {
		return problem.Forbidden("update."+r.Rule, "Refused: %s.", r.Reason)
	}
	return err
}

// TrustRoot returns the root that the tenant's devices start with, or nil when the tenant has none yet.
func (s *Service) TrustRoot(ctx context.Context, tenant string) (json.RawMessage, error) {
	doc, err := latestRoot(s.cfg.DB.QueryRow, ctx, tenant)
	if errors.Is(err, store.ErrNoRows) {
		return nil, nil
	}
	return doc, err
}

// TrustRoots returns every root that the tenant has had, the first one first: whoever trusts one can follow the chain.
func (s *Service) TrustRoots(ctx context.Context, tenant string) ([]json.RawMessage, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT doc FROM trust_root WHERE tenant = $1 ORDER BY version`, tenant)
	return store.Collect(rows, err, func(r *sql.Rows) (doc json.RawMessage, err error) {
		err = r.Scan((*[]byte)(&doc))
		return doc, err
	})
}

// SignedTargets returns the newest list signed by the manufacturer that names the release, as it was signed.
func (s *Service) SignedTargets(ctx context.Context, r Release) (json.RawMessage, error) {
	return targetsDoc(ctx, s.cfg.DB, r.Tenant, r.Targets)
}

// SetTrustRoot takes the tenant's first root, or the lawful successor of the last one. Nothing else ever replaces it.
func (s *Service) SetTrustRoot(ctx context.Context, tenant string, doc []byte, actor string) (*trust.Root, error) {
	next, err := trust.ParseRoot(doc)
	if err != nil {
		return nil, forbidden(err)
	}
	if now := s.cfg.Clock.Now(); !now.Before(next.Expires) {
		return nil, problem.Forbidden("update."+trust.RuleExpired, "This root expired on %s.", next.Expires.Format(time.DateOnly))
	}
	before, err := s.TrustRoot(ctx, tenant)
	if err != nil {
		return nil, err
	}
	if before != nil {
		current, err := trust.ParseRoot(before)
		if err != nil {
			return nil, err
		}
		if next, err = current.Rotate(doc); err != nil {
			return nil, forbidden(err)
		}
	} else if next.Version != 1 {
		return nil, problem.Forbidden("update."+trust.RuleRollback, "The first root has version 1, not %d.", next.Version)
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := insertRoot(tx, tenant, next, actor, s.cfg.Clock.Now()); err != nil {
			return err // the version is the key: of two that try at once one is told so
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "trust.root-set", Subject: tenant,
			Data: map[string]any{"version": next.Version, "expires": next.Expires, "root_keys": next.Roles[trust.RoleRoot].KeyIDs, "targets_keys": next.Roles[trust.RoleTargets].KeyIDs}})
	})
	return next, err
}

// RecordCheck notes what a check says of a release, in the transaction in which it found out. A check may change its
// mind until the release is published; afterwards its word is still kept, for people to see.
func (s *Service) RecordCheck(tx *store.Tx, tenant, release, name, verdict, evidence, by string) error {
	if verdict != Pass && verdict != Fail {
		return problem.Invalid("A verdict is %s or %s.", Pass, Fail).At("verdict")
	}
	r, err := one(scanRelease(tx.QueryRow(`SELECT `+releaseColumns+` FROM release WHERE tenant = $1 AND id = $2`, tenant, release)))("release")
	if err != nil {
		return err
	}
	changed, err := putCheck(tx, tenant, release, Check{Name: name, Verdict: verdict, Evidence: evidence, By: by, At: s.cfg.Clock.Now()})
	if err != nil || !changed {
		return err
	}
	if err := audit.Append(tx, audit.Entry{Tenant: tenant, Actor: by, Kind: "release.check-recorded", Subject: release,
		Data: map[string]any{"check": name, "verdict": verdict, "evidence": evidence}}); err != nil {
		return err
	}
	if r.State != Draft && r.State != Checked {
		return nil
	}
	checks, err := checksOf(tx.Query, tenant, release)
	if err != nil {
		return err
	}
	state := Draft
	if _, open := gate(s.cfg.Checks, checks); open {
		state = Checked
	}
	return setReleaseState(tx, tenant, release, state)
}

// Checks returns what is known of a release, with the checks that it still waits for.
func (s *Service) Checks(ctx context.Context, tenant, release string) ([]Check, error) {
	checks, err := checksOf(func(q string, args ...any) (*sql.Rows, error) { return s.cfg.DB.Query(ctx, q, args...) }, tenant, release)
	all, _ := gate(s.cfg.Checks, checks)
	return all, err
}

// Publish lets a release be deployed. It is a person's act, and only possible once every check has passed.
func (s *Service) Publish(ctx context.Context, tenant, id, actor string) (Release, error) {
	now := s.cfg.Clock.Now()
	var r Release
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) (err error) {
		r, err = one(scanRelease(tx.QueryRow(`SELECT `+releaseColumns+` FROM release WHERE tenant = $1 AND id = $2`, tenant, id)))("release")
		if err != nil {
			return err
		}
		if r.State == Published {
			return nil
		}
		if r.State == Watched {
			return notOurs()
		}
		if r.State == Withdrawn {
			return problem.Conflict("The release was withdrawn.").Hint("Sign and upload a new version.")
		}
		checks, err := checksOf(tx.Query, tenant, id)
		if err != nil {
			return err
		}
		all, open := gate(s.cfg.Checks, checks)
		if !open {
			return notGreen(all)
		}
		highest, err := highestPublished(tx, tenant, r.Product)
		if err != nil {
			return err
		}
		if r.SecurityVersion < highest {
			return problem.Forbidden(RuleFloor, "Security version %d lies below %d, which was published meanwhile.", r.SecurityVersion, highest)
		}
		if s.cfg.Placing != nil {
			if err := s.cfg.Placing(tx, r); err != nil {
				return err
			}
		}
		r.State, r.Published = Published, now
		if _, err := tx.Exec(`UPDATE release SET state = $1, published = $2 WHERE tenant = $3 AND id = $4`, Published, store.Millis(now), tenant, id); err != nil {
			return err
		}
		data := map[string]any{"product": r.Product, "version": r.Version, "security_version": r.SecurityVersion, "class": r.Class, "image": r.Image}
		if err := audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "release.published", Subject: id, Data: data}); err != nil {
			return err
		}
		return s.cfg.DB.Emit(tx, "release.published", tenant, id, data)
	})
	return r, err
}

func notGreen(all []Check) error {
	for _, c := range all {
		if c.Verdict == Fail {
			return problem.Forbidden(RuleChecks, "The check %s has failed: %s.", c.Name, c.Evidence)
		}
	}
	for _, c := range all {
		if c.Verdict != Pass {
			return problem.Forbidden(RuleChecks, "The check %s has not spoken yet.", c.Name).Hint("Try again when it has.")
		}
	}
	return nil
}

// Withdraw ends a release: it is offered to nobody any more. What runs it goes on running.
func (s *Service) Withdraw(ctx context.Context, tenant, id, actor, reason string) (Release, error) {
	now := s.cfg.Clock.Now()
	var r Release
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) (err error) {
		r, err = one(scanRelease(tx.QueryRow(`SELECT `+releaseColumns+` FROM release WHERE tenant = $1 AND id = $2`, tenant, id)))("release")
		if err != nil || r.State == Withdrawn {
			return err
		}
		if r.State == Watched {
			return notOurs()
		}
		r.State, r.Withdrawn = Withdrawn, now
		if _, err := tx.Exec(`UPDATE release SET state = $1, withdrawn = $2 WHERE tenant = $3 AND id = $4`, Withdrawn, store.Millis(now), tenant, id); err != nil {
			return err
		}
		if err := s.endAll(tx, tenant, id, actor, "the release was withdrawn"); err != nil {
			return err
		}
		data := map[string]any{"product": r.Product, "version": r.Version, "reason": reason}
		if err := audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "release.withdrawn", Subject: id, Data: data}); err != nil {
			return err
		}
		return s.cfg.DB.Emit(tx, "release.withdrawn", tenant, id, data)
	})
	return r, err
}
