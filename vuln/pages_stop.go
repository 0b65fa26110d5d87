// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"context"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/tenant"
)

// stopPart is what is stopped, and what a person is asked to stop: on Today, of a product, or of a vulnerability.
type stopPart struct {
	From     string // the page that it stands on, to return to
	Product  string // of the product's page
	Stops    []Stop
	Asked    []askedPart
	Policy   StopSetting // of the product's page
	Policies []console.Option
	Names    map[string]string // of products
	Known    *console.Names
	may      func(product string) bool
}

// askedPart is what a person may stop: one stop holds the releases, whatever else is exploited in them.
type askedPart struct {
	Asked
	Also []string // further vulnerabilities known as exploited in the same releases
}

// together joins what one stop would hold.
func together(list []Asked) (out []askedPart) {
	for _, a := range list {
		i := slices.IndexFunc(out, func(o askedPart) bool { return o.Product == a.Product && slices.Equal(o.Versions, a.Versions) })
		if i < 0 {
			out = append(out, askedPart{Asked: a})
		} else {
			out[i].Also = append(out[i].Also, a.Vulnerability)
		}
	}
	return out
}

// May says whether the visitor may stop and lift in a product.
func (p stopPart) May(product string) bool { return p.may(product) }

// stopPages registers the parts of other pages that are about stops, and their forms.
func (s *Service) stopPages(c *console.Console) {
	if s.cfg.Enroll == nil {
		return
	}
	read, write := string(tenant.VulnRead), string(tenant.VulnDecide)
	part := func(slot string, order int, load func(r *http.Request, key string) (stopPart, bool, error)) {
		c.Fragment(slot, console.Fragment{Order: order, Title: "Making of units", Verb: read, FS: pagesFS, Template: "pages/stop.html",
			Load: func(r *http.Request, key string) (any, error) {
				p, shown, err := load(r, key)
				if err != nil || !shown {
					return nil, err
				}
				p.Known = c.Names(r.Context())
				return p, nil
			}})
	}
	part("today", 12, func(r *http.Request, _ string) (stopPart, bool, error) {
		p, err := s.stopPart(r.Context(), "today", enroll.HoldFilter{Standing: true}, s.AskedStops)
		return p, len(p.Stops)+len(p.Asked) > 0, err
	})
	part("product", 63, func(r *http.Request, product string) (stopPart, bool, error) {
		p, err := s.stopPart(r.Context(), "product", enroll.HoldFilter{Product: product, Standing: true},
			func(ctx context.Context, tenant string, seen func(string) bool) ([]Asked, error) {
				return s.StoppableIn(ctx, tenant, []string{product}, seen)
			})
		if err != nil {
			return p, false, err
		}
		p.Product = product
		p.Policies = []console.Option{{Value: string(StopOff), Word: "Nothing"}, {Value: string(StopAsk), Word: "A person is asked"}, {Value: string(StopAutomatic), Word: "It is stopped at once"}}
		p.Policy, err = s.StopPolicyOf(r.Context(), tenant.MustTenant(r.Context()), product)
		return p, visible(r.Context())(product), err
	})
	part("vulnerability", 10, func(r *http.Request, group string) (stopPart, bool, error) {
		d, err := s.Get(r.Context(), tenant.MustTenant(r.Context()), group)
		if err != nil {
			return stopPart{}, false, err
		}
		p, err := s.stopPart(r.Context(), "vulnerability", enroll.HoldFilter{Standing: true}, s.stoppableBecauseOf(d))
		p.Stops = slices.DeleteFunc(p.Stops, func(x Stop) bool { return !slices.Contains(d.Names, x.Cause) })
		return p, len(p.Stops)+len(p.Asked) > 0, err
	})
	c.Fragment("product", console.Fragment{Order: 64, Title: "Lowest safe version", Verb: read, FS: pagesFS, Template: "pages/safe.html",
		Load: func(r *http.Request, product string) (any, error) {
			if !visible(r.Context())(product) {
				return nil, nil
			}
			list, err := s.SafeVersions(r.Context(), tenant.MustTenant(r.Context()), product)
			if err != nil || len(list) == 0 {
				return nil, err
			}
			return alike(list), nil
		}})
	c.Form("/stops", write, func(r *http.Request) (string, error) {
		x, err := s.stopAs(r.Context(), Stopping{Product: r.PostFormValue("product"), Vulnerability: r.PostFormValue("vulnerability"), Reason: r.PostFormValue("reason")})
		if err == nil {
			console.Say(r, "Stopped: "+x.Words()+".")
		}
		return backTo(r), err
	})
	c.Form("/stops/{id}/lift", write, func(r *http.Request) (string, error) {
		_, err := s.resumeAs(r.Context(), r.PathValue("id"), r.PostFormValue("reason"))
		if err == nil {
			console.Say(r, "Units get identities again.")
		}
		return backTo(r), err
	})
	c.Form("/products/{id}/stop-policy", write, func(r *http.Request) (string, error) {
		_, err := s.setStopPolicyAs(r.Context(), r.PathValue("id"), StopPolicy(r.PostFormValue("policy")))
		return "/products/" + url.PathEscape(r.PathValue("id")), err
	})
}

