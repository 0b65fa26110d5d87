// SPDX-License-Identifier: AGPL-3.0-only

package console

import (
	"bytes"
	"context"
	"crypto/rand"
	"embed"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
)

//go:embed kit/*.html
var kitFS embed.FS

// Config is what the kit needs from the house.
type Config struct {
	Clock clock.Clock
	Log   *slog.Logger
	// Menu is the order of the menu by its entries' names; pages that name none of them are not listed.
	Menu []string
	// SignIn is the path that visitors are sent to who are not signed in.
	SignIn string
	// Authenticate says who asks, or refuses with a problem. Public pages are shown either way.
	Authenticate func(*http.Request) (context.Context, error)
	// Holds says whether the visitor holds the verb on anything at all; Load then checks the thing itself.
	Holds func(ctx context.Context, verb string) bool
	// Visitor names who is signed in, for the frame; "" when nobody is.
	Visitor func(ctx context.Context) string
	// Refused reports each page or form that a policy rule refused. The context carries who was refused, if anybody is
	// known. It must not block. May be nil.
	Refused func(ctx context.Context, rule, detail string)
	// Name is what people call the thing with this id in the visitor's tenant, or "" when it is not known; nil knows none.
	Name func(ctx context.Context, id string) string
}

// Console is the door for people.
type Console struct {
	cfg   Config
	mux   *http.ServeMux
	base  *template.Template // parts and functions; never executed, so that pages can clone it
	kit   *template.Template // the same, for execution
	cross *http.CrossOriginProtection
	pages []Page
	slots map[string][]fragment
	steps []Step
	tiles []Tile
	files map[string]file
	doors []string // the patterns that Patterns lists
}

// Page is one page, or with Method POST an answer that must be shown at once, such as a secret that is shown only once.
type Page struct {
	Path     string // of http.ServeMux, without method: "/devices/{id}"
	Method   string // default GET
	Title    string
	Menu     string // the entry of the menu that it stands under; the first page registered with an entry is where it leads, or the first of its tabs
	Tab      string // the tab of that entry that it stands under, if the entry has tabs
	TabOrder int    // of the page that its tab leads to; smaller stands further left
	Verb     string // what the visitor must hold; empty only with Public
	Public   bool
	FS       fs.FS
	Template string // file of FS; it is the body of <main>
	// Load reads what the template shows. Its data may have a method Heading() string to replace Title, and that of a public
	// page a method Sheet() Sheet to stand on a sheet instead of in the frame.
	Load func(r *http.Request) (any, error)
}

// Fragment is one stage's part of a page that several stages share.
type Fragment struct {
	Order    int // smaller stands higher
	Title    string
	Half     bool   // it stands beside the next half where there is room, if the page lays its slot out so
	Verb     string // left out for visitors who do not hold it; empty for all
	FS       fs.FS
	Template string
	// Load reads what the template shows for the key of the slot, such as a device id. Nil data leaves the fragment out.
	Load func(r *http.Request, key string) (any, error)
}

type fragment struct {
	Fragment
	tmpl *template.Template
}

// New makes the kit. It panics when a template of the kit itself is broken.
func New(cfg Config) *Console {
	c := &Console{cfg: cfg, mux: http.NewServeMux(), cross: http.NewCrossOriginProtection(), slots: map[string][]fragment{}, files: map[string]file{}}
	c.base = template.Must(template.New("kit").Funcs(c.funcs()).ParseFS(kitFS, "kit/frame.html", "kit/sheet.html", "kit/parts.html"))
	c.kit = template.Must(c.base.Clone())
	c.assets()
	c.mux.Handle("/", c.guard("", true, func(_ http.ResponseWriter, r *http.Request) error {
		return problem.NotFound("There is no page %s.", r.URL.Path)
	}))
	c.today()
	return c
}

