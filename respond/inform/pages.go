// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"cmp"
	"context"
	"embed"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

//go:embed pages/*.html
var pagesFS embed.FS

const (
	menu     = "Tell users"
	pageSize = 50
)

// offered are the languages that a form has room for by itself, the first being that of an empty draft.
var offered = []string{"en", "de", "fr"}

// languageNames are what people call the languages that are offered.
var languageNames = map[string]string{"en": "English", "de": "German", "fr": "French"}

// formText is a text as the form has it.
type formText struct{ Lang, Name, Title, Text string }

// draftForm is a draft as the form has it, as it was typed or as it is.
type draftForm struct {
	Words
	Texts     []formText
	Kinds     []console.Option
	Products  []console.Option
	Severity  []console.Option
	Audiences []console.Option
	Revisions []console.Option
	Version   int64
	Action    string // where it is posted to
	Other     formText
}

type campaignsPage struct {
	Campaigns []Campaign
	Form      draftForm
	Typed     bool
	MayWrite  bool
	Pager     console.Pager
}

type campaignPage struct {
	Campaign
	Form       draftForm
	Preview    Preview
	Unknown    string // why it cannot be said who would be told
	Proof      Proof
	Bar        console.Bar
	DevicesBar console.Bar
	Shown      []Delivery // that need somebody
	Names      *console.Names
	MayWrite   bool
	MaySend    bool
}

// Heading is the page's title.
func (p campaignPage) Heading() string { return p.Subject }

// caseFragment is what a case says of its campaigns.
type caseFragment struct {
	Case      string
	Campaigns []Campaign
	MayWrite  bool
}

type contactsPage struct {
	Contacts []Contact
	Contact  Contact
	Secret   string
	Roles    []console.Option
	Channels []console.Option
	Products []console.Option
	Typed    url.Values
	Names    *console.Names
	Columns  string
	Pager    console.Pager
}

func options(words ...string) (out []console.Option) {
	for _, w := range words {
		out = append(out, console.Option{Value: w, Word: strings.ReplaceAll(w, "-", " ")})
	}
	return out
}

// Pages mounts the console's pages, and those behind the links of mails.
func (s *Service) Pages(c *console.Console) {
	s.campaignPages(c)
	s.contactPages(c)
	s.publicPages(c)
	c.Tile(console.Tile{Order: 35, Verb: string(tenant.CaseRead), Load: s.tile})
}

// tile is there while something that users are to be told waits for a person, or is on its way.
func (s *Service) tile(ctx context.Context) (console.Figure, error) {
	drafts, sending, err := s.Unfinished(ctx)
	if err != nil || drafts+sending == 0 {
		return console.Figure{}, err
	}
	f := console.Figure{Label: "Users to be told", Value: console.Count(drafts), Note: "drafts that nobody has sent", Href: "/inform", Tone: "warn"}
	switch {
	case drafts == 0:
		f.Label, f.Value, f.Note, f.Tone = "Users are being told", console.Count(sending), "on their way, or tried again", ""
	case sending > 0:
		f.Note = fmt.Sprintf("drafts that nobody has sent; %d more on their way", sending)
	}
	return f, nil
}

