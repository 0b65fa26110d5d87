// SPDX-License-Identifier: AGPL-3.0-only

package enroll_test

import (
	"bytes"
	"fmt"
	"mime/multipart"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

// tile is the number under a label on Today; empty: there is no such tile.
func (v visitor) tile(label string) string {
	v.t.Helper()
	found := regexp.MustCompile(`(?s)<li class="tile[^>]*>(.*?)</li>`).FindAllStringSubmatch(v.sees("/", "At a glance"), -1)
	for _, one := range found {
		if strings.Contains(one[1], label) {
			return regexp.MustCompile(`<b>(.*?)</b>`).FindStringSubmatch(one[1])[1]
		}
	}
	return ""
}

// hands posts a file to a form.
func (v visitor) hands(path string, status int, file string, texts ...string) string {
	v.t.Helper()
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	part, err := m.CreateFormFile("file", "made.csv")
	if err == nil {
		_, err = part.Write([]byte(file))
	}
	if err == nil {
		err = m.Close()
	}
	if err != nil {
		v.t.Fatal(err)
	}
	r := httptest.NewRequest("POST", path, &b)
	r.Header.Set("Content-Type", m.FormDataContentType())
	w := httptest.NewRecorder()
	v.c.ServeHTTP(w, r)
	return v.wants(path, w, status, texts)
}

// A batch that was closed with a number takes the list behind it once, if it has as many units, and then names its surplus.
func TestTheListComesLater(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		batch, st, _ := h.demanding("B1", 10, nil)
		for i := range 4 {
			h.unit(st, fmt.Sprintf("L%d", i))
		}
		path := "/v1/batches/" + batch
		if code, out := h.call("POST", path+"/close", map[string]any{"produced": 3}); code != 200 || out["surplus"] != 1.0 || out["named"] != false {
			t.Fatalf("close: %d %v", code, out)
		}
		if code, out := h.call("GET", path+"/differences", nil); code != 404 {
			t.Errorf("a number names differences: %d %v", code, out)
		}
		for _, list := range []string{"serial\nL0\nL1\n", "serial\nL0\nL1\nL2\nL3\n"} {
			if code, _, body := h.rawCall("POST", path+"/produced", list); code != 403 || !strings.Contains(body, enroll.RuleReconcile) {
				t.Errorf("a list of another length: %d %s", code, body)
			}
		}
		if n := h.count(`SELECT count(*) FROM produced`) + h.count(`SELECT count(*) FROM audit_entry WHERE kind = 'batch.reconciled'`); n != 0 {
			t.Errorf("%d traces of what was refused", n)
		}
		alarms := func() int64 {
			return h.count(`SELECT count(*) FROM audit_entry WHERE kind = 'batch.surplus' AND subject = $1`, batch)
		}
		if n := alarms(); n != 1 {
			t.Fatalf("%d alarms at the close", n)
		}
		code, out, body := h.rawCall("POST", path+"/produced", "serial\nL0\nL1\nL9\n")
		if code != 200 || out["produced"] != 3.0 || out["surplus"] != 2.0 || out["at_large"] != 2.0 || out["named"] != true {
			t.Fatalf("the list: %d %s", code, body)
		}
		got := map[string]string{}
		for _, d := range h.items(path + "/differences") {
			got[d["serial"].(string)] = d["kind"].(string)
		}
		if fmt.Sprint(got) != "map[L2:surplus L3:surplus L9:missing]" {
			t.Errorf("differences: %v", got)
		}
		var actor, data string
		h.must(h.db.QueryRow(t.Context(), `SELECT actor, payload FROM audit_entry WHERE kind = 'batch.reconciled' AND subject = $1`, batch).Scan(&actor, &data))
		if actor != owner.ID || !strings.Contains(data, `"serials":2`) {
			t.Errorf("the leaf: %s %s", actor, data)
		}
		if n := alarms(); n != 2 { // the list shows more than the number did
			t.Errorf("%d alarms", n)
		}
		if code, _, body := h.rawCall("POST", path+"/produced", "serial\nL0\nL1\nL2\n"); code != 409 {
			t.Errorf("a second list: %d %s", code, body)
		}

		// As many too many as the number said: nothing new to be alarmed about.
		second, st, _ := h.demanding("B2", 10, nil)
		h.unit(st, "M0")
		h.unit(st, "M1")
		h.call("POST", "/v1/batches/"+second+"/close", map[string]any{"produced": 1})
		if code, out, body := h.rawCall("POST", "/v1/batches/"+second+"/produced", "serial\nM0\n"); code != 200 || out["surplus"] != 1.0 {
			t.Errorf("%d %s", code, body)
		}
		if n := h.count(`SELECT count(*) FROM audit_entry WHERE kind = 'batch.surplus' AND subject = $1`, second); n != 1 {
			t.Errorf("%d alarms for what was known", n)
		}
	})
}

