// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	_ "embed"
	"slices"
	"strings"
)

// Names are data: data/*.txt, read once.
var (
	//go:embed data/kernel.txt
	kernelText string
	//go:embed data/products.txt
	productText string
	//go:embed data/distributors.txt
	distributorText string

	kernelNames  = columns(kernelText)
	products     = indexProducts(columns(productText))
	distributors = columns(distributorText)
)

// columns reads lines of cells: "|" between columns, "," between the words of one.
func columns(text string) [][][]string {
	var out [][][]string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		var row [][]string
		for cell := range strings.SplitSeq(line, "|") {
			var words []string
			for w := range strings.SplitSeq(cell, ",") {
				words = append(words, strings.TrimSpace(w))
			}
			row = append(row, words)
		}
		out = append(out, row)
	}
	return out
}

type product struct{ names, vendors []string }

func indexProducts(rows [][][]string) map[string]product {
	out := map[string]product{}
	for _, r := range rows {
		for _, name := range r[0] {
			out[name] = product{r[0], r[1]}
		}
	}
	return out
}

// foldName leaves the letters and digits of a name, in lower case: how vendors and products are compared.
func foldName(s string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c > 0x7f {
			return c
		}
		return -1
	}, strings.ToLower(s))
}

// nameless are words that stand in a field of a name and name nothing.
func nameless(folded string) bool {
	return slices.Contains([]string{"", "na", "none", "unknown", "unspecified", "multiple", "various", "all"}, folded)
}

// isKernel reports whether vendor and product of a record name the kernel of kernel.org.
func isKernel(vendor, product string) bool {
	v, p := foldName(vendor), foldName(product)
	if nameless(v) {
		v = "*"
	}
	return slices.ContainsFunc(kernelNames, func(r [][]string) bool { return r[0][0] == v && r[1][0] == p })
}

// whose tells how a record's vendor stands to the product it names.
type whose int

const (
	itsOwn   whose = iota // the vendor makes it, or the record names none
	stranger              // a vendor of whom nothing is known
	aFork                 // a vendor who ships somebody else's product, or a fork, under its name
	anothers              // a fork, and the component is known to be no fork
)

// isMaker tells whether the vendor is known to make the product.
func isMaker(vendor, name string) bool {
	return slices.Contains(products[foldName(name)].vendors, foldName(vendor))
}

func belongs(vendor, name string) whose {
	v, n := foldName(vendor), foldName(name)
	_, listed := products[n]
	switch {
	case nameless(v):
		return itsOwn
	case isDistributor(vendor):
		return aFork
	case isMaker(vendor, name), len(n) > 2 && strings.Contains(v, n): // "The curl project"
		return itsOwn
	case listed:
		return aFork
	case alike(v, n):
		return itsOwn
	}
	return stranger
}

// isDistributor tells whether the vendor ships other people's programs under their names.
func isDistributor(vendor string) bool {
	v := foldName(vendor)
	return slices.ContainsFunc(distributors, func(r [][]string) bool { return r[0][0] == v })
}

// alike compares folded names: one holds the other, as "wolfsslinc" holds "wolfssl".
func alike(a, b string) bool {
	return len(a) > 2 && len(b) > 2 && (strings.Contains(a, b) || strings.Contains(b, a))
}

// productNames are the spellings by which components look for a product: as written in lower case, with other
// separators and with none, and the product's other names.
func productNames(written string) []string {
	lower := strings.ToLower(strings.TrimSpace(written))
	if i := strings.LastIndexByte(lower, '/'); i >= 0 && strings.Contains(lower, "://") { // https://github.com/curl/curl
		lower = strings.TrimSuffix(lower[i+1:], ".git")
	}
	folded := foldName(lower)
	if nameless(folded) || len(lower) > maxWord || strings.ContainsFunc(lower, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return nil
	}
	out := []string{lower, folded}
	for _, sep := range []string{"-", "_"} {
		out = append(out, strings.Join(strings.FieldsFunc(lower, func(c rune) bool { return c == ' ' || c == '-' || c == '_' }), sep))
	}
	out = append(out, products[folded].names...)
	slices.Sort(out)
	return slices.Compact(out)
}
