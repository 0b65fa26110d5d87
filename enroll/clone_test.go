// SPDX-License-Identifier: AGPL-3.0-only

package enroll_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/wire"
)

// clones lists the open suspicions with their evidence.
func (h *house) clones() (out []enroll.Clone) {
	h.t.Helper()
	cs, err := h.enroll.Clones(context.Background(), ten, true, "", 100)
	h.must(err)
	for _, c := range cs {
		c, err := h.enroll.Clone(context.Background(), ten, c.ID)
		h.must(err)
		out = append(out, c)
	}
	return out
}

// wantClone expects one open suspicion about the devices, all of which are suspended, with evidence from the places.
func (h *house) wantClone(what string, devices []string, places ...string) enroll.Clone {
	h.t.Helper()
	cs := h.clones()
	if len(cs) != 1 || cs[0].What != what || strings.Join(cs[0].Devices, " ") != strings.Join(devices, " ") {
		h.t.Fatalf("suspicions: %+v, want %s of %v", cs, what, devices)
	}
	for _, id := range devices {
		d, err := h.identity.Get(context.Background(), ten, id)
		h.must(err)
		if d.State != identity.Suspended || d.Reason != "clone" {
			h.t.Errorf("%s is %s (%s)", d.Serial, d.State, d.Reason)
		}
	}
	for _, p := range places {
		seen := false
		for _, s := range cs[0].Sightings {
			seen = seen || s.Place == p
		}
		if !seen {
			h.t.Errorf("nothing was seen in %s: %+v", p, cs[0].Sightings)
		}
	}
	return cs[0]
}

// TestI10_AClonedIDevIDFromTwoPlacesIsDetected on every way: two units that ask in turns, one that works on after the
// other has renewed, and two that take each other's session.
func TestI10_AClonedIDevIDFromTwoPlacesIsDetected(t *testing.T) {
	const here, there = "127.0.0.1", "127.0.0.2"
	asks := func(h *house, from string, as credential, csr []byte) int {
		code, _ := h.from(from, &as, "POST", "/.well-known/est/simpleenroll", string(pemBlock("CERTIFICATE REQUEST", csr)))
		return code
	}
	each(t, func(t *testing.T, h *house) {
		ctx := context.Background()
		ca := newMaker(h, "Maker")
		h.trust(ca, nil)
		born := ca.born("X-1")
		mine, theirs := csrFor(t, newKey(t), nil), csrFor(t, newKey(t), nil)
		if asks(h, here, born, mine) != 200 {
			t.Fatal("the first request")
		}
		h.clock.Advance(time.Second)
		if asks(h, there, born, theirs) != 200 {
			t.Fatal("the second request")
		}
		h.clock.Advance(time.Second)
		if asks(h, here, born, mine) == 200 {
			t.Error("a third request in turns is answered")
		}
		id := h.device("X-1").ID
		c := h.wantClone(enroll.CloneIDevID, []string{id}, here, there)
		if code := asks(h, there, born, theirs); code == 200 {
			t.Errorf("the other one still enrols: %d", code)
		}
		// A person finds that it was the genuine one after all: it enrols anew.
		_, err := h.enroll.Decide(ctx, ten, c.ID, id, "the other one was taken from its shop", owner.ID)
		h.must(err)
		if got := h.device("X-1").State; got == identity.Suspended || len(h.clones()) != 0 {
			t.Errorf("after the decision it is %s", got)
		}

		// The second holder renews, the first one works on.
		x2 := ca.born("X-2")
		a := h.enrolled(&x2, "simpleenroll", newKey(t), nil)
		works := func(from string, c credential) int {
			code, _ := h.from(from, &c, "POST", "/d/1/messages", "[]")
			return code
		}
		if works(here, a) == 0 {
			t.Fatal("the first LDevID")
		}
		b := h.enrolled(&x2, "simpleenroll", newKey(t), nil)
		if works(there, b) == 0 {
			t.Fatal("the second LDevID")
		}
		works(here, a) // on its way: nothing
		if cs := h.clones(); len(cs) != 0 {
			t.Fatalf("a connection that was on its way is a clone: %+v", cs)
		}
		h.clock.Advance(10 * time.Minute)
		if code := works(here, a); code == 200 {
			t.Error("a replaced LDevID works")
		}
		h.wantClone(enroll.CloneLDevID, []string{h.device("X-2").ID}, here, there)
		if works(there, b) == 200 {
			t.Error("the second holder still works")
		}
	})
}

