// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestBaselineReportIsRead(t *testing.T) {
	for _, good := range []string{`{}`, `{"ports":[]}`, `{"ports":["tcp/1","udp/65535"],"debug":{"jtag":"closed"},"default_credentials":["root"],"tls":"1.3","secure_boot":"on","root":"tee"}`, `{"future":1}`} {
		if _, err := ParseBaselineReport([]byte(good)); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{``, `[]`, `{"ports":["443"]}`, `{"ports":["tcp/0"]}`, `{"ports":["tcp/65536"]}`, `{"debug":{"jtag":"maybe"}}`, `{"debug":{"jtag":""}}`,
		`{"debug":{"JTAG":"open"}}`, `{"secure_boot":"yes"}`, `{"root":"magic"}`, `{"tls":"1.4"}`, `{"least_privilege":{"":true}}`, `{"default_credentials":["a\nb"]}`,
		`{"agent":"` + strings.Repeat("a", 65) + `"}`, `{"ports":["tcp/1"` + strings.Repeat(`,"tcp/1"`, maxItems) + `]}`, `{"agent":"` + strings.Repeat("a", MaxBaselineReport) + `"}`} {
		if r, err := ParseBaselineReport([]byte(bad)); err == nil {
			t.Errorf("%.60s: %+v", bad, r)
		}
	}
	// Absent and empty are two things: "I did not look" and "I looked, there is none".
	absent, _ := ParseBaselineReport([]byte(`{}`))
	empty, _ := ParseBaselineReport([]byte(`{"ports":[],"default_credentials":[]}`))
	if absent.Ports != nil || absent.Credentials != nil || empty.Ports == nil || empty.Credentials == nil {
		t.Errorf("absent %+v, empty %+v", absent, empty)
	}
}

func FuzzBaselineReport(f *testing.F) {
	for _, m := range []any{messages["baseline_report"], BaselineReport{}} {
		b, err := json.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"ports":["tcp/65535"],"debug":{"adb":"open"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseBaselineReport(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseBaselineReport(again); err != nil {
			t.Errorf("%q was accepted, its own spelling %q is not: %v", b, again, err)
		}
	})
}
