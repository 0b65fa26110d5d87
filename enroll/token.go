// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"database/sql"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"regexp"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// The rules of enrolment tokens.
const (
	RuleToken       = "enrol-token.unknown" // no such token, or revoked
	RuleTokenProof  = "enrol-token.proof"   // the claim certificate's key was not proven
	RuleTokenClosed = "enrol-token.closed"  // expired, or used as often as it may be
	RuleTokenSerial = "enrol-token.serial"  // not for this serial number
)

// Kinds of tokens.
const (
	TokenSecret = "secret"      // a password
	TokenClaim  = "certificate" // a certificate that the units of a lot share until each has its own
)

// Bounds of tokens.
const (
	tokenPrefix  = "ote_"
	maxTokens    = 1000
	MaxTokenLife = 366 * 24 * time.Hour
	MaxTokenUses = 100_000
)

// Token is exchanged for a device's own certificate of birth, Quota times.
type Token struct {
	ID       string    `json:"id"`
	Tenant   string    `json:"-"`
	Name     string    `json:"name"`
	Kind     string    `json:"kind" enum:"secret,certificate"`
	Product  string    `json:"product"`
	Revision string    `json:"revision"`
	Pattern  string    `json:"pattern,omitempty" doc:"Regular expression (RE2) that the whole serial number must match"`
	Listed   bool      `json:"listed,omitempty" doc:"Only preauthorised serial numbers"`
	Solution string    `json:"solution,omitempty" doc:"Devices go straight into it; empty: they wait in the lobby"`
	Quota    int64     `json:"quota"`
	Used     int64     `json:"used"`
	Refused  int64     `json:"refused"`
	Expires  time.Time `json:"expires"`
	Revoked  time.Time `json:"revoked,omitzero"`
	Reason   string    `json:"reason,omitempty"`
	Created  time.Time `json:"created"`
	Actor    string    `json:"actor,omitempty"`
}

// alive refuses a token that was revoked; a repeat of an exchange still has its answer after the end.
func (t Token) alive() error {
	if !t.Revoked.IsZero() {
		return problem.Forbidden(RuleToken, "The enrolment token was revoked.")
	}
	return nil
}

// open refuses a token that admits nobody new.
func (t Token) open(now time.Time) error {
	switch {
	case !t.Revoked.IsZero():
		return t.alive()
	case !now.Before(t.Expires):
		return problem.Forbidden(RuleTokenClosed, "The enrolment token ended on %s.", t.Expires.UTC().Format(time.RFC3339))
	case t.Used >= t.Quota:
		return problem.Forbidden(RuleTokenClosed, "The enrolment token has been used the %d times that it may.", t.Quota)
	}
	return nil
}

// takes refuses a serial number that the token is not for.
func (t Token) takes(serial string) error {
	if err := identity.CheckSerial(serial); err != nil {
		return problem.Invalid("The request names no serial number.").At("csr").Hint("Put it into the subject: /serialNumber=…").Because(err)
	}
	if t.Pattern == "" {
		return nil
	}
	re, err := regexp.Compile(`^(?:` + t.Pattern + `)$`)
	if err != nil {
		return err
	}
	if !re.MatchString(serial) {
		return problem.Forbidden(RuleTokenSerial, "The enrolment token is not for the serial number %s.", serial).At("csr")
	}
	return nil
}

func newToken() (text, hash string) {
	code, _ := NewCode() // 128 random bits
	text = tokenPrefix + strings.ReplaceAll(code, "-", "")
	return text, hashToken(text)
}

func hashToken(text string) string {
	h := sha256.Sum256([]byte("openthings enrolment token\x00" + text))
	return hex.EncodeToString(h[:])
}

const tokenColumns = `id, tenant, name, kind, product, revision, pattern, listed, solution, quota, used, refused, expires, revoked, reason, created, actor`

