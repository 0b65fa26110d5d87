// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// What is understood of PromQL: selectors with matchers, a range and an offset; the functions and aggregations below; and
// arithmetic of a vector with numbers, or of numbers. Whatever else is refused by name, never answered half.
var (
	promFunctions = map[string]func([]sample) float64{
		"avg_over_time": func(ss []sample) (mean float64) {
			for i, s := range ss {
				mean += s.v/float64(i+1) - mean/float64(i+1) // a running mean: a sum could overflow
			}
			return mean
		},
		"min_over_time":   func(ss []sample) float64 { return extreme(ss, math.Min) },
		"max_over_time":   func(ss []sample) float64 { return extreme(ss, math.Max) },
		"last_over_time":  func(ss []sample) float64 { return ss[len(ss)-1].v },
		"count_over_time": func(ss []sample) float64 { return float64(len(ss)) },
		"sum_over_time": func(ss []sample) (sum float64) {
			for _, s := range ss {
				sum += s.v
			}
			return sum
		},
	}
	promAggregations = map[string]func(into, v float64) float64{
		"sum": func(a, b float64) float64 { return a + b }, "avg": func(a, b float64) float64 { return a + b },
		"min": math.Min, "max": math.Max, "count": func(a, _ float64) float64 { return a + 1 },
	}
)

func extreme(ss []sample, of func(a, b float64) float64) float64 {
	out := ss[0].v
	for _, s := range ss[1:] {
		out = of(out, s.v)
	}
	return out
}

// Bounds of a query's text.
const (
	maxPromQuery = 4096
	maxPromDepth = 30
)

// promError is about a query that cannot be understood or is not supported.
type promError struct{ text string }

func (e promError) Error() string { return e.text }

func promFail(format string, args ...any) error { return promError{fmt.Sprintf(format, args...)} }

// promExpr is a node: exactly one of its kinds is set.
type promExpr struct {
	number   *float64
	selector *promSelector
	function string   // over args[0], a selector with a range
	group    *promSum // over args[0]
	operator byte     // + - * / over two args
	args     []promExpr
}

type promSum struct {
	name string
	by   []string
}

type promSelector struct {
	matchers []promMatcher
	span     time.Duration // of a range; 0: the value at an instant
	offset   time.Duration
}

type promMatcher struct {
	label, op, value string
	re               *regexp.Regexp
}

func (m promMatcher) matches(v string) bool {
	switch m.op {
	case "=":
		return v == m.value
	case "!=":
		return v != m.value
	case "=~":
		return m.re.MatchString(v)
	}
	return !m.re.MatchString(v)
}

// parsePromQL reads a query.
func parsePromQL(text string) (promExpr, error) {
	if len(text) > maxPromQuery || !utf8.ValidString(text) {
		return promExpr{}, promFail("a query is at most %d bytes of UTF-8", maxPromQuery)
	}
	p := &promParser{text: text}
	e, err := p.sum(0)
	if err == nil && p.peek() != 0 {
		err = promFail("unexpected %q at position %d", p.rest(), p.pos+1)
	}
	return e, err
}

type promParser struct {
	text string
	pos  int
}

func (p *promParser) rest() string {
	r := p.text[p.pos:]
	if len(r) > 20 {
		r = r[:20] + "…"
	}
	return r
}

// peek skips space and returns the next byte, 0 at the end.
func (p *promParser) peek() byte {
	for p.pos < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.pos]) >= 0 {
		p.pos++
	}
	if p.pos == len(p.text) {
		return 0
	}
	return p.text[p.pos]
}

func (p *promParser) take(c byte) bool {
	if c == 0 || p.peek() != c {
		return false
	}
	p.pos++
	return true
}

func (p *promParser) want(c byte) error {
	if !p.take(c) {
		return promFail("expected %q at position %d, found %q", string(c), p.pos+1, p.rest())
	}
	return nil
}

// word reads a name: letters, digits, _ and :.
func (p *promParser) word() string {
	p.peek()
	from := p.pos
	for p.pos < len(p.text) {
		c := rune(p.text[p.pos])
		if !(c == '_' || c == ':' || unicode.IsLetter(c) && c < 128 || p.pos > from && unicode.IsDigit(c)) {
			break
		}
		p.pos++
	}
	return p.text[from:p.pos]
}

// ahead looks at the next word without taking it.
func (p *promParser) ahead() string {
	at := p.pos
	w := p.word()
	p.pos = at
	return w
}

func (p *promParser) sum(depth int) (promExpr, error) { return p.binary(depth, "+-", p.product) }

func (p *promParser) product(depth int) (promExpr, error) { return p.binary(depth, "*/", p.unary) }

func (p *promParser) binary(depth int, ops string, next func(int) (promExpr, error)) (promExpr, error) {
	if depth > maxPromDepth {
		return promExpr{}, promFail("the query is nested deeper than %d", maxPromDepth)
	}
	left, err := next(depth)
	for err == nil {
		op := p.peek()
		if op == 0 || strings.IndexByte(ops, op) < 0 {
			return left, nil
		}
		p.pos++
		var right promExpr
		if right, err = next(depth); err == nil {
			left = promExpr{operator: op, args: []promExpr{left, right}}
			err = left.arithmetic()
		}
	}
	return promExpr{}, err
}

