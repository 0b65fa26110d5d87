// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// caColumns ends with whether another tenant has proven the same key.
const caColumns = `a.id, a.tenant, a.name, a.key_hash, a.cert, a.below, a.policy, a.quota, a.used, a.refused, a.expires, a.state, a.reason, a.code, a.code_ends, a.proof, a.created, a.actor,
	EXISTS (SELECT 1 FROM trusted_ca o WHERE o.key_hash = a.key_hash AND o.tenant <> a.tenant AND o.state IN ('active', 'suspended'))`

func scanCA(r scanner) (TrustedCA, error) {
	var c TrustedCA
	var cert, below []byte
	var policy string
	var expires, codeEnds, created int64
	err := r.Scan(&c.ID, &c.Tenant, &c.Name, &c.KeyHash, &cert, &below, &policy, &c.Quota, &c.Used, &c.Refused, &expires, &c.State, &c.Reason, &c.Code, &codeEnds, &c.Proof, &created, &c.Actor, &c.Others)
	if errors.Is(err, store.ErrNoRows) {
		return c, problem.NotFound("There is no such trusted CA.")
	}
	if err != nil {
		return c, err
	}
	c.Expires, c.codeEnds, c.Created = store.Time(expires), store.Time(codeEnds), store.Time(created)
	if err := json.Unmarshal([]byte(policy), &c.Policy); err != nil {
		return c, fmt.Errorf("enroll: trusted CA %s: %w", c.ID, err)
	}
	if c.cert, err = x509.ParseCertificate(cert); err != nil {
		return c, fmt.Errorf("enroll: trusted CA %s: %w", c.ID, err)
	}
	if c.below, err = x509.ParseCertificates(below); err != nil {
		return c, fmt.Errorf("enroll: trusted CA %s: %w", c.ID, err)
	}
	c.Subject, c.Ends = c.cert.Subject.String(), c.cert.NotAfter
	return c, nil
}

func caByID(q querier, tenant, id string) (TrustedCA, error) {
	return scanCA(q(`SELECT `+caColumns+` FROM trusted_ca a WHERE a.tenant = $1 AND a.id = $2`, tenant, id))
}

