// SPDX-License-Identifier: AGPL-3.0-only

package csaf

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var (
	cveNumber   = regexp.MustCompile(`^CVE-[0-9]{4}-[0-9]{4,}$`)
	packageURL  = regexp.MustCompile(`^pkg:[A-Za-z.\-+][A-Za-z0-9.\-+]*/\S+$`)
	hashValue   = regexp.MustCompile(`^[0-9a-fA-F]{32,}$`)
	cpeName     = regexp.MustCompile(`^(cpe:2\.3:[aho*\-](:[^:\s\\]*(\\.[^:\s\\]*)*){10}|[cC][pP][eE]:/[AHOaho]?(:[A-Za-z0-9._\-~%]*){0,6})$`)
	rangeWords  = regexp.MustCompile(`(?i)^(?:<|<=|>|>=)|(?:^|\s)(?:after|all|before|earlier|later|prior|versions)(?:\s|$)|[<>]`)
	categories  = []BranchCategory{BranchArchitecture, BranchHostName, BranchLanguage, BranchLegacy, BranchPatchLevel, BranchProductFamily, BranchProductName, BranchProductVersion, BranchProductVersionRange, BranchServicePack, BranchSpecification, BranchVendor}
	relations   = []RelationshipCategory{DefaultComponentOf, ExternalComponentOf, InstalledOn, InstalledWith, OptionalComponentOf}
	remediation = []RemediationCategory{Mitigation, NoFixPlanned, NoneAvailable, VendorFix, Workaround}
	threats     = []ThreatCategory{ExploitStatus, Impact, TargetSet}
	flags       = []FlagLabel{ComponentNotPresent, InlineMitigationsExist, CodeNotControlledByOthers, VulnerableCodeNotInPath, VulnerableCodeNotPresent}
)

// names is what the product tree defines.
type names struct{ products, groups map[string]bool }

// tree judges the product tree: tests 6.1.1 to 6.1.5, 6.1.13, 6.1.25 and 6.1.31.
func (c *checker) tree() names {
	n := names{map[string]bool{}, map[string]bool{}}
	t := c.d.ProductTree
	if t == nil {
		return n
	}
	c.branches("product_tree.branches", t.Branches)
	t.Products(func(p Product, _ Path) {
		at := "product_tree (" + p.ProductID + ")"
		c.need(p.ProductID != "" && p.Name != "", at, "A product has an id and a name.")
		if n.products[p.ProductID] {
			c.fail("6.1.2", at, "The product is defined twice.")
		}
		n.products[p.ProductID] = true
		c.helpers(at, p.Helper)
	})
	for i, r := range t.Relationships {
		at := fmt.Sprintf("product_tree.relationships[%d]", i)
		c.need(slices.Contains(relations, r.Category), at+".category", "%q is not a relationship.", r.Category)
		c.defined(at, n.products, []string{r.ProductReference, r.RelatesTo}, "6.1.1")
	}
	c.circles(t.Relationships)
	for i, g := range t.ProductGroups {
		at := fmt.Sprintf("product_tree.product_groups[%d]", i)
		c.need(g.GroupID != "" && len(set(g.ProductIDs)) >= 2, at, "A group has an id and two products.")
		if n.groups[g.GroupID] {
			c.fail("6.1.5", at, "The group is defined twice.")
		}
		n.groups[g.GroupID] = true
		c.defined(at, n.products, g.ProductIDs, "6.1.1")
	}
	return n
}

func (c *checker) branches(at string, branches []Branch) {
	for i, b := range branches {
		at := fmt.Sprintf("%s[%d]", at, i)
		c.need(slices.Contains(categories, b.Category), at+".category", "%q is not a category of branches.", b.Category)
		c.need(b.Name != "", at+".name", "A branch has a name.")
		c.need((b.Product != nil) != (len(b.Branches) > 0), at, "A branch is either a product or has branches.")
		if b.Category == BranchProductVersion && rangeWords.MatchString(b.Name) {
			c.fail("6.1.31", at+".name", "%q is a range; a version is wanted.", b.Name)
		}
		c.branches(at+".branches", b.Branches)
	}
}

