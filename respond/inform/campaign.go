// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/wire"
)

// Kinds of campaigns.
const (
	KindCase      = "case"      // users of a case (CRA Article 14(8))
	KindSupport   = "support"   // the support period ends, has ended or goes on (13(19))
	KindCessation = "cessation" // the maker ceases operations (13(23))
	KindAdvisory  = "advisory"  // a published advisory
	KindOther     = "other"
)

// Audiences.
const (
	Impacted = "impacted" // who has a product, revision or release that is affected
	All      = "all"      // of the product; of every product where none is named
)

// States of a campaign. What is sent stays so.
const (
	Draft     = "draft"
	Sent      = "sent"
	Discarded = "discarded"
)

// Rules that refuse.
const (
	RuleAddress = "inform.address"     // an address of the inside
	RulePerson  = "inform.person-only" // a program may draft, never send
	RuleSent    = "inform.sent"        // what was sent is never changed or sent again
)

const (
	maxSubject   = 120      // characters
	maxTexts     = 24 << 10 // bytes of all texts together: they fit into the notice of a device
	maxRevisions = 50
)

// Text is what is told in one language.
type Text struct {
	Title string `json:"title" maxLength:"200"`
	Text  string `json:"text" maxLength:"4000" doc:"Plain text with line feeds"`
}

// Words are what a draft says and whom it means.
type Words struct {
	Kind          string          `json:"kind" enum:"case,support,cessation,advisory,other"`
	Severity      string          `json:"severity,omitempty" enum:"info,warning,critical" doc:"How devices show it; default warning"`
	Product       string          `json:"product,omitempty" maxLength:"64" doc:"Absent: users of every product"`
	Case          string          `json:"case,omitempty" maxLength:"64" doc:"The case whose users are told; sending is an event of it"`
	Vulnerability string          `json:"vulnerability,omitempty" maxLength:"128" doc:"Says who is impacted and which advisory and VEX document go with it"`
	Subject       string          `json:"subject" maxLength:"480" doc:"For your own lists; recipients read the title in their language"`
	Audience      string          `json:"audience" enum:"impacted,all"`
	Revisions     []string        `json:"revisions,omitempty" maxItems:"50" doc:"Only who has one of these hardware revisions, or of whom nobody knows"`
	Devices       bool            `json:"devices,omitempty" doc:"Connected devices of the audience show it too"`
	Language      string          `json:"language" pattern:"^[a-z]{2}$" doc:"What contacts get in whose own language there is no text"`
	Texts         map[string]Text `json:"texts" doc:"By language of two letters"`
	URL           string          `json:"url,omitempty" maxLength:"500" doc:"Where more can be read, https"`
}

// Campaign is something that users are told.
type Campaign struct {
	ID string `json:"id"`
	Words
	ProductName string     `json:"product_name,omitempty"`
	State       string     `json:"state" enum:"draft,sent,discarded"`
	Version     int64      `json:"version" doc:"Grows with each change; sending names the one that was read"`
	Template    string     `json:"template,omitempty" doc:"Dated template that the platform made it from"`
	Replaces    string     `json:"replaces,omitempty" doc:"The campaign that this one corrects"`
	Created     time.Time  `json:"created"`
	Actor       string     `json:"actor"`
	Sent        time.Time  `json:"sent,omitzero"`
	SentBy      string     `json:"sent_by,omitempty"`
	Finished    time.Time  `json:"finished,omitzero" doc:"Since when no delivery waits any more"`
	Query       *Query     `json:"query,omitempty" doc:"Who was meant, as it was found out when it was sent"`
	Documents   []Document `json:"documents,omitempty" doc:"What it carries, as it was when it was sent"`

	tenant, source string
}

// Query says who is meant.
type Query struct {
	Audience      string    `json:"audience" enum:"impacted,all"`
	Product       string    `json:"product,omitempty"`
	Vulnerability string    `json:"vulnerability,omitempty"`
	Revisions     []string  `json:"revisions,omitempty" doc:"Contacts of these, or of whom no revision is known; absent: of any"`
	Releases      []string  `json:"releases,omitempty" doc:"Devices that run one of these; absent: any"`
	Versions      []string  `json:"versions,omitempty" doc:"Of these releases, for people"`
	At            time.Time `json:"at" doc:"When it was asked"`
}

// Document is a file that goes with a campaign.
type Document struct {
	Kind   string `json:"kind" enum:"csaf,vex"`
	Name   string `json:"name"`
	URL    string `json:"url,omitempty"`
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size" doc:"Bytes"`

	Body []byte `json:"-"` // empty where it is only linked
}

