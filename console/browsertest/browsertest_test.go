// SPDX-License-Identifier: AGPL-3.0-only

package browsertest

import (
	"fmt"
	"net/http"
	"testing"
)

// TestPageInPieces: on a page that comes in pieces, as on a slow machine, whoever waits is not put off by what is not there yet,
// and whoever reads finds all of it.
func TestPageInPieces(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a browser")
	}
	const head = `<!doctype html><html lang="en"><head><title>Pieces</title><link rel="icon" href="data:,"></head><body>`
	rest := map[string]chan struct{}{"until": make(chan struct{}), "text": make(chan struct{}), "axe": make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, head+`<main><h1>Ways</h1><p><a id="until" href="/page/until">one</a></p><p><a id="text" href="/page/text">two</a></p><p><a id="axe" href="/page/axe">three</a></p></main>`)
	})
	mux.HandleFunc("GET /page/{name}", func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		// The first piece changes, and asks for the second only when somebody has looked at it a few times.
		fmt.Fprintf(w, head+`<main><script>setTimeout(() => { document.title = "Half" }, 150); setTimeout(() => fetch("/rest/%s"), 300)</script>`, name)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-rest[name]:
		case <-r.Context().Done():
		}
		fmt.Fprint(w, `<h1>All</h1><p id="late">is here</p></main></body></html>`)
	})
	mux.HandleFunc("GET /rest/{name}", func(_ http.ResponseWriter, r *http.Request) { close(rest[r.PathValue("name")]) })
	l, origin := Listen(t)
	Serve(t, l, mux)
	b := Open(t, origin)

	b.Go("/")
	b.Click("#until")
	b.Until(`document.title === "Half" && document.querySelector("#late").textContent === "is here"`)
	b.Go("/")
	b.Click("#text")
	b.Until(`location.pathname === "/page/text"`)
	if got := b.Text("#late"); got != "is here" {
		t.Errorf("read too early: %q", got)
	}
	b.Go("/")
	b.Click("#axe")
	b.Until(`location.pathname === "/page/axe"`)
	b.Accessible() // half of it has no heading
	b.QuietLog()
}
