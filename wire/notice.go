// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// CommandNotice is the name of the command that hands a device a notice; its arguments are a Notice. The result says that
// the device keeps it. The same notice twice is one.
const CommandNotice = "notice"

// TopicNotice is where a device says what became of a notice on it.
const TopicNotice = "notice"

// What a notice is about.
const (
	NoticeSupport   = "support"   // the support period ends, has ended or goes on
	NoticeSecurity  = "security"  // a vulnerability or an incident, and what users can do (CRA article 14(8))
	NoticeCessation = "cessation" // the maker ceases its business (CRA article 13(23))
	NoticeOther     = "other"
)

// How much a notice matters. A device that runs out of room gives up a critical one last.
const (
	NoticeInfo     = "info"
	NoticeWarning  = "warning"
	NoticeCritical = "critical"
)

// What a device says of a notice that it keeps.
const (
	NoticeShown        = "shown"        // to whoever stands before the device
	NoticeAcknowledged = "acknowledged" // somebody there said that they have read it
)

// Notice is a text of the maker for the people who use a device; the arguments of the command CommandNotice.
type Notice struct {
	ID       string       `json:"id"`       // 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit
	Kind     string       `json:"kind"`     // of the Notice… constants
	Severity string       `json:"severity"` // info, warning, critical
	Texts    []NoticeText `json:"texts"`    // one for each language, the first for whoever reads none of them
	URL      string       `json:"url,omitempty"`
	Ends     int64        `json:"ends,omitempty"`     // ms since 1970 UTC; from then on it is not shown; 0: no end
	Replaces string       `json:"replaces,omitempty"` // id of the notice that it corrects and whose place it takes
}

// NoticeText is what a notice says in one language.
type NoticeText struct {
	Lang  string `json:"lang"`  // BCP 47: "de", "pt-BR"
	Title string `json:"title"` // one line
	Text  string `json:"text"`  // plain, with line feeds
}

// NoticeReport says what became of a notice; on TopicNotice. It is sent until it is acknowledged, and counts once.
type NoticeReport struct {
	Notice string `json:"notice"`
	State  string `json:"state"`        // shown or acknowledged
	At     int64  `json:"at,omitempty"` // ms since 1970 UTC, by the device's clock; 0: it does not know the time
}

// Bounds of a notice.
const (
	MaxNotice       = 32 << 10 // bytes of its JSON
	MaxNoticeTexts  = 32
	MaxNoticeTitle  = 200  // bytes
	MaxNoticeText   = 4000 // bytes
	MaxNoticeURL    = 500  // bytes
	MaxNoticeReport = 512  // bytes of its JSON
)

var (
	noticeID   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	noticeLang = regexp.MustCompile(`^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$`)
)

// ParseNotice reads a notice, and refuses what no device should keep or show.
func ParseNotice(body []byte) (n Notice, err error) {
	if len(body) > MaxNotice {
		return n, fmt.Errorf("a notice has at most %d bytes", MaxNotice)
	}
	if err := json.Unmarshal(body, &n); err != nil {
		return n, fmt.Errorf("the notice is not as JSON should be: %w", err)
	}
	return n, n.Check()
}

// Check refuses what no device should keep or show.
func (n Notice) Check() error {
	switch {
	case !noticeID.MatchString(n.ID):
		return fmt.Errorf("%.70q is no id of a notice: 1 to 64 letters, digits, dots, underscores and dashes", n.ID)
	case n.Replaces != "" && !noticeID.MatchString(n.Replaces):
		return fmt.Errorf("%.70q, which the notice replaces, is no id of one", n.Replaces)
	case n.Replaces == n.ID:
		return errors.New("a notice cannot replace itself: a correction has an id of its own")
	case n.Kind != NoticeSupport && n.Kind != NoticeSecurity && n.Kind != NoticeCessation && n.Kind != NoticeOther:
		return fmt.Errorf("%.40q is no kind of notice: support, security, cessation or other", n.Kind)
	case n.Severity != NoticeInfo && n.Severity != NoticeWarning && n.Severity != NoticeCritical:
		return fmt.Errorf("%.40q is no severity: info, warning or critical", n.Severity)
	case n.Ends < 0 || n.Ends > 1<<53:
		return errors.New("the end of a notice is milliseconds since 1970")
	case len(n.Texts) == 0 || len(n.Texts) > MaxNoticeTexts:
		return fmt.Errorf("a notice has 1 to %d texts, one for each language", MaxNoticeTexts)
	}
	seen := map[string]bool{}
	for _, t := range n.Texts {
		lang := strings.ToLower(t.Lang)
		switch {
		case !noticeLang.MatchString(t.Lang):
			return fmt.Errorf("%.40q is no language such as de or pt-BR", t.Lang)
		case seen[lang]:
			return fmt.Errorf("the notice has two texts in %s", t.Lang)
		case !readable(t.Title, MaxNoticeTitle, false):
			return fmt.Errorf("the title in %s has to be one line of 1 to %d bytes", t.Lang, MaxNoticeTitle)
		case !readable(t.Text, MaxNoticeText, true):
			return fmt.Errorf("the text in %s has to be 1 to %d bytes without control characters", t.Lang, MaxNoticeText)
		}
		seen[lang] = true
	}
	return checkNoticeURL(n.URL)
}