// Page registers a page. It panics when the template is broken or the page declares neither Verb nor Public.
func (c *Console) Page(p Page) {
	if (p.Verb == "") == !p.Public {
		panic("console: page " + p.Path + " must declare either Verb or Public")
	}
	if p.Method == "" {
		p.Method = http.MethodGet
	}
	t := c.parse(p.FS, p.Template)
	path := p.Path
	if path == "/" {
		path = "/{$}"
	}
	c.pages = append(c.pages, p)
	c.handle(p.Method+" "+path, c.guard(p.Verb, p.Public, func(w http.ResponseWriter, r *http.Request) error {
		if p.Method == http.MethodPost {
			if err := parseForm(w, r); err != nil {
				return err
			}
		}
		data, err := p.Load(r)
		if err != nil && p.Method == http.MethodPost {
			return c.again(w, r, err)
		}
		if err != nil {
			return err
		}
		body, err := render(t, data)
		if err != nil {
			return err
		}
		title := p.Title
		if h, ok := data.(interface{ Heading() string }); ok {
			title = h.Heading()
		}
		var on *Sheet
		if s, ok := data.(interface{ Sheet() Sheet }); ok && p.Public {
			on = new(s.Sheet())
		}
		c.frame(w, r, http.StatusOK, title, p, on, body)
		return nil
	}))
}

// Form registers where a form is posted to. fn does the work and returns where the visitor goes next; an error is shown
// on the page that the form stood on, with what was typed (see Typed). Say leaves a sentence for the next page.
func (c *Console) Form(path, verb string, fn func(r *http.Request) (redirect string, err error)) {
	c.form(path, verb, false, fn)
}

// PublicForm is a Form that anybody may post.
func (c *Console) PublicForm(path string, fn func(r *http.Request) (redirect string, err error)) {
	c.form(path, "", true, fn)
}

// maxForm bounds the body of a form, in bytes.
const maxForm = 1 << 20

func (c *Console) form(path, verb string, public bool, fn func(r *http.Request) (string, error)) {
	if verb == "" && !public {
		panic("console: form " + path + " must declare a verb")
	}
	c.handle("POST "+path, c.guard(verb, public, func(w http.ResponseWriter, r *http.Request) error {
		if err := parseForm(w, r); err != nil {
			return err
		}
		said := &note{}
		next, err := fn(r.WithContext(context.WithValue(r.Context(), noteKey{}, said)))
		if err != nil {
			return c.again(w, r, err)
		}
		said.keep(w)
		http.Redirect(w, r, Local(next), http.StatusSeeOther)
		return nil
	}))
}

func parseForm(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return problem.Invalid("The form could not be read.").Because(err)
	}
	return nil
}

// again shows the page that the form stood on with the problem above it. Without a Referer of ours the problem gets a page of its own.
func (c *Console) again(w http.ResponseWriter, r *http.Request, cause error) error {
	u, err := url.Parse(r.Referer())
	if err != nil || u.Host != r.Host || r.Context().Value(troubleKey{}) != nil {
		return cause
	}
	back := r.Clone(context.WithValue(r.Context(), troubleKey{}, &trouble{problem.Of(cause), r.PostForm}))
	back.Method, back.URL, back.Body, back.RequestURI = http.MethodGet, &url.URL{Path: u.Path, RawQuery: u.RawQuery}, http.NoBody, u.RequestURI()
	c.logProblem(r, cause)
	c.refused(r, problem.Of(cause))
	c.mux.ServeHTTP(w, back)
	return nil
}

func (c *Console) handle(pattern string, h http.Handler) {
	c.doors = append(c.doors, pattern)
	c.mux.Handle(pattern, h)
}

// Patterns lists what the stages registered, such as "GET /fleet": pages, forms and live values. It is for tests that walk
// all of them.
func (c *Console) Patterns() []string { return slices.Clone(c.doors) }

// Handle registers a handler with the console's headers, such as an endpoint that a script of ours calls.
func (c *Console) Handle(pattern, verb string, fn func(w http.ResponseWriter, r *http.Request) error) {
	c.handle(pattern, c.guard(verb, verb == "", fn))
}

// Fragment fills a slot. It panics when the template is broken.
func (c *Console) Fragment(slot string, f Fragment) {
	fs := append(c.slots[slot], fragment{f, c.parse(f.FS, f.Template)})
	slices.SortStableFunc(fs, func(a, b fragment) int { return a.Order - b.Order })
	c.slots[slot] = fs
}

// Slot is the shared part of a page, filled by fragments.
func (c *Console) Slot(name string) Slot { return Slot{c, name} }

