// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"database/sql"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// Bounds of revocation lists.
const (
	MaxCRL      = 8 << 20 // bytes; about 170,000 entries
	crlPatience = time.Minute
	crlSoonest  = 15 * time.Minute
	crlLatest   = 24 * time.Hour
	crlSkew     = 5 * time.Minute // how far thisUpdate may lie ahead of our clock
	keptLists   = 64              // parsed lists in memory
)

// RevocationList is the newest list of one authority of a trusted CA.
type RevocationList struct {
	Issuer     string    `json:"issuer"`
	Number     string    `json:"number"`
	ThisUpdate time.Time `json:"this_update"`
	NextUpdate time.Time `json:"next_update"`
	Entries    int64     `json:"entries"`
	Taken      time.Time `json:"taken" doc:"When it was uploaded or fetched"`

	issuerHash, hash string
}

// readCRL reads a list in DER or PEM, checks it against its issuer, and refuses what a relying party must refuse
// (RFC 5280 5.2, 6.3): a critical extension that we do not process (delta, indirect and partitioned lists have one), no
// end, an end that has passed, a beginning that lies ahead.
func (c TrustedCA) readCRL(b []byte, now time.Time) (*x509.RevocationList, *x509.Certificate, error) {
	bad := func(format string, args ...any) (*x509.RevocationList, *x509.Certificate, error) {
		return nil, nil, problem.Invalid("This revocation list is refused: "+format+".", args...).At("crl")
	}
	if len(b) > MaxCRL {
		return nil, nil, problem.TooLarge("A revocation list has at most %d bytes.", MaxCRL).At("crl")
	}
	if p, _ := pem.Decode(b); p != nil && p.Type == "X509 CRL" {
		b = p.Bytes
	}
	l, err := x509.ParseRevocationList(b)
	if err != nil {
		return bad("it cannot be read")
	}
	var issuer *x509.Certificate
	for _, x := range append([]*x509.Certificate{c.cert}, c.below...) {
		if string(x.RawSubject) == string(l.RawIssuer) && l.CheckSignatureFrom(x) == nil {
			issuer = x
		}
	}
	switch {
	case issuer == nil:
		return bad("neither %s nor an uploaded authority below it has signed it", c.Name)
	case l.Number == nil || l.Number.Sign() < 0:
		return bad("it has no number")
	case l.NextUpdate.IsZero() || !now.Before(l.NextUpdate):
		return bad("it has ended or names no end")
	case l.ThisUpdate.After(now.Add(crlSkew)):
		return bad("it begins in the future")
	}
	for _, e := range l.Extensions {
		if e.Critical {
			return bad("it has the critical extension %s; only complete lists of one authority are taken", e.Id)
		}
	}
	for _, e := range l.RevokedCertificateEntries {
		for _, x := range e.Extensions {
			if x.Critical {
				return bad("an entry has the critical extension %s", x.Id)
			}
		}
	}
	return l, issuer, nil
}

