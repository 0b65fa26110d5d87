// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// TestUsersTold: contacts are told by mail and webhook in their language or the campaign's own, and the proof says when,
// how, in which language and what was answered, and names nobody.
func TestUsersTold(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		h.person("Anna", "customer", "de")
		h.person("Bruno", "importer", "it")
		r, _ := h.hook()
		_, err := h.AddContact(other, Contact{Role: "customer", Channel: Mail, Language: "en", Person: Person{"Mal", "mal@x.example"}, Products: []Holding{{Product: h.product}}})
		h.refused(err, problem.KindInvalid, "") // a product of somebody else
		w := h.words()
		w.Kind, w.Vulnerability, w.URL = KindAdvisory, "CVE-2026-1", "https://acme.example/battery"
		c := h.drafted(w)
		p, err := h.Preview(ann, c.ID)
		h.must(err)
		if p.Contacts != 3 || p.Fallback != 2 || p.Devices != 0 || !maps.Equal(p.Languages, map[string]int64{"de": 1, "en": 2}) || !maps.Equal(p.Channels, map[string]int64{Mail: 2, Webhook: 1}) ||
			!maps.Equal(p.Roles, map[string]int64{"customer": 1, "importer": 1, "distributor": 1}) || len(p.Documents) != 1 {
			t.Errorf("preview %+v", p)
		}
		if len(h.mails()) > 0 {
			t.Error("a preview told somebody")
		}
		if c, err = h.Send(ann, c.ID, c.Version); err != nil || c.State != Sent || c.SentBy != "per_ann" {
			t.Fatalf("%+v, %v", c, err)
		}
		h.pass()
		mails := h.mails()
		if len(mails) != 2 {
			t.Fatalf("%d mails", len(mails))
		}
		for _, m := range mails {
			want, lang := "It may leak.", "en"
			if strings.Contains(m.To, "anna@") {
				want, lang = "Sie kann auslaufen.", "de"
			}
			raw := string(m.Raw)
			if !strings.Contains(raw, want) || m.Message.Header.Get("Content-Language") != lang || !strings.Contains(raw, "filename=acme-2026-1.json") || !strings.Contains(raw, digest([]byte(`{"document":{}}`))) {
				t.Errorf("mail to %s: %s", m.To, raw)
			}
		}
		if len(r.bodies) != 1 || len(r.faults) > 0 {
			t.Fatalf("webhooks %v, faults %v", r.bodies, r.faults)
		}
		var got struct{ Data hookData }
		h.must(json.Unmarshal([]byte(r.bodies[0]), &got))
		if got.Data.Title != "Change the battery" || got.Data.Language != "en" || got.Data.From != "Acme Ltd" || got.Data.Product != "Sensor" || string(got.Data.Documents[0].Content) != `{"document":{}}` {
			t.Errorf("%+v", got)
		}
		proof := h.proof(c.ID)
		if proof.Recipients != 3 || proof.States[string(Handed)] != 3 || len(proof.Deliveries) != 3 || proof.Texts[0].Language != "en" || proof.Texts[0].SHA256 != w.Texts["en"].digest() || proof.Campaign.Finished.IsZero() {
			t.Errorf("proof %+v", proof)
		}
		answers := map[string]int{}
		for _, d := range proof.Deliveries {
			answers[d.Answer]++
		}
		if answers["250 2.0.0 taken"] != 2 || answers["204 No Content"] != 1 {
			t.Errorf("answers %v", answers)
		}
		b, err := json.Marshal(proof)
		h.must(err)
		var table bytes.Buffer
		h.must(proof.WriteCSV(&table))
		for _, name := range []string{"buyer.example", "Anna", "anna@", "Wholesale", "127.0.0.1"} {
			if strings.Contains(string(b), name) || strings.Contains(table.String(), name) {
				t.Errorf("the proof names %q", name)
			}
		}
		if strings.Count(table.String(), "\n") != 4 {
			t.Errorf("table %s", table.String())
		}
		if h.leaves("campaign.sent") != 1 || h.leaves("contact.added") != 3 {
			t.Error("leaves are missing")
		}
		h.pass()
		if len(h.mails()) > 0 {
			t.Error("a second pass told somebody again")
		}
	})
}

// TestSentOnce: of two people who send the same draft one does, and nobody is told twice; what was sent is not changed.
func TestSentOnce(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		for range 5 {
			h.person("P"+store.NewID("x"), "customer", "en")
		}
		c := h.drafted(h.words())
		_, err := h.Send(robot, c.ID, c.Version)
		h.refused(err, problem.KindForbidden, RulePerson)
		errs := make([]error, 2)
		var wg sync.WaitGroup
		for i, who := range []int{0, 1} {
			wg.Go(func() {
				ctx := ann
				if who == 1 {
					ctx = bob
				}
				_, errs[i] = h.Send(ctx, c.ID, c.Version)
			})
		}
		wg.Wait()
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Fatalf("both or none: %v, %v", errs[0], errs[1])
		}
		for _, err := range errs {
			if err != nil {
				h.refused(err, problem.KindForbidden, RuleSent)
			}
		}
		_, err = h.Change(ann, c.ID, c.Version, h.words())
		h.refused(err, problem.KindForbidden, RuleSent)
		h.refused(h.Discard(ann, c.ID), problem.KindForbidden, RuleSent)
		h.pass()
		if n := len(h.mails()); n != 5 || h.leaves("campaign.sent") != 1 {
			t.Errorf("%d mails, %d leaves", n, h.leaves("campaign.sent"))
		}
	})
}