// The counts on Today and under Enrol are of identities that open a door: what was ended, or revoked with its batch, is dealt
// with. A number does not say which identity is too many, so that ending any of them proves nothing.
func TestASurplusThatWasEndedIsNoneToLookAt(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		barred := func(device string) {
			t.Helper()
			h.must(h.db.Write(t.Context(), func(tx *store.Tx) error {
				return h.identity.SetState(tx, ten, device, identity.Decommissioned, "per_a", "a counterfeit")
			}))
		}
		largeOf := func(batch string) any {
			t.Helper()
			code, out := h.call("GET", "/v1/batches/"+batch, nil)
			if code != 200 {
				t.Fatal(out)
			}
			return out["at_large"]
		}
		v := h.visitor(t)
		over := func() string { return v.tile("Batches with surplus") }

		listed, st, _ := h.demanding("B1", 10, nil)
		var units []string
		for i := range 3 {
			_, k := h.unit(st, fmt.Sprintf("L%d", i))
			units = append(units, k.Device)
		}
		h.rawCall("POST", "/v1/batches/"+listed+"/produced", "serial\nL0\n")
		if n := largeOf(listed); n != 2.0 || over() != "1" {
			t.Fatalf("%v at large, %q on Today", n, over())
		}
		barred(units[0]) // a unit that was made: it changes nothing
		barred(units[1])
		h.must(h.identity.Suspend(t.Context(), ten, units[2], "per_a", "looked at")) // and may be resumed
		if n := largeOf(listed); n != 1.0 || over() != "1" {
			t.Errorf("%v at large, %q on Today", n, over())
		}
		barred(units[2])
		if n := largeOf(listed); n != 0.0 || over() != "" {
			t.Errorf("%v at large when each was ended, %q on Today", n, over())
		}

		counted, st, _ := h.demanding("B2", 10, nil)
		_, a := h.unit(st, "M0")
		_, b := h.unit(st, "M1")
		h.call("POST", "/v1/batches/"+counted+"/close", map[string]any{"produced": 1})
		barred(a.Device)
		if n := largeOf(counted); n != 1.0 || over() != "1" {
			t.Errorf("%v at large of a number, %q on Today", n, over())
		}
		barred(b.Device)
		if n := largeOf(counted); n != 0.0 || over() != "" {
			t.Errorf("%v at large when no identity is left, %q on Today", n, over())
		}

		revoked, st, _ := h.demanding("B3", 10, nil)
		h.unit(st, "N0")
		h.call("POST", "/v1/batches/"+revoked+"/close", map[string]any{"produced": 0})
		if over() != "1" {
			t.Fatal(over())
		}
		h.must(h.db.WriteFirst(t.Context(), func(tx *store.Tx) error {
			return h.identity.Bar(tx, ten, identity.ScopeBatch, revoked, "per_a", "leaked")
		}))
		if n := largeOf(revoked); n != 0.0 || over() != "" {
			t.Errorf("%v at large of a revoked batch, %q on Today", n, over())
		}
	})
}

// A station that can make nothing any more is not looked at on Today.
func TestAStationAtItsEndLeavesToday(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		v := h.visitor(t)
		suspicious := func() string { return v.tile("Line stations to look at") }
		greedy := func(name string) (batch, station string) {
			t.Helper()
			batch, st, station := h.demanding(name, 1, nil)
			h.unit(st, name+"-0")
			if code, _, body := h.line(st, wire.LineRequest{Serial: name + "-1", CSR: csrPEM(t, newKey(t))}); code != 403 {
				t.Fatalf("%d %s", code, body)
			}
			return batch, station
		}
		_, killed := greedy("B1")
		batch, _ := greedy("B2")
		greedy("B3")
		if n := suspicious(); n != "3" {
			t.Fatalf("%s stations", n)
		}
		h.call("POST", "/v1/stations/"+killed+"/kill", map[string]any{"reason": "greedy"})
		if n := suspicious(); n != "2" {
			t.Errorf("%s stations, one is killed", n)
		}
		h.must(h.db.WriteFirst(t.Context(), func(tx *store.Tx) error {
			return h.identity.Bar(tx, ten, identity.ScopeBatch, batch, "per_a", "leaked")
		}))
		if n := suspicious(); n != "1" {
			t.Errorf("%s stations, the batch of one is revoked", n)
		}
		h.clock.Advance(25 * time.Hour)
		if n := suspicious(); n != "" {
			t.Errorf("%q stations, all have expired", n)
		}
	})
}

// The page of a batch closes it with a file, or takes the file after the number, and says what became of the surplus.
func TestPagesTakeTheList(t *testing.T) {
	h := lite(t)
	v := h.visitor(t)
	batch, st, _ := h.demanding("B1", 10, nil)
	h.unit(st, "A1")
	_, copied := h.unit(st, "A2")
	page := "/enrol/batches/" + batch
	v.sees(page, "Close it", `enctype="multipart/form-data"`, "Close with the number")
	v.sends(page+"/close", 303, url.Values{"produced": {"1"}})
	v.sees(page, "1 identity has", "Hand in the list of what was made")
	v.hands(page+"/produced", 403, "serial\nA1\nA3\n", "closed with 1 units made, and the list names 2")
	v.hands(page+"/produced", 303, "serial\nA1\n", page)
	if again := v.sees(page, "1 identity has", "/devices/"+copied.Device, "critical"); strings.Contains(again, "Hand in the list") {
		t.Error("a second list is asked for")
	}
	v.sees("/enrol", "1 identity too many")
	h.must(h.db.Write(t.Context(), func(tx *store.Tx) error {
		return h.identity.SetState(tx, ten, copied.Device, identity.Decommissioned, "per_a", "a counterfeit")
	}))
	v.sees(page, "No door opens to it any more", "decommissioned")
	v.sees("/enrol", "1 identity too many, ended")

	other, _, _ := h.demanding("B2", 10, nil)
	v.hands("/enrol/batches/"+other+"/produced", 400, "A1\n", "heading serial")
	v.hands("/enrol/batches/"+other+"/produced", 303, "serial\n", "/enrol/batches/"+other)
	v.sees("/enrol/batches/"+other, "Every unit that was made has its identity")
}
