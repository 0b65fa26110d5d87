// SPDX-License-Identifier: AGPL-3.0-only

package conform

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/vuln"
)

// TestClassIsConfirmedByASecondPerson: a class is recorded by one and confirmed by another; a new version is open again.
func TestClassIsConfirmedByASecondPerson(t *testing.T) {
	each(t, func(h *house) {
		ctx := t.Context()
		c, err := h.Classify(ctx, "ten_a", h.product, "per_ann", Classification{Core: "Manages identities", Category: "cra.iii.1.1", Reason: "That is what it is for"})
		h.must(err)
		if c.Version != 1 || c.Class != law.ImportantI || c.Confirmed.Version != 0 {
			t.Fatalf("%+v", c)
		}
		_, err = h.Confirm(ctx, "ten_a", h.product, "per_ann", 1, "")
		h.want("by its author", rule(err), RuleSecond)
		if _, err = h.Confirm(ctx, "ten_a", h.product, "per_bob", 2, ""); err == nil {
			t.Error("a version that nobody recorded was confirmed")
		}
		c, err = h.Confirm(ctx, "ten_a", h.product, "per_bob", 1, "Agreed")
		h.must(err)
		if c.Confirmed.By != "per_bob" || c.Note != "Agreed" {
			t.Errorf("%+v", c)
		}
		_, err = h.Confirm(ctx, "ten_a", h.product, "per_eve", 1, "Me too") // nothing more happens
		h.must(err)
		c, err = h.Classify(ctx, "ten_a", h.product, "per_bob", Classification{Core: "Lights a street", Reason: "It lights", Integrates: []string{"cra.iii.1.11"}})
		h.must(err)
		if c.Version != 2 || c.Class != law.Default || c.Confirmed.Version != 0 {
			t.Errorf("the new version: %+v", c)
		}
		past, err := h.Classifications(ctx, "ten_a", h.product, 0, 10)
		h.must(err)
		if len(past) != 2 || past[1].Category != "cra.iii.1.1" || past[1].Confirmed.By != "per_bob" {
			t.Errorf("the past: %+v", past)
		}
		if other, err := h.Classified(ctx, "ten_b", h.product); err != nil || other.Version != 0 {
			t.Errorf("another tenant reads %+v %v", other, err)
		}
	})
}

// TestClassIWithoutACitedStandardTakesNoModuleA: it is refused with the reason; open source with public documents is not.
func TestClassIWithoutACitedStandardTakesNoModuleA(t *testing.T) {
	each(t, func(h *house) {
		ctx := t.Context()
		_, err := h.ChooseRoute(ctx, "ten_a", h.product, "per_bob", Choice{Module: ModuleA, Reason: "r"})
		if err == nil || !strings.Contains(err.Error(), "Classify") {
			t.Errorf("without a class: %v", err)
		}
		_, err = h.Classify(ctx, "ten_a", h.product, "per_ann", Classification{Core: "c", Category: "cra.iii.1.9", Reason: "r"})
		h.must(err)
		_, err = h.ChooseRoute(ctx, "ten_a", h.product, "per_bob", Choice{Module: ModuleA, Reason: "r", Claims: Claims{Standards: []string{"EN 40000-1-3:2026"}}})
		h.want("module A", rule(err), RuleModule)
		if !strings.Contains(fmt.Sprint(err), "EN 40000-1-3:2026 is not cited") {
			t.Errorf("the reason: %v", err)
		}
		r, err := h.ChooseRoute(ctx, "ten_a", h.product, "per_bob", Choice{Module: ModuleA, Reason: "r", Claims: Claims{OpenSource: true, PublicDocs: "https://lamp.example/cra"}})
		h.must(err)
		if !r.Stands || r.Version != 1 {
			t.Errorf("%+v", r)
		}
		// What is chosen does not follow a class that moves: it shows that it stands no longer.
		_, err = h.Classify(ctx, "ten_a", h.product, "per_ann", Classification{Core: "c", Category: "cra.iv.1", Reason: "r"})
		h.must(err)
		r, err = h.Route(ctx, "ten_a", h.product)
		h.must(err)
		if r.Stands || r.Module != ModuleA {
			t.Errorf("after the class moved: %+v", r)
		}
	})
}