// TestSendsWhatWasRead: a draft that somebody changed meanwhile is not sent unread.
func TestSendsWhatWasRead(t *testing.T) {
	h := alone(t)
	h.person("Anna", "customer", "de")
	c := h.drafted(h.words())
	w := h.words()
	w.Texts["en"] = Text{"Nothing", "Do nothing."}
	now, err := h.Change(bob, c.ID, c.Version, w)
	h.must(err)
	_, err = h.Send(ann, c.ID, c.Version)
	h.refused(err, problem.KindConflict, "")
	if _, err = h.Send(ann, c.ID, now.Version); err != nil {
		t.Error(err)
	}
}

// TestImpacted: only who has an affected revision, or of whom nobody knows which, is told; of the others nobody.
func TestImpacted(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		add := func(name, revision string) {
			_, err := h.AddContact(ann, Contact{Role: "customer", Channel: Mail, Language: "en", Person: Person{name, name + "@buyer.example"}, Products: []Holding{{h.product, revision}}})
			h.must(err)
		}
		p, err := h.products.CreateRevision(t.Context(), productRevision(h, "C"), "per_ann")
		h.must(err)
		add("b", h.revision)
		add("c", p.ID)
		add("any", "")
		w := h.words()
		w.Audience, w.Revisions = Impacted, []string{h.revision}
		c := h.told(w)
		h.pass()
		var to []string
		for _, m := range h.mails() {
			to = append(to, m.To)
		}
		slices.Sort(to)
		if len(to) != 2 || !strings.Contains(to[0], "any@") || !strings.Contains(to[1], "b@") {
			t.Errorf("told %v", to)
		}
		if q := h.proof(c.ID).Campaign.Query; q == nil || q.Audience != Impacted || !slices.Equal(q.Revisions, []string{h.revision}) || !q.At.Equal(saturday) {
			t.Errorf("query %+v", q)
		}
		claims := w
		claims.Texts = map[string]Text{"en": {"Update now", "The product enjoys the presumption of conformity."}}
		_, err = h.Draft(ann, claims)
		h.refused(err, problem.KindForbidden, law.RuleClaim)
		w.Revisions = nil
		_, err = h.Draft(ann, w)
		h.refused(err, problem.KindInvalid, "")
	})
}

// TestCaseUsersInformed: telling the users of a case is an event of that case, in the same transaction; the event may name
// no other campaign, and those who told users by other ways still say how.
func TestCaseUsersInformed(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		h.person("Anna", "customer", "en")
		id := h.cased("CVE-2026-1")
		w := h.words()
		w.Kind, w.Case = KindCase, id
		c := h.drafted(w)
		append1 := func(campaign string) error {
			_, err := h.cases.Append(ann, id, respond.UsersInformed, respond.Data{At: h.hand.Now(), Audience: "all", Note: "as said", Campaign: campaign})
			return err
		}
		h.refused(append1(c.ID), problem.KindConflict, "") // a draft has told nobody
		elsewhere := h.told(h.words())
		h.refused(append1(elsewhere.ID), problem.KindInvalid, "")
		before, err := h.cases.Case(ann, id)
		h.must(err)
		if before.Regions.Users != respond.ReachNone {
			t.Fatalf("users %v", before.Regions.Users)
		}
		_, err = h.Send(ann, c.ID, c.Version)
		h.must(err)
		of, err := h.cases.Case(ann, id)
		h.must(err)
		last := of.Events[len(of.Events)-1]
		if of.Regions.Users != respond.ReachAll || last.Kind != respond.UsersInformed || last.Data.Campaign != c.ID || !last.Person || last.Actor != "per_ann" {
			t.Errorf("users %v, last event %+v", of.Regions.Users, last)
		}
		h.must(append1(c.ID))
		h.must(append1("")) // by other ways
		_, err = h.cases.Append(ann, id, respond.Withdrawn, respond.Data{Note: "declared in error"})
		h.must(err)
		// The case is over: its users are not told in its name any more, and no mail goes out.
		h.mails()
		late := h.drafted(w)
		_, err = h.Send(ann, late.ID, late.Version)
		h.refused(err, problem.KindForbidden, "respond.closed")
		h.pass()
		if got, err := h.Campaign(ann, late.ID); err != nil || got.State != Draft {
			t.Errorf("%+v, %v", got, err)
		}
		w.Case = "cas_none"
		_, err = h.Draft(ann, w)
		h.refused(err, problem.KindNotFound, "")
	})
}

