// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/store/storetest"
)

// killStart is when the story of the test that kills begins.
var killStart = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// killStep is one transition, so many hours after the start. Each is one transaction.
type killStep struct {
	hour int
	do   func(h house, as Assessment, id string, at time.Time) error
}

func killEvent(hour int, who context.Context, k EventKind, data func(at time.Time) Data) killStep {
	return killStep{hour, func(h house, _ Assessment, id string, at time.Time) error {
		_, err := h.Append(who, id, k, data(at))
		return err
	}}
}

func killNote(at time.Time) Data { return Data{At: at, Note: "note"} }

func killAttempt(st Stage) func(time.Time) Data {
	return func(at time.Time) Data { return Data{Stage: st, At: at, Deviation: "only the order matters here"} }
}

// killSteps are a whole case with every kind of alarm between its transitions. Numbers of events that others refer to are
// found by their kind, since alarms stand between them.
var killSteps = []killStep{
	{0, func(h house, _ Assessment, _ string, _ time.Time) error {
		_, err := h.AddSignal(ann, Signal{Product: h.product, Title: "shells on sensors"})
		return err
	}},
	{9, func(h house, _ Assessment, _ string, _ time.Time) error {
		ss, err := h.Signals(ann, "", 1)
		if err == nil {
			_, err = h.Assess(ann, ss[0].ID, "")
		}
		return err
	}},
	{10, func(h house, as Assessment, _ string, _ time.Time) error {
		_, _, err := h.Decide(ann, as.ID, Declaration{Verdict: Watch, Basis: "unclear"})
		return err
	}},
	{35, func(h house, as Assessment, _ string, at time.Time) error {
		d := h.aware(true, false)
		d.T0 = at.Add(-30 * time.Minute)
		_, _, err := h.Decide(ann, as.ID, d)
		return err
	}},
	killEvent(36, ann, MitigationExpected, killNote),
	killEvent(37, ann, SubmissionAttempted, killAttempt(EarlyWarning)),
	{60, killAccept},
	killEvent(61, ann, PlatformOutage, killNote),
	killEvent(62, bob, PlatformRestored, killNote),
	killEvent(63, ann, MeasureAvailable, killNote),
	killEvent(64, ann, SubmissionAttempted, killAttempt(Notification)),
	{65, killAccept},
	killEvent(120, ann, UsersInformed, func(at time.Time) Data { return Data{At: at, Note: "mail", Audience: "all"} }),
	killEvent(121, ann, InterimRequested, func(at time.Time) Data { return Data{At: at, Due: at.Add(4 * time.Hour), Note: "how many"} }),
	{130, func(h house, _ Assessment, id string, at time.Time) error {
		c, err := h.Case(ann, id)
		if err == nil {
			_, err = h.Append(ann, id, InterimAnswered, Data{At: at, Note: "mail", Request: c.Regions.Requests[0].Seq})
		}
		return err
	}},
	killEvent(480, ann, SubmissionAttempted, killAttempt(Final)),
	{481, killAccept},
	killEvent(482, ann, Closed, func(time.Time) Data { return Data{Note: "done"} }),
}

// killAccept confirms the attempt that is open.
func killAccept(h house, _ Assessment, id string, _ time.Time) error {
	c, err := h.Case(ann, id)
	if err != nil {
		return err
	}
	for seq, a := range c.state.Attempts {
		if !a.Done {
			_, err := h.Append(bob, id, SubmissionAccepted, Data{Attempt: seq, Receipt: "SRP-1"})
			return err
		}
	}
	return errors.New("no attempt is open")
}

// progress is how many steps are on disk, with what the next one needs.
func (h house) progress(t *testing.T) (n int, as Assessment, id string) {
	t.Helper()
	ss, err := h.Signals(ann, "", 2)
	if err != nil {
		t.Fatal(err)
	}
	n = len(ss)
	if n > 0 && ss[0].Assessment != nil {
		as = *ss[0].Assessment
		n += 1 + len(as.Decisions)
	}
	cs, err := h.Cases(ann, false, "", 2)
	if err != nil || len(cs) > 1 {
		t.Fatalf("%d cases, %v", len(cs), err)
	}
	for _, c := range cs {
		if c, err = h.Case(ann, c.ID); err != nil {
			t.Fatal(err)
		}
		id = c.ID
		for _, e := range c.Events {
			if e.Person && e.Kind != T0Set { // which is one with the decision
				n++
			}
		}
	}
	return n, as, id
}

