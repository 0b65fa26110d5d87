// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

const (
	livePause = time.Second     // between two beats at least
	liveLook  = 5 * time.Second // between two looks for what came through another node
)

// arrivals tells pages that watch a device that it has said something here. The zero value is ready.
type arrivals struct {
	mu      sync.Mutex
	waiting map[[2]string]map[chan struct{}]bool // by tenant and device
}

// watch returns a channel that is written to when the device says something, until end is called.
func (a *arrivals) watch(tenant, device string) (came <-chan struct{}, end func()) {
	k, c := [2]string{tenant, device}, make(chan struct{}, 1)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting == nil {
		a.waiting = map[[2]string]map[chan struct{}]bool{}
	}
	if a.waiting[k] == nil {
		a.waiting[k] = map[chan struct{}]bool{}
	}
	a.waiting[k][c] = true
	return c, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if delete(a.waiting[k], c); len(a.waiting[k]) == 0 {
			delete(a.waiting, k)
		}
	}
}

// tell is called with what became durable.
func (a *arrivals) tell(records []gateway.Record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.waiting) == 0 {
		return
	}
	for _, r := range records {
		if !strings.HasPrefix(r.Topic, prefix) {
			continue
		}
		for c := range a.waiting[[2]string{r.Tenant, r.Device}] {
			signal(c)
		}
	}
}

// live beats while a device says something: the page reads itself again then, see charts.js.
func (s *Service) live(ctx context.Context, r *http.Request, send func(event, html string)) {
	d, err := s.cfg.Identity.Visible(ctx, tenant.TelemetryRead, r.PathValue("id"))
	if err != nil {
		return
	}
	came, end := s.arrivals.watch(d.Tenant, d.ID)
	defer end()
	seen, err := revisions(ctx, s.cfg.DB, d.Tenant, d.ID)
	for err == nil {
		look := s.cfg.Clock.NewTimer(liveLook)
		select {
		case <-ctx.Done():
			look.Stop()
			return
		case <-came:
			look.Stop()
		case <-look.C:
			before := seen
			if seen, err = revisions(ctx, s.cfg.DB, d.Tenant, d.ID); seen == before {
				continue
			}
		}
		now := s.cfg.Clock.Now()
		send("telemetry-beat", now.UTC().Format("15:04:05 UTC"))
		pause := s.cfg.Clock.NewTimer(livePause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
	}
}

// revisions grows with everything new that was compacted for a device, by whichever node.
func revisions(ctx context.Context, db *store.DB, tenant, device string) (n int64, err error) {
	err = db.QueryRow(ctx, `SELECT coalesce(sum(rev), 0) FROM telemetry_latest WHERE tenant = $1 AND device = $2`, tenant, device).Scan(&n)
	return n, err
}
