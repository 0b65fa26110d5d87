// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
)

// world is the stage behind its doors, with real devices of a product in two solutions.
type world struct {
	rig
	tenants *tenant.Service
	api     *api.API
	console *console.Console
	product string
	homes   []string          // two solutions
	devices []identity.Device // two in the first, one in the second
}

func newWorld(t *testing.T) *world {
	clk := clock.NewHand(t0)
	at := func(c *store.Config) { c.Clock = clk }
	platform := storetest.Open(t, storetest.SQLiteURL(t), []store.Migrations{seal.Schema, api.Schema, audit.Schema, tenant.Schema, product.Schema, identity.Schema, fleet.Schema, CatalogueSchema}, at)
	records := storetest.Open(t, storetest.SQLiteURL(t), []store.Migrations{seal.Schema, Schema}, at)
	keys, err := seal.Open(filepath.Join(t.TempDir(), "keys"), clk)
	check(t, err)
	issuer, err := embedded.Open(embedded.Config{Dir: filepath.Join(t.TempDir(), "ca"), Keys: keys, Name: "Test", Clock: clk})
	check(t, err)
	log := slog.New(slog.DiscardHandler)
	w := &world{}
	w.tenants, err = tenant.New(tenant.Config{DB: platform, Clock: clk, Log: log, Origins: []string{"https://localhost"}})
	check(t, err)
	ids, err := identity.New(identity.Config{DB: platform, Issuer: issuer, Clock: clk})
	check(t, err)
	products := product.New(product.Config{DB: platform, Clock: clk})
	things := fleet.New(fleet.Config{DB: platform, Identity: ids, Product: products, Tenant: w.tenants, Clock: clk, Log: log, Keys: keys})
	w.rig = rig{New(Config{DB: records, Platform: platform, Keys: keys, Identity: ids, Product: products, Tenants: w.tenants, Select: things.Select, Clock: clk}), t, clk}
	p, err := products.Create(t.Context(), product.Product{Tenant: "ten", Name: "Fridge", Model: "fridge"}, "per_x")
	check(t, err)
	w.product = p.ID
	check(t, platform.Write(t.Context(), func(tx *store.Tx) error {
		w.homes, w.devices = nil, nil
		for _, name := range []string{"Shop", "Bakery"} {
			sol, err := w.tenants.CreateSolution(tx, "ten", "", name, name, "per_x")
			if err != nil {
				return err
			}
			w.homes = append(w.homes, sol.ID)
		}
		for i, home := range []int{0, 0, 1} {
			d, err := ids.Register(tx, identity.Device{Tenant: "ten", Product: w.product, Serial: fmt.Sprintf("SN-%d", i), Solution: w.homes[home]}, "per_x")
			if err != nil {
				return err
			}
			w.devices = append(w.devices, d)
		}
		return nil
	}))
	authenticate := func(r *http.Request) (context.Context, error) {
		if r.Header.Get("Authorization") != "" {
			return w.tenants.Authenticate(r)
		}
		who := tenant.Actor{ID: "per_" + r.Header.Get("X-Test-Actor"), Kind: tenant.KindPerson, Tenant: "ten"}
		switch r.Header.Get("X-Test-Actor") {
		case "owner":
			who.Grants = []tenant.Grant{{Role: tenant.Owner, Tenant: "ten"}}
		case "shop":
			who.Grants = []tenant.Grant{{Role: tenant.Customer, Tenant: "ten", Solution: w.homes[0]}}
		case "stranger":
			who.Tenant, who.Grants = "ten2", []tenant.Grant{{Role: tenant.Owner, Tenant: "ten2"}}
		}
		return tenant.WithActor(r.Context(), who), nil
	}
	w.api = api.New(api.Config{Title: "Test", DB: platform, Clock: clk, Log: log, Authenticate: authenticate, Holds: tenant.Holds, Caller: tenant.Caller})
	w.Routes(w.api)
	w.console = console.New(console.Config{Clock: clk, Log: log, SignIn: "/signin", Authenticate: authenticate, Holds: tenant.Holds, Menu: []string{"Data"}})
	w.Pages(w.console)
	return w
}

// acting is a context in which somebody asks.
func (w *world) acting(who string) context.Context {
	return tenant.WithActor(w.t.Context(), tenant.Actor{ID: "per_" + who, Kind: tenant.KindPerson, Tenant: "ten", Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: "ten"}}})
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// as asks the API as somebody: an actor of the test, or a token.
func (w *world) as(who, method, path, body string) (int, string) {
	w.t.Helper()
	r := httptest.NewRequest(method, path, bytes.NewReader([]byte(body)))
	r.Header.Set("Content-Type", "application/json")
	if strings.HasPrefix(who, "ot_") {
		r.Header.Set("Authorization", "Bearer "+who)
	} else {
		r.Header.Set("X-Test-Actor", who)
	}
	rec := httptest.NewRecorder()
	w.api.ServeHTTP(rec, r)
	return rec.Code, rec.Body.String()
}

