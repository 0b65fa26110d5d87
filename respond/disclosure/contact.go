// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// SetContact says where the tenant wants vulnerabilities reported.
func (s *Service) SetContact(ctx context.Context, c Contact) error {
	a, err := who(ctx, tenant.CaseDeclare, "")
	if err != nil {
		return err
	}
	if err := c.Check(); err != nil {
		return err
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := putContact(tx, a.Tenant, c, s.now()); err != nil {
			return err
		}
		if err := s.cfg.DB.Enqueue(tx, jobRenew, a.Tenant, s.now(), gather{a.Tenant}); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: a.Tenant, Actor: a.ID, Kind: "contact.set", Subject: a.Tenant, Data: c})
	})
}

// Contact reads what SetContact stored; false when nothing was.
func (s *Service) Contact(ctx context.Context) (Contact, bool, error) {
	a, err := who(ctx, tenant.CaseRead, "")
	if err != nil {
		return Contact{}, false, err
	}
	c, err := s.contact(ctx, `c.tenant = $1`, a.Tenant)
	if c == nil {
		return Contact{}, false, err
	}
	return *c, true, err
}

// TenantOf is the tenant that named the host as one under which this platform answers for it; nothing if none did. A port
// of the host does not matter.
func (s *Service) TenantOf(ctx context.Context, host string) (tenant string, err error) {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	rows, err := s.cfg.DB.Query(ctx, `SELECT tenant FROM respond_contact_host WHERE host = $1`, host)
	named, err := store.Collect(rows, err, func(r *sql.Rows) (t string, err error) { return t, r.Scan(&t) })
	if err != nil || len(named) == 0 {
		return "", err
	}
	return named[0], nil
}

// answering is the tenant that answers for the host: the one that named it, else the only one that set a contact without
// naming any, else the only one there is. Nothing if that is open.
func (s *Service) answering(ctx context.Context, host string) (string, error) {
	t, err := s.TenantOf(ctx, host)
	if t != "" || err != nil {
		return t, err
	}
	c, err := s.contact(ctx, `NOT EXISTS (SELECT 1 FROM respond_contact_host h WHERE h.tenant = c.tenant)`)
	if err != nil {
		return "", err
	}
	if c != nil {
		return c.tenant, nil
	}
	all, err := s.cfg.Tenants(ctx)
	if err != nil || len(all) != 1 {
		return "", err
	}
	return all[0], nil
}

// contact reads the one contact that matches where, or nil.
func (s *Service) contact(ctx context.Context, where string, args ...any) (*Contact, error) {
	var cs []Contact
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) { cs, err = contacts(tx, where, args...); return err })
	if err != nil || len(cs) != 1 {
		return nil, err
	}
	return &cs[0], nil
}

func putContact(tx *store.Tx, tenant string, c Contact, at time.Time) error {
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("contact: %w", err)
	}
	_, err = tx.Exec(`INSERT INTO respond_contact(tenant, data, updated) VALUES ($1, $2, $3)
		ON CONFLICT (tenant) DO UPDATE SET data = excluded.data, updated = excluded.updated`, tenant, string(b), store.Millis(at))
	if err == nil {
		_, err = tx.Exec(`DELETE FROM respond_contact_host WHERE tenant = $1`, tenant)
	}
	for _, host := range c.Hosts {
		if err != nil {
			break
		}
		_, err = tx.Exec(`INSERT INTO respond_contact_host(host, tenant) VALUES ($1, $2)`, host, tenant)
		if store.IsUnique(err) {
			return problem.Conflict("Another tenant answers for the host %s.", host).At("hosts")
		}
	}
	return err
}

// contacts reads the disclosure contacts c that match where.
func contacts(tx *store.Tx, where string, args ...any) ([]Contact, error) {
	rows, err := tx.Query(`SELECT c.tenant, c.data FROM respond_contact c WHERE `+where, args...)
	return store.Collect(rows, err, func(r *sql.Rows) (Contact, error) {
		var c Contact
		var data string
		if err := r.Scan(&c.tenant, &data); err != nil {
			return c, err
		}
		return c, json.Unmarshal([]byte(data), &c)
	})
}
