// SPDX-License-Identifier: AGPL-3.0-only

package enroll_test

import (
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
)

var imageA, imageB = "sha256:" + strings.Repeat("a", 64), "sha256:" + strings.Repeat("b", 64)

// hold stops the making of units; change narrows it.
func (h *house) hold(change func(*enroll.Hold)) (out enroll.Hold) {
	h.t.Helper()
	in := enroll.Hold{Tenant: ten, Product: h.product(), Cause: "CVE-2026-1", Reason: "it is exploited.", By: owner.ID}
	if change != nil {
		change(&in)
	}
	h.write(func(tx *store.Tx) (err error) {
		out, err = h.enroll.OpenHold(tx, in)
		return err
	})
	return out
}

func (h *house) lift(id string) {
	h.t.Helper()
	h.write(func(tx *store.Tx) error {
		_, err := h.enroll.LiftHold(tx, ten, id, owner.ID, "the factory flashes the fix")
		return err
	})
}

// held says whether a line was refused by a hold, with words that say why and who ends it.
func held(code int, body string, hold enroll.Hold) bool {
	return code == 403 && strings.Contains(body, `"rule":"`+enroll.RuleHold+`"`) && strings.Contains(body, hold.ID) && strings.Contains(body, "CVE-2026-1") && strings.Contains(body, "decide on a finding")
}

// TestHoldAtEveryDoor stops units at each way to a new identity, and lets them in by it once the hold was lifted.
func TestHoldAtEveryDoor(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		st, _ := h.station("B1", 20, 20)
		boxed, box := h.unit(st, "BOXED") // made before, not claimed
		waiting, _ := h.unit(st, "WAITING")
		claimed, c := h.unit(st, "CLAIMED")
		if code, m := h.claim(c.Claim); code != 201 {
			t.Fatal(code, m)
		}
		if code, _ := h.enrol(waiting, "simpleenroll", csrFor(t, newKey(t), nil)); code != 202 { // into the lobby
			t.Fatal(code)
		}
		_, text := h.token(2, nil)
		m := newMaker(h, "Maker")
		h.trust(m, nil)
		born := m.born("BORN")
		batch := h.newBatch("B2", 10)
		dir, _ := h.offline(batch, 4, wire.Serials{Prefix: "O", Digits: 2, From: 1, To: 20})
		h.makes(dir, "O01", newKey(t))

		hold := h.hold(nil)
		before := h.count(`SELECT count(*) FROM device`)
		order := wire.LineRequest{Serial: "NEW", CSR: csrPEM(t, newKey(t))}
		if code, _, body := h.line(st, order); !held(code, body, hold) {
			t.Errorf("station: %d %s", code, body)
		}
		ask := credential{key: newKey(t)}
		if r, body := h.exchangeToken("Bearer "+text, h.named(ask, "T-1")); r.StatusCode != 403 || !strings.Contains(body, "rule: "+enroll.RuleHold) {
			t.Errorf("token: %d %s", r.StatusCode, body)
		}
		if code, body := h.do(&born, "GET", "/.well-known/est/cacerts", "", ""); code == 200 {
			t.Errorf("first connect: %d %s", code, body)
		}
		if rep, err := h.sync(dir); err == nil || !strings.Contains(err.Error(), hold.ID) || rep.Brought != 0 {
			t.Errorf("journal of an offline station: %+v %v", rep, err)
		}
		if n := h.count(`SELECT count(*) FROM device`); n != before {
			t.Errorf("%d devices came in", n-before)
		}
		if code, out := h.claim(box.Claim); code != 403 || out["rule"] != enroll.RuleHold {
			t.Errorf("claim: %d %v", code, out)
		}
		approve := map[string]any{"devices": []string{h.device("WAITING").ID}, "solution": h.solution}
		if code, out := h.call("POST", "/v1/lobby/approve", approve); code != 403 || out["rule"] != enroll.RuleHold {
			t.Errorf("approval: %d %v", code, out)
		}
		// A unit that is out there already waits, and comes again by itself.
		first := csrFor(t, newKey(t), nil)
		if code, body := h.enrol(claimed, "simpleenroll", first); code != 202 || !strings.Contains(body, "rule: "+enroll.RuleHold) {
			t.Errorf("first enrolment: %d %s", code, body)
		}
		h.policy("default", map[string]any{"approval": "automatic", "solution": h.solution})
		if code, body := h.enrol(boxed, "simpleenroll", csrFor(t, newKey(t), nil)); code != 202 || !strings.Contains(body, "rule: "+enroll.RuleHold) || h.device("BOXED").State != identity.Provisioned {
			t.Errorf("automatic approval: %d %s, %s", code, body, h.device("BOXED").State)
		}
		h.policy("default", map[string]any{})

		h.lift(hold.ID)
		if code, _, body := h.line(st, order); code != 200 {
			t.Errorf("station: %d %s", code, body)
		}
		if r, body := h.exchangeToken("Bearer "+text, h.named(ask, "T-1")); r.StatusCode != 200 {
			t.Errorf("token: %d %s", r.StatusCode, body)
		}
		if code, body := h.do(&born, "GET", "/.well-known/est/cacerts", "", ""); code != 200 {
			t.Errorf("first connect: %d %s", code, body)
		}
		if rep, err := h.sync(dir); err != nil || rep.Brought != 1 || len(rep.Refused) > 0 {
			t.Errorf("journal of an offline station: %+v %v", rep, err)
		}
		if code, out := h.claim(box.Claim); code != 201 {
			t.Errorf("claim: %d %v", code, out)
		}
		if code, out, _ := h.sendJSON("POST", "/v1/lobby/approve", approve); code != 204 {
			t.Errorf("approval: %d %v", code, out)
		}
		if code, body := h.enrol(claimed, "simpleenroll", first); code != 200 {
			t.Errorf("first enrolment: %d %s", code, body)
		}
		for _, kind := range []string{"hold.opened", "hold.lifted"} {
			if n := h.count(`SELECT count(*) FROM audit_entry WHERE kind = $1`, kind); n != 1 {
				t.Errorf("%d leaves %s", n, kind)
			}
		}
	})
}

