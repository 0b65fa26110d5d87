// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"net/netip"
	"time"
)

// What was seen twice.
const (
	CloneKey      = "key"      // one key on two devices
	CloneSerial   = "serial"   // one serial number with two keys, or from two sides
	CloneIDevID   = "idevid"   // requests with one certificate of birth for different keys that interleave
	CloneLDevID   = "ldevid"   // an LDevID used after its successor was
	CloneSessions = "sessions" // two places that keep taking one device's session from each other
)

// The bounds by which two holders of one identity are told from one that is in trouble.
const (
	askWindow   = 24 * time.Hour   // requests for different keys that interleave
	spentGrace  = 5 * time.Minute  // after the first use of a new LDevID, for connections that were on their way
	swapWindow  = 10 * time.Minute // for takeovers
	swapsNeeded = 6                // takeovers in it, back and forth between two places
	keptSwaps   = 16               // takeovers remembered of a device
)

// returned says whether a device that asks for the key now goes back: it asked for another key after it first asked
// for this one, not long ago. One that lost an answer asks for the same key again, one that lost its key asks for a new
// one; neither ever returns to a key that it has left. Two holders that ask in turns do. asked holds when each key was
// first asked for.
func returned(asked map[string]time.Time, key string, now time.Time) bool {
	mine, known := asked[key]
	if !known {
		return false
	}
	for other, at := range asked {
		if other != key && at.After(mine) && now.Sub(at) < askWindow {
			return true
		}
	}
	return false
}

// spentInUse says whether the use of a replaced LDevID shows a second holder: its successor was in use for longer than
// connections take to arrive. A device stores its new certificate before it uses it, and then has no way back.
func spentInUse(successorUsed, now time.Time) bool {
	return !successorUsed.IsZero() && now.Sub(successorUsed) >= spentGrace
}

// swap is a takeover of a live session: the place that lost it and the one that has it now.
type swap struct {
	at       time.Time
	from, to string
}

// pingPong says whether the takeovers, the latest last, go back and forth between two places, each ending the session
// that the other has just begun. A device that changes its network takes over its own dead session, but does not
// return to the network that it left six times in ten minutes.
func pingPong(swaps []swap) bool {
	if len(swaps) < swapsNeeded {
		return false
	}
	last := swaps[len(swaps)-swapsNeeded:]
	if last[len(last)-1].at.Sub(last[0].at) > swapWindow {
		return false
	}
	for i, s := range last {
		if s.from == s.to || i > 0 && (s.from != last[i-1].to || s.to != last[i-1].from) {
			return false
		}
	}
	return true
}

// place is the network that an address and port belong to: the /24 of an IPv4 address, the /48 of an IPv6 address.
func place(from string) string {
	ap, err := netip.ParseAddrPort(from)
	if err != nil {
		return "unknown"
	}
	ip, bits := ap.Addr().Unmap().WithZone(""), 48
	if ip.Is4() {
		bits = 24
	}
	if ip.IsLoopback() {
		return ip.String() // networks of their own, for tests and demonstrations on one machine
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return ip.String()
	}
	return p.String()
}
