// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"cmp"
	"context"
	"fmt"
	"html/template"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/vuln/record"
)

// detailPage is one vulnerability: the answer first, then how it went, where, and what was said and decided.
type detailPage struct {
	Detail
	Exposure Exposure
	Tone     string // of the answer: bad, warn or good
	Answer   string // in one sentence
	Rest     []string
	Fixes    []fixedRelease
	told
	ToldAt   time.Time // that the numbers are told for; zero: now
	Chart    console.Chart
	Steps    []milestone
	Devices  []ExposedDevice
	Pager    console.Pager
	AsOf     string // as typed; empty is now
	Decide   decideForm
	Offered  []offered
	Timeline []moment
	Names    map[string]string // of products
	Known    *console.Names    // of devices, people, solutions, batches and revisions
	Live     string
	Slot     template.HTML
}

// Heading is the page's title.
func (p detailPage) Heading() string { return p.Detail.Name }

// told is what is dear to find out about one vulnerability.
type told struct {
	History    History
	Breakdowns []breakdown
}

// breakdown is the exposed devices told apart by one thing.
type breakdown struct {
	Title string
	Breakdown
	Refused string // why it cannot be told
	Rest    int    // parts that are not listed
}

const (
	devicesAtOnce = 25
	partsShown    = 8
	textShown     = 20_000
)

// asOfLayout is what a browser's date and time field sends; it is read as UTC, and the page says so.
const asOfLayout = "2006-01-02T15:04"

// breakdowns are the things by which devices are told apart, with their titles.
var breakdowns = [][2]string{{"release", "By release"}, {"revision", "By hardware revision"}, {"country", "By country"}, {"solution", "By solution"}, {"batch", "By batch"}}

// scope is what the visitor may see, as a key for what was worked out within it.
func scope(ctx context.Context) string {
	who, _ := tenant.ActorFrom(ctx)
	whole, products, _ := tenant.Scope(who, tenant.VulnRead)
	if whole {
		return "all"
	}
	slices.Sort(products)
	return strings.Join(products, ",")
}

// wentAndWhere returns the history and the breakdowns within what the visitor may see, and the instant that they are told for.
func (s *Service) wentAndWhere(ctx context.Context, group, asOf string, at time.Time) (told, time.Time, error) {
	t, seen := tenant.MustTenant(ctx), visible(ctx)
	return s.told.get(s.cfg.Clock.Now, strings.Join([]string{t, scope(ctx), group, asOf}, "\x00"), func() (out told, err error) {
		if out.History, err = s.History(ctx, t, group, seen); err != nil {
			return out, err
		}
		for _, b := range breakdowns {
			x := breakdown{Title: b[1]}
			x.Breakdown, err = s.Breakdown(ctx, t, group, at, b[0], seen)
			if problem.Is(err, problem.KindTooLarge) {
				x.Refused = problem.Of(err).Text
			} else if err != nil {
				return out, err
			}
			if len(x.Parts) > partsShown {
				x.Rest, x.Parts = len(x.Parts)-partsShown, x.Parts[:partsShown]
			}
			out.Breakdowns = append(out.Breakdowns, x)
		}
		return out, nil
	})
}

// Share is a part of the whole in thousandths, for its bar.
func (b breakdown) Share(n int64) int64 {
	if b.Total == 0 {
		return 0
	}
	return max(n*1000/b.Total, 4)
}

// Word is what people call a value.
func (b breakdown) Word(names *console.Names, value string) string {
	switch {
	case value == "":
		return "not stated"
	case b.By == "country":
		return value
	}
	return names.Word(value)
}

