// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

// Opened is a new line station with its certificate and the authorities above it, PEM.
type Opened struct {
	Station
	Certificate string `json:"certificate" doc:"PEM"`
	Chain       string `json:"chain" doc:"PEM: issuing authority, then root"`
	Permit      string `json:"permit,omitempty" doc:"Of an offline station: what it may make, signed with the log key"`
}

// OpenStation admits a line station to a batch until st.Expires, with a certificate for the key of its CSR. Tenant,
// Batch, Name, Quota and Expires are the caller's to fill.
func (s *Service) OpenStation(ctx context.Context, st Station, csr *identity.CSR, actor string) (Opened, error) {
	return s.open(ctx, st, csr, actor, nil)
}

// open opens a station. Before the row is written, prepare may complete it and take what it needs.
func (s *Service) open(ctx context.Context, st Station, csr *identity.CSR, actor string, prepare func(tx *store.Tx, st *Station, b Batch) error) (Opened, error) {
	if err := errors.Join(checkName(st.Name), checkCount(st.Quota, "quota")); err != nil {
		return Opened{}, err
	}
	st.ID, st.Created = store.NewID("sta"), s.now()
	window := st.Expires.Sub(st.Created)
	if window <= 0 || window > MaxWindow {
		return Opened{}, problem.Invalid("A line station is open for at most %.0f hours.", MaxWindow.Hours()).At("expires")
	}
	request := identity.IssueRequest{Tenant: st.Tenant, Subject: st.ID, Kind: identity.Station, CSR: csr, Actor: actor, Life: st.certificateLife(st.Created),
		Finish: func(tx *store.Tx) error { return stationStands(tx, st.Tenant, st.ID) }}
	var intent identity.Intent
	var opened Station
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		opened = st
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
		if prepare != nil {
			if err := prepare(tx, &opened, b); err != nil {
				return err
			}
		}
		if err := insertStation(tx, opened); err != nil {
			return err
		}
		if err := audit.Append(tx, audit.Entry{Tenant: st.Tenant, Actor: actor, Kind: "station.opened", Subject: st.ID, Data: opened}); err != nil {
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
	return Opened{Station: opened, Certificate: string(pemOf(c.DER)), Chain: string(chain), Permit: opened.permit}, err
}

// certificateLife is how long a certificate of the station lives that is made now.
func (s Station) certificateLife(now time.Time) time.Duration {
	if s.Offline {
		return s.Expires.Add(SyncGrace).Sub(now)
	}
	return min(MaxStation, s.Expires.Sub(now))
}

// RenewStation gives a station its next certificate, for a new key, while its window is open. A third of the life of
// the one in use, cert, has to be over, so that a station holds few at a time.
func (s *Service) RenewStation(ctx context.Context, tenant, id string, cert *x509.Certificate, csr *identity.CSR) (wire.StationCertificate, error) {
	st, err := stationByID(s.reads(ctx), tenant, id)
	if err != nil {
		return wire.StationCertificate{}, err
	}
	now := s.now()
	if state := st.State(now); state != "open" {
		return wire.StationCertificate{}, problem.Forbidden(RuleClosed, "The line station is %s.", state)
	}
	if early := cert.NotBefore.Add(cert.NotAfter.Sub(cert.NotBefore) / 3); now.Before(early) {
		return wire.StationCertificate{}, problem.Conflict("The certificate in use is too young to be renewed.").Hint("Renew it from %s on.", early.UTC().Format(time.RFC3339))
	}
	c, _, err := s.cfg.Identity.Issue(ctx, identity.IssueRequest{Tenant: tenant, Subject: id, Kind: identity.Station, CSR: csr, Actor: id, Life: st.certificateLife(now),
		Finish: func(tx *store.Tx) error { return stationStands(tx, tenant, id) }})
	if err != nil {
		return wire.StationCertificate{}, err
	}
	chain, err := s.cfg.Identity.Chain(ctx, identity.Station)
	return wire.StationCertificate{Certificate: string(pemOf(c.DER)), Chain: string(chain)}, err
}

// Units says what becomes of what a killed station made.
type Units string

// What may become of them.
const (
	KeepUnits    Units = ""        // they go on; somebody looks at the list
	SuspendUnits Units = "suspend" // each is locked out until it is resumed
	BarUnits     Units = "bar"     // none is ever admitted again
)

// KillStation ends a line station at once: its certificates are revoked, its connections are cut, what it has not
// brought yet is never taken. What it made is dealt with as units says.
func (s *Service) KillStation(ctx context.Context, tenant, id, reason string, units Units, actor string) error {
	if err := checkReason(reason); err != nil {
		return err
	}
	if units != KeepUnits && units != SuspendUnits && units != BarUnits {
		return problem.Invalid("The units of a killed station are suspended or barred, or left alone.").At("units")
	}
	err := s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error {
		if _, err := stationByID(tx.QueryRow, tenant, id); err != nil {
			return err
		}
		if err := killStation(tx, tenant, id, reason, s.now()); err != nil {
			return err
		}
		st, err := stationByID(tx.QueryRow, tenant, id) // as it is now that its row is held: another node may have taken units until then
		if err != nil {
			return err
		}
		if err := freeReserved(tx, st); err != nil {
			return err
		}
		if units == BarUnits {
			if err := s.cfg.Identity.Bar(tx, tenant, identity.ScopeStation, id, actor, reason); err != nil {
				return err
			}
		}
		return s.cfg.Identity.RevokeStation(tx, tenant, id, actor, reason)
	})
	if err != nil || units != SuspendUnits {
		return err
	}
	return s.suspendUnits(ctx, tenant, id, reason, actor)
}

// suspendUnits suspends what a station made, as far as it is in a state that can be.
func (s *Service) suspendUnits(ctx context.Context, tenant, id, reason, actor string) error {
	for after := ""; ; {
		ids, err := devicesOfStation(ctx, s.cfg.DB, tenant, id, after, MaxDecide)
		if err != nil || len(ids) == 0 {
			return err
		}
		err = s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error {
			for _, device := range ids {
				d, err := s.cfg.Identity.GetTx(tx, tenant, device)
				if err != nil {
					return err
				}
				if !d.State.May(identity.Suspended) {
					continue
				}
				if err := s.cfg.Identity.SetState(tx, tenant, device, identity.Suspended, actor, reason); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		after = ids[len(ids)-1]
	}
}