// ask is as for what must be answered.
func (w *world) ask(who, method, path, body string, into any) {
	w.t.Helper()
	code, text := w.as(who, method, path, body)
	if code >= 300 {
		w.t.Fatalf("%s %s as %s: %d %s", method, path, who, code, text)
	}
	if into != nil {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			w.t.Fatalf("%s: %v in %s", path, err, text)
		}
	}
}

// measured makes each device say two temperatures.
func (w *world) measured() {
	w.t.Helper()
	var records []gateway.Record
	for i, d := range w.devices {
		for seq := 1; seq <= 2; seq++ {
			records = append(records, message(d.ID, t0.Add(time.Duration(seq)*time.Minute), seq, float64(10*i+seq)))
		}
	}
	w.append(records...)
	w.compactAll()
	w.clk.Advance(time.Hour)
}

func TestExport(t *testing.T) {
	w := newWorld(t)
	w.ask("owner", "PUT", "/v1/products/"+w.product+"/catalogue", `{"fields":[{"stream":"env","name":"temp","unit":"Cel","purpose":"keeps food"}]}`, nil)
	w.measured()
	w.append(message(w.devices[0].ID, t0.Add(30*time.Second), 3, 0.5)) // late, and still in the inbox
	line := func(i int, at time.Duration, v string) string {
		return fmt.Sprintf("%s,%s,%s,env,temp,%s,Cel\n", w.devices[i].ID, w.devices[i].Serial, t0.Add(at).Format(timeText), v)
	}
	head := "device,serial,time,stream,field,value,unit\n"
	first := line(0, 30*time.Second, "0.5") + line(0, time.Minute, "1") + line(0, 2*time.Minute, "2")
	second, third := line(1, time.Minute, "11")+line(1, 2*time.Minute, "12"), line(2, time.Minute, "21")+line(2, 2*time.Minute, "22")
	for _, c := range []struct{ who, query, want string }{
		{"owner", "", head + first + second + third},
		{"owner", "device=" + w.devices[1].ID, head + second},
		{"owner", "filter=" + url.QueryEscape("solution:"+w.homes[1]), head + third},
		{"owner", "from=2026-11-21T12:02:00Z&filter=" + url.QueryEscape("serial:SN-1"), head + line(1, 2*time.Minute, "12")},
		{"owner", "to=2026-11-21T12:01:00Z", head + line(0, 30*time.Second, "0.5")},
		{"owner", "fields=hum", head},
		{"shop", "", head + first + second}, // the user of one solution
		{"stranger", "", head},
		{"owner", "format=jsonl&device=" + w.devices[1].ID, fmt.Sprintf(`{"device":%q,"serial":"SN-1","time":"2026-11-21T12:01:00Z","stream":"env","field":"temp","value":11,"unit":"Cel"}`+"\n"+
			`{"device":%q,"serial":"SN-1","time":"2026-11-21T12:02:00Z","stream":"env","field":"temp","value":12,"unit":"Cel"}`+"\n", w.devices[1].ID, w.devices[1].ID)},
	} {
		code, got := w.as(c.who, "GET", "/v1/telemetry/export?"+c.query, "")
		if d := cmp.Diff(c.want, got); code != 200 || d != "" {
			t.Errorf("%s as %s: %d (-want +got):\n%s", c.query, c.who, code, d)
		}
	}
	for query, want := range map[string]int{"format=xml": 400, "from=yesterday": 400, "device=dev_none": 404, "filter=(": 400, "device=" + w.devices[0].ID + "&filter=a": 400,
		"from=2026-11-22&to=2026-11-21": 400} {
		if code, got := w.as("owner", "GET", "/v1/telemetry/export?"+query, ""); code != want {
			t.Errorf("%s: %d %s, want %d", query, code, got, want)
		}
	}
	if code, got := w.as("shop", "GET", "/v1/telemetry/export?device="+w.devices[2].ID, ""); code != 403 || strings.Contains(got, ",22,") {
		t.Errorf("the device of another solution: %d %s", code, got)
	}
}