func (s *Service) campaignPages(c *console.Console) {
	read, write, declare := string(tenant.CaseRead), string(tenant.CaseWrite), string(tenant.CaseDeclare)
	c.Page(console.Page{Path: "/inform", Title: "Tell users", Menu: menu, Tab: "Campaigns", TabOrder: 10, Verb: read, FS: pagesFS, Template: "pages/campaigns.html",
		Load: func(r *http.Request) (any, error) {
			ctx, before := r.Context(), r.URL.Query().Get("before")
			p := campaignsPage{MayWrite: tenant.Holds(ctx, write), Typed: len(console.Typed(r)) > 0}
			var err error
			if p.Campaigns, err = s.Campaigns(ctx, "", before, pageSize+1); err != nil {
				return nil, err
			}
			if before != "" {
				p.Pager.First = "/inform"
			}
			if len(p.Campaigns) > pageSize {
				p.Campaigns = p.Campaigns[:pageSize]
				p.Pager.Next = "/inform?before=" + url.QueryEscape(p.Campaigns[pageSize-1].ID)
			}
			if p.MayWrite {
				p.Form, err = s.form(r, Words{Kind: KindOther, Audience: All, Language: offered[0], Severity: wire.NoticeWarning}, "/inform")
			}
			return p, err
		}})
	c.Form("/inform", write, func(r *http.Request) (string, error) {
		d, err := s.Draft(r.Context(), wordsOf(r))
		console.Say(r, "Drafted. Nobody is told before you send it.")
		return "/inform/" + d.ID, err
	})
	c.Form("/cases/{id}/tell", write, func(r *http.Request) (string, error) {
		w, err := s.prefilled(r.Context(), r.PathValue("id"))
		if err != nil {
			return "", err
		}
		d, err := s.Draft(r.Context(), w)
		console.Say(r, "Drafted from the case. Nobody is told before you send it.")
		return "/inform/" + d.ID, err
	})
	c.Fragment("case", console.Fragment{Order: 40, Title: "Users told", Verb: read, FS: pagesFS, Template: "pages/case.html", Load: func(r *http.Request, key string) (any, error) {
		cs, err := s.Campaigns(r.Context(), key, "", pageSize)
		return caseFragment{Case: key, Campaigns: cs, MayWrite: tenant.Holds(r.Context(), write)}, err
	}})
	c.Page(console.Page{Path: "/inform/{id}", Title: "Campaign", Menu: menu, Tab: "Campaigns", Verb: read, FS: pagesFS, Template: "pages/campaign.html",
		Load: func(r *http.Request) (any, error) { return s.campaignPage(r, c.Names(r.Context())) }})
	act := func(path, verb, said string, do func(r *http.Request, id string) error) {
		c.Form("/inform/{id}"+path, verb, func(r *http.Request) (string, error) {
			id := r.PathValue("id")
			err := do(r, id)
			if err == nil {
				console.Say(r, said)
			}
			return "/inform/" + id, err
		})
	}
	act("", write, "Saved.", func(r *http.Request, id string) error {
		version, err := console.Number(r, "version")
		if err == nil {
			_, err = s.Change(r.Context(), id, version, wordsOf(r))
		}
		return err
	})
	act("/send", declare, "Sent. What users get and who they are is frozen now; how it goes stands below.", func(r *http.Request, id string) error {
		version, err := console.Number(r, "version")
		if err == nil {
			_, err = s.Send(r.Context(), id, version)
		}
		return err
	})
	act("/discard", write, "Discarded. Nobody was told.", func(r *http.Request, id string) error { return s.Discard(r.Context(), id) })
	act("/retry", declare, "What failed is tried again now.", func(r *http.Request, id string) error {
		_, err := s.Retry(r.Context(), id)
		return err
	})
	act("/bounce", write, "Recorded.", func(r *http.Request, id string) error {
		_, err := s.Bounce(r.Context(), id, r.FormValue("delivery"), r.FormValue("reason"))
		return err
	})
}

