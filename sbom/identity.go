// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"strings"

	"github.com/package-url/packageurl-go"
)

// ecosystems maps purl types of language packages to the names that OSV uses.
var ecosystems = map[string]string{
	"cargo": "crates.io", "composer": "Packagist", "gem": "RubyGems", "golang": "Go", "hex": "Hex", "maven": "Maven",
	"npm": "npm", "nuget": "NuGet", "pub": "Pub", "pypi": "PyPI",
}

// Identity is one name by which a component is looked up in records of vulnerabilities.
type Identity struct {
	Space   string // an OSV ecosystem ("Go", "npm", "Debian:12"), or one of the spaces below
	Name    string // folded: what records are indexed by
	Version string // decoded, comparable
	Vendor  string // SpaceProduct only; may be empty
}

// The spaces of names beside the ecosystems of packages.
const (
	SpaceCPE     = "cpe"     // Name "vendor:product" (lower case, CPE-unescaped), Version of the CPE name, or the component's where that is ANY or NA
	SpaceProduct = "product" // Name: the product in lower case ("curl"), Vendor: supplier if known
	SpaceGit     = "git"     // Name: "github.com/curl/curl" (no scheme, no .git, lower case), Version: the commit, 40 hex digits
	SpaceKernel  = "kernel"  // Name "linux": the Linux kernel however it is called; Version "6.1.55" or a commit
)

// identify fills what the component is matched by from its purl. A purl that cannot be read leaves it unmatched.
func (c *Component) identify() {
	c.Package, c.PackageVersion = c.Name, c.Version
	p, err := packageurl.FromString(c.PURL)
	if c.PURL == "" || err != nil {
		return
	}
	if p.Version != "" {
		c.PackageVersion = p.Version // syft writes the Go standard library as "go1.26.8" beside the purl's "1.26.8"
	}
	q := p.Qualifiers.Map()
	switch p.Type {
	case "deb", "apk":
		c.Ecosystem = suite(p.Namespace, q["distro"])
		c.Package = p.Name
		// Advisories name the source package; "upstream=glibc" or, with a version of its own, "upstream=gcc@12.2.0".
		if up := q["upstream"]; up != "" {
			name, version, versioned := strings.Cut(up, "@")
			c.Package = name
			if versioned && version != "" {
				c.PackageVersion = version
			}
		}
		return
	case "maven":
		c.Package = p.Namespace + ":" + p.Name
	case "golang":
		c.Package = join(p.Namespace, p.Name)
		if strings.EqualFold(c.Package, c.Name) {
			c.Package = c.Name // the purl folds case, OSV does not: show the original
		}
		c.PackageVersion = strings.TrimPrefix(strings.TrimPrefix(c.PackageVersion, "go"), "v")
	default:
		c.Package = join(p.Namespace, p.Name)
	}
	c.Ecosystem = ecosystems[p.Type]
}

func join(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

// suite names the distribution's release as OSV does, or "" where the purl does not say which release it is.
func suite(vendor, distro string) string {
	_, version, ok := strings.Cut(distro, "-")
	if !ok || version == "" || version[0] < '0' || version[0] > '9' {
		return ""
	}
	switch vendor {
	case "debian":
		major, _, _ := strings.Cut(version, ".")
		return "Debian:" + major
	case "ubuntu":
		return "Ubuntu:" + version
	case "alpine":
		parts := strings.SplitN(version, ".", 3)
		if len(parts) < 2 {
			return ""
		}
		return "Alpine:v" + parts[0] + "." + parts[1]
	}
	return ""
}

// Fold is the spelling by which package names of an ecosystem are compared: Go and the case-insensitive registries in
// lower case, PyPI by PEP 503, all others as they are.
func Fold(ecosystem, name string) string {
	switch ecosystem {
	case "Go", "Packagist", "NuGet", "Hex":
		return strings.ToLower(name)
	case "PyPI":
		fields := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return r == '-' || r == '_' || r == '.' })
		return strings.Join(fields, "-")
	}
	return name
}
