// SPDX-License-Identifier: AGPL-3.0-only

package conform

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
)

// Stamp says which version of a record this is, who made it and when. Version 0: there is none.
type Stamp struct {
	Version int64     `json:"version"`
	By      string    `json:"by,omitempty"`
	At      time.Time `json:"at,omitzero"`
	seq     int64
}

// Classification is the answered questionnaire on a product's class.
type Classification struct {
	Core       string   `json:"core" maxLength:"4000" doc:"The core functionality of the product, in words: it decides"`
	Category   string   `json:"category,omitempty" maxLength:"32" doc:"Id of the category whose core functionality it is (GET /v1/product-classes); absent: none"`
	Integrates []string `json:"integrates,omitempty" maxItems:"26" doc:"Ids of categories of components in it; they do not change its class"`
	Reason     string   `json:"reason" maxLength:"4000" doc:"Why this category, or why none"`
}

// Class follows from the category of the core functionality, and from nothing else (CRA Article 7(1)).
func (c Classification) Class() law.Class {
	if cat, ok := law.CategoryOf(c.Category); ok {
		return cat.Class
	}
	return law.Default
}

func (c Classification) check() error {
	if err := texts("core", c.Core, "reason", c.Reason); err != nil {
		return err
	}
	for at, ids := range map[string][]string{"category": {c.Category}, "integrates": c.Integrates} {
		for _, id := range ids {
			if _, ok := law.CategoryOf(id); id != "" && !ok {
				return problem.Invalid("There is no category %q in Annexes III and IV.", id).At(at)
			}
		}
	}
	return nil
}

// maxText bounds an answer, in bytes.
const maxText = 4000

// texts refuses an answer that is empty or too long; pairs of name and text.
func texts(pairs ...string) error {
	for i := 0; i < len(pairs); i += 2 {
		if strings.TrimSpace(pairs[i+1]) == "" {
			return problem.Invalid("This needs an answer in words: %s.", pairs[i]).At(pairs[i])
		}
		if err := short(pairs[i], pairs[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// short refuses a text that is too long, or that claims what only a cited standard gives.
func short(at, text string) error {
	if len(text) > maxText {
		return problem.Invalid("A text has at most %d bytes.", maxText).At(at)
	}
	return law.CheckClaim(at, text)
}

// Rules by which something is refused.
const (
	RuleModule       = "conform.module"        // a module that the class does not permit
	RuleSecond       = "conform.second-person" // the author may not confirm
	RuleApplies      = "conform.applies"       // a row that always applies
	RuleRows         = "conform.rows"          // an assessment with open rows
	RuleModification = "conform.modification"  // a substantial modification without a later assessment
	RuleUnscreened   = "conform.unscreened"    // a release without an answered screen, where the tenant demands it
)

// Module is a conformity assessment procedure of CRA Annex VIII, or a certification scheme.
type Module string

// The procedures of CRA Article 32(1).
const (
	ModuleA  Module = "A"
	ModuleBC Module = "B+C"
	ModuleH  Module = "H"
	Scheme   Module = "scheme"
)

// Name is the procedure in words.
func (m Module) Name() string {
	switch m {
	case ModuleA:
		return "Internal control (module A)"
	case ModuleBC:
		return "EU-type examination and internal production control (modules B and C)"
	case ModuleH:
		return "Full quality assurance (module H)"
	}
	return "European cybersecurity certification scheme"
}

// Claims are what a manufacturer says that bears on the route.
type Claims struct {
	OpenSource bool     `json:"open_source,omitempty" doc:"The product qualifies as free and open-source software"`
	PublicDocs string   `json:"public_docs,omitempty" maxLength:"2000" doc:"Where its technical documentation is public, as an https address"`
	Standards  []string `json:"standards,omitempty" maxItems:"50" doc:"Harmonised standards applied in full, with their edition"`
}

// Choice is the route that a person chose.
type Choice struct {
	Module Module `json:"module" enum:"A,B+C,H,scheme"`
	Claims
	Reason string `json:"reason" maxLength:"4000"`
}

// Option is one procedure, and why it is open or not.
type Option struct {
	Module Module `json:"module"`
	Name   string `json:"name"`
	Open   bool   `json:"open"`
	Why    string `json:"why"`
	Rule   string `json:"rule" doc:"Id of the rule of the law"`
}

// Routes says which procedures a product of the class may take with these claims, given the standards that are cited on
// the day. It decides nothing: the manufacturer may always take a stricter one.
func Routes(class law.Class, c Claims, cited []law.Citation, now time.Time) []Option {
	public := c.OpenSource && c.PublicDocs != ""
	a := Option{Open: true, Why: "The product is in no category of Annexes III and IV.", Rule: "cra.32.1"}
	switch {
	case class == law.Critical:
		a = Option{Why: "A critical product needs a third party.", Rule: "cra.32.4"}
	case class != law.Default && public:
		a = Option{Open: true, Why: "Free and open-source software with public technical documentation may take any procedure.", Rule: "cra.32.5"}
	case class == law.ImportantII:
		a = Option{Why: "An important product of class II needs a third party, unless it is free and open-source software with public technical documentation.", Rule: "cra.32.3"}
	case class == law.ImportantI:
		a.Rule = "cra.32.2"
		a.Open, a.Why = covered(c.Standards, cited, now)
	}
	third := Option{Open: true, Why: "A notified body takes part.", Rule: map[law.Class]string{law.Default: "cra.32.1", law.ImportantI: "cra.32.2", law.ImportantII: "cra.32.3", law.Critical: "cra.32.4"}[class]}
	scheme := Option{Why: "No certification scheme is recorded as applicable for this Regulation.", Rule: third.Rule}
	out := make([]Option, 4)
	for i, m := range []Module{ModuleA, ModuleBC, ModuleH, Scheme} {
		out[i] = []Option{a, third, third, scheme}[i]
		out[i].Module, out[i].Name = m, m.Name()
	}
	return out
}

// covered says whether the standards that were applied are cited and cover all rows of Annex I together.
func covered(applied []string, cited []law.Citation, now time.Time) (bool, string) {
	var rows []string
	for _, s := range applied {
		i := slices.IndexFunc(cited, func(c law.Citation) bool {
			return c.Standard == s && !now.Before(c.Published.Time) && (c.Until.IsZero() || now.Before(c.Until.Time))
		})
		if i < 0 {
			return false, s + " is not cited in the Official Journal for this Regulation."
		}
		rows = append(rows, cited[i].Covers...)
	}
	if len(rows) == 0 {
		return false, "Class I takes module A only where cited harmonised standards are applied in full. None is cited or none was applied."
	}
	for _, r := range law.Annex("cra.i") {
		if !slices.Contains(rows, r.ID) {
			return false, "The cited standards that were applied do not cover " + r.Ref + "."
		}
	}
	return true, "Cited standards that cover all of Annex I are applied in full."
}

func (c Choice) check(class law.Class, cited []law.Citation, now time.Time) error {
	if err := texts("reason", c.Reason); err != nil {
		return err
	}
	if c.PublicDocs != "" && !isHTTPS(c.PublicDocs) {
		return problem.Invalid("The technical documentation is public at an https address.").At("public_docs")
	}
	for _, o := range Routes(class, c.Claims, cited, now) {
		if o.Module != c.Module {
			continue
		}
		if !o.Open {
			return problem.Forbidden(RuleModule, "%s is not open to this product: %s", o.Name, o.Why).At("module")
		}
		return nil
	}
	return problem.Invalid("There is no procedure %q.", c.Module).At("module")
}

func isHTTPS(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Scheme == "https" && u.Host != "" && len(s) <= 2000
}
