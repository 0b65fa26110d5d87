// SPDX-License-Identifier: AGPL-3.0-only

package conform

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/blob"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/update"
)

var (
	schema = []store.Migrations{audit.Schema, product.Schema, identity.Schema, sbom.Schema, update.Schema, Schema}
	day0   = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
)

// house is the stage with its real neighbours, and a product with one hardware revision.
type house struct {
	*testing.T
	*Service
	db      *store.DB
	hand    *clock.Hand
	bills   *sbom.Service
	update  *update.Service
	product string
}

func each(t *testing.T, fn func(h *house)) {
	storetest.EachURL(t, func(t *testing.T, url string) { fn(openHouse(t, url)) })
}

func openHouse(t *testing.T, url string) *house {
	hand := clock.NewHand(day0)
	db := storetest.Open(t, url, schema, func(c *store.Config) { c.Clock = hand })
	blobs, err := blob.NewDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	h := &house{T: t, db: db, hand: hand}
	products := product.New(product.Config{DB: db, Clock: hand, Checks: func(ctx context.Context, tenant, id string) (out []product.Check, err error) {
		items, err := h.Readiness(ctx, tenant, id)
		for _, i := range items {
			out = append(out, product.Check{Text: i.Text, Done: i.Done, Href: i.Href})
		}
		return out, err
	}})
	h.bills = sbom.New(sbom.Config{DB: db, Blobs: blobs, Clock: hand})
	h.update = update.New(update.Config{DB: db, Blobs: blobs, Product: products, SBOM: h.bills, Clock: hand,
		Placing: func(tx *store.Tx, r update.Release) error { return h.MayPlace(tx, r.Tenant, r.Product, r.ID) }})
	h.Service = New(Config{DB: db, Products: products, SBOM: h.bills, Update: h.update, Clock: hand,
		Tenants: func(context.Context) ([]string, error) { return []string{"ten_a", "ten_b"}, nil }})
	p, err := products.Create(t.Context(), product.Product{Tenant: "ten_a", Name: "Street lamp", Model: "lamp"}, "per_ann")
	h.must(err)
	h.product = p.ID
	_, err = products.CreateRevision(t.Context(), product.Revision{Tenant: "ten_a", Product: p.ID, Name: "A", Placed: day0, SupportEnd: day0.AddDate(6, 0, 0)}, "per_ann")
	h.must(err)
	return h
}

func (h *house) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *house) run() {
	h.Helper()
	_, err := h.db.RunDue(h.Context())
	h.must(err)
}

// release makes a release that has passed its checks, with a bill of Go modules ("path@version").
func (h *house) release(n int, modules ...string) string {
	h.Helper()
	id := fmt.Sprintf("rel_%02d", n)
	h.must(h.db.Write(h.Context(), func(tx *store.Tx) error {
		if _, err := tx.Exec(`INSERT INTO release(id, tenant, product, version, security_version, data_floor, min_from, class, path, hw, image, length, sbom, targets, signers, state, actor, created, published, withdrawn)
			VALUES ($1, 'ten_a', $2, $3, $4, 0, 0, 'feature', $1, '["A"]', $5, 1, '', 1, '[]', 'draft', 'per_ann', $6, 0, 0)`,
			id, h.product, fmt.Sprintf("1.%d.0", n), int64(n), "sha256:"+id, store.Millis(h.hand.Now())); err != nil {
			return err
		}
		for _, name := range update.DefaultChecks {
			if err := h.update.RecordCheck(tx, "ten_a", id, name, update.Pass, "", "test"); err != nil {
				return err
			}
		}
		return nil
	}))
	if modules == nil {
		modules = []string{"a.example/net@v1.0.0"}
	}
	h.bill(id, modules...)
	return id
}