// ImportCRL takes a list of the trusted CA or of one of its uploaded authorities. A lower number, or the same number
// with other content, is refused. Devices that it lists are suspended at once.
func (s *Service) ImportCRL(ctx context.Context, tenant, id string, b []byte, actor string) (RevocationList, error) {
	c, err := s.TrustedCA(ctx, tenant, id)
	if err != nil {
		return RevocationList{}, err
	}
	l, issuer, err := c.readCRL(b, s.now())
	if err != nil {
		return RevocationList{}, err
	}
	sum := sha256.Sum256(l.Raw)
	out := RevocationList{Issuer: issuer.Subject.String(), Number: l.Number.String(), ThisUpdate: l.ThisUpdate, NextUpdate: l.NextUpdate, Entries: int64(len(l.RevokedCertificateEntries)),
		Taken: s.now(), issuerHash: subjectHash(issuer.RawSubject), hash: hex.EncodeToString(sum[:])}
	err = s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error {
		var number, hash string
		err := tx.QueryRow(`SELECT number, hash FROM trusted_crl WHERE ca = $1 AND issuer = $2`, c.ID, out.issuerHash).Scan(&number, &hash)
		if err != nil && !errors.Is(err, store.ErrNoRows) {
			return err
		}
		if have, ok := new(big.Int).SetString(number, 10); ok && hash != out.hash && l.Number.Cmp(have) <= 0 {
			return problem.Conflict("The list has the number %s, and number %s is here already.", l.Number, have).At("crl")
		}
		_, err = tx.Exec(`INSERT INTO trusted_crl(ca, issuer, number, this_update, next_update, entries, hash, der, taken) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
			ON CONFLICT (ca, issuer) DO UPDATE SET number = excluded.number, this_update = excluded.this_update, next_update = excluded.next_update,
			entries = excluded.entries, hash = excluded.hash, der = excluded.der, taken = excluded.taken`,
			c.ID, out.issuerHash, out.Number, store.Millis(out.ThisUpdate), store.Millis(out.NextUpdate), out.Entries, out.hash, l.Raw, store.Millis(out.Taken))
		if err != nil || hash == out.hash {
			return err
		}
		return s.auditCA(tx, c, actor, "trusted-ca.crl", map[string]any{"issuer": out.Issuer, "number": out.Number, "entries": out.Entries, "next_update": out.NextUpdate})
	})
	if err != nil {
		return out, err
	}
	return out, s.suspendListed(ctx, c, out.issuerHash, l)
}

