// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// visit is a device that comes at a time, or one whose enrolment ends then.
type visit struct {
	at     time.Time
	device int
	place  *spot
}

type visits []visit

func (v visits) Len() int           { return len(v) }
func (v visits) Less(i, j int) bool { return v[i].at.Before(v[j].at) }
func (v visits) Swap(i, j int)      { v[i], v[j] = v[j], v[i] }
func (v *visits) Push(x any)        { *v = append(*v, x.(visit)) }
func (v *visits) Pop() any {
	last := (*v)[len(*v)-1]
	*v = (*v)[:len(*v)-1]
	return last
}

// A herd that comes all at once, as after a day without an issuer, arrives as an even stream: nobody starves, no place
// is idle for long, and asking more often gains nothing. All in virtual time.
func TestI13_ServerSpreadsTheHerd(t *testing.T) {
	const herd, serving = 20_000, 20 * time.Millisecond
	start := time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)
	now := start
	c := newCrowd(func() time.Time { return now })
	var todo visits
	for i := range herd {
		todo = append(todo, visit{at: start.Add(time.Duration(i) * time.Microsecond), device: i})
	}
	heap.Init(&todo)
	asked, arrivals, done := make([]int, herd), map[int64]int{}, make([]time.Time, herd)
	hammering := func(device int) bool { return device%100 == 7 } // one in a hundred asks each second whatever it is told
	var line []visit                                              // who stands in line
	most := 0
	for len(todo) > 0 {
		v := heap.Pop(&todo).(visit)
		now = v.at
		if v.place != nil {
			c.leave(v.place)
			done[v.device] = now
		} else {
			asked[v.device]++
			if !hammering(v.device) {
				arrivals[int64(now.Sub(start)/time.Second)]++
			}
			p, wait := c.ask(fmt.Sprintf("dev_%d", v.device))
			switch {
			case p != nil:
				line = append(line, visit{device: v.device, place: p})
			case wait <= 0 || wait > longestWait:
				t.Fatalf("a wait of %s", wait)
			case hammering(v.device):
				heap.Push(&todo, visit{at: now.Add(time.Second), device: v.device})
			default:
				heap.Push(&todo, visit{at: now.Add(time.Duration(seconds(wait)) * time.Second), device: v.device})
			}
		}
		most = max(most, c.working)
		for len(line) > 0 && !line[0].place.began.IsZero() {
			heap.Push(&todo, visit{now.Add(serving), line[0].device, line[0].place})
			line = line[1:]
		}
	}
	if most != defaultWork {
		t.Errorf("%d in work at once, the bound is %d", most, defaultWork)
	}
	capacity := float64(defaultWork) / serving.Seconds()
	ideal := time.Duration(herd / capacity * float64(time.Second))
	var last time.Time
	worst, again := 0, 0
	for i, n := range asked {
		if done[i].IsZero() {
			t.Fatalf("device %d was never served", i)
		}
		if done[i].After(last) {
			last = done[i]
		}
		if !hammering(i) && n > 2 {
			again++
		}
		if !hammering(i) {
			worst = max(worst, n)
		}
	}
	if took := last.Sub(start); took > ideal*3/2 {
		t.Errorf("the herd took %s, full capacity needs %s", took, ideal)
	}
	if worst > 4 || again > herd/20 {
		t.Errorf("a device asked %d times, %d more than twice", worst, again)
	}
	for second, n := range arrivals {
		if second > 0 && float64(n) > capacity {
			t.Errorf("second %d: %d came, the capacity is %.0f", second, n, capacity)
		}
	}
	var patient, eager time.Duration
	for i := range herd {
		if hammering(i) {
			eager += done[i].Sub(start) * 99
		} else {
			patient += done[i].Sub(start)
		}
	}
	if float64(eager) < 0.95*float64(patient) {
		t.Errorf("asking each second gains: %s against %s in sum", eager, patient)
	}
	if len(c.promised) != 0 || len(c.line) != 0 || c.working != 0 {
		t.Errorf("%d turns are promised, %d stand in line, %d are in work", len(c.promised), len(c.line), c.working)
	}
}

// A calm day: nobody waits. On another one turns are kept, given in order, and forgotten when nobody takes them.
func TestCrowd(t *testing.T) {
	now := time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)
	c := newCrowd(func() time.Time { return now })
	for i := range 1000 {
		now = now.Add(10 * time.Millisecond)
		p, wait := c.ask(fmt.Sprint(i))
		if p == nil || p.began.IsZero() {
			t.Fatalf("device %d waits %s", i, wait)
		}
		now = now.Add(10 * time.Millisecond)
		c.leave(p)
	}
	var in []*spot
	for i := range defaultWork * (1 + newQueue) {
		p, wait := c.ask(fmt.Sprint("full", i))
		if p == nil || p.began.IsZero() != (i >= defaultWork) {
			t.Fatalf("device %d of a small crowd: %+v %s", i, p, wait)
		}
		in = append(in, p)
	}
	p, wait := c.ask("a")
	if p != nil || wait <= 0 {
		t.Fatal("the line has no end")
	}
	if _, again := c.ask("a"); again != wait {
		t.Errorf("asking again moves the turn: %s, was %s", again, wait)
	}
	for _, p := range in {
		c.leave(p)
	}
	if p, _ := c.ask("b"); p != nil {
		t.Error("somebody without a turn goes before one who has")
	}
	now = now.Add(wait)
	if p, _ := c.ask("a"); p == nil {
		t.Error("it is its turn, and it is not let in")
	} else {
		c.leave(p)
	}
	now = now.Add(2 * late)
	if p, _ := c.ask("c"); p == nil || len(c.promised) != 0 {
		t.Errorf("%d turns are kept for ever", len(c.promised))
	}
}

// Who gives up in line frees its place, and the refusal says when to come again.
func TestCrowdIsLeft(t *testing.T) {
	now := time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)
	c := newCrowd(func() time.Time { return now })
	var leaves []func()
	for i := range defaultWork {
		leave, err := c.enter(t.Context(), fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, leave)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for i := range 10 * newQueue * defaultWork {
		if _, err := c.enter(gone, fmt.Sprint("gone", i)); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	for range newQueue * defaultWork {
		c.line = append(c.line, &spot{let: make(chan struct{})})
	}
	_, err := c.enter(t.Context(), "last")
	var l *later
	if !errors.As(err, &l) || seconds(l.wait) != 1 || !problem.Is(err, problem.KindLimited) {
		t.Errorf("%v", err)
	}
	for _, leave := range leaves {
		leave()
	}
	if c.working != defaultWork {
		t.Errorf("%d in work: those in line do not follow", c.working)
	}
}

func TestJitter(t *testing.T) {
	const n = 10_000
	var sum time.Duration
	for i := range n {
		j := jitter(fmt.Sprintf("dev_%d", i), time.Second)
		if j < 0 || j >= time.Second || j != jitter(fmt.Sprintf("dev_%d", i), time.Second) {
			t.Fatal(j)
		}
		sum += j
	}
	if mean := sum / n; mean < 450*time.Millisecond || mean > 550*time.Millisecond {
		t.Errorf("the mean is %s", mean)
	}
}