// A long export is read in stretches that fit into memory, and holds each measurement once.
func TestExportInStretches(t *testing.T) {
	w := newWorld(t)
	var want []string
	for part := range 4 {
		var records []gateway.Record
		for i := range 300 {
			seq := part*300 + i + 1
			at := t0.Add(time.Duration(seq) * time.Hour).Add(-60 * 24 * time.Hour)
			records = append(records, message(w.devices[0].ID, at, seq, float64(seq)))
			want = append(want, fmt.Sprint(seq))
		}
		w.append(records...)
	}
	w.compactAll()
	d := w.devices[0]
	from, stretches := t0.Add(-100*24*time.Hour), 0
	for to := t0; from.Before(to); stretches++ {
		end, err := w.stretch(t.Context(), d, from, to)
		check(t, err)
		from = end
	}
	if stretches != 1 {
		t.Errorf("%d stretches for 1,200 points", stretches)
	}
	_, got := w.as("owner", "GET", "/v1/telemetry/export?to=2027-01-01&device="+d.ID, "")
	var have []string
	for _, l := range strings.Split(strings.TrimSpace(got), "\n")[1:] {
		have = append(have, strings.Split(l, ",")[5])
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Data Act, articles 4 and 5: the user reads the data of the own devices with what is needed to understand them, goes on
// reading as they come, and lets a third party do the same and nothing else.
func TestDataAct(t *testing.T) {
	w := newWorld(t)
	w.ask("owner", "PUT", "/v1/products/"+w.product+"/catalogue", `{"fields":[{"stream":"env","name":"temp","unit":"Cel","purpose":"keeps food","retention_days":30}]}`, nil)
	w.measured()
	d := w.devices[0]

	var about Description
	w.ask("shop", "GET", "/v1/devices/"+d.ID+"/data/description", "", &about)
	if len(about.Fields) != 1 || about.Fields[0].Purpose != "keeps food" || about.Fields[0].Unit != "Cel" || about.Fields[0].Days != 30 || *about.Fields[0].Latest != 2 || about.Values != 2 {
		t.Errorf("the description: %+v", about)
	}
	var page Feed
	w.ask("shop", "GET", "/v1/devices/"+d.ID+"/data", "", &page)
	if len(page.Items) != 2 || page.More || page.Items[1].Value != 2 || page.Items[0].Unit != "Cel" {
		t.Errorf("the first page: %+v", page)
	}
	next := page.Next
	w.ask("shop", "GET", "/v1/devices/"+d.ID+"/data?cursor="+next, "", &page)
	if len(page.Items) != 0 || page.Next != next {
		t.Errorf("nothing new, and: %+v", page)
	}
	w.append(message(d.ID, t0.Add(-time.Hour), 3, -5)) // late
	w.compactAll()
	w.ask("shop", "GET", "/v1/devices/"+d.ID+"/data?cursor="+next, "", &page)
	if len(page.Items) != 1 || page.Items[0].Value != -5 {
		t.Errorf("the late one: %+v", page)
	}

	expires := t0.Add(30 * 24 * time.Hour).Format(time.RFC3339)
	body := func(solution string, not bool) string {
		return fmt.Sprintf(`{"solution":%q,"recipient":"Repair Ltd","purpose":"repair","expires":%q,"not_gatekeeper":%v}`, solution, expires, not)
	}
	if code, got := w.as("shop", "POST", "/v1/data/shares", body(w.homes[0], false)); code != 403 || !strings.Contains(got, RuleGatekeeper) {
		t.Errorf("a gatekeeper: %d %s", code, got)
	}
	if code, got := w.as("shop", "POST", "/v1/data/shares", body(w.homes[1], true)); code != 403 {
		t.Errorf("another's solution: %d %s", code, got)
	}
	var share NewShare
	w.ask("shop", "POST", "/v1/data/shares", body(w.homes[0], true), &share)
	var devices api.Page[DataDevice]
	w.ask(share.Token, "GET", "/v1/data/devices", "", &devices)
	if len(devices.Items) != 2 || devices.Items[0].ID != d.ID {
		t.Errorf("the third party's devices: %+v", devices)
	}
	w.ask(share.Token, "GET", "/v1/devices/"+d.ID+"/data", "", &page)
	if len(page.Items) != 3 {
		t.Errorf("the third party reads %+v", page)
	}
	w.ask(share.Token, "GET", "/v1/telemetry/export?format=jsonl&device="+d.ID, "", nil)
	for _, op := range w.api.Operations() { // nothing else, whatever it asks
		if op.Public || tenant.DataRecipient.Has(tenant.Verb(op.Verb)) {
			continue
		}
		if code, got := w.as(share.Token, op.Method, strings.NewReplacer("{id}", d.ID).Replace(op.Path), "{}"); code != 403 {
			t.Errorf("%s as a third party: %d %s", op.ID, code, got)
		}
	}
	if code, got := w.as(share.Token, "GET", "/v1/devices/"+w.devices[2].ID+"/data", ""); code != 403 {
		t.Errorf("the third party at another solution: %d %s", code, got)
	}
	var list api.Page[Share]
	w.ask("shop", "GET", "/v1/data/shares", "", &list)
	if len(list.Items) != 1 || list.Items[0].Recipient != "Repair Ltd" || !list.Items[0].Ended.IsZero() {
		t.Errorf("shares: %+v", list)
	}
	w.ask("shop", "POST", "/v1/data/shares/"+share.ID+"/end", "", nil)
	if code, got := w.as(share.Token, "GET", "/v1/devices/"+d.ID+"/data", ""); code != 401 {
		t.Errorf("after the end: %d %s", code, got)
	}
	kinds := []string{}
	entries, err := w.cfg.Platform.Query(t.Context(), `SELECT kind FROM audit_entry WHERE subject = $1 ORDER BY id`, w.homes[0])
	check(t, err)
	defer entries.Close()
	for entries.Next() {
		var k string
		check(t, entries.Scan(&k))
		kinds = append(kinds, k)
	}
	if !slices.Contains(kinds, "data.shared") || !slices.Contains(kinds, "data.share-ended") {
		t.Errorf("leaves: %v", kinds)
	}
}
