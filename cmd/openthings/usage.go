// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
)

// isUsage also recognises cobra's own complaints about arguments, which carry no type.
func isUsage(err error) bool {
	var u usageError
	if errors.As(err, &u) {
		return true
	}
	var p *problem.Error
	if errors.As(err, &p) {
		return false // it has a kind of its own, whatever its words are
	}
	s := err.Error()
	for _, p := range []string{"unknown command", "unknown flag", "accepts ", "requires ", "required flag", "if any flags in the group"} {
		if strings.Contains(s, p) {
			return true
		}
	}
	return false
}

// remote holds the flags of every command that speaks to a platform.
type remote struct {
	url, token, ca string
	json           bool
}

// connect adds the flags that say where the platform is.
func (r *remote) connect(c *cobra.Command) {
	f := c.PersistentFlags()
	f.StringVar(&r.url, "url", env("OPENTHINGS_URL", "https://localhost:8443"), "the platform ($OPENTHINGS_URL)")
	f.StringVar(&r.ca, "ca", env("OPENTHINGS_CA", ""), "PEM file of the platform's CA ($OPENTHINGS_CA)")
	r.token = os.Getenv("OPENTHINGS_TOKEN") // never a flag: command lines are public on a machine
}

func (r *remote) flags(c *cobra.Command) {
	r.connect(c)
	c.PersistentFlags().BoolVar(&r.json, "json", false, "print the API's own JSON")
}

// client acts by the token, or else as the person who signed in with openthings login.
func (r *remote) client() (*api.Client, error) {
	token := r.token
	if token == "" {
		token = keptSession(strings.TrimSuffix(r.url, "/")).Session
	}
	return api.NewClient(r.url, token, r.ca)
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// parent is a command that only holds others: alone it explains itself, with a word that it does not know it refuses.
func parent(use, short string) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, RunE: func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usageError{fmt.Errorf("unknown command %q; see %s --help", args[0], c.CommandPath())}
		}
		return c.Help()
	}}
}

// table prints rows in columns; the first row is the heading. Without a second row it says that there is nothing.
func table(w io.Writer, rows [][]string) error {
	if len(rows) == 1 {
		_, err := fmt.Fprintln(w, "none")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(t, strings.Join(r, "\t"))
	}
	return t.Flush()
}

// paging holds the flags of a command that prints a list page by page.
type paging struct {
	size  int
	token string
}

func (p *paging) flags(c *cobra.Command) {
	c.Flags().IntVar(&p.size, "page-size", 100, "how many at most, up to 1000")
	c.Flags().StringVar(&p.token, "page-token", "", "where to read on, as the page before said")
}

// path adds the page to an address; empty values of query are left out.
func (p *paging) path(path string, query url.Values) string {
	q := url.Values{"page_size": {strconv.Itoa(p.size)}}
	for name, v := range query {
		if v[0] != "" {
			q[name] = v
		}
	}
	if p.token != "" {
		q.Set("page_token", p.token)
	}
	return path + "?" + q.Encode()
}

// table prints one page and how to read on.
func (p *paging) table(w io.Writer, rows [][]string, next string) error {
	if err := table(w, rows); err != nil {
		return err
	}
	return p.more(w, next)
}

func (p *paging) more(w io.Writer, next string) error {
	if next == "" {
		return nil
	}
	_, err := fmt.Fprintf(w, "there is more: --page-token %s\n", next)
	return err
}
