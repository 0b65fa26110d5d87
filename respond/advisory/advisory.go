// SPDX-License-Identifier: AGPL-3.0-only

package advisory

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/vuln"
	"github.com/openthings-platform/openthings/vuln/csaf"
)

// Advisory tells users of a product about one vulnerability (CRA Annex I Part II (4)): which releases are affected and
// which are fixed comes from findings and decisions, the words from people. It is drafted, may be held back for a stated
// reason until a stated end, and is published in revisions that never change.
type Advisory struct {
	ID            string `json:"id"`
	Tracking      string `json:"tracking" doc:"Id that the world knows it by"`
	Product       string `json:"product"`
	ProductName   string `json:"product_name"`
	Vulnerability string `json:"vulnerability"`
	State         string `json:"state" enum:"draft,held,published"`
	Text
	Hold     *Hold     `json:"hold,omitempty"`
	Revision int64     `json:"revision" doc:"Newest published revision; 0: none"`
	Initial  time.Time `json:"initial,omitzero" doc:"When the first revision was published"`
	Current  time.Time `json:"current,omitzero" doc:"When the newest revision was published"`
	Created  time.Time `json:"created"`
	Changed  time.Time `json:"changed" doc:"When its words were last changed"`
	By       string    `json:"by" doc:"Who drafted it"`
	URL      string    `json:"url,omitempty" doc:"Of the published document"`

	Releases  []ReleaseStatus `json:"releases,omitempty" doc:"What the next revision will say"`
	Outdated  bool            `json:"outdated,omitempty" doc:"What is known now differs from the published revision"`
	Revisions []Revision      `json:"revisions,omitempty" doc:"Published revisions, oldest first"`

	tlp csaf.TLPLabel // of the newest published revision
}

// Text is what people write in an advisory.
type Text struct {
	Title           string        `json:"title" maxLength:"255"`
	Summary         string        `json:"summary" maxLength:"8000" doc:"What users are told; needed for publishing"`
	Action          string        `json:"action,omitempty" maxLength:"4000" doc:"What users can do until they run a fixed release"`
	CVSS            string        `json:"cvss,omitempty" maxLength:"255" doc:"Vector of CVSS 3.1 or 3.0"`
	CWE             string        `json:"cwe,omitempty" maxLength:"16" doc:"Kind of weakness, such as CWE-787"`
	TLP             csaf.TLPLabel `json:"tlp,omitempty" enum:"WHITE,GREEN,AMBER,RED" doc:"Who may read it: WHITE everybody, the others need to sign in"`
	Lang            string        `json:"lang,omitempty" maxLength:"5" doc:"Language of the words; default en"`
	References      []Link        `json:"references,omitempty" maxItems:"50"`
	Acknowledgments []Thanks      `json:"acknowledgments,omitempty" maxItems:"50"`
}

// Link leads to more about a vulnerability.
type Link struct {
	Summary string `json:"summary" maxLength:"255"`
	URL     string `json:"url" maxLength:"2000"`
}

// Thanks is whom the publisher thanks, and for what.
type Thanks struct {
	Names        []string `json:"names,omitempty" maxItems:"20"`
	Organization string   `json:"organization,omitempty" maxLength:"255"`
	Summary      string   `json:"summary,omitempty" maxLength:"1000"`
}

// Hold keeps an advisory from being published, for a reason and until an end (CRA Annex I Part II (4): only in duly
// justified cases).
type Hold struct {
	Reason string    `json:"reason" maxLength:"2000"`
	Until  time.Time `json:"until"`
	By     string    `json:"by,omitempty"`
}

// Revision is a published revision with what proves it.
type Revision struct {
	Number      int64         `json:"number"`
	At          time.Time     `json:"at"`
	By          string        `json:"by"`
	Summary     string        `json:"summary" doc:"What changed"`
	TLP         csaf.TLPLabel `json:"tlp"`
	SHA256      string        `json:"sha256"`
	SHA512      string        `json:"sha512"`
	Fingerprint string        `json:"fingerprint" doc:"Of the OpenPGP key that signed it"`

	title, note, productName string // as the document says them
	document                 []byte
	signature                string // armored
}

// ReleaseStatus is what an advisory says of a release.
type ReleaseStatus struct {
	Release       string      `json:"release"`
	Version       string      `json:"version"`
	Status        vuln.Status `json:"status" enum:"affected,fixed,not_affected,under_investigation"`
	Justification string      `json:"justification,omitempty"`
	Components    []string    `json:"components,omitempty" doc:"Components that have the vulnerability, with their versions"`
}

// Publisher is in whose name a tenant publishes advisories.
type Publisher struct {
	Name      string `json:"name,omitempty" maxLength:"255" doc:"Default: the tenant's name"`
	Namespace string `json:"namespace,omitempty" maxLength:"500" doc:"https: address under the publisher's control; default: where advisories are published"`
	Contact   string `json:"contact,omitempty" maxLength:"1000" doc:"How to reach the security team"`
	Authority string `json:"authority,omitempty" maxLength:"1000" doc:"By what right the publisher speaks"`
	URL       string `json:"url,omitempty" maxLength:"255" doc:"https: address that this platform answers under for the publisher; default: the platform's own"`
	Prefix    string `json:"prefix,omitempty" maxLength:"24" doc:"Beginning of the ids of advisories, such as ACME; default: made of the name"`

	tenant string
}

const (
	maxLinks   = 50
	holdAtMost = 366 * 24 * time.Hour // a delay without a near end is not a delay
	holdSoon   = 3 * 24 * time.Hour   // before its end people are shown it daily
)

var (
	prefixText = regexp.MustCompile(`^[A-Z0-9]([A-Z0-9-]{0,22}[A-Z0-9])?$`)
	notPrefix  = regexp.MustCompile(`[^A-Z0-9]+`)
)

