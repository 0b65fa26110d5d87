// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

// decideForm decides for one product: what stands there is what the person has seen.
type decideForm struct {
	May        bool
	Products   []chip // to choose from
	Product    string
	Seen       string // id of the newest decision on the product
	Statuses   []statusChoice
	Components []console.Option
	Releases   []console.Option
	Reasons    []console.Option
	Typed      url.Values // or what a proposal says
	From       *offered   // that is taken over
	Standing   []Decision // of the product, the newest first
}

// statusChoice is a status with what it means.
type statusChoice struct{ Value, Word, Means string }

var statusChoices = []statusChoice{
	{string(UnderInvestigation), "Under investigation", "We look into it. Devices count as exposed."},
	{string(DecidedAffected), "Affected", "It concerns the product. Devices count as exposed."},
	{string(NotAffected), "Not affected", "It is there and does no harm. Say why, and what shows it."},
	{string(Fixed), "Fixed", "This one release has the fix, whatever its version says."},
}

// reasonWords are the five justifications in words.
var reasonWords = map[string]string{
	Justifications[0]: "The component is not present",
	Justifications[1]: "The vulnerable code is not present",
	Justifications[2]: "The vulnerable code is never executed",
	Justifications[3]: "An attacker cannot control the vulnerable code",
	Justifications[4]: "Mitigations are built in",
}

// lapseWords say why a decision does not hold.
var lapseWords = map[Lapse]string{
	Expired:          "its date has passed",
	NewlyExploited:   "it became known as exploited",
	RangeChanged:     "records say something else about the component now",
	EvidenceChanged:  "the release was built from other sources",
	ComponentChanged: "the release lists another version",
	OtherRelease:     "it names another release only",
}

// Word is why, in words.
func (l Lapse) Word() string { return lapseWords[l] }

// Reason is the justification in words.
func (d Decision) Reason() string { return reasonWords[d.Justification] }

// offered is what somebody says, beside what stands where it is proposed.
type offered struct {
	Proposal
	For []place
}

// place is a component of a product that something is proposed for.
type place struct {
	Proposal
	Take string // address at which the form is filled from it
}

// Whose says whose words they are.
func (o offered) Whose() string {
	switch o.From {
	case earlier:
		return "Your own earlier decision"
	case "own":
		return "Your own document"
	case "vendor":
		return "The maker of the component"
	}
	return "The distribution"
}

// Reason is the justification in words.
func (o offered) Reason() string { return reasonWords[o.Justification] }

// key tells one proposal from the others on the page.
func (p Proposal) key() string { return p.Origin + " " + p.Component }

func (p *detailPage) offers(list []Proposal, here string) (out []offered) {
	for _, x := range list {
		q := url.Values{"for": {x.Product}, "take": {x.key()}}
		at := place{x, here + "?" + q.Encode() + "#decide"}
		if i := slices.IndexFunc(out, func(o offered) bool { return o.Origin == x.Origin }); i >= 0 {
			out[i].For = append(out[i].For, at)
		} else {
			out = append(out, offered{x, []place{at}})
		}
	}
	return out
}

// decideForm offers what may be decided, for the product that the address names, else for the first that is undecided.
func (p *detailPage) decideForm(r *http.Request, proposals []Proposal) decideForm {
	f := decideForm{May: tenant.Holds(r.Context(), string(tenant.VulnDecide)), Typed: console.Typed(r), Statuses: statusChoices}
	actor, _ := tenant.ActorFrom(r.Context())
	var products, undecided []string
	for _, x := range p.Exposure.Releases {
		if !tenant.Can(actor, tenant.VulnDecide, tenant.Thing{Tenant: actor.Tenant, Product: x.Product}) {
			continue
		}
		if !slices.Contains(products, x.Product) {
			products = append(products, x.Product)
		}
		if x.Decision == nil {
			undecided = append(undecided, x.Product)
		}
	}
	f.May = f.May && len(products) > 0 && p.AsOf == ""
	if !f.May {
		return f
	}
	f.Product = r.FormValue("for")
	if !slices.Contains(products, f.Product) {
		f.Product = append(undecided, products...)[0]
	}
	for _, id := range products {
		f.Products = append(f.Products, chip{Word: p.Product(id), Href: "?" + url.Values{"for": {id}}.Encode() + "#decide", Here: id == f.Product})
	}
	for _, d := range slices.Backward(p.Decisions) {
		if d.Product == f.Product {
			f.Standing = append(f.Standing, d)
		}
	}
	if len(f.Standing) > 0 {
		f.Seen = f.Standing[0].ID
	}
	p.concerns(&f)
	for i := range proposals {
		if x := &proposals[i]; x.key() == r.FormValue("take") && x.Product == f.Product && len(f.Typed) == 0 {
			f.take(x)
		}
	}
	if f.Typed.Get("status") == "" {
		f.Typed = url.Values{"status": {string(UnderInvestigation)}}
	}
	return f
}

// concerns fills the components and releases that a decision may be about.
func (p *detailPage) concerns(f *decideForm) {
	f.Components = []console.Option{{Word: "Every component that has it"}}
	f.Releases = []console.Option{{Word: "The whole release line"}}
	for _, x := range p.Exposure.Releases {
		if x.Product != f.Product {
			continue
		}
		if o := (console.Option{Value: x.Component, Word: strings.TrimSpace(x.Name + " " + x.Has)}); !slices.Contains(f.Components, o) {
			f.Components = append(f.Components, o)
		}
		if o := (console.Option{Value: x.Release, Word: "Only " + x.Version}); !slices.Contains(f.Releases, o) {
			f.Releases = append(f.Releases, o)
		}
	}
	f.Reasons = []console.Option{{Word: "Choose one"}}
	for _, j := range Justifications {
		f.Reasons = append(f.Reasons, console.Option{Value: j, Word: reasonWords[j]})
	}
}

// take fills the form from a proposal. Nothing is decided by that: a person reads it and sends it.
func (f *decideForm) take(x *Proposal) {
	f.From = &offered{Proposal: *x}
	f.Typed = url.Values{"status": {string(x.Status)}, "justification": {x.Justification}, "action": {x.Action}, "component": {x.Component}, "origin": {x.Origin}}
	if x.From == earlier { // a statement of others cites itself, with its document, if nothing is written
		f.Typed.Set("evidence", x.Evidence)
	}
	if x.Status == Fixed && len(x.Releases) > 0 {
		f.Typed.Set("release", x.Releases[0])
	}
}

// decidingForm reads what was typed.
func decidingForm(r *http.Request) (Deciding, error) {
	in := Deciding{Product: r.PostFormValue("product"), Component: r.PostFormValue("component"), Release: r.PostFormValue("release"), Status: Status(r.PostFormValue("status")),
		Evidence: r.PostFormValue("evidence"), Action: r.PostFormValue("action"), Origin: r.PostFormValue("origin")}
	if in.Status == NotAffected { // the field stands there for every status
		in.Justification = r.PostFormValue("justification")
	}
	if r.PostForm.Has("seen") {
		seen := r.PostFormValue("seen")
		in.Seen = &seen
	}
	if text := r.PostFormValue("expires"); text != "" {
		at, err := time.Parse(asOfLayout, text)
		if err != nil {
			return in, problem.Invalid("%.40q is not a date and time.", text).At("expires").Hint("write %s", asOfLayout)
		}
		in.Expires = at
	}
	return in, nil
}
