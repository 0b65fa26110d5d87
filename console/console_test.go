// SPDX-License-Identifier: AGPL-3.0-only

package console_test

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/console/browsertest"
	"github.com/openthings-platform/openthings/problem"
)

//go:embed testdata
var testFS embed.FS

var t0 = time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC)

type who struct{}

// open makes a console whose visitor is named by the header X-Test-Visitor, or else Ada; "nobody" is not signed in.
func open(t *testing.T) *console.Console {
	t.Helper()
	c := console.New(console.Config{
		Clock: clock.NewHand(t0), Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)), Menu: []string{"Today", "Gallery", "Secret", "Absent"}, SignIn: "/sign-in",
		Authenticate: func(r *http.Request) (context.Context, error) {
			name := r.Header.Get("X-Test-Visitor")
			if name == "nobody" {
				return nil, problem.Unauthenticated("This needs you to be signed in.")
			}
			if name == "" {
				name = "Ada Lovelace"
			}
			return context.WithValue(r.Context(), who{}, name), nil
		},
		Holds:   func(ctx context.Context, verb string) bool { return verb != "secret.read" },
		Visitor: func(ctx context.Context) string { n, _ := ctx.Value(who{}).(string); return n },
	})
	c.Page(console.Page{Path: "/gallery", Title: "Gallery", Menu: "Gallery", Verb: "device.read", FS: testFS, Template: "testdata/gallery.html",
		Load: func(r *http.Request) (any, error) { return gallery(c, r), nil }})
	c.Page(console.Page{Path: "/secret", Title: "Secret", Menu: "Secret", Verb: "secret.read", FS: testFS, Template: "testdata/fragment.html",
		Load: func(r *http.Request) (any, error) { return "secret", nil }})
	c.Page(console.Page{Path: "/broken", Title: "Broken", Verb: "device.read", FS: testFS, Template: "testdata/fragment.html",
		Load: func(r *http.Request) (any, error) { return nil, errors.New("disk on fire") }})
	c.Form("/gallery", "device.write", func(r *http.Request) (string, error) {
		if r.PostFormValue("serial") != "PX-1" {
			return "", problem.Invalid("There is no unit %q.", r.PostFormValue("serial")).At("serial").Hint("Look at the label.")
		}
		console.Say(r, "Unit PX-1 is saved.")
		return "/gallery", nil
	})
	c.Form("/away", "device.write", func(r *http.Request) (string, error) { return "https://evil.example/", nil })
	c.Live("/gallery/live", "device.read", func(ctx context.Context, r *http.Request, send func(event, html string)) {
		send("online", "<i>4</i>\n2")
		<-ctx.Done()
	})
	return c
}

type galleryData struct {
	Digest, Serial string
	Line           []console.Stage
	Line0          time.Time
	Clocks         []console.Countdown
	Bars           []console.Bar
	Chart          console.Chart
	States         []string
	Pager          console.Pager
	Options        []console.Option
	Slot           template.HTML
}

