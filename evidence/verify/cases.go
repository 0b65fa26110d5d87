// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Case is what the platform says about a case or a drill, in SectionCases and SectionDrills. Its events are not here: they are
// entries of the log about its id. Other members may stand beside these.
type Case struct {
	ID       string     `json:"id"`
	Product  string     `json:"product"`
	Kind     string     `json:"kind"` // aev or si
	Drill    bool       `json:"drill"`
	Count    int64      `json:"event_count"`
	Limits   Limits     `json:"limits"`
	Clocks   []Deadline `json:"clocks"` // as the platform computed them: compared, never believed
	Packs    []Pack     `json:"packs"`
	Receipts []Receipt  `json:"receipts"`
}

// Pack is what a report said when somebody said that it was submitted.
type Pack struct {
	Attempt int64  `json:"attempt"` // number of the event that says so
	Body    string `json:"body"`    // byte for byte
}

// Receipt is a file of the reporting platform. Bytes is null where the file is too large for the bundle; its digest stands in
// the event either way.
type Receipt struct {
	File  string `json:"file"`
	Bytes []byte `json:"bytes"`
}

// CaseReport is what the verifier finds about a case by itself.
type CaseReport struct {
	ID        string     `json:"id"`
	Kind      string     `json:"kind"`
	Drill     bool       `json:"drill,omitempty"`
	Events    int        `json:"events"`
	Deadlines []Deadline `json:"deadlines"`
}

// drillPrefix is what the log puts before the kind of an event of a drill, so that no drill can pass for a case.
const drillPrefix = "drill."

// cases recomputes each case and drill of the bundle from the log and compares what the platform says of it.
func (r *Report) cases(d Document) error {
	for _, name := range []string{SectionCases, SectionDrills} {
		list, _, err := section[[]Case](d, name)
		if err != nil {
			return err
		}
		for _, c := range list {
			if c.Drill != (name == SectionDrills) {
				return fmt.Errorf("%s stands among the %s, where it does not belong", c.ID, name)
			}
			if err := r.oneCase(d, c); err != nil {
				return fmt.Errorf("%s: %w", c.ID, err)
			}
		}
	}
	return nil
}

func (r *Report) oneCase(d Document, c Case) error {
	events, err := d.events(c)
	if err != nil {
		return err
	}
	if c.Kind != "aev" && c.Kind != "si" {
		return fmt.Errorf("%q is no kind of case", c.Kind)
	}
	out := CaseReport{ID: c.ID, Kind: c.Kind, Drill: c.Drill, Events: len(events), Deadlines: []Deadline{}}
	if len(events) > 0 { // a drill in which nobody decided has none, and no clocks
		if x := events[0].Data; x.Of != "" && (x.Of != c.Kind || x.Product != c.Product) {
			return errors.New("kind or product is another one than the log recorded when it was opened")
		}
		out.Deadlines = Deadlines(c.Kind, events, c.Limits, r.Made)
	}
	if err := c.files(events); err != nil {
		return err
	}
	if len(c.Clocks) != len(out.Deadlines) {
		return fmt.Errorf("%d deadlines are stated, %d follow from the events", len(c.Clocks), len(out.Deadlines))
	}
	words := make([]string, len(out.Deadlines))
	for i, x := range out.Deadlines {
		if diff := x.differs(c.Clocks[i]); diff != "" {
			return errors.New(diff)
		}
		words[i] = x.Stage + " " + string(x.Verdict)
	}
	r.Cases = append(r.Cases, out)
	what := "Case"
	if c.Drill {
		what = "DRILL, not a case:"
	}
	r.fact("%s %s: its %d events stand in the log without a gap, and its deadlines follow from them: %s.", what, c.ID, len(events), strings.Join(words, ", "))
	if n, m := len(c.Packs), len(c.Receipts); n+m > 0 {
		r.fact("%s %s: what was submitted (%d) and the receipts (%d) have the digests that its events state.", what, c.ID, n, m)
	}
	return nil
}

// events are the events of a case as the log recorded them: numbered from 1 without a gap, up to the stated count.
func (d Document) events(c Case) (out []Event, err error) {
	for _, x := range d.of(c.ID) {
		var e Event
		if x.Data == nil {
			return nil, fmt.Errorf("the payload of entry %d (%s) was erased, so that its deadlines cannot be recomputed", x.Index, x.Leaf.Kind)
		}
		if err := json.Unmarshal(x.Data.Data, &e); err != nil || e.Seq == 0 {
			continue // not an event: the start of a drill, an export
		}
		kind := e.Kind
		if c.Drill {
			kind = drillPrefix + kind
		}
		if e.Seq != int64(len(out))+1 || kind != x.Leaf.Kind || e.Actor != x.Leaf.Actor {
			return nil, fmt.Errorf("entry %d (%s) is not event %d of it", x.Index, x.Leaf.Kind, len(out)+1)
		}
		out = append(out, e)
	}
	switch {
	case int64(len(out)) != c.Count:
		return nil, fmt.Errorf("the bundle has %d events of it, %d are stated", len(out), c.Count)
	case len(out) == 0 && !c.Drill, len(out) > 0 && out[0].Kind != "t0.set":
		return nil, errors.New("it does not begin with a declaration of awareness")
	}
	return out, nil
}

// files compares what was submitted, and the receipts, with the digests in the events.
func (c Case) files(events []Event) error {
	packs, receipts := map[int64]string{}, map[string]string{}
	for _, e := range events {
		switch e.Kind {
		case "submission.attempted":
			packs[e.Seq] = e.Data.Pack
		case "receipt.stored":
			receipts[e.Data.File] = e.Data.SHA256
		}
	}
	for _, p := range c.Packs {
		if want, ok := packs[p.Attempt]; !ok || want != digest([]byte(p.Body)) {
			return fmt.Errorf("what was submitted by event %d has another digest than the log recorded", p.Attempt)
		}
		delete(packs, p.Attempt)
	}
	for seq, want := range packs {
		if want != "" {
			return fmt.Errorf("what was submitted by event %d is missing", seq)
		}
	}
	for _, f := range c.Receipts {
		want, ok := receipts[f.File]
		if !ok || f.Bytes != nil && want != digest(f.Bytes) {
			return fmt.Errorf("the receipt %s has another digest than the log recorded", f.File)
		}
		delete(receipts, f.File)
	}
	for id := range receipts {
		return fmt.Errorf("the receipt %s is missing", id)
	}
	return nil
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// line is a deadline for people.
func (d Deadline) line() string {
	b := strings.Builder{}
	fmt.Fprintf(&b, "%-14s %-12s", d.Stage, strings.ToUpper(string(d.Verdict)))
	if !d.Due.IsZero() {
		fmt.Fprintf(&b, " due %s", d.Due.Format(time.RFC3339))
	}
	if !d.Met.IsZero() {
		fmt.Fprintf(&b, ", done %s", d.Met.Format(time.RFC3339))
	}
	if d.Undetermined != "" {
		fmt.Fprintf(&b, " %s", d.Undetermined)
	}
	if d.Verdict == Late && d.Reason != "" {
		fmt.Fprintf(&b, " (%s)", d.Reason)
	}
	fmt.Fprintf(&b, "  [%s]", strings.Join(d.Rules, " "))
	return b.String()
}
