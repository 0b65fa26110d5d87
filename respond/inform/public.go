// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"cmp"
	"net/http"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// publicWords are our own words on the page behind the link of a mail.
var publicWords = map[string]map[string]string{
	"en": {"read": "I have read this", "done": "Noted. Thank you.", "files": "Documents", "more": "More", "hint": "You need not confirm it. Nothing but the time is noted."},
	"de": {"read": "Ich habe das gelesen", "done": "Festgehalten. Danke.", "files": "Dokumente", "more": "Mehr dazu", "hint": "Sie müssen es nicht bestätigen. Festgehalten wird nur der Zeitpunkt."},
	"fr": {"read": "J’ai lu ceci", "done": "C’est noté. Merci.", "files": "Documents", "more": "En savoir plus", "hint": "La confirmation est facultative. Seule l’heure est enregistrée."},
}

// toldPage is a delivery for its reader.
type toldPage struct {
	Code      string
	Said      map[string]string
	Text      Text
	URL       string
	Documents []Document
	Read      bool
	maker     string
	lang      string
}

// Heading is the page's title.
func (p toldPage) Heading() string { return p.Text.Title }

// Sheet says whose page it is.
func (p toldPage) Sheet() console.Sheet {
	return console.Sheet{Lang: p.lang, Title: p.Text.Title, From: console.Link{Word: p.maker}}
}

// publicPages are behind the 128-bit code in a mail. Opening the page says nothing: programs that look at mails open every
// link. Only the button does.
func (s *Service) publicPages(c *console.Console) {
	c.Page(console.Page{Path: "/told/{code}", Title: "Message", Public: true, FS: pagesFS, Template: "pages/told.html", Load: func(r *http.Request) (any, error) {
		d, err := s.behind(r)
		if err != nil {
			return nil, err
		}
		m, err := s.message(r.Context(), d)
		if err != nil {
			return nil, err
		}
		said := publicWords[d.Language]
		if said == nil {
			said = publicWords["en"]
		}
		return toldPage{Code: r.PathValue("code"), Said: said, Text: m.c.In(d.Language), URL: m.c.URL, Documents: m.c.Documents, Read: !d.Read.IsZero(), maker: m.maker, lang: cmp.Or(d.Language, "en")}, nil
	}})
	c.PublicForm("/told/{code}", func(r *http.Request) (string, error) {
		d, err := s.behind(r)
		if err == nil {
			err = s.read(r.Context(), d.tenant, d.ID)
		}
		return "/told/" + r.PathValue("code"), err
	})
}

// behind is the delivery behind a link. Who tries links that lead nowhere is slowed down.
func (s *Service) behind(r *http.Request) (d Delivery, err error) {
	id, ok := s.deliveryOf(r.PathValue("code"))
	if !ok {
		if err := s.rates.Take(api.Address(r), 1); err != nil {
			return d, err
		}
		return d, problem.NotFound("There is no such message.")
	}
	return d, s.cfg.DB.View(r.Context(), func(tx *store.Tx) error {
		t, err := tenantOf(tx, id)
		if err == nil {
			d, err = deliveryByID(tx, t, id)
		}
		return err
	})
}
