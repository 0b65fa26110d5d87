// SPDX-License-Identifier: AGPL-3.0-only

package tenant_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
)

func setup(t *testing.T, h *house) (*browser, *authenticator) {
	t.Helper()
	link, err := h.SetupLink(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, key := h.browser(), newAuthenticator(t, h.srv.URL)
	if status, body := b.enter(link, "Ada Lovelace", "Acme", key); status != 200 {
		t.Fatalf("enter: %d %s", status, body)
	}
	return b, key
}

func TestSetupLinkWorksOnce(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		old, err := h.SetupLink(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		link, err := h.SetupLink(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := len(strings.TrimPrefix(link, "/enter/")); got != 22 {
			t.Errorf("the secret has %d characters, want 22 for 128 bits", got)
		}
		var stored int64
		if err := h.db.QueryRow(t.Context(), `SELECT COUNT(*) FROM entry_link WHERE hash = $1`, strings.TrimPrefix(link, "/enter/")).Scan(&stored); err != nil || stored != 0 {
			t.Errorf("the secret itself is stored (%v)", err)
		}
		if status, _ := h.browser().enter(old, "Eve", "Acme", newAuthenticator(t, h.srv.URL)); status != 404 {
			t.Errorf("an older setup link answers %d", status)
		}

		// Two people hold the link and both have begun: only one gets in.
		one, two := h.browser(), h.browser()
		k1, k2 := newAuthenticator(t, h.srv.URL), newAuthenticator(t, h.srv.URL)
		_, o1 := one.post(link+"/begin", map[string]string{"name": "Ada", "organisation": "Acme"})
		_, o2 := two.post(link+"/begin", map[string]string{"name": "Eve", "organisation": "Evil"})
		if status, body := one.do("POST", link+"/finish", k1.create(t, []byte(o1))); status != 200 {
			t.Fatalf("first: %d %s", status, body)
		}
		if status, body := two.do("POST", link+"/finish", k2.create(t, []byte(o2))); status != 404 {
			t.Errorf("second through the same link: %d %s", status, body)
		}
		if status, _ := two.enter(link, "Eve", "Evil", k2); status != 404 {
			t.Errorf("a used link begins again: %d", status)
		}
		if me, status := one.me(); status != 200 || me.Tenant.Name != "Acme" || len(me.Grants) != 1 || me.Grants[0].Role != tenant.Owner {
			t.Errorf("me: %d %+v", status, me)
		}
		if _, err := h.SetupLink(t.Context()); !problem.Is(err, problem.KindConflict) {
			t.Errorf("a setup link with people in the house: %v", err)
		}
		if got, want := h.leaves(), []string{"access.person-joined", "access.setup-used", "access.tenant-created"}; !slices.Equal(got, want) {
			t.Errorf("leaves %v, want %v", got, want)
		}
	})
}

// TestLinkRace lets eight people finish at the very same time, first through the setup link and then through an invitation.
func TestLinkRace(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		link, err := h.SetupLink(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		race(t, h, link)
		var out struct{ Path string }
		_, body := h.browser().post("/host/invite", map[string]any{"tenant": "Acme", "role": "auditor", "name": "Grace"})
		if err := json.Unmarshal([]byte(body), &out); err != nil {
			t.Fatal(err)
		}
		race(t, h, out.Path)
	})
}

func race(t *testing.T, h *house, link string) {
	t.Helper()
	var wg sync.WaitGroup
	results := make(chan int, 8)
	for range cap(results) {
		b, key := h.browser(), newAuthenticator(t, h.srv.URL)
		_, options := b.post(link+"/begin", map[string]string{"name": "Somebody", "organisation": "Acme"})
		answer := key.create(t, []byte(options))
		wg.Go(func() {
			status, _ := b.do("POST", link+"/finish", answer)
			results <- status
		})
	}
	wg.Wait()
	close(results)
	in := 0
	for s := range results {
		if s == 200 {
			in++
		}
	}
	if in != 1 {
		t.Errorf("%d people came in through one link", in)
	}
}