func gallery(c *console.Console, r *http.Request) galleryData {
	d := galleryData{Digest: "sha256:1f3b5c7a9e1f3b5c7a9e1f3b5c7a9e", Line0: t0.Add(-3 * time.Minute), Pager: console.Pager{Next: "/gallery?page_token=x"},
		States: []string{"commissioned", "pending", "suspended", "failed", "offline", "peculiar"}, Serial: console.Typed(r).Get("serial"),
		Options: []console.Option{{Value: "a", Word: "first"}, {Value: "b", Word: "second"}}, Slot: c.Slot("device").Render(r, "dev_1")}
	d.Line = console.LifeLine([]string{"manufactured", "provisioned", "commissioned", "decommissioned", "deprovisioned"}, "commissioned", func(name string) time.Time {
		if strings.HasPrefix(name, "de") {
			return time.Time{}
		}
		return t0.AddDate(0, 0, -3)
	})
	d.Clocks = []console.Countdown{
		{Name: "Early warning, 24 h", From: t0.Add(-20 * time.Hour), Due: t0.Add(4 * time.Hour), Now: t0},
		{Name: "Notification, 72 h", From: t0.Add(-20 * time.Hour), Due: t0.Add(52 * time.Hour), Now: t0},
		{Name: "Final report", From: t0.Add(-400 * time.Hour), Due: t0.Add(-3 * time.Hour), Now: t0},
		{Name: "Users informed", From: t0.Add(-40 * time.Hour), Due: t0.Add(-3 * time.Hour), Now: t0, Met: t0.Add(-9 * time.Hour)},
	}
	d.Bars = []console.Bar{
		{Label: "Wave 1", Total: 100, Parts: []console.BarPart{{Word: "committed", N: 92, Tone: "good"}, {Word: "rolled back", N: 3, Tone: "bad"}, {Word: "installing", N: 5, Tone: "busy"}}},
		{Label: "Wave 2", Total: 1000, Parts: []console.BarPart{{Word: "committed", N: 210, Tone: "good"}, {Word: "waiting", N: 0, Tone: "past"}}},
		{Label: "Wave 3", Total: 0},
	}
	d.Chart = console.Chart{ID: "chart-temp", Title: "Temperature", Unit: "°C", Series: []console.Series{{Name: "inlet"}, {Name: "outlet"}}}
	for i := range 200 {
		d.Chart.Times = append(d.Chart.Times, t0.Add(time.Duration(i-200)*time.Minute))
		in, out := 21+3*math.Sin(float64(i)/21), 27+2*math.Cos(float64(i)/13)
		d.Chart.Series[0].Values = append(d.Chart.Series[0].Values, &in)
		if i%50 == 49 {
			d.Chart.Series[1].Values = append(d.Chart.Series[1].Values, nil)
		} else {
			d.Chart.Series[1].Values = append(d.Chart.Series[1].Values, &out)
		}
	}
	return d
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) { w.t.Log(string(b)); return len(b), nil }

func get(c http.Handler, method, target, body string, header ...string) *http.Response {
	r := httptest.NewRequest(method, "https://localhost"+target, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	c.ServeHTTP(w, r)
	return w.Result()
}

func text(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestNothingInline looks at every page for what the policy would refuse.
func TestNothingInline(t *testing.T) {
	c := open(t)
	for _, path := range []string{"/", "/gallery", "/broken", "/nowhere"} {
		r := get(c, "GET", path, "")
		if got := r.Header.Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'none'; script-src 'self'; style-src 'self';") || strings.Contains(got, "unsafe") {
			t.Errorf("%s: policy %q", path, got)
		}
		body := text(t, r)
		for _, bad := range []string{" style=", "<style", " onclick=", " onload=", "javascript:", "hx-on", "<script>", "http://", "no value"} {
			if strings.Contains(body, bad) {
				t.Errorf("%s contains %q", path, bad)
			}
		}
	}
}

func TestWhoMay(t *testing.T) {
	c := open(t)
	if r := get(c, "GET", "/gallery?x=1", "", "X-Test-Visitor", "nobody"); r.StatusCode != 303 || r.Header.Get("Location") != "/sign-in?next=%2Fgallery%3Fx%3D1" {
		t.Errorf("a stranger: %d to %q", r.StatusCode, r.Header.Get("Location"))
	}
	if r := get(c, "POST", "/gallery", "serial=PX-1", "X-Test-Visitor", "nobody"); r.StatusCode != 401 {
		t.Errorf("a stranger's form: %d", r.StatusCode)
	}
	if r := get(c, "GET", "/secret", ""); r.StatusCode != 403 || !strings.Contains(text(t, r), "access.secret.read") {
		t.Errorf("without the verb: %d", r.StatusCode)
	}
	if r := get(c, "POST", "/gallery", "serial=PX-1", "Sec-Fetch-Site", "cross-site"); r.StatusCode != 403 {
		t.Errorf("from another site: %d", r.StatusCode)
	}
	body := text(t, get(c, "GET", "/gallery", ""))
	if !strings.Contains(body, `<a href="/gallery" aria-current="page">Gallery</a>`) || strings.Contains(body, ">Secret<") || strings.Contains(body, "Absent") {
		t.Error("the menu is not that of the visitor")
	}
	if r := get(c, "GET", "/broken", ""); r.StatusCode != 500 {
		t.Errorf("broken: %d", r.StatusCode)
	} else if body := text(t, r); strings.Contains(body, "disk on fire") || !strings.Contains(body, "req_") {
		t.Errorf("broken shows %s", body)
	}
}

func TestPagesDeclareWhoMay(t *testing.T) {
	c := open(t)
	load := func(*http.Request) (any, error) { return nil, nil }
	for name, register := range map[string]func(){
		"page": func() { c.Page(console.Page{Path: "/a", FS: testFS, Template: "testdata/fragment.html", Load: load}) },
		"both": func() {
			c.Page(console.Page{Path: "/a", Verb: "a.read", Public: true, FS: testFS, Template: "testdata/fragment.html", Load: load})
		},
		"form":     func() { c.Form("/b", "", func(*http.Request) (string, error) { return "", nil }) },
		"live":     func() { c.Live("/c", "", nil) },
		"template": func() { c.Page(console.Page{Path: "/d", Public: true, FS: testFS, Template: "none.html", Load: load}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s was registered", name)
				}
			}()
			register()
		}()
	}
}

