// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"slices"
	"strings"
)

// Reduction says what a copy for somebody else leaves out: what they need not know.
type Reduction struct {
	TopLevel         bool     `json:"top_level,omitempty" doc:"Only what the product itself depends on or contains"`
	WithoutPaths     bool     `json:"without_paths,omitempty" doc:"No files, file names, repositories and links"`
	WithoutHashes    bool     `json:"without_hashes,omitempty" doc:"No digests"`
	WithoutSuppliers []string `json:"without_suppliers,omitempty" doc:"No parts of these suppliers"`
}

// reducedCopy begins the statement of what a copy leaves out.
const reducedCopy = "This is a reduced copy of a bill of materials."

// None reports whether nothing is left out.
func (r Reduction) None() bool {
	return !r.TopLevel && !r.WithoutPaths && !r.WithoutHashes && len(r.WithoutSuppliers) == 0
}

// String is the sentence that stands in a reduced document. The suppliers are not named: that would tell it after all.
func (r Reduction) String() string {
	var what []string
	if r.TopLevel {
		what = append(what, "everything below the top level")
	}
	if len(r.WithoutSuppliers) > 0 {
		what = append(what, "the parts of some suppliers")
	}
	if r.WithoutPaths {
		what = append(what, "files, file names, repositories and links")
	}
	if r.WithoutHashes {
		what = append(what, "digests of parts")
	}
	if len(what) == 0 {
		return ""
	}
	return reducedCopy + " It leaves out: " + strings.Join(what, "; ") + "."
}

// Reduce returns a copy that leaves out what the reduction says, and says so in it. The root is never left out.
func (b Bill) Reduce(r Reduction) Bill {
	if r.None() {
		return b
	}
	out := b
	out.Reduced, out.URI, out.Complete = r.String(), "", "incomplete"
	top := b.topLevel()
	out.Components = slices.Clone(b.Components)
	out.Components = slices.DeleteFunc(out.Components, func(c Component) bool {
		return r.TopLevel && !top[c.Ref] || slices.ContainsFunc(r.WithoutSuppliers, func(s string) bool { return strings.EqualFold(strings.TrimSpace(s), c.Supplier.Name) })
	})
	for i := range out.Components {
		out.Components[i] = out.Components[i].reduce(r)
	}
	if b.Root != nil {
		root := b.Root.reduce(r)
		root.Hashes = b.Root.Hashes // it names the image, which its owner has in hand
		out.Root = &root
	}
	if r.WithoutPaths || r.TopLevel {
		out.Files = nil
	} else if r.WithoutHashes {
		out.Files = slices.Clone(b.Files)
		for i := range out.Files {
			out.Files[i].Hashes = nil
		}
	}
	left := map[string]bool{}
	if out.Root != nil {
		left[out.Root.Ref] = true
	}
	for _, c := range slices.Concat(out.Components, out.Files) {
		left[c.Ref] = true
	}
	out.Relations = slices.DeleteFunc(slices.Clone(b.Relations), func(x Relation) bool { return !left[x.From] || !left[x.To] })
	return out
}

func (c Component) reduce(r Reduction) Component {
	if r.WithoutPaths {
		c.BSI.Filename, c.VCS, c.Links, c.Commits = "", nil, nil, nil
		if base, qualifiers, ok := strings.Cut(c.PURL, "?"); ok {
			c.PURL = base
			keep := slices.DeleteFunc(strings.Split(qualifiers, "&"), func(q string) bool {
				name, _, _ := strings.Cut(q, "=")
				return !slices.Contains([]string{"arch", "distro", "epoch", "upstream"}, name)
			})
			if len(keep) > 0 {
				c.PURL += "?" + strings.Join(keep, "&")
			}
		}
	}
	if r.WithoutHashes {
		c.Hashes = nil
	}
	return c
}

// topLevel are the parts that the root depends on or contains; where a document does not say, those that no other part
// depends on or contains.
func (b Bill) topLevel() map[string]bool {
	top, below := map[string]bool{}, map[string]bool{}
	for _, r := range b.Relations {
		if b.Root != nil && r.From == b.Root.Ref {
			top[r.To] = true
		} else {
			below[r.To] = true
		}
	}
	if slices.ContainsFunc(b.Relations, func(r Relation) bool { return b.Root != nil && r.From == b.Root.Ref && r.Kind == DependsOn }) {
		return top
	}
	for _, c := range b.Components { // a list without a hierarchy below the root: what nothing needs stands on top
		top[c.Ref] = !below[c.Ref]
	}
	return top
}
