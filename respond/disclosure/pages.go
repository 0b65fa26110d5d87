// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"context"
	"embed"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed pages/*.html
var pagesFS embed.FS

// shown is how many reports a page lists; the API has them all.
const shown = 100

type contactView struct {
	Contact
	Set                        bool
	Contacts, Languages, Hosts string
	Files                      []Signed  // made for sites of the manufacturer's own
	Served                     time.Time // end of the one that is served here; it is renewed long before
	MayDeclare                 bool
	Typed                      url.Values
}

type deskView struct {
	Tenant   string
	Reports  []Report
	Closed   []Report // the newest, whatever their state
	Products []console.Option
	Channels []console.Option
	Answers  []console.Option
	Now      string
	Typed    url.Values
}

// timerNames are the words for people.
var timerNames = map[TimerName]string{TimerAcknowledge: "acknowledge", TimerTriage: "tell the verdict", TimerStatus: "answer again", TimerDisclosure: "make it public",
	TimerAssess: "assess it: seen exploited", TimerEmbargo: "the embargo ends"}

// Words is the timer for people.
func (t Timer) Words() string { return timerNames[t.Name] }

type reportView struct {
	Report
	Clocks []console.Countdown
	Acts   []act
	Names  *console.Names
}

// Heading is the page's title.
func (v reportView) Heading() string {
	switch {
	case v.Withheld:
		return "Report under embargo"
	case v.Subject != "":
		return v.Subject
	}
	return "Report"
}

// deskFigures are a year of the desk and its newest reports, to be printed.
type deskFigures struct {
	Metrics
	Years  []int
	Record []DeskRecord
	Names  *console.Names
}

type policyView struct {
	Policy
	Tenant, LanguageList string
	NextVersion          int64
	Own                  []ownWords
	Typed                url.Values
}

type ownWords struct{ Name, Label, Value string }

var answers = []console.Option{{Value: "unknown", Word: "Unknown"}, {Value: "no", Word: "No"}, {Value: "yes", Word: "Yes"}}

// Pages registers the pages of the room.
func (s *Service) Pages(c *console.Console) {
	read, write, declare := string(tenant.CaseRead), string(tenant.CaseWrite), string(tenant.CaseDeclare)
	s.publicPages(c)
	c.Page(console.Page{Path: "/disclosure", Title: "Disclosure desk", Menu: "Disclosure", Verb: read, FS: pagesFS, Template: "pages/desk.html", Load: s.deskPage})
	c.Page(console.Page{Path: "/disclosure/reports/{id}", Title: "Report", Menu: "Disclosure", Verb: read, FS: pagesFS, Template: "pages/desk_report.html",
		Load: func(r *http.Request) (any, error) {
			rep, err := s.Report(r.Context(), r.PathValue("id"))
			if err != nil {
				return nil, err
			}
			v := reportView{Report: rep, Names: c.Names(r.Context())}
			for _, t := range rep.Timers {
				v.Clocks = append(v.Clocks, console.Countdown{Name: t.Words(), From: t.Anchor, Due: t.Due, Now: s.now(), Met: t.Met})
			}
			if !rep.Withheld {
				ps, err := s.products(r.Context(), "as before")
				if err != nil {
					return nil, err
				}
				v.Acts = acts(rep, ps, s.now())
			}
			return v, nil
		}})
	c.Page(console.Page{Path: "/disclosure/reports/{id}/open", Method: http.MethodPost, Title: "What the finder wrote", Menu: "Disclosure", Verb: write, FS: pagesFS, Template: "pages/desk_open.html",
		Load: func(r *http.Request) (any, error) { return s.Open(r.Context(), r.PathValue("id")) }})
	c.Handle("POST /disclosure/reports/{id}/attachments/{attachment}", write, s.download)
	c.Page(console.Page{Path: "/disclosure/contact", Title: "Disclosure contact", Menu: "Disclosure", Verb: read, FS: pagesFS, Template: "pages/contact.html",
		Load: func(r *http.Request) (any, error) {
			ct, set, err := s.Contact(r.Context())
			if err != nil {
				return nil, err
			}
			files, err := s.SecurityTxts(r.Context())
			v := contactView{Contact: ct, Set: set, MayDeclare: tenant.Holds(r.Context(), declare), Contacts: strings.Join(ct.Contacts, "\n"), Languages: strings.Join(ct.PreferredLocales, ", "), Hosts: strings.Join(ct.Hosts, ", "), Typed: console.Typed(r)}
			for _, x := range files {
				if x.Host == "" {
					v.Served = x.Expires
				} else {
					v.Files = append(v.Files, x)
				}
			}
			return v, err
		}})
	c.Page(console.Page{Path: "/disclosure/policy", Title: "Disclosure policy", Menu: "Disclosure", Verb: read, FS: pagesFS, Template: "pages/policy.html",
		Load: func(r *http.Request) (any, error) {
			p, err := s.Policy(r.Context())
			v := policyView{Policy: p, Tenant: tenant.MustTenant(r.Context()), LanguageList: strings.Join(p.Languages, ", "), NextVersion: p.Version + 1, Typed: console.Typed(r)}
			for _, own := range ownTexts(&p) {
				for _, lang := range PolicyLanguages {
					v.Own = append(v.Own, ownWords{own.name + "." + lang, own.label + ", " + languageNames[lang], (*own.words)[lang]})
				}
			}
			return v, err
		}})
	c.Page(console.Page{Path: "/disclosure/figures", Title: "Figures of the desk", Menu: "Disclosure", Verb: read, FS: pagesFS, Template: "pages/desk_figures.html",
		Load: func(r *http.Request) (any, error) {
			year, _ := strconv.Atoi(r.URL.Query().Get("year")) // 0: this one
			m, err := s.Metrics(r.Context(), year)
			if err != nil {
				return nil, err
			}
			v := deskFigures{Metrics: m, Names: c.Names(r.Context())}
			for y := s.now().Year(); len(v.Years) < 5; y-- {
				v.Years = append(v.Years, y)
			}
			v.Record, err = s.Record(r.Context(), 10)
			return v, err
		}})
	c.Fragment("today", console.Fragment{Order: 12, Title: "Reports of finders", Verb: read, FS: pagesFS, Template: "pages/desk_today.html",
		Load: func(r *http.Request, _ string) (any, error) {
			rs, err := s.Reports(r.Context(), true, "", 10)
			rs = slices.DeleteFunc(rs, func(x Report) bool { return x.Next == nil })
			if err != nil || len(rs) == 0 {
				return nil, err
			}
			return rs, nil
		}})
	c.Step(console.Step{Order: 70, Title: "Be ready for a case", Text: "Say where reports of vulnerabilities arrive; a declared case then starts the legal clocks.", Href: "/disclosure/contact", Button: "Publish a contact",
		Done: func(ctx context.Context) (bool, error) {
			_, set, err := s.Contact(ctx)
			return set, err
		}})

	c.Form("/disclosure/contact", declare, func(r *http.Request) (string, error) {
		ct := Contact{Hosts: words(r.PostFormValue("hosts")), Contacts: strings.Fields(r.PostFormValue("contacts")), Policy: r.PostFormValue("policy"),
			Encryption: r.PostFormValue("encryption"), Acknowledgments: r.PostFormValue("acknowledgments"), CSAF: r.PostFormValue("csaf"), PreferredLocales: words(r.PostFormValue("languages"))}
		if err := s.SetContact(r.Context(), ct); err != nil {
			return "", err
		}
		console.Say(r, "security.txt says it from now on.")
		return "/disclosure/contact", nil
	})
	c.Form("/disclosure/securitytxt", declare, func(r *http.Request) (string, error) {
		x, err := s.MakeSecurityTxt(r.Context(), strings.TrimSpace(r.PostFormValue("host")))
		if err != nil {
			return "", err
		}
		console.Say(r, "The file for "+x.Host+" is signed. Download it and put it there.")
		return "/disclosure/contact", nil
	})
	c.Handle("GET /disclosure/securitytxt/{host}", read, func(w http.ResponseWriter, r *http.Request) error {
		x, err := s.SecurityTxtOf(r.Context(), r.PathValue("host"))
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Content-Disposition", `attachment; filename="security.txt"`)
		_, err = io.WriteString(w, x.Body)
		return err
	})
	c.Form("/disclosure/policy", declare, s.policyForm)
	c.Form("/disclosure/reports", write, func(r *http.Request) (string, error) {
		at, err := console.Instant(r, "at")
		if err != nil {
			return "", err
		}
		in := intakeOf(r.PostForm)
		in.Channel, in.At = r.PostFormValue("channel"), at
		got, err := s.Enter(r.Context(), in)
		return "/disclosure/reports/" + got.ID, err
	})
	c.Form("/disclosure/reports/{id}/events", write, s.eventForm)
}

func (s *Service) deskPage(r *http.Request) (any, error) {
	v := deskView{Tenant: tenant.MustTenant(r.Context()), Now: s.now().Format(time.RFC3339), Answers: answers, Typed: console.Typed(r),
		Channels: []console.Option{{Value: "mail", Word: "Mail"}, {Value: "phone", Word: "Phone"}, {Value: "csirt", Word: "CSIRT"}}}
	var err error
	if v.Reports, err = s.Reports(r.Context(), true, "", shown); err != nil {
		return nil, err
	}
	if v.Closed, err = s.Reports(r.Context(), false, "", 20); err != nil {
		return nil, err
	}
	v.Products, err = s.products(r.Context(), "not known yet")
	return v, err
}

// products are those that the caller may see reports of, after a first choice that names none.
func (s *Service) products(ctx context.Context, none string) ([]console.Option, error) {
	out := []console.Option{{Word: none}}
	ps, err := s.cfg.Products.List(ctx, tenant.MustTenant(ctx))
	for _, p := range ps {
		if _, refused := who(ctx, tenant.CaseRead, p.ID); refused == nil {
			out = append(out, console.Option{Value: p.ID, Word: p.Name})
		}
	}
	return out, err
}

func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\r' || r == '\t' })
}

type ownText struct {
	name, label string
	words       *map[string]string
}

// ownTexts are the sentences that a manufacturer adds to the policy.
func ownTexts(p *Policy) []ownText {
	return []ownText{{"scope", "Scope, a sentence of your own", &p.Scope}, {"bounty", "Reward; empty: none is paid", &p.Bounty},
		{"law_note", "A note about national law", &p.LawNote}, {"cve", "Who assigns CVE numbers", &p.CVE}}
}

func (s *Service) policyForm(r *http.Request) (string, error) {
	p := Policy{Languages: words(r.PostFormValue("languages"))}
	p.Zone = strings.TrimSpace(r.PostFormValue("zone"))
	for name, into := range map[string]*int64{"acknowledge": &p.Acknowledge, "triage": &p.Triage, "status": &p.Status, "disclosure": &p.Disclosure} {
		n, err := console.Number(r, name)
		if err != nil {
			return "", err
		}
		*into = n
	}
	for _, own := range ownTexts(&p) {
		for _, lang := range PolicyLanguages {
			if v := strings.TrimSpace(r.PostFormValue(own.name + "." + lang)); v != "" {
				if *own.words == nil {
					*own.words = map[string]string{}
				}
				(*own.words)[lang] = v
			}
		}
	}
	if _, err := s.SetPolicy(r.Context(), p); err != nil {
		return "", err
	}
	console.Say(r, "The next version of the policy is in force.")
	return "/disclosure/policy", nil
}

func (s *Service) eventForm(r *http.Request) (string, error) {
	at, err := console.Instant(r, "at")
	if err != nil {
		return "", err
	}
	due, err := console.Instant(r, "due")
	if err != nil {
		return "", err
	}
	task, _ := strconv.ParseInt(r.PostFormValue("task"), 10, 64) // 0 names no task and is refused where one is needed
	id, get := r.PathValue("id"), r.PostFormValue
	_, err = s.Append(r.Context(), id, EventKind(get("kind")), get("note"), Data{At: at, Due: due, Product: get("product"), Exploited: get("exploited"), Verdict: Verdict(get("verdict")),
		Of: get("of"), Vulnerability: get("vulnerability"), Release: get("release"), Advisory: get("advisory"), URL: get("url"), People: words(get("people")), Component: get("component"), Task: task})
	return "/disclosure/reports/" + id, err
}
