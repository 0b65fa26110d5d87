// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Format is the family of a document.
type Format string

// The two families that are read.
const (
	CycloneDX Format = "CycloneDX"
	SPDX      Format = "SPDX"
)

// Bill is a bill of materials, whatever its spelling.
type Bill struct {
	Format      Format      `json:"format"`
	SpecVersion string      `json:"spec_version"`
	Name        string      `json:"name"`    // of what the document describes
	Version     string      `json:"version"` // of what the document describes
	Root        *Component  `json:"root,omitempty"`
	Components  []Component `json:"components"` // the root is not among them, nor are files
	Digests     []string    `json:"digests"`    // "sha256:<hex>" of the root and of every file

	Created         time.Time `json:"created,omitzero"`
	Creators        []string  `json:"creators,omitempty"` // tools, people, organisations
	Relations       int       `json:"relations"`          // stated dependencies
	Vulnerabilities int       `json:"vulnerabilities"`    // a bill should hold none: VEX is a document of its own
}

// Component is one part, as its document names it and as it is matched.
type Component struct {
	Name     string   `json:"name"`    // as written
	Version  string   `json:"version"` // as written
	PURL     string   `json:"purl,omitempty"`
	CPE      string   `json:"cpe,omitempty"`
	MoreCPEs []string `json:"more_cpes,omitempty"`
	Type     string   `json:"type,omitempty"` // library, application, device…
	Supplier string   `json:"supplier,omitempty"`
	Licence  string   `json:"licence,omitempty"` // an SPDX expression, or the words of the document
	VCS      []string `json:"vcs,omitempty"`     // repositories it was built from, as written

	// What is compared with vulnerability records; Ecosystem is empty where it is no package.
	Ecosystem      string     `json:"ecosystem,omitempty"`       // as OSV writes it: "Go", "npm", "Debian:12"
	Package        string     `json:"package,omitempty"`         // the name in that ecosystem; for Debian the source package
	PackageVersion string     `json:"package_version,omitempty"` // decoded, without Go's "v"
	Identities     []Identity `json:"identities,omitempty"`      // sorted

	root bool // what the document describes
}

// Matchable reports whether the component can be compared with vulnerability records at all.
func (c Component) Matchable() bool { return len(c.Identities) > 0 }

// Spaces are the kinds of names the component is matched by, in order.
func (c Component) Spaces() []string {
	var out []string
	for _, id := range c.Identities {
		if !slices.Contains(out, id.Space) {
			out = append(out, id.Space)
		}
	}
	return out
}

// Names reports whether the document names the image: its root or one of its files has this digest ("sha256:<hex>").
func (b Bill) Names(digest string) bool { return digest != "" && slices.Contains(b.Digests, digest) }

// addDigest keeps a SHA-256 given as bare hex or as "sha256:<hex>"; anything else is ignored.
func (b *Bill) addDigest(hex string) {
	hex = strings.TrimPrefix(strings.ToLower(hex), "sha256:")
	if len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return
	}
	if d := "sha256:" + hex; !slices.Contains(b.Digests, d) {
		b.Digests = append(b.Digests, d)
	}
}

// Grade says how far a bill can be relied on.
type Grade string

// The grades. The release gate may demand one; that is the manufacturer's policy.
const (
	GradeComplete     Grade = "complete"      // nothing of the list is missing
	GradeUsable       Grade = "usable"        // every part can be matched; formal facts are missing
	GradePartial      Grade = "partial"       // some parts cannot be matched
	GradeNotMatchable Grade = "not-matchable" // no part can be matched: silence means nothing
)

// Quality is what a bill says and what it leaves out.
type Quality struct {
	Grade     Grade    `json:"grade"`
	Total     int      `json:"total"`
	Matchable int      `json:"matchable"`
	Missing   []string `json:"missing"` // one sentence each
}

// Quality grades the bill against the facts that BSI TR-03183-2 v2.1.0 asks for and the matching needs.
func (b Bill) Quality() Quality {
	q := Quality{Total: len(b.Components), Missing: []string{}}
	lacks := func(bad bool, format string, args ...any) {
		if bad {
			q.Missing = append(q.Missing, fmt.Sprintf(format, args...))
		}
	}
	var noVersion, noIdentity int
	for _, c := range b.Components {
		if c.Matchable() {
			q.Matchable++
		}
		if c.Version == "" {
			noVersion++
		}
		if c.PURL == "" && c.CPE == "" {
			noIdentity++
		}
	}
	lacks(!b.recentSpec(), "%s %s is older than CycloneDX 1.6 and SPDX 3.0.1.", b.Format, b.SpecVersion)
	lacks(b.Name == "", "It does not name what it describes.")
	lacks(b.Version == "", "It gives no version of what it describes.")
	lacks(len(b.Digests) == 0, "It names no SHA-256 digest of the image or of a file.")
	lacks(b.Created.IsZero(), "It has no date.")
	lacks(len(b.Creators) == 0, "It does not say who or what made it.")
	lacks(noVersion > 0, "%d of %d parts have no version.", noVersion, q.Total)
	lacks(noIdentity > 0, "%d of %d parts have neither a purl nor a CPE name.", noIdentity, q.Total)
	lacks(b.Relations == 0, "It states no dependencies.")
	lacks(b.Vulnerabilities > 0, "It holds vulnerability data, which belongs into a document of its own.")
	switch {
	case q.Matchable == 0:
		q.Grade = GradeNotMatchable
	case q.Matchable < q.Total:
		q.Grade = GradePartial
	case len(q.Missing) > 0:
		q.Grade = GradeUsable
	default:
		q.Grade = GradeComplete
	}
	return q
}

func (b Bill) recentSpec() bool {
	switch b.Format {
	case CycloneDX:
		return slices.Contains([]string{"1.6", "1.7"}, b.SpecVersion)
	default:
		return strings.HasPrefix(b.SpecVersion, "3.") && b.SpecVersion != "3.0.0"
	}
}
