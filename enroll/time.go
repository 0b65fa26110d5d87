// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"encoding/json"
	"net/http"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

// time tells the platform's clock. Anybody may ask: a device asks before it can judge any certificate, and the
// connection below the anchor is what makes the answer believable. Nothing of the device's own clock is ever asked for.
func (s *Service) time(w http.ResponseWriter, _ *http.Request, _ gateway.Peer) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	return json.NewEncoder(w).Encode(wire.Time{Now: store.Millis(s.cfg.Clock.Now())})
}
