// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/enroll/attest"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

// RuleTPMUsed refuses a proof by a TPM that has proven a key of another device: two devices do not share one.
const RuleTPMUsed = "attest.tpm-used"

// MaxAttest bounds the bodies of the attestation routes, in bytes.
const MaxAttest = 96 << 10

// maxMakers bounds the TPM makers that a tenant trusts.
const maxMakers = 200

// Attestation is what was found out about a key of a device.
type Attestation struct {
	Device  string `json:"device"`
	KeyHash string `json:"key_hash" doc:"Hex SHA-256 of the subject public key info"`
	Policy  string `json:"policy" doc:"Label of the enrolment policy of the device's product at that time"`
	attest.Evidence
}

// Maker is an authority of a maker of TPMs whose endorsement certificates the tenant believes.
type Maker struct {
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	Subject     string    `json:"subject"`
	Fingerprint string    `json:"fingerprint" doc:"Hex SHA-256 of the DER"`
	NotAfter    time.Time `json:"not_after"`
	Actor       string    `json:"actor"`
	Created     time.Time `json:"created"`

	cert *x509.Certificate
}

// attestChallenge begins a proof: one is open for each device.
func (s *Service) attestChallenge(w http.ResponseWriter, r *http.Request, p gateway.Peer) error {
	if err := s.tells.Take(p.Device, challengeCost); err != nil {
		return err
	}
	var in wire.AttestRequest
	if err := readJSON(w, r, MaxAttest, &in); err != nil {
		return err
	}
	c, pending, err := attest.Challenge(in, s.now())
	if err != nil {
		return err
	}
	b, err := json.Marshal(pending)
	if err != nil {
		return err
	}
	err = s.cfg.DB.Write(r.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO attest_challenge(device, tenant, id, pending, created) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (device) DO UPDATE SET id = excluded.id, pending = excluded.pending, created = excluded.created`, p.Device, p.Tenant, c.ID, string(b), store.Millis(s.now()))
		return err
	})
	if err != nil {
		return err
	}
	return writeJSON(w, c)
}

// attestAnswer ends a proof, whatever comes of it: a challenge is answered once.
func (s *Service) attestAnswer(w http.ResponseWriter, r *http.Request, p gateway.Peer) error {
	var proof wire.AttestProof
	if err := readJSON(w, r, MaxAttest, &proof); err != nil {
		return err
	}
	pending, err := s.takeChallenge(r.Context(), p.Tenant, p.Device)
	if err != nil {
		return err
	}
	makers, err := s.Makers(r.Context(), p.Tenant)
	if err != nil {
		return err
	}
	a, err := s.prove(r.Context(), p, pending, proof, makers)
	if err != nil {
		return err
	}
	return writeJSON(w, a)
}

// takeChallenge takes away the open challenge of the device.
func (s *Service) takeChallenge(ctx context.Context, tenant, device string) (attest.Pending, error) {
	var text string
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		return tx.QueryRow(`DELETE FROM attest_challenge WHERE tenant = $1 AND device = $2 RETURNING pending`, tenant, device).Scan(&text)
	})
	if errors.Is(err, store.ErrNoRows) {
		return attest.Pending{}, problem.Conflict("No challenge is open for this device.").Hint("Begin with POST /d/1/attest/challenge.")
	}
	if err != nil {
		return attest.Pending{}, err
	}
	var pending attest.Pending
	return pending, json.Unmarshal([]byte(text), &pending)
}

// prove verifies a proof and keeps what it amounts to.
func (s *Service) prove(ctx context.Context, p gateway.Peer, pending attest.Pending, proof wire.AttestProof, makers []Maker) (Attestation, error) {
	key, err := attest.Key(proof.Key)
	if err != nil {
		return Attestation{}, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return Attestation{}, problem.Invalid("The key is of no kind that a certificate can be over.").Because(err)
	}
	certs := make([]*x509.Certificate, len(makers))
	for i, m := range makers {
		certs[i] = m.cert
	}
	e, err := attest.Verify(pending, proof, key, certs, s.now())
	if err != nil {
		return Attestation{}, err
	}
	a := Attestation{Device: p.Device, KeyHash: identity.KeyHash(spki), Evidence: e}
	d, err := s.cfg.Identity.Get(ctx, p.Tenant, p.Device)
	if err != nil {
		return Attestation{}, err
	}
	if pol, err := s.PolicyFor(ctx, d.Tenant, d.Product, ""); err == nil {
		a.Policy = pol.Label
	}
	return a, s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.attested(tx, p.Tenant, a) })
}

// attested keeps what was proven of a key of the device.
func (s *Service) attested(tx *store.Tx, tenant string, a Attestation) error {
	b, err := json.Marshal(a.Evidence)
	if err != nil {
		return err
	}
	// Not asked and then written: another node may be at the same place with another device.
	var holder string
	err = tx.QueryRow(`INSERT INTO endorsed(tenant, ek, device) VALUES ($1, $2, $3) ON CONFLICT (tenant, ek) DO UPDATE SET device = endorsed.device RETURNING device`,
		tenant, a.EK, a.Device).Scan(&holder)
	if err != nil {
		return err
	}
	if holder != a.Device {
		return problem.Forbidden(RuleTPMUsed, "This TPM has already proven a key of another device.").Hint("It is %s: a board was moved, or somebody lends it.", holder)
	}
	if _, err := tx.Exec(`INSERT INTO attestation(tenant, device, key_hash, grade, ek, evidence, policy, at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (device, key_hash) DO UPDATE SET grade = excluded.grade, evidence = excluded.evidence, policy = excluded.policy, at = excluded.at`,
		tenant, a.Device, a.KeyHash, a.Grade, a.EK, string(b), a.Policy, store.Millis(s.now())); err != nil {
		return err
	}
	return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: a.Device, Kind: "device.attested", Subject: a.Device,
		Data: map[string]any{"key_hash": a.KeyHash, "grade": a.Grade, "ek": a.EK, "reasons": a.Reasons}})
}

// gradeOf is how sure we are of a key of the device, and why: by what its TPM has proven, else by what the device says.
func gradeOf(q querier, d identity.Device, keyHash string) (identity.Grade, string, error) {
	var proven identity.Grade
	var report string
	err := q(`SELECT coalesce((SELECT grade FROM attestation WHERE tenant = $1 AND device = $2 AND key_hash = $3), ''),
		coalesce((SELECT report FROM device_baseline WHERE tenant = $1 AND device = $2), '')`, d.Tenant, d.ID, keyHash).Scan(&proven, &report)
	if err != nil {
		return "", "", problem.Unavailable("What is known of the device's key cannot be read.").Because(err)
	}
	switch {
	case proven != "":
		return proven, "attested", nil
	case report == "":
		return identity.GradeC, "nothing is known of the key", nil
	}
	var says struct {
		Root string `json:"root"`
	}
	if err := json.Unmarshal([]byte(report), &says); err != nil {
		return "", "", problem.Unavailable("The device's report cannot be read.").Because(err)
	}
	if says.Root != "" && says.Root != wire.RootNone {
		return identity.GradeB, "the device says that it has a " + says.Root, nil
	}
	return identity.GradeC, "the device has no root of trust in hardware", nil
}

// Attestations are what was found out about the device's keys, the newest first.
func (s *Service) Attestations(ctx context.Context, tenant, device string) ([]Attestation, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT device, key_hash, policy, evidence FROM attestation WHERE tenant = $1 AND device = $2 ORDER BY at DESC, key_hash LIMIT 100`, tenant, device)
	return store.Collect(rows, err, func(r *sql.Rows) (Attestation, error) {
		var a Attestation
		var evidence string
		if err := r.Scan(&a.Device, &a.KeyHash, &a.Policy, &evidence); err != nil {
			return a, err
		}
		return a, json.Unmarshal([]byte(evidence), &a.Evidence)
	})
}

// Makers are the TPM makers that the tenant trusts.
func (s *Service) Makers(ctx context.Context, tenant string) ([]Maker, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT id, name, fp, cert, actor, created FROM tpm_maker WHERE tenant = $1 ORDER BY id`, tenant)
	return store.Collect(rows, err, func(r *sql.Rows) (Maker, error) {
		var m Maker
		var der []byte
		var created int64
		if err := r.Scan(&m.ID, &m.Name, &m.Fingerprint, &der, &m.Actor, &created); err != nil {
			return m, err
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return m, err
		}
		m.cert, m.Subject, m.NotAfter, m.Created = c, c.Subject.String(), c.NotAfter, store.Time(created)
		return m, nil
	})
}

// TrustMaker believes endorsement certificates of the authority from now on.
func (s *Service) TrustMaker(ctx context.Context, tenant, name, certPEM, actor string) (Maker, error) {
	if err := checkName(name); err != nil {
		return Maker{}, err
	}
	b, _ := pem.Decode([]byte(certPEM))
	if b == nil || b.Type != "CERTIFICATE" || len(certPEM) > 2*wire.MaxAttestCertificate {
		return Maker{}, problem.Invalid("This is not a certificate in PEM.").At("certificate")
	}
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		return Maker{}, problem.Invalid("The certificate cannot be read.").At("certificate").Because(err)
	}
	if !c.IsCA || !c.BasicConstraintsValid {
		return Maker{}, problem.Invalid("The certificate is not one of an authority.").At("certificate")
	}
	m := Maker{ID: store.NewID("mak"), Name: name, Subject: c.Subject.String(), Fingerprint: identity.Fingerprint(c.Raw), NotAfter: c.NotAfter, Actor: actor, Created: s.now(), cert: c}
	return m, s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		var n int64
		if err := tx.QueryRow(`SELECT count(*) FROM tpm_maker WHERE tenant = $1`, tenant).Scan(&n); err != nil {
			return err
		}
		if n >= maxMakers {
			return problem.Conflict("There are already %d TPM makers.", maxMakers)
		}
		_, err := tx.Exec(`INSERT INTO tpm_maker(id, tenant, name, fp, cert, actor, created) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			m.ID, tenant, name, m.Fingerprint, c.Raw, actor, store.Millis(m.Created))
		if store.IsUnique(err) {
			return problem.Conflict("This authority is already trusted.").At("certificate")
		}
		if err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "maker.trusted", Subject: m.ID, Data: map[string]any{"name": name, "fingerprint": m.Fingerprint, "subject": m.Subject}})
	})
}

// DistrustMaker ends the belief in an authority. What was proven with its help before keeps its grade.
func (s *Service) DistrustMaker(ctx context.Context, tenant, id, actor string) error {
	return s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error {
		n, err := tx.Exec(`DELETE FROM tpm_maker WHERE tenant = $1 AND id = $2`, tenant, id)
		if err == nil && n == 0 {
			err = problem.NotFound("There is no such TPM maker.")
		}
		if err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "maker.distrusted", Subject: id, Data: map[string]any{}})
	})
}

// readJSON reads a body of at most limit bytes.
func readJSON(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	b, err := body(w, r, limit)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return problem.Invalid("The body is not the JSON that it should be.").Because(err)
	}
	return nil
}

func writeJSON(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	return json.NewEncoder(w).Encode(v)
}
