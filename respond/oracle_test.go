// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"bufio"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/law"
)

// The second implementation of the deadlines. It shares nothing with clock.go: whole numbers of milliseconds and of days
// since 1970, no time.Time, and no table of zones. What it knows of zones is Directive 2000/84/EC (summer time from the last
// Sunday of March to that of October, 01:00 UTC) and how many hours each Member State is ahead of UTC in winter.

const (
	hourMS = 3_600_000
	dayMS  = 24 * hourMS
)

var winterHours = map[string]int64{
	"IE": 0, "PT": 0,
	"AT": 1, "BE": 1, "CZ": 1, "DE": 1, "DK": 1, "ES": 1, "FR": 1, "HR": 1, "HU": 1, "IT": 1, "LU": 1, "MT": 1, "NL": 1, "PL": 1, "SE": 1, "SI": 1, "SK": 1,
	"BG": 2, "CY": 2, "EE": 2, "FI": 2, "GR": 2, "LT": 2, "LV": 2, "RO": 2,
}

// dayOf counts days from 1970-01-01 to a civil date (H. Hinnant, days_from_civil); civilOf is its inverse.
func dayOf(y, m, d int64) int64 {
	if m <= 2 {
		y--
	}
	era := y / 400
	yoe := y - era*400
	doy := (153*((m+9)%12)+2)/5 + d - 1
	return era*146097 + yoe*365 + yoe/4 - yoe/100 + doy - 719468
}

func civilOf(day int64) (y, m, d int64) {
	day += 719468
	era := day / 146097
	doe := day % 146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	d, m, y = doy-(153*mp+2)/5+1, mp+3, yoe+era*400
	if m > 12 {
		m -= 12
		y++
	}
	return y, m, d
}

func weekday(day int64) int64 { return (day + 4) % 7 } // 0 is Sunday

func lastSunday(y, m int64) int64 {
	last := dayOf(y, m+1, 1) - 1 // March and October have a next month
	return last - weekday(last)
}

// ahead is how many ms the clocks on the wall are ahead of UTC at ms.
func ahead(ms, winter int64) int64 {
	y, _, _ := civilOf(ms / dayMS)
	if from, to := lastSunday(y, 3)*dayMS+hourMS, lastSunday(y, 10)*dayMS+hourMS; ms >= from && ms < to {
		return (winter + 1) * hourMS
	}
	return winter * hourMS
}

// wallToUTC is the first instant at which the wall shows this; in the hour that is left out, the earlier reading.
func wallToUTC(day, rest, winter int64) int64 {
	wall := day*dayMS + rest
	summer, normal := wall-(winter+1)*hourMS, wall-winter*hourMS
	if ahead(summer, winter) != (winter+1)*hourMS && ahead(normal, winter) == winter*hourMS {
		return normal
	}
	return summer
}

func monthLater(day int64) int64 {
	y, m, d := civilOf(day)
	if m++; m == 13 {
		y, m = y+1, 1
	}
	next := dayOf(y+m/12, m%12+1, 1)
	return min(dayOf(y, m, 1)+d-1, next-1)
}

// timeline is what happened in a case, in ms; 0 is: did not.
type timeline struct {
	kind                 Kind
	state                string // Member State of the coordinator
	winter               int64
	t0                   []int64 // with its corrections
	ew, n72, last, users int64
	covered              bool // the notification, by the early warning
	invalidated          bool // notification and early warning, after all
	measures             []int64
	withdrawn            bool
	asked                [][3]int64 // asked, due, answered
	limits               Targets
}

// verdict is what is owed for one duty, in ms; 0 is none.
type verdict struct{ due, nominal, relief, counter, workBy, met int64 }

func (tl timeline) oracle() []verdict {
	t0 := tl.t0[len(tl.t0)-1]
	ew, n72, last := tl.ew, tl.n72, tl.last
	if tl.covered {
		n72 = ew
	}
	if tl.invalidated {
		ew, n72 = 0, 0
	}
	limit := tl.limits
	var out [4]verdict
	nextHour := (t0/hourMS + 1) * hourMS
	out[0] = verdict{due: t0 + 24*hourMS, nominal: nextHour + 24*hourMS, workBy: t0 + int64(limit.EarlyWarningHours)*hourMS, met: ew}
	out[1] = verdict{due: t0 + 72*hourMS, nominal: nextHour + 72*hourMS, workBy: t0 + int64(limit.NotificationHours)*hourMS, met: n72}
	if ew != 0 {
		out[1].counter = ew + 48*hourMS
		out[1].workBy = min(out[1].workBy, out[1].counter)
	}
	out[2] = tl.final(t0, n72)
	out[2].met = last
	out[3] = verdict{due: t0 + int64(limit.UsersHours)*hourMS, met: tl.users}
	out[3].workBy = out[3].due
	all := out[:]
	for _, q := range tl.asked {
		all = append(all, verdict{due: q[1], workBy: q[1], met: q[2]})
	}
	for i := range all {
		all[i].workBy = min(all[i].workBy, all[i].due)
	}
	return all
}

