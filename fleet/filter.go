// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"fmt"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/problem"
)

// Bounds of a filter. They keep one sentence of a stranger from becoming a query that nobody can afford.
const (
	MaxFilter       = 2000 // bytes of text
	maxFilterTerms  = 50
	maxFilterValues = 100 // of one term
	maxFilterDepth  = 10
)

// Filter is a parsed filter over devices; the zero Filter matches every device. docs/reference/filter.md tells the
// language to people.
type Filter struct{ root expr }

// expr is a node of a filter: all, some, not or *term.
type expr interface{ String() string }

type (
	all  []expr // every part; none: every device
	some []expr // at least one part
	not  struct{ of expr }
)

// term is one condition: a key and the values of which one must hold. The key of a bare word is "".
type term struct {
	key    string // "state", "label.site"
	of     string // the entry of FilterKeys: "state", "label."
	name   string // what follows the dot of a key that has one: "site"
	op     string // "" is; or < <= > >=
	values []value
	at     int // column of the key, from 1
}

// value is one wanted value.
type value struct {
	text   string
	quoted bool // a quoted none, never or * is only a text
	prefix bool // SN-*
	at     int  // column, from 1
}

// is says whether v is the bare word.
func (v value) is(word string) bool { return !v.quoted && !v.prefix && v.text == word }

// any says whether v is a lone star.
func (v value) any() bool { return v.prefix && v.text == "" }

// ParseFilter reads a filter. Its errors name the column, counted in characters from 1, and come with a hint.
func ParseFilter(text string) (Filter, error) {
	if len(text) > MaxFilter {
		return Filter{}, problem.Invalid("A filter is at most %d characters.", MaxFilter).At("filter")
	}
	p := parser{text: []rune(text)}
	root, err := p.either(0)
	if err == nil && p.peek() == ')' {
		err = p.fail(p.pos+1, "This parenthesis closes nothing.").Hint("Take it away, or put ( before it.")
	}
	if err != nil {
		return Filter{}, err
	}
	return Filter{root}, nil
}

// Empty says whether the filter matches every device by its form.
func (f Filter) Empty() bool {
	a, ok := f.root.(all)
	return f.root == nil || ok && len(a) == 0
}

// And is a filter that wants both.
func (f Filter) And(g Filter) Filter {
	switch {
	case f.Empty():
		return g
	case g.Empty():
		return f
	}
	return Filter{all{f.root, g.root}}
}

// String writes the filter in its one canonical form, which parses to the same filter.
func (f Filter) String() string {
	if f.root == nil {
		return ""
	}
	return f.root.String()
}

func (a all) String() string {
	parts := make([]string, len(a))
	for i, e := range a {
		if parts[i] = e.String(); needsParens(e) {
			parts[i] = "(" + parts[i] + ")"
		}
	}
	return strings.Join(parts, " ")
}

func (s some) String() string {
	parts := make([]string, len(s))
	for i, e := range s {
		parts[i] = e.String()
	}
	return strings.Join(parts, " or ")
}

func (n not) String() string {
	if needsParens(n.of) {
		return "-(" + n.of.String() + ")"
	}
	return "-" + n.of.String()
}

func needsParens(e expr) bool {
	switch e.(type) {
	case some, all:
		return true
	}
	return false
}

func (t *term) String() string {
	var b strings.Builder
	if t.key != "" {
		b.WriteString(t.key + ":" + t.op)
	}
	for i, v := range t.values {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(v.write(t.key == ""))
	}
	return b.String()
}

func (v value) write(bare bool) string {
	text := v.text
	if v.quoted || text == "" && !v.prefix || strings.ContainsFunc(text, func(r rune) bool { return !plain(r) || r == ',' || r == '*' || bare && r == ':' }) ||
		bare && (isWord(text, "or") || isWord(text, "and") || isWord(text, "not")) || strings.HasPrefix(text, "-") || strings.HasPrefix(text, "<") || strings.HasPrefix(text, ">") {
		text = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
	}
	if v.prefix {
		text += "*"
	}
	return text
}