// TestHoldNeverStrandsTheField: whoever ever had a certificate of operation renews it, returns with the certificate of
// birth, and is claimed by the next owner, whatever is held.
func TestHoldNeverStrandsTheField(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		st, _ := h.station("B1", 20, 20)
		idevid, unit := h.unit(st, "FIELD")
		if code, m := h.claim(unit.Claim); code != 201 {
			t.Fatal(code, m)
		}
		ldevid := h.ldevid(idevid)
		h.hold(nil)
		csr, _ := h.renewal(ldevid)
		if code, body := h.enrol(ldevid, "simplereenroll", csr); code != 200 {
			t.Fatalf("renewal: %d %s", code, body)
		}
		h.clock.Advance(400 * 24 * time.Hour) // the certificate has ended long ago
		if code, body := h.enrol(idevid, "simpleenroll", csrFor(t, newKey(t), nil)); code != 200 {
			t.Errorf("return: %d %s", code, body)
		}
		h.write(func(tx *store.Tx) error {
			if err := h.identity.SetState(tx, ten, unit.Device, identity.Provisioned, owner.ID, "sold"); err != nil {
				return err
			}
			return h.identity.SetSolution(tx, ten, unit.Device, "")
		})
		again, _, err := h.enroll.NewClaim(t.Context(), ten, unit.Device, owner.ID)
		h.must(err)
		if code, m := h.claim(again); code != 201 {
			t.Fatalf("the next owner claims: %d %v", code, m)
		}
		if code, body := h.enrol(idevid, "simpleenroll", csrFor(t, newKey(t), nil)); code != 200 {
			t.Errorf("the next owner: %d %s", code, body)
		}
	})
}