func TestSetupLinkEnds(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		link, err := h.SetupLink(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b, key := h.browser(), newAuthenticator(t, h.srv.URL)
		h.clk.Advance(14 * time.Minute)
		_, options := b.post(link+"/begin", map[string]string{"name": "Ada", "organisation": "Acme"})
		h.clk.Advance(2 * time.Minute)
		if status, _ := b.do("POST", link+"/finish", key.create(t, []byte(options))); status != 404 {
			t.Errorf("after 16 minutes: %d", status)
		}
	})
}

func TestSignIn(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		first, key := setup(t, h)
		b := h.browser()
		if status, body := b.signIn(key); status != 200 {
			t.Fatalf("sign in: %d %s", status, body)
		}
		if me, status := b.me(); status != 200 || me.Name != "Ada Lovelace" {
			t.Errorf("me: %d %+v", status, me)
		}

		// What must not open the door.
		stranger := newAuthenticator(t, h.srv.URL)
		stranger.handle = key.handle
		if status, _ := h.browser().signIn(stranger); status != 401 {
			t.Errorf("an unknown key: %d", status)
		}
		stranger.id = key.id // the known id, another key
		if status, _ := h.browser().signIn(stranger); status != 401 {
			t.Errorf("a forged signature: %d", status)
		}
		unverified := *key
		unverified.flags = 0x01
		if status, _ := h.browser().signIn(&unverified); status != 401 {
			t.Errorf("without user verification: %d", status)
		}
		phished := *key
		phished.origin = "https://localhost.evil.example"
		if status, _ := h.browser().signIn(&phished); status != 401 {
			t.Errorf("from another origin: %d", status)
		}
		again := h.browser()
		_, options := again.post("/sign-in/begin", nil)
		answer := key.get(t, []byte(options))
		if status, _ := again.do("POST", "/sign-in/finish", answer); status != 200 {
			t.Fatalf("sign in again: %d", status)
		}
		if status, _ := again.do("POST", "/sign-in/finish", answer); status != 400 {
			t.Errorf("an answer used twice: %d", status)
		}
		copied := *key
		copied.counter = 0
		if status, _ := h.browser().signIn(&copied); status != 403 {
			t.Errorf("a counter that goes back: %d", status)
		}

		// Idle end, absolute end, sign-out.
		h.clk.Advance(11 * time.Hour)
		if _, status := first.me(); status != 200 {
			t.Errorf("after 11 idle hours: %d", status)
		}
		h.clk.Advance(12*time.Hour + time.Second)
		if _, status := first.me(); status != 401 {
			t.Errorf("after 12 idle hours: %d", status)
		}
		if status, _ := b.signIn(key); status != 200 {
			t.Fatal("sign in again")
		}
		for range 16 {
			if _, status := b.me(); status != 200 {
				t.Errorf("a session in use: %d", status)
			}
			h.clk.Advance(10 * time.Hour)
		}
		h.clk.Advance(9 * time.Hour)
		if _, status := b.me(); status != 401 {
			t.Errorf("after 7 days: %d", status)
		}
		if status, _ := b.signIn(key); status != 200 {
			t.Fatal("sign in again")
		}
		if status, _ := b.do("POST", "/sign-out", nil); status != 303 {
			t.Errorf("sign out: %d", status)
		}
		if _, status := b.me(); status != 401 {
			t.Errorf("after sign-out: %d", status)
		}
	})
}

