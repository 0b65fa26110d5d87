// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"math/rand/v2"
	"net"
	"strings"

	"github.com/openthings-platform/openthings/wire/mqtt"
)

// Servers that a device was sent to.
const (
	maxServers = 16 // of one Server Reference
	maxHops    = 4  // in a row without a session; then the device goes back to where its configuration says
)

// route is which MQTT door a device knocks at: the one that it was sent to last, in turn with the one of its configuration
// as soon as that fails, so that no server can send it where nobody is for good. Whoever answers there must show a
// certificate of the platform for that name, as everywhere.
type route struct {
	to     string // where the platform sent the device for now; "": nowhere
	hops   int    // since the last session
	failed bool   // the last attempt away from the configured door failed
	away   bool   // the last attempt was there
}

// next is the door for the next attempt; moved is where the platform went for good, or "".
func (r *route) next(configured, moved string) string {
	door := configured
	switch {
	case r.to != "":
		door = r.to
	case moved != "" && !r.failed:
		door = moved
	}
	r.away = door != configured
	if r.away {
		return door
	}
	r.failed = false // its turn comes again after this one
	return configured
}

// take draws the conclusion from how an attempt or a session ended, and says whether the device was sent elsewhere.
func (r *route) take(err error, session bool, configured string) bool {
	if session {
		r.hops = 0
	}
	var redirect *mqtt.Redirect
	if !errors.As(err, &redirect) {
		if r.away && !session {
			r.to, r.failed = "", true
		}
		return false
	}
	to := serverOf(redirect.Server, configured)
	if r.hops++; to == "" || r.hops > maxHops { // nonsense, or a circle
		*r = route{failed: true}
		return false
	}
	r.to, r.failed = to, false
	return true
}

// serverOf chooses one of the servers in a Server Reference; one without a port has that of the configured door.
func serverOf(reference, configured string) string {
	all := strings.Fields(reference)
	if len(all) == 0 || len(all) > maxServers {
		return ""
	}
	s := all[rand.IntN(len(all))]
	if strings.ContainsAny(s, "/@") {
		return ""
	}
	if host, port, err := net.SplitHostPort(s); err == nil && host != "" && port != "" {
		return s
	}
	_, port, err := net.SplitHostPort(configured)
	if err != nil {
		return ""
	}
	return net.JoinHostPort(strings.Trim(s, "[]"), port)
}

// moved notes where the platform went for good. For now is not worth a write.
func (a *agent) moved(err error) {
	var redirect *mqtt.Redirect
	if !errors.As(err, &redirect) || redirect.Err.Reason != mqtt.ServerMoved || a.record().Wiping != "" {
		return
	}
	to := a.route.to
	if a.record().Server == to {
		return
	}
	if err := a.change(func(r *record) { r.Server = to }); err != nil {
		a.Log.Error("the boot record cannot be written", "error", err)
		return
	}
	a.secure("config", "the platform moved", map[string]any{"server": to})
}
