// SPDX-License-Identifier: AGPL-3.0-only

package conform

import (
	"github.com/openthings-platform/openthings/problem"
)

// Question is one of the screen for a substantial modification.
type Question struct {
	ID       string `json:"id"`
	Text     string `json:"text"`
	Ref      string `json:"ref"`
	Decisive bool   `json:"decisive" doc:"Yes makes the change a substantial modification; otherwise yes needs a reason why the risk was already covered"`
}

// Questions are those of CRA Article 3(30), which decide, and the four of point 110 of the Commission's guidance.
var Questions = []Question{
	{"purpose", "Does the release change the intended purpose for which the product was assessed?", "CRA Art. 3(30)", true},
	{"requirements", "Does it affect the compliance of the product with Annex I Part I?", "CRA Art. 3(30)", true},
	{"vectors", "Does it introduce new threat vectors: interfaces, communication channels, execution environments, external dependencies?", "C(2026) 5252 point 110(a)", false},
	{"scenarios", "Does it enable new attack scenarios: new ways of unauthorised access, manipulation, interference or misuse?", "C(2026) 5252 point 110(b)", false},
	{"likelihood", "Does it change the likelihood of attack scenarios that were identified: less effort, more exposure, weaker safeguards?", "C(2026) 5252 point 110(c)", false},
	{"impact", "Does it change the possible impact of attack scenarios that were identified: data or functions affected, severity, recovery?", "C(2026) 5252 point 110(d)", false},
}

// Answer is what a person says to a question.
type Answer struct {
	ID  string `json:"id" maxLength:"32"`
	Yes bool   `json:"yes"`
	Why string `json:"why,omitempty" maxLength:"4000"`
}

// Screen is the signed answer whether a release is a substantial modification.
type Screen struct {
	Answers     []Answer `json:"answers" minItems:"6" maxItems:"6" doc:"One for each question"`
	Substantial bool     `json:"substantial"`
	Covered     string   `json:"covered,omitempty" maxLength:"4000" doc:"If a risk changed and the modification is not substantial: where the risk assessment had considered it"`
	Reason      string   `json:"reason" maxLength:"4000" doc:"What changes, and why it is concluded so"`
}

// Answer returns the answer to a question.
func (s Screen) Answer(id string) (Answer, bool) {
	for _, a := range s.Answers {
		if a.ID == id {
			return a, true
		}
	}
	return Answer{}, false
}

func (s Screen) check() error {
	if err := texts("reason", s.Reason); err != nil {
		return err
	}
	if err := short("covered", s.Covered); err != nil {
		return err
	}
	changed := false
	for _, q := range Questions {
		a, ok := s.Answer(q.ID)
		switch {
		case !ok:
			return problem.Invalid("The question %s is not answered.", q.ID).At("answers")
		case a.Yes:
			if err := texts(q.ID, a.Why); err != nil {
				return err
			}
			changed = true
			if q.Decisive && !s.Substantial {
				return problem.Forbidden(RuleModification, "By this answer the release is a substantial modification (%s).", q.Ref).At("substantial")
			}
		default:
			if err := short(q.ID, a.Why); err != nil {
				return err
			}
		}
	}
	if len(s.Answers) != len(Questions) {
		return problem.Invalid("Each question is answered once.").At("answers")
	}
	if changed && !s.Substantial {
		return texts("covered", s.Covered)
	}
	return nil
}
