// SPDX-License-Identifier: AGPL-3.0-only

package tenant

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// Tenant is a manufacturer: a legal entity, and the wall around all it has.
type Tenant struct {
	ID   string    `json:"id"`
	Name string    `json:"name"`
	At   time.Time `json:"created"`
}

// Config is what the room needs from the house.
type Config struct {
	DB    *store.DB // platform handle
	Clock clock.Clock
	Log   *slog.Logger
	// Origins are the addresses that people open, such as https://localhost:8443. Passkeys bind to the host name of the
	// first; an IP address cannot carry one.
	Origins []string
	// Devices counts the tenant's devices by the solution they serve in, into a map that the caller may change; nil counts
	// none.
	Devices func(ctx context.Context, tenant string) (map[string]int64, error)
}

// Service is the room.
type Service struct {
	cfg     Config
	keys    *webauthn.WebAuthn
	limiter *api.Limiter // of the doors that nobody is signed in at
	trees   sync.Map     // *Tree by tenant
	loading sync.Mutex   // of trees
}

// New makes the room. It fails when an origin is not an https address.
func New(cfg Config) (*Service, error) {
	if len(cfg.Origins) == 0 {
		return nil, errors.New("tenant: no origin")
	}
	u, err := url.Parse(cfg.Origins[0])
	if err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return nil, fmt.Errorf("tenant: origin %q is not https://host", cfg.Origins[0])
	}
	if _, err := netip.ParseAddr(u.Hostname()); err == nil {
		cfg.Log.Warn("people cannot make passkeys under an IP address; give the platform a host name", "origin", cfg.Origins[0])
	}
	resident := true
	w, err := webauthn.New(&webauthn.Config{
		RPID: u.Hostname(), RPDisplayName: "OpenThings", RPOrigins: cfg.Origins,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			RequireResidentKey: &resident, ResidentKey: protocol.ResidentKeyRequirementRequired, UserVerification: protocol.VerificationRequired,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("tenant: %w", err)
	}
	return &Service{cfg: cfg, keys: w, limiter: api.NewLimiter(cfg.Clock, api.Limits{PerSecond: 5, Burst: 100})}, nil
}

// checkName checks what people call something: 1 to 80 printable characters.
func checkName(what, name string) (string, error) {
	name = strings.TrimSpace(name)
	if name == "" {
		return "", problem.Invalid("The name of the %s is missing.", what).At("name")
	}
	if utf8.RuneCountInString(name) > 80 || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return "", problem.Invalid("The name of the %s must be at most 80 printable characters.", what).At("name")
	}
	return name, nil
}

// Get returns a tenant by its id.
func (s *Service) Get(ctx context.Context, tenant string) (Tenant, error) {
	t, err := readTenant(s.cfg.DB.QueryRow(ctx, `SELECT id, name, at FROM tenant WHERE id = $1`, tenant))
	if errors.Is(err, store.ErrNoRows) {
		return t, problem.NotFound("There is no tenant %s.", tenant)
	}
	return t, err
}

// Tenants lists all tenants, for the platform's own background work. It is never reachable from outside.
func (s *Service) Tenants(ctx context.Context) ([]Tenant, error) {
	return listTenants(s.cfg.DB.Query(ctx, `SELECT id, name, at FROM tenant ORDER BY id`))
}

// ensureTenant finds the tenant of that name or, with create, makes it.
func (s *Service) ensureTenant(tx *store.Tx, name, actor string, create bool) (Tenant, error) {
	t, err := readTenant(tx.QueryRow(`SELECT id, name, at FROM tenant WHERE name = $1 OR id = $1`, name))
	if !errors.Is(err, store.ErrNoRows) {
		return t, err
	}
	if !create {
		return t, problem.NotFound("There is no tenant %q.", name).Hint("Check the spelling, or ask to create it.")
	}
	t = Tenant{ID: store.NewID("ten"), Name: name, At: s.cfg.Clock.Now().UTC()}
	if _, err := tx.Exec(`INSERT INTO tenant (id, name, at) VALUES ($1, $2, $3)`, t.ID, t.Name, store.Millis(t.At)); err != nil {
		return t, err
	}
	return t, audit.Append(tx, audit.Entry{Tenant: t.ID, Actor: actor, Kind: "access.tenant-created", Subject: t.ID, Data: map[string]string{"name": t.Name}})
}

// secret makes n random bytes as text, and the hash that is stored instead.
func secret(n int) (text, hash string) {
	b := make([]byte, n)
	rand.Read(b)
	text = base64.RawURLEncoding.EncodeToString(b)
	return text, hashOf(text)
}

// hashOf is SHA-256: enough, since every secret here is random and long.
func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
