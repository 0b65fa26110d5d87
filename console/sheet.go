// SPDX-License-Identifier: AGPL-3.0-only

package console

import "html/template"

// Sheet is how a public page looks that speaks in somebody else's name, such as a manufacturer's to its customers: one
// column of text without menu and without script, in light, dark and on paper. A public page stands on one if its data has
// a method Sheet() Sheet; forms, problems and what was said work on it as on any other page.
type Sheet struct {
	Lang  string        // of the page, a language tag; default en
	Title string        // of the window; default that of the page
	From  Link          // who speaks; it stands over the page
	Mark  template.HTML // stands beside From
	Over  []string      // small words above the heading, such as ids
	Langs []Link        // the page in other languages; Word is the language's own name
	Foot  template.HTML
}

// Link is a word that leads somewhere; without Href it leads nowhere.
type Link struct{ Word, Href string }
