// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/agent"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/wire"
)

func noticeOf(id string) wire.Notice {
	return wire.Notice{ID: id, Kind: wire.NoticeSupport, Severity: wire.NoticeWarning, URL: "https://maker.example/lamp",
		Texts: []wire.NoticeText{{Lang: "en", Title: "Support ends", Text: "In December 2031."}, {Lang: "de", Title: "Ende der Unterstützung", Text: "Im Dezember 2031."}}}
}

func anyReport(wire.NoticeReport) bool { return true }

// powerOn runs an agent under a handle, until off.
func powerOn(t *testing.T, c agent.Config) (x *agent.Agent, off func()) {
	x = agent.New(c)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- x.Supervise(ctx) }()
	off = func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	return x, off
}

// TestNoticeOnADevice: a notice comes by a command, is shown in the reader's language and acknowledged, also while the
// platform is out of reach; the platform hears each once. It is there after a restart.
func TestNoticeOnADevice(t *testing.T) {
	h := newHouse(t)
	u := h.born("dev_1")
	told := make(chan struct{}, 100)
	u.cfg.OnNotice = func() { told <- struct{}{} }
	u.cfg.Socket = filepath.Join(t.TempDir(), "agent.sock")
	x, off := powerOn(t, u.cfg)
	if _, err := agent.New(u.cfg).Notices(); !errors.Is(err, agent.ErrOff) {
		t.Error(err)
	}
	await(h, "inv", anyInventory)
	<-told // at each start
	result := func(id string) wire.CommandResult {
		t.Helper()
		return await(h, "cmd/"+id+"/res", func(wire.CommandResult) bool { return true })
	}
	u.send("cmd/c1/notice", noticeOf("n1"))
	if r := result("c1"); !r.OK || r.Detail != "stored" {
		t.Fatalf("%+v", r)
	}
	<-told
	list, err := x.Notices("de-AT", "en")
	if err != nil || len(list) != 1 || list[0].Title != "Ende der Unterstützung" || list[0].Lang != "de" || list[0].State != "" || list[0].URL == "" {
		t.Fatalf("%+v, %v", list, err)
	}
	for range 2 {
		if err := x.NoticeShown("n1"); err != nil {
			t.Fatal(err)
		}
	}
	if r := await(h, "notice", anyReport); r.Notice != "n1" || r.State != wire.NoticeShown || r.At == 0 {
		t.Errorf("%+v", r)
	}

	// The same notice by another command is the same; another text under its id, and what is none, is refused in words.
	u.send("cmd/c2/notice", noticeOf("n1"))
	if r := result("c2"); !r.OK {
		t.Errorf("the same once more: %+v", r)
	}
	other := noticeOf("n1")
	other.Texts = other.Texts[:1]
	u.send("cmd/c3/notice", other)
	if r := result("c3"); r.OK || !strings.Contains(r.Detail, "an id of its own") {
		t.Errorf("another under its id: %+v", r)
	}
	for i, hostile := range []any{map[string]any{"id": "../unit.json"}, []int{1}, map[string]any{"id": "x", "texts": strings.Repeat("x", wire.MaxNotice)}, map[string]any{"id": "n2", "kind": "other", "severity": "info", "texts": []map[string]string{{"lang": "en", "title": "a\u001b[2J", "text": "b"}}}} {
		id := "h" + strconv.Itoa(i)
		u.send("cmd/"+id+"/notice", hostile)
		if r := result(id); r.OK {
			t.Errorf("%v was taken", hostile)
		}
	}

	// Out of reach, and through a restart, it is acknowledged by another program of the device.
	h.set(func() { h.shut = true })
	h.g.Cut("dev_1", "test")
	<-h.refused
	if _, err := agent.Ask(t.Context(), u.cfg.Socket, agent.Request{Notice: "n1", State: wire.NoticeAcknowledged}); err != nil {
		t.Fatal(err)
	}
	off()
	if list, err := agent.ReadNotices(u.dir, "fr"); err != nil || len(list) != 1 || list[0].Lang != "en" || list[0].State != wire.NoticeAcknowledged {
		t.Errorf("switched off it shows %+v, %v", list, err)
	}
	h.set(func() { h.shut = false })
	h.forget()
	x, off = powerOn(t, u.cfg)
	if r := await(h, "notice", anyReport); r.State != wire.NoticeAcknowledged {
		t.Errorf("after the outage: %+v", r)
	}
	if err := x.NoticeAcknowledged("n1"); err != nil {
		t.Error(err)
	}
	r, err := agent.Ask(t.Context(), u.cfg.Socket, agent.Request{Notices: &[]string{"de"}})
	if err != nil || len(r.Notices) != 1 || r.Notices[0].Lang != "de" {
		t.Errorf("%+v, %v", r, err)
	}
	for _, bad := range []agent.Request{{Notice: "n1", State: "burnt"}, {Notice: "n2", State: wire.NoticeShown}, {Notice: "n1", Kind: "login", State: wire.NoticeShown}, {}} {
		if r, err := agent.Ask(t.Context(), u.cfg.Socket, bad); err == nil {
			t.Errorf("%+v was answered with %+v", bad, r)
		}
	}
	u.send("cmd/c9/ping", map[string]any{}) // a report that was made before would have come before its result
	result("c9")
	off()
	for len(h.heard) > 0 {
		if r := <-h.heard; strings.HasSuffix(r.Topic, "/notice") || r.Topic == "notice" {
			t.Errorf("told again: %s", r.Body)
		}
	}
}

