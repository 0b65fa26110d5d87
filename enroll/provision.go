// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

// line answers POST /d/1/line/devices.
func (s *Service) line(w http.ResponseWriter, r *http.Request, p gateway.Peer) error {
	b, err := body(w, r, MaxLineRequest)
	if err != nil {
		return err
	}
	o, err := readOrder(b, p.Station, p.Cert)
	if err != nil {
		return err
	}
	out, err := s.provision(r.Context(), p.Tenant, p.Station, o)
	if err != nil {
		return err
	}
	return answerJSON(w, out)
}

// renew answers POST /d/1/line/renew.
func (s *Service) renew(w http.ResponseWriter, r *http.Request, p gateway.Peer) error {
	b, err := body(w, r, MaxLineRequest)
	if err != nil {
		return err
	}
	var in wire.StationRenewal
	if err := json.Unmarshal(b, &in); err != nil {
		return errNoOrder(err)
	}
	csr, err := identity.ParseCSRPEM(in.CSR)
	if err != nil {
		return err
	}
	out, err := s.RenewStation(r.Context(), p.Tenant, p.Station, p.Cert, csr)
	if err != nil {
		return err
	}
	return answerJSON(w, out)
}

func answerJSON(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	return json.NewEncoder(w).Encode(v)
}

// provision makes a unit at a line station: its row, its IDevID, its entry in the manifest and its claim code. The same
// request again gives the same device and certificate, and a new claim code in the place of the lost one.
func (s *Service) provision(ctx context.Context, tenant, station string, o order) (wire.LineResponse, error) {
	st, err := stationByID(s.reads(ctx), tenant, station)
	if err != nil {
		return wire.LineResponse{}, err
	}
	b, err := batchByID(s.reads(ctx), tenant, st.Batch)
	if err != nil {
		return wire.LineResponse{}, err
	}
	if err := o.onTime(s.now()); err != nil {
		return wire.LineResponse{}, s.skewed(ctx, st, o, err)
	}
	root, err := s.trustRoot(ctx, tenant)
	if err != nil {
		return wire.LineResponse{}, err
	}
	if err := s.ask(ctx, Question{Kind: AskProvision, Tenant: tenant, Product: b.Product, Batch: b.ID, Station: st.ID, Serial: o.Serial, Key: o.csr.KeyHash}); err != nil {
		return wire.LineResponse{}, err
	}
	request := identity.IssueRequest{Tenant: tenant, Kind: identity.IDevID, CSR: o.csr, Actor: station, Origin: station}
	var intent identity.Intent
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if st, err = stationByID(tx.QueryRow, tenant, station); err != nil {
			return err
		}
		if err := s.noTombstone(tx, tenant, b.Product, o.Serial, o.csr.KeyHash); err != nil {
			return err
		}
		d, err := s.unit(tx, st, o)
		if err != nil {
			return err
		}
		request.Subject = d.ID
		intent, err = s.cfg.Identity.Intend(tx, request)
		return err
	})
	if err != nil {
		if problem.Of(err).Rule == RuleQuota {
			s.refused(ctx, st, o.Serial)
		}
		return wire.LineResponse{}, s.suspect(ctx, err, Sighting{by: station, Serial: o.Serial, Place: st.Name, Door: ByLine, Key: o.csr.KeyHash, Detail: "asked for at the line station " + st.ID}, tenant, b.Product)
	}
	code, hash := NewCode()
	put := func(tx *store.Tx) error { return putClaim(tx, tenant, request.Subject, station, hash, s.now()) }
	request.Finish = func(tx *store.Tx) error {
		if err := errors.Join(stillAtWork(tx, st), put(tx)); err != nil {
			return err
		}
		return s.finish(tx, st, request.Subject, o)
	}
	c, fresh, err := s.cfg.Identity.Complete(ctx, request, intent)
	if err == nil && !fresh {
		err = s.cfg.DB.Write(ctx, put)
	}
	if err != nil {
		return wire.LineResponse{}, err
	}
	chain, err := s.cfg.Identity.Chain(ctx, identity.IDevID)
	if err != nil {
		return wire.LineResponse{}, err
	}
	bundle, err := s.cfg.Identity.SignedBundle(ctx)
	return wire.LineResponse{Device: request.Subject, Certificate: string(pemOf(c.DER)), Chain: string(chain), Claim: code, TrustRoot: root, Bundle: bundle}, err
}

