// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"regexp"
	"strings"
)

// The few forms in which authors write a range as a sentence. What is not exactly one of them is unknown.
var (
	proseFixedAffected = regexp.MustCompile(`^Fixed in (?:[A-Za-z][A-Za-z-]* )?(\S+) \(Affected (\S+?)-(\S+)\)$`) // OpenSSL: "Fixed in OpenSSL 1.1.1j (Affected 1.1.1-1.1.1i)"
	proseFixed         = regexp.MustCompile(`^[Ff]ixed in (?:version )?(\S+)$`)
	proseBefore        = regexp.MustCompile(`^(?:[Aa]ll versions |[Vv]ersions? )?(?:[Pp]rior to|[Bb]efore|[Bb]elow) (?:version )?(\S+)$`)
	proseUpTo          = regexp.MustCompile(`^(?:[Uu]p to(?: and including)?|[Tt]hrough) (\S+)$`)
	proseEarlier       = regexp.MustCompile(`^(\S+) (?:and|or) (?:earlier|below|prior|before|older)(?: versions)?$`)
	proseThrough       = regexp.MustCompile(`^(?:[Ff]rom )?(\S+) (?:to|through|up to|-) (\S+)$`)
	proseBound         = regexp.MustCompile(`^(<=|>=|<|>|=) ?(\S+)$`)
)

// proseBands reads a range from a sentence. alone says that the record has no other entry: "Fixed in 7.83.1" has no
// start, and beside others it would speak about their branches too.
func proseBands(text, status string, alone bool) ([]band, bool) {
	b := band{order: plainOrder, status: status, confidence: ConfidenceProse}
	end := func(low, high string, within bool) ([]band, bool) {
		ok := true
		if low != "" {
			b.low, ok = plainOrder.parse(low)
		}
		if ok && high != "" {
			b.high, ok = plainOrder.parse(high)
		}
		if b.within = within; ok && !within {
			b.fix = high
		}
		if ok && b.low != nil && b.high != nil {
			c, err := b.low.Compare(b.high)
			ok = err == nil && c <= 0
		}
		return []band{b}, ok
	}
	if m := proseFixedAffected.FindStringSubmatch(text); m != nil {
		if _, ok := plainOrder.parse(m[3]); !ok {
			return nil, false
		}
		return end(m[2], m[1], false)
	}
	if m := proseFixed.FindStringSubmatch(text); m != nil && alone {
		return end("", m[1], false)
	}
	if m := proseBefore.FindStringSubmatch(text); m != nil && alone {
		return end("", m[1], false)
	}
	if m := proseUpTo.FindStringSubmatch(text); m != nil && alone {
		return end("", m[1], true)
	}
	if m := proseEarlier.FindStringSubmatch(text); m != nil && alone {
		return end("", m[1], true)
	}
	if m := proseThrough.FindStringSubmatch(text); m != nil {
		return end(m[1], m[2], true)
	}
	return b.constrain(text)
}

// constrain reads ">= 1.2.0, < 1.2.7", as GitHub's advisories write.
func (b band) constrain(text string) ([]band, bool) {
	for word := range strings.SplitSeq(text, ",") {
		m := proseBound.FindStringSubmatch(strings.TrimSpace(word))
		if m == nil {
			return nil, false
		}
		v, ok := plainOrder.parse(m[2])
		if !ok {
			return nil, false
		}
		if (strings.HasPrefix(m[1], "<") || m[1] == "=") && b.high != nil || (strings.HasPrefix(m[1], ">") || m[1] == "=") && b.low != nil {
			return nil, false // twice the same end
		}
		switch m[1] {
		case "<":
			b.high, b.fix = v, m[2]
		case "<=":
			b.high, b.within = v, true
		case ">":
			b.low, b.above = v, true
		case ">=":
			b.low = v
		case "=":
			b.low, b.high, b.within, b.single = v, v, true, true
		}
	}
	return []band{b}, true
}
