// SPDX-License-Identifier: AGPL-3.0-only

package evidence

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

// Unit is what anybody who holds a device may know, by the 128-bit code of its label and nothing else: no serial number
// leads here, since those can be guessed. It says nothing of the device's owner or whereabouts.
type Unit struct {
	Thing  tenant.Thing // whose it is, for deciding who may see what runs; never shown
	Device string       // likewise

	Maker, Product, Revision string
	SupportEnd               time.Time // last instant; zero: not published yet
	Zone                     *time.Location
	About                    string   // the product's public page, "" without one
	Report                   string   // where flaws are reported, "" without a place
	Remove                   string   // how its data are removed and how it is taken out of service (CRA Annex II, 8(d))
	Advisories               []Notice // published for everybody, newest first
}

// Notice is a published advisory.
type Notice struct {
	Title, Href string
	At          time.Time
}

// Running is what a device runs, for its claimant.
type Running struct {
	Version string
	Open    []string // vulnerabilities that its maker says, or a feed says, are exploited in it
	Newest  string   // the newest published version, if it is another one
}

// labelLimits bound what one address may ask. A code cannot be guessed; this keeps trying cheap for us.
var labelLimits = api.Limits{PerSecond: 2, Burst: 40}

// labelView is the page.
type labelView struct {
	*Unit
	Code    string
	Typed   string
	Running *Running
	Ended   bool
	Left    string // how long support still lasts, in words
	Part    int    // of the last five years before the end, in percent
	Sign    string // where a claimant signs in
}

// Heading is what the page is about.
func (v labelView) Heading() string {
	if v.Unit == nil {
		return "What is this device?"
	}
	return v.Product
}

// Sheet makes it a page in its maker's name.
func (v labelView) Sheet() console.Sheet {
	if v.Unit == nil {
		return console.Sheet{}
	}
	s := console.Sheet{From: console.Link{Word: v.Maker, Href: v.About}}
	if v.Revision != "" {
		s.Over = []string{"Hardware " + v.Revision}
	}
	return s
}

// labelPages registers the public page of a device.
func (s *Service) labelPages(c *console.Console) {
	if s.cfg.Unit == nil {
		return
	}
	limiter := api.NewLimiter(s.cfg.Clock, labelLimits)
	c.Page(console.Page{Path: "/label", Title: "What is this device?", Public: true, FS: pagesFS, Template: "pages/label.html",
		Load: func(r *http.Request) (any, error) {
			code := strings.TrimSpace(r.URL.Query().Get("code"))
			if code == "" {
				return labelView{Typed: console.Typed(r).Get("code")}, nil
			}
			if err := limiter.Take(api.Address(r), 1); err != nil {
				return nil, err
			}
			return s.label(r.Context(), code)
		}})
	c.PublicForm("/label", func(r *http.Request) (string, error) {
		code := strings.TrimSpace(r.PostFormValue("code"))
		if err := limiter.Take(api.Address(r), 1); err != nil {
			return "", err
		}
		if _, err := s.cfg.Unit(r.Context(), code); err != nil {
			return "", err
		}
		return "/label?" + url.Values{"code": {code}}.Encode(), nil
	})
}

// label is what the holder of the code may see, and for the claimant what runs.
func (s *Service) label(ctx context.Context, code string) (labelView, error) {
	u, err := s.cfg.Unit(ctx, code)
	if err != nil {
		return labelView{}, err
	}
	self := url.Values{"code": {code}}.Encode()
	v := labelView{Unit: &u, Code: code, Sign: "/claim?" + self}
	now := s.cfg.Clock.Now()
	if !u.SupportEnd.IsZero() {
		v.Ended = now.After(u.SupportEnd)
		v.Left, v.Part = left(now, u.SupportEnd)
	}
	if a, ok := tenant.ActorFrom(ctx); ok && u.Thing.Solution != "" && tenant.Can(a, tenant.DeviceRead, u.Thing) {
		running, err := s.cfg.Runs(ctx, u)
		if err != nil && !problem.Is(err, problem.KindNotFound) {
			return labelView{}, err
		}
		if err == nil {
			v.Running = &running
		}
	}
	return v, nil
}

// left says in words how long it is until end, and what part that is of five years, in percent.
func left(now, end time.Time) (words string, part int) {
	if !end.After(now) {
		return "", 0
	}
	months := 0
	for !now.AddDate(0, months+1, 0).After(end) {
		months++
	}
	part = min(100, months*100/60)
	plural := func(n int, one string) string {
		if n == 1 {
			return "1 " + one
		}
		return console.Count(int64(n)) + " " + one + "s"
	}
	switch years, rest := months/12, months%12; {
	case months == 0:
		return "less than a month", 1
	case years == 0:
		return plural(rest, "month"), part
	case rest == 0:
		return plural(years, "year"), part
	default:
		return plural(years, "year") + " and " + plural(rest, "month"), part
	}
}
