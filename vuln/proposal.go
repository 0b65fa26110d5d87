// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln/vex"
)

// Proposal is what might be decided for a component of some releases of a product: what was decided before and does not
// hold there, or what others say. Nothing follows from it until a person decides (Deciding.Origin).
type Proposal struct {
	Origin        string    `json:"origin" doc:"Id by which a decision takes it over"`
	From          string    `json:"from" enum:"earlier,own,vendor,distribution" doc:"Whose words they are: our own earlier decision, or a statement's origin"`
	Why           Lapse     `json:"why,omitempty" doc:"Of an earlier decision: why it does not hold"`
	Product       string    `json:"product"`
	Component     string    `json:"component"`
	Name          string    `json:"component_name"`
	Has           string    `json:"component_version"`
	Releases      []string  `json:"releases" doc:"Ids of the releases that it would be about"`
	Status        Status    `json:"status"`
	Justification string    `json:"justification,omitempty"`
	Foreign       string    `json:"foreign,omitempty" doc:"A justification of CycloneDX that VEX has no word for; one of the five has to be chosen"`
	Evidence      string    `json:"evidence,omitempty"`
	Action        string    `json:"action,omitempty"`
	By            string    `json:"by,omitempty" doc:"Id of the person who decided, or the author of the document"`
	At            time.Time `json:"at"`
	Document      *Cited    `json:"document,omitempty" doc:"Where the statement stands"`
	Decided       *Decision `json:"decided,omitempty" doc:"The decision that holds and says otherwise: a conflict, to be looked at side by side"`
}

// Cited is the document of a statement.
type Cited struct {
	ID      string `json:"id"`       // of the imported document here
	Name    string `json:"document"` // what its author calls it
	Version string `json:"version"`
	Digest  string `json:"digest"`
}

// Conflict reports whether a decision that holds says otherwise.
func (p Proposal) Conflict() bool { return p.Decided != nil }

// earlier is the From of what was decided before.
const earlier = "earlier"

// Proposals lists what might be decided on a vulnerability in the products that are visible: by product and component, own
// words first, then those of vendors, then of distributions. What a standing decision says already is not among them.
func (s *Service) Proposals(ctx context.Context, tenant, ident string, visible func(product string) bool) ([]Proposal, error) {
	var out []Proposal
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		out = []Proposal{}
		group, err := s.group(tx, tenant, ident)
		if err != nil {
			return err
		}
		found, err := s.findings(tx, tenant, group.ID, s.now())
		if err != nil {
			return err
		}
		found = oneEach(found)
		about, spelled, err := s.describe(tx, tenant, found)
		if err != nil {
			return err
		}
		found = slices.DeleteFunc(found, func(f finding) bool {
			r, ok := about[f.release]
			return !ok || !visible(r.Product)
		})
		m := proposer{s: s, tx: tx, tenant: tenant, about: about, spelled: spelled, made: map[[3]string]int{}, fitter: newFitter(), parts: map[string][]sbom.Part{}}
		if m.decided, err = s.book(tx, tenant).on(group.ID, ""); err != nil {
			return err
		}
		if m.statements, err = s.statementsOn(tx, tenant, group.ID); err != nil {
			return err
		}
		if err := m.readNames(found); err != nil {
			return err
		}
		if m.bills, err = s.cfg.SBOM.Subjects(tx, tenant, sortedKeys(about)); err != nil {
			return err
		}
		for _, f := range found {
			if err := m.propose(f); err != nil {
				return err
			}
		}
		out = append(out, m.out...)
		slices.SortStableFunc(out, func(a, b Proposal) int {
			return cmp.Or(cmp.Compare(a.Product, b.Product), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Component, b.Component), cmp.Compare(rankOf(a.From), rankOf(b.From)))
		})
		return nil
	})
	return out, err
}

func rankOf(from string) int {
	if from == earlier {
		return -1
	}
	return vex.Origin(from).Rank()
}

// proposer collects proposals for one vulnerability.
type proposer struct {
	s          *Service
	tx         *store.Tx
	tenant     string
	about      map[string]Release
	spelled    map[[2]string]sbom.Part
	bills      map[string]sbom.Subject
	decided    decided
	statements []statement
	fitter     *fitter
	parts      map[string][]sbom.Part        // of releases, as far as they were asked for
	named      map[string]map[[2]string]bool // component: its names
	out        []Proposal
	made       map[[3]string]int // origin, product, component: where in out
}

// partsOf lists a release, once.
func (m *proposer) partsOf(release string) ([]sbom.Part, error) {
	if list, ok := m.parts[release]; ok {
		return list, nil
	}
	list, err := m.s.parts(m.tx, m.tenant, release)
	m.parts[release] = list
	return list, err
}

// readNames learns the names of the components of findings and of decisions: another version has the same name.
func (m *proposer) readNames(found []finding) error {
	components := map[string]bool{}
	for _, f := range found {
		components[f.component] = true
	}
	for _, d := range m.decided.list {
		components[d.Component] = true
	}
	m.named = map[string]map[[2]string]bool{}
	for part := range slices.Chunk(sortedKeys(components), 256) {
		list, args := store.In([]any{m.tenant}, part)
		rows, err := m.tx.Query(`SELECT component_id, space, name FROM vuln_identity WHERE tenant = $1 AND component_id IN `+list, args...)
		if _, err := store.Collect(rows, err, func(r *sql.Rows) (struct{}, error) {
			var component string
			var name [2]string
			err := r.Scan(&component, &name[0], &name[1])
			if m.named[component] == nil {
				m.named[component] = map[[2]string]bool{}
			}
			m.named[component][name] = true
			return struct{}{}, err
		}); err != nil {
			return err
		}
	}
	return nil
}

