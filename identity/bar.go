// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// Scope is what a bar covers.
type Scope string

// The scopes of a bar. Each names what brought certificates into the register.
const (
	ScopeAuthority Scope = "authority" // all that one of our authorities signed
	ScopeStation   Scope = "station"   // all that a line station made
	ScopeBatch     Scope = "batch"     // every device of a batch
	ScopeCA        Scope = "ca"        // all that a trusted manufacturer CA brought
)

// Words names the scope for people.
func (s Scope) Words() string {
	switch s {
	case ScopeCA:
		return "trusted CA"
	case ScopeStation:
		return "line station"
	}
	return string(s)
}

// ForEver says whether a device that was barred with it never comes back. One whose authority was barred enrols anew with
// its birth certificate, if that is another's.
func (s Scope) ForEver() bool { return s == ScopeBatch || s == ScopeStation || s == ScopeCA }

// TopicBarred announces a Bar: everything of its scope lost the trust at once. Subject is its id.
const TopicBarred = "trust.barred"

// Bar is one act that ended the trust in everything of its scope. It holds for ever.
type Bar struct {
	Tenant       string    `json:"tenant,omitempty" doc:"Empty for an authority, which is the platform's"`
	Scope        Scope     `json:"scope" enum:"authority,station,batch,ca"`
	ID           string    `json:"id" doc:"Of the authority, station, batch or trusted CA"`
	Reason       string    `json:"reason"`
	Actor        string    `json:"actor"`
	At           time.Time `json:"at"`
	Certificates int64     `json:"certificates" doc:"Revoked one by one so far; all are refused since the act itself"`
	Finished     time.Time `json:"finished,omitzero" doc:"When the last one was revoked"`
}

// Reach is how much a bar would hit.
type Reach struct {
	Devices      int64 `json:"devices"`
	Certificates int64 `json:"certificates" doc:"That are not revoked yet"`
}

// barred is the condition under which the bar b refuses the certificate c of the device d (which a station's lacks).
const barred = `(b.scope = 'authority' AND b.id = c.authority OR b.tenant = c.tenant AND (
	b.scope IN ('station', 'ca') AND (b.id = c.origin OR b.id = d.origin OR b.id = c.subject) OR b.scope = 'batch' AND b.id = d.batch))`

// covered finds what a bar covers by the indexes of its scope; $1 is the tenant, $2 the id.
var covered = map[Scope]string{
	ScopeAuthority: `c.authority = $2 AND $1 = ''`,
	ScopeBatch:     `c.tenant = $1 AND c.subject IN (SELECT id FROM device WHERE tenant = $1 AND batch = $2)`,
	ScopeStation:   `c.fp IN (` + brought + ` UNION SELECT fp FROM certificate WHERE tenant = $1 AND subject = $2)`,
	ScopeCA:        `c.fp IN (` + brought + `)`,
}

// brought is what came with the station or trusted CA, and what its devices have had since. Each part has its index; one
// condition with OR would read all that the tenant has.
const brought = `SELECT fp FROM certificate WHERE tenant = $1 AND origin = $2
	UNION SELECT fp FROM certificate WHERE tenant = $1 AND subject IN (SELECT id FROM device WHERE tenant = $1 AND origin = $2)`

// Bar refuses everything of the scope's id from its commit on, on every node, and ends live sessions. The certificates are
// revoked one by one in the background. Call it in a WriteFirst. The reason must not be empty; a repeat is harmless. A bar
// reaches no other tenant's devices, whatever id it names; one on an authority reaches everybody's.
func (s *Service) Bar(tx *store.Tx, tenant string, scope Scope, id, actor, reason string) error {
	if covered[scope] == "" || id == "" || reason == "" {
		return problem.Invalid("A bar names what it bars, and why.")
	}
	b := Bar{Tenant: tenant, Scope: scope, ID: id, Reason: reason, Actor: actor, At: s.cfg.Clock.Now()}
	if scope == ScopeAuthority {
		b.Tenant = ""
	}
	if err := s.putBar(tx, b); err != nil {
		return err
	}
	if err := s.distrust(tx, entry{Tenant: b.Tenant, Subject: id, Scope: scope, Reason: reason}); err != nil {
		return err
	}
	data := map[string]any{"scope": scope, "reason": reason}
	return audit.Append(tx, audit.Entry{Tenant: b.Tenant, Actor: actor, Kind: "trust.barred", Subject: id, Data: data})
}

