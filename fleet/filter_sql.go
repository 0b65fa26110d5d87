// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// query is a filter with its names looked up: it writes the condition that identity puts into its list of devices.
type query struct {
	filter Filter
	tenant string
	now    time.Time
	ids    map[*term][]string // of the keys that take names, but groups
	groups map[*term][]member // of the key group
	few    map[*term]bool     // terms that so few devices fulfil that the list begins with those
	terms  int                // looked up so far
	below  int                // solutions that those named hold together
	outer  bool               // who asks must not learn what there is beside its solutions
}

func newQuery(tenant string, f Filter, now time.Time) *query {
	return &query{filter: f, tenant: tenant, now: now, ids: map[*term][]string{}, groups: map[*term][]member{}, few: map[*term]bool{}}
}

// member is one group that a term names: the filter of a dynamic one, else the id.
type member struct {
	filter expr
	id     string
}

// where is the condition over identity's row "device".
func (q *query) where(bind func(any) string) string {
	if q.filter.Empty() {
		return "1 = 1"
	}
	return q.expr(q.filter.root, bind)
}

func (q *query) expr(e expr, bind func(any) string) string {
	switch e := e.(type) {
	case all:
		return q.join(e, " AND ", bind)
	case some:
		return q.join(e, " OR ", bind)
	case not:
		return "NOT " + q.expr(e.of, bind)
	}
	return "(" + q.term(e.(*term), bind) + ")"
}

func (q *query) join(parts []expr, word string, bind func(any) string) string {
	texts := make([]string, len(parts))
	for i, e := range parts {
		texts[i] = q.expr(e, bind)
	}
	return "(" + strings.Join(texts, word) + ")"
}

// column is where identity keeps what a key asks for.
var column = map[string]string{"state": "device.state", "product": "device.product", "revision": "device.revision", "solution": "device.solution",
	"owner": "device.solution", "batch": "device.batch", "station": "device.origin", "grade": "device.grade", "serial": "device.serial", "id": "device.id"}

func (q *query) term(t *term, bind func(any) string) string {
	switch t.of {
	case "":
		v := t.values[0]
		if v.prefix {
			return "lower(device.serial) LIKE " + bind(like(v.text)+"%") + ` ESCAPE '\'`
		}
		return "lower(device.serial) LIKE " + bind("%"+like(v.text)+"%") + ` ESCAPE '\' OR device.id = ` + bind(v.text)
	case "serial", "id":
		return texts(column[t.of], t.values, bind)
	case "state", "grade":
		return q.among(column[t.of], wanted(t.values), bind)
	case "product", "revision", "solution", "owner":
		return q.among(column[t.of], q.ids[t], bind)
	case "batch":
		return q.batch(t, bind)
	case "station":
		return q.station(t, bind)
	case "order", "line", "part":
		return q.making(t, bind)
	case "release":
		return q.release(t, bind)
	case "group":
		return q.group(t, bind)
	case "label.":
		return q.label(t, bind)
	case "online":
		return q.online(t, bind)
	case "seen":
		return q.seen(t, bind)
	case "created":
		from, until := t.window(q.now)
		return fmt.Sprintf("device.created >= %s AND device.created < %s", bind(from), bind(until))
	}
	panic("fleet: the parser let the key " + t.of + " pass")
}

// wanted are the texts to compare with; none is the empty one.
func wanted(values []value) []string {
	out := make([]string, len(values))
	for i, v := range values {
		if out[i] = v.text; v.is(none) {
			out[i] = ""
		}
	}
	return out
}

// none is the word for what a device does not have.
const none = "none"

func (q *query) among(column string, want []string, bind func(any) string) string {
	switch len(want) {
	case 0:
		return "1 = 0"
	case 1:
		return column + " = " + bind(want[0])
	}
	marks := make([]string, len(want))
	for i, w := range want {
		marks[i] = bind(w)
	}
	return column + " IN (" + strings.Join(marks, ", ") + ")"
}

// texts compares serial numbers and ids. They are ASCII, so that both engines agree on lower(); ids have no capitals.
func texts(column string, values []value, bind func(any) string) string {
	if column == "device.serial" {
		column = "lower(device.serial)"
	}
	parts := make([]string, len(values))
	for i, v := range values {
		switch {
		case v.prefix:
			parts[i] = column + " LIKE " + bind(like(v.text)+"%") + ` ESCAPE '\'`
		default:
			parts[i] = column + " = " + bind(strings.ToLower(v.text))
		}
	}
	return strings.Join(parts, " OR ")
}

// like makes a text mean itself inside a LIKE over lower-case texts.
func like(s string) string {
	return strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(strings.ToLower(s))
}

// inside writes that the device is among those that rows, "FROM table WHERE …" of one of ours, tell of. Where those are
// few the list begins with them, elsewhere each device is looked up.
func (q *query) inside(t *term, table, rows string) string {
	if q.few[t] {
		return "device.id IN (SELECT " + table + ".device_id " + rows + ")"
	}
	return one(rows + " AND " + table + ".device_id = device.id")
}

