// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/notify"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/webhook"
)

// phrases are our own words in a mail, by language; other languages get the English ones beside the campaign's own text.
var phrases = map[string]struct{ more, files, read, from string }{
	"en": {"More", "Documents that come with this message", "If you like, confirm here that you have read it", "You get this message because you are named as a contact for"},
	"de": {"Mehr dazu", "Dokumente zu dieser Nachricht", "Wenn Sie möchten, bestätigen Sie hier, dass Sie sie gelesen haben", "Sie erhalten diese Nachricht, weil Sie als Kontakt genannt sind für"},
	"fr": {"En savoir plus", "Documents joints à ce message", "Si vous le souhaitez, confirmez ici que vous l’avez lu", "Vous recevez ce message parce que vous êtes indiqué comme contact pour"},
}

// message is one delivery with what it says.
type message struct {
	d     Delivery
	c     Campaign
	maker string
	link  string // behind which the reader says so
}

func (s *Service) message(ctx context.Context, d Delivery) (m message, err error) {
	m.d = d
	if err = s.cfg.DB.View(ctx, func(tx *store.Tx) error { m.c, err = campaignByID(tx, d.tenant, d.campaign); return err }); err != nil {
		return m, err
	}
	if err = s.productName(ctx, &m.c); err != nil {
		return m, err
	}
	if m.maker, err = s.cfg.Maker(ctx, d.tenant); err != nil {
		return m, err
	}
	code, err := s.readCode(d.ID)
	m.link = s.cfg.URL + "/told/" + code
	return m, err
}

// letter is the message as a mail.
func (m message) letter(to string) notify.Letter {
	said, ok := phrases[m.d.Language]
	if !ok {
		said = phrases["en"]
	}
	t := m.c.In(m.d.Language)
	var b strings.Builder
	b.WriteString(t.Text)
	if m.c.URL != "" {
		fmt.Fprintf(&b, "\n\n%s: %s", said.more, m.c.URL)
	}
	if len(m.c.Documents) > 0 {
		fmt.Fprintf(&b, "\n\n%s:", said.files)
	}
	l := notify.Letter{ID: m.d.ID, To: to, Subject: t.Title, At: m.c.Sent, Language: m.d.Language}
	for _, d := range m.c.Documents {
		fmt.Fprintf(&b, "\n- %s", d.Name)
		if d.URL != "" {
			fmt.Fprintf(&b, ", %s", d.URL)
		}
		fmt.Fprintf(&b, "\n  SHA-256 %s", d.SHA256)
		if len(d.Body) > 0 {
			l.Files = append(l.Files, notify.File{Name: d.Name, Type: "application/json", Body: d.Body})
		}
	}
	fmt.Fprintf(&b, "\n\n%s: %s\n\n-- \n%s\n%s %s.", said.read, m.link, m.maker, said.from, cmp.Or(m.c.ProductName, m.maker))
	l.Text = b.String()
	return l
}

// hook is the body of a webhook, as Standard Webhooks recommend it.
type hook struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	Data      hookData  `json:"data"`
}

type hookData struct {
	Campaign  string         `json:"campaign"`
	Kind      string         `json:"kind"`
	Severity  string         `json:"severity"`
	From      string         `json:"from"`
	Product   string         `json:"product,omitempty"`
	Versions  []string       `json:"versions,omitempty"`
	Replaces  string         `json:"replaces,omitempty"`
	Language  string         `json:"language"`
	Title     string         `json:"title"`
	Text      string         `json:"text"`
	URL       string         `json:"url,omitempty"`
	Documents []hookDocument `json:"documents"`
	Read      string         `json:"read"`
}

type hookDocument struct {
	Document
	Content json.RawMessage `json:"content,omitempty"`
}

func (m message) hook() ([]byte, error) {
	t := m.c.In(m.d.Language)
	h := hook{"users.notice", m.c.Sent, hookData{Campaign: m.c.ID, Kind: m.c.Kind, Severity: m.c.Severity, From: m.maker, Product: m.c.ProductName, Replaces: m.c.Replaces,
		Language: m.d.Language, Title: t.Title, Text: t.Text, URL: m.c.URL, Documents: []hookDocument{}, Read: m.link}}
	if m.c.Query != nil {
		h.Data.Versions = m.c.Query.Versions
	}
	for _, d := range m.c.Documents {
		h.Data.Documents = append(h.Data.Documents, hookDocument{d, json.RawMessage(d.Body)})
	}
	return json.Marshal(h)
}

func (s *Service) post(ctx context.Context, m message, c Contact) (answer string, err error) {
	body, err := m.hook()
	if err != nil {
		return "", err
	}
	req, err := webhook.Secret(c.secret).Request(ctx, c.Address, m.d.ID, s.now(), body)
	if err != nil {
		return "", err
	}
	a, err := webhook.Do(s.client, req)
	var refused *webhook.Refused
	if errors.As(err, &refused) {
		return "", said{plain(refused.Status, 100), refused}
	}
	return plain(a.Status, 100), err
}
