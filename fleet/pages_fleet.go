// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"fmt"
	"html/template"
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

const (
	chipsMost   = 12 // groups shown as chips
	choicesMost = 12 // values of a facet
	// solutionsOffered bounds the names of solutions that the page carries for suggestions.
	solutionsOffered = 500
	lookAgain        = 5 * time.Second
	calmDown         = 300 * time.Millisecond // a wave of reconnections is one message a moment, not one each
)

type fleetPage struct {
	Filter   string
	Problem  *problem.Error // of the filter
	Before   string         // the filter up to the mistake
	Mistake  string         // and from it on
	Live     string         // address of the stream
	Tally    pageTally
	States   console.Bar
	Releases console.Bar
	Facets   []facet
	Chips    []choice
	Words    map[string][]string // what may follow a key, for suggestions
	Keys     []FilterKey
	Devices  []deviceRow
	Labelled bool // some device of the page has labels
	Pager    console.Pager
	MayWrite bool
}

// pageTally is the line of numbers on top.
type pageTally struct {
	Known                   bool
	Devices, Online, Silent string
	SilentHref              string
	Worry                   bool
}

// facet is one property that the list may be narrowed to.
type facet struct {
	Title   string
	Choices []choice
}

// choice is one value of a facet; choosing the one that is chosen takes it back.
type choice struct {
	Word, Href string
	Level      int    // how deep it stands in a tree, from 1; 0: in none
	ID         string // of the number, where it is kept current
	N          string // how many devices; empty: not counted
	Here       bool
}

func (s *Service) fleetPages(c *console.Console) {
	verb := string(tenant.DeviceRead)
	c.Page(console.Page{Path: "/fleet", Title: "Fleet", Menu: menu, Tab: tabDevices, TabOrder: 10, Verb: verb, FS: pagesFS, Template: "pages/fleet.html", Load: s.loadFleet})
	c.Live("/fleet/live", verb, func(ctx context.Context, r *http.Request, send func(event, html string)) {
		s.live(ctx, c, r.URL.Query(), send)
	})
}

func address(f Filter) string {
	if f.Empty() {
		return "/fleet"
	}
	return "/fleet?" + url.Values{"filter": {f.String()}}.Encode()
}

func (s *Service) loadFleet(r *http.Request) (any, error) {
	ctx, q := r.Context(), r.URL.Query()
	t := tenant.MustTenant(ctx)
	who, _ := tenant.ActorFrom(ctx)
	p := fleetPage{Filter: strings.TrimSpace(q.Get("filter")), Keys: FilterKeys, MayWrite: tenant.Anywhere(who, tenant.GroupWrite)}
	f, err := ParseFilter(p.Filter)
	var ds []DeviceOut
	if err == nil {
		ds, err = s.list(ctx, f, q.Get("after"), pageRows+1)
	}
	if problem.Is(err, problem.KindInvalid) {
		p.wrong(problem.Of(err))
		f, err = Filter{}, nil
	}
	if err != nil {
		return nil, err
	}
	n := s.names(ctx, t)
	if err := s.around(ctx, &p, f, n); err != nil || p.Problem != nil {
		return p, err
	}
	p.Filter = f.String()
	if len(ds) > pageRows {
		ds = ds[:pageRows]
		p.Pager.Next = "/fleet?" + url.Values{"filter": {p.Filter}, "after": {ds[pageRows-1].ID}}.Encode()
	}
	if q.Get("after") != "" {
		p.Pager.First = address(f)
	}
	for _, d := range ds {
		p.Devices = append(p.Devices, s.row(ctx, n, d))
		p.Labelled = p.Labelled || len(d.Labels) > 0
	}
	p.Live = "/fleet/live?" + url.Values{"filter": {p.Filter}, "after": {q.Get("after")}}.Encode()
	return p, nil
}

// wrong marks where a filter cannot be read.
func (p *fleetPage) wrong(e *problem.Error) {
	p.Problem = e
	column := len([]rune(p.Filter))
	for _, at := range e.Fields {
		if _, err := fmt.Sscanf(at.At, "filter:%d", &column); err == nil {
			column--
		}
	}
	text := []rune(p.Filter)
	column = min(max(column, 0), len(text))
	p.Before, p.Mistake = string(text[:column]), string(text[column:])
}

