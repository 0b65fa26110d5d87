// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/identity"
)

// How a device was made: by production order, line, part number, batch and line station. Somebody who learns of a faulty
// order finds its units by these.

// made is where identity keeps what the factory said, folded (identity.FoldMade) and in an index of those that have any.
var made = map[string]string{"order": "made_order", "line": "made_line", "part": "made_part"}

// making writes a condition on what the factory said. Where there are few with several orders, or with those that begin
// with a text, the list begins with them; one order by itself is found anyway.
func (q *query) making(t *term, bind func(any) string) string {
	if q.few[t] {
		// The limit limits nothing: PostgreSQL finds these by their index, and does not make a join of it that walks the fleet.
		return "device.id IN (SELECT few.id " + q.madeSo(t, bind) + " LIMIT 9223372036854775807)"
	}
	return q.said(t, "device", bind)
}

// madeSo are the devices of a term that a list could begin with.
func (q *query) madeSo(t *term, bind func(any) string) string {
	return "FROM device few WHERE few.tenant = " + bind(q.tenant) + " AND (" + q.said(t, "few", bind) + ")"
}

// severalMade says whether a term asks for more than one value of those that the factory said, and for these alone.
func severalMade(t *term) bool {
	return made[t.of] != "" && (len(t.values) > 1 || t.values[0].prefix) && !slices.ContainsFunc(t.values, func(v value) bool { return v.is(none) })
}

// said is the condition itself, on the row that is called row. That there is something to compare stands beside it unless "none" is
// asked for: an index of those devices alone is of use to engines only where the condition says that it is about them.
func (q *query) said(t *term, row string, bind func(any) string) string {
	column := row + "." + made[t.of]
	var parts, exact []string
	nothing := false
	for _, v := range t.values {
		text := identity.FoldMade(v.text)
		switch {
		case v.is(none):
			nothing = true
		case v.any():
			parts = append(parts, "1 = 1")
		case v.prefix: // a range, since no engine takes a LIKE to this index
			parts = append(parts, column+" >= "+bind(text)+" AND "+column+" < "+bind(text+string(utf8.MaxRune)))
		default:
			exact = append(exact, text)
		}
	}
	if len(exact) > 0 {
		parts = append(parts, q.among(column, exact, bind))
	}
	said := column + " <> ''"
	if len(parts) > 0 {
		said += " AND (" + strings.Join(parts, " OR ") + ")"
	}
	switch {
	case !nothing:
		return said
	case len(parts) == 0:
		return column + " = ''"
	}
	return column + " = '' OR " + said
}

// batch writes a condition on the batch, by the ids of those named; what begins with a text may be an id too.
func (q *query) batch(t *term, bind func(any) string) string {
	var parts []string
	if ids := q.ids[t]; len(ids) > 0 {
		parts = append(parts, q.among(column[t.of], ids, bind))
	}
	for _, v := range t.values {
		if v.prefix {
			parts = append(parts, column[t.of]+" LIKE "+bind(like(v.text)+"%")+` ESCAPE '\'`)
		}
	}
	if len(parts) == 0 {
		return "1 = 0"
	}
	return strings.Join(parts, " OR ")
}

// station writes a condition on who brought the device in. Others do so too, trusted CAs and enrolment tokens, and are none.
func (q *query) station(t *term, bind func(any) string) string {
	of := column[t.of]
	ids := slices.DeleteFunc(slices.Clone(q.ids[t]), func(id string) bool { return id == "" })
	if len(ids) == len(q.ids[t]) {
		return q.among(of, ids, bind)
	}
	return "substr(" + of + ", 1, 4) <> 'sta_' OR " + q.among(of, ids, bind)
}

// lookUpBatches finds the batches that a term names. An id is taken as it is: it says itself what it is.
func (s *Service) lookUpBatches(ctx context.Context, q *query, t *term) error {
	var words []named
	ids := []string{}
	for _, v := range t.values {
		text := strings.ToLower(v.text)
		switch {
		case v.is(none):
			ids = append(ids, "")
			continue
		case strings.HasPrefix(text, "bat_"):
			if !v.prefix {
				ids = append(ids, text)
			}
			continue
		case v.any():
			continue
		}
		if words == nil {
			var err error
			if words, err = s.batchWords(ctx, q.tenant); err != nil {
				return err
			}
		}
		found := v.prefix || q.outer // an outsider learns of no name whether it exists
		for _, w := range words {
			if slices.ContainsFunc(w.names, func(n string) bool {
				return strings.EqualFold(n, v.text) || v.prefix && strings.HasPrefix(strings.ToLower(n), text)
			}) {
				ids, found = append(ids, w.id), true
			}
		}
		if !found {
			return unknown(t, v, words)
		}
	}
	slices.Sort(ids)
	q.ids[t] = slices.Compact(ids)
	return nil
}

func (s *Service) batchWords(ctx context.Context, t string) ([]named, error) {
	return calledBy(ctx, s.cfg.Batches, t)
}

func (s *Service) stationWords(ctx context.Context, t string) ([]named, error) {
	return calledBy(ctx, s.cfg.Stations, t)
}

// calledBy are things with one name each, in the order of their ids.
func calledBy(ctx context.Context, names func(context.Context, string) (map[string]string, error), t string) (out []named, err error) {
	if names == nil {
		return nil, nil
	}
	by, err := names(ctx, t)
	for _, id := range slices.Sorted(maps.Keys(by)) {
		out = append(out, named{id, []string{id, by[id]}})
	}
	return out, err
}
