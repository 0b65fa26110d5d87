// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
)

// draftLimit is how many characters a draft of any field may have. What a report may have is the field's own limit and is
// asked for when it is submitted: a text that is still too long is better kept than lost.
const draftLimit = 16_000

// Filled is what a person wrote into a field.
type Filled struct {
	Value string    `json:"value"`
	Seq   int64     `json:"seq" doc:"The event that says so"`
	At    time.Time `json:"at"`
	Actor string    `json:"actor"`
}

// question is one field with what each profile asks of it. The union of the profiles is asked: the reporting platform's
// fields as they were when the case was opened, and what the law asks for besides.
type question struct {
	law.Field
	law  law.Field
	asks bool // the law asks, too
}

// questions are the fields that concern a kind of case, in the order of the reporting platform's tabs. A case whose
// version is not known any more is asked the newest.
func questions(version string, k Kind) (srp law.Glossary, out []question) {
	srp, ok := law.SRP(version)
	if !ok {
		srp = law.NewestSRP()
	}
	concerns := func(f law.Field) bool { return f.Kind == "" || f.Kind == string(k) }
	for _, f := range srp.Fields {
		if concerns(f) {
			l, asks := law.Demanded().Field(f.ID)
			out = append(out, question{f, l, asks})
		}
	}
	for _, l := range law.Demanded().Fields {
		if _, has := srp.Field(l.ID); !has && concerns(l) { // the platform had no field for it yet
			f := l
			f.EarlyWarning, f.Notification, f.Final = law.Absent, law.Absent, law.Absent
			out = append(out, question{f, l, true})
		}
	}
	return srp, out
}

// need is what a profile asks of a field at a stage.
func need(f law.Field, st Stage) law.Need {
	switch st {
	case EarlyWarning:
		return f.EarlyWarning
	case Notification:
		return f.Notification
	default:
		return f.Final
	}
}

// needs is what both profiles together ask of the field at a stage. What was required before stays so when it is carried.
func (q question) needs(st Stage) law.Need {
	n := need(q.Field, st)
	if q.asks {
		n = n.Stronger(need(q.law, st))
	}
	if first, ok := before[st]; ok && n == law.Carried && q.needs(first) == law.Required {
		return law.Required
	}
	return n
}

// fault is why a value cannot stand in a report, "" when it can.
func (q question) fault(value string) string {
	switch {
	case value == "":
		return ""
	case q.Limit > 0 && utf8.RuneCountInString(value) > q.Limit:
		return "too long"
	case q.Form == law.Choice && !slices.Contains(q.Options, value):
		return "not one of the choices"
	case q.Form == law.Instant:
		if _, err := parseInstant(value); err != nil {
			return "not a date and time with an offset"
		}
	}
	return ""
}

// instantLayouts are how people may write an instant; each has an offset.
var instantLayouts = []string{time.RFC3339, "2006-01-02T15:04Z07:00", "2006-01-02 15:04Z07:00", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04 MST", "2006-01-02 15:04:05 MST"}

// parseInstant reads an instant. One without an offset is refused: nobody could say later which wall it hung on. Of the
// names of zones only UTC says which offset it is.
func parseInstant(v string) (time.Time, error) {
	for _, layout := range instantLayouts {
		t, err := time.Parse(layout, v)
		if err == nil && (!strings.HasSuffix(layout, "MST") || strings.HasSuffix(v, "UTC")) {
			return t, nil
		}
	}
	return time.Time{}, problem.Invalid("%q is not an instant.", v).Hint("Write it like 2026-11-21T22:50Z or 2026-11-21T23:50+01:00; the offset is needed.")
}

// checkFilled lets people write into any field that is not the case's own fact. It knows no limits but the drafts'.
func checkFilled(s State, e Event) error {
	d := e.Data
	if len(d.Fields)+len(d.Reset) == 0 {
		return problem.Invalid("Name at least one field.").At("fields")
	}
	for id, value := range d.Fields {
		if err := checkField(s, id, d.Seen); err != nil {
			return err
		}
		if !text(value, 0, draftLimit) {
			return problem.TooLarge("A draft has at most %d characters of UTF-8.", draftLimit).At(id)
		}
	}
	for _, id := range d.Reset {
		if err := checkField(s, id, d.Seen); err != nil {
			return err
		}
	}
	return nil
}

func checkField(s State, id string, seen int64) error {
	f, ok := fieldAnywhere(id)
	switch {
	case !ok || f.Kind != "" && f.Kind != string(s.Kind):
		return problem.Invalid("A report of this kind has no field %q.", id).At(id)
	case f.Form == law.Fact:
		return problem.Forbidden("respond.fact", "%s is what the case says; record what happened instead.", f.Label).At(id)
	case seen > 0 && s.Fields[id].Seq > seen:
		return problem.Conflict("Somebody else wrote into %q meanwhile.", f.Label).At(id).Hint("Look at what stands there now, then save again.")
	}
	return nil
}

// fieldAnywhere finds a field in any version: a case keeps its own, and which one that is is not the log's to say.
func fieldAnywhere(id string) (law.Field, bool) {
	for _, g := range slices.Backward(append([]law.Glossary{law.Demanded()}, law.SRPs()...)) {
		if f, ok := g.Field(id); ok {
			return f, true
		}
	}
	return law.Field{}, false
}

// fill folds what people wrote. Title and summary are also what the case is called.
func (s *State) fill(e Event) {
	if s.Fields == nil {
		s.Fields = map[string]Filled{}
	}
	for id, value := range e.Data.Fields {
		s.Fields[id] = Filled{Value: value, Seq: e.Seq, At: e.Recorded, Actor: e.Actor}
	}
	for _, id := range e.Data.Reset {
		delete(s.Fields, id)
	}
	if title, ok := e.Data.Fields["title"]; ok && text(title, 1, 255) {
		s.Title = title
	}
	if summary, ok := e.Data.Fields["summary"]; ok && text(summary, 0, 4000) {
		s.Summary = summary
	}
}
