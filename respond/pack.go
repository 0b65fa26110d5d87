// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

// Pack is one report in the field vocabulary of the Single Reporting Platform, in its order, to be copied there by a
// person. The platform has no programming interface (ENISA FAQ), so nothing is ever sent from here.
type Pack struct {
	Case      string      `json:"case"`
	Kind      Kind        `json:"kind" enum:"aev,si"`
	Stage     Stage       `json:"stage"`
	Drill     bool        `json:"drill" doc:"An exercise: never to be filed"`
	Glossary  string      `json:"glossary" doc:"Version of the reporting platform's field set that the case was opened under"`
	Profiles  []string    `json:"profiles" doc:"Whose fields are asked for: the law's and the reporting platform's"`
	Made      time.Time   `json:"made"`
	Fields    []PackField `json:"fields"`
	Missing   []string    `json:"missing" doc:"Required fields that are empty"`
	Faults    []Fault     `json:"faults" doc:"What keeps the report from being recorded as submitted"`
	Annex     []string    `json:"annex,omitempty" doc:"Every affected version, where the field has no room for all"`
	Countries Countries   `json:"countries"`
	Digest    string      `json:"sha256" doc:"SHA-256 of the canonical bytes: what the report says, without when it was drafted"`
}

// PackField is one field with its value.
type PackField struct {
	ID      string    `json:"id"`
	Number  string    `json:"nr,omitempty" doc:"In the reporting platform's glossary"`
	Label   string    `json:"label"`
	Form    law.Form  `json:"form" enum:"line,lines,instant,choice,fact"`
	Options []string  `json:"options,omitempty"`
	Limit   int       `json:"limit,omitempty" doc:"Characters at most; 0: no limit known"`
	Need    law.Need  `json:"need" doc:"What the profiles together ask for at this stage"`
	Asks    []Ask     `json:"asks" doc:"Which profile asks for what"`
	Value   string    `json:"value"`
	Source  string    `json:"source,omitempty" doc:"Where the value comes from"`
	Edited  bool      `json:"edited,omitempty" doc:"A person wrote it; drafts do not replace it"`
	By      string    `json:"by,omitempty" doc:"Who wrote it"`
	At      time.Time `json:"at,omitzero" doc:"When"`
	Draft   string    `json:"draft,omitempty" doc:"What would stand there otherwise, where that differs"`
	Used    int       `json:"used" doc:"Characters in the value"`
	Over    bool      `json:"over,omitempty" doc:"The value is longer than the field takes"`
	Fault   string    `json:"fault,omitempty"`

	draftSource string
}

// Ask is what one profile asks of a field at a stage.
type Ask struct {
	Profile string   `json:"profile" doc:"law or srp, with its version"`
	Need    law.Need `json:"need"`
	Ref     string   `json:"ref,omitempty" doc:"Where the law says so"`
}

// Fault is why a report is not complete: the field, and who asks for it.
type Fault struct {
	Field string `json:"field"`
	Label string `json:"label"`
	Why   string `json:"why"`
	Rule  string `json:"rule"`
}

// Complete reports whether everything that the stage asks for is there and fits.
func (p Pack) Complete() bool { return len(p.Faults) == 0 }

// Stages are the reports that a pack can be drafted for.
func (Pack) Stages() []Stage { return []Stage{EarlyWarning, Notification, Final} }

