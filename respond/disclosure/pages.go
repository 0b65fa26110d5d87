// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"context"
	"embed"
	"net/http"
	"net/url"
	"strings"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed pages/*.html
var pagesFS embed.FS

type contactView struct {
	Contact
	Set                        bool
	Contacts, Languages, Hosts string
	Typed                      url.Values
}

// Pages registers the pages of the room.
func (s *Service) Pages(c *console.Console) {
	c.Page(console.Page{Path: "/disclosure/contact", Title: "Disclosure contact", Menu: "Disclosure", Verb: string(tenant.CaseRead), FS: pagesFS, Template: "pages/contact.html",
		Load: func(r *http.Request) (any, error) {
			ct, set, err := s.Contact(r.Context())
			return contactView{Contact: ct, Set: set, Contacts: strings.Join(ct.Contacts, "\n"), Languages: strings.Join(ct.PreferredLocales, ", "), Hosts: strings.Join(ct.Hosts, ", "), Typed: console.Typed(r)}, err
		}})
	c.Form("/disclosure/contact", string(tenant.CaseDeclare), func(r *http.Request) (string, error) {
		ct := Contact{Hosts: words(r.PostFormValue("hosts")), Contacts: strings.Fields(r.PostFormValue("contacts")), Policy: r.PostFormValue("policy"),
			Encryption: r.PostFormValue("encryption"), Acknowledgments: r.PostFormValue("acknowledgments"), CSAF: r.PostFormValue("csaf"), PreferredLocales: words(r.PostFormValue("languages"))}
		if err := s.SetContact(r.Context(), ct); err != nil {
			return "", err
		}
		console.Say(r, "security.txt says it from now on.")
		return "/disclosure/contact", nil
	})
	c.Step(console.Step{Order: 70, Title: "Be ready for a case", Text: "Say where reports of vulnerabilities arrive; a declared case then starts the legal clocks.", Href: "/disclosure/contact", Button: "Publish a contact",
		Done: func(ctx context.Context) (bool, error) {
			_, set, err := s.Contact(ctx)
			return set, err
		}})
}

func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\r' || r == '\t' })
}
