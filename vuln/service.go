// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"context"
	"embed"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/update"
)

//go:embed migrations/*.sql
var migrationsFS embed.FS

// Schema holds records, findings and decisions.
var Schema = store.Migrations{Stage: "vuln", FS: migrationsFS}

// forever is the end of what is still open.
const forever = math.MaxInt64

// Release is what vuln needs to know of a release.
type Release struct {
	Product, Version string
	Image            string // its digest, "sha256:<hex>"
}

// Config is what the service works with.
type Config struct {
	DB    *store.DB
	Clock clock.Clock  // default clock.System
	Log   *slog.Logger // default discards
	SBOM  *sbom.Service
	Fleet *fleet.Service
	// Enroll holds the making of units; nil where units get their identities elsewhere.
	Enroll *enroll.Service
	// Update is told the lowest safe version of each hardware revision; nil where releases are deployed elsewhere.
	Update *update.Service
	// Release tells the product and version of a release, or problem.NotFound.
	Release func(ctx context.Context, tenant, release string) (Release, error)
	// RecordCheck tells the release gate what was found; nil where there is no gate.
	RecordCheck func(tx *store.Tx, tenant, release, name, verdict, evidence, by string) error
	// FeedDir is the folder of the host that sources of kind file lie in; empty: there is none. It is shared by all tenants.
	FeedDir string
	// FeedSpool is where fetched files lie until they were taken; default: a folder of the system for what may vanish.
	FeedSpool string
	// PrivateFeeds lets sources reach loopback and private addresses, as the administrator of the host says.
	PrivateFeeds bool
	// Publisher tells in whose name documents are written; nil writes none.
	Publisher func(ctx context.Context, tenant string) (Publisher, error)
	// Product returns problem.NotFound unless the tenant has the product; nil: whatever is asked for exists.
	Product func(ctx context.Context, tenant, product string) error
	// ProductName turns a product's id into words for people; nil shows the id.
	ProductName func(ctx context.Context, tenant, product string) string
}

// Service keeps records of vulnerabilities, matches them with releases and answers for exposure.
type Service struct {
	cfg       Config
	importing sync.Mutex // one import at a time

	lists kept[portfolio] // by tenant: cut to what the caller may see each time
	told  kept[told]      // by tenant, what the caller may see, and what was asked
}

// New makes the service. It listens to sbom.attached and release.uploaded from then on.
func New(cfg Config) *Service {
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Product == nil {
		cfg.Product = func(context.Context, string, string) error { return nil }
	}
	if cfg.ProductName == nil {
		cfg.ProductName = func(_ context.Context, _, product string) string { return product }
	}
	if cfg.FeedSpool == "" {
		cfg.FeedSpool = filepath.Join(os.TempDir(), "openthings-feeds")
	}
	if cfg.Publisher == nil {
		cfg.Publisher = func(context.Context, string) (Publisher, error) {
			return Publisher{}, problem.Unavailable("Nobody is configured in whose name documents could be written.")
		}
	}
	s := &Service{cfg: cfg}
	s.listen()
	s.listenFeeds()
	return s
}

func (s *Service) now() int64 { return store.Millis(s.cfg.Clock.Now()) }
