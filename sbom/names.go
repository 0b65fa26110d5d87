// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	_ "embed"
	"net/url"
	"slices"
	"strings"
)

// distributions are operating systems that are also the root of their packages.
var distributions = []string{"alma", "almalinux", "alpine", "alpine linux", "amzn", "arch", "centos", "chainguard", "debian", "debian gnu/linux", "fedora", "ol",
	"opensuse", "opensuse-leap", "opensuse-tumbleweed", "photon", "raspbian", "redhat", "rhel", "rocky", "sles", "ubuntu", "wolfi"}

// suite names the release of a distribution as OSV does, or "" where the purl does not say which release it is. vendor is
// the purl's namespace, distro its qualifier ("debian-12", "rhel-9.4"), codename Debian's and Ubuntu's word for it.
func suite(kind, vendor, distro, codename string) string {
	id, version, ok := strings.Cut(distro, "-")
	for _, long := range []string{"opensuse-leap", "opensuse-tumbleweed", "red-hat"} { // ids that hold a dash themselves
		if rest, found := strings.CutPrefix(distro, long); found {
			id, version, ok = long, strings.TrimPrefix(rest, "-"), true
		}
	}
	if vendor == "" {
		vendor = id
	}
	switch vendor { // rolling: there is only one
	case "wolfi":
		return "Wolfi"
	case "chainguard":
		return "Chainguard"
	case "opensuse":
		if strings.HasPrefix(distro, "opensuse-tumbleweed") {
			return "openSUSE:Tumbleweed"
		}
	}
	if (!ok || version == "") && kind == "deb" {
		version = codenames[firstOf(codename, distro)]
	}
	if version == "" || version[0] < '0' || version[0] > '9' {
		return ""
	}
	parts := strings.Split(version, ".")
	switch vendor {
	case "debian":
		return "Debian:" + parts[0]
	case "ubuntu":
		if len(parts) < 2 {
			return ""
		}
		name := "Ubuntu:" + parts[0] + "." + parts[1]
		if parts[1] == "04" && parts[0] >= "14" && (parts[0][len(parts[0])-1]-'0')%2 == 0 {
			name += ":LTS" // every April of an even year
		}
		return name
	case "alpine":
		if len(parts) < 2 {
			return ""
		}
		return "Alpine:v" + parts[0] + "." + parts[1]
	case "rocky", "rocky-linux", "rockylinux":
		return "Rocky Linux:" + parts[0]
	case "alma", "almalinux":
		return "AlmaLinux:" + parts[0]
	case "redhat", "rhel":
		return "Red Hat:enterprise_linux:" + parts[0]
	case "opensuse", "opensuse-leap":
		return "openSUSE:Leap " + version
	case "suse", "sles":
		return "SUSE:Linux Enterprise Server " + strings.Replace(version, ".", " SP", 1)
	case "mageia":
		return "Mageia:" + parts[0]
	case "photon":
		return "Photon OS:" + version
	case "openeuler":
		return "openEuler:" + version
	}
	return ""
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// codenames are the words by which tools name a release where they know no number.
var codenames = map[string]string{
	"buster": "10", "bullseye": "11", "bookworm": "12", "trixie": "13", "forky": "14",
	"bionic": "18.04", "focal": "20.04", "jammy": "22.04", "noble": "24.04",
}

//go:embed data/kernel-names.txt
var kernelNames string

var kernelIs, kernelIsNot = func() (is, isNot []string) {
	for line := range strings.Lines(kernelNames) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '!':
			isNot = append(isNot, line[1:])
		default:
			is = append(is, line)
		}
	}
	return is, isNot
}()

// isKernelName reports whether a component of this name is the Linux kernel.
func isKernelName(name string) bool {
	name = strings.ToLower(name)
	in := func(list []string) bool {
		return slices.ContainsFunc(list, func(entry string) bool {
			if prefix, ok := strings.CutSuffix(entry, "*"); ok {
				return strings.HasPrefix(name, prefix)
			}
			return name == entry
		})
	}
	return in(kernelIs) && !in(kernelIsNot)
}

// cpeName is what a CPE name says about a product, in lower case and without its escapes. version is empty where the
// name says ANY or NA.
type cpeName struct{ vendor, product, version string }

// readCPE reads the formatted string of CPE 2.3 (NISTIR 7695, 6.2) and the URI of CPE 2.2. A name that leaves vendor or
// product open names nothing.
func readCPE(s string) (cpeName, bool) {
	var f []string
	switch {
	case strings.HasPrefix(s, "cpe:2.3:"):
		f = splitCPE(s[len("cpe:2.3:"):])
	case strings.HasPrefix(s, "cpe:/"):
		f = strings.Split(s[len("cpe:/"):], ":")
		for i := range f {
			if u, err := url.PathUnescape(f[i]); err == nil {
				f[i] = u
			}
		}
	}
	f = append(f, "", "", "", "", "")
	open := func(v string) bool { return v == "" || v == "*" || v == "-" }
	if open(f[1]) || open(f[2]) || len(f[0]) != 1 {
		return cpeName{}, false
	}
	n := cpeName{vendor: strings.ToLower(f[1]), product: strings.ToLower(f[2])}
	if !open(f[3]) {
		n.version = f[3]
		if !open(f[4]) {
			n.version += f[4] // an update: ntp 4.2.8 p15, as everybody writes it
		}
	}
	return n, true
}

// splitCPE divides at colons that are not escaped and removes the escapes.
func splitCPE(s string) []string {
	var out []string
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case s[i] == ':':
			out = append(out, b.String())
			b.Reset()
		default:
			b.WriteByte(s[i])
		}
	}
	return append(out, b.String())
}

// repository reads "git+https://host/path.git@commit#subpath" and its many relatives (SPDX download locations, VCS links,
// "git@host:path") and returns "host/path" in lower case, with the commit or tag behind the @, if there is one.
func repository(s string) (repo, at string) {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "#")
	for _, vcs := range []string{"hg+", "svn+", "bzr+"} {
		if strings.HasPrefix(s, vcs) {
			return "", ""
		}
	}
	s = strings.TrimPrefix(s, "git+")
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok { // scp's form
		host, path, scp := strings.Cut(s, ":")
		if !scp || !strings.Contains(host, "@") {
			return "", ""
		}
		scheme, rest = "ssh", host+"/"+path
	}
	if !slices.Contains([]string{"git", "http", "https", "ssh"}, scheme) {
		return "", ""
	}
	host, path, ok := strings.Cut(rest, "/")
	host = host[strings.LastIndexByte(host, '@')+1:]
	host, _, _ = strings.Cut(host, ":")
	path, at, _ = strings.Cut(path, "@")
	path, _, _ = strings.Cut(path, "?")
	path = strings.TrimSuffix(strings.Trim(path, "/"), ".git")
	if !ok || host == "" || path == "" {
		return "", ""
	}
	return strings.ToLower(strings.TrimPrefix(host, "www.") + "/" + path), strings.ToLower(at)
}
