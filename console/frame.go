// SPDX-License-Identifier: AGPL-3.0-only

package console

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// policy is the Content-Security-Policy: this origin, nothing inline.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// ServeHTTP sets the headers that every page carries and finds the page. A panic of a page is one failed request.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r = r.WithContext(context.WithValue(r.Context(), requestIDKey{}, newRequestID()))
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "publickey-credentials-create=(self), publickey-credentials-get=(self)")
	if !strings.HasPrefix(r.Host, "localhost") { // other servers of a developer share that name
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
	h.Set("Cache-Control", "no-store")
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			panic(p)
		default:
			c.Fail(w, r, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	c.mux.ServeHTTP(w, r)
}

func (c *Console) guard(verb string, public bool, fn func(w http.ResponseWriter, r *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := c.cross.Check(r); err != nil {
			c.Fail(w, r, problem.Forbidden("console.cross-origin", "This request came from another site.").Because(err))
			return
		}
		ctx, err := c.cfg.Authenticate(r)
		switch {
		case err == nil:
			r = r.WithContext(ctx)
		case public:
		case problem.Is(err, problem.KindUnauthenticated) && r.Method == http.MethodGet:
			http.Redirect(w, r, c.cfg.SignIn+"?next="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
			return
		default:
			c.Fail(w, r, err)
			return
		}
		if !public && !c.cfg.Holds(r.Context(), verb) {
			c.Fail(w, r, problem.Forbidden("access."+verb, "None of your roles includes %s.", verb).Hint("Ask an owner for one that does."))
			return
		}
		if err := fn(w, r); err != nil {
			c.Fail(w, r, err)
		}
	})
}

// Fail shows err as a page.
func (c *Console) Fail(w http.ResponseWriter, r *http.Request, err error) {
	e := problem.Of(err)
	c.logProblem(r, err)
	c.refused(r, e)
	k := problem.Kinds[e.Kind]
	id, _ := r.Context().Value(requestIDKey{}).(string)
	var b bytes.Buffer
	if err := c.kit.ExecuteTemplate(&b, "failure", map[string]any{"Problem": e, "Title": k.Title, "Status": k.Status, "RequestID": id}); err != nil {
		c.cfg.Log.ErrorContext(r.Context(), "failure page", "err", err)
	}
	r = r.WithContext(context.WithValue(r.Context(), troubleKey{}, (*trouble)(nil)))
	c.frame(w, r, k.Status, k.Title, Page{}, nil, template.HTML(b.String()))
}

func (c *Console) logProblem(r *http.Request, err error) {
	if problem.Is(err, problem.KindInternal) {
		c.cfg.Log.ErrorContext(r.Context(), "page failed", "path", r.URL.Path, "request_id", r.Context().Value(requestIDKey{}), "err", err)
	}
}

func (c *Console) refused(r *http.Request, e *problem.Error) {
	if e.Rule != "" && c.cfg.Refused != nil {
		c.cfg.Refused(r.Context(), e.Rule, e.Text)
	}
}

type menuItem struct {
	Name, Href string
	Here       bool
}

func (c *Console) menu(r *http.Request, here string) (items []menuItem) {
	if c.visitor(r) == "" {
		return nil
	}
	for _, name := range c.cfg.Menu {
		i := slices.IndexFunc(c.pages, func(p Page) bool { return p.Menu == name })
		if i < 0 {
			continue
		}
		p := c.pages[i]
		if tabs := c.tabs(r, name, ""); len(tabs) > 0 {
			items = append(items, menuItem{Name: name, Href: tabs[0].Href, Here: name == here})
		} else if p.Tab == "" && (p.Public || c.cfg.Holds(r.Context(), p.Verb)) {
			items = append(items, menuItem{Name: name, Href: p.Path, Here: name == here})
		}
	}
	return items
}

// tabs are the tabs of an entry of the menu that the visitor may open.
func (c *Console) tabs(r *http.Request, menu, here string) (items []menuItem) {
	pages := slices.DeleteFunc(slices.Clone(c.pages), func(p Page) bool {
		return p.Menu != menu || p.TabOrder == 0 || !c.cfg.Holds(r.Context(), p.Verb)
	})
	slices.SortStableFunc(pages, func(a, b Page) int { return a.TabOrder - b.TabOrder })
	for _, p := range pages {
		items = append(items, menuItem{Name: p.Tab, Href: p.Path, Here: p.Tab == here})
	}
	return items
}

func (c *Console) visitor(r *http.Request) string {
	if c.cfg.Visitor == nil {
		return ""
	}
	return c.cfg.Visitor(r.Context())
}

func (c *Console) frame(w http.ResponseWriter, r *http.Request, status int, title string, p Page, on *Sheet, body template.HTML) {
	data := map[string]any{"Title": title, "Body": body}
	frame := "sheet"
	if on != nil {
		data["Sheet"] = *on
	} else {
		frame = "frame"
		data["Menu"], data["Section"], data["Visitor"] = c.menu(r, p.Menu), p.Menu, c.visitor(r)
	}
	if p.Tab != "" {
		data["Tabs"] = c.tabs(r, p.Menu, p.Tab)
	}
	if t := troubleOf(r); t != nil {
		data["Problem"] = t.problem
		status = problem.Kinds[t.problem.Kind].Status
	} else if said := heard(w, r); said != "" {
		data["Said"] = said
	}
	var b bytes.Buffer
	if err := c.kit.ExecuteTemplate(&b, frame, data); err != nil {
		c.cfg.Log.ErrorContext(r.Context(), "frame", "err", err)
		http.Error(w, "Something failed inside.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(b.Bytes())
}

type (
	troubleKey struct{}
	trouble    struct {
		problem *problem.Error
		form    url.Values
	}
	noteKey struct{}
	note    struct{ text string }
)

func troubleOf(r *http.Request) *trouble {
	t, _ := r.Context().Value(troubleKey{}).(*trouble)
	return t
}

// Typed is what the visitor had typed into the form that was refused, so that Load can offer it again; empty otherwise.
func Typed(r *http.Request) url.Values {
	if t := troubleOf(r); t != nil {
		return t.form
	}
	return url.Values{}
}

// Instant reads an instant of a form; an empty field is the zero time. One without an offset is refused: nobody could say
// later which wall it hung on.
func Instant(r *http.Request, name string) (time.Time, error) {
	v := strings.TrimSpace(r.PostFormValue(name))
	if v == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z07:00", "2006-01-02 15:04Z07:00", "2006-01-02 15:04:05Z07:00"} {
		if t, err := time.Parse(layout, v); err == nil {
			return t, nil
		}
	}
	return time.Time{}, problem.Invalid("%q is not an instant.", v).At(name).Hint("Write it like 2026-11-21T22:50Z or 2026-11-21T23:50+01:00; the offset is needed.")
}

// Number reads a whole number that was typed into a field; an empty field is 0.
func Number(r *http.Request, name string) (int64, error) {
	text := strings.TrimSpace(r.FormValue(name))
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, problem.Invalid("%q is not a whole number.", text).At(name)
	}
	return n, nil
}

// Say leaves one sentence for the page that the form leads to: "Batch 7 is open."
func Say(r *http.Request, text string) {
	if n, ok := r.Context().Value(noteKey{}).(*note); ok {
		n.text = text
	}
}

const noteCookie = "__Host-said"

func (n *note) keep(w http.ResponseWriter) {
	if n.text != "" {
		http.SetCookie(w, &http.Cookie{Name: noteCookie, Value: base64.RawURLEncoding.EncodeToString([]byte(n.text)), Path: "/",
			MaxAge: 60, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	}
}

func heard(w http.ResponseWriter, r *http.Request) string {
	ck, err := r.Cookie(noteCookie)
	if err != nil {
		return ""
	}
	http.SetCookie(w, &http.Cookie{Name: noteCookie, Path: "/", MaxAge: -1, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	b, err := base64.RawURLEncoding.DecodeString(ck.Value)
	if err != nil {
		return ""
	}
	return string(b)
}
