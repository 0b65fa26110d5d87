// SPDX-License-Identifier: AGPL-3.0-only

package oncall

import (
	"slices"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// RuleDeputy names the refusal of a rota with nobody behind whoever has the turn.
const RuleDeputy = "oncall.deputy"

// Rota says who has the turn when. Turns follow each other without gaps from the first handover on.
type Rota struct {
	Zone    string   `json:"zone" maxLength:"64" doc:"IANA name of the zone whose wall clocks count" example:"Europe/Berlin"`
	Start   string   `json:"start" maxLength:"10" doc:"Day of the first handover" example:"2026-11-23"`
	Hour    int      `json:"hour" minimum:"0" maximum:"23" doc:"Hour of the handover on the wall"`
	Days    int      `json:"days" minimum:"1" maximum:"28" doc:"Length of a turn"`
	Minutes int      `json:"minutes" minimum:"1" maximum:"60" doc:"How long somebody has to answer before the next one is called"`
	People  []Member `json:"people" minItems:"2" maxItems:"20" doc:"In the order of their turns; whoever follows is the deputy"`
	Away    []Away   `json:"away,omitempty" maxItems:"100" doc:"Days on which somebody is not called"`
}

// Member is somebody with a turn.
type Member struct {
	Person    string   `json:"person" maxLength:"64"`
	Name      string   `json:"name,omitempty" required:"false" readOnly:"true"`
	Endpoints []string `json:"endpoints" minItems:"1" maxItems:"5" doc:"Ids of the endpoints that reach them; see /v1/notifications/endpoints"`
}

// Away is days on which a person is not called, both included.
type Away struct {
	Person string `json:"person" maxLength:"64"`
	From   string `json:"from" maxLength:"10"`
	To     string `json:"to" maxLength:"10"`
}

// Turn is one stretch of a rota.
type Turn struct {
	From, To time.Time
	People   []Member // whoever has it, then the deputies in the order in which they are called
}

// location is the zone; it was checked before it was kept.
func (r Rota) location() *time.Location {
	if l, err := time.LoadLocation(r.Zone); err == nil {
		return l
	}
	return time.UTC
}

// dayNumber counts calendar days, whatever their length on the wall.
func dayNumber(y int, m time.Month, d int) int {
	return int(time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix() / 86400)
}

// handover is the instant of the handover on a numbered day.
func (r Rota) handover(day int) time.Time {
	y, m, d := time.Unix(int64(day)*86400, 0).UTC().Date()
	return time.Date(y, m, d, r.Hour, 0, 0, 0, r.location())
}

// At is the turn at an instant. Before the first handover whoever begins has it already.
func (r Rota) At(at time.Time) Turn {
	if len(r.People) == 0 {
		return Turn{}
	}
	loc := r.location()
	day := dayNumber(at.In(loc).Date())
	if at.Before(r.handover(day)) {
		day-- // the turn of yesterday's handover still runs
	}
	first, _ := time.Parse(time.DateOnly, r.Start) // checked before it was kept
	start, days := dayNumber(first.Date()), max(1, r.Days)
	k := max(0, floor(day-start, days))
	t := Turn{From: r.handover(start + k*days), To: r.handover(start + (k+1)*days)}
	today := at.In(loc).Format(time.DateOnly)
	var away []Member
	for i := range r.People {
		p := r.People[(k+i)%len(r.People)]
		if slices.ContainsFunc(r.Away, func(a Away) bool { return a.Person == p.Person && a.From <= today && today <= a.To }) {
			away = append(away, p)
		} else {
			t.People = append(t.People, p)
		}
	}
	if len(t.People) == 0 {
		t.People = away // somebody has to know
	}
	return t
}

func floor(a, b int) int {
	if a < 0 {
		return (a - b + 1) / b
	}
	return a / b
}

// check refuses a rota that could leave nobody to call. people are those of the tenant, endpoints the ids of its endpoints.
func (r Rota) check(people map[string]string, endpoints map[string]bool) error {
	if _, err := time.LoadLocation(r.Zone); err != nil || r.Zone == "" || r.Zone == "Local" {
		return problem.Invalid("%q is not a zone such as Europe/Berlin.", r.Zone).At("zone")
	}
	if _, err := time.Parse(time.DateOnly, r.Start); err != nil {
		return problem.Invalid("%q is not a day such as 2026-11-23.", r.Start).At("start")
	}
	switch {
	case r.Hour < 0 || r.Hour > 23:
		return problem.Invalid("The hour of the handover is 0 to 23.").At("hour")
	case r.Days < 1 || r.Days > 28:
		return problem.Invalid("A turn lasts 1 to 28 days.").At("days")
	case r.Minutes < 1 || r.Minutes > 60:
		return problem.Invalid("Somebody has 1 to 60 minutes to answer.").At("minutes").Hint("With 24 hours for an early warning, an hour without an answer is long.")
	case len(r.People) < 2:
		return problem.Forbidden(RuleDeputy, "A rota has two people at least: whoever has the turn, and a deputy.").At("people")
	case len(r.People) > 20 || len(r.Away) > 100:
		return problem.Invalid("A rota has 20 people and 100 absences at most.").At("people")
	}
	for i, p := range r.People {
		if _, ok := people[p.Person]; !ok || slices.ContainsFunc(r.People[:i], func(o Member) bool { return o.Person == p.Person }) {
			return problem.Invalid("%q is nobody here, or stands twice.", p.Person).At("people")
		}
		if len(p.Endpoints) == 0 || len(p.Endpoints) > 5 {
			return problem.Invalid("%s needs one to five endpoints that reach them.", people[p.Person]).At("people")
		}
		for _, e := range p.Endpoints {
			if !endpoints[e] {
				return problem.Invalid("There is no endpoint %q.", e).At("people").Hint("Add it on the page Notifications first.")
			}
		}
	}
	for _, a := range r.Away {
		_, from := time.Parse(time.DateOnly, a.From)
		_, to := time.Parse(time.DateOnly, a.To)
		if from != nil || to != nil || a.To < a.From || !slices.ContainsFunc(r.People, func(p Member) bool { return p.Person == a.Person }) {
			return problem.Invalid("An absence names somebody of the rota, its first day and its last.").At("away")
		}
	}
	return nil
}
