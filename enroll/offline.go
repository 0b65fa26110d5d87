// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

// Bounds and rules of what an offline station brings.
const (
	MaxJournal        = 8 << 20 // bytes of one POST
	MaxJournalEntries = 500
	MaxPermitSerials  = 10_000

	RuleFork     = "line.fork"     // two different journals of one station
	RuleGap      = "line.gap"      // an entry is missing
	RulePermit   = "line.permit"   // the entry goes beyond what the station was permitted
	RuleIdentity = "line.identity" // the certificate is not the one that such a unit gets
)

// OpenOffline admits a line station that will work without a network: it gets a permit for serials under its own
// authority ca, a self-signed certificate whose key never left it. Its quota is taken from the batch at once. The chain
// of what it signs ends at itself: nobody trusts such a unit until the register has it.
func (s *Service) OpenOffline(ctx context.Context, st Station, csr *identity.CSR, ca []byte, serials wire.Serials, actor string) (Opened, error) {
	if s.cfg.Sign == nil {
		return Opened{}, problem.Unavailable("This platform has no log key to sign a permit with.")
	}
	if err := errors.Join(checkAuthority(ca, csr), checkSerials(serials)); err != nil {
		return Opened{}, err
	}
	root, err := s.trustRoot(ctx, st.Tenant)
	if err != nil {
		return Opened{}, err
	}
	bundle, err := s.cfg.Identity.SignedBundle(ctx)
	if err != nil {
		return Opened{}, err
	}
	st.Offline = true
	return s.open(ctx, st, csr, actor, func(tx *store.Tx, st *Station, b Batch) error {
		p := wire.Permit{Station: st.ID, Tenant: st.Tenant, Batch: b.ID, Product: b.Product, Revision: b.Revision, Quota: st.Quota, Serials: serials,
			NotBefore: store.Millis(st.Created), NotAfter: store.Millis(st.Expires), SyncBy: store.Millis(st.Expires.Add(SyncGrace)), CA: ca, Bundle: bundle, TrustRoot: root}
		text, err := json.Marshal(p)
		if err != nil {
			return err
		}
		signed, err := s.cfg.Sign(wire.PermitHeader + string(text) + "\n")
		if err != nil {
			return err
		}
		st.permit, st.head, st.reserved = string(signed), wire.Digest(signed), st.Quota
		return reserve(tx, b, st.Quota)
	})
}

// checkAuthority refuses a station's authority that is not a self-signed P-256 one with a key of its own.
func checkAuthority(der []byte, csr *identity.CSR) error {
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		return problem.Invalid("The station's authority is not a certificate.").At("authority").Because(err)
	}
	key, ok := ca.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() || !ca.IsCA || ca.CheckSignatureFrom(ca) != nil {
		return problem.Invalid("The station's authority is a self-signed certificate of an ECDSA P-256 key that says it is one.").At("authority")
	}
	if identity.KeyHash(ca.RawSubjectPublicKeyInfo) == csr.KeyHash {
		return problem.Invalid("The station's authority needs a key of its own.").At("authority")
	}
	return nil
}

func checkSerials(s wire.Serials) error {
	if len(s.List) > MaxPermitSerials {
		return problem.TooLarge("A permit lists at most %d serial numbers.", MaxPermitSerials).At("serials")
	}
	for _, serial := range s.List {
		if err := identity.CheckSerial(serial); err != nil {
			return err
		}
	}
	if s.Digits == 0 {
		return nil
	}
	if s.Digits < 0 || s.Digits > 18 || s.From < 0 || s.To < s.From || len(fmt.Sprint(s.To)) > s.Digits {
		return problem.Invalid("A range of serial numbers has 1 to 18 digits, and its end is not before its beginning.").At("serials")
	}
	return identity.CheckSerial(s.Prefix + fmt.Sprintf("%0*d", s.Digits, s.To))
}

