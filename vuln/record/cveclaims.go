// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/sbom"
)

// cveClaim is what a record of the CVE List says about one name: its authors in their order, the CNA first.
type cveClaim struct {
	Authors []author `json:"authors"`
}

// author is one container, cut to what it says about the name.
type author struct {
	Name    string        `json:"name"`
	CNA     bool          `json:"cna,omitempty"`
	Entries []cveAffected `json:"entries,omitempty"`
	Applies []applicable  `json:"applies,omitempty"`
}

type claimKey struct{ space, name string }

func (k claimKey) compare(other claimKey) int {
	return cmp.Or(strings.Compare(k.space, other.space), strings.Compare(k.name, other.name))
}

// cveClaims sorts what the authors say by the names that components are looked up by. The kernel is looked up as the
// kernel only, never by CPE or product; a package of a language's registry is the business of OSV records.
func (r *Record) cveClaims() []Claim {
	byName := map[claimKey]*cveClaim{}
	about := func(space, name string, i int) *author {
		k := claimKey{space, name}
		if byName[k] == nil {
			byName[k] = &cveClaim{}
		}
		c := byName[k]
		speaker := r.containers[i].Provider.Name
		if n := len(c.Authors); n == 0 || c.Authors[n-1].Name != speaker || c.Authors[n-1].CNA != (i == 0) {
			c.Authors = append(c.Authors, author{Name: speaker, CNA: i == 0})
		}
		return &c.Authors[len(c.Authors)-1]
	}
	for i, c := range r.containers {
		for _, a := range c.Affected {
			criteria := a.criteria()
			for _, k := range a.names(criteria) {
				entry := a
				entry.Files, entry.Repo = nil, ""
				entry.CPEs = nil
				if k.space == sbom.SpaceCPE {
					entry.CPEs = criteria[k.name]
				}
				w := about(k.space, k.name, i)
				w.Entries = append(w.Entries, entry)
			}
		}
		for _, a := range c.Applies {
			cut := a.byName()
			for _, name := range slices.Sorted(maps.Keys(cut)) {
				k := claimKey{sbom.SpaceCPE, name}
				if vendor, product, _ := strings.Cut(name, ":"); isKernel(vendor, product) {
					k = claimKey{sbom.SpaceKernel, kernelName}
				}
				w := about(k.space, k.name, i)
				w.Applies = append(w.Applies, cut[name])
			}
		}
	}
	var out []Claim
	for _, k := range slices.SortedFunc(maps.Keys(byName), claimKey.compare) {
		out = append(out, body{CVE: byName[k], Commits: r.commitsOf(k.space, k.name)}.claim(k.space, k.name))
	}
	return out
}

// registries hold packages of languages; a name there is not the name of a product.
var registries = []string{"npmjs", "pypi.org", "rubygems", "crates.io", "maven", "nuget", "packagist", "pkg.go.dev", "hex.pm", "pub.dev", "wordpress", "cran."}

// criteria are the entry's CPE names by what components are looked up by.
func (a cveAffected) criteria() map[string][]string {
	out := map[string][]string{}
	for _, text := range a.CPEs {
		if n, ok := parseCPE(text); ok && n.name() != "" {
			out[n.name()] = append(out[n.name()], text)
		}
	}
	return out
}

// names are all names under which components may be looked up that the entry speaks about. The kernel's CPE name beside
// another product says where that runs: it makes the entry one about the kernel only where no product is named.
func (a cveAffected) names(criteria map[string][]string) []claimKey {
	var out []claimKey
	product := foldName(a.Product)
	kernel := isKernel(a.Vendor, a.Product)
	for name := range criteria {
		vendor, of, _ := strings.Cut(name, ":")
		switch {
		case isKernel(vendor, of):
			kernel = kernel || nameless(product) || strings.Contains(product, "linux") && !isDistributor(a.Vendor)
		case isDistributor(vendor) && !nameless(product) && !alike(product, foldName(of)): // the distribution's, beside a package inside it
		default:
			out = append(out, claimKey{sbom.SpaceCPE, name})
		}
	}
	registry := slices.ContainsFunc(registries, func(s string) bool { return strings.Contains(strings.ToLower(a.Collection), s) })
	kind, path, _ := strings.Cut(strings.TrimPrefix(strings.ToLower(a.PURL), "pkg:"), "/")
	if host := map[string]string{"github": "github.com", "gitlab": "gitlab.com", "bitbucket": "bitbucket.org"}[kind]; host != "" {
		path, _, _ = strings.Cut(path, "?")
		out = append(out, claimKey{sbom.SpaceGit, host + "/" + path})
	} else if kind != "" && kind != "generic" {
		registry = true
	}
	if kernel {
		return []claimKey{{sbom.SpaceKernel, kernelName}}
	}
	if repo := repository(a.Repo); repo != "" && !strings.HasPrefix(repo, "git.kernel.org/") {
		out = append(out, claimKey{sbom.SpaceGit, repo})
	}
	if !registry {
		for _, written := range []string{a.Product, a.Package} {
			for _, name := range productNames(written) {
				out = append(out, claimKey{sbom.SpaceProduct, name})
			}
		}
	}
	slices.SortFunc(out, claimKey.compare)
	return slices.Compact(out)
}

// maxConditions is how many other names a statement about one name carries along: a person reads them, and a statement
// may hold thousands.
const maxConditions = 8

// byName cuts the statement to what it says about each name that it calls vulnerable, with the first of the conditions.
func (a applicable) byName() map[string]applicable {
	names := make([][]string, len(a.Nodes)) // of each match; "" where it opens nothing
	own := map[string]map[int][]cpeMatch{}  // by name and node
	for i, node := range a.Nodes {
		for _, m := range node.Match {
			name := ""
			if n, ok := parseCPE(m.Criteria); ok && m.Vulnerable {
				name = n.name()
			}
			names[i] = append(names[i], name)
			if name == "" {
				continue
			}
			if own[name] == nil {
				own[name] = map[int][]cpeMatch{}
			}
			own[name][i] = append(own[name][i], m)
		}
	}
	out := map[string]applicable{}
	for name, mine := range own {
		cut := applicable{Operator: a.Operator, Negate: a.Negate}
		for _, i := range slices.Sorted(maps.Keys(mine)) {
			node := cpeNode{Operator: a.Nodes[i].Operator, Negate: a.Nodes[i].Negate, Match: mine[i]}
			if strings.EqualFold(node.Operator, "AND") { // alternatives to the name are no conditions
				node.Match = append(node.Match, others(a.Nodes[i].Match, func(k int) bool { return names[i][k] != name })...)
			}
			cut.Nodes = append(cut.Nodes, node)
		}
		if strings.EqualFold(a.Operator, "AND") {
			for _, node := range others(a.Nodes, func(i int) bool { return mine[i] == nil }) {
				node.Match = others(node.Match, func(int) bool { return true })
				cut.Nodes = append(cut.Nodes, node)
			}
		}
		out[name] = cut
	}
	return out
}

// others are the first few that fit.
func others[T any](list []T, fits func(i int) bool) []T {
	var out []T
	for i := 0; i < len(list) && len(out) < maxConditions; i++ {
		if fits(i) {
			out = append(out, list[i])
		}
	}
	return out
}