// arithmetic refuses what has no meaning here: two vectors, or a range.
func (e promExpr) arithmetic() error {
	vectors := 0
	for _, a := range e.args {
		if a.ranged() {
			return promFail("a range vector stands in a function such as avg_over_time only")
		}
		if !a.scalar() {
			vectors++
		}
	}
	if vectors == 2 {
		return promFail("arithmetic of two vectors is not supported; one side must be a number")
	}
	return nil
}

func (e promExpr) ranged() bool { return e.selector != nil && e.selector.span > 0 }

func (e promExpr) scalar() bool {
	return e.number != nil || e.operator != 0 && e.args[0].scalar() && e.args[1].scalar()
}

func (p *promParser) unary(depth int) (promExpr, error) {
	if p.take('-') {
		e, err := p.unary(depth + 1)
		if err != nil || depth > maxPromDepth {
			return e, err
		}
		zero := 0.0
		e = promExpr{operator: '-', args: []promExpr{{number: &zero}, e}}
		return e, e.arithmetic()
	}
	if depth > maxPromDepth {
		return promExpr{}, promFail("the query is nested deeper than %d", maxPromDepth)
	}
	switch c := p.peek(); {
	case c == '(':
		p.pos++
		e, err := p.sum(depth + 1)
		if err != nil {
			return e, err
		}
		return e, p.want(')')
	case c >= '0' && c <= '9' || c == '.':
		return p.number()
	case c == '{' || c == '_' || c == ':' || unicode.IsLetter(rune(c)):
		return p.named(depth)
	case c == 0:
		return promExpr{}, promFail("the query ends where a selector, a function or a number is expected")
	}
	return promExpr{}, promFail("unexpected %q at position %d", p.rest(), p.pos+1)
}

var promNumber = regexp.MustCompile(`^[0-9]*\.?[0-9]*(?:[eE][+-]?[0-9]+)?`)

func (p *promParser) number() (promExpr, error) {
	text := promNumber.FindString(p.text[p.pos:])
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return promExpr{}, promFail("%q is no number", p.rest())
	}
	p.pos += len(text)
	return promExpr{number: &v}, nil
}

// named reads what begins with a name: an aggregation, a function or a selector.
func (p *promParser) named(depth int) (promExpr, error) {
	at := p.pos
	name := p.word()
	if _, is := promAggregations[name]; is && (p.peek() == '(' || p.ahead() == "by" || p.ahead() == "without") {
		return p.aggregation(name, depth)
	}
	if p.peek() == '(' && name != "" {
		if _, is := promFunctions[name]; !is {
			return promExpr{}, promFail("the function %s is not supported; supported are %s, and sum, avg, min, max and count by", name, promNames())
		}
		p.pos++
		e, err := p.sum(depth + 1)
		if err != nil {
			return e, err
		}
		if !e.ranged() {
			return e, promFail("%s takes a range vector, such as %s(temp[5m])", name, name)
		}
		return promExpr{function: name, args: []promExpr{e}}, p.want(')')
	}
	p.pos = at
	return p.selector()
}