func (tl timeline) final(t0, n72 int64) (v verdict) {
	var anchor, end int64
	if tl.kind == AEV {
		if len(tl.measures) == 0 {
			return v
		}
		for i, m := range tl.measures {
			if i == 0 || m < anchor {
				anchor = m
			}
		}
		anchor = max(anchor, t0)
		wall := anchor + ahead(anchor, tl.winter)
		end = wall/dayMS + 14
		v.due = min(anchor+336*hourMS, wallToUTC(end, wall%dayMS, tl.winter))
	} else {
		if n72 == 0 {
			return v
		}
		anchor = n72
		wall := anchor + ahead(anchor, tl.winter)
		end = monthLater(wall / dayMS)
		v.due = min(monthLater(anchor/dayMS)*dayMS+anchor%dayMS, wallToUTC(end, wall%dayMS, tl.winter))
	}
	v.workBy = anchor + int64(tl.limits.FinalDays)*dayMS
	v.nominal = wallToUTC(end+1, 0, tl.winter)
	switch weekday(end) {
	case 6:
		end += 2
	case 0:
		end++
	}
	v.relief = wallToUTC(end+1, 0, tl.winter)
	return v
}

// clocks runs the platform's implementation on the events of the same timeline.
func (tl timeline) clocks() []Deadline {
	events := make([]Event, 0, 16)
	add := func(k EventKind, d Data) int64 {
		events = append(events, Event{Seq: int64(len(events) + 1), Kind: k, Person: true, Data: d})
		return int64(len(events))
	}
	submit := func(st Stage, at int64) {
		if at != 0 {
			add(SubmissionAccepted, Data{Attempt: add(SubmissionAttempted, Data{Stage: st, At: time.UnixMilli(at)}), Receipt: "R"})
		}
	}
	add(T0Set, Data{At: time.UnixMilli(tl.t0[0]), Coordinator: tl.state})
	for _, at := range tl.t0[1:] {
		add(T0Corrected, Data{At: time.UnixMilli(at)})
	}
	for _, at := range tl.measures {
		add(MeasureAvailable, Data{At: time.UnixMilli(at), Note: "m"})
	}
	if tl.withdrawn {
		add(MeasureWithdrawn, Data{})
	}
	submit(EarlyWarning, tl.ew)
	if tl.covered {
		add(CoveredByEarlier, Data{Stage: Notification})
	} else {
		submit(Notification, tl.n72)
	}
	if tl.invalidated {
		add(Invalidated, Data{Stage: Notification})
		add(Invalidated, Data{Stage: EarlyWarning})
	}
	submit(Final, tl.last)
	if tl.users != 0 {
		add(UsersInformed, Data{At: time.UnixMilli(tl.users), Audience: "impacted"})
	}
	for _, q := range tl.asked {
		n := add(InterimRequested, Data{At: time.UnixMilli(q[0]), Due: time.UnixMilli(q[1])})
		if q[2] != 0 {
			add(InterimAnswered, Data{At: time.UnixMilli(q[2]), Request: n})
		}
	}
	s := Fold(tl.kind, events)
	return Clocks(s, s.Zone(), tl.limits)
}

// ms is an instant as the oracle writes it.
func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// differs says where the two implementations disagree; empty: nowhere.
func (tl timeline) differs(ds []Deadline, vs []verdict) string {
	if len(ds) != len(vs) {
		return fmt.Sprintf("%d clocks, the oracle has %d", len(ds), len(vs))
	}
	for i, d := range ds {
		got := verdict{ms(d.Due), ms(d.NominalEnd), ms(d.ReliefEnd), ms(d.Counter), ms(d.WorkBy), ms(d.Met)}
		if want := vs[i]; got != want || d.Late != (want.met != 0 && want.due != 0 && want.met > want.due) {
			return fmt.Sprintf("%s in %s: %+v late %v, the oracle says %+v; %+v", d.Stage, tl.state, got, d.Late, want, tl)
		}
	}
	return ""
}

