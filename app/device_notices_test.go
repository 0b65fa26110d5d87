// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/agent"
	"github.com/openthings-platform/openthings/command"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/wire"
)

// real makes a unit of the agent itself: provisioned, through the line, claimed. It is switched off.
func (m *maker) real(serial string) (id string, cfg agent.Config) {
	t, w := m.w.t, m.w
	t.Helper()
	dir := t.TempDir() + "/state"
	csr, err := agent.Provision(dir, serial)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(wire.LineRequest{Serial: serial, CSR: string(csr)})
	if err != nil {
		t.Fatal(err)
	}
	a, err := w.do(w.client(&m.station), "POST", w.info.Devices+"/d/1/line/devices", "", "application/json", b)
	var r wire.LineResponse
	if err != nil || a.status != 200 || json.Unmarshal(a.body, &r) != nil {
		t.Fatalf("line: %d %s %v", a.status, a.body, err)
	}
	w.text = append(w.text, r.Claim, strings.ReplaceAll(r.Claim, "-", ""))
	if err := agent.Install(dir, r); err != nil {
		t.Fatal(err)
	}
	w.post(m.owner, "/v1/claims", map[string]any{"code": r.Claim, "solution": m.solution}, nil)
	return r.Device, agent.Config{Dir: dir, HTTPS: strings.TrimPrefix(w.info.Devices, "https://"), MQTT: w.info.MQTT, Product: m.product, Revision: "C", Interval: time.Hour, Retry: 10 * time.Millisecond}
}

// power switches an agent on until the end of the test or off.
func power(t *testing.T, c agent.Config) (x *agent.Agent, off func()) {
	x = agent.New(c)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- x.Supervise(ctx) }()
	var once bool
	off = func() {
		if once {
			return
		}
		once = true
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	t.Cleanup(off)
	return x, off
}

// noticed waits until the platform says of the device's notice what is wanted.
func (m *maker) noticed(device, notice, state string) (n command.DeviceNotice) {
	m.w.t.Helper()
	m.w.reads(m.owner, "/v1/devices/"+device+"/notices", func(body []byte) bool {
		var page struct{ Items []command.DeviceNotice }
		if json.Unmarshal(body, &page) != nil {
			return false
		}
		for _, n = range page.Items {
			if n.Notice == notice && n.State == state {
				return true
			}
		}
		return false
	})
	return n
}