func (h *house) bill(release string, modules ...string) {
	h.Helper()
	var parts []string
	for _, m := range modules {
		name, v, _ := strings.Cut(m, "@")
		parts = append(parts, fmt.Sprintf(`{"type":"library","name":%q,"version":%q,"purl":%q,"supplier":{"name":"Makers of %s"},"licenses":[{"license":{"id":"MIT"}}]}`, name, v, "pkg:golang/"+m, name))
	}
	doc := []byte(`{"bomFormat":"CycloneDX","specVersion":"1.6","components":[` + strings.Join(parts, ",") + `]}`)
	kept, err := h.bills.Keep(h.Context(), doc)
	h.must(err)
	b, err := sbom.Parse(doc)
	h.must(err)
	h.must(h.db.Write(h.Context(), func(tx *store.Tx) error { return h.bills.Attach(tx, "ten_a", release, b, kept, "per_ann") }))
	h.run()
}

func (h *house) emit(topic, subject string, data any) {
	h.Helper()
	h.must(h.db.Write(h.Context(), func(tx *store.Tx) error { return h.db.Emit(tx, topic, "ten_a", subject, data) }))
	h.run()
}

// rule is the rule by which err refuses, or its text.
func rule(err error) string {
	if err != nil && problem.Of(err).Rule != "" {
		return problem.Of(err).Rule
	}
	return fmt.Sprint(err)
}

func (h *house) want(what, got, want string) {
	h.Helper()
	if got != want {
		h.Errorf("%s: %q, want %q", what, got, want)
	}
}

// whole describes and decides everything, so that the assessment can be sealed.
func (h *house) whole() {
	h.Helper()
	_, err := h.SetContext(h.Context(), "ten_a", h.product, "per_ann", Context{Purpose: "Lights a street", Use: "On a mast", Environment: "Outdoors", Assets: "Its keys", Threats: "Who climbs the mast", Years: 12})
	h.must(err)
	for _, r := range law.Annex("cra.i") {
		_, err := h.Decide(h.Context(), "ten_a", h.product, r.ID, "per_ann", Decision{Applies: "yes", Treatment: "As designed", Evidence: []string{"/products/" + h.product}})
		h.must(err)
	}
}

func (h *house) seal(note string) Assessment {
	h.Helper()
	a, err := h.Seal(h.Context(), "ten_a", h.product, "per_bob", note)
	h.must(err)
	return a
}

// doors serves the stage's routes and pages to whoever the header names: "person role [product]", of ten_a; a person who
// begins with "rival" is of ten_b.
func (h *house) doors() (pages *console.Console, programs http.Handler) {
	auth := func(r *http.Request) (context.Context, error) {
		who := strings.Fields(r.Header.Get("Test-Actor"))
		if len(who) == 0 { // a browser
			who = []string{"per_ann", string(tenant.Owner)}
		}
		t := "ten_a"
		if strings.HasPrefix(who[0], "rival") {
			t = "ten_b"
		}
		g := tenant.Grant{Tenant: t, Role: tenant.Role(who[1])}
		if len(who) > 2 {
			g.Product = who[2]
		}
		return tenant.WithActor(r.Context(), tenant.Actor{ID: who[0], Kind: tenant.KindPerson, Name: "Ann", Tenant: t, Grants: []tenant.Grant{g}}), nil
	}
	log := slog.New(slog.NewTextHandler(h.Output(), nil))
	c := console.New(console.Config{Clock: h.hand, Log: log, Menu: []string{"Today", "Products", "Releases", "Law"}, Authenticate: auth, Holds: tenant.Holds,
		Visitor: func(context.Context) string { return "Ann" }})
	h.cfg.Products.Pages(c)
	h.Service.Pages(c)
	a := api.New(api.Config{Title: "test", Clock: h.hand, Log: log, Authenticate: auth, Holds: tenant.Holds, Caller: func(context.Context) string { return "ann" }})
	h.Routes(a)
	return c, a
}

func (h *house) ask(door http.Handler, actor, method, path, body string) (int, string) {
	h.Helper()
	r := httptest.NewRequest(method, "https://iot.example"+path, strings.NewReader(body))
	r.Header.Set("Test-Actor", actor)
	switch {
	case strings.HasPrefix(body, "{"):
		r.Header.Set("Content-Type", "application/json")
	case body != "":
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	w := httptest.NewRecorder()
	door.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}