// TestKillChild is the process that is killed: it rings the alarms up to the next step, takes it, and so on.
func TestKillChild(t *testing.T) {
	url := os.Getenv("RESPOND_CHILD_DATABASE")
	if url == "" {
		return // not a test of its own
	}
	die := func(where string) {
		if os.Getenv("RESPOND_CHILD_DIES") == where {
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			select {} // until it arrives
		}
	}
	hand := clock.NewHand(killStart)
	h := openHouse(t, url, hand, os.Getenv("RESPOND_CHILD_PRODUCT"))
	if err := h.Work(t.Context()); err != nil {
		t.Fatal(err)
	}
	fmt.Println("open")
	ring := func(hour int) time.Time {
		at := killStart.Add(time.Duration(hour) * time.Hour)
		for _, later := range []time.Duration{0, 2 * time.Minute} { // what a killed process had taken is free again then
			hand.Set(at.Add(later))
			h.jobs(t)
		}
		die("between")
		return hand.Now()
	}
	for {
		n, as, id := h.progress(t)
		if n == len(killSteps) {
			break
		}
		at := ring(killSteps[n].hour)
		if err := killSteps[n].do(h, as, id, at); err != nil {
			t.Fatalf("step %d: %v", n, err)
		}
		die("after")
	}
	ring(500)
	fmt.Println("finished")
}

// TestKillNineAtEveryTransition kills the process after a transition, before the next, and at random moments: none takes
// more than one, however fast the machine is. At the end the case is what it would be without: every event once, every
// alarm once, a leaf for each.
func TestKillNineAtEveryTransition(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		h := openHouse(t, url, clock.NewHand(killStart), "")
		dies := []string{"after", "between", "after"}
		kills := 0
		for n := 0; n < len(killSteps); n, _, _ = h.progress(t) {
			if kills > 5*len(killSteps) {
				t.Fatalf("stuck at step %d", n)
			}
			after := time.Hour
			if kills%len(dies) == 2 {
				after = time.Millisecond << rand.IntN(7) // by then it may have taken nothing, a part of its transition, or all of it
			}
			killedCase(t, url, h.product, dies[kills%len(dies)], after)
			kills++
		}
		if !killedCase(t, url, h.product, "", time.Hour) {
			t.Fatal("the last process did not finish")
		}
		if kills < len(killSteps) {
			t.Errorf("only %d kills", kills)
		}
		_, _, id := h.progress(t)
		c, err := h.Case(ann, id)
		if err != nil || c.Status != "closed" {
			t.Fatalf("%s, %v", c.Status, err)
		}
		rang := map[Escalation]int{}
		for i, e := range c.Events {
			if e.Seq != int64(i+1) {
				t.Errorf("event %d stands in place %d", e.Seq, i+1)
			}
			if !e.Person {
				esc := escalationOf(e)
				esc.At, esc.Request = 0, 0
				rang[esc]++
			}
		}
		want := map[Escalation]int{
			{Stage: EarlyWarning, Level: DeadlineSoon}: 1, {Stage: EarlyWarning, Level: DeadlineOverdue}: 1, {Stage: Users, Level: DeadlineOverdue}: 1,
			{Stage: Spreading, Level: SpreadingAssumed}: 1, {Stage: Intermediate, Level: DeadlineOverdue}: 1,
			{Stage: Final, Level: DeadlineSoon}: 1, {Stage: Final, Level: DeadlineOverdue}: 1,
		}
		if !maps.Equal(rang, want) {
			t.Errorf("after %d kills the alarms are %v, want %v", kills, rang, want)
		}
		var leaves, idle int
		if err := h.db.QueryRow(t.Context(), `SELECT count(*) FROM audit_entry WHERE subject = $1`, id).Scan(&leaves); err != nil || leaves != len(c.Events) {
			t.Errorf("%d leaves for %d events, %v", leaves, len(c.Events), err)
		}
		if err := h.db.QueryRow(t.Context(), `SELECT count(*) FROM respond_idle`).Scan(&idle); err != nil || idle != 2 {
			t.Errorf("told of the idle signal %d times, want twice; %v", idle, err)
		}
	})
}

// killedCase starts the process and sees it die: as dies says, or killed so long after it has opened the database. It
// reports whether it had finished.
func killedCase(t *testing.T, url, product, dies string, after time.Duration) (finished bool) {
	t.Helper()
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestKillChild$") // Cancel sends SIGKILL
	cmd.Env = append(os.Environ(), "RESPOND_CHILD_DATABASE="+url, "RESPOND_CHILD_PRODUCT="+product, "RESPOND_CHILD_DIES="+dies, "GORACE=exitcode=66", "TMPDIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said, complained bytes.Buffer // two goroutines write
	cmd.Stderr = &complained
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(io.TeeReader(out, &said))
	for lines.Scan() && lines.Text() != "open" {
	}
	defer time.AfterFunc(after, kill).Stop()
	for lines.Scan() {
		finished = finished || lines.Text() == "finished"
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && ctx.Err() == nil && (!errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL) {
		t.Fatalf("the process failed by itself: %v\n%s%s", err, said.String(), complained.String())
	}
	return finished
}