func TestTokens(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		text := h.hostToken("Acme", "owner")
		owner := h.with(text)
		if me, status := owner.me(); status != 200 || me.Kind != tenant.KindToken || me.Tenant.Name != "Acme" {
			t.Fatalf("me: %d %+v", status, me)
		}
		secret := text[strings.LastIndex(text, "_")+1:]
		var stored int64
		if err := h.db.QueryRow(t.Context(), `SELECT COUNT(*) FROM token WHERE hash = $1 OR hash = $2`, text, secret).Scan(&stored); err != nil || stored != 0 {
			t.Errorf("the secret itself is stored (%v)", err)
		}
		for i := range text { // no other token opens
			b := []byte(text)
			if b[i] != 'x' {
				b[i] = 'x'
			} else {
				b[i] = 'y'
			}
			h.clk.Advance(time.Second) // the door slows guessing
			if _, status := h.with(string(b)).me(); status != 401 {
				t.Fatalf("a token with character %d changed: %d", i, status)
			}
		}

		status, body := owner.post("/v1/tokens", map[string]any{"name": "pipeline", "role": "firmware-engineer", "expires": h.clk.Now().Add(time.Hour)})
		var made struct{ ID, Token string }
		if err := json.Unmarshal([]byte(body), &made); err != nil || status != 201 {
			t.Fatalf("create: %d %s", status, body)
		}
		pipeline := h.with(made.Token)
		if _, status := pipeline.me(); status != 200 {
			t.Errorf("new token: %d", status)
		}
		for _, bad := range []map[string]any{
			{"name": "x", "role": "auditor"},
			{"name": "x", "role": "auditor", "expires": h.clk.Now().Add(-time.Hour)},
			{"name": "x", "role": "auditor", "expires": h.clk.Now().Add(400 * 24 * time.Hour)},
			{"name": "x", "role": "god", "expires": h.clk.Now().Add(time.Hour)},
			{"name": " ", "role": "auditor", "expires": h.clk.Now().Add(time.Hour)},
			{"name": "x", "role": "auditor", "expires": h.clk.Now().Add(time.Hour), "solution": "sol_none"},
		} {
			if status, body := owner.post("/v1/tokens", bad); status < 400 || status > 499 {
				t.Errorf("%v: %d %s", bad, status, body)
			}
		}
		if status, _ := owner.post("/v1/tokens/"+made.ID+"/revoke", nil); status != 204 {
			t.Errorf("revoke: %d", status)
		}
		if _, status := pipeline.me(); status != 401 {
			t.Errorf("a revoked token: %d", status)
		}
		_, body = owner.do("GET", "/v1/tokens", nil)
		if !strings.Contains(body, `"last_used"`) || strings.Contains(body, secret) {
			t.Errorf("list: %s", body)
		}
		h.clk.Advance(24 * time.Hour)
		if _, status := owner.me(); status != 401 {
			t.Errorf("an ended token: %d", status)
		}
		if got, want := h.leaves(), []string{"access.tenant-created", "access.token-created", "access.token-created", "access.token-revoked"}; !slices.Equal(got, want) {
			t.Errorf("leaves %v, want %v", got, want)
		}
	})
}

func TestPeople(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		ada, _ := setup(t, h)
		me, _ := ada.me()
		status, body := ada.post("/v1/people", map[string]any{"name": "Grace", "role": "fleet-operator"})
		var inv tenant.Invitation
		if err := json.Unmarshal([]byte(body), &inv); err != nil || status != 201 {
			t.Fatalf("invite: %d %s", status, body)
		}
		grace, key := h.browser(), newAuthenticator(t, h.srv.URL)
		if status, body := grace.enter(strings.TrimPrefix(inv.Link, h.srv.URL), "Grace Hopper", "", key); status != 200 {
			t.Fatalf("join: %d %s", status, body)
		}
		g, _ := grace.me()
		if g.Tenant.Name != "Acme" || g.Grants[0].Role != tenant.FleetOperator {
			t.Errorf("joined as %+v", g)
		}
		if status, _ := grace.post("/v1/people", map[string]any{"name": "Eve", "role": "owner"}); status != 403 {
			t.Errorf("a fleet operator invites: %d", status)
		}
		// The last owner stays.
		if status, body := ada.post("/v1/people/"+me.ID+"/remove", nil); status != 403 || !strings.Contains(body, "access.last-owner") {
			t.Errorf("the last owner leaves: %d %s", status, body)
		}
		set := func(id, role string) int {
			b, _ := json.Marshal(map[string]any{"grants": []map[string]string{{"role": role}}})
			status, _ := ada.do("PUT", "/v1/people/"+id+"/grants", b)
			return status
		}
		if status := set(me.ID, "auditor"); status != 403 {
			t.Errorf("the last owner becomes an auditor: %d", status)
		}
		if status := set(g.ID, "auditor"); status != 204 {
			t.Errorf("change: %d", status)
		}
		if g, _ = grace.me(); len(g.Grants) != 1 || g.Grants[0].Role != tenant.Auditor {
			t.Errorf("now %+v", g.Grants)
		}
		// A lost browser is signed out, and the person signs in again.
		if status, _ := ada.post("/v1/people/"+g.ID+"/sign-out", nil); status != 204 {
			t.Errorf("sign out: %d", status)
		}
		if _, status := grace.me(); status != 401 {
			t.Errorf("an ended session: %d", status)
		}
		if status, _ := grace.signIn(key); status != 200 {
			t.Errorf("sign in after that: %d", status)
		}
		// Removal ends the session at once, and the key opens no more.
		if status, _ := ada.post("/v1/people/"+g.ID+"/remove", nil); status != 204 {
			t.Errorf("remove: %d", status)
		}
		if _, status := grace.me(); status != 401 {
			t.Errorf("a removed person's session: %d", status)
		}
		if status, _ := h.browser().signIn(key); status != 401 {
			t.Errorf("a removed person signs in: %d", status)
		}
	})
}