// check refuses words that could not be sent. Languages are in order afterwards.
func (w *Words) check() error {
	w.Subject, w.Vulnerability = strings.TrimSpace(w.Subject), strings.TrimSpace(w.Vulnerability)
	if w.Severity == "" {
		w.Severity = wire.NoticeWarning
	}
	slices.Sort(w.Revisions)
	w.Revisions = slices.Compact(w.Revisions)
	size := 0
	for _, lang := range slices.Sorted(maps.Keys(w.Texts)) {
		if !language.MatchString(lang) {
			return problem.Invalid("%.20q is no language of two letters, such as en or de.", lang).At("texts")
		}
		t := w.Texts[lang]
		size += len(t.Title) + len(t.Text)
		if err := law.CheckClaims(map[string]string{"texts." + lang: t.Title + "\n" + t.Text}); err != nil {
			return err
		}
	}
	switch {
	case !slices.Contains([]string{KindCase, KindSupport, KindCessation, KindAdvisory, KindOther}, w.Kind):
		return problem.Invalid("A campaign is about a case, support, cessation, an advisory or other.").At("kind")
	case (w.Kind == KindCase) != (w.Case != ""):
		return problem.Invalid("A campaign of the kind case names its case, and no other does.").At("case")
	case w.Audience != Impacted && w.Audience != All:
		return problem.Invalid("Say whether impacted or all users are told.").At("audience")
	case w.Audience == Impacted && w.Product == "":
		return problem.Invalid("Who is impacted can be said of one product.").At("product")
	case w.Audience == Impacted && w.Vulnerability == "" && len(w.Revisions) == 0:
		return problem.Invalid("Say what is affected: a vulnerability, or hardware revisions.").At("vulnerability").Hint("Or tell all users of the product.")
	case w.Product == "" && len(w.Revisions) > 0:
		return problem.Invalid("Hardware revisions are those of one product.").At("product")
	case len(w.Revisions) > maxRevisions:
		return problem.Invalid("At most %d revisions can be named.", maxRevisions).At("revisions")
	case !line(w.Subject, maxSubject):
		return problem.Invalid("A subject is one line of 1 to %d characters.", maxSubject).At("subject")
	case utf8.RuneCountInString(w.Vulnerability) > 128:
		return problem.Invalid("A vulnerability has at most 128 characters.").At("vulnerability")
	case !language.MatchString(w.Language) || w.Texts[w.Language] == (Text{}):
		return problem.Invalid("There has to be a text in the campaign's own language %.20q.", w.Language).At("language")
	case size > maxTexts:
		return problem.TooLarge("All texts together have at most %d bytes.", maxTexts).At("texts")
	case w.URL != "" && !secure(w.URL):
		return problem.Invalid("The address to read more at is https://…").At("url")
	}
	if err := w.notice("cpn").Check(); err != nil {
		return problem.Invalid("This cannot be told: %v.", err).At("texts")
	}
	return nil
}

func secure(address string) bool {
	u, err := url.Parse(address)
	return err == nil && u.Scheme == "https" && u.Host != "" && u.User == nil
}

// Languages are those that the campaign speaks, its own first.
func (w Words) Languages() []string {
	others := slices.DeleteFunc(slices.Sorted(maps.Keys(w.Texts)), func(l string) bool { return l == w.Language })
	return append([]string{w.Language}, others...)
}

// In is the text in a language, or in the campaign's own.
func (w Words) In(lang string) Text {
	if t, ok := w.Texts[lang]; ok {
		return t
	}
	return w.Texts[w.Language]
}

// noticeKinds are what devices call the kinds.
var noticeKinds = map[string]string{KindCase: wire.NoticeSecurity, KindAdvisory: wire.NoticeSecurity, KindSupport: wire.NoticeSupport, KindCessation: wire.NoticeCessation, KindOther: wire.NoticeOther}

// notice is what devices are told.
func (w Words) notice(id string) wire.Notice {
	n := wire.Notice{ID: id, Kind: noticeKinds[w.Kind], Severity: w.Severity, URL: w.URL}
	for _, lang := range w.Languages() {
		n.Texts = append(n.Texts, wire.NoticeText{Lang: lang, Title: w.Texts[lang].Title, Text: w.Texts[lang].Text})
	}
	return n
}

// digest is the SHA-256 of title, line feed, text.
func (t Text) digest() string { return digest([]byte(t.Title + "\n" + t.Text)) }

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
