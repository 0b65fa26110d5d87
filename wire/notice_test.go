// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func goodNotice() Notice {
	return Notice{ID: "support-2031", Kind: NoticeSupport, Severity: NoticeWarning, Ends: 1793450000123, URL: "https://maker.example/lamp",
		Texts: []NoticeText{{"en", "Support ends", "Security updates end in December 2031.\nPlan for it."}, {"de", "Ende der Unterstützung", "…"}, {"pt-BR", "Fim do suporte", "…"}}}
}

func TestNoticesThatNoDeviceShouldShow(t *testing.T) {
	if err := goodNotice().Check(); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*Notice){
		"without an id":               func(n *Notice) { n.ID = "" },
		"with a path for an id":       func(n *Notice) { n.ID = "../boot.0" },
		"with too long an id":         func(n *Notice) { n.ID = strings.Repeat("a", 65) },
		"in place of itself":          func(n *Notice) { n.Replaces = n.ID },
		"in place of no id":           func(n *Notice) { n.Replaces = "a b" },
		"of no kind":                  func(n *Notice) { n.Kind = "advertisement" },
		"of no severity":              func(n *Notice) { n.Severity = "" },
		"that ended before time":      func(n *Notice) { n.Ends = -1 },
		"that ends beyond all clocks": func(n *Notice) { n.Ends = 1<<53 + 1 },
		"without a text":              func(n *Notice) { n.Texts = nil },
		"in too many languages":       func(n *Notice) { n.Texts = make([]NoticeText, MaxNoticeTexts+1) },
		"in no language":              func(n *Notice) { n.Texts[0].Lang = "" },
		"in a language with a slash":  func(n *Notice) { n.Texts[0].Lang = "de/at" },
		"twice in a language":         func(n *Notice) { n.Texts[1].Lang = "EN" },
		"without a title":             func(n *Notice) { n.Texts[1].Title = " " },
		"with a title of two lines":   func(n *Notice) { n.Texts[0].Title = "a\nb" },
		"with too long a title":       func(n *Notice) { n.Texts[0].Title = strings.Repeat("a", MaxNoticeTitle+1) },
		"with too long a text":        func(n *Notice) { n.Texts[0].Text = strings.Repeat("a", MaxNoticeText+1) },
		"with an escape sequence":     func(n *Notice) { n.Texts[0].Text = "\x1b[2J" },
		"that turns its own text":     func(n *Notice) { n.Texts[0].Text = "pay \u202eelpmaxe" },
		"with bytes that are no text": func(n *Notice) { n.Texts[0].Text = "\xff" },
		"with an address in clear":    func(n *Notice) { n.URL = "http://maker.example" },
		"with a script for address":   func(n *Notice) { n.URL = "javascript:alert(1)" },
		"with an address of nobody":   func(n *Notice) { n.URL = "https:///x" },
		"with a password in it":       func(n *Notice) { n.URL = "https://a:b@maker.example" },
		"with too long an address":    func(n *Notice) { n.URL = "https://maker.example/" + strings.Repeat("a", MaxNoticeURL) },
	} {
		n := goodNotice()
		edit(&n)
		if err := n.Check(); err == nil {
			t.Errorf("a notice %s was taken", name)
		}
	}
	for _, body := range []string{"", "null", "[]", "{}", `{"id":1}`, `{"id":"a","texts":{}}`, `{"id":"` + strings.Repeat(" ", MaxNotice) + `"}`} {
		if n, err := ParseNotice([]byte(body)); err == nil {
			t.Errorf("%.40q was read as %+v", body, n)
		}
	}
}

func TestNoticeInALanguage(t *testing.T) {
	n := goodNotice()
	n.Texts = append(n.Texts, NoticeText{"zh-Hant", "…", "…"}, NoticeText{"de-AT", "…", "…"})
	for _, c := range []struct {
		want string
		from []string
	}{
		{"en", nil}, {"de", []string{"de"}}, {"de-AT", []string{"DE-at"}}, {"de", []string{"de-CH"}}, {"pt-BR", []string{"pt"}}, {"en", []string{"fi"}},
		{"zh-Hant", []string{"fi", "zh"}}, {"de", []string{"fi", "de-CH", "en"}}, {"en", []string{""}},
	} {
		if got := n.In(c.from...).Lang; got != c.want {
			t.Errorf("for %v it is in %s, want %s", c.from, got, c.want)
		}
	}
}

func TestReportsThatNoDeviceSends(t *testing.T) {
	for _, body := range []string{"", "null", "[]", "{}", `{"notice":"a","state":"burnt"}`, `{"notice":"","state":"shown"}`, `{"notice":"a","state":"shown","at":-1}`,
		`{"notice":"a","state":"shown","x":"` + strings.Repeat("x", MaxNoticeReport) + `"}`} {
		if r, err := ParseNoticeReport([]byte(body)); err == nil {
			t.Errorf("%.60q was read as %+v", body, r)
		}
	}
	for _, body := range []string{"", "{}", `{"support_end":"2031","until":1}`, `{"support_end":"2031-13","until":1}`, `{"support_end":"2031-12"}`} {
		if s, err := ParseSupport([]byte(body)); err == nil {
			t.Errorf("%q was read as %+v", body, s)
		}
	}
}

// FuzzParseNotice: whatever is read can be written and is read again as the same notice, and has something to say to
// everybody.
func FuzzParseNotice(f *testing.F) {
	good, err := json.Marshal(goodNotice())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"id":"a","kind":"security","severity":"critical","texts":[{"lang":"en","title":"t","text":"<b>\u0000"}]}`))
	f.Add([]byte(`{"id":"b","kind":"other","severity":"info","texts":[{"lang":"de","title":"\ud800","text":"x"}],"replaces":"a"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		n, err := ParseNotice(body)
		if err != nil {
			return
		}
		b, err := json.Marshal(n)
		if err != nil {
			t.Fatalf("%q was read and cannot be written: %v", body, err)
		}
		again, err := ParseNotice(b)
		if len(b) <= MaxNotice && (err != nil || !reflect.DeepEqual(again, n)) {
			t.Errorf("%q is read as %+v, then as %+v (%v)", body, n, again, err)
		}
		if n.In("de-AT").Title == "" {
			t.Errorf("%q says nothing", body)
		}
	})
}

func FuzzParseNoticeReport(f *testing.F) {
	f.Add([]byte(`{"notice":"support-2031","state":"shown","at":1793450000123}`))
	f.Add([]byte(`{"notice":"a","state":"acknowledged"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := ParseNoticeReport(body)
		if err != nil {
			return
		}
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseNoticeReport(b); err != nil || again != r {
			t.Errorf("%q is read as %+v, then as %+v (%v)", body, r, again, err)
		}
	})
}