func TestForm(t *testing.T) {
	c := open(t)
	r := get(c, "POST", "/gallery", "serial=PX-1")
	if r.StatusCode != 303 || r.Header.Get("Location") != "/gallery" {
		t.Fatalf("post: %d to %q", r.StatusCode, r.Header.Get("Location"))
	}
	cookie := r.Cookies()[0]
	r = get(c, "GET", "/gallery", "", "Cookie", cookie.Name+"="+cookie.Value)
	if body := text(t, r); !strings.Contains(body, "Unit PX-1 is saved.") || r.Cookies()[0].MaxAge >= 0 {
		t.Error("the sentence is not shown once")
	}
	// Refused: the same page again, with the problem and what was typed.
	r = get(c, "POST", "/gallery", url.Values{"serial": {`<b>"9`}}.Encode(), "Referer", "https://localhost/gallery")
	body := text(t, r)
	if r.StatusCode != 400 || !strings.Contains(body, "Look at the label.") || !strings.Contains(body, `value="&lt;b&gt;&#34;9"`) || !strings.Contains(body, "<h1>Gallery</h1>") {
		t.Errorf("refused form: %d", r.StatusCode)
	}
	for _, referer := range []string{"", "https://evil.example/gallery", "https://localhost/nowhere"} {
		if r := get(c, "POST", "/gallery", "serial=9", "Referer", referer); r.StatusCode < 400 {
			t.Errorf("refused form from %q: %d", referer, r.StatusCode)
		}
	}
	if r := get(c, "POST", "/away", ""); r.Header.Get("Location") != "/" {
		t.Errorf("redirected to %q", r.Header.Get("Location"))
	}
	if r := get(c, "POST", "/gallery", "serial="+strings.Repeat("x", 2<<20)); r.StatusCode != 400 {
		t.Errorf("a form of 2 MB: %d", r.StatusCode)
	}
}

func TestSlots(t *testing.T) {
	c := open(t)
	add := func(order int, title, verb string, load func(*http.Request, string) (any, error)) {
		c.Fragment("device", console.Fragment{Order: order, Title: title, Verb: verb, FS: testFS, Template: "testdata/fragment.html", Load: load})
	}
	add(2, "Second", "", func(_ *http.Request, key string) (any, error) { return key + " two", nil })
	add(1, "First", "", func(_ *http.Request, key string) (any, error) { return key + " one", nil })
	add(3, "Broken", "", func(*http.Request, string) (any, error) { return nil, errors.New("disk on fire") })
	add(4, "Left out", "", func(*http.Request, string) (any, error) { return nil, nil })
	add(5, "Hidden", "secret.read", func(*http.Request, string) (any, error) { return "hidden", nil })
	body := text(t, get(c, "GET", "/gallery", ""))
	one, two := strings.Index(body, "Fragment for dev_1 one"), strings.Index(body, "Fragment for dev_1 two")
	if one < 0 || two < one {
		t.Error("the fragments do not stand in order")
	}
	if !strings.Contains(body, "<h2>Broken</h2>") || strings.Contains(body, "disk on fire") || strings.Contains(body, "Left out") || strings.Contains(body, "Hidden") {
		t.Error("a fragment that fails must say so in its place, and those without data or right must not stand")
	}
}

