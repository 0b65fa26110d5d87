// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
)

// Rules by which a declaration of support is refused, beside RuleSupport.
const (
	RuleShortened = "product.support-shortened" // what was published is taken back
	RulePublish   = "product.support-publish"   // no person stands behind it
)

// UpdateYears is how long each security update stays available after its issue (CRA article 13(9)).
const UpdateYears = 10

// AvailableUntil is until when a security update has to stay available: ten years after it was issued or the rest of the
// support period, whichever is longer (CRA article 13(9)).
func AvailableUntil(issued, supportEnd time.Time) time.Time {
	if until := issued.AddDate(UpdateYears, 0, 0); until.After(supportEnd) {
		return until
	}
	return supportEnd
}

// Day is a calendar day, such as 2031-12-31; empty is none. Days compare as texts do.
type Day string

func (d Day) check(at string) error {
	if _, err := time.Parse(time.DateOnly, string(d)); d != "" && err != nil {
		return problem.Invalid("%.40q is not a day such as 2031-12-31.", string(d)).At(at)
	}
	return nil
}

// Time is midnight UTC of the day, the zero time for none.
func (d Day) Time() time.Time {
	t, _ := time.Parse(time.DateOnly, string(d)) // checked before it was kept
	return t
}

func dayOf(t time.Time) Day { return Day(t.Format(time.DateOnly)) }

// Month is a calendar month, such as 2031-12: how the end of support is told to buyers (CRA article 13(19)). Months
// compare as texts do.
type Month string

const monthLayout = "2006-01"

func monthOf(t time.Time) Month { return Month(t.Format(monthLayout)) }

func (m Month) first(loc *time.Location) time.Time {
	t, _ := time.ParseInLocation(monthLayout, string(m), loc) // checked before it was kept
	return t
}

// End is the last instant of the month in the zone, to the millisecond.
func (m Month) End(loc *time.Location) time.Time {
	t := m.first(loc)
	return time.Date(t.Year(), t.Month()+1, 1, 0, 0, 0, 0, loc).Add(-time.Millisecond)
}

// lastDay is the last calendar day of the month, as midnight UTC.
func (m Month) lastDay() time.Time { return m.first(time.UTC).AddDate(0, 1, -1) }

// Before is the month that lies n months earlier.
func (m Month) Before(n int) Month { return monthOf(m.first(time.UTC).AddDate(0, -n, 0)) }

// Words is the month for people: December 2031.
func (m Month) Words() string { return m.first(time.UTC).Format("January 2006") }

// The matters that article 13(8) has a maker consider when it decides on the support period.
var Factors = []struct{ ID, Words string }{
	{"users", "What users reasonably expect"},
	{"nature", "Nature and intended purpose of the product"},
	{"law", "Union law that sets a lifetime"},
	{"comparable", "Support periods of comparable products"},
	{"environment", "Availability of the operating environment"},
	{"components", "Support periods of the components with core functions"},
	{"guidance", "Guidance of the administrative cooperation group and the Commission"},
}

// Declaration is what a maker promises for the units of one placement cohort, and why (CRA articles 13(8) to 13(10) and
// 13(19)). Times of day and instants follow from Zone.
type Declaration struct {
	FirstPlaced     Day               `json:"first_placed" doc:"First day on which units of the cohort are placed on the market"`
	LastPlaced      Day               `json:"last_placed,omitempty" required:"false" doc:"Last such day; absent while they are sold"`
	SupportEnd      Month             `json:"support_end" doc:"Month at whose last instant security support ends, such as 2031-12"`
	Zone            string            `json:"zone,omitempty" required:"false" maxLength:"64" doc:"IANA name of the zone in which the month ends; default UTC"`
	ExpectedUse     int               `json:"expected_use_months,omitempty" required:"false" minimum:"0" maximum:"1200" doc:"How long a unit is expected to be in use, in months"`
	Factors         map[string]string `json:"factors,omitempty" required:"false" doc:"What was considered (CRA article 13(8)): users, nature, law, comparable, environment, components, guidance"`
	Justification   string            `json:"justification,omitempty" required:"false" doc:"Why support is shorter than five years"`
	SecuritySupport string            `json:"security_support,omitempty" required:"false" doc:"The kind of technical security support (Annex II, 7)"`
	UpdatePolicy    string            `json:"update_policy,omitempty" required:"false" doc:"How updates reach the product"`
	FeatureEnd      Day               `json:"feature_end,omitempty" required:"false" doc:"Last day of updates with functions"`
	SalesEnd        Day               `json:"sales_end,omitempty" required:"false" doc:"Last day of sale by the maker"`
	ServiceEnd      Day               `json:"service_end,omitempty" required:"false" doc:"Last day of the services on which the product rests"`
	LatestOnly      bool              `json:"latest_only,omitempty" required:"false" doc:"Only the latest version gets security updates (CRA article 13(10))"`
	LatestTerms     string            `json:"latest_terms,omitempty" required:"false" doc:"How users get the latest version free of charge and without further cost"`
	DecidedBy       string            `json:"decided_by,omitempty" required:"false" doc:"Who decided"`
	ApprovedBy      string            `json:"approved_by,omitempty" required:"false" doc:"Who approved"`
}

// Location is the zone in which its months end; it was checked before it was kept.
func (d Declaration) Location() *time.Location {
	if l, err := time.LoadLocation(d.Zone); err == nil {
		return l
	}
	return time.UTC
}

// End is the last instant of support.
func (d Declaration) End() time.Time { return d.SupportEnd.End(d.Location()) }

// least is how many months after its placing a unit has to be supported: five years, or the expected use if that is less
// and somebody says why.
func (d Declaration) least() int {
	if d.ExpectedUse > 0 && d.ExpectedUse < 12*SupportYears && strings.TrimSpace(d.Justification) != "" {
		return d.ExpectedUse
	}
	return 12 * SupportYears
}

