// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"fmt"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/problem"
)

func repeat(n int, form string) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, form, i)
	}
	return b.String()
}

func cveWith(members string) string {
	return `{"dataVersion":"5.1","cveMetadata":{"cveId":"CVE-2026-1","state":"PUBLISHED"},"containers":{"cna":{` + members + `}}}`
}

// A record must not grow when it is sorted by names: what a hostile one says many times under many names is refused,
// and a statement about one name carries few of the others along.
func TestHostileRecordsStaySmall(t *testing.T) {
	for name, doc := range map[string]string{
		"versions under many CPE names": strings.Replace(cveWith(`"affected":[{"product":"x","cpes":[`+repeat(2000, `"cpe:2.3:a:v:p%d:*:*:*:*:*:*:*:*"`)+`],"versions":[`+repeat(2000, `{"version":"%d","status":"affected"}`)+`]}]`), "CVE-2026-1", "CVE-2026-1000", 1),
		"versions of many repositories": `{"id":"A","affected":[{"versions":[` + repeat(2000, `"%d"`) + `],"ranges":[` + repeat(2000, `{"type":"GIT","repo":"https://a.example/%d","events":[]}`) + `]}]}`,
		"too many versions":             strings.Replace(cveWith(`"affected":[{"product":"x","versions":[`+repeat(maxEvents+1, `{"version":"%d","status":"affected"}`)+`]}]`), "CVE-2026-1", "CVE-2026-1000", 1),
		"too many packages":             `{"id":"A","affected":[` + repeat(maxAffected+1, `{"package":{"ecosystem":"Go","name":"a%d"}}`) + `]}`,
		"too many bytes":                `{"id":"A","details":"` + strings.Repeat("a", maxRecord) + `"}`,
	} {
		if _, err := Parse([]byte(doc)); !problem.Is(err, problem.KindTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
	doc := strings.Replace(cveWith(`"cpeApplicability":[{"operator":"AND","nodes":[{"operator":"AND","cpeMatch":[`+repeat(3000, `{"vulnerable":true,"criteria":"cpe:2.3:a:v:p%d:*:*:*:*:*:*:*:*"}`)+`]}]}]`), "CVE-2026-1", "CVE-2026-1000", 1)
	wide := strings.Replace(cveWith(`"affected":[{"product":"x","cpes":[`+repeat(9_000, `"cpe:2.3:a:v:p%d:*:*:*:*:*:*:*:*"`)+`]}]`), "CVE-2026-1", "CVE-2026-1000", 1)
	if r := parsed(t, []byte(wide)); len(r.Claims()) != 9_001 {
		t.Errorf("%d claims", len(r.Claims()))
	}
	r := parsed(t, []byte(doc))
	total := 0
	for _, c := range r.Claims() {
		total += len(c.Body)
		if _, err := Compile(c.Space, c.Body); err != nil {
			t.Fatal(err)
		}
	}
	if total > 20*len(doc) {
		t.Errorf("a record of %d bytes became claims of %d", len(doc), total)
	}
}

func TestBrokenCVERecordsAreRefused(t *testing.T) {
	for doc, say := range map[string]string{
		`{"cveMetadata":{}}`:  "not the number",
		`{"cveMetadata":"x"}`: "not valid CVE JSON",
		`{"dataVersion":"4.0","cveMetadata":{"cveId":"CVE-2026-1000","state":"PUBLISHED"}}`: "5.0 to 5.2",
		`{"dataVersion":"5.1","cveMetadata":{"cveId":"CVE-2026-1000","state":"RESERVED"}}`:  "unknown state",
		`{"dataVersion":"5.1","cveMetadata":{"cveId":"CVE-2026-1'--","state":"PUBLISHED"}}`: "not the number",
	} {
		if _, err := Parse([]byte(doc)); !problem.Is(err, problem.KindInvalid) || !strings.Contains(err.Error(), say) {
			t.Errorf("%s: %v, want %q", doc, err, say)
		}
	}
	// An author's slip in one field does not cost the record.
	r := parsed(t, []byte(`{"dataVersion":"5.1","cveMetadata":{"cveId":"CVE-2026-1000","state":"PUBLISHED"},"containers":{"cna":{"descriptions":[{"lang":"de","value":"x"},{"lang":"en-US","value":"A\u0000 lamp. More."}],
		"affected":[{"vendor":"a\u0000b","product":"la\nmp","versions":[{"version":"1\u0000","status":"affected"}]}],"metrics":[{"cvssV3_1":{"vectorString":"nonsense","baseScore":99}},{"other":{"type":"ssvc","content":"x"}}],
		"cpeApplicability":[{"nodes":[{"cpeMatch":[{"vulnerable":true,"criteria":"nonsense"}]}]}]}}}`))
	if r.Summary != "A  lamp" || len(r.Scores) != 0 || r.SSVC != nil || len(r.Claims()) == 0 {
		t.Errorf("%+v", r)
	}
	for _, c := range r.Claims() {
		if strings.ContainsFunc(c.Name+string(c.Body), func(c rune) bool { return c < ' ' }) {
			t.Errorf("%q %s", c.Name, c.Body)
		}
	}
}