// TestPowerCutAtEveryEffectOfANotice cuts the power before every effect on disk, from the arrival of a notice to the
// acknowledged report of its acknowledgement. What the firmware was told to be kept reaches the platform without being said
// again; and nothing is shown twice.
func TestPowerCutAtEveryEffectOfANotice(t *testing.T) {
	h := newHouse(t)
	sockets := t.TempDir()
	for at, whole := 0, 1; at <= whole; at++ {
		u := h.born("dev_" + strconv.Itoa(at)).on()
		await(h, "inv", anyInventory)
		u.off()
		h.forget()
		u.cfg.Socket = filepath.Join(sockets, strconv.Itoa(at))
		send := func(ctx context.Context) error {
			b, err := json.Marshal(noticeOf("n1"))
			if err != nil {
				return err
			}
			return h.g.Send(ctx, gateway.Downlink{Device: u.id, Topic: "cmd/c1/notice", Payload: b})
		}
		marked, reported := false, false
		mark := func() bool {
			if !marked {
				_, err := agent.Ask(t.Context(), u.cfg.Socket, agent.Request{Notice: "n1", State: wire.NoticeAcknowledged})
				marked = err == nil
			}
			for len(h.heard) > 0 {
				r := <-h.heard
				reported = reported || strings.HasSuffix(r.Topic, "notice") && strings.Contains(string(r.Body), `"acknowledged"`)
			}
			return marked && reported
		}
		told := func() bool { // its file says that nothing is left to be told
			b, err := agent.ReadReports(u.dir)
			return err == nil && len(b) == 0
		}
		effects := u.powered(at, send, func() bool { return mark() && told() })
		if at == 0 {
			if whole = len(effects); whole < 6 {
				t.Fatalf("only %d effects: %v", whole, effects)
			}
		}
		u.on()
		// The platform asks again until there is a result (command.NoticePolicy): a process that lost its disk may still have
		// acknowledged the packet before its connection ended, which a device without power does not.
		eventually(t, func() bool { return (marked || send(t.Context()) == nil) && mark() && told() })
		u.off()
		list, err := agent.ReadNotices(u.dir)
		if err != nil || len(list) != 1 || list[0].State != wire.NoticeAcknowledged {
			t.Errorf("power cut before effect %d: it shows %+v, %v", at, list, err)
		}
	}
}

// TestSupportOnADevice: the end of support is asked for once a day, kept, and readable with no network and no power on the
// agent. What nobody says does not take it away.
func TestSupportOnADevice(t *testing.T) {
	h := newHouse(t)
	said := make(chan string, 10)
	h.g.Route("GET /d/1/support", gateway.LDevID, func(w http.ResponseWriter, r *http.Request, p gateway.Peer) {
		select {
		case s := <-said:
			answer(w, []byte(s))
		default:
			http.NotFound(w, r)
		}
	})
	u := h.born("dev_1")
	u.cfg.Socket = filepath.Join(t.TempDir(), "agent.sock")
	said <- `{"support_end":"2031-12","until":1956527999999,"product":"Lamp","maker":"Acme"}`
	x, off := powerOn(t, u.cfg)
	var s wire.Support
	eventually(t, func() (ok bool) {
		var err error
		s, err = x.Support()
		return err == nil
	})
	if s.End != "2031-12" || s.Product != "Lamp" {
		t.Errorf("%+v", s)
	}
	if r, err := agent.Ask(t.Context(), u.cfg.Socket, agent.Request{Support: true}); err != nil || r.Support == nil || *r.Support != s {
		t.Errorf("%+v, %v", r, err)
	}
	off()
	for _, next := range []string{"", `{"support_end":"soon"}`, `nonsense`} { // nothing, and worse
		if next != "" {
			said <- next
		}
		_, off = powerOn(t, u.cfg)
		await(h, "inv", anyInventory)
		off()
		if got, err := agent.ReadSupport(u.dir); err != nil || got != s {
			t.Errorf("after %q: %+v, %v", next, got, err)
		}
	}
	if _, err := agent.ReadSupport(h.born("dev_2").dir); !errors.Is(err, agent.ErrSupport) {
		t.Error(err)
	}
	if _, err := agent.ReadNotices(t.TempDir()); err == nil {
		t.Error("an empty folder is no device")
	}
}