func TestToday(t *testing.T) {
	c := open(t)
	if body := text(t, get(c, "GET", "/", "")); !strings.Contains(body, "Nothing needs you today") {
		t.Error("an empty day is not calm")
	}
	done := map[int]bool{}
	for i := 3; i > 0; i-- {
		c.Step(console.Step{Order: i, Title: fmt.Sprint("Step ", i), Href: "/", Done: func(context.Context) (bool, error) { return done[i], nil }})
	}
	done[1] = true
	body := text(t, get(c, "GET", "/", ""))
	if strings.Contains(body, "Nothing needs you") || strings.Count(body, `<li class="done"`) != 1 || strings.Count(body, `<li class="next"`) != 1 ||
		strings.Index(body, "Step 1") > strings.Index(body, "Step 3") {
		t.Errorf("checklist: %s", body)
	}
	done[2], done[3] = true, true
	if body := text(t, get(c, "GET", "/", "")); strings.Contains(body, "Step 1") || !strings.Contains(body, "Nothing needs you today") {
		t.Error("the checklist stays after the circle")
	}
}

func TestTiles(t *testing.T) {
	c := open(t)
	tile := func(order int, verb string, f console.Figure, err error) {
		c.Tile(console.Tile{Order: order, Verb: verb, Load: func(context.Context) (console.Figure, error) { return f, err }})
	}
	tile(20, "", console.Figure{Label: "Second", Value: "2", Href: "/"}, nil)
	tile(10, "device.read", console.Figure{Label: "First", Value: "1", Of: " of 3", Href: "/", ID: "n", Live: "/gallery/live"}, nil)
	tile(30, "", console.Figure{}, nil)
	tile(40, "secret.read", console.Figure{Label: "Hidden"}, nil)
	body := text(t, get(c, "GET", "/", ""))
	if strings.Count(body, `<li class="tile`) != 2 || strings.Index(body, "First") > strings.Index(body, "Second") || strings.Contains(body, "Hidden") ||
		!strings.Contains(body, `hx-sse:connect="/gallery/live"`) || !strings.Contains(body, "Nothing needs you today") {
		t.Errorf("calm tiles: %s", body)
	}
	tile(50, "", console.Figure{}, errors.New("disk on fire"))
	body = text(t, get(c, "GET", "/", ""))
	if strings.Contains(body, "Nothing needs you") || strings.Contains(body, "disk on fire") || !strings.Contains(body, "could not be read") {
		t.Errorf("a tile that fails must say so and end the calm: %s", body)
	}
}

func TestNames(t *testing.T) {
	asked := 0
	c := console.New(console.Config{Name: func(_ context.Context, id string) string {
		asked++
		return map[string]string{"per_1": "<Bo>"}[id]
	}})
	n := c.Names(t.Context())
	for range 2 {
		if got := n.Of("per_1"); got != `<span title="per_1">&lt;Bo&gt;</span>` {
			t.Errorf("known: %s", got)
		}
		if got := n.Of("per_2<"); got != `<code>per_2&lt;</code>` {
			t.Errorf("unknown: %s", got)
		}
	}
	if asked != 2 {
		t.Errorf("asked %d times for two ids", asked)
	}
	if got := console.New(console.Config{}).Names(t.Context()).Word("per_1"); got != "per_1" {
		t.Errorf("without a name giver: %s", got)
	}
}

// TestChartAxes: a line that would lie flat beside a much larger one gets an axis of its own.
// Numbers of things are told to the script, which draws them on zero and without halves.
func TestChartCounts(t *testing.T) {
	six := 6.0
	c := console.Chart{Times: []time.Time{t0, t0.Add(time.Hour)}, Series: []console.Series{{Name: "devices", Values: []*float64{&six, &six}}}}
	if _, told := c.Data()["counts"]; told {
		t.Error("a chart of anything is told to count")
	}
	c.Counts = true
	if c.Data()["counts"] != true {
		t.Error("the script is not told that the chart counts")
	}
}

