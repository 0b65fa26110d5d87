// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

// Job asks the same of many devices: a command, or a change of what they shall be like.
type Job struct {
	ID       string          `json:"id"`
	Tenant   string          `json:"tenant"`
	Kind     string          `json:"kind" enum:"command,twin"`
	Title    string          `json:"title"`
	Filter   string          `json:"filter" doc:"Whom it reaches, in the language of filters; empty: everybody within product and solution"`
	Product  string          `json:"product,omitempty"`
	Solution string          `json:"solution,omitempty"`
	Follow   bool            `json:"follow" doc:"Devices that match later join until not_after; else those that match when it begins"`
	Name     string          `json:"name,omitempty" doc:"Of the command"`
	Args     json.RawMessage `json:"args" doc:"Of the command; for a twin the merge patch to what is desired"`

	Rate         int64 `json:"rate" doc:"Devices that begin in a minute; 0: no bound"`
	Parallel     int64 `json:"parallel" doc:"Devices at work at the same time; 0: no bound"`
	AbortCount   int64 `json:"abort_count" doc:"It ends when so many devices have failed; 0: no bound"`
	AbortPercent int64 `json:"abort_percent" doc:"It ends when this share of those that have ended has failed; 0: no bound"`
	AbortAfter   int64 `json:"abort_after" doc:"The share counts once so many devices have ended"`
	Timeout      int64 `json:"timeout_s" doc:"Seconds that a device has for its result once it has begun; 0: until not_after"`
	Retries      int64 `json:"retries" doc:"How often a device is asked again (see a command's retries)"`

	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after" doc:"Whoever has not ended by then has expired"`
	State     string    `json:"state" enum:"scheduled,running,paused,completed,aborted,cancelled"`
	Reason    string    `json:"reason,omitempty"`
	Actor     string    `json:"actor"`
	Created   time.Time `json:"created"`
	Started   time.Time `json:"started,omitzero"`
	Ended     time.Time `json:"ended,omitzero" doc:"When nothing more was left to do"`
	Counts    Counts    `json:"counts"`

	place    string
	selected time.Time
	credit   int64
	credited time.Time
	maker    tenant.Actor // with the rights of this round
	within   []string     // its solution and those that stand in it, in this round
}

// JobEnded is the data of the event job.ended.
type JobEnded struct {
	State  string `json:"state"`
	Reason string `json:"reason"`
	Title  string `json:"title"` // what people call it
	Counts Counts `json:"counts"`
}

// Kinds of jobs.
const (
	KindCommand = "command"
	KindTwin    = "twin"
)

// States of a job. Completed, Aborted and Cancelled are decided ends; Ended says when all was cleared up.
const (
	Scheduled = "scheduled"
	Running   = "running"
	Paused    = "paused"
	Completed = "completed"
	Aborted   = "aborted" // too many devices failed
	// A job that a person ended is Cancelled, as a command is.
)

// States of a device's part in a job, besides Done, Failed, Expired and Cancelled.
const (
	Waiting = "waiting" // for its turn
	Away    = "away"    // offline when its turn came; it gets its part when it is back
	Started = "started"
)

// Counts is how many devices of a job are in which state.
type Counts struct {
	Devices   int64 `json:"devices"`
	Waiting   int64 `json:"waiting"`
	Away      int64 `json:"away"`
	Started   int64 `json:"started"`
	Done      int64 `json:"done"`
	Failed    int64 `json:"failed"`
	Expired   int64 `json:"expired"`
	Cancelled int64 `json:"cancelled"`
}

// at is where the devices of a state are counted.
func (c *Counts) at(state string) *int64 {
	switch state {
	case Waiting:
		return &c.Waiting
	case Away:
		return &c.Away
	case Started:
		return &c.Started
	case string(Done):
		return &c.Done
	case string(Failed):
		return &c.Failed
	case string(Expired):
		return &c.Expired
	}
	return &c.Cancelled
}

// ends counts the devices that did their part, or failed to.
func (c Counts) ends() int64 { return c.Done + c.Failed + c.Expired }