// TestTenantsAreWalls lets the owner of one tenant try every operation on the things of another.
func TestTenantsAreWalls(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		acme, blue := h.with(h.hostToken("Acme", "owner")), h.with(h.hostToken("Blue", "owner"))
		_, body := acme.post("/v1/solutions", map[string]any{"name": "North"})
		var sol tenant.Solution
		if err := json.Unmarshal([]byte(body), &sol); err != nil || sol.ID == "" {
			t.Fatalf("solution: %s", body)
		}
		var tokens api.Page[tenant.Token]
		_, body = acme.do("GET", "/v1/tokens", nil)
		if err := json.Unmarshal([]byte(body), &tokens); err != nil {
			t.Fatal(err)
		}
		ada, _ := setup(t, h)
		me, _ := ada.me()
		for _, try := range []struct{ method, path, body string }{
			{"GET", "/v1/solutions/" + sol.ID, ""},
			{"POST", "/v1/tokens/" + tokens.Items[0].ID + "/revoke", ""},
			{"POST", "/v1/people/" + me.ID + "/remove", ""},
			{"POST", "/v1/people/" + me.ID + "/sign-out", ""},
			{"PUT", "/v1/people/" + me.ID + "/grants", `{"grants":[]}`},
			{"POST", "/v1/people", `{"name":"Eve","role":"auditor","solution":"` + sol.ID + `"}`},
		} {
			if status, body := blue.do(try.method, try.path, []byte(try.body)); status != 404 {
				t.Errorf("%s %s from another tenant: %d %s", try.method, try.path, status, body)
			}
		}
		for _, list := range []string{"/v1/solutions", "/v1/people", "/v1/tokens", "/v1/tenants"} {
			if _, body := blue.do("GET", list, nil); strings.Contains(body, "North") || strings.Contains(body, "Ada") || strings.Contains(body, "Acme") {
				t.Errorf("%s shows what another tenant has: %s", list, body)
			}
		}
	})
}

// TestEveryOperationByRole asks every operation of this room with a token of every role: the table decides, and nothing else.
func TestEveryOperationByRole(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		for _, role := range tenant.Roles {
			b := h.with(h.hostToken("Acme", string(role.Role)))
			for _, op := range h.api.Operations() {
				status, body := b.do(op.Method, strings.NewReplacer("{id}", "x_none").Replace(op.Path), nil)
				refused := status == http.StatusForbidden && strings.Contains(body, "access."+op.Verb)
				if may := role.Role.Has(tenant.Verb(op.Verb)); may == refused {
					t.Errorf("%s %s: %d, but the table says %v: %s", role.Role, op.ID, status, may, body)
				}
			}
		}
	})
}