// readPermit reads what the station was permitted, from its own row.
func (s Station) readPermit() (p wire.Permit, err error) {
	text, ok := strings.CutPrefix(s.permit, wire.PermitHeader)
	text, _, ok2 := strings.Cut(text, "\n")
	if !ok || !ok2 {
		return p, fmt.Errorf("enroll: station %s has no permit", s.ID)
	}
	return p, json.Unmarshal([]byte(text), &p)
}

// journalState answers GET /d/1/line/journal.
func (s *Service) journalState(w http.ResponseWriter, r *http.Request, p gateway.Peer) error {
	st, err := stationByID(s.reads(r.Context()), p.Tenant, p.Station)
	if err != nil {
		return err
	}
	return answerJSON(w, wire.JournalState{Seq: st.Seq, Head: st.head})
}

// journal answers POST /d/1/line/journal.
func (s *Service) journal(w http.ResponseWriter, r *http.Request, p gateway.Peer) error {
	b, err := body(w, r, MaxJournal)
	if err != nil {
		return err
	}
	if err := noPrivateKey(b); err != nil {
		return err
	}
	var j wire.Journal
	if err := json.Unmarshal(b, &j); err != nil {
		return errNoOrder(err)
	}
	out, err := s.Sync(r.Context(), p.Tenant, p.Station, j)
	if err != nil {
		return err
	}
	return answerJSON(w, out)
}

// Sync takes what an offline station has made, entry by entry. Entries that were brought before change nothing; a unit
// that cannot be taken is refused by name and the rest goes on. A journal that differs from what was brought before is
// a fork, since a copy of the station is at work: it is an alarm, and nothing more is taken.
func (s *Service) Sync(ctx context.Context, tenant, station string, j wire.Journal) (wire.JournalState, error) {
	if len(j.Entries) > MaxJournalEntries {
		return wire.JournalState{}, problem.TooLarge("At most %d entries are taken at a time.", MaxJournalEntries)
	}
	st, err := stationByID(s.reads(ctx), tenant, station)
	if err != nil {
		return wire.JournalState{}, err
	}
	if !st.Offline {
		return wire.JournalState{}, problem.Forbidden(RulePermit, "The line station has no permit to work without a network.")
	}
	permit, err := st.readPermit()
	if err != nil {
		return wire.JournalState{}, err
	}
	ca, err := x509.ParseCertificate(permit.CA)
	if err != nil {
		return wire.JournalState{}, err
	}
	out := wire.JournalState{Seq: st.Seq, Head: st.head}
	for _, signed := range j.Entries {
		e, err := readEntry(signed, st, ca)
		if err != nil {
			return out, err
		}
		if e.Seq > 4*permit.Quota+100 { // each unit, and a few lost labels; what goes beyond is not even kept as refused
			return out, problem.Forbidden(RulePermit, "The journal is longer than the permit explains.")
		}
		refused, err := s.bring(ctx, st, permit, ca, e)
		if err != nil {
			return out, err
		}
		if refused != nil {
			out.Refused = append(out.Refused, *refused)
		}
		if e.Seq > out.Seq {
			out.Seq, out.Head = e.Seq, e.hash
		}
	}
	return out, nil
}

// entry is one entry of a journal whose signature is right.
type entry struct {
	wire.Made
	raw  []byte // the wire.Signed
	hash string // of its payload
}

func readEntry(signed wire.Signed, st Station, ca *x509.Certificate) (entry, error) {
	var e entry
	if err := signed.Open(ca.PublicKey, &e.Made); err != nil {
		return e, problem.Forbidden(RuleSignature, "An entry of the journal is not signed by the station's authority.").Because(err)
	}
	if e.Station != st.ID || e.Seq < 1 {
		return e, problem.Forbidden(RuleSignature, "An entry of the journal is of another station.")
	}
	raw, err := json.Marshal(signed)
	e.raw, e.hash = raw, wire.Digest(signed.Payload)
	return e, err
}

