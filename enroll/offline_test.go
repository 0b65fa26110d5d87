// SPDX-License-Identifier: AGPL-3.0-only

package enroll_test

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/enroll/station"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/wire"
)

// offline opens a station that works without a network, in a folder of its own.
func (h *house) offline(batch string, quota int64, serials wire.Serials) (dir, id string) {
	h.t.Helper()
	dir = filepath.Join(h.t.TempDir(), "station")
	ask, err := station.Prepare(dir, "hall 9", true, h.clock.Now())
	h.must(err)
	code, s := h.call("POST", "/v1/stations", map[string]any{"batch": batch, "name": "hall 9", "quota": quota, "hours": 48, "csr": ask.CSR,
		"offline": enroll.OfflineAsk{Authority: ask.Authority, Serials: serials}})
	if code != 201 {
		h.t.Fatalf("offline station: %d %v", code, s)
	}
	h.must(station.Install(dir, station.Config{ID: s["id"].(string), Name: "hall 9", Batch: batch, Quota: quota, Devices: h.door},
		s["certificate"].(string), string(h.identity.Roots()), s["permit"].(string)))
	return dir, s["id"].(string)
}

// at opens a station's folder for a moment.
func (h *house) at(dir string, do func(*station.Station)) {
	h.t.Helper()
	s, err := station.Open(dir, h.clock)
	h.must(err)
	defer s.Close()
	do(s)
}

func (h *house) makes(dir, serial string, key *ecdsa.PrivateKey) (credential, wire.LineResponse) {
	h.t.Helper()
	var out wire.LineResponse
	h.at(dir, func(s *station.Station) {
		var err error
		out, err = s.Make(wire.LineRequest{Serial: serial, CSR: csrPEM(h.t, key), Order: "4711"})
		h.must(err)
	})
	return h.credential(key, out.Certificate), out
}

func (h *house) sync(dir string) (rep station.Report, err error) {
	h.t.Helper()
	h.at(dir, func(s *station.Station) { rep, err = s.Sync(h.t.Context()) })
	return rep, err
}

func (h *house) newBatch(name string, size int64) string {
	h.t.Helper()
	code, b := h.call("POST", "/v1/batches", map[string]any{"revision": h.revision, "name": name, "size": size})
	if code != 201 {
		h.t.Fatalf("batch: %d %v", code, b)
	}
	return b["id"].(string)
}

func TestOfflineStation(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		batch := h.newBatch("B1", 10)
		dir, id := h.offline(batch, 4, wire.Serials{Prefix: "L", Digits: 2, From: 1, To: 20})
		if code, s := h.call("POST", "/v1/stations", map[string]any{"batch": batch, "name": "x", "quota": 7, "csr": csrPEM(t, newKey(t))}); code != 201 {
			t.Fatal(s) // its quota may be more than is left; the batch bounds it
		}
		units := map[string]credential{}
		devices := map[string]string{}
		var claim string
		for i := range 3 {
			serial := fmt.Sprintf("L%02d", i+1)
			c, out := h.makes(dir, serial, newKey(t))
			units[serial], devices[serial], claim = c, out.Device, out.Claim
		}
		// Until it was brought nothing is trusted, and no claim code is known.
		if code, body := h.enrol(units["L01"], "simpleenroll", csrFor(t, newKey(t), nil)); code == 200 || code == 202 {
			t.Fatalf("a unit that nobody has heard of: %d %s", code, body)
		}
		if code, m := h.claim(claim); code != 404 {
			t.Errorf("claimed too early: %d %v", code, m)
		}
		for round, want := range []int{3, 0} { // the second time the answer was lost
			rep, err := h.sync(dir)
			if err != nil || rep.Brought != want || rep.Entries != 3 || len(rep.Refused) > 0 {
				t.Fatalf("round %d: %+v %v", round, rep, err)
			}
		}
		// The whole journal again, byte by byte, changes nothing.
		before := h.count(`SELECT count(*) FROM audit_entry`)
		if st, err := h.enroll.Sync(t.Context(), ten, id, h.journal(dir)); err != nil || st.Seq != 3 {
			t.Errorf("brought again: %+v %v", st, err)
		}
		if n := h.count(`SELECT count(*) FROM audit_entry`); n != before {
			t.Errorf("bringing it again left %d entries in the log", n-before)
		}
		_, b := h.call("GET", "/v1/batches/"+batch, nil)
		if b["issued"] != 3.0 || b["reserved"] != 1.0 || b["units"] != 3.0 {
			t.Errorf("batch: %v", b)
		}
		if code, m := h.claim(claim); code != 201 {
			t.Fatalf("claim: %d %v", code, m)
		}
		if code, body := h.enrol(units["L03"], "simpleenroll", csrFor(t, newKey(t), nil)); code != 200 {
			t.Errorf("enrol: %d %s", code, body)
		}
		_, m := h.call("GET", "/v1/devices/"+devices["L02"]+"/manufacture", nil)
		if making := m["making"].(map[string]any); making["order"] != "4711" || making["offline"] != true || m["station_certificate"] == nil {
			t.Errorf("manufacture: %v", m)
		}
		_, _, manifest := h.rawCall("GET", "/v1/batches/"+batch+"/manifest", "")
		if m, err := enroll.VerifyManifest(strings.NewReader(manifest), h.logKey); err != nil || m.Count != 3 {
			t.Errorf("manifest: %+v %v", m, err)
		}
		// A label that was lost: the unit has another code, and the platform learns of it.
		_, again := h.makes(dir, "L01", units["L01"].key)
		if rep, err := h.sync(dir); err != nil || rep.Brought != 1 {
			t.Fatalf("%+v %v", rep, err)
		}
		if code, m := h.claim(again.Claim); code != 201 {
			t.Errorf("the newest code: %d %v", code, m)
		}
	})
}

