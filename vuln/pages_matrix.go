// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/tenant"
)

const (
	matrixRows    = 100 // at once
	matrixColumns = 5   // products with a column of their own; if there are more, one column is for the rest
	lookAgain     = 5 * time.Second
)

// matrixPage has a row for each vulnerability and a column for each product that has one, of so many at most.
type matrixPage struct {
	Sums     sums
	Filter   matrixFilter
	Chips    []chip
	Products []console.Option // to choose from
	Columns  []console.Option
	Others   bool // some rows are also in products without a column
	Rows     []matrixRow
	From, To int // of Total, counted from 1
	Total    int
	Pager    console.Pager
	Feeds    feedLine
	AsOf     time.Time // zero: now
	Live     string
}

// matrixRow is one vulnerability; a cell is nil where the product does not have it.
type matrixRow struct {
	Summary
	Cells  []*ProductSummary
	Others []ProductSummary
}

// Why is what puts the row where it stands, beside the figures that have columns of their own.
func (r matrixRow) Why() []string {
	var out []string
	if who := r.facts.Exploited; len(who) > 0 {
		words := "exploited, says " + strings.Join(who, " and ")
		if r.facts.Ransom {
			words = "exploited to extort, says " + strings.Join(who, " and ")
		}
		out = append(out, words)
	}
	if d := r.Priority.Decision; d != "" {
		out = append(out, "SSVC says "+d)
	}
	return out
}

// Worst is the gravest status among the products without a column.
func (r matrixRow) Worst() Status {
	return slices.MinFunc(r.Others, func(a, b ProductSummary) int {
		return cmp.Compare(slices.Index(gravity, a.Status), slices.Index(gravity, b.Status))
	}).Status
}

// OthersDevices are the devices exposed in the products without a column.
func (r matrixRow) OthersDevices() (n int64) {
	for _, p := range r.Others {
		n += p.Devices
	}
	return n
}

// sums are the numbers on top, of all that the visitor may see.
type sums struct {
	All, Undecided, Exploited   int
	ExploitedUndecided          int
	Devices, DevicesOfExploited int64 // each once
}

func (p portfolio) sums() sums {
	n := sums{All: len(p.list)}
	for _, v := range p.list {
		open := v.undecided()
		if open {
			n.Undecided++
		}
		if v.Exploited {
			n.Exploited++
			if open {
				n.ExploitedUndecided++
			}
		}
	}
	for product, devices := range p.exposed {
		n.Devices += devices
		n.DevicesOfExploited += p.exploited[product]
	}
	return n
}

func (s Summary) undecided() bool {
	return slices.ContainsFunc(s.Products, func(p ProductSummary) bool { return p.Status == Undecided })
}

func (s Summary) fixable() bool {
	return slices.ContainsFunc(s.Products, func(p ProductSummary) bool { return p.FixedIn != "" })
}

// matrixFilter is what the list is narrowed to; what is empty narrows nothing.
type matrixFilter struct {
	Text, Product                    string
	Undecided, Exploited, Fix, Expos string // "yes"
}

// flags are the filters that are on or off, by the name in the address.
func (f *matrixFilter) flags() []struct {
	Name, Word string
	On         *string
} {
	return []struct {
		Name, Word string
		On         *string
	}{{"undecided", "To be decided", &f.Undecided}, {"exploited", "Exploited", &f.Exploited}, {"exposed", "Devices exposed", &f.Expos}, {"fix", "Fix known", &f.Fix}}
}

func filterOf(q url.Values) matrixFilter {
	f := matrixFilter{Text: strings.TrimSpace(q.Get("text")), Product: q.Get("product")}
	for _, x := range f.flags() {
		if q.Get(x.Name) == "yes" {
			*x.On = "yes"
		}
	}
	return f
}

// query is the filter as it stands in an address.
func (f matrixFilter) query() url.Values {
	q := url.Values{}
	for _, x := range f.flags() {
		if *x.On != "" {
			q.Set(x.Name, *x.On)
		}
	}
	if f.Text != "" {
		q.Set("text", f.Text)
	}
	if f.Product != "" {
		q.Set("product", f.Product)
	}
	return q
}

// Empty reports whether nothing is narrowed.
func (f matrixFilter) Empty() bool { return f == matrixFilter{} }

