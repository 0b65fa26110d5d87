// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"net/http"
	"strings"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/docs/runbooks"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

// runbookView is a runbook as it was written.
type runbookView struct{ Title, Text string }

// Heading is the page's title.
func (v runbookView) Heading() string { return v.Title }

// runbookPages shows the runbooks where they are needed: there is no time to look for them.
func (s *Service) runbookPages(c *console.Console) {
	c.Page(console.Page{Path: "/runbooks/{name}", Title: "Runbook", Menu: "Cases", Verb: string(tenant.CaseRead), FS: pagesFS, Template: "pages/runbook.html",
		Load: func(r *http.Request) (any, error) {
			text, ok := map[string]string{"reporting": runbooks.Reporting, "incident": runbooks.Incident}[r.PathValue("name")]
			if !ok {
				return nil, problem.NotFound("There is no such runbook.")
			}
			title, text, _ := strings.Cut(text, "\n")
			return runbookView{strings.TrimPrefix(title, "# "), strings.TrimSpace(text)}, nil
		}})
}
