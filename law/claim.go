// SPDX-License-Identifier: AGPL-3.0-only

package law

import (
	"maps"
	"regexp"
	"slices"

	"github.com/openthings-platform/openthings/problem"
)

// claim finds what Article 27(1) attaches to cited harmonised standards, and to them alone, in the languages in which
// manufacturers write it most.
var claim = regexp.MustCompile(`(?i)\bpresum(?:ption|ptively|ed|es|e)\b[^.;]{0,40}\bconform|\bconformity\b[^.;]{0,20}\bpresumed\b|` +
	`konformit(?:ä|ae)tsvermutung|vermutung\s+der\s+konformit|pr[ée]somption\s+de\s+conformit|presunci[óo]n\s+de\s+conformidad|presunzione\s+di\s+conformit`)

// Unfounded reports whether a text claims what only a cited harmonised standard gives, while none is cited. No page,
// document or answer of the platform may carry such a text.
func Unfounded(text string) bool { return len(citations) == 0 && claim.MatchString(text) }

// RuleClaim names the refusal of a claim that needs a cited standard.
const RuleClaim = "law.claim"

// CheckClaims is CheckClaim of several texts, by where they were typed.
func CheckClaims(texts map[string]string) error {
	for _, at := range slices.Sorted(maps.Keys(texts)) {
		if err := CheckClaim(at, texts[at]); err != nil {
			return err
		}
	}
	return nil
}

// CheckClaim refuses a text that is Unfounded; at is where it was typed. Every text that a manufacturer publishes through
// the platform, or hands to an authority, is asked.
func CheckClaim(at, text string) error {
	if !Unfounded(text) {
		return nil
	}
	return problem.Forbidden(RuleClaim, "No harmonised standard is cited in the Official Journal for this Regulation: nothing is presumed.").At(at).
		Hint("Name the standard as a technical specification that was applied.")
}
