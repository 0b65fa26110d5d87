// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"context"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/tenant"
)

// admission is the tab of what devices show to be let in.
const admission = "Trusted CAs and tokens"

type admissionPage struct {
	CAs       []TrustedCA
	Tokens    []Token
	Names     *console.Names
	Revisions []console.Option
	Solutions []console.Option
	MayWrite  bool
	Typed     url.Values
}

type tokenPage struct{ CreatedToken }

// Heading is the page's title.
func (p tokenPage) Heading() string { return "Enrolment token " + p.Name }

func (s *Service) admissionPages(c *console.Console) {
	read, write := string(tenant.EnrolRead), string(tenant.EnrolWrite)
	c.Page(console.Page{Path: "/enrol/admission", Title: "Trusted CAs and tokens", Menu: menu, Tab: admission, TabOrder: 50, Verb: read, FS: pagesFS, Template: "pages/admission.html",
		Load: func(r *http.Request) (any, error) {
			p, err := s.loadAdmission(r)
			p.Names = c.Names(r.Context())
			return p, err
		}})
	// The text of a token is shown at once, as the answer of the form.
	c.Page(console.Page{Path: "/enrol/admission/tokens", Method: http.MethodPost, Title: "Enrolment token", Menu: menu, Tab: admission, Verb: write, FS: pagesFS, Template: "pages/token.html",
		Load: func(r *http.Request) (any, error) {
			t, who, err := tenant.Whole(r.Context(), tenant.EnrolWrite)
			if err != nil {
				return nil, err
			}
			quota, err := console.Number(r, "quota")
			if err != nil {
				return nil, err
			}
			made, text, err := s.CreateToken(r.Context(), Token{Tenant: t, Name: r.FormValue("name"), Revision: r.FormValue("revision"), Solution: r.FormValue("solution"),
				Pattern: r.FormValue("pattern"), Quota: max(1, quota), Expires: s.now().Add(24 * time.Hour)}, "", who)
			return tokenPage{CreatedToken{made, text}}, err
		}})
	form := func(back, path, verb, said string, do func(ctx context.Context, t, id, who string, r *http.Request) error) {
		c.Form(path, verb, func(r *http.Request) (string, error) {
			t, who, err := tenant.Whole(r.Context(), tenant.Verb(verb))
			if err != nil {
				return "", err
			}
			if err := do(r.Context(), t, r.PathValue("id"), who, r); err != nil {
				return "", err
			}
			console.Say(r, said)
			return back, nil
		})
	}
	form("/enrol/admission", "/enrol/admission/cas", write, "The CA is uploaded. It counts once its key is proven.", func(ctx context.Context, t, _, who string, r *http.Request) error {
		quota, err := console.Number(r, "quota")
		if err != nil {
			return err
		}
		m := Mapping{Serial: Source{Field: r.FormValue("serial")}, Revision: r.FormValue("revision")}
		_, err = s.AddTrustedCA(ctx, TrustedCA{Tenant: t, Name: r.FormValue("name"), Quota: quota, Policy: CAPolicy{Mapping: m, Solution: r.FormValue("solution")}}, r.FormValue("certificates"), who)
		return err
	})
	form("/enrol/admission", "/enrol/admission/cas/{id}/prove", write, "The CA is trusted from now on.", func(ctx context.Context, t, id, who string, r *http.Request) error {
		_, err := s.ProveTrustedCA(ctx, t, id, r.FormValue("proof"), who)
		return err
	})
	for word, to := range map[string]CAState{"suspend": CASuspended, "resume": CAActive, "retire": CARetired} {
		form("/enrol/admission", "/enrol/admission/cas/{id}/"+word, write, "The CA is "+string(to)+".", func(ctx context.Context, t, id, who string, r *http.Request) error {
			_, err := s.MoveTrustedCA(ctx, t, id, to, r.FormValue("reason"), who)
			return err
		})
	}
	form("/enrol/admission", "/enrol/admission/cas/{id}/quota", write, "The quota is set.", func(ctx context.Context, t, id, who string, r *http.Request) error {
		quota, err := console.Number(r, "quota")
		if err != nil {
			return err
		}
		_, err = s.LimitTrustedCA(ctx, t, id, quota, r.FormValue("reason"), who)
		return err
	})
	form("/enrol/admission", "/enrol/admission/cas/{id}/revoke", write, "Everything that the CA brought is refused from now on.", func(ctx context.Context, t, id, who string, r *http.Request) error {
		_, err := s.RevokeTrustedCA(ctx, t, id, r.FormValue("reason"), who)
		return err
	})
	form("/enrol/admission", "/enrol/admission/tokens/{id}/revoke", write, "The token has ended.", func(ctx context.Context, t, id, who string, r *http.Request) error {
		_, err := s.RevokeToken(ctx, t, id, r.FormValue("reason"), who)
		return err
	})
	form("/enrol/quarantine", "/enrol/quarantine/clones/{id}/decide", string(tenant.DeviceSuspend), "It is decided.", func(ctx context.Context, t, id, who string, r *http.Request) error {
		_, err := s.Decide(ctx, t, id, r.FormValue("genuine"), r.FormValue("reason"), who)
		return err
	})
	c.Tile(console.Tile{Order: 53, Verb: read, Load: s.cloneTile})
}

