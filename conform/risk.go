// SPDX-License-Identifier: AGPL-3.0-only

package conform

import (
	"strings"
	"time"

	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
)

// Context is what a risk assessment rests on (CRA Article 13(3)).
type Context struct {
	Purpose     string `json:"purpose" maxLength:"4000" doc:"Intended purpose"`
	Use         string `json:"use" maxLength:"4000" doc:"Reasonably foreseeable use and misuse"`
	Environment string `json:"environment" maxLength:"4000" doc:"Conditions of use, the operational environment among them"`
	Assets      string `json:"assets" maxLength:"4000" doc:"What is to be protected"`
	Threats     string `json:"threats" maxLength:"4000" doc:"Who or what threatens it, and how"`
	Assumptions string `json:"assumptions,omitempty" maxLength:"4000" doc:"What is taken for granted, such as measures of the user"`
	Years       int64  `json:"years" minimum:"1" maximum:"100" doc:"How long the product is expected to be in use"`
}

func (c Context) check() error {
	if c.Years < 1 || c.Years > 100 {
		return problem.Invalid("The expected time in use is 1 to 100 years.").At("years")
	}
	if err := short("assumptions", c.Assumptions); err != nil {
		return err
	}
	return texts("purpose", c.Purpose, "use", c.Use, "environment", c.Environment, "assets", c.Assets, "threats", c.Threats)
}

// Decision says whether an essential requirement applies to the product and how it is met, or why it does not apply.
type Decision struct {
	Applies   string   `json:"applies" enum:"yes,no" doc:"Part I(1) and Part II always apply (CRA Art. 13(3))"`
	Why       string   `json:"why,omitempty" maxLength:"4000" doc:"The risk; of a requirement that does not apply, the justification (CRA Art. 13(4))"`
	Treatment string   `json:"treatment,omitempty" maxLength:"4000" doc:"How the requirement is met"`
	Evidence  []string `json:"evidence,omitempty" maxItems:"50" doc:"Links: paths of this platform or https addresses"`
}

// MayNotApply says whether the law lets a manufacturer declare the row not applicable: the points of Part I(2).
func MayNotApply(row string) bool { return strings.HasPrefix(row, "cra.i.1.2.") }

func (d Decision) check(row string) error {
	for at, text := range map[string]string{"why": d.Why, "treatment": d.Treatment} {
		if err := short(at, text); err != nil {
			return err
		}
	}
	for _, link := range d.Evidence {
		if local := strings.HasPrefix(link, "/") && !strings.HasPrefix(link, "//"); !local && !isHTTPS(link) || strings.ContainsAny(link, " \t\r\n\\") {
			return problem.Invalid("%q is neither a path of this platform nor an https address.", link).At("evidence")
		}
	}
	switch d.Applies {
	case "yes":
		return texts("treatment", d.Treatment)
	case "no":
		if !MayNotApply(row) {
			return problem.Forbidden(RuleApplies, "Annex I Part I(1) and Part II apply to every product.").At("applies").
				Hint("Article 13(3) asks how they are applied, and Article 13(4) lets the points of Part I(2) be justified as not applicable.")
		}
		return texts("why", d.Why)
	}
	return problem.Invalid("A requirement applies, yes or no.").At("applies")
}

// Row is an essential requirement with what was decided on it.
type Row struct {
	ID  string `json:"id"`
	Ref string `json:"ref"`
	Say string `json:"says" doc:"Short paraphrase of the requirement"`
	Decision
	Stamp Stamp `json:"stamp"`
}

// Decided says whether somebody has decided on the row.
func (r Row) Decided() bool { return r.Stamp.Version > 0 }

// MayNotApply says whether the row may be declared not applicable.
func (r Row) MayNotApply() bool { return MayNotApply(r.ID) }

// Draft is the risk assessment as it stands: what is decided and what is open.
type Draft struct {
	Product string  `json:"product"`
	Context Context `json:"context"`
	Basis   Stamp   `json:"context_stamp"`
	Rows    []Row   `json:"rows"`
	Sealed  Stamp   `json:"sealed" doc:"The newest sealed version"`
	Due     []Due   `json:"due" doc:"Why it is to be reviewed, since it was last sealed"`
}

// Decided counts the rows on which somebody has decided.
func (d Draft) Decided() (n int) {
	for _, r := range d.Rows {
		if r.Decided() {
			n++
		}
	}
	return n
}

// Changed says whether anything was decided after the newest version was sealed.
func (d Draft) Changed() bool {
	for _, r := range d.Rows {
		if r.Stamp.seq > d.Sealed.seq {
			return true
		}
	}
	return d.Basis.seq > d.Sealed.seq
}

// seal refuses a draft that lacks something.
func (d Draft) seal() error {
	if d.Basis.Version == 0 {
		return problem.Forbidden(RuleRows, "The assessment does not say yet what it rests on: purpose, use, environment, assets, threats.").At("context")
	}
	for _, r := range d.Rows {
		if !r.Decided() {
			return problem.Forbidden(RuleRows, "%d of %d requirements are decided; %s is open.", d.Decided(), len(d.Rows), r.Ref).At(r.ID)
		}
	}
	return nil
}

// Assessment is a sealed version of the risk assessment. It is never changed.
type Assessment struct {
	Format     string         `json:"format"`
	Product    string         `json:"product"`
	Note       string         `json:"note" doc:"What was looked at and concluded"`
	Context    Context        `json:"context"`
	Rows       []Row          `json:"rows"`
	Class      Classification `json:"classification"`
	ClassName  law.Class      `json:"class"`
	Classified int64          `json:"classification_version"`
	LawChecked string         `json:"law_checked" doc:"The oldest day on which a row was compared with the law"`
	Reviewed   []Due          `json:"reviewed" doc:"The reasons for review that it answers"`
	Stamp
}

// format is the value of Assessment.Format.
const format = "openthings risk assessment 1"

// Due is a reason to review the risk assessment (CRA Article 13(3) and (7)).
type Due struct {
	Cause string    `json:"cause" doc:"Such as vulnerability:CVE-2026-1, case:cas_…, release:rel_…"`
	Text  string    `json:"text"`
	Href  string    `json:"href"`
	At    time.Time `json:"at"`
}