// putBar writes the bar and the job behind it. An authority that is barred signs nothing more.
func (s *Service) putBar(tx *store.Tx, b Bar) error {
	n, err := tx.Exec(`INSERT INTO bar(tenant, scope, id, reason, actor, at, certificates, after, finished) VALUES ($1, $2, $3, $4, $5, $6, 0, '', 0)
		ON CONFLICT (tenant, scope, id) DO NOTHING`, b.Tenant, b.Scope, b.ID, b.Reason, b.Actor, store.Millis(b.At))
	if err != nil || n == 0 {
		return err
	}
	if b.Scope == ScopeAuthority {
		if _, err := tx.Exec(`UPDATE authority SET status = $1 WHERE id = $2`, Compromised, b.ID); err != nil {
			return err
		}
	}
	if err := s.cfg.DB.Emit(tx, TopicBarred, b.Tenant, b.ID, b); err != nil {
		return err
	}
	return s.cfg.DB.Enqueue(tx, jobBar, b.Tenant+" "+string(b.Scope)+" "+b.ID, b.At, barJob{b.Tenant, b.Scope, b.ID})
}

// barsIssue is why nothing is issued through the authority $3 to the subject $2 of the tenant $1 that $4 brings, whose
// row is "device"; empty if nothing is in the way.
const barsIssue = `coalesce((SELECT b.reason FROM bar b WHERE b.tenant = '' AND b.scope = 'authority' AND b.id = $3 OR b.tenant = $1 AND
	(b.scope IN ('station', 'ca') AND b.id IN ($2, $4, device.origin) OR b.scope = 'batch' AND b.id = device.batch) LIMIT 1), '')`

// The statements of receiver: for a station, for a device, and for a device that is locked with it.
const (
	asStation      = `SELECT ` + barsIssue + ` FROM (SELECT '' AS origin, '' AS batch) device`
	asDevice       = `SELECT ` + deviceColumns + `, ` + barsIssue + ` FROM device WHERE tenant = $1 AND id = $2`
	asLockedDevice = `UPDATE device SET updated = updated WHERE tenant = $1 AND id = $2 RETURNING ` + deviceColumns + `, ` + barsIssue
)

// receiver is the device that the certificate is for, none for a station's. It refuses what is barred: a device by its
// station, trusted CA or batch, and everything through a barred authority. lock is lockDevice's.
func (r IssueRequest) receiver(tx *store.Tx, authority string, lock bool) (d Device, err error) {
	var barred string
	switch {
	case r.Kind == Station:
		err = tx.QueryRow(asStation, r.Tenant, r.Subject, authority, r.Origin).Scan(&barred)
	case lock:
		d, err = scanDevice(tx.QueryRow(asLockedDevice, r.Tenant, r.Subject, authority, r.Origin), &barred)
	default:
		d, err = scanDevice(tx.QueryRow(asDevice, r.Tenant, r.Subject, authority, r.Origin), &barred)
	}
	if err == nil && barred != "" {
		err = problem.Forbidden(RuleBarred, "Everything of the same origin is barred: %s.", barred)
	}
	return d, err
}

// RuleBarred refuses what came with a barred authority, station, batch or trusted CA.
const RuleBarred = "identity.barred"

// ReachOf counts what a bar would hit.
func (s *Service) ReachOf(ctx context.Context, tenant string, scope Scope, id string) (r Reach, err error) {
	where, ok := covered[scope]
	if !ok {
		return r, problem.Invalid("There is no scope %q.", scope).At("scope")
	}
	if scope == ScopeAuthority {
		tenant = ""
	}
	err = s.cfg.DB.QueryRow(ctx, `SELECT count(DISTINCT CASE WHEN c.kind <> 'station' THEN c.subject END), count(CASE WHEN c.phase <> 'revoked' THEN 1 END)
		FROM certificate c WHERE `+where, tenant, id).Scan(&r.Devices, &r.Certificates)
	return r, err
}

