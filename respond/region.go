// SPDX-License-Identifier: AGPL-3.0-only

package respond

import "time"

// Reach is how far the users of the product were informed (CRA Art. 14(8)).
type Reach string

// The reaches, in order. Informing all covers the impacted ones; nothing takes it back.
const (
	ReachNone     Reach = "none"
	ReachImpacted Reach = "impacted"
	ReachAll      Reach = "all"
)

// Spread says who else is to be expected to know what was notified.
type Spread string

// The states of dissemination. Assumed is the end of the 72 hours after which the CSIRT shall disseminate; whoever was
// promised silence is to be told before.
const (
	SpreadNormal   Spread = "normal"
	SpreadExpected Spread = "mitigation-expected"
	SpreadPEC      Spread = "pec"
	SpreadAssumed  Spread = "assumed-disseminated"
)

// Ground is one of the three particularly exceptional circumstances of CRA Art. 16(2).
type Ground string

// The grounds, shortened. The second is for the Member State's essential interests to be judged, not the manufacturer's.
const (
	OneMemberState     Ground = "one-member-state"
	EssentialInterests Ground = "essential-interests"
	ImminentRisk       Ground = "imminent-risk"
)

type groundText struct {
	Ground Ground
	Text   string
}

// Grounds lists the grounds with words for people.
var Grounds = []groundText{
	{OneMemberState, "exploited, as far as is known, in no other Member State than the coordinator's"},
	{EssentialInterests, "spreading it further would be contrary to the essential interests of that Member State"},
	{ImminentRisk, "spreading it further would itself be an imminent high cybersecurity risk"},
}

// expectedWithin is how soon a measure must be expected for dissemination to be delayed (Delegated Regulation (EU)
// 2026/881 Art. 3(a)), and so when it is over.
const expectedWithin = 72 * time.Hour

// Dissemination is what was asked of the CSIRT about passing the notification on. Neither request is granted here: the
// CSIRT decides, and a countdown that has begun is stopped by nothing.
type Dissemination struct {
	Expected time.Time `json:"expected,omitzero" doc:"When it was filed that a measure is expected within 72 hours"`
	Ends     time.Time `json:"ends,omitzero" doc:"72 hours later; from then on assume that others know"`
	Ground   Ground    `json:"ground,omitempty" enum:"one-member-state,essential-interests,imminent-risk"`
	Invoked  time.Time `json:"invoked,omitzero" doc:"When the exceptional circumstances were filed"`
	Lost     time.Time `json:"lost,omitzero" doc:"When the ground no longer held"`
}

// At is the state of dissemination at an instant.
func (d Dissemination) At(now time.Time) Spread {
	switch {
	case !d.Ends.IsZero() && !now.Before(d.Ends):
		return SpreadAssumed
	case !d.Invoked.IsZero() && d.Lost.IsZero():
		return SpreadPEC
	case !d.Expected.IsZero():
		return SpreadExpected
	default:
		return SpreadNormal
	}
}

// Upstream is a report to whoever makes or maintains a component (CRA Art. 13(6)).
type Upstream struct {
	Component string    `json:"component"`
	At        time.Time `json:"at"`
	Note      string    `json:"note" doc:"Who was told, and how"`
}

// PublicationHold keeps advisories about the case unpublished, for a reason and until a day. It holds back no report and no word to
// impacted users.
type PublicationHold struct {
	Since    time.Time `json:"since,omitzero"`
	Until    time.Time `json:"until,omitzero"`
	Reason   string    `json:"reason,omitempty"`
	Released time.Time `json:"released,omitzero"`
}

// Holds reports whether publication is held back at an instant.
func (h PublicationHold) Holds(now time.Time) bool {
	return !h.Since.IsZero() && h.Released.IsZero() && now.Before(h.Until)
}

// Outage is a time in which the reporting platform could not be reached. It is evidence and pauses no clock (ENISA SRP FAQ
// Q25).
type Outage struct {
	From  time.Time `json:"from"`
	Until time.Time `json:"until,omitzero" doc:"Absent while it lasts"`
	Note  string    `json:"note"`
}

// Request is an intermediate report that a CSIRT asked for (CRA Art. 14(6)).
type Request struct {
	Seq      int64     `json:"seq"`
	At       time.Time `json:"at"`
	Due      time.Time `json:"due"`
	Text     string    `json:"text"`
	Answered time.Time `json:"answered,omitzero"`
}

// Regions are what goes on in a case beside its reports, as of an instant.
type Regions struct {
	Users         Reach           `json:"users" enum:"none,impacted,all"`
	UsersInformed time.Time       `json:"users_informed,omitzero"`
	Spread        Spread          `json:"spread" enum:"normal,mitigation-expected,pec,assumed-disseminated"`
	Dissemination Dissemination   `json:"dissemination"`
	Upstream      []Upstream      `json:"upstream,omitempty"`
	Held          bool            `json:"held" doc:"Publication is held back"`
	Hold          PublicationHold `json:"hold"`
	Requests      []Request       `json:"requests,omitempty"`
	Availability  []Outage        `json:"availability,omitempty" doc:"Outages of the reporting platform; they pause no clock"`
}

// Regions are the parallel states of the case as of an instant.
func (s State) Regions(now time.Time) Regions {
	return Regions{Users: s.Users, UsersInformed: s.UsersInformed, Spread: s.Dissemination.At(now), Dissemination: s.Dissemination, Upstream: s.Upstream,
		Held: s.Hold.Holds(now), Hold: s.Hold, Requests: s.Requests, Availability: s.Availability}
}

// outage is the outage that lasts, if one does.
func (s State) outage() (Outage, bool) {
	if n := len(s.Availability); n > 0 && s.Availability[n-1].Until.IsZero() {
		return s.Availability[n-1], true
	}
	return Outage{}, false
}
