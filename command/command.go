// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"encoding/json"
	"regexp"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/wire"
)

// State is how far a command has come.
type State string

// The states. Done, Failed, Expired and Cancelled are ends.
const (
	Queued   State = "queued"   // waits for the device
	Sent     State = "sent"     // handed to its session, not acknowledged yet
	Received State = "received" // the device has the packet
	Accepted State = "accepted" // the device said that it will do it
	Done     State = "done"
	Failed   State = "failed"  // the device refused it, could not do it, or its answer was not valid
	Expired  State = "expired" // no end by NotAfter, or no result within the time for it

	Cancelled State = "cancelled" // taken back before the device had it
)

// states lists all of them.
var states = []State{Queued, Sent, Received, Accepted, Done, Failed, Expired, Cancelled}

// Ended says whether nothing more is expected. An expired or cancelled command can still be overtaken by its result.
func (s State) Ended() bool { return s == Done || s == Failed || s == Expired || s == Cancelled }

// next is the law of movement: an answer overtakes transport, an end is final but for a result that comes after the
// expiry. Back to queued goes what the device did not acknowledge, and what is idempotent and had no result.
var next = map[State][]State{
	Queued:    {Sent, Accepted, Done, Failed, Expired, Cancelled}, // an answer may be faster than the note that it was sent
	Sent:      {Queued, Received, Accepted, Done, Failed, Expired},
	Received:  {Queued, Accepted, Done, Failed, Expired},
	Accepted:  {Queued, Done, Failed, Expired},
	Expired:   {Done, Failed},
	Cancelled: {Done, Failed}, // it was on its way after all
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

// Command is one thing asked of one device.
type Command struct {
	ID       string          `json:"id"`
	Tenant   string          `json:"tenant"`
	Device   string          `json:"device"`
	Name     string          `json:"name"`
	Args     json.RawMessage `json:"args"`
	Erased   bool            `json:"erased,omitempty" doc:"The device's data was erased: nobody can read any more what it was asked and what it answered"`
	State    State           `json:"state" enum:"queued,sent,received,accepted,done,failed,expired,cancelled"`
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
	Key      string          `json:"key,omitempty" doc:"Of who asked: the same key for a device is the same command"`
	Job      string          `json:"job,omitempty" doc:"The job that it is part of"`
	Notice   string          `json:"notice,omitempty" doc:"Id of the notice that it carries"`
	Next     *time.Time      `json:"next,omitempty" doc:"A queued command is not tried again before"`
	Policy
	due             int64
	asked, answered []byte // args and the device's answer, sealed with its key
}

// Policy is how long to wait for a device and how often to ask again.
type Policy struct {
	AckTimeout    int64 `json:"ack_timeout_s" doc:"Seconds that the device has to acknowledge the packet"`
	ResultTimeout int64 `json:"result_timeout_s" doc:"Seconds from the receipt to the result; 0: until not_after"`
	Retries       int64 `json:"retries" doc:"How often it is handed over again: when the device did not acknowledge the packet; after that only if it is idempotent"`
	Backoff       int64 `json:"backoff_s" doc:"Seconds before it is handed over again to a device that is connected, doubling each time"`
	Idempotent    bool  `json:"idempotent" doc:"Carrying it out twice is as good as once"`
}

// DefaultPolicy holds where nothing else was said.
var DefaultPolicy = Policy{AckTimeout: 30, Retries: 5, Backoff: 10}

// maxBackoff bounds the pause between two attempts.
const maxBackoff = 10 * time.Minute

func (p Policy) ackTimeout() time.Duration    { return time.Duration(p.AckTimeout) * time.Second }
func (p Policy) resultTimeout() time.Duration { return time.Duration(p.ResultTimeout) * time.Second }

// pause is how long to wait after so many attempts.
func (p Policy) pause(attempts int64) time.Duration {
	return min(time.Duration(p.Backoff)*time.Second<<min(max(attempts-1, 0), 16), maxBackoff)
}

// check refuses what nobody could wait for.
func (p Policy) check() error {
	switch {
	case p.AckTimeout < 1 || p.AckTimeout > 3600:
		return problem.Invalid("A device has 1 to 3600 seconds to acknowledge a packet.").At("ack_timeout_s")
	case p.ResultTimeout < 0 || p.ResultTimeout > int64(MaxLifetime/time.Second):
		return problem.Invalid("A device has at most 90 days for its result.").At("result_timeout_s")
	case p.Retries < 0 || p.Retries > 100:
		return problem.Invalid("A command is tried again at most 100 times.").At("retries")
	case p.Backoff < 0 || p.Backoff > 3600:
		return problem.Invalid("The pause before another try is at most an hour.").At("backoff_s")
	}
	return nil
}

// Limits of a command.
const (
	MaxArgs     = 64 << 10 // bytes of arguments
	MaxLifetime = 90 * 24 * time.Hour
	DefaultLife = 24 * time.Hour
	maxReason   = 500 // bytes kept of a device's words
	maxResult   = 64 << 10
	maxKey      = 100

	// handOverGrace is how much longer than its time a handing over may seem to take before another worker looks at it.
	handOverGrace = 15 * time.Second
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
	if c.Name == wire.CommandNotice {
		if _, err := checkNotice(c.Args); err != nil {
			return err
		}
	}
	if !c.NotAfter.After(now) || c.NotAfter.After(now.Add(MaxLifetime)) {
		return problem.Invalid("A command must end in the next 90 days.").At("not_after")
	}
	if len(c.Key) > maxKey {
		return problem.Invalid("A key is at most %d bytes.", maxKey).At("key")
	}
	return c.Policy.check()
}

// deadline is when the state that the command is in has lasted too long: since counts from when it was reached.
func (c Command) deadline(state State, since time.Time) time.Time {
	at := c.NotAfter
	switch state {
	case Sent:
		at = since.Add(c.ackTimeout() + handOverGrace)
	case Received, Accepted:
		if c.ResultTimeout > 0 {
			at = since.Add(c.resultTimeout())
		}
	}
	if at.After(c.NotAfter) {
		return c.NotAfter
	}
	return at
}

// shorten keeps a device's words within bounds and readable.
func shorten(s string) string {
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "�")
	if len(s) <= maxReason {
		return s
	}
	return strings.ToValidUTF8(s[:maxReason], "") + "…"
}
