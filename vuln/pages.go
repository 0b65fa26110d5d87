// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"cmp"
	"context"
	"embed"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/tenant"
)

//go:embed pages/*.html
var pagesFS embed.FS

// Pages registers Vulnerabilities and the parts of other pages.
func (s *Service) Pages(c *console.Console) {
	read := string(tenant.VulnRead)
	c.Page(console.Page{Path: "/vulnerabilities", Title: "Vulnerabilities", Menu: "Vulnerabilities", Tab: tabOpen, TabOrder: 10, Verb: read, FS: pagesFS, Template: "pages/matrix.html", Load: s.loadMatrix})
	c.Live("/vulnerabilities/live", read, s.live)
	c.Page(console.Page{Path: "/vulnerabilities/{id}", Title: "Vulnerability", Menu: "Vulnerabilities", Tab: tabOpen, Verb: read, FS: pagesFS, Template: "pages/detail.html",
		Load: func(r *http.Request) (any, error) {
			p, err := s.loadDetail(r, c.Names(r.Context()))
			if err == nil {
				p.Slot = c.Slot("vulnerability").Render(r, p.ID)
			}
			return p, err
		}})
	s.stopPages(c)
	c.Live("/vulnerabilities/{id}/live", read, s.liveDetail)
	c.Form("/vulnerabilities/{id}/decisions", string(tenant.VulnDecide), func(r *http.Request) (string, error) {
		in, err := decidingForm(r)
		if err != nil {
			return "", err
		}
		made, err := s.decideAs(r.Context(), r.PathValue("id"), in)
		if err == nil {
			console.Say(r, "Decided for "+console.Plural(len(made), "component", "components")+".")
		}
		return "/vulnerabilities/" + url.PathEscape(r.PathValue("id")) + "?" + url.Values{"for": {in.Product}}.Encode(), err
	})
	s.feedPages(c)
	s.kernelPages(c)
	c.Fragment("today", console.Fragment{Order: 20, Title: "Known as exploited, not decided", Verb: read, FS: pagesFS, Template: "pages/today.html", Load: s.loadToday})
	c.Tile(console.Tile{Order: 30, Verb: read, Load: s.tile})
	c.Step(console.Step{Order: 60, Title: "Watch for vulnerabilities", Text: "Bring in a feed; every bill of materials is compared with it from then on.", Href: "/vulnerabilities/feeds", Button: "Add a feed",
		Done: func(ctx context.Context) (bool, error) {
			feeds, err := s.Feeds(ctx, tenant.MustTenant(ctx))
			return len(feeds) > 0, err
		}})
	c.Fragment("release", console.Fragment{Order: 40, Title: "Vulnerabilities", Verb: read, FS: pagesFS, Template: "pages/release.html",
		Load: func(r *http.Request, release string) (any, error) { return s.loadRelease(r.Context(), release) }})
	c.Fragment("device", console.Fragment{Order: 50, Title: "Vulnerabilities", Verb: read, FS: pagesFS, Template: "pages/release.html",
		Load: func(r *http.Request, device string) (any, error) {
			running, err := s.cfg.Fleet.Running(r.Context(), tenant.MustTenant(r.Context()), []string{device})
			if err != nil || running[device] == "" {
				return nil, err
			}
			return s.loadRelease(r.Context(), running[device])
		}})
	c.Fragment("sbom-compare", console.Fragment{Order: 10, Title: "Vulnerabilities", Verb: read, FS: pagesFS, Template: "pages/compare.html", Load: s.loadCompare})
}

// todayPart is what is exploited and waits for somebody, the most urgent first.
type todayPart struct {
	List []Summary
	More int
}

const todayShown = 5

func (s *Service) loadToday(r *http.Request, _ string) (any, error) {
	all, _, err := s.seen(r.Context())
	list := matrixFilter{Exploited: "yes", Undecided: "yes"}.narrow(all.list)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	n := min(len(list), todayShown)
	return todayPart{list[:n], len(list) - n}, nil
}