// check refuses words that no document could carry. Only publishing needs them complete.
func (t *Text) check() error {
	if t.TLP == "" {
		t.TLP = csaf.TLPWhite
	}
	if t.Lang == "" {
		t.Lang = "en"
	}
	t.Title, t.Summary, t.Action = strings.TrimSpace(t.Title), strings.TrimSpace(t.Summary), strings.TrimSpace(t.Action)
	if err := law.CheckClaim("summary", t.Title+"\n"+t.Summary+"\n"+t.Action); err != nil {
		return err
	}
	switch {
	case !text(t.Title, 1, 255):
		return problem.Invalid("A title of at most 255 characters is needed.").At("title")
	case !text(t.Summary, 0, 8000):
		return problem.Invalid("The summary has at most 8000 characters.").At("summary")
	case !text(t.Action, 0, 4000):
		return problem.Invalid("What users can do has at most 4000 characters.").At("action")
	case !slices.Contains(circles, t.TLP):
		return problem.Invalid("%q is not one of WHITE, GREEN, AMBER, RED.", t.TLP).At("tlp")
	case !csaf.Language(t.Lang):
		return problem.Invalid("%q is not the tag of a language.", t.Lang).At("lang").Hint("Tags are like en or de.")
	case len(t.References) > maxLinks || len(t.Acknowledgments) > maxLinks:
		return problem.Invalid("At most %d references and acknowledgments.", maxLinks).At("references")
	}
	if t.CVSS != "" {
		if _, err := csaf.Score3(t.CVSS); err != nil {
			return problem.Of(err).At("cvss")
		}
	}
	if t.CWE != "" {
		if _, err := csaf.Weakness(t.CWE); err != nil {
			return problem.Of(err).At("cwe")
		}
	}
	for _, l := range t.References {
		if !text(l.Summary, 1, 255) || !webAddress(l.URL) {
			return problem.Invalid("A reference has a summary and an http or https address.").At("references")
		}
	}
	for _, a := range t.Acknowledgments {
		if len(a.Names) == 0 && a.Organization == "" || slices.Contains(a.Names, "") || len(a.Names) > 20 || !text(a.Organization, 0, 255) || !text(a.Summary, 0, 1000) {
			return problem.Invalid("An acknowledgment names people or an organization.").At("acknowledgments")
		}
	}
	return nil
}

// circles are the labels from the widest circle of readers to the closest.
var circles = []csaf.TLPLabel{csaf.TLPWhite, csaf.TLPGreen, csaf.TLPAmber, csaf.TLPRed}

// narrower reports whether fewer people may read a than b.
func narrower(a, b csaf.TLPLabel) bool { return slices.Index(circles, a) > slices.Index(circles, b) }

// check refuses a hold without a reason, without an end or with one that is not in sight.
func (h Hold) check(now time.Time) error {
	switch {
	case !text(strings.TrimSpace(h.Reason), 1, 2000):
		return problem.Invalid("A hold needs a reason that justifies the delay.").At("reason").Hint("CRA Annex I Part II (4) allows a delay only in duly justified cases.")
	case h.Until.IsZero():
		return problem.Invalid("A hold needs an end.").At("until")
	case !h.Until.After(now) || h.Until.After(now.Add(holdAtMost)):
		return problem.Invalid("A hold ends in the future, within a year.").At("until")
	}
	return nil
}

// state is the advisory in one word.
func (a *Advisory) state(now time.Time) string {
	switch {
	case a.Hold != nil && a.Hold.Until.After(now):
		return "held"
	case a.Revision > 0:
		return "published"
	default:
		return "draft"
	}
}

// check refuses what no provider metadata could carry.
func (p Publisher) check() error {
	for _, f := range []struct {
		at, value string
		most      int
	}{{"name", p.Name, 255}, {"contact", p.Contact, 1000}, {"authority", p.Authority, 1000}} {
		if !text(f.value, 0, f.most) {
			return problem.Invalid("At most %d characters.", f.most).At(f.at)
		}
	}
	if err := law.CheckClaims(map[string]string{"name": p.Name, "contact": p.Contact, "authority": p.Authority}); err != nil {
		return err
	}
	switch {
	case p.Prefix != "" && !prefixText.MatchString(p.Prefix):
		return problem.Invalid("A prefix is made of A to Z, 0 to 9 and hyphens.").At("prefix")
	case p.Namespace != "" && !webAddress(p.Namespace):
		return problem.Invalid("%q is not an address.", p.Namespace).At("namespace")
	}
	if p.URL == "" {
		return nil
	}
	u, err := url.Parse(p.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return problem.Invalid("%q is not an https address without a path.", p.URL).At("url")
	}
	return nil
}

// filled is the publisher with its defaults: the tenant's name and the platform's own address.
func (p Publisher) filled(name, platform string) Publisher {
	if p.Name == "" {
		p.Name = name
	}
	if p.Name == "" {
		p.Name = "Unnamed manufacturer"
	}
	if p.URL == "" {
		p.URL = platform
	}
	p.URL = strings.TrimSuffix(p.URL, "/")
	if p.Namespace == "" {
		p.Namespace = p.URL
	}
	if p.Prefix == "" {
		p.Prefix = strings.Trim(notPrefix.ReplaceAllString(strings.ToUpper(p.Name), "-"), "-")
		if len(p.Prefix) > 24 {
			p.Prefix = strings.Trim(p.Prefix[:24], "-")
		}
	}
	if p.Prefix == "" {
		p.Prefix = "ADVISORY"
	}
	return p
}

// webAddress reports whether s is an address that a browser opens.
func webAddress(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && len(s) <= 2000 && utf8.ValidString(s) &&
		!strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("\"<>\\^`{|}", r) })
}