// Slot is where fragments of several stages stand.
type Slot struct {
	c    *Console
	name string
}

// Render renders the fragments for key in their order. One that fails says so in its place and the others still stand.
func (s Slot) Render(r *http.Request, key string) template.HTML {
	var out bytes.Buffer
	for _, f := range s.c.slots[s.name] {
		if f.Verb != "" && !s.c.cfg.Holds(r.Context(), f.Verb) {
			continue
		}
		data, err := f.Load(r, key)
		if data == nil && err == nil {
			continue
		}
		var body template.HTML
		if err == nil {
			body, err = render(f.tmpl, data)
		}
		if err != nil {
			s.c.logProblem(r, err)
		}
		part := map[string]any{"Title": f.Title, "Half": f.Half, "Body": body, "Problem": problem.Of(err)}
		if err := s.c.kit.ExecuteTemplate(&out, "fragment", part); err != nil {
			s.c.cfg.Log.ErrorContext(r.Context(), "fragment", "slot", s.name, "err", err)
		}
	}
	return template.HTML(out.String())
}

// Live registers a stream of server-sent events. fn sends until ctx ends. Each message replaces the content of the
// element whose id is event; the page connects with {{template "live" "/path"}}.
func (c *Console) Live(path, verb string, fn func(ctx context.Context, r *http.Request, send func(event, html string))) {
	if verb == "" {
		panic("console: live " + path + " must declare a verb")
	}
	c.handle("GET "+path, c.guard(verb, false, func(w http.ResponseWriter, r *http.Request) error {
		h := w.Header()
		h.Set("Content-Type", "text/event-stream")
		h.Set("X-Accel-Buffering", "no") // a proxy must not hold events back
		out := http.NewResponseController(w)
		out.SetWriteDeadline(time.Time{}) //nolint:errcheck // a server without deadlines cannot lift one
		if err := out.Flush(); err != nil {
			return fmt.Errorf("live: %w", err)
		}
		ctx, stop := context.WithCancel(r.Context())
		defer stop()
		over := c.cfg.Clock.NewTimer(liveFor)
		defer over.Stop()
		go func() {
			select {
			case <-over.C:
				stop()
			case <-ctx.Done():
			}
		}()
		fn(ctx, r, func(event, html string) {
			if _, err := io.WriteString(w, message(event, html)); err != nil || out.Flush() != nil {
				stop()
			}
		})
		return nil
	}))
}

// liveFor is how long one answer of live values lasts. The browser asks again by itself and is let in anew: its session may
// have ended by then, and its rights may reach less.
const liveFor = time.Minute

// message is one server-sent event: an htmx partial that swaps html into the element with that id.
func message(id, html string) string {
	var b strings.Builder
	for line := range strings.Lines(`<hx-partial hx-target="#` + template.HTMLEscapeString(id) + `" hx-swap="innerHTML">` + html + "</hx-partial>") {
		fmt.Fprintf(&b, "data: %s\n", strings.TrimRight(line, "\r\n"))
	}
	return b.String() + "\n"
}

// HTML renders one part of the kit, for Live: c.HTML("badge", …).
func (c *Console) HTML(part string, data any) template.HTML {
	var b bytes.Buffer
	if err := c.kit.ExecuteTemplate(&b, part, data); err != nil {
		c.cfg.Log.Error("part", "name", part, "err", err)
	}
	return template.HTML(b.String())
}

func (c *Console) parse(dir fs.FS, name string) *template.Template {
	src, err := fs.ReadFile(dir, name)
	if err != nil {
		panic("console: " + err.Error())
	}
	return template.Must(template.Must(c.base.Clone()).New("page:" + name).Parse(string(src)))
}

func render(t *template.Template, data any) (template.HTML, error) {
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return "", fmt.Errorf("render %s: %w", t.Name(), err)
	}
	return template.HTML(b.String()), nil
}

// Local keeps a redirect on this host: anything but a path of ours becomes "/".
func Local(path string) string {
	if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.HasPrefix(path, "/\\") {
		return "/"
	}
	return path
}

type requestIDKey struct{}

func newRequestID() string { return "req_" + rand.Text()[:16] }
