// SPDX-License-Identifier: AGPL-3.0-only

package notify

import (
	"embed"
	"net/http"
	"net/url"
	"strings"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed pages/*.html
var pagesFS embed.FS

const menu = "Alarms"

type page struct {
	Endpoints  []Endpoint
	Deliveries []Delivery
	Topics     []Topic
	Kinds      []console.Option
	States     []console.Option
	State      string
	Names      *console.Names
	Secret     string
	MayWrite   bool
	Typed      url.Values
	Pager      console.Pager
}

const pageSize = 50

// Pages mounts the console's page: who is told, and whether it arrived.
func (s *Service) Pages(c *console.Console) {
	read, write := string(tenant.NotifyRead), string(tenant.NotifyWrite)
	load := func(r *http.Request) (page, error) {
		ctx := r.Context()
		p := page{Topics: s.Topics(), Names: c.Names(ctx), MayWrite: tenant.Holds(ctx, write), Typed: console.Typed(r), State: r.URL.Query().Get("state"),
			Kinds:  []console.Option{{Value: string(Webhook), Word: "webhook"}, {Value: string(Mail), Word: "mail"}, {Value: string(Pager), Word: "pager (PagerDuty Events API v2)"}, {Value: string(Syslog), Word: "syslog over TLS"}},
			States: []console.Option{{Word: "any"}, {Value: string(Open), Word: "waiting"}, {Value: string(Done), Word: "arrived"}, {Value: string(Failed), Word: "failed"}, {Value: string(Moot), Word: "over before"}}}
		var err error
		if p.Endpoints, err = s.endpoints(ctx); err != nil {
			return p, err
		}
		before := r.URL.Query().Get("before")
		p.Deliveries, err = listDeliveries(ctx, s.cfg.DB, tenant.MustTenant(ctx), "", p.State, before, pageSize+1)
		if before != "" {
			p.Pager.First = "/notifications?" + url.Values{"state": {p.State}}.Encode()
		}
		if len(p.Deliveries) > pageSize {
			p.Deliveries = p.Deliveries[:pageSize]
			p.Pager.Next = "/notifications?" + url.Values{"state": {p.State}, "before": {p.Deliveries[pageSize-1].ID}}.Encode()
		}
		return p, err
	}
	c.Page(console.Page{Path: "/notifications", Title: "Notifications", Menu: menu, Tab: "Notifications", TabOrder: 80, Verb: read, FS: pagesFS, Template: "pages/notifications.html",
		Load: func(r *http.Request) (any, error) { return load(r) }})
	// The secret is shown at once, as the answer of the form.
	c.Page(console.Page{Path: "/notifications", Method: http.MethodPost, Title: "Notifications", Menu: menu, Tab: "Notifications", Verb: write, FS: pagesFS, Template: "pages/notifications.html",
		Load: func(r *http.Request) (any, error) {
			_, secret, err := s.add(r.Context(), Endpoint{Name: r.FormValue("name"), Kind: Kind(r.FormValue("kind")), Address: r.FormValue("address"), Topics: strings.Fields(r.FormValue("topics")),
				Header: r.FormValue("header"), Credential: r.FormValue("credential"), Authority: r.FormValue("authority")})
			if err != nil {
				return nil, err
			}
			p, err := load(r)
			p.Secret = secret
			return p, err
		}})
	act := func(path, said string, do func(r *http.Request, t, actor string) error) {
		c.Form(path, write, func(r *http.Request) (string, error) {
			t, who, err := tenant.Whole(r.Context(), tenant.NotifyWrite)
			if err == nil {
				err = do(r, t, who)
			}
			if err == nil {
				console.Say(r, said)
			}
			return "/notifications", err
		})
	}
	act("/notifications/{id}/test", "A test is on its way. Its outcome stands below.", func(r *http.Request, t, who string) error {
		return s.Test(r.Context(), t, r.PathValue("id"), who)
	})
	act("/notifications/{id}/resume", "What waits is tried again now.", func(r *http.Request, t, who string) error {
		return s.Resume(r.Context(), t, r.PathValue("id"), who)
	})
	act("/notifications/{id}/remove", "It is told nothing more.", func(r *http.Request, t, who string) error {
		return s.Remove(r.Context(), t, r.PathValue("id"), who)
	})
	act("/notifications/deliveries/{id}/again", "It is tried again now.", func(r *http.Request, t, _ string) error { return s.Again(r.Context(), t, r.PathValue("id")) })
}
