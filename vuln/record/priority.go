// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"fmt"
	"math"
	"strings"
)

// Facts are what the order of work goes by.
type Facts struct {
	Exploited []string // who lists it as exploited: "CISA KEV", "EUVD"; empty: nobody
	Ransom    bool     // used to extort
	SSVC      *SSVC    // nil: nobody assessed it
	Mission   string   // what the product is to those who use it: "low", "medium" (also if empty) or "high"
	EPSS      *float64 // the probability of an attack within 30 days, 0 to 1; nil: unknown
	Score     *Score   // nil: none
	Devices   int64    // exposed now
}

// Priority is where something stands in the order of work, with the reasons. It is an order, not a sum: a thousand
// small things do not outweigh one that is being exploited.
type Priority struct {
	Decision string   `json:"ssvc,omitempty" doc:"The decision of SSVC: act, attend, track*, track; absent without an assessment"`
	Reasons  []string `json:"reasons" doc:"Why it stands where it does, in the order in which they count"`
	Key      string   `json:"-"` // sorts as text, the most urgent highest; equal facts give equal keys
}

// Prioritize orders by: is any device exposed at all; exploited; the SSVC decision; EPSS times devices, the devices
// that are likely to be attacked within 30 days; CVSS times devices; devices. What is unknown counts as the least and
// is said so.
func Prioritize(f Facts) Priority {
	var p Priority
	reason := func(format string, a ...any) { p.Reasons = append(p.Reasons, fmt.Sprintf(format, a...)) }
	switch {
	case len(f.Exploited) > 0 && f.Ransom:
		reason("exploited, also to extort (%s)", strings.Join(f.Exploited, ", "))
	case len(f.Exploited) > 0:
		reason("exploited (%s)", strings.Join(f.Exploited, ", "))
	}
	p.Decision = Decide(f.SSVC, f.Mission)
	if p.Decision == "" {
		reason("no SSVC assessment")
	} else {
		reason("SSVC: %s (exploitation %s, automatable %s, impact %s)", p.Decision, f.SSVC.Exploitation, f.SSVC.Automatable, f.SSVC.Impact)
	}
	epss, base := 0.0, 0.0
	if f.EPSS == nil || math.IsNaN(*f.EPSS) {
		reason("EPSS unknown")
	} else {
		epss = min(max(*f.EPSS, 0), 1)
		reason("EPSS %.1f %%", epss*100)
	}
	if f.Score == nil {
		reason("no CVSS score")
	} else {
		base = min(max(f.Score.Base, 0), 10)
		reason("CVSS %.1f (%s)", base, f.Score.Severity())
	}
	switch f.Devices {
	case 0:
		reason("no device exposed")
	case 1:
		reason("1 device exposed")
	default:
		reason("%d devices exposed", f.Devices)
	}
	n := float64(max(f.Devices, 0))
	p.Key = fmt.Sprintf("%d%d%d%s%s%s", bit(f.Devices > 0), bit(len(f.Exploited) > 0)+bit(len(f.Exploited) > 0 && f.Ransom), decisionRank[p.Decision],
		sortable(epss*n), sortable(base*n), sortable(n))
	return p
}

var decisionRank = map[string]int{"": 0, "track": 1, "track*": 2, "attend": 3, "act": 4}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// sortable writes a number that is not negative so that texts sort as the numbers do.
func sortable(x float64) string { return fmt.Sprintf("%016x", math.Float64bits(x)) }

// Decide walks the tree of the coordinators at CISA (SSVC guide, 2022). "" says that a decision point is missing.
func Decide(s *SSVC, mission string) string {
	if s == nil {
		return ""
	}
	column := map[string]int{"low": 0, "": 1, "medium": 1, "high": 2}
	i, ok := column[mission]
	row := decisions[s.Exploitation+" "+s.Automatable+" "+s.Impact]
	if !ok || row == [3]string{} {
		return ""
	}
	return row[i]
}

// decisions by exploitation, automatable and technical impact; the columns are low, medium and high mission.
var decisions = map[string][3]string{
	"none no partial":    {"track", "track", "track"},
	"none no total":      {"track", "track", "track*"},
	"none yes partial":   {"track", "track", "attend"},
	"none yes total":     {"track", "track", "attend"},
	"poc no partial":     {"track", "track", "track*"},
	"poc no total":       {"track", "track*", "attend"},
	"poc yes partial":    {"track", "track", "attend"},
	"poc yes total":      {"track", "track*", "attend"},
	"active no partial":  {"track", "track", "attend"},
	"active no total":    {"track", "attend", "act"},
	"active yes partial": {"attend", "attend", "act"},
	"active yes total":   {"attend", "act", "act"},
}
