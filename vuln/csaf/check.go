// SPDX-License-Identifier: AGPL-3.0-only

package csaf

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Failure is one mandatory test that a document fails.
type Failure struct {
	Test    string `json:"test"` // the section of the standard: "6.1.6"; "schema" for what the JSON schema demands
	At      string `json:"at"`   // where, such as vulnerabilities[0].flags
	Message string `json:"message"`
}

// checker collects the failures of one document.
type checker struct {
	d      *Document
	failed []Failure
}

func (c *checker) fail(test, at, format string, args ...any) {
	c.failed = append(c.failed, Failure{test, at, fmt.Sprintf(format, args...)})
}

// need fails the schema unless ok.
func (c *checker) need(ok bool, at, format string, args ...any) {
	if !ok {
		c.fail("schema", at, format, args...)
	}
}

// Check runs the mandatory tests of section 6.1 and what the schema demands beyond the Go types, as far as the members
// that are written here reach.
func Check(d *Document) []Failure {
	c := checker{d: d}
	c.meta()
	c.history()
	ids := c.tree()
	c.vulnerabilities(ids)
	c.profile()
	return c.failed
}

var (
	categoryName = regexp.MustCompile(`^[^\s\-_.](.*[^\s\-_.])?$`)
	trackingID   = regexp.MustCompile(`^\S(.*\S)?$`)
	languageTag  = regexp.MustCompile(`^([a-z]{2})(-[A-Z]{2})?$`)
	wholeNumber  = regexp.MustCompile(`^(0|[1-9][0-9]*)$`)
	semantic     = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$`)
)

// languages are the codes of ISO 639-1. Languages without such a code are not written.
var languages = strings.Fields(`aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo es
	et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv
	kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa
	sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu`)

// profiles are the categories with tests of their own (6.1.27).
var profiles = []string{SecurityAdvisory, VEX, "csaf_base", "csaf_informational_advisory", "csaf_security_incident_response"}

func (c *checker) meta() {
	m := c.d.Document
	c.need(m.CSAFVersion == Version, "document.csaf_version", "It is %q, not %q.", m.CSAFVersion, Version)
	c.need(categoryName.MatchString(m.Category), "document.category", "%q is not a category.", m.Category)
	c.need(m.Title != "", "document.title", "A title is needed.")
	c.publisher(m.Publisher)
	if m.Distribution != nil {
		c.need(m.Distribution.Text != "" || m.Distribution.TLP != nil, "document.distribution", "It says nothing.")
		if t := m.Distribution.TLP; t != nil {
			c.need(slices.Contains([]TLPLabel{TLPWhite, TLPGreen, TLPAmber, TLPRed}, t.Label), "document.distribution.tlp.label", "%q is not a label.", t.Label)
			c.need(t.URL == "" || address(t.URL), "document.distribution.tlp.url", "%q is not an address.", t.URL)
		}
	}
	if m.AggregateSeverity != nil {
		c.need(m.AggregateSeverity.Text != "", "document.aggregate_severity", "A severity is a text.")
	}
	for at, tag := range map[string]string{"document.lang": m.Lang, "document.source_lang": m.SourceLang} {
		if tag != "" && !Language(tag) {
			c.fail("6.1.12", at, "%q is not a language tag.", tag)
		}
	}
	if m.Publisher.Category == PublisherTranslator && m.SourceLang == "" {
		c.fail("6.1.15", "document.source_lang", "A translator names the language translated from.")
	}
	if m.SourceLang != "" && m.SourceLang == m.Lang {
		c.fail("6.1.28", "document.lang", "A translation is in another language than its source.")
	}
	flat := strings.NewReplacer("-", "", "_", "", " ", "").Replace
	for _, p := range profiles {
		if m.Category != p && flat(strings.ToLower(m.Category)) == flat(strings.TrimPrefix(p, "csaf_")) || !slices.Contains(profiles, m.Category) && strings.HasPrefix(m.Category, "csaf_") {
			c.fail("6.1.26", "document.category", "%q is too much like a profile's name.", m.Category)
			break
		}
	}
	c.notes("document.notes", m.Notes)
	c.references("document.references", m.References)
	c.acknowledgments("document.acknowledgments", m.Acknowledgments)
}

func (c *checker) publisher(p Publisher) {
	c.need(slices.Contains([]PublisherCategory{PublisherCoordinator, PublisherDiscoverer, PublisherOther, PublisherTranslator, PublisherUser, PublisherVendor}, p.Category),
		"document.publisher.category", "%q is not a category of publishers.", p.Category)
	c.need(p.Name != "", "document.publisher.name", "A publisher has a name.")
	c.need(address(p.Namespace), "document.publisher.namespace", "%q is not an address.", p.Namespace)
}

func (c *checker) notes(at string, notes []Note) {
	known := []NoteCategory{NoteDescription, NoteDetails, NoteFAQ, NoteGeneral, NoteLegalDisclaimer, NoteOther, NoteSummary}
	for i, n := range notes {
		c.need(slices.Contains(known, n.Category), fmt.Sprintf("%s[%d].category", at, i), "%q is not a category of notes.", n.Category)
		c.need(n.Text != "", fmt.Sprintf("%s[%d].text", at, i), "A note has a text.")
	}
}

func (c *checker) references(at string, refs []Reference) {
	for i, r := range refs {
		c.need(r.Category == "" || r.Category == ReferenceExternal || r.Category == ReferenceSelf, fmt.Sprintf("%s[%d].category", at, i), "%q is not a category of references.", r.Category)
		c.need(r.Summary != "", fmt.Sprintf("%s[%d].summary", at, i), "A reference says where it leads.")
		c.need(address(r.URL), fmt.Sprintf("%s[%d].url", at, i), "%q is not an address.", r.URL)
	}
}

func (c *checker) acknowledgments(at string, acks []Acknowledgment) {
	for i, a := range acks {
		at := fmt.Sprintf("%s[%d]", at, i)
		c.need(len(a.Names) > 0 || a.Organization != "" || a.Summary != "" || len(a.URLs) > 0, at, "It thanks nobody.")
		c.need(!slices.Contains(a.Names, ""), at+".names", "A name is empty.")
		c.need(!slices.ContainsFunc(a.URLs, func(u string) bool { return !address(u) }), at+".urls", "One is not an address.")
	}
}

// history judges the tracking section: tests 6.1.14, 6.1.16 to 6.1.22 and 6.1.30.
func (c *checker) history() {
	const at = "document.tracking"
	t := c.d.Document.Tracking
	c.need(trackingID.MatchString(t.ID), at+".id", "%q is not an id.", t.ID)
	c.need(!t.CurrentReleaseDate.IsZero() && !t.InitialReleaseDate.IsZero(), at, "Both release dates are needed.")
	c.need(t.Status == Draft || t.Status == Final || t.Status == Interim, at+".status", "%q is not a status.", t.Status)
	c.need(len(t.RevisionHistory) > 0, at+".revision_history", "There is at least one revision.")
	c.need(t.Generator == nil || t.Generator.Engine.Name != "", at+".generator", "A generator has a name.")
	if len(t.RevisionHistory) == 0 {
		return
	}
	seen, wholes := map[string]bool{}, 0
	for i, r := range t.RevisionHistory {
		at := fmt.Sprintf("%s.revision_history[%d]", at, i)
		c.need(wholeNumber.MatchString(r.Number) || semantic.MatchString(r.Number), at+".number", "%q is not a version.", r.Number)
		c.need(r.Summary != "" && !r.Date.IsZero(), at, "A revision has a date and a summary.")
		if seen[r.Number] {
			c.fail("6.1.22", at, "The version %s stands twice.", r.Number)
		}
		seen[r.Number] = true
		if wholeNumber.MatchString(r.Number) {
			wholes++
		}
		if strings.Contains(r.Number, "-") {
			c.fail("6.1.19", at+".number", "A pre-release has no place in the history.")
		}
		if t.Status != Draft && major(r.Number) == 0 {
			c.fail("6.1.18", at+".number", "A released document has no version 0 in its history.")
		}
	}
	if wholes != 0 && wholes != len(t.RevisionHistory) || wholes != 0 != wholeNumber.MatchString(t.Version) {
		c.fail("6.1.30", at, "Whole numbers and SemVer are mixed.")
	}
	c.sequence()
}

// sequence judges the order of the history and the version against it.
func (c *checker) sequence() {
	const at = "document.tracking"
	t := c.d.Document.Tracking
	byDate := slices.Clone(t.RevisionHistory)
	slices.SortStableFunc(byDate, func(a, b Revision) int { return a.Date.Compare(b.Date) })
	if !slices.IsSortedFunc(byDate, func(a, b Revision) int { return compareVersions(a.Number, b.Number) }) {
		c.fail("6.1.14", at+".revision_history", "By date and by version the revisions are in different orders.")
	}
	newest := byDate[len(byDate)-1]
	if version, _, _ := strings.Cut(t.Version, "+"); t.Status != Draft && compareVersions(newest.Number, version) != 0 {
		c.fail("6.1.16", at+".version", "The version is %s, the newest revision %s.", t.Version, newest.Number)
	}
	if t.Status != Draft && (major(t.Version) == 0 || strings.Contains(t.Version, "-")) {
		c.fail("6.1.17", at+".status", "Version %s is that of a draft.", t.Version)
	}
	if t.Status != Draft && strings.Contains(t.Version, "-") {
		c.fail("6.1.20", at+".version", "A released document has no pre-release version.")
	}
	if first, last := major(byDate[0].Number), major(newest.Number); first > 1 {
		c.fail("6.1.21", at+".revision_history", "The first revision is missing.")
	} else {
		for v := first; v <= last; v++ {
			if !slices.ContainsFunc(byDate, func(r Revision) bool { return major(r.Number) == v }) {
				c.fail("6.1.21", at+".revision_history", "Version %d is missing.", v)
				break
			}
		}
	}
}

// major is the first number of a version, -1 if it has none.
func major(version string) int {
	first, _, _ := strings.Cut(version, ".")
	n, err := strconv.Atoi(first)
	if err != nil {
		return -1
	}
	return n
}

// compareVersions orders whole numbers and the three numbers of SemVer.
func compareVersions(a, b string) int {
	parts := func(v string) []int {
		v, _, _ = strings.Cut(v, "+")
		v, _, _ = strings.Cut(v, "-")
		var out []int
		for p := range strings.SplitSeq(v, ".") {
			n, _ := strconv.Atoi(p)
			out = append(out, n)
		}
		return out
	}
	return slices.Compare(parts(a), parts(b))
}

// address reports whether v is an absolute URI.
func address(v string) bool {
	u, err := url.Parse(v)
	return err == nil && u.Scheme != "" && u.Host+u.Opaque != "" && !strings.ContainsAny(v, " \"<>\\^`{|}")
}

// dated reports whether an optional date is a date.
func dated(t *time.Time) bool { return t == nil || !t.IsZero() }

// Filename is what a document with the tracking id is called (section 5.1).
func Filename(id string) string {
	return unsafeInName.ReplaceAllString(strings.ToLower(id), "_") + ".json"
}

var unsafeInName = regexp.MustCompile(`[^+\-a-z0-9]+`)

// Language reports whether documents are written in the language with the tag: a code of ISO 639-1, perhaps with a country.
func Language(tag string) bool {
	parts := languageTag.FindStringSubmatch(tag)
	return parts != nil && slices.Contains(languages, parts[1])
}
