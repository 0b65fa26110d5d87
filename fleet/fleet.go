// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// Config is what the stage needs.
type Config struct {
	DB       *store.DB // the platform handle
	Identity *identity.Service
	Product  *product.Service
	Tenant   *tenant.Service // names of solutions; nil shows ids
	Clock    clock.Clock     // default clock.System
	Log      *slog.Logger
	// ReleaseName turns a release's id into words for people ("2.4.1"); nil shows the id. Releases belong to a later
	// stage, so the words are handed in.
	ReleaseName func(ctx context.Context, tenant, release string) string
	// Name is what people call a batch, or whatever else brought a device in; nil: nothing has a name.
	Name func(ctx context.Context, id string) string
	// Batches and Stations list what people call them, by id, for filters; nil: filters know their ids alone.
	Batches, Stations func(ctx context.Context, tenant string) (map[string]string, error)
	// Keys seal the twins of devices; without them there are none.
	Keys *seal.Keys
	// Send hands a device what is desired of it (gateway.Send), Live says whether it has a session here (gateway.Live).
	Send func(context.Context, gateway.Downlink) error
	Live func(device string) bool
}

// Service is the stage. Its methods are safe for concurrent use.
type Service struct {
	cfg    Config
	holder string        // names this process: holder of the folding lease, node of the devices that are here
	beats  time.Time     // when the next sign of life is due; Work's own
	wake   chan struct{} // capacity 1: presence has changed, or much is to be folded

	folding sync.Mutex   // held while this process folds, or counts a release again
	pending atomic.Int64 // installations since the last fold began

	turns   *gateway.Turns // devices to tell what is desired of them
	told    *told
	applied []AppliedHook // complete before the doors open

	uses    []GroupUses // complete before the doors open
	tallies tallies

	mu        sync.Mutex          // guards the fields below
	present   map[string]presence // by device: who is online here, and who went offline and is not written yet
	dirty     map[string]bool     // devices whose row is behind
	online    map[string]int      // devices online here, by tenant
	elsewhere map[string]int      // and at other nodes, as they said last
	changed   chan struct{}       // closed and renewed when online changes
}

// New makes the stage.
func New(cfg Config) *Service {
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.ReleaseName == nil {
		cfg.ReleaseName = func(_ context.Context, _, release string) string { return release }
	}
	return &Service{cfg: cfg, holder: store.NewID("node"), wake: make(chan struct{}, 1), turns: gateway.NewTurns(), told: newTold(), present: map[string]presence{},
		dirty: map[string]bool{}, online: map[string]int{}, changed: make(chan struct{})}
}
