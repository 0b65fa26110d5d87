// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/identity"
)

// kind says what the values of a key may be.
type kind int

const (
	kindText   kind = iota // a text; with a star behind it, what it begins with
	kindChoice             // one of a few words
	kindName               // the id or the name of something
	kindYesNo              // yes or no
	kindTime               // < or > and an age (7d) or a day (2026-11-21)
)

// FilterKey is one key of the language of filters.
type FilterKey struct {
	Name    string // "state", or "label." for a key that goes on
	Text    string // what it asks, for people
	Example string
	Choices []string // the only values there are, if so
	kind    kind
}

// FilterKeys lists the keys in the order in which people need them.
var FilterKeys = []FilterKey{
	{"state", "Where it stands in its life", "state:commissioned,suspended", stateNames(), kindChoice},
	{"online", "Whether it has a live session", "online:no", []string{"yes", "no"}, kindYesNo},
	{"seen", "When it was last here; a device that is online is here now", "seen:>7d", []string{"never"}, kindTime},
	{"release", "What runs on it now, by version or id", "release:2.4.1", nil, kindName},
	{"product", "What it is, by name, model or id", `product:"Street lamp"`, nil, kindName},
	{"revision", "Its hardware revision, by name or id", "revision:B2", nil, kindName},
	{"solution", "Where it serves, by name or id; what lies below it too", "solution:harbour", nil, kindName},
	{"owner", "Whose solution it serves in", `owner:"City of Ghent"`, nil, kindName},
	{"label.", "A label of it; * is any value", "label.site:ghent,antwerp", nil, kindText},
	{"group", "Whether it belongs to a group, by name or id", "group:pilot", nil, kindName},
	{"batch", "In which batch it was made, by name or id", `batch:"Lot 7"`, nil, kindText},
	{"order", "Under which production order it was made", "order:PO-7731", nil, kindText},
	{"line", "On which production line it was made", "line:L2,L3", nil, kindText},
	{"part", "Which part number the factory gave it", "part:4711-*", nil, kindText},
	{"station", "Which line station made it, by name or id", `station:"Test bench 2"`, nil, kindName},
	{"grade", "How sure we are of its key", "grade:A,B", []string{"A", "B", "C", "none"}, kindChoice},
	{"created", "When it was made known", "created:>2026-10-01", nil, kindTime},
	{"serial", "Its serial number", "serial:SN-1*", nil, kindText},
	{"id", "Its id", "id:dev_01kgx3vf5t*", nil, kindText},
}

func stateNames() []string {
	out := make([]string, len(identity.States))
	for i, st := range identity.States {
		out[i] = string(st)
	}
	return out
}

// keyOf finds the key that a term names; name is what follows the dot of one that goes on.
func keyOf(key string) (k FilterKey, name string, ok bool) {
	for _, k := range FilterKeys {
		if k.Name == key && !strings.HasSuffix(key, ".") {
			return k, "", true
		}
		if name, found := strings.CutPrefix(key, k.Name); found && strings.HasSuffix(k.Name, ".") {
			return k, name, true
		}
	}
	return FilterKey{}, "", false
}

