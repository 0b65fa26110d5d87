// SPDX-License-Identifier: AGPL-3.0-only

package evidence_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/evidence"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

const code = "4K7TR-0AAAA-BBBBB-CCCCC-DDDDDD"

// labelled is the public page of one unit, asked by whoever.
func labelled(t *testing.T, u evidence.Unit, hand *clock.Hand) func(who tenant.Actor, method, path, body string) (int, string) {
	s := evidence.New(evidence.Config{Clock: hand,
		Unit: func(_ context.Context, c string) (evidence.Unit, error) {
			if c != code {
				return evidence.Unit{}, problem.NotFound("No device has this code.").At("code")
			}
			return u, nil
		},
		Runs: func(context.Context, evidence.Unit) (evidence.Running, error) {
			return evidence.Running{Version: "1.4.2", Open: []string{"CVE-2026-1"}, Newest: "1.5.0"}, nil
		}})
	var visitor tenant.Actor
	c := console.New(console.Config{Clock: hand, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), SignIn: "/sign-in", Holds: tenant.Holds,
		Authenticate: func(r *http.Request) (context.Context, error) {
			if visitor.ID == "" {
				return nil, problem.Unauthenticated("Sign in.")
			}
			return tenant.WithActor(r.Context(), visitor), nil
		}})
	s.Pages(c)
	return func(who tenant.Actor, method, path, body string) (int, string) {
		t.Helper()
		visitor = who
		r := httptest.NewRequest(method, "https://iot.example"+path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Referer", "https://iot.example/label")
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		b, err := io.ReadAll(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		return w.Code, w.Header().Get("Location") + string(b)
	}
}

func someone(ten, solution string, role tenant.Role) tenant.Actor {
	return tenant.Actor{ID: "per_1", Kind: tenant.KindPerson, Tenant: ten, Grants: []tenant.Grant{{Role: role, Tenant: ten, Solution: solution}}}
}

func lamp() evidence.Unit {
	return evidence.Unit{Thing: tenant.Thing{Tenant: "ten_a", Product: "prd_a", Solution: "sol_a"}, Device: "dev_secret",
		Maker: "Acme", Product: "Street lamp", Revision: "C", SupportEnd: time.Date(2031, 12, 31, 22, 59, 59, 0, time.UTC), Zone: time.FixedZone("", 3600),
		Advisories: []evidence.Notice{{Title: "Overflow in the radio", Href: "/csaf/x.html", At: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)}}}
}

// TestLabelSaysTheRunningVersionToItsClaimantOnly: whoever holds the code reads what the maker promises; what runs on the
// device is for those who may see the device.
func TestLabelSaysTheRunningVersionToItsClaimantOnly(t *testing.T) {
	ask := labelled(t, lamp(), clock.NewHand(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)))
	for name, who := range map[string]struct {
		actor tenant.Actor
		sees  bool
	}{
		"nobody": {}, "a rival": {actor: someone("ten_b", "", tenant.Owner)}, "a neighbour": {actor: someone("ten_a", "sol_b", tenant.Customer)},
		"its customer": {someone("ten_a", "sol_a", tenant.Customer), true}, "its maker": {someone("ten_a", "", tenant.FleetOperator), true},
	} {
		status, body := ask(who.actor, "GET", "/label?code="+code, "")
		if status != 200 {
			t.Fatalf("%s: %d %s", name, status, body)
		}
		for _, want := range []string{"Street lamp", "Acme", "Hardware C", "December 2031", "5 years and 1 month", "Overflow in the radio", `href="/csaf/x.html"`, `href="/claim?code=` + code} {
			if !strings.Contains(body, want) {
				t.Errorf("%s is not told %q:\n%s", name, want, body)
			}
		}
		for _, secret := range []string{"1.4.2", "1.5.0", "CVE-2026-1"} {
			if strings.Contains(body, secret) != who.sees {
				t.Errorf("%s is told %q: %v, should be %v", name, secret, !who.sees, who.sees)
			}
		}
		for _, never := range []string{"dev_secret", "prd_a", "ten_a", "sol_a"} {
			if strings.Contains(body, never) {
				t.Errorf("%s is told %q", name, never)
			}
		}
	}
	unclaimed := lamp()
	unclaimed.Thing.Solution = ""
	ask = labelled(t, unclaimed, clock.NewHand(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)))
	if _, body := ask(someone("ten_a", "", tenant.Owner), "GET", "/label?code="+code, ""); strings.Contains(body, "1.4.2") {
		t.Error("a device without a claimant says what runs on it")
	}
}

// TestLabelAfterTheEnd: the page says it plainly, in the zone of the declaration.
func TestLabelAfterTheEnd(t *testing.T) {
	hand := clock.NewHand(time.Date(2031, 12, 31, 22, 59, 58, 0, time.UTC))
	ask := labelled(t, lamp(), hand)
	if _, body := ask(tenant.Actor{}, "GET", "/label?code="+code, ""); !strings.Contains(body, "December 2031") || !strings.Contains(body, "less than a month") || strings.Contains(body, "Ended") {
		t.Errorf("a second before:\n%s", body)
	}
	hand.Advance(2 * time.Second)
	if _, body := ask(tenant.Actor{}, "GET", "/label?code="+code, ""); !strings.Contains(body, "Ended on 31 December 2031") {
		t.Errorf("a second after:\n%s", body)
	}
	u := lamp()
	u.SupportEnd = time.Time{}
	if _, body := labelled(t, u, hand)(tenant.Actor{}, "GET", "/label?code="+code, ""); !strings.Contains(body, "has not published yet how long") {
		t.Errorf("nothing published:\n%s", body)
	}
}

// TestLabelForm: the code is typed; what is no code is refused on the form, and an address that keeps trying is slowed down.
func TestLabelForm(t *testing.T) {
	hand := clock.NewHand(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))
	ask := labelled(t, lamp(), hand)
	if status, body := ask(tenant.Actor{}, "GET", "/label", ""); status != 200 || !strings.Contains(body, `name="code"`) {
		t.Fatalf("%d %s", status, body)
	}
	if status, to := ask(tenant.Actor{}, "POST", "/label", url.Values{"code": {" " + code}}.Encode()); status != 303 || !strings.HasPrefix(to, "/label?code="+code) {
		t.Errorf("%d %s", status, to)
	}
	if status, body := ask(tenant.Actor{}, "POST", "/label", "code=SN-1"); status != 404 || !strings.Contains(body, "No device has this code.") || !strings.Contains(body, `value="SN-1"`) {
		t.Errorf("a serial number: %d %s", status, body)
	}
	limited := 0
	for range 100 {
		if status, _ := ask(tenant.Actor{}, "GET", "/label?code=x", ""); status == 429 {
			limited++
		}
	}
	if limited < 50 || limited > 65 {
		t.Errorf("%d of 100 were refused", limited)
	}
	hand.Advance(time.Minute)
	if status, _ := ask(tenant.Actor{}, "GET", "/label?code="+code, ""); status != 200 {
		t.Errorf("a minute later: %d", status)
	}
}
