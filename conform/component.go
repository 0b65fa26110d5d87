// SPDX-License-Identifier: AGPL-3.0-only

package conform

import (
	"fmt"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// Component is what a person found out about a component, whatever its version (CRA Article 13(5)).
type Component struct {
	Supplier   string    `json:"supplier,omitempty" maxLength:"480" doc:"Who makes or maintains it; absent: as the bill of materials says"`
	SupportEnd time.Time `json:"support_end,omitzero" required:"false" doc:"Until when it gets security updates; absent: not stated by its maker"`
	Contact    string    `json:"contact,omitempty" maxLength:"480" doc:"Where its vulnerabilities are reported"`
	Marking    string    `json:"marking,omitempty" maxLength:"480" doc:"CE marking or declaration of conformity, if it has one"`
	Note       string    `json:"note" maxLength:"4000" doc:"What was looked at: update history, known vulnerabilities, how it is maintained"`
}

func (c Component) check() error {
	for at, text := range map[string]string{"supplier": c.Supplier, "contact": c.Contact, "marking": c.Marking} {
		if len(text) > 480 {
			return problem.Invalid("This has at most 480 bytes.").At(at)
		}
		if err := short(at, text); err != nil {
			return err
		}
	}
	return texts("note", c.Note)
}

// Entry is a line of the register: a component under one name for all its versions.
type Entry struct {
	Name      string `json:"name" doc:"The same for all versions: a package URL without version, cpe vendor:product, or name"`
	Title     string `json:"title" doc:"As the newest bill spells it"`
	Version   string `json:"version,omitempty" doc:"In the newest release that has it"`
	Release   string `json:"release" doc:"The newest release that has it"`
	Licence   string `json:"licence,omitempty"`
	Component        // the newest review; Supplier falls back to the bill's
	Review    Stamp  `json:"review"`
	State     string `json:"state" enum:"current,due,ended,never" doc:"Of the review"`
	Why       string `json:"why,omitempty" doc:"Why it is due"`
}

// judge says whether the entry needs a person: never reviewed, reviewed too long ago, or at the end of its support.
func (e *Entry) judge(now time.Time, months int64) {
	switch next := e.Review.At.AddDate(0, int(months), 0); {
	case e.Review.Version == 0:
		e.State, e.Why = "never", "It was never reviewed."
	case !e.SupportEnd.IsZero() && !now.Before(e.SupportEnd):
		e.State, e.Why = "ended", "Its support ended on "+e.SupportEnd.UTC().Format(time.DateOnly)+"."
	case now.After(next):
		e.State, e.Why = "due", fmt.Sprintf("It was reviewed more than %d months ago.", months)
	default:
		e.State = "current"
	}
}

// Ending is a finding: a component of the product is supported for less long than the product (CRA Article 13(5), (8)).
type Ending struct {
	Product    string    `json:"product"`
	Component  string    `json:"component"`
	Title      string    `json:"title"`
	Ends       time.Time `json:"ends" doc:"When the component's support ends"`
	ProductEnd time.Time `json:"product_end"`
}

// endings are the findings of a product whose support ends at end.
func endings(product string, list []Entry, end time.Time) (out []Ending) {
	for _, e := range list {
		if !e.SupportEnd.IsZero() && e.SupportEnd.Before(end) {
			out = append(out, Ending{product, e.Name, e.Title, e.SupportEnd, end})
		}
	}
	return out
}