func (c *checker) helpers(at string, h *Helpers) {
	if h == nil {
		return
	}
	c.need(h.CPE == "" || cpeName.MatchString(h.CPE), at+".cpe", "%q is not a CPE name.", h.CPE)
	c.need(!slices.ContainsFunc(h.SBOMURLs, func(u string) bool { return !address(u) }), at+".sbom_urls", "One is not an address.")
	if h.PURL != "" && !packageURL.MatchString(h.PURL) {
		c.fail("6.1.13", at+".purl", "%q is not a package URL.", h.PURL)
	}
	for _, f := range h.Hashes {
		c.need(f.Filename != "" && len(f.FileHashes) > 0, at+".hashes", "Digests are of a file.")
		seen := map[string]bool{}
		for _, v := range f.FileHashes {
			c.need(v.Algorithm != "" && hashValue.MatchString(v.Value), at+".hashes", "%q is not a digest.", v.Value)
			if seen[v.Algorithm] {
				c.fail("6.1.25", at+".hashes", "%s stands twice for %s.", v.Algorithm, f.Filename)
			}
			seen[v.Algorithm] = true
		}
	}
}

// circles finds a product that is made of itself (6.1.3). A product has one maker at most, so that the way back to what it
// is made of is walked with a bound.
func (c *checker) circles(rs []Relationship) {
	made := map[string][]string{}
	for _, r := range rs {
		made[r.Product.ProductID] = append(made[r.Product.ProductID], r.ProductReference, r.RelatesTo)
	}
	const walking, done = 1, 2
	state := map[string]int{}
	var visit func(id string) bool
	visit = func(id string) bool {
		state[id] = walking
		for _, from := range made[id] {
			if state[from] == walking || state[from] == 0 && visit(from) {
				return true
			}
		}
		state[id] = done
		return false
	}
	for _, r := range rs {
		if id := r.Product.ProductID; state[id] == 0 && visit(id) {
			c.fail("6.1.3", "product_tree.relationships", "The product %s is made of itself.", id)
			return
		}
	}
}

// defined fails the test for each id that known does not hold.
func (c *checker) defined(at string, known map[string]bool, ids []string, test string) {
	for _, id := range ids {
		if !known[id] {
			c.fail(test, at, "%q is not defined.", id)
		}
	}
}

// vulnerabilities judges what is said of each: tests 6.1.1, 6.1.4, 6.1.6 to 6.1.11, 6.1.23, 6.1.24, 6.1.29, 6.1.32 and 6.1.33.
func (c *checker) vulnerabilities(n names) {
	cves := map[string]bool{}
	for i, v := range c.d.Vulnerabilities {
		at := fmt.Sprintf("vulnerabilities[%d]", i)
		if v.CVE != "" {
			c.need(cveNumber.MatchString(v.CVE), at+".cve", "%q is not a CVE number.", v.CVE)
			if cves[v.CVE] {
				c.fail("6.1.23", at+".cve", "%s stands twice.", v.CVE)
			}
			cves[v.CVE] = true
		}
		if v.CWE != nil {
			if w, err := Weakness(v.CWE.ID); err != nil || *w != *v.CWE {
				c.fail("6.1.11", at+".cwe", "%s is not called %q.", v.CWE.ID, v.CWE.Name)
			}
		}
		for _, id := range v.IDs {
			c.need(id.SystemName != "" && id.Text != "", at+".ids", "An id has a system and a text.")
		}
		c.need(dated(v.DiscoveryDate) && dated(v.ReleaseDate), at, "A date is empty.")
		c.notes(at+".notes", v.Notes)
		c.references(at+".references", v.References)
		c.acknowledgments(at+".acknowledgments", v.Acknowledgments)
		c.status(at, v.ProductStatus, n)
		c.scores(at, v.Scores, n)
		c.sayings(at, v, n)
	}
}