// bring takes one entry, or keeps in its place why its unit is refused. An error ends the round: the entry is not kept
// and may be brought again.
func (s *Service) bring(ctx context.Context, st Station, permit wire.Permit, ca *x509.Certificate, e entry) (*wire.RefusedUnit, error) {
	refusal := s.mayBring(ctx, st, permit, e)
	if refusal == nil {
		refusal = s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return s.take(tx, st, permit, ca, e) })
		if err := s.suspicion(ctx, refusal, e.seen(st), st.Tenant, permit.Product); err != nil {
			return nil, err // nothing of a clone is kept in its place before it is suspended
		}
	}
	why := problem.Of(refusal)
	switch {
	case refusal == nil:
		return nil, nil
	case why.Rule == RuleFork:
		return nil, errors.Join(s.forked(ctx, st, e), refusal)
	case why.Rule == RuleGap, why.Rule == RuleClosed, why.Rule == RuleHookDown, why.Rule == RuleHold, why.Kind == problem.KindInternal, why.Kind == problem.KindUnavailable:
		return nil, refusal
	}
	r := &wire.RefusedUnit{Seq: e.Seq, Serial: e.Request.Serial, Device: e.Device, Rule: why.Rule, Detail: why.Text}
	if r.Rule == "" {
		r.Rule = string(why.Kind)
	}
	known := false                                              // another node has taken or refused it meanwhile
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) (err error) { // what take has begun is rolled back
		if known, err = s.follows(tx, st, e); err != nil || known {
			return err
		}
		if err := s.tell(tx, "unit.refused", st.Tenant, st.ID, st.ID, map[string]any{"station": st.ID, "batch": st.Batch, "serial": r.Serial, "device": r.Device, "rule": r.Rule, "detail": r.Detail}); err != nil {
			return err
		}
		return keepEntry(tx, st, e, "", r.Rule, r.Detail, s.now())
	})
	if err != nil || known {
		return nil, err
	}
	return r, nil
}

// mayBring asks the hook about a unit that is brought for the first time, and about no other entry.
func (s *Service) mayBring(ctx context.Context, st Station, permit wire.Permit, e entry) error {
	if len(e.Certificate) == 0 {
		return nil
	}
	var known bool
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		known, err = s.follows(tx, st, e)
		return err
	})
	if err != nil || known {
		return err
	}
	return s.ask(ctx, Question{Kind: AskProvision, Tenant: st.Tenant, Product: permit.Product, Batch: permit.Batch, Station: st.ID, Device: e.Device, Serial: e.Request.Serial, Key: e.key()})
}

// key is the hash of the key in the entry's request; empty if the request is no good, which take refuses.
func (e entry) key() string {
	csr, err := CheckOrder(e.Request)
	if err != nil {
		return ""
	}
	return csr.KeyHash
}

// seen is the unit of the entry as a clone would be told of.
func (e entry) seen(st Station) Sighting {
	return Sighting{by: st.ID, Serial: e.Request.Serial, Place: st.Name, Door: ByLine, Key: e.key(), Detail: fmt.Sprintf("entry %d of the journal that the offline line station %s brought", e.Seq, st.ID)}
}

// follows says whether the entry was brought before, or refuses one that does not follow what was.
func (s *Service) follows(tx *store.Tx, st Station, e entry) (known bool, err error) {
	now, err := stationByID(tx.QueryRow, st.Tenant, st.ID)
	if err != nil {
		return false, err
	}
	switch {
	case !now.Killed.IsZero():
		return false, problem.Forbidden(RuleClosed, "The line station is killed.")
	case e.Seq <= now.Seq:
		hash, err := entryHash(tx.QueryRow, st.ID, e.Seq)
		if err == nil && hash != e.hash {
			err = errFork(e)
		}
		return true, err
	case e.Seq > now.Seq+1:
		return false, problem.Forbidden(RuleGap, "The journal goes on with entry %d; entry %d came.", now.Seq+1, e.Seq)
	case e.Prev != now.head:
		return false, errFork(e)
	}
	return false, nil
}

