// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"github.com/package-url/packageurl-go"
)

// Identity is one name by which a component is looked up in records of vulnerabilities.
type Identity struct {
	Space   string `json:"space"` // an OSV ecosystem ("Go", "npm", "Debian:12"), or one of the spaces below
	Name    string `json:"name"`  // folded: what records are indexed by
	Version string `json:"version"`
	Vendor  string `json:"vendor,omitempty"` // SpaceProduct only; may be empty
}

// The spaces that are no ecosystem of packages.
const (
	SpaceCPE     = "cpe"     // Name "vendor:product", unescaped; Version of the CPE name, or the component's where that is ANY or NA
	SpaceProduct = "product" // Name: the product ("curl"); Vendor: who makes it, if known
	SpaceGit     = "git"     // Name "github.com/curl/curl"; Version: the commit, 40 hex digits
	SpaceKernel  = "kernel"  // Name "linux", however it is called; Version "6.1.55", or a commit
)

// Package reports whether the identity is a package of an ecosystem: the only one its component then has.
func (id Identity) Package() bool {
	switch id.Space {
	case SpaceCPE, SpaceProduct, SpaceGit, SpaceKernel:
		return false
	}
	return id.Space != ""
}

// ecosystems maps purl types of language packages to the names that OSV uses.
var ecosystems = map[string]string{
	"bitnami": "Bitnami", "cargo": "crates.io", "composer": "Packagist", "cran": "CRAN", "gem": "RubyGems", "githubactions": "GitHub Actions",
	"golang": "Go", "hackage": "Hackage", "hex": "Hex", "maven": "Maven", "npm": "npm", "nuget": "NuGet", "pub": "Pub", "pypi": "PyPI",
	"swift": "SwiftURL",
}

// identify fills what the component is matched by. A package of an ecosystem is that and nothing else: a distribution's
// package is never compared with its upstream's names, and a CPE name that a generator guessed beside a purl is noise.
// All other components get every name that can be read. Without a version nothing can be compared.
func (c *Component) identify() {
	c.Package, c.PackageVersion, c.Identities = c.Name, c.Version, nil
	p, err := packageurl.FromString(c.PURL)
	if c.PURL == "" || err != nil {
		p = packageurl.PackageURL{}
	}
	if p.Version != "" {
		c.PackageVersion = p.Version // syft writes the Go standard library as "go1.26.8" beside the purl's "1.26.8"
	}
	packaged := c.identifyPackage(p)
	switch {
	case c.Ecosystem != "" && c.PackageVersion != "":
		c.add(Identity{Space: c.Ecosystem, Name: Fold(c.Ecosystem, c.Package), Version: c.PackageVersion})
	case packaged || c.distribution(): // of an unknown suite or version: nothing can be said
	case c.kernel(p):
	default:
		c.identifyUpstream(p)
	}
	slices.SortFunc(c.Identities, compareIdentity)
}

func compareIdentity(a, b Identity) int {
	return cmp.Or(strings.Compare(a.Space, b.Space), strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version), strings.Compare(a.Vendor, b.Vendor))
}

func (c *Component) add(id Identity) {
	if id.Name != "" && id.Version != "" && !slices.Contains(c.Identities, id) {
		c.Identities = append(c.Identities, id)
	}
}

// identifyPackage reads a purl of a language's or a distribution's registry and says whether it is one.
func (c *Component) identifyPackage(p packageurl.PackageURL) bool {
	q := p.Qualifiers.Map()
	switch p.Type {
	case "deb", "apk", "rpm":
		c.Ecosystem = suite(p.Type, p.Namespace, q["distro"], q["distro_name"])
		c.Package = p.Name
		if p.Type == "rpm" && q["epoch"] != "" && q["epoch"] != "0" && !strings.Contains(c.PackageVersion, ":") {
			c.PackageVersion = q["epoch"] + ":" + c.PackageVersion
		}
		c.sourcePackage(p.Type, q["upstream"])
		return true
	case "maven":
		c.Package = p.Namespace + ":" + p.Name
	case "golang":
		c.Package = join(p.Namespace, p.Name)
		if strings.EqualFold(c.Package, c.Name) {
			c.Package = c.Name // the purl folds case, OSV does not: show the original
		}
		c.PackageVersion = strings.TrimPrefix(strings.TrimPrefix(c.PackageVersion, "go"), "v")
	case "":
		return false
	default:
		c.Package = join(p.Namespace, p.Name)
	}
	c.Ecosystem = ecosystems[p.Type]
	return c.Ecosystem != ""
}

// sourcePackage follows the "upstream" of a purl where advisories name the source package: "glibc" or, with a version of
// its own, "gcc@12.2.0". An rpm's upstream is the file name of a source package, and its advisories name binaries.
func (c *Component) sourcePackage(kind, upstream string) {
	if upstream == "" || kind == "rpm" {
		return
	}
	name, version, versioned := strings.Cut(upstream, "@")
	c.Package = name
	if versioned && version != "" {
		c.PackageVersion = version
	}
}

// distribution reports an operating system named as a whole, "debian 12": its packages are listed beside it, and the
// CPE names of a distribution stand in records about all of them.
func (c *Component) distribution() bool {
	return c.Type == "operating-system" && slices.Contains(distributions, strings.ToLower(c.Name))
}

