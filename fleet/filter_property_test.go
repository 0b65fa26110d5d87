// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// known is a device as the test knows it: what a filter may ask, without any database.
type known struct {
	identity.Device
	release, site, line string
	online              bool
	seen                time.Time // zero: never
	static              bool      // of the group pilot

	order, row, part string // what the factory says
}

// holds is the meaning of a filter, told in the plainest way.
func holds(e expr, d known, now time.Time) bool {
	switch e := e.(type) {
	case all:
		return !slices.ContainsFunc(e, func(p expr) bool { return !holds(p, d, now) })
	case some:
		return slices.ContainsFunc(e, func(p expr) bool { return holds(p, d, now) })
	case not:
		return !holds(e.of, d, now)
	}
	t := e.(*term)
	is := func(names ...string) bool {
		return slices.ContainsFunc(t.values, func(v value) bool {
			return slices.ContainsFunc(names, func(n string) bool {
				switch {
				case n == "":
					return v.is("none")
				case v.prefix:
					return strings.HasPrefix(strings.ToLower(n), strings.ToLower(v.text))
				}
				return strings.EqualFold(n, v.text)
			})
		})
	}
	label := func(l string) bool {
		return l != "" && slices.ContainsFunc(t.values, func(v value) bool { return v.prefix && strings.HasPrefix(l, v.text) || !v.prefix && l == v.text })
	}
	told := func(fact string) bool { // a star is any fact, and the fact none stands in quotes
		return slices.ContainsFunc(t.values, func(v value) bool {
			if fact == "" || v.is("none") {
				return fact == "" && v.is("none")
			}
			return strings.EqualFold(fact, v.text) || v.prefix && strings.HasPrefix(strings.ToLower(fact), strings.ToLower(v.text))
		})
	}
	when := func(at time.Time) bool {
		age, day, _ := parseMoment(t.values[0].text)
		limit := day
		if day.IsZero() { // an age counts backwards: more is earlier
			at, limit = time.UnixMilli(-at.UnixMilli()), time.UnixMilli(-now.Add(-age).UnixMilli())
		} else if len(t.values[0].text) == len(time.DateOnly) && (t.op == ">" || t.op == "<=") {
			limit = limit.AddDate(0, 0, 1).Add(-time.Millisecond)
		}
		return map[string]bool{"<": at.Before(limit), "<=": !at.After(limit), ">": at.After(limit), ">=": !at.Before(limit)}[t.op]
	}
	switch t.key {
	case "":
		w := strings.ToLower(t.values[0].text)
		if t.values[0].prefix {
			return strings.HasPrefix(strings.ToLower(d.Serial), w)
		}
		return strings.Contains(strings.ToLower(d.Serial), w) || d.ID == t.values[0].text
	case "state":
		return is(string(d.State))
	case "grade":
		return is(string(d.Grade))
	case "product":
		return is(d.Product, map[string]string{"prd_a": "Street lamp", "prd_b": "Meter"}[d.Product])
	case "solution":
		return is(d.Solution)
	case "batch":
		return is(d.Batch, map[string]string{"bat_1": "Lot 1", "bat_2": "Spring"}[d.Batch])
	case "station":
		if !strings.HasPrefix(d.Origin, "sta_") {
			return is("")
		}
		return is(d.Origin, map[string]string{"sta_1": "Bench 1", "sta_2": "bench 2"}[d.Origin])
	case "order":
		return told(d.order)
	case "line":
		return told(d.row)
	case "part":
		return told(d.part)
	case "serial":
		return is(d.Serial)
	case "id":
		return is(d.ID)
	case "release":
		return is(d.release, map[string]string{"v1": "rel_1", "v2": "rel_2"}[d.release])
	case "online":
		return is(map[bool]string{true: "yes", false: "no"}[d.online])
	case "label.site":
		return label(d.site)
	case "label.line":
		return label(d.line)
	case "group":
		return slices.ContainsFunc(t.values, func(v value) bool {
			switch v.text {
			case "pilot":
				return d.static
			case "away": // state:commissioned -online:yes
				return d.State == identity.Commissioned && !d.online
			case "both": // group:pilot or group:away
				return d.static || d.State == identity.Commissioned && !d.online
			}
			return false
		})
	case "created":
		return when(d.Created)
	case "seen":
		if t.op == "" {
			return d.seen.IsZero()
		}
		if d.online {
			return when(now)
		}
		return !d.seen.IsZero() && when(d.seen)
	}
	panic(t.key)
}

// dice makes random filters of the words that the fleet below knows.
type dice struct{ *rand.Rand }

func (d dice) pick(words ...string) string { return words[d.IntN(len(words))] }

