// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/testpeers"
	"github.com/openthings-platform/openthings/wire"
)

// announced emits an event as the room of products does, and runs what follows.
func (h *house) announced(topic, subject string, data any) {
	h.t.Helper()
	h.must(h.db.Write(h.t.Context(), func(tx *store.Tx) error { return h.db.Emit(tx, topic, maker, subject, data) }))
	h.jobs()
}

// TestSupportNotices: each notice of the end of support becomes a campaign that is sent, to the contacts of that hardware,
// in their language; its correction replaces it.
func TestSupportNotices(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		h.person("Anna", "customer", "fr")
		h.person("Bruno", "sales", "it")
		c, err := h.products.CreateRevision(t.Context(), productRevision(h, "C"), "per_ann")
		h.must(err)
		_, err = h.AddContact(ann, Contact{Role: "customer", Channel: Mail, Language: "en", Person: Person{"Carl", "carl@buyer.example"}, Products: []Holding{{h.product, c.ID}}})
		h.must(err)
		notice := product.Notice{Tenant: maker, Product: h.product, Revision: h.revision, Cohort: "coh_1", Kind: product.NoticeScheduled, Months: 6, Step: 6, End: "2031-03", Version: 1}
		h.announced(product.EventNotice, "coh_1", notice)
		h.pass()
		mails := h.mails()
		if len(mails) != 2 {
			t.Fatalf("%d mails", len(mails))
		}
		for _, m := range mails {
			want := "until the end of March 2031. 6 months are left"
			if strings.Contains(m.To, "anna@") {
				want = "jusqu’à la fin de mars 2031. Il reste 6 mois"
			}
			if !strings.Contains(strings.ReplaceAll(m.Body, "\r\n", "\n"), want) || strings.Contains(m.To, "carl@") {
				t.Errorf("mail to %s: %s", m.To, m.Body)
			}
		}
		notice.Kind, notice.Step, notice.Months, notice.Was, notice.End = product.NoticeCorrection, 0, 30, "2031-03", "2033-03"
		h.announced(product.EventNotice, "coh_1", notice)
		cs, err := h.Campaigns(ann, "", "", 10)
		h.must(err)
		if len(cs) != 2 || cs[0].Replaces != cs[1].ID || cs[0].State != Sent || cs[0].SentBy != "system" || cs[0].Template != "support-extended@2026-11-22" || cs[0].Severity != wire.NoticeInfo {
			t.Fatalf("%+v", cs)
		}
		if text := cs[0].Texts["de"]; !strings.Contains(text.Text, "Ende des Monats März 2031 nannte") || !strings.Contains(text.Title, "März 2033") {
			t.Errorf("%+v", text)
		}
	})
}

// TestSupportNoticeOnce: the same event again makes nothing again, also if it comes while the first is at work.
func TestSupportNoticeOnce(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		h.person("Anna", "customer", "de")
		h.announced(product.EventNotice, "coh_1", product.Notice{Tenant: maker, Product: h.product, Revision: h.revision, Cohort: "coh_1", Kind: product.NoticeEnded, End: "2026-10"})
		first, err := h.Campaigns(ann, "", "", 10)
		h.must(err)
		e := store.Event{ID: strings.TrimPrefix(first[0].source, "support/coh_1/"), Topic: product.EventNotice, Tenant: maker, Subject: "coh_1",
			Data: []byte(`{"product":"` + h.product + `","revision":"` + h.revision + `","cohort":"coh_1","kind":"ended","support_end":"2026-10"}`)}
		h.must(h.supportNotice(t.Context(), e))
		h.pass()
		cs, err := h.Campaigns(ann, "", "", 10)
		h.must(err)
		if len(cs) != 1 || len(h.mails()) != 1 || h.leaves(TopicSent) != 1 {
			t.Errorf("%d campaigns", len(cs))
		}
	})
}

// TestCeasing: that the maker ceases operations is told to users of every product and to authorities, and again when the day
// changes (CRA Article 13(23)).
func TestCeasing(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		h.person("Anna", "customer", "de")
		h.person("Office", "authority", "en")
		_, err := h.products.DeclareCessation(t.Context(), maker, time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC), "insolvency", "per_ann")
		h.must(err)
		h.jobs()
		_, err = h.products.DeclareCessation(t.Context(), maker, time.Date(2027, 4, 1, 0, 0, 0, 0, time.UTC), "later", "per_ann")
		h.must(err)
		h.jobs()
		h.pass()
		mails := h.mails()
		if len(mails) != 4 || !slices.ContainsFunc(mails, func(m testpeers.Letter) bool {
			return strings.Contains(m.Body, "stellt den Betrieb am 1. April 2027 ein")
		}) {
			t.Errorf("%d mails", len(mails))
		}
		for _, m := range mails {
			if strings.Contains(m.Body, "insolvency") {
				t.Error("the maker's own reason was told")
			}
		}
		cs, err := h.Campaigns(ann, "", "", 10)
		h.must(err)
		if len(cs) != 2 || cs[0].Replaces != cs[1].ID || cs[0].Product != "" {
			t.Errorf("%+v", cs)
		}
	})
}

// TestTemplatesFit: every template fills in every language, and what it says fits on a device, names of the longest
// included.
func TestTemplatesFit(t *testing.T) {
	long := strings.Repeat("Ü", 120)
	for id, tpl := range templates {
		if !strings.HasPrefix(tpl.id, id+"@20") || len(tpl.texts) < 3 {
			t.Errorf("template %s has the id %q and %d languages", id, tpl.id, len(tpl.texts))
		}
		for _, months := range []int{0, 1, 24} {
			w := Words{Kind: KindSupport, Severity: wire.NoticeInfo, Product: "prd_1", Audience: All, Subject: "x", Language: "en", Texts: map[string]Text{}}
			for lang, words := range tpl.texts {
				text, err := words.fill(facts{Maker: long, Product: long, Hardware: long, End: month(lang, "2031-03"), Was: month(lang, "2030-12"), Day: day(lang, saturday), Months: months})
				if err != nil {
					t.Fatal(err)
				}
				w.Texts[lang] = text
			}
			if err := w.check(); err != nil {
				t.Errorf("%s with %d months: %v", id, months, err)
			}
		}
	}
	if day("fr", time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)) != "1er mars 2027" || month("de", "2031-03") != "März 2031" ||
		de(month("fr", "2031-10")) != "d’octobre 2031" || de(month("fr", "2031-03")) != "de mars 2031" {
		t.Error("days and months")
	}
}

// TestSystemSendsOnlyItsOwn: what the platform sends by itself is what it made: no door lets anybody pose as it.
func TestSystemSendsOnlyItsOwn(t *testing.T) {
	h := alone(t)
	h.person("Anna", "customer", "de")
	c := h.drafted(h.words())
	_, err := h.Send(tenant.WithActor(t.Context(), tenant.System(maker)), c.ID, c.Version)
	h.refused(err, "forbidden", RulePerson)
}