// alike joins neighbours among hardware revisions of which the same is true.
func alike(list []SafeVersion) (out []SafeVersion) {
	for _, x := range list {
		if n := len(out); n > 0 && reflect.DeepEqual(out[n-1].Safe, x.Safe) && reflect.DeepEqual(out[n-1].Clean, x.Clean) {
			out[n-1].HW += ", " + x.HW
		} else {
			out = append(out, x)
		}
	}
	return out
}

// backTo is the page that a form stood on.
func backTo(r *http.Request) string {
	switch cause := r.PostFormValue("vulnerability"); {
	case r.PostFormValue("from") == "vulnerability" && cause != "":
		return "/vulnerabilities/" + url.PathEscape(cause)
	case r.PostFormValue("from") == "product" && strings.TrimSpace(r.PostFormValue("product")) != "":
		return "/products/" + url.PathEscape(r.PostFormValue("product"))
	}
	return "/"
}

// stoppableBecauseOf asks for what may be stopped because of one vulnerability; of one that nobody is known to exploit,
// nothing.
func (s *Service) stoppableBecauseOf(d Detail) func(context.Context, string, func(string) bool) ([]Asked, error) {
	return func(ctx context.Context, tenant string, seen func(string) bool) ([]Asked, error) {
		if !d.Exploited {
			return nil, nil
		}
		var products []string
		for _, f := range d.Findings {
			products = append(products, f.Product)
		}
		slices.Sort(products)
		list, err := s.StoppableIn(ctx, tenant, slices.Compact(products), seen)
		return slices.DeleteFunc(list, func(a Asked) bool { return a.Group != d.ID }), err
	}
}

func (s *Service) stopPart(ctx context.Context, from string, f enroll.HoldFilter, ask func(context.Context, string, func(string) bool) ([]Asked, error)) (p stopPart, err error) {
	t, seen := tenant.MustTenant(ctx), visible(ctx)
	actor, _ := tenant.ActorFrom(ctx)
	p = stopPart{From: from, Names: map[string]string{}, may: func(product string) bool {
		return tenant.Can(actor, tenant.VulnDecide, tenant.Thing{Tenant: t, Product: product})
	}}
	if p.Stops, err = s.Stops(ctx, t, f, seen); err != nil {
		return p, err
	}
	asked, err := ask(ctx, t, seen)
	if err != nil {
		return p, err
	}
	p.Asked = together(asked)
	for _, x := range p.Stops {
		p.Names[x.Product] = s.cfg.ProductName(ctx, t, x.Product)
	}
	for _, a := range p.Asked {
		p.Names[a.Product] = s.cfg.ProductName(ctx, t, a.Product)
	}
	return p, nil
}
