// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/sbom"
)

func TestCPENames(t *testing.T) {
	for text, want := range map[string]string{
		`cpe:2.3:a:haxx:curl:7.83.0:*:*:*:*:*:*:*`:                          "haxx:curl 7.83.0",
		`cpe:2.3:o:linux:linux_kernel:6.1:rc1:*:*:*:*:*:*`:                  "linux:linux_kernel 6.1-rc1",
		`cpe:2.3:a:netapp:solidfire_\&_hci_management_node:-:*:*:*:*:*:*:*`: "netapp:solidfire_&_hci_management_node -",
		`cpe:2.3:a:a\:b:c\\d:1\.0:*:*:*:*:*:*:*`:                            `a:b:c\d 1.0`,
		`cpe:2.3:A:Haxx:CURL:*:*:*:*:*:*:*:*`:                               "haxx:curl -",
		`cpe:2.3:h:siemens:s7-1500:-:*:*:*:*:*:*:*`:                         "siemens:s7-1500 -",
		`cpe:/o:redhat:enterprise_linux:6`:                                  "redhat:enterprise_linux 6",
		`cpe:/a:haxx:curl`:                                                  "haxx:curl -",
		`cpe:/a:foo%21:b%2ar:1`:                                             "foo!:b*r 1",
		`cpe:2.3:a:*:curl:7.83.0:*:*:*:*:*:*:*`:                             " 7.83.0", // any vendor: matches nobody
		`cpe:2.3:a:haxx:cur?:7.83.0:*:*:*:*:*:*:*`:                          " 7.83.0",
		`cpe:2.3:a:haxx:curl:7.8*:*:*:*:*:*:*:*`:                            "haxx:curl -",
	} {
		n, ok := parseCPE(text)
		version, has := n.number()
		if !has {
			version = "-"
		}
		if got := n.name() + " " + version; !ok || got != want {
			t.Errorf("%s: %q, %v; want %q", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "cpe:2.3:", "cpe:2.3:a:b:c", `cpe:2.3:x:haxx:curl:1:*:*:*:*:*:*:*`, `cpe:2.3:a:haxx:curl:1:*:*:*:*:*:*`, `cpe:2.3:a:haxx:curl:1:*:*:*:*:*:*:*:*`,
		`cpe:2.3:a:haxx::1:*:*:*:*:*:*:*`, `cpe:2.3:a:haxx:cu rl:1:*:*:*:*:*:*:*`, `cpe:2.3:a:haxx:curl:1:*:*:*:*:*:*:\`, "cpe:/a:%zz", "cpe:/a:b:c:d:e:f:g:h", "cpe:2.3:" + strings.Repeat("a", maxCPE)} {
		if n, ok := parseCPE(text); ok {
			t.Errorf("%.60q was read as %+v", text, n)
		}
	}
}

// Only vulnerable names open a finding; the others are conditions, or nothing at all.
func TestTrapRunningOnIsACondition(t *testing.T) {
	r := fixture(t, "cpe.json")
	v, _ := judged(t, r, cpe("example:browser", "1.5"))
	if v.State != StateAffected || v.Fixed != "2.0" || v.Rule != RuleCPE || !slices.Equal(v.Conditions, []string{"running on o:linux:linux_kernel or o:example:lampos up to 4.0"}) {
		t.Errorf("%+v", v)
	}
	if _, ok := judged(t, r, kernel("6.1")); ok { // anchore/grype#2770: a browser's record on the kernel
		t.Error("what something runs on became a finding of its own")
	}
	if _, ok := judged(t, r, cpe("example:lampos", "3.0")); ok {
		t.Error("what something runs on became a finding of its own")
	}
	check(t, r,
		want{cpe("example:browser", "2.0"), StateClean, "", "", ""},
		want{cpe("example:exact", "3.1"), StateAffected, "", "", ""}, want{cpe("example:exact", "3.2"), StateClean, "", "", ""},
		want{cpe("example:exact", "3.3-p1"), StateAffected, "", "", ""},
		want{cpe("example:every", "0.1"), StateAffected, "", "", ""}, want{cpe("example:every", "rolling"), StateAffected, "", "", ""},
		want{cpe("example:none", "1.0"), StateUnknown, "", "", ""},
		want{cpe("example:between", "1.0"), StateClean, "", "", ""}, want{cpe("example:between", "1.0.1"), StateAffected, "", "", ""},
		want{cpe("example:between", "1.4"), StateAffected, "", "", ""}, want{cpe("example:between", "1.4.1"), StateClean, "", "", ""},
		want{cpe("example:between", "1:1.2"), StateUnknown, "", "", ""},
		want{cpe("example:not", "1.0"), StateUnknown, "", "", ""},
		want{cpe("example:firmware", "1.0"), StateAffected, "", "", ""},
		want{cpe("example:plugin", "1.0"), StateAffected, "", "", ""},
	)
	v, _ = judged(t, r, cpe("example:firmware", "1.0"))
	if !slices.Equal(v.Conditions, []string{"with h:example:lamp"}) {
		t.Errorf("%+v", v)
	}
	v, _ = judged(t, r, cpe("example:plugin", "1.0"))
	if !slices.Equal(v.Conditions, []string{"only for wordpress"}) {
		t.Errorf("%+v", v)
	}
	for _, c := range r.Claims() {
		if strings.ContainsAny(c.Name, "*?") || c.Space == sbom.SpaceCPE && strings.HasPrefix(c.Name, ":") {
			t.Errorf("a vendor or product that is a wildcard became the claim %q", c.Name)
		}
	}
}

// The kernel's name beside another product is where that runs, also in a list of affected products.
func TestTrapKernelNameBesideAnotherProduct(t *testing.T) {
	const form = `{"dataVersion":"5.1","cveMetadata":{"cveId":"CVE-2026-1000","state":"PUBLISHED"},"containers":{"cna":{"affected":[{"vendor":"%s","product":"%s","defaultStatus":"unaffected",
		"cpes":["cpe:2.3:a:google:chrome:*:*:*:*:*:*:*:*","cpe:2.3:o:linux:linux_kernel:-:*:*:*:*:*:*:*"],"versions":[{"version":"0","lessThan":"99.0","versionType":"custom","status":"affected"}]}]}}}`
	for name, want := range map[[2]string]State{{"Google", "Chrome"}: StateClean, {"n/a", "n/a"}: StateAffected, {"Example", "Linux kernel"}: StateAffected, {"Red Hat", "Red Hat Enterprise Linux"}: StateClean} {
		r := parsed(t, fmt.Appendf(nil, form, name[0], name[1]))
		if v, _ := judged(t, r, kernel("6.1")); v.State != want {
			t.Errorf("%s: %+v, want %s", name, v, want)
		}
	}
}

// An operating system's name finds what an application's does (anchore/grype#2365).
func TestTrapOperatingSystemCPE(t *testing.T) {
	check(t, realCVE(t, "CVE-2024-6442"), want{cpe("zephyrproject:zephyr", "3.5"), StateAffected, "", "CISA-ADP", ""}, want{cpe("zephyrproject:zephyr", "3.7"), StateClean, "", "", ""})
	check(t, realCVE(t, "CVE-2016-9952"), want{cpe("haxx:curl", "7.30.0"), StateAffected, "", "CISA-ADP", ""}, want{cpe("haxx:curl", "7.52.0"), StateClean, "", "", ""},
		want{cpe("haxx:curl", "7.26.0"), StateClean, "", "", ""})
}

// A package of a language's registry is no product (anchore/grype#2618: a collision with a name on npm).
func TestTrapRegistryNameIsNoProduct(t *testing.T) {
	r := fixture(t, "npm.json")
	if _, ok := judged(t, r, named("lamp", "1.0.0")); ok || len(r.Claims()) != 0 {
		t.Errorf("%d claims about a package on npm", len(r.Claims()))
	}
}

// A distribution's package is compared with that distribution's records alone (anchore/grype PR 3129: 5,194 matches of
// the kernel became none), and its records say nothing about upstream's names.
func TestTrapDistributionAlone(t *testing.T) {
	for id, doc := range cveList(t) {
		r := parsed(t, doc)
		for _, c := range r.Claims() {
			if !slices.Contains([]string{sbom.SpaceCPE, sbom.SpaceProduct, sbom.SpaceGit, sbom.SpaceKernel}, c.Space) {
				t.Fatalf("%s claims something in %s", id, c.Space)
			}
		}
	}
	r := parsed(t, []byte(`{"id":"DSA-1-1","affected":[{"package":{"ecosystem":"Debian:12","name":"linux"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"6.1.90-1"}]}]}]}`))
	if c := r.Claims(); len(c) != 1 || c[0].Space != "Debian:12" || c[0].Name != "linux" {
		t.Errorf("%+v", c)
	}
	if v, _ := judged(t, r, sbom.Identity{Space: "Debian:12", Name: "linux", Version: "6.1.55-1"}); v.Rule != RuleDistro || v.Confidence != ConfidenceExact || v.Fixed != "6.1.90-1" {
		t.Errorf("%+v", v)
	}
}

func FuzzCPE(f *testing.F) {
	for _, s := range []string{`cpe:2.3:a:haxx:curl:7.83.0:*:*:*:*:*:*:*`, `cpe:2.3:o:linux:linux_kernel:6.1:rc1:*:*:*:*:*:*`, `cpe:2.3:a:netapp:solidfire_\&_hci:-:*:*:*:*:*:*:*`, `cpe:/o:redhat:enterprise_linux:6`, `cpe:/a:foo%21:b%2ar:1`, `cpe:2.3:a:*:c?rl:\*:*:*:*:*:*:*:*`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, ok := parseCPE(s)
		if !ok {
			return
		}
		if name := n.name(); name != strings.ToLower(name) || name == ":" {
			t.Fatalf("%q: name %q", s, name)
		}
		if n.vendor.any && (n.vendor.text != "" || n.vendor.na) || n.vendor.wild && n.name() != "" {
			t.Fatalf("%q: %+v", s, n.vendor)
		}
		n.number()
		n.conditions()
	})
}