func (s *Service) campaignPage(r *http.Request, names *console.Names) (any, error) {
	ctx := r.Context()
	c, err := s.Campaign(ctx, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	on := tenant.Thing{Tenant: c.tenant, Product: c.Product}
	p := campaignPage{Campaign: c, Names: names, MayWrite: tenant.Require(ctx, tenant.CaseWrite, on) == nil, MaySend: tenant.Require(ctx, tenant.CaseDeclare, on) == nil}
	switch c.State {
	case Draft:
		p.Preview, err = s.preview(ctx, c)
		if problem.Is(err, problem.KindConflict) {
			p.Unknown, err = problem.Of(err).Text, nil
		}
		if err == nil {
			p.Form, err = s.form(r, c.Words, "/inform/"+c.ID)
			p.Form.Version = c.Version
		}
	case Sent:
		if p.Proof, err = s.figures(ctx, c.ID); err != nil {
			return nil, err
		}
		p.Bar = console.Bar{Label: "Contacts", Total: p.Proof.Recipients, Parts: []console.BarPart{
			{Word: "read", N: p.Proof.States[string(Read)], Tone: "good"}, {Word: "handed over", N: p.Proof.States[string(Handed)], Tone: "good"},
			{Word: "waiting", N: p.Proof.States[string(Waiting)], Tone: "busy"},
			{Word: "came back", N: p.Proof.States[string(Bounced)], Tone: "warn"}, {Word: "failed", N: p.Proof.States[string(Failed)], Tone: "bad"}}}
		d := p.Proof.Devices
		p.DevicesBar = console.Bar{Label: "Devices", Total: d.Devices, Parts: []console.BarPart{{Word: "acknowledged", N: d.Acknowledged, Tone: "good"}, {Word: "shown", N: d.Shown - d.Acknowledged, Tone: "good"},
			{Word: "stored", N: d.Stored - d.Shown, Tone: "busy"}, {Word: "asked", N: d.Devices - d.Stored - d.Failed, Tone: "past"}, {Word: "failed", N: d.Failed, Tone: "bad"}}}
		for _, state := range []State{Failed, Bounced, Waiting} {
			ds, err := s.Deliveries(ctx, c.ID, state, "", pageSize)
			if err != nil {
				return nil, err
			}
			p.Shown = append(p.Shown, ds...)
		}
	}
	return p, err
}

// form offers words for change, as they are or as they were typed.
func (s *Service) form(r *http.Request, w Words, action string) (f draftForm, err error) {
	other := formText{}
	if typed := console.Typed(r); len(typed) > 0 {
		r = r.Clone(r.Context())
		r.Form = typed
		w = wordsOf(r)
		other = formText{Lang: typed.Get("other-lang"), Title: typed.Get("other-title"), Text: typed.Get("other-text")}
		delete(w.Texts, other.Lang)
	}
	f = draftForm{Words: w, Action: action, Other: other,
		Kinds:     options(KindOther, KindAdvisory, KindCase, KindSupport, KindCessation),
		Severity:  options(wire.NoticeInfo, wire.NoticeWarning, wire.NoticeCritical),
		Audiences: []console.Option{{Value: Impacted, Word: "who is impacted"}, {Value: All, Word: "all users"}}}
	langs := slices.Clone(offered)
	for _, lang := range slices.Sorted(maps.Keys(w.Texts)) {
		if !slices.Contains(langs, lang) {
			langs = append(langs, lang)
		}
	}
	for _, lang := range langs {
		t := w.Texts[lang]
		f.Texts = append(f.Texts, formText{lang, cmp.Or(languageNames[lang], lang), t.Title, t.Text})
	}
	a, _ := tenant.ActorFrom(r.Context())
	f.Products, err = s.productOptions(r.Context(), a.Tenant, console.Option{Word: "every product"})
	if err != nil || w.Product == "" {
		return f, err
	}
	vs, err := s.cfg.Products.Revisions(r.Context(), a.Tenant, w.Product)
	for _, v := range vs {
		f.Revisions = append(f.Revisions, console.Option{Value: v.ID, Word: v.Name})
	}
	return f, err
}

// Has says whether the draft names the revision.
func (f draftForm) Has(revision string) bool { return slices.Contains(f.Words.Revisions, revision) }

// productOptions are the products whose users whoever asks may write to.
func (s *Service) productOptions(ctx context.Context, t string, first ...console.Option) ([]console.Option, error) {
	a, _ := tenant.ActorFrom(ctx)
	ps, err := s.cfg.Products.List(ctx, t)
	for _, p := range ps {
		if tenant.Can(a, tenant.CaseWrite, tenant.Thing{Tenant: t, Product: p.ID}) {
			first = append(first, console.Option{Value: p.ID, Word: p.Name})
		}
	}
	return first, err
}

// wordsOf reads a draft as it was typed. A language without title and text has none.
func wordsOf(r *http.Request) Words {
	get := func(name string) string {
		return strings.TrimSpace(strings.ReplaceAll(r.FormValue(name), "\r\n", "\n"))
	}
	w := Words{Kind: get("kind"), Severity: get("severity"), Product: get("product"), Case: get("case"), Vulnerability: get("vulnerability"), Subject: get("subject"), Audience: get("audience"),
		Devices: get("devices") != "", Language: get("language"), URL: get("url"), Texts: map[string]Text{}, Revisions: r.Form["revisions"]}
	put := func(lang, title, text string) {
		if title != "" || text != "" {
			w.Texts[lang] = Text{title, text}
		}
	}
	for name := range r.Form {
		if lang, ok := strings.CutPrefix(name, "title-"); ok {
			put(lang, get(name), get("text-"+lang))
		}
	}
	put(get("other-lang"), get("other-title"), get("other-text"))
	return w
}

func (s *Service) contactPages(c *console.Console) {
	write := string(tenant.CaseWrite)
	load := func(r *http.Request) (contactsPage, error) {
		ctx, before := r.Context(), r.URL.Query().Get("before")
		a, err := who(ctx, tenant.CaseWrite, "")
		if err != nil {
			return contactsPage{}, err
		}
		p := contactsPage{Typed: console.Typed(r), Names: c.Names(ctx), Roles: options(Roles...), Columns: strings.Join(importHead, ","),
			Channels: []console.Option{{Value: Mail, Word: "mail"}, {Value: Webhook, Word: "webhook"}}}
		if p.Contacts, err = s.Contacts(ctx, "", before, pageSize+1); err != nil {
			return p, err
		}
		if before != "" {
			p.Pager.First = "/contacts"
		}
		if len(p.Contacts) > pageSize {
			p.Contacts = p.Contacts[:pageSize]
			p.Pager.Next = "/contacts?before=" + url.QueryEscape(p.Contacts[pageSize-1].ID)
		}
		p.Products, err = s.productOptions(ctx, a.Tenant)
		return p, err
	}
	c.Page(console.Page{Path: "/contacts", Title: "Contacts", Menu: menu, Tab: "Contacts", TabOrder: 20, Verb: write, FS: pagesFS, Template: "pages/contacts.html",
		Load: func(r *http.Request) (any, error) { return load(r) }})
	// The secret of a webhook is shown at once, as the answer of the form.
	c.Page(console.Page{Path: "/contacts", Method: http.MethodPost, Title: "Contacts", Menu: menu, Tab: "Contacts", Verb: write, FS: pagesFS, Template: "pages/contacts.html",
		Load: func(r *http.Request) (any, error) {
			x, err := s.AddContact(r.Context(), contactFrom(r))
			if err != nil {
				return nil, err
			}
			p, err := load(r)
			p.Secret = x.Secret
			return p, err
		}})
	c.Page(console.Page{Path: "/contacts/{id}", Title: "Contact", Menu: menu, Tab: "Contacts", Verb: write, FS: pagesFS, Template: "pages/contact.html",
		Load: func(r *http.Request) (any, error) {
			x, err := s.Contact(r.Context(), r.PathValue("id"))
			if err != nil {
				return nil, err
			}
			a, _ := tenant.ActorFrom(r.Context())
			p := contactsPage{Contact: x, Roles: options(Roles...), Typed: console.Typed(r), Names: c.Names(r.Context())}
			p.Products, err = s.productOptions(r.Context(), a.Tenant)
			return p, err
		}})
	c.Form("/contacts/{id}", write, func(r *http.Request) (string, error) {
		at := "/contacts/" + r.PathValue("id")
		was, err := s.Contact(r.Context(), r.PathValue("id"))
		if err != nil {
			return at, err
		}
		x := contactFrom(r)
		x.Channel = was.Channel
		_, err = s.ChangeContact(r.Context(), was.ID, x)
		console.Say(r, "Saved.")
		return at, err
	})
	c.Form("/contacts/{id}/erase", write, func(r *http.Request) (string, error) {
		console.Say(r, "Erased. What was told stays on record under a keyed hash.")
		return "/contacts", s.EraseContact(r.Context(), r.PathValue("id"))
	})
	c.Upload("/contacts/import", write, maxImport, func(r *http.Request, file io.ReaderAt, size int64) (string, error) {
		b, err := io.ReadAll(io.NewSectionReader(file, 0, size))
		if err != nil {
			return "", err
		}
		n, err := s.ImportContacts(r.Context(), b)
		console.Say(r, strconv.Itoa(n.Added)+" added, "+strconv.Itoa(n.Changed)+" changed.")
		return "/contacts", err
	})
}

// contactFrom reads a contact as it was typed. Products stand one a line, PRODUCT or PRODUCT/REVISION by id; or one was chosen.
func contactFrom(r *http.Request) Contact {
	c := Contact{Role: r.FormValue("role"), Channel: r.FormValue("channel"), Language: strings.ToLower(strings.TrimSpace(r.FormValue("language"))), Person: Person{Name: r.FormValue("name"), Address: r.FormValue("address")}}
	for _, p := range r.Form["products"] {
		id, revision, _ := strings.Cut(p, "/")
		c.Products = append(c.Products, Holding{id, revision})
	}
	return c
}
