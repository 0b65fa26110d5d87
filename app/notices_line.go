// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/notify"
	"github.com/openthings-platform/openthings/store"
)

// What the line announces, as far as people are told of it.
type (
	surplus struct {
		Batch    string `json:"batch"`
		Station  string `json:"station,omitempty"` // who wanted more than its quota; empty: the batch was closed
		Quota    int64  `json:"quota,omitempty"`
		Serial   string `json:"serial,omitempty"`
		Issued   int64  `json:"issued,omitempty"`
		Produced int64  `json:"produced,omitempty"`
		Serials  int64  `json:"serials,omitempty"` // identities that the factory's list does not name
	}
	wrongClock struct {
		Station string `json:"station"`
		OffMS   int64  `json:"off_ms"`
		Serial  string `json:"serial"`
	}
	fork struct {
		Station string `json:"station"`
		Seq     int64  `json:"seq"`
		Serial  string `json:"serial"`
	}
	refusedUnit struct {
		Station string `json:"station"`
		Serial  string `json:"serial"`
		Device  string `json:"device"`
		Rule    string `json:"rule"`
		Detail  string `json:"detail"`
	}
	refusedByCA struct {
		CA     string `json:"ca"`
		Serial string `json:"serial,omitempty"`
		Rule   string `json:"rule"`
		Text   string `json:"text"`
	}
	flood struct {
		Serial string `json:"serial"`
		Door   string `json:"door"`
		Place  string `json:"place"`
	}
)

// aDay is the key of what is told of a subject once a day, however often it happens.
func aDay(e store.Event) string {
	return e.Topic + "_" + e.Subject + "_" + store.Time(e.At).UTC().Format("20060102")
}

func surplusNotice(h *house, ctx context.Context, e store.Event) (n notify.Notice, err error) {
	var x surplus
	if err := e.Decode(&x); err != nil {
		return n, err
	}
	if x.Station != "" {
		return notify.Notice{Title: fmt.Sprintf("The line station %s wanted more units than its quota of %d", h.called(ctx, x.Station), x.Quota), Severity: notify.Grave,
			Text: "The first was " + x.Serial + "; it got no identity. Find out what stands at the line. If nobody of yours asked, kill the station: its page does it.", Link: "/enrol/stations/" + x.Station, Data: x}, nil
	}
	n = notify.Notice{Title: fmt.Sprintf("More identities than units: %s has %d, and %d were made", h.called(ctx, e.Subject), x.Issued, x.Produced), Severity: notify.Grave,
		Text: "Each that is too many may be in a counterfeit. The page of the batch leads to its devices and stations: find out which made them, and suspend what nobody holds in their hands.", Link: "/enrol/batches/" + e.Subject, Data: x}
	if x.Serials > 0 {
		n.Title = fmt.Sprintf("Identities without a unit: %d of %s are not in the list of what was made", x.Serials, h.called(ctx, e.Subject))
	}
	return n, nil
}

func clockNotice(h *house, ctx context.Context, e store.Event) (n notify.Notice, err error) {
	var x wrongClock
	if err := e.Decode(&x); err != nil {
		return n, err
	}
	off, side := time.Duration(x.OffMS)*time.Millisecond, "ahead"
	if off < 0 {
		side = "behind"
	}
	return notify.Notice{Title: fmt.Sprintf("The clock of the line station %s is %s %s: what it asks for is refused", h.called(ctx, e.Subject), off.Abs().Round(time.Second), side),
		Text: "Set its clock. If nobody touched it, somebody may be replaying old requests, or has taken the station: then kill it. It is told once.", Link: "/enrol/stations/" + e.Subject, Data: x}, nil
}

func forkNotice(h *house, ctx context.Context, e store.Event) (n notify.Notice, err error) {
	var x fork
	if err := e.Decode(&x); err != nil {
		return n, err
	}
	return notify.Notice{Title: "A copy of the line station " + h.called(ctx, e.Subject) + " is at work", Severity: notify.Critical,
		Text: fmt.Sprintf("It has shown two different journals, from entry %d on, and nothing of the second is taken. Stop both stations, kill it, and look at what both have made.", x.Seq), Link: "/enrol/stations/" + e.Subject, Data: x}, nil
}