// sameName reports whether two components are versions of one.
func (m *proposer) sameName(a, b string) bool {
	for n := range m.named[a] {
		if m.named[b][n] {
			return true
		}
	}
	return false
}

func (m *proposer) propose(f finding) error {
	r, part := m.about[f.release], m.spelled[[2]string{f.release, f.component}]
	last, why := m.decided.standing(r.Product, f.component, f.release, m.s.now())
	holds := last
	if why != "" {
		holds = nil
	}
	if holds == nil {
		if old, why := m.old(last, why, r.Product, f); old != nil {
			m.add(Proposal{Origin: old.ID, From: earlier, Why: why, Status: old.Status, Justification: old.Justification, Evidence: old.Evidence, Action: old.Action,
				By: old.By, At: old.At}, r.Product, f, part)
		}
	}
	about := subject{release: f.release, image: r.Image, bill: m.bills[f.release], part: part, all: func() ([]sbom.Part, error) { return m.partsOf(f.release) }}
	for _, st := range m.statements {
		if holds != nil && (holds.Status == st.Status || holds.Origin == st.id) {
			continue
		}
		fits, err := m.fitter.fits(st, about)
		if err != nil {
			return err
		}
		if !fits {
			continue
		}
		p := st.proposal()
		p.Decided = holds
		m.add(p, r.Product, f, part)
	}
	return nil
}

// old finds the newest decision that does not hold for the finding but might again: on this component, for another release
// of the product, or on another version of the component.
func (m *proposer) old(last *Decision, why Lapse, product string, f finding) (*Decision, Lapse) {
	if last != nil {
		return last, why
	}
	for i := len(m.decided.list) - 1; i >= 0; i-- {
		d := &m.decided.list[i]
		if d.Product != product {
			continue
		}
		if d.Component == f.component {
			return d, OtherRelease
		}
		if m.sameName(d.Component, f.component) {
			return d, ComponentChanged
		}
	}
	return nil, ""
}

// add joins releases for which the same is proposed.
func (m *proposer) add(p Proposal, product string, f finding, part sbom.Part) {
	key := [3]string{p.Origin, product, f.component}
	if p.Decided != nil {
		key[0] += " " + p.Decided.ID
	}
	if i, ok := m.made[key]; ok {
		m.out[i].Releases = append(m.out[i].Releases, f.release)
		return
	}
	m.made[key] = len(m.out)
	p.Product, p.Component, p.Name, p.Has, p.Releases = product, f.component, part.Name, part.Version, []string{f.release}
	m.out = append(m.out, p)
}

// proposal says what the statement says, and where it stands.
func (st statement) proposal() Proposal {
	return Proposal{Origin: st.id, From: string(st.doc.Origin), Status: st.Status, Justification: string(st.Justification), Foreign: cmp.Or(st.Foreign.Justification, st.Foreign.State),
		Evidence: st.Detail, Action: st.Action, By: st.doc.Author, At: st.At, Document: &Cited{st.doc.ID, st.doc.Document, st.doc.Version, st.doc.Digest}}
}

// citation is the evidence that a statement gives: what it says and where.
func (st statement) citation() string {
	name := strings.TrimSpace(st.doc.Document + " " + st.doc.Version)
	source := fmt.Sprintf("Statement of %s (%s) of %s in %s, %s.", cmp.Or(st.doc.Author, "an unnamed author"), st.doc.Origin, st.At.UTC().Format(time.DateOnly),
		cmp.Or(name, "a document without a name"), st.doc.Digest)
	return strings.TrimSpace(clip(st.Detail, maxEvidence-len(source)-2) + "\n\n" + source)
}

// takeOver fills what the person left out from the proposal that is taken over. A statement cites itself as evidence.
func (s *Service) takeOver(tx *store.Tx, tenant string, group Group, in *Deciding) error {
	if in.Origin == "" || in.Origin == originEvidence && in.rests != nil {
		return nil
	}
	if !strings.HasPrefix(in.Origin, "vst_") {
		l, err := s.book(tx, tenant).on(group.ID, in.Product)
		if err != nil {
			return err
		}
		for _, d := range l.list {
			if d.ID == in.Origin {
				in.fill(d.Status, d.Justification, d.Evidence, d.Action)
				return nil
			}
		}
		return problem.NotFound("There is no earlier decision %.80q on this vulnerability and product.", in.Origin).At("origin")
	}
	list, err := s.statementsOn(tx, tenant, group.ID)
	if err != nil {
		return err
	}
	for _, st := range list {
		if st.id != in.Origin {
			continue
		}
		in.fill(st.Status, string(st.Justification), "", st.Action)
		if in.Evidence == "" {
			in.Evidence = st.citation()
		}
		return nil
	}
	return problem.NotFound("There is no statement %.80q on this vulnerability.", in.Origin).At("origin")
}

// fill takes over what was left out. Who says another status is not given the reasons for the first one.
func (d *Deciding) fill(status Status, justification, evidence, action string) {
	d.Status = cmp.Or(d.Status, status)
	if d.Status != status {
		return
	}
	if status == NotAffected {
		d.Justification = cmp.Or(d.Justification, justification)
	}
	d.Evidence, d.Action = cmp.Or(d.Evidence, evidence), cmp.Or(d.Action, clip(action, maxEvidence))
}

// clip shortens a text to so many bytes.
func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:max(most-len("…"), 0)], "") + "…"
}