func (c *checker) status(at string, s *ProductStatus, n names) {
	if s == nil {
		return
	}
	at += ".product_status"
	said := 0
	for _, l := range s.lists() {
		c.defined(at+"."+l.name, n.products, *l.ids, "6.1.1")
		said += len(*l.ids)
	}
	c.need(said > 0, at, "It names no product.")
	where := map[string]string{}
	for _, group := range []list{{"affected", new(s.Affected())}, {"not affected", new(set(s.KnownNotAffected))},
		{"fixed", new(s.AllFixed())}, {"under investigation", new(set(s.UnderInvestigation))}} {
		for _, id := range *group.ids {
			if other := where[id]; other != "" {
				c.fail("6.1.6", at, "%q is said to be %s and %s.", id, other, group.name)
			}
			where[id] = group.name
		}
	}
}

func (c *checker) scores(at string, scores []Score, n names) {
	scored := map[string]bool{}
	for i, s := range scores {
		at := fmt.Sprintf("%s.scores[%d]", at, i)
		c.need(len(s.Products) > 0, at, "A score is of products.")
		c.defined(at, n.products, s.Products, "6.1.1")
		if s.CVSS3 == nil {
			c.need(false, at, "A score has a vector of CVSS 3.")
			continue
		}
		for _, id := range s.Products {
			if key := s.CVSS3.Version + " " + id; scored[key] {
				c.fail("6.1.7", at, "%q has two scores of CVSS %s.", id, s.CVSS3.Version)
			} else {
				scored[key] = true
			}
		}
		switch right, err := Score3(s.CVSS3.VectorString); {
		case err != nil || right.Version != s.CVSS3.Version:
			c.fail("6.1.8", at, "%q is not a vector of CVSS %s.", s.CVSS3.VectorString, s.CVSS3.Version)
		case right.BaseScore != s.CVSS3.BaseScore || right.BaseSeverity != s.CVSS3.BaseSeverity:
			c.fail("6.1.9", at, "The vector's score is %.1f, %s.", right.BaseScore, right.BaseSeverity)
		}
	}
}

// sayings judges flags, involvements, remediations and threats.
func (c *checker) sayings(at string, v Vulnerability, n names) {
	about := func(at string, products, groups []string) {
		c.defined(at, n.products, products, "6.1.1")
		c.defined(at, n.groups, groups, "6.1.4")
	}
	flagged := map[string]bool{}
	for i, f := range v.Flags {
		at := fmt.Sprintf("%s.flags[%d]", at, i)
		c.need(slices.Contains(flags, f.Label) && dated(f.Date), at, "%q is not a label of flags.", f.Label)
		about(at, f.ProductIDs, f.GroupIDs)
		if len(f.ProductIDs)+len(f.GroupIDs) == 0 {
			c.fail("6.1.32", at, "A flag names products.")
		}
		for _, id := range c.d.ProductTree.Expand(f.ProductIDs, f.GroupIDs) {
			if flagged[id] {
				c.fail("6.1.33", at, "%q has two justifications.", id)
			}
			flagged[id] = true
		}
	}
	involved := map[string]bool{}
	for i, x := range v.Involvements {
		at := fmt.Sprintf("%s.involvements[%d]", at, i)
		c.need(slices.Contains([]string{"coordinator", "discoverer", "other", "user", "vendor"}, x.Party), at+".party", "%q is not a party.", x.Party)
		c.need(slices.Contains([]string{"completed", "contact_attempted", "disputed", "in_progress", "not_contacted", "open"}, x.Status) && dated(x.Date), at+".status", "%q is not a status.", x.Status)
		key := x.Party
		if x.Date != nil {
			key += x.Date.UTC().String()
		}
		if involved[key] {
			c.fail("6.1.24", at, "A party stands twice at one date.")
		}
		involved[key] = true
	}
	for i, r := range v.Remediations {
		at := fmt.Sprintf("%s.remediations[%d]", at, i)
		c.need(slices.Contains(remediation, r.Category) && dated(r.Date), at+".category", "%q is not a category of remediations.", r.Category)
		c.need(r.Details != "", at+".details", "A remediation says what to do.")
		c.need(r.URL == "" || address(r.URL), at+".url", "%q is not an address.", r.URL)
		c.need(r.RestartRequired == nil || restarts[r.RestartRequired.Category], at+".restart_required", "It is not a kind of restart.")
		about(at, r.ProductIDs, r.GroupIDs)
		if len(r.ProductIDs)+len(r.GroupIDs) == 0 {
			c.fail("6.1.29", at, "A remediation names products.")
		}
	}
	for i, t := range v.Threats {
		at := fmt.Sprintf("%s.threats[%d]", at, i)
		c.need(slices.Contains(threats, t.Category) && dated(t.Date), at+".category", "%q is not a category of threats.", t.Category)
		c.need(t.Details != "", at+".details", "A threat has details.")
		about(at, t.ProductIDs, t.GroupIDs)
	}
}

