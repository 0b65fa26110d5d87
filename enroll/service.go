// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

// Config is what enroll needs. All but Clock, Log and TrustRoot are mandatory.
type Config struct {
	DB       *store.DB // the platform handle
	Identity *identity.Service
	Products *product.Service
	Tenants  *tenant.Service
	Clock    clock.Clock // nil: clock.System
	Log      *slog.Logger
	// TrustRoot returns the tenant's update trust root for new units, nil if none is set. May be nil.
	TrustRoot func(ctx context.Context, tenant string) (json.RawMessage, error)
}

// Service runs the lines, the claims and the EST routes.
type Service struct{ cfg Config }

// New makes the service.
func New(cfg Config) *Service {
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{cfg: cfg}
}

func (s *Service) now() time.Time { return store.Time(store.Millis(s.cfg.Clock.Now())) }

// OpenBatch adds a batch to a hardware revision of the tenant. Product and ID are filled in.
func (s *Service) OpenBatch(ctx context.Context, b Batch, actor string) (Batch, error) {
	if err := errors.Join(checkName(b.Name), checkCount(b.Size, "size")); err != nil {
		return Batch{}, err
	}
	rev, err := s.cfg.Products.Revision(ctx, b.Tenant, b.Revision)
	if err != nil {
		return Batch{}, err
	}
	b.ID, b.Product, b.Created = store.NewID("bat"), rev.Product, s.now()
	return b, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := insertBatch(tx, b); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: b.Tenant, Actor: actor, Kind: "batch.opened", Subject: b.ID, Data: b})
	})
}

// CloseBatch records how many units the factory made. More identities than units is the counterfeit alarm.
func (s *Service) CloseBatch(ctx context.Context, tenant, id string, produced int64, actor string) (b Batch, err error) {
	if produced < 0 || produced > MaxBatch {
		return Batch{}, problem.Invalid("The number of units made is 0 to %d.", MaxBatch).At("produced")
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if _, err := batchByID(tx.QueryRow, tenant, id); err != nil {
			return err
		}
		if err := closeBatch(tx, tenant, id, produced, s.now()); err != nil {
			return err
		}
		if b, err = batchByID(tx.QueryRow, tenant, id); err != nil {
			return err
		}
		if err := audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "batch.closed", Subject: id, Data: b}); err != nil {
			return err
		}
		if b.Surplus() == 0 {
			return nil
		}
		return s.alarm(tx, tenant, id, actor, map[string]any{"batch": id, "issued": b.Issued, "produced": b.Produced})
	})
	return b, err
}

// alarm says that more units have, or want, an identity than should exist.
func (s *Service) alarm(tx *store.Tx, tenant, batch, actor string, data any) error {
	if err := audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "batch.surplus", Subject: batch, Data: data}); err != nil {
		return err
	}
	return s.cfg.DB.Emit(tx, "batch.surplus", tenant, batch, data)
}

// Opened is a new line station with its certificate and the authorities above it, PEM.
type Opened struct {
	Station
	Certificate string `json:"certificate" doc:"PEM"`
	Chain       string `json:"chain" doc:"PEM: issuing authority, then root"`
}