// journal is what lies in a station's folder.
func (h *house) journal(dir string) (j wire.Journal) {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "journal.log"))
	h.must(err)
	for line := range bytes.Lines(b) {
		var s wire.Signed
		h.must(json.Unmarshal(line, &s))
		j.Entries = append(j.Entries, s)
	}
	return j
}

// A unit that cannot be taken is refused by name, and keeps its place in the journal; the others are taken.
func TestOfflineUnitsRefusedOneByOne(t *testing.T) {
	h := lite(t)
	batch := h.newBatch("B1", 10)
	dir, id := h.offline(batch, 5, wire.Serials{})
	_, online, _ := h.demanding("B2", 5, nil)
	h.unit(online, "TAKEN")
	twin := newKey(t)
	h.makes(dir, "GOOD1", newKey(t))
	h.makes(dir, "TAKEN", newKey(t))
	h.makes(dir, "TWIN", twin)
	if code, _, body := h.line(online, wire.LineRequest{Serial: "ELSE", CSR: csrPEM(t, twin)}); code != 200 {
		t.Fatal(body)
	}
	h.makes(dir, "GOOD2", newKey(t))
	rep, err := h.sync(dir)
	if err != nil || rep.Brought != 4 || len(rep.Refused) != 2 || rep.Refused[0].Serial != "TAKEN" || rep.Refused[1].Serial != "TWIN" {
		t.Fatalf("%+v %v", rep, err)
	}
	if got := h.items("/v1/stations/" + id + "/refusals"); len(got) != 2 || got[0]["serial"] != "TAKEN" {
		t.Errorf("refusals: %v", got)
	}
	_, b := h.call("GET", "/v1/batches/"+batch, nil)
	if b["issued"] != 2.0 || b["reserved"] != 3.0 {
		t.Errorf("batch: %v", b)
	}
	if n := h.count(`SELECT count(*) FROM audit_entry WHERE kind = 'unit.refused'`); n != 2 {
		t.Errorf("%d refusals in the log", n)
	}
}

// Two copies of one station: the platform notices whichever comes second, takes nothing of it and raises the alarm.
func TestOfflineFork(t *testing.T) {
	h := lite(t)
	batch := h.newBatch("B1", 10)
	dir, id := h.offline(batch, 5, wire.Serials{})
	h.makes(dir, "A", newKey(t))
	copied := filepath.Join(t.TempDir(), "copy")
	h.must(os.CopyFS(copied, os.DirFS(dir)))
	h.must(os.Chmod(copied, 0o700))
	h.makes(dir, "B", newKey(t))
	h.makes(copied, "C", newKey(t))
	if rep, err := h.sync(dir); err != nil || rep.Brought != 2 {
		t.Fatalf("%+v %v", rep, err)
	}
	if _, err := h.sync(copied); problem.Of(err).Rule != enroll.RuleFork {
		t.Fatalf("the copy: %v", err)
	}
	if _, s := h.call("GET", "/v1/stations/"+id, nil); s["forked"] != true {
		t.Errorf("station: %v", s)
	}
	if n := h.count(`SELECT count(*) FROM audit_entry WHERE kind = 'station.forked'`); n != 1 {
		t.Errorf("%d alarms", n)
	}
	if n := h.count(`SELECT count(*) FROM device WHERE serial = 'C'`); n != 0 {
		t.Error("a unit of the copy was taken")
	}
	if code, k := h.call("POST", "/v1/stations/"+id+"/kill", map[string]any{"reason": "copied"}); code != 200 || k["made"] != 2.0 {
		t.Errorf("kill: %d %v", code, k)
	}
	if _, b := h.call("GET", "/v1/batches/"+batch, nil); b["reserved"] != 0.0 {
		t.Errorf("a killed station still holds units of the batch: %v", b)
	}
	if _, err := h.sync(dir); err == nil {
		t.Error("a killed station was heard")
	}
}