func (s *Service) loadDetail(r *http.Request, names *console.Names) (detailPage, error) {
	ctx := r.Context()
	t, seen, id := tenant.MustTenant(ctx), visible(ctx), r.PathValue("id")
	p := detailPage{AsOf: r.FormValue("as_of"), Names: map[string]string{}, Known: names}
	var at time.Time
	var err error
	if p.AsOf != "" {
		if at, err = time.Parse(asOfLayout, p.AsOf); err != nil {
			return p, problem.Invalid("%.40q is not a date and time.", p.AsOf).At("as_of").Hint("write %s", asOfLayout)
		}
	}
	if p.Detail, err = s.Get(ctx, t, id); err != nil {
		return p, err
	}
	p.Detail.Only(seen)
	p.Text = clip(p.Text, textShown)
	if p.Exposure, err = s.Affected(ctx, t, id, at); err != nil {
		return p, err
	}
	p.Exposure.Only(seen)
	if p.told, p.ToldAt, err = s.wentAndWhere(ctx, p.ID, p.AsOf, at); err != nil {
		return p, err
	}
	if s.cfg.Clock.Now().Sub(p.ToldAt) < keptLeast {
		p.ToldAt = time.Time{}
	}
	if p.Devices, err = s.AffectedDevices(ctx, t, id, at, seen, fleet.Page{After: r.FormValue("after"), Limit: devicesAtOnce + 1}); err != nil {
		return p, err
	}
	here := "/vulnerabilities/" + url.PathEscape(id)
	p.page(here, r.FormValue("after"))
	for _, f := range p.Findings {
		if p.Names[f.Product] == "" {
			p.Names[f.Product] = s.cfg.ProductName(ctx, t, f.Product)
		}
	}
	proposals, err := s.Proposals(ctx, t, id, seen)
	if err != nil {
		return p, err
	}
	marks, err := s.marks(ctx, t, p.ID, seen)
	if err != nil {
		return p, err
	}
	p.Fixes = marks.fixes
	p.answer(proposals)
	p.draw()
	p.Decide = p.decideForm(r, proposals)
	p.Offered = p.offers(proposals, here)
	p.Timeline = p.timeline(marks, proposals)
	if p.AsOf == "" {
		p.Live = here + "/live"
	}
	return p, nil
}

// page cuts the list of devices to one page and links to the next.
func (p *detailPage) page(here, after string) {
	q := url.Values{}
	if p.AsOf != "" {
		q.Set("as_of", p.AsOf)
	}
	if after != "" {
		p.Pager.First = here + "?" + q.Encode() + "#devices"
	}
	if len(p.Devices) > devicesAtOnce {
		p.Devices = p.Devices[:devicesAtOnce]
		q.Set("after", p.Devices[devicesAtOnce-1].Cursor())
		p.Pager.Next = here + "?" + q.Encode() + "#devices"
	}
}

// product is what people call the product, in the templates.
func (p detailPage) Product(id string) string { return cmp.Or(p.Names[id], id) }