// OpenStation admits a line station to a batch, with a certificate for the key of its CSR that ends with it.
// Tenant, Batch, Name, Quota and Expires are the caller's to fill.
func (s *Service) OpenStation(ctx context.Context, st Station, csr *identity.CSR, actor string) (Opened, error) {
	if err := errors.Join(checkName(st.Name), checkCount(st.Quota, "quota")); err != nil {
		return Opened{}, err
	}
	st.ID, st.Created = store.NewID("sta"), s.now()
	life := st.Expires.Sub(st.Created)
	if life <= 0 || life > MaxStation {
		return Opened{}, problem.Invalid("A line station is open for at most %.0f hours.", MaxStation.Hours()).At("expires")
	}
	request := identity.IssueRequest{Tenant: st.Tenant, Subject: st.ID, Kind: identity.Station, CSR: csr, Actor: actor, Life: life}
	var intent identity.Intent
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		b, err := batchByID(tx.QueryRow, st.Tenant, st.Batch)
		if err != nil {
			return err
		}
		if !b.Closed.IsZero() {
			return problem.Conflict("The batch is closed.")
		}
		if st.Quota > b.Size {
			return problem.Forbidden(RuleQuota, "The quota of %d is more than the batch of %d units.", st.Quota, b.Size).At("quota")
		}
		if err := insertStation(tx, st); err != nil {
			return err
		}
		if err := audit.Append(tx, audit.Entry{Tenant: st.Tenant, Actor: actor, Kind: "station.opened", Subject: st.ID, Data: st}); err != nil {
			return err
		}
		intent, err = s.cfg.Identity.Intend(tx, request)
		return err
	})
	if err != nil {
		return Opened{}, err
	}
	c, _, err := s.cfg.Identity.Complete(ctx, request, intent)
	if err != nil {
		return Opened{}, err
	}
	chain, err := s.cfg.Identity.Chain(ctx, identity.Station)
	return Opened{Station: st, Certificate: string(pemOf(c.DER)), Chain: string(chain)}, err
}

// KillStation ends a line station at once: its certificate is revoked, its connections are cut. It returns the units
// that it made, which somebody should now look at.
func (s *Service) KillStation(ctx context.Context, tenant, id, reason, actor string) (devices []string, err error) {
	err = s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error {
		if _, err := stationByID(tx.QueryRow, tenant, id); err != nil {
			return err
		}
		if err := killStation(tx, tenant, id, reason, s.now()); err != nil {
			return err
		}
		return s.cfg.Identity.RevokeStation(tx, tenant, id, actor, reason)
	})
	if err != nil {
		return nil, err
	}
	return devicesOfStation(ctx, s.cfg.DB, tenant, id)
}

// Provision makes a unit at a line station: its row, its IDevID and its claim code. The same request again gives the
// same device and certificate, and a new claim code in the place of the lost one.
func (s *Service) Provision(ctx context.Context, tenant, station string, r wire.LineRequest, csr *identity.CSR) (wire.LineResponse, error) {
	root, err := s.trustRoot(ctx, tenant)
	if err != nil {
		return wire.LineResponse{}, err
	}
	request := identity.IssueRequest{Tenant: tenant, Kind: identity.IDevID, CSR: csr, Actor: station, Origin: station}
	var intent identity.Intent
	var st Station
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if st, err = stationByID(tx.QueryRow, tenant, station); err != nil {
			return err
		}
		d, err := s.unit(tx, st, r)
		if err != nil {
			return err
		}
		request.Subject = d.ID
		intent, err = s.cfg.Identity.Intend(tx, request)
		return err
	})
	if err != nil {
		if problem.Of(err).Rule == RuleQuota {
			s.refused(ctx, st, r.Serial)
		}
		return wire.LineResponse{}, err
	}
	code, hash := newCode()
	put := func(tx *store.Tx) error { return putClaim(tx, tenant, request.Subject, station, hash, s.now()) }
	request.Finish = put
	c, fresh, err := s.cfg.Identity.Complete(ctx, request, intent)
	if err == nil && !fresh {
		err = s.cfg.DB.Write(ctx, put)
	}
	if err != nil {
		return wire.LineResponse{}, err
	}
	chain, err := s.cfg.Identity.Chain(ctx, identity.IDevID)
	return wire.LineResponse{Device: request.Subject, Certificate: string(pemOf(c.DER)), Chain: string(chain), Claim: code, TrustRoot: root}, err
}

func (s *Service) trustRoot(ctx context.Context, tenant string) (json.RawMessage, error) {
	if s.cfg.TrustRoot == nil {
		return nil, nil
	}
	return s.cfg.TrustRoot(ctx, tenant)
}