func errFork(e entry) error {
	return problem.Forbidden(RuleFork, "Entry %d of the journal is not the one that was brought before: a copy of the station is at work.", e.Seq).
		Hint("Kill the station and look at what both have made.")
}

// forked makes it known once that a station has two journals.
func (s *Service) forked(ctx context.Context, st Station, e entry) error {
	return s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error {
		n, err := tx.Exec(`UPDATE station SET forked = 1 WHERE tenant = $1 AND id = $2 AND forked = 0`, st.Tenant, st.ID)
		if err != nil || n == 0 {
			return err
		}
		return s.tell(tx, "station.forked", st.Tenant, st.ID, st.ID, map[string]any{"station": st.ID, "batch": st.Batch, "seq": e.Seq, "serial": e.Request.Serial})
	})
}

// take registers the unit of an entry, or gives one that was brought before its newest claim code.
func (s *Service) take(tx *store.Tx, st Station, permit wire.Permit, ca *x509.Certificate, e entry) error {
	known, err := s.follows(tx, st, e)
	if err != nil || known {
		return err
	}
	if st, err = stationByID(tx.QueryRow, st.Tenant, st.ID); err != nil {
		return err
	}
	now := s.now()
	if err := permitted(permit, e.Made, now); err != nil {
		return err
	}
	if len(e.Certificate) == 0 {
		d, err := s.cfg.Identity.GetTx(tx, st.Tenant, e.Device)
		if err != nil || d.Origin != st.ID {
			return errors.Join(err, problem.Forbidden(RulePermit, "The unit is not one that the station made."))
		}
		if err := putClaim(tx, st.Tenant, e.Device, st.ID, e.Claim, now); err != nil {
			return err
		}
		return keepEntry(tx, st, e, e.Device, "", "", now)
	}
	b, err := batchByID(tx.QueryRow, st.Tenant, st.Batch)
	if err != nil {
		return err
	}
	if !b.Closed.IsZero() {
		return problem.Conflict("The batch %s is closed.", b.Name)
	}
	o := order{LineRequest: e.Request, envelope: e.raw}
	if o.csr, err = CheckOrder(e.Request); err != nil {
		return err
	}
	cert, err := checkIdentity(e, permit, ca, o.csr)
	if err != nil {
		return err
	}
	if err := s.noTombstone(tx, st.Tenant, b.Product, o.Serial, o.csr.KeyHash); err != nil {
		return err
	}
	if _, err := s.cfg.Identity.BySerialTx(tx, st.Tenant, b.Product, o.Serial); err == nil {
		return errSerialTaken(o.Serial)
	} else if !problem.Is(err, problem.KindNotFound) {
		return err
	}
	p, err := authorised(tx, b, o.Serial)
	if err != nil {
		return err
	}
	if err := takeUnit(tx, st); err != nil {
		return err
	}
	d, err := s.newUnit(tx, st, b, e.Device, o, p)
	if err != nil {
		return err
	}
	if p != nil {
		if err := usePreauthorised(tx, *p, d.ID, now); err != nil {
			return err
		}
	}
	if _, err := s.cfg.Identity.Adopt(tx, d, cert, st.ID, st.ID); err != nil {
		return err
	}
	if err := putClaim(tx, st.Tenant, d.ID, st.ID, e.Claim, now); err != nil {
		return err
	}
	if err := s.finish(tx, st, d.ID, o); err != nil {
		return err
	}
	return keepEntry(tx, st, e, d.ID, "", "", now)
}