// answer says what matters in one sentence, and what comes next to it.
func (p *detailPage) answer(proposals []Proposal) {
	e, h := p.Exposure, p.History
	exposed, open, undecided := map[string]bool{}, map[string]bool{}, map[string]bool{} // products, releases, products
	for _, r := range e.Releases {
		if r.Decision == nil {
			undecided[r.Product] = true
		}
		if r.Exposed {
			exposed[r.Product], open[r.Release] = true, true
		}
	}
	when, is := "now", "are"
	if p.AsOf != "" {
		when, is = "then", "were"
	}
	if e.Devices == 1 {
		is = map[string]string{"are": "is", "were": "was"}[is]
	}
	devices := console.Plural(e.Devices, "device", "devices")
	switch {
	case e.Devices > 0 && e.Exploited:
		p.Tone, p.Answer = "bad", fmt.Sprintf("Exploited, and %s %s exposed %s.", devices, is, when)
	case e.Devices > 0:
		p.Tone, p.Answer = "warn", fmt.Sprintf("%s %s exposed %s. Nobody is known to exploit it.", devices, is, when)
	case len(open) > 0 && e.Exploited:
		p.Tone, p.Answer = "warn", "Exploited, but no device runs a release that has it "+when+"."
	case len(open) > 0:
		p.Tone, p.Answer = "good", "No device runs a release that has it "+when+"."
	case len(e.Releases) > 0:
		p.Tone, p.Answer = "good", "No device is exposed: it was decided for every release that has it."
	default:
		p.Tone, p.Answer = "good", "No release has it "+when+"."
	}
	if len(undecided) > 0 {
		var never []string
		for _, id := range sortedKeys(undecided) {
			if i := slices.IndexFunc(proposals, func(x Proposal) bool { return x.Product == id && x.Why != "" }); i >= 0 {
				p.Rest = append(p.Rest, "The decision for "+p.Product(id)+" does not hold for all of it: "+proposals[i].Why.Word()+".")
			} else {
				never = append(never, p.Product(id))
			}
		}
		if slices.Sort(never); len(never) > 0 {
			p.Rest = append(p.Rest, "Nobody has decided yet for "+someOf(never)+".")
		}
		if p.Tone == "good" {
			p.Tone = "warn"
		}
	}
	if h.Silent > 0 && p.AsOf == "" {
		silent := console.Plural(h.Silent, "of them was", "of them were") + " not heard from for 30 days"
		if !h.SilentFrom.IsZero() {
			silent += ", the first since " + h.SilentFrom.Format("2 January 2006")
		}
		p.Rest = append(p.Rest, silent+": no update reaches them.")
	}
	var reached []string
	for _, b := range p.Breakdowns {
		var words []string
		for _, x := range b.Parts {
			if x.Value != "" {
				words = append(words, b.Word(p.Known, x.Value))
			}
		}
		if len(words) > 0 && (b.By == "country" || b.By == "solution") {
			if b.Rest > 0 {
				words = append(words, fmt.Sprintf("%d more", b.Rest))
			}
			reached = append(reached, map[string]string{"country": "countries: ", "solution": "solutions: "}[b.By]+strings.Join(words, ", "))
		}
	}
	if e.Devices > 0 && len(reached) > 0 {
		text := strings.Join(reached, "; ")
		p.Rest = append(p.Rest, strings.ToUpper(text[:1])+text[1:]+".")
	}
	switch fixed := p.fixedIn(); {
	case len(p.Fixes) > 0:
		var has, lacks []string
		for _, f := range p.Fixes {
			has = append(has, p.Product(f.product)+" "+f.Version)
			delete(exposed, f.product)
		}
		for id := range exposed {
			lacks = append(lacks, p.Product(id))
		}
		slices.Sort(lacks)
		text := "Fixed from " + someOf(slices.Compact(has)) + " on"
		if len(lacks) > 0 {
			text += "; no release with the fix yet for " + someOf(lacks)
		}
		p.Rest = append(p.Rest, text+".")
	case len(fixed) > 0 && len(open) > 0:
		p.Rest = append(p.Rest, "The fix is in "+someOf(fixed)+"; no release of yours carries it yet.")
	case len(open) > 0:
		p.Rest = append(p.Rest, "No fix is known.")
	}
	if h.Ever > h.Now && h.Now == 0 && e.Devices == 0 && p.AsOf == "" {
		p.Rest = append(p.Rest, console.Plural(h.Ever, "device", "devices")+" once "+map[bool]string{true: "was", false: "were"}[h.Ever == 1]+".")
	}
}