func keyNames() string {
	names := make([]string, len(FilterKeys))
	for i, k := range FilterKeys {
		names[i] = k.Name
		if strings.HasSuffix(k.Name, ".") {
			names[i] += "NAME"
		}
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

func example(key string) string {
	if k, _, ok := keyOf(key); ok {
		return k.Example
	}
	return "state:commissioned"
}

// check refuses what no device could ever be asked.
func (p *parser) check(t *term) error {
	if t.key == "" {
		return nil
	}
	k, name, ok := keyOf(t.key)
	if !ok {
		e := p.fail(t.at, "There is no key %q.", t.key)
		if near := nearest(t.key, keyList()); near != "" {
			return e.Hint("Did you mean %s? For example %s.", near, example(near))
		}
		return e.Hint("The keys are %s.", keyNames())
	}
	t.of, t.name = k.Name, name
	if t.of == "label." && !labelName.MatchString(name) {
		return p.fail(t.at+len("label."), "%q cannot be the name of a label.", name).Hint("%s", labelNameHint)
	}
	if t.op != "" && k.kind != kindTime {
		return p.fail(t.values[0].at-len(t.op), "%s cannot be compared with %s.", t.key, t.op).Hint("For example %s.", k.Example)
	}
	for i := range t.values {
		if err := p.checkValue(t, k, &t.values[i]); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) checkValue(t *term, k FilterKey, v *value) error {
	switch {
	case k.kind == kindTime:
		return p.checkTime(t, k, *v)
	case v.prefix && k.kind != kindText:
		return p.fail(v.at, "%s takes no *.", t.key).Hint("For example %s.", k.Example)
	case k.kind == kindYesNo, k.kind == kindChoice:
		for _, c := range k.Choices {
			if strings.EqualFold(c, v.text) {
				v.text, v.quoted = c, false
				return nil
			}
		}
		e := p.fail(v.at, "%s is never %q.", t.key, v.text)
		if near := nearest(v.text, k.Choices); near != "" {
			return e.Hint("Did you mean %s:%s?", t.key, near)
		}
		return e.Hint("It is one of %s.", strings.Join(k.Choices, ", "))
	}
	return nil
}

func (p *parser) checkTime(t *term, k FilterKey, v value) error {
	if t.op == "" && v.is("never") && slices.Contains(k.Choices, "never") && len(t.values) == 1 {
		return nil
	}
	switch {
	case t.op == "":
		return p.fail(v.at, "%s is compared with < or >.", t.key).Hint("For example %s.", k.Example)
	case len(t.values) > 1:
		return p.fail(t.values[1].at, "A comparison has one value.").Hint("Write %s:%sA or %s:%sB.", t.key, t.op, t.key, t.op)
	}
	if _, _, ok := parseMoment(v.text); v.prefix || !ok {
		return p.fail(v.at, "%q is neither an age nor a day.", v.text).Hint("An age is a number with m, h, d or w, such as 7d; a day is such as 2026-11-21, an instant such as 2026-11-21T09:00:00Z.")
	}
	return nil
}

var agePattern = regexp.MustCompile(`^([0-9]{1,5})([mhdw])$`)

// parseMoment reads an age or a point in time.
func parseMoment(s string) (age time.Duration, at time.Time, ok bool) {
	if m := agePattern.FindStringSubmatch(s); m != nil {
		n, err := strconv.Atoi(m[1])
		unit := map[string]time.Duration{"m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour}[m[2]]
		return time.Duration(n) * unit, time.Time{}, err == nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if at, err := time.Parse(layout, s); err == nil && at.Year() > 1970 {
			return 0, at.UTC(), true
		}
	}
	return 0, time.Time{}, false
}

// window turns a comparison into times: from <= t < until, in ms since 1970 UTC. "More than 7d" is longer ago than
// seven days; "more than a day of the calendar" is after it.
func (t *term) window(now time.Time) (from, until int64) {
	from, until = 0, Forever
	age, at, _ := parseMoment(t.values[0].text)
	op := t.op
	if at.IsZero() {
		at = now.Add(-age)
		op = map[string]string{"<": ">", "<=": ">=", ">": "<", ">=": "<="}[op]
	}
	m := at.UnixMilli()
	switch op {
	case "<":
		until = m
	case "<=":
		until = m + 1
	case ">":
		from = m + 1
	case ">=":
		from = m
	}
	if len(t.values[0].text) == len(time.DateOnly) && age == 0 { // a whole day
		switch op {
		case "<=":
			until = m + dayMillis
		case ">":
			from = m + dayMillis
		}
	}
	return from, until
}

func keyList() []string {
	out := make([]string, len(FilterKeys))
	for i, k := range FilterKeys {
		out[i] = k.Name
	}
	return out
}

// nearest returns the word of the list that s was most likely meant to be, or "".
func nearest(s string, list []string) string {
	best, at := "", 3 // more than two slips are another word
	for _, w := range list {
		if d := slips(strings.ToLower(s), strings.ToLower(w)); d < at && d < len([]rune(w)) {
			best, at = w, d
		}
		if len(s) >= 3 && strings.HasPrefix(strings.ToLower(w), strings.ToLower(s)) && at > 1 {
			best, at = w, 1
		}
	}
	return best
}

// slips is how many letters must be added, taken away or changed to get from a to b (Levenshtein's distance).
func slips(a, b string) int {
	x, y := []rune(a), []rune(b)
	if len(x) > 64 || len(y) > 64 {
		return 64
	}
	row := make([]int, len(y)+1)
	for j := range row {
		row[j] = j
	}
	for i := range x {
		before := row[0]
		row[0] = i + 1
		for j := range y {
			cost := 1
			if x[i] == y[j] {
				cost = 0
			}
			before, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, before+cost)
		}
	}
	return row[len(y)]
}