// refusedNotice tells of a station once a day: a journal may bring thousands, and its page lists them all.
func refusedNotice(h *house, ctx context.Context, e store.Event) (n notify.Notice, err error) {
	var x refusedUnit
	if err := e.Decode(&x); err != nil {
		return n, err
	}
	return notify.Notice{Title: "Units of the line station " + h.called(ctx, e.Subject) + " were brought and not taken: " + x.Serial,
		Text: strings.TrimSuffix(x.Detail, ".") + ". Nobody trusts such a unit, and it should not leave the factory. A station is told of once a day; its page lists all that were refused.",
		Link: "/enrol/stations/" + e.Subject, Data: x, Key: aDay(e)}, nil
}

// refusedByCANotice tells of a trusted CA once a day for each reason: what keeps one device out may keep out all.
func refusedByCANotice(h *house, ctx context.Context, e store.Event) (n notify.Notice, err error) {
	var x refusedByCA
	if err := e.Decode(&x); err != nil {
		return n, err
	}
	latest := "The certificate does not say which device it was. "
	if x.Serial != "" {
		latest = "The latest was " + x.Serial + ". "
	}
	return notify.Notice{Title: "Devices of the trusted CA " + h.called(ctx, e.Subject) + " are kept out: " + strings.TrimSuffix(x.Text, "."),
		Text: latest + "It is told once a day for each reason; whoever copied a certificate can knock with it, too. See whether they are yours, and what the CA may bring.",
		Link: "/enrol/admission", Data: x, Key: aDay(e) + "_" + x.Rule}, nil
}

// floodNotice tells of whoever names serial numbers of others once a day; each node would say so once an hour.
func floodNotice(h *house, ctx context.Context, e store.Event) (n notify.Notice, err error) {
	var x flood
	if err := e.Decode(&x); err != nil {
		return n, err
	}
	who, link, end := h.called(ctx, e.Subject), "/enrol/admission", "distrust the CA, or revoke the token"
	if strings.HasPrefix(e.Subject, "sta_") {
		who, link, end = "the line station "+who, "/enrol/stations/"+e.Subject, "kill the station"
	}
	return notify.Notice{Title: "Somebody names serial numbers of other units: " + who, Severity: notify.Grave,
		Text: "The latest was " + x.Serial + ". They are refused, and no more units are suspended for it. It was stolen, or is in wrong hands: " + end + ", and then decide in the quarantine about those that are suspended.", Link: link, Data: x, Key: aDay(e)}, nil
}

// endingNotice tells of an authority that needs a successor; who administers the machine makes it.
func endingNotice(_ *house, _ context.Context, e store.Event) (n notify.Notice, err error) {
	var x identity.Ending
	if err := e.Decode(&x); err != nil {
		return n, err
	}
	day := x.NotAfter.UTC().Format(time.DateOnly)
	n = notify.Notice{Title: fmt.Sprintf("The authority %s ends on %s", e.Subject, day), Text: "It is time to make its successor.", Link: "/issuers", Data: x}
	switch x.Level {
	case "leaf":
		n.Severity, n.Text = notify.Grave, "What it signs from now on would outlive it, and is cut short or refused."
	case "over":
		n.Severity, n.Title, n.Text = notify.Critical, fmt.Sprintf("The authority %s has ended on %s", e.Subject, day), "It signs nothing any more, and nothing that it signed is trusted by others."
	}
	if x.Successor {
		n.Text += " One stands by: see which devices know it, and promote it (openthings ca promote)."
	} else {
		n.Text += " None stands by: the runbook of the rollover says how it is made."
	}
	return n, nil
}

// listsNotice tells once a day, whichever node saw it.
func listsNotice(_ *house, _ context.Context, e store.Event) (n notify.Notice, err error) {
	var x identity.ListsEnding
	if err := e.Decode(&x); err != nil {
		return n, err
	}
	title, see := "Revocation lists or OCSP answers are about to end", " See whether the issuer can be reached."
	if x.Clock {
		title, see = "No revocation list is signed: the clock of a node is in doubt", ""
	}
	return notify.Notice{Title: title, Severity: notify.Grave, Text: x.Alarm + " The platform itself refuses what is revoked all the same." + see, Link: "/revocations", Data: x, Key: aDay(e), Thread: listsThread}, nil
}

// listsThread joins what is told of the published lists: they are one thing, from the alarm to its end.
const listsThread = "revocation-lists"
