// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

func fixture(t *testing.T, name string) Bill {
	t.Helper()
	doc, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Parse(doc)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return b
}

// identities are the names of every component, one line each.
func identities(b Bill) []string {
	var out []string
	for _, c := range b.Components {
		line := c.Name + ":"
		for _, id := range c.Identities {
			line += " " + id.Space + "=" + id.Vendor + "/" + id.Name + "@" + id.Version
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return out
}

func TestFirmwareIsMatchedWithoutAPackageRegistry(t *testing.T) {
	const sha = "0123456789abcdef0123456789abcdef01234567"
	for name, want := range map[string][]string{
		"buildroot.cdx.json": {
			"busybox: cpe=/busybox:busybox@1.36.1 product=busybox/busybox@1.36.1",
			"lampd: git=/git.lamp.example/lampd@" + sha + " product=lamp gmbh/lampd@1.0",
			"libcurl: cpe=/haxx:libcurl@8.4.0 product=haxx/libcurl@8.4.0",
			"linux: kernel=/linux@6.1.90",
			"ntp: cpe=/ntp:ntp@4.2.8p15 product=ntp/ntp@4.2.8p15",
			"skeleton-init-sysv:",
		},
		"zephyr.spdx": {
			"mbedtls: cpe=/arm:mbed_tls@3.5.2 product=arm/mbed_tls@3.5.2",
		},
		"yocto.spdx3.json": {
			"busybox: cpe=/busybox:busybox@1.36.1 product=busybox/busybox@1.36.1",
			"curl: product=/curl@8.7.1",
			"linux-yocto: kernel=/linux@6.6.23",
		},
	} {
		if got := identities(fixture(t, name)); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
			t.Errorf("%s:\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	zephyr := fixture(t, "zephyr.spdx").Root
	if got := fmt.Sprint(zephyr.Identities); got != "[{cpe zephyrproject:zephyr 3.6.0 } {git github.com/zephyrproject-rtos/zephyr "+sha+" } {product zephyr 3.6.0 zephyrproject}]" {
		t.Errorf("zephyr %s", got)
	}
}

func TestEveryFormatKeepsWhatItSays(t *testing.T) {
	b := fixture(t, "buildroot.cdx.json")
	part := func(b Bill, name string) Component {
		t.Helper()
		i := slices.IndexFunc(b.Components, func(c Component) bool { return c.Name == name })
		if i < 0 {
			t.Fatalf("no part %s", name)
		}
		return b.Components[i]
	}
	if got := part(b, "busybox").Licence(); got != "GPL-2.0-only AND bzip2-1.0.4" {
		t.Errorf("licence %q", got)
	}
	lampd := part(b, "lampd")
	if lampd.Supplier != (Supplier{"Lamp GmbH", "https://lamp.example"}) || len(lampd.VCS) != 1 || len(lampd.Commits) != 1 {
		t.Errorf("lampd %+v", lampd)
	}
	if len(b.Relations) != 7 || b.Relations[6] != (Relation{"lampd", DependsOn, "libcurl"}) || b.URI == "" || b.Complete != "" {
		t.Errorf("relations %v, uri %q, complete %q", b.Relations, b.URI, b.Complete)
	}

	z := fixture(t, "zephyr.spdx")
	if z.CreatorContact != "security@lamp.example" || z.Complete != "complete" || len(z.Files) != 1 || len(z.Relations) != 2 || z.Root.Licence() != "Apache-2.0" {
		t.Errorf("zephyr %+v", z)
	}
	if m := part(z, "mbedtls"); m.Licence() != "Mbed licence" || m.spdxLicensed() || m.Supplier.Name != "Arm Limited" {
		t.Errorf("mbedtls %+v", m)
	}

	y := fixture(t, "yocto.spdx3.json")
	box := part(y, "busybox")
	if box.Licence() != "GPL-2.0-only" || box.BSI != (BSIFacts{"busybox.nosuid", "executable", "archive", "structured"}) || !box.has("SHA-512") ||
		box.Supplier != (Supplier{"Lamp GmbH", "security@lamp.example"}) || len(box.Links) != 1 || box.Links[0].Kind != "source-distribution" {
		t.Errorf("busybox %+v; a concluded licence goes before a declared one", box)
	}
	if y.Vulnerabilities != 1 || y.Complete != "complete" || !y.Names(image) || y.Root == nil || y.CreatorContact != "security@lamp.example" {
		t.Errorf("yocto %+v", y)
	}
}

func TestCPENames(t *testing.T) {
	for name, want := range map[string]string{
		"cpe:2.3:a:haxx:curl:8.4.0:*:*:*:*:*:*:*":      "haxx curl 8.4.0",
		`cpe:2.3:a:Gnu:lib\:c\+\+:1\.0:*:*:*:*:*:*:*`:  "gnu lib:c++ 1.0",
		"cpe:2.3:a:ntp:ntp:4.2.8:p15:*:*:*:*:*:*":      "ntp ntp 4.2.8p15",
		"cpe:2.3:o:linux:linux_kernel:-:*:*:*:*:*:*:*": "linux linux_kernel ",
		"cpe:/a:openssl:openssl:1.1.1j":                "openssl openssl 1.1.1j",
		"cpe:/a:x:a%26b":                               "x a&b ",
		"cpe:2.3:a:*:curl:8.4.0:*:*:*:*:*:*:*":         "",
		"cpe:2.3:a:haxx:-:8.4.0":                       "",
		"cpe:2.3:*:busybox:busybox:1.36.1":             "busybox busybox 1.36.1",
		"cpe:2.3":                                      "",
		"":                                             "",
	} {
		n, ok := readCPE(name)
		got := ""
		if ok {
			got = n.vendor + " " + n.product + " " + n.version
		}
		if got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func TestRepositories(t *testing.T) {
	for place, want := range map[string]string{
		"git+https://github.com/Curl/curl.git@ABCDEF#src": "github.com/curl/curl abcdef",
		"git@github.com:curl/curl.git":                    "github.com/curl/curl ",
		"ssh://git@git.example:2222/a/b.git":              "git.example/a/b ",
		"git://www.kernel.org/linux.git/":                 "kernel.org/linux ",
		"https://user:pw@gitlab.com/a/b?ref=x":            "gitlab.com/a/b ",
		"hg+https://hg.example/a":                         " ",
		"https://example.com":                             " ",
		"NOASSERTION":                                     " ",
		"file:///etc/passwd":                              " ",
	} {
		repo, at := repository(place)
		if got := repo + " " + at; got != want {
			t.Errorf("%q: %q, want %q", place, got, want)
		}
	}
}

func TestTheKernelByItsManyNames(t *testing.T) {
	for name, want := range map[string]bool{
		"linux": true, "Linux": true, "linux-yocto": true, "linux-yocto-rt": true, "linux-raspberrypi": true, "linux_kernel": true, "linux-imx": true,
		"linux-firmware": false, "linux-libc-headers": false, "linux-pam": false, "linux-tools-perf": false, "linuxptp": false, "util-linux": false, "linux-imx-headers": false, "": false,
	} {
		if isKernelName(name) != want {
			t.Errorf("%q: %v, want %v", name, !want, want)
		}
	}
	for version, want := range map[string]string{
		"6.1.55": "6.1.55", "6.6.23+git0+b2d6_5bd3-r0": "6.6.23", "v5.10-rc3": "5.10-rc3", "6.1.55-yocto-standard": "6.1.55", "main": "",
		"0123456789abcdef0123456789abcdef01234567": "0123456789abcdef0123456789abcdef01234567",
	} {
		c := Component{Name: "linux", Version: version, Type: "operating-system"}
		c.identify()
		got := ""
		for _, id := range c.Identities {
			got += id.Version
		}
		if got != want {
			t.Errorf("%q: %q, want %q", version, got, want)
		}
	}
}

// TestDistributionsAreNamedAsOSVDoes holds the purls of distributions against the names of OSV's ecosystems.
func TestDistributionsAreNamedAsOSVDoes(t *testing.T) {
	for purl, want := range map[string]string{
		"pkg:deb/debian/a@1?distro=debian-12.5":                    "Debian:12",
		"pkg:deb/debian/a@1?distro=bookworm":                       "Debian:12",
		"pkg:deb/ubuntu/a@1?distro=ubuntu-22.04":                   "Ubuntu:22.04:LTS",
		"pkg:deb/ubuntu/a@1?distro=ubuntu-23.10":                   "Ubuntu:23.10",
		"pkg:apk/alpine/a@1-r0?distro=alpine-3.20.1":               "Alpine:v3.20",
		"pkg:apk/alpine/a@1-r0?distro=alpine":                      "",
		"pkg:apk/wolfi/a@1-r0?distro=wolfi-20230201":               "Wolfi",
		"pkg:apk/chainguard/a@1-r0":                                "Chainguard",
		"pkg:rpm/rocky/a@1-1.el9?distro=rocky-9.4":                 "Rocky Linux:9",
		"pkg:rpm/almalinux/a@1-1.el8?distro=almalinux-8.10":        "AlmaLinux:8",
		"pkg:rpm/redhat/a@1-1.el9?distro=rhel-9.4":                 "Red Hat:enterprise_linux:9",
		"pkg:rpm/opensuse/a@1-1?distro=opensuse-leap-15.6":         "openSUSE:Leap 15.6",
		"pkg:rpm/opensuse/a@1-1?distro=opensuse-tumbleweed-202611": "openSUSE:Tumbleweed",
		"pkg:rpm/suse/a@1-1?distro=sles-15.5":                      "SUSE:Linux Enterprise Server 15 SP5",
		"pkg:rpm/mageia/a@1-1?distro=mageia-9":                     "Mageia:9",
		"pkg:rpm/photon/a@1-1?distro=photon-4.0":                   "Photon OS:4.0",
		"pkg:rpm/fedora/a@1-1?distro=fedora-40":                    "", // OSV has none
		"pkg:deb/debian/a@1":                                       "",
	} {
		c := Component{Name: "a", Version: "1", PURL: purl, CPE: "cpe:2.3:a:a:a:1:*:*:*:*:*:*:*"}
		c.identify()
		if c.Ecosystem != want || (want != "") != c.Matchable() {
			t.Errorf("%s: %q, want %q; identities %v", purl, c.Ecosystem, want, c.Identities)
		}
	}
	epoch := Component{Name: "a", PURL: "pkg:rpm/redhat/a@1.2-3.el9?distro=rhel-9.4&epoch=1&upstream=src-1.2-3.el9.src.rpm"}
	if epoch.identify(); epoch.PackageVersion != "1:1.2-3.el9" || epoch.Package != "a" {
		t.Errorf("an rpm's epoch: %+v", epoch)
	}
}
