// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

// react listens to what other rooms announce.
func (s *Service) react() {
	s.cfg.DB.On(product.EventNotice, "inform", s.supportNotice)
	s.cfg.DB.On(product.EventCeasing, "inform", s.ceasing)
}

// facts are what a template can say.
type facts struct {
	Maker, Product, Hardware string
	End, Was                 string // a month with its year, in the language of the text
	Day                      string
	Months                   int
}

// supportNotice makes and sends the campaign of a notice about the end of support. The event may come again: its campaign
// is there then.
func (s *Service) supportNotice(ctx context.Context, e store.Event) error {
	var n product.Notice
	if err := e.Decode(&n); err != nil {
		return err
	}
	p, err := s.cfg.Products.Get(ctx, e.Tenant, n.Product)
	if err != nil {
		return gone(err)
	}
	vs, err := s.cfg.Products.Revisions(ctx, e.Tenant, n.Product)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(vs, func(v product.Revision) bool { return v.ID == n.Revision })
	if i < 0 {
		return nil
	}
	t, severity := templates["support-ends"], wire.NoticeWarning
	switch n.Kind {
	case product.NoticeEnded:
		t, severity = templates["support-ended"], wire.NoticeCritical
	case product.NoticeCorrection:
		t, severity = templates["support-extended"], wire.NoticeInfo
	}
	w := Words{Kind: KindSupport, Severity: severity, Product: n.Product, Audience: All, Revisions: []string{n.Revision}, Devices: true}
	if _, published, err := s.cfg.Products.Told(ctx, n.Product, product.ItemRemoval); err != nil {
		return err
	} else if published {
		w.URL = s.cfg.Products.PublicURL(n.Product)
	}
	return s.automatic(ctx, e, "support/"+n.Cohort+"/", t, w, func(lang string) facts {
		return facts{Product: p.Name, Hardware: vs[i].Name, End: month(lang, n.End), Was: month(lang, n.Was), Months: n.Months}
	})
}

// ceasing makes and sends the campaign that tells users and authorities that the maker ceases operations, and again
// whenever the day changes.
func (s *Service) ceasing(ctx context.Context, e store.Event) error {
	var c product.Cessation
	if err := e.Decode(&c); err != nil {
		return err
	}
	w := Words{Kind: KindCessation, Severity: wire.NoticeCritical, Audience: All, Devices: true}
	return s.automatic(ctx, e, "ceasing/", templates["ceasing"], w, func(lang string) facts { return facts{Day: day(lang, c.EndsAt)} })
}

// gone takes what is not there any more as nothing to tell.
func gone(err error) error {
	if problem.Is(err, problem.KindNotFound) {
		return nil
	}
	return err
}

// automatic makes and sends a campaign from a template, once for each event. It takes the place of the last one of its line
// on devices.
func (s *Service) automatic(ctx context.Context, e store.Event, line string, t letterTemplate, w Words, say func(lang string) facts) error {
	a := tenant.System(e.Tenant)
	ctx = tenant.WithActor(ctx, a)
	maker, err := s.cfg.Maker(ctx, e.Tenant)
	if err != nil {
		return gone(err)
	}
	w.Language, w.Texts = "en", map[string]Text{}
	for lang, words := range t.texts {
		f := say(lang)
		f.Maker = maker
		if w.Texts[lang], err = words.fill(f); err != nil {
			return err
		}
	}
	w.Subject = plain(w.Texts["en"].Title, maxSubject)
	if err := w.check(); err != nil {
		return err
	}
	c := Campaign{ID: store.NewID("cpn"), Words: w, State: Draft, Version: 1, Template: t.id, Created: s.now(), Actor: a.ID, tenant: e.Tenant, source: line + e.ID}
	if err := s.cfg.DB.View(ctx, func(tx *store.Tx) error { c.Replaces, err = lastOf(tx, e.Tenant, line, c.source); return err }); err != nil {
		return err
	}
	o, err := s.prepare(ctx, c)
	if err != nil {
		return err
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if fresh, err := insertCampaign(tx, c); err != nil || !fresh {
			return err
		}
		return s.send(tx, a, o)
	})
}

// lastOf is the newest campaign that was sent of a line, such as that of a cohort's end of support.
func lastOf(tx *store.Tx, tenant, line, but string) (string, error) {
	var id string
	err := tx.QueryRow(`SELECT id FROM inform_campaign WHERE tenant = $1 AND source >= $2 AND source < $3 AND source <> $4 ORDER BY id DESC LIMIT 1`,
		tenant, line, strings.TrimSuffix(line, "/")+"0", but).Scan(&id) // "0" follows "/"
	if errors.Is(err, store.ErrNoRows) {
		return "", nil
	}
	return id, err
}

// letterTemplate is a text in several languages. Its id has the day on which its words were last changed.
type letterTemplate struct {
	id    string
	texts map[string]templateText
}

type templateText struct{ title, text *template.Template }

func words(title, text string) templateText {
	parse := func(s string) *template.Template {
		return template.Must(template.New("").Option("missingkey=error").Funcs(template.FuncMap{"de": de}).Parse(s))
	}
	return templateText{parse(title), parse(text)}
}

func (t templateText) fill(f facts) (Text, error) {
	var title, text strings.Builder
	if err := t.title.Execute(&title, f); err != nil {
		return Text{}, fmt.Errorf("template: %w", err)
	}
	if err := t.text.Execute(&text, f); err != nil {
		return Text{}, fmt.Errorf("template: %w", err)
	}
	return Text{plain(title.String(), maxTitleBytes), text.String()}, nil
}

// maxTitleBytes leaves room for the mark of a cut below wire.MaxNoticeTitle.
const maxTitleBytes = wire.MaxNoticeTitle - 4

var months = map[string][]string{
	"en": {"January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"},
	"de": {"Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September", "Oktober", "November", "Dezember"},
	"fr": {"janvier", "février", "mars", "avril", "mai", "juin", "juillet", "août", "septembre", "octobre", "novembre", "décembre"},
}

// month is a month with its year: "März 2031".
func month(lang string, m product.Month) string {
	t, err := time.Parse("2006-01", string(m))
	if err != nil {
		return ""
	}
	return months[lang][t.Month()-1] + " " + t.Format("2006")
}

// de is the French "of" before a month: d’avril, d’août, d’octobre, de mars.
func de(month string) string {
	if strings.ContainsAny(month[:min(1, len(month))], "ao") {
		return "d’" + month
	}
	return "de " + month
}

// day is a day as it is written out: "22. März 2031".
func day(lang string, t time.Time) string {
	t = t.UTC()
	d := fmt.Sprint(t.Day())
	switch {
	case lang == "de":
		d += "."
	case lang == "fr" && t.Day() == 1:
		d += "er"
	}
	return d + " " + months[lang][t.Month()-1] + " " + t.Format("2006")
}