func scanToken(r scanner) (Token, error) {
	var t Token
	var listed, expires, revoked, created int64
	err := r.Scan(&t.ID, &t.Tenant, &t.Name, &t.Kind, &t.Product, &t.Revision, &t.Pattern, &listed, &t.Solution, &t.Quota, &t.Used, &t.Refused, &expires, &revoked, &t.Reason, &created, &t.Actor)
	t.Listed, t.Expires, t.Revoked, t.Created = listed > 0, store.Time(expires), store.Time(revoked), store.Time(created)
	if errors.Is(err, store.ErrNoRows) {
		return t, problem.NotFound("There is no such enrolment token.")
	}
	return t, err
}

// tokenBySecret finds a token by the hash of its secret or the fingerprint of its claim certificate; whose it is, is
// the answer.
func tokenBySecret(q querier, hash string) (Token, error) {
	return scanToken(q(`SELECT `+tokenColumns+` FROM enrol_token WHERE secret = $1`, hash))
}

func tokenByID(q querier, tenant, id string) (Token, error) {
	return scanToken(q(`SELECT `+tokenColumns+` FROM enrol_token WHERE tenant = $1 AND id = $2`, tenant, id))
}

// Tokens lists the tenant's enrolment tokens in the order of their ids, those after the id given.
func (s *Service) Tokens(ctx context.Context, tenant, after string, limit int) ([]Token, error) {
	rows, err := s.cfg.DB.Query(ctx, `SELECT `+tokenColumns+` FROM enrol_token WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3`, tenant, after, limit)
	return store.Collect(rows, err, func(r *sql.Rows) (Token, error) { return scanToken(r) })
}

// Token returns one of the tenant's enrolment tokens.
func (s *Service) Token(ctx context.Context, tenant, id string) (Token, error) {
	return tokenByID(s.reads(ctx), tenant, id)
}

// CreateToken makes an enrolment token and returns its text, which is shown this once. With claim, the PEM of a
// certificate, there is no text: who proves to hold its key may exchange it, so it needs preauthorised serial numbers.
func (s *Service) CreateToken(ctx context.Context, t Token, claim, actor string) (made Token, text string, err error) {
	rev, err := s.cfg.Products.Revision(ctx, t.Tenant, t.Revision)
	if err != nil {
		return t, "", err
	}
	t.ID, t.Product, t.Created, t.Actor, t.Kind = store.NewID("etk"), rev.Product, s.now(), actor, TokenSecret
	if err := errors.Join(checkName(t.Name), Source{Pattern: t.Pattern}.check("token"), s.checkTargets(ctx, t.Tenant, t.Solution, nil)); err != nil {
		return t, "", err
	}
	if t.Quota < 1 || t.Quota > MaxTokenUses {
		return t, "", problem.Invalid("A token is used 1 to %d times.", MaxTokenUses).At("quota")
	}
	if !t.Expires.After(s.now()) || t.Expires.After(s.now().Add(MaxTokenLife)) {
		return t, "", problem.Invalid("A token ends within a year.").At("expires")
	}
	text, secret := newToken()
	if claim != "" {
		text = ""
		if t, secret, err = claimToken(t, claim, s.now()); err != nil {
			return t, "", err
		}
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		var n int64
		if err := tx.QueryRow(`SELECT count(*) FROM enrol_token WHERE tenant = $1 AND revoked = 0 AND expires > $2`, t.Tenant, store.Millis(t.Created)).Scan(&n); err != nil {
			return err
		}
		if n >= maxTokens {
			return problem.Conflict("A tenant has at most %d enrolment tokens that are open.", maxTokens)
		}
		listed := int64(0)
		if t.Listed {
			listed = 1
		}
		_, err := tx.Exec(`INSERT INTO enrol_token(id, tenant, name, secret, kind, product, revision, pattern, listed, solution, quota, used, refused, expires, revoked, reason, created, actor)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 0, 0, $12, 0, '', $13, $14)`,
			t.ID, t.Tenant, t.Name, secret, t.Kind, t.Product, t.Revision, t.Pattern, listed, t.Solution, t.Quota, store.Millis(t.Expires), store.Millis(t.Created), actor)
		if store.IsUnique(err) {
			return problem.Conflict("This claim certificate is in use already.").At("certificate")
		}
		if err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: t.Tenant, Actor: actor, Kind: "enrol-token.created", Subject: t.ID, Data: t})
	})
	return t, text, err
}

