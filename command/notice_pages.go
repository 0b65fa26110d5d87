// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"net/http"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

// noticeRows is how many notices a device's page shows.
const noticeRows = 10

// noticeCard is what a device's page says of the notices on it.
type noticeCard struct {
	Device  string
	Notices []noticeRow
	More    bool
}

type noticeRow struct {
	DeviceNotice
	Title, Kind, Severity string
	Way                   []*time.Time // stored, shown, acknowledged; nil: not yet
}

// noticePages adds the card of notices to a device's page; a device that was sent none has none.
func (s *Service) noticePages(c *console.Console) {
	c.Fragment("device", console.Fragment{Order: 62, Title: "Notices to the users", Verb: string(tenant.DeviceRead), FS: pagesFS, Template: "pages/notices.html",
		Load: func(r *http.Request, device string) (any, error) {
			d, err := s.cfg.Identity.Visible(r.Context(), tenant.DeviceRead, device)
			if err != nil {
				return nil, err
			}
			ns, err := s.Notices(r.Context(), d.Tenant, d.ID, "", noticeRows+1)
			if err != nil || len(ns) == 0 {
				return nil, err
			}
			card := noticeCard{Device: d.ID, More: len(ns) > noticeRows}
			for _, n := range ns[:min(len(ns), noticeRows)] {
				row := noticeRow{DeviceNotice: n, Way: []*time.Time{n.Stored, n.Shown, n.Acknowledged}}
				if content, err := wire.ParseNotice(n.Content); err == nil { // else the device was erased
					row.Title, row.Kind, row.Severity = content.In("en").Title, content.Kind, content.Severity
				}
				card.Notices = append(card.Notices, row)
			}
			return card, nil
		}})
}
