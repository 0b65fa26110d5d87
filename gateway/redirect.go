// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"context"
	"time"

	"github.com/openthings-platform/openthings/wire/mqtt"
)

// Elsewhere is another MQTT door that devices are sent to.
type Elsewhere struct {
	Server string // host:port, the Server Reference of MQTT 5
	Moved  bool   // for good (0x9D); otherwise for now (0x9C)
}

// words are the reason and the properties that send a device there.
func (e *Elsewhere) words() (mqtt.Reason, mqtt.Properties) {
	why := mqtt.UseAnotherServer
	if e.Moved {
		why = mqtt.ServerMoved
	}
	return why, mqtt.Properties{{ID: mqtt.ServerReference, Str: e.Server}}
}

// SendElsewhere empties the MQTT door: from now on whoever connects is sent to the other one, and devices with a session
// are told so, as many a second as pace says (0: all at once), so that they do not arrive there at the same moment. A
// 3.1.1 device, which cannot be told, is refused or loses its connection. Sessions that outlive their connection are kept,
// and wills are not said. It returns how many devices were told. nil takes the order back.
func (g *Gateway) SendElsewhere(ctx context.Context, to *Elsewhere, pace int) (told int, err error) {
	g.elsewhere.Store(to)
	if to == nil {
		return 0, nil
	}
	why, ps := to.words()
	for _, s := range g.registry.all() {
		if g.elsewhere.Load() != to {
			return told, nil
		}
		g.registry.bar(s)
		s.closeWith(why, "sent to "+to.Server, ps)
		if told++; pace > 0 && told%pace == 0 {
			select {
			case <-g.cfg.Clock.NewTimer(time.Second).C:
			case <-ctx.Done():
				return told, ctx.Err()
			}
		}
	}
	return told, nil
}

// DrainTo is Drain, except that MQTT 5 devices are told where to go instead.
func (g *Gateway) DrainTo(ctx context.Context, to *Elsewhere) error {
	if to != nil {
		g.elsewhere.Store(to)
	}
	return g.Drain(ctx)
}

// sendAway tells all devices where to go, if somebody has said so.
func (g *Gateway) sendAway() {
	to := g.elsewhere.Load()
	if to == nil {
		return
	}
	why, ps := to.words()
	for _, s := range g.registry.all() {
		g.registry.bar(s)
		s.closeWith(why, "sent to "+to.Server, ps)
	}
}