// TestSealNeedsAllRows: nothing is sealed with an open row; a sealed version is never changed by what comes after.
func TestSealNeedsAllRows(t *testing.T) {
	each(t, func(h *house) {
		ctx := t.Context()
		_, err := h.Seal(ctx, "ten_a", h.product, "per_bob", "n")
		h.want("nothing", rule(err), RuleRows)
		h.whole()
		d, err := h.Draft(ctx, "ten_a", h.product)
		h.must(err)
		if d.Decided() != 22 || !d.Changed() {
			t.Errorf("%d decided, changed %v", d.Decided(), d.Changed())
		}
		a := h.seal("First look")
		if a.Version != 1 || len(a.Rows) != 22 || a.Context.Years != 12 {
			t.Errorf("%+v", a)
		}
		_, err = h.Decide(ctx, "ten_a", h.product, "cra.i.1.2.l", "per_ann", Decision{Applies: "no", Why: "It has no users"})
		h.must(err)
		before, err := h.Assessment(ctx, "ten_a", h.product, 1)
		h.must(err)
		one, two := asJSON(t, a), asJSON(t, before)
		h.want("the sealed version", two, one)
		h.seal("Second look")
		newest, err := h.Assessment(ctx, "ten_a", h.product, 0)
		h.must(err)
		if newest.Version != 2 || newest.Note != "Second look" {
			t.Errorf("%+v", newest.Stamp)
		}
		list, err := h.Assessments(ctx, "ten_a", h.product, 0, 10)
		h.must(err)
		if len(list) != 2 || asJSON(t, list[1]) != one {
			t.Errorf("%d versions", len(list))
		}
		// Each leaf of the log holds the document whole.
		var leaves int
		h.must(h.db.QueryRow(ctx, `SELECT count(*) FROM audit_entry WHERE kind = 'conform.assessment-sealed' AND subject = $1`, h.product).Scan(&leaves))
		if leaves != 2 {
			t.Errorf("%d leaves", leaves)
		}
	})
}

// TestSealWithAnOpenRow: 21 of 22 is not sealed.
func TestSealWithAnOpenRow(t *testing.T) {
	each(t, func(h *house) {
		h.whole()
		h.must(h.db.Write(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(`DELETE FROM conform_record WHERE kind = 'risk-row' AND key = 'cra.i.2.8'`)
			return err
		}))
		_, err := h.Seal(t.Context(), "ten_a", h.product, "per_bob", "n")
		h.want("21 of 22", rule(err), RuleRows)
		if !strings.Contains(fmt.Sprint(err), "21 of 22") || !strings.Contains(fmt.Sprint(err), "Part II(8)") {
			t.Errorf("the reason: %v", err)
		}
	})
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// due are the causes for which the assessment is to be reviewed.
func (h *house) dues() string {
	h.Helper()
	d, err := h.Draft(h.Context(), "ten_a", h.product)
	h.must(err)
	var out []string
	for _, x := range d.Due {
		out = append(out, x.Cause)
	}
	return strings.Join(out, " ")
}

// TestReviewIsDue: an exploited vulnerability, a case and a component that no release had before ask for a review, once
// each; the next sealed version answers them.
func TestReviewIsDue(t *testing.T) {
	each(t, func(h *house) {
		exploited := vuln.Exploited{Group: "CVE-2026-1", ID: "vul_1", Product: h.product, Version: "1.0"}
		h.emit("vuln.exploited", "vul_1", exploited)
		h.want("before anything was sealed", h.dues(), "")
		h.whole()
		h.release(1, "a.example/net@v1.0.0")
		h.seal("First")
		h.emit("vuln.exploited", "vul_1", exploited)
		h.emit("vuln.exploited", "vul_1", exploited)
		h.emit("case.opened", "cas_1", map[string]any{"product": h.product, "kind": "si", "ref": ""})
		h.emit("case.opened", "cas_2", map[string]any{"product": "prd_other", "kind": "si"})
		h.release(2, "a.example/net@v1.1.0")
		h.want("a newer version of a component is none", h.dues(), "vulnerability:CVE-2026-1 case:cas_1")
		h.release(3, "a.example/net@v1.1.0", "b.example/radio@v0.1.0")
		h.want("a new component", h.dues(), "vulnerability:CVE-2026-1 case:cas_1 release:rel_03")
		a := h.seal("Looked at all three")
		h.want("sealed", h.dues(), "")
		if len(a.Reviewed) != 3 {
			t.Errorf("reviewed: %+v", a.Reviewed)
		}
		h.emit("vuln.exploited", "vul_1", exploited)
		h.want("the same again", h.dues(), "")
	})
}

