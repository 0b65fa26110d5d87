// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/notify"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/storetest"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/testpeers"
	"github.com/openthings-platform/openthings/webhook"
)

var schema = []store.Migrations{seal.Schema, audit.Schema, product.Schema, respond.Schema, Schema}

// house is the room with its real neighbours and a mail server.
type house struct {
	*Service
	t        testing.TB
	db       *store.DB
	hand     *clock.Hand
	keys     *seal.Keys
	products *product.Service
	cases    *respond.Service
	office   *testpeers.PostOffice
	product  string
	revision string
}

const (
	maker = "ten_maker"
	here  = "https://iot.example:8443"
)

func signedIn(id, ten string, role tenant.Role) context.Context {
	return tenant.WithActor(context.Background(), tenant.Actor{ID: id, Kind: tenant.KindPerson, Tenant: ten, Grants: []tenant.Grant{{Role: role, Tenant: ten}}})
}

var (
	ann   = signedIn("per_ann", maker, tenant.ComplianceOfficer)
	bob   = signedIn("per_bob", maker, tenant.ProductSecurityOfficer)
	other = signedIn("per_mal", "ten_other", tenant.Owner)
	robot = tenant.WithActor(context.Background(), tenant.Actor{ID: "tok_x", Kind: tenant.KindToken, Tenant: maker, Grants: []tenant.Grant{{Role: tenant.Owner, Tenant: maker}}})
)

// saturday is when tests begin.
var saturday = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func each(t *testing.T, fn func(t *testing.T, h *house)) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		fn(t, openHouse(t, url, t.TempDir(), clock.NewHand(saturday)))
	})
}

// alone is a house on SQLite only, for what does not depend on the engine.
func alone(t testing.TB) *house {
	return openHouse(t, storetest.SQLiteURL(t), t.TempDir(), clock.NewHand(saturday))
}

