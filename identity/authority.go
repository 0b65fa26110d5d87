// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// Role names what an authority signs. They are separate so that the loss of one leaves the others good.
type Role string

// The roles. A root and an anchor are self-signed and made to be kept offline.
const (
	Root        Role = "root"        // signs Factory, Operational and Server
	Anchor      Role = "anchor"      // signs Bootstrap and the trust bundles; what a device pins for life
	Factory     Role = "factory"     // IDevIDs and line stations
	Operational Role = "operational" // LDevIDs
	Server      Role = "server"      // the platform's own doors
	Bootstrap   Role = "bootstrap"   // the door for devices that know no root of today
)

// Roles lists those that issue certificates day by day.
var Roles = []Role{Factory, Operational, Server, Bootstrap}

// Above is the role of the authority that signs r; that of a root is its own.
func (r Role) Above() Role {
	switch r {
	case Root, Anchor:
		return r
	case Bootstrap:
		return Anchor
	}
	return Root
}

// Algorithm names a key and the signatures that it makes.
type Algorithm string

// The algorithms. ML-DSA is a word of the data model only, until crypto/x509 speaks it.
const (
	AlgP256    Algorithm = "ecdsa-p256"
	AlgP384    Algorithm = "ecdsa-p384"
	AlgEd25519 Algorithm = "ed25519"
	AlgMLDSA65 Algorithm = "ml-dsa-65"
)

// AlgorithmOf names the algorithm of a public key; empty if it is none of ours.
func AlgorithmOf(key crypto.PublicKey) Algorithm {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return AlgP256
		case elliptic.P384():
			return AlgP384
		}
	case ed25519.PublicKey:
		return AlgEd25519
	}
	return ""
}

// Status is where an authority stands in its life.
type Status string

// The statuses, in the order of an authority's life. One authority of each issuing role is active.
const (
	Requested   Status = "requested"   // its key is made; the authority above has not signed yet
	Standby     Status = "standby"     // ready, not yet in use
	Active      Status = "active"      // signs what is new
	Retiring    Status = "retiring"    // signs nothing new; what it signed is good
	Retired     Status = "retired"     // nothing that it signed is in use any more
	Compromised Status = "compromised" // nothing that it signed is good
)

// Authority is an issuing authority or a root.
type Authority struct {
	ID         string    `json:"id" doc:"Role and generation"`
	Role       Role      `json:"role" enum:"root,anchor,factory,operational,server,bootstrap"`
	Generation int64     `json:"generation"`
	Backend    string    `json:"backend" doc:"Who signs: embedded or openbao"`
	Algorithm  Algorithm `json:"algorithm" enum:"ecdsa-p256,ecdsa-p384,ed25519,ml-dsa-65"`
	Status     Status    `json:"status" enum:"requested,standby,active,retiring,retired,compromised"`
	Parent     string    `json:"parent" doc:"The authority above; its own id for a root"`
	KeyID      string    `json:"key_id,omitempty" doc:"Subject key identifier, hex"`
	Cert       []byte    `json:"cert,omitempty" doc:"DER"`
	NotBefore  time.Time `json:"not_before,omitzero"`
	NotAfter   time.Time `json:"not_after,omitzero"`
	Created    time.Time `json:"created"`
}

// AuthorityID is the name of an authority for ever.
func AuthorityID(r Role, generation int64) string { return fmt.Sprintf("%s-%d", r, generation) }

// AuthorityTemplate is the certificate of an authority, ready for the one above to sign: no authority stands below it
// unless it is a root.
func AuthorityTemplate(r Role, name pkix.Name, key crypto.PublicKey, from, until time.Time) (*x509.Certificate, error) {
	id, err := KeyID(key)
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: newSerial(), Subject: name, NotBefore: from.UTC().Truncate(time.Second), NotAfter: until.UTC().Truncate(time.Second),
		SubjectKeyId: id, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: r != Root && r != Anchor,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}, nil
}

// KeyID is the subject key identifier of a key: the first 160 bits of the SHA-256 of its subject public key info
// (RFC 7093 method 1, over the whole structure).
func KeyID(key crypto.PublicKey) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(spki)
	return sum[:20], nil
}

// Certificate decodes the authority's certificate.
func (a Authority) Certificate() (*x509.Certificate, error) { return x509.ParseCertificate(a.Cert) }

const authorityColumns = `id, role, generation, backend, algorithm, status, parent, key_id, cert, not_before, not_after, created`

func scanAuthority(r scanner) (Authority, error) {
	var a Authority
	var from, until, created int64
	err := r.Scan(&a.ID, &a.Role, &a.Generation, &a.Backend, &a.Algorithm, &a.Status, &a.Parent, &a.KeyID, &a.Cert, &from, &until, &created)
	a.NotBefore, a.NotAfter, a.Created = store.Time(from), store.Time(until), store.Time(created)
	if errors.Is(err, store.ErrNoRows) {
		return Authority{}, problem.NotFound("There is no such authority.")
	}
	return a, err
}