// PlaceUntil is the last day on which a unit may still be placed on the market under this end of support.
func (d Declaration) PlaceUntil() Day {
	last := d.SupportEnd.lastDay()
	day := last.AddDate(0, -d.least(), 0)
	for day.AddDate(0, d.least(), 0).After(last) { // 29 February has no anniversary
		day = day.AddDate(0, 0, -1)
	}
	return dayOf(day)
}

// maxText bounds each text of a declaration, in bytes.
const maxText = 4000

// check refuses what cannot be kept, also as a draft.
func (d Declaration) check() error {
	if _, err := time.Parse(monthLayout, string(d.SupportEnd)); err != nil {
		return problem.Invalid("%.40q is not a month such as 2031-12.", string(d.SupportEnd)).At("support_end")
	}
	if d.FirstPlaced == "" {
		return problem.Invalid("The first day of placing on the market is mandatory.").At("first_placed")
	}
	for at, day := range map[string]Day{"first_placed": d.FirstPlaced, "last_placed": d.LastPlaced, "feature_end": d.FeatureEnd, "sales_end": d.SalesEnd, "service_end": d.ServiceEnd} {
		if err := day.check(at); err != nil {
			return err
		}
	}
	if _, err := time.LoadLocation(d.Zone); err != nil || d.Zone == "Local" {
		return problem.Invalid("%.64q is no time zone such as Europe/Berlin.", d.Zone).At("zone")
	}
	if d.LastPlaced != "" && d.LastPlaced < d.FirstPlaced {
		return problem.Invalid("The last unit is placed before the first.").At("last_placed")
	}
	for at, day := range map[string]Day{"feature_end": d.FeatureEnd, "sales_end": d.SalesEnd, "service_end": d.ServiceEnd} {
		if day != "" && day < d.FirstPlaced {
			return problem.Invalid("%s lies before the first unit is placed.", day).At(at)
		}
	}
	if d.ExpectedUse < 0 || d.ExpectedUse > 1200 {
		return problem.Invalid("The expected use is 0 to 1200 months.").At("expected_use_months")
	}
	texts := map[string]string{"justification": d.Justification, "security_support": d.SecuritySupport, "update_policy": d.UpdatePolicy, "latest_terms": d.LatestTerms, "decided_by": d.DecidedBy, "approved_by": d.ApprovedBy}
	for id, text := range d.Factors {
		if !slices.ContainsFunc(Factors, func(f struct{ ID, Words string }) bool { return f.ID == id }) {
			return problem.Invalid("%.40q is none of the matters to consider.", id).At("factors")
		}
		texts["factors."+id] = text
	}
	for at, text := range texts {
		if len(text) > maxText || !utf8.ValidString(text) {
			return problem.Invalid("A text has at most %d bytes.", maxText).At(at)
		}
	}
	if err := law.CheckClaims(texts); err != nil {
		return err
	}
	return d.lasts()
}

// lasts refuses a period that is too short (CRA article 13(8)).
func (d Declaration) lasts() error {
	placed, until := d.FirstPlaced, d.PlaceUntil()
	if d.LastPlaced != "" {
		placed = d.LastPlaced
	}
	if placed <= until {
		return nil
	}
	return problem.Forbidden(RuleSupport, "Units placed on %s need support of at least %s; this end allows placing until %s.", placed, months(d.least()), until).At("support_end").
		Hint("CRA article 13(8) allows less than %d years only where the product is expected to be in use for less: state the expected use in months and why.", SupportYears)
}

func months(n int) string {
	if n%12 == 0 {
		return fmt.Sprintf("%d years", n/12)
	}
	return fmt.Sprintf("%d months", n)
}

// Missing lists what a declaration needs before it is published, by the names of its members.
func (d Declaration) Missing() (fields []string) {
	for _, f := range []struct {
		name  string
		given bool
	}{
		{"expected_use_months", d.ExpectedUse > 0},
		{"factors", len(d.Factors) > 0},
		{"security_support", d.SecuritySupport != ""},
		{"update_policy", d.UpdatePolicy != ""},
		{"latest_terms", !d.LatestOnly || d.LatestTerms != ""},
		{"decided_by", d.DecidedBy != ""},
		{"approved_by", d.ApprovedBy != ""},
	} {
		if !f.given {
			fields = append(fields, f.name)
		}
	}
	return fields
}

// succeeds refuses to take back what was published before: support that ends earlier, or units that fall out of the
// cohort (CRA article 13(8), Commission FAQ 4.5.3).
func (d Declaration) succeeds(was Declaration) error {
	switch {
	case d.End().Before(was.End()):
		return problem.Forbidden(RuleShortened, "Support until %s was published. It can be extended, never shortened.", was.SupportEnd.Words()).At("support_end").
			Hint("Units were bought on that promise. A maker that cannot keep it has a non-conformity to correct (CRA article 13(21)).")
	case d.FirstPlaced > was.FirstPlaced:
		return problem.Forbidden(RuleShortened, "The cohort was published from %s on: units placed since would lose their support.", was.FirstPlaced).At("first_placed")
	case was.LastPlaced != "" && d.LastPlaced != "" && d.LastPlaced < was.LastPlaced:
		return problem.Forbidden(RuleShortened, "The cohort was published until %s: units placed later would lose their support.", was.LastPlaced).At("last_placed")
	}
	return nil
}

// declared is the first cohort's declaration as its hardware revision states it. An end within a month becomes the end of
// that month, which takes nothing away.
func (r Revision) declared() Declaration {
	return Declaration{FirstPlaced: dayOf(r.Placed.UTC()), SupportEnd: monthOf(r.SupportEnd.UTC()), Justification: r.Reason}
}
