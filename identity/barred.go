// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"database/sql"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/store"
)

// Lost says with what a device lost its trust: one act revoked everything of its batch, station, CA or authority. Its
// state does not tell: nobody moved it.
type Lost struct {
	Scope  Scope     `json:"scope" enum:"batch,station,ca,authority" doc:"What was revoked as a whole"`
	ID     string    `json:"id" doc:"Of the batch, line station, trusted CA or authority"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// With names the scope for people.
func (l Lost) With() string { return l.Scope.Words() }

// widest is the order in which the bars of a device are told, if there are several: those first that it never comes back
// from.
var widest = []Scope{ScopeBatch, ScopeStation, ScopeCA, ScopeAuthority}

// LostOf returns, of these devices of the tenant, those that lost their trust with their batch, station, CA or authority,
// by id, in one statement for all. An authority takes a device along until it has a certificate in service from another:
// one that enrols anew with its IDevID has left it behind.
func (s *Service) LostOf(ctx context.Context, tenant string, devices []Device) (map[string]Lost, error) {
	out := map[string]Lost{}
	if len(devices) == 0 {
		return out, nil
	}
	var ids, origins []string
	for _, d := range devices {
		ids, origins = append(ids, d.ID), append(origins, d.Batch, d.Origin)
	}
	slices.Sort(origins)
	in, args := store.In([]any{tenant}, slices.Compact(origins))
	of, args := store.In(args, ids)
	rows, err := s.cfg.DB.Query(ctx, `SELECT '', b.scope, b.id, b.reason, b.at FROM bar b WHERE b.tenant = $1 AND b.scope IN ('batch', 'station', 'ca') AND b.id IN `+in+`
		UNION ALL SELECT c.subject, b.scope, b.id, b.reason, b.at FROM certificate c JOIN bar b ON b.tenant = '' AND b.scope = 'authority' AND b.id = c.authority
			WHERE c.tenant = $1 AND c.subject IN `+of+` AND (c.revoked = 0 OR c.revoked = b.at) AND NOT EXISTS (
				SELECT 1 FROM certificate o WHERE o.tenant = $1 AND o.subject = c.subject AND o.kind IN ('ldevid', c.kind) AND o.phase IN ('active', 'pending')
					AND NOT EXISTS (SELECT 1 FROM bar x WHERE x.tenant = '' AND x.scope = 'authority' AND x.id = o.authority))`, args...)
	type act struct {
		device string // of one on an authority
		Lost
	}
	acts, err := store.Collect(rows, err, func(r *sql.Rows) (a act, err error) {
		var at int64
		err = r.Scan(&a.device, &a.Scope, &a.ID, &a.Reason, &at)
		a.At = store.Time(at)
		return a, err
	})
	for _, d := range devices {
		for _, a := range acts {
			hit := a.device == d.ID
			switch a.Scope {
			case ScopeBatch:
				hit = a.ID == d.Batch
			case ScopeStation, ScopeCA:
				hit = a.ID == d.Origin
			}
			if before, ok := out[d.ID]; hit && (!ok || slices.Index(widest, a.Scope) < slices.Index(widest, before.Scope)) {
				out[d.ID] = a.Lost
			}
		}
	}
	return out, err
}