// kernel gives the Linux kernel its one identity: version, commit or both. It is never compared by CPE or product.
func (c *Component) kernel(p packageurl.PackageURL) bool {
	names := []string{c.Name, p.Name}
	isKernel := false
	for _, cpe := range c.cpes() {
		if n, ok := readCPE(cpe); ok && n.product == "linux_kernel" {
			isKernel, c.PackageVersion = true, cmp.Or(n.version, c.PackageVersion)
		}
	}
	isKernel = isKernel || slices.ContainsFunc(names, isKernelName)
	if !isKernel || !c.program() {
		return false
	}
	if v := kernelVersion.FindString(strings.TrimPrefix(c.PackageVersion, "v")); v != "" {
		c.add(Identity{Space: SpaceKernel, Name: "linux", Version: v})
	}
	for _, g := range c.commits(p) {
		c.add(Identity{Space: SpaceKernel, Name: "linux", Version: g.Version})
	}
	if commit.MatchString(c.PackageVersion) {
		c.add(Identity{Space: SpaceKernel, Name: "linux", Version: strings.ToLower(c.PackageVersion)})
	}
	return true
}

var (
	// What upstream calls a version, before what a layer appends: "6.1.55-yocto-standard", "6.6.23+git0+abc".
	kernelVersion = regexp.MustCompile(`^\d+\.\d+(\.\d+)?(-rc\d+)?`)
	commit        = regexp.MustCompile(`^[0-9a-fA-F]{40}$`)
	// What Yocto appends to upstream's version: its revision and the state of a repository.
	recipeSuffix = regexp.MustCompile(`(\+git.*|\+AUTOINC.*)?(-r\d+(\.\d+)*)?$`)
	tagPrefix    = regexp.MustCompile(`^[vV](\d)`)
)

// identifyUpstream collects the names of software that comes from no package registry: Yocto, Buildroot, Zephyr, copied sources.
func (c *Component) identifyUpstream(p packageurl.PackageURL) {
	if commit.MatchString(c.PackageVersion) { // a tag or a commit: the version stands elsewhere, or nowhere
		c.PackageVersion = ""
		if !commit.MatchString(c.Version) {
			c.PackageVersion = c.Version
		}
	}
	version := tagPrefix.ReplaceAllString(recipeSuffix.ReplaceAllString(c.PackageVersion, ""), "$1")
	for _, g := range c.commits(p) {
		c.add(g)
	}
	for _, name := range c.cpes() {
		n, ok := readCPE(name)
		if !ok {
			continue
		}
		v := cmp.Or(n.version, version)
		c.add(Identity{Space: SpaceCPE, Name: n.vendor + ":" + n.product, Version: v})
		c.add(Identity{Space: SpaceProduct, Name: n.product, Version: v, Vendor: n.vendor})
	}
	if !c.program() || slices.ContainsFunc(c.Identities, func(id Identity) bool { return id.Space == SpaceProduct }) {
		return // a CPE name says more exactly which product it is
	}
	vendor, name := strings.ToLower(c.Supplier.Name), strings.ToLower(cmp.Or(p.Name, c.bareName()))
	if slices.Contains([]string{"github", "gitlab", "bitbucket"}, p.Type) {
		vendor = strings.ToLower(p.Namespace)
	} else if p.Type == "" && c.root {
		return // the product itself under its own name: only what it states as purl or CPE
	}
	c.add(Identity{Space: SpaceProduct, Name: name, Version: version, Vendor: vendor})
}

func (c *Component) bareName() string { return c.Name[strings.LastIndexByte(c.Name, '/')+1:] }

// program reports whether a component of this type is something that records of software speak about.
func (c *Component) program() bool {
	switch strings.ReplaceAll(strings.ToLower(c.Type), "_", "-") {
	case "", "application", "framework", "library", "platform", "firmware", "device-driver", "operating-system", "operatingsystem", "devicedriver",
		"source", "install", "module", "executable", "archive", "other":
		return true
	}
	return false
}

func (c *Component) cpes() []string {
	if c.CPE == "" {
		return nil
	}
	return append([]string{c.CPE}, c.MoreCPEs...)
}

// commits reads the repositories and the commit that the component was built from.
func (c *Component) commits(p packageurl.PackageURL) []Identity {
	var out []Identity
	places := slices.Clone(c.VCS)
	if u := p.Qualifiers.Map()["vcs_url"]; u != "" {
		places = append(places, u)
	}
	for _, place := range places {
		repo, at := repository(place)
		if at == "" {
			at = strings.ToLower(c.Version)
		}
		if repo != "" && commit.MatchString(at) {
			out = append(out, Identity{Space: SpaceGit, Name: repo, Version: at})
		}
	}
	host := map[string]string{"github": "github.com", "gitlab": "gitlab.com", "bitbucket": "bitbucket.org"}[p.Type]
	if v := strings.ToLower(p.Version); host != "" && commit.MatchString(v) {
		out = append(out, Identity{Space: SpaceGit, Name: strings.ToLower(host + "/" + join(p.Namespace, p.Name)), Version: v})
	}
	return out
}

func join(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

// Fold is the spelling by which names are compared: Go and the case-insensitive registries in lower case, PyPI by
// PEP 503, the spaces that are no registry in lower case, all others as they are.
func Fold(space, name string) string {
	switch space {
	case "Go", "Packagist", "NuGet", "Hex", "SwiftURL", "GitHub Actions", SpaceCPE, SpaceProduct, SpaceGit, SpaceKernel:
		return strings.ToLower(name)
	case "PyPI":
		fields := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return r == '-' || r == '_' || r == '.' })
		return strings.Join(fields, "-")
	}
	return name
}
