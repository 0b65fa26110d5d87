// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// sheet is what all public pages of a maker have in common.
type sheet struct {
	Tenant, Maker, Lang, Title string
	Said                       map[string]string // our own words, in the language of the page
	Typed                      url.Values
	langs                      []console.Link
}

// Heading is the page's title.
func (p sheet) Heading() string { return p.Title }

// Sheet says whose page it is.
func (p sheet) Sheet() console.Sheet {
	return console.Sheet{Lang: p.Lang, From: console.Link{Word: p.Maker, Href: p.Path("")}, Langs: p.langs}
}

// Path is another public page of the maker, in the same language.
func (p sheet) Path(page string) string {
	at := "/security/" + p.Tenant + page
	if p.Lang != PolicyLanguages[0] {
		at += "?lang=" + p.Lang
	}
	return at
}

// languageNames are what the languages call themselves.
var languageNames = map[string]string{"en": "English", "de": "Deutsch"}

func (s *Service) sheet(r *http.Request, title string) (sheet, error) {
	t := r.PathValue("tenant")
	maker, err := s.cfg.Maker(r.Context(), t)
	lang := r.URL.Query().Get("lang")
	if !slices.Contains(PolicyLanguages, lang) {
		lang = PolicyLanguages[0]
	}
	p := sheet{Tenant: t, Maker: maker, Lang: lang, Said: publicWords[lang], Typed: console.Typed(r)}
	p.Title = p.Said[title]
	for _, l := range PolicyLanguages {
		if l != lang {
			p.langs = append(p.langs, console.Link{Word: languageNames[l], Href: r.URL.Path + "?lang=" + l})
		}
	}
	return p, err
}

type policyPage struct {
	sheet
	Policy   Policy
	Sections []Section
}

type formPage struct {
	sheet
	Products []console.Option
	Mine     []console.Option // answers to: have you seen it exploited?
}

type statusPage struct {
	sheet
	ID          string
	Status      string
	Sides       []string
	Received    time.Time
	Policy      int64
	Next        time.Time // when the finder hears again at the latest
	Disclosure  time.Time
	URL         string
	Messages    []message
	Attachments int
	Mine        []console.Option
	Open        bool
}

type message struct {
	At   time.Time
	What string
	Text string
}

type thanksPage struct {
	sheet
	Thanks []thanks
}

type thanks struct {
	Credit, URL string
	At          time.Time
}

type metricsPage struct {
	sheet
	Metrics
	Years []int
}

// publicPages are for finders, who have no account. They work without scripts.
func (s *Service) publicPages(c *console.Console) {
	page := func(path, template string, load func(r *http.Request) (any, error)) {
		c.Page(console.Page{Path: "/security/{tenant}" + path, Title: "Vulnerabilities", Public: true, FS: pagesFS, Template: "pages/" + template + ".html", Load: load})
	}
	page("", "public_policy", func(r *http.Request) (any, error) {
		sh, err := s.sheet(r, "policy")
		if err != nil {
			return nil, err
		}
		p, err := s.policy(r.Context(), sh.Tenant)
		if err != nil {
			return nil, err
		}
		sections, err := p.Sections(sh.Lang, sh.Maker)
		return policyPage{sh, p, sections}, err
	})
	page("/report", "public_report", func(r *http.Request) (any, error) {
		sh, err := s.sheet(r, "report")
		if err != nil {
			return nil, err
		}
		v := formPage{sheet: sh, Products: []console.Option{{Word: sh.Said["unsure"]}}, Mine: sh.exploited()}
		ps, err := s.cfg.Products.List(r.Context(), sh.Tenant)
		for _, p := range ps {
			v.Products = append(v.Products, console.Option{Value: p.ID, Word: p.Name})
		}
		return v, err
	})
	page("/status/{secret}", "public_status", s.statusPage)
	page("/thanks", "public_thanks", func(r *http.Request) (any, error) {
		sh, err := s.sheet(r, "thanks")
		if err != nil {
			return nil, err
		}
		list, err := s.thanks(r.Context(), sh.Tenant)
		return thanksPage{sh, list}, err
	})
	page("/figures", "public_figures", func(r *http.Request) (any, error) {
		sh, err := s.sheet(r, "figures")
		if err != nil {
			return nil, err
		}
		year, _ := strconv.Atoi(r.URL.Query().Get("year"))
		m, err := s.metrics(r.Context(), sh.Tenant, year)
		now := s.now().Year()
		return metricsPage{sh, m, []int{now, now - 1, now - 2}}, err
	})
	c.PublicBody("/security/{tenant}/report", maxSending+maxFields, func(r *http.Request) (string, error) {
		t := r.PathValue("tenant")
		if _, err := s.cfg.Maker(r.Context(), t); err != nil {
			return "", err
		}
		in, release, err := s.read(r)
		defer release()
		if err != nil {
			return "", err
		}
		got, err := s.receive(r.Context(), t, stranger, ByFinder, in)
		if err != nil {
			return "", err
		}
		u, err := url.Parse(got.Status)
		if err != nil {
			return "", err
		}
		return u.Path + cmp.Or(langOf(r), ""), nil
	})
	c.PublicBody("/security/{tenant}/status/{secret}", maxSending+maxFields, func(r *http.Request) (string, error) {
		in, release, err := s.read(r)
		defer release()
		if err == nil {
			_, err = s.addition(r.Context(), r.PathValue("tenant"), r.PathValue("secret"), in.Sending)
		}
		return r.URL.Path + langOf(r), err
	})
	file := func(path, kind string, body func(ctx context.Context, t string) ([]byte, error)) {
		c.Handle("GET /security/{tenant}/"+path, "", func(w http.ResponseWriter, r *http.Request) error {
			t := r.PathValue("tenant")
			if _, err := s.cfg.Maker(r.Context(), t); err != nil {
				return err
			}
			b, err := body(r.Context(), t)
			if err != nil {
				return err
			}
			w.Header().Set("Content-Type", kind)
			_, err = w.Write(b)
			return err
		})
	}
	file("age.txt", "text/plain; charset=utf-8", func(ctx context.Context, t string) ([]byte, error) {
		recipient, err := s.Recipient(ctx, t)
		return []byte(recipient + "\n"), err
	})
	file("openpgp.asc", "application/pgp-keys", func(ctx context.Context, t string) ([]byte, error) {
		maker, err := s.cfg.Maker(ctx, t)
		if err != nil {
			return nil, err
		}
		k, err := s.cfg.PGP.Signer(ctx, t, "system", maker)
		return []byte(k.Public), err
	})
	c.Handle("GET /security/{tenant}/figures.json", "", func(w http.ResponseWriter, r *http.Request) error {
		t := r.PathValue("tenant")
		if _, err := s.cfg.Maker(r.Context(), t); err != nil {
			return err
		}
		year, _ := strconv.Atoi(r.URL.Query().Get("year"))
		m, err := s.metrics(r.Context(), t, year)
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(m)
	})
}