// fixedIn are the component versions with the fix, of what is affected.
func (p *detailPage) fixedIn() (out []string) {
	for _, r := range p.Exposure.Releases {
		if r.FixedIn != "" {
			out = append(out, r.Name+" "+r.FixedIn)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// someOf lists a few words and says how many more there are.
func someOf(words []string) string {
	const most = 3
	if len(words) > most {
		return strings.Join(words[:most], ", ") + fmt.Sprintf(" and %d more", len(words)-most)
	}
	return strings.Join(words, ", ")
}

// milestone is a step on the way from known to patched.
type milestone struct {
	Word, Note string
	At         time.Time // zero: not yet
}

// draw makes the curve with what happened on it, and the steps below it.
func (p *detailPage) draw() {
	h := p.History
	if len(h.Curve) == 0 {
		return
	}
	c := console.Chart{ID: "exposure", Title: "Devices exposed", Whole: true, Counts: true, Series: []console.Series{{Name: "devices"}}}
	for _, x := range h.Curve {
		n := float64(x.Devices)
		c.Times, c.Series[0].Values = append(c.Times, x.At), append(c.Series[0].Values, &n)
	}
	p.Steps = []milestone{{Word: "Known here", At: h.KnownSince}}
	c.Marks = []console.Mark{{At: h.KnownSince, Word: "known"}}
	if p.Exploited {
		p.Steps = append(p.Steps, milestone{Word: "Known as exploited", At: p.ExploitedKnown})
		if p.ExploitedKnown.After(h.KnownSince) {
			c.Marks = append(c.Marks, console.Mark{At: p.ExploitedKnown, Word: "exploited"})
		}
	}
	if len(p.Fixes) > 0 {
		f := p.Fixes[0]
		p.Steps = append(p.Steps, milestone{"Fix available", p.Product(f.product) + " " + f.Version, f.At})
		if f.At.After(h.KnownSince) {
			c.Marks = append(c.Marks, console.Mark{At: f.At, Word: "fix available"})
		}
	} else {
		p.Steps = append(p.Steps, milestone{Word: "Fix available"})
	}
	for _, x := range h.Coverage {
		m := milestone{Word: fmt.Sprintf("%d %% patched", x.Percent), At: x.At}
		if !x.At.IsZero() {
			m.Note = "after " + console.Span(x.At.Sub(h.KnownSince))
			c.Marks = append(c.Marks, console.Mark{At: x.At, Word: fmt.Sprintf("%d %%", x.Percent)})
		}
		p.Steps = append(p.Steps, m)
	}
	slices.SortStableFunc(c.Marks, func(a, b console.Mark) int { return a.At.Compare(b.At) })
	p.Chart = c
}

// ruleWords say how a record and a component met.
var ruleWords = map[string]string{
	record.RulePackage: "the package's own name and version",
	record.RuleDistro:  "the distribution's own records of its package",
	record.RuleGit:     "the commit it was built from",
	record.RuleGitCVE:  "the commit it was built from, in the CVE record",
	record.RuleKernel:  "the version or commit of the kernel, in the CVE record",
	record.RuleProduct: "vendor and product in the CVE record",
	record.RuleCPE:     "its CPE name",
}

// sureWords say how sure that is.
var sureWords = map[string]string{
	record.ConfidenceExact:  "certain",
	record.ConfidenceRange:  "version in range; what was built in is not known",
	record.ConfidenceLikely: "likely: others may use the name too",
	record.ConfidenceProse:  "read from a sentence",
}

// RuleWord and SureWord are the match in words.
func (r ReleaseExposure) RuleWord() string { return cmp.Or(ruleWords[r.Rule], r.Rule) }

// SureWord says how sure the match is.
func (r ReleaseExposure) SureWord() string { return cmp.Or(sureWords[r.Confidence], r.Confidence) }

// Reasons are those of its priority but the last, which is of devices: they stand above.
func (p detailPage) Reasons() []string { return p.Priority.Reasons[:max(len(p.Priority.Reasons)-1, 0)] }

// DeviceDays are in whole days.
func (p detailPage) DeviceDays() int64 { return int64(math.Round(p.History.DeviceDays)) }

// Chance is the EPSS probability in words.
func (d Detail) Chance() string { return chance(d.EPSS) }

// liveDetail keeps the number on top current.
func (s *Service) liveDetail(ctx context.Context, r *http.Request, send func(event, html string)) {
	sent := ""
	for {
		e, err := s.Affected(ctx, tenant.MustTenant(ctx), r.PathValue("id"), time.Time{})
		if err != nil {
			return
		}
		e.Only(visible(ctx))
		if n := console.Count(e.Devices); n != sent {
			sent = n
			send("exposed-now", n)
		}
		if !s.wait(ctx, lookAgain) {
			return
		}
	}
}
