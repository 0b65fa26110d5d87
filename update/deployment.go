// SPDX-License-Identifier: AGPL-3.0-only

package update

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/wire"
)

// Deployment brings one release to the devices of a product, or of one solution among them, in waves.
type Deployment struct {
	ID       string    `json:"id"`
	Tenant   string    `json:"tenant"`
	Release  string    `json:"release"`
	Product  string    `json:"product"`
	Solution string    `json:"solution,omitempty" doc:"Only devices of this solution and of what lies below it; empty: all of the product"`
	State    string    `json:"state" enum:"running,paused,aborted,completed"`
	Reason   string    `json:"reason,omitempty" doc:"Why it is in this state"`
	Override string    `json:"override,omitempty" doc:"Why a release below the advised floor is deployed all the same"`
	Wave     int64     `json:"wave" doc:"The wave that is open, from 0"`
	Actor    string    `json:"actor"`
	Created  time.Time `json:"created"`
	Ended    time.Time `json:"ended,omitzero"`
	Waves    []Wave    `json:"waves"`
}

// States of a deployment.
const (
	Running   = "running"
	Paused    = "paused"
	Aborted   = "aborted"
	Completed = "completed"
)

// Wave is one widening of a deployment. Percent is of all devices asked for, those of earlier waves included.
type Wave struct {
	N       int64     `json:"n"`
	Percent int64     `json:"percent"`
	State   string    `json:"state" enum:"waiting,open,done"`
	Opened  time.Time `json:"opened,omitzero"`
	Closed  time.Time `json:"closed,omitzero"`
}

// States of a wave.
const (
	WaveWaiting = "waiting"
	WaveOpen    = "open"
	WaveDone    = "done"
)

// Offered is the state of an update that the device has not answered yet; the others are those of wire.
const Offered = "offered"

// Update is one device's part in a deployment.
type Update struct {
	ID         string    `json:"id"`
	Deployment string    `json:"deployment"`
	Release    string    `json:"release"`
	Device     string    `json:"device"`
	Wave       int64     `json:"wave"`
	State      string    `json:"state"`
	Rule       string    `json:"rule,omitempty" doc:"Why it was refused"`
	Reason     string    `json:"reason,omitempty"`
	Offered    time.Time `json:"offered"`
	Ended      time.Time `json:"ended,omitzero"`
}

// final says that no further report changes the outcome.
func final(state string) bool {
	switch state {
	case wire.UpdateCommitted, wire.UpdateRefused, wire.UpdateRolledBack, wire.UpdateFailed:
		return true
	}
	return false
}

// step says that state is one that a device reports on its way.
func step(state string) bool {
	switch state {
	case wire.UpdateDownloading, wire.UpdateVerified, wire.UpdateStaged, wire.UpdateRebooting:
		return true
	}
	return false
}

// maxFailures aborts a deployment. A sequential test on the outcomes of a wave takes its place later.
const maxFailures = 3

// checkWaves wants one to ten rising percentages that end with 100.
func checkWaves(percent []int64) error {
	if len(percent) == 0 || len(percent) > 10 || percent[len(percent)-1] != 100 || percent[0] < 1 ||
		!slices.IsSorted(percent) || len(slices.Compact(slices.Clone(percent))) != len(percent) {
		return problem.Invalid("Waves are one to ten rising percentages from 1 on, the last one 100.").At("waves").Hint("For example 1, 10, 100.")
	}
	return nil
}

// Admitted says whether a device belongs to the first percent of a deployment. It needs no row: the place is the device's
// share of the 64-bit range by SHA-256 over both ids, so a wider wave always contains the narrower one.
func Admitted(deployment, device string, percent int64) bool {
	if percent >= 100 {
		return true
	}
	hundredth, _ := bits.Mul64(place(deployment, device), 100) // floor(100 * place / 2^64)
	return hundredth < uint64(percent)
}

func place(deployment, device string) uint64 {
	h := sha256.Sum256([]byte(deployment + "\x00" + device))
	return binary.BigEndian.Uint64(h[:8])
}

// progress counts the devices that the open waves admit.
type progress struct {
	Admitted  int64 `json:"admitted"`  // devices within the open waves
	Committed int64 `json:"committed"` // run the release, by their own report
	Failed    int64 `json:"failed"`    // refused, rolled back, failed or silent beyond the deadline
	Open      int64 `json:"open"`      // offered and not ended
}

// move is what the gate decides.
type move int

const (
	wait move = iota
	widen
	abort
	complete
)

// judge is the gate: stop at the third failure; go on when every update begun has ended and someone has committed, or
// when the wave admits nobody: round gives each one device at least, if one is connected. Devices out of reach hold nothing up until the last wave.
func judge(p progress, last bool) move {
	switch {
	case p.Failed >= maxFailures:
		return abort
	case p.Open > 0:
		return wait
	case last && p.Admitted > 0 && p.Committed+p.Failed == p.Admitted:
		return complete
	case !last && (p.Admitted == 0 || p.Committed > 0):
		return widen
	}
	return wait
}