// restarts are the kinds of restarts that a remediation may need.
var restarts = map[string]bool{"connected": true, "dependencies": true, "machine": true, "none": true, "parent": true,
	"service": true, "system": true, "vulnerable_component": true, "zone": true}

// profile judges what the categories of section 4 demand: test 6.1.27.
func (c *checker) profile() {
	category := c.d.Document.Category
	if category != SecurityAdvisory && category != VEX {
		if strings.HasPrefix(category, "csaf_") && category != "csaf_base" {
			c.fail("6.1.27", "document.category", "%s is not written here.", category)
		}
		return
	}
	if c.d.ProductTree == nil {
		c.fail("6.1.27.4", "product_tree", "The profile %s needs a product tree.", category)
	}
	if len(c.d.Vulnerabilities) == 0 {
		c.fail("6.1.27.11", "vulnerabilities", "The profile %s needs a vulnerability.", category)
	}
	for i, v := range c.d.Vulnerabilities {
		at := fmt.Sprintf("vulnerabilities[%d]", i)
		if len(v.Notes) == 0 {
			c.fail("6.1.27.5", at+".notes", "The profile %s needs notes.", category)
		}
		if v.ProductStatus == nil {
			c.fail("6.1.27.6", at+".product_status", "The profile %s needs a product status.", category)
			continue
		}
		if category == VEX {
			c.vex(at, v)
		}
	}
}

func (c *checker) vex(at string, v Vulnerability) {
	s := v.ProductStatus
	if len(s.Fixed)+len(s.KnownAffected)+len(s.KnownNotAffected)+len(s.UnderInvestigation) == 0 {
		c.fail("6.1.27.7", at+".product_status", "A VEX says of a product that it is fixed, affected, not affected or under investigation.")
	}
	if v.CVE == "" && len(v.IDs) == 0 {
		c.fail("6.1.27.8", at, "A VEX names the vulnerability.")
	}
	explained, remedied := map[string]bool{}, map[string]bool{}
	add := func(to map[string]bool, products, groups []string) {
		for _, id := range c.d.ProductTree.Expand(products, groups) {
			to[id] = true
		}
	}
	for _, f := range v.Flags {
		add(explained, f.ProductIDs, f.GroupIDs)
	}
	for _, t := range v.Threats {
		if t.Category == Impact {
			add(explained, t.ProductIDs, t.GroupIDs)
		}
	}
	for _, r := range v.Remediations {
		add(remedied, r.ProductIDs, r.GroupIDs)
	}
	for _, id := range s.KnownNotAffected {
		if !explained[id] {
			c.fail("6.1.27.9", at, "%q is not affected, and nothing says why.", id)
		}
	}
	for _, id := range s.KnownAffected {
		if !remedied[id] {
			c.fail("6.1.27.10", at, "%q is affected, and nothing says what to do.", id)
		}
	}
}
