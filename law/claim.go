// SPDX-License-Identifier: AGPL-3.0-only

package law

import "regexp"

// claim finds what Article 27(1) attaches to cited harmonised standards, and to them alone, in the languages in which
// manufacturers write it most.
var claim = regexp.MustCompile(`(?i)\bpresum(?:ption|ptively|ed|es|e)\b[^.;]{0,40}\bconform|\bconformity\b[^.;]{0,20}\bpresumed\b|` +
	`konformit(?:ä|ae)tsvermutung|vermutung\s+der\s+konformit|pr[ée]somption\s+de\s+conformit|presunci[óo]n\s+de\s+conformidad|presunzione\s+di\s+conformit`)

// Unfounded reports whether a text claims what only a cited harmonised standard gives, while none is cited. No page,
// document or answer of the platform may carry such a text.
func Unfounded(text string) bool { return len(citations) == 0 && claim.MatchString(text) }
