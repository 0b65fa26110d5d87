// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

// RuleBaseline refuses to commission a device that does not fulfil its product's baseline, or has not said that it does.
const RuleBaseline = "enroll.baseline"

// reportAge is how old a report may be when a device is commissioned on it.
const reportAge = 24 * time.Hour

// Standing is what a device said last of how it is set up, and how that stands against its product's baseline.
type Standing struct {
	Device  string              `json:"device"`
	At      time.Time           `json:"at" doc:"When it came in"`
	Version int64               `json:"version" doc:"Of the baseline that it was held against; 0: there was none"`
	OK      bool                `json:"ok"`
	Failed  []string            `json:"failed,omitempty" doc:"A sentence for each item that it does not fulfil"`
	Report  wire.BaselineReport `json:"report"`
}

// baselineReport takes a device's report. It came over the device's own TLS connection: that is the proof whose it is,
// and that it is of this moment.
func (s *Service) baselineReport(w http.ResponseWriter, r *http.Request, p gateway.Peer) error {
	if err := s.tells.Take(p.Device, 1); err != nil {
		return err
	}
	b, err := body(w, r, wire.MaxBaselineReport)
	if err != nil {
		return err
	}
	report, err := wire.ParseBaselineReport(b)
	if err != nil {
		return problem.Invalid("This is no report of how a device is set up.").Because(err).Hint("%s", err)
	}
	st, err := s.Reported(r.Context(), p.Tenant, p.Device, report)
	if err != nil {
		return err
	}
	return writeJSON(w, wire.BaselineAnswer{OK: st.OK, Version: st.Version, Failed: st.Failed})
}

// Reported keeps a report and holds it against the baseline. What changes for better or worse is a leaf of the log and
// an event; a repeat is neither. A commissioned device that fails is not locked out.
func (s *Service) Reported(ctx context.Context, tenant, device string, report wire.BaselineReport) (Standing, error) {
	d, err := s.cfg.Identity.Get(ctx, tenant, device)
	if err != nil {
		return Standing{}, err
	}
	base, err := s.cfg.Products.Baseline(ctx, tenant, d.Product)
	if err != nil {
		return Standing{}, err
	}
	st := Standing{Device: device, At: s.now(), Version: base.Version, Failed: base.Check(report), Report: report}
	st.OK = len(st.Failed) == 0
	failed, err := json.Marshal(append([]string{}, st.Failed...))
	if err != nil {
		return Standing{}, err
	}
	text, err := json.Marshal(report)
	if err != nil {
		return Standing{}, err
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		was, err := standing(tx.QueryRow, tenant, device)
		first := errors.Is(err, store.ErrNoRows)
		if err != nil && !first {
			return err
		}
		if _, err := tx.Exec(`INSERT INTO device_baseline(device, tenant, at, version, ok, failed, report) VALUES ($1, $2, $3, $4, $5, $6, $7)
			ON CONFLICT (device) DO UPDATE SET at = excluded.at, version = excluded.version, ok = excluded.ok, failed = excluded.failed, report = excluded.report`,
			device, tenant, store.Millis(st.At), st.Version, number01(st.OK), string(failed), string(text)); err != nil {
			return err
		}
		if !first && slices.Equal(was.Failed, st.Failed) && was.Report.Root == report.Root && was.Report.SecureBoot == report.SecureBoot {
			return nil
		}
		data := map[string]any{"ok": st.OK, "failed": st.Failed, "version": st.Version, "root": report.Root, "secure_boot": report.SecureBoot, "state": d.State, "product": d.Product}
		if err := audit.Append(tx, audit.Entry{Tenant: tenant, Actor: device, Kind: "device.baseline", Subject: device, Data: data}); err != nil {
			return err
		}
		return s.cfg.DB.Emit(tx, "device.baseline", tenant, device, data)
	})
	return st, err
}

// fulfilsBaseline refuses a device that may not be commissioned yet. What the device can heal by reporting is "later".
func (s *Service) fulfilsBaseline(ctx context.Context, d identity.Device) error {
	base, err := s.cfg.Products.Baseline(ctx, d.Tenant, d.Product)
	if err != nil || !base.Demands() {
		return err
	}
	st, err := standing(s.reads(ctx), d.Tenant, d.ID)
	missing := errors.Is(err, store.ErrNoRows)
	if err != nil && !missing {
		return problem.Unavailable("The device's report cannot be read.").Because(err)
	}
	if missing || st.Version != base.Version || s.now().Sub(st.At) > reportAge {
		return &later{problem.Forbidden(RuleBaseline, "The product has a commissioning baseline, and the device has not said yet that it fulfils version %d.", base.Version).
			Hint("Report to POST /d/1/baseline, then ask again."), notYet}
	}
	if failed := base.Check(st.Report); len(failed) > 0 {
		return problem.Forbidden(RuleBaseline, "The device does not fulfil its product's commissioning baseline: %s", strings.Join(failed, " ")).
			Hint("Mend it, report to POST /d/1/baseline, and ask again.")
	}
	return nil
}

const standingColumns = `device, at, version, ok, failed, report`

func scanStanding(r scanner) (Standing, error) {
	var st Standing
	var at, ok int64
	var failed, report string
	if err := r.Scan(&st.Device, &at, &st.Version, &ok, &failed, &report); err != nil {
		return st, err
	}
	st.At, st.OK = store.Time(at), ok > 0
	return st, errors.Join(json.Unmarshal([]byte(failed), &st.Failed), json.Unmarshal([]byte(report), &st.Report))
}

func standing(q querier, tenant, device string) (Standing, error) {
	return scanStanding(q(`SELECT `+standingColumns+` FROM device_baseline WHERE tenant = $1 AND device = $2`, tenant, device))
}

// Standing is how the device stands; store.ErrNoRows if it has never reported.
func (s *Service) Standing(ctx context.Context, tenant, device string) (Standing, error) {
	return standing(s.reads(ctx), tenant, device)
}

// failing lists devices of the tenant that do not fulfil their baseline, in the order of their ids.
func (s *Service) failing(ctx context.Context, tenant, after string, limit int) ([]Standing, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT `+standingColumns+` FROM device_baseline WHERE tenant = $1 AND ok = 0 AND device > $2 ORDER BY device LIMIT $3`, tenant, after, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (Standing, error) { return scanStanding(r) })
}
