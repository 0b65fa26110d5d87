// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"slices"
	"strings"
	"time"
)

// Format is the family of a document.
type Format string

// The two families that are read and written.
const (
	CycloneDX Format = "CycloneDX"
	SPDX      Format = "SPDX"
)

// Bill is a bill of materials, whatever its spelling.
type Bill struct {
	Format      Format      `json:"format"`
	SpecVersion string      `json:"spec_version"`
	URI         string      `json:"uri,omitempty"` // serial number or namespace of the document
	Name        string      `json:"name"`          // of what the document describes
	Version     string      `json:"version"`       // of what the document describes
	Root        *Component  `json:"root,omitempty"`
	Components  []Component `json:"components"` // the root is not among them, nor are files
	Files       []Component `json:"files,omitempty"`
	Digests     []string    `json:"digests"` // "sha256:<hex>" of the root and of every file

	Created         time.Time  `json:"created,omitzero"`
	Creators        []string   `json:"creators,omitempty"`        // tools, people, organisations
	CreatorContact  string     `json:"creator_contact,omitempty"` // a mail address or a URL of one of them
	Relations       []Relation `json:"relations,omitempty"`
	Reduced         string     `json:"reduced,omitempty"`  // what a copy leaves out, in words; empty: nothing
	Complete        string     `json:"complete,omitempty"` // what the document says of its dependencies: complete, incomplete, unknown, or nothing
	Vulnerabilities int        `json:"vulnerabilities"`    // a bill should hold none: VEX is a document of its own
}

// RelationKind says how one part stands to another.
type RelationKind string

// The kinds of relations that are kept.
const (
	DependsOn RelationKind = "depends-on"
	Contains  RelationKind = "contains"
)

// Relation joins two parts by their references.
type Relation struct {
	From string       `json:"from"`
	Kind RelationKind `json:"kind"`
	To   string       `json:"to"`
}

// Component is one part, as its document names it and as it is matched.
type Component struct {
	Ref      string    `json:"ref,omitempty"` // the document's own name for it
	Group    string    `json:"group,omitempty"`
	Name     string    `json:"name"`    // as written
	Version  string    `json:"version"` // as written
	PURL     string    `json:"purl,omitempty"`
	CPE      string    `json:"cpe,omitempty"`
	MoreCPEs []string  `json:"more_cpes,omitempty"`
	Type     string    `json:"type,omitempty"`  // library, application, device…
	Scope    string    `json:"scope,omitempty"` // required, optional, excluded
	Supplier Supplier  `json:"supplier,omitzero"`
	Licences []Licence `json:"licences,omitempty"`
	Hashes   []Hash    `json:"hashes,omitempty"`
	Links    []Link    `json:"links,omitempty"`
	VCS      []string  `json:"vcs,omitempty"`     // repositories it was built from, as written
	Commits  []string  `json:"commits,omitempty"` // by which it differs from what it was made of
	BSI      BSIFacts  `json:"bsi,omitzero"`

	// What is compared with vulnerability records; Ecosystem is empty where it is no package.
	Ecosystem      string     `json:"ecosystem,omitempty"`       // as OSV writes it: "Go", "npm", "Debian:12"
	Package        string     `json:"package,omitempty"`         // the name in that ecosystem; for Debian the source package
	PackageVersion string     `json:"package_version,omitempty"` // decoded, without Go's "v"
	Identities     []Identity `json:"identities,omitempty"`      // sorted

	root bool // what the document describes
}

// Supplier is who made a part, or who hands it on.
type Supplier struct {
	Name    string `json:"name,omitempty"`
	Contact string `json:"contact,omitempty"` // a mail address or a URL
}

// Licence is one statement about licences, in the form the document used.
type Licence struct {
	ID         string `json:"id,omitempty"`         // of the SPDX list
	Expression string `json:"expression,omitempty"` // an SPDX expression
	Name       string `json:"name,omitempty"`       // in words
}

func (l Licence) String() string { return l.ID + l.Expression + l.Name }

// Hash is the digest of a part; algorithms are named as CycloneDX does: "SHA-512".
type Hash struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"value"` // lower-case hex
}

// Link is a reference to somewhere else, of a kind that CycloneDX names: website, distribution…
type Link struct {
	Kind string `json:"kind"`
	URL  string `json:"url"`
}

// BSIFacts are what BSI TR-03183-2 asks of a part and no format has a field for.
type BSIFacts struct {
	Filename   string `json:"filename,omitempty"`
	Executable string `json:"executable,omitempty"`
	Archive    string `json:"archive,omitempty"`
	Structured string `json:"structured,omitempty"`
}

// Licence is all that is said about licences, in one line.
func (c Component) Licence() string {
	var out []string
	for _, l := range c.Licences {
		s := l.String()
		if len(c.Licences) > 1 && strings.Contains(s, " ") && l.Name == "" {
			s = "(" + s + ")"
		}
		out = append(out, s)
	}
	all := strings.Join(out, " AND ")
	return strings.ToValidUTF8(all[:min(len(all), maxIdentity)], "")
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

// addHashes keeps the digests of an image: of the root, or of a file.
func (b *Bill) addHashes(hashes []Hash) {
	for _, h := range hashes {
		if h.Algorithm == "SHA-256" {
			b.addDigest(h.Value)
		}
	}
}

// algorithms maps the names of SPDX to those of CycloneDX, without dashes and in lower case.
var algorithms = map[string]string{
	"md5": "MD5", "sha1": "SHA-1", "sha256": "SHA-256", "sha384": "SHA-384", "sha512": "SHA-512", "sha3256": "SHA3-256", "sha3384": "SHA3-384",
	"sha3512": "SHA3-512", "blake2b256": "BLAKE2b-256", "blake2b384": "BLAKE2b-384", "blake2b512": "BLAKE2b-512", "blake3": "BLAKE3",
}

// addHash keeps a digest, whatever its algorithm is called; what is none is ignored.
func (c *Component) addHash(algorithm, value string) {
	h := Hash{algorithms[strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(algorithm))], strings.ToLower(strings.TrimSpace(value))}
	if h.Algorithm != "" && h.Value != "" && len(h.Value) <= 256 && strings.Trim(h.Value, "0123456789abcdef") == "" && !slices.Contains(c.Hashes, h) {
		c.Hashes = append(c.Hashes, h)
	}
}

// setBSI reads a property of the BSI's taxonomy for CycloneDX.
func (c *Component) setBSI(name, value string) {
	switch name {
	case "bsi:component:filename":
		c.BSI.Filename = value
	case "bsi:component:executable":
		c.BSI.Executable = value
	case "bsi:component:archive":
		c.BSI.Archive = value
	case "bsi:component:structured":
		c.BSI.Structured = value
	}
}
