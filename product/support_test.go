// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"slices"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// sold is a declaration that can be published.
func sold(end Month) Declaration {
	return Declaration{FirstPlaced: "2026-01-15", SupportEnd: end, Zone: "Europe/Berlin", ExpectedUse: 72, Factors: map[string]string{"users": "ten years are usual"},
		SecuritySupport: "Fixes for all vulnerabilities that can be exploited.", UpdatePolicy: "Over the air.", DecidedBy: "Ann Maker", ApprovedBy: "Bo Boss"}
}

// The end of a month is its last instant where the units are sold, whatever the zone does.
func TestMonthEnds(t *testing.T) {
	for _, c := range []struct {
		month Month
		zone  string
		want  string
	}{
		{"2031-12", "UTC", "2031-12-31T23:59:59.999Z"},
		{"2031-12", "Europe/Berlin", "2031-12-31T23:59:59.999+01:00"},
		{"2032-02", "Europe/Berlin", "2032-02-29T23:59:59.999+01:00"},
		{"2031-10", "Europe/Berlin", "2031-10-31T23:59:59.999+01:00"}, // after the clocks went back
		{"2031-12", "", "2031-12-31T23:59:59.999Z"},
	} {
		d := sold(c.month)
		d.Zone = c.zone
		if got := d.End().Format(time.RFC3339Nano); got != c.want {
			t.Errorf("%s in %s ends %s, want %s", c.month, c.zone, got, c.want)
		}
	}
}