// tile counts the vulnerabilities that somebody has to decide on.
func (s *Service) tile(ctx context.Context) (console.Figure, error) {
	feeds, err := s.Feeds(ctx, tenant.MustTenant(ctx))
	if err != nil || len(feeds) == 0 {
		return console.Figure{}, err
	}
	all, _, err := s.seen(ctx)
	n := all.sums()
	f := console.Figure{Label: "To be decided", Value: console.Count(n.Undecided), Note: "no vulnerability waits", Href: "/vulnerabilities?undecided=yes"}
	if n.Undecided > 0 {
		f.Note, f.Tone = console.Plural(n.Devices, "device", "devices")+" exposed", "warn"
	}
	if n.ExploitedUndecided > 0 {
		f.Note, f.Tone = console.Count(n.ExploitedUndecided)+" exploited, "+f.Note, "bad"
	}
	return f, err
}

// releasePart is what is open in a release.
type releasePart struct {
	Found                                    []OpenFinding
	Undecided, Exploited, Affected, Harmless int
	More                                     int // that are not listed
}

// findingsShown bounds the list on pages of other rooms.
const findingsShown = 50

func (s *Service) loadRelease(ctx context.Context, release string) (any, error) {
	found, err := s.openVisible(ctx, release)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	p := releasePart{}
	for _, f := range found {
		switch {
		case f.Status == Undecided:
			p.Undecided++
		case quiet(f.Status) == 1:
			p.Harmless++
		default:
			p.Affected++
		}
		if f.Exploited {
			p.Exploited++
		}
	}
	n := min(len(found), findingsShown)
	p.Found, p.More = found[:n], len(found)-n
	return p, nil
}

// openVisible is what is open in a release whose product the visitor may see.
func (s *Service) openVisible(ctx context.Context, release string) ([]OpenFinding, error) {
	found, err := s.OpenFindings(ctx, tenant.MustTenant(ctx), release)
	seen := visible(ctx)
	return slices.DeleteFunc(found, func(f OpenFinding) bool { return !seen(f.Product) }), err
}

// comparePart is what becomes of vulnerabilities from one release to another.
type comparePart struct{ Lists []compared }

type compared struct {
	Word, Empty string
	Found       []OpenFinding // one of each vulnerability, the most urgent first
}

// comparedShown are listed at once, the others when somebody asks for them.
const comparedShown = 8

// First are those that are listed at once.
func (c compared) First() []OpenFinding { return c.Found[:min(len(c.Found), comparedShown)] }

// Rest are the others.
func (c compared) Rest() []OpenFinding { return c.Found[min(len(c.Found), comparedShown):] }

// loadCompare tells what the later release fixes, keeps and brings; the key is both releases.
func (s *Service) loadCompare(r *http.Request, key string) (any, error) {
	from, to, _ := strings.Cut(key, " ")
	before, err := s.openVisible(r.Context(), from)
	if err != nil {
		return nil, err
	}
	after, err := s.openVisible(r.Context(), to)
	if err != nil || len(before)+len(after) == 0 {
		return nil, err
	}
	was, is := once(before), once(after)
	p := comparePart{Lists: []compared{{Word: "Brought", Empty: "It brings none."}, {Word: "Kept", Empty: "It keeps none."}, {Word: "Gone", Empty: "It takes none away."}}}
	for _, f := range is {
		list := 0
		if has(was, f) {
			list = 1
		}
		p.Lists[list].Found = append(p.Lists[list].Found, f)
	}
	for _, f := range was {
		if !has(is, f) {
			p.Lists[2].Found = append(p.Lists[2].Found, f)
		}
	}
	return p, nil
}

func has(list []OpenFinding, f OpenFinding) bool {
	return slices.ContainsFunc(list, func(o OpenFinding) bool { return o.Group.ID == f.Group.ID })
}

// once keeps the first finding of each vulnerability.
func once(list []OpenFinding) (out []OpenFinding) {
	seen := map[string]bool{}
	for _, f := range list {
		if !seen[f.Group.ID] {
			seen[f.Group.ID] = true
			out = append(out, f)
		}
	}
	return out
}

// Chance is the EPSS probability in words.
func (f OpenFinding) Chance() string { return chance(f.EPSS) }

// Part is the component in words.
func (f OpenFinding) Part() string { return cmp.Or(f.Finding.Name, f.Component) }
