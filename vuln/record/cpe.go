// SPDX-License-Identifier: AGPL-3.0-only

package record

import (
	"net/url"
	"strings"
)

// cpeName is a name of the Common Platform Enumeration (NISTIR 7695), 2.3 in one line or the older URI.
type cpeName struct {
	part                                   byte // 'a' application, 'o' operating system, 'h' hardware
	vendor, product, version, update       cpeValue
	edition, language, swEdition, targetSW cpeValue
	targetHW, other                        cpeValue
}

// cpeValue is one attribute: text without escapes, in lower case; or one of the two that are no text.
type cpeValue struct {
	text string
	any  bool // "*": any value
	na   bool // "-": it has none
	wild bool // holds * or ? as wildcards
}

const maxCPE = 2048 // bytes

// parseCPE reads a name, or says that it is none. Nothing is guessed: a name with a missing or an empty attribute is none.
func parseCPE(s string) (cpeName, bool) {
	var n cpeName
	if len(s) > maxCPE {
		return n, false
	}
	var fields []string
	switch {
	case strings.HasPrefix(s, "cpe:2.3:"):
		fields = cpeFields(s[len("cpe:2.3:"):])
		if len(fields) != 11 {
			return n, false
		}
	case strings.HasPrefix(s, "cpe:/"): // NISTIR 7695 section 6.1: percent encoding, attributes left out at the end
		for f := range strings.SplitSeq(s[len("cpe:/"):], ":") {
			f, err := url.PathUnescape(f)
			if err != nil {
				return n, false
			}
			switch f {
			case "":
				f = "*"
			case "-":
			default:
				f = escapeCPE(f)
			}
			fields = append(fields, f)
		}
		if len(fields) > 7 {
			return n, false
		}
		for len(fields) < 11 {
			fields = append(fields, "*")
		}
	default:
		return n, false
	}
	if len(fields[0]) != 1 || !strings.Contains("aoh", strings.ToLower(fields[0])) {
		return n, false
	}
	n.part = strings.ToLower(fields[0])[0]
	for i, v := range []*cpeValue{&n.vendor, &n.product, &n.version, &n.update, &n.edition, &n.language, &n.swEdition, &n.targetSW, &n.targetHW, &n.other} {
		var ok bool
		if *v, ok = parseCPEValue(fields[i+1]); !ok {
			return n, false
		}
	}
	return n, true
}

// cpeFields splits at colons that no backslash quotes.
func cpeFields(s string) []string {
	var out []string
	start := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case ':':
			out = append(out, s[start:i])
			start = i + 1
		}
	}
	return append(out, s[start:])
}

func parseCPEValue(s string) (cpeValue, bool) {
	switch s {
	case "":
		return cpeValue{}, false
	case "*":
		return cpeValue{any: true}, true
	case "-":
		return cpeValue{na: true}, true
	}
	var v cpeValue
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			if i++; i == len(s) {
				return v, false
			}
			b.WriteByte(s[i])
		case c == '*' || c == '?':
			v.wild = true
			b.WriteByte(c)
		case c <= ' ' || c == 0x7f:
			return v, false
		default:
			b.WriteByte(c)
		}
	}
	v.text = strings.ToLower(b.String())
	return v, true
}

// escapeCPE quotes what a URI's attribute holds, so that both forms are read by one reader.
func escapeCPE(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c == '*' || c == '?' || c == '\\' || c == ':' {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// name is what components are looked up by, "" if vendor or product is a wildcard: these never match.
func (n cpeName) name() string {
	if n.vendor.text == "" || n.product.text == "" || n.vendor.wild || n.product.wild {
		return ""
	}
	return n.vendor.text + ":" + n.product.text
}

// number is the version with its update ("7.2" and "p1"), and whether the name has one.
func (n cpeName) number() (string, bool) {
	if n.version.any || n.version.na || n.version.wild {
		return "", false
	}
	if n.update.text != "" && !n.update.wild {
		return n.version.text + "-" + n.update.text, true
	}
	return n.version.text, true
}

// conditions are attributes that a component's name does not carry and a person has to check.
func (n cpeName) conditions() []string {
	var out []string
	for _, a := range []struct {
		words string
		v     cpeValue
	}{{"only the edition ", n.edition}, {"only the edition ", n.swEdition}, {"only in the language ", n.language}, {"only for ", n.targetSW}, {"only on ", n.targetHW}} {
		if a.v.text != "" {
			out = append(out, a.words+a.v.text)
		}
	}
	return out
}

// words says a name to a person: "o:linux:linux_kernel 6.1".
func (n cpeName) words() string {
	s := string(n.part) + ":" + n.vendor.text + ":" + n.product.text
	if v, ok := n.number(); ok {
		s += " " + v
	}
	return s
}

// applicable is one statement of a cpeApplicability: nodes joined by AND or OR.
type applicable struct {
	Operator string    `json:"operator,omitempty"`
	Negate   bool      `json:"negate,omitempty"`
	Nodes    []cpeNode `json:"nodes"`
}

// cpeNode joins names by AND or OR.
type cpeNode struct {
	Operator string     `json:"operator,omitempty"`
	Negate   bool       `json:"negate,omitempty"`
	Match    []cpeMatch `json:"cpeMatch"`
}

// cpeMatch is a CPE name with a range of versions. Only a vulnerable one opens a finding; the others say where it matters.
type cpeMatch struct {
	Vulnerable     bool   `json:"vulnerable"`
	Criteria       string `json:"criteria"`
	StartIncluding string `json:"versionStartIncluding,omitempty"`
	StartExcluding string `json:"versionStartExcluding,omitempty"`
	EndIncluding   string `json:"versionEndIncluding,omitempty"`
	EndExcluding   string `json:"versionEndExcluding,omitempty"`
}
