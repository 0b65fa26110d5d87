// SPDX-License-Identifier: AGPL-3.0-only

package console

import (
	"context"
	"html/template"
)

// Names turns ids into words for people while one page is made; each id is asked for once. Not safe for concurrent use.
type Names struct {
	ask   func(id string) string
	known map[string]string
}

// Names of what the visitor's tenant knows. A page offers them to its template: {{$.Names.Of .Actor}}.
func (c *Console) Names(ctx context.Context) *Names {
	n := &Names{known: map[string]string{}, ask: func(string) string { return "" }}
	if c.cfg.Name != nil {
		n.ask = func(id string) string { return c.cfg.Name(ctx, id) }
	}
	return n
}

// Word is the name of id, or id itself where none is known.
func (n *Names) Word(id string) string {
	w, ok := n.known[id]
	if !ok {
		if w = n.ask(id); w == "" {
			w = id
		}
		n.known[id] = w
	}
	return w
}

// Of is the name with the id as its title; an id without a name stands for itself as code.
func (n *Names) Of(id string) template.HTML {
	w := n.Word(id)
	if w == id {
		return template.HTML("<code>" + template.HTMLEscapeString(id) + "</code>")
	}
	return template.HTML(`<span title="` + template.HTMLEscapeString(id) + `">` + template.HTMLEscapeString(w) + `</span>`)
}
