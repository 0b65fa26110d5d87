// SPDX-License-Identifier: AGPL-3.0-only

// Package browsertest drives the pages in a real browser: headless Chromium of Debian over its DevTools pipe.
//
//	b := browsertest.Open(t, "https://localhost:8443")
//	b.Authenticator()
//	b.Go("/fleet")
//	b.Accessible()
//	b.QuietLog()
package browsertest

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
)

// patience is how long the browser may take for one step, on a machine that is busy with other tests.
const patience = time.Minute

// Browser is one tab of one browser. Every method fails the test when it cannot do what it says.
type Browser struct {
	t    testing.TB
	ctx  context.Context
	base string

	mu  sync.Mutex // guards log
	log []string
}

// Open starts a browser for the pages below baseURL. Of all certificates without a known authority it accepts only the
// one that baseURL shows now.
func Open(t testing.TB, baseURL string) *Browser {
	t.Helper()
	b := &Browser{t: t, base: strings.TrimSuffix(baseURL, "/")}
	path := os.Getenv("CHROMIUM")
	if path == "" {
		path = "/usr/bin/chromium"
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("the browser test needs Chromium: apt-get install chromium, or name one in $CHROMIUM (%v)", err)
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.WSURLReadTimeout(patience), // until it says where it is reached
		chromedp.NoSandbox,                  // containers run tests as root
		chromedp.Flag("disable-gpu", true),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("ignore-certificate-errors-spki-list", b.pin()),
		chromedp.Flag("hide-scrollbars", true),
		chromedp.WindowSize(1280, 860))
	alloc, stop := chromedp.NewExecAllocator(context.Background(), opts...)
	ctx, cancel := chromedp.NewContext(alloc, chromedp.WithErrorf(t.Logf))
	b.ctx = ctx
	t.Cleanup(func() { cancel(); stop() })
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatalf("browser: %v", err)
	}
	call(b, runtime.Enable, cdp.Empty{})
	call(b, cdplog.Enable, cdp.Empty{})
	return b
}

// pin is the SHA-256 of the public key that the server shows, as Chromium's flag wants it.
func (b *Browser) pin() string {
	u, err := url.Parse(b.base)
	if err != nil {
		b.t.Fatal(err)
	}
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // only to learn the key that is then pinned
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		b.t.Fatalf("browser: %v", err)
	}
	defer c.Close()
	sum := sha256.Sum256(c.(*tls.Conn).ConnectionState().PeerCertificates[0].RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

func (b *Browser) listen(ev any) {
	switch e := ev.(type) {
	case *cdplog.EventEntryAdded:
		b.note("%s: %s %s", e.Entry.Level, e.Entry.Text, e.Entry.URL)
	case *runtime.EventExceptionThrown:
		b.note("exception: %s", e.ExceptionDetails.Text)
	case *runtime.EventConsoleAPICalled:
		for _, a := range e.Args {
			b.note("console.%s: %s %s", e.Type, a.Value, a.Description)
		}
	}
}

func (b *Browser) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log = append(b.log, fmt.Sprintf(format, args...))
}

// call runs one DevTools command.
func call[P, R any](b *Browser, cmd cdp.Command[P, R], params P) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if _, err := chromedp.Call(ctx, cmd, params); err != nil {
		b.t.Fatalf("browser: %s: %v", cmd.Method, err)
	}
}

// do runs the actions within the browser's patience.
func (b *Browser) do(what string, actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.stuck(what, err)
	}
}

