// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/wire"
)

var t0 = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// rig is a service whose device end is a queue of deliveries that the test answers.
type rig struct {
	*Service
	t    *testing.T
	clk  *clock.Hand
	sent chan delivery
}

type delivery struct {
	device, topic, payload string
	ack                    chan error
}

func each(t *testing.T, fn func(r rig)) {
	clk := clock.NewHand(t0)
	storetest.Each(t, []store.Migrations{seal.Schema, audit.Schema, Schema}, func(t *testing.T, db *store.DB) {
		clk.Set(t0)
		r := rig{t: t, clk: clk, sent: make(chan delivery)}
		keys, err := seal.Open(filepath.Join(t.TempDir(), "keys"), clk)
		r.must(err)
		r.Service = New(Config{DB: db, Keys: keys, Clock: clk, Deliver: func(ctx context.Context, m gateway.Downlink) error {
			d := delivery{m.Device, m.Topic, string(m.Payload), make(chan error)}
			select {
			case r.sent <- d:
			case <-ctx.Done():
				return ctx.Err()
			}
			select {
			case err := <-d.ack:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- r.Work(ctx) }()
		fn(r)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}, func(c *store.Config) { c.Clock = clk })
}

func (r rig) send(device, name string, args any) string {
	r.t.Helper()
	var id string
	if err := r.cfg.DB.Write(r.t.Context(), func(tx *store.Tx) (err error) {
		id, err = r.Send(tx, "ten", device, name, args, t0.Add(time.Hour), "per_x")
		return err
	}); err != nil {
		r.t.Fatal(err)
	}
	return id
}

func (r rig) get(id string) Command {
	r.t.Helper()
	c, err := r.Get(r.t.Context(), "ten", id)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r rig) says(device, topic, body string) error {
	return r.Receive(r.t.Context(), gateway.Record{Tenant: "ten", Device: device, Topic: topic, Body: []byte(body)})
}

func (r rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// until waits for one of the states: the note that follows a delivery is written after the acknowledgement.
func (r rig) until(id string, want ...State) {
	r.t.Helper()
	for begun := time.Now(); !slices.Contains(want, r.get(id).State); {
		if time.Since(begun) > time.Minute {
			r.t.Fatalf("%s is %s, not %s", id, r.get(id).State, want)
		}
	}
}

// leaves are the audit kinds about a device, in order.
func (r rig) leaves(device string) []string {
	r.t.Helper()
	rows, err := r.cfg.DB.Query(r.t.Context(), `SELECT kind FROM audit_entry WHERE subject = $1 ORDER BY id`, device)
	out, err := store.Collect(rows, err, func(rs *sql.Rows) (s string, err error) { return s, rs.Scan(&s) })
	r.must(err)
	return out
}

func TestTheWayOfACommand(t *testing.T) {
	each(t, func(r rig) {
		id := r.send("dev_a", "reboot", map[string]int{"delay": 5})
		d := <-r.sent
		if d.device != "dev_a" || d.topic != "cmd/"+id+"/reboot" || d.payload != `{"delay":5}` {
			r.t.Errorf("delivered %+v", d)
		}
		if s := r.get(id).State; s != Sent {
			r.t.Errorf("while it travels: %s", s)
		}
		d.ack <- nil
		r.until(id, Received)
		r.must(r.says("dev_a", "cmd/"+id+"/ack", `{"ok":true}`))
		r.until(id, Accepted)
		r.must(r.says("dev_a", "cmd/"+id+"/res", `{"ok":true,"detail":"rebooted","data":{"boot":8}}`))
		r.must(r.says("dev_a", "cmd/"+id+"/res", `{"ok":false,"detail":"again"}`)) // a repeat
		r.must(r.says("dev_a", "cmd/"+id+"/ack", `{"ok":true}`))                   // late
		c := r.get(id)
		if c.State != Done || c.Reason != "rebooted" || string(c.Result) != `{"boot":8}` || c.Attempts != 1 ||
			c.Sent == nil || c.Received == nil || c.Accepted == nil || c.Ended == nil {
			r.t.Errorf("ended as %+v", c)
		}
		if d := cmp.Diff([]string{"command.created", "command.ended"}, r.leaves("dev_a")); d != "" {
			r.t.Errorf("leaves (-want +got):\n%s", d)
		}
	})
}

// A device that is offline gets what waits when it is back, oldest first.
func TestOfflineDevice(t *testing.T) {
	each(t, func(r rig) {
		first := r.send("dev_a", "one", nil)
		(<-r.sent).ack <- gateway.ErrOffline
		r.until(first, Queued)
		second := r.send("dev_a", "two", nil)
		(<-r.sent).ack <- gateway.ErrOffline // the first again: order holds
		r.Ready("dev_a")
		var topics []string
		for range 2 {
			d := <-r.sent
			topics = append(topics, d.topic)
			d.ack <- nil
		}
		if d := cmp.Diff([]string{"cmd/" + first + "/one", "cmd/" + second + "/two"}, topics); d != "" {
			r.t.Errorf("(-want +got):\n%s", d)
		}
		r.until(first, Received, Queued)
		r.until(second, Received, Queued)
		r.Kick("dev_a") // what was acknowledged never comes again
		third := r.send("dev_a", "three", nil)
		d := <-r.sent
		if d.topic != "cmd/"+third+"/three" {
			r.t.Fatalf("sent again: %s", d.topic)
		}
		d.ack <- nil
		r.until(third, Received)
	})
}

func TestExpiry(t *testing.T) {
	each(t, func(r rig) {
		id := r.send("dev_a", "reboot", nil)
		(<-r.sent).ack <- gateway.ErrOffline
		r.until(id, Queued)
		if err := r.sweep(r.t.Context()); err != nil || r.get(id).State != Queued {
			r.t.Errorf("before its time: %s, %v", r.get(id).State, err)
		}
		// Its time is up and nobody has noted that yet: it is not handed over all the same.
		late := &Service{cfg: r.cfg}
		late.cfg.Clock = clock.NewHand(t0.Add(time.Hour))
		late.cfg.Deliver = func(context.Context, gateway.Downlink) error {
			r.t.Error("an expired command was handed over")
			return gateway.ErrOffline
		}
		r.must(late.deliverAll(r.t.Context(), "dev_a"))
		r.clk.Advance(time.Hour)
		if err := r.sweep(r.t.Context()); err != nil || r.get(id).State != Expired {
			r.t.Errorf("after its time: %s, %v", r.get(id).State, err)
		}
		r.Kick("dev_a")
		other := r.send1(t0.Add(2 * time.Hour))
		d := <-r.sent
		if d.topic != "cmd/"+other+"/later" {
			r.t.Fatalf("an expired command was sent: %s", d.topic)
		}
		d.ack <- nil
		r.until(other, Received)
		// The device did it all the same, and says so late.
		r.must(r.says("dev_a", "cmd/"+id+"/res", `{"ok":true}`))
		if s := r.get(id).State; s != Done {
			r.t.Errorf("a late result left it %s", s)
		}
		if d := cmp.Diff([]string{"command.created", "command.ended", "command.created", "command.ended"}, r.leaves("dev_a")); d != "" {
			r.t.Errorf("leaves (-want +got):\n%s", d)
		}
	})
}

func (r rig) send1(notAfter time.Time) (id string) {
	r.t.Helper()
	r.must(r.cfg.DB.Write(r.t.Context(), func(tx *store.Tx) (err error) {
		id, err = r.Send(tx, "ten", "dev_a", "later", nil, notAfter, "per_x")
		return err
	}))
	return id
}

func TestOnlyTheDeviceAnswers(t *testing.T) {
	each(t, func(r rig) {
		id := r.send("dev_a", "reboot", nil)
		(<-r.sent).ack <- nil
		r.until(id, Received)
		for what, err := range map[string]error{
			"another device":  r.says("dev_b", "cmd/"+id+"/res", `{"ok":true}`),
			"another tenant":  r.Receive(r.t.Context(), gateway.Record{Tenant: "ten2", Device: "dev_a", Topic: "cmd/" + id + "/res", Body: []byte(`{"ok":true}`)}),
			"unknown command": r.says("dev_a", "cmd/cmd_none/ack", `{"ok":true}`),
		} {
			if !problem.Is(err, problem.KindNotFound) {
				r.t.Errorf("%s: %v", what, err)
			}
		}
		for topic, body := range map[string]string{"cmd/" + id: "{}", "cmd/" + id + "/reboot": "{}", "cmd/" + id + "/ack": "nonsense", "cmd/" + id + "/res": "[]"} {
			if err := r.says("dev_a", topic, body); !problem.Is(err, problem.KindInvalid) {
				r.t.Errorf("%s %s: %v", topic, body, err)
			}
		}
		if s := r.get(id).State; s != Received {
			r.t.Errorf("nonsense left it %s", s)
		}
		r.must(r.says("dev_a", "cmd/"+id+"/ack", `{"ok":false,"reason":"busy\u0000"}`))
		if c := r.get(id); c.State != Failed || c.Reason != "refused by the device: busy" {
			r.t.Errorf("after the refusal: %+v", c)
		}
	})
}

// A hook shares the transaction of the result: invalid answers fail the command, other errors leave it open.
func TestHook(t *testing.T) {
	each(t, func(r rig) {
		var answer error
		r.OnResult("wipe", func(tx *store.Tx, c Command, res wire.CommandResult) error {
			if err := r.cfg.DB.Enqueue(tx, "after", c.ID, t0, nil); err != nil {
				return err
			}
			return answer
		})
		jobs := func() (n int) {
			r.t.Helper()
			r.must(r.cfg.DB.QueryRow(r.t.Context(), `SELECT count(*) FROM job WHERE kind = 'after'`).Scan(&n))
			return n
		}
		id := r.send("dev_a", "wipe", wire.WipeArgs{Nonce: "n"})
		(<-r.sent).ack <- nil
		answer = errors.New("the database is away")
		if err := r.says("dev_a", "cmd/"+id+"/res", `{"ok":true}`); problem.Of(err).Kind != problem.KindInternal || r.get(id).State.Ended() {
			r.t.Errorf("a passing failure: %v, %s", err, r.get(id).State)
		}
		answer = problem.NotFound("gone")
		if err := r.says("dev_a", "cmd/"+id+"/res", `{"ok":true}`); problem.Of(err).Kind != problem.KindInternal || r.get(id).State.Ended() {
			r.t.Errorf("a problem that is not the device's fault: %v, %s", err, r.get(id).State)
		}
		answer = problem.Invalid("the receipt is not signed")
		r.must(r.says("dev_a", "cmd/"+id+"/res", `{"ok":true}`))
		if c := r.get(id); c.State != Failed || c.Reason != "the receipt is not signed" || jobs() != 0 {
			r.t.Errorf("an invalid answer: %s %q, %d jobs", c.State, c.Reason, jobs())
		}
		id = r.send("dev_a", "wipe", wire.WipeArgs{Nonce: "m"})
		(<-r.sent).ack <- nil
		answer = nil
		r.must(r.says("dev_a", "cmd/"+id+"/res", `{"ok":true}`))
		if c := r.get(id); c.State != Done || jobs() != 1 {
			r.t.Errorf("a valid answer: %s, %d jobs", c.State, jobs())
		}
	})
}

func TestBadCommandsAreRefused(t *testing.T) {
	each(t, func(r rig) {
		for what, c := range map[string]struct {
			name string
			args any
			end  time.Time
		}{
			"a topic as name": {"a/b", nil, t0.Add(time.Hour)},
			"capitals":        {"Reboot", nil, t0.Add(time.Hour)},
			"a list":          {"reboot", []int{1}, t0.Add(time.Hour)},
			"no JSON":         {"reboot", func() {}, t0.Add(time.Hour)},
			"too long":        {"reboot", map[string]string{"a": strings.Repeat("x", MaxArgs)}, t0.Add(time.Hour)},
			"the past":        {"reboot", nil, t0},
			"next year":       {"reboot", nil, t0.AddDate(1, 0, 0)},
		} {
			err := r.cfg.DB.Write(r.t.Context(), func(tx *store.Tx) error {
				_, err := r.Send(tx, "ten", "dev_a", c.name, c.args, c.end, "per_x")
				return err
			})
			if k := problem.Of(err).Kind; err == nil || k != problem.KindInvalid && k != problem.KindTooLarge {
				r.t.Errorf("%s: %v", what, err)
			}
		}
		cs, err := r.List(r.t.Context(), "ten", "dev_a", "", 10)
		if err != nil || len(cs) != 0 || len(r.leaves("dev_a")) != 0 {
			r.t.Errorf("refused commands left %v, %v", cs, err)
		}
	})
}

func TestListIsPaged(t *testing.T) {
	each(t, func(r rig) {
		var want []string
		for range 5 {
			want = append(want, r.send("dev_a", "x", nil))
			(<-r.sent).ack <- nil
			r.until(want[len(want)-1], Received)
		}
		slices.Sort(want)
		slices.Reverse(want)
		var got []string
		for before := ""; ; before = got[len(got)-1] {
			page, err := r.List(r.t.Context(), "ten", "dev_a", before, 2)
			r.must(err)
			for _, c := range page {
				got = append(got, c.ID)
			}
			if len(page) < 2 {
				break
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			r.t.Errorf("(-want +got):\n%s", d)
		}
		if other, err := r.List(r.t.Context(), "ten2", "dev_a", "", 10); err != nil || len(other) != 0 {
			r.t.Errorf("another tenant lists %v, %v", other, err)
		}
	})
}

// Ends are final, but for a result that comes after the expiry.
func TestMay(t *testing.T) {
	for _, s := range states {
		for _, to := range states {
			if s.Ended() && s.May(to) != ((s == Expired || s == Cancelled) && (to == Done || to == Failed)) {
				t.Errorf("%s may become %s: %v", s, to, s.May(to))
			}
			if !s.Ended() && to.Ended() && !s.May(to) && (to != Cancelled || s == Queued) {
				t.Errorf("%s can never become %s", s, to)
			}
		}
	}
}

func FuzzReceive(f *testing.F) {
	f.Add("cmd/x/res", []byte(`{"ok":true,"data":{}}`))
	f.Add("cmd//ack", []byte(`{"ok":1}`))
	f.Add("cmd/x", []byte{0xff})
	f.Fuzz(func(t *testing.T, topic string, body []byte) {
		var res wire.CommandResult
		if json.Unmarshal(body, &res) != nil && strings.HasSuffix(topic, "/res") {
			s := &Service{}
			if err := s.Receive(t.Context(), gateway.Record{Topic: topic, Body: body}); err == nil {
				t.Error("accepted")
			}
		}
		if s := shorten(string(body)); len(s) > maxReason+3 || strings.ContainsRune(s, 0) {
			t.Errorf("shorten gave %q", s)
		}
	})
}