// Hidden are the flags that a form has to carry along.
func (f matrixFilter) Hidden() (names []string) {
	for _, x := range f.flags() {
		if *x.On != "" {
			names = append(names, x.Name)
		}
	}
	return names
}

// narrow keeps what matches. With a product, only that one counts.
func (f matrixFilter) narrow(list []Summary) (out []Summary) {
	text := strings.ToLower(f.Text)
	for _, v := range list {
		if f.Product != "" {
			v.Products = slices.DeleteFunc(slices.Clone(v.Products), func(p ProductSummary) bool { return p.Product != f.Product })
			v.weigh()
		}
		switch {
		case len(v.Products) == 0,
			f.Undecided != "" && !v.undecided(),
			f.Exploited != "" && !v.Exploited,
			f.Expos != "" && v.Devices == 0,
			f.Fix != "" && !v.fixable(),
			text != "" && !strings.Contains(strings.ToLower(v.Name+" "+v.Group.Summary), text):
			continue
		}
		out = append(out, v)
	}
	if f.Product != "" {
		slices.SortFunc(out, func(a, b Summary) int { return cmp.Compare(a.Cursor(), b.Cursor()) })
	}
	return out
}

// chip narrows the list; choosing one that is chosen takes it back.
type chip struct {
	Word, Href string
	N          int
	Here       bool
}

func address(q url.Values) string {
	if len(q) == 0 {
		return "/vulnerabilities"
	}
	return "/vulnerabilities?" + q.Encode()
}

// chips are the filters that are on or off, with how many there would be.
func (f matrixFilter) chips(list []Summary) (out []chip) {
	for i, x := range f.flags() {
		other := f
		flag := other.flags()[i].On
		c := chip{Word: x.Word, Here: *x.On != ""}
		if *flag = "yes"; c.Here {
			*flag = ""
		}
		c.Href, c.N = address(other.query()), len(other.narrow(list))
		out = append(out, c)
	}
	return out
}

// feedLine is how the feeds are, in one line.
type feedLine struct {
	State  SourceState // the worst; empty: there is no feed
	Which  []string    // names that are so, if they are not well
	N      int
	Oldest time.Time // good look
}

// feedGravity orders states of sources, the worst first.
var feedGravity = []SourceState{SourceFailing, SourceStale, SourceBehind, SourceWaiting, SourceSyncing, SourceCurrent}

func (s *Service) feedLine(ctx context.Context, t string) (feedLine, error) {
	list, err := s.Sources(ctx, t)
	line := feedLine{N: len(list)}
	for _, x := range list {
		if line.State == "" || slices.Index(feedGravity, x.State) < slices.Index(feedGravity, line.State) {
			line.State, line.Which = x.State, nil
		}
		if x.State == line.State {
			line.Which = append(line.Which, x.Name)
		}
		if !x.LastGood.IsZero() && (line.Oldest.IsZero() || x.LastGood.Before(line.Oldest)) {
			line.Oldest = x.LastGood
		}
	}
	return line, err
}

// seen is what the visitor may see of the tenant, and the instant that it is told for.
func (s *Service) seen(ctx context.Context) (portfolio, time.Time, error) {
	all, at, err := s.overview(ctx, tenant.MustTenant(ctx))
	return all.only(visible(ctx)), at, err
}