// TrustedCAs lists the tenant's, the newest first.
func (s *Service) TrustedCAs(ctx context.Context, tenant string) ([]TrustedCA, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT `+caColumns+` FROM trusted_ca a WHERE a.tenant = $1 ORDER BY a.id DESC LIMIT $2`, tenant, maxCAs)
	return store.Collect(rows, err, func(r *sql.Rows) (TrustedCA, error) { return scanCA(r) })
}

// TrustedCA returns one of the tenant's.
func (s *Service) TrustedCA(ctx context.Context, tenant, id string) (TrustedCA, error) {
	return caByID(s.reads(ctx), tenant, id)
}

// casNamed finds the CAs, of any tenant, below which a certificate with one of these issuers could stand. The register
// does not know the certificate, so there is no tenant to ask for yet.
func (s *Service) casNamed(ctx context.Context, hashes []string) ([]TrustedCA, error) {
	var marks []string
	var args []any
	for i, h := range hashes {
		marks, args = append(marks, fmt.Sprintf("$%d", i+1)), append(args, h)
	}
	// The bound is each tenant's own: whoever uploads many CAs of one name hides nobody else's.
	rows, err := s.cfg.DB.Query(ctx, `SELECT `+caColumns+` FROM trusted_ca a WHERE a.id IN (SELECT id FROM
		(SELECT t.id, row_number() OVER (PARTITION BY t.tenant ORDER BY CASE WHEN t.state = 'active' THEN 0 ELSE 1 END, t.id) AS n FROM trusted_ca t WHERE t.state <> 'unproven' AND t.id IN
		(SELECT ca FROM trusted_name WHERE subject_hash IN (`+strings.Join(marks, ", ")+`))) of_tenant WHERE n <= 8) ORDER BY a.id`, args...)
	return store.Collect(rows, err, func(r *sql.Rows) (TrustedCA, error) { return scanCA(r) })
}

// AddTrustedCA uploads a CA of the tenant. It counts once Prove has been called.
func (s *Service) AddTrustedCA(ctx context.Context, c TrustedCA, certificates, actor string) (TrustedCA, error) {
	cert, below, err := readCAs(certificates, s.now())
	if err != nil {
		return c, err
	}
	if err := errors.Join(checkQuotaOfCA(c.Quota), checkName(c.Name), c.Policy.check(), s.checkTargets(ctx, c.Tenant, c.Policy.Solution, c.Policy.Mapping.revisions())); err != nil {
		return c, err
	}
	c.ID, c.cert, c.below, c.State, c.Created, c.Actor = store.NewID("tca"), cert, below, CAUnproven, s.now(), actor
	c.KeyHash, c.Subject, c.Ends = identity.KeyHash(cert.RawSubjectPublicKeyInfo), cert.Subject.String(), cert.NotAfter
	if err := s.cfg.Identity.NotOurs(ctx, c.Tenant, c.KeyHash); err != nil {
		return c, err
	}
	c.Code, c.codeEnds = proofCode(), s.now().Add(proofLife)
	policy, err := json.Marshal(c.Policy)
	if err != nil {
		return c, err
	}
	return c, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		var n int64
		if err := tx.QueryRow(`SELECT count(*) FROM trusted_ca WHERE tenant = $1`, c.Tenant).Scan(&n); err != nil {
			return err
		}
		if n >= maxCAs {
			return problem.Conflict("A tenant trusts at most %d CAs.", maxCAs)
		}
		var chain []byte
		for _, b := range below {
			chain = append(chain, b.Raw...)
		}
		_, err := tx.Exec(`INSERT INTO trusted_ca(id, tenant, name, key_hash, cert, below, policy, quota, used, refused, expires, state, reason, code, code_ends, proof, created, actor)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, 0, $9, $10, '', $11, $12, '', $13, $14)`, c.ID, c.Tenant, c.Name, c.KeyHash, cert.Raw, append([]byte{}, chain...), string(policy),
			c.Quota, store.Millis(c.Expires), c.State, c.Code, store.Millis(c.codeEnds), store.Millis(c.Created), actor)
		if store.IsUnique(err) {
			return problem.Conflict("This CA key is trusted already.").At("certificates")
		}
		if err != nil {
			return err
		}
		for _, x := range append([]*x509.Certificate{cert}, below...) {
			if _, err := tx.Exec(`INSERT INTO trusted_name(subject_hash, ca) VALUES ($1, $2) ON CONFLICT (subject_hash, ca) DO NOTHING`, subjectHash(x.RawSubject), c.ID); err != nil {
				return err
			}
		}
		return s.auditCA(tx, c, actor, "trusted-ca.added", map[string]any{"name": c.Name, "key_hash": c.KeyHash, "policy": c.Policy, "quota": c.Quota, "expires": c.Expires})
	})
}

func (s *Service) auditCA(tx *store.Tx, c TrustedCA, actor, kind string, data any) error {
	return audit.Append(tx, audit.Entry{Tenant: c.Tenant, Actor: actor, Kind: kind, Subject: c.ID, Data: data})
}

// checkTargets refuses hardware revisions and a solution that are not the tenant's.
func (s *Service) checkTargets(ctx context.Context, tenant, solution string, revisions []string) error {
	for _, r := range revisions {
		if _, err := s.cfg.Products.Revision(ctx, tenant, r); err != nil {
			return err
		}
	}
	if solution == "" {
		return nil
	}
	_, err := s.cfg.Tenants.Solution(ctx, tenant, solution)
	return err
}

func proofCode() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails since Go 1.24
	return hex.EncodeToString(b)
}

// ProveTrustedCA takes a certificate or request in PEM that proves possession of the CA's key; see provedBy. The code is
// used up by it.
func (s *Service) ProveTrustedCA(ctx context.Context, tenant, id, proof, actor string) (TrustedCA, error) {
	c, err := s.TrustedCA(ctx, tenant, id)
	if err != nil {
		return c, err
	}
	how, err := c.provedBy(proof, s.now())
	if err != nil {
		return c, err
	}
	return s.trust(ctx, c, how, actor)
}

// AcceptTrustedCA is the host administrator's way without a proof, for a CA of any tenant.
func (s *Service) AcceptTrustedCA(ctx context.Context, id, actor string) (TrustedCA, error) {
	c, err := scanCA(s.reads(ctx)(`SELECT `+caColumns+` FROM trusted_ca a WHERE a.id = $1`, id))
	if err != nil {
		return c, err
	}
	return s.trust(ctx, c, "host", actor)
}

func (s *Service) trust(ctx context.Context, c TrustedCA, how, actor string) (TrustedCA, error) {
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		n, err := tx.Exec(`UPDATE trusted_ca SET state = 'active', proof = $1, code = '' WHERE tenant = $2 AND id = $3 AND state = 'unproven' AND code = $4`, how, c.Tenant, c.ID, c.Code)
		if err != nil {
			return err
		}
		if n == 0 {
			return problem.Conflict("The trusted CA is %s already, or has another code now.", c.State)
		}
		if c.Policy.CRL.URL != "" {
			if err := s.cfg.DB.Enqueue(tx, jobCRL, c.ID, s.now(), crlJob{c.Tenant, c.ID}); err != nil {
				return err
			}
		}
		return s.auditCA(tx, c, actor, "trusted-ca.proven", map[string]any{"how": how, "key_hash": c.KeyHash})
	})
	if err != nil {
		return c, err
	}
	return s.TrustedCA(ctx, c.Tenant, c.ID)
}

// RenewCode makes a new code for a CA that is not proven yet.
func (s *Service) RenewCode(ctx context.Context, tenant, id string) (TrustedCA, error) {
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		n, err := tx.Exec(`UPDATE trusted_ca SET code = $1, code_ends = $2 WHERE tenant = $3 AND id = $4 AND state = 'unproven'`, proofCode(), store.Millis(s.now().Add(proofLife)), tenant, id)
		if err == nil && n == 0 {
			return problem.Conflict("There is no such trusted CA that waits for its proof.")
		}
		return err
	})
	if err != nil {
		return TrustedCA{}, err
	}
	return s.TrustedCA(ctx, tenant, id)
}

// caMoves are the states that people may put a trusted CA into.
var caMoves = map[CAState][]CAState{CASuspended: {CAActive}, CAActive: {CASuspended}, CARetired: {CAUnproven, CAActive, CASuspended}}

// MoveTrustedCA suspends, resumes or retires a CA. What it brought stays; RevokeTrustedCA ends that too.
func (s *Service) MoveTrustedCA(ctx context.Context, tenant, id string, to CAState, reason, actor string) (TrustedCA, error) {
	if err := checkReason(reason); err != nil {
		return TrustedCA{}, err
	}
	err := s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error { return s.moveCA(tx, tenant, id, to, reason, actor) })
	if err != nil {
		return TrustedCA{}, err
	}
	return s.TrustedCA(ctx, tenant, id)
}

func (s *Service) moveCA(tx *store.Tx, tenant, id string, to CAState, reason, actor string) error {
	c, err := caByID(tx.QueryRow, tenant, id)
	if err != nil {
		return err
	}
	for _, from := range caMoves[to] {
		if from != c.State {
			continue
		}
		if _, err := tx.Exec(`UPDATE trusted_ca SET state = $1, reason = $2 WHERE tenant = $3 AND id = $4`, to, reason, tenant, id); err != nil {
			return err
		}
		return s.auditCA(tx, c, actor, "trusted-ca."+string(to), map[string]any{"from": c.State, "reason": reason})
	}
	return problem.Conflict("A trusted CA that is %s cannot become %s.", c.State, to)
}

func checkQuotaOfCA(quota int64) error {
	if quota < 1 || quota > maxDevicesOfCA {
		return problem.Invalid("A trusted CA brings 1 to %d devices.", maxDevicesOfCA).At("quota")
	}
	return nil
}

// LimitTrustedCA sets how many devices a CA may bring, those that it has brought included: its key cannot be trusted a
// second time, so that without this a used quota would end it for ever. With fewer than it has brought nobody new comes.
func (s *Service) LimitTrustedCA(ctx context.Context, tenant, id string, quota int64, reason, actor string) (TrustedCA, error) {
	if err := errors.Join(checkQuotaOfCA(quota), checkReason(reason)); err != nil {
		return TrustedCA{}, err
	}
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		c, err := caByID(tx.QueryRow, tenant, id)
		if err != nil {
			return err
		}
		if c.State == CARetired {
			return problem.Conflict("A trusted CA that is %s brings nobody new.", c.State)
		}
		if _, err := tx.Exec(`UPDATE trusted_ca SET quota = $1 WHERE tenant = $2 AND id = $3`, quota, tenant, id); err != nil {
			return err
		}
		return s.auditCA(tx, c, actor, "trusted-ca.limited", map[string]any{"from": c.Quota, "quota": quota, "reason": reason})
	})
	if err != nil {
		return TrustedCA{}, err
	}
	return s.TrustedCA(ctx, tenant, id)
}

// RevokeTrustedCA retires the CA and bars everything that it brought, from the commit on.
func (s *Service) RevokeTrustedCA(ctx context.Context, tenant, id, reason, actor string) (TrustedCA, error) {
	if err := checkReason(reason); err != nil {
		return TrustedCA{}, err
	}
	err := s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error {
		c, err := caByID(tx.QueryRow, tenant, id)
		if err != nil {
			return err
		}
		if c.State != CARetired {
			if err := s.moveCA(tx, tenant, id, CARetired, reason, actor); err != nil {
				return err
			}
		}
		return s.cfg.Identity.Bar(tx, tenant, identity.ScopeCA, id, actor, reason)
	})
	if err != nil {
		return TrustedCA{}, err
	}
	return s.TrustedCA(ctx, tenant, id)
}

// takeFromCA counts one more device, or refuses, inside the transaction that registers it.
func takeFromCA(tx *store.Tx, c TrustedCA, now time.Time) error {
	n, err := tx.Exec(`UPDATE trusted_ca SET used = used + 1 WHERE tenant = $1 AND id = $2 AND state = 'active' AND used < quota AND (expires = 0 OR expires > $3)`, c.Tenant, c.ID, store.Millis(now))
	if err != nil || n == 1 {
		return err
	}
	if c, err = caByID(tx.QueryRow, c.Tenant, c.ID); err != nil {
		return err
	}
	return c.open(now)
}