const barColumns = `tenant, scope, id, reason, actor, at, certificates, finished`

func scanBar(r scanner) (b Bar, err error) {
	var at, finished int64
	err = r.Scan(&b.Tenant, &b.Scope, &b.ID, &b.Reason, &b.Actor, &at, &b.Certificates, &finished)
	b.At, b.Finished = store.Time(at), store.Time(finished)
	if errors.Is(err, store.ErrNoRows) {
		return Bar{}, problem.NotFound("Nothing of this name was barred.")
	}
	return b, err
}

// Bars lists the tenant's bars and those on authorities, by scope and id, after "scope id".
func (s *Service) Bars(ctx context.Context, tenant, after string, limit int) ([]Bar, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT `+barColumns+` FROM bar WHERE (tenant = $1 OR tenant = '') AND scope || ' ' || id > $2 ORDER BY scope || ' ' || id LIMIT $3`, tenant, after, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (Bar, error) { return scanBar(r) })
}

// BarOf returns one bar.
func (s *Service) BarOf(ctx context.Context, tenant string, scope Scope, id string) (Bar, error) {
	if scope == ScopeAuthority {
		tenant = ""
	}
	return scanBar(s.cfg.DB.QueryRow(ctx, `SELECT `+barColumns+` FROM bar WHERE tenant = $1 AND scope = $2 AND id = $3`, tenant, scope, id))
}

// madeWith is the column of a device that names what it was barred with.
var madeWith = map[Scope]string{ScopeBatch: "batch", ScopeStation: "origin", ScopeCA: "origin"}

// Made is a page of the devices that came with a batch, line station or trusted CA of the tenant, by id: those whose trust
// ends for ever with a bar on it.
func (s *Service) Made(ctx context.Context, tenant string, scope Scope, id, after string, limit int) ([]string, error) {
	column := madeWith[scope]
	if column == "" {
		return nil, problem.Invalid("No devices are made with a scope %q.", scope).At("scope")
	}
	rows, err := s.cfg.DB.Query(ctx, `SELECT id FROM device WHERE tenant = $1 AND `+column+` = $2 AND id > $3 ORDER BY id LIMIT $4`, tenant, id, after, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (id string, err error) { return id, r.Scan(&id) })
}

// jobBar revokes the certificates of a bar one by one. They are refused already; this makes it visible in the register, in
// revocation lists and at the issuer.
const jobBar = "identity.bar"

type barJob struct {
	Tenant string `json:"tenant"`
	Scope  Scope  `json:"scope"`
	ID     string `json:"id"`
}

// revokeBarred runs a bar's job from where it was interrupted, in steps of readBatch certificates, each with a row for the
// issuer where it keeps lists of its own.
func (s *Service) revokeBarred(ctx context.Context, j store.Job) error {
	var r barJob
	if err := j.Decode(&r); err != nil {
		return err
	}
	b, err := s.BarOf(ctx, r.Tenant, r.Scope, r.ID)
	if err != nil {
		return err
	}
	as, err := s.Authorities(ctx)
	if err != nil {
		return err
	}
	elsewhere := map[string]bool{} // authorities whose backend has to be told
	for _, a := range as {
		elsewhere[a.ID] = a.Backend != "embedded"
	}
	for ctx.Err() == nil {
		done, err := s.revokeSome(ctx, b, elsewhere)
		if err != nil || done {
			return err
		}
	}
	return ctx.Err()
}

func (s *Service) revokeSome(ctx context.Context, b Bar, elsewhere map[string]bool) (done bool, err error) {
	var after string
	if err := s.cfg.DB.QueryRow(ctx, `SELECT after FROM bar WHERE tenant = $1 AND scope = $2 AND id = $3`, b.Tenant, b.Scope, b.ID).Scan(&after); err != nil {
		return false, err
	}
	fps, last, err := s.page(ctx, b, after)
	if err != nil {
		return false, err
	}
	return len(fps) < readBatch, s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error {
		if _, err := lockFeed(tx); err != nil {
			return err
		}
		revoked, err := revokeByFingerprint(tx, fps, b.Reason, b.At)
		if err != nil {
			return err
		}
		for _, c := range revoked {
			if !elsewhere[c.Authority] {
				continue
			}
			if err := s.cfg.DB.Enqueue(tx, jobAtIssuer, c.Fingerprint, b.At, atIssuer{Authority: c.Authority, Serial: c.Serial, At: store.Millis(b.At)}); err != nil {
				return err
			}
		}
		if err := touchCertificates(tx, fps); err != nil {
			return err
		}
		finished := int64(0)
		if len(fps) < readBatch {
			finished = store.Millis(s.cfg.Clock.Now())
		}
		var total int64
		err = tx.QueryRow(`UPDATE bar SET certificates = certificates + $4, after = $5, finished = $6 WHERE tenant = $1 AND scope = $2 AND id = $3 RETURNING certificates`,
			b.Tenant, b.Scope, b.ID, len(revoked), last, finished).Scan(&total)
		if err != nil || finished == 0 {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: b.Tenant, Actor: b.Actor, Kind: "trust.revoked", Subject: b.ID,
			Data: map[string]any{"scope": b.Scope, "reason": b.Reason, "certificates": total}})
	})
}

// page is the next certificates of a bar after that mark, and the mark after them: a fingerprint, or the shard of an
// authority and a fingerprint, so that millions are not sorted at each step.
func (s *Service) page(ctx context.Context, b Bar, after string) (fps []string, last string, err error) {
	q, args := `SELECT c.shard, c.fp FROM certificate c WHERE `+covered[b.Scope]+` AND c.phase <> 'revoked' AND c.fp > $3 ORDER BY c.fp LIMIT $4`,
		[]any{b.Tenant, b.ID, after, readBatch}
	if b.Scope == ScopeAuthority {
		shard, fp := int64(-1), ""
		if of, from, ok := strings.Cut(after, " "); ok {
			if shard, err = strconv.ParseInt(of, 10, 64); err != nil {
				return nil, "", fmt.Errorf("identity: bar on %s at %q: %w", b.ID, after, err)
			}
			fp = from
		}
		q, args = `SELECT c.shard, c.fp FROM certificate c WHERE c.authority = $1 AND (c.shard, c.fp) > ($2, $3) AND c.phase <> 'revoked'
			ORDER BY c.shard, c.fp LIMIT $4`, []any{b.ID, shard, fp, readBatch}
	}
	rows, err := s.cfg.DB.Query(ctx, q, args...)
	last = after
	fps, err = store.Collect(rows, err, func(r *sql.Rows) (fp string, err error) {
		var shard int64
		err = r.Scan(&shard, &fp)
		if last = fp; b.Scope == ScopeAuthority {
			last = fmt.Sprintf("%d %s", shard, fp)
		}
		return fp, err
	})
	return fps, last, err
}

// revokeByFingerprint revokes those that are not revoked yet and returns them (fingerprint, serial, authority).
func revokeByFingerprint(tx *store.Tx, fps []string, reason string, at time.Time) ([]Certificate, error) {
	if len(fps) == 0 {
		return nil, nil
	}
	list, args := store.In([]any{PhaseRevoked, store.Millis(at), reason}, fps)
	rows, err := tx.Query(`UPDATE certificate SET phase = $1, revoked = $2, reason = $3 WHERE fp IN `+list+` AND phase <> $1
		RETURNING fp, serial, authority`, args...)
	return store.Collect(rows, err, func(r *sql.Rows) (c Certificate, err error) {
		return c, r.Scan(&c.Fingerprint, &c.Serial, &c.Authority)
	})
}