func promNames() string {
	var names []string
	for n := range promFunctions {
		names = append(names, n)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func (p *promParser) aggregation(name string, depth int) (e promExpr, err error) {
	g := &promSum{name: name}
	by := func() error {
		switch p.ahead() {
		case "by":
			p.word()
			g.by, err = p.labels()
			return err
		case "without":
			return promFail("without is not supported; name the labels to keep: by (…)")
		}
		return nil
	}
	if err := by(); err != nil {
		return e, err
	}
	if err := p.want('('); err != nil {
		return e, err
	}
	of, err := p.sum(depth + 1)
	if err != nil {
		return e, err
	}
	if of.ranged() || of.scalar() {
		return e, promFail("%s takes an instant vector", name)
	}
	if err := p.want(')'); err != nil {
		return e, err
	}
	if g.by == nil {
		if err := by(); err != nil {
			return e, err
		}
	}
	return promExpr{group: g, args: []promExpr{of}}, nil
}

func (p *promParser) labels() (out []string, err error) {
	if err := p.want('('); err != nil {
		return nil, err
	}
	out = []string{}
	for !p.take(')') {
		name := p.word()
		if name == "" || strings.Contains(name, ":") {
			return nil, promFail("expected a label at position %d, found %q", p.pos+1, p.rest())
		}
		out = append(out, name)
		if !p.take(',') && p.peek() != ')' {
			return nil, promFail("expected , or ) at position %d, found %q", p.pos+1, p.rest())
		}
	}
	return out, nil
}

func (p *promParser) selector() (promExpr, error) {
	s := &promSelector{}
	if name := p.word(); name != "" {
		s.matchers = append(s.matchers, promMatcher{label: "__name__", op: "=", value: name})
	}
	if p.take('{') {
		for !p.take('}') {
			m, err := p.matcher()
			if err != nil {
				return promExpr{}, err
			}
			s.matchers = append(s.matchers, m)
			if !p.take(',') && p.peek() != '}' {
				return promExpr{}, promFail("expected , or } at position %d, found %q", p.pos+1, p.rest())
			}
		}
	}
	if !slices.ContainsFunc(s.matchers, func(m promMatcher) bool { return !m.matches("") }) {
		return promExpr{}, promFail("a selector needs a name or a matcher that does not match the empty text")
	}
	var err error
	if p.take('[') {
		if s.span, err = p.duration(); err != nil {
			return promExpr{}, err
		}
		if p.peek() == ':' {
			return promExpr{}, promFail("subqueries are not supported")
		}
		if err := p.want(']'); err != nil {
			return promExpr{}, err
		}
	}
	if p.ahead() == "offset" {
		p.word()
		back := p.take('-')
		if s.offset, err = p.duration(); err != nil {
			return promExpr{}, err
		}
		if back {
			s.offset = -s.offset
		}
	}
	if p.peek() == '@' {
		return promExpr{}, promFail("the modifier @ is not supported")
	}
	switch w := p.ahead(); w {
	case "and", "or", "unless", "on", "ignoring", "bool", "group_left", "group_right":
		return promExpr{}, promFail("%s is not supported", w)
	}
	if c := p.peek(); c == '=' || c == '!' || c == '<' || c == '>' || c == '^' || c == '%' {
		return promExpr{}, promFail("the operator %q is not supported", string(c))
	}
	return promExpr{selector: s}, nil
}

func (p *promParser) matcher() (m promMatcher, err error) {
	if m.label = p.word(); m.label == "" || strings.Contains(m.label, ":") {
		return m, promFail("expected a label at position %d, found %q", p.pos+1, p.rest())
	}
	p.peek()
	for _, op := range []string{"=~", "!~", "!=", "="} {
		if strings.HasPrefix(p.text[p.pos:], op) {
			m.op = op
			p.pos += len(op)
			break
		}
	}
	if m.op == "" {
		return m, promFail("expected =, !=, =~ or !~ at position %d, found %q", p.pos+1, p.rest())
	}
	if m.value, err = p.quoted(); err != nil {
		return m, err
	}
	if strings.HasSuffix(m.op, "~") {
		if m.re, err = regexp.Compile("^(?s:" + m.value + ")$"); err != nil {
			return m, promFail("%q is no regular expression: %v", m.value, err)
		}
	}
	return m, nil
}

// quoted reads a text in double or single quotes with the escapes of Go, or in backticks without.
func (p *promParser) quoted() (string, error) {
	q := p.peek()
	if q != '"' && q != '\'' && q != '`' {
		return "", promFail("expected a text in quotes at position %d, found %q", p.pos+1, p.rest())
	}
	end := p.pos + 1
	for end < len(p.text) && p.text[end] != q {
		if p.text[end] == '\\' && q != '`' {
			end++
		}
		end++
	}
	if end >= len(p.text) {
		return "", promFail("a text is not closed")
	}
	raw := p.text[p.pos+1 : end]
	p.pos = end + 1
	if q == '`' {
		return raw, nil
	}
	var out strings.Builder
	for len(raw) > 0 {
		r, _, rest, err := strconv.UnquoteChar(raw, q)
		if err != nil {
			return "", promFail("a text has a wrong escape")
		}
		out.WriteRune(r)
		raw = rest
	}
	return out.String(), nil
}

var promDuration = regexp.MustCompile(`^(?:[0-9]+(?:ms|[smhdwy]))+`)

func (p *promParser) duration() (time.Duration, error) {
	p.peek()
	text := promDuration.FindString(p.text[p.pos:])
	d, err := parsePromDuration(text)
	if err != nil {
		return 0, promFail("expected a duration such as 5m at position %d, found %q", p.pos+1, p.rest())
	}
	p.pos += len(text)
	return d, nil
}

// parsePromDuration reads 1h30m, or seconds such as 15 or 0.5.
func parsePromDuration(text string) (time.Duration, error) {
	if s, err := strconv.ParseFloat(text, 64); err == nil && s > 0 && s < 1e10 {
		return time.Duration(s * float64(time.Second)), nil
	}
	if text == "" || promDuration.FindString(text) != text {
		return 0, promFail("%q is no duration", cut(text))
	}
	units := map[string]time.Duration{"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour, "y": 365 * 24 * time.Hour}
	total := 0.0
	for rest := text; rest != ""; {
		i := strings.IndexFunc(rest, unicode.IsLetter)
		n, err := strconv.ParseFloat(rest[:i], 64)
		if err != nil {
			return 0, promFail("%q is no duration", cut(text))
		}
		j := i
		for j < len(rest) && unicode.IsLetter(rune(rest[j])) {
			j++
		}
		total += n * float64(units[rest[i:j]])
		rest = rest[j:]
	}
	if total <= 0 || total > float64(100*365*24*time.Hour) {
		return 0, promFail("%q is longer than a hundred years, or nothing", cut(text))
	}
	return time.Duration(total), nil
}
