// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/console"
)

// act is something that a person can record about a report now.
type act struct {
	Kind          EventKind
	Title, Button string
	First, Danger bool
	Fields        []field
}

type field struct {
	Name, Label, Type, Value, Hint string
	Required                       bool
	Options                        []console.Option
}

// eventWords are what happened, for people.
var eventWords = map[EventKind]string{ReportReceived: "The report came", FinderAdded: "The finder added something", ReportAck: "Acknowledged", ReportTriaged: "Triaged",
	ReportConfirmed: "Confirmed", RemediationBegun: "A fix is being made", FixReady: "A fix is available", ReportPublished: "Published", ReportClosed: "Closed", FinderTold: "Answered",
	SignalOpened: "An assessment was asked for", EmbargoSet: "Embargo set", EmbargoEnded: "Embargo ended", UpstreamOpened: "The maker of a component is to be told",
	UpstreamClosed: "The maker of a component was told", DisputeOpened: "Disputed", DisputeSettled: "Dispute settled", DateMoved: "Date of publication moved",
	FinderErased: "The finder's identity was erased", DeadlineSoon: "Soon due", DeadlineOverdue: "Overdue"}

// Words is what happened, for people.
func (e Event) Words() string {
	out := eventWords[e.Kind]
	switch {
	case e.Data.Verdict != "":
		out += ": " + e.Data.Verdict.Words()
	case e.Data.Timer != "":
		out += ": " + timerNames[e.Data.Timer]
	}
	return out
}

var verdictWords = map[Verdict]string{Valid: "valid", Duplicate: "a duplicate", OutOfScope: "out of scope", NotReproducible: "not reproducible"}

// Words is the verdict for people.
func (v Verdict) Words() string { return verdictWords[v] }