// around is what stands around the list: numbers, bars, facets, groups and suggestions.
func (s *Service) around(ctx context.Context, p *fleetPage, f Filter, n names) error {
	t := tenant.MustTenant(ctx)
	who, _ := tenant.ActorFrom(ctx)
	whole := tenant.Can(who, tenant.DeviceRead, tenant.Thing{Tenant: t})
	p.Words = map[string][]string{}
	for _, k := range FilterKeys {
		p.Words[k.Name] = k.Choices
	}
	now, err := s.tallied(ctx, f)
	if err != nil {
		return err
	}
	if p.Tally, err = s.numbers(ctx, f, now); err != nil {
		return err
	}
	if now.known {
		p.States = console.Bar{Label: "By state", Total: now.total, Parts: stateParts(now)}
		p.Releases = console.Bar{Label: "By release", Total: now.total, Parts: s.releaseParts(ctx, t, now)}
	}
	for _, key := range facetKeys {
		of := now
		if len(f.Chosen(key)) > 0 {
			if of, err = s.tallied(ctx, f.Without(key)); err != nil {
				return err
			}
		}
		fc := facet{}
		if key == "solution" {
			fc = s.solutionFacet(f, of, n)
		} else {
			fc = s.facetOf(ctx, key, f, of, n)
		}
		if len(fc.Choices) > 0 {
			p.Facets = append(p.Facets, fc)
		}
	}
	reach := now
	if !f.Empty() && !tenant.Staff(ctx) {
		if reach, err = s.tallied(ctx, Filter{}); err != nil {
			return err
		}
	}
	for key, options := range map[string][]console.Option{"product": suggested(ctx, n.products, reach.by["product"]), "solution": n.solutions[:min(len(n.solutions), solutionsOffered)]} {
		for _, o := range options {
			p.Words[key] = append(p.Words[key], value{text: o.Word}.write(false))
		}
	}
	for _, r := range p.Releases.Parts {
		p.Words["release"] = append(p.Words["release"], value{text: r.Word}.write(false))
	}
	if !whole {
		return nil
	}
	if err := s.labelFacets(ctx, p, f); err != nil {
		return err
	}
	groups, err := groupsOf(ctx, s.cfg.DB, t, "", maxGroups)
	for i, g := range groups {
		p.Words["group"] = append(p.Words["group"], g.Name)
		if i < chipsMost {
			here := slices.Contains(f.Chosen("group"), g.Name)
			ch := choice{Word: g.Name, Here: here, Href: address(f.With("group", g.Name))}
			if here {
				ch.Href = address(f.Without("group"))
			}
			p.Chips = append(p.Chips, ch)
		}
	}
	return err
}

// numbers is the line on top: how many, how many of them are here, and how many that should be here are not.
func (s *Service) numbers(ctx context.Context, f Filter, now tally) (pageTally, error) {
	if !now.known {
		return pageTally{}, nil
	}
	silent, err := ParseFilter("state:commissioned online:no")
	if err != nil {
		return pageTally{}, err
	}
	silent = f.And(silent)
	away, err := s.tallied(ctx, silent)
	if err != nil {
		return pageTally{}, err
	}
	return pageTally{Known: true, Devices: counted(now.total, now.more), Online: counted(now.by["online"]["yes"], now.more), Silent: orDash(away), SilentHref: address(silent), Worry: away.total > 0}, nil
}

func counted(n int64, more bool) string {
	if more {
		return console.Count(n) + "+"
	}
	return console.Count(n)
}

func orDash(t tally) string {
	if !t.known {
		return "–"
	}
	return counted(t.total, t.more)
}

func stateParts(t tally) (parts []console.BarPart) {
	for _, st := range identity.States {
		if k := t.by["state"][string(st)]; k > 0 {
			parts = append(parts, console.BarPart{Word: string(st), N: k, Tone: console.NewBadge(string(st)).Tone})
		}
	}
	return parts
}

// releaseParts are the releases that run, the most common first, and last those of which nothing is known.
func (s *Service) releaseParts(ctx context.Context, t string, now tally) (parts []console.BarPart) {
	for i, r := range common(now.by["release"]) {
		if r != "" {
			parts = append(parts, console.BarPart{Word: s.cfg.ReleaseName(ctx, t, r), N: now.by["release"][r], Tone: []string{"good", "busy", "past"}[min(i, 2)]})
		}
	}
	return parts
}

// common lists the values by how many devices have them.
func common(by map[string]int64) []string {
	out := make([]string, 0, len(by))
	for v := range by {
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b string) int {
		if by[a] != by[b] {
			return int(by[b] - by[a])
		}
		return strings.Compare(a, b)
	})
	return out
}

var facetTitles = map[string]string{"state": "State", "online": "Presence", "release": "Release", "product": "Product", "solution": "Solution"}

// facetOf lists the values of a key that devices have, with how many, and the one that is chosen.
func (s *Service) facetOf(ctx context.Context, key string, f Filter, t tally, n names) facet {
	out := facet{Title: facetTitles[key]}
	chosen := f.Chosen(key)
	values := common(t.by[key])
	if key == "state" {
		values = stateNames()
	}
	if key == "online" {
		values = []string{"yes", "no"}
	}
	for _, v := range values {
		word, ask := s.facetWords(ctx, key, v, n)
		here := slices.ContainsFunc(chosen, func(c string) bool { return strings.EqualFold(c, ask) || c == v && v != "" })
		k := t.by[key][v]
		if k == 0 && !here || len(out.Choices) == choicesMost && !here {
			continue
		}
		ch := choice{Word: word, Here: here, Href: address(f.With(key, ask)), ID: "n-" + key + "-" + v}
		if here {
			ch.Href = address(f.Without(key))
		}
		if t.known {
			ch.N = counted(k, t.more)
		}
		out.Choices = append(out.Choices, ch)
	}
	return out
}