var (
	oracleFrom = time.Date(2026, 9, 11, 0, 0, 0, 0, time.UTC).UnixMilli()
	oracleTo   = time.Date(2060, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
)

// randomTimeline makes a case that could have happened. A third of its instants lie where it hurts: so long before a change
// of the clocks, a midnight or the end of a month that a deadline falls near it.
func randomTimeline(r *rand.Rand, states []law.MemberState) timeline {
	m := states[r.IntN(len(states))]
	tl := timeline{kind: AEV, state: m.Code, winter: winterHours[m.Code], limits: Targets{
		EarlyWarningHours: 1 + r.IntN(24), NotificationHours: 1 + r.IntN(72), FinalDays: 1 + r.IntN(14), UsersHours: 1 + r.IntN(24), AssessmentHours: 1}}
	if r.IntN(2) == 0 {
		tl.kind = SI
	}
	anchor := oracleFrom + r.Int64N(oracleTo-oracleFrom)
	switch y, mo, _ := civilOf(anchor / dayMS); r.IntN(6) {
	case 0:
		day := lastSunday(y, 3+7*r.Int64N(2))
		anchor = max(oracleFrom, (day-[]int64{0, 1, 3, 14, 28, 31}[r.IntN(6)])*dayMS+hourMS+r.Int64N(5*hourMS)-2*hourMS)
	case 1:
		anchor = max(oracleFrom, dayOf(y, mo, 1)*dayMS-r.Int64N(4*dayMS))
	}
	tl.t0 = []int64{anchor - r.Int64N(2)*r.Int64N(10*dayMS)}
	for r.IntN(4) == 0 {
		tl.t0 = append(tl.t0, tl.t0[0]-r.Int64N(3*dayMS))
	}
	t0 := tl.t0[len(tl.t0)-1]
	if r.IntN(4) > 0 {
		tl.ew = t0 + r.Int64N(40*hourMS)
		if tl.kind == SI {
			tl.ew = min(tl.ew, anchor)
		}
		switch r.IntN(4) {
		case 0:
			tl.covered = true
		case 1, 2:
			tl.n72 = max(anchor, tl.ew)
		}
		tl.invalidated = (tl.covered || tl.n72 != 0) && r.IntN(10) == 0
		if (tl.covered || tl.n72 != 0) && !tl.invalidated && r.IntN(2) == 0 {
			tl.last = max(tl.n72, tl.ew) + r.Int64N(40*dayMS)
		}
	}
	if tl.kind == AEV && (r.IntN(5) > 0 || tl.last != 0) {
		tl.measures = append(tl.measures, anchor)
		for r.IntN(3) == 0 {
			tl.measures = append(tl.measures, anchor+r.Int64N(20*dayMS)-5*dayMS)
		}
		tl.withdrawn = r.IntN(8) == 0
	}
	if r.IntN(2) == 0 {
		tl.users = t0 + r.Int64N(48*hourMS)
	}
	for r.IntN(5) == 0 {
		at := t0 + r.Int64N(20*dayMS)
		q := [3]int64{at, at + 1 + r.Int64N(10*dayMS), 0}
		if r.IntN(2) == 0 {
			q[2] = at + r.Int64N(15*dayMS)
		}
		tl.asked = append(tl.asked, q)
	}
	return tl
}

// The random timelines, and how they are spread over processes with different zones of the host.
const timelines = 1_000_000

var hostZones = []string{"UTC", "America/New_York", "Asia/Kathmandu", "Pacific/Kiritimati"}

// TestTimelinesAgree: two implementations that share no code give the same deadlines for a million random timelines, whatever
// zone the host is in.
func TestTimelinesAgree(t *testing.T) {
	var wg sync.WaitGroup
	digests := make([]string, len(hostZones))
	for i, zone := range hostZones {
		wg.Go(func() {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestTimelineShard$", "-test.v")
			cmd.Env = append(os.Environ(), "TZ="+zone, "GOGC=400", "RESPOND_TIMELINES="+strconv.Itoa(i))
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("TZ=%s: %v\n%s", zone, err, out)
			}
			for lines := bufio.NewScanner(strings.NewReader(string(out))); lines.Scan(); {
				if d, ok := strings.CutPrefix(lines.Text(), "agreed on "); ok {
					digests[i] = d
				}
			}
		})
	}
	wg.Wait()
	for i, d := range digests {
		if d == "" || d != digests[0] {
			t.Errorf("TZ=%s says %q, %s says %q", hostZones[i], d, hostZones[0], digests[0])
		}
	}
}