// Authorities lists every authority and root: by role, the newest generation first.
func (s *Service) Authorities(ctx context.Context) ([]Authority, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT `+authorityColumns+` FROM authority ORDER BY role, generation DESC`)
	return store.Collect(rows, err, func(r *sql.Rows) (Authority, error) { return scanAuthority(r) })
}

// Authority returns one by its id, or a problem of kind not-found.
func (s *Service) Authority(ctx context.Context, id string) (Authority, error) {
	return authorityByID(s.reads(ctx), id)
}

func authorityByID(q querier, id string) (Authority, error) {
	return scanAuthority(q(`SELECT `+authorityColumns+` FROM authority WHERE id = $1`, id))
}

// ActiveAuthority is the one that signs for the role now.
func (s *Service) ActiveAuthority(ctx context.Context, r Role) (Authority, error) {
	return activeAuthority(s.reads(ctx), r)
}

// ActiveAuthorityTx is ActiveAuthority inside a transaction.
func (s *Service) ActiveAuthorityTx(tx *store.Tx, r Role) (Authority, error) {
	return activeAuthority(tx.QueryRow, r)
}

func activeAuthority(q querier, r Role) (Authority, error) {
	a, err := scanAuthority(q(`SELECT `+authorityColumns+` FROM authority WHERE role = $1 AND status = $2 ORDER BY generation DESC LIMIT 1`, r, Active))
	if problem.Is(err, problem.KindNotFound) {
		return Authority{}, errNoneActive(r)
	}
	return a, err
}

// activeSigner is activeAuthority for a decision about a certificate: only the id and the end are filled.
func activeSigner(tx *store.Tx, r Role) (a Authority, err error) {
	var until int64
	err = tx.QueryRow(`SELECT id, not_after FROM authority WHERE role = $1 AND status = $2 ORDER BY generation DESC LIMIT 1`, r, Active).Scan(&a.ID, &until)
	if errors.Is(err, store.ErrNoRows) {
		return a, errNoneActive(r)
	}
	a.NotAfter = store.Time(until)
	return a, err
}

func errNoneActive(r Role) error {
	return problem.Unavailable("No %s authority is active, so nothing can be signed for it.", r)
}

// chain is the authority's certificate, then each one above it; the last is a root.
func (s *Service) chain(ctx context.Context, id string) (out []*x509.Certificate, err error) {
	for range 4 { // deeper than any chain of ours, so that a damaged row cannot loop
		a, err := s.Authority(ctx, id)
		if err != nil {
			return nil, err
		}
		c, err := a.Certificate()
		if err != nil {
			return nil, fmt.Errorf("identity: authority %s: %w", id, err)
		}
		if out = append(out, c); a.Parent == a.ID {
			return out, nil
		}
		id = a.Parent
	}
	return nil, fmt.Errorf("identity: the chain above %s does not end", id)
}

// syncAuthorities writes down what the issuer holds and the register does not know yet. The first one of a role becomes
// active; a later one waits.
func (s *Service) syncAuthorities(ctx context.Context) error {
	have, err := s.Authorities(ctx)
	if err != nil {
		return err
	}
	held, err := s.cfg.Issuer.Authorities(ctx)
	if problem.Is(err, problem.KindUnavailable) && len(have) > 0 {
		s.cfg.Log.WarnContext(ctx, "the issuer is away; what the register knows of its authorities is taken as it is", "err", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("identity: the issuer's authorities: %w", err)
	}
	slices.SortFunc(held, func(a, b Held) int { return int(a.Generation - b.Generation) })
	known, active := map[string]Authority{}, map[Role]bool{}
	for _, a := range have {
		known[a.ID] = a
		active[a.Role] = active[a.Role] || a.Status == Active
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		active := maps.Clone(active) // a run that was rolled back made nobody active
		for _, h := range held {
			old, ok := known[h.ID]
			if ok && (len(old.Cert) > 0 || len(h.Cert) == 0) {
				if len(h.Cert) > 0 && !bytes.Equal(old.Cert, h.Cert) {
					return fmt.Errorf("identity: the issuer's certificate of %s is not the one in the register", h.ID)
				}
				continue
			}
			a, err := h.authority(s.cfg.Clock.Now())
			if err != nil {
				return err
			}
			if a.Status == Standby && !active[a.Role] {
				a.Status, active[a.Role] = Active, true
			}
			if err := putAuthority(tx, a); err != nil {
				return err
			}
		}
		return nil
	})
}

// authority is the row of what an issuer holds.
func (h Held) authority(now time.Time) (Authority, error) {
	a := Authority{ID: h.ID, Role: h.Role, Generation: h.Generation, Backend: h.Backend, Algorithm: h.Algorithm, Status: Requested, Parent: h.Parent, Cert: []byte{}, Created: now}
	if len(h.Cert) == 0 {
		return a, nil
	}
	c, err := x509.ParseCertificate(h.Cert)
	if err != nil {
		return a, fmt.Errorf("identity: authority %s: %w", h.ID, err)
	}
	a.Status, a.Cert, a.KeyID, a.NotBefore, a.NotAfter = Standby, h.Cert, hex.EncodeToString(c.SubjectKeyId), c.NotBefore, c.NotAfter
	return a, nil
}

// putAuthority writes a new authority, or the certificate and status of one that was only requested.
func putAuthority(tx *store.Tx, a Authority) error {
	_, err := tx.Exec(`INSERT INTO authority(`+authorityColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
		ON CONFLICT (id) DO UPDATE SET status = excluded.status, parent = excluded.parent, key_id = excluded.key_id, cert = excluded.cert,
		not_before = excluded.not_before, not_after = excluded.not_after`,
		a.ID, a.Role, a.Generation, a.Backend, a.Algorithm, a.Status, a.Parent, a.KeyID, a.Cert, store.Millis(a.NotBefore), store.Millis(a.NotAfter), store.Millis(a.Created))
	return err
}
