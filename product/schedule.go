// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"slices"
	"time"
)

// Steps are the months before the end of support at which notices are due, 0 for the end itself and -1 for the month
// after it.
var Steps = []int{24, 12, 6, 3, 1, 0, -1}

// The kinds of notices.
const (
	NoticeScheduled  = "scheduled"  // support will end
	NoticeEnded      = "ended"      // support has ended
	NoticeCorrection = "correction" // support was extended after somebody was told of its end
)

// stepCorrection is the step of a correction; it is no number of months.
const stepCorrection = -99

// Notice is one thing to tell the users of a cohort. It is the data of the event support.notice.
type Notice struct {
	Tenant   string `json:"tenant"`
	Product  string `json:"product"`
	Revision string `json:"revision"`
	Cohort   string `json:"cohort"`
	Kind     string `json:"kind" enum:"scheduled,ended,correction"`
	Step     int    `json:"step" doc:"24, 12, 6, 3, 1, 0 at the end, -1 a month after it; 0 in a correction"`
	Months   int    `json:"months_left" doc:"Months that are left, the one in which support ends included; 0 after the end"`
	End      Month  `json:"support_end" doc:"The month at whose last instant support ends"`
	Was      Month  `json:"was,omitempty" doc:"The end that a correction replaces"`
	Version  int64  `json:"version" doc:"Of the published declaration"`
}

// told is a notice that is on record: announced, or left out because a later step was due as well.
type told struct {
	end  Month
	step int
	skip bool
}

// due says what is to be announced now for a cohort whose newest published support ends at the end of the month, and
// which earlier steps are left out: after a pause only the newest step is told, since "24 months left" is not true any
// more. It is pure. Steps of an end that was extended are never due again; whoever was told of that end gets one correction.
// A clock that goes back brings nothing back: what is on record stays.
func due(end Month, loc *time.Location, now time.Time, record []told) (announce, leave []told, was Month) {
	for _, t := range record {
		if t.end < end && !t.skip && t.step != stepCorrection {
			was = max(was, t.end)
		}
	}
	// One correction for each end, however many were told before it.
	if was != "" && !slices.ContainsFunc(record, func(t told) bool { return t.end == end && t.step == stepCorrection }) {
		announce = append(announce, told{end: end, step: stepCorrection})
	}
	var open []told
	reached := 0 // how many steps are over, on record or not
	for i, step := range Steps {
		if now.Before(end.Before(step).End(loc)) {
			break
		}
		reached = i + 1
		if !slices.ContainsFunc(record, func(t told) bool { return t.end == end && t.step == step }) {
			open = append(open, told{end: end, step: step})
		}
	}
	for _, t := range open {
		if t.step == Steps[reached-1] {
			announce = append(announce, t)
		} else {
			t.skip = true
			leave = append(leave, t)
		}
	}
	return announce, leave, was
}

// nextStep is when the next notice for this end becomes due, the zero time when none will.
func nextStep(end Month, loc *time.Location, now time.Time) time.Time {
	for _, step := range Steps {
		if at := end.Before(step).End(loc); now.Before(at) {
			return at
		}
	}
	return time.Time{}
}

// kindOf is the kind of notice that a step brings.
func kindOf(step int) string {
	switch {
	case step == stepCorrection:
		return NoticeCorrection
	case step <= 0:
		return NoticeEnded
	}
	return NoticeScheduled
}

// monthsLeft counts the months that still end before support does, the month of its end included; none after it.
func monthsLeft(end Month, loc *time.Location, now time.Time) (n int) {
	for n < 12*100 && now.Before(end.Before(n).End(loc)) {
		n++
	}
	return n
}