func TestChartAxes(t *testing.T) {
	v := func(f float64) []*float64 { return []*float64{nil, &f} }
	for _, x := range []struct {
		values []float64
		want   []int
	}{{[]float64{20, 21}, []int{0, 0}}, {[]float64{300, 21}, []int{0, 1}}, {[]float64{-300, 21, 200}, []int{0, 1, 0}}, {[]float64{0, 300}, []int{0, 0}}} {
		var c console.Chart
		for _, f := range x.values {
			c.Series = append(c.Series, console.Series{Values: v(f)})
		}
		if got := c.Data()["axes"]; !slices.Equal(got.([]int), x.want) {
			t.Errorf("%v: axes %v, want %v", x.values, got, x.want)
		}
	}
}

func TestAssets(t *testing.T) {
	c := open(t)
	for _, name := range []string{"console.css", "console.js", "charts.js", "passkey.js", "favicon.svg"} {
		u := c.Asset(name)
		r := get(c, "GET", u, "")
		if r.StatusCode != 200 || !strings.Contains(r.Header.Get("Cache-Control"), "immutable") || r.Header.Get("Content-Type") == "" {
			t.Errorf("%s: %d, %q, %q", u, r.StatusCode, r.Header.Get("Cache-Control"), r.Header.Get("Content-Type"))
		}
	}
	if r := get(c, "GET", "/favicon.ico", ""); r.StatusCode != 200 {
		t.Errorf("favicon: %d", r.StatusCode)
	}
	if r := get(c, "GET", "/assets/../console.go", ""); r.StatusCode == 200 {
		t.Error("a file outside the assets was served")
	}
}

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		console.Span(8 * time.Second): "8 s", console.Span(61 * time.Minute): "1 h 1 min", console.Span(50 * time.Hour): "2 d 2 h", console.Span(400 * 24 * time.Hour): "13 months",
		console.Left(-90 * time.Second): "overdue by 1 min", console.Left(13 * time.Hour): "13 h left",
		console.Bytes(999): "999 B", console.Bytes(1_234_567): "1.2 MB", console.Count(1234567): "1\u202f234\u202f567", console.Count(-12345): "-12\u202f345", console.Count(12): "12",
		console.Short("sha256:0123456789abcdef0123"): "sha256:0123456789ab…", console.Short("abc"): "abc",
		console.Plural(1, "device", "devices"): "1 device", console.Plural(2000, "device", "devices"): "2\u202f000 devices",
		console.Local("//evil.example"): "/", console.Local(`/\evil.example`): "/", console.Local("/fleet?x=1"): "/fleet?x=1", console.Local("javascript:alert(1)"): "/",
		console.NewBadge("Suspended").Tone: "warn", console.NewBadge("not_affected").Word: "not affected", console.NewBadge("peculiar").Tone: "",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	spans := console.Bar{Total: 3, Parts: []console.BarPart{{N: 1}, {N: 1}, {N: 1}}}.Spans()
	if whole := spans[0].Width + spans[1].Width + spans[2].Width; whole != 1000 {
		t.Errorf("a full bar is %d wide: %v", whole, spans)
	}
	if c := (console.Countdown{From: t0, Due: t0.Add(time.Hour), Now: t0.Add(50 * time.Minute)}); c.Tone() != "warn" || c.Text() != "10 min left" {
		t.Errorf("%s %s", c.Tone(), c.Text())
	}
}