// TestNoticeReachesTheUsers: a job takes a notice to real agents. One shows it and a person there acknowledges it; one is
// switched off and gets it when it is back; a device that knows no notices is counted as failed, not lost. One that has ended
// is never shown. The end of support is readable on the device.
func TestNoticeReachesTheUsers(t *testing.T) {
	w := newWorld(t, "")
	m := w.newMaker("Acme")
	lamp, lampConfig := m.real("SN-on")
	away, awayConfig := m.real("SN-away")
	old := m.make()
	x, off := power(t, lampConfig)
	_, awayOff := power(t, awayConfig)
	c, heard := w.listen(old)
	defer func() { c.Close() }()
	for _, id := range []string{lamp, away, old.id} {
		w.reads(m.owner, "/v1/devices/"+id, func(body []byte) bool { return strings.Contains(string(body), `"online":true`) })
	}
	awayOff()
	w.reads(m.owner, "/v1/devices/"+away, func(body []byte) bool { return strings.Contains(string(body), `"online":false`) })

	n := wire.Notice{ID: "support-2031", Kind: wire.NoticeSupport, Severity: wire.NoticeWarning, URL: "https://maker.example/lamp",
		Texts: []wire.NoticeText{{Lang: "en", Title: "Support ends", Text: "Security updates end in December 2031."}, {Lang: "de", Title: "Ende der Unterstützung", Text: "Sicherheitsaktualisierungen enden im Dezember 2031."}}}
	var job struct{ ID string }
	w.post(m.owner, "/v1/jobs", map[string]any{"title": "Support ends", "name": wire.CommandNotice, "args": n, "product": m.product}, &job)

	// The one that is too old says so.
	d := w.hears(heard, "/notice")
	cmd := strings.Split(strings.TrimPrefix(d.topic, wire.Root), "/")[1]
	if err := c.Publish(t.Context(), wire.Root+"cmd/"+cmd+"/ack", []byte(`{"ok":false,"reason":"this agent knows no command \"notice\""}`)); err != nil {
		t.Fatal(err)
	}
	if got := m.noticed(old.id, n.ID, command.NoticeFailed); !strings.Contains(got.Reason, "knows no command") || got.Stored != nil {
		t.Errorf("%+v", got)
	}

	// The lamp keeps it, shows it, and somebody acknowledges it.
	m.noticed(lamp, n.ID, command.NoticeStored)
	list, err := x.Notices("de")
	if err != nil || len(list) != 1 || list[0].Title != "Ende der Unterstützung" {
		t.Fatalf("%+v, %v", list, err)
	}
	if err := x.NoticeShown(n.ID); err != nil {
		t.Fatal(err)
	}
	if got := m.noticed(lamp, n.ID, wire.NoticeShown); got.Shown == nil || got.Acknowledged != nil || !strings.Contains(string(got.Content), "December 2031") {
		t.Errorf("%+v", got)
	}
	if err := x.NoticeAcknowledged(n.ID); err != nil {
		t.Fatal(err)
	}
	m.noticed(lamp, n.ID, wire.NoticeAcknowledged)

	// Who was away gets it on its return, and its job is done but for the one that failed.
	_, awayOff = power(t, awayConfig)
	m.noticed(away, n.ID, command.NoticeStored)
	awayOff()
	if list, err := agent.ReadNotices(awayConfig.Dir); err != nil || len(list) != 1 || list[0].State != "" {
		t.Errorf("switched off again it shows %+v, %v", list, err)
	}
	w.reads(m.owner, "/v1/jobs/"+job.ID, func(body []byte) bool {
		var j command.Job
		return json.Unmarshal(body, &j) == nil && j.Counts.Done == 2 && j.Counts.Failed == 1
	})

	// A correction takes its place; what has ended is not shown.
	fix := n
	fix.ID, fix.Replaces = "support-2032", n.ID
	w.post(m.owner, "/v1/devices/"+lamp+"/commands", map[string]any{"name": wire.CommandNotice, "args": fix}, nil)
	m.noticed(lamp, fix.ID, command.NoticeStored)
	over := n
	over.ID, over.Ends = "over", time.Now().Add(-time.Hour).UnixMilli()
	w.post(m.owner, "/v1/devices/"+lamp+"/commands", map[string]any{"name": wire.CommandNotice, "args": over}, nil)
	w.reads(m.owner, "/v1/devices/"+lamp+"/notices", func(body []byte) bool {
		var page struct{ Items []command.DeviceNotice }
		return json.Unmarshal(body, &page) == nil && len(page.Items) == 3 && page.Items[0].Notice == "over" && page.Items[0].State != command.NoticeAsked
	})
	if list, err := x.Notices(); err != nil || len(list) != 1 || list[0].ID != fix.ID {
		t.Errorf("it shows %+v, %v", list, err)
	}

	// What is no notice is refused before any device hears of it.
	a, err := w.do(w.client(nil), "POST", w.info.URL+"/v1/devices/"+lamp+"/commands", m.owner, "application/json", []byte(`{"name":"notice","args":{"id":"x"}}`))
	if err != nil || a.status != 422 && a.status != 400 {
		t.Errorf("%d %s %v", a.status, a.body, err)
	}

	// Until when it is supported, it knows itself once that is published, also without the platform.
	if _, err := x.Support(); !errors.Is(err, agent.ErrSupport) {
		t.Errorf("nothing is published, and it says %v", err)
	}
	off()
	end := time.Now().UTC().AddDate(8, 0, 0).Format("2006-01")
	var cohort struct{ ID string }
	w.post(m.owner, "/v1/revisions/"+m.revision+"/cohorts", map[string]any{"name": "second", "declaration": product.Declaration{FirstPlaced: product.Day(time.Now().UTC().AddDate(0, 0, -1).Format(time.DateOnly)), SupportEnd: product.Month(end),
		ExpectedUse: 60, Factors: map[string]string{"users": "what they expect"}, SecuritySupport: "updates over the air", UpdatePolicy: "by itself", DecidedBy: "Ann", ApprovedBy: "Ben"}}, &cohort)
	w.post(m.owner, "/v1/cohorts/"+cohort.ID+"/publish", map[string]any{}, nil)
	x, off = power(t, lampConfig)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); ; <-tick.C {
		if _, err := x.Support(); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	off()
	if s, err := agent.ReadSupport(lampConfig.Dir); err != nil || s.End != end || s.Product != "Lamp" || s.Maker != "Acme" || !strings.Contains(s.URL, "/p/"+m.product) {
		t.Errorf("%+v, %v", s, err)
	}
}