func TestPlaceUntil(t *testing.T) {
	for _, c := range []struct {
		end   Month
		use   int
		why   string
		until Day
	}{
		{"2031-12", 0, "", "2026-12-31"},
		{"2033-02", 0, "", "2028-02-28"}, // a unit of 29 February would be supported for a day less
		{"2032-02", 0, "", "2027-02-28"},
		{"2031-12", 36, "rented for three years", "2028-12-31"},
		{"2031-12", 36, " ", "2026-12-31"},  // a blank reason is none
		{"2031-12", 120, "x", "2026-12-31"}, // longer use asks for longer support by judgement, not by a rule
	} {
		d := Declaration{SupportEnd: c.end, ExpectedUse: c.use, Justification: c.why}
		if got := d.PlaceUntil(); got != c.until {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// Five years from the last unit, unless the product is in use for less and somebody says why (CRA article 13(8)).
func TestDeclarationLasts(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*Declaration)
		rule string
		kind problem.Kind
	}{
		{"five years", func(d *Declaration) {}, "", ""},
		{"the last unit too late", func(d *Declaration) { d.LastPlaced = "2027-01-01" }, RuleSupport, problem.KindForbidden},
		{"the last unit in time", func(d *Declaration) { d.LastPlaced = "2026-12-31" }, "", ""},
		{"shorter use, but no reason", func(d *Declaration) { d.LastPlaced, d.ExpectedUse = "2028-01-01", 36 }, RuleSupport, problem.KindForbidden},
		{"shorter use with a reason", func(d *Declaration) {
			d.LastPlaced, d.ExpectedUse, d.Justification = "2028-01-01", 36, "rented for three years"
		}, "", ""},
		{"a reason, but no shorter use", func(d *Declaration) { d.LastPlaced, d.Justification = "2028-01-01", "because" }, RuleSupport, problem.KindForbidden},
		{"no month", func(d *Declaration) { d.SupportEnd = "2031" }, "", problem.KindInvalid},
		{"no such day", func(d *Declaration) { d.SalesEnd = "2031-02-29" }, "", problem.KindInvalid},
		{"never placed", func(d *Declaration) { d.FirstPlaced = "" }, "", problem.KindInvalid},
		{"placed backwards", func(d *Declaration) { d.LastPlaced = "2025-01-01" }, "", problem.KindInvalid},
		{"no such zone", func(d *Declaration) { d.Zone = "Europe/Atlantis" }, "", problem.KindInvalid},
		{"the host's zone", func(d *Declaration) { d.Zone = "Local" }, "", problem.KindInvalid},
		{"an invented factor", func(d *Declaration) { d.Factors = map[string]string{"price": "x"} }, "", problem.KindInvalid},
	} {
		d := sold("2031-12")
		c.edit(&d)
		err := d.check()
		if c.kind == "" && err != nil || c.kind != "" && (!problem.Is(err, c.kind) || problem.Of(err).Rule != c.rule) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// What was published is extended, never shortened: neither the end nor the span of units that it covers.
func TestNeverShortened(t *testing.T) {
	was := sold("2032-06")
	was.LastPlaced = "2027-01-31"
	for _, c := range []struct {
		name string
		edit func(*Declaration)
		ok   bool
	}{
		{"the same", func(*Declaration) {}, true},
		{"a month longer", func(d *Declaration) { d.SupportEnd = "2032-07" }, true},
		{"a month shorter", func(d *Declaration) { d.SupportEnd = "2032-05" }, false},
		{"an hour shorter by its zone", func(d *Declaration) { d.Zone = "Europe/Helsinki" }, false},
		{"an hour longer by its zone", func(d *Declaration) { d.Zone = "Europe/Lisbon" }, true},
		{"earlier units too", func(d *Declaration) { d.FirstPlaced = "2026-01-01" }, true},
		{"the first units fall out", func(d *Declaration) { d.FirstPlaced = "2026-01-16" }, false},
		{"the last units fall out", func(d *Declaration) { d.LastPlaced = "2027-01-30" }, false},
		{"sold again", func(d *Declaration) { d.LastPlaced = "" }, true},
	} {
		d := was
		c.edit(&d)
		if err := d.succeeds(was); c.ok != (err == nil) || err != nil && problem.Of(err).Rule != RuleShortened {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// Each security update stays available for ten years after its issue, or until support ends if that is later.
func TestUpdatesStayAvailable(t *testing.T) {
	issued := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for end, want := range map[time.Time]time.Time{
		issued.AddDate(5, 0, 0):  issued.AddDate(10, 0, 0),
		issued.AddDate(10, 0, 0): issued.AddDate(10, 0, 0),
		issued.AddDate(12, 0, 0): issued.AddDate(12, 0, 0),
		{}:                       issued.AddDate(10, 0, 0),
	} {
		if got := AvailableUntil(issued, end); !got.Equal(want) {
			t.Errorf("support until %s: available until %s, want %s", end, got, want)
		}
	}
}

// announced says what a round at now would announce, and keeps it on record.
func announced(end Month, now time.Time, record *[]told) (steps []int) {
	tell, leave, _ := due(end, time.UTC, now, *record)
	for _, t := range tell {
		steps = append(steps, t.step)
	}
	*record = append(append(*record, tell...), leave...)
	return steps
}

func TestNotices(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse("2006-01-02 15:04:05", s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	type look struct {
		end   Month
		now   string
		steps []int
	}
	for name, looks := range map[string][]look{
		"each step once, at its instant": {
			{"2031-12", "2026-01-01 00:00:00", nil},
			{"2031-12", "2029-12-31 23:59:59", nil},
			{"2031-12", "2030-01-01 00:00:00", []int{24}},
			{"2031-12", "2030-01-01 00:00:00", nil},
			{"2031-12", "2031-01-01 00:00:00", []int{12}},
			{"2031-12", "2031-07-01 00:00:00", []int{6}},
			{"2031-12", "2031-10-01 00:00:00", []int{3}},
			{"2031-12", "2031-12-01 00:00:00", []int{1}},
			{"2031-12", "2031-12-31 23:59:58", nil},
			{"2031-12", "2032-01-01 00:00:00", []int{0}},
			{"2031-12", "2032-02-01 00:00:00", []int{-1}},
			{"2031-12", "2039-01-01 00:00:00", nil},
		},
		"after a pause only the newest is told, and the others never": {
			{"2031-12", "2031-08-15 00:00:00", []int{6}},
			{"2031-12", "2030-06-01 00:00:00", nil}, // the clock goes back
			{"2031-12", "2031-08-15 00:00:00", nil},
			{"2031-12", "2033-01-01 00:00:00", []int{-1}},
		},
		"an extension cancels what is unsent and corrects what was sent, once": {
			{"2031-12", "2031-01-01 00:00:00", []int{12}},
			{"2033-12", "2031-01-02 00:00:00", []int{stepCorrection}},
			{"2033-12", "2031-07-01 00:00:00", nil},
			{"2033-12", "2032-01-01 00:00:00", []int{24}},
			{"2034-12", "2032-01-02 00:00:00", []int{stepCorrection}},
			{"2034-12", "2032-01-02 00:00:00", nil},
		},
		"an extension before anybody was told needs no correction": {
			{"2031-12", "2027-01-01 00:00:00", nil},
			{"2033-12", "2028-01-01 00:00:00", nil},
			{"2033-12", "2032-01-01 00:00:00", []int{24}},
		},
		"what was left out is not corrected": {
			{"2031-12", "2031-08-15 00:00:00", []int{6}},
			{"2032-12", "2031-08-16 00:00:00", []int{stepCorrection, 24}},
		},
		"a clock that jumps ahead and back tells nothing twice": {
			{"2031-12", "2040-01-01 00:00:00", []int{-1}},
			{"2031-12", "2030-01-01 00:00:00", nil},
			{"2031-12", "2032-02-01 00:00:00", nil},
		},
	} {
		var record []told
		for _, l := range looks {
			if got := announced(l.end, at(l.now), &record); !slices.Equal(got, l.steps) {
				t.Errorf("%s: at %s for %s: %v, want %v", name, l.now, l.end, got, l.steps)
			}
		}
	}
	for now, want := range map[string]int{"2029-12-31 23:59:59": 25, "2030-01-01 00:00:00": 24, "2031-12-31 00:00:00": 1, "2032-01-01 00:00:00": 0} {
		if got := monthsLeft("2031-12", time.UTC, at(now)); got != want {
			t.Errorf("%s: %d months left, want %d", now, got, want)
		}
	}
}
