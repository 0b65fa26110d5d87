// SPDX-License-Identifier: AGPL-3.0-only

package handover

import (
	"context"

	"github.com/openthings-platform/openthings/alarm"
	"github.com/openthings-platform/openthings/command"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/respond/advisory"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/blob"
	"github.com/openthings-platform/openthings/telemetry"
	"github.com/openthings-platform/openthings/update"
	"github.com/openthings-platform/openthings/vuln"
)

// Config is what the room needs; all of it is mandatory.
type Config struct {
	DB         *store.DB // the platform handle; its clock is the room's
	Blobs      blob.Store
	Products   *product.Service
	Update     *update.Service
	SBOM       *sbom.Service
	Vuln       *vuln.Service
	Advisories *advisory.Service
	Fleet      *fleet.Service
	Telemetry  *telemetry.Service
	Command    *command.Service
	Alarm      *alarm.Service
	Identity   *identity.Service
	// Maker is the name of a tenant's manufacturer.
	Maker func(ctx context.Context, tenant string) (string, error)
	// Sign puts the platform's signature under a text (a signed note), and LogKey is the key that verifies it.
	Sign   func(text string) ([]byte, error)
	LogKey func() string
}

// Service is the room.
type Service struct{ cfg Config }

// New makes the room.
func New(cfg Config) *Service { return &Service{cfg: cfg} }
