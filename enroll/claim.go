// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// crockford is base 32 without I, L, O and U, so that a code survives being read aloud and typed.
var crockford = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

const (
	codeBytes  = 16 // 128 bits
	codeLength = 26 // letters
	codeGroup  = 5
)

// NewCode makes a claim code and its hash. The code is for the box, the hash for whoever will check it.
func NewCode() (code, hash string) {
	secret := make([]byte, codeBytes)
	rand.Read(secret) // never fails since Go 1.24
	letters := crockford.EncodeToString(secret)
	var groups []string
	for ; len(letters) > codeGroup+1; letters = letters[codeGroup:] {
		groups = append(groups, letters[:codeGroup])
	}
	return strings.Join(append(groups, letters), "-"), hashCode(secret)
}

func hashCode(secret []byte) string {
	h := sha256.Sum256(append([]byte("openthings claim\x00"), secret...))
	return hex.EncodeToString(h[:])
}

var confusable = strings.NewReplacer("-", "", " ", "", "O", "0", "I", "1", "L", "1")

// parseCode reads a code as people type it, or the link that a label carries, and returns its hash.
func parseCode(typed string) (hash string, err error) {
	typed = codeOf(typed)
	if len(typed) > 64 {
		return "", errCode()
	}
	letters := confusable.Replace(strings.ToUpper(typed))
	secret, err := crockford.DecodeString(letters)
	if err != nil || len(letters) != codeLength || len(secret) != codeBytes {
		return "", errCode()
	}
	return hashCode(secret), nil
}

func errCode() error {
	return problem.Invalid("This is not a claim code: it has %d letters and digits.", codeLength).At("code").
		Hint("It is on the unit's box; hyphens, spaces and case do not matter.")
}

var errUsed error = problem.Conflict("This claim code was already used.").At("code")

// Claim binds the unit whose box shows the code to a solution, if the actor in ctx may.
func (s *Service) Claim(ctx context.Context, code, solution string) (identity.Device, error) {
	who, _ := tenant.ActorFrom(ctx)
	t := tenant.MustTenant(ctx)
	hash, err := parseCode(code)
	if err != nil {
		return identity.Device{}, err
	}
	if _, err := s.cfg.Tenants.Solution(ctx, t, solution); err != nil {
		return identity.Device{}, err
	}
	if err := mayClaim(s.reads(ctx), t, who.ID, hash, s.now()); err != nil {
		return identity.Device{}, err
	}
	id, err := claimByHash(s.reads(ctx), t, hash)
	if errors.Is(err, store.ErrNoRows) {
		return identity.Device{}, s.failed(ctx, t, who.ID, "", problem.NotFound("No unit has this claim code.").At("code"))
	}
	if err != nil {
		return identity.Device{}, err
	}
	d, err := s.cfg.Identity.Get(ctx, t, id)
	if err != nil {
		return identity.Device{}, err
	}
	if err := tenant.Require(ctx, tenant.DeviceClaim, tenant.Thing{Tenant: t, Product: d.Product, Solution: solution}); err != nil {
		return identity.Device{}, s.failed(ctx, t, who.ID, hash, err)
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if ok, err := useClaim(tx, t, hash, solution, s.now()); err != nil || !ok {
			return cmp.Or(err, errUsed)
		}
		now, err := s.cfg.Identity.GetTx(tx, t, d.ID)
		if err != nil {
			return err
		}
		if now.State != identity.Provisioned {
			return problem.Conflict("%s is %s; only a unit that nobody holds is claimed.", d.Serial, now.State)
		}
		if err := s.notDenied(tx.QueryRow, t, d.ID); err != nil {
			return err
		}
		if err := s.notHeld(tx, d); err != nil {
			return err
		}
		if err := leaveLobby(tx, t, d.ID, who.ID, s.now()); err != nil {
			return err
		}
		if err := s.cfg.Identity.SetSolution(tx, t, d.ID, solution); err != nil {
			return err
		}
		return s.cfg.Identity.SetState(tx, t, d.ID, identity.Pending, who.ID, "")
	})
	if errors.Is(err, errUsed) {
		return identity.Device{}, s.failed(ctx, t, who.ID, hash, err)
	}
	if err != nil {
		return identity.Device{}, err
	}
	return s.cfg.Identity.Get(ctx, t, d.ID)
}

// failed counts the failure and returns it.
func (s *Service) failed(ctx context.Context, tenant, actor, hash string, failure error) error {
	err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return countFailure(tx, tenant, actor, hash, s.now()) })
	if err != nil {
		return err
	}
	return failure
}

// Labelled is the unit whose label shows the code, whoever asks and whether or not it was claimed.
func (s *Service) Labelled(ctx context.Context, code string) (identity.Device, error) {
	hash, err := parseCode(code)
	if err != nil {
		return identity.Device{}, err
	}
	var ten, id string
	err = s.reads(ctx)(`SELECT tenant, device FROM claim WHERE code_hash = $1`, hash).Scan(&ten, &id)
	if errors.Is(err, store.ErrNoRows) {
		return identity.Device{}, problem.NotFound("No device has this code.").At("code").Hint("The code of the newest label counts; one that was replaced leads nowhere.")
	}
	if err != nil {
		return identity.Device{}, err
	}
	return s.cfg.Identity.Get(ctx, ten, id)
}