func (s *Service) loadMatrix(r *http.Request) (any, error) {
	ctx := r.Context()
	t, p := tenant.MustTenant(ctx), matrixPage{Filter: filterOf(r.URL.Query())}
	all, at, err := s.seen(ctx)
	if err != nil {
		return nil, err
	}
	if p.Feeds, err = s.feedLine(ctx, t); err != nil {
		return nil, err
	}
	if s.cfg.Clock.Now().Sub(at) >= keptLeast {
		p.AsOf = at
	}
	p.Sums, p.Chips = all.sums(), p.Filter.chips(all.list)
	named := map[string]string{}
	for _, v := range all.list {
		for _, x := range v.Products {
			if named[x.Product] == "" {
				named[x.Product] = s.cfg.ProductName(ctx, t, x.Product)
				p.Products = append(p.Products, console.Option{Value: x.Product, Word: named[x.Product]})
			}
		}
	}
	slices.SortFunc(p.Products, func(a, b console.Option) int {
		return cmp.Or(cmp.Compare(a.Word, b.Word), cmp.Compare(a.Value, b.Value))
	})
	p.Products = append([]console.Option{{Word: "All products"}}, p.Products...)

	list := p.Filter.narrow(all.list)
	p.columns(list, named)
	p.Total = len(list)
	from, _ := strconv.Atoi(r.URL.Query().Get("from")) // anything else is the first page
	from = min(max(from, 0), max(p.Total-1, 0)) / matrixRows * matrixRows
	for _, v := range list[from:min(from+matrixRows, p.Total)] {
		p.Rows = append(p.Rows, p.row(v))
		p.Others = p.Others || len(p.Rows[len(p.Rows)-1].Others) > 0
	}
	p.From, p.To = from+1, from+len(p.Rows)
	q := p.Filter.query()
	if from > 0 {
		p.Pager.First = address(q)
	}
	if p.To < p.Total {
		q.Set("from", strconv.Itoa(p.To))
		p.Pager.Next = address(q)
	}
	live := p.Filter.query()
	live.Set("from", strconv.Itoa(from))
	p.Live = "/vulnerabilities/live?" + live.Encode()
	return p, nil
}

// columns chooses the products that have a column: those in which something is to be decided, with most devices exposed, come
// first. They stand in the order of their names.
func (p *matrixPage) columns(list []Summary, named map[string]string) {
	type weight struct {
		product   string
		undecided int
		devices   int64
	}
	by := map[string]*weight{}
	for _, v := range list {
		for _, x := range v.Products {
			w := by[x.Product]
			if w == nil {
				w = &weight{product: x.Product}
				by[x.Product] = w
			}
			w.devices = max(w.devices, x.Devices)
			if x.Status == Undecided {
				w.undecided++
			}
		}
	}
	var all []weight
	for _, w := range by {
		all = append(all, *w)
	}
	slices.SortFunc(all, func(a, b weight) int {
		return cmp.Or(cmp.Compare(min(b.undecided, 1), min(a.undecided, 1)), cmp.Compare(b.devices, a.devices), cmp.Compare(b.undecided, a.undecided),
			cmp.Compare(a.product, b.product))
	})
	if len(all) > matrixColumns {
		all = all[:matrixColumns-1]
	}
	for _, w := range all {
		p.Columns = append(p.Columns, console.Option{Value: w.product, Word: named[w.product]})
	}
	slices.SortFunc(p.Columns, func(a, b console.Option) int {
		return cmp.Or(cmp.Compare(a.Word, b.Word), cmp.Compare(a.Value, b.Value))
	})
}

func (p *matrixPage) row(v Summary) matrixRow {
	row := matrixRow{Summary: v, Cells: make([]*ProductSummary, len(p.Columns))}
	for _, x := range v.Products {
		if i := slices.IndexFunc(p.Columns, func(o console.Option) bool { return o.Value == x.Product }); i >= 0 {
			row.Cells[i] = &x
		} else {
			row.Others = append(row.Others, x)
		}
	}
	return row
}

// live keeps the numbers of the matrix current, row by row.
func (s *Service) live(ctx context.Context, r *http.Request, send func(event, html string)) {
	sent := map[string]string{}
	say := func(id, html string) {
		if sent[id] != html {
			sent[id] = html
			send(id, html)
		}
	}
	for {
		all, _, err := s.seen(ctx)
		if err != nil {
			return // the page stays as it is, and the browser asks again
		}
		n := all.sums()
		say("vuln-undecided", console.Count(n.Undecided))
		say("vuln-exploited", console.Count(n.Exploited))
		say("vuln-devices", console.Count(n.Devices))
		say("vuln-devices-exploited", console.Count(n.DevicesOfExploited))
		list := filterOf(r.URL.Query()).narrow(all.list)
		from, _ := strconv.Atoi(r.URL.Query().Get("from"))
		from = min(max(from, 0), len(list))
		for _, v := range list[from:min(from+matrixRows, len(list))] {
			say("n-"+v.ID, console.Count(v.Devices))
		}
		if !s.wait(ctx, lookAgain) {
			return
		}
	}
}

// wait waits so long; false: ctx has ended.
func (s *Service) wait(ctx context.Context, d time.Duration) bool {
	t := s.cfg.Clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
