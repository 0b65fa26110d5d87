// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/command"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/notify"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/update"
	"github.com/openthings-platform/openthings/vuln"
	"github.com/openthings-platform/openthings/webhook"
)

// Config is what the room needs. DB's clock is its clock.
type Config struct {
	DB       *store.DB
	Keys     *seal.Keys
	Products *product.Service
	Cases    *respond.Service
	Log      *slog.Logger   // default discards
	Mailer   *notify.Mailer // nil: there is no mail server
	// PrivateHooks lets webhooks reach private and loopback addresses, as the administrator of the host says.
	PrivateHooks bool
	// URL is the platform's own address, which links in mails begin with.
	URL string
	// Maker is the tenant's name for people outside.
	Maker func(ctx context.Context, tenant string) (string, error)
	// Vuln, Update, Fleet, Identity and Command know who is impacted, what devices run and how they are told. Nil: no device is
	// connected, and no vulnerability known.
	Vuln     *vuln.Service
	Update   *update.Service
	Fleet    *fleet.Service
	Identity *identity.Service
	Command  *command.Service
	// Advisory is the newest revision of the published advisory for everybody about a vulnerability of a product; nil
	// document: there is none.
	Advisory func(ctx context.Context, tenant, product, vulnerability string) (name, url string, document []byte, err error)
}

// How often an address may try links that lead nowhere.
const (
	missesBurst     = 30
	missesPerSecond = 30.0 / 3600
)

// Service is the room.
type Service struct {
	cfg    Config
	client *http.Client
	rates  *api.Limiter // of links that lead nowhere, by address
	wake   chan struct{}
}

// New makes the room and registers its reactions; call it before the store runs jobs.
func New(cfg Config) *Service {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{cfg: cfg, client: webhook.Client(cfg.PrivateHooks), wake: make(chan struct{}, 1),
		rates: api.NewLimiter(cfg.DB.Clock(), api.Limits{PerSecond: missesPerSecond, Burst: missesBurst})}
	s.react()
	return s
}

func (s *Service) now() time.Time { return s.cfg.DB.Clock().Now().UTC().Truncate(time.Millisecond) }

// who refuses unless the caller may do v to the product (anything of its tenant if empty).
func who(ctx context.Context, v tenant.Verb, product string) (tenant.Actor, error) {
	a, _ := tenant.ActorFrom(ctx)
	return a, tenant.Require(ctx, v, tenant.Thing{Tenant: a.Tenant, Product: product})
}

// mac is keyed with what ends with the platform key.
func (s *Service) mac(purpose, text string) ([]byte, error) {
	key, err := s.cfg.Keys.Derive("inform/" + purpose)
	if err != nil {
		return nil, err
	}
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil), nil
}

// pseudonym is the keyed hash of an address, other in each tenant. Mail addresses are the same in any case.
func (s *Service) pseudonym(tenantID, channel, address string) (string, error) {
	if channel == Mail {
		address = strings.ToLower(address)
	}
	sum, err := s.mac("address/"+tenantID, channel+" "+address)
	return hex.EncodeToString(sum), err
}

// readCode is the 128-bit code of a delivery's link.
func (s *Service) readCode(delivery string) (string, error) {
	sum, err := s.mac("read", delivery)
	if err != nil {
		return "", err
	}
	return delivery + "." + base64.RawURLEncoding.EncodeToString(sum[:16]), nil
}

// deliveryOf is the delivery that a link names; false if its code is wrong.
func (s *Service) deliveryOf(code string) (string, bool) {
	id, _, _ := strings.Cut(code, ".")
	want, err := s.readCode(id)
	return id, err == nil && hmac.Equal([]byte(want), []byte(code))
}