// NewClaim gives a provisioned unit another claim code, in the place of the one before: one that its owner released, or
// whose label was lost. The code is shown once.
func (s *Service) NewClaim(ctx context.Context, tenant, device, actor string) (code string, d identity.Device, err error) {
	code, hash := NewCode()
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if d, err = s.cfg.Identity.GetTx(tx, tenant, device); err != nil {
			return err
		}
		if d.State != identity.Provisioned {
			return problem.Conflict("%s is %s; only a unit that nobody holds gets a claim code.", d.Serial, d.State)
		}
		if err := replaceClaim(tx, tenant, device, d.Origin, hash, s.now()); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "claim.renewed", Subject: device, Data: map[string]any{"serial": d.Serial}})
	})
	if err != nil {
		return "", d, err
	}
	return code, d, nil
}

// putClaim gives the device a claim code, in the place of one that was not used.
func putClaim(tx *store.Tx, tenant, device, station, hash string, at time.Time) error {
	n, err := tx.Exec(`INSERT INTO claim(device, tenant, station, code_hash, created, used, solution) VALUES ($1, $2, $3, $4, $5, 0, '')
		ON CONFLICT (device) DO UPDATE SET code_hash = excluded.code_hash, created = excluded.created WHERE claim.used = 0`,
		device, tenant, station, hash, store.Millis(at))
	if err == nil && n == 0 {
		return problem.Conflict("The unit has already been claimed.")
	}
	return err
}

// replaceClaim gives the device a claim code, whatever became of the one before.
func replaceClaim(tx *store.Tx, tenant, device, station, hash string, at time.Time) error {
	_, err := tx.Exec(`INSERT INTO claim(device, tenant, station, code_hash, created, used, solution) VALUES ($1, $2, $3, $4, $5, 0, '')
		ON CONFLICT (device) DO UPDATE SET code_hash = excluded.code_hash, created = excluded.created, used = 0, solution = ''`,
		device, tenant, station, hash, store.Millis(at))
	return err
}

// spendClaim uses up a claim code that nobody typed, since the device got in without it.
func spendClaim(tx *store.Tx, tenant, device, solution string, at time.Time) error {
	_, err := tx.Exec(`UPDATE claim SET used = $1, solution = $2 WHERE tenant = $3 AND device = $4 AND used = 0`, store.Millis(at), solution, tenant, device)
	return err
}

// claimByHash is the device that the code is of, whether or not it was used.
func claimByHash(q querier, tenant, hash string) (device string, err error) {
	err = q(`SELECT device FROM claim WHERE tenant = $1 AND code_hash = $2`, tenant, hash).Scan(&device)
	return device, err
}

// useClaim marks the code as used; false means that it was used before. A unit that its owner releases is
// anybody's to claim, but not by the code that this owner has seen.
func useClaim(tx *store.Tx, tenant, hash, solution string, at time.Time) (bool, error) {
	n, err := tx.Exec(`UPDATE claim SET used = $1, solution = $2 WHERE tenant = $3 AND code_hash = $4 AND used = 0`, store.Millis(at), solution, tenant, hash)
	return n == 1, err
}

// Failed claims allowed in a window: for one code, for whoever types, and for a tenant. 128 bits cannot be guessed; the
// limits keep somebody who tries from costing more than a few rows. One careless customer meets the second long before
// all together meet the third.
const (
	claimWindow      = 10 * time.Minute
	failuresPerCode  = 5
	failuresPerActor = 20
	failuresPerAll   = 500
)

// mayClaim refuses while there were too many failures.
func mayClaim(q querier, tenant, actor, hash string, now time.Time) error {
	var n int64
	err := q(`SELECT count(*) FROM claim_failure WHERE tenant = $1 AND since > $2 AND (actor = '' AND code_hash = $3 AND n >= $4
		OR actor = $5 AND code_hash = '' AND n >= $6 OR actor = '' AND code_hash = '' AND n >= $7)`,
		tenant, store.Millis(now.Add(-claimWindow)), hash, failuresPerCode, actor, failuresPerActor, failuresPerAll).Scan(&n)
	if err == nil && n > 0 {
		return problem.Limited("Too many claims have failed.").Hint("Wait %.0f minutes, then check the code on the box.", claimWindow.Minutes())
	}
	return err
}

// countFailure adds a failed claim. hash is empty for a code that nobody has.
func countFailure(tx *store.Tx, tenant, actor, hash string, now time.Time) error {
	counters := [][2]string{{"", ""}, {actor, ""}}
	if hash != "" {
		counters = append(counters, [2]string{"", hash})
	}
	for _, c := range counters {
		_, err := tx.Exec(`INSERT INTO claim_failure(tenant, actor, code_hash, since, n) VALUES ($1, $2, $3, $4, 1) ON CONFLICT (tenant, actor, code_hash) DO UPDATE SET
			n = CASE WHEN claim_failure.since > $5 THEN claim_failure.n + 1 ELSE 1 END,
			since = CASE WHEN claim_failure.since > $5 THEN claim_failure.since ELSE excluded.since END`,
			tenant, c[0], c[1], store.Millis(now), store.Millis(now.Add(-claimWindow)))
		if err != nil {
			return err
		}
	}
	return nil
}
