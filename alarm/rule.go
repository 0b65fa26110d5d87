// SPDX-License-Identifier: AGPL-3.0-only

package alarm

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// Kind is what a rule looks at.
type Kind string

// The kinds of rules.
const (
	Threshold Kind = "threshold" // a value beyond a limit
	Change    Kind = "change"    // a value that changes by more than a limit in a minute
	Absence   Kind = "absence"   // nothing received for the window
	Events    Kind = "events"    // that many events within the window
)

// Severity says how much an alarm matters.
type Severity string

// The severities, the worst first.
const (
	Critical Severity = "critical"
	Warning  Severity = "warning"
	Info     Severity = "info"
)

// Bounds of rules.
const (
	maxRules  = 200       // of one tenant
	maxFor    = 7 * 86400 // seconds
	maxWindow = 90 * 86400
	maxCount  = 100
)

// Rule says when an alarm is raised.
type Rule struct {
	ID       string    `json:"id"`
	Tenant   string    `json:"-"`
	Name     string    `json:"name"`
	Filter   string    `json:"filter,omitempty" doc:"Which devices, in the filter language; empty: all"`
	Kind     Kind      `json:"kind" enum:"threshold,change,absence,events"`
	Stream   string    `json:"stream,omitempty" doc:"threshold, change: the stream of the value; absence: the stream that is missed, empty: any message"`
	Field    string    `json:"field,omitempty" doc:"threshold, change: the value"`
	Event    string    `json:"event,omitempty" doc:"events: their type"`
	Op       string    `json:"op,omitempty" enum:">,>=,<,<=" doc:"threshold"`
	Value    float64   `json:"value,omitempty" doc:"threshold: the limit; change: by how much in a minute, up or down"`
	Clear    *float64  `json:"clear,omitempty" doc:"threshold: the value at which the alarm is over again; default the limit"`
	For      int64     `json:"for_seconds,omitempty" doc:"threshold, change: how long it must hold before the alarm"`
	Window   int64     `json:"window_seconds,omitempty" doc:"absence: after which silence; events: within which time"`
	Count    int64     `json:"count,omitempty" doc:"events: how many"`
	Severity Severity  `json:"severity" enum:"critical,warning,info"`
	Signal   bool      `json:"signal,omitempty" doc:"An alarm opens a signal, which a person must assess"`
	Off      bool      `json:"off,omitempty"`
	Actor    string    `json:"actor"`
	Changed  time.Time `json:"changed"`
}

// check refuses a rule that can never be evaluated. The filter is checked by who knows its language.
func (r *Rule) check() error {
	r.Name = strings.TrimSpace(r.Name)
	switch {
	case r.Name == "" || len(r.Name) > 100:
		return problem.Invalid("A rule has a name of 1 to 100 characters.").At("name")
	case !slices.Contains([]Severity{Critical, Warning, Info}, r.Severity):
		return problem.Invalid("A rule's severity is critical, warning or info.").At("severity")
	case r.For < 0 || r.For > maxFor:
		return problem.Invalid("A condition may have to hold for 0 to %d seconds.", maxFor).At("for_seconds")
	case math.IsNaN(r.Value) || math.IsInf(r.Value, 0) || r.Clear != nil && (math.IsNaN(*r.Clear) || math.IsInf(*r.Clear, 0)):
		return problem.Invalid("A limit is a number.").At("value")
	}
	switch r.Kind {
	case Threshold:
		if r.Stream == "" || r.Field == "" {
			return problem.Invalid("A threshold needs a stream and a field.").At("field")
		}
		if !slices.Contains([]string{">", ">=", "<", "<="}, r.Op) {
			return problem.Invalid("A threshold compares with >, >=, < or <=.").At("op")
		}
		if r.Clear != nil && (strings.HasPrefix(r.Op, ">") && *r.Clear > r.Value || strings.HasPrefix(r.Op, "<") && *r.Clear < r.Value) {
			return problem.Invalid("The alarm would be over while its condition still holds.").At("clear")
		}
	case Change:
		if r.Stream == "" || r.Field == "" || r.Value <= 0 {
			return problem.Invalid("A change needs a stream, a field and by how much it may change in a minute.").At("value")
		}
	case Absence:
		if r.Window < 10 || r.Window > maxWindow {
			return problem.Invalid("Silence is 10 to %d seconds long.", maxWindow).At("window_seconds")
		}
	case Events:
		if r.Event == "" {
			return problem.Invalid("Events have a type.").At("event")
		}
		if r.Count < 1 || r.Count > maxCount {
			return problem.Invalid("1 to %d events raise an alarm.", maxCount).At("count")
		}
		if r.Window < 1 || r.Window > maxWindow {
			return problem.Invalid("Events are counted within 1 to %d seconds.", maxWindow).At("window_seconds")
		}
	default:
		return problem.Invalid("A rule is of kind threshold, change, absence or events.").At("kind")
	}
	return nil
}

// Sentence is the rule in words.
func (r Rule) Sentence() string {
	hold := ""
	if r.For > 0 {
		hold = " for " + seconds(r.For)
	}
	switch r.Kind {
	case Threshold:
		return fmt.Sprintf("%s %s %s %s%s", r.Stream, r.Field, r.Op, number(r.Value), hold)
	case Change:
		return fmt.Sprintf("%s %s changes by more than %s in a minute%s", r.Stream, r.Field, number(r.Value), hold)
	case Absence:
		return "nothing on " + cmp.Or(r.Stream, "any topic") + " for " + seconds(r.Window)
	}
	return fmt.Sprintf("%d × %s within %s", r.Count, r.Event, seconds(r.Window))
}

