// SPDX-License-Identifier: AGPL-3.0-only

package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

func someNotice(id string) wire.Notice {
	return wire.Notice{ID: id, Kind: wire.NoticeSupport, Severity: wire.NoticeWarning, Texts: []wire.NoticeText{{Lang: "en", Title: "Support ends", Text: "In December 2031."}}}
}

// listen notes what the hook hears.
func (r rig) listen() *[]string {
	heard := &[]string{}
	r.noticeHook = func(tx *store.Tx, n NoticeState) error {
		if n.Tenant != "ten" || n.Command == "" {
			return fmt.Errorf("%+v", n)
		}
		tx.After(func() { *heard = append(*heard, n.Device+" "+n.Notice+" "+n.State) })
		return nil
	}
	return heard
}

// notice asks for a notice and lets the device have it.
func (r rig) notice(device, id string) string {
	r.t.Helper()
	cmd := r.send(device, wire.CommandNotice, someNotice(id))
	d := <-r.sent
	var n wire.Notice
	if err := json.Unmarshal([]byte(d.payload), &n); err != nil || n.ID != id || d.topic != "cmd/"+cmd+"/notice" {
		r.t.Errorf("delivered %+v, %v", d, err)
	}
	d.ack <- nil
	r.until(cmd, Received)
	return cmd
}

func (r rig) reports(device, body string, at time.Time) error {
	return r.NoticeReported(r.t.Context(), gateway.Record{Tenant: "ten", Device: device, Topic: wire.TopicNotice, Body: []byte(body), At: store.Millis(at)})
}

func (r rig) notices(device string) []DeviceNotice {
	r.t.Helper()
	ns, err := r.Notices(r.t.Context(), "ten", device, "", 10)
	r.must(err)
	return ns
}

func TestTheWayOfANotice(t *testing.T) {
	each(t, func(r rig) {
		heard := r.listen()
		cmd := r.notice("dev_a", "n1")
		if ns := r.notices("dev_a"); len(ns) != 1 || ns[0].State != NoticeAsked || !strings.Contains(string(ns[0].Content), "Support ends") {
			r.t.Errorf("on its way: %+v", ns)
		}
		r.must(r.says("dev_a", "cmd/"+cmd+"/ack", `{"ok":true}`))
		r.must(r.says("dev_a", "cmd/"+cmd+"/res", `{"ok":true,"detail":"stored"}`))
		shown := t0.Add(time.Hour)
		report := fmt.Sprintf(`{"notice":"n1","state":"shown","at":%d}`, shown.UnixMilli())
		for range 2 { // a repeat changes nothing
			r.must(r.reports("dev_a", report, t0.Add(2*time.Hour)))
		}
		r.must(r.reports("dev_a", `{"notice":"n1","state":"acknowledged","at":1}`, t0.Add(3*time.Hour))) // by a clock that cannot be right
		r.must(r.reports("dev_a", report, t0.Add(4*time.Hour)))
		n := r.notices("dev_a")[0]
		if n.State != wire.NoticeAcknowledged || n.Stored == nil || !n.Shown.Equal(shown) || !n.Acknowledged.Equal(t0.Add(3*time.Hour)) || n.Reason != "" {
			r.t.Errorf("it ends as %+v", n)
		}
		if d := cmp.Diff([]string{"dev_a n1 stored", "dev_a n1 shown", "dev_a n1 acknowledged"}, *heard); d != "" {
			r.t.Errorf("the hook (-want +got):\n%s", d)
		}
		if d := cmp.Diff([]string{"command.created", "command.ended", "notice.shown", "notice.acknowledged"}, r.leaves("dev_a")); d != "" {
			r.t.Errorf("leaves (-want +got):\n%s", d)
		}
	})
}

// What a device says overtakes its result: who acknowledges has seen, and who has seen has it.
func TestNoticeAcknowledgedBeforeItsResult(t *testing.T) {
	each(t, func(r rig) {
		heard := r.listen()
		cmd := r.notice("dev_a", "n1")
		r.must(r.reports("dev_a", `{"notice":"n1","state":"acknowledged"}`, t0))
		r.must(r.says("dev_a", "cmd/"+cmd+"/res", `{"ok":true}`))
		if d := cmp.Diff([]string{"dev_a n1 stored", "dev_a n1 shown", "dev_a n1 acknowledged"}, *heard); d != "" {
			r.t.Errorf("(-want +got):\n%s", d)
		}
	})
}

// A device that knows no notices has failed to take one. That is told and never lost, nor mistaken for one that has it.
func TestNoticeThatADeviceDoesNotKnow(t *testing.T) {
	each(t, func(r rig) {
		heard := r.listen()
		cmd := r.notice("dev_a", "n1")
		r.must(r.says("dev_a", "cmd/"+cmd+"/ack", `{"ok":false,"reason":"this agent knows no command \"notice\""}`))
		if n := r.notices("dev_a")[0]; n.State != NoticeFailed || n.Stored != nil || !strings.Contains(n.Reason, "knows no command") {
			r.t.Errorf("%+v", n)
		}
		// Its firmware is renewed, and it is asked again: the same notice.
		again := r.notice("dev_a", "n1")
		if n := r.notices("dev_a"); len(n) != 1 || n[0].State != NoticeAsked || n[0].Command != again {
			r.t.Errorf("asked again: %+v", n)
		}
		r.must(r.says("dev_a", "cmd/"+again+"/res", `{"ok":true}`))
		if d := cmp.Diff([]string{"dev_a n1 failed", "dev_a n1 stored"}, *heard); d != "" {
			r.t.Errorf("(-want +got):\n%s", d)
		}
	})
}