// acts are what can be recorded about the report in its state, the next step first.
func acts(r Report, products []console.Option, now time.Time) []act {
	at := field{Name: "at", Label: "At", Value: now.Format(time.RFC3339), Required: true, Hint: "With an offset"}
	say := func(label string) field { return field{Name: "note", Label: label, Type: "text", Required: true} }
	product := field{Name: "product", Label: "Product", Type: "choice", Options: products}
	due := field{Name: "due", Label: "Until", Required: true, Hint: "With an offset"}
	var out, again []act
	next := func(a act) { a.First = len(out) == 0; out = append(out, a) }
	if r.Status == Received {
		next(act{Kind: ReportAck, Title: "Acknowledge", Button: "Acknowledge", Fields: []field{say("What the finder is told")}})
	} else if r.URL == "" && r.Status != Closed {
		a := act{Kind: ReportTriaged, Title: "Triage", Button: "Record the verdict", Fields: []field{
			{Name: "verdict", Label: "Verdict", Type: "choice", Options: []console.Option{{Value: string(Valid), Word: "Valid"}, {Value: string(Duplicate), Word: "Duplicate"}, {Value: string(OutOfScope), Word: "Out of scope"}, {Value: string(NotReproducible), Word: "Not reproducible"}}},
			{Name: "of", Label: "Duplicate of", Hint: "Number of the other report"}, product, say("The reason, for the finder")}}
		if r.Verdict == "" {
			next(a)
		} else {
			a.Title = "Triage again"
			again = append(again, a)
		}
	}
	if r.Status == Triaged && r.Verdict == Valid {
		next(act{Kind: ReportConfirmed, Title: "Confirm", Button: "Confirm", Fields: []field{product, {Name: "vulnerability", Label: "Vulnerability", Hint: "Such as a CVE number"}, say("What was confirmed, for the finder")}})
	}
	if r.Status == Confirmed {
		next(act{Kind: RemediationBegun, Title: "A fix is being made", Button: "Record", Fields: []field{{Name: "note", Label: "Note", Type: "text"}}})
	}
	if r.Status == Confirmed || r.Status == Remediating {
		next(act{Kind: FixReady, Title: "A fix is available", Button: "Record", Fields: []field{at, {Name: "release", Label: "Release"}, say("What repairs it, for the finder")}})
	}
	if slices.Contains([]Status{Confirmed, Remediating, FixAvailable}, r.Status) {
		next(act{Kind: ReportPublished, Title: "It is public", Button: "Record the publication", Fields: []field{{Name: "advisory", Label: "Advisory", Hint: "Number of the published advisory; or else the time and address below"},
			{Name: "at", Label: "At", Hint: "With an offset"}, {Name: "url", Label: "Address", Hint: "https:"}, say("What the finder is told, with the credit")}})
	}
	out = append(out, again...)
	if r.Status != Received {
		next(act{Kind: FinderTold, Title: "Answer the finder", Button: "Send the answer", Fields: []field{say("What the finder reads behind the status link")}})
	}
	if r.Status == Closed {
		if r.Erased.IsZero() {
			next(erase)
		}
		return out
	}
	next(act{Kind: FinderAdded, Title: "The finder answered elsewhere", Button: "Record", Fields: []field{{Name: "exploited", Label: "Seen exploited?", Type: "choice", Options: append([]console.Option{{Word: "nothing new"}}, answers...), Hint: "Yes asks for an assessment at once"}, product, say("What")}})
	next(act{Kind: UpstreamOpened, Title: "A component of somebody else is concerned", Button: "Open the task", Fields: []field{{Name: "component", Label: "Component", Required: true, Hint: "Such as a purl. Its maker is to be told (CRA Art. 13(6))"}, {Name: "note", Label: "Note", Type: "text"}}})
	if open := openTasks(r.Tasks); len(open) > 0 {
		next(act{Kind: UpstreamClosed, Title: "The maker of a component was told", Button: "Close the task", Fields: []field{{Name: "task", Label: "Task", Type: "choice", Options: open}, at, say("Evidence: who was told, and their ticket or answer")}})
	}
	next(act{Kind: DateMoved, Title: "Move the date of publication", Button: "Move", Fields: []field{due, say("What was agreed with the finder, and why")}})
	list := ""
	if r.Embargo != nil {
		list = strings.Join(r.Embargo.People, ", ")
	}
	next(act{Kind: EmbargoSet, Title: "Set or change an embargo", Button: "Set the embargo", Danger: true, Fields: []field{due,
		{Name: "people", Label: "Who may read", Value: list, Hint: "Ids of people. Nobody else can, whatever their role, and nobody can add themselves; you are on it. It does not bind the CSIRT"}, say("Parties and reason")}})
	if slices.Contains(r.Sides, Embargoed) {
		next(act{Kind: EmbargoEnded, Title: "End the embargo", Button: "End it", Fields: []field{say("Why")}})
	}
	if slices.Contains(r.Sides, Disputed) {
		next(act{Kind: DisputeSettled, Title: "The dispute is settled", Button: "Record", Fields: []field{say("How, for the finder")}})
	} else if r.Verdict != "" {
		next(act{Kind: DisputeOpened, Title: "The finder disputes it", Button: "Record", Fields: []field{say("What is disputed")}})
	}
	if r.Erased.IsZero() {
		next(erase)
	}
	if r.Verdict != "" {
		next(act{Kind: ReportClosed, Title: "Close", Button: "Close", Fields: []field{say("Why, for the finder")}})
	}
	return out
}

var erase = act{Kind: FinderErased, Title: "Erase who the finder is", Button: "Erase for ever", Danger: true, Fields: []field{{Name: "note", Label: "On whose wish; the report itself stays", Type: "text", Required: true}}}

func openTasks(ts []Task) (out []console.Option) {
	for _, t := range ts {
		if t.Closed.IsZero() {
			out = append(out, console.Option{Value: strconv.FormatInt(t.Seq, 10), Word: t.Component})
		}
	}
	return out
}