// TestTimelineShard is one of those processes.
func TestTimelineShard(t *testing.T) {
	shard, err := strconv.Atoi(os.Getenv("RESPOND_TIMELINES"))
	if err != nil {
		return // not a test of its own
	}
	if name, want := time.Local.String(), os.Getenv("TZ"); name != "Local" && name != want {
		t.Fatalf("the host's zone is %s, not %s", name, want)
	}
	states := law.MemberStates()
	if len(states) != len(winterHours) {
		t.Fatalf("%d Member States, the oracle knows %d", len(states), len(winterHours))
	}
	sum, n := fnv.New64a(), timelines/len(hostZones)
	common := rand.New(rand.NewPCG(1, 1)) // the same in each process, for the digest
	own := rand.New(rand.NewPCG(2026, uint64(shard)+911))
	const shared = 10_000
	wrong := 0
	for i := range n + shared {
		r := own
		if i >= n {
			r = common
		}
		tl := randomTimeline(r, states)
		ds := tl.clocks()
		if d := tl.differs(ds, tl.oracle()); d != "" {
			if wrong++; wrong <= 5 {
				t.Error(d)
			}
		}
		if i >= n {
			for _, d := range ds {
				fmt.Fprintln(sum, d.Stage, ms(d.Due), ms(d.NominalEnd), ms(d.ReliefEnd), ms(d.WorkBy), d.Late)
			}
		}
	}
	if wrong > 0 {
		t.Fatalf("%d of %d timelines differ", wrong, n+shared)
	}
	fmt.Printf("agreed on %d timelines, digest %x\n", n, sum.Sum64())
}

// TestTheOracleNotices: each way in which the field gets the deadlines wrong is told from the right one, so that agreement
// means something.
func TestTheOracleNotices(t *testing.T) {
	states := law.MemberStates()
	zoneOf := func(tl timeline) *time.Location {
		m, _ := law.State(tl.state)
		return m.Location()
	}
	first := func(tl timeline) time.Time { return time.UnixMilli(max(tl.measures[0], tl.t0[len(tl.t0)-1])) }
	for name, w := range map[string]struct {
		duty  int
		kind  Kind
		wrong func(tl timeline) time.Time
	}{
		"a day on the wall": {0, "", func(tl timeline) time.Time {
			return time.UnixMilli(tl.t0[len(tl.t0)-1]).In(zoneOf(tl)).AddDate(0, 0, 1)
		}},
		"the first T0":            {1, "", func(tl timeline) time.Time { return time.UnixMilli(tl.t0[0] + 72*hourMS) }},
		"month in UTC":            {2, SI, func(tl timeline) time.Time { return sameWallClock(time.UnixMilli(tl.n72), time.UTC, 1, 0) }},
		"month not clamped":       {2, SI, func(tl timeline) time.Time { return time.UnixMilli(tl.n72).UTC().AddDate(0, 1, 0) }},
		"thirty days":             {2, SI, func(tl timeline) time.Time { return time.UnixMilli(tl.n72 + 30*dayMS) }},
		"fourteen days elapsed":   {2, AEV, func(tl timeline) time.Time { return first(tl).Add(336 * time.Hour) }},
		"fourteen days on a wall": {2, AEV, func(tl timeline) time.Time { return sameWallClock(first(tl), zoneOf(tl), 0, 14) }},
		"last measure": {2, AEV, func(tl timeline) time.Time {
			return time.UnixMilli(tl.measures[len(tl.measures)-1] + 336*hourMS)
		}},
		"fourteen days from T0": {2, AEV, func(tl timeline) time.Time { return time.UnixMilli(tl.t0[0] + 336*hourMS) }},
	} {
		r := rand.New(rand.NewPCG(7, 7))
		noticed := 0
		for range 20_000 {
			tl := randomTimeline(r, states)
			if w.kind != "" && tl.kind != w.kind || w.kind == SI && (tl.n72 == 0 || tl.invalidated) || w.kind == AEV && len(tl.measures) == 0 {
				continue
			}
			if tl.oracle()[w.duty].due != ms(w.wrong(tl)) {
				noticed++
			}
		}
		if noticed == 0 {
			t.Errorf("%s: no timeline told it from the right reading", name)
		}
	}
}
