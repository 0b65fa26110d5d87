// SPDX-License-Identifier: AGPL-3.0-only

package csaf

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/openthings-platform/openthings/problem"
)

// The bounds of a document that is read. Appendix C.1 of the standard wants 15 MB to be accepted.
const (
	MaxSize     = 15 << 20
	maxDepth    = 30
	maxProducts = 100_000
)

// Parse reads a document within bounds. It accepts what the rules of Check refuse, because documents of others are
// worth reading even if imperfect; what cannot be understood at all is problem.Invalid.
func Parse(b []byte) (*Document, error) {
	if len(b) > MaxSize {
		return nil, problem.TooLarge("A CSAF document is at most %d bytes.", MaxSize)
	}
	var d Document
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, problem.Invalid("This is not a CSAF document.").Because(err)
	}
	switch {
	case d.Document.CSAFVersion == "":
		return nil, problem.Invalid("This is not a CSAF document: it does not say its csaf_version.").At("document.csaf_version")
	case d.Document.CSAFVersion != Version:
		return nil, problem.Invalid("CSAF %.20q is not read, only %s.", d.Document.CSAFVersion, Version).At("document.csaf_version")
	case d.ProductTree != nil && depth(d.ProductTree.Branches, maxDepth) > maxDepth:
		return nil, problem.Invalid("The branches of the product tree are deeper than %d.", maxDepth).At("product_tree.branches")
	}
	n := 0
	d.ProductTree.Products(func(Product, Path) { n++ })
	if n > maxProducts {
		return nil, problem.Invalid("The product tree names more than %d products.", maxProducts).At("product_tree")
	}
	return &d, nil
}

// depth is how deep the branches are, counted up to one more than limit.
func depth(branches []Branch, limit int) int {
	deepest := 0
	for _, b := range branches {
		below := 1
		if limit > 0 {
			below += depth(b.Branches, limit-1)
		}
		deepest = max(deepest, below)
	}
	return deepest
}

// Write gives the document's bytes: members in alphabetical order, two spaces of indentation, sets of products sorted, a
// line's end at the end. A document that fails Check is refused.
func Write(d *Document) ([]byte, error) {
	if failed := Check(d); len(failed) > 0 {
		return nil, problem.Invalid("The document fails test %s of CSAF: %s", failed[0].Test, failed[0].Message).At(failed[0].At)
	}
	return Encode(d)
}

// Encode is Write without the check, for what is not to be published: drafts shown to their author.
func Encode(d *Document) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(d.sorted()); err != nil {
		return nil, problem.Invalid("The document cannot be written.").Because(err)
	}
	return b.Bytes(), nil
}

// sorted is the document with every set of products in order.
func (d *Document) sorted() *Document {
	out := *d
	out.Vulnerabilities = slices.Clone(d.Vulnerabilities)
	for i := range out.Vulnerabilities {
		v := &out.Vulnerabilities[i]
		if v.ProductStatus != nil {
			s := *v.ProductStatus
			for _, ids := range s.lists() {
				*ids.ids = set(*ids.ids)
			}
			v.ProductStatus = &s
		}
		v.Flags = slices.Clone(v.Flags)
		for j := range v.Flags {
			v.Flags[j].ProductIDs, v.Flags[j].GroupIDs = set(v.Flags[j].ProductIDs), set(v.Flags[j].GroupIDs)
		}
		v.Remediations = slices.Clone(v.Remediations)
		for j := range v.Remediations {
			v.Remediations[j].ProductIDs, v.Remediations[j].GroupIDs = set(v.Remediations[j].ProductIDs), set(v.Remediations[j].GroupIDs)
		}
		v.Threats = slices.Clone(v.Threats)
		for j := range v.Threats {
			v.Threats[j].ProductIDs, v.Threats[j].GroupIDs = set(v.Threats[j].ProductIDs), set(v.Threats[j].GroupIDs)
		}
		v.Scores = slices.Clone(v.Scores)
		for j := range v.Scores {
			v.Scores[j].Products = set(v.Scores[j].Products)
		}
	}
	return &out
}

// set is the ids sorted, each once; nil for none.
func set(ids []string) []string {
	if len(ids) == 0 {
		return nil
	}
	out := slices.Clone(ids)
	slices.Sort(out)
	return slices.Compact(out)
}