func openHouse(t testing.TB, url, dir string, hand *clock.Hand) *house {
	t.Helper()
	office, err := testpeers.OpenPostOffice(func(*testpeers.PostOffice) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(office.Close)
	h := openWith(t, url, dir, hand, mailerTo(t, office))
	h.office = office
	return h
}

func mailerTo(t testing.TB, office *testpeers.PostOffice) *notify.Mailer {
	t.Helper()
	m, err := notify.NewMailer("smtp://"+office.Addr, "", "Maker <ot@maker.example>", office.Roots)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func openWith(t testing.TB, url, dir string, hand *clock.Hand, mailer *notify.Mailer) *house {
	t.Helper()
	h := &house{t: t, hand: hand}
	h.db = storetest.Open(t, url, schema, func(c *store.Config) { c.Clock = hand })
	keys, err := seal.Open(filepath.Join(dir, "keys"), hand)
	h.must(err)
	h.keys = keys
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	h.products = product.New(product.Config{DB: h.db, Clock: hand, URL: here, Sign: func(text string) ([]byte, error) { return []byte(text), nil }})
	h.cases = respond.New(respond.Config{DB: h.db, Products: h.products, Log: log, Keys: keys,
		Campaign: func(tx *store.Tx, t, id, campaign string) error { return h.OfCase(tx, t, id, campaign) }})
	h.Service = New(Config{DB: h.db, Keys: keys, Products: h.products, Cases: h.cases, Log: log, Mailer: mailer, PrivateHooks: true, URL: here,
		Maker: func(_ context.Context, t string) (string, error) {
			if t != maker && t != "ten_other" {
				return "", problem.NotFound("There is no such tenant.")
			}
			return "Acme Ltd", nil
		},
		Advisory: func(_ context.Context, _, _, vulnerability string) (string, string, []byte, error) {
			if vulnerability != "CVE-2026-1" {
				return "", "", nil, nil
			}
			return "acme-2026-1.json", here + "/csaf/acme-2026-1.json", []byte(`{"document":{}}`), nil
		}})
	all, err := h.products.List(t.Context(), maker)
	h.must(err)
	if len(all) == 0 {
		p, err := h.products.Create(t.Context(), product.Product{Tenant: maker, Name: "Sensor", Model: "s1"}, "per_ann")
		h.must(err)
		_, err = h.products.CreateRevision(t.Context(), product.Revision{Tenant: maker, Product: p.ID, Name: "B", Placed: saturday, SupportEnd: saturday.AddDate(6, 0, 0)}, "per_ann")
		h.must(err)
		all = append(all, p)
	}
	h.product = all[0].ID
	vs, err := h.products.Revisions(t.Context(), maker, h.product)
	h.must(err)
	h.revision = vs[0].ID
	return h
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// refused wants a refusal of the kind or, if it is one by policy, of the rule.
func (h *house) refused(err error, kind problem.Kind, rule string) {
	h.t.Helper()
	if !problem.Is(err, kind) || problem.Of(err).Rule != rule {
		h.t.Errorf("%v, want a refusal of the kind %v and the rule %q", err, kind, rule)
	}
}

// person adds a contact with a mail address.
func (h *house) person(name, role, lang string) Contact {
	h.t.Helper()
	c, err := h.AddContact(ann, Contact{Role: role, Channel: Mail, Language: lang, Person: Person{name, strings.ToLower(name) + "@buyer.example"}, Products: []Holding{{Product: h.product}}})
	h.must(err)
	return c
}

// words are a draft about the house's product.
func (h *house) words() Words {
	return Words{Kind: KindOther, Product: h.product, Subject: "Battery", Audience: All, Language: "en",
		Texts: map[string]Text{"en": {"Change the battery", "It may leak.\nChange it."}, "de": {"Batterie wechseln", "Sie kann auslaufen."}}}
}

func (h *house) drafted(w Words) Campaign {
	h.t.Helper()
	c, err := h.Draft(ann, w)
	h.must(err)
	return c
}

// told sends a campaign.
func (h *house) told(w Words) Campaign {
	h.t.Helper()
	c := h.drafted(w)
	c, err := h.Send(ann, c.ID, c.Version)
	h.must(err)
	return c
}

// pass delivers what is due now.
func (h *house) pass() {
	h.t.Helper()
	for {
		ds, err := h.claim(h.t.Context())
		h.must(err)
		if len(ds) == 0 {
			h.must(h.finishAll(h.t.Context()))
			return
		}
		h.must(h.deliver(h.t.Context(), ds))
	}
}

// jobs runs what is due now.
func (h *house) jobs() {
	h.t.Helper()
	if _, err := h.db.RunDue(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) proof(id string) Proof {
	h.t.Helper()
	p, err := h.Proof(ann, id)
	h.must(err)
	return p
}

// leaves counts the leaves of a kind.
func (h *house) leaves(kind string) (n int) {
	h.t.Helper()
	h.must(h.db.QueryRow(h.t.Context(), `SELECT count(*) FROM audit_entry WHERE kind = $1`, kind).Scan(&n))
	return n
}

// events counts the announcements of a topic that wait for somebody or were delivered to record.
func (h *house) record(topic string) *[]store.Event {
	var mu sync.Mutex
	got := &[]store.Event{}
	h.db.On(topic, "test", func(_ context.Context, e store.Event) error {
		mu.Lock()
		defer mu.Unlock()
		*got = append(*got, e)
		return nil
	})
	return got
}

// mails empties the office.
func (h *house) mails() (out []testpeers.Letter) {
	for {
		select {
		case l := <-h.office.Letters:
			out = append(out, l)
		default:
			return out
		}
	}
}

// receiver takes webhooks and checks their signatures.
type receiver struct {
	mu     sync.Mutex // guards the fields below
	secret webhook.Secret
	answer int
	seen   map[string]int
	bodies []string
	faults []string
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	body, err := io.ReadAll(q.Body)
	id, at := q.Header.Get("webhook-id"), q.Header.Get("webhook-timestamp")
	if err != nil || q.Header.Get("webhook-signature") != r.secret.Sign(id, at, body) {
		r.faults = append(r.faults, "the signature is wrong")
	}
	r.seen[id]++
	r.bodies = append(r.bodies, string(body))
	w.WriteHeader(r.answer)
}

func (h *house) hook() (*receiver, Contact) {
	h.t.Helper()
	r := &receiver{seen: map[string]int{}, answer: 204}
	srv := httptest.NewServer(r)
	h.t.Cleanup(srv.Close)
	c, err := h.AddContact(ann, Contact{Role: "distributor", Channel: Webhook, Language: "fr", Person: Person{"Wholesale", srv.URL}, Products: []Holding{{h.product, h.revision}}})
	h.must(err)
	raw, ok := strings.CutPrefix(c.Secret, "whsec_")
	if r.secret, err = base64.StdEncoding.DecodeString(raw); !ok || err != nil || len(r.secret) != 32 {
		h.t.Fatalf("secret %q: %v", c.Secret, err)
	}
	return r, c
}

// cased opens a case about the house's product.
func (h *house) cased(ref string) string {
	h.t.Helper()
	sig, err := h.cases.AddSignal(ann, respond.Signal{Product: h.product, Title: "shells on sensors", Ref: ref, Exploited: "yes"})
	h.must(err)
	as, err := h.cases.Assess(ann, sig.ID, "")
	h.must(err)
	yes, no := true, false
	_, cases, err := h.cases.Decide(ann, as.ID, respond.Declaration{Verdict: respond.Aware, Basis: "three units with a shell, images kept", AEV: &yes, SI: &no, T0: h.hand.Now().Add(-time.Hour), Title: "Shells on sensors",
		Summary: "A shell was opened on three sensors.", Coordinator: "DE", MemberStates: []string{"DE"}, Fields: map[string]string{"versions": "1.0"}})
	h.must(err)
	if len(cases) != 1 {
		h.t.Fatal(fmt.Sprint("cases ", cases))
	}
	return cases[0]
}

func productRevision(h *house, name string) product.Revision {
	return product.Revision{Tenant: maker, Product: h.product, Name: name, Placed: saturday, SupportEnd: saturday.AddDate(6, 0, 0)}
}