// stuck ends the test and leaves a picture of where.
func (b *Browser) stuck(what string, err error) {
	b.t.Helper()
	b.mu.Lock()
	log := strings.Join(b.log, "\n")
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	at, _ := chromedp.Run(ctx, chromedp.Location())
	text, _ := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body.innerText`))
	b.t.Fatalf("browser: %s: %v\nat %s\n%s\nlog: %s", what, err, at, text, log)
}

// Go opens the page at path.
func (b *Browser) Go(path string) {
	b.t.Helper()
	b.do("go "+path, chromedp.Navigate(b.base+path))
}

// whole waits until the page is all there and its scripts have run: what is read of half a page is not what it says, and what
// is clicked on it moves.
func (b *Browser) whole() {
	b.t.Helper()
	b.Until(`document.readyState === "complete"`)
}

// Click clicks the first visible element that the CSS selector matches.
func (b *Browser) Click(selector string) {
	b.t.Helper()
	b.whole()
	b.do("click "+selector, chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

// Type types text into the element.
func (b *Browser) Type(selector, text string) {
	b.t.Helper()
	b.whole()
	clear := fmt.Sprintf(`(() => { const e = document.querySelector(%q); if (e?.tagName === "INPUT") e.value = ""; return true })()`, selector)
	Value[bool](b, clear)
	b.do("type into "+selector, chromedp.SendKeys(chromedp.CSS(selector), text))
}

// File chooses a file in a field for one.
func (b *Browser) File(selector, path string) {
	b.t.Helper()
	b.whole()
	b.do("choose a file for "+selector, chromedp.SetUploadFiles(chromedp.CSS(selector), []string{path}))
}

// Press presses keys, wherever the focus is: "\t" moves on, "\r" activates.
func (b *Browser) Press(keys string) {
	b.t.Helper()
	b.whole()
	b.do("press", chromedp.KeyEvent(keys))
}

// Value evaluates a JavaScript expression and decodes its value into T.
func Value[T any](b *Browser, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.stuck(expression, err)
	}
	return v
}

// Until waits until the JavaScript expression is true, also across navigation and while parts of the page are replaced or have
// not come yet: an expression that fails, such as on an element that is not there, is not true yet.
func (b *Browser) Until(expression string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	look := `new Promise(done => {
		const holds = () => { try { return (` + expression + `) } catch { return false } };
		const look = () => holds() ? done(true) : setTimeout(look, 25);
		look();
	})`
	for {
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool](look, chromedp.EvalAwaitPromise))
		if ok {
			return
		}
		if ctx.Err() != nil {
			b.stuck("until "+expression, errors.Join(err, b.why(expression)))
		}
	}
}

// why is the error of an expression that fails.
func (b *Browser) why(expression string) error {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	_, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
	return err
}

// UntilPath waits until the page at path is loaded.
func (b *Browser) UntilPath(path string) {
	b.t.Helper()
	b.Until(fmt.Sprintf(`location.pathname === %q && document.readyState === "complete"`, path))
}

// Text is what the first element that matches says, once the page is whole.
func (b *Browser) Text(selector string) string {
	b.t.Helper()
	b.whole()
	return Value[string](b, fmt.Sprintf(`document.querySelector(%q)?.innerText ?? "(nothing matches)"`, selector))
}

// Authenticator gives the browser a passkey device that verifies its user and agrees to everything at once.
func (b *Browser) Authenticator() {
	b.t.Helper()
	call(b, webauthn.Enable, webauthn.EnableParams{})
	call(b, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
		Protocol: "ctap2", Transport: "internal", HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
	}})
}

// Scheme shows the pages in "light" or "dark".
func (b *Browser) Scheme(scheme string) {
	b.t.Helper()
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}, // a colour in transition is no colour
	}})
}

// Print shows the page as a printer would, and keeps a picture of it as name.png. Screen ends it.
func (b *Browser) Print(name string) {
	b.t.Helper()
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: "print"})
	b.Shot(name)
}

// Screen shows the page as on a screen again.
func (b *Browser) Screen() {
	b.t.Helper()
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: "screen"})
}

// Size sets the window's inner size in pixels.
func (b *Browser) Size(width, height int64) {
	b.t.Helper()
	b.do("size", chromedp.EmulateViewport(width, height))
}

// Accessible runs axe-core (WCAG 2.2 A and AA, and its best practices) on the page with all that folds unfolded, in light
// and in dark, and fails on any finding.
func (b *Browser) Accessible() {
	b.t.Helper()
	b.whole()
	axe, err := os.ReadFile(filepath.Join(root(b.t), "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		b.t.Fatalf("axe-core is absent; run: make assets (%v)", err)
	}
	Value[bool](b, `document.querySelectorAll("details:not(.menu):not([open])").forEach(d => { d.dataset.folded = ""; d.open = true }) ?? true`)
	defer Value[bool](b, `document.querySelectorAll("[data-folded]").forEach(d => { delete d.dataset.folded; d.open = false }) ?? true`)
	for _, scheme := range []string{"light", "dark"} {
		b.Scheme(scheme)
		if Value[bool](b, `typeof axe === "undefined"`) {
			Value[bool](b, string(axe)+"; true")
		}
		found := Value[[]finding](b, `axe.run(document, {resultTypes: ["violations"]}).then(r => r.violations.map(v => ({id: v.id, help: v.help,
			nodes: v.nodes.map(n => n.target.join(" ") + " | " + n.html.slice(0, 160) + " | " + n.failureSummary)})))`)
		for _, f := range found {
			b.t.Errorf("%s in %s: %s (%s)\n  %s", Value[string](b, `location.pathname`), scheme, f.Help, f.ID, strings.Join(f.Nodes, "\n  "))
		}
	}
}

type finding struct {
	ID    string   `json:"id"`
	Help  string   `json:"help"`
	Nodes []string `json:"nodes"`
}

// Log returns what the browser has logged since the last call, such as an error, a missing file or a violated policy.
func (b *Browser) Log() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	log := b.log
	b.log = nil
	return log
}

// QuietLog fails when the browser has logged anything since the last call.
func (b *Browser) QuietLog() {
	b.t.Helper()
	for _, l := range b.Log() {
		b.t.Errorf("browser log: %s", l)
	}
}

// Shot keeps a picture of the whole page as name.png in the folder $OPENTHINGS_SHOTS; without it, it does nothing.
func (b *Browser) Shot(name string) {
	b.t.Helper()
	dir := os.Getenv("OPENTHINGS_SHOTS")
	if dir == "" {
		return
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644)
	}
	if err != nil {
		b.t.Fatalf("browser: shot %s: %v", name, err)
	}
}

// Shots keeps a picture in light and one in dark.
func (b *Browser) Shots(name string) {
	b.t.Helper()
	for _, scheme := range []string{"light", "dark"} {
		b.Scheme(scheme)
		b.Shot(name + "-" + scheme)
	}
}

// root is the folder of go.mod.
func root(t testing.TB) string {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for dir != "/" {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	t.Fatal("no go.mod above the test")
	return ""
}