// one says that there is such a row. An EXISTS would say it too, and SQLite would make a join of it that begins with the
// rows, however many, and sorts what it finds: 150 ms instead of 1 for a page of what most devices run.
func one(rows string) string {
	return "COALESCE((SELECT 1 " + rows + " LIMIT 1), 0) = 1"
}

func (q *query) release(t *term, bind func(any) string) string {
	var parts, ids []string
	for _, id := range q.ids[t] {
		if id != "" {
			ids = append(ids, id)
			continue
		}
		parts = append(parts, "NOT "+one("FROM install WHERE install.tenant = "+bind(q.tenant)+" AND install.device_id = device.id AND install.to_ts = 9223372036854775807"))
	}
	if len(ids) > 0 || len(parts) == 0 {
		parts = append(parts, q.inside(t, "install", q.runs(ids, bind)))
	}
	return strings.Join(parts, " OR ")
}

func (q *query) runs(ids []string, bind func(any) string) string {
	return "FROM install WHERE install.tenant = " + bind(q.tenant) + " AND " + q.among("install.release_id", ids, bind) + " AND install.to_ts = 9223372036854775807"
}

func (q *query) group(t *term, bind func(any) string) string {
	var parts, ids []string
	for _, m := range q.groups[t] {
		if m.id == "" {
			parts = append(parts, q.expr(m.filter, bind))
		} else {
			ids = append(ids, m.id)
		}
	}
	if len(ids) > 0 {
		parts = append(parts, q.inside(t, "group_member", q.members(ids, bind)))
	}
	if len(parts) == 0 {
		return "1 = 0"
	}
	return strings.Join(parts, " OR ")
}

func (q *query) members(ids []string, bind func(any) string) string {
	return "FROM group_member WHERE group_member.tenant = " + bind(q.tenant) + " AND " + q.among("group_member.group_id", ids, bind)
}

func (q *query) label(t *term, bind func(any) string) string {
	return q.inside(t, "label", q.labelled(t, bind))
}

func (q *query) labelled(t *term, bind func(any) string) string {
	rows := "FROM label WHERE label.tenant = " + bind(q.tenant) + " AND label.name = " + bind(t.name)
	if slices.ContainsFunc(t.values, value.any) {
		return rows
	}
	var exact, parts []string
	for _, v := range t.values {
		switch {
		case v.prefix:
			parts = append(parts, fmt.Sprintf("substr(label.value, 1, %d) = %s", len([]rune(v.text)), bind(v.text)))
		default:
			exact = append(exact, v.text)
		}
	}
	if len(exact) > 0 {
		parts = append(parts, q.among("label.value", exact, bind))
	}
	return rows + " AND (" + strings.Join(parts, " OR ") + ")"
}

// fewAtMost is how many devices a list may begin with. It is text in two statements: with it a page of 50 in 100,000
// devices takes 1 ms where looking each device up takes 60.
const fewAtMost = 2000

// rare is what counts the devices of a term that a list could begin with; "" where there is none.
func (q *query) rare(t *term, bind func(any) string) string {
	switch {
	case t.of == "release" && !slices.Contains(q.ids[t], ""):
		return q.runs(q.ids[t], bind)
	case t.of == "label.":
		return q.labelled(t, bind)
	case severalMade(t):
		return q.madeSo(t, bind)
	case t.of == "group" && !slices.ContainsFunc(q.groups[t], func(m member) bool { return m.id == "" }):
		var ids []string
		for _, m := range q.groups[t] {
			ids = append(ids, m.id)
		}
		return q.members(ids, bind)
	case t.of == "online" && len(t.values) == 1 && t.values[0].text == "yes":
		return "FROM presence WHERE presence.tenant = " + bind(q.tenant) + " AND presence.online = 1"
	}
	return ""
}

// required lists the terms that every match fulfils.
func required(e expr) (out []*term) {
	switch e := e.(type) {
	case all:
		for _, part := range e {
			out = append(out, required(part)...)
		}
	case *term:
		out = append(out, e)
	}
	return out
}

func (q *query) online(t *term, bind func(any) string) string {
	here := "FROM presence WHERE presence.tenant = " + bind(q.tenant) + " AND presence.online = 1"
	parts := make([]string, len(t.values))
	for i, v := range t.values {
		if parts[i] = q.inside(t, "presence", here); v.text == "no" {
			parts[i] = "NOT " + parts[i]
		}
	}
	return strings.Join(parts, " OR ")
}

func (q *query) seen(t *term, bind func(any) string) string {
	known := "FROM presence WHERE presence.device_id = device.id AND presence.tenant = " + bind(q.tenant)
	if t.op == "" {
		return "NOT " + one(known)
	}
	from, until := t.window(q.now)
	now := q.now.UnixMilli()
	away := fmt.Sprintf("presence.online = 0 AND presence.seen >= %s AND presence.seen < %s", bind(from), bind(until))
	if from <= now && now < until {
		away = "(presence.online = 1 OR " + away + ")"
	}
	return one(known + " AND " + away)
}
