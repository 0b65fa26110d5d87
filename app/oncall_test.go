// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

// TestADrillRings: a drill that is told to call goes the whole way to the telephone of whoever is on call, and says what it is.
func TestADrillRings(t *testing.T) {
	w := newWorldWith(t, func(c *Config) { c.PrivateHooks = true })
	m := w.newMaker("Lumen")
	m.make()
	ctx := tenant.WithActor(t.Context(), tenant.Actor{ID: "per_1", Kind: tenant.KindPerson, Tenant: m.tenant, Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: m.tenant}}})
	if _, err := w.h.respond.StartDrill(ctx, m.product, respond.AEV, "a log of a break-in", true); !problem.Is(err, problem.KindPrecondition) {
		t.Fatalf("nobody is on call: %v", err)
	}
	rang := make(chan string, 10)
	phone := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var b struct {
			Type string
			Data struct{ Title, Text string }
		}
		if err := json.NewDecoder(r.Body).Decode(&b); err != nil {
			t.Error(err)
		}
		rang <- b.Type + " | " + b.Data.Title + " | " + b.Data.Text
	}))
	defer phone.Close()
	var e struct{ ID string }
	w.post(m.owner, "/v1/notifications/endpoints", map[string]any{"name": "phone", "kind": "webhook", "address": phone.URL, "topics": []string{"oncall.call"}}, &e)
	rota := `{"zone":"UTC","start":"2026-11-23","hour":9,"days":7,"minutes":15,"people":[{"person":"per_1","name":"Ann","endpoints":["` + e.ID + `"]},{"person":"per_2","name":"Bob","endpoints":["` + e.ID + `"]}]}`
	if err := w.h.db.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO oncall_rota(tenant, data, updated, actor) VALUES ($1, $2, 0, 'per_1')`, m.tenant, rota)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	d, err := w.h.respond.StartDrill(ctx, m.product, respond.AEV, "a log of a break-in", true)
	if err != nil || d.Call == nil || len(d.Call.People) != 1 {
		t.Fatalf("%+v %v", d, err)
	}
	select {
	case got := <-rang:
		if !strings.HasPrefix(got, "oncall.drill | DRILL: a log of a break-in | DRILL: ") {
			t.Errorf("%q", got)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("no telephone rang")
	}
	if _, err := w.h.oncall.Answer(ctx, "cal_"+d.ID); err != nil {
		t.Fatal(err)
	}
	if d, err = w.h.respond.Drill(ctx, d.ID); err != nil || !d.Score.Answer.Reached() || d.Call.AnsweredBy != "per_1" {
		t.Errorf("%+v %v", d, err)
	}
	if d, err = w.h.respond.EndDrill(ctx, d.ID, "It rang."); err != nil || d.Call.End != "answered" {
		t.Errorf("%+v %v", d, err)
	}
}
