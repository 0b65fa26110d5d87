// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"embed"
	"net/http"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed pages/*.html
var pagesFS embed.FS

type eventsPart struct {
	Events []Event
	More   bool // older ones
	Path   string
}

// eventsShown is how many events the device's page shows.
const eventsShown = 20

// Pages adds charts and latest values to the device's page, and what happened on it.
func (s *Service) Pages(c *console.Console) {
	s.dataPages(c)
	s.securityPages(c)
	c.Tile(s.roomTile())
	s.chartPages(c)
	c.Fragment("device", console.Fragment{Order: 55, Title: "Events", Verb: string(tenant.TelemetryRead), FS: pagesFS, Template: "pages/events.html",
		Load: func(r *http.Request, device string) (any, error) {
			d, err := s.cfg.Identity.Visible(r.Context(), tenant.TelemetryRead, device)
			if err != nil {
				return nil, err
			}
			events, err := s.Events(r.Context(), d.Tenant, d.ID, "", eventsShown+1)
			if problem.Is(err, problem.KindNotFound) || err == nil && len(events) == 0 {
				return nil, nil // erased, which the part above says, or nothing happened
			}
			return eventsPart{Events: events[:min(len(events), eventsShown)], More: len(events) > eventsShown, Path: "/v1/devices/" + d.ID + "/events"}, err
		}})
}
