// SPDX-License-Identifier: AGPL-3.0-only

package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
)

// house is the stage behind both doors, with real earlier stages; who asks is a header that only tests have.
type house struct {
	*Service
	t     testing.TB
	pages http.Handler
	api   http.Handler
	prod  product.Product
	ids   []string
}

var people = map[string][]tenant.Grant{
	"owner":    {{Role: tenant.Owner, Tenant: "ten"}},
	"customer": {{Role: tenant.Customer, Tenant: "ten", Solution: "sol_1"}},
	"nobody":   nil,
}

// newHouse is a house on SQLite with 60 devices.
func newHouse(t *testing.T) *house {
	h := openHouse(t, storetest.SQLiteURL(t))
	h.furnish()
	return h
}

// houses runs fn once per engine in an empty house.
func houses(t *testing.T, fn func(h *house)) {
	storetest.EachURL(t, func(t *testing.T, url string) { fn(openHouse(t, url)) })
}

func openHouse(t testing.TB, url string, more ...func(*store.Config)) *house {
	clk := clock.NewHand(t0)
	db := storetest.Open(t, url, []store.Migrations{audit.Schema, tenant.Schema, product.Schema, identity.Schema, Schema},
		append(more, func(c *store.Config) { c.Clock = clk })...)
	keys, err := seal.Open(filepath.Join(t.TempDir(), "keys"), clk)
	must(t, err)
	issuer, err := embedded.Open(embedded.Config{Dir: filepath.Join(t.TempDir(), "ca"), Keys: keys, Name: "Test", Clock: clk})
	must(t, err)
	ids, err := identity.New(identity.Config{DB: db, Issuer: issuer, Clock: clk})
	must(t, err)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	tenants, err := tenant.New(tenant.Config{DB: db, Clock: clk, Log: log, Origins: []string{"https://localhost"}})
	must(t, err)
	products := product.New(product.Config{DB: db, Clock: clk})
	h := &house{t: t, Service: New(Config{DB: db, Identity: ids, Product: products, Tenant: tenants, Clock: clk,
		ReleaseName: func(_ context.Context, _, id string) string { return "v" + strings.TrimPrefix(id, "rel_") },
		Name: func(_ context.Context, id string) string {
			return map[string]string{"bat_7": "Lot 7", "sta_3": "Test bench 2"}[id]
		},
		Batches: func(context.Context, string) (map[string]string, error) {
			return map[string]string{"bat_1": "Lot 1", "bat_2": "Spring", "bat_7": "Lot 7"}, nil
		},
		Stations: func(context.Context, string) (map[string]string, error) {
			return map[string]string{"sta_1": "Bench 1", "sta_2": "bench 2", "sta_3": "Test bench 2"}, nil
		}})}
	authenticate := func(r *http.Request) (context.Context, error) {
		name := r.Header.Get("X-Test-Actor")
		return tenant.WithActor(r.Context(), tenant.Actor{ID: "per_" + name, Kind: tenant.KindPerson, Tenant: "ten", Grants: people[name]}), nil
	}
	c := console.New(console.Config{Clock: clk, Log: log, Menu: []string{"Fleet"}, SignIn: "/signin", Authenticate: authenticate, Holds: tenant.Holds,
		Visitor: func(context.Context) string { return "Ada" }})
	h.Pages(c)
	h.pages = c
	a := api.New(api.Config{Title: "Test", DB: db, Clock: clk, Log: log, Authenticate: authenticate, Holds: tenant.Holds, Caller: func(context.Context) string { return "test" }})
	h.Routes(a)
	h.api = a
	return h
}

// furnish makes 60 devices of a product, of which three serve in sol_1 and run rel_1, and one is online.
func (h *house) furnish() {
	t, ids := h.t, h.cfg.Identity
	var err error
	h.prod, err = h.cfg.Product.Create(t.Context(), product.Product{Tenant: "ten", Name: "Lamp <1>", Model: "lamp"}, "per_x")
	must(t, err)
	must(t, h.cfg.DB.Write(t.Context(), func(tx *store.Tx) error {
		h.ids = nil
		for i := range 60 {
			d, err := ids.Register(tx, identity.Device{Tenant: "ten", Product: h.prod.ID, Revision: "rev_none", Serial: fmt.Sprintf("SN-%03d", i)}, "per_x")
			if err != nil {
				return err
			}
			h.ids = append(h.ids, d.ID)
			if i < 3 {
				if err := ids.SetSolution(tx, "ten", d.ID, "sol_1"); err != nil {
					return err
				}
				if err := h.Installed(tx, "ten", h.prod.ID, d.ID, "rel_1", t0); err != nil {
					return err
				}
			}
		}
		return nil
	}))
	h.Online(gateway.Peer{Tenant: "ten", Device: h.ids[0]})
}

