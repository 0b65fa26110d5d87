// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"regexp"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// State is where a device stands in its life.
type State string

// The states, in the order of a device's life.
const (
	Manufactured    State = "manufactured"    // the line has named it; it has no certificate yet
	Provisioned     State = "provisioned"     // it holds its IDevID and waits to be claimed
	Pending         State = "pending"         // claimed into a solution, not yet enrolled
	Commissioned    State = "commissioned"    // at work with an LDevID
	Suspended       State = "suspended"       // locked out for a reason, may come back
	Decommissioning State = "decommissioning" // told to wipe itself
	Decommissioned  State = "decommissioned"  // wiped or given up; its certificates are revoked for ever
	Deprovisioned   State = "deprovisioned"   // its data is erased too; final
)

// States lists every state in the order of a device's life.
var States = []State{Manufactured, Provisioned, Pending, Commissioned, Suspended, Decommissioning, Decommissioned, Deprovisioned}

// transitions is the whole law of movement. A device that is lost or broken is decommissioned without its wipe receipt;
// one that was released by its owner goes back to provisioned.
var transitions = map[State][]State{
	Manufactured:    {Provisioned, Decommissioned},
	Provisioned:     {Pending, Suspended, Decommissioned},
	Pending:         {Commissioned, Provisioned, Suspended, Decommissioned},
	Commissioned:    {Provisioned, Suspended, Decommissioning, Decommissioned},
	Suspended:       {Provisioned, Pending, Commissioned, Decommissioning, Decommissioned},
	Decommissioning: {Decommissioned},
	Decommissioned:  {Deprovisioned},
	Deprovisioned:   {},
}

// May says whether a device may move from s to to.
func (s State) May(to State) bool { return slices.Contains(transitions[s], to) }

// Known says whether s is one of the states.
func (s State) Known() bool { return slices.Contains(States, s) }

// Barred says whether a device in this state can never be trusted again.
func (s State) Barred() bool { return s == Decommissioned || s == Deprovisioned }

// rank orders states by how much trust they take away; the journal only ever moves a device up.
func (s State) rank() int { return slices.Index(States, s) }

// Admits says whether a device in state s may come in with a certificate of kind k.
//
// An IDevID opens the bootstrap routes only (the gateway sees to that), from provisioning until decommissioning
// begins: a commissioned device that was offline for years comes back with it. An LDevID works while the device is
// commissioned, and while it wipes itself.
func (s State) Admits(k Kind) bool {
	switch k {
	case IDevID:
		return s == Provisioned || s == Pending || s == Commissioned
	case LDevID:
		return s == Commissioned || s == Decommissioning
	}
	return false
}

// Grade says how sure we are of where a device's key lies. Empty means that nobody has looked.
type Grade string

// The grades.
const (
	GradeA Grade = "A" // hardware has attested it
	GradeB Grade = "B" // said to be in hardware, not proven
	GradeC Grade = "C" // a file
)

// Device is one unit for its whole life.
type Device struct {
	ID       string    `json:"id"`
	Tenant   string    `json:"tenant"`
	Product  string    `json:"product"`
	Revision string    `json:"revision"`
	Batch    string    `json:"batch,omitempty"`
	Serial   string    `json:"serial" doc:"As printed on the unit; unique within its product"`
	Solution string    `json:"solution,omitempty" doc:"Where it serves; empty until claimed"`
	State    State     `json:"state" enum:"manufactured,provisioned,pending,commissioned,suspended,decommissioning,decommissioned,deprovisioned"`
	Reason   string    `json:"reason,omitempty" doc:"Why it is in this state"`
	Resume   State     `json:"-"` // the state a suspension returns to
	Firmware string    `json:"firmware,omitempty" doc:"Digest of what the line flashed"`
	Grade    Grade     `json:"grade,omitempty" enum:",A,B,C" doc:"How sure we are of its key: A attested by hardware, B hardware claimed, C software"`
	Origin   string    `json:"origin,omitempty" doc:"Line station or trusted CA that brought it in"`
	Made     string    `json:"made,omitempty" doc:"What the factory says of its making, JSON: order, line, part number"`
	Created  time.Time `json:"created"`
	Updated  time.Time `json:"updated"`
}

// released says whether a move takes the device from its owner.
func (d Device) released(to State) bool {
	return to == Provisioned && d.State != Manufactured && !(d.State == Suspended && d.Resume == Provisioned)
}

var serialPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// CheckSerial refuses a serial number that could not stand in a certificate, a topic or on a label.
func CheckSerial(s string) error {
	if !serialPattern.MatchString(s) {
		return problem.Invalid("A serial number is 1 to 64 of the characters A-Z a-z 0-9 . _ and -.").At("serial")
	}
	return nil
}