func (d dice) term() string {
	several := func(words ...string) string {
		out := d.pick(words...)
		for d.IntN(3) == 0 {
			out += "," + d.pick(words...)
		}
		return out
	}
	moment := func() string {
		return d.pick("<", "<=", ">", ">=") + d.pick("1h", "5d", "2w", "2026-11-15", "2026-11-21", "2026-11-20T12:00:00Z")
	}
	switch d.IntN(19) {
	case 0:
		return "state:" + several("commissioned", "suspended", "manufactured", "decommissioned")
	case 1:
		return "online:" + several("yes", "no")
	case 2:
		return "seen:" + moment()
	case 3:
		return "seen:never"
	case 4:
		return "release:" + several("v1", "v2", "rel_2", "none")
	case 5:
		return "product:" + several(`"street LAMP"`, "prd_b", "meter")
	case 6:
		return "label.site:" + several("ghent", "antwerp", "g*", "*", "G*")
	case 7:
		return "label.line:" + several(`"one 1"`, "*", "x_*")
	case 8:
		return "group:" + several("pilot", "away", "both")
	case 9:
		return "batch:" + several("bat_1", "BAT_2", "none", "bat*", `"lot 1"`, "spring", "sp*")
	case 10:
		return "grade:" + several("A", "b", "none")
	case 11:
		return "created:" + moment()
	case 12:
		return "serial:" + several("SN-0*", "sn-11", "SN-12", "sn_1*", "*")
	case 13:
		return "id:" + several("dev_003", "dev_01*")
	case 14:
		return "order:" + several("PO-77", "po-78", "po-7*", "none", `"none"`, "*", `"P"*`, "zzz", "PO_77")
	case 15:
		return "line:" + several("L1", "l2", "none", `"West 1"`, "w*")
	case 16:
		return "part:" + several("4711-A", "4711-*", "none", "%", `"\""`)
	case 17:
		return "station:" + several("sta_1", `"BENCH 2"`, "none", `"bench 1"`)
	}
	return d.pick("1", "sn-0", "_1", "%", "dev_007", "SN-02*", "zzz", `"2"`)
}

func (d dice) filter(depth int) string {
	switch n := d.IntN(10); {
	case depth == 0 || n < 4:
		return d.term()
	case n < 6:
		return d.filter(depth-1) + " " + d.filter(depth-1)
	case n < 8:
		return "(" + d.filter(depth-1) + " or " + d.filter(depth-1) + ")"
	case n < 9:
		return "-(" + d.filter(depth-1) + ")"
	}
	return "not " + d.term()
}

// What a filter selects is what the filter says: over random devices and random filters, on both engines, whole or in
// pages, for the owner and for somebody who reaches a part, and never a device of a neighbour.
func TestS19_FiltersMeanWhatTheySay(t *testing.T) {
	houses(t, func(h *house) {
		ctx := t.Context()
		random := dice{rand.New(rand.NewPCG(19, 4))}
		now := h.cfg.Clock.Now()
		var fleet []known
		for _, ten := range []string{"ten", "other"} {
			for i := range 120 {
				d := known{Device: identity.Device{ID: fmt.Sprintf("dev_%03d", i), Tenant: ten, Product: random.pick("prd_a", "prd_b"), Serial: random.pick("SN-", "sn_", "X") + fmt.Sprintf("%02d", i),
					Solution: random.pick("", "sol_1", "sol_2"), Batch: random.pick("", "bat_1", "bat_2"), State: identity.State(random.pick("commissioned", "commissioned", "suspended", "manufactured", "decommissioned")),
					Grade: identity.Grade(random.pick("", "A", "B", "C")), Created: now.Add(-time.Duration(random.IntN(20*24)) * time.Hour)},
					release: random.pick("", "v1", "v2", "v1"), site: random.pick("", "", "ghent", "antwerp", "Ghent"), line: random.pick("", "one 1", "x_2"), static: random.IntN(3) == 0,
					order: random.pick("", "PO-77", "PO-78", "po-9", "None"), row: random.pick("", "L1", "L2", "west 1"), part: random.pick("", "4711-A", "4711-b", `"`)}
				d.Origin = random.pick("", "sta_1", "sta_2", "tca_1")
				if ten == "other" {
					d.ID = "odev" + d.ID[3:]
				}
				switch random.IntN(3) {
				case 0:
					d.online, d.seen = true, now.Add(-time.Duration(random.IntN(20*24))*time.Hour)
				case 1:
					d.seen = now.Add(-time.Duration(random.IntN(20*24)) * time.Hour)
				}
				fleet = append(fleet, d)
			}
		}
		must(t, h.cfg.DB.Write(ctx, func(tx *store.Tx) error { return h.put(tx, fleet) }))
		reach := map[string]func(known) bool{
			"owner":    func(known) bool { return true },
			"customer": func(d known) bool { return d.Solution == "sol_1" },
			"nobody":   func(known) bool { return false },
		}
		for i := range 400 {
			text := random.filter(3)
			f, err := ParseFilter(text)
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			if again, err := ParseFilter(f.String()); err != nil || again.String() != f.String() {
				t.Fatalf("%s is written as %s, and that reads as %s, %v", text, f, again, err)
			}
			for who, may := range reach {
				want := []string{}
				for _, d := range fleet {
					if d.Tenant == "ten" && may(d) && holds(f.root, d, now) {
						want = append(want, d.ID)
					}
				}
				as := tenant.WithActor(ctx, tenant.Actor{ID: who, Tenant: "ten", Grants: people[who]})
				limit := []int{1000, 7}[i%2]
				got := []string{}
				for after := ""; ; {
					page, err := h.Select(as, "ten", text, after, limit)
					if err != nil {
						t.Fatalf("%s: %v", text, err)
					}
					for _, d := range page {
						got = append(got, d.ID)
						after = d.ID
					}
					if len(page) < limit {
						break
					}
				}
				if !slices.Equal(got, want) {
					t.Fatalf("%s for the %s\nselects %v,\nmeans   %v", text, who, got, want)
				}
				if n, err := h.count(as, "ten", f); err != nil || n.Devices != int64(len(want)) {
					t.Fatalf("%s for the %s counts %d, %v; want %d", text, who, n.Devices, err, len(want))
				}
				if d := fleet[random.IntN(120)].ID; true {
					if is, err := h.Matches(as, "ten", text, d); err != nil || is != slices.Contains(want, d) {
						t.Fatalf("%s for the %s: %s matches: %v, %v", text, who, d, is, err)
					}
				}
			}
		}
	})
}
