// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"cmp"
	"slices"
	"strings"

	"github.com/google/osv-scalibr/semantic"
)

// upstream is a version as projects in C number themselves, without an ecosystem that would define an order: 8.4.0,
// 1.1.1za, 9.5p1, 6.10-rc3, 2024.01. Numbers are compared as numbers and the absent ones are 0; a letter after a number
// comes after it (OpenSSL: 1.1.1 < 1.1.1a < 1.1.1z < 1.1.1za < 1.1.2); alpha, beta, dev, pre and rc come before.
type upstream []word

type word struct {
	kind byte
	text string // letters in lower case, or digits without zeros in front
}

// Kinds of words in their order. The end of a version lies between what comes before a release and what after.
const (
	wordPreNumber = iota // the 0 of 1.0.0-0, where a dash begins a pre-release
	wordPre
	wordEnd
	wordLetters
	wordNumber
	wordEndless // the * of 5.10.*
)

const maxVersion = 128 // bytes of one that is compared

var preWords = []string{"alpha", "beta", "dev", "pre", "preview", "rc"}

// parseUpstream reads a version, or says that it is none. A dash begins a pre-release in SemVer, a revision elsewhere.
func parseUpstream(text string, semver bool) (upstream, bool) {
	u, ok := words(text, semver)
	return u.canonical(), ok
}

// words reads a version as it is written, zeros at the end included: 6.0 is the start of 6.0.*, and 6 is not.
func words(text string, semver bool) (upstream, bool) {
	rest := strings.ToLower(strings.TrimSpace(text))
	if len(rest) > 1 && rest[0] == 'v' {
		rest = rest[1:]
	}
	if rest == "" || len(rest) > maxVersion || rest[0] < '0' || rest[0] > '9' || isCommit(rest) {
		return nil, false
	}
	var u upstream
	for first, pre := true, false; rest != ""; first = false {
		switch c := rest[0]; c {
		case '.', '_', '-', '+', '~':
			if first || len(rest) == 1 || strings.IndexByte("._-+~", rest[1]) >= 0 {
				return nil, false
			}
			rest = rest[1:]
			n := lettersOf(rest)
			switch {
			case c == '~' && !slices.Contains(preWords, n): // Debian's order, not ours
				return nil, false
			case c == '+' && !slices.Contains(preWords, n): // how it was built
				return u, true
			}
			pre = c == '-' && semver && !u.pre()
		}
		switch {
		case rest[0] >= '0' && rest[0] <= '9':
			n := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
			kind := byte(wordNumber)
			if pre {
				kind = wordPreNumber
			}
			u = append(u, word{kind, strings.TrimLeft(rest[:n], "0")})
			rest = rest[n:]
		case lettersOf(rest) != "":
			n := lettersOf(rest)
			kind := byte(wordLetters)
			if pre || slices.Contains(preWords, n) {
				kind = wordPre
			}
			u = append(u, word{kind, n})
			rest = rest[len(n):]
		default:
			return nil, false
		}
		pre = false
	}
	return u, true
}

func lettersOf(s string) string {
	return s[:len(s)-len(strings.TrimLeft(s, "abcdefghijklmnopqrstuvwxyz"))]
}

func (u upstream) pre() bool {
	return slices.ContainsFunc(u, func(w word) bool { return w.kind <= wordPre })
}

// canonical drops zeros that end a run of numbers: 4.6.0 is 4.6, and 4.6.0-rc1 is 4.6-rc1.
func (u upstream) canonical() upstream {
	out := u[:0:0]
	for _, w := range u {
		if w.kind != wordNumber {
			out = out.withoutZeros()
		}
		out = append(out, w)
	}
	return out.withoutZeros()
}

func (u upstream) withoutZeros() upstream {
	for len(u) > 1 && u[len(u)-1] == (word{wordNumber, ""}) {
		u = u[:len(u)-1]
	}
	return u
}

func (u upstream) at(i int) word {
	if i < len(u) {
		return u[i]
	}
	return word{kind: wordEnd}
}

func (u upstream) compare(w upstream) int {
	for i := range max(len(u), len(w)) {
		a, b := u.at(i), w.at(i)
		c := cmp.Compare(a.kind, b.kind)
		if c == 0 && (a.kind == wordNumber || a.kind == wordPreNumber) {
			c = cmp.Compare(len(a.text), len(b.text))
		}
		if c == 0 {
			c = strings.Compare(a.text, b.text)
		}
		if c != 0 {
			return c
		}
	}
	return 0
}

// Compare makes upstream versions one more order beside those of the ecosystems.
func (u upstream) Compare(v semantic.Version) (int, error) {
	w, ok := v.(upstream)
	if !ok {
		return 0, semantic.ErrNotSameEcosystem
	}
	return u.compare(w), nil
}

// CompareStr is Compare for a version that was not parsed yet.
func (u upstream) CompareStr(text string) (int, error) {
	w, ok := parseUpstream(text, false)
	if !ok {
		return 0, semantic.ErrInvalidVersion
	}
	return u.compare(w), nil
}