// cloneTile is there while a suspicion waits for a person.
func (s *Service) cloneTile(ctx context.Context) (console.Figure, error) {
	cs, err := s.Clones(ctx, tenant.MustTenant(ctx), true, "", 100)
	if err != nil || len(cs) == 0 {
		return console.Figure{}, err
	}
	return console.Figure{Label: "Suspected clones", Value: console.Count(int64(len(cs))), Note: "their devices are suspended; say which is genuine", Href: "/enrol/quarantine", Tone: "bad"}, nil
}

// Words say in a sentence what was seen twice.
func (c Clone) Words() string {
	switch c.What {
	case CloneKey:
		return "Two units have one key"
	case CloneSerial:
		return "Two units have one serial number"
	case CloneIDevID:
		return "Two units ask with one certificate of birth"
	case CloneLDevID:
		return "A certificate that was replaced is in use"
	}
	return "Two places take one session from each other"
}

// suspicion is a suspected clone on the page.
type suspicion struct {
	Clone
	Sightings []sighting
}

// sighting is what was seen, in words that name what has a name.
type sighting struct {
	Sighting
	Text string
}

// originID is the id of a line station, trusted CA, token or batch inside a sentence, with the word that its name begins with.
var originID = regexp.MustCompile(`(?:trusted CA |enrolment token |batch )?\b(?:sta|tca|etk|bat)_[0-9a-z]{20,}`)

// suspicions are those that nobody has decided yet.
func (s *Service) suspicions(ctx context.Context, names *console.Names) (out []suspicion, err error) {
	t := tenant.MustTenant(ctx)
	open, err := s.Clones(ctx, t, true, "", pageSize)
	for _, c := range open {
		if c, err = s.Clone(ctx, t, c.ID); err != nil {
			return nil, err
		}
		p := suspicion{Clone: c}
		for _, seen := range c.Sightings {
			p.Sightings = append(p.Sightings, sighting{seen, originID.ReplaceAllStringFunc(seen.Detail, func(at string) string { return names.Word(at[strings.LastIndexByte(at, ' ')+1:]) })})
		}
		out = append(out, p)
	}
	return out, err
}

func (s *Service) loadAdmission(r *http.Request) (p admissionPage, err error) {
	ctx := r.Context()
	t, _, err := tenant.Whole(ctx, tenant.EnrolRead)
	if err != nil {
		return p, err
	}
	p = admissionPage{MayWrite: tenant.Holds(ctx, string(tenant.EnrolWrite)), Typed: console.Typed(r)}
	if p.CAs, err = s.TrustedCAs(ctx, t); err != nil {
		return p, err
	}
	if p.Tokens, err = s.Tokens(ctx, t, "", pageSize); err != nil {
		return p, err
	}
	if p.Solutions, err = s.solutions(ctx); err != nil {
		return p, err
	}
	p.Solutions = append([]console.Option{{Word: "the lobby"}}, p.Solutions...)
	products, err := s.cfg.Products.List(ctx, t)
	for _, pr := range products {
		revs, err := s.cfg.Products.Revisions(ctx, t, pr.ID)
		if err != nil {
			return p, err
		}
		for _, v := range revs {
			p.Revisions = append(p.Revisions, console.Option{Value: v.ID, Word: pr.Name + " " + v.Name})
		}
	}
	return p, err
}
