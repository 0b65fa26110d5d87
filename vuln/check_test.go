// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"archive/zip"
	"bytes"
	"fmt"
	"testing"

	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/vuln/feed"
	"github.com/openthings-platform/openthings/vuln/record"
)

// feedOf is a feed of files that lie in one zip.
func feedOf(t *testing.T, files ...string) *feed.Feed {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i, f := range files {
		w, err := z.Create(fmt.Sprintf("%d.json", i))
		if err == nil {
			_, err = w.Write([]byte(f))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := feed.Open(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// A report never says more than its feed can know: kinds of packages without any record are named, and without a
// catalogue nothing is said of what is exploited. What is exploited stands first, also where it could not be compared.
func TestCheckSaysWhatItsFeedCannotKnow(t *testing.T) {
	bill, err := sbom.Parse([]byte(`{"bomFormat":"CycloneDX","specVersion":"1.6","components":[
		{"type":"library","name":"golang.org/x/crypto","version":"v0.1.0","purl":"pkg:golang/golang.org/x/crypto@v0.1.0"},
		{"type":"library","name":"golang.org/x/net","version":"not a version","purl":"pkg:golang/golang.org/x/net@not%20a%20version"},
		{"type":"library","name":"lodash","version":"4.17.0","purl":"pkg:npm/lodash@4.17.0"},
		{"type":"library","name":"libc6","version":"2.36-9","purl":"pkg:deb/debian/libc6@2.36-9?distro=debian-12"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	crypto := fmt.Sprintf(fault, 3, "unsafe", "CVSS:3.1/AV:L/AC:L/PR:L/UI:R/S:U/C:L/I:N/A:N", "golang.org/x/crypto", "")
	rep, err := Check(bill, feedOf(t, crypto, rapidReset))
	if err != nil {
		t.Fatal(err)
	}
	if rep.Catalogue != "" || rep.Exploited != 0 {
		t.Errorf("without a catalogue: %q, %d exploited", rep.Catalogue, rep.Exploited)
	}
	if want := "[{Debian:12 1} {npm 1}]"; fmt.Sprint(rep.Silent) != want {
		t.Errorf("silent about %v, want %s", rep.Silent, want)
	}
	if rep, err = Check(bill, feedOf(t, crypto, rapidReset, kevRapidReset)); err != nil {
		t.Fatal(err)
	}
	if rep.Catalogue != "1" || rep.Exploited != 1 || rep.Affected != 1 || rep.Unknown != 1 {
		t.Errorf("catalogue %q, %d exploited, %d affected, %d unknown; want 1 of each", rep.Catalogue, rep.Exploited, rep.Affected, rep.Unknown)
	}
	if first := rep.Hits[0]; !first.Exploited || first.State != record.StateUnknown || first.Reason == "" {
		t.Errorf("the first is %+v, want the exploited one, unknown, with its reason", first)
	}
}
