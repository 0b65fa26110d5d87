// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"context"
	"net/url"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
)

// reported is the signal of a finder who saw it exploited and knows no product.
func (h house) reported(t *testing.T, ref string) (id string) {
	t.Helper()
	err := h.db.Write(t.Context(), func(tx *store.Tx) (err error) {
		id, err = h.Reported(tx, maker, Signal{Ref: ref, Title: "A finder saw it exploited", Exploited: "yes", Actor: "system"})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestAFinderNeedNotKnowTheProduct: the signal waits above everything else, starts no clock, and opens a case for each
// product that a person names.
func TestAFinderNeedNotKnowTheProduct(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		id := h.reported(t, "rpt_1")
		if again := h.reported(t, "rpt_1"); again != id {
			t.Errorf("the same report opened %s and %s", id, again)
		}
		second, err := h.cfg.Products.Create(t.Context(), product.Product{Tenant: maker, Name: "Gateway", Model: "g1"}, "per_ann")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.AddSignal(ann, Signal{Title: "of a person"}); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("a person's signal names no product: %v", err)
		}
		pages, _ := h.doors(t, ann)
		get := func(path string) string {
			t.Helper()
			code, body, _ := do(t, pages, "GET", path, "", "")
			if code != 200 {
				t.Fatalf("%s: %d\n%s", path, code, body)
			}
			return body
		}
		if body := get("/"); !strings.Contains(body, "Product not known yet") || strings.Index(body, "assess it now") > strings.Index(body, "</section>") {
			t.Errorf("it is not what Today says first:\n%s", body)
		}
		for range shown { // none of which anybody saw exploited
			if _, err := h.AddSignal(ann, Signal{Product: h.product, Title: "noise"}); err != nil {
				t.Fatal(err)
			}
		}
		if body := get("/"); !strings.Contains(body, "assess it now") {
			t.Error("newer signals hide the one that burns")
		}
		if body := get("/signals/" + id); !strings.Contains(body, "Which product is it about?") || !strings.Contains(body, `href="/disclosure/reports/rpt_1"`) {
			t.Error(body)
		}
		only := tenant.WithActor(context.Background(), tenant.Actor{ID: "per_pat", Kind: tenant.KindPerson, Tenant: maker,
			Grants: []tenant.Grant{{Role: tenant.ComplianceOfficer, Tenant: maker, Product: h.product}}})
		if _, err := h.Assess(only, id, ""); !problem.Is(err, problem.KindForbidden) {
			t.Errorf("who works for one product took a signal of none: %v", err)
		}
		as, err := h.Assess(ann, id, "")
		if err != nil {
			t.Fatal(err)
		}
		if body := get("/signals/" + id); !strings.Contains(body, "Products concerned; each gets a case of its own") {
			t.Error(body)
		}
		d := h.aware(true, false)
		if _, _, err := h.Decide(ann, as.ID, d); problem.Of(err).Fields[0].At != "products" {
			t.Errorf("a case of no product: %v", err)
		}
		if cs, err := h.Cases(ann, false, "", 10); err != nil || len(cs) != 0 {
			t.Errorf("%d cases run before a person declared anything, %v", len(cs), err)
		}
		d.Products = []string{h.product, second.ID}
		_, cases, err := h.Decide(ann, as.ID, d)
		if err != nil || len(cases) != 2 {
			t.Fatalf("%v, %v", cases, err)
		}
		if body := get("/"); strings.Contains(body, "assess it now") {
			t.Error("decided, and it still burns")
		}
	})
}

// TestASignalIsAttributedOnce: a person says which product it is about; a second answer does not change the first.
func TestASignalIsAttributedOnce(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		id := h.reported(t, "rpt_1")
		pages, programs := h.doors(t, ann)
		if _, err := h.AttributeSignal(ann, id, "prd_none"); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("a product that does not exist: %v", err)
		}
		if code, body, _ := do(t, pages, "POST", "/signals/"+id+"/product", "application/x-www-form-urlencoded", url.Values{"product": {h.product}}.Encode()); code != 303 {
			t.Fatalf("%d %s", code, body)
		}
		if sig, err := h.Signal(ann, id); err != nil || sig.Product != h.product {
			t.Errorf("%+v, %v", sig, err)
		}
		if code, body, _ := do(t, programs, "POST", "/v1/signals/"+id+"/product", "application/json", `{"product":"`+h.product+`"}`); code != 409 {
			t.Errorf("attributed twice: %d %s", code, body)
		}
		var leaves int
		if err := h.db.QueryRow(t.Context(), `SELECT count(*) FROM audit_entry WHERE kind = 'signal.attributed' AND subject = $1`, id).Scan(&leaves); err != nil || leaves != 1 {
			t.Errorf("%d leaves, %v", leaves, err)
		}
	})
}

// TestAReportClaimsNothingUnfounded: what only a cited standard gives stands in no declaration and in no field.
func TestAReportClaimsNothingUnfounded(t *testing.T) {
	h := openHouse(t, storetest.SQLiteURL(t), clock.NewHand(killStart), "")
	const claim = "The sensor enjoys a presumption of conformity."
	d := h.aware(true, false)
	d.Summary = claim
	if _, _, err := h.Decide(ann, h.assessed(t).ID, d); problem.Of(err).Rule != law.RuleClaim {
		t.Errorf("a declaration: %v", err)
	}
	id := h.declared(t)
	if _, err := h.Append(ann, id, FieldsFilled, Data{Fields: map[string]string{"general": claim}}); problem.Of(err).Rule != law.RuleClaim {
		t.Errorf("a field: %v", err)
	}
	if _, err := h.Append(ann, id, Described, Data{Title: "t", Summary: claim}); problem.Of(err).Rule != law.RuleClaim {
		t.Errorf("a summary: %v", err)
	}
}