// suspendListed ends the work of devices whose certificate of birth a new list names. The doors refuse the certificate
// itself already; this also closes the sessions of their LDevIDs.
func (s *Service) suspendListed(ctx context.Context, c TrustedCA, issuer string, l *x509.RevocationList) error {
	for _, e := range l.RevokedCertificateEntries {
		var device string
		err := s.cfg.DB.QueryRow(ctx, `SELECT device FROM brought WHERE ca = $1 AND issuer = $2 AND serial = $3`, c.ID, issuer, e.SerialNumber.Text(16)).Scan(&device)
		if errors.Is(err, store.ErrNoRows) {
			continue
		}
		if err == nil {
			err = s.suspend(ctx, c.Tenant, device, c.ID, "its maker has revoked its certificate of birth")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// suspend suspends the device unless its state has no place for that; then no door admits it anyway.
func (s *Service) suspend(ctx context.Context, tenant, device, actor, reason string) error {
	return s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error {
		d, err := s.cfg.Identity.GetTx(tx, tenant, device)
		if err != nil || !d.State.May(identity.Suspended) {
			return err
		}
		return s.cfg.Identity.SetState(tx, tenant, device, identity.Suspended, actor, reason)
	})
}

// CRLs lists the newest lists of a trusted CA.
func (s *Service) CRLs(ctx context.Context, c TrustedCA) ([]RevocationList, error) {
	names := map[string]string{}
	for _, x := range append([]*x509.Certificate{c.cert}, c.below...) {
		names[subjectHash(x.RawSubject)] = x.Subject.String()
	}
	rows, err := s.cfg.DB.Query(ctx, `SELECT issuer, number, this_update, next_update, entries, hash, taken FROM trusted_crl WHERE ca = $1 ORDER BY issuer`, c.ID)
	return store.Collect(rows, err, func(r *sql.Rows) (l RevocationList, err error) {
		var from, until, taken int64
		err = r.Scan(&l.issuerHash, &l.Number, &from, &until, &l.Entries, &l.hash, &taken)
		l.Issuer, l.ThisUpdate, l.NextUpdate, l.Taken = names[l.issuerHash], store.Time(from), store.Time(until), store.Time(taken)
		return l, err
	})
}

// notRevoked holds a chain, the device's certificate first and without the trusted CA itself, against the lists of the
// CA. If lists are demanded, each certificate needs one of its issuer that is fresh and readable; anything else refuses.
// Serial numbers are compared by value.
func (s *Service) notRevoked(ctx context.Context, c TrustedCA, chain []*x509.Certificate) error {
	lists, err := s.CRLs(ctx, c)
	if err != nil {
		return errStale("the lists cannot be read").Because(err)
	}
	for _, x := range chain {
		var list *RevocationList
		for i := range lists {
			if lists[i].issuerHash == subjectHash(x.RawIssuer) {
				list = &lists[i]
			}
		}
		if list == nil {
			if c.Policy.CRL.Required {
				return errStale("there is none of " + x.Issuer.String())
			}
			continue
		}
		if err := list.fresh(c.Policy.CRL, s.now()); err != nil && c.Policy.CRL.Required {
			return err
		}
		revoked, err := s.lists.get(list.hash, func() ([]byte, error) {
			var der []byte
			err := s.cfg.DB.QueryRow(ctx, `SELECT der FROM trusted_crl WHERE ca = $1 AND issuer = $2`, c.ID, list.issuerHash).Scan(&der)
			return der, err
		})
		if err != nil {
			return errStale("the list cannot be read").Because(err)
		}
		if revoked[x.SerialNumber.Text(16)] {
			return problem.Forbidden(RuleCARevoked, "%s has revoked the certificate with the serial number %s.", x.Issuer, x.SerialNumber.Text(16))
		}
	}
	return nil
}

func errStale(why string) *problem.Error {
	return problem.Forbidden(RuleCAStale, "A revocation list is demanded, and %s.", why)
}

func (l RevocationList) fresh(p CRLPolicy, now time.Time) error {
	end := l.NextUpdate
	if limit := l.ThisUpdate.Add(time.Duration(p.MaxHours) * time.Hour); p.MaxHours > 0 && limit.Before(end) {
		end = limit
	}
	if !now.Before(end) {
		return errStale("the newest one was good until " + end.UTC().Format(time.RFC3339))
	}
	return nil
}

// lists keeps parsed lists by the hash of their content.
type lists struct {
	mu  sync.Mutex // guards all
	all map[string]map[string]bool
}

// get returns the serial numbers, in hex, of the list with the hash.
func (c *lists) get(hash string, load func() ([]byte, error)) (map[string]bool, error) {
	c.mu.Lock()
	revoked, ok := c.all[hash]
	c.mu.Unlock()
	if ok {
		return revoked, nil
	}
	der, err := load()
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(der); hex.EncodeToString(sum[:]) != hash {
		return nil, errors.New("enroll: a stored revocation list has changed")
	}
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, err
	}
	revoked = make(map[string]bool, len(l.RevokedCertificateEntries))
	for _, e := range l.RevokedCertificateEntries {
		revoked[e.SerialNumber.Text(16)] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil || len(c.all) >= keptLists {
		c.all = map[string]map[string]bool{}
	}
	c.all[hash] = revoked
	return revoked, nil
}

// jobCRL fetches the list of a trusted CA, again and again.
const jobCRL = "enroll.crl"

type crlJob struct {
	Tenant string `json:"tenant"`
	CA     string `json:"ca"`
}

func (s *Service) fetchCRL(ctx context.Context, j store.Job) error {
	var in crlJob
	if err := j.Decode(&in); err != nil {
		return err
	}
	c, err := s.TrustedCA(ctx, in.Tenant, in.CA)
	if problem.Is(err, problem.KindNotFound) || err == nil && (c.State == CARetired || c.Policy.CRL.URL == "") {
		return nil
	}
	if err != nil {
		return err
	}
	next := s.now().Add(crlSoonest)
	b, err := s.download(ctx, c.Policy.CRL.URL)
	if err == nil {
		var l RevocationList
		if l, err = s.ImportCRL(ctx, c.Tenant, c.ID, b, c.ID); err == nil {
			next = s.now().Add(min(max(l.NextUpdate.Sub(s.now())/2, crlSoonest), crlLatest))
		}
	}
	if err != nil { // the list that is here goes stale by itself, and stale is refused
		s.cfg.Log.WarnContext(ctx, "a revocation list was not fetched", slog.String("ca", c.ID), slog.String("url", c.Policy.CRL.URL), slog.Any("error", err))
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		return s.cfg.DB.Enqueue(tx, jobCRL, fmt.Sprintf("%s@%d", c.ID, store.Millis(next)), next, in)
	})
}

func (s *Service) download(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, crlPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.hooks.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer is %s", resp.Status)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, MaxCRL+1))
	if err == nil && len(b) > MaxCRL {
		err = fmt.Errorf("the list is larger than %d bytes", MaxCRL)
	}
	return b, err
}
