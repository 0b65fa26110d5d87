// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"fmt"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/identity"
)

// query is a filter with its names looked up: it writes the condition that identity puts into its list of devices.
type query struct {
	filter Filter
	tenant string
	now    time.Time
	ids    map[*term][]string // of the keys that take names
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
	"owner": "device.solution", "batch": "device.batch", "grade": "device.grade", "serial": "device.serial", "id": "device.id"}

func (q *query) term(t *term, bind func(any) string) string {
	switch t.key {
	case "":
		v := t.values[0]
		if v.prefix {
			return "lower(device.serial) LIKE " + bind(like(v.text)+"%") + ` ESCAPE '\'`
		}
		return "lower(device.serial) LIKE " + bind("%"+like(v.text)+"%") + ` ESCAPE '\' OR device.id = ` + bind(v.text)
	case "serial", "batch", "id":
		return texts("lower("+column[t.key]+")", column[t.key], t.values, bind)
	case "state", "grade":
		return q.among(column[t.key], wanted(t.values), bind)
	case "product", "revision", "solution", "owner":
		return q.among(column[t.key], q.ids[t], bind)
	case "release":
		return q.release(q.ids[t], bind)
	case "online":
		return q.online(t.values, bind)
	case "seen":
		return q.seen(t, bind)
	case "created":
		from, until := t.window(q.now)
		return fmt.Sprintf("device.created >= %s AND device.created < %s", bind(from), bind(until))
	}
	panic("fleet: the parser let the key " + t.key + " pass")
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

// texts compares without regard to case; serial numbers and ids are ASCII, so both engines agree on lower().
func texts(lowered, column string, values []value, bind func(any) string) string {
	parts := make([]string, len(values))
	for i, v := range values {
		switch {
		case v.prefix:
			parts[i] = lowered + " LIKE " + bind(like(v.text)+"%") + ` ESCAPE '\'`
		default:
			parts[i] = lowered + " = " + bind(strings.ToLower(v.text))
		}
	}
	return strings.Join(parts, " OR ")
}

// like makes a text mean itself inside a LIKE over lower-case texts.
func like(s string) string {
	return strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(strings.ToLower(s))
}

func (q *query) release(want []string, bind func(any) string) string {
	runs := "EXISTS (SELECT 1 FROM install WHERE install.tenant = " + bind(q.tenant) + " AND install.device_id = device.id AND install.to_ts = " + bind(int64(Forever))
	var parts, ids []string
	for _, id := range want {
		if id == "" {
			parts = append(parts, "NOT "+runs+")")
		} else {
			ids = append(ids, id)
		}
	}
	if len(ids) > 0 || len(parts) == 0 {
		parts = append(parts, runs+" AND "+q.among("install.release_id", ids, bind)+")")
	}
	return strings.Join(parts, " OR ")
}

func (q *query) online(values []value, bind func(any) string) string {
	here := "EXISTS (SELECT 1 FROM presence WHERE presence.device_id = device.id AND presence.tenant = " + bind(q.tenant) + " AND presence.online = 1)"
	parts := make([]string, len(values))
	for i, v := range values {
		if parts[i] = here; v.text == "no" {
			parts[i] = "NOT " + here
		}
	}
	return strings.Join(parts, " OR ")
}

func (q *query) seen(t *term, bind func(any) string) string {
	known := "EXISTS (SELECT 1 FROM presence WHERE presence.device_id = device.id AND presence.tenant = " + bind(q.tenant)
	if t.op == "" {
		return "NOT " + known + ")"
	}
	from, until := t.window(q.now)
	now := q.now.UnixMilli()
	away := fmt.Sprintf("presence.online = 0 AND presence.seen >= %s AND presence.seen < %s", bind(from), bind(until))
	if from <= now && now < until {
		return known + " AND (presence.online = 1 OR " + away + "))"
	}
	return known + " AND " + away + ")"
}

// list is the filter as identity takes it.
func (q *query) list(after string, limit int) identity.Filter {
	return identity.Filter{Where: q.where, After: after, Limit: limit}
}
