// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"context"
	"log/slog"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/respond/pgp"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/blob"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
)

var schema = []store.Migrations{seal.Schema, audit.Schema, product.Schema, respond.Schema, Schema}

// house is the room with its real neighbours.
type house struct {
	*Service
	t       testing.TB
	db      *store.DB
	hand    *clock.Hand
	pgp     *pgp.Service
	product string
	dir     string // keys and blobs
}

const (
	maker = "ten_maker"
	here  = "https://iot.example:8443"
)

func signedIn(id string, role tenant.Role) context.Context {
	return tenant.WithActor(context.Background(), tenant.Actor{ID: id, Kind: tenant.KindPerson, Tenant: maker, Grants: []tenant.Grant{{Role: role, Tenant: maker}}})
}

var (
	ann   = signedIn("per_ann", tenant.ComplianceOfficer)
	bob   = signedIn("per_bob", tenant.ProductSecurityOfficer)
	owner = signedIn("per_own", tenant.Owner)
	other = tenant.WithActor(context.Background(), tenant.Actor{ID: "per_mal", Kind: tenant.KindPerson, Tenant: "ten_other", Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: "ten_other"}}})
	robot = tenant.WithActor(context.Background(), tenant.Actor{ID: "tok_x", Kind: tenant.KindToken, Tenant: maker, Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: maker}}})
)

// saturday is when tests begin.
var saturday = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func each(t *testing.T, fn func(t *testing.T, h *house)) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		fn(t, openHouse(t, url, t.TempDir(), clock.NewHand(saturday)))
	})
}

// one is a house on SQLite alone, for what does not depend on the engine.
func one(t testing.TB) *house {
	return openHouse(t, storetest.SQLiteURL(t), t.TempDir(), clock.NewHand(saturday))
}

func openHouse(t testing.TB, url, dir string, hand *clock.Hand) *house {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	db := storetest.Open(t, url, schema, func(c *store.Config) { c.Clock = hand })
	keys, err := seal.Open(filepath.Join(dir, "keys"), hand)
	must(err)
	blobs, err := blob.NewDir(filepath.Join(dir, "blobs"))
	must(err)
	h := &house{t: t, db: db, hand: hand, pgp: pgp.New(db, keys), dir: dir}
	ps := product.New(product.Config{DB: db, Clock: hand})
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	h.Service = New(Config{DB: db, Keys: keys, Blobs: blobs, PGP: h.pgp, Products: ps, Respond: respond.New(respond.Config{DB: db, Products: ps, Log: log}), URL: here, Log: log,
		Maker: func(_ context.Context, t string) (string, error) {
			if t == maker || t == "ten_other" {
				return "Acme Ltd", nil
			}
			return "", problem.NotFound("There is no such tenant.")
		},
		Tenants: func(context.Context) ([]string, error) { return []string{maker, "ten_other"}, nil },
		Advisory: func(_ context.Context, _, id string) (string, time.Time, error) {
			if id != "adv_1" {
				return "", time.Time{}, problem.Conflict("It is not published for everybody.")
			}
			return "https://iot.example:8443/csaf/x.json", hand.Now(), nil
		}})
	all, err := ps.List(t.Context(), maker)
	must(err)
	if len(all) == 0 {
		p, err := ps.Create(t.Context(), product.Product{Tenant: maker, Name: "Sensor", Model: "s1"}, "per_ann")
		must(err)
		all = append(all, p)
	}
	h.product = all[0].ID
	return h
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// sent is a report as strangers send it.
func (h *house) sent(in Intake) Receipt {
	h.t.Helper()
	if in.Words.Text == "" {
		in.Words.Text = "The parser overflows."
	}
	if in.Exploited == "" {
		in.Exploited = "no"
	}
	in.Channel = "form"
	got, err := h.receive(h.t.Context(), maker, stranger, ByFinder, in)
	h.must(err)
	return got
}

// did records what a person did.
func (h *house) did(who context.Context, id string, k EventKind, note string, d Data) {
	h.t.Helper()
	_, err := h.Append(who, id, k, note, d)
	h.must(err)
}

// report is what the person sees.
func (h *house) seen(who context.Context, id string) Report {
	h.t.Helper()
	r, err := h.Report(who, id)
	h.must(err)
	return r
}

// doors are those for people and for programs, for who is signed in; nobody if nil.
func (h *house) doors(who context.Context) (pages, programs http.Handler) {
	auth := func(*http.Request) (context.Context, error) {
		if who == nil {
			return nil, problem.Unauthenticated("This needs you to be signed in.")
		}
		return who, nil
	}
	log := slog.New(slog.NewTextHandler(h.t.Output(), nil))
	c := console.New(console.Config{Clock: h.hand, Log: log, Menu: []string{"Today", "Disclosure"}, SignIn: "/sign-in", Authenticate: auth, Holds: tenant.Holds,
		Visitor: func(ctx context.Context) string {
			a, _ := tenant.ActorFrom(ctx)
			return a.ID
		}})
	h.Pages(c)
	a := api.New(api.Config{Title: "test", Clock: h.hand, Log: log, Authenticate: auth, Holds: tenant.Holds, Caller: func(context.Context) string { return "ann" }})
	h.Routes(a)
	return c, a
}

func at(t *testing.T, s string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
