// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"crypto"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/enroll/station"
	"github.com/openthings-platform/openthings/wire"
)

// TestLineAlarmsAreTold: what goes wrong at a line reaches people, from the door to whoever listens, and a flood is one message.
func TestLineAlarmsAreTold(t *testing.T) {
	w := newWorldWith(t, func(c *Config) { c.PrivateHooks = true })
	m := w.newMaker("Lumen")
	heard := make(chan [3]string, 200)
	on := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var b struct {
			Type string
			Data struct{ Link, Severity string }
		}
		if err := json.NewDecoder(r.Body).Decode(&b); err != nil {
			t.Error(err)
		}
		heard <- [3]string{b.Type, strings.TrimPrefix(b.Data.Link, w.info.URL), b.Data.Severity}
	}))
	defer on.Close()
	w.post(m.owner, "/v1/notifications/endpoints", map[string]any{"name": "all", "kind": "webhook", "address": on.URL, "topics": []string{"*"}}, nil)
	batch := func(name string, more map[string]any) string {
		in := map[string]any{"revision": m.revision, "name": name, "size": 60}
		for k, v := range more {
			in[k] = v
		}
		var out struct{ ID string }
		w.post(m.owner, "/v1/batches", in, &out)
		return out.ID
	}
	want := map[[3]string]bool{}
	clients := map[string]*http.Client{}
	// ask has a station ask for a unit.
	ask := func(x *maker, signed bool, off time.Duration, serial string, want int) {
		t.Helper()
		key := newKey(t)
		var in any = wire.LineRequest{Serial: serial, CSR: string(csrPEM(t, key, serial)), Station: x.stationID, Time: time.Now().Add(off).UnixMilli()}
		if signed {
			s, err := wire.Sign(rand.Reader, x.station.PrivateKey.(crypto.Signer), in)
			if err != nil {
				t.Fatal(err)
			}
			in = s
		}
		b, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		if clients[x.stationID] == nil {
			clients[x.stationID] = w.client(&x.station)
		}
		if a, err := w.do(clients[x.stationID], "POST", w.info.Devices+"/d/1/line/devices", "", "application/json", b); err != nil || a.status != want {
			t.Fatalf("%s: %d %s %v", serial, a.status, a.body, err)
		}
	}
	opened := func(batch string, quota int) *maker {
		x, key := *m, newKey(t)
		var id struct{ ID, Certificate string }
		w.post(m.owner, "/v1/stations", map[string]any{"batch": batch, "name": "line", "quota": quota, "csr": string(csrPEM(t, key, "line"))}, &id)
		x.batch, x.stationID, x.station = batch, id.ID, pair(t, []byte(id.Certificate), key)
		return &x
	}

	// A clock that is off.
	ask(m, true, -time.Hour, "A-1", 403)
	want[[3]string{"station.clock", "/enrol/stations/" + m.stationID, "warning"}] = true
	// More than its quota, and more than was made.
	x := opened(batch("2", nil), 1)
	ask(x, false, 0, "B-1", 200)
	ask(x, false, 0, "B-2", 403)
	want[[3]string{"batch.surplus", "/enrol/stations/" + x.stationID, "error"}] = true
	w.post(m.owner, "/v1/batches/"+x.batch+"/close", map[string]any{"produced": 0}, nil)
	want[[3]string{"batch.surplus", "/enrol/batches/" + x.batch, "error"}] = true
	// Serial numbers of others, one after the other.
	thief := opened(batch("3", nil), 40)
	honest := opened(batch("4", nil), 40)
	for i := range 22 {
		serial := fmt.Sprint("C-", i)
		ask(honest, false, 0, serial, 200)
		ask(thief, false, 0, serial, 409)
	}
	want[[3]string{"clone.flood", "/enrol/stations/" + thief.stationID, "error"}] = true

	// Without a network: three units that nobody announced, and then a second journal.
	offline := func(batch string) (dir, id string) {
		dir = filepath.Join(t.TempDir(), "station")
		req, err := station.Prepare(dir, "hall 9", true, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		var o enroll.Opened
		w.post(m.owner, "/v1/stations", map[string]any{"batch": batch, "name": "hall 9", "quota": 5, "hours": 24, "csr": req.CSR, "offline": enroll.OfflineAsk{Authority: req.Authority}}, &o)
		roots, err := os.ReadFile(w.info.CA)
		if err == nil {
			err = station.Install(dir, station.Config{ID: o.ID, Name: o.Name, Batch: batch, Quota: 5, Expires: o.Expires, Devices: w.info.Devices}, o.Certificate, string(roots), o.Permit)
		}
		if err != nil {
			t.Fatal(err)
		}
		return dir, o.ID
	}
	at := func(dir string, serials ...string) error {
		s, err := station.Open(dir, clock.System)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for _, serial := range serials {
			if _, err := s.Make(wire.LineRequest{Serial: serial, CSR: string(csrPEM(t, newKey(t), serial))}); err != nil {
				t.Fatal(err)
			}
		}
		_, err = s.Sync(t.Context())
		return err
	}
	dir, id := offline(batch("5", map[string]any{"listed": true}))
	if err := at(dir, "D-1", "D-2", "D-3"); err != nil {
		t.Fatal(err)
	}
	want[[3]string{"unit.refused", "/enrol/stations/" + id, "warning"}] = true
	dir, id = offline(batch("6", nil))
	twin := filepath.Join(t.TempDir(), "twin")
	if err := os.CopyFS(twin, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(twin, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := at(dir, "E-1"); err != nil {
		t.Fatal(err)
	}
	if err := at(twin, "E-2"); err == nil {
		t.Fatal("the second journal was taken")
	}
	want[[3]string{"station.forked", "/enrol/stations/" + id, "critical"}] = true

	late := time.After(60 * time.Second)
	for len(want) > 0 {
		select {
		case got := <-heard:
			delete(want, got)
		case <-late:
			t.Fatalf("nobody heard of %v", want)
		}
	}
	for open := 1; open > 0; { // until everything that was announced is looked at
		if err := w.h.db.QueryRow(t.Context(), `SELECT count(*) FROM job WHERE kind = 'event:unit.refused:notify'`).Scan(&open); err != nil {
			t.Fatal(err)
		}
	}
	var refused, told int
	err := w.h.db.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM audit_entry WHERE kind = 'unit.refused'), (SELECT count(*) FROM notify_notice WHERE topic = 'unit.refused')`).Scan(&refused, &told)
	if err != nil || refused != 3 || told != 1 {
		t.Errorf("%d refused units were told in %d messages (%v)", refused, told, err)
	}
}