// TestErasedContactStaysOut: an erased contact is told nothing more, its name and address are gone, and the proof of what it
// was told stays.
func TestErasedContactStaysOut(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		anna := h.person("Anna", "customer", "en")
		h.person("Bruno", "customer", "en")
		first := h.told(h.words())
		h.pass()
		h.mails()
		waiting := h.told(h.words())
		h.must(h.EraseContact(ann, anna.ID))
		h.refused(h.EraseContact(ann, anna.ID), problem.KindConflict, "")
		h.pass()
		if m := h.mails(); len(m) != 1 || !strings.Contains(m[0].To, "bruno@") {
			t.Errorf("told %v", m)
		}
		p := h.proof(waiting.ID)
		if p.States[string(Failed)] != 1 || p.States[string(Handed)] != 1 {
			t.Errorf("states %v", p.States)
		}
		third := h.told(h.words())
		if n := h.proof(third.ID).Recipients; n != 1 {
			t.Errorf("%d recipients after the erasure", n)
		}
		p = h.proof(first.ID)
		hash, err := h.pseudonym(maker, Mail, "anna@buyer.example")
		h.must(err)
		if p.Recipients != 2 || !slices.ContainsFunc(p.Deliveries, func(d Delivery) bool { return d.Address == hash && d.State == Handed }) {
			t.Errorf("proof %+v", p)
		}
		c, err := h.Contact(ann, anna.ID)
		if err != nil || c.Name != "" || c.Address != "" || c.Erased.IsZero() || len(c.Products) > 0 {
			t.Errorf("%+v, %v", c, err)
		}
		if _, err := h.keys.Subject(t.Context(), h.db, maker, anna.ID); err == nil {
			t.Error("the key is still there")
		}
		_, err = h.ChangeContact(ann, anna.ID, anna)
		h.refused(err, problem.KindConflict, "")
		again := h.person("Anna", "customer", "en") // who comes back is somebody new
		if again.ID == anna.ID || h.leaves("contact.erased") != 1 {
			t.Error("erasure")
		}
	})
}

// TestNobodyElse: what is another tenant's, or for other roles, is not there.
func TestNobodyElse(t *testing.T) {
	h := alone(t)
	c := h.person("Anna", "customer", "en")
	sent := h.told(h.words())
	auditor := signedIn("per_aud", maker, tenant.Auditor)
	if _, err := h.Proof(auditor, sent.ID); err != nil {
		t.Error(err)
	}
	_, err := h.Contacts(auditor, "", "", 10)
	h.refused(err, problem.KindForbidden, "access.case.write")
	_, err = h.Contact(other, c.ID)
	h.refused(err, problem.KindNotFound, "")
	_, err = h.Proof(other, sent.ID)
	h.refused(err, problem.KindNotFound, "")
	h.refused(h.EraseContact(other, c.ID), problem.KindNotFound, "")
	_, err = h.Send(auditor, sent.ID, 1)
	h.refused(err, problem.KindForbidden, "access.case.declare")
	d := h.proof(sent.ID).Deliveries[0]
	_, err = h.Bounce(other, sent.ID, d.ID, "no such user")
	h.refused(err, problem.KindNotFound, "")
}

// TestUsersToBeTold: what waits for a person is said on the first page, to those who may read it.
func TestUsersToBeTold(t *testing.T) {
	h := alone(t)
	h.person("Anna", "customer", "en")
	tile := func(ctx context.Context, want string) {
		t.Helper()
		c := console.New(console.Config{Clock: h.hand, Log: slog.New(slog.DiscardHandler), Menu: []string{"Today", "Cases", "Tell users"}, Holds: tenant.Holds,
			Authenticate: func(*http.Request) (context.Context, error) { return ctx, nil }, Visitor: func(context.Context) string { return "Ann" }})
		h.Pages(c)
		w := httptest.NewRecorder()
		c.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if page := w.Body.String(); w.Code != 200 || regexp.MustCompile(`Users (to be|are being) told`).MatchString(page) != (want != ",") {
			t.Errorf("the first page, want %q: %d %s", want, w.Code, page)
		}
		f, err := h.tile(ctx)
		h.must(err)
		if got := strings.TrimSpace(f.Label + " " + f.Value + ", " + f.Note); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	tile(ann, ",")
	first, second := h.drafted(h.words()), h.drafted(h.words())
	tile(ann, "Users to be told 2, drafts that nobody has sent")
	tile(other, ",")
	_, err := h.Send(ann, first.ID, first.Version)
	h.must(err)
	tile(ann, "Users to be told 1, drafts that nobody has sent; 1 more on their way")
	h.must(h.Discard(ann, second.ID))
	tile(ann, "Users are being told 1, on their way, or tried again")
	h.pass()
	tile(ann, ",")
}
