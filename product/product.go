// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
)

// SupportYears is the shortest support period that needs no reason (CRA article 13(8)).
const SupportYears = 5

// RuleSupport names the refusal of a support period that is too short or absent.
const RuleSupport = "product.support-period"

// Product is a thing that is sold.
type Product struct {
	ID      string    `json:"id"`
	Tenant  string    `json:"tenant"`
	Name    string    `json:"name"`
	Model   string    `json:"model" doc:"Short name for machines, unique within the tenant"`
	Created time.Time `json:"created"`
}

// Revision is one hardware of a product, with the promise how long it is supported.
type Revision struct {
	ID         string    `json:"id"`
	Tenant     string    `json:"tenant"`
	Product    string    `json:"product"`
	Name       string    `json:"name"`
	Placed     time.Time `json:"placed" doc:"When it is first placed on the market"`
	SupportEnd time.Time `json:"support_end"`
	Reason     string    `json:"reason,omitempty" doc:"Why support is shorter than five years"`
	Created    time.Time `json:"created"`
}

var modelPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$`)

// maxName bounds names, in characters.
const maxName = 120

func checkName(s string) error {
	if s != strings.TrimSpace(s) || s == "" || utf8.RuneCountInString(s) > maxName || !utf8.ValidString(s) {
		return problem.Invalid("A name has 1 to %d characters and no space around it.", maxName).At("name")
	}
	return law.CheckClaim("name", s)
}

// check refuses a product that cannot be kept.
func (p Product) check() error {
	if !modelPattern.MatchString(p.Model) {
		return problem.Invalid("A model is 1 to 64 of a-z, 0-9 and -, beginning and ending with a letter or digit.").At("model")
	}
	return checkName(p.Name)
}

// check refuses a revision whose support period is absent or too short without a reason.
func (r Revision) check() error {
	if err := checkName(r.Name); err != nil {
		return err
	}
	switch earliest := r.Placed.AddDate(SupportYears, 0, 0); {
	case r.SupportEnd.IsZero():
		return problem.Forbidden(RuleSupport, "The end of support is mandatory.").At("support_end")
	case r.Placed.IsZero():
		return problem.Invalid("The day of placing on the market is mandatory.").At("placed")
	case !r.SupportEnd.After(r.Placed):
		return problem.Forbidden(RuleSupport, "Support cannot end before the product is placed on the market.").At("support_end")
	case r.SupportEnd.Before(earliest) && strings.TrimSpace(r.Reason) == "":
		return problem.Forbidden(RuleSupport, "Support must last at least %d years, until %s.", SupportYears, earliest.Format(time.DateOnly)).At("support_end").
			Hint("CRA article 13(8) allows less only where the product is expected to be in use for less; state that as the reason.")
	case len(r.Reason) > 2000:
		return problem.Invalid("A reason has at most 2000 bytes.").At("reason")
	}
	return law.CheckClaim("reason", r.Reason)
}