// TestHoldMatches holds what it names, and units that do not say what they run; nothing else.
func TestHoldMatches(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		st, station := h.station("B1", 20, 20)
		other, _ := h.station("B2", 20, 20)
		make := func(st credential, serial, firmware string) (int, string) {
			code, _, body := h.line(st, wire.LineRequest{Serial: serial, Firmware: firmware, CSR: csrPEM(t, newKey(t))})
			return code, body
		}
		n := 0
		check := func(what string, hold enroll.Hold, st credential, firmware string, refused bool) {
			t.Helper()
			n++
			code, body := make(st, name("M-%d", n), firmware)
			if refused && !held(code, body, hold) || !refused && code != 200 {
				t.Errorf("%s: %d %s", what, code, body)
			}
		}
		hold := h.hold(func(x *enroll.Hold) { x.Firmware = []string{imageA} })
		check("the image", hold, st, imageA, true)
		check("another image", hold, st, imageB, false)
		check("nobody told the image", hold, st, "", true)
		h.write(func(tx *store.Tx) error { return h.enroll.WidenHold(tx, hold, []string{imageA, imageB}, owner.ID) })
		check("an image that was added", hold, st, imageB, true)
		h.lift(hold.ID)
		check("after it was lifted", hold, st, imageA, false)

		all := h.hold(nil)
		h.write(func(tx *store.Tx) error { return h.enroll.WidenHold(tx, all, []string{imageA}, owner.ID) })
		check("a hold of everything is not narrowed by an image", all, st, imageB, true)
		h.lift(all.ID)

		batch := h.device("M-2").Batch
		hold = h.hold(func(x *enroll.Hold) { x.Batch = batch })
		check("the batch", hold, st, imageA, true)
		check("another batch", hold, other, imageA, false)
		h.lift(hold.ID)
		hold = h.hold(func(x *enroll.Hold) { x.Origin = station })
		check("the line", hold, st, "", true)
		check("another line", hold, other, "", false)
		h.lift(hold.ID)
		h.hold(func(x *enroll.Hold) { x.Product = "prd_other" })
		h.hold(func(x *enroll.Hold) { x.Tenant = "ten_b" })
		check("another product, another tenant", hold, st, "", false)

		list, err := h.enroll.Holds(t.Context(), ten, enroll.HoldFilter{Product: h.product(), Standing: true})
		if err != nil || len(list) != 0 {
			t.Errorf("standing: %+v %v", list, err)
		}
		list, err = h.enroll.Holds(t.Context(), ten, enroll.HoldFilter{Product: h.product()})
		if err != nil || len(list) != 4 || list[3].Why == "" || list[3].LiftedBy != owner.ID || len(list[3].Firmware) != 2 {
			t.Errorf("all: %+v %v", list, err)
		}
	})
}

// TestHoldIsExplained refuses holds and lifts without a reason, of nothing, of no image, and twice.
func TestHoldIsExplained(t *testing.T) {
	h := lite(t)
	for what, bad := range map[string]enroll.Hold{
		"no reason":  {Tenant: ten, Product: "prd_a", By: owner.ID},
		"no product": {Tenant: ten, Reason: "x", By: owner.ID},
		"no digest":  {Tenant: ten, Product: "prd_a", Reason: "x", Firmware: []string{"1.0.0"}, By: owner.ID},
	} {
		err := h.db.Write(t.Context(), func(tx *store.Tx) error {
			_, err := h.enroll.OpenHold(tx, bad)
			return err
		})
		if !problem.Is(err, problem.KindInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	hold := h.hold(nil)
	lift := func(tenant, id, why string) error {
		return h.db.Write(t.Context(), func(tx *store.Tx) error {
			_, err := h.enroll.LiftHold(tx, tenant, id, owner.ID, why)
			return err
		})
	}
	if err := lift(ten, hold.ID, " "); !problem.Is(err, problem.KindInvalid) {
		t.Errorf("without a reason: %v", err)
	}
	if err := lift("ten_b", hold.ID, "ours"); !problem.Is(err, problem.KindNotFound) {
		t.Errorf("of another tenant: %v", err)
	}
	h.lift(hold.ID)
	if err := lift(ten, hold.ID, "again"); !problem.Is(err, problem.KindConflict) {
		t.Errorf("twice: %v", err)
	}
}