// checkNoticeURL refuses what a person should not be sent to.
func checkNoticeURL(s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || len(s) > MaxNoticeURL || u.Scheme != "https" || u.Host == "" || u.User != nil || !readable(s, MaxNoticeURL, false) {
		return fmt.Errorf("the address of a notice is https://… of at most %d bytes", MaxNoticeURL)
	}
	return nil
}

// readable says whether s is text that can be shown as it is: neither empty nor blank, no control characters but line
// feeds where lines are allowed, and none that turn the direction of what stands beside it.
func readable(s string, most int, lines bool) bool {
	if len(s) > most || strings.TrimSpace(s) == "" || !utf8.ValidString(s) {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) && (r != '\n' || !lines) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
	})
}

// In returns what the notice says to whoever reads these languages, the dearest first: in one of them, in another form of
// it (de for de-AT, pt-BR for pt), or else its first text. The notice has been checked.
func (n Notice) In(langs ...string) NoticeText {
	for _, want := range langs {
		var near *NoticeText
		for i, t := range n.Texts {
			if strings.EqualFold(t.Lang, want) {
				return t
			}
			if near == nil && strings.EqualFold(primary(t.Lang), primary(want)) {
				near = &n.Texts[i]
			}
		}
		if near != nil {
			return *near
		}
	}
	return n.Texts[0]
}

// primary is a language without its script and region.
func primary(lang string) string {
	lang, _, _ = strings.Cut(lang, "-")
	return lang
}

// ParseNoticeReport reads what a device says of a notice.
func ParseNoticeReport(body []byte) (r NoticeReport, err error) {
	if len(body) > MaxNoticeReport {
		return r, fmt.Errorf("a report on a notice has at most %d bytes", MaxNoticeReport)
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return r, fmt.Errorf("the report on a notice is not as JSON should be: %w", err)
	}
	switch {
	case !noticeID.MatchString(r.Notice):
		return r, fmt.Errorf("%.70q is no id of a notice", r.Notice)
	case r.State != NoticeShown && r.State != NoticeAcknowledged:
		return r, fmt.Errorf("%.40q is nothing that becomes of a notice: shown or acknowledged", r.State)
	case r.At < 0 || r.At > 1<<53:
		return r, errors.New("the time of a report on a notice is milliseconds since 1970")
	}
	return r, nil
}

// Support says until when the maker supports the very device that asks; on GET /d/1/support, over the session of its
// certificate.
type Support struct {
	End     string `json:"support_end"`   // month, such as 2031-12
	Until   int64  `json:"until"`         // ms since 1970 UTC: the last instant of support
	Product string `json:"product"`       // its name
	Maker   string `json:"maker"`         // name of the manufacturer
	URL     string `json:"url,omitempty"` // of the public page of the product
}

// ParseSupport reads what the platform says of the support of a device.
func ParseSupport(body []byte) (s Support, err error) {
	if err := json.Unmarshal(body, &s); err != nil {
		return s, fmt.Errorf("the end of support is not as JSON should be: %w", err)
	}
	if !monthShape.MatchString(s.End) || s.Until <= 0 || s.Until > 1<<53 {
		return s, errors.New("the end of support is a month such as 2031-12 and its last instant")
	}
	return s, nil
}

var monthShape = regexp.MustCompile(`^[0-9]{4}-(0[1-9]|1[0-2])$`)
