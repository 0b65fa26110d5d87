// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

// jobForm is what a person may choose from when beginning a job.
type jobForm struct {
	Typed     url.Values
	Kinds     []console.Option
	Products  []console.Option
	Solutions []console.Option
}

// typedTime is how a browser writes a moment.
const typedTime = "2006-01-02T15:04"

// jobForm offers what whoever asks may send commands to. Who may do so within products or solutions only has to name one.
func (s *Service) jobForm(ctx context.Context, typed url.Values, filter string) (jobForm, error) {
	f := jobForm{Typed: typed, Kinds: []console.Option{{Value: KindCommand, Word: "a command"}, {Value: KindTwin, Word: "a change of the desired state"}}}
	if len(f.Typed) == 0 && filter != "" { // as from the list of devices
		f.Typed = url.Values{"filter": {filter}}
	}
	who, _ := tenant.ActorFrom(ctx)
	whole, products, solutions := tenant.Scope(who, tenant.CommandSend)
	if whole || len(solutions) > 0 {
		f.Products = append(f.Products, console.Option{Word: "every product"})
	}
	if whole || len(products) > 0 {
		f.Solutions = append(f.Solutions, console.Option{Word: "every solution"})
	}
	if s.cfg.Product != nil {
		all, err := s.cfg.Product.List(ctx, who.Tenant)
		if err != nil {
			return f, err
		}
		for _, p := range all {
			may := whole || slices.Contains(products, p.ID)
			if !may && len(solutions) > 0 { // who is held to solutions reads the names of what serves there, and no other
				ds, err := s.cfg.Identity.List(ctx, who.Tenant, identity.Filter{Product: p.ID, Solutions: solutions, Limit: 1})
				if err != nil {
					return f, err
				}
				may = len(ds) > 0
			}
			if may {
				f.Products = append(f.Products, console.Option{Value: p.ID, Word: p.Name})
			}
		}
	}
	if s.cfg.Tenant != nil {
		all, err := s.cfg.Tenant.SeenByStaff(ctx, tenant.CommandSend)
		if err != nil {
			return f, err
		}
		for _, sol := range all {
			f.Solutions = append(f.Solutions, console.Option{Value: sol.ID, Word: sol.Path})
		}
	}
	return f, nil
}

func (s *Service) postJob(r *http.Request) (string, error) {
	text := func(name string) string { return strings.TrimSpace(r.FormValue(name)) }
	j := Job{Kind: r.FormValue("kind"), Title: text("title"), Filter: text("filter"), Product: text("product"), Solution: text("solution"), Name: text("name"),
		Args: json.RawMessage(`{}`), Follow: r.FormValue("follow") != "", Retries: DefaultPolicy.Retries}
	if args := text("args"); args != "" {
		if !json.Valid([]byte(args)) {
			return "", problem.Invalid("The arguments are not JSON.").At("args").Hint(`Such as {"seconds": 5}.`)
		}
		j.Args = json.RawMessage(args)
	}
	hours, err := console.Number(r, "hours")
	if err != nil {
		return "", err
	}
	for name, into := range map[string]*int64{"rate": &j.Rate, "parallel": &j.Parallel, "abort_count": &j.AbortCount, "abort_percent": &j.AbortPercent, "abort_after": &j.AbortAfter, "timeout": &j.Timeout} {
		if *into, err = console.Number(r, name); err != nil {
			return "", err
		}
	}
	begins := s.cfg.Clock.Now()
	if at := text("not_before"); at != "" {
		if j.NotBefore, err = time.Parse(typedTime, at); err != nil {
			return "", problem.Invalid("%q is not a time such as 2026-12-01T03:00.", at).At("not_before").Because(err)
		}
		begins = j.NotBefore
	}
	if hours > 0 {
		j.NotAfter = begins.Add(time.Duration(min(hours, 24*365)) * time.Hour)
	}
	if j, err = s.askMany(r.Context(), j); err != nil {
		return "", err
	}
	said := "The job has begun."
	if j.NotBefore.After(s.cfg.Clock.Now()) {
		said = "The job begins at " + j.NotBefore.UTC().Format("2006-01-02 15:04 UTC") + "."
	}
	console.Say(r, said)
	return "/jobs/" + j.ID, nil
}
