// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"archive/zip"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/openthings-platform/openthings/realdata"
	"github.com/openthings-platform/openthings/sbom"
)

// readZip returns the files of a zip of the folder of real data, by name without folder and ending.
func readZip(t testing.TB, name string) map[string][]byte {
	t.Helper()
	z, err := zip.OpenReader(filepath.Join(realdata.Dir(t), name))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	out := map[string][]byte{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimSuffix(filepath.Base(f.Name), ".json")] = b
	}
	return out
}

var realCVEs struct {
	sync.Once
	docs map[string][]byte
}

// cveList are the real records of the CVE List.
func cveList(t testing.TB) map[string][]byte {
	t.Helper()
	realdata.Dir(t) // says so where it is absent
	realCVEs.Do(func() { realCVEs.docs = readZip(t, "vuln/cvelist/embedded.zip") })
	return realCVEs.docs
}

func realCVE(t testing.TB, id string) Record {
	t.Helper()
	return parsed(t, cveList(t)[id])
}

func fixture(t testing.TB, name string) Record {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return parsed(t, b)
}

func parsed(t testing.TB, b []byte) Record {
	t.Helper()
	r, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// judged is what the record says about a component with one name; nothing is said without a claim.
func judged(t testing.TB, r Record, id sbom.Identity) (Verdict, bool) {
	t.Helper()
	for _, c := range r.Claims() {
		if c.Space == id.Space && c.Name == id.Name {
			j, err := Compile(c.Space, c.Body)
			if err != nil {
				t.Fatal(err)
			}
			return j.Judge(id), true
		}
	}
	return Verdict{State: StateClean}, false
}

func kernel(version string) sbom.Identity {
	return sbom.Identity{Space: sbom.SpaceKernel, Name: "linux", Version: version}
}

func named(name, version string) sbom.Identity {
	return sbom.Identity{Space: sbom.SpaceProduct, Name: name, Version: version}
}

func cpe(name, version string) sbom.Identity {
	return sbom.Identity{Space: sbom.SpaceCPE, Name: name, Version: version}
}

type want struct {
	id         sbom.Identity
	state      State
	fixed      string
	speaker    string
	confidence string
}

func check(t *testing.T, r Record, cases ...want) {
	t.Helper()
	for _, c := range cases {
		v, _ := judged(t, r, c.id)
		if v.State != c.state || c.fixed != "" && v.Fixed != c.fixed || c.speaker != "" && v.Speaker != c.speaker || c.confidence != "" && v.Confidence != c.confidence ||
			(v.State == StateUnknown) != (v.Reason != "") {
			t.Errorf("%s, %s %s: %+v; want %s, fixed in %q, said by %q, %s", r.ID, c.id.Name, c.id.Version, v, c.state, c.fixed, c.speaker, c.confidence)
		}
	}
}

// Two entries, one of commits and one of versions; the default of the second is "affected".
func TestTrapDefaultStatusDecides(t *testing.T) {
	r := realCVE(t, "CVE-2024-36971")
	check(t, r,
		want{kernel("4.5.9"), StateClean, "", "Linux", ConfidenceRange},
		want{kernel("4.6"), StateAffected, "4.19.316", "Linux", ConfidenceRange},
		want{kernel("5.10.218"), StateAffected, "5.10.219", "", ""},
		want{kernel("5.10.219"), StateClean, "", "", ""},
		want{kernel("5.10.999"), StateClean, "", "", ""},
		want{kernel("5.11.5"), StateAffected, "5.15.161", "", ""}, // no stable branch of its own any more
		want{kernel("6.1.55-yocto-standard"), StateAffected, "6.1.94", "", ""},
		want{kernel("6.10-rc1"), StateAffected, "6.10", "", ""},
		want{kernel("6.10"), StateClean, "", "", ""},
		want{kernel("6.12.1"), StateClean, "", "", ""},
		want{kernel("a87cb3e48ee86d29868d3f59cfb9ce1a8fa63314"), StateAffected, "", "", ""}, // introduced it
		want{kernel("92f1655aa2b2294d0b49925f3b875a634bd3b59e"), StateClean, "", "", ""},    // fixed it
		want{kernel("0123456789abcdef0123456789abcdef01234567"), StateUnknown, "", "", ""},
	)
	if !slices.Equal(r.Files(), []string{"include/net/dst_ops.h", "include/net/sock.h", "net/ipv4/route.c", "net/ipv6/route.c", "net/xfrm/xfrm_policy.c"}) {
		t.Errorf("files %v", r.Files())
	}
	if s, ok := r.Score(); !ok || s.Base != 7.8 || s.By != "CISA-ADP" || r.SSVC == nil || r.SSVC.Exploitation != "active" || r.Exploited.IsZero() {
		t.Errorf("score %+v, SSVC %+v, exploited since %v", s, r.SSVC, r.Exploited)
	}
}

// The same kernel under seven names, and never by CPE or product.
func TestTrapKernelHasManyNames(t *testing.T) {
	for id, name := range map[string]string{
		"CVE-2024-36971": "Linux/Linux", "CVE-2024-1086": "Linux/Kernel", "CVE-2022-4696": "Linux/Linux Kernel", "CVE-2019-3016": "linux/linux_kernel",
		"CVE-2022-2586": "The Linux Kernel Organization/linux", "CVE-2022-0185": "n/a/kernel", "CVE-2022-38096": "Linux/kernel",
	} {
		r := realCVE(t, id)
		for _, c := range r.Claims() {
			if strings.HasPrefix(c.Name, "linux") && c.Space != sbom.SpaceKernel || strings.HasPrefix(c.Name, "kernel") {
				t.Errorf("%s: the kernel %s is looked up as %s %s", id, name, c.Space, c.Name)
			}
		}
		if _, ok := judged(t, r, kernel("5.4")); !ok {
			t.Errorf("%s: %s was not taken for the kernel", id, name)
		}
	}
	if isKernel("Red Hat", "Red Hat Enterprise Linux 8") || isKernel("redhat", "linux") || isKernel("google", "android") || isKernel("Linux", "linuxptp") {
		t.Error("something was taken for the kernel that is not")
	}
}

// "6.0.*" is the branch of 6.0, not all that begins with 6.
func TestTrapStarAfterZero(t *testing.T) {
	check(t, realCVE(t, "CVE-2022-48950"), want{kernel("6.0.13"), StateAffected, "6.0.14", "", ""}, want{kernel("6.0.14"), StateClean, "", "", ""},
		want{kernel("6.1-rc1"), StateAffected, "6.1", "", ""}, want{kernel("6.1"), StateClean, "", "", ""})
}

// kernel.org's records of today: semver, and the same ranges once more as CPE names, which do not decide.
func TestTrapKernelIsNotJudgedByCPE(t *testing.T) {
	r := fixture(t, "kernel.json")
	check(t, r, want{kernel("5.10.218"), StateAffected, "5.10.219", "Linux", ""}, want{kernel("5.10.219"), StateClean, "", "", ""}, want{kernel("6.10-rc3"), StateAffected, "6.10", "", ""},
		want{kernel("4.0"), StateClean, "", "", ""})
	if v, _ := judged(t, r, kernel("5.12")); v.State != StateAffected || len(v.Conditions) != 0 || !slices.Equal(r.Files(), []string{"net/lamp/core.c"}) {
		t.Errorf("%+v", v)
	}
	if len(r.Claims()) != 1 {
		t.Errorf("%d claims, want the kernel alone", len(r.Claims()))
	}
	only := fixture(t, "kernel-cpe.json") // where nothing else speaks, they do
	check(t, only, want{kernel("5.4"), StateAffected, "5.5", "CISA-ADP", ""}, want{kernel("5.5"), StateClean, "", "", ""})
}

func TestTrapKernelOfTypeCustom(t *testing.T) {
	r := realCVE(t, "CVE-2024-1086")
	check(t, r, want{kernel("3.14.79"), StateClean, "", "Google", ""}, want{kernel("3.15"), StateAffected, "6.8", "Google", ""},
		want{kernel("6.8-rc2"), StateAffected, "6.8", "", ""}, want{kernel("6.8"), StateClean, "", "", ""})
	if len(r.Files()) != 0 {
		t.Errorf("files %v", r.Files())
	}
}

func TestTrapEmptyRangeIsUnknown(t *testing.T) {
	for _, id := range []string{"CVE-2023-38545", "CVE-2023-38546"} {
		check(t, realCVE(t, id), want{named("curl", "8.3.0"), StateUnknown, "", "", ""}, want{named("curl", "8.4.0"), StateUnknown, "", "", ""})
	}
}

// What lies between the two ends of a range written backwards is unknown; elsewhere the record speaks.
func TestTrapRangeBackwards(t *testing.T) {
	check(t, realCVE(t, "CVE-2024-26794"), want{kernel("6.6.22"), StateUnknown, "", "", ""}, want{kernel("6.6.20"), StateClean, "", "", ""},
		want{kernel("5.10.1"), StateClean, "", "", ""})
}

func TestTrapRangeInProse(t *testing.T) {
	check(t, realCVE(t, "CVE-2021-23841"),
		want{named("openssl", "1.1.1i"), StateAffected, "1.1.1j", "openssl", ConfidenceProse}, want{named("openssl", "1.1.1"), StateAffected, "1.1.1j", "", ConfidenceProse},
		want{named("openssl", "1.1.1j"), StateClean, "", "", ConfidenceProse}, want{named("openssl", "1.0.2x"), StateAffected, "1.0.2y", "", ""},
		want{named("openssl", "1.0.2"), StateAffected, "1.0.2y", "", ""}, want{named("openssl", "3.0.0"), StateClean, "", "", ""})
	check(t, realCVE(t, "CVE-2024-47611"), want{named("xz", "5.6.2"), StateAffected, "5.6.3", "GitHub_M", ConfidenceProse}, want{named("xz", "5.6.3"), StateClean, "", "", ""})
	check(t, realCVE(t, "CVE-2019-1010023"), want{named("glibc", "2.38"), StateUnknown, "", "", ""}) // "current (At least as of 2018-02-16)"
	check(t, realCVE(t, "CVE-2019-3016"), want{kernel("5.5.1"), StateAffected, "", "oracle", ConfidenceProse}, want{kernel("4.9"), StateClean, "", "", ""})
}

func TestTrapProseThatIsNoRange(t *testing.T) {
	for text, n := range map[string]int{"< 5.6.3": 1, ">= 1.2, < 1.3": 1, "= 2.0": 1, "prior to 2.1": 1, "1.4 and earlier": 1, "4.10 to 5.6": 1, "Fixed in 7.83.1": 1,
		"< 5.6.3, < 6": 0, ">= next": 0, "prior to the fix": 0, "5.6 to 4.10": 0, "some versions before 2": 0, "8.4.0": 0, "< 1:2.0": 0, "Fixed in OpenSSL 1.1.1j (Affected 1.1.1-next)": 0, "": 0} {
		bands, ok := proseBands(text, "affected", true)
		if ok != (n > 0) || ok && len(bands) != n {
			t.Errorf("%q: %d ranges, %v", text, len(bands), ok)
		}
	}
	if _, ok := proseBands("Fixed in 7.83.1", "affected", false); ok {
		t.Error("a fix without a start was taken for a range although other branches stand beside it")
	}
}

func TestTrapOpenSSLLetters(t *testing.T) {
	for _, line := range [][]string{{"1.0.2", "1.0.2a", "1.0.2k", "1.0.2z", "1.0.2za", "1.0.2zk", "1.1.0-beta1", "1.1.0", "1.1.0l", "1.1.1-pre9", "1.1.1", "1.1.1w", "3.0.0-alpha1", "3.0.0-beta2", "3.0.0", "3.0.13"},
		{"7.2p2", "7.3p1", "9.5", "9.5p1", "9.6"}, {"4.6-rc1", "4.6-rc10", "4.6", "4.6.1", "4.19.316"}, {"2022.10-rc5", "2022.10", "2023.01"}, {"1.0_rc1", "1.0"}, {"6.0~rc1", "6.0"}, {"6.3+rc4", "6.3"}} {
		for i, a := range line {
			for j, b := range line {
				x, ok := parseUpstream(a, false)
				y, ok2 := parseUpstream(b, false)
				if c := x.compare(y); !ok || !ok2 || c != sign(i-j) {
					t.Errorf("%s against %s: %d (%v, %v)", a, b, c, ok, ok2)
				}
			}
		}
	}
	check(t, realCVE(t, "CVE-2024-5535"), want{named("openssl", "1.1.1w"), StateAffected, "1.1.1za", "openssl", ConfidenceLikely}, want{named("openssl", "1.1.1z"), StateAffected, "1.1.1za", "", ""},
		want{named("openssl", "1.1.1za"), StateClean, "", "", ""}, want{named("openssl", "1.0.2zj"), StateAffected, "1.0.2zk", "", ""})
}

func sign(n int) int { return max(-1, min(n, 1)) }

// "semver" is written for a Debian version, and for a tilde that the kernel itself does not write.
func TestTrapSemverThatIsNone(t *testing.T) {
	check(t, realCVE(t, "CVE-2024-5290"), want{named("wpa_supplicant", "2.10"), StateUnknown, "", "", ""})
	check(t, realCVE(t, "CVE-2022-2586"), want{kernel("5.10.100"), StateAffected, "6.0~rc1", "", ""}, want{kernel("6.0-rc1"), StateClean, "", "", ""}, want{kernel("6.0"), StateClean, "", "", ""})
}

// A fork bears the name of what it was forked from.
func TestTrapForkByNameAlone(t *testing.T) {
	r := realCVE(t, "CVE-2023-6992")
	if v, _ := judged(t, r, named("zlib", "1.2.13")); v.State != StateUnknown || !strings.Contains(v.Reason, "Cloudflare") {
		t.Errorf("%+v", v)
	}
	own := named("zlib", "1.2.13")
	own.Vendor = "zlib"
	check(t, r, want{own, StateClean, "", "", ""}, want{sbom.Identity{Space: sbom.SpaceGit, Name: "github.com/cloudflare/zlib", Version: "8352d108c05db1bdc5ac3bdf834dad641694c13c"}, StateClean, "", "", ""})
	r = fixture(t, "fork.json") // one that names versions
	fork := named("zlib", "1.2.12")
	fork.Vendor = "Example Forks"
	check(t, r, want{named("zlib", "1.2.12"), StateUnknown, "", "", ""}, want{named("zlib", "1.2.99"), StateClean, "", "", ""}, want{fork, StateAffected, "1.2.13", "", ""})
}

func TestWhoseProduct(t *testing.T) {
	for _, c := range []struct {
		vendor, product string
		want            whose
	}{
		{"curl", "curl", itsOwn}, {"haxx", "libcurl", itsOwn}, {"The curl project", "curl", itsOwn}, {"n/a", "curl", itsOwn}, {"", "anything", itsOwn}, {"wolfSSL Inc.", "wolfSSL", itsOwn}, {"Eclipse Foundation", "Mosquitto", itsOwn},
		{"Cloudflare", "zlib", aFork}, {"Red Hat", "glibc", aFork}, {"Canonical Ltd.", "wpa", aFork}, {"Fedora", "lamp", aFork}, {"Acme", "lamp", stranger}, {"Acme Lamp", "lamp", itsOwn}, {"ab", "abc", stranger},
	} {
		if got := belongs(c.vendor, c.product); got != c.want {
			t.Errorf("%s by %s: %d, want %d", c.product, c.vendor, got, c.want)
		}
	}
	for _, written := range []string{"n/a", "", " - ", "N/A", strings.Repeat("a", maxWord+1)} {
		if names := productNames(written); len(names) != 0 {
			t.Errorf("%.20q is looked up as %q", written, names)
		}
	}
	for written, want := range map[string][]string{"wpa_supplicant": {"wpa-supplicant", "wpa_supplicant", "wpasupplicant"}, "https://github.com/curl/curl.git": {"curl", "libcurl"}, "Mbed TLS": {"armmbedtls", "mbed tls", "mbed-tls", "mbed_tls", "mbedtls", "polarssl"}} {
		if names := productNames(written); !slices.Equal(names, want) {
			t.Errorf("%s is looked up as %q, want %q", written, names, want)
		}
	}
}

func TestTrapVendorAndProductNotGiven(t *testing.T) {
	r := realCVE(t, "CVE-2017-1000253")
	for _, c := range r.Claims() {
		if strings.Contains(c.Name, "n/a") || c.Name == "na" {
			t.Errorf("a claim about %q", c.Name)
		}
	}
	check(t, r, want{kernel("3.10.50"), StateAffected, "3.10.77", "CISA-ADP", ""}, want{kernel("4.1"), StateClean, "", "CISA-ADP", ""})
	check(t, realCVE(t, "CVE-2023-45853"), want{named("zlib", "1.2.13"), StateAffected, "1.3", "CISA-ADP", ConfidenceLikely}, want{cpe("zlib:zlib", "1.3"), StateClean, "", "", ""})
}

// The CNA speaks first; where it cannot be compared, CISA does.
func TestTrapWhichContainerSpoke(t *testing.T) {
	r := fixture(t, "both-containers.json")
	check(t, r, want{named("lampd", "1.5"), StateAffected, "2.0", "example-cna", ""}, want{named("lampd", "2.5"), StateClean, "", "example-cna", ""},
		want{sbom.Identity{Space: sbom.SpaceGit, Name: "github.com/example/lampctl", Version: "0123456789abcdef0123456789abcdef01234567"}, StateAffected, "", "example-cna", ConfidenceExact},
		want{named("lampctl", "1.5"), StateAffected, "1.6", "CISA-ADP", ""}, want{named("lampctl", "1.6"), StateClean, "", "CISA-ADP", ""})
}

func TestTrapGitThatNamesVersions(t *testing.T) { // Zephyr writes "git" and means its releases
	r := realCVE(t, "CVE-2023-5139")
	check(t, r, want{named("zephyr", "3.4.0"), StateAffected, "3.5", "zephyr", ""}, want{named("zephyr", "3.5.0"), StateClean, "", "", ""})
}

func TestTrapWithdrawnAndRejected(t *testing.T) {
	r := fixture(t, "rejected.json")
	if r.ID != "CVE-2026-10003" || r.Withdrawn.IsZero() || len(r.Claims()) != 0 || !strings.Contains(r.Details, "duplicate") {
		t.Errorf("%+v", r)
	}
	r = parsed(t, []byte(`{"id":"GO-1","withdrawn":"2024-01-01T00:00:00Z","affected":[{"package":{"ecosystem":"Go","name":"a.example/b"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"}]}]}]}`))
	if r.Withdrawn.IsZero() {
		t.Error("withdrawal was passed over")
	}
}

func TestTrapHeadersAndMovedFilesStayOpen(t *testing.T) {
	set := func(files ...string) map[string]bool {
		m := map[string]bool{}
		for _, f := range files {
			m[f] = true
		}
		return m
	}
	compiled := set("init/main.c", "net/ipv4/route.c", "fs/smb/client/connect.c", "drivers/net/loopback.c")
	tree := set("init/main.c", "net/ipv4/route.c", "fs/smb/client/connect.c", "drivers/net/loopback.c", "drivers/usb/main.c", "net/nfc/core.c", "fs/smb/client/transport.c")
	for _, c := range []struct {
		files  []string
		tree   map[string]bool
		closed bool
		say    string
	}{
		{nil, tree, false, "names no source files"},
		{[]string{"net/nfc/core.c"}, nil, true, "none of these"},
		{[]string{"net/nfc/core.c"}, tree, true, "none of these"},
		{[]string{"net/nfc/core.c", "net/ipv4/route.c"}, tree, false, "was compiled"},
		{[]string{"net/nfc/core.c", "include/net/sock.h"}, tree, false, "no list of compiled files would name"},
		{[]string{"net/nfc/nfc.h"}, nil, false, "no list of compiled files would name"},
		{[]string{"fs/cifs/connect.c"}, nil, false, "may have moved"},
		{[]string{"fs/cifs/transport.c"}, tree, false, "not in this kernel's tree"},
		{[]string{"drivers/usb/main.c"}, nil, false, "may have moved"},
		{[]string{"drivers/usb/main.c"}, tree, true, "none of these"},
		{[]string{"../net/nfc/core.c"}, nil, false, "not a path"},
		{[]string{"net/nfc/Kconfig"}, nil, false, "no list of compiled files would name"},
	} {
		if closed, why := Unbuilt(c.files, compiled, c.tree); closed != c.closed || !strings.Contains(why, c.say) {
			t.Errorf("%v: %v, %q; want %v, %q", c.files, closed, why, c.closed, c.say)
		}
	}
	if closed, _ := Unbuilt([]string{"net/nfc/core.c"}, nil, tree); closed {
		t.Error("closed without a list of compiled files")
	}
}
