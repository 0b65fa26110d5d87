// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"database/sql"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// MaxLabels is how many labels a device may have.
const MaxLabels = 32

var labelName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// checkLabels refuses labels that could not be shown or searched.
func checkLabels(labels map[string]string) error {
	if len(labels) > MaxLabels {
		return problem.Invalid("A device has at most %d labels.", MaxLabels).At("labels")
	}
	for name, value := range labels {
		if !labelName.MatchString(name) {
			return problem.Invalid("%q is no name of a label: 1 to 63 of a-z 0-9 . _ and -.", name).At("labels")
		}
		if len(value) > 120 || !utf8.ValidString(value) {
			return problem.Invalid("The label %s has at most 120 bytes of text.", name).At("labels")
		}
	}
	return nil
}

// putLabels sets labels and leaves the others as they are; the caller has checked and audits them.
func putLabels(tx *store.Tx, tenant, device string, labels map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		_, err := tx.Exec(`INSERT INTO device_label(device, name, tenant, value) VALUES ($1, $2, $3, $4)
			ON CONFLICT (device, name) DO UPDATE SET value = excluded.value`, device, name, tenant, labels[name])
		if err != nil {
			return err
		}
	}
	return nil
}

// SetLabels replaces the labels of a device.
func (s *Service) SetLabels(ctx context.Context, tenant, device string, labels map[string]string, actor string) error {
	if err := checkLabels(labels); err != nil {
		return err
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if _, err := s.cfg.Identity.GetTx(tx, tenant, device); err != nil {
			return err
		}
		if _, err := tx.Exec(`DELETE FROM device_label WHERE tenant = $1 AND device = $2`, tenant, device); err != nil {
			return err
		}
		if err := putLabels(tx, tenant, device, labels); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "device.labelled", Subject: device, Data: map[string]any{"labels": labels}})
	})
}

// Labels are the labels of a device.
func (s *Service) Labels(ctx context.Context, tenant, device string) (map[string]string, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT name, value FROM device_label WHERE tenant = $1 AND device = $2`, tenant, device)
	pairs, err := store.Collect(rows, err, func(r *sql.Rows) (p [2]string, err error) { return p, r.Scan(&p[0], &p[1]) })
	out := make(map[string]string, len(pairs))
	for _, p := range pairs {
		out[p[0]] = p[1]
	}
	return out, err
}

// labelLines writes labels as people type them.
func labelLines(labels map[string]string) string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		lines = append(lines, name+"="+labels[name])
	}
	return strings.Join(lines, "\n")
}