// TestCustomerEndsAtTheSolution: a token on one solution sees that one, and nothing of the whole tenant.
func TestCustomerEndsAtTheSolution(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		owner := h.with(h.hostToken("Acme", "owner"))
		var north tenant.Solution
		_, body := owner.post("/v1/solutions", map[string]any{"name": "North"})
		if err := json.Unmarshal([]byte(body), &north); err != nil {
			t.Fatal(err)
		}
		owner.post("/v1/solutions", map[string]any{"name": "South"})
		if status, _ := owner.post("/v1/solutions", map[string]any{"name": "South"}); status != 409 {
			t.Errorf("a second solution of the name: %d", status)
		}
		_, body = owner.post("/v1/tokens", map[string]any{"name": "c", "role": "owner", "solution": north.ID, "expires": h.clk.Now().Add(time.Hour)})
		var made struct{ Token string }
		if err := json.Unmarshal([]byte(body), &made); err != nil {
			t.Fatal(err)
		}
		local := h.with(made.Token)
		if _, body := local.do("GET", "/v1/solutions", nil); !strings.Contains(body, "North") || strings.Contains(body, "South") {
			t.Errorf("solutions: %s", body)
		}
		if _, body := local.do("GET", "/v1/tokens", nil); strings.Count(body, `"id"`) != 1 {
			t.Errorf("tokens beyond the own one: %s", body)
		}
		if status, _ := local.post("/v1/tokens", map[string]any{"name": "c", "role": "auditor", "expires": h.clk.Now().Add(time.Minute)}); status != 403 {
			t.Errorf("gives beyond the solution: %d", status)
		}
		if status, body := local.post("/v1/tokens", map[string]any{"name": "c", "role": "auditor", "solution": north.ID, "expires": h.clk.Now().Add(time.Minute)}); status != 201 {
			t.Errorf("gives inside the solution: %d %s", status, body)
		}
	})
}

// TestNoPassword looks at every column of every table.
func TestNoPassword(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		query := `SELECT m.name, p.name FROM sqlite_master m JOIN pragma_table_info(m.name) p WHERE m.type = 'table'`
		if h.db.Engine() == store.Postgres {
			query = `SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema()`
		}
		rows, err := h.db.Query(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		columns := 0
		for rows.Next() {
			var table, column string
			if err := rows.Scan(&table, &column); err != nil {
				t.Fatal(err)
			}
			columns++
			for _, word := range []string{"pass", "pwd", "secret", "pin"} {
				if strings.Contains(column, word) {
					t.Errorf("%s.%s", table, column)
				}
			}
		}
		if err := rows.Err(); err != nil || columns < 30 {
			t.Errorf("%d columns seen: %v", columns, err)
		}
	})
}

func TestHost(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		b := h.browser()
		for _, c := range []struct {
			body string
			want int
		}{
			{`{"tenant":"Acme","role":"owner"}`, 404},
			{`{"tenant":"Acme","role":"god","create":true}`, 400},
			{`{"tenant":"","role":"owner","create":true}`, 400},
			{`{"tenant":"Acme","role":"owner","ttl_seconds":-1}`, 400},
			{`{"tenant":"Acme","role":"owner","ttl_seconds":9223372036854775807}`, 400},
			{`{"tenant":"Acme","role":"owner","sudo":true}`, 400},
			{`{"tenant":`, 400},
			{`{"tenant":"Acme","role":"auditor","ttl_seconds":60,"create":true}`, 200},
		} {
			if status, out := b.do("POST", "/host/token", []byte(c.body)); status != c.want {
				t.Errorf("%s: %d %s, want %d", c.body, status, out, c.want)
			}
		}
		status, body := b.post("/host/invite", map[string]any{"tenant": "Acme", "role": "owner", "name": "Ada"})
		var out struct{ Path string }
		if err := json.Unmarshal([]byte(body), &out); err != nil || status != 200 {
			t.Fatalf("invite: %d %s", status, body)
		}
		if status, body := h.browser().enter(out.Path, "Ada", "", newAuthenticator(t, h.srv.URL)); status != 200 {
			t.Errorf("a host's invitation: %d %s", status, body)
		}
	})
}