// put writes devices as they are known, past the rules of their life, with the groups that the filters name.
func (h *house) put(tx *store.Tx, fleet []known) error {
	for _, ten := range []string{"ten", "other"} {
		for _, p := range [][]string{{"prd_a", "Street lamp", "lamp"}, {"prd_b", "Meter", "mtr"}} {
			id := p[0]
			if ten == "other" {
				id = "o" + id
			}
			if _, err := tx.Exec(`INSERT INTO product(id, tenant, name, model, created) VALUES ($1, $2, $3, $4, 1)`, id, ten, p[1], p[2]); err != nil {
				return err
			}
		}
		for _, so := range []string{"sol_1", "sol_2"} {
			if ten == "other" {
				so = "o" + so
			}
			if _, err := tx.Exec(`INSERT INTO solution(id, tenant, name, owner, at) VALUES ($1, $2, $1, '', 1)`, so, ten); err != nil {
				return err
			}
		}
		for _, g := range []Group{{ID: "grp_p", Name: "pilot"}, {ID: "grp_a", Name: "away", Filter: "state:commissioned -online:yes"}, {ID: "grp_b", Name: "both", Filter: "group:pilot or group:away"}} {
			g.Tenant = ten
			if ten == "other" {
				g.ID = "o" + g.ID
			}
			if err := insertGroup(tx, g); err != nil {
				return err
			}
		}
		for _, r := range []string{"rel_1", "rel_2"} {
			if err := addDelta(tx, delta{tenant: ten, to: r, at: t0.UnixMilli()}); err != nil {
				return err
			}
		}
	}
	for _, d := range fleet {
		if _, err := tx.Exec(`INSERT INTO device(id, tenant, product, revision, batch, serial, solution, state, reason, resume, firmware, grade, created, updated, origin, made_order, made_line, made_part)
			VALUES ($1, $2, $3, '', $4, $5, $6, $7, '', '', '', $8, $9, $9, $10, $11, $12, $13)`, d.ID, d.Tenant, d.Product, d.Batch, d.Tenant[:1]+d.Serial, d.Solution, d.State, d.Grade, store.Millis(d.Created),
			d.Origin, identity.FoldMade(d.order), identity.FoldMade(d.row), identity.FoldMade(d.part)); err != nil {
			return err
		}
		if _, err := tx.Exec(`UPDATE device SET serial = $1 WHERE id = $2 AND tenant = 'ten'`, d.Serial, d.ID); err != nil {
			return err
		}
		if d.release != "" {
			if err := insertInstall(tx, d.Tenant, d.Product, d.ID, "rel_"+d.release[1:], 1); err != nil {
				return err
			}
		}
		if !d.seen.IsZero() {
			if err := putPresence(tx, "node", d.ID, presence{tenant: d.Tenant, here: d.online, since: d.seen, seen: d.seen}); err != nil {
				return err
			}
		}
		l := Labelling{Set: map[string]string{}}
		for name, v := range map[string]string{"site": d.site, "line": d.line} {
			if v != "" {
				l.Set[name] = v
			}
		}
		if err := putLabels(tx, d.Tenant, d.ID, l, nil); err != nil {
			return err
		}
		if d.static {
			g := Group{ID: "grp_p", Tenant: d.Tenant}
			if d.Tenant == "other" {
				g.ID = "ogrp_p"
			}
			if _, err := setMember(tx, g, d.ID, false); err != nil {
				return err
			}
		}
	}
	return nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (h *house) get(door http.Handler, who, path string) (int, string) {
	h.t.Helper()
	r := httptest.NewRequest("GET", path, nil)
	r.Header.Set("X-Test-Actor", who)
	w := httptest.NewRecorder()
	door.ServeHTTP(w, r)
	b, err := io.ReadAll(w.Result().Body)
	must(h.t, err)
	return w.Code, string(b)
}

func TestFleetPage(t *testing.T) {
	h := newHouse(t)
	code, page := h.get(h.pages, "owner", "/fleet")
	for _, want := range []string{`id="fleet-online"`, "Lamp &lt;1&gt;", ">60<", "manufactured"} {
		if !strings.Contains(page, want) {
			t.Errorf("/fleet (%d) lacks %q", code, want)
		}
	}
	order := slices.Sorted(slices.Values(h.ids))
	_, second := h.get(h.pages, "owner", "/fleet?after="+order[pageRows-1])
	for i, id := range order {
		if on := strings.Contains(page, "/devices/"+id); on != (i < pageRows) {
			t.Errorf("device %d stands on the first page: %v", i, on)
		}
		if on := strings.Contains(second, "/devices/"+id); on != (i >= pageRows) {
			t.Errorf("device %d stands on the second page: %v", i, on)
		}
	}
	if !strings.Contains(page, "after="+order[pageRows-1]) || strings.Contains(second, `rel="next"`) || !strings.Contains(second, "First page") {
		t.Error("the pages do not lead to each other")
	}
	if _, page := h.get(h.pages, "owner", "/fleet?filter=n-01"); !strings.Contains(page, "SN-019") || strings.Contains(page, "SN-020") {
		t.Error("a word does not select by serial number")
	}
	// Facets narrow the list and count what they would show; the one that is chosen is taken back.
	_, running := h.get(h.pages, "owner", "/fleet?filter="+url.QueryEscape("SN release:v1"))
	if got := strings.Count(running, `<th scope="row"><a href="/devices/`); got != 3 || !strings.Contains(running, `value="SN release:v1"`) || !strings.Contains(running, `href="/fleet?filter=SN" aria-current="true"`) {
		t.Errorf("%d devices on rel_1, want 3: %s", got, running)
	}
	if !strings.Contains(page, `<a href="/fleet?filter=state%3Amanufactured"><span>manufactured</span><span class="n" id="n-state-manufactured">60</span></a>`) {
		t.Errorf("the facet of states does not count: %s", page)
	}
	if _, page := h.get(h.pages, "customer", "/fleet"); strings.Contains(page, `60</span>`) || !strings.Contains(page, `<b id="fleet-count">3</b>`) {
		t.Errorf("a customer is told how many devices others have: %s", page)
	}
	if _, page := h.get(h.pages, "owner", "/fleet?filter=state:commissioned"); strings.Contains(page, "SN-000") || !strings.Contains(page, "No device matches") {
		t.Error("the filter does not select by state")
	}
	if code, page := h.get(h.pages, "owner", "/fleet?filter=sn+state:comissioned"); code != 200 || !strings.Contains(page, "sn state:<mark>comissioned</mark>") || !strings.Contains(page, "Did you mean state:commissioned?") {
		t.Errorf("a filter with a slip: %d %s", code, page)
	}
	if _, page := h.get(h.pages, "customer", "/fleet"); !strings.Contains(page, "SN-002") || strings.Contains(page, "SN-003") {
		t.Error("a customer must see the own solution only")
	}
	if code, _ := h.get(h.pages, "nobody", "/fleet"); code != 403 {
		t.Errorf("without a role: %d", code)
	}
}

func TestDevicePage(t *testing.T) {
	h := newHouse(t)
	code, page := h.get(h.pages, "owner", "/devices/"+h.ids[0])
	for _, want := range []string{"SN-000</h1>", "online", `aria-current="step"`, "v1", "Lamp &lt;1&gt;", "sol_1", "Software over time"} {
		if !strings.Contains(page, want) {
			t.Errorf("the passport (%d) lacks %q", code, want)
		}
	}
	if code, _ := h.get(h.pages, "customer", "/devices/"+h.ids[2]); code != 200 {
		t.Errorf("a customer reads the own device: %d", code)
	}
	if code, _ := h.get(h.pages, "customer", "/devices/"+h.ids[3]); code != 403 {
		t.Errorf("a customer reads a foreign device: %d", code)
	}
	if code, _ := h.get(h.pages, "owner", "/devices/dev_none"); code != 404 {
		t.Errorf("no such device: %d", code)
	}
	if strings.Contains(page, "Locked out") {
		t.Error("a device in service is called locked out")
	}
	for id, reason := range map[string]string{h.ids[0]: "stolen <van>", h.ids[1]: "clone"} {
		must(t, h.cfg.DB.Write(t.Context(), func(tx *store.Tx) error {
			return errors.Join(h.cfg.Identity.SetState(tx, "ten", id, identity.Provisioned, "per_x", ""),
				h.cfg.Identity.SetState(tx, "ten", id, identity.Suspended, "per_x", reason))
		}))
	}
	if _, page := h.get(h.pages, "owner", "/devices/"+h.ids[0]); !strings.Contains(page, "Locked out: stolen &lt;van&gt;.") {
		t.Error("the page of a device that is locked out does not begin with it")
	}
	if _, page := h.get(h.pages, "owner", "/devices/"+h.ids[1]); !strings.Contains(page, `<a href="/enrol/quarantine">says which unit is genuine`) {
		t.Error("the page of a suspected clone does not lead to the decision")
	}
}

// The checklist on Today ticks this stage once a device was seen.
func TestStep(t *testing.T) {
	h := newHouse(t)
	if _, page := h.get(h.pages, "owner", "/"); !strings.Contains(page, `<li class="next">`) {
		t.Errorf("before the first session is written: %s", page)
	}
	must(t, h.flush(t.Context()))
	if _, page := h.get(h.pages, "owner", "/"); strings.Contains(page, "See it at work") {
		t.Errorf("with every step done the list is still there: %s", page)
	}
}

func TestLifeLine(t *testing.T) {
	for _, c := range []struct {
		state, resume identity.State
		want          string
	}{
		{identity.Commissioned, "", "manufactured provisioned pending [commissioned] decommissioned deprovisioned"},
		{identity.Suspended, identity.Pending, "manufactured provisioned [pending] commissioned decommissioned deprovisioned"},
		{identity.Decommissioning, "", "manufactured provisioned pending commissioned [decommissioning] deprovisioned"},
		{identity.Deprovisioned, "", "manufactured provisioned pending commissioned decommissioned [deprovisioned]"},
	} {
		var got []string
		for _, s := range lifeLine(identity.Device{State: c.state, Resume: c.resume, Created: t0, Updated: t0}) {
			if s.State == "current" {
				s.Name = "[" + s.Name + "]"
			}
			got = append(got, s.Name)
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %s, want %s", c.state, s, c.want)
		}
	}
}

func TestFleetAPI(t *testing.T) {
	h := newHouse(t)
	code, body := h.get(h.api, "owner", "/v1/fleet/summary")
	if want := `"devices":60,"online":1,"states":{"manufactured":60},"releases":[{"release":"rel_1","name":"v1","devices":3}]`; code != 200 || !strings.Contains(body, want) {
		t.Errorf("summary: %d %s", code, body)
	}
	if code, _ := h.get(h.api, "customer", "/v1/fleet/summary"); code != 403 {
		t.Errorf("a customer counts the whole fleet: %d", code)
	}
	seen, token := map[string]bool{}, ""
	for {
		var page struct {
			Items []DeviceOut `json:"items"`
			Next  string      `json:"next_page_token"`
		}
		code, body := h.get(h.api, "owner", "/v1/devices?page_size=7&page_token="+token)
		if code != 200 {
			t.Fatalf("list: %d %s", code, body)
		}
		must(t, json.Unmarshal([]byte(body), &page))
		for _, d := range page.Items {
			seen[d.ID] = true
		}
		if token = page.Next; token == "" {
			break
		}
	}
	if len(seen) != 60 {
		t.Errorf("the pages list %d devices", len(seen))
	}
	if code, body := h.get(h.api, "customer", "/v1/devices"); code != 200 || strings.Count(body, `"serial"`) != 3 {
		t.Errorf("a customer lists %d %s", code, body)
	}
	code, body = h.get(h.api, "owner", "/v1/devices/"+h.ids[0])
	for _, want := range []string{`"serial":"SN-000"`, `"online":true`, `"release":"rel_1"`, `"history":[{"release":"rel_1","from":"2026-11-21T12:00:00Z"}]`} {
		if !strings.Contains(body, want) {
			t.Errorf("device (%d) lacks %s in %s", code, want, body)
		}
	}
	for path, want := range map[string]int{"/v1/devices/dev_none": 404, "/v1/devices?filter=state:broken": 400, "/v1/devices?page_token=forged": 400} {
		if code, body := h.get(h.api, "owner", path); code != want {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}

// The live region follows the sessions.
func TestLiveCount(t *testing.T) {
	h := newHouse(t)
	srv := httptest.NewServer(h.pages)
	defer srv.Close()
	r, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/fleet/live", nil)
	must(t, err)
	r.Header.Set("X-Test-Actor", "owner")
	res, err := srv.Client().Do(r)
	must(t, err)
	defer res.Body.Close()
	read := func(want string) {
		t.Helper()
		var got strings.Builder
		buf := make([]byte, 256)
		for !strings.Contains(got.String(), want) {
			n, err := res.Body.Read(buf)
			got.Write(buf[:n])
			if err != nil {
				t.Fatalf("the stream ended with %v after %q, without %q", err, got.String(), want)
			}
		}
	}
	read("fleet-online")
	h.Online(gateway.Peer{Tenant: "ten", Device: h.ids[1]})
	h.Online(gateway.Peer{Tenant: "other", Device: "dev_x"})
	for _, pause := range []time.Duration{lookAgain, calmDown} {
		h.cfg.Clock.(*clock.Hand).WaitTimers(2)
		h.cfg.Clock.(*clock.Hand).Advance(pause)
	}
	read("2")
}