// plain says whether r needs no quotes.
func plain(r rune) bool {
	return r > ' ' && r != 0x7f && !strings.ContainsRune(`()"\`, r) && !isSpace(r)
}

func isSpace(r rune) bool { return r == ' ' || r == '\t' || r == '\n' || r == '\r' || r == 0xa0 }

func isWord(s, word string) bool { return strings.EqualFold(s, word) }

// parser is a reader by recursive descent:
//
//	either = both { "or" both }        both = { [ "and" ] one }
//	one    = [ "-" | "not" ] ( "(" either ")" | term )
//	term   = [ key ":" ] [ "<" | "<=" | ">" | ">=" ] value { "," value }
type parser struct {
	text  []rune
	pos   int
	terms int
}

func (p *parser) fail(column int, format string, args ...any) *problem.Error {
	e := problem.Invalid("Filter, column %d: %s", column, fmt.Sprintf(format, args...))
	return e.At(fmt.Sprintf("filter:%d", column))
}

// peek skips spaces and returns the next character, 0 at the end.
func (p *parser) peek() rune {
	for p.pos < len(p.text) && isSpace(p.text[p.pos]) {
		p.pos++
	}
	if p.pos == len(p.text) {
		return 0
	}
	return p.text[p.pos]
}

// take takes the character if it stands here.
func (p *parser) take(c rune) bool {
	if p.peek() != c {
		return false
	}
	p.pos++
	return true
}

// keyword takes the word if it stands here by itself.
func (p *parser) keyword(word string) bool {
	p.peek()
	end := p.pos + len(word)
	if end > len(p.text) || !isWord(string(p.text[p.pos:end]), word) || end < len(p.text) && !isSpace(p.text[end]) && p.text[end] != '(' && p.text[end] != ')' {
		return false
	}
	p.pos = end
	return true
}

func (p *parser) either(depth int) (expr, error) {
	if depth > maxFilterDepth {
		return nil, p.fail(p.pos+1, "Parentheses go deeper than %d.", maxFilterDepth)
	}
	var parts some
	for {
		e, err := p.both(depth)
		if err != nil {
			return nil, err
		}
		parts = append(parts, e)
		at := p.pos
		if !p.keyword("or") {
			break
		}
		if a, ok := e.(all); ok && len(a) == 0 {
			p.pos = at
			p.peek()
			return nil, p.fail(p.pos+1, "Nothing stands before this or.")
		}
		if c := p.peek(); c == 0 || c == ')' {
			return nil, p.fail(p.pos+1, "Something must follow or.")
		}
	}
	if len(parts) == 1 {
		return parts[0], nil
	}
	return parts, nil
}

func (p *parser) both(depth int) (expr, error) {
	parts := all{}
	for {
		if p.keyword("and") {
			if len(parts) == 0 {
				return nil, p.fail(p.pos-2, "Nothing stands before this and.").Hint("A space between two conditions is an and already.")
			}
			if c := p.peek(); c == 0 || c == ')' {
				return nil, p.fail(p.pos+1, "Something must follow and.")
			}
		}
		c, at := p.peek(), p.pos
		or := p.keyword("or")
		p.pos = at
		if c == 0 || c == ')' || or {
			break
		}
		e, err := p.one(depth)
		if err != nil {
			return nil, err
		}
		parts = append(parts, e)
	}
	if len(parts) == 1 {
		return parts[0], nil
	}
	return parts, nil
}

func (p *parser) one(depth int) (expr, error) {
	at := p.pos
	switch {
	case p.take('-') || p.keyword("not"):
		if c := p.peek(); c == 0 || c == ')' || p.keyword("or") || p.keyword("and") {
			return nil, p.fail(at+1, "Nothing follows that could be turned around.")
		}
		if depth++; depth > maxFilterDepth {
			return nil, p.fail(at+1, "It is turned around more often than anybody can follow.")
		}
		e, err := p.one(depth)
		return not{e}, err
	case p.text[p.pos] == '(':
		p.pos++
		e, err := p.either(depth + 1)
		if err != nil {
			return nil, err
		}
		if p.peek() != ')' {
			return nil, p.fail(at+1, "This parenthesis is never closed.").Hint("Put ) where it ends.")
		}
		if a, ok := e.(all); ok && len(a) == 0 {
			return nil, p.fail(at+1, "Nothing stands between these parentheses.")
		}
		p.pos++
		return e, nil
	}
	return p.term()
}

func (p *parser) term() (expr, error) {
	t := &term{at: p.pos + 1}
	if p.terms++; p.terms > maxFilterTerms {
		return nil, p.fail(t.at, "A filter has at most %d conditions.", maxFilterTerms)
	}
	end := p.pos
	for end < len(p.text) && plain(p.text[end]) && p.text[end] != ':' {
		end++
	}
	if end < len(p.text) && p.text[end] == ':' {
		t.key = string(p.text[p.pos:end])
		p.pos = end + 1
		if t.key == "" {
			return nil, p.fail(t.at, "A key is missing before the colon.").Hint("The keys are %s.", keyNames())
		}
		for _, op := range []string{"<=", ">=", "<", ">"} {
			if strings.HasPrefix(string(p.text[p.pos:min(len(p.text), p.pos+2)]), op) {
				t.op = op
				p.pos += len(op)
				break
			}
		}
	}
	for {
		v, err := p.value(t)
		if err != nil {
			return nil, err
		}
		t.values = append(t.values, v)
		if len(t.values) > maxFilterValues {
			return nil, p.fail(v.at, "A condition has at most %d values.", maxFilterValues).Hint("Put the devices into a static group and ask for group:NAME.")
		}
		if t.key == "" || p.pos == len(p.text) || p.text[p.pos] != ',' {
			break
		}
		p.pos++
	}
	return t, p.check(t)
}

// value reads one value: plain characters, or a text in quotes, and perhaps a star behind it.
func (p *parser) value(t *term) (v value, err error) {
	v.at = p.pos + 1
	if p.pos < len(p.text) && p.text[p.pos] == '"' {
		if v.text, err = p.quoted(); err != nil {
			return v, err
		}
		v.quoted = true
		if p.pos < len(p.text) && p.text[p.pos] == '*' {
			p.pos++
			v.prefix = true
		}
		if p.pos < len(p.text) && plain(p.text[p.pos]) && p.text[p.pos] != ',' {
			return v, p.fail(p.pos+1, "A space is missing after the quotes.")
		}
		return v, nil
	}
	from := p.pos
	for p.pos < len(p.text) && plain(p.text[p.pos]) && (t.key == "" || p.text[p.pos] != ',') {
		p.pos++
	}
	v.text = string(p.text[from:p.pos])
	v.text, v.prefix = strings.CutSuffix(v.text, "*")
	switch {
	case p.pos == from && p.pos < len(p.text) && p.text[p.pos] == '\\':
		return v, p.fail(v.at, `A \ stands outside quotes.`).Hint(`Put the value into "quotes".`)
	case p.pos == from && t.key == "":
		return v, p.fail(v.at, "This character cannot stand here.").Hint(`Put the value into "quotes".`)
	case p.pos == from:
		return v, p.fail(v.at, "A value is missing after %s:.", t.key).Hint("For example %s.", example(t.key))
	case p.pos < len(p.text) && (p.text[p.pos] == '"' || p.text[p.pos] == '\\'):
		return v, p.fail(p.pos+1, "Quotes stand around a whole value.").Hint(`For example product:"Street lamp".`)
	case strings.Contains(v.text, "*"):
		return v, p.fail(v.at+slices.Index([]rune(v.text), '*'), "A * stands only at the end of a value.").Hint("A bare word finds a part of a serial number.")
	}
	return v, nil
}

func (p *parser) quoted() (string, error) {
	from := p.pos + 1
	var b strings.Builder
	for p.pos++; p.pos < len(p.text); p.pos++ {
		switch c := p.text[p.pos]; {
		case c == '"':
			p.pos++
			return b.String(), nil
		case c < ' ' || c == 0x7f:
			return "", p.fail(p.pos+1, "A control character stands in the text.")
		case c == '\\' && p.pos+1 < len(p.text) && (p.text[p.pos+1] == '"' || p.text[p.pos+1] == '\\'):
			p.pos++
			b.WriteRune(p.text[p.pos])
		default:
			b.WriteRune(c)
		}
	}
	return "", p.fail(from, "These quotes are never closed.").Hint(`Put " where the text ends.`)
}
