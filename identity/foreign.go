// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"crypto/x509"
	"errors"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// CertificateOfKey is the certificate that the key has, inside a transaction; not-found if it has none.
func (s *Service) CertificateOfKey(tx *store.Tx, tenant, keyHash string) (Certificate, error) {
	c, err := certificateByKey(tx.QueryRow, tenant, keyHash)
	if errors.Is(err, store.ErrNoRows) {
		return c, problem.NotFound("The key has no certificate.")
	}
	return c, err
}

// Adopt makes an IDevID known that another authority than ours has signed: the one of an offline line station, or one
// that the manufacturer trusts. The caller has checked it and registered the device, which becomes provisioned. Origin
// is the id of the station or trusted CA, so that all it brought can be barred. A key that the register knows already
// is a conflict: it was cloned.
func (s *Service) Adopt(tx *store.Tx, d Device, cert *x509.Certificate, origin, actor string) (Certificate, error) {
	if err := s.Ready(); err != nil {
		return Certificate{}, err
	}
	if d.State != Manufactured {
		return Certificate{}, errOtherKey(d)
	}
	if err := s.UsableKey(tx, d.Tenant, KeyHash(cert.RawSubjectPublicKeyInfo)); err != nil {
		return Certificate{}, err
	}
	if err := s.mayBegin(tx, d, IDevID); err != nil {
		return Certificate{}, err
	}
	now := s.cfg.Clock.Now()
	c := Certificate{Fingerprint: Fingerprint(cert.Raw), Tenant: d.Tenant, Subject: d.ID, Kind: IDevID, Phase: Profiles[IDevID].Phase, Serial: cert.SerialNumber.Text(16),
		KeyHash: KeyHash(cert.RawSubjectPublicKeyInfo), NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, DER: cert.Raw, Origin: origin}
	in, err := recordIntent(tx, Intent{keyHash: c.KeyHash, tenant: c.Tenant, subject: c.Subject, kind: IDevID, serial: cert.SerialNumber, notBefore: c.NotBefore, notAfter: c.NotAfter}, now)
	if err != nil {
		return Certificate{}, err
	}
	fresh := false
	if in.fresh {
		if fresh, err = insertCertificate(tx, c, now); err != nil {
			return Certificate{}, err
		}
	}
	if !fresh {
		return Certificate{}, errUsedKey()
	}
	if err := s.move(tx, d, Provisioned, actor, ""); err != nil {
		return Certificate{}, err
	}
	return c, audit.Append(tx, audit.Entry{Tenant: c.Tenant, Actor: actor, Kind: "certificate.issued", Subject: c.Subject, Data: map[string]any{
		"kind": c.Kind, "fingerprint": c.Fingerprint, "serial": c.Serial, "key_hash": c.KeyHash, "not_after": c.NotAfter, "origin": origin}})
}