// TestBrowserGallery shows every part to a browser: accessible in light, dark and narrow, with a quiet log and a live number.
func TestBrowserGallery(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a browser")
	}
	c := open(t)
	if c.Asset("vendor/htmx.min.js") == "" {
		t.Fatal("the browser libraries are absent; run: make assets")
	}
	l, origin := browsertest.Listen(t)
	browsertest.Serve(t, l, c)
	b := browsertest.Open(t, origin)
	b.Go("/gallery")
	b.Until(`document.querySelector("#online").innerText.replace(/\s/g, "") === "42"`)
	b.Until(`document.querySelector("figure.chart canvas")`)
	b.Accessible()
	b.Shots("gallery")
	b.Size(390, 844)
	b.Accessible()
	b.Shots("gallery-narrow")
	if wide := browsertest.Value[bool](b, `document.documentElement.scrollWidth > innerWidth`); wide {
		t.Error("the page is wider than a telephone")
	}
	b.Size(1280, 860)

	// Today of a house in which nothing exists yet.
	for i := 1; i < 5; i++ {
		c.Step(console.Step{Order: i, Title: fmt.Sprint("Step ", i), Text: "What happens there.", Href: "/gallery", Button: "Go", Done: func(context.Context) (bool, error) { return i == 1, nil }})
		c.Tile(console.Tile{Order: i, Load: func(context.Context) (console.Figure, error) {
			return console.Figure{Label: "Number", Value: fmt.Sprint(i), Of: " of 9", Note: "as it should be", Href: "/gallery", Tone: []string{"", "", "warn", "bad"}[i-1]}, nil
		}})
	}
	b.Go("/")
	b.Accessible()
	b.Shots("today")

	// The keyboard alone: the first stop is the way past the menu.
	b.Go("/gallery")
	b.Press("\t")
	if got := browsertest.Value[string](b, `document.activeElement.innerText`); got != "Skip to content" {
		t.Errorf("the first stop is %q", got)
	}
	b.Press("\r")
	b.Until(`document.activeElement.id === "main"`)

	b.Type("#f-serial", "nonsense")
	b.Click("form.row button")
	b.Until(`document.querySelector("main > .problem")`)
	if got := browsertest.Value[string](b, `document.querySelector("#f-serial").value`); got != "nonsense" {
		t.Errorf("what was typed is gone: %q", got)
	}
	b.Accessible()
	b.Shots("problem")
	logged := b.Log()
	if !slices.ContainsFunc(logged, func(s string) bool { return strings.Contains(s, "400") }) || len(logged) != 1 {
		t.Errorf("log: %q; want the 400 alone", logged)
	}
	b.Go("/nowhere")
	b.Accessible()
	b.Shots("failure")
}

// sheetPage is a public page in a manufacturer's name.
type sheetPage struct{ Word string }

func (sheetPage) Sheet() console.Sheet {
	return console.Sheet{Lang: "de", From: console.Link{Word: "Acme <Ltd>", Href: "/acme"}, Over: []string{"ACME-1"}, Langs: []console.Link{{Word: "English", Href: "?lang=en"}}}
}

// TestSheet: a public page can stand on a sheet, with forms, what was said and what was refused; nothing of ours is around it.
func TestSheet(t *testing.T) {
	c := console.New(console.Config{Clock: clock.NewHand(t0), Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Menu: []string{"Secret"}, SignIn: "/sign-in",
		Authenticate: func(r *http.Request) (context.Context, error) { return r.Context(), nil }, Holds: func(context.Context, string) bool { return true }, Visitor: func(context.Context) string { return "Ann" }})
	c.Page(console.Page{Path: "/secret", Title: "Secret", Menu: "Secret", Verb: "device.read", FS: testFS, Template: "testdata/sheet.html", Load: func(*http.Request) (any, error) { return sheetPage{"inside"}, nil }})
	c.Page(console.Page{Path: "/sheet", Title: "Lamp", Public: true, FS: testFS, Template: "testdata/sheet.html", Load: func(*http.Request) (any, error) { return sheetPage{"outside"}, nil }})
	c.PublicForm("/sheet", func(r *http.Request) (string, error) { return "", problem.Forbidden("test.rule", "Not today.") })
	body := text(t, get(c, "GET", "/sheet", ""))
	for _, want := range []string{`<html lang="de">`, "<title>Lamp · Acme &lt;Ltd&gt;</title>", `<a href="/acme">Acme &lt;Ltd&gt;</a>`, "ACME-1", `<a href="?lang=en">English</a>`, "outside", "/assets/sheet.css"} {
		if !strings.Contains(body, want) {
			t.Errorf("it does not say %q:\n%s", want, body)
		}
	}
	for _, not := range []string{"OpenThings", "Ann", "/secret", "<script", "console.css"} {
		if strings.Contains(body, not) {
			t.Errorf("it says %q:\n%s", not, body)
		}
	}
	if body := text(t, get(c, "GET", "/secret", "")); !strings.Contains(body, "console.css") {
		t.Error("a page with a verb stands on a sheet")
	}
	r := get(c, "POST", "/sheet", "x=1", "Referer", "https://localhost/sheet")
	if body := text(t, r); r.StatusCode != 403 || !strings.Contains(body, "Not today.") || !strings.Contains(body, "test.rule") || !strings.Contains(body, "outside") {
		t.Errorf("%d:\n%s", r.StatusCode, body)
	}
}