// facetWords are a value as people read it, and as a filter asks for it: by its name where that names nothing else.
func (s *Service) facetWords(ctx context.Context, key, v string, n names) (word, ask string) {
	switch {
	case key == "online":
		return map[string]string{"yes": "online", "no": "offline"}[v], v
	case key == "release" && v == "":
		return "not reported", none
	case key == "release":
		name := s.cfg.ReleaseName(ctx, tenant.MustTenant(ctx), v)
		return name, name
	case key == "product":
		return n.ask(n.products, v)
	}
	return v, v
}

func (n names) ask(options []console.Option, id string) (name, ask string) {
	same := 0
	name = word(options, id)
	for _, o := range options {
		if strings.EqualFold(o.Word, name) {
			same++
		}
	}
	if same > 1 {
		return name, id
	}
	return name, name
}

func (s *Service) labelFacets(ctx context.Context, p *fleetPage, f Filter) error {
	used, err := s.labelsUsed(ctx, tenant.MustTenant(ctx))
	if err != nil {
		return err
	}
	var fc facet
	for i, l := range used {
		key := "label." + l.name
		if i == 0 || used[i-1].name != l.name {
			if len(fc.Choices) > 0 {
				p.Facets = append(p.Facets, fc)
			}
			fc = facet{Title: l.name}
		}
		p.Words[key] = append(p.Words[key], value{text: l.value}.write(false))
		if len(fc.Choices) == choicesMost/2 {
			continue
		}
		ch := choice{Word: l.value, Here: slices.Contains(f.Chosen(key), l.value), Href: address(f.With(key, l.value))}
		if ch.Here {
			ch.Href = address(f.Without(key))
		} else if f.Empty() {
			ch.N = console.Count(l.n)
		}
		fc.Choices = append(fc.Choices, ch)
	}
	if len(fc.Choices) > 0 {
		p.Facets = append(p.Facets, fc)
	}
	return nil
}

// live keeps the numbers and the rows of a page current: what changed is sent, and nothing else.
func (s *Service) live(ctx context.Context, c *console.Console, q url.Values, send func(event, html string)) {
	sent := map[string]string{}
	say := func(id, html string) {
		if sent[id] != html {
			sent[id] = html
			send(id, html)
		}
	}
	for {
		_, changed := s.OnlineCount(tenant.MustTenant(ctx))
		if err := s.liveOnce(ctx, c, q, say); err != nil {
			return // the page stays as it is, and the browser asks again
		}
		if !s.wait(ctx, lookAgain, changed) || !s.wait(ctx, calmDown, nil) {
			return
		}
	}
}

// wait waits until the time is over or something changed; false: ctx has ended.
func (s *Service) wait(ctx context.Context, d time.Duration, changed <-chan struct{}) bool {
	t := s.cfg.Clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-changed:
	case <-t.C:
	}
	return true
}

func (s *Service) liveOnce(ctx context.Context, c *console.Console, q url.Values, say func(id, html string)) error {
	who, _ := tenant.ActorFrom(ctx)
	if !q.Has("filter") { // the tile on Today
		if n, _ := s.OnlineCount(who.Tenant); tenant.Can(who, tenant.DeviceRead, tenant.Thing{Tenant: who.Tenant}) {
			say("fleet-online", console.Count(n))
		}
		return nil
	}
	f, err := ParseFilter(q.Get("filter"))
	if err != nil {
		return err
	}
	ds, err := s.list(ctx, f, q.Get("after"), pageRows)
	if err != nil {
		return err
	}
	for _, d := range ds {
		say("p-"+d.ID, string(c.HTML("status", d.Presence.status())))
		state := string(c.HTML("badge", console.NewBadge(string(d.State))))
		if b := d.LostBadge(); b != nil {
			state += " " + string(c.HTML("badge", b))
		}
		say("s-"+d.ID, state)
		name := "–"
		if d.Release != "" {
			name = s.cfg.ReleaseName(ctx, who.Tenant, d.Release)
		}
		say("r-"+d.ID, template.HTMLEscapeString(name))
	}
	now, err := s.tallied(ctx, f)
	if err != nil || !now.known {
		return err
	}
	nums, err := s.numbers(ctx, f, now)
	if err != nil {
		return err
	}
	say("fleet-count", nums.Devices)
	say("fleet-online", nums.Online)
	say("fleet-silent", nums.Silent)
	for _, key := range facetKeys {
		if len(f.Chosen(key)) > 0 {
			continue
		}
		by := now.by[key]
		if key == "solution" {
			tree, err := s.solutionsSeen(ctx, who.Tenant)
			if err != nil {
				return err
			}
			by = andAllBelow(by, tree)
		}
		for v, n := range by {
			say("n-"+key+"-"+v, counted(n, now.more))
		}
	}
	return nil
}