// A device that nobody has claimed gets nothing, and still two units that ask with its identity are found out.
func TestTwoHoldersOfARefusedIdentity(t *testing.T) {
	const here, there = "127.0.0.1", "127.0.0.2"
	each(t, func(t *testing.T, h *house) {
		st, _ := h.station("B1", 10, 10)
		born, r := h.unit(st, "L-1")
		mine, theirs := csrFor(t, newKey(t), nil), csrFor(t, newKey(t), nil)
		for i, ask := range []struct {
			from    string
			csr     []byte
			refused bool
		}{{here, mine, false}, {here, mine, false}, {there, theirs, false}, {here, mine, true}} {
			code, body := h.from(ask.from, &born, "POST", "/.well-known/est/simpleenroll", string(pemBlock("CERTIFICATE REQUEST", ask.csr)))
			if ask.refused == (code == 202) { // refused: the connection is cut, too
				t.Errorf("request %d: %d %s", i, code, body)
			}
			h.clock.Advance(time.Second)
		}
		h.wantClone(enroll.CloneIDevID, []string{r.Device}, here, there)
	})
}

// TestSessionsInTurns: two places that take one device's session from each other.
func TestSessionsInTurns(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		m := newMaker(h, "Maker")
		h.trust(m, nil)
		born := m.born("X-1")
		h.enrolled(&born, "simpleenroll", newKey(t), nil)
		id := h.device("X-1").ID
		peer := func(from string) gateway.Peer { return gateway.Peer{Tenant: ten, Device: id, From: from + ":4711"} }
		places := []string{"192.0.2.1", "198.51.100.1"}
		for i := range 6 {
			if len(h.clones()) > 0 {
				t.Fatalf("after %d takeovers", i)
			}
			h.clock.Advance(30 * time.Second)
			h.enroll.TakenOver(peer(places[i%2]), peer(places[(i+1)%2]))
		}
		h.enroll.Settled()
		h.wantClone(enroll.CloneSessions, []string{id}, "192.0.2.0/24", "198.51.100.0/24")
	})
}

// TestOneKeyOnTwoUnits and one serial number on two: at the line, by a trusted CA, by a token.
func TestOneKeyOnTwoUnits(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ctx := context.Background()
		st, _ := h.station("B1", 10, 10)
		one, r1 := h.unit(st, "L-1")
		if code, _, body := h.line(st, wire.LineRequest{Serial: "L-2", CSR: csrPEM(t, one.key)}); code != 409 || !strings.Contains(body, identity.RuleUsedKey) {
			t.Errorf("one key twice: %d %s", code, body)
		}
		c := h.wantClone(enroll.CloneKey, []string{r1.Device}, "B1")
		_, err := h.enroll.Decide(ctx, ten, c.ID, enroll.CloneNone, "both are copies", owner.ID)
		h.must(err)
		if got := h.device("L-1").State; got != identity.Decommissioned {
			t.Errorf("after the decision it is %s", got)
		}

		_, r3 := h.unit(st, "L-3")
		if code, _, body := h.line(st, wire.LineRequest{Serial: "L-3", CSR: csrPEM(t, newKey(t))}); code != 409 || !strings.Contains(body, identity.RuleUsedSerial) {
			t.Errorf("one serial number twice: %d %s", code, body)
		}
		c = h.wantClone(enroll.CloneSerial, []string{r3.Device}, "B1")
		_, err = h.enroll.Decide(ctx, ten, c.ID, enroll.CloneFalse, "a label was printed twice", owner.ID)
		h.must(err)
		if got := h.device("L-3").State; got != identity.Provisioned {
			t.Errorf("after the decision it is %s", got)
		}

		// The same serial number from a trusted CA is a second unit.
		m := newMaker(h, "Maker")
		h.trust(m, nil)
		d := m.born("L-3")
		if code, _ := h.do(&d, "GET", "/.well-known/est/cacerts", "", ""); code == 200 {
			t.Error("a second unit with the serial number comes in")
		}
		h.wantClone(enroll.CloneSerial, []string{r3.Device}, "127.0.0.1")

		// So it is in the journal of an offline line station, and so is a key.
		four, r4 := h.unit(st, "L-4")
		offline, _ := h.offline(h.newBatch("B2", 10), 5, wire.Serials{})
		h.makes(offline, "L-3", newKey(t))
		h.makes(offline, "L-5", four.key)
		rep, err := h.sync(offline)
		if err != nil || len(rep.Refused) != 2 || rep.Refused[0].Rule != identity.RuleUsedSerial || rep.Refused[1].Rule != identity.RuleUsedKey {
			t.Errorf("offline: %+v %v", rep, err)
		}
		var seen []enroll.Clone
		for _, c := range h.clones() {
			if slices.Contains(c.Devices, r4.Device) {
				seen = append(seen, c)
			}
		}
		if len(seen) != 1 || seen[0].What != enroll.CloneKey || h.device("L-4").State != identity.Suspended {
			t.Errorf("the key came twice: %+v, the device is %s", seen, h.device("L-4").State)
		}

		// A repeat of the same request is no clone, whatever the state.
		if n := len(h.clones()); n != 2 {
			t.Errorf("%d suspicions", n)
		}
	})
}
