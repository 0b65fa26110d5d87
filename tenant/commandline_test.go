// SPDX-License-Identifier: AGPL-3.0-only

package tenant_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/tenant"
)

// waiting is a command line that has begun to wait for a person.
func waiting(t *testing.T, b *browser, origin string) (c tenant.CommandLine) {
	t.Helper()
	status, body := b.post(tenant.CommandLinePath+"/begin", map[string]string{"origin": origin})
	if err := json.Unmarshal([]byte(body), &c); status != 200 || err != nil {
		t.Fatalf("begin: %d %s", status, body)
	}
	return c
}

// asks is what a command line hears that wants its session.
func asks(t *testing.T, b *browser, c tenant.CommandLine) (e tenant.Entered, status int) {
	t.Helper()
	status, body := b.post(tenant.CommandLinePath+"/session", map[string]string{"secret": c.Secret})
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		t.Fatalf("session: %d %s", status, body)
	}
	return e, status
}

// types sends the form of the page and returns the status of the answer; one that was taken leads back to the page.
func types(t *testing.T, b *browser, code string) int {
	t.Helper()
	r, err := http.NewRequest("POST", b.h.srv.URL+tenant.CommandLinePath, strings.NewReader(url.Values{"code": {code}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if b.token != "" {
		r.Header.Set("Authorization", "Bearer "+b.token)
	}
	res, err := b.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}

func TestCommandLine(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		person, _ := setup(t, h)
		program := h.browser()
		c := waiting(t, program, "ada@laptop")
		if e, status := asks(t, program, c); status != 200 || e.Session != "" {
			t.Fatalf("before anybody typed the code: %d %+v", status, e)
		}
		if status := types(t, h.browser(), c.Code); status != 401 {
			t.Errorf("a stranger who types the code: %d", status)
		}
		if e, _ := asks(t, program, c); e.Session != "" {
			t.Fatal("a stranger let a command line in")
		}
		if status := types(t, person, "BBBB-BBBB"); status != 400 {
			t.Errorf("a wrong code: %d", status)
		}
		if status := types(t, person, " "+c.Code[:4]+c.Code[5:]); status != 303 {
			t.Fatalf("the code without its dash: %d", status)
		}
		if status := types(t, person, c.Code); status != 400 {
			t.Errorf("the code once more: %d", status)
		}
		e, status := asks(t, program, c)
		if status != 200 || e.Session == "" || e.Name != "Ada Lovelace" {
			t.Fatalf("after the code was typed: %d %+v", status, e)
		}
		if _, status := asks(t, program, c); status != 401 {
			t.Errorf("the session is told twice: %d", status)
		}
		shell := h.with(e.Session)
		if me, status := shell.me(); status != 200 || me.Kind != tenant.KindPerson || me.Name != "Ada Lovelace" {
			t.Errorf("me: %d %+v", status, me)
		}

		// It is no way to go on for ever: a command line lets no other in, nor does a token.
		other := waiting(t, program, "next")
		if status := types(t, shell, other.Code); status != 403 {
			t.Errorf("a command line that lets another in: %d", status)
		}
		if status, body := shell.do("POST", tenant.CommandLinePath+"/end", nil); status != 200 {
			t.Errorf("log out: %d %s", status, body)
		}
		if _, status := shell.me(); status != 401 {
			t.Errorf("after it logged out: %d", status)
		}
		if _, status := person.me(); status != 200 {
			t.Errorf("the person's own session after that: %d", status)
		}
	})
}

func TestCommandLineEnds(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		person, _ := setup(t, h)
		program := h.browser()
		late := waiting(t, program, "late")
		h.clk.Advance(10 * time.Minute)
		if status := types(t, person, late.Code); status != 400 {
			t.Errorf("a code after ten minutes: %d", status)
		}
		c := waiting(t, program, "in time")
		if status := types(t, person, c.Code); status != 303 {
			t.Fatalf("in time: %d", status)
		}
		e, _ := asks(t, program, c)
		h.clk.Advance(11 * time.Hour)
		if _, status := h.with(e.Session).me(); status != 200 {
			t.Errorf("after eleven hours: %d", status)
		}
		h.clk.Advance(time.Hour)
		if _, status := h.with(e.Session).me(); status != 401 {
			t.Errorf("after twelve hours: %d", status)
		}
	})
}
