// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

const policyColumns = `label, version, policy, actor, created, ended`

func scanPolicy(r scanner) (Policy, error) {
	var label, actor, doc string
	var version, created, ended int64
	if err := r.Scan(&label, &version, &doc, &actor, &created, &ended); err != nil {
		return Policy{}, err
	}
	var p Policy
	err := json.Unmarshal([]byte(doc), &p)
	p.Label, p.Version, p.Actor, p.Created, p.Ended = label, version, actor, store.Time(created), ended > 0
	return p, err
}

// Policies are the tenant's enrolment policies of today, by label. The platform's own is among them unless the tenant
// has set one of that label.
func (s *Service) Policies(ctx context.Context, tenant string) ([]Policy, error) {
	all, err := s.setPolicies(ctx, tenant)
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		if p.Label == DefaultLabel {
			return all, nil
		}
	}
	return append([]Policy{builtin()}, all...), nil
}

// setPolicies are those that the tenant itself has set.
func (s *Service) setPolicies(ctx context.Context, tenant string) ([]Policy, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT `+policyColumns+` FROM enrol_policy p WHERE tenant = $1 AND ended = 0
		AND version = (SELECT max(version) FROM enrol_policy n WHERE n.tenant = p.tenant AND n.label = p.label) ORDER BY label`, tenant)
	return store.Collect(rows, err, func(r *sql.Rows) (Policy, error) { return scanPolicy(r) })
}

// Policy is the one of the label.
func (s *Service) Policy(ctx context.Context, tenant, label string) (Policy, error) {
	all, err := s.Policies(ctx, tenant)
	if err != nil {
		return Policy{}, err
	}
	for _, p := range all {
		if p.Label == label {
			return p, nil
		}
	}
	return Policy{}, problem.NotFound("There is no enrolment policy %s.", label)
}

// PolicyVersions is the history of a label, the newest first.
func (s *Service) PolicyVersions(ctx context.Context, tenant, label string, before int64, limit int) ([]Policy, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT `+policyColumns+` FROM enrol_policy WHERE tenant = $1 AND label = $2 AND ($3 = 0 OR version < $3)
		ORDER BY version DESC LIMIT $4`, tenant, label, before, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (Policy, error) { return scanPolicy(r) })
}

// PolicyFor is the policy by which a device of the tenant's product enrols that names the label; empty if it names none.
func (s *Service) PolicyFor(ctx context.Context, tenant, product, label string) (Policy, error) {
	all, err := s.setPolicies(ctx, tenant)
	if err != nil { // an unknown policy admits nobody
		return Policy{}, problem.Unavailable("The enrolment policies cannot be read.").Because(err)
	}
	return choose(all, product, label)
}

// SetPolicy makes p the tenant's policy of its label, as the next version.
func (s *Service) SetPolicy(ctx context.Context, tenant string, p Policy, actor string) (Policy, error) {
	p = p.filled()
	if err := p.check(); err != nil {
		return Policy{}, err
	}
	for _, id := range p.Products {
		if _, err := s.cfg.Products.Get(ctx, tenant, id); err != nil {
			return Policy{}, err
		}
	}
	if p.Solution != "" {
		if _, err := s.cfg.Tenants.Solution(ctx, tenant, p.Solution); err != nil {
			return Policy{}, err
		}
	}
	p.Ended = false
	return s.putPolicy(ctx, tenant, p, actor)
}

// EndPolicy ends the policy of a label. Its products enrol by the others from then on.
func (s *Service) EndPolicy(ctx context.Context, tenant, label, actor string) (Policy, error) {
	p, err := s.Policy(ctx, tenant, label)
	if err != nil {
		return p, err
	}
	if p.Version == 0 {
		return p, problem.Conflict("The platform's own policy cannot end; set another under its label.")
	}
	p.Ended = true
	return s.putPolicy(ctx, tenant, p, actor)
}

func (s *Service) putPolicy(ctx context.Context, tenant string, p Policy, actor string) (Policy, error) {
	p.Actor, p.Created = actor, s.now()
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		var labels int64
		if err := tx.QueryRow(`SELECT coalesce(max(CASE WHEN label = $2 THEN version ELSE 0 END), 0), count(DISTINCT label) FROM enrol_policy WHERE tenant = $1`,
			tenant, p.Label).Scan(&p.Version, &labels); err != nil {
			return err
		}
		if p.Version == 0 && labels >= maxPolicies {
			return problem.Conflict("There are already %d labels of enrolment policies.", maxPolicies)
		}
		p.Version++
		doc, err := json.Marshal(p)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(`INSERT INTO enrol_policy(tenant, `+policyColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			tenant, p.Label, p.Version, string(doc), actor, store.Millis(p.Created), number01(p.Ended)); err != nil {
			return err
		}
		kind := "policy.set"
		if p.Ended {
			kind = "policy.ended"
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: kind, Subject: "policy/" + p.Label, Data: p})
	})
	return p, err
}

// MayLapse says whether a device whose LDevID ended may still come to renew it: nil if a policy for its product forgives
// so much. It is identity.Config.Lapsed; the request itself is held against the policy that it names.
func (s *Service) MayLapse(ctx context.Context, tenant, device string, ended time.Time) error {
	d, err := s.cfg.Identity.Get(ctx, tenant, device)
	if err != nil {
		return err
	}
	all, err := s.setPolicies(ctx, tenant)
	if err != nil {
		return err
	}
	refusal := builtin().lapse(ended, s.now())
	for _, p := range append(all, builtin()) {
		if got, err := choose(all, d.Product, p.Label); err == nil && got.lapse(ended, s.now()) == nil {
			return nil
		}
	}
	return refusal
}