// langOf keeps the language of a page over a form.
func langOf(r *http.Request) string {
	if l := r.URL.Query().Get("lang"); slices.Contains(PolicyLanguages, l) && l != PolicyLanguages[0] {
		return "?lang=" + l
	}
	return ""
}

func (p sheet) exploited() []console.Option {
	return []console.Option{{Value: "unknown", Word: p.Said["exploited.unknown"]}, {Value: "no", Word: p.Said["exploited.no"]}, {Value: "yes", Word: p.Said["exploited.yes"]}}
}

// statusPage is what a finder sees behind the status link: how far it is and what was answered. What the finder wrote is
// not shown again: the link may have been read by others.
func (s *Service) statusPage(r *http.Request) (any, error) {
	sh, err := s.sheet(r, "status")
	if err != nil {
		return nil, err
	}
	ctx := r.Context()
	f, err := s.behind(ctx, sh.Tenant, r.PathValue("secret"))
	if err != nil {
		return nil, err
	}
	key, err := s.cfg.Keys.Subject(ctx, s.cfg.DB, sh.Tenant, f.ID)
	if err != nil {
		return nil, err
	}
	st := f.state()
	v := statusPage{sheet: sh, ID: f.ID, Status: sh.Said["status."+string(st.Status)], Received: st.Received, Policy: f.Rows[0].Data.Policy, URL: st.URL, Open: st.Closed.IsZero(), Mine: sh.exploited()}
	if st.Verdict != "" && st.Status == Triaged {
		v.Status += ": " + sh.Said["verdict."+string(st.Verdict)]
	}
	for _, side := range st.Sides(s.now()) {
		v.Sides = append(v.Sides, sh.Said["side."+string(side)])
	}
	for _, t := range Timers(st) {
		switch {
		case !t.Running():
		case t.Name == TimerDisclosure:
			v.Disclosure = t.Due
		case t.Name == TimerAcknowledge, t.Name == TimerTriage, t.Name == TimerStatus:
			if v.Next.IsZero() || t.Due.Before(v.Next) {
				v.Next = t.Due
			}
		}
	}
	for _, row := range f.Rows {
		if slices.Contains(shownToFinder, row.Kind) || row.Kind == FinderAdded || row.Kind == ReportReceived {
			m := message{At: row.Recorded, What: sh.Said["event."+string(row.Kind)]}
			if slices.Contains(shownToFinder, row.Kind) {
				m.Text = note(key, f.ID, row)
			}
			v.Messages = append(v.Messages, m)
		}
	}
	slices.Reverse(v.Messages)
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		as, err := attachmentsOf(tx, sh.Tenant, f.ID)
		v.Attachments = len(as)
		return err
	})
	return v, err
}

// thanked is how many finders the page of thanks names.
const thanked = 200

// thanks lists the finders of published reports who wished to be named and whose identity was not erased.
func (s *Service) thanks(ctx context.Context, t string) (out []thanks, err error) {
	var fs []file
	if err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		fs, err = files(tx, t, `id IN (SELECT report FROM disclosure_event WHERE tenant = $1 AND kind = $2) ORDER BY id DESC LIMIT $3`, ReportPublished, thanked)
		return err
	}); err != nil {
		return nil, err
	}
	for _, f := range fs {
		who, err := s.finder(ctx, t, f.ID)
		if err != nil {
			return nil, err
		}
		if who != nil && who.Credit != "" {
			st := f.state()
			out = append(out, thanks{Credit: who.Credit, URL: st.URL, At: st.Published})
		}
	}
	return out, nil
}

//go:embed public_words.json
var publicJSON []byte

// publicWords are our own words of the public pages by language. A word that one language lacks does not start.
var publicWords = func() map[string]map[string]string {
	var out map[string]map[string]string
	if err := json.Unmarshal(publicJSON, &out); err != nil {
		panic("disclosure: public_words.json: " + err.Error())
	}
	for _, lang := range PolicyLanguages {
		for key := range out[PolicyLanguages[0]] {
			if out[lang][key] == "" {
				panic("disclosure: public_words.json: " + lang + " lacks " + key)
			}
		}
	}
	return out
}()

// stranger is who writes without an account.
var stranger = tenant.Actor{ID: "finder"}
