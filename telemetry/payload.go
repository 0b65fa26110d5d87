// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/wire"
)

// Limits of one message; beyond them it is refused as a whole, so that a value is never kept without its neighbours.
const (
	maxValues = 256 // values in one message
	maxName   = 64  // bytes in the name of a stream or a value
)

// A device's own time is believed from 2000 on and until a day ahead of the receipt; otherwise its clock was not set,
// and the time of receipt is the better witness.
const (
	tsFloor = 946_684_800_000 // 2000-01-01 in ms since 1970 UTC
	tsAhead = 24 * 3600 * 1000
)

// point is one measurement message: the values that a stream of a device had at a time.
type point struct {
	t         int64 // ms since 1970 UTC
	boot, seq uint64
	same      bool              // said by the same message as the point before it in this stream
	values    []value           // sorted by name
	units     map[string]string // by name, where the message said them; else nil
}

type value struct {
	name string
	v    float64
}

// streamOf returns the stream of a telemetry topic ("tele/env" is stream "env").
func streamOf(topic string) (string, error) {
	s, _ := strings.CutPrefix(topic, prefix)
	if !validName(s) {
		return "", problem.Invalid("stream %q is not 1 to %d of A-Z a-z 0-9 . _ -", cut(s), maxName)
	}
	return s, nil
}

// parsePayload reads a wire.Telemetry, or a flat object of numbers, received at the time given (ms).
//
// Under "values" everything must be a number, or true (1) or false (0); in a flat object members of other types are ignored, since such
// firmware often adds a name or a unit. A message without a single number is refused.
func parsePayload(body []byte, received int64) (point, error) {
	if p, ok := quickPayload(body, received); ok {
		return p, nil
	}
	return slowPayload(body, received)
}

// slowPayload reads any payload, and says what is wrong with one that cannot be read.
func slowPayload(body []byte, received int64) (point, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil || members == nil {
		return point{}, problem.Invalid("the payload is not a JSON object").Because(err)
	}
	var head wire.Telemetry
	for name, into := range map[string]any{"ts": &head.TS, "boot": &head.Boot, "seq": &head.Seq} {
		if raw, ok := members[name]; ok {
			if err := json.Unmarshal(raw, into); err != nil {
				return point{}, problem.Invalid("%q is not a whole number", name).Because(err)
			}
			delete(members, name)
		}
	}
	p := point{t: believable(head.TS, received), boot: head.Boot, seq: head.Seq}
	strict := false
	if raw, ok := members["values"]; ok && bytes.HasPrefix(bytes.TrimSpace(raw), []byte("{")) {
		strict, members = true, nil
		if err := json.Unmarshal(raw, &members); err != nil {
			return point{}, problem.Invalid("values is not a JSON object").Because(err)
		}
	}
	for name, raw := range members {
		v, err := strconv.ParseFloat(string(raw), 64) // a RawMessage holds no surrounding space
		if on := string(raw) == "true"; strict && (on || string(raw) == "false") {
			if v, err = 0, nil; on {
				v = 1
			}
		}
		switch {
		case err != nil && !strict:
			continue
		case err != nil || math.IsInf(v, 0) || math.IsNaN(v):
			return point{}, problem.Invalid("value %q is not a number", cut(name))
		case !validName(name):
			return point{}, problem.Invalid("name %q is not 1 to %d of A-Z a-z 0-9 . _ -", cut(name), maxName)
		case len(p.values) == maxValues:
			return point{}, problem.Invalid("more than %d values in one message", maxValues)
		}
		p.values = append(p.values, value{name, v})
	}
	if len(p.values) == 0 {
		return point{}, problem.Invalid("the payload holds no number")
	}
	slices.SortFunc(p.values, byName)
	return p, nil
}

// believable returns the device's time, or that of the receipt if the device's clock cannot be right.
func believable(ts, received int64) int64 {
	if ts < tsFloor || ts > received+tsAhead {
		return received
	}
	return ts
}

func validName(s string) bool {
	if len(s) == 0 || len(s) > maxName {
		return false
	}
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}

// cut keeps a stranger's text short enough for a log line.
func cut(s string) string {
	if len(s) > maxName {
		return s[:maxName] + "…"
	}
	return s
}