// unit returns the device with the serial number, and registers and counts it if it is new.
func (s *Service) unit(tx *store.Tx, st Station, r wire.LineRequest) (identity.Device, error) {
	b, err := batchByID(tx.QueryRow, st.Tenant, st.Batch)
	if err != nil {
		return identity.Device{}, err
	}
	if err := st.mayMake(b, s.now()); err != nil {
		return identity.Device{}, err
	}
	d, err := s.cfg.Identity.BySerialTx(tx, st.Tenant, b.Product, r.Serial)
	switch {
	case err == nil && d.Batch != b.ID:
		return identity.Device{}, problem.Conflict("The serial number %s is already taken in this product.", r.Serial).At("serial")
	case err == nil || !problem.Is(err, problem.KindNotFound):
		return d, err
	}
	if err := takeUnit(tx, st); err != nil {
		return identity.Device{}, err
	}
	return s.cfg.Identity.Register(tx, identity.Device{Tenant: st.Tenant, Product: b.Product, Revision: b.Revision, Batch: b.ID,
		Serial: r.Serial, Firmware: r.Firmware, Origin: st.ID}, st.ID)
}

// refused counts a unit beyond the quota; the first one is an alarm.
func (s *Service) refused(ctx context.Context, st Station, serial string) {
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		n, err := countRefusal(tx, st)
		if err != nil || n > 1 {
			return err
		}
		return s.alarm(tx, st.Tenant, st.Batch, st.ID, map[string]any{"batch": st.Batch, "station": st.ID, "quota": st.Quota, "serial": serial})
	})
	if err != nil {
		s.cfg.Log.ErrorContext(ctx, "a unit beyond the quota was refused, but not counted", slog.String("station", st.ID), slog.Any("error", err))
	}
}

// Claim binds the unit whose box shows the code to a solution, if the actor in ctx may.
func (s *Service) Claim(ctx context.Context, code, solution string) (identity.Device, error) {
	who, _ := tenant.ActorFrom(ctx)
	t := tenant.MustTenant(ctx)
	hash, err := parseCode(code)
	if err != nil {
		return identity.Device{}, err
	}
	if _, err := s.cfg.Tenants.Solution(ctx, t, solution); err != nil {
		return identity.Device{}, err
	}
	if err := mayClaim(s.reads(ctx), t, hash, s.now()); err != nil {
		return identity.Device{}, err
	}
	c, err := claimByHash(s.reads(ctx), t, hash)
	if errors.Is(err, store.ErrNoRows) {
		return identity.Device{}, s.failed(ctx, t, "", problem.NotFound("No unit has this claim code.").At("code"))
	}
	if err != nil {
		return identity.Device{}, err
	}
	if c.used {
		return identity.Device{}, s.failed(ctx, t, hash, problem.Conflict("This claim code was already used.").At("code"))
	}
	d, err := s.cfg.Identity.Get(ctx, t, c.device)
	if err != nil {
		return identity.Device{}, err
	}
	if err := tenant.Require(ctx, tenant.DeviceClaim, tenant.Thing{Tenant: t, Product: d.Product, Solution: solution}); err != nil {
		return identity.Device{}, s.failed(ctx, t, hash, err)
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if ok, err := useClaim(tx, t, hash, solution, s.now()); err != nil || !ok {
			return errors.Join(err, problem.Conflict("This claim code was already used.").At("code"))
		}
		if err := s.cfg.Identity.SetSolution(tx, t, d.ID, solution); err != nil {
			return err
		}
		return s.cfg.Identity.SetState(tx, t, d.ID, identity.Pending, who.ID, "")
	})
	if err != nil {
		return identity.Device{}, err
	}
	return s.cfg.Identity.Get(ctx, t, d.ID)
}

// failed counts the failure and returns it.
func (s *Service) failed(ctx context.Context, tenant, hash string, failure error) error {
	if err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return countFailure(tx, tenant, hash, s.now()) }); err != nil {
		return err
	}
	return failure
}

func pemOf(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}) }
