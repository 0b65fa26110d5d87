// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"encoding/json"
	"regexp"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// State is how far a command has come.
type State string

// The states. Done, Failed and Expired are ends.
const (
	Queued   State = "queued"   // waits for the device
	Sent     State = "sent"     // handed to its session, not acknowledged yet
	Received State = "received" // the device has the packet
	Accepted State = "accepted" // the device said that it will do it
	Done     State = "done"
	Failed   State = "failed"  // the device refused it, could not do it, or its answer was not valid
	Expired  State = "expired" // no end by NotAfter
)

// Ended says whether nothing more is expected. An expired command can still be overtaken by its result.
func (s State) Ended() bool { return s == Done || s == Failed || s == Expired }

// next is the law of movement: transport only moves forward, an answer overtakes transport, an end is final but for a
// result that comes after the expiry.
var next = map[State][]State{
	Queued:   {Sent, Accepted, Done, Failed, Expired}, // an answer may be faster than the note that it was sent
	Sent:     {Queued, Received, Accepted, Done, Failed, Expired},
	Received: {Accepted, Done, Failed, Expired},
	Accepted: {Done, Failed, Expired},
	Expired:  {Done, Failed},
}

// May says whether a command may move from s to to.
func (s State) May(to State) bool {
	for _, t := range next[s] {
		if t == to {
			return true
		}
	}
	return false
}

// from lists the states that may move to to.
func from(to State) (out []State) {
	for _, s := range []State{Queued, Sent, Received, Accepted, Done, Failed, Expired} {
		if s.May(to) {
			out = append(out, s)
		}
	}
	return out
}

// Command is one thing asked of one device.
type Command struct {
	ID       string          `json:"id"`
	Tenant   string          `json:"tenant"`
	Device   string          `json:"device"`
	Name     string          `json:"name"`
	Args     json.RawMessage `json:"args"`
	State    State           `json:"state" enum:"queued,sent,received,accepted,done,failed,expired"`
	Actor    string          `json:"actor" doc:"Who asked"`
	Attempts int64           `json:"attempts" doc:"How often it was handed to a session"`
	Created  time.Time       `json:"created"`
	NotAfter time.Time       `json:"not_after" doc:"Without an end by then it expires"`
	Sent     *time.Time      `json:"sent,omitempty"`
	Received *time.Time      `json:"received,omitempty"`
	Accepted *time.Time      `json:"accepted,omitempty"`
	Ended    *time.Time      `json:"ended,omitempty"`
	Reason   string          `json:"reason,omitempty" doc:"What the device or the platform says about the end"`
	Result   json.RawMessage `json:"result,omitempty" doc:"Data of the device's result"`
}

// Limits of a command.
const (
	MaxArgs     = 64 << 10 // bytes of arguments
	MaxLifetime = 90 * 24 * time.Hour
	DefaultLife = 24 * time.Hour
	maxReason   = 500 // bytes kept of a device's words
	maxResult   = 64 << 10
)

var namePattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// check refuses what could not be sent.
func (c Command) check(now time.Time) error {
	if !namePattern.MatchString(c.Name) {
		return problem.Invalid("A command's name is 1 to 32 of a-z, 0-9 and -, beginning with a letter.").At("name")
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(c.Args, &object); err != nil || object == nil {
		return problem.Invalid("The arguments must be a JSON object.").At("args").Because(err)
	}
	if len(c.Args) > MaxArgs {
		return problem.TooLarge("The arguments are longer than %d bytes.", MaxArgs).At("args")
	}
	if !c.NotAfter.After(now) || c.NotAfter.After(now.Add(MaxLifetime)) {
		return problem.Invalid("A command must end in the next 90 days.").At("not_after")
	}
	return nil
}

// shorten keeps a device's words within bounds and readable.
func shorten(s string) string {
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "�")
	if len(s) <= maxReason {
		return s
	}
	return strings.ToValidUTF8(s[:maxReason], "") + "…"
}