// Canonical is what the report says, as JSON in the form of RFC 8785: keys sorted, nothing between the tokens. Its digest
// changes when the report does, not when it is drafted again.
func (p Pack) Canonical() ([]byte, error) {
	type field struct {
		ID    string `json:"id"`
		Label string `json:"label"`
		Value string `json:"value"`
	}
	content := struct { // in the order of the alphabet
		Annex    []string `json:"annex"`
		Case     string   `json:"case"`
		Drill    bool     `json:"drill"`
		Fields   []field  `json:"fields"`
		Kind     Kind     `json:"kind"`
		Profiles []string `json:"profiles"`
		Stage    Stage    `json:"stage"`
	}{p.Annex, p.Case, p.Drill, []field{}, p.Kind, p.Profiles, p.Stage}
	if content.Annex == nil {
		content.Annex = []string{}
	}
	for _, f := range p.Fields {
		if f.Value != "" {
			content.Fields = append(content.Fields, field{f.ID, f.Label, f.Value})
		}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(content); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// clean makes a text the same whichever form or program it came through. The two separators of lines that JavaScript
// knows and nobody types become newlines, so that Canonical needs no escapes of its own.
func clean(s string) string {
	return strings.TrimSpace(strings.NewReplacer("\r\n", "\n", "\r", "\n", "\u2028", "\n", "\u2029", "\n").Replace(s))
}

// assemble lays out the fields of a stage: what people wrote, else what is drafted.
func assemble(c Case, st Stage, drafts map[string]drafted, now time.Time) Pack {
	srp, qs := questions(c.Glossary, c.Kind)
	p := Pack{Case: c.ID, Kind: c.Kind, Stage: st, Glossary: srp.Version, Profiles: []string{law.Demanded().Name(), srp.Name()}, Made: now,
		Missing: []string{}, Faults: []Fault{}}
	for _, q := range qs {
		f := PackField{ID: q.ID, Number: q.Number, Label: q.Label, Form: q.Form, Options: q.Options, Limit: q.Limit, Need: q.needs(st), Asks: q.asked(c.Kind, st, srp)}
		d := drafts[q.ID]
		d.value = clean(d.value)
		f.Value, f.Source, f.draftSource = d.value, d.source, d.source
		if w, ok := c.state.Fields[q.ID]; ok {
			f.Value, f.Source, f.Edited, f.By, f.At = w.Value, "written by a person", true, w.Actor, w.At
			if d.value != "" && d.value != w.Value {
				f.Draft = d.value
			}
		}
		f.Used = utf8.RuneCountInString(f.Value)
		f.Over = f.Limit > 0 && f.Used > f.Limit
		switch f.Fault = q.fault(f.Value); {
		case f.Need == law.Absent:
			f.Fault = "" // it is not asked for at this stage
		case f.Value == "" && f.Need == law.Required && q.ID != "manufacturer": // the reporting platform fills that by itself
			f.Fault = "missing"
			p.Missing = append(p.Missing, q.ID)
		}
		if f.Fault != "" {
			p.Faults = append(p.Faults, Fault{q.ID, q.Label, f.why(), f.rule()})
		}
		p.Fields = append(p.Fields, f)
	}
	return p
}

// asked is what each profile asks of the field at a stage.
func (q question) asked(k Kind, st Stage, srp law.Glossary) []Ask {
	var out []Ask
	if q.asks && need(q.law, st) != law.Absent {
		a := Ask{Profile: law.Demanded().Name(), Need: need(q.law, st)}
		for _, id := range q.law.Rules {
			if r, ok := law.Get(id); ok && strings.HasPrefix(id, pick(k, "cra.14.2.", "cra.14.4.")) {
				a.Ref = r.Ref
			}
		}
		out = append(out, a)
	}
	if _, has := srp.Field(q.ID); has {
		out = append(out, Ask{Profile: srp.Name(), Need: need(q.Field, st)})
	}
	return out
}

func (f PackField) why() string {
	if f.Over {
		return fmt.Sprintf("has %d characters, %d at most", f.Used, f.Limit)
	}
	return f.Fault
}

// rule names who asks for the field.
func (f PackField) rule() string {
	var who []string
	for _, a := range f.Asks {
		if a.Ref != "" {
			who = append(who, a.Ref)
		} else {
			who = append(who, a.Profile)
		}
	}
	return strings.Join(who, ", ")
}

// stageNow is the report that comes next.
func stageNow(s State) Stage {
	switch {
	case s.has(Notification):
		return Final
	case s.has(EarlyWarning):
		return Notification
	default:
		return EarlyWarning
	}
}

// Pack drafts a report of the case; an empty stage is the next one.
func (s *Service) Pack(ctx context.Context, id string, st Stage) (Pack, error) {
	c, err := s.Case(ctx, id)
	if err != nil {
		return Pack{}, err
	}
	return s.pack(ctx, tenant.MustTenant(ctx), c, st)
}

func (s *Service) pack(ctx context.Context, t string, c Case, st Stage) (Pack, error) {
	switch st {
	case "":
		st = stageNow(c.state)
	case EarlyWarning, Notification, Final:
	default:
		return Pack{}, problem.Invalid("There is no pack for %q.", st).At("stage")
	}
	k, err := s.known(ctx, t, c)
	if err != nil {
		return Pack{}, err
	}
	p := assemble(c, st, k.drafts(c, s.now()), s.now())
	p.Drill = c.drill
	p.Annex, p.Countries = k.annex(), compare(c.MemberStates, k.declared, k.seen)
	b, err := p.Canonical()
	if err != nil {
		return Pack{}, err
	}
	sum := sha256.Sum256(b)
	p.Digest = hex.EncodeToString(sum[:])
	return p, nil
}

// frozen is a pack as it was when somebody said that it was submitted.
type frozen struct {
	body   []byte
	digest string
	events int // of the case when it was drafted
}

// freeze refuses a submission of a report that is not complete, naming each field and who asks for it. The reporting
// platform may have taken it all the same, since its fields change without notice: then the person says so.
func (s *Service) freeze(ctx context.Context, f file, a tenant.Actor, d *Data) (frozen, error) {
	now := s.now()
	if err := Check(f.state(), Event{Kind: SubmissionAttempted, Actor: a.ID, Person: a.Kind == tenant.KindPerson, Data: *d}, now); err != nil {
		return frozen{}, err
	}
	c, err := s.show(ctx, f)
	if err != nil {
		return frozen{}, err
	}
	p, err := s.pack(ctx, f.Tenant, c, d.Stage)
	if err != nil {
		return frozen{}, err
	}
	if !p.Complete() && d.Deviation == "" {
		return frozen{}, incomplete(d.Stage, p)
	}
	b, err := p.Canonical()
	d.Pack = p.Digest
	return frozen{b, p.Digest, len(c.Events)}, err
}

// incomplete is the refusal of a report to which something is missing.
func incomplete(st Stage, p Pack) error {
	says := make([]string, len(p.Faults))
	for i, f := range p.Faults {
		says[i] = fmt.Sprintf("“%s”: %s (%s)", f.Label, f.Why, f.Rule)
	}
	return problem.Forbidden("respond.pack", "The %s is not complete. %s.", strings.ToLower(st.Name()), strings.Join(says, "; ")).
		Hint("Write what you submitted into the pack; if the reporting platform took it without, say so as a deviation.")
}

// Countries compares where the product is declared to be available with where its devices are seen. It changes nothing.
type Countries struct {
	Named      []string `json:"named" doc:"Member States that the case names"`
	Declared   []string `json:"declared" doc:"Member States where the product is declared to be available"`
	Seen       []string `json:"seen" doc:"Countries in which devices of the product are"`
	Undeclared []string `json:"undeclared" doc:"Member States with devices that the case does not name"`
	Unseen     []string `json:"unseen" doc:"Member States that the case names and where no device is seen"`
	Unnamed    []string `json:"unnamed" doc:"Member States of the declared availability that the case does not name"`
}

// Mismatch reports whether a person should look at the lists.
func (c Countries) Mismatch() bool { return len(c.Undeclared)+len(c.Unnamed) > 0 }

// compare holds the Member States that a case names against the other two lists. A country outside the Union is seen, but
// is no Member State.
func compare(named, declared []string, seen map[string]int64) Countries {
	c := Countries{Named: slices.Clone(named), Declared: slices.Clone(declared), Seen: []string{}, Undeclared: []string{}, Unseen: []string{}, Unnamed: []string{}}
	for code, n := range seen {
		if n > 0 && code != "" {
			c.Seen = append(c.Seen, code)
		}
	}
	slices.Sort(c.Seen)
	for _, code := range c.Seen {
		if _, member := law.State(code); member && !slices.Contains(named, code) {
			c.Undeclared = append(c.Undeclared, code)
		}
	}
	for _, code := range named {
		if len(c.Seen) > 0 && !slices.Contains(c.Seen, code) {
			c.Unseen = append(c.Unseen, code)
		}
	}
	for _, code := range declared {
		if !slices.Contains(named, code) {
			c.Unnamed = append(c.Unnamed, code)
		}
	}
	return c
}

// complete fills what a declaration of awareness leaves out and the platform knows: the coordinator that was confirmed, and
// the Member States in which the product is declared to be available.
func (s *Service) complete(ctx context.Context, t, product string, d *Declaration) error {
	if d.Verdict != Aware {
		return nil
	}
	if d.Coordinator == "" {
		c, ok, err := s.coordinator(ctx, t)
		if err != nil {
			return err
		}
		if ok {
			d.Coordinator = c.State
		}
	}
	if len(d.MemberStates) > 0 {
		return nil
	}
	states, err := s.cfg.Products.Availability(ctx, t, product)
	d.MemberStates = states
	return err
}

// concerning leaves out the fields that a report of that kind does not have.
func concerning(k Kind, fields map[string]string) map[string]string {
	out := map[string]string{}
	for id, v := range fields {
		if f, ok := fieldAnywhere(id); !ok || f.Kind == "" || f.Kind == string(k) {
			out[id] = clean(v)
		}
	}
	return out
}
