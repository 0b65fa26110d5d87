// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"cmp"
	"math"
	"slices"
)

// table is points of one stream column by column, the names sorted; NaN stands where a point has no value of that name.
type table struct {
	at      []int64 // ms since 1970 UTC
	names   []string
	columns [][]float64
}

func (t table) len() int { return len(t.at) }

// column returns the place of a name, which it adds where it is new.
func (t *table) column(name string, guess int) int {
	if guess < len(t.names) && t.names[guess] == name {
		return guess // points of one stream mostly name the same values
	}
	i, found := slices.BinarySearch(t.names, name)
	if !found {
		c := make([]float64, len(t.at))
		for i := range c {
			c[i] = math.NaN()
		}
		t.names = slices.Insert(t.names, i, name)
		t.columns = slices.Insert(t.columns, i, c)
	}
	return i
}

func byTime(a, b point) int { return cmp.Compare(a.t, b.t) }

// tableOf turns points, sorted by time, into columns.
func tableOf(points []point) table {
	t := table{at: make([]int64, len(points))}
	for i, p := range points {
		t.at[i] = p.t
	}
	for i, p := range points {
		for j, v := range p.values {
			c := t.column(v.name, j)
			t.columns[c][i] = v.v
		}
	}
	return t
}

// points turns the columns back.
func (t table) points() []point {
	points := make([]point, t.len())
	for i := range points {
		points[i].t = t.at[i]
		for j, c := range t.columns {
			if !math.IsNaN(c[i]) {
				points[i].values = append(points[i].values, value{t.names[j], c[i]})
			}
		}
	}
	return points
}

// newest returns the last value of a column, which has one; of several at that time the greatest.
func (t table) newest(j int) (s sample) {
	found := false
	for i := t.len() - 1; i >= 0 && (!found || t.at[i] == s.t); i-- {
		if v := t.columns[j][i]; !math.IsNaN(v) && (!found || v > s.v) {
			s, found = sample{t.at[i], v}, true
		}
	}
	return s
}

// cut returns rows from to to of the columns that have a value there.
func (t table) cut(from, to int) table {
	out := table{at: t.at[from:to]}
	for j, c := range t.columns {
		if slices.ContainsFunc(c[from:to], func(v float64) bool { return !math.IsNaN(v) }) {
			out.names = append(out.names, t.names[j])
			out.columns = append(out.columns, c[from:to])
		}
	}
	return out
}

// joined puts tables together, sorted by time; rows of one time stay in the order in which they came.
func joined(tables []table) table {
	var out table
	n := 0
	for _, t := range tables {
		n += t.len()
	}
	out.at = make([]int64, 0, n)
	for _, t := range tables {
		out.at = append(out.at, t.at...)
	}
	first := 0
	for _, t := range tables {
		for j, name := range t.names {
			c := out.column(name, j)
			copy(out.columns[c][first:], t.columns[j])
		}
		first += t.len()
	}
	if slices.IsSorted(out.at) {
		return out
	}
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(out.at[a], out.at[b]) })
	sorted := table{at: make([]int64, n), names: out.names, columns: make([][]float64, len(out.columns))}
	for i, from := range order {
		sorted.at[i] = out.at[from]
	}
	for j, c := range out.columns {
		sorted.columns[j] = make([]float64, n)
		for i, from := range order {
			sorted.columns[j][i] = c[from]
		}
	}
	return sorted
}