// open counts the devices that may still begin or end.
func (c Counts) open() int64 { return c.Waiting + c.Away + c.Started }

// Part is one device's part in a job.
type Part struct {
	Job     string    `json:"job"`
	Device  string    `json:"device"`
	State   string    `json:"state" enum:"waiting,away,started,done,failed,expired,cancelled"`
	Command string    `json:"command,omitempty"`
	Version int64     `json:"desired_version,omitempty"`
	At      time.Time `json:"at"`
	Reason  string    `json:"reason,omitempty"`
}

const (
	maxTitle  = 120
	maxFilter = 2000
	// oneDevice is what a device takes from the credit of the rate.
	oneDevice = 60_000
	// burst is how much of the rate may be saved up, so that a platform that was away does not make up for all at once.
	burst = 5 * time.Second
)

// check refuses a job that could not be driven. Its filter is checked by whoever walks it.
func (j Job) check(now time.Time) error {
	switch {
	case len(j.Title) > maxTitle:
		return problem.Invalid("A title is at most %d bytes.", maxTitle).At("title")
	case len(j.Filter) > maxFilter:
		return problem.TooLarge("A filter is at most %d bytes.", maxFilter).At("filter")
	case j.Rate < 0 || j.Rate > 1_000_000:
		return problem.Invalid("The rate is 0 to 1000000 devices in a minute.").At("rate")
	case j.Parallel < 0 || j.Parallel > 100_000:
		return problem.Invalid("At most 100000 devices are at work at the same time.").At("parallel")
	case j.AbortCount < 0 || j.AbortAfter < 0:
		return problem.Invalid("A threshold is not negative.").At("abort_count")
	case j.AbortPercent < 0 || j.AbortPercent > 100:
		return problem.Invalid("A share is 0 to 100 percent.").At("abort_percent")
	case !j.NotAfter.After(now) || !j.NotAfter.After(j.NotBefore) || j.NotAfter.After(now.Add(MaxLifetime)):
		return problem.Invalid("A job ends within 90 days, and after it begins.").At("not_after")
	}
	p := DefaultPolicy
	p.ResultTimeout, p.Retries = j.Timeout, j.Retries
	if err := p.check(); err != nil {
		return err
	}
	if j.Kind == KindTwin {
		if _, err := wire.ParsePatch(j.Args); err != nil {
			return problem.Invalid("The patch is %s.", err).At("args")
		}
		return nil
	}
	return Command{Name: j.Name, Args: j.Args, NotAfter: j.NotAfter, Policy: p}.check(now)
}

// over says that too many devices have failed, and how many.
func (j Job) over(c Counts) (string, bool) {
	bad := c.Failed + c.Expired
	ended := bad + c.Done
	switch {
	case j.AbortCount > 0 && bad >= j.AbortCount:
		return fmt.Sprintf("%d devices failed", bad), true
	case j.AbortPercent > 0 && ended >= max(1, j.AbortAfter) && bad*100 >= j.AbortPercent*ended:
		return fmt.Sprintf("%d of %d devices failed", bad, ended), true
	}
	return "", false
}

// earn works out the credit of the rate at now, and how many devices may begin with it.
func (j *Job) earn(now time.Time) int64 {
	if j.Rate == 0 {
		return 1 << 30
	}
	most := max(oneDevice, j.Rate*int64(burst/time.Millisecond))
	j.credit = min(most, j.credit+j.Rate*max(0, now.Sub(j.credited).Milliseconds()))
	j.credited = now
	return j.credit / oneDevice
}

// nextCredit is how long it takes until one more device may begin.
func (j Job) nextCredit() time.Duration {
	if j.Rate == 0 || j.credit >= oneDevice {
		return 0
	}
	return time.Duration((oneDevice-j.credit+j.Rate-1)/j.Rate) * time.Millisecond
}

// moves lists from which states a person may lead a job to another.
var moves = map[string][]string{
	Paused: {Scheduled, Running}, Running: {Paused}, string(Cancelled): {Scheduled, Running, Paused},
}