// TestSubstantialModificationWaits: yes holds the release back until an assessment is sealed afterwards; no answer is a
// warning, unless the tenant demands one; the first release of a product modifies nothing.
func TestSubstantialModificationWaits(t *testing.T) {
	each(t, func(h *house) {
		ctx := t.Context()
		publish := func(id string) string {
			_, err := h.update.Publish(ctx, "ten_a", id, "per_bob")
			return rule(err)
		}
		sign := func(id string, s Screen) {
			t.Helper()
			_, err := h.Sign(ctx, "ten_a", h.product, id, "per_bob", s)
			h.must(err)
		}
		h.must(h.Set(ctx, "ten_a", "per_bob", Settings{Screen: true, Months: 12}))
		h.whole()
		h.seal("First")
		one := h.release(1)
		h.want("the first", publish(one), "<nil>")
		two := h.release(2)
		h.want("nobody answered", publish(two), RuleUnscreened)
		sign(two, Screen{Answers: answers("purpose"), Reason: "It films now", Substantial: true})
		h.want("a substantial modification", publish(two), RuleModification)
		h.want("asks for a review", h.dues(), "modification:rel_02")
		x, err := h.Screened(ctx, "ten_a", h.product, two)
		h.must(err)
		if !x.Blocks() || !x.Placed || x.Assessed {
			t.Errorf("%+v", x)
		}
		h.seal("With the camera")
		h.want("after a new assessment", publish(two), "<nil>")
		three := h.release(3)
		sign(three, Screen{Answers: answers("purpose"), Reason: "It listens now", Substantial: true})
		h.want("the assessment of another does not count", publish(three), RuleModification)
		sign(three, Screen{Answers: answers(), Reason: "The microphone was taken out again"})
		h.want("corrected by a new version", publish(three), "<nil>")
		h.must(h.Set(ctx, "ten_a", "per_bob", Settings{Months: 12}))
		h.want("not demanded", publish(h.release(4)), "<nil>")
	})
}

// TestRegister: one line for all versions, the review belongs to the name, and what ends before the product is a finding.
func TestRegister(t *testing.T) {
	each(t, func(h *house) {
		ctx := t.Context()
		h.release(1, "a.example/net@v1.0.0", "c.example/old@v1.0.0")
		h.release(2, "a.example/net@v1.2.0", "b.example/radio@v0.1.0")
		list, err := h.Register(ctx, "ten_a", h.product, "", 10)
		h.must(err)
		if len(list) != 2 || list[0].Name != "pkg:golang/a.example/net" || list[0].Version != "v1.2.0" || list[0].State != "never" || list[0].Licence != "MIT" || list[0].Supplier != "Makers of a.example/net" {
			t.Fatalf("%+v", list)
		}
		if _, err := h.Review(ctx, "ten_a", "pkg:golang/unheard", "per_ann", Component{Note: "n"}); err == nil {
			t.Error("a component that no bill names was reviewed")
		}
		if _, err := h.Review(ctx, "ten_b", list[0].Name, "per_ann", Component{Note: "n"}); err == nil {
			t.Error("another tenant reviewed it")
		}
		end := day0.AddDate(2, 0, 0)
		e, err := h.Review(ctx, "ten_a", list[0].Name, "per_ann", Component{SupportEnd: end, Contact: "security@a.example", Note: "Releases monthly"})
		h.must(err)
		if e.State != "current" || e.Contact != "security@a.example" || e.Supplier != "Makers of a.example/net" || e.Review.By != "per_ann" {
			t.Errorf("%+v", e)
		}
		found, err := h.Endings(ctx, "ten_a", h.product)
		h.must(err)
		if len(found) != 1 || found[0].Component != list[0].Name || !found[0].Ends.Equal(end) || found[0].ProductEnd.Before(day0.AddDate(6, 0, -1)) {
			t.Errorf("findings: %+v", found)
		}
		// The review holds for the next version, and grows old.
		h.release(3, "a.example/net@v2.0.0")
		list, err = h.Register(ctx, "ten_a", "", "", 10)
		h.must(err)
		if len(list) != 1 || list[0].State != "current" || list[0].Version != "v2.0.0" {
			t.Errorf("after an update: %+v", list)
		}
		h.hand.Advance(366 * 24 * time.Hour)
		for _, want := range []string{"due", "ended"} {
			e, err := h.Entry(ctx, "ten_a", "pkg:golang/a.example/net")
			h.must(err)
			h.want("after a year", e.State, want)
			h.hand.Advance(365 * 24 * time.Hour)
		}
		// A bill that is read anew replaces what the release named.
		h.bill("rel_03", "d.example/else@v1.0.0")
		list, err = h.Register(ctx, "ten_a", h.product, "", 10)
		h.must(err)
		if len(list) != 1 || list[0].Title != "d.example/else" {
			t.Errorf("after another bill: %+v", list)
		}
	})
}

