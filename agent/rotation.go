// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"strings"
	"time"
)

// renewAt is when a device asks for its next certificate: two thirds into the life of the one it has, moved by up to a
// tenth of that life in either direction. The device's id alone decides where, so that a fleet that was enrolled in one
// night does not come back in one night, and a device that restarts does not draw again.
func renewAt(notBefore, notAfter time.Time, device string) time.Time {
	life := notAfter.Sub(notBefore)
	sum := sha256.Sum256([]byte("renew " + device))
	place := float64(binary.BigEndian.Uint64(sum[:8])) / (1 << 64) // [0, 1)
	return notBefore.Add(life*2/3 + time.Duration((place-0.5)*0.2*float64(life)))
}

// How far pauses double, as powers of two of Config.Retry.
const (
	busy  = 6  // about a minute: the platform is out of reach, or has asked to wait
	quiet = 12 // about an hour: it was reached and has said no
)

// backoff is the pause before attempt n (from 0): doubling to 64 times Retry, of which a random half, so that a fleet
// that lost its platform does not come back in one wave.
func (a *agent) backoff(n int) time.Duration { return a.spread(min(n, busy)) }

func (a *agent) spread(n int) time.Duration {
	d := a.Retry << n
	return d/2 + rand.N(d/2+1)
}

// straggle is the pause before a device comes back whose session ended: it ended for the whole fleet, perhaps, and the first
// attempt must not be everybody's in the same second.
func (a *agent) straggle() time.Duration { return rand.N(a.Retry << 4) }

// stumbled is from which attempt on such a device counts: a door that is busy with the rest is not asked each second.
const stumbled = 3

// pause is how long to wait after attempt n failed with err: never less than the platform asked for, and long when it
// has said no for a reason that asking again does not change.
func (a *agent) pause(n int, err error) time.Duration {
	most := busy
	if refused(err) {
		most = quiet
	}
	d := a.spread(min(n, most))
	var status *statusError
	if errors.As(err, &status) {
		d += status.after
	}
	return d
}

// renewalPause is backoff for a renewal: there are weeks left, so it grows to an hour, but not beyond an eighth of the life
// that remains.
func (a *agent) renewalPause(n int, err error, left time.Duration) time.Duration {
	d := min(a.spread(min(n+3, quiet)), max(left/8, a.Retry))
	var status *statusError
	if errors.As(err, &status) {
		d += status.after
	}
	return d
}

// refused says that the platform was reached and does not want this device: a certificate that it turned away, or a
// rule that it named. "Not yet" (202) and "too much to do" (429, 503) are no refusals.
func refused(err error) bool {
	var status *statusError
	return shutOut(err) || errors.As(err, &status) && status.refused()
}

// shutOut says that the other side turned our certificate away, which TLS 1.3 tells after the handshake (RFC 8446 6.2).
func shutOut(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error" && strings.Contains(op.Error(), "certificate")
}

// unsigned says that our own key did not sign the handshake, so that the other side never saw the certificate at work.
func unsigned(err error) bool {
	return err != nil && strings.Contains(err.Error(), "tls: failed to sign handshake")
}
