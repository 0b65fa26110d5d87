// SPDX-License-Identifier: AGPL-3.0-only

package update

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

// Bounds of what a device may say in a report, in bytes; the rest is cut off or refused.
const (
	maxReport = 16 << 10
	maxWord   = 200
)

func cut(s string) string {
	if len(s) > maxWord {
		s = strings.ToValidUTF8(s[:maxWord], "")
	}
	return s
}

// parseReport reads a device's JSON; an error is final, since the same bytes will never be better.
func parseReport(body []byte, into any) error {
	if len(body) > maxReport {
		return problem.TooLarge("The report has more than %d bytes.", maxReport)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return problem.Invalid("The report is not the JSON expected.").Because(err)
	}
	return nil
}

// Inventory takes what a device says of its software after each start (topic inv). It is the only thing that makes an
// update count as committed: the new system, after its boot, names the image that was signed for.
func (s *Service) Inventory(ctx context.Context, rec gateway.Record) error {
	var inv wire.Inventory
	if err := parseReport(rec.Body, &inv); err != nil {
		return err
	}
	if inv.Boot > math.MaxInt64 {
		return problem.Invalid("The number of the start is out of range.").At("boot")
	}
	d, err := s.cfg.Identity.Get(ctx, rec.Tenant, rec.Device)
	if err != nil {
		return err
	}
	at := time.UnixMilli(rec.At)
	f := Firmware{Version: cut(inv.Version), SecurityVersion: inv.SecurityVersion, Image: cut(inv.Image), Slot: cut(inv.Slot),
		Floor: inv.Floor, Boot: int64(inv.Boot), Agent: cut(inv.Agent), At: at}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		f := f
		// Inside the transaction: a release that is uploaded at this moment either is seen here or sees this report.
		release, err := one(scanRelease(tx.QueryRow(`SELECT `+releaseColumns+` FROM release WHERE tenant = $1 AND image = $2`, rec.Tenant, inv.Image)))("release")
		if err != nil && !problem.Is(err, problem.KindNotFound) {
			return err
		}
		if release.Product != d.Product {
			release = Release{} // an image of another product is none of ours
		}
		if release.ID != "" {
			f.Release, f.Version, f.SecurityVersion = release.ID, release.Version, release.SecurityVersion // what was signed, not what is said
		}
		fresh, err := putFirmware(tx, rec.Tenant, rec.Device, f)
		if err != nil || !fresh {
			return err
		}
		if release.ID == "" {
			return s.cfg.Fleet.Uninstalled(tx, rec.Tenant, rec.Device, at)
		}
		if err := s.cfg.Fleet.Installed(tx, rec.Tenant, d.Product, rec.Device, release.ID, at); err != nil {
			return err
		}
		if inv.Update == "" {
			return nil
		}
		u, err := getUpdate(tx, rec.Tenant, rec.Device, inv.Update)
		if problem.Is(err, problem.KindNotFound) || u.Release != release.ID {
			return nil // it runs what it says; that the update named is none of its own changes nothing
		}
		if err != nil {
			return err
		}
		return s.end(tx, rec.Tenant, u, wire.UpdateCommitted, "", "", release)
	})
}

// Status takes a step of an update (topic ota/<update>/status). Steps are shown; a refusal or a failure ends the update;
// a commit is believed only from the inventory in the report, and only with the right image.
func (s *Service) Status(ctx context.Context, rec gateway.Record) error {
	id, ok := strings.CutSuffix(strings.TrimPrefix(rec.Topic, "ota/"), "/status")
	if !ok || id == "" || strings.Contains(id, "/") {
		return problem.Invalid("The topic %q is not that of a status.", cut(rec.Topic))
	}
	var st wire.UpdateStatus
	if err := parseReport(rec.Body, &st); err != nil {
		return err
	}
	if !step(st.State) && !final(st.State) {
		return problem.Invalid("There is no state %q of an update.", cut(st.State))
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		u, err := getUpdate(tx, rec.Tenant, rec.Device, id)
		if err != nil || !u.Ended.IsZero() {
			return err
		}
		if step(st.State) {
			_, err := moveUpdate(tx, rec.Tenant, id, st.State, "", "", time.Time{})
			return err
		}
		r, err := one(scanRelease(tx.QueryRow(`SELECT `+releaseColumns+` FROM release WHERE tenant = $1 AND id = $2`, rec.Tenant, u.Release)))("release")
		if err != nil {
			return err
		}
		if st.State == wire.UpdateCommitted && st.Inventory.Image != r.Image {
			return s.end(tx, rec.Tenant, u, wire.UpdateFailed, "", "it claims to be updated and runs "+cut(st.Inventory.Image), r)
		}
		return s.end(tx, rec.Tenant, u, st.State, cut(st.Rule), cut(st.Reason), r)
	})
}

// end gives an update its outcome, once, and has the deployment looked at.
func (s *Service) end(tx *store.Tx, tenant string, u Update, state, rule, reason string, r Release) error {
	now := s.cfg.Clock.Now()
	moved, err := moveUpdate(tx, tenant, u.ID, state, rule, reason, now)
	if err != nil || !moved {
		return err
	}
	data := map[string]any{"update": u.ID, "deployment": u.Deployment, "release": u.Release, "version": r.Version, "security_version": r.SecurityVersion,
		"image": r.Image, "rule": rule, "reason": reason}
	return errors.Join(
		audit.Append(tx, audit.Entry{Tenant: tenant, Actor: u.Device, Kind: "update." + state, Subject: u.Device, Data: data}),
		s.cfg.DB.Emit(tx, "update.ended", tenant, u.Device, map[string]any{"state": state, "release": u.Release, "deployment": u.Deployment}),
		s.cfg.DB.Enqueue(tx, jobAdvance, u.Deployment, now, advanceData{Tenant: tenant}),
	)
}