func TestNoticeThatNobodyFetched(t *testing.T) {
	each(t, func(r rig) {
		heard := r.listen()
		cmd := r.send("dev_a", wire.CommandNotice, someNotice("n1"))
		(<-r.sent).ack <- gateway.ErrOffline
		r.until(cmd, Queued)
		r.clk.Advance(time.Hour)
		r.must(r.sweep(r.t.Context()))
		if n := r.notices("dev_a")[0]; n.State != NoticeExpired || n.Reason == "" {
			r.t.Errorf("%+v", n)
		}
		r.must(r.says("dev_a", "cmd/"+cmd+"/res", `{"ok":true}`)) // it was on its way after all
		if n := r.notices("dev_a")[0]; n.State != NoticeStored || n.Reason != "" {
			r.t.Errorf("%+v", n)
		}
		if d := cmp.Diff([]string{"dev_a n1 expired", "dev_a n1 stored"}, *heard); d != "" {
			r.t.Errorf("(-want +got):\n%s", d)
		}
	})
}

// Only the device that has a notice reports on it, and what is no report harms nobody.
func TestReportsOnNoticesOfOthers(t *testing.T) {
	each(t, func(r rig) {
		heard := r.listen()
		r.notice("dev_a", "n1")
		good := `{"notice":"n1","state":"shown"}`
		for what, err := range map[string]error{
			"another device":    r.reports("dev_b", good, t0),
			"another tenant":    r.NoticeReported(r.t.Context(), gateway.Record{Tenant: "ten2", Device: "dev_a", Topic: wire.TopicNotice, Body: []byte(good)}),
			"an unknown notice": r.reports("dev_a", `{"notice":"n2","state":"shown"}`, t0),
		} {
			if !problem.Is(err, problem.KindNotFound) {
				r.t.Errorf("%s: %v", what, err)
			}
		}
		for _, body := range []string{"", "null", "[]", `{"notice":"n1","state":"loved"}`, `{"notice":"n1","state":"stored"}`, `{"notice":"n1","state":"shown","at":-5}`, `{"notice":"n1","state":"shown","x":"` + strings.Repeat("x", 1024) + `"}`} {
			if err := r.reports("dev_a", body, t0); !problem.Is(err, problem.KindInvalid) {
				r.t.Errorf("%.60s: %v", body, err)
			}
		}
		if ns, err := r.Notices(r.t.Context(), "ten2", "dev_a", "", 10); len(*heard) != 0 || err != nil || len(ns) != 0 || r.notices("dev_a")[0].State != NoticeAsked {
			r.t.Errorf("%v, %v, %+v", *heard, err, ns)
		}
	})
}

// What no device could show is refused before anybody is asked, and the name cannot be declared to mean something else.
func TestNoticesThatAreNone(t *testing.T) {
	each(t, func(r rig) {
		bad := someNotice("n1")
		bad.URL = "javascript:alert(1)"
		for _, args := range []any{nil, bad, map[string]string{"id": "n1"}} {
			err := r.cfg.DB.Write(r.t.Context(), func(tx *store.Tx) error {
				_, err := r.Send(tx, "ten", "dev_a", wire.CommandNotice, args, t0.Add(time.Hour), "per_x")
				return err
			})
			if !problem.Is(err, problem.KindInvalid) {
				r.t.Errorf("%v: %v", args, err)
			}
		}
		if err := (Job{Kind: KindCommand, Name: wire.CommandNotice, Args: json.RawMessage(`{}`), NotAfter: t0.Add(time.Hour)}).check(t0); !problem.Is(err, problem.KindInvalid) {
			r.t.Errorf("a job: %v", err)
		}
		if _, err := r.Declare(r.t.Context(), "ten", Declared{Product: "prd", Name: wire.CommandNotice, Title: "Mine", Policy: DefaultPolicy}); !problem.Is(err, problem.KindForbidden) {
			r.t.Errorf("declared: %v", err)
		}
		if ns := r.notices("dev_a"); len(ns) != 0 {
			r.t.Errorf("%+v", ns)
		}
	})
}

// What the hook cannot keep did not happen: the device's word is handed over again.
func TestNoticeHookThatFails(t *testing.T) {
	each(t, func(r rig) {
		full := errors.New("no room")
		r.notice("dev_a", "n1")
		r.noticeHook = func(*store.Tx, NoticeState) error { return full }
		if err := r.reports("dev_a", `{"notice":"n1","state":"shown"}`, t0); !errors.Is(err, full) {
			r.t.Error(err)
		}
		heard := r.listen()
		r.must(r.reports("dev_a", `{"notice":"n1","state":"shown"}`, t0))
		if len(*heard) != 2 {
			r.t.Errorf("%v", *heard)
		}
	})
}
