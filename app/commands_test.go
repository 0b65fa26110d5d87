// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/wire"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// downlink is what a device heard.
type downlink struct{ topic, body string }

// listen opens a session of the unit that hears its commands and what is desired of it.
func (w *world) listen(u *unit) (*mqtt.Client, <-chan downlink) {
	w.t.Helper()
	heard := make(chan downlink, 100)
	c, err := w.mqttWith(u.ldevid, func(topic string, body []byte) { heard <- downlink{topic, string(body)} })
	if err != nil {
		w.t.Fatal(err)
	}
	if err := c.Subscribe(w.t.Context(), wire.Root+"cmd/#", wire.Root+"state/desired"); err != nil {
		w.t.Fatal(err)
	}
	return c, heard
}

// hears waits for a downlink on a topic.
func (w *world) hears(heard <-chan downlink, topic string) downlink {
	w.t.Helper()
	for limit := time.After(30 * time.Second); ; {
		select {
		case d := <-heard:
			if strings.Contains(d.topic, topic) {
				return d
			}
		case <-limit:
			w.t.Fatalf("nothing came on %s", topic)
		}
	}
}

// reads polls the API until it says what is wanted.
func (w *world) reads(token, path string, want func(body []byte) bool) {
	w.t.Helper()
	c := w.client(nil)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); ; <-tick.C {
		a, err := w.do(c, "GET", w.info.URL+path, token, "", nil)
		if err == nil && a.status == 200 && want(a.body) {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: %d %s %v", path, a.status, a.body, err)
		}
	}
}

// TestM16_AskedOnAnotherNode: a command, a desired state and a job that are asked for on one node reach a device that is
// connected to another, and what the device answers is read on the first; a device that comes back gets what waits.
func TestM16_AskedOnAnotherNode(t *testing.T) {
	on(t, func(t *testing.T, w, node *world) {
		m := w.newMaker("Acme")
		u := m.make()
		c, heard := node.listen(u)
		defer func() { c.Close() }()
		answer := func(d downlink) {
			t.Helper()
			id := strings.Split(strings.TrimPrefix(d.topic, wire.Root), "/")[1]
			if err := c.Publish(t.Context(), wire.Root+"cmd/"+id+"/res", []byte(`{"ok":true}`)); err != nil {
				t.Fatal(err)
			}
		}
		var asked struct{ ID string }
		w.post(m.owner, "/v1/devices/"+u.id+"/commands", map[string]any{"name": "identify"}, &asked)
		answer(w.hears(heard, "/identify"))
		w.reads(m.owner, "/v1/commands/"+asked.ID, func(b []byte) bool { return strings.Contains(string(b), `"state":"done"`) })

		a, err := w.do(w.client(nil), "PATCH", w.info.URL+"/v1/devices/"+u.id+"/twin", m.owner, "application/merge-patch+json", []byte(`{"light":{"level":40}}`))
		if err != nil || a.status != 200 {
			t.Fatalf("%d %s %v", a.status, a.body, err)
		}
		var delta wire.TwinDelta
		if d := w.hears(heard, "state/desired"); json.Unmarshal([]byte(d.body), &delta) != nil || string(delta.Full) != `{"light":{"level":40}}` {
			t.Errorf("it heard %s", d.body)
		}
		if err := c.Publish(t.Context(), wire.Root+"state/reported", []byte(`{"applied":1,"full":{"light":{"level":40}}}`)); err != nil {
			t.Fatal(err)
		}
		w.reads(m.owner, "/v1/devices/"+u.id+"/twin", func(b []byte) bool {
			return strings.Contains(string(b), `"applied_version":1`) && !strings.Contains(string(b), "behind_since")
		})

		var job struct{ ID string }
		w.post(m.owner, "/v1/jobs", map[string]any{"name": "reboot", "filter": "state:commissioned"}, &job)
		answer(w.hears(heard, "/reboot"))
		w.reads(m.owner, "/v1/jobs/"+job.ID, func(b []byte) bool { return strings.Contains(string(b), `"state":"completed"`) })

		// Away, and back: the job and the command have waited.
		c.Close()
		w.reads(m.owner, "/v1/devices/"+u.id, func(b []byte) bool { return strings.Contains(string(b), `"online":false`) })
		w.post(m.owner, "/v1/jobs", map[string]any{"name": "reboot"}, &job)
		w.post(m.owner, "/v1/devices/"+u.id+"/commands", map[string]any{"name": "identify"}, &asked)
		w.reads(m.owner, "/v1/jobs/"+job.ID, func(b []byte) bool { return strings.Contains(string(b), `"away":1`) })
		c, heard = node.listen(u)
		got := map[string]bool{}
		for len(got) < 2 {
			d := w.hears(heard, "cmd/")
			got[d.topic[strings.LastIndex(d.topic, "/")+1:]] = true
			answer(d)
		}
		if !got["reboot"] || !got["identify"] {
			t.Errorf("it got %v", got)
		}
		w.reads(m.owner, "/v1/jobs/"+job.ID, func(b []byte) bool { return strings.Contains(string(b), `"state":"completed"`) })
		w.reads(m.owner, "/v1/commands/"+asked.ID, func(b []byte) bool { return strings.Contains(string(b), `"state":"done"`) })
	})
}