func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

func seconds(n int64) string {
	for _, u := range []struct {
		n    int64
		word string
	}{{86400, "d"}, {3600, "h"}, {60, "min"}} {
		if n >= u.n && n%u.n == 0 {
			return fmt.Sprintf("%d %s", n/u.n, u.word)
		}
	}
	return fmt.Sprintf("%d s", n)
}

// sample is what a rule sees: a value or an event at a time, in ms. For absence the time is that of the receipt.
type sample struct {
	t int64
	v float64
}

// standing is what a rule remembers of one device.
type standing struct {
	T     int64   `json:"t"`               // of the newest sample, ms; 0: none yet
	V     float64 `json:"v,omitempty"`     // its value
	Since int64   `json:"since,omitempty"` // the condition holds since then, ms; 0: it does not
	Bad   float64 `json:"bad,omitempty"`   // what it was then or later
	Times []int64 `json:"times,omitempty"` // of events within the window
	Open  bool    `json:"open,omitempty"`  // an alarm is open
}

// verdict is what becomes of the alarm.
type verdict struct {
	raise, clear bool
	at           int64 // ms
	value        string
}

// see takes one sample. Samples that are not newer than the last one are old news, but for events, of which each counts.
func (r Rule) see(st *standing, x sample) (v verdict) {
	switch r.Kind {
	case Absence:
		st.T = max(st.T, x.t)
		return r.done(st, true, x.t)
	case Events:
		if slices.Contains(st.Times, x.t) {
			return v // the same event again
		}
		st.Times = append(st.Times, x.t)
		slices.Sort(st.Times)
		st.T = max(st.T, x.t)
		st.Times = slices.DeleteFunc(st.Times, func(t int64) bool { return t <= st.T-r.Window*1000 })
		if over := len(st.Times) - maxCount; over > 0 {
			st.Times = slices.Delete(st.Times, 0, over)
		}
		if int64(len(st.Times)) >= r.Count && !st.Open {
			return r.raise(st, st.T, fmt.Sprintf("%d × %s", len(st.Times), r.Event))
		}
		return v
	}
	if x.t <= st.T {
		return v
	}
	before := *st
	st.T, st.V = x.t, x.v
	bad, over, value := r.judge(before, x)
	switch {
	case st.Open:
		return r.done(st, over, x.t)
	case !bad:
		st.Since = 0
		return v
	case st.Since == 0:
		st.Since = x.t
	}
	st.Bad = value
	if x.t-st.Since >= r.For*1000 {
		return r.raise(st, x.t, r.words(value))
	}
	return v
}

// judge says whether a value breaks the rule, and whether it is good enough to end the alarm.
func (r Rule) judge(before standing, x sample) (bad, over bool, value float64) {
	if r.Kind == Change {
		if before.T == 0 {
			return false, true, 0
		}
		value = (x.v - before.V) / (float64(x.t-before.T) / 60_000)
		bad = math.Abs(value) > r.Value
		return bad, !bad, value
	}
	compare := func(limit float64) bool {
		switch r.Op {
		case ">":
			return x.v > limit
		case ">=":
			return x.v >= limit
		case "<":
			return x.v < limit
		}
		return x.v <= limit
	}
	bad = compare(r.Value)
	over = !bad
	if r.Clear != nil {
		over = !bad && !compare(*r.Clear)
	}
	return bad, over, x.v
}

func (r Rule) words(value float64) string {
	if r.Kind == Change {
		return fmt.Sprintf("%s %s changes by %s in a minute", r.Stream, r.Field, strconv.FormatFloat(value, 'g', 4, 64))
	}
	return fmt.Sprintf("%s %s is %s", r.Stream, r.Field, number(value))
}

func (r Rule) raise(st *standing, at int64, value string) verdict {
	st.Open = true
	return verdict{raise: true, at: at, value: value}
}

func (r Rule) done(st *standing, over bool, at int64) verdict {
	if !st.Open || !over {
		return verdict{}
	}
	st.Open, st.Since, st.Bad = false, 0, 0
	return verdict{clear: true, at: at}
}

// tick is what time alone changes, now in ms.
func (r Rule) tick(st *standing, now int64) verdict {
	end := r.due(*st)
	if end == 0 || now < end {
		return verdict{}
	}
	switch r.Kind {
	case Absence:
		return r.raise(st, end, "nothing for "+seconds(r.Window))
	case Events:
		st.Times = nil
		return r.done(st, true, end)
	}
	return r.raise(st, end, r.words(st.Bad))
}

// due is when time alone changes something next, in ms; 0: never.
func (r Rule) due(st standing) int64 {
	switch r.Kind {
	case Absence:
		if !st.Open && st.T > 0 {
			return st.T + r.Window*1000
		}
	case Events:
		if st.Open {
			return st.T + r.Window*1000
		}
	default:
		if !st.Open && st.Since > 0 {
			return st.Since + r.For*1000
		}
	}
	return 0
}