// Nothing goes beyond the permit, whatever a changed station writes into its journal.
func TestOfflineBeyondThePermit(t *testing.T) {
	h := lite(t)
	ctx := t.Context()
	batch := h.newBatch("B1", 3)
	dir, id := h.offline(batch, 2, wire.Serials{List: []string{"A", "B", "C"}})
	for _, serial := range []string{"A", "B"} {
		h.makes(dir, serial, newKey(t))
	}
	j := h.journal(dir)
	// A hole, an entry of a stranger, and an entry that was changed.
	for name, c := range map[string]struct {
		j    wire.Journal
		rule string
	}{
		"a hole":     {wire.Journal{Entries: j.Entries[1:]}, enroll.RuleGap},
		"no entries": {wire.Journal{}, ""},
		"a stranger": {wire.Journal{Entries: []wire.Signed{{Payload: j.Entries[0].Payload, Signature: []byte("x")}}}, enroll.RuleSignature},
		"too many":   {wire.Journal{Entries: slices.Repeat(j.Entries, 300)}, ""},
	} {
		st, err := h.enroll.Sync(ctx, ten, id, c.j)
		if got := ruleOf(err); got != c.rule || st.Seq != 0 || name == "too many" && !problem.Is(err, problem.KindTooLarge) {
			t.Errorf("%s: %+v %v", name, st, err)
		}
	}
	// Promised units are not given to others.
	_, online, _ := h.demandingIn(batch)
	h.unit(online, "X")
	if code, _, body := h.line(online, wire.LineRequest{Serial: "Y", CSR: csrPEM(t, newKey(t))}); code != 403 || rule(body) != enroll.RuleQuota {
		t.Errorf("a unit that was promised: %d %s", code, body)
	}
	// After the grace nothing is believed any more.
	h.clock.Advance(48*time.Hour + enroll.SyncGrace - time.Hour)
	if st, err := h.enroll.Sync(ctx, ten, id, wire.Journal{Entries: j.Entries[:1]}); err != nil || st.Seq != 1 || len(st.Refused) > 0 {
		t.Errorf("within the grace: %+v %v", st, err)
	}
	h.clock.Advance(2 * time.Hour)
	if st, err := h.enroll.Sync(ctx, ten, id, wire.Journal{Entries: j.Entries[1:]}); err != nil || len(st.Refused) != 1 || st.Refused[0].Rule != enroll.RulePermit {
		t.Errorf("after the grace: %+v %v", st, err)
	}
}

func ruleOf(err error) string {
	if err == nil {
		return ""
	}
	return problem.Of(err).Rule
}

// demandingIn opens a station in a batch.
func (h *house) demandingIn(batch string) (string, credential, string) {
	h.t.Helper()
	key := newKey(h.t)
	code, s := h.call("POST", "/v1/stations", map[string]any{"batch": batch, "name": "on", "csr": csrPEM(h.t, key)})
	if code != 201 {
		h.t.Fatalf("station: %d %v", code, s)
	}
	return batch, h.credential(key, s["certificate"].(string)), s["id"].(string)
}

// An authority that is not the station's own, or not one, gets no permit.
func TestOfflineAuthority(t *testing.T) {
	h := lite(t)
	batch := h.newBatch("B1", 10)
	_, st, _ := h.demanding("B2", 1, nil)
	cred, _ := h.unit(st, "A")
	leaf := string(h.pem(cred))
	for name, authority := range map[string]string{"none": "", "a leaf": leaf, "the platform's": string(h.identity.Roots())} {
		code, out := h.call("POST", "/v1/stations", map[string]any{"batch": batch, "name": "x", "csr": csrPEM(t, newKey(t)), "offline": map[string]any{"authority": authority}})
		if name == "the platform's" && code == 201 { // it is self-signed; whoever names it cannot sign with it
			continue
		}
		if code != 400 {
			t.Errorf("%s: %d %v", name, code, out)
		}
	}
	if code, out := h.call("POST", "/v1/stations", map[string]any{"batch": batch, "name": "x", "csr": csrPEM(t, newKey(t)), "quota": 11, "offline": map[string]any{"authority": leaf}}); code == 201 {
		t.Errorf("more than the batch: %d %v", code, out)
	}
}

func (h *house) pem(c credential) []byte { return pemBytes(c.cert.Certificate[0]) }