// claimToken makes t one of a claim certificate. Its key is in many hands, so the serial numbers must be announced. A
// certificate is no secret, so a request by its key that names the tenant comes with it: else a tenant could claim the
// certificate of another one's devices.
func claimToken(t Token, text string, now time.Time) (Token, string, error) {
	b, rest := pem.Decode([]byte(text))
	if b == nil || b.Type != "CERTIFICATE" || len(text) > maxCAPEM {
		return t, "", problem.Invalid("The claim certificate is no certificate in PEM.").At("certificate")
	}
	c, err := x509.ParseCertificate(b.Bytes)
	switch {
	case err != nil:
		return t, "", problem.Invalid("The claim certificate cannot be read.").At("certificate").Because(err)
	case c.IsCA || !now.Before(c.NotAfter):
		return t, "", problem.Invalid("The claim certificate has ended or is that of an authority.").At("certificate")
	case identity.Weakness(c.PublicKey) != "":
		return t, "", problem.Forbidden(identity.RuleWeakKey, "Others can compute the key of the claim certificate: %s.", identity.Weakness(c.PublicKey)).At("certificate")
	case !t.Listed:
		return t, "", problem.Forbidden("enrol-token.listed", "A claim certificate is shared by many units, so it needs preauthorised serial numbers.").At("listed")
	}
	if why := provesClaim(c, rest, t.Tenant); why != "" {
		return t, "", problem.Forbidden(RuleTokenProof, "This does not prove that you hold the key of the claim certificate: %s.", why).At("certificate").
			Hint("Append a request by its key: openssl req -new -key claim.key -subj /CN=%s", t.Tenant)
	}
	if c.NotAfter.Before(t.Expires) {
		t.Expires = c.NotAfter
	}
	t.Kind = TokenClaim
	return t, identity.Fingerprint(c.Raw), nil
}

// provesClaim says what is missing for a proof; empty if nothing is.
func provesClaim(c *x509.Certificate, rest []byte, tenant string) string {
	b, _ := pem.Decode(rest)
	if b == nil || b.Type != "CERTIFICATE REQUEST" {
		return "no certificate request follows it"
	}
	r, err := x509.ParseCertificateRequest(b.Bytes)
	switch {
	case err != nil:
		return "the request cannot be read"
	case !bytes.Equal(r.RawSubjectPublicKeyInfo, c.RawSubjectPublicKeyInfo):
		return "the request is for another key"
	case r.CheckSignature() != nil:
		return "the request is not signed by its own key"
	case r.Subject.CommonName != tenant:
		return "the request does not name the tenant"
	}
	return ""
}

// RevokeToken ends a token at once. Devices that used it stay; bar them by their origin, or retire them.
func (s *Service) RevokeToken(ctx context.Context, tenant, id, reason, actor string) (t Token, err error) {
	if err := checkReason(reason); err != nil {
		return t, err
	}
	err = s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error {
		n, err := tx.Exec(`UPDATE enrol_token SET revoked = $1, reason = $2 WHERE tenant = $3 AND id = $4 AND revoked = 0`, store.Millis(s.now()), reason, tenant, id)
		if err != nil {
			return err
		}
		if t, err = tokenByID(tx.QueryRow, tenant, id); err != nil {
			return err
		}
		if n == 0 {
			return problem.Conflict("The enrolment token was already revoked.")
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "enrol-token.revoked", Subject: id, Data: map[string]any{"reason": reason, "used": t.Used}})
	})
	return t, err
}