// TestReadiness: each item is there once it is recorded, and not before.
func TestReadiness(t *testing.T) {
	each(t, func(h *house) {
		ctx := t.Context()
		done := func() (out string) {
			items, err := h.Readiness(ctx, "ten_a", h.product)
			h.must(err)
			for _, i := range items {
				out += map[bool]string{true: "x", false: "."}[i.Done]
			}
			return out
		}
		h.want("nothing", done(), ".....")
		_, err := h.Classify(ctx, "ten_a", h.product, "per_ann", Classification{Core: "c", Reason: "r"})
		h.must(err)
		h.want("one person", done(), ".....")
		_, err = h.Confirm(ctx, "ten_a", h.product, "per_bob", 1, "")
		h.must(err)
		_, err = h.ChooseRoute(ctx, "ten_a", h.product, "per_bob", Choice{Module: ModuleA, Reason: "r"})
		h.must(err)
		h.whole()
		h.seal("n")
		h.want("class, route, risks", done(), "xxx..")
		one := h.release(1, "a.example/net@v1.0.0")
		h.want("a bill", done(), "xxx.x")
		_, err = h.Review(ctx, "ten_a", "pkg:golang/a.example/net", "per_ann", Component{Note: "n"})
		h.must(err)
		h.want("reviewed", done(), "xxxxx")
		_, err = h.update.Publish(ctx, "ten_a", one, "per_bob")
		h.must(err)
		two := h.release(2, "a.example/net@v1.0.0")
		h.want("a second release", done(), "xxxxx.")
		_, err = h.Sign(ctx, "ten_a", h.product, two, "per_bob", Screen{Answers: answers(), Reason: "A fix"})
		h.must(err)
		h.want("signed", done(), "xxxxxx")
		r, err := h.cfg.Products.Readiness(ctx, "ten_a", h.product)
		h.must(err)
		if r.Done < 6 || len(r.Checks) != r.Of {
			t.Errorf("the product's own list: %d of %d in %d", r.Done, r.Of, len(r.Checks))
		}
	})
}

// TestStaleLawIsToldOnce: past 90 days each tenant is told once, however often the platform looks.
func TestStaleLawIsToldOnce(t *testing.T) {
	each(t, func(h *house) {
		told := map[string]int{}
		var mu sync.Mutex // guards told: jobs run beside each other
		h.db.On(TopicStale, "test", func(_ context.Context, e store.Event) error {
			mu.Lock()
			defer mu.Unlock()
			var x Stale
			told[e.Tenant]++
			if err := e.Decode(&x); err != nil || x.Rules == 0 || x.Oldest == "" {
				t.Errorf("%+v %v", x, err)
			}
			return nil
		})
		look := func() {
			h.must(h.db.Write(t.Context(), func(tx *store.Tx) error { return h.db.Enqueue(tx, jobLaw, "all", h.now(), nil) }))
			h.run()
			h.run()
		}
		look()
		if len(told) != 0 {
			t.Errorf("told at once: %v", told)
		}
		h.hand.Advance(120 * 24 * time.Hour)
		look()
		h.hand.Advance(24 * time.Hour)
		look()
		if len(told) != 2 || told["ten_a"] != 1 || told["ten_b"] != 1 {
			t.Errorf("told %v", told)
		}
	})
}

// TestTwoAtOnce: two people who record at the same moment both get a version of their own, or one is told.
func TestTwoAtOnce(t *testing.T) {
	each(t, func(h *house) {
		errs := make(chan error, 8)
		for i := range cap(errs) {
			go func() {
				_, err := h.Classify(t.Context(), "ten_a", h.product, fmt.Sprintf("per_%d", i), Classification{Core: "c", Reason: "r"})
				errs <- err
			}()
		}
		recorded := 0
		for range cap(errs) {
			if err := <-errs; err == nil {
				recorded++
			} else if !strings.Contains(err.Error(), "same moment") {
				t.Error(err)
			}
		}
		past, err := h.Classifications(t.Context(), "ten_a", h.product, 0, 100)
		h.must(err)
		if recorded == 0 || len(past) != recorded {
			t.Errorf("%d were told that it is recorded, %d versions are", recorded, len(past))
		}
	})
}