// finish enters a unit that has just got its certificate into the manifest of its batch.
func (s *Service) finish(tx *store.Tx, st Station, device string, o order) error {
	c, err := s.cfg.Identity.CertificateOfKey(tx, st.Tenant, o.csr.KeyHash)
	if err != nil {
		return err
	}
	u := Unit{Serial: o.Serial, Device: device, Key: o.csr.KeyHash, Fingerprint: c.Fingerprint, Station: st.ID, Made: store.Millis(s.now())}
	if o.envelope != nil {
		u.Envelope = wire.Digest(o.envelope)
	}
	return record(tx, st.Tenant, st.Batch, u, o.envelope)
}

func (s *Service) trustRoot(ctx context.Context, tenant string) (json.RawMessage, error) {
	if s.cfg.TrustRoot == nil {
		return nil, nil
	}
	return s.cfg.TrustRoot(ctx, tenant)
}

// unit returns the device with the serial number, and registers and counts it if it is new.
func (s *Service) unit(tx *store.Tx, st Station, o order) (identity.Device, error) {
	b, err := batchByID(tx.QueryRow, st.Tenant, st.Batch)
	if err != nil {
		return identity.Device{}, err
	}
	if err := st.mayMake(b, s.now()); err != nil {
		return identity.Device{}, err
	}
	if b.Signed && o.envelope == nil {
		return identity.Device{}, problem.Forbidden(RuleUnsigned, "The batch %s takes signed requests only.", b.Name).
			Hint("The station signs each request with the key of its certificate: wire.Signed, or openthings station make.")
	}
	d, err := s.cfg.Identity.BySerialTx(tx, st.Tenant, b.Product, o.Serial)
	switch {
	case err == nil && d.Batch != b.ID:
		return identity.Device{}, errSerialTaken(o.Serial)
	case err == nil || !problem.Is(err, problem.KindNotFound):
		return d, err
	}
	p, err := authorised(tx, b, o.Serial)
	if err != nil {
		return identity.Device{}, err
	}
	if err := takeUnit(tx, st); err != nil {
		return identity.Device{}, err
	}
	d, err = s.newUnit(tx, st, b, "", o, p)
	if err != nil || p == nil {
		return d, err
	}
	return d, usePreauthorised(tx, *p, d.ID, s.now())
}

// newUnit registers a device of the batch under the id given, or a new one.
func (s *Service) newUnit(tx *store.Tx, st Station, b Batch, id string, o order, p *Preauthorised) (identity.Device, error) {
	m := o.making(st.ID, p)
	m.Offline = st.Offline
	made, err := json.Marshal(m)
	if err != nil {
		return identity.Device{}, err
	}
	return s.cfg.Identity.Register(tx, identity.Device{ID: id, Tenant: st.Tenant, Product: b.Product, Revision: b.Revision, Batch: b.ID,
		Serial: o.Serial, Firmware: o.Firmware, Origin: st.ID, Made: string(made)}, st.ID)
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

// skewed counts a request under a clock that is off, and returns the refusal; the first one is an alarm.
func (s *Service) skewed(ctx context.Context, st Station, o order, refusal error) error {
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		n, err := countSkew(tx, st)
		if err != nil || n > 1 {
			return err
		}
		off := o.Time - store.Millis(s.now())
		return s.tell(tx, "station.clock", st.Tenant, st.ID, st.ID, map[string]any{"batch": st.Batch, "station": st.ID, "off_ms": off, "serial": o.Serial})
	})
	if err != nil {
		return err
	}
	return refusal
}

func pemOf(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}) }