var (
	devicePattern = regexp.MustCompile(`^dev_[0-9A-Za-z]{10,40}$`)
	claimPattern  = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// permitted refuses an entry beyond the permit. The station's clock says when the unit was made; ours, until when that
// is believed.
func permitted(p wire.Permit, e wire.Made, now time.Time) error {
	at := time.UnixMilli(e.At)
	switch {
	case store.Millis(now) >= p.SyncBy:
		return problem.Forbidden(RulePermit, "What the line station made was to be brought until %s.", store.Time(p.SyncBy).Format(time.RFC3339))
	case e.At < p.NotBefore-MaxSkew.Milliseconds() || e.At >= p.NotAfter || at.After(now.Add(MaxSkew)):
		return problem.Forbidden(RulePermit, "The unit was made at %s, outside of the permit or in the future.", at.UTC().Format(time.RFC3339))
	case !p.Serials.Has(e.Request.Serial):
		return problem.Forbidden(RulePermit, "The permit is not for the serial number %.64s.", e.Request.Serial)
	case !devicePattern.MatchString(e.Device), !claimPattern.MatchString(e.Claim):
		return problem.Forbidden(RulePermit, "The entry names no device, or no claim code.")
	}
	return nil
}

// checkIdentity refuses a certificate that says anything but what the IDevID of such a unit says.
func checkIdentity(e entry, p wire.Permit, ca *x509.Certificate, csr *identity.CSR) (*x509.Certificate, error) {
	wrong := func(what string) error {
		return problem.Forbidden(RuleIdentity, "The certificate of %s is not the one that such a unit gets: %s.", e.Request.Serial, what)
	}
	c, err := x509.ParseCertificate(e.Certificate)
	if err != nil {
		return nil, wrong("it cannot be read")
	}
	names := len(c.DNSNames) + len(c.EmailAddresses) + len(c.IPAddresses) + len(c.URIs)
	switch {
	case c.CheckSignatureFrom(ca) != nil:
		return nil, wrong("the station's authority did not sign it")
	case identity.KeyHash(c.RawSubjectPublicKeyInfo) != csr.KeyHash:
		return nil, wrong("it is for another key than the request")
	case c.Subject.String() != identity.Device{Tenant: p.Tenant, ID: e.Device, Serial: e.Request.Serial}.Subject().String():
		return nil, wrong("its subject is " + c.Subject.String())
	case c.IsCA || names > 0 || len(c.UnknownExtKeyUsage) > 0 || len(c.ExtKeyUsage) != 1 || c.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth || len(c.UnhandledCriticalExtensions) > 0:
		return nil, wrong("it is for more than a device's proof of who it is")
	}
	return c, nil
}

func entryHash(q querier, station string, seq int64) (hash string, err error) {
	return hash, q(`SELECT hash FROM station_journal WHERE station = $1 AND seq = $2`, station, seq).Scan(&hash)
}

// keepEntry gives the entry its place in what the station has brought.
func keepEntry(tx *store.Tx, st Station, e entry, device, rule, detail string, at time.Time) error {
	_, err := tx.Exec(`INSERT INTO station_journal(station, seq, tenant, hash, serial, device, rule, detail, entry, at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		st.ID, e.Seq, st.Tenant, e.hash, e.Request.Serial, device, rule, detail, e.raw, store.Millis(at))
	if err != nil {
		return err
	}
	_, err = tx.Exec(`UPDATE station SET seq = $1, head = $2 WHERE tenant = $3 AND id = $4`, e.Seq, e.hash, st.Tenant, st.ID)
	return err
}

// RefusedUnits lists what an offline station brought and was refused, in the order of its journal.
func (s *Service) RefusedUnits(ctx context.Context, tenant, station string, after int64, limit int) ([]wire.RefusedUnit, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT seq, serial, device, rule, detail FROM station_journal WHERE tenant = $1 AND station = $2 AND rule <> '' AND seq > $3 ORDER BY seq LIMIT $4`,
		tenant, station, after, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (u wire.RefusedUnit, err error) {
		return u, r.Scan(&u.Seq, &u.Serial, &u.Device, &u.Rule, &u.Detail)
	})
}
